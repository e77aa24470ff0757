//! A first look at a server, before any pool: a pool tries again, and then knows only that it took too long.

use std::net::IpAddr;

use sea_orm::sqlx::mysql::{MySqlConnectOptions, MySqlConnection, MySqlDatabaseError, MySqlSslMode};
use sea_orm::sqlx::{self, ConnectOptions as _, Connection as _, Executor as _};
use tokio::time::timeout;

use crate::DatabaseKind;
use crate::connect::{ConnectError, DatabaseSettings, server_options};

/// What a first look at a server tells.
pub(crate) struct Probed {
    pub(crate) kind: DatabaseKind,
    /// Whether it knows Galera's variables. That it is a node of a cluster now does not matter: it may become one while
    /// connections last, and until then the variables do nothing.
    pub(crate) may_cluster: bool,
    /// How to connect from now on.
    pub(crate) options: MySqlConnectOptions,
}

/// Connects once, or twice where the server turns out to be here.
pub(crate) async fn probe(
    settings: &DatabaseSettings,
    mut options: MySqlConnectOptions,
) -> Result<Probed, ConnectError> {
    let (version, may_cluster, is_here) = within_connect_timeout(settings, async {
        let mut connection = options.connect().await?;
        let (version, seen, port): (String, String, u64) =
            sqlx::query_as("SELECT VERSION(), USER(), CAST(@@port AS UNSIGNED)").fetch_one(&mut connection).await?;
        let variable = connection.fetch_optional("SHOW VARIABLES LIKE 'wsrep_sync_wait'").await?;
        connection.close().await?;
        Ok((version, variable.is_some(), is_here(&options, &seen, port)))
    })
    .await?;
    if is_here && says_nothing_of_encryption(&settings.url) {
        let plain = options.clone().ssl_mode(MySqlSslMode::Disabled);
        // The server may want it all the same, of this account or of all.
        if within_connect_timeout(settings, async { plain.connect().await?.close().await }).await.is_ok() {
            options = plain;
        }
    }
    let kind = if version.contains("MariaDB") { DatabaseKind::MariaDb } else { DatabaseKind::MySql };
    Ok(Probed { kind, may_cluster, options })
}

/// Whether nothing lies between this process and the server: each sees the other on a loopback address, and the port is the
/// server's own, not that of a proxy or a tunnel, which may go to another machine.
fn is_here(options: &MySqlConnectOptions, seen: &str, port: u64) -> bool {
    let from = seen.rsplit_once('@').map_or("", |(_, host)| host);
    is_loopback(options.get_host()) && is_loopback(from) && port == u64::from(options.get_port())
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

/// Whether the URL leaves it to us. Encryption costs a tenth to a fifth of what is read a second, and to listen on this machine's
/// loopback takes rights that its owner has given.
fn says_nothing_of_encryption(url: &str) -> bool {
    !url.split_once('?').is_some_and(|(_, parameters)| parameters.contains("ssl"))
}

/// One connection to a MySQL or MariaDB database that need not be a board.
pub(crate) async fn connect_once(settings: &DatabaseSettings) -> Result<MySqlConnection, ConnectError> {
    if !settings.url.starts_with("mysql:") && !settings.url.starts_with("mariadb:") {
        return Err(ConnectError::Url("it does not start with mysql:".to_owned()));
    }
    let options = server_options(settings)?;
    within_connect_timeout(settings, options.connect()).await
}

async fn within_connect_timeout<T>(
    settings: &DatabaseSettings,
    work: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, ConnectError> {
    let target = settings.target();
    let Ok(outcome) = timeout(settings.connect_timeout, work).await else {
        let waited = format!("nothing came within {} s", settings.connect_timeout.as_secs_f32());
        return Err(ConnectError::Unreachable(target, waited));
    };
    outcome.map_err(|error| {
        let number = match &error {
            sqlx::Error::Database(error) => error.try_downcast_ref().map(MySqlDatabaseError::number),
            _ => None,
        };
        let text = error.to_string();
        match number {
            Some(1044 | 1045 | 1698) => ConnectError::Refused(target, text),
            Some(1049) => ConnectError::NoDatabase(target, text),
            _ => ConnectError::Unreachable(target, text),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_here_where_nothing_lies_between() {
        for (url, seen, port, expected) in [
            ("mysql://qna@127.0.0.1:3307/qna", "qna@localhost", 3307, true),
            ("mysql://qna@localhost/qna", "qna@127.0.0.1", 3306, true),
            ("mysql://qna@127.0.0.2:3307/qna", "q@n@a@::1", 3307, true),
            // A proxy here to a server elsewhere, and to one that is here as well.
            ("mysql://qna@127.0.0.1:3306/qna", "qna@10.0.0.1", 3306, false),
            ("mysql://qna@127.0.0.1:3306/qna", "qna@localhost", 3307, false),
            // Another machine's proxy to its own server.
            ("mysql://qna@db:3306/qna", "qna@localhost", 3306, false),
            ("mysql://qna@10.0.0.1:3306/qna", "qna@10.0.0.2", 3306, false),
            ("mysql://qna@127.0.0.1:3306/qna", "", 3306, false),
        ] {
            assert_eq!(is_here(&url.parse().unwrap(), seen, port), expected, "{url} {seen} {port}");
        }
    }

    #[test]
    fn what_a_url_says_of_encryption_counts() {
        assert!(says_nothing_of_encryption("mysql://ssl:ssl@db/ssl?charset=utf8mb4"));
        assert!(says_nothing_of_encryption("mysql://qna@db/qna"));
        assert!(!says_nothing_of_encryption("mysql://qna@db/qna?charset=utf8mb4&ssl-mode=PREFERRED"));
        assert!(!says_nothing_of_encryption("mysql://qna@db/qna?sslca=/etc/ca.pem"));
    }
}
