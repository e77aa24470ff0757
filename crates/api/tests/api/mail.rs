//! Letters, from the request that causes one to the mail server that takes it, and the tokens that they carry.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::board::{Board, PASSWORD, User, new_email};
use crate::client::Reply;
use crate::database::{columns_that_hold, execute, number};
use crate::program::{ends, eventually};
use crate::server::{Options, Server, mundap};
use crate::smtp::{Closed, Mail, Manner, Smtp};

crate::tests![
    a_new_account_gets_a_letter_that_verifies_its_address,
    a_registration_that_is_repeated_or_refused_sends_nothing_more,
    a_letter_is_in_the_language_of_its_request,
    the_letter_that_verifies_can_be_asked_for_again,
    a_forgotten_password_is_reset_by_a_letter,
    nobody_learns_who_has_an_account,
    nobody_s_mailbox_is_flooded,
    a_newer_token_replaces_the_older,
    a_token_is_good_for_its_purpose_alone,
    a_token_is_good_for_half_an_hour,
    a_token_that_comes_ten_times_at_once_is_good_once,
    what_never_was_a_token_is_as_good_as_an_old_one,
    a_changed_email_is_told_to_the_old_one_and_verified_at_the_new,
    a_token_does_not_outlive_its_address,
    a_changed_password_is_told_and_voids_what_would_reset_it,
    a_password_from_the_console_is_told_too,
    a_name_is_words_and_only_where_the_address_is_theirs,
    a_deleted_account_leaves_no_letter_and_no_token,
    an_address_that_was_given_up_is_forgotten_with_the_account,
    a_board_without_a_mail_server_sends_nothing,
    whom_a_proxy_vouches_for_gets_no_letter,
    check_tries_the_mail_server;
    once:
    a_mail_server_needs_a_sender,
    the_pages_work_by_themselves,
];

const ME: &str = "/api/v1/users/me";
const NEW_PASSWORD: &str = "battery staple correct";
const FROM: &str = "문답 게시판 <board@example.org>";

pub(crate) fn sends_to(address: SocketAddr) -> Options {
    Options {
        env: vec![("MUNDAP_SMTP_URL", format!("smtp://{address}")), ("MUNDAP_MAIL_FROM", FROM.to_owned())],
        dir: None,
    }
}

impl Board {
    /// A server that sends mail, and the mail server that takes it.
    fn mailing(&self) -> (&Server, &Smtp) {
        let (server, smtp) = self.mailing.get_or_init(|| {
            let smtp = Smtp::start();
            (self.own(&sends_to(smtp.address)), smtp)
        });
        (server, smtp)
    }
}

impl Server {
    /// The letters that wait.
    pub(crate) fn waiting(&self) -> i64 {
        number(&self.database_url, "SELECT COUNT(*) AS n FROM outbox")
    }

    fn tokens(&self) -> i64 {
        number(&self.database_url, "SELECT COUNT(*) AS n FROM mail_token")
    }

    /// The token in a letter, which has no place in the log.
    fn token_of(&self, mail: &Mail) -> String {
        let token = mail.token();
        self.secrets.lock().unwrap().insert(token.clone());
        token
    }

    pub(crate) fn forget(&self, email: &str) -> Reply {
        self.post("/api/v1/auth/forgot").json(json!({"email": email})).send()
    }

    fn reset(&self, token: &str, password: &str) -> Reply {
        self.post("/api/v1/auth/reset").json(json!({"token": token, "new_password": password})).send()
    }

    pub(crate) fn verify(&self, token: &str) -> Reply {
        self.post("/api/v1/auth/verify").json(json!({"token": token})).send()
    }

    fn me(&self, user: &User) -> Value {
        self.get(ME).by(user).send().is(200).json()
    }

    /// What waits is due now, as if time had passed.
    pub(crate) fn let_time_pass(&self) {
        execute(&self.database_url, "UPDATE outbox SET due_at = '2026-01-02 12:00:00.000001'");
    }

