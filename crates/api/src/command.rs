//! What the program can do besides serving.

mod carry;
mod check;
mod doctor;
mod import;

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use clap::{Args, Subcommand, ValueEnum};
use mundap_domain::account::{Password, Registration};
use mundap_domain::admin::UserChange;
use mundap_domain::env::Clock as _;
use mundap_domain::error::{Cause, Violations};
use mundap_domain::mail::Mailer;
use mundap_domain::user::{DisplayName, Email, Role};
use mundap_domain::{Actor, Error, StoreError};
use mundap_infra::transfer::TransferError;
use mundap_infra::{ConnectError, DatabaseSettings, ImportError, KeyError, SeaStore, SigningKeys, SystemClock};
use mundap_migration::MigrationError;

use crate::app::{self, Board};
use crate::mail;
use crate::serve::serve;
use crate::settings::{Cli, DAY, Settings, SettingsError, within};
use crate::words::Language;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Migrate the database, then serve until SIGTERM or SIGINT (the default)
    Serve,
    /// Change the database's schema, or say how it stands
    Migrate {
        #[command(subcommand)]
        step: Migrate,
    },
    /// Make and change accounts from the console
    User {
        #[command(subcommand)]
        change: UserCommand,
    },
    /// Change the key that signs access tokens, or say how the keys stand
    Key {
        #[command(subcommand)]
        step: KeyCommand,
    },
    /// Write the board, its images too, into one file, while it serves
    Backup(carry::Backup),
    /// Fill an empty database, and the folder of images, with what a backup holds
    Restore(carry::Restore),
    /// Bring a board from one database to another, such as from SQLite to MySQL
    Copy(carry::Copy),
    /// Bring over the board of the first FastAPI program: people, questions, comments and images
    ImportFastapi(import::ImportArgs),
    /// Look whether rows, counts and images are sound, while the board serves
    Doctor(doctor::Doctor),
    /// Print the OpenAPI document
    Openapi,
    /// Print the settings in force and try what they name
    Check,
}

#[derive(Clone, Copy, Debug, Subcommand)]
pub enum Migrate {
    /// Apply what is pending
    Up,
    /// Take back the newest change: its tables and rows are gone
    Down {
        /// How many changes to take back
        #[arg(default_value_t = 1)]
        steps: u32,
    },
    /// List all changes and whether they are applied
    Status,
}

#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// Make an account; the password is asked for, or read from --password-file
    Add {
        email: String,
        #[arg(long, default_value = "member")]
        role: RoleName,
        /// What others see (the part of the e-mail before the @ if not given)
        #[arg(long)]
        display_name: Option<String>,
        #[command(flatten)]
        password: PasswordSource,
    },
    /// Give an account another role
    Role { email: String, role: RoleName },
    /// Suspend an account and end all its sign-ins; it may still read, and delete itself
    Suspend { email: String },
    /// Take a suspension back
    Reinstate { email: String },
    /// Give an account another password and end all its sign-ins
    Password {
        email: String,
        #[command(flatten)]
        password: PasswordSource,
    },
}

#[derive(Clone, Copy, Debug, Subcommand)]
pub enum KeyCommand {
    /// Make a new key; tokens that the key before signed are good to their end
    Rotate {
        /// When the new key takes over: by then every node must have the file (nodes that share it read it every 5 s)
        #[arg(long = "in", value_name = "TIME", default_value = "30s", value_parser = within(Duration::ZERO, 365 * DAY))]
        after: Duration,
        /// At once, and no token of another key is good any more: for a key that somebody else has got hold of
        #[arg(long, conflicts_with = "after")]
        compromised: bool,
    },
    /// List the keys, the newest first
    List,
}

/// Never an argument: arguments are seen by every process on the machine.
#[derive(Args, Debug)]
pub struct PasswordSource {
    /// A file whose first line is the password; - is standard input
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum RoleName {
    Member,
    Moderator,
    Admin,
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::Member => Self::Member,
            RoleName::Moderator => Self::Moderator,
            RoleName::Admin => Self::Admin,
        }
    }
}

