//! Letters on their way: a mail server that is down, refuses or says nothing, and nodes that die or end meanwhile.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::board::{Board, User};
use crate::database::execute;
use crate::mail::sends_to;
use crate::program::eventually;
use crate::server::{Options, Server};
use crate::smtp::{Closed, Mail, Manner, Smtp};

crate::tests![
    a_mail_server_that_is_down_delays_letters_and_nothing_else,
    a_letter_that_is_not_taken_is_tried_again,
    a_letter_to_no_mailbox_is_given_up,
    a_letter_that_nobody_takes_is_given_up_after_days,
    a_letter_survives_a_kill,
    two_nodes_send_each_letter_once,
    the_end_waits_for_a_letter_that_is_being_sent;
    once:
    a_mail_server_that_says_nothing_is_left_after_half_a_minute,
];

fn a_mail_server_that_is_down_delays_letters_and_nothing_else(board: &Board) {
    let closed = Closed::new();
    let server = board.own(&sends_to(closed.address));
    let users: Vec<User> = (0..3).map(|_| server.new_user()).collect();
    let started = Instant::now();
    server.forget(&users[0].email).is(202);
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    server.log.wait_for("the one that says why no letter goes", |line| {
        line["level"] == "WARN" && line["reason"].as_str().is_some_and(|reason| reason.starts_with("no connection to"))
    });
    assert_eq!(server.waiting(), 4);

    let smtp = Smtp::opened(closed);
    for user in &users[1..] {
        let [mail] = smtp.exactly(&user.email);
        server.verify(&mail.token()).is(204);
    }
    smtp.wait_for(&users[0].email, 2);
    server.log.wait_for_message("the mail server takes letters again");
    server.empties_its_outbox();
    assert_eq!(smtp.letters().len(), 4);
    no_address_in(&server);
}

/// Nothing that the program logged names anybody.
fn no_address_in(server: &Server) {
    let lines = server.log.lines();
    let named = lines.iter().find(|line| line.contains('@') || line.contains("somebody"));
    assert!(named.is_none(), "{named:?}");
}

fn a_letter_that_is_not_taken_is_tried_again(board: &Board) {
    let smtp = Smtp::start();
    let server = board.own(&sends_to(smtp.address));
    let not_now = "451 4.3.0 <somebody@example.com> not now";
    for (manner, copies) in [
        (Manner::Answer("RCPT", not_now), 1),
        (Manner::Answer("CONNECT", "421 too many"), 1),
        (Manner::Answer("EHLO", "nonsense"), 1),
        (Manner::Answer(".", "452 4.3.1 the disk is full"), 1),
        // A refusal that is not about the mailbox can be mended.
        (Manner::Answer("MAIL", "535 5.7.8 who are you"), 1),
        (Manner::Answer(".", "554 5.7.1 not like this"), 1),
        (Manner::HangUp("CONNECT"), 1),
        (Manner::HangUp("RCPT"), 1),
        (Manner::HangUp("."), 1),
        // Then nobody knows whether it was taken: better twice than never.
        (Manner::TakeAndHangUp, 2),
    ] {
        let seen = smtp.connections();
        smtp.next([manner.clone()]);
        let user = server.new_user();
        let found = smtp.wait_for(&user.email, copies);
        server.empties_its_outbox();
        assert_eq!((found.len(), smtp.wait_for(&user.email, copies).len()), (copies, copies), "{manner:?}");
        assert_eq!(smtp.connections() - seen, 2, "{manner:?}");
        // The last is the one that is good: it replaced the token before.
        server.verify(&found.last().unwrap().token()).is(204);
        assert_eq!(id_of(&found[0]), id_of(found.last().unwrap()), "a server may know that it is the same");
    }
    no_address_in(&server);
}

fn a_mail_server_that_says_nothing_is_left_after_half_a_minute(board: &Board) {
    let smtp = Smtp::start();
    let server = board.own(&sends_to(smtp.address));
    smtp.next([Manner::Silence]);
    let silent = server.new_user();
    smtp.wait_for_connections(1);
    // Meanwhile others get theirs.
    let user = server.new_user();
    smtp.exactly::<1>(&user.email);
    eventually("the other is out of the outbox", || server.waiting() == 1);
    assert_eq!(smtp.letters().len(), 1);
    let found = smtp.wait_longer_for(&silent.email, 1, Duration::from_mins(1));
    server.verify(&found[0].token()).is(204);
    server.log.wait_for("the one that says why", |line| line["reason"] == "the mail server took too long");
    server.empties_its_outbox();
    assert_eq!(smtp.letters().len(), 2);
}

fn id_of(mail: &Mail) -> &str {
    mail.raw.lines().find(|line| line.starts_with("Message-ID:")).unwrap()
}