    pub(crate) fn empties_its_outbox(&self) {
        eventually("the outbox is empty", || self.waiting() == 0);
    }
}

/// A member with the letter that greeted them.
fn greeted(server: &Server, smtp: &Smtp) -> (User, String) {
    let user = server.new_user();
    let [mail] = smtp.exactly(&user.email);
    (user, server.token_of(&mail))
}

/// The token for a new password that a member asked for, where they have so many letters before.
fn forgotten(server: &Server, smtp: &Smtp, email: &str, letters: usize) -> String {
    let reply = server.forget(email).is(202);
    assert!(reply.body.is_empty(), "{reply}");
    server.token_of(smtp.wait_for(email, letters + 1).last().unwrap())
}

fn is_void(reply: Reply) {
    let problem = reply.problem(422, "invalid_mail_token");
    assert_eq!(problem["errors"], json!([]));
}

fn a_new_account_gets_a_letter_that_verifies_its_address(board: &Board) {
    let (server, smtp) = board.mailing();
    let (user, token) = greeted(server, smtp);
    let [mail] = smtp.exactly(&user.email);
    assert_eq!((&*mail.sender, &*mail.from), ("board@example.org", "문답 게시판"));
    assert_eq!(mail.subject, "Confirm your e-mail address");
    assert!(mail.link().starts_with(&format!("{}/account/verify#token=", server.base())), "{}", mail.link());
    for header in ["Auto-Submitted: auto-generated\r\n", "MIME-Version: 1.0\r\n", "Message-ID: <", "Date: "] {
        assert!(mail.raw.contains(header), "{}", mail.raw);
    }
    let before = server.get(ME).by(&user).send().is(200);
    assert_eq!(before.json()["email_verified"], false);
    // Nothing depends on it.
    let qna = server.ask_at(&user, "May I, before I verify?");
    server.comment_at(&user, &qna, "It seems so.");

    server.verify(&token).is(204);
    let after = server.get(ME).by(&user).send().is(200);
    let mut expected = before.json();
    expected["email_verified"] = json!(true);
    assert_eq!(after.json(), expected, "it is no edit");
    assert_ne!(after.etag(), before.etag());
    is_void(server.verify(&token));
    assert_eq!(server.me(&user)["email_verified"], true);
    server.patch(ME).by(&user).header("if-match", &before.etag()).json(json!({"display_name": "Me"})).send().is(200);
    assert_eq!(server.me(&user)["email_verified"], true, "another name is no other address");
}

fn a_registration_that_is_repeated_or_refused_sends_nothing_more(board: &Board) {
    let (server, smtp) = board.mailing();
    let email = new_email();
    let body = json!({"email": email, "password": PASSWORD, "display_name": "Once"});
    let register = || server.post("/api/v1/users").json(body.clone());
    for _ in 0..2 {
        let account = register().header("idempotency-key", &email).send().is(201).json();
        assert_eq!(account["email_verified"], false);
    }
    register().send().problem(409, "email_taken");
    forgotten(server, smtp, &email, 1);
    let subjects = smtp.wait_for(&email, 2).into_iter().map(|mail| mail.subject);
    assert_eq!(subjects.collect::<Vec<_>>(), ["Confirm your e-mail address", "Set a new password"]);
}

