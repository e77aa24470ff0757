//! The command line: how the program starts, alone and beside others, and how it refuses to.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::board::Board;
use crate::database::{insert_qnas, number};
use crate::documents::{read, table};
use crate::server::{Ended, Options, PATIENCE, PATIENT, Server, Starting, mundap, run};
use crate::smtp::Smtp;

crate::tests![
    a_database_that_refuses_is_one_line_without_the_password,
    a_database_url_comes_from_a_file,
    check_tells_the_settings_and_tries_them,
    nodes_that_start_at_once_share_database_and_tokens,
    what_was_acknowledged_survives_a_kill,
    a_client_that_hangs_up_stops_its_query;
    once:
    an_unknown_variable_names_the_nearest,
    a_bad_flag_is_wrong_usage,
    a_bad_value_is_wrong_usage,
    an_unreachable_database_is_one_line,
    a_port_that_is_taken_names_its_setting,
    a_data_folder_that_is_a_file_is_refused,
    a_data_folder_may_have_any_name,
    a_database_file_is_its_owner_s_alone,
    a_standard_error_that_cannot_be_written_changes_no_exit_code,
    no_password_is_shown_however_its_url_is_written,
    a_signing_key_that_is_none_is_refused,
    flags_go_before_the_environment_and_that_before_the_env_file,
    an_env_file_is_held_to_the_same_names,
    a_line_of_an_env_file_is_named_by_its_number_alone,
    help_and_the_readme_list_the_same_settings,
];

/// Between two looks at something that must come to be.
#[expect(clippy::disallowed_methods, reason = "a test's thread has no worker to stop")]
fn pause() {
    std::thread::sleep(Duration::from_millis(10));
}

