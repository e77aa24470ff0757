//! What a driver's error means to the domain: the only place that turns a [`DbErr`] into a [`StoreError`].

use mundap_domain::StoreError;
use mundap_domain::error::Cause;
use sea_orm::sqlx::error::DatabaseError;
use sea_orm::sqlx::mysql::MySqlDatabaseError;
use sea_orm::sqlx::sqlite::SqliteError;
use sea_orm::{ConnAcquireErr, DbErr, RuntimeErr, SqlErr, sqlx};

/// The variant of [`StoreError`] that an error becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    Duplicate,
    MissingReference,
    Contention,
    Unavailable,
    Backend,
}

pub(crate) fn store_error(error: DbErr) -> StoreError {
    let meaning = meaning(&error);
    let cause: Cause = error.into();
    match meaning {
        Meaning::Duplicate => StoreError::Duplicate(cause),
        Meaning::MissingReference => StoreError::MissingReference(cause),
        Meaning::Contention => StoreError::Contention(cause),
        Meaning::Unavailable => StoreError::Unavailable(cause),
        Meaning::Backend => StoreError::Backend(cause),
    }
}

/// Whether it helps to try again in a moment.
pub(crate) fn is_contention(error: &sqlx::Error) -> bool {
    of_driver(error) == Meaning::Contention
}

/// Whether it looks as if the database were not there, or did not let anybody in. A disk that is full, a time limit of its
/// own, a node that only reads: there it answers, and what else is asked of it may succeed.
pub(crate) fn is_away(error: &DbErr) -> bool {
    let (DbErr::Conn(RuntimeErr::SqlxError(error))
    | DbErr::Exec(RuntimeErr::SqlxError(error))
    | DbErr::Query(RuntimeErr::SqlxError(error))) = error
    else {
        return matches!(error, DbErr::ConnectionAcquire(ConnAcquireErr::Timeout));
    };
    match &**error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(error) => mysql_number(&**error).is_some_and(is_away_number),
        _ => false,
    }
}

/// Whether it looks as if the connection had come to its end, as one does that its server or a proxy closed while nobody used it: a
/// new one may give what it did not. A connection that does not come about is no such.
pub(crate) fn has_ended(error: &DbErr) -> bool {
    let (DbErr::Exec(RuntimeErr::SqlxError(error)) | DbErr::Query(RuntimeErr::SqlxError(error))) = error else {
        return false;
    };
    match &**error {
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => true,
        // 1047 a Galera node without its cluster: a proxy leads to another one. 1053 shutting down. 1927, 4031: closed by the server.
        sqlx::Error::Database(error) => {
            mysql_number(&**error).is_some_and(|number| matches!(number, 1047 | 1053 | 1927 | 2006 | 2013 | 4031))
        }
        _ => false,
    }
}

/// As [`has_ended`], of what became of it.
pub(crate) fn is_of_ended(error: &StoreError) -> bool {
    let StoreError::Unavailable(cause) = error else { return false };
    cause.downcast_ref().is_some_and(has_ended)
}

/// Of those that [`of_mysql`] calls unavailable.
fn is_away_number(number: u16) -> bool {
    matches!(number, 1040 | 1042..=1045 | 1047 | 1049 | 1053 | 1158..=1161 | 1203 | 2006 | 2013)
}

fn meaning(error: &DbErr) -> Meaning {
    if let Some(violation) = error.sql_err() {
        return match violation {
            SqlErr::UniqueConstraintViolation(_) => Meaning::Duplicate,
            SqlErr::ForeignKeyConstraintViolation(_) => Meaning::MissingReference,
            _ => Meaning::Backend,
        };
    }
    match error {
        DbErr::ConnectionAcquire(ConnAcquireErr::Timeout | ConnAcquireErr::ConnectionClosed) => Meaning::Unavailable,
        DbErr::Exec(RuntimeErr::SqlxError(error)) | DbErr::Query(RuntimeErr::SqlxError(error)) => of_driver(error),
        // No connection came about: whatever the server said, it is not there for us.
        DbErr::Conn(RuntimeErr::SqlxError(error)) => match of_driver(error) {
            Meaning::Contention => Meaning::Contention,
            Meaning::Duplicate | Meaning::MissingReference | Meaning::Unavailable | Meaning::Backend => {
                Meaning::Unavailable
            }
        },
        _ => Meaning::Backend,
    }
}

fn of_driver(error: &sqlx::Error) -> Meaning {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        // The driver read something that is no answer: the connection broke in the middle of one.
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => Meaning::Unavailable,
        sqlx::Error::Database(error) => {
            if let Some(number) = mysql_number(&**error) {
                of_mysql(number)
            } else if error.try_downcast_ref::<SqliteError>().is_some() {
                of_sqlite(error.code().and_then(|code| code.parse().ok()).unwrap_or_default())
            } else {
                Meaning::Backend
            }
        }
        _ => Meaning::Backend,
    }
}

/// The number that MySQL and MariaDB know an error by; none of SQLite's.
fn mysql_number(error: &dyn DatabaseError) -> Option<u16> {
    error.try_downcast_ref().map(MySqlDatabaseError::number)
}

