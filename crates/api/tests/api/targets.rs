//! A path is the same path in every spelling: for its route, for limits, and for who has to show a token.

use serde_json::{Value, json};

use crate::board::{Board, new_email};
use crate::client::Reply;
use crate::server::{Options, Server};

crate::tests![every_route_is_the_same_in_another_spelling, no_spelling_gets_past_a_limit];

/// The path with its first and its last letter as their octets.
fn spelled(path: &str) -> String {
    let is_letter = |c: char| c.is_ascii_lowercase();
    let encode = |path: &str, at: usize| format!("{}%{:02X}{}", &path[..at], path.as_bytes()[at], &path[at + 1..]);
    let last = encode(path, path.rfind(is_letter).unwrap());
    encode(&last, last.find(is_letter).unwrap())
}

/// What the log says that was asked for, and what was answered.
fn seen(server: &Server, reply: &Reply) -> (Value, u16, Option<String>, Value) {
    let body = if reply.body.starts_with(b"{") { reply.json() } else { Value::Null };
    let route = server.access(reply.request_id())["http.route"].clone();
    (route, reply.status, reply.header("allow").map(str::to_owned), body["code"].clone())
}

fn every_route_is_the_same_in_another_spelling(board: &Board) {
    let server = board.own(&Options::default());
    let user = server.new_user();
    let mut compared = 0;
    for path in server.document().paths() {
        let parts = path.split('/').map(|part| if part.starts_with('{') { "999" } else { part });
        let plain = parts.collect::<Vec<_>>().join("/");
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
            if (method, &*plain) == ("DELETE", "/api/v1/users/me") {
                continue;
            }
            for token in [None, Some(&*user.token), Some("rubbish")] {
                let ask = |target: &str| {
                    let call = server.call(method, target).means(&plain);
                    let call = if let Some(token) = token { call.bearer(token) } else { call };
                    seen(&server, &call.send())
                };
                let asked = ask(&plain);
                assert_eq!(ask(&spelled(&plain)), asked, "{method} {plain} with {token:?}");
                compared += 1;
            }
        }
    }
    assert!(compared > 300, "{compared}");
    // What means something else in a path is no other spelling.
    for other in ["/api/v1%2Fqna", "/api/v1/qna%3Flimit=1", "/api/v1/qna%20", "/api/v1/qn%c3%a1"] {
        server.get(other).send().problem(404, "route_not_found");
    }
}

fn no_spelling_gets_past_a_limit(board: &Board) {
    let env = [("MUNDAP_RATE_LIMIT", "on"), ("MUNDAP_RATE_LIMIT_SIGN_IN", "2/1h")];
    let server = board.own(&Options { env: env.map(|(name, value)| (name, value.to_owned())).to_vec(), dir: None });
    let register = |path: &str| {
        let body = json!({"email": new_email(), "password": "short", "display_name": "New"});
        server.post(path).json(body).send()
    };
    register("/api/v1/user%73").is(422);
    register("/api/v1/%75sers").is(422);
    for path in ["/api/v1/users", "/api/v1/user%73", "/%61pi/v1/users"] {
        register(path).problem(429, "rate_limited");
    }
}