/// Runs a command that should end by itself, and does not wait for ever where it starts serving instead.
pub(crate) fn ends(command: &mut Command) -> Ended {
    let mut child = command.spawn().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("it does not end: {command:?}: {:?}", child.wait_with_output());
        }
        pause();
    }
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ended { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// The program in `dir`, on ports that are free.
pub(crate) fn in_dir(dir: &Path) -> Command {
    let mut command = mundap(dir);
    command.env("MUNDAP_HTTP_ADDR", "127.0.0.1:0").env("MUNDAP_OPS_ADDR", "127.0.0.1:0");
    command.env("MUNDAP_GRPC_ADDR", "127.0.0.1:0").envs(PATIENT);
    command
}

/// The program in a folder of its own with these variables.
fn with(variables: &[(&str, &str)], arguments: &[&str]) -> Ended {
    let dir = tempfile::tempdir().unwrap();
    ends(in_dir(dir.path()).envs(variables.iter().copied()).args(arguments))
}

fn an_unknown_variable_names_the_nearest(_: &Board) {
    for arguments in [&[][..], &["serve"], &["check"], &["openapi"], &["migrate", "status"], &["--help"]] {
        let line = with(&[("MUNDAP_HTP_ADDR", "127.0.0.1:0")], arguments).refused(2);
        assert_eq!(line, "MUNDAP_HTP_ADDR is not a setting; did you mean MUNDAP_HTTP_ADDR?", "{arguments:?}");
    }
    let line = with(&[("MUNDAP_DATABSE_URL_FLIE", "x")], &["check"]).refused(2);
    assert!(line.ends_with("did you mean MUNDAP_DATABASE_URL_FILE?"), "{line}");
    // The tests' own, and names that only look alike.
    let allowed = [("MUNDAP_TEST_MYSQL_URLS", "x"), ("MUNDAPX", "x"), ("mundap_http_addr", "x")];
    with(&allowed, &["check"]).done();
}

fn a_bad_flag_is_wrong_usage(_: &Board) {
    let cases: [(&[&str], &str); 6] = [
        (&["--no-such-flag"], "--no-such-flag"),
        (&["serve", "--http-adr", "127.0.0.1:0"], "--http-adr"),
        (&["surf"], "surf"),
        (&["migrate", "sideways"], "sideways"),
        (&["user", "add"], "<EMAIL>"),
        (&["user", "role", "ann@example.com", "king"], "king"),
    ];
    for (arguments, named) in cases {
        let ended = with(&[], arguments);
        assert_eq!((ended.code, ended.out.as_str()), (Some(2), ""), "{ended:?}");
        assert!(ended.err.starts_with("error: ") && ended.err.contains(named), "{ended:?}");
    }
}

fn a_bad_value_is_wrong_usage(_: &Board) {
    let cases = [
        ("MUNDAP_HTTP_ADDR", "localhost"),
        ("MUNDAP_GRPC_ADDR", "no"),
        ("MUNDAP_OPS_ADDR", "8002"),
        ("MUNDAP_DATABASE_URL", "postgres://ann:s3cret@127.0.0.1/qna"),
        ("MUNDAP_DATABASE_URL", ""),
        ("MUNDAP_DATABASE_URL", "mysql://ann:s3cret@127.0.0.1:port/qna"),
        ("MUNDAP_DATABASE_URL", "mysql://ann:s3cret@127.0.0.1"),
        ("MUNDAP_DATABASE_URL", "sqlite::memory:"),
        ("MUNDAP_HTTP_REQUESTS", "0"),
        ("MUNDAP_HTTP_STREAMS", "0"),
        ("MUNDAP_HTTP_QUEUE", "-1"),
        ("MUNDAP_HTTP_QUEUE_TIMEOUT", "250"),
        ("MUNDAP_HTTP_REQUEST_TIMEOUT", "long"),
        ("MUNDAP_DATABASE_MAX_CONNECTIONS", "0"),
        ("MUNDAP_DATABASE_ACQUIRE_TIMEOUT", "5"),
        ("MUNDAP_IDENTITY", "nobody"),
        ("MUNDAP_LOG", "mundap=["),
        ("MUNDAP_LOG", "inf"),
        ("MUNDAP_LOG_FORMAT", "xml"),
        ("MUNDAP_RATE_LIMIT", "maybe"),
        ("MUNDAP_RATE_LIMIT_WRITES", "60"),
        ("MUNDAP_RATE_LIMIT_ATTEMPTS", "10/1500ms"),
        ("MUNDAP_TRUSTED_PROXIES", "10.0.0.0/8,proxy.example.com"),
        ("MUNDAP_SHUTDOWN_TIMEOUT", "2500ms"),
        ("MUNDAP_HTTP_HEAD_TIMEOUT", "5"),
        ("MUNDAP_HTTP_CONNECTIONS", "0"),
        ("MUNDAP_HTTP_CONNECTIONS_PER_ADDRESS", "0"),
        ("MUNDAP_CORS_ORIGINS", "https://board.example.com,not an origin"),
        ("MUNDAP_CORS_ORIGINS", "https://board.example.com/path"),
        ("MUNDAP_CORS_ORIGINS", "*"),
        ("MUNDAP_PUBLIC_URL", "board.example.com"),
        ("MUNDAP_PUBLIC_URL", "mailto:ann@example.com"),
        ("MUNDAP_HTTP_BODY_LIMIT", "1MB"),
        ("MUNDAP_HTTP_BODY_TIMEOUT", "soon"),
        ("MUNDAP_WORKERS", "0"),
        ("MUNDAP_WORKERS", "513"),
        ("MUNDAP_DATABASE_STATEMENT_TIMEOUT", "0s"),
        ("MUNDAP_DATABASE_STATEMENT_TIMEOUT", "60d"),
        ("MUNDAP_DATABASE_ACQUIRE_TIMEOUT", "0s"),
        ("MUNDAP_DATABASE_SLOW_QUERY", "60d"),
        ("MUNDAP_HTTP_REQUEST_TIMEOUT", "0s"),
        ("MUNDAP_HTTP_REQUEST_TIMEOUT", "8000years"),
        ("MUNDAP_HTTP_QUEUE_TIMEOUT", "8000years"),
        ("MUNDAP_HTTP_HEAD_TIMEOUT", "0s"),
        ("MUNDAP_HTTP_BODY_TIMEOUT", "0s"),
        ("MUNDAP_HTTP_WRITE_TIMEOUT", "0s"),
        ("MUNDAP_HTTP_KEEP_ALIVE", "8000years"),
        ("MUNDAP_GRPC_KEEP_ALIVE", "0s"),
        ("MUNDAP_SHUTDOWN_DELAY", "8000years"),
        ("MUNDAP_SHUTDOWN_TIMEOUT", "8000years"),
        ("MUNDAP_OTLP_ENDPOINT", "http://ann:s3cret@127.0.0.1:4318/?x"),
        ("MUNDAP_OTLP_ENDPOINT", "http://ann:12/s3cret@127.0.0.1:4318#x"),
        ("MUNDAP_OTLP_ENDPOINT", "ann:s3cret@127.0.0.1:port"),
    ];
    for (name, value) in cases {
        let ended = with(&[(name, value)], &[]);
        assert_eq!(ended.out, "", "{name}={value}");
        let line = ended.refused(2);
        assert!(line.starts_with(name), "{name} is not named: {line}");
        assert!(!line.contains("s3cret"), "{line}");
    }
    for (name, value, says) in [
        (
            "MUNDAP_HTTP_ADDR",
            "localhost:8000",
            "(--http-addr) cannot be \"localhost:8000\": it must be an IP address and a port",
        ),
        ("MUNDAP_GRPC_ADDR", "on", "such as 127.0.0.1:8000 or [::]:8000, or off"),
        ("MUNDAP_PUBLIC_URL", "board.example.com", "it must start with http:// or https://"),
        ("MUNDAP_IDENTITY", "nobody", "it must be one of token, trusted-email"),
    ] {
        let line = with(&[(name, value)], &[]).refused(2);
        assert!(line.contains(says), "{line}");
    }
}

fn an_unreachable_database_is_one_line(_: &Board) {
    // A port that needs privileges and a service of 1980: nobody listens there.
    let url = "mysql://qna:s3cret@127.0.0.1:1/qna";
    for arguments in [&[][..], &["migrate", "up"], &["user", "role", "ann@example.com", "admin"], &["check"]] {
        let ended = with(&[("MUNDAP_DATABASE_URL", url)], arguments);
        assert!(!format!("{ended:?}").contains("s3cret"), "{ended:?}");
        let line = ended.refused(1);
        assert!(line.contains("mysql://127.0.0.1:1/qna"), "{line}");
        assert!(line.contains("MUNDAP_DATABASE_URL") && line.contains("refused"), "{line}");
    }
}

fn a_database_that_refuses_is_one_line_without_the_password(board: &Board) {
    let mut url = board.database.fresh();
    if let Ok(mut parsed) = url::Url::parse(&url)
        && parsed.scheme() == "mysql"
    {
        parsed.set_password(Some("wr0ng-s3cret")).unwrap();
        url = parsed.to_string();
    } else {
        // A folder is no database.
        url = format!("sqlite://{}", std::env::temp_dir().display());
    }
    for arguments in [&[][..], &["check"]] {
        let ended = with(&[("MUNDAP_DATABASE_URL", &url)], arguments);
        assert!(!format!("{ended:?}").contains("s3cret"), "{ended:?}");
        let line = ended.refused(1);
        assert!(line.starts_with("cannot reach the database ") && line.contains("MUNDAP_DATABASE_URL"), "{line}");
    }
}

fn a_port_that_is_taken_names_its_setting(_: &Board) {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for name in ["MUNDAP_HTTP_ADDR", "MUNDAP_GRPC_ADDR", "MUNDAP_OPS_ADDR"] {
        let line = with(&[(name, &address)], &[]).refused(1);
        assert!(line.starts_with(&format!("cannot listen on {address} ({name}): ")), "{line}");
    }
    // Both on one port is no different.
    drop(taken);
    let line = with(&[("MUNDAP_HTTP_ADDR", &address), ("MUNDAP_OPS_ADDR", &address)], &[]).refused(1);
    assert!(line.starts_with(&format!("cannot listen on {address} (MUNDAP_")), "{line}");
}

fn a_data_folder_that_is_a_file_is_refused(_: &Board) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("data"), "a file").unwrap();
    for data in ["data", "data/below"] {
        for arguments in [&[][..], &["check"], &["migrate", "up"], &["user", "add", "ann@example.com"]] {
            let line = ends(in_dir(dir.path()).env("MUNDAP_DATA_DIR", data).args(arguments)).refused(1);
            assert!(line.starts_with(&format!("cannot use the data folder {data} (MUNDAP_DATA_DIR): ")), "{line}");
        }
    }
    assert_eq!(std::fs::read_to_string(dir.path().join("data")).unwrap(), "a file");
}