fn a_letter_is_in_the_language_of_its_request(board: &Board) {
    let (server, smtp) = board.mailing();
    for (header, subject, greeting, language) in [
        ("ko-KR,ko;q=0.9,en;q=0.8", "이메일 주소를 확인해 주세요", "안녕하세요.", "ko"),
        ("en;q=0.9,ko;q=0.8", "Confirm your e-mail address", "Hello,", "en"),
        ("fr", "Confirm your e-mail address", "Hello,", "en"),
    ] {
        let email = new_email();
        let body = json!({"email": email, "password": PASSWORD, "display_name": "문답이"});
        server.post("/api/v1/users").header("accept-language", header).json(body).send().is(201);
        let [mail] = smtp.exactly(&email);
        assert_eq!(mail.subject, subject);
        assert!(mail.plain.starts_with(&format!("{greeting}\n")), "{}", mail.plain);
        assert!(mail.html.contains(&format!("<html lang=\"{language}\">")), "{}", mail.html);
        assert!(mail.link().ends_with(&format!("&lang={language}")), "{}", mail.link());
        // The wire carries ASCII alone.
        assert!(mail.raw.is_ascii(), "{}", mail.raw);
        server.verify(&server.token_of(&mail)).is(204);
    }
}

fn the_letter_that_verifies_can_be_asked_for_again(board: &Board) {
    let (server, smtp) = board.mailing();
    let (user, first) = greeted(server, smtp);
    let ask = || server.post("/api/v1/users/me/verification").by(&user).send();
    ask().is(202);
    let second = server.token_of(&smtp.wait_for(&user.email, 2)[1]);
    is_void(server.verify(&first));
    server.verify(&second).is(204);
    // Once it is verified there is nothing to write.
    ask().is(202);
    forgotten(server, smtp, &user.email, 2);
    let subjects: Vec<_> = smtp.wait_for(&user.email, 3).into_iter().map(|mail| mail.subject).collect();
    assert_eq!(subjects[2..], ["Set a new password"]);
    server.post("/api/v1/users/me/verification").send().problem(401, "unauthenticated");
}

fn a_forgotten_password_is_reset_by_a_letter(board: &Board) {
    let (server, smtp) = board.mailing();
    let (user, _) = greeted(server, smtp);
    server.forget(&user.email.to_uppercase()).is(202);
    // To the address as it was spelled: it is the same mailbox, or the account is not theirs.
    let mail = smtp.wait_for(&user.email.to_uppercase().replace("EXAMPLE.COM", "example.com"), 1).remove(0);
    assert_eq!(mail.subject, "Set a new password");
    assert!(mail.link().starts_with(&format!("{}/account/reset#token=", server.base())), "{}", mail.link());
    let token = server.token_of(&mail);
    server.reset(&token, "short").violates(&["/new_password too_short"]);
    server.get(ME).by(&user).send().is(200);

    server.reset(&token, NEW_PASSWORD).is(204);
    server.get(ME).by(&user).send().problem(401, "invalid_token");
    assert_eq!(server.refresh(&user.refresh).is(400).json()["error"], "invalid_grant");
    assert_eq!(server.sign_in(&user.email, PASSWORD).is(400).json()["error"], "invalid_grant");
    let tokens = server.sign_in(&user.email, NEW_PASSWORD).is(200).json();
    let me = server.get(ME).bearer(tokens["access_token"].as_str().unwrap()).send().is(200).json();
    assert_eq!(me["email_verified"], true, "whoever reads the letter has the address");
    let told = smtp.wait_for(&user.email, 2).remove(1);
    assert_eq!(told.subject, "Your password was changed");
    is_void(server.reset(&token, PASSWORD));
    server.sign_in(&user.email, NEW_PASSWORD).is(200);
}

fn nobody_learns_who_has_an_account(board: &Board) {
    let (server, smtp) = board.mailing();
    let (user, _) = greeted(server, smtp);
    let stranger = new_email();
    let unlike = |reply: &Reply| {
        let headers = reply.headers.iter().filter(|(name, _)| !["x-request-id", "date"].contains(&name.as_str()));
        let headers: BTreeMap<_, _> = headers.map(|(name, value)| (name.to_string(), value.clone())).collect();
        format!("{} {headers:?} {:?}", reply.status, reply.body)
    };
    let (unknown, known) = (server.forget(&stranger), server.forget(&user.email));
    assert_eq!(unlike(&unknown), unlike(&known));
    smtp.wait_for(&user.email, 2);
    server.empties_its_outbox();
    assert!(smtp.letters().iter().all(|mail| mail.to != stranger));
    // What the address is, is looked at as everywhere.
    server.forget("nobody").violates(&["/email not_an_email"]);
    for body in [json!({}), json!({"email": user.email, "user_id": user.id})] {
        server.post("/api/v1/auth/forgot").json(body).send().problem(422, "validation_failed");
    }
}

