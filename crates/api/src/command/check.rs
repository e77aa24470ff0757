//! `mundap check`.

use std::path::Path;

use clap::ValueEnum;
use mundap_infra::{BlobFolder, DatabaseSettings, SigningKeys};
use url::Url;

use super::{DATABASE_URL, Fault, data_dir, is_missing, print, store, unreachable};
use crate::mail;
use crate::settings::{Settings, show_quota};

/// Prints the settings in force, secrets hidden, and tries what they name.
pub(super) async fn check(settings: &Settings) -> Result<(), Fault> {
    let database = settings.database()?;
    let mailer = mail::mailer(settings, &settings.public_url(settings.http_addr))?;
    let shown = [
        ("MUNDAP_HTTP_ADDR", settings.http_addr.to_string()),
        ("MUNDAP_GRPC_ADDR", settings.grpc_addr.to_string()),
        ("MUNDAP_OPS_ADDR", settings.ops_addr.to_string()),
        ("MUNDAP_DATA_DIR", settings.data_dir.display().to_string()),
        (DATABASE_URL, database.target()),
        ("MUNDAP_DATABASE_MAX_CONNECTIONS", database.max_connections.to_string()),
        ("MUNDAP_DATABASE_ACQUIRE_TIMEOUT", format!("{:?}", database.acquire_timeout)),
        ("MUNDAP_DATABASE_STATEMENT_TIMEOUT", format!("{:?}", database.statement_timeout)),
        ("MUNDAP_DATABASE_SLOW_QUERY", format!("{:?}", database.slow_query())),
        ("MUNDAP_DATABASE_CAUSAL_READS", spelled(&settings.database_causal_reads)),
        ("MUNDAP_IDENTITY", spelled(&settings.identity)),
        ("MUNDAP_SIGNING_KEY_FILE", settings.signing_key_file().display().to_string()),
        ("MUNDAP_LOG", settings.log.clone()),
        (
            "MUNDAP_LOG_FORMAT",
            settings.log_format.as_ref().map_or_else(|| "text on a terminal, json elsewhere".to_owned(), spelled),
        ),
        ("MUNDAP_OTLP_ENDPOINT", settings.otlp()?.map_or_else(|| "none".to_owned(), |url| collector(&url))),
        ("MUNDAP_OTLP_SAMPLE", settings.otlp_sample.to_string()),
        ("MUNDAP_RATE_LIMIT", spelled(&settings.rate_limit)),
        ("MUNDAP_RATE_LIMIT_ANONYMOUS", show_quota(settings.rate_limit_anonymous)),
        ("MUNDAP_RATE_LIMIT_SIGN_IN", show_quota(settings.rate_limit_sign_in)),
        ("MUNDAP_RATE_LIMIT_ATTEMPTS", show_quota(settings.rate_limit_attempts)),
        ("MUNDAP_RATE_LIMIT_RENEWALS", show_quota(settings.rate_limit_renewals)),
        ("MUNDAP_RATE_LIMIT_READS", show_quota(settings.rate_limit_reads)),
        ("MUNDAP_RATE_LIMIT_WRITES", show_quota(settings.rate_limit_writes)),
        ("MUNDAP_RATE_LIMIT_LETTERS", show_quota(settings.rate_limit_letters)),
        ("MUNDAP_TRUSTED_PROXIES", listed(&settings.trusted_proxies)),
        ("MUNDAP_SMTP_URL", settings.smtp()?.map_or("none", |_| "***").to_owned()),
        ("MUNDAP_MAIL_FROM", settings.mail_from.clone().unwrap_or_else(|| "none".to_owned())),
        ("MUNDAP_CORS_ORIGINS", settings.cors_origins.join(",")),
        ("MUNDAP_PUBLIC_URL", settings.public_url(settings.http_addr)),
        ("MUNDAP_HTTP_BODY_LIMIT", settings.http_body_limit.to_string()),
        ("MUNDAP_IMAGE_QUOTA", settings.image_quota.to_string()),
        ("MUNDAP_HTTP_BODY_TIMEOUT", format!("{:?}", settings.http_body_timeout)),
        ("MUNDAP_HTTP_HEAD_TIMEOUT", format!("{:?}", settings.http_head_timeout)),
        ("MUNDAP_HTTP_KEEP_ALIVE", format!("{:?}", settings.http_keep_alive)),
        ("MUNDAP_HTTP_WRITE_TIMEOUT", format!("{:?}", settings.http_write_timeout)),
        ("MUNDAP_HTTP_CONNECTIONS", settings.http_connections.to_string()),
        ("MUNDAP_HTTP_CONNECTIONS_PER_ADDRESS", settings.http_connections_per_address.to_string()),
        ("MUNDAP_HTTP_REQUESTS", settings.http_requests.map_or_else(|| "64 a core".to_owned(), |n| n.to_string())),
        (
            "MUNDAP_HTTP_QUEUE",
            settings
                .http_queue
                .map_or_else(|| "twice as many, 16 times as many at first".to_owned(), |n| n.to_string()),
        ),
        ("MUNDAP_HTTP_QUEUE_TIMEOUT", format!("{:?}", settings.http_queue_timeout)),
        ("MUNDAP_HTTP_STREAMS", settings.http_streams.to_string()),
        ("MUNDAP_HTTP_REQUEST_TIMEOUT", format!("{:?}", settings.http_request_timeout)),
        ("MUNDAP_GRPC_CALLS_PER_CONNECTION", settings.grpc_calls_per_connection.to_string()),
        ("MUNDAP_GRPC_KEEP_ALIVE", format!("{:?}", settings.grpc_keep_alive)),
        ("MUNDAP_SHUTDOWN_DELAY", format!("{:?}", settings.shutdown_delay)),
        ("MUNDAP_SHUTDOWN_TIMEOUT", format!("{:?}", settings.shutdown_timeout)),
        ("MUNDAP_WORKERS", settings.workers.map_or_else(|| "one a core".to_owned(), |n| n.to_string())),
    ];
    for (name, value) in shown {
        print(&format!("{name}={value}"))?;
    }
    let is_new = is_missing(&settings.data_dir);
    data_dir(settings)?;
    tempfile_in(&settings.data_dir)?;
    let made = if is_new { "was made now, and " } else { "" };
    print(&format!("data folder: {} {made}can be written", settings.data_dir.display()))?;
    // To make what is missing would tell nobody that its path is wrong.
    let key = settings.signing_key_file();
    if is_missing(&key) {
        print(&not_yet("signing key", &key))?;
    } else {
        SigningKeys::load(&key)?;
        print("signing key: ok")?;
    }
    match database.file().filter(|file| is_missing(file)) {
        Some(file) => {
            print(&not_yet("database", &file))?;
            print(&format!("migrations: {} pending", mundap_migration::count()))?;
        }
        None => check_database(settings, &database).await?,
    }
    if let Some(mailer) = mailer {
        mailer.try_out().await.map_err(|error| Fault::Mail(error.reason))?;
        print("mail server: ok")?;
    }
    Ok(())
}