fn a_data_folder_may_have_any_name(_: &Board) {
    let dir = tempfile::tempdir().unwrap();
    for data in ["a%20c", "what? now", "50%", "a#b?mode=ro"] {
        let run = |arguments: &[&str]| ends(in_dir(dir.path()).env("MUNDAP_DATA_DIR", data).args(arguments));
        run(&["migrate", "up"]).done();
        assert!(dir.path().join(data).join("mundap.db").exists(), "the database is somewhere else: {data}");
        run(&["check"]).done();
        run(&["doctor"]).well();
    }
    let mut there: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    there.sort();
    assert_eq!(there, ["50%", "a#b?mode=ro", "a%20c", "what? now"]);
}

fn a_database_file_is_its_owner_s_alone(_: &Board) {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("mundap-data");
    std::fs::create_dir(&data).unwrap();
    std::fs::set_permissions(&data, PermissionsExt::from_mode(0o755)).unwrap();
    let mode = || std::fs::metadata(data.join("mundap.db")).unwrap().permissions().mode() & 0o777;
    ends(in_dir(dir.path()).args(["migrate", "up"])).done();
    assert_eq!(mode(), 0o600);
    // Whoever gave it another mode meant it.
    std::fs::set_permissions(data.join("mundap.db"), PermissionsExt::from_mode(0o640)).unwrap();
    ends(in_dir(dir.path()).args(["migrate", "up"])).done();
    assert_eq!(mode(), 0o640);
}