fn nobody_s_mailbox_is_flooded(board: &Board) {
    let smtp = Smtp::start();
    let mut options = sends_to(smtp.address);
    options.env.extend([("MUNDAP_RATE_LIMIT", "on".to_owned()), ("MUNDAP_RATE_LIMIT_LETTERS", "2/1h".to_owned())]);
    let server = board.own(&options);
    let user = server.new_user();
    // The letter of the registration is not one that was asked for.
    smtp.wait_for(&user.email, 1);
    for _ in 0..5 {
        server.forget(&user.email).is(202);
    }
    let again = || server.post("/api/v1/users/me/verification").by(&user).send();
    again().problem(429, "rate_limited");
    smtp.wait_for(&user.email, 3);
    server.empties_its_outbox();
    assert_eq!(smtp.wait_for(&user.email, 3).len(), 3);
    // Other addresses have letters of their own, as many as one account may have written.
    for n in 0..3 {
        let email = json!({"email": format!("changed-{n}-{}", user.email)});
        assert_eq!(server.patch(ME).by(&user).json(email).send().status, if n < 2 { 200 } else { 429 });
    }
}

fn a_newer_token_replaces_the_older(board: &Board) {
    let (server, smtp) = board.mailing();
    let (user, verification) = greeted(server, smtp);
    let first = forgotten(server, smtp, &user.email, 1);
    let second = forgotten(server, smtp, &user.email, 2);
    assert_ne!(first, second);
    is_void(server.reset(&first, NEW_PASSWORD));
    server.sign_in(&user.email, PASSWORD).is(200);
    server.verify(&verification).is(204);
    server.reset(&second, NEW_PASSWORD).is(204);
}

fn a_token_is_good_for_its_purpose_alone(board: &Board) {
    let (server, smtp) = board.mailing();
    let (user, verification) = greeted(server, smtp);
    let reset = forgotten(server, smtp, &user.email, 1);
    is_void(server.reset(&verification, NEW_PASSWORD));
    is_void(server.verify(&reset));
    // Nor are they any other token.
    for token in [&verification, &reset] {
        server.get(ME).bearer(token).send().problem(401, "invalid_token");
        server.refresh(token).is(400);
    }
    server.verify(&verification).is(204);
    server.reset(&reset, NEW_PASSWORD).is(204);
}

fn a_token_is_good_for_half_an_hour(board: &Board) {
    let (server, smtp) = board.mailing();
    let (user, verification) = greeted(server, smtp);
    let reset = forgotten(server, smtp, &user.email, 1);
    let minutes = if server.database_url.starts_with("sqlite:") {
        "CAST(ROUND((julianday(MIN(expires_at)) - julianday('now')) * 1440) AS INTEGER)"
    } else {
        "CAST(ROUND(TIMESTAMPDIFF(SECOND, UTC_TIMESTAMP(), MIN(expires_at)) / 60) AS SIGNED)"
    };
    let left = number(
        &server.database_url,
        &format!("SELECT {minutes} AS n FROM mail_token WHERE user_id = {} AND purpose = 'reset_password'", user.id),
    );
    assert!((29..=30).contains(&left), "{left} minutes");
    let past = format!("UPDATE mail_token SET expires_at = '2026-01-02 12:00:00.000001' WHERE user_id = {}", user.id);
    execute(&server.database_url, &past);
    is_void(server.reset(&reset, NEW_PASSWORD));
    is_void(server.verify(&verification));
    server.get(ME).by(&user).send().is(200);
    assert_eq!(server.me(&user)["email_verified"], false);
}

