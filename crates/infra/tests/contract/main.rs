//! What every database must do for the domain's ports: each test runs on each database there is.
//!
//! SQLite is always there. `MUNDAP_TEST_MYSQL_URLS` names MySQL and MariaDB servers, separated by commas, whose user may
//! create databases: `mysql://qna:qna@127.0.0.1:3306,mysql://qna:qna@127.0.0.1:3307`. Each gets databases of its own
//! named `mundap_test_…`, dropped at the end.
//!
//! A MUST of a port has a test that is named after it.

#![expect(clippy::print_stdout, reason = "a test program says what it runs on")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod audit;
mod board;
mod certification;
mod comment;
mod doctor;
mod home;
mod image;
mod import;
mod mail_token;
mod migration;
mod outage;
mod outbox;
mod proxy;
mod qna;
mod rate;
mod receipt;
mod server;
mod sign_in;
mod store;
mod together;
mod transfer;
mod user;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use libtest_mimic::{Arguments, Trial};
use tokio::runtime::Runtime;

use board::Board;
use server::Server;

/// One test: its name and what it does on a database.
pub(crate) struct Test {
    name: &'static str,
    run: fn(Board) -> LocalBoxFuture<'static, ()>,
}

/// The tests of a module, by their functions' names.
macro_rules! tests {
    ($($name:ident),+ $(,)?) => {
        pub(crate) fn tests() -> Vec<crate::Test> {
            vec![$(crate::Test {
                name: stringify!($name),
                run: |board| Box::pin($name(board)),
            }),+]
        }
    };
}
pub(crate) use tests;

/// Nothing here takes long; a test that hangs should say so.
const TIME_LIMIT: Duration = Duration::from_mins(1);

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // They wait, for disks and for each other's locks, more than they compute.
    arguments.test_threads.get_or_insert(8);
    let runtime = Arc::new(Runtime::new().expect("a runtime"));
    let servers = runtime.block_on(Server::all());
    if !arguments.list {
        let names: Vec<&str> = servers.iter().map(|server| server.name.as_str()).collect();
        println!("databases under test: {}", names.join(", "));
        if servers.len() == 1 {
            println!("MUNDAP_TEST_MYSQL_URLS is not set: name MySQL and MariaDB servers in it to test on them too");
        }
    }
    let modules = [
        ("qna", qna::tests()),
        ("comment", comment::tests()),
        ("home", home::tests()),
        ("image", image::tests()),
        ("import", import::tests()),
        ("user", user::tests()),
        ("sign_in", sign_in::tests()),
        ("receipt", receipt::tests()),
        ("audit", audit::tests()),
        ("outbox", outbox::tests()),
        ("mail_token", mail_token::tests()),
        ("rate", rate::tests()),
        ("store", store::tests()),
        ("together", together::tests()),
        ("outage", outage::tests()),
        ("certification", certification::tests()),
        ("migration", migration::tests()),
        ("transfer", transfer::tests()),
        ("doctor", doctor::tests()),
    ];
    let mut trials = Vec::new();
    for server in &servers {
        for (module, tests) in &modules {
            for test in tests {
                let (name, run) = (format!("{}::{module}::{}", server.name, test.name), test.run);
                let (runtime, server) = (runtime.clone(), server.clone());
                trials.push(Trial::test(name, move || {
                    runtime.block_on(async {
                        let test = async {
                            let board = Board::new(&server).await;
                            run(board.clone()).await;
                            board.close().await;
                        };
                        tokio::time::timeout(TIME_LIMIT, test).await.map_err(|_| "took more than a minute".into())
                    })
                }));
            }
        }
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    runtime.block_on(async {
        for server in &servers {
            server.clean_up().await;
        }
    });
    conclusion.exit_code()
}