fn a_standard_error_that_cannot_be_written_changes_no_exit_code(_: &Board) {
    let dir = tempfile::tempdir().unwrap();
    for (name, value, code) in [
        ("MUNDAP_X", "1", 2),
        ("MUNDAP_LOG", "mundap=[", 2),
        ("MUNDAP_OTLP_SAMPLE", "2", 2),
        ("MUNDAP_DATABASE_URL", "mysql://qna:s3cret@127.0.0.1:1/qna", 1),
    ] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let ended = ends(in_dir(dir.path()).env(name, value).arg("check").stderr(full));
        assert_eq!(ended.code, Some(code), "{name}");
    }
}

/// What is not percent-encoded ends where nobody meant it to, and a parser then takes the password for something else.
fn no_password_is_shown_however_its_url_is_written(_: &Board) {
    // A port that needs privileges and a service of 1980: nobody listens there.
    let place = "127.0.0.1:1/qna";
    for user in [
        "qna:s3cret",
        "qna:/s3cret",
        "qna:12/s3cret",
        "qna:12#s3cret",
        "qna:12?s3cret",
        "qna%3As3cret",
        "qna:1@s3cret/2",
    ] {
        for url in [format!("mysql://{user}@{place}"), format!("mysql:{user}@{place}")] {
            for arguments in [&[][..], &["check"], &["backup", "board.mundap"]] {
                let ended = with(&[("MUNDAP_DATABASE_URL", &url)], arguments);
                assert!(matches!(ended.code, Some(1 | 2)), "{ended:?}");
                assert!(!format!("{ended:?}").contains("s3cret"), "{url}: {ended:?}");
            }
        }
    }
    let url = format!("mysql://{place}?user=a&password=s3cret");
    for arguments in [&[][..], &["check"]] {
        let ended = with(&[("MUNDAP_DATABASE_URL", &url)], arguments);
        assert!(!format!("{ended:?}").contains("s3cret"), "{ended:?}");
    }
    for arguments in [&["--help"][..], &["check"], &["check", "--help"]] {
        let out = with(&[("MUNDAP_OTLP_ENDPOINT", "http://ann:s3cret@127.0.0.1:4318")], arguments).done();
        assert!(!out.contains("s3cret"), "{out}");
    }
}

fn a_signing_key_that_is_none_is_refused(_: &Board) {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key.pem");
    std::fs::write(&key, "not a key").unwrap();
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    for arguments in [&[][..], &["check"]] {
        let line = ends(in_dir(dir.path()).env("MUNDAP_SIGNING_KEY_FILE", "key.pem").args(arguments)).refused(1);
        assert!(line.contains("MUNDAP_SIGNING_KEY_FILE") && line.contains("key.pem"), "{line}");
    }
    assert_eq!(std::fs::read_to_string(&key).unwrap(), "not a key");
}