fn a_letter_to_no_mailbox_is_given_up(board: &Board) {
    let smtp = Smtp::start();
    let server = board.own(&sends_to(smtp.address));
    smtp.next([Manner::Answer("RCPT", "550 5.1.1 <somebody@example.com>: no such user")]);
    let user = server.new_user();
    let line = server.log.wait_for("the one that gives the letter up", |line| line["letter.id"].is_string());
    let expected = ("WARN", "verify_email", "the mail server answered 550", 1);
    let found = (&line["level"], &line["letter.topic"], &line["reason"], &line["attempts"]);
    assert_eq!(found, (&json!(expected.0), &json!(expected.1), &json!(expected.2), &json!(expected.3)), "{line}");
    server.empties_its_outbox();
    no_address_in(&server);
    let (_, metrics) = server.operator("/metrics");
    let counted = r#"mundap_letters_total{topic="verify_email",outcome="given_up"} 1"#;
    assert!(metrics.contains(counted), "{metrics}");
    // The account is there, and the next letter goes as usual.
    server.forget(&user.email).is(202);
    assert_eq!(smtp.wait_for(&user.email, 1)[0].subject, "Set a new password");
    assert_eq!(smtp.connections(), 2);
}

fn a_letter_that_nobody_takes_is_given_up_after_days(board: &Board) {
    let smtp = Smtp::start();
    let server = board.own(&sends_to(smtp.address));
    smtp.always(Manner::Answer("RCPT", "451 4.3.0 not now"));
    server.new_user();
    smtp.wait_for_connections(1);
    execute(&server.database_url, "UPDATE outbox SET created_at = '2026-01-02 12:00:00.000001'");
    server.let_time_pass();
    let line = server.log.wait_for("the one that gives the letter up", |line| line["letter.id"].is_string());
    assert_eq!((&line["level"], &line["reason"]), (&json!("WARN"), &json!("the mail server answered 451")), "{line}");
    server.empties_its_outbox();
    no_address_in(&server);
}

fn a_letter_survives_a_kill(board: &Board) {
    let smtp = Smtp::start();
    smtp.next([Manner::Silence]);
    let url = board.database.fresh();
    let server = Server::start(&url, &sends_to(smtp.address));
    let user = server.new_user();
    // It was taken out of the outbox and is on its way when the node dies.
    smtp.wait_for_connections(1);
    server.signal("KILL");
    server.end();
    assert_eq!(server.waiting(), 1);
    let dir = server.dir.clone();
    let server = Server::start(&url, &Options { dir: Some(dir), ..sends_to(smtp.address) });
    server.let_time_pass();
    let [mail] = smtp.exactly(&user.email);
    server.verify(&mail.token()).is(204);
    server.empties_its_outbox();
    assert_eq!(smtp.letters().len(), 1);
}

fn two_nodes_send_each_letter_once(board: &Board) {
    let closed = Closed::new();
    let url = board.database.fresh();
    let first = Server::start(&url, &sends_to(closed.address));
    let second = Server::start(&url, &Options { dir: Some(first.dir.clone()), ..sends_to(closed.address) });
    let users: Vec<User> = (0..20).map(|n| if n % 2 == 0 { first.new_user() } else { second.new_user() }).collect();
    let smtp = Smtp::opened(closed);
    first.let_time_pass();
    for user in &users {
        smtp.wait_for(&user.email, 1);
    }
    first.empties_its_outbox();
    assert_eq!(smtp.letters().len(), users.len());
    for user in &users {
        let [mail] = smtp.exactly(&user.email);
        second.verify(&mail.token()).is(204);
    }
    let sent_by = |server: &Server| {
        let (_, metrics) = server.operator("/metrics");
        let name = r#"mundap_letters_total{topic="verify_email",outcome="sent"} "#;
        metrics.lines().find_map(|line| line.strip_prefix(name)?.parse::<usize>().ok()).unwrap_or_default()
    };
    assert_eq!(sent_by(&first) + sent_by(&second), users.len());
}

fn the_end_waits_for_a_letter_that_is_being_sent(board: &Board) {
    let smtp = Smtp::start();
    let server = board.own(&sends_to(smtp.address));
    let users: Vec<User> = (0..8).map(|_| server.new_user()).collect();
    server.signal("TERM");
    assert_eq!(server.end().code(), Some(0));
    // What was sent is out of the outbox, and what was not is in it.
    let waiting = server.waiting();
    let sent = smtp.letters().len();
    let log = server.log.lines().join("\n");
    let found = usize::try_from(waiting).unwrap() + sent;
    // On a machine that is too slow for that it says so, and none is lost.
    let was_late = log.contains("letters were still being sent");
    assert!(found == users.len() || (was_late && found > users.len()), "{waiting} wait, {sent} were sent\n{log}");
}