fn not_yet(what: &str, path: &Path) -> String {
    format!("{what}: {} is not there yet; the first start makes it", path.display())
}

async fn check_database(settings: &Settings, database: &DatabaseSettings) -> Result<(), Fault> {
    let store = store(settings).await?;
    print(&format!(
        "database: {}",
        store.describe().await.map_err(|error| unreachable(DATABASE_URL, database, &error))?
    ))?;
    let pending = mundap_migration::status(store.writer()).await?.iter().filter(|(_, applied)| !applied).count();
    print(&format!("migrations: {pending} pending"))?;
    if pending == 0 {
        let blobs = BlobFolder::new(settings.images_dir());
        let home = store.home(&blobs).await.map_err(|error| Fault::Other(error.into()))?;
        home.fault(blobs.root()).map_or(Ok(()), |fault| Err(Fault::LeftOver(fault)))?;
        print("image folder: ok")?;
    }
    store.close().await;
    Ok(())
}

/// Where the traces go, without user and password: one that is not percent-encoded ends where a path begins.
fn collector(url: &Url) -> String {
    let port = url.port().map_or_else(String::new, |port| format!(":{port}"));
    match url.host_str().filter(|_| !url.path().contains('@')) {
        Some(host) => format!("{}://{host}{port}{}", url.scheme(), url.path()),
        None => format!("{}://…", url.scheme()),
    }
}

fn listed(values: &[impl ToString]) -> String {
    if values.is_empty() {
        return "none".to_owned();
    }
    values.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// Whether a file can be made there.
fn tempfile_in(dir: &Path) -> Result<(), Fault> {
    let path = dir.join(format!(".check-{}", std::process::id()));
    let tried = std::fs::write(&path, b"").and_then(|()| std::fs::remove_file(&path));
    tried.map_err(|source| Fault::DataDir { path: dir.to_owned(), source })
}

/// As whoever sets it writes it.
fn spelled(value: &impl ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_is_shown_without_user_and_password() {
        for (url, expected) in [
            ("http://me:s3cret@collector:4318", "http://collector:4318/"),
            ("https://s3cret@collector/tenant", "https://collector/tenant"),
            ("http://me:12/s3cret@collector:4318", "http://…"),
        ] {
            assert_eq!(collector(&Url::parse(url).unwrap()), expected);
        }
    }
}