fn a_token_that_comes_ten_times_at_once_is_good_once(board: &Board) {
    let (server, smtp) = board.mailing();
    let (user, verification) = greeted(server, smtp);
    let reset = forgotten(server, smtp, &user.email, 1);
    let at_once = |call: &(dyn Fn(usize) -> Reply + Sync)| -> Vec<u16> {
        std::thread::scope(|scope| {
            let calls: Vec<_> = (0..10).map(|n| scope.spawn(move || call(n).status)).collect();
            let mut statuses: Vec<u16> = calls.into_iter().map(|call| call.join().unwrap()).collect();
            statuses.sort_unstable();
            statuses
        })
    };
    let once = [[204].as_slice(), &[422; 9]].concat();
    assert_eq!(at_once(&|_| server.verify(&verification)), once);
    // Two of the hasher's places are enough for ten, and each brings a password of its own.
    assert_eq!(at_once(&|n| server.reset(&reset, &format!("{NEW_PASSWORD} {n}"))), once);
    let good = (0..10).filter(|n| server.sign_in(&user.email, &format!("{NEW_PASSWORD} {n}")).status == 200).count();
    assert_eq!(good, 1);
    // One reset, one notice.
    let told = smtp.wait_for(&user.email, 3);
    server.empties_its_outbox();
    assert_eq!(smtp.wait_for(&user.email, 3).len(), told.len());
}

fn what_never_was_a_token_is_as_good_as_an_old_one(board: &Board) {
    let (server, _) = board.mailing();
    let long = "A".repeat(10_000);
    for rubbish in ["", " ", "A", "한국어", "../../etc/passwd", "' OR 1=1 --", &"A".repeat(43), &"A".repeat(44), &long]
    {
        is_void(server.verify(rubbish));
        is_void(server.reset(rubbish, NEW_PASSWORD));
    }
    server.post("/api/v1/auth/verify").json(json!({})).send().violates(&["/token required"]);
    server.post("/api/v1/auth/verify").json(json!({"token": null})).send().violates(&["/token not_a_string"]);
    server.post("/api/v1/auth/reset").json(json!({"token": 5, "password": NEW_PASSWORD})).send().violates(&[
        "/token not_a_string",
        "/new_password required",
        "/password unknown_field",
    ]);
}

fn edit_me(server: &Server, by: &User, body: Value) -> Value {
    server.patch(ME).by(by).json(body).send().is(200).json()
}

fn a_changed_email_is_told_to_the_old_one_and_verified_at_the_new(board: &Board) {
    let (server, smtp) = board.mailing();
    let (user, token) = greeted(server, smtp);
    server.verify(&token).is(204);
    // Another spelling is the same address.
    let shouted = user.email.replace("somebody", "SOMEBODY");
    assert_eq!(edit_me(server, &user, json!({"email": shouted}))["email_verified"], true);
    assert_eq!(edit_me(server, &user, json!({"email": user.email}))["email_verified"], true);
    let email = new_email();
    let me = edit_me(server, &user, json!({"email": email, "display_name": "Another"}));
    assert_eq!((&me["email"], &me["email_verified"]), (&json!(email), &json!(false)));

    let [mail] = smtp.exactly(&email);
    assert_eq!(mail.subject, "Confirm your e-mail address");
    let [_, notice] = smtp.exactly(&user.email);
    assert_eq!(notice.subject, "Your account has another e-mail address");
    for form in [&notice.plain, &notice.html, &notice.raw] {
        assert!(!form.contains(&email) && !form.contains("Another"), "what is new is nobody's business: {form}");
    }
    server.verify(&server.token_of(&mail)).is(204);
    assert_eq!(server.me(&user)["email_verified"], true);
    assert!(smtp.letters().iter().all(|mail| mail.to != shouted));
}