fn a_database_url_comes_from_a_file(board: &Board) {
    let dir = tempfile::tempdir().unwrap();
    let url = board.database.fresh();
    std::fs::write(dir.path().join("url"), format!("{url}\n")).unwrap();
    let from_file = |arguments: &[&str]| {
        let mut command = in_dir(dir.path());
        command.env("MUNDAP_DATABASE_URL_FILE", "url").args(arguments);
        command
    };
    assert!(!ends(&mut from_file(&["migrate", "up"])).done().is_empty());
    assert_eq!(number(&url, "SELECT COUNT(*) AS n FROM users"), 0, "the tables are somewhere else");
    assert!(!dir.path().join("mundap-data/mundap.db").exists());

    let line = ends(from_file(&["check"]).env("MUNDAP_DATABASE_URL", &url)).refused(2);
    assert_eq!(line, "both MUNDAP_DATABASE_URL and MUNDAP_DATABASE_URL_FILE are set; keep one of them");
    let line = ends(from_file(&["check"]).env("MUNDAP_DATABASE_URL_FILE", "nowhere")).refused(2);
    assert!(line.contains("nowhere") && line.contains("MUNDAP_DATABASE_URL_FILE"), "{line}");
}

/// The value that `mundap check` shows.
fn shown<'a>(check: &'a str, name: &str) -> &'a str {
    let value = check.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    value.unwrap_or_else(|| panic!("{name} is not shown:\n{check}"))
}

fn flags_go_before_the_environment_and_that_before_the_env_file(_: &Board) {
    let dir = tempfile::tempdir().unwrap();
    let file = "# a comment\nMUNDAP_HTTP_ADDR=127.0.0.1:4001\nMUNDAP_OPS_ADDR=127.0.0.1:4002\n\
                MUNDAP_GRPC_ADDR='127.0.0.1:4003'\nMUNDAP_WORKERS=3\n";
    std::fs::write(dir.path().join(".env"), file).unwrap();
    let mut command = mundap(dir.path());
    command.env("MUNDAP_OPS_ADDR", "127.0.0.1:5002").env("MUNDAP_GRPC_ADDR", "127.0.0.1:5003");
    let check = ends(command.args(["--grpc-addr", "127.0.0.1:6003", "check"])).done();
    assert_eq!(shown(&check, "MUNDAP_HTTP_ADDR"), "127.0.0.1:4001");
    assert_eq!(shown(&check, "MUNDAP_OPS_ADDR"), "127.0.0.1:5002");
    assert!(shown(&check, "MUNDAP_GRPC_ADDR").contains("127.0.0.1:6003"), "{check}");
    assert_eq!(shown(&check, "MUNDAP_WORKERS"), "3");
}

fn an_env_file_is_held_to_the_same_names(_: &Board) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(".env");
    std::fs::write(&file, "MUNDAP_DATA_DIRECTORY=/data\n").unwrap();
    let line = ends(mundap(dir.path()).arg("check")).refused(2);
    assert_eq!(line, "MUNDAP_DATA_DIRECTORY is not a setting; did you mean MUNDAP_DATA_DIR?");
    std::fs::write(&file, "MUNDAP_WORKERS=two\n").unwrap();
    let ended = ends(mundap(dir.path()).arg("check"));
    assert!(ended.code == Some(2) && ended.err.contains("--workers"), "{ended:?}");
    std::fs::write(&file, "this is no line of it\n").unwrap();
    let line = ends(mundap(dir.path()).arg("check")).refused(2);
    assert!(line.contains(".env"), "{line}");
}

fn a_line_of_an_env_file_is_named_by_its_number_alone(_: &Board) {
    let dir = tempfile::tempdir().unwrap();
    for (file, number) in [
        ("# a comment\n\nMUNDAP_WORKERS=2\nMUNDAP_DATABASE_URL=mysql://qna:s3 cret@127.0.0.1/x\nMUNDAP_LOG=info\n", 4),
        ("MUNDAP_LOG='in\nfo'\nMUNDAP_DATABASE_URL=\"mysql://qna:s3cret@127.0.0.1/x\n", 3),
        ("\u{feff}s3cret is no line of it\r\n", 1),
    ] {
        std::fs::write(dir.path().join(".env"), file).unwrap();
        let line = ends(mundap(dir.path()).arg("check")).refused(2);
        assert!(!line.contains("s3") && !line.contains("cret"), "{line}");
        assert!(line.contains(".env") && line.contains(&format!("line {number} ")), "{line}");
    }
}

/// Every word of a text that names a variable of the program's.
fn variables(text: &str) -> Vec<String> {
    let words = text.split(|c: char| c != '_' && !c.is_ascii_uppercase());
    words.filter(|word| word.starts_with("MUNDAP_")).map(str::to_owned).collect()
}

