//! One conversation with a new board, which goes the same way on every database: what was answered is compared as text,
//! with names in place of what differs from run to run.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::board::{Board, PASSWORD};
use crate::client::Reply;
use crate::document::is_time;
use crate::server::{Options, Server};

crate::tests![every_database_answers_the_same];

fn every_database_answers_the_same(board: &Board) {
    static SQLITE: OnceLock<String> = OnceLock::new();
    if !board.database.counts_by_ones() {
        return; // It is full of ids.
    }
    let expected = SQLITE.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("transcript.db").display());
        conversation(&Server::start(&url, &Options::default()))
    });
    let found = conversation(&board.own(&Options::default()));
    assert!(expected.matches("\n> ").count() >= 50, "that is no whole conversation:\n{expected}");
    for (found, expected) in found.split("\n> ").zip(expected.split("\n> ")) {
        assert_eq!(found, expected);
    }
    assert_eq!(found.len(), expected.len());
}

struct Transcript<'s> {
    server: &'s Server,
    text: String,
    tokens: BTreeMap<&'static str, Tokens>,
    /// Times, tags and cursors by the order in which they are first seen: equal ones stay equal.
    names: BTreeMap<String, String>,
}

struct Tokens {
    access: String,
    refresh: String,
}

/// Headers whose values are part of what is promised.
const HEADERS: [&str; 9] =
    ["allow", "cache-control", "content-type", "etag", "link", "location", "retry-after", "vary", "www-authenticate"];

impl Transcript<'_> {
    fn call(&mut self, by: &str, what: &str, body: impl Into<Option<Value>>) -> Reply {
        self.call_with(by, what, &[], body)
    }

    /// Sends `METHOD PATH` as somebody, or as nobody where the name has no tokens, and writes down what comes of it.
    fn call_with(&mut self, by: &str, what: &str, headers: &[(&str, &str)], body: impl Into<Option<Value>>) -> Reply {
        let (method, path) = what.split_once(' ').unwrap();
        let mut call = self.server.call(method, path);
        if let Some(tokens) = self.tokens.get(by) {
            call = call.bearer(&tokens.access);
        }
        for (name, value) in headers {
            call = call.header(name, value);
        }
        if let Some(body) = body.into() {
            call = call.json(body);
        }
        let reply = call.send();
        self.note(by, what, &reply);
        reply
    }

    fn form(&mut self, path: &str, pairs: &[(&str, &str)]) -> Reply {
        let reply = self.server.post(path).form(pairs).send();
        self.note("nobody", &format!("POST {path}"), &reply);
        reply
    }

    fn sign_in(&mut self, name: &'static str, email: &str, password: &str) {
        let pairs = [("grant_type", "password"), ("username", email), ("password", password)];
        let reply = self.form("/api/v1/auth/token", &pairs).is(200);
        self.keep(name, &reply);
    }

    fn keep(&mut self, name: &'static str, reply: &Reply) {
        let body = reply.json();
        let text = |field: &str| body[field].as_str().unwrap().to_owned();
        self.tokens.insert(name, Tokens { access: text("access_token"), refresh: text("refresh_token") });
    }

    fn note(&mut self, by: &str, what: &str, reply: &Reply) {
        let what = self.plain(what);
        write!(self.text, "\n> {by}: {what}\n{}\n", reply.status).unwrap();
        for name in HEADERS {
            if let Some(value) = reply.header(name) {
                let value = if name == "etag" { self.tag(value) } else { self.plain(value) };
                writeln!(self.text, "{name}: {value}").unwrap();
            }
        }
        if !reply.body.is_empty() {
            let body = self.normal("", reply.json());
            writeln!(self.text, "{body:#}").unwrap();
        }
    }

    fn name(&mut self, kind: &str, value: &str) -> String {
        let next = self.names.values().filter(|name| name.starts_with(kind)).count() + 1;
        self.names.entry(value.to_owned()).or_insert_with(|| format!("{kind}{next}")).clone()
    }

    /// `"3-0123…"`: the version says something, the rest is only equal or not.
    fn tag(&mut self, tag: &str) -> String {
        match tag.trim_matches('"').split_once('-') {
            Some((version, rest)) => format!("\"{version}-{}\"", self.name("TAG-", rest)),
            None => self.name("TAG-", tag),
        }
    }

    /// A text without this run's address and cursors.
    fn plain(&mut self, text: &str) -> String {
        let text = text.replace(&self.server.base(), "BASE");
        let mut parts = text.split("cursor=");
        let mut plain = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let end = part.find(['&', '>', '"']).unwrap_or(part.len());
            let cursor = self.name("CURSOR-", &part[..end]);
            write!(plain, "cursor={cursor}{}", &part[end..]).unwrap();
        }
        plain
    }

    fn normal(&mut self, field: &str, value: Value) -> Value {
        match value {
            Value::Object(fields) => fields
                .into_iter()
                .map(|(name, value)| {
                    let value = self.normal(&name, value);
                    (name, value)
                })
                .collect(),
            Value::Array(items) => items.into_iter().map(|item| self.normal("", item)).collect(),
            Value::String(text) => match field {
                "access_token" | "refresh_token" | "request_id" => field.to_uppercase().into(),
                "next" => self.name("CURSOR-", &text).into(),
                _ if is_time(&text) => self.name("TIME-", &text).into(),
                _ => self.plain(&text).into(),
            },
            other => other,
        }
    }
}