fn a_token_does_not_outlive_its_address(board: &Board) {
    let (server, smtp) = board.mailing();
    let (user, verification) = greeted(server, smtp);
    let reset = forgotten(server, smtp, &user.email, 1);
    let email = new_email();
    edit_me(server, &user, json!({"email": email}));
    is_void(server.verify(&verification));
    is_void(server.reset(&reset, NEW_PASSWORD));
    smtp.exactly::<1>(&email);
    // Not even where the account comes back to it.
    edit_me(server, &user, json!({"email": user.email}));
    is_void(server.verify(&verification));
    is_void(server.reset(&reset, NEW_PASSWORD));
    assert_eq!(server.me(&user)["email_verified"], false);

    // Whatever changes the address: the token says where it went.
    let verification = server.token_of(smtp.wait_for(&user.email, 4).last().unwrap());
    let moved = new_email();
    let sql = format!("UPDATE users SET email = '{moved}', email_key = '{moved}' WHERE user_id = {}", user.id);
    execute(&server.database_url, &sql);
    is_void(server.verify(&verification));
}

fn a_changed_password_is_told_and_voids_what_would_reset_it(board: &Board) {
    let (server, smtp) = board.mailing();
    let (user, _) = greeted(server, smtp);
    let reset = forgotten(server, smtp, &user.email, 1);
    let body = json!({"current_password": PASSWORD, "new_password": NEW_PASSWORD});
    let change = server.post("/api/v1/users/me/password").by(&user).header("accept-language", "ko").json(body);
    change.send().is(204);
    let told = smtp.wait_for(&user.email, 3).remove(2);
    assert_eq!(told.subject, "비밀번호가 바뀌었습니다");
    assert!(!told.plain.contains("token="), "{}", told.plain);
    is_void(server.reset(&reset, PASSWORD));
    server.sign_in(&user.email, NEW_PASSWORD).is(200);
}

fn a_password_from_the_console_is_told_too(board: &Board) {
    let (server, smtp) = board.mailing();
    let (user, _) = greeted(server, smtp);
    let mut command = server.command(&["user", "password", &user.email, "--password-file", "-"]);
    command.env("MUNDAP_SMTP_URL", smtp.url()).env("MUNDAP_MAIL_FROM", FROM);
    let ended = crate::server::run_with_input(&mut command, NEW_PASSWORD);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(smtp.wait_for(&user.email, 2)[1].subject, "Your password was changed");
}

fn a_name_is_words_and_only_where_the_address_is_theirs(board: &Board) {
    let (server, smtp) = board.mailing();
    let email = new_email();
    let name = "Ann\nBcc: all@example.net\n\n<script>";
    let body = json!({"email": email, "password": PASSWORD, "display_name": name});
    server.post("/api/v1/users").json(body).send().is(201);
    let [mail] = smtp.exactly(&email);
    assert!(!mail.raw.contains("Bcc") && !mail.plain.contains("Ann"), "{}", mail.raw);
    server.verify(&server.token_of(&mail)).is(204);

    server.forget(&email).is(202);
    let mail = smtp.wait_for(&email, 2).remove(1);
    server.token_of(&mail);
    assert!(mail.plain.starts_with("Hello Ann Bcc: all@example.net <script>,\n"), "{}", mail.plain);
    assert!(mail.html.contains("Hello Ann Bcc: all@example.net &lt;script&gt;,</p>"), "{}", mail.html);
    let (head, _) = mail.raw.split_once("\r\n\r\n").unwrap();
    assert!(!head.contains("Bcc"), "{head}");
    assert!(smtp.letters().iter().all(|mail| mail.to != "all@example.net"));
}

