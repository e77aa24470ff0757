//! The program from outside: each test talks to the real binary over HTTP, on each database there is.
//!
//! SQLite is always there. `MUNDAP_TEST_MYSQL_URLS` names MySQL and MariaDB servers, separated by commas, whose user may
//! create databases: `mysql://qna:qna@127.0.0.1:3306,mysql://qna:qna@127.0.0.1:3307`. Each gets databases of its own
//! named `mundap_test_…`, dropped at the end.
//!
//! Every answer that any test gets is held to the OpenAPI document and to what all answers promise: see [`client`].

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(clippy::print_stdout, reason = "a test program says what it runs on")]

mod access_matrix;
mod accounts;
mod admin;
mod archive;
mod archive_format;
mod archive_large;
mod archive_stopped;
mod board;
mod client;
mod closing;
mod cluster;
mod comments;
mod conditional;
mod connections;
mod console;
mod database;
mod doctor;
mod document;
mod documents;
mod examples;
mod export;
mod grpc;
mod grpc_accounts;
mod grpc_images;
mod grpc_load;
mod grpc_matrix;
mod grpc_parity;
mod grpc_qna;
mod grpc_web;
mod idempotency;
mod image_folder;
mod images;
mod import;
mod interrupt;
mod keys;
mod late;
mod lists;
mod mail;
mod openapi;
mod ops;
mod outbox;
mod overload;
mod problems;
mod program;
mod qna;
mod rate;
mod seed;
mod server;
mod sign_in;
mod smtp;
mod stop;
mod targets;
mod telemetry;
mod traces;
mod transcript;
mod words;

use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Trial};

use board::Board;
use database::Database;

/// One test.
pub(crate) struct Test {
    name: &'static str,
    /// Whether no database is involved: then it runs beside SQLite's tests alone.
    once: bool,
    run: fn(&Board),
}

/// The tests of a module, by their functions' names; behind `once:` those that no database is involved in.
macro_rules! tests {
    ($($name:ident),* $(,)? $(; once: $($once:ident),+ $(,)?)?) => {
        pub(crate) const TESTS: &[crate::Test] = &[
            $(crate::Test { name: stringify!($name), once: false, run: $name },)*
            $($(crate::Test { name: stringify!($once), once: true, run: $once },)+)?
        ];
    };
}
pub(crate) use tests;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Most of a test's time is spent waiting for a disk.
    arguments.test_threads.get_or_insert(4);
    let boards: Vec<Arc<Board>> = Database::all().into_iter().map(|database| Arc::new(Board::new(database))).collect();
    if !arguments.list {
        let names: Vec<&str> = boards.iter().map(|board| board.database.name.as_str()).collect();
        println!("databases under test: {}", names.join(", "));
        if boards.len() == 1 {
            println!("MUNDAP_TEST_MYSQL_URLS is not set: name MySQL and MariaDB servers in it to test on them too");
        }
    }
    let modules = [
        ("access_matrix", access_matrix::TESTS),
        ("accounts", accounts::TESTS),
        ("admin", admin::TESTS),
        ("archive", archive::TESTS),
        ("archive_format", archive_format::TESTS),
        ("archive_large", archive_large::TESTS),
        ("archive_stopped", archive_stopped::TESTS),
        ("cluster", cluster::TESTS),
        ("comments", comments::TESTS),
        ("conditional", conditional::TESTS),
        ("connections", connections::TESTS),
        ("console", console::TESTS),
        ("doctor", doctor::TESTS),
        ("documents", documents::TESTS),
        ("examples", examples::TESTS),
        ("export", export::TESTS),
        ("grpc", grpc::TESTS),
        ("grpc_accounts", grpc_accounts::TESTS),
        ("grpc_images", grpc_images::TESTS),
        ("grpc_load", grpc_load::TESTS),
        ("grpc_matrix", grpc_matrix::TESTS),
        ("grpc_parity", grpc_parity::TESTS),
        ("grpc_qna", grpc_qna::TESTS),
        ("grpc_web", grpc_web::TESTS),
        ("idempotency", idempotency::TESTS),
        ("interrupt", interrupt::TESTS),
        ("keys", keys::TESTS),
        ("image_folder", image_folder::TESTS),
        ("images", images::TESTS),
        ("import", import::TESTS),
        ("late", late::TESTS),
        ("lists", lists::TESTS),
        ("mail", mail::TESTS),
        ("openapi", openapi::TESTS),
        ("ops", ops::TESTS),
        ("outbox", outbox::TESTS),
        ("overload", overload::TESTS),
        ("problems", problems::TESTS),
        ("program", program::TESTS),
        ("qna", qna::TESTS),
        ("rate", rate::TESTS),
        ("seed", seed::TESTS),
        ("sign_in", sign_in::TESTS),
        ("stop", stop::TESTS),
        ("targets", targets::TESTS),
        ("telemetry", telemetry::TESTS),
        ("traces", traces::TESTS),
        ("transcript", transcript::TESTS),
        ("words", words::TESTS),
    ];
    let conclusion = libtest_mimic::run(&arguments, trials(&boards, &modules));
    // What can be said of all answers and the whole log only when everything else is over.
    let whole = conclusion.num_filtered_out == 0 && !conclusion.has_failed();
    let closing = if whole || arguments.list { trials(&boards, &[("closing", closing::TESTS)]) } else { Vec::new() };
    let closing = libtest_mimic::run(&arguments, closing);
    for board in boards {
        Arc::into_inner(board).expect("no test is running any more").close();
    }
    if conclusion.has_failed() { conclusion.exit_code() } else { closing.exit_code() }
}

fn trials(boards: &[Arc<Board>], modules: &[(&str, &'static [Test])]) -> Vec<Trial> {
    let mut trials = Vec::new();
    for (index, board) in boards.iter().enumerate() {
        for (module, tests) in modules {
            for test in tests.iter().filter(|test| index == 0 || !test.once) {
                let board = board.clone();
                let name = format!("{}::api::{module}::{}", board.database.name, test.name);
                trials.push(Trial::test(name, move || {
                    (test.run)(&board);
                    Ok(())
                }));
            }
        }
    }
    trials
}
