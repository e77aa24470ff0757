//! Every setting, its default and its environment name: one place, read once at start.
//!
//! A setting is a flag of `mundap` with an environment variable beside it; the flag wins. Names and defaults are the
//! contract's.

mod value;

use std::error::Error as _;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::error::{ContextKind, ContextValue};
use clap::{Args, CommandFactory as _, Parser, ValueEnum};
use ipnet::IpNet;
use mundap_domain::rate::{Quota, Quotas};
use mundap_infra::DatabaseSettings;
use secrecy::{ExposeSecret as _, SecretString};

use crate::command::Command;

pub(crate) use value::{DAY, within};
use value::{HOUR, MINUTE, MS};
pub use value::{Listen, show_quota};
use value::{address, origin, public_url, quota, share, whole_seconds};

/// A Q&A board beside your product.
#[derive(Debug, Parser)]
#[command(name = "mundap", version, about, long_about = None, max_term_width = 110)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub settings: Settings,
}

/// Who is calling on the five endpoints of the first program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Identity {
    /// The bearer token says it.
    Token,
    /// The e-mail in the body says it: for a closed network, or behind a proxy that proves who is calling.
    TrustedEmail,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    On,
    Off,
}

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Settings")]
pub struct Settings {
    /// REST and the documentation pages
    #[arg(long, global = true, env = "MUNDAP_HTTP_ADDR", value_name = "ADDR", default_value = "127.0.0.1:8000",
          value_parser = address)]
    pub http_addr: SocketAddr,

    /// gRPC; `off` turns it off
    #[arg(long, global = true, env = "MUNDAP_GRPC_ADDR", value_name = "ADDR|off", default_value = "127.0.0.1:8001")]
    pub grpc_addr: Listen,

    /// /livez, /readyz and /metrics; keep it away from the public
    #[arg(long, global = true, env = "MUNDAP_OPS_ADDR", value_name = "ADDR", default_value = "127.0.0.1:8002",
          value_parser = address)]
    pub ops_addr: SocketAddr,

    /// The embedded database, image files, and the signing key made at first start
    #[arg(long, global = true, env = "MUNDAP_DATA_DIR", value_name = "DIR", default_value = "./mundap-data")]
    pub data_dir: PathBuf,

    /// `sqlite://PATH` or `mysql://USER:PASSWORD@HOST:PORT/NAME` [default: a SQLite file in the data folder]
    #[arg(long, global = true, env = "MUNDAP_DATABASE_URL", value_name = "URL", hide_env_values = true)]
    pub database_url: Option<SecretString>,

    /// A file that holds the database URL
    #[arg(long, global = true, env = "MUNDAP_DATABASE_URL_FILE", value_name = "FILE")]
    pub database_url_file: Option<PathBuf>,

    /// The most connections to hold to the database [default: chosen for the database]
    #[arg(long, global = true, env = "MUNDAP_DATABASE_MAX_CONNECTIONS", value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub database_max_connections: Option<u32>,

    /// How long a request waits for a connection before it is answered 503
    #[arg(long, global = true, env = "MUNDAP_DATABASE_ACQUIRE_TIMEOUT", value_name = "TIME",
          default_value = "500ms", value_parser = within(50 * MS, MINUTE))]
    pub database_acquire_timeout: Duration,

    /// How long one statement may run, waiting for its connection included
    #[arg(long, global = true, env = "MUNDAP_DATABASE_STATEMENT_TIMEOUT", value_name = "TIME",
          default_value = "1500ms", value_parser = within(100 * MS, HOUR))]
    pub database_statement_timeout: Duration,

    /// How long a statement may take before the log names it [default: half the statement's time]
    #[arg(long, global = true, env = "MUNDAP_DATABASE_SLOW_QUERY", value_name = "TIME",
          value_parser = within(Duration::ZERO, HOUR))]
    pub database_slow_query: Option<Duration>,

    /// On a Galera cluster, whether every node shows what any other has acknowledged; off saves a moment of each read
    #[arg(long, global = true, env = "MUNDAP_DATABASE_CAUSAL_READS", value_name = "SWITCH", default_value = "on")]
    pub database_causal_reads: Switch,

    /// Who is calling on the five endpoints of the first program
    #[arg(long, global = true, env = "MUNDAP_IDENTITY", value_name = "MODE", default_value = "token")]
    pub identity: Identity,

    /// The token signing key, the same file on every node [default: signing-key.pem in the data folder]
    #[arg(long, global = true, env = "MUNDAP_SIGNING_KEY_FILE", value_name = "FILE")]
    pub signing_key_file: Option<PathBuf>,

    /// What to log: a level, or a tracing filter such as `info,mundap=debug`
    #[arg(long, global = true, env = "MUNDAP_LOG", value_name = "FILTER", default_value = "info")]
    pub log: String,

    /// How to log [default: text on a terminal, else json]
    #[arg(long, global = true, env = "MUNDAP_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,

    /// The collector that traces go to, by OTLP over HTTP, such as `http://localhost:4318` [default:
    /// `OTEL_EXPORTER_OTLP_ENDPOINT`, else no traces]
    #[arg(long, global = true, env = "MUNDAP_OTLP_ENDPOINT", value_name = "URL", hide_env_values = true)]
    pub otlp_endpoint: Option<SecretString>,

    /// The share of traces that begin here to collect, from 0 to 1; whoever calls decides on theirs
    #[arg(long, global = true, env = "MUNDAP_OTLP_SAMPLE", value_name = "SHARE", default_value_t = 1.0,
          value_parser = share)]
    pub otlp_sample: f64,

    /// Rate limits; off for tests and benchmarks
    #[arg(long, global = true, env = "MUNDAP_RATE_LIMIT", value_name = "SWITCH", default_value = "on")]
    pub rate_limit: Switch,

    /// Requests without a token, for one client address
    #[arg(long, global = true, env = "MUNDAP_RATE_LIMIT_ANONYMOUS", value_name = "N/TIME", default_value = "300/1m",
          value_parser = quota)]
    pub rate_limit_anonymous: Quota,

    /// Signing in, registering and asking for mail, for one client address
    #[arg(long, global = true, env = "MUNDAP_RATE_LIMIT_SIGN_IN", value_name = "N/TIME", default_value = "20/1m",
          value_parser = quota)]
    pub rate_limit_sign_in: Quota,

    /// Wrong passwords, for one account
    #[arg(long, global = true, env = "MUNDAP_RATE_LIMIT_ATTEMPTS", value_name = "N/TIME", default_value = "10/15m",
          value_parser = quota)]
    pub rate_limit_attempts: Quota,

    /// Renewing and revoking tokens, for one client address
    #[arg(long, global = true, env = "MUNDAP_RATE_LIMIT_RENEWALS", value_name = "N/TIME", default_value = "120/1m",
          value_parser = quota)]
    pub rate_limit_renewals: Quota,

    /// Reading, for one account
    #[arg(long, global = true, env = "MUNDAP_RATE_LIMIT_READS", value_name = "N/TIME", default_value = "600/1m",
          value_parser = quota)]
    pub rate_limit_reads: Quota,

    /// Writing, for one account
    #[arg(long, global = true, env = "MUNDAP_RATE_LIMIT_WRITES", value_name = "N/TIME", default_value = "60/1m",
          value_parser = quota)]
    pub rate_limit_writes: Quota,

    /// Letters that are asked for, to one e-mail and by one account
    #[arg(long, global = true, env = "MUNDAP_RATE_LIMIT_LETTERS", value_name = "N/TIME", default_value = "5/15m",
          value_parser = quota)]
    pub rate_limit_letters: Quota,

    /// Proxies whose `X-Forwarded-For` or `Forwarded` is believed: addresses and networks, comma-separated
    #[arg(long, global = true, env = "MUNDAP_TRUSTED_PROXIES", value_name = "NETWORKS", value_delimiter = ',',
          value_parser = crate::client::network)]
    pub trusted_proxies: Vec<IpNet>,

    /// The mail server: `smtps://USER:PASSWORD@HOST`, or `smtp://…` with `?tls=required` for STARTTLS
    #[arg(long, global = true, env = "MUNDAP_SMTP_URL", value_name = "URL", hide_env_values = true)]
    pub smtp_url: Option<SecretString>,

    /// A file that holds the mail server's URL
    #[arg(long, global = true, env = "MUNDAP_SMTP_URL_FILE", value_name = "FILE")]
    pub smtp_url_file: Option<PathBuf>,

    /// The sender of mail, such as `Mundap <board@example.com>`; needed with a mail server
    #[arg(long, global = true, env = "MUNDAP_MAIL_FROM", value_name = "ADDRESS")]
    pub mail_from: Option<String>,

    /// Origins that browsers may call from, comma-separated
    #[arg(long, global = true, env = "MUNDAP_CORS_ORIGINS", value_name = "ORIGINS", value_delimiter = ',',
          value_parser = origin)]
    pub cors_origins: Vec<String>,

    /// The address that clients know the board by, for links and tokens [default: from --http-addr]
    #[arg(long, global = true, env = "MUNDAP_PUBLIC_URL", value_name = "URL", value_parser = public_url)]
    pub public_url: Option<url::Url>,

    /// The most bytes that a JSON or form body may have
    #[arg(long, global = true, env = "MUNDAP_HTTP_BODY_LIMIT", value_name = "BYTES", default_value_t = 512 * 1024)]
    pub http_body_limit: usize,

    /// The most bytes that one member's images may have together
    #[arg(long, global = true, env = "MUNDAP_IMAGE_QUOTA", value_name = "BYTES", default_value_t = 100 * 1024 * 1024)]
    pub image_quota: u64,

    /// How long a body may take to arrive
    #[arg(long, global = true, env = "MUNDAP_HTTP_BODY_TIMEOUT", value_name = "TIME",
          default_value = "10s", value_parser = within(10 * MS, HOUR))]
    pub http_body_timeout: Duration,

    /// How long the head of a request may take to arrive, from the connection's start
    #[arg(long, global = true, env = "MUNDAP_HTTP_HEAD_TIMEOUT", value_name = "TIME",
          default_value = "5s", value_parser = within(10 * MS, HOUR))]
    pub http_head_timeout: Duration,

    /// How long a connection may lie idle between two requests
    #[arg(long, global = true, env = "MUNDAP_HTTP_KEEP_ALIVE", value_name = "TIME",
          default_value = "15s", value_parser = within(100 * MS, HOUR))]
    pub http_keep_alive: Duration,

    /// How long a client may leave an answer unread
    #[arg(long, global = true, env = "MUNDAP_HTTP_WRITE_TIMEOUT", value_name = "TIME",
          default_value = "15s", value_parser = within(10 * MS, HOUR))]
    pub http_write_timeout: Duration,

    /// The most connections that are open at once; more wait to be accepted
    #[arg(long, global = true, env = "MUNDAP_HTTP_CONNECTIONS", value_name = "N", default_value_t = 20_000,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub http_connections: u32,

    /// The most connections of one address; trusted proxies and this machine have as many as they want
    #[arg(long, global = true, env = "MUNDAP_HTTP_CONNECTIONS_PER_ADDRESS", value_name = "N", default_value_t = 256,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub http_connections_per_address: u32,

    /// The most requests that are worked on at once, half of which may write [default: 64 a core]
    #[arg(long, global = true, env = "MUNDAP_HTTP_REQUESTS", value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub http_requests: Option<u32>,

    /// How many more wait for their turn; who comes then is answered 503 at once [default: twice as many, and
    /// 16 times as many where they have waited for less than a second]
    #[arg(long, global = true, env = "MUNDAP_HTTP_QUEUE", value_name = "N")]
    pub http_queue: Option<u32>,

    /// How long a request waits for its turn before it is answered 503
    #[arg(long, global = true, env = "MUNDAP_HTTP_QUEUE_TIMEOUT", value_name = "TIME",
          default_value = "250ms", value_parser = within(Duration::ZERO, MINUTE))]
    pub http_queue_timeout: Duration,

    /// The most answers of all questions, or of all that is kept of somebody, that are sent at once
    #[arg(long, global = true, env = "MUNDAP_HTTP_STREAMS", value_name = "N", default_value_t = 32,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub http_streams: u32,

    /// How long a request may take, the arrival of its body not counted, before it is answered 503
    #[arg(long, global = true, env = "MUNDAP_HTTP_REQUEST_TIMEOUT", value_name = "TIME",
          default_value = "5s", value_parser = within(100 * MS, HOUR))]
    pub http_request_timeout: Duration,

    /// The most calls that one gRPC connection may make at once
    #[arg(long, global = true, env = "MUNDAP_GRPC_CALLS_PER_CONNECTION", value_name = "N", default_value_t = 100,
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub grpc_calls_per_connection: u32,

    /// How long a gRPC connection may lie idle between two calls
    #[arg(long, global = true, env = "MUNDAP_GRPC_KEEP_ALIVE", value_name = "TIME",
          default_value = "5m", value_parser = within(100 * MS, DAY))]
    pub grpc_keep_alive: Duration,

    /// How long to go on accepting connections after SIGTERM while /readyz says 503, for load balancers to notice
    #[arg(long, global = true, env = "MUNDAP_SHUTDOWN_DELAY", value_name = "TIME",
          default_value = "0s", value_parser = within(Duration::ZERO, DAY))]
    pub shutdown_delay: Duration,

    /// How long requests in flight may take to finish after SIGTERM and the delay
    #[arg(long, global = true, env = "MUNDAP_SHUTDOWN_TIMEOUT", value_name = "TIME",
          default_value = "20s", value_parser = whole_seconds)]
    pub shutdown_timeout: Duration,

    /// Threads that serve requests [default: one a core]
    #[arg(long, global = true, env = "MUNDAP_WORKERS", value_name = "N",
          value_parser = clap::value_parser!(u16).range(1..=512))]
    pub workers: Option<u16>,
}

