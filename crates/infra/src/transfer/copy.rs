//! One database into another, of whichever kinds.
//!
//! Both are walked in the order of the keys, side by side: what the target lacks is inserted, what differs is set, what the
//! source has not is removed. So a copy that was interrupted goes on where it was, and one that is run again brings over
//! only what changed in between. At the end both are summed up anew, the source in a snapshot of its own.

use std::cmp::Ordering;

use sea_orm::{ConnectionTrait, DatabaseTransaction, DbErr, SqlErr};

use super::backup::migrations;
use super::lock::Lock;
use super::rows::{Changes, Rows, count, empty, first_that_holds_rows, go_on_from, next_id, remove, snapshot, sum};
use super::table::{Table, Value, tables};
use super::{COPY, Progress, TableSum, TransferError};
use crate::{DatabaseSettings, SeaStore};

/// What a copy came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copied {
    /// Of every table: the source's rows, and the target's.
    pub tables: Vec<(TableSum, TableSum)>,
    /// Rows that were written or removed; the others were there already.
    pub changed: u64,
}

/// Makes the target hold what the source holds. Image files are no part of it: they stay in their folder.
///
/// Where the source was written to meanwhile, the two differ at the end: that is an [`TransferError::Differ`], after which
/// the target is still not served, and running it again brings over the rest. Where they do not, the copy is finished; run
/// again, it compares the two, and changes nothing.
///
/// # Errors
/// [`TransferError`].
pub async fn copy(
    (source, from): (&SeaStore, &DatabaseSettings),
    (target, to): (&SeaStore, &DatabaseSettings),
    progress: &dyn Progress,
    report: impl FnMut(&TableSum, &TableSum),
) -> Result<Copied, TransferError> {
    if is_one(from, to) {
        return Err(TransferError::Same);
    }
    let names = migrations(source, "source database").await?;
    let lock = Lock::take(target, to).await?;
    let outcome = copy_and_compare(source, target, &names, progress, report).await;
    lock.release().await;
    outcome
}

/// Whether both are one database. Both were opened a moment ago.
fn is_one(from: &DatabaseSettings, to: &DatabaseSettings) -> bool {
    let file = |settings: &DatabaseSettings| settings.file().and_then(|path| path.canonicalize().ok());
    match (file(from), file(to)) {
        (Some(from), Some(to)) => from == to,
        _ => from.is_same_database(to),
    }
}

/// What [`copy`] does under the lock.
async fn copy_and_compare(
    source: &SeaStore,
    target: &SeaStore,
    names: &[String],
    progress: &dyn Progress,
    mut report: impl FnMut(&TableSum, &TableSum),
) -> Result<Copied, TransferError> {
    let db = target.writer();
    let goes_on = match mundap_migration::marked(db).await?.as_deref() {
        // It was migrated before it was marked; a newer version may know more by now.
        Some(COPY) if mundap_migration::is_below_mark(db, names).await? => true,
        Some(other) => return Err(TransferError::Otherwise(other.to_owned())),
        None => {
            if let Some(table) = first_that_holds_rows(target, &tables()).await? {
                return match finished(source, target, names, progress).await? {
                    Some(tables) => {
                        for (there, here) in &tables {
                            report(there, here);
                        }
                        Ok(Copied { tables, changed: 0 })
                    }
                    None => Err(TransferError::NotEmpty(table)),
                };
            }
            mundap_migration::up(db).await?;
            mundap_migration::mark(db, COPY).await?;
            false
        }
    };
    let board = snapshot(source).await?;
    let changed = reconcile(&board, source, target, progress).await.map_err(|error| match error.sql_err() {
        // Rows of one source are there together; what goes with them by its ids is no part of another.
        Some(SqlErr::ForeignKeyConstraintViolation(_) | SqlErr::UniqueConstraintViolation(_)) if goes_on => {
            TransferError::OtherSource
        }
        _ => error.into(),
    })?;
    board.rollback().await?;

    let sums = compare(source, target, progress).await?;
    for (there, here) in &sums {
        report(there, here);
    }
    let differ: Vec<String> =
        sums.iter().filter(|(there, here)| there != here).map(|(there, _)| there.table.clone()).collect();
    if !differ.is_empty() {
        return Err(TransferError::Differ(differ));
    }
    // Somebody may have tried out the target with a folder of its own: the next node that starts on it says which it is.
    Box::pin(target.forget_home()).await?;
    mundap_migration::unmark(db).await?;
    Ok(Copied { tables: sums, changed })
}

/// The rows of both, where the target is what a copy of this source leaves that is finished: the same to the last row.
async fn finished(
    source: &SeaStore,
    target: &SeaStore,
    names: &[String],
    progress: &dyn Progress,
) -> Result<Option<Vec<(TableSum, TableSum)>>, TransferError> {
    if !mundap_migration::is_below_mark(target.writer(), names).await? {
        return Ok(None);
    }
    // Most others are told from it by this.
    for table in tables() {
        if count(source.writer(), &table.name).await? != count(target.writer(), &table.name).await? {
            return Ok(None);
        }
    }
    let sums = compare(source, target, progress).await?;
    Ok(sums.iter().all(|(there, here)| there == here).then_some(sums))
}

