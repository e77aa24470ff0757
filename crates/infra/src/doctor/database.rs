//! The database itself.

use chrono::{NaiveDateTime, TimeDelta};
use mundap_domain::StoreError;
use mundap_domain::env::{Clock as _, Timestamp};
use mundap_migration::MigrationError;

use super::{Doctor, DoctorError, Finding};
use crate::failure::store_error;
use crate::{DatabaseKind, SystemClock};

/// How far the clocks of a board and its database may be apart.
const SKEW: TimeDelta = TimeDelta::seconds(2);

impl Doctor<'_> {
    /// Whether the schema is this program's, so that the rest can be looked at.
    pub(super) async fn schema(&mut self) -> Result<bool, DoctorError> {
        let pending = match mundap_migration::status(self.store().looking()).await {
            Ok(all) => all.iter().filter(|(_, applied)| !applied).count(),
            Err(error @ (MigrationError::Unfinished(_) | MigrationError::Newer(_) | MigrationError::Foreign(_))) => {
                self.tell(&Finding::new(
                    "schema",
                    format!("{error}; nothing else of the board can be looked at before"),
                ));
                return Ok(false);
            }
            Err(error) => return Err(DoctorError::Schema(error.into())),
        };
        if pending > 0 {
            let what = format!("{pending} changes are pending: run `mundap migrate up`, and look at the rest then");
            self.tell(&Finding::new("schema", what));
        }
        Ok(pending == 0)
    }

    /// What SQLite says of its file, or what a server says of the time.
    pub(super) async fn database(&mut self) -> Result<(), DoctorError> {
        match self.store().kind {
            DatabaseKind::Sqlite => self.file().await?,
            DatabaseKind::MariaDb | DatabaseKind::MySql => self.clock().await?,
        }
        Ok(())
    }

    async fn file(&mut self) -> Result<(), StoreError> {
        // The quick one does not hold the indexes against the rows.
        let check = if self.examination.quick { "PRAGMA quick_check" } else { "PRAGMA integrity_check" };
        for row in self.ask(check.to_owned(), []).await? {
            let word: String = row.try_get_by_index(0).map_err(store_error)?;
            if word != "ok" {
                // What is counted by a damaged index is no count.
                self.examination.repair = false;
                let todo = "restore a backup, or try SQLite's .recover; nothing is mended in a damaged file";
                self.tell(&Finding::new("database", format!("{}; {todo}", word.replace('\n', " "))));
            }
        }
        Ok(())
    }

    async fn clock(&mut self) -> Result<(), StoreError> {
        let before = SystemClock.now();
        let rows = self.ask("SELECT UTC_TIMESTAMP(6)".to_owned(), []).await?;
        let after = SystemClock.now();
        for row in rows {
            let there: NaiveDateTime = row.try_get_by_index(0).map_err(store_error)?;
            if let Some(finding) = skewed(before, Timestamp::new(there.and_utc()), after) {
                self.tell(&finding);
            }
        }
        Ok(())
    }
}

/// What is said of a database's clock that was read between `before` and `after`.
fn skewed(before: Timestamp, there: Timestamp, after: Timestamp) -> Option<Finding> {
    let by = if there < before {
        there.as_utc() - before.as_utc()
    } else if there > after {
        there.as_utc() - after.as_utc()
    } else {
        TimeDelta::zero()
    };
    (by.abs() > SKEW).then(|| {
        let ahead = if by > TimeDelta::zero() { "ahead of" } else { "behind" };
        let seconds = by.abs().num_seconds();
        Finding::new("clock", format!("the database's is {seconds} s {ahead} this machine's: let both be set by NTP"))
    })
}

#[cfg(test)]
mod tests {
    use mundap_domain::testing::noon;

    use super::*;

    #[test]
    fn a_clock_that_is_far_away_is_told() {
        let at = |milliseconds| noon().plus(TimeDelta::milliseconds(milliseconds));
        let by = |there| skewed(at(0), at(there), at(1_000)).map(|finding| finding.what);
        for near in [-2_000, 0, 500, 1_000, 3_000] {
            assert_eq!(by(near), None, "{near}");
        }
        assert!(by(-2_001).unwrap().starts_with("the database's is 2 s behind"));
        assert!(by(8_000).unwrap().starts_with("the database's is 7 s ahead of"));
    }
}