fn a_deleted_account_leaves_no_letter_and_no_token(board: &Board) {
    let closed = Closed::new();
    let server = board.own(&sends_to(closed.address));
    let (user, other) = (server.new_user(), server.new_user());
    server.forget(&user.email).is(202);
    server.forget(&other.email).is(202);
    edit_me(&server, &user, json!({"email": new_email()}));
    // Tokens come with the first try to send, and what was for the address before is for nobody.
    eventually("each has their tokens", || server.tokens() == 3);
    server.let_time_pass();
    eventually("each has their letters", || server.waiting() == 4);
    // To the address that it has now, too.
    server.forget(server.me(&user)["email"].as_str().unwrap()).is(202);
    server.delete(ME).by(&user).send().is(204);
    assert_eq!((server.waiting(), server.tokens()), (2, 2));
    let theirs = format!("SELECT COUNT(*) AS n FROM outbox WHERE email = '{}'", other.email);
    assert_eq!(number(&server.database_url, &theirs), 2);
}

fn an_address_that_was_given_up_is_forgotten_with_the_account(board: &Board) {
    let closed = Closed::new();
    let server = board.own(&sends_to(closed.address));
    let user = server.new_user();
    server.forget(&user.email).is(202);
    eventually("each letter to be tried", || server.tokens() == 2);
    // Nobody looks at them again before the account is gone.
    execute(&server.database_url, "UPDATE outbox SET due_at = '2999-01-01 00:00:00.000000'");
    edit_me(&server, &user, json!({"email": new_email()}));
    server.delete(ME).by(&user).send().is(204);
    assert_eq!(columns_that_hold(&server.database_url, &[&user.email]), Vec::<String>::new());
}

fn a_board_without_a_mail_server_sends_nothing(board: &Board) {
    let server = board.server();
    server.log.wait_for_message("no mail is sent");
    let user = server.new_user();
    assert_eq!(server.me(&user)["email_verified"], false);
    for email in [&user.email, &new_email()] {
        let reply = server.forget(email).is(202);
        assert!(reply.body.is_empty(), "{reply}");
    }
    server.post("/api/v1/users/me/verification").by(&user).send().is(202);
    edit_me(server, &user, json!({"email": new_email()}));
    let body = json!({"current_password": PASSWORD, "new_password": NEW_PASSWORD});
    server.post("/api/v1/users/me/password").by(&user).json(body).send().is(204);
    is_void(server.verify(&"A".repeat(43)));
    assert_eq!((server.waiting(), server.tokens()), (0, 0));
}

fn whom_a_proxy_vouches_for_gets_no_letter(board: &Board) {
    let smtp = Smtp::start();
    let mut options = sends_to(smtp.address);
    options.env.push(("MUNDAP_IDENTITY", "trusted-email".to_owned()));
    let server = board.own(&options);
    let email = new_email();
    server.post("/upload").json(json!({"email": email, "title": "Who am I?", "content": ""})).send().is(200);
    assert_eq!(server.waiting(), 0);
    // A password is theirs for the asking.
    let token = forgotten(&server, &smtp, &email, 0);
    server.reset(&token, NEW_PASSWORD).is(204);
    server.sign_in(&email, NEW_PASSWORD).is(200);
}

fn check_tries_the_mail_server(board: &Board) {
    let dir = tempfile::tempdir().unwrap();
    let url = board.database.fresh();
    let check = |smtp: &str| {
        let mut command = mundap(dir.path());
        command
            .arg("check")
            .env("MUNDAP_DATABASE_URL", &url)
            .env("MUNDAP_MAIL_FROM", FROM)
            .env("MUNDAP_SMTP_URL", smtp);
        ends(&mut command)
    };
    let smtp = Smtp::start();
    let ended = check(&smtp.url());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.out.contains("\nmail server: ok\n"), "{ended:?}");
    assert!(smtp.letters().is_empty());

    smtp.always(Manner::Answer("EHLO", "550 go away"));
    let closed = Closed::new();
    for (url, reason) in [
        (smtp.url(), "the mail server answered 550"),
        (format!("smtp://ann:s3cret@{}", closed.address), "no connection to the mail server: "),
        // It answers in the clear.
        (format!("smtps://ann:s3cret@{}", smtp.address), "no connection to the mail server: "),
        (format!("smtp://ann:s3cret@{}?tls=required", smtp.address), "the mail server answered 550"),
    ] {
        let ended = check(&url);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        let expected = format!("mundap: cannot use the mail server (MUNDAP_SMTP_URL): {reason}");
        assert!(ended.err.starts_with(&expected) && ended.err.lines().count() == 1, "{ended:?}");
        assert!(!format!("{ended:?}").contains("s3cret"), "{ended:?}");
    }
}