/// The rows of both, summed up anew; those of the source in a snapshot of its own.
async fn compare(
    source: &SeaStore,
    target: &SeaStore,
    progress: &dyn Progress,
) -> Result<Vec<(TableSum, TableSum)>, TransferError> {
    let board = snapshot(source).await?;
    let mut sums = Vec::new();
    for table in tables() {
        progress.begin(&format!("checking {}", table.name), 2 * count(&board, &table.name).await?);
        let (there, here) = tokio::join!(sum(&board, &table, progress), sum(target.writer(), &table, progress));
        sums.push((there?, here?));
    }
    board.rollback().await?;
    Ok(sums)
}

/// Makes the target's rows those of `board`, and says how many had to be changed.
async fn reconcile(
    board: &DatabaseTransaction,
    source: &SeaStore,
    target: &SeaStore,
    progress: &dyn Progress,
) -> Result<u64, DbErr> {
    let mut changed = 0;
    // First what is too much, from the tables that refer to others on.
    for table in tables().iter().rev() {
        changed += make_room(board, target, table).await?;
    }
    for table in &tables() {
        progress.begin(&table.name, count(board, &table.name).await?);
        changed += bring(board, target, table, progress).await?;
        if table.counted {
            go_on_from(target, table, next_id(board, source.kind(), table).await?).await?;
        }
    }
    Ok(changed)
}

/// Removes the target's rows that the source has not, and says how many. Takes from the others what must be unique and is
/// another row's by now, wherever in the order of the keys that row comes.
async fn make_room(board: &impl ConnectionTrait, target: &SeaStore, table: &Table) -> Result<u64, DbErr> {
    let (mut there, mut here) = (Rows::of(board, table), Rows::of(target.writer(), table));
    let (mut extra, mut holders, mut removed) = (Vec::new(), Vec::new(), 0);
    let passed_on = table.passed_on();
    while let Some(row) = here.next().await? {
        let key = table.key_of(&row);
        while let Some(other) = there.peek().await? {
            if table.key_of(other) >= key {
                break;
            }
            there.next().await?;
        }
        match (there.peek().await?.filter(|other| table.key_of(other) == key), passed_on) {
            (None, _) => extra.push(row),
            (Some(other), Some(at)) if other.get(at) != row.get(at) && row.get(at) != Some(&Value::Null) => {
                holders.push(row);
            }
            (Some(_), _) => {}
        }
        if extra.len() >= 500 {
            removed += extra.len() as u64;
            remove(target, table, &std::mem::take(&mut extra)).await?;
        }
        if let (500.., Some(at)) = (holders.len(), passed_on) {
            empty(target, table, at, &std::mem::take(&mut holders)).await?;
        }
    }
    removed += extra.len() as u64;
    remove(target, table, &extra).await?;
    if let Some(at) = passed_on {
        empty(target, table, at, &holders).await?;
    }
    Ok(removed)
}

/// Inserts what the target lacks and sets what differs.
async fn bring(
    board: &impl ConnectionTrait,
    target: &SeaStore,
    table: &Table,
    progress: &dyn Progress,
) -> Result<u64, DbErr> {
    let (mut there, mut here) = (Rows::of(board, table), Rows::of(target.writer(), table));
    let (mut changes, mut count) = (Changes::of(target, table), 0);
    while let Some(row) = there.next().await? {
        let key = table.key_of(&row);
        let order = loop {
            // What is below was removed, or was brought a moment ago.
            match here.peek().await?.map(|other| table.key_of(other).cmp(&key)) {
                Some(Ordering::Less) => drop(here.next().await?),
                order => break order,
            }
        };
        if order == Some(Ordering::Equal) {
            if here.next().await?.as_ref() != Some(&row) {
                changes.update(row).await?;
                count += 1;
            }
        } else {
            changes.insert(row).await?;
            count += 1;
        }
        progress.step(1);
    }
    changes.apply().await?;
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_database_is_told_from_two() {
        let is_one = |from: &str, to: &str| is_one(&DatabaseSettings::new(from), &DatabaseSettings::new(to));
        let folder = tempfile::tempdir().unwrap();
        let [one, other, link] = ["one.db", "other.db", "link.db"].map(|name| folder.path().join(name));
        std::fs::write(&one, b"").unwrap();
        std::fs::write(&other, b"").unwrap();
        std::os::unix::fs::symlink(&one, &link).unwrap();
        let [one, other, link] = [one, other, link].map(|path| DatabaseSettings::url_of_file(&path));
        assert!(is_one(&one, &one) && is_one(&one, &link) && !is_one(&one, &other));
        assert!(is_one("mysql://qna:one@127.0.0.1/board", "mysql://qna:other@localhost:3306/board"));
        // Without a user, and with an @ in a parameter, what is shown of a URL is no more than its scheme.
        for (from, to) in [
            ("mysql://old/board", "mysql://new/board"),
            ("mysql://old/board", "mysql://old/other"),
            ("mysql://qna@old/board?ssl-ca=/etc/@/ca.pem", "mysql://qna@new/board?ssl-ca=/etc/@/ca.pem"),
        ] {
            assert!(!is_one(from, to), "{from} {to}");
        }
        assert!(!is_one(&one, "mysql://qna@old/board"));
    }
}