fn conversation(server: &Server) -> String {
    let mut say = Transcript { server, text: String::new(), tokens: BTreeMap::new(), names: BTreeMap::new() };
    accounts(&mut say);
    questions(&mut say);
    lists(&mut say);
    comments(&mut say);
    first_program(&mut say);
    farewells(&mut say);
    say.text
}

fn accounts(say: &mut Transcript<'_>) {
    let register = |email: &str, name: &str| json!({"email": email, "password": PASSWORD, "display_name": name});
    say.call("nobody", "POST /api/v1/users", register("Ann@EXAMPLE.com", "Ann 안")).is(201);
    say.call("nobody", "POST /api/v1/users", register("bob@example.com", "Bob")).is(201);
    say.call("nobody", "POST /api/v1/users", register("bob@example.com.", "x")).is(422);
    say.call("nobody", "POST /api/v1/users", json!({"email": 1, "nickname": "A"})).is(422);
    say.sign_in("ann", "ann@example.com", PASSWORD);
    say.sign_in("bob", "BOB@example.com", PASSWORD);
    let wrong = [("grant_type", "password"), ("username", "ann@example.com"), ("password", "wrong one")];
    say.form("/api/v1/auth/token", &wrong).is(400);
    say.form("/api/v1/auth/token", &[("grant_type", "magic")]).is(400);
    say.call("ann", "GET /api/v1/users/me", None).is(200);
    say.call("nobody", "GET /api/v1/users/me", None).is(401);
    say.call("nobody", "GET /api/v1/users/2", None).is(200);
    say.call("nobody", "GET /api/v1/users/99", None).is(404);
    say.call("bob", "PATCH /api/v1/users/me", json!({"display_name": "Bo\u{308}b"})).is(200);
    say.call("bob", "PATCH /api/v1/users/me", json!({"display_name": "\u{200b}\u{0}"})).is(422);
    let used = say.tokens["bob"].refresh.clone();
    let renewed = say.form("/api/v1/auth/token", &[("grant_type", "refresh_token"), ("refresh_token", &used)]).is(200);
    say.keep("bob", &renewed);
}

fn questions(say: &mut Transcript<'_>) {
    let ask = |title: &str, content: &str| json!({"title": title, "content": content});
    let first =
        say.call("ann", "POST /api/v1/qna", ask("가나다 and 🦀", "한 줄\n\tand \\ \"quoted\" 'text' % _ ;--")).is(201);
    say.call("bob", "POST /api/v1/qna", ask("Cafe\u{301}", "")).is(201);
    say.call("bob", "POST /api/v1/qna", ask("café", "trailing spaces   ")).is(201);
    say.call("ann", "POST /api/v1/qna", ask(&"가".repeat(255), &"🦀".repeat(20_000))).is(201);
    say.call("ann", "POST /api/v1/qna", ask(&"가".repeat(256), &"🦀".repeat(20_001))).is(422);
    say.call("nobody", "POST /api/v1/qna", ask("Nobody's", "")).is(401);
    say.call("nobody", "GET /api/v1/qna/1", None).is(200);
    say.call("ann", "GET /api/v1/qna/1", None).is(200);
    say.call("nobody", "GET /api/v1/qna/3", None).is(200);
    say.call("bob", "PATCH /api/v1/qna/1", json!({"title": "Mine"})).is(403);
    let tag = first.etag();
    say.call_with("ann", "PATCH /api/v1/qna/1", &[("if-match", &tag)], json!({"title": "Edited"})).is(200);
    say.call_with("ann", "PATCH /api/v1/qna/1", &[("if-match", &tag)], json!({"title": "Again"})).is(412);
    say.call("ann", "PATCH /api/v1/qna/1", json!({})).is(200);
    say.call("ann", "PATCH /api/v1/qna/1", json!({"title": null})).is(422);
    let tag = say.call("nobody", "HEAD /api/v1/qna/2", None).is(200).etag();
    say.call_with("nobody", "GET /api/v1/qna/2", &[("if-none-match", &tag)], None).is(304);
    say.call("ann", "GET /api/v1/qna/99", None).is(404);
    say.call("ann", "GET /api/v1/qna/0", None);
    say.call("ann", "GET /api/v1/qna/one", None);
    say.call("ann", "PUT /api/v1/qna/1", json!({})).is(405);
}

