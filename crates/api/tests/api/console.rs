//! What an operator does at the console: migrations, and accounts.

use std::sync::Arc;

use serde_json::json;

use crate::board::{Board, PASSWORD, new_email};
use crate::database::number;
use crate::program::{ends, eventually, in_dir};
use crate::server::{Options, Server, run_with_input};

crate::tests![
    migrations_go_up_and_down,
    accounts_come_from_the_console,
    the_first_account_can_come_before_the_first_start,
    a_console_account_that_breaks_a_rule_is_refused,
    a_role_from_the_console_bites,
    a_password_from_the_console_ends_sign_ins;
    once: whoever_looks_makes_no_board,
];

fn migrations_go_up_and_down(board: &Board) {
    let dir = tempfile::tempdir().unwrap();
    let url = board.database.fresh();
    let migrate = |arguments: &[&str]| {
        let out = ends(in_dir(dir.path()).env("MUNDAP_DATABASE_URL", &url).arg("migrate").args(arguments)).done();
        out.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let rest = |lines: &[String], prefix: &str| -> Vec<String> {
        lines.iter().filter_map(|line| line.strip_prefix(prefix)).map(str::to_owned).collect()
    };
    let all = rest(&migrate(&["status"]), "pending ");
    assert!(!all.is_empty());
    assert_eq!(rest(&migrate(&["up"]), "applied "), all);
    assert_eq!(migrate(&["up"]), [""; 0], "a second time there is nothing to do");
    assert_eq!(rest(&migrate(&["status"]), "applied "), all);
    assert_eq!(number(&url, "SELECT COUNT(*) AS n FROM qna"), 0);

    let newest = all.last().unwrap();
    assert_eq!(migrate(&["down", "1"]), [format!("took back {newest}")]);
    let status = migrate(&["status"]);
    assert_eq!(rest(&status, "pending "), std::slice::from_ref(newest));
    assert_eq!(rest(&status, "applied "), all[..all.len() - 1]);
    assert_eq!(migrate(&["up"]), [format!("applied {newest}")]);
    let mut taken_back = rest(&migrate(&["down", "99"]), "took back ");
    taken_back.reverse();
    assert_eq!(taken_back, all);
    assert_eq!(rest(&migrate(&["status"]), "pending "), all);
}

/// A path with a typing error would look as if it were another board's, and all well.
fn whoever_looks_makes_no_board(_: &Board) {
    let dir = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| ends(in_dir(dir.path()).args(arguments));
    for arguments in [&["key", "list"][..], &["key", "rotate"]] {
        let line = run(arguments).refused(1);
        assert!(line.starts_with("cannot use the signing key (MUNDAP_SIGNING_KEY_FILE): "), "{line}");
    }
    for arguments in
        [&["user", "role", "ann@example.com", "admin"][..], &["user", "suspend", "ann@example.com"], &["doctor"]]
    {
        let line = run(arguments).refused(1);
        assert!(line.contains("MUNDAP_DATABASE_URL") && line.ends_with("there is no such file"), "{line}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);

    let said = run(&["check"]).done();
    for line in [
        "data folder: ./mundap-data was made now, and can be written",
        "signing key: ./mundap-data/signing-key.pem is not there yet; the first start makes it",
        "database: ./mundap-data/mundap.db is not there yet; the first start makes it",
    ] {
        assert!(said.lines().any(|said| said == line), "{line}: {said}");
    }
    assert_eq!(std::fs::read_dir(dir.path().join("mundap-data")).unwrap().count(), 0);
    let pending = |said: &str| said.lines().find(|line| line.starts_with("migrations: ")).unwrap().to_owned();
    let all = pending(&said);
    assert!(all.ends_with(" pending") && all != "migrations: 0 pending", "{said}");

    std::fs::write(dir.path().join("password"), PASSWORD).unwrap();
    run(&["user", "add", "ann@example.com", "--password-file", "password"]).done();
    let said = run(&["check"]).done();
    for line in ["data folder: ./mundap-data can be written", "signing key: ok", "migrations: 0 pending"] {
        assert!(said.lines().any(|said| said == line), "{line}: {said}");
    }
    run(&["migrate", "down", "99"]).done();
    assert_eq!(pending(&run(&["check"]).done()), all);
}

fn accounts_come_from_the_console(board: &Board) {
    let server = board.server();
    let (from_file, from_input) = (new_email(), new_email());
    // The first line is the password, with the spaces that are part of it.
    std::fs::write(server.dir.path().join("password"), " a pass phrase \r\nnot this\n").unwrap();
    let arguments = ["user", "add", &from_file, "--role", "admin", "--password-file", "password"];
    let out = ends(&mut server.command(&arguments)).done();
    let expected = format!("admin {from_file} is there, with user_id ");
    let id: i64 = out.trim().strip_prefix(&expected).unwrap_or_else(|| panic!("{out}")).parse().unwrap();
    let tokens = server.sign_in(&from_file, " a pass phrase ").is(200).json();
    let me = server.get("/api/v1/users/me").bearer(tokens["access_token"].as_str().unwrap()).send().is(200).json();
    let name = from_file.split('@').next().unwrap();
    assert_eq!(
        (&me["user_id"], &me["role"], &me["display_name"], &me["email"]),
        (&json!(id), &json!("admin"), &json!(name), &json!(from_file))
    );

    let arguments = ["user", "add", &from_input, "--display-name", "문답이", "--password-file", "-"];
    let out = run_with_input(&mut server.command(&arguments), "another pass phrase").done();
    assert!(out.starts_with(&format!("member {from_input} is there")), "{out}");
    let tokens = server.sign_in(&from_input, "another pass phrase").is(200).json();
    let me = server.get("/api/v1/users/me").bearer(tokens["access_token"].as_str().unwrap()).send().is(200).json();
    assert_eq!((&me["role"], &me["display_name"]), (&json!("member"), &json!("문답이")));
}

fn the_first_account_can_come_before_the_first_start(board: &Board) {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let url = board.database.fresh();
    let email = new_email();
    let mut command = in_dir(dir.path());
    command.env("MUNDAP_DATABASE_URL", &url).args(["--data-dir", "data", "user", "add", &email, "--role", "admin"]);
    run_with_input(command.args(["--password-file", "-"]), PASSWORD).done();
    let server = Server::start(&url, &Options { dir: Some(dir), ..Options::default() });
    let tokens = server.sign_in(&email, PASSWORD).is(200).json();
    let me = server.get("/api/v1/users/me").bearer(tokens["access_token"].as_str().unwrap()).send().is(200).json();
    assert_eq!((&me["email"], &me["role"]), (&json!(email), &json!("admin")));
}

fn a_console_account_that_breaks_a_rule_is_refused(board: &Board) {
    let server = board.server();
    let user = server.new_user();
    let nobody = new_email();
    let users = || number(&server.database_url, &format!("SELECT COUNT(*) AS n FROM users WHERE email = '{nobody}'"));
    let input = |arguments: &[&str], input: &str| run_with_input(&mut server.command(arguments), input);

    for arguments in [["user", "add", &nobody], ["user", "password", &user.email]] {
        let line = ends(&mut server.command(&arguments)).refused(1);
        assert!(line.contains("no terminal") && line.contains("--password-file"), "{line}");
        let line = ends(server.command(&arguments).args(["--password-file", "nowhere"])).refused(1);
        assert!(line.starts_with("cannot read the password"), "{line}");
        let ended = run_with_input(server.command(&arguments).args(["--password-file", "-"]), "shortie\n");
        assert!(!ended.err.contains("shortie"), "{ended:?}");
        let line = ended.refused(2);
        assert!(line == "password must have at least 8 characters.", "{line}");
        let line = run_with_input(server.command(&arguments).args(["--password-file", "-"]), "").refused(2);
        assert!(line.starts_with("password "), "{line}");
    }
    let line = input(&["user", "add", "nobody", "--password-file", "-"], PASSWORD).refused(2);
    assert!(line.starts_with("email "), "{line}");
    let long = "n".repeat(51);
    let arguments = ["user", "add", &nobody, "--display-name", &long, "--password-file", "-"];
    let line = input(&arguments, PASSWORD).refused(2);
    assert!(line.starts_with("display_name "), "{line}");
    for spelling in [user.email.clone(), user.email.to_uppercase()] {
        let line = input(&["user", "add", &spelling, "--password-file", "-"], PASSWORD).refused(1);
        assert!(line.contains("e-mail"), "{line}");
    }
    for arguments in [&["user", "role", &nobody, "admin"][..], &["user", "password", &nobody, "--password-file", "-"]] {
        let line = input(arguments, PASSWORD).refused(1);
        assert!(line.contains("not found") || line.contains("no "), "{line}");
    }
    assert_eq!(users(), 0);
    server.sign_in(&user.email, PASSWORD).is(200);
}

fn a_role_from_the_console_bites(board: &Board) {
    let server = board.server();
    let user = server.new_user();
    let path = server.ask_at(board.bob(), "Whose question is this?");
    let edit = |title: &str| server.patch(&path).by(&user).json(json!({"title": title})).may_fail().send();
    let role = |name: &str| {
        let out = ends(&mut server.command(&["user", "role", &user.email.to_uppercase(), name])).done();
        assert_eq!(out, format!("{} is {name} now\n", user.email));
    };
    edit("Mine").problem(403, "not_author");
    // What another process changes is known within a second.
    role("moderator");
    eventually("the role to bite", || edit("Moderated").status == 200);
    role("member");
    eventually("the role to be gone", || edit("Mine").status == 403);
    edit("Mine").problem(403, "not_author");
    role("member");
    assert_eq!(server.get("/api/v1/users/me").by(&user).send().is(200).json()["role"], "member");
}

fn a_password_from_the_console_ends_sign_ins(board: &Board) {
    let server = board.server();
    let user = server.new_user();
    let arguments = ["user", "password", &user.email, "--password-file", "-"];
    let ended = run_with_input(&mut server.command(&arguments), "quite another one\n");
    assert!(!ended.out.contains("quite"), "{ended:?}");
    assert!(ended.done().starts_with(&user.email));
    eventually("the sign-in to be gone", || server.get("/api/v1/users/me").by(&user).may_fail().send().status == 401);
    server.get("/api/v1/users/me").by(&user).send().problem(401, "invalid_token");
    assert_eq!(server.refresh(&user.refresh).is(400).json()["error"], "invalid_grant");
    assert_eq!(server.sign_in(&user.email, PASSWORD).is(400).json()["error"], "invalid_grant");
    server.sign_in(&user.email, "quite another one").is(200);
}