fn help_and_the_readme_list_the_same_settings(_: &Board) {
    let help = with(&[], &["--help"]).done();
    let listed: BTreeSet<String> =
        help.split("[env: ").skip(1).flat_map(|rest| variables(rest.split(']').next().unwrap())).collect();
    let rows = table(&read("README.md"), "variable");
    let documented: BTreeSet<String> = rows.iter().flat_map(|row| variables(&row[0])).collect();
    assert!(documented.len() > 20, "{documented:?}");
    assert_eq!(listed, documented);
    for row in rows {
        let default = row[1].strip_prefix('`').and_then(|rest| rest.strip_suffix('`'));
        let Some(default) = default.filter(|default| !default.contains('`')) else { continue };
        let (_, rest) = help.split_once(&format!("[env: {}", variables(&row[0])[0])).unwrap();
        let block = rest.split("\n      --").next().unwrap();
        assert!(block.contains(&format!("[default: {default}]")), "{row:?} is not the default of:\n{block}");
    }
    // A subcommand knows the same settings.
    for command in ["serve", "check"] {
        let help = with(&[], &[command, "--help"]).done();
        assert!(listed.iter().all(|name| help.contains(name)), "{help}");
    }
}

fn check_tells_the_settings_and_tries_them(board: &Board) {
    let dir = tempfile::tempdir().unwrap();
    let url = board.database.fresh();
    let smtp = Smtp::start();
    let check = || {
        let mut command = in_dir(dir.path());
        command.arg("check").env("MUNDAP_DATABASE_URL", &url).env("MUNDAP_MAIL_FROM", "board@example.com");
        command.env("MUNDAP_SMTP_URL", smtp.url().replace("//", "//ann:s3cret@"));
        command
    };
    let out = ends(&mut check()).done();
    assert!(!out.contains("s3cret"), "{out}");
    if let Some(password) = url::Url::parse(&url).unwrap().password() {
        assert!(!out.contains(&format!(":{password}@")), "{out}");
        let place = url.split_once('@').unwrap().1;
        assert_eq!(shown(&out, "MUNDAP_DATABASE_URL"), format!("mysql://{place}"));
    } else {
        assert_eq!(shown(&out, "MUNDAP_DATABASE_URL"), url);
    }
    let names: BTreeSet<String> = table(&read("README.md"), "variable")
        .iter()
        .flat_map(|row| variables(&row[0]))
        .filter(|name| !name.ends_with("_URL_FILE"))
        .collect();
    for name in names {
        assert!(!shown(&out, &name).is_empty() || name == "MUNDAP_CORS_ORIGINS", "{name}:\n{out}");
    }
    for (name, value) in
        [("MUNDAP_IDENTITY", "token"), ("MUNDAP_RATE_LIMIT", "on"), ("MUNDAP_DATABASE_CAUSAL_READS", "on")]
    {
        assert_eq!(shown(&out, name), value, "as whoever sets it writes it");
    }
    let pending = |out: &str| {
        let line = out.lines().find(|line| line.starts_with("migrations: ")).unwrap().to_owned();
        line.split(' ').nth(1).unwrap().parse::<u32>().unwrap()
    };
    assert!(pending(&out) > 0, "it must not migrate: {out}");
    assert!(
        out.contains("database: ") && out.contains("data folder: ") && out.contains("signing-key.pem is not there yet"),
        "{out}"
    );
    run(in_dir(dir.path()).args(["migrate", "up"]).env("MUNDAP_DATABASE_URL", &url)).done();
    assert_eq!(pending(&ends(&mut check()).done()), 0);
    // Nothing is left in the data folder.
    assert_eq!(std::fs::read_dir(dir.path().join("mundap-data")).unwrap().count(), 0);
}

/// Asks again until it is so.
#[track_caller]
pub(crate) fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        pause();
    }
}