/// A setting that cannot be used; one line that says what to change.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error("{name} is not a setting{}", nearest.as_ref().map_or_else(String::new, |near| format!("; did you mean {near}?")))]
    Unknown { name: String, nearest: Option<String> },
    #[error("both {0} and {0}_FILE are set; keep one of them")]
    Twice(&'static str),
    #[error("cannot read {}, which {name}_FILE names: {source}", path.display())]
    File { name: &'static str, path: PathBuf, source: std::io::Error },
    #[error("the .env file in this folder cannot be read: {0}")]
    DotEnv(String),
    #[error("{name} (--{flag}) cannot be \"{value}\": {reason}")]
    BadValue { name: String, flag: String, value: String, reason: String },
    #[error("{name}: {reason}")]
    Value { name: &'static str, reason: String },
}

impl Cli {
    /// Reads `.env`, the environment and the arguments, in rising order of precedence. Ends the process with code 2 and
    /// a line of help where the arguments are wrong, and with 0 after `--help`.
    ///
    /// # Errors
    /// An unknown `MUNDAP_` variable.
    pub fn read() -> Result<Self, SettingsError> {
        match dotenvy::from_path(".env") {
            Ok(()) => {}
            Err(error) if error.not_found() => {}
            Err(error) => return Err(SettingsError::DotEnv(value::env_file_fault(Path::new(".env"), &error))),
        }
        refuse_unknown(std::env::vars_os().map(|(name, _)| name))?;
        Self::try_parse().map_err(|error| bad_value(&error).unwrap_or_else(|| error.exit()))
    }
}

/// The setting that has this value, by the name that most set it by. `None` for any other error of the command line.
fn bad_value(error: &clap::Error) -> Option<SettingsError> {
    let said = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => Some(texts.join(", ")),
        _ => None,
    };
    let flag = said(ContextKind::InvalidArg)?.strip_prefix("--")?.split(' ').next()?.to_owned();
    let command = Cli::command();
    let name =
        command.get_arguments().find(|arg| arg.get_long() == Some(&flag))?.get_env()?.to_string_lossy().into_owned();
    let reason = match error.source() {
        Some(reason) => reason.to_string(),
        None => format!("it must be one of {}", said(ContextKind::ValidValue)?),
    };
    let value = said(ContextKind::InvalidValue)?;
    Some(SettingsError::BadValue { name, flag, value, reason })
}

/// A variable that starts with `MUNDAP_` and is no setting is a typing error that would otherwise go unnoticed.
fn refuse_unknown(names: impl Iterator<Item = OsString>) -> Result<(), SettingsError> {
    let command = Cli::command();
    let known: Vec<String> = command
        .get_arguments()
        .filter_map(|arg| arg.get_env())
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    for name in names {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("MUNDAP_") && !name.starts_with("MUNDAP_TEST_") && !known.contains(&name) {
            let distance = |other: &&String| strsim::damerau_levenshtein(&name, other);
            let nearest = known.iter().min_by_key(distance).cloned();
            return Err(SettingsError::Unknown { name, nearest });
        }
    }
    Ok(())
}

impl Settings {
    /// # Errors
    /// Where the URL's file cannot be read, or is there beside the URL itself.
    pub fn database(&self) -> Result<DatabaseSettings, SettingsError> {
        let given = secret("MUNDAP_DATABASE_URL", self.database_url.as_ref(), self.database_url_file.as_deref())?;
        let url = given.unwrap_or_else(|| DatabaseSettings::url_of_file(&self.data_dir.join("mundap.db")));
        let mut database = database_at("MUNDAP_DATABASE_URL", url)?;
        if let Some(connections) = self.database_max_connections {
            database.max_connections = connections;
        }
        database.acquire_timeout = self.database_acquire_timeout;
        database.statement_timeout = self.database_statement_timeout;
        database.slow_query = self.database_slow_query;
        database.causal_reads = self.database_causal_reads == Switch::On;
        Ok(database)
    }

    /// The mail server, if one is named.
    ///
    /// # Errors
    /// As [`database`](Self::database).
    pub fn smtp(&self) -> Result<Option<String>, SettingsError> {
        secret("MUNDAP_SMTP_URL", self.smtp_url.as_ref(), self.smtp_url_file.as_deref())
    }

    /// The collector that traces go to, if one is named: here, or for all programs of the machine.
    ///
    /// # Errors
    /// Where it is no URL. (Not the argument's own, which would show it.)
    pub fn otlp(&self) -> Result<Option<url::Url>, SettingsError> {
        const NAME: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
        let read =
            |name, text: &str| public_url(text).map(Some).map_err(|reason| SettingsError::Value { name, reason });
        match (&self.otlp_endpoint, std::env::var(NAME)) {
            (Some(endpoint), _) => read("MUNDAP_OTLP_ENDPOINT", endpoint.expose_secret()),
            // OpenTelemetry's convention: an empty one is as none.
            (None, Ok(text)) if !text.is_empty() => read(NAME, &text),
            (None, _) => Ok(None),
        }
    }

    /// Where the bytes of images are kept. All nodes of one board must see the same folder.
    #[must_use]
    pub fn images_dir(&self) -> PathBuf {
        self.data_dir.join("images")
    }

    /// `None` where rate limits are off.
    #[must_use]
    pub fn quotas(&self) -> Option<Quotas> {
        let quotas = Quotas {
            anonymous: self.rate_limit_anonymous,
            sign_in: self.rate_limit_sign_in,
            attempts: self.rate_limit_attempts,
            renewals: self.rate_limit_renewals,
            reads: self.rate_limit_reads,
            writes: self.rate_limit_writes,
            letters: self.rate_limit_letters,
        };
        (self.rate_limit == Switch::On).then_some(quotas)
    }

    #[must_use]
    pub fn signing_key_file(&self) -> PathBuf {
        self.signing_key_file.clone().unwrap_or_else(|| self.data_dir.join("signing-key.pem"))
    }

    /// The public URL without a slash at its end, for a server that listens on `bound`.
    #[must_use]
    pub fn public_url(&self, bound: SocketAddr) -> String {
        match &self.public_url {
            Some(url) => url.as_str().trim_end_matches('/').to_owned(),
            None => format!("http://{bound}"),
        }
    }
}

/// The database at `url`, which `name` gave.
///
/// # Errors
/// Where it is none that a board can be on.
pub fn database_at(name: &'static str, url: String) -> Result<DatabaseSettings, SettingsError> {
    if url.starts_with("sqlite:") || url.starts_with("mysql:") {
        return Ok(DatabaseSettings::new(url));
    }
    Err(SettingsError::Value { name, reason: "must start with sqlite:// or mysql://".to_owned() })
}

fn secret(
    name: &'static str,
    value: Option<&SecretString>,
    file: Option<&Path>,
) -> Result<Option<String>, SettingsError> {
    match (value, file) {
        (None, None) => Ok(None),
        (Some(value), None) => Ok(Some(value.expose_secret().to_owned())),
        (Some(_), Some(_)) => Err(SettingsError::Twice(name)),
        (None, Some(path)) => match std::fs::read_to_string(path) {
            Ok(text) => Ok(Some(text.trim().to_owned())),
            Err(source) => Err(SettingsError::File { name, path: path.to_owned(), source }),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str) -> Result<(), SettingsError> {
        refuse_unknown(std::iter::once(OsString::from(name)))
    }

    #[test]
    fn a_misspelled_variable_names_the_nearest_setting() {
        let message = check("MUNDAP_HTP_ADDR").unwrap_err().to_string();
        assert_eq!(message, "MUNDAP_HTP_ADDR is not a setting; did you mean MUNDAP_HTTP_ADDR?");
    }

    #[test]
    fn settings_and_the_tests_own_variables_pass() {
        for name in ["MUNDAP_HTTP_ADDR", "MUNDAP_DATABASE_URL_FILE", "MUNDAP_TEST_MYSQL_URLS", "PATH"] {
            assert!(check(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn the_arguments_are_well_formed() {
        Cli::command().debug_assert();
    }
}