/// How a command ended that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Nothing of it is left.
    Whole,
    /// It was told to leave what it was doing: nobody waits for that.
    AtOnce,
}

/// Why the program ends: one line that says what to change.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error("cannot use the data folder {} (MUNDAP_DATA_DIR): {source}", path.display())]
    DataDir { path: PathBuf, source: std::io::Error },
    #[error("cannot use the signing key (MUNDAP_SIGNING_KEY_FILE): {0}")]
    Key(#[from] KeyError),
    #[error("cannot reach the database {url} ({name}): {reason}")]
    Database { name: &'static str, url: String, reason: String },
    #[error("cannot migrate the database: {0}")]
    Migration(#[from] MigrationError),
    #[error("cannot listen on {address} ({name}): {source}")]
    Listen { name: &'static str, address: String, source: std::io::Error },
    #[error("cannot use the mail server (MUNDAP_SMTP_URL): {0}")]
    Mail(String),
    #[error("cannot read the password: {0}")]
    Password(std::io::Error),
    #[error(transparent)]
    Transfer(#[from] TransferError),
    #[error("the archive is written, but the bytes of {0} images are lost (--allow-lost makes that no failure)")]
    Lost(usize),
    #[error("interrupted")]
    Interrupted,
    #[error("{}", sentence(.0))]
    Input(Violations),
    #[error("{0}")]
    Import(#[from] ImportError),
    #[error("{0}")]
    LeftOver(String),
    #[error("{0}")]
    Refused(Error),
    #[error("{0}")]
    Other(Cause),
}

impl Fault {
    /// 1 failed, 2 wrong usage.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Settings(_) | Self::Input(_) => 2,
            Self::DataDir { .. }
            | Self::Key(_)
            | Self::Database { .. }
            | Self::Migration(_)
            | Self::Listen { .. }
            | Self::Mail(_)
            | Self::Password(_)
            | Self::Transfer(_)
            | Self::Lost(_)
            | Self::Interrupted
            | Self::Import(_)
            | Self::LeftOver(_)
            | Self::Refused(_)
            | Self::Other(_) => 1,
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        match error {
            Error::Invalid(violations) => Self::Input(violations),
            other => Self::Refused(other),
        }
    }
}

fn sentence(violations: &Violations) -> String {
    let problem = crate::problem::Problem::from(violations.clone());
    // The command line speaks English, as its help does.
    problem.detail(Language::English).trim_start_matches('/').replace("; /", "; ")
}

/// Runs what the command line asks for.
///
/// # Errors
/// Why it could not be done.
pub async fn run(cli: Cli) -> Result<Ending, Fault> {
    let settings = cli.settings;
    let done = match cli.command.unwrap_or(Command::Serve) {
        Command::Serve => return serve(settings).await,
        Command::Migrate { step } => migrate(&settings, step).await,
        Command::User { change } => user(&settings, change).await,
        Command::Key { step } => key(&settings, step),
        Command::Backup(arguments) => carry::backup(&settings, &arguments).await,
        Command::Restore(arguments) => carry::restore(&settings, &arguments).await,
        Command::Copy(arguments) => carry::copy(&arguments).await,
        Command::ImportFastapi(args) => import::import(&settings, &args).await,
        Command::Doctor(arguments) => doctor::doctor(&settings, arguments).await,
        Command::Openapi => print(&app::openapi().to_pretty_json().map_err(|error| Fault::Other(error.into()))?),
        Command::Check => check::check(&settings).await,
    };
    done.map(|()| Ending::Whole)
}

fn key(settings: &Settings, step: KeyCommand) -> Result<(), Fault> {
    // Where there is none its path is wrong, or the board has yet to start for the first time.
    let keys = SigningKeys::load(&settings.signing_key_file())?;
    let now = SystemClock.now();
    match step {
        KeyCommand::Rotate { after, compromised } => {
            let after = TimeDelta::from_std(after).map_err(|error| Fault::Other(error.into()))?;
            let rotation = keys.rotate(now, (!compromised).then_some(after))?;
            print(&format!("key {} signs from {}", rotation.new, rotation.signs_from))?;
            match rotation.old_verifies_until {
                Some(end) => print(&format!("tokens of the key before are good until {end}")),
                None => print("tokens of every other key are good no longer"),
            }
        }
        KeyCommand::List => {
            for key in keys.states(now) {
                let state = match (key.signs, key.verifies_until) {
                    (true, _) => "signs".to_owned(),
                    (false, Some(end)) if end <= now => format!("is over since {end}"),
                    (false, Some(end)) => format!("verifies until {end}"),
                    (false, None) => key.signs_from.map_or_else(String::new, |start| format!("signs from {start}")),
                };
                print(&format!("key {} {state}", key.id))?;
            }
            Ok(())
        }
    }
}

/// Makes the data folder, for its owner alone.
pub(crate) fn data_dir(settings: &Settings) -> Result<(), Fault> {
    use std::os::unix::fs::DirBuilderExt as _;
    let path = &settings.data_dir;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| Fault::DataDir { path: path.clone(), source })
}

pub(crate) fn signing_keys(settings: &Settings) -> Result<SigningKeys, Fault> {
    Ok(SigningKeys::load_or_create(&settings.signing_key_file())?)
}

pub(crate) async fn store(settings: &Settings) -> Result<SeaStore, Fault> {
    open(DATABASE_URL, &settings.database()?).await
}

/// The setting that the board's own database comes from.
const DATABASE_URL: &str = "MUNDAP_DATABASE_URL";

/// Opens the database that the setting or argument `name` gave.
async fn open(name: &'static str, database: &DatabaseSettings) -> Result<SeaStore, Fault> {
    mundap_infra::connect(database).await.map_err(|error| unreachable(name, database, &error))
}

/// A file that is not there would be made, and be an empty board.
fn exists(name: &'static str, database: &DatabaseSettings) -> Result<(), Fault> {
    if let Some(path) = database.file() {
        let reason = match path.try_exists() {
            Ok(true) => return Ok(()),
            Ok(false) => "there is no such file".to_owned(),
            // It may be there, and not be for this user to look at.
            Err(error) => error.to_string(),
        };
        return Err(Fault::Database { name, url: database.target(), reason });
    }
    Ok(())
}

/// Not where it may be there, and cannot be looked at.
pub(crate) fn is_missing(path: &Path) -> bool {
    matches!(path.try_exists(), Ok(false))
}

/// Names the database without what is secret in its URL, and the innermost reason, which is the one that says what to change.
fn unreachable(name: &'static str, database: &DatabaseSettings, error: &StoreError) -> Fault {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        if let Some(ConnectError::Url(reason)) = source.downcast_ref() {
            let reason = reason.clone();
            return SettingsError::Value { name, reason }.into();
        }
        cause = source;
    }
    Fault::Database { name, url: database.target(), reason: cause.to_string() }
}

async fn migrate(settings: &Settings, step: Migrate) -> Result<(), Fault> {
    data_dir(settings)?;
    let store = store(settings).await?;
    match step {
        Migrate::Up => {
            for name in mundap_migration::up(store.writer()).await? {
                print(&format!("applied {name}"))?;
            }
        }
        Migrate::Down { steps } => {
            for name in mundap_migration::down(store.writer(), steps).await? {
                print(&format!("took back {name}"))?;
            }
        }
        Migrate::Status => {
            for (name, applied) in mundap_migration::status(store.writer()).await? {
                print(&format!("{} {name}", if applied { "applied" } else { "pending" }))?;
            }
        }
    }
    store.close().await;
    Ok(())
}

async fn user(settings: &Settings, change: UserCommand) -> Result<(), Fault> {
    let public_url = settings.public_url(settings.http_addr);
    // It writes no letter; the board that serves sends what is put into its outbox here.
    let mailer = mail::mailer(settings, &public_url)?.map(|mailer| mailer as Arc<dyn Mailer>);
    if !matches!(change, UserCommand::Add { .. }) {
        exists(DATABASE_URL, &settings.database()?)?;
    }
    data_dir(settings)?;
    let keys = signing_keys(settings)?;
    let store = store(settings).await?;
    mundap_migration::up(store.writer()).await?;
    let services = Board::new(settings, store.clone(), &keys, mailer, public_url).services;
    let by = Actor::Operator;
    match change {
        UserCommand::Add { email, role, display_name, password } => {
            let name = display_name.unwrap_or_else(|| default_name(&email));
            let password = password.read(true)?;
            let registration = Registration::parse(Some(&email), Some(&password), Some(&name)).map_err(Fault::Input)?;
            let user = services.accounts.add(&by, &registration, role.into()).await?;
            print(&format!("{} {} is there, with user_id {}", user.role.name(), user.email.as_str(), user.id))?;
        }
        UserCommand::Role { email, role } => {
            let change = UserChange { role: Some(role.into()), suspended: None };
            let user = services.admin.change_user_by_email(&by, &address(&email)?, &change).await?;
            print(&format!("{} is {} now", user.email.as_str(), user.role.name()))?;
        }
        UserCommand::Suspend { email } => {
            let change = UserChange { role: None, suspended: Some(true) };
            let user = services.admin.change_user_by_email(&by, &address(&email)?, &change).await?;
            print(&format!("{} is suspended; every sign-in of it has ended", user.email.as_str()))?;
        }
        UserCommand::Reinstate { email } => {
            let change = UserChange { role: None, suspended: Some(false) };
            let user = services.admin.change_user_by_email(&by, &address(&email)?, &change).await?;
            print(&format!("{} is not suspended", user.email.as_str()))?;
        }
        UserCommand::Password { email, password } => {
            let email = address(&email)?;
            let new = password.read(true)?;
            let new = one("password", &new, Password::parse)?;
            services.accounts.reset_password(&by, &email, &new).await?;
            print(&format!("{} has a new password; every sign-in of it has ended", email.as_str()))?;
        }
    }
    store.close().await;
    Ok(())
}

fn default_name(email: &str) -> String {
    email.split('@').next().unwrap_or_default().chars().take(DisplayName::MAX).collect()
}

fn address(email: &str) -> Result<Email, Fault> {
    one("email", email, Email::parse)
}

fn one<T>(
    field: &str,
    raw: &str,
    parse: impl FnOnce(&str) -> Result<T, Vec<mundap_domain::error::Broken>>,
) -> Result<T, Fault> {
    let mut violations = Violations::default();
    let value = violations.check(field, Some(raw), parse);
    violations.finish(value).map_err(Fault::Input)
}

impl PasswordSource {
    fn read(&self, twice: bool) -> Result<String, Fault> {
        let first_line = |text: String| text.lines().next().unwrap_or_default().to_owned();
        match &self.password_file {
            Some(path) if path == Path::new("-") => {
                std::io::read_to_string(std::io::stdin()).map(first_line).map_err(Fault::Password)
            }
            Some(path) => std::fs::read_to_string(path).map(first_line).map_err(Fault::Password),
            None if !std::io::stdin().is_terminal() => {
                let hint = "there is no terminal to ask on; use --password-file FILE, or - for standard input";
                Err(Fault::Password(std::io::Error::other(hint)))
            }
            None => {
                let password = rpassword::prompt_password("Password: ").map_err(Fault::Password)?;
                if twice && rpassword::prompt_password("Again: ").map_err(Fault::Password)? != password {
                    return Err(Fault::Password(std::io::Error::other("the two are not the same")));
                }
                Ok(password)
            }
        }
    }
}

/// A line on standard output. A reader that went away, as in `mundap openapi | head`, is no fault.
fn print(line: &str) -> Result<(), Fault> {
    match writeln!(std::io::stdout(), "{line}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Fault::Other(error.into())),
        _ => Ok(()),
    }
}