fn a_mail_server_needs_a_sender(_: &Board) {
    let dir = tempfile::tempdir().unwrap();
    for (url, from, expected) in [
        ("smtp://ann:s3cret@localhost", None, "MUNDAP_MAIL_FROM: must name the sender"),
        ("smtp://ann:s3cret@localhost", Some("s3cret"), "MUNDAP_MAIL_FROM: must be an address"),
        (
            "smtp://ann:s3cret@localhost",
            Some("Ann <ann@example.com>\nBcc: s3cret@example.com"),
            "MUNDAP_MAIL_FROM: must be",
        ),
        ("http://ann:s3cret@localhost", Some(FROM), "MUNDAP_SMTP_URL: must be such as smtp://"),
        ("s3cret", Some(FROM), "MUNDAP_SMTP_URL: must be such as"),
        ("smtp://ann:s3cret@localhost?tls=perhaps", Some(FROM), "MUNDAP_SMTP_URL: must be such as"),
    ] {
        for command in ["serve", "check"] {
            let mut command_line = mundap(dir.path());
            command_line.arg(command).env("MUNDAP_SMTP_URL", url);
            command_line.args(["--http-addr", "127.0.0.1:0", "--ops-addr", "127.0.0.1:0", "--grpc-addr", "off"]);
            command_line.envs(from.map(|from| ("MUNDAP_MAIL_FROM", from)));
            let ended = ends(&mut command_line);
            assert_eq!(ended.code, Some(2), "{ended:?}");
            assert!(ended.err.starts_with(&format!("mundap: {expected}")), "{ended:?}");
            assert!(!format!("{ended:?}").contains("s3cret"), "{ended:?}");
        }
    }
}

fn the_pages_work_by_themselves(board: &Board) {
    let server = board.server();
    for page in ["verify", "reset", "forgot"] {
        let reply = server.get(format!("/account/{page}")).send().is(200);
        assert_eq!(reply.header("content-type"), Some("text/html; charset=utf-8"));
        let policy = reply.header("content-security-policy").unwrap().to_owned();
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(reply.header("referrer-policy"), Some("no-referrer"));
        let html = reply.text();
        assert!(html.contains(&format!("data-page=\"{page}\"")) && html.contains("width=device-width"), "{html}");
        // Nothing that the policy would stop: no script or style but from files of its own.
        assert!(!html.contains("<style") && !html.contains(" style=") && !html.contains(" on"), "{html}");
        assert!(html.matches("<script").count() == 1 && html.contains("<script src=\"account.js\" defer></script>"));
        assert!(!html.contains("//"), "{html}");
        for (file, media_type) in [("account.js", "text/javascript"), ("account.css", "text/css")] {
            assert!(html.contains(&format!("\"{file}\"")), "{html}");
            let loaded = server.get(format!("/account/{file}")).send().is(200);
            assert_eq!(loaded.header("content-type"), Some(&*format!("{media_type}; charset=utf-8")));
            assert!(!loaded.text().contains("http"), "it loads nothing from elsewhere");
        }
        // What the script looks for is on the page.
        let script = server.get("/account/account.js").send().is(200).text();
        for id in script.split("element(\"").skip(1).map(|rest| rest.split('"').next().unwrap()) {
            assert!(html.contains(&format!("id=\"{id}\"")), "{id} is not on {page}");
        }
        assert!(script.contains(&format!("  {page}: {{ fields: [")) || script.contains(&format!("  {page}: {{\n")));
    }
    server.get("/account/other").send().problem(404, "route_not_found");
}