fn lists(say: &mut Transcript<'_>) {
    let next = |reply: Reply| reply.is(200).json()["next"].as_str().unwrap().to_owned();
    let cursor = next(say.call("nobody", "GET /api/v1/qna?limit=3", None));
    say.call("nobody", &format!("GET /api/v1/qna?limit=3&cursor={cursor}"), None).is(200);
    say.call("nobody", &format!("GET /api/v1/qna?limit=3&order=oldest&cursor={cursor}"), None).is(400);
    let cursor = next(say.call("ann", "GET /api/v1/qna?limit=1&order=oldest&author=2", None));
    say.call("ann", &format!("GET /api/v1/qna?limit=1&order=oldest&author=2&cursor={cursor}"), None).is(200);
    say.call("nobody", "GET /api/v1/qna?author=99", None).is(200);
    say.call("nobody", "GET /api/v1/qna?limit=101&order=random", None).is(422);
}

fn comments(say: &mut Transcript<'_>) {
    for (by, content) in [("bob", "첫 번째"), ("ann", "second"), ("bob", "third 🦀")] {
        say.call(by, "POST /api/v1/qna/1/comments", json!({"content": content})).is(201);
    }
    say.call("bob", "POST /api/v1/qna/1/comments", json!({"content": " \n"})).is(422);
    say.call("bob", "POST /api/v1/qna/99/comments", json!({"content": "Where?"})).is(404);
    say.call("bob", "GET /api/v1/qna/1?comments=2", None).is(200);
    let page = say.call("nobody", "GET /api/v1/qna/1/comments?limit=2", None).is(200).json();
    let cursor = page["next"].as_str().unwrap();
    say.call("nobody", &format!("GET /api/v1/qna/1/comments?limit=2&cursor={cursor}"), None).is(200);
    say.call("ann", "PATCH /api/v1/comments/1", json!({"content": "not mine"})).is(403);
    say.call("bob", "PATCH /api/v1/comments/1", json!({"content": "mine"})).is(200);
    say.call("bob", "DELETE /api/v1/comments/3", None).is(204);
    say.call("bob", "GET /api/v1/comments/3", None).is(404);
    say.call("nobody", "GET /api/v1/comments/1", None).is(200);
    say.call("nobody", "GET /api/v1/qna/1", None).is(200);
}

fn first_program(say: &mut Transcript<'_>) {
    let row = |email: &str, id: i64| json!({"qna_id": id, "email": email, "title": "By the old way"});
    let upload = json!({"email": "ann@example.com", "title": "Old way", "content": "still works"});
    say.call("ann", "POST /upload", upload.clone()).is(200);
    say.call("bob", "POST /upload", upload.clone()).is(400);
    say.call("nobody", "POST /upload", upload).is(401);
    say.call("ann", "POST /upload", json!({"email": "ann@example.com", "title": ""})).is(422);
    say.call("nobody", "GET /load_qna/5", None).is(200);
    say.call("nobody", "GET /load_qna/99", None).is(404);
    say.call("nobody", "GET /load_qna/five", None).is(422);
    say.call("ann", "PUT /update_qna", row("ann@example.com", 5)).is(200);
    say.call("ann", "PUT /update_qna", row("ann@example.com", 2)).is(400);
    say.call("bob", "DELETE /delete_qna", row("bob@example.com", 5)).is(400);
    say.call("ann", "GET /load_all_qna", None).is(200);
    say.call("ann", "DELETE /delete_qna", row("ann@example.com", 5)).is(200);
    say.call("ann", "DELETE /delete_qna", row("ann@example.com", 5)).is(400);
}

fn farewells(say: &mut Transcript<'_>) {
    say.call("ann", "DELETE /api/v1/qna/1", None).is(204);
    say.call("nobody", "GET /api/v1/comments/1", None).is(404);
    let change = |current: &str| json!({"current_password": current, "new_password": "a new pass phrase"});
    say.call("ann", "POST /api/v1/users/me/password", change("not this")).is(403);
    say.call("ann", "POST /api/v1/users/me/password", change(PASSWORD)).is(204);
    say.call("ann", "GET /api/v1/users/me", None).is(401);
    say.call("bob", "DELETE /api/v1/users/me", None).is(204);
    say.call("bob", "GET /api/v1/users/me", None).is(401);
    say.call("nobody", "GET /api/v1/users/2", None);
    say.call("nobody", "GET /api/v1/qna?limit=2", None).is(200);
    say.call("nobody", "GET /load_all_qna", None).is(200);
    // Last, since an id that was tried for it is not given again everywhere.
    let taken = json!({"email": "ANN@example.com", "password": PASSWORD, "display_name": "Another"});
    say.call("nobody", "POST /api/v1/users", taken).is(409);
    let free = json!({"email": "bob@example.com", "password": PASSWORD, "display_name": "Another Bob"});
    assert_eq!(say.server.post("/api/v1/users").json(free).send().status, 201);
}