fn nodes_that_start_at_once_share_database_and_tokens(board: &Board) {
    let shared = tempfile::tempdir().unwrap();
    let url = board.database.fresh();
    // Neither the tables nor the key are there yet.
    let options = Options {
        env: vec![
            ("MUNDAP_SIGNING_KEY_FILE", shared.path().join("key.pem").display().to_string()),
            ("MUNDAP_PUBLIC_URL", "https://board.example.com".to_owned()),
        ],
        dir: None,
    };
    let starting: Vec<Starting> = (0..3).map(|_| Starting::on(&url, &options)).collect();
    let nodes: Vec<Server> = starting.into_iter().map(Starting::ready).collect();
    for node in &nodes {
        assert_eq!(node.operator("/readyz").0, 200);
    }
    let user = nodes[0].new_user();
    let keys = nodes[0].get("/.well-known/jwks.json").send().is(200).text();
    let path = nodes[0].ask_at(&user, "Who answers?");
    let edited = nodes[1].patch(&path).by(&user).json(json!({"title": "All of us"})).send().is(200);
    let read = nodes[2].get(&path).by(&user).send().is(200);
    assert_eq!((read.json(), read.etag()), (edited.json(), edited.etag()));
    for node in &nodes[1..] {
        assert_eq!(node.get("/.well-known/jwks.json").send().is(200).text(), keys);
    }
    // A cursor of one is a cursor of all; a sign-in that one ends has ended everywhere.
    nodes[1].ask_at(&user, "And another?");
    let next = nodes[1].get("/api/v1/qna?limit=1").send().is(200).json()["next"].as_str().unwrap().to_owned();
    let page = nodes[2].get(format!("/api/v1/qna?limit=1&cursor={next}")).send().is(200).json();
    assert_eq!(page["items"][0]["title"], "All of us");
    nodes[2].post("/api/v1/auth/revoke").form(&[("token", &user.refresh)]).send().is(200);
    // What another node did is known within a second.
    eventually("the sign-in to be gone", || nodes[0].get("/api/v1/users/me").by(&user).may_fail().send().status == 401);
    nodes[0].get("/api/v1/users/me").by(&user).send().problem(401, "invalid_token");
}

fn what_was_acknowledged_survives_a_kill(board: &Board) {
    let url = board.database.fresh();
    let options = Options::env("MUNDAP_PUBLIC_URL", "https://board.example.com");
    let server = Server::start(&url, &options);
    let user = server.new_user();
    let written: Vec<_> = (1..=20).map(|number| server.ask(&user, &format!("Question {number}"))).collect();
    let path = format!("/api/v1/qna/{}", written[0]["qna_id"]);
    server.comment_at(&user, &path, "The last word");
    server.signal("KILL");
    assert_eq!(server.end().code(), None);

    let again = Server::start(&url, &Options { dir: Some(server.dir.clone()), ..options });
    let first = again.get(&path).by(&user).send().is(200).json();
    assert_eq!(first["comment_count"], 1);
    for qna in &written[1..] {
        let read = again.get(format!("/api/v1/qna/{}", qna["qna_id"])).by(&user).send().is(200).json();
        assert_eq!(&read, qna);
    }
    assert_eq!(number(&url, "SELECT COUNT(*) AS n FROM qna"), 20);
    again.ask_at(&user, "And it goes on");
}

fn a_client_that_hangs_up_stops_its_query(board: &Board) {
    const ROWS: u32 = 20_000;
    const LENGTH: usize = 2_000;
    let server = board.own(&Options::default());
    let user = server.new_user();
    insert_qnas(&server.database_url, user.id, ROWS, &"x".repeat(LENGTH));
    let total = u64::from(ROWS) * LENGTH as u64;

    let mut connection = TcpStream::connect(&server.http).unwrap();
    connection.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(connection, "GET /load_all_qna HTTP/1.1\r\nHost: x\r\nX-Request-Id: hangs-up\r\n\r\n").unwrap();
    let mut beginning = vec![0; 100_000];
    connection.read_exact(&mut beginning).unwrap();
    assert!(beginning.starts_with(b"HTTP/1.1 200 "));
    drop(connection);
    let line = server.access("hangs-up");
    let bytes = line["bytes"].as_u64().unwrap();
    assert_eq!((&line["whole"], &line["http.status"]), (&json!(false), &json!(200)), "{line}");
    assert!((100_000..total / 2).contains(&bytes), "{bytes} of {total}: {line}");

    // Whoever stays gets all of it.
    let reply = server.get("/load_all_qna").send().is(200);
    let line = server.access(reply.request_id());
    assert_eq!((&line["whole"], &line["bytes"]), (&json!(true), &json!(reply.body.len())), "{line}");
    assert_eq!(reply.json().as_array().unwrap().len(), ROWS as usize);
}