fn of_mysql(number: u16) -> Meaning {
    match number {
        // 1020 the row changed since it was read (MariaDB, Galera), 1205 lock wait time limit, 1213 deadlock.
        1020 | 1205 | 1213 => Meaning::Contention,
        // 1040, 1203: too many connections. 1042, 1043, 1158-1161, 2006, 2013: the connection broke.
        // 1045, 1044, 1049: turned away where it was let in before.
        1040 | 1042 | 1043 | 1044 | 1045 | 1049 | 1158..=1161 | 1203 | 2006 | 2013
        // 1047 a Galera node without its cluster. 1053 shutting down. 1290, 1836: read-only, as during a failover.
        | 1047 | 1053 | 1290 | 1836
        // 1317, 1927, 3168, 4031: interrupted or killed. 1180 error in a commit, its outcome unknown.
        | 1180 | 1317 | 1927 | 3168 | 4031
        // 1969, 3024: the statement's time limit, of MariaDB and of MySQL.
        | 1969 | 3024
        // 1021, 1026, 1114: disk full.
        | 1021 | 1026 | 1114 => Meaning::Unavailable,
        _ => Meaning::Backend,
    }
}

/// The low byte is the kind of error, the rest of the code says more of it: 261 and 517 are kinds of BUSY.
fn of_sqlite(code: u32) -> Meaning {
    match code & 0xff {
        // BUSY, LOCKED
        5 | 6 => Meaning::Contention,
        // IOERR, FULL, CANTOPEN. A full disk is not our fault and passes: 503, and reads go on.
        10 | 13 | 14 => Meaning::Unavailable,
        _ => Meaning::Backend,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqlite_codes() {
        for (code, expected) in [
            (5, Meaning::Contention),
            (6, Meaning::Contention),
            (261, Meaning::Contention),
            (517, Meaning::Contention),
            (13, Meaning::Unavailable),
            (778, Meaning::Unavailable),
            (14, Meaning::Unavailable),
            (1, Meaning::Backend),
            (11, Meaning::Backend),
            (8, Meaning::Backend),
            (0, Meaning::Backend),
        ] {
            assert_eq!(of_sqlite(code), expected, "{code}");
        }
    }

    #[test]
    fn mysql_codes() {
        for (code, expected) in [
            (1020, Meaning::Contention),
            (1205, Meaning::Contention),
            (1213, Meaning::Contention),
            (1040, Meaning::Unavailable),
            (1047, Meaning::Unavailable),
            (1053, Meaning::Unavailable),
            (1114, Meaning::Unavailable),
            (1969, Meaning::Unavailable),
            (2006, Meaning::Unavailable),
            (2013, Meaning::Unavailable),
            (3024, Meaning::Unavailable),
            (1064, Meaning::Backend),
            (1146, Meaning::Backend),
            (1406, Meaning::Backend),
        ] {
            assert_eq!(of_mysql(code), expected, "{code}");
        }
    }

    #[test]
    fn a_database_that_answers_is_not_away() {
        let driver = |error: sqlx::Error| RuntimeErr::SqlxError(error.into());
        for error in [
            DbErr::ConnectionAcquire(ConnAcquireErr::Timeout),
            DbErr::Exec(driver(sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into()))),
            DbErr::Conn(driver(sqlx::Error::Io(std::io::ErrorKind::ConnectionRefused.into()))),
            DbErr::Query(driver(sqlx::Error::WorkerCrashed)),
        ] {
            assert!(is_away(&error), "{error:?}");
        }
        for error in [
            DbErr::RecordNotInserted,
            DbErr::Query(driver(sqlx::Error::RowNotFound)),
            // The store was closed.
            DbErr::ConnectionAcquire(ConnAcquireErr::ConnectionClosed),
        ] {
            assert!(!is_away(&error), "{error:?}");
        }
        for number in [1040, 1047, 1053, 2006, 2013] {
            assert!(is_away_number(number) && of_mysql(number) == Meaning::Unavailable, "{number}");
        }
        // Disk full, read-only, interrupted, a time limit of its own; then contention, and the rest.
        for number in [1021, 1026, 1114, 1180, 1290, 1836, 1317, 1969, 3024, 1020, 1205, 1213, 1062, 1064] {
            assert!(!is_away_number(number), "{number}");
        }
    }

    #[test]
    fn a_full_or_closed_pool_and_a_broken_connection_are_unavailable() {
        let driver = |error: sqlx::Error| RuntimeErr::SqlxError(error.into());
        let broken = || driver(sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into()));
        for error in [
            DbErr::ConnectionAcquire(ConnAcquireErr::Timeout),
            DbErr::ConnectionAcquire(ConnAcquireErr::ConnectionClosed),
            DbErr::Exec(broken()),
            DbErr::Query(broken()),
            DbErr::Conn(broken()),
            DbErr::Query(driver(sqlx::Error::WorkerCrashed)),
        ] {
            assert_eq!(meaning(&error), Meaning::Unavailable, "{error:?}");
        }
    }
}
