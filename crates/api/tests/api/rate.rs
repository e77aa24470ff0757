//! Rate limits: each bites at its figure, says so, and lets go again.

use std::collections::BTreeMap;
use std::time::Instant;

use mundap_domain::rate::Policy;
use serde_json::json;

use crate::board::{Board, PASSWORD, User, new_email};
use crate::client::{Call, Reply};
use crate::database::execute;
use crate::documents::{read, table};
use crate::server::{Options, PATIENCE, Server, mundap, run};

crate::tests![
    strangers_are_counted_by_address,
    tokens_that_are_none_count_for_their_address,
    signing_in_and_registering_are_counted_by_address,
    wrong_passwords_are_counted_by_account_and_right_ones_are_not,
    wrong_passwords_at_once_are_no_more_than_one_after_the_other,
    writes_are_counted_by_account,
    reads_are_counted_by_account,
    the_first_programs_writes_are_counted_in_either_mode,
    a_limit_lets_go_with_time,
    nodes_on_one_database_count_writes_together,
    nodes_on_one_database_count_signing_in_together,
    nodes_that_pay_in_blocks_exceed_the_limit_by_no_more_than_those,
    a_limiter_that_cannot_count_turns_writes_away_and_lets_reads_through,
    forwarded_addresses_of_strangers_are_not_believed,
    browsers_may_read_what_is_left;
    once: a_proxy_that_is_not_named_is_noticed, off_means_off, the_table_of_limits_is_the_programs,
];

/// A server on which all that is said of limits is `limits`; it believes this machine's word on who is calling, so that
/// a test may come from many addresses.
fn limited(board: &Board, limits: &[(&'static str, &str)]) -> Server {
    Server::start(&board.database.fresh(), &options(limits))
}

fn options(limits: &[(&'static str, &str)]) -> Options {
    let ample = [
        ("MUNDAP_RATE_LIMIT_ANONYMOUS", "10000/1h"),
        ("MUNDAP_RATE_LIMIT_SIGN_IN", "10000/1h"),
        ("MUNDAP_RATE_LIMIT_ATTEMPTS", "10000/1h"),
        ("MUNDAP_RATE_LIMIT_RENEWALS", "10000/1h"),
        ("MUNDAP_RATE_LIMIT_READS", "10000/1h"),
        ("MUNDAP_RATE_LIMIT_WRITES", "10000/1h"),
        ("MUNDAP_RATE_LIMIT_LETTERS", "10000/1h"),
    ];
    let first = [("MUNDAP_RATE_LIMIT", "on"), ("MUNDAP_TRUSTED_PROXIES", "127.0.0.0/8")];
    let all = first.into_iter().chain(ample).chain(limits.iter().copied());
    Options { env: all.map(|(name, value)| (name, value.to_owned())).collect(), dir: None }
}

/// Where a call comes from.
trait Comes {
    fn from(self, address: &str) -> Self;
}

impl Comes for Call<'_> {
    /// As a proxy passes it on.
    fn from(self, address: &str) -> Self {
        self.header("x-forwarded-for", address)
    }
}

/// Holds it to a use that was let through, and to what it says is left of this limit.
#[track_caller]
fn leaves(reply: &Reply, policy: &str, quota: (u32, u32), left: u32) {
    assert_ne!(reply.status, 429, "{reply}");
    let (permits, window) = quota;
    assert_eq!(reply.header("ratelimit-policy"), Some(&*format!("\"{policy}\";q={permits};w={window}")), "{reply}");
    let said = reply.header("ratelimit").unwrap_or_else(|| panic!("nothing is said: {reply}"));
    let more_in = said.strip_prefix(&format!("\"{policy}\";r={left};t=")).unwrap_or_else(|| panic!("{said}: {reply}"));
    assert!((1..=window / permits).contains(&more_in.parse().unwrap()), "{reply}");
}

/// Holds it to a use that was one too many of three in an hour.
#[track_caller]
fn is_one_too_many(reply: &Reply) {
    assert_eq!(reply.status, 429, "{reply}");
    let seconds: u32 = reply.header("retry-after").unwrap().parse().unwrap();
    assert!((1100..=1200).contains(&seconds), "{reply}");
}

fn wrong(server: &Server, email: &str, address: &str) -> Reply {
    with_password(server, email, "not my password", address)
}

fn with_password(server: &Server, email: &str, password: &str, address: &str) -> Reply {
    let form = [("grant_type", "password"), ("username", email), ("password", password)];
    server.post("/api/v1/auth/token").from(address).form(&form).send()
}

fn strangers_are_counted_by_address(board: &Board) {
    let server = limited(board, &[("MUNDAP_RATE_LIMIT_ANONYMOUS", "3/1h")]);
    let user = server.new_user();
    server.ask(&user, "For strangers");
    server.document();
    for (path, left) in [("/api/v1/qna", 2), ("/docs", 1), ("/load_qna/1", 0)] {
        leaves(&server.get(path).from("203.0.113.1").send(), "anonymous", (3, 3600), left);
    }
    for path in ["/api/v1/qna", "/docs", "/openapi.json", "/no/such/path", "/.well-known/jwks.json"] {
        let reply = server.get(path).from("203.0.113.1").send();
        is_one_too_many(&reply);
        assert_eq!(reply.header("ratelimit-policy"), Some("\"anonymous\";q=3;w=3600"), "{reply}");
        assert!(reply.header("ratelimit").unwrap().starts_with("\"anonymous\";r=0;t=1"), "{reply}");
        let problem = reply.problem(429, "rate_limited");
        assert!(problem["detail"].as_str().unwrap().contains("anonymous"), "{problem}");
    }
    for (method, path) in [("GET", "/load_all_qna"), ("POST", "/upload"), ("PUT", "/update_qna")] {
        let reply = server.call(method, path).from("203.0.113.1").send();
        is_one_too_many(&reply);
        reply.detail(429, "too many requests, try again later");
    }
    // Others are not concerned: another address, another network of IPv6, whoever is signed in.
    leaves(&server.get("/api/v1/qna").from("203.0.113.2").send(), "anonymous", (3, 3600), 2);
    for (address, left) in [("2001:db8::1", 2), ("2001:db8::2", 1), ("2001:db8:0:1::1", 2), ("2001:db8::3", 0)] {
        leaves(&server.get("/api/v1/qna").from(address).send(), "anonymous", (3, 3600), left);
    }
    is_one_too_many(&server.get("/api/v1/qna").from("2001:db8::ffff:1").send());
    let reply = server.get("/api/v1/qna").from("203.0.113.1").by(&user).send().is(200);
    assert_eq!(reply.header("ratelimit-policy"), Some("\"reads\";q=10000;w=3600"), "{reply}");
    // Nor are the operators, nor somebody who stays signed in.
    for _ in 0..5 {
        assert_eq!(server.operator("/livez").0, 200);
    }
    let form = [("grant_type", "refresh_token"), ("refresh_token", user.refresh.as_str())];
    let reply = server.post("/api/v1/auth/token").from("203.0.113.1").form(&form).send().is(200);
    assert_eq!(reply.header("ratelimit-policy"), Some("\"renewals\";q=10000;w=3600"), "{reply}");
}

fn tokens_that_are_none_count_for_their_address(board: &Board) {
    let server = limited(board, &[("MUNDAP_RATE_LIMIT_ANONYMOUS", "3/1h")]);
    let user = server.new_user();
    let guess = || server.get("/api/v1/users/me").from("203.0.113.1").bearer("a.guessed.token").send();
    for left in [2, 1, 0] {
        let reply = guess();
        leaves(&reply, "anonymous", (3, 3600), left);
        reply.problem(401, "invalid_token");
    }
    let reply = guess();
    is_one_too_many(&reply);
    reply.problem(429, "rate_limited");
    let reply = server.get("/load_all_qna").from("203.0.113.1").bearer("a.guessed.token").send();
    reply.detail(429, "too many requests, try again later");
    server.get("/api/v1/users/me").from("203.0.113.1").by(&user).send().is(200);
}

fn signing_in_and_registering_are_counted_by_address(board: &Board) {
    let server = limited(board, &[("MUNDAP_RATE_LIMIT_SIGN_IN", "3/1h"), ("MUNDAP_RATE_LIMIT_RENEWALS", "3/1h")]);
    let user = server.new_user();
    let register = |address: &str| {
        let body = json!({"email": new_email(), "password": PASSWORD, "display_name": "New"});
        server.post("/api/v1/users").from(address).json(body).send()
    };
    let home = "203.0.113.1";
    leaves(&register(home).is(201), "sign-in", (3, 3600), 2);
    leaves(&wrong(&server, &user.email, home).is(400), "sign-in", (3, 3600), 1);
    leaves(&with_password(&server, &user.email, PASSWORD, home).is(200), "sign-in", (3, 3600), 0);
    let reply = with_password(&server, &user.email, PASSWORD, home);
    is_one_too_many(&reply);
    reply.problem(429, "rate_limited");
    let reply = register(home);
    is_one_too_many(&reply);
    reply.problem(429, "rate_limited");
    // A token does not help to register a thousand accounts.
    let body = json!({"email": new_email(), "password": PASSWORD, "display_name": "New"});
    is_one_too_many(&server.post("/api/v1/users").from(home).by(&user).json(body).send());
    register("203.0.113.2").is(201);

    // Whoever is signed in stays so.
    let renew = |refresh: &str| {
        let form = [("grant_type", "refresh_token"), ("refresh_token", refresh)];
        server.post("/api/v1/auth/token").from(home).form(&form).send()
    };
    let reply = renew(&user.refresh).is(200);
    leaves(&reply, "renewals", (3, 3600), 2);
    let refresh = reply.json()["refresh_token"].as_str().unwrap().to_owned();
    leaves(&server.post("/api/v1/auth/revoke").from(home).form(&[("token", "x")]).send(), "renewals", (3, 3600), 1);
    leaves(&server.post("/api/v1/auth/token").from(home).form(&[]).send(), "renewals", (3, 3600), 0);
    is_one_too_many(&renew(&refresh));
    is_one_too_many(&server.post("/api/v1/auth/revoke").from(home).form(&[("token", "x")]).send());
    is_one_too_many(&server.post("/api/v1/auth/token").from(home).json(json!({})).send());
}

fn wrong_passwords_are_counted_by_account_and_right_ones_are_not(board: &Board) {
    let server = limited(board, &[("MUNDAP_RATE_LIMIT_ATTEMPTS", "3/1h")]);
    let (user, other) = (server.new_user(), server.new_user());
    for n in 1..=5 {
        with_password(&server, &user.email, PASSWORD, &format!("203.0.113.{n}")).is(200);
    }
    let nobody = new_email();
    for email in [&user.email, &nobody] {
        for n in 1..=3 {
            let spelled = if n == 2 { email.to_uppercase() } else { email.clone() };
            let reply = wrong(&server, &spelled, &format!("203.0.113.{n}")).is(400);
            assert_eq!(reply.json()["error"], "invalid_grant");
        }
        // From wherever, and with the right password too: the answer must not tell which it was.
        for password in ["not my password", PASSWORD] {
            let reply = with_password(&server, email, password, "203.0.113.9");
            is_one_too_many(&reply);
            let problem = reply.problem(429, "rate_limited");
            assert!(problem["detail"].as_str().unwrap().contains("attempts"), "{problem}");
        }
    }
    // The own password counts for the same account, and neither others nor its sign-ins are concerned.
    let change = json!({"current_password": PASSWORD, "new_password": "another pass phrase"});
    let reply = server.post("/api/v1/users/me/password").by(&user).json(change).send();
    is_one_too_many(&reply);
    reply.problem(429, "rate_limited");
    server.refresh(&user.refresh).is(200);
    server.sign_in(&other.email, PASSWORD).is(200);
    let change = |current: &str, new: &str| {
        let body = json!({"current_password": current, "new_password": new});
        server.post("/api/v1/users/me/password").by(&other).json(body).send()
    };
    for _ in 0..2 {
        change("not my password", "another pass phrase").problem(403, "invalid_credentials");
    }
    change(PASSWORD, "another pass phrase").is(204);
    server.sign_in(&other.email, "another pass phrase").is(200);
    wrong(&server, &other.email, "203.0.113.1").is(400);
    is_one_too_many(&wrong(&server, &other.email, "203.0.113.1"));
}

fn wrong_passwords_at_once_are_no_more_than_one_after_the_other(board: &Board) {
    let server = limited(board, &[("MUNDAP_RATE_LIMIT_ATTEMPTS", "3/1h")]);
    let email = new_email();
    server.document();
    let statuses = at_once(12, |_| wrong(&server, &email, "203.0.113.1").status);
    assert_eq!(statuses.get(&400), Some(&3), "{statuses:?}");
    assert_eq!(statuses.get(&429), Some(&9), "{statuses:?}");
}

/// How often each status was answered.
fn at_once(times: usize, call: impl Fn(usize) -> u16 + Sync) -> BTreeMap<u16, usize> {
    let mut statuses = BTreeMap::new();
    std::thread::scope(|scope| {
        let call = &call;
        let calls: Vec<_> = (0..times).map(|n| scope.spawn(move || call(n))).collect();
        for call in calls {
            *statuses.entry(call.join().unwrap()).or_default() += 1;
        }
    });
    statuses
}

fn ask(server: &Server, by: &User) -> Reply {
    server.post("/api/v1/qna").by(by).json(json!({"title": "How often?", "content": ""})).send()
}

fn writes_are_counted_by_account(board: &Board) {
    let server = limited(board, &[("MUNDAP_RATE_LIMIT_WRITES", "3/1h")]);
    let (user, other) = (server.new_user(), server.new_user());
    let reply = ask(&server, &user).is(201);
    leaves(&reply, "writes", (3, 3600), 2);
    let path = format!("/api/v1/qna/{}", reply.json()["qna_id"]);
    // One that is refused counts too.
    leaves(&server.patch(&path).by(&user).json(json!({"title": ""})).send().is(422), "writes", (3, 3600), 1);
    leaves(&server.delete("/api/v1/qna/999999").by(&user).send().is(404), "writes", (3, 3600), 0);
    for reply in [
        ask(&server, &user),
        server.patch(&path).by(&user).json(json!({"title": "More"})).send(),
        server.delete(&path).by(&user).send(),
        server.delete("/api/v1/users/me").by(&user).send(),
        // Before the body is looked at.
        server.post("/api/v1/qna").by(&user).body("text/plain", "{").send(),
    ] {
        is_one_too_many(&reply);
        reply.problem(429, "rate_limited");
    }
    let row = json!({"email": user.email, "title": "More", "content": ""});
    server.post("/upload").by(&user).json(row).send().detail(429, "too many requests, try again later");
    assert_eq!(server.get(&path).by(&user).send().is(200).json()["title"], "How often?");
    ask(&server, &other).is(201);
}

fn reads_are_counted_by_account(board: &Board) {
    let server = limited(board, &[("MUNDAP_RATE_LIMIT_READS", "3/1h")]);
    let (user, other) = (server.new_user(), server.new_user());
    for left in [2, 1, 0] {
        leaves(&server.get("/api/v1/users/me").by(&user).send().is(200), "reads", (3, 3600), left);
    }
    is_one_too_many(&server.get("/api/v1/users/me").by(&user).send());
    is_one_too_many(&server.call("HEAD", "/api/v1/users/me").by(&user).send());
    ask(&server, &user).is(201);
    server.get("/api/v1/users/me").by(&other).send().is(200);
    server.get("/api/v1/qna").send().is(200);
}

fn the_first_programs_writes_are_counted_in_either_mode(board: &Board) {
    let mut options = options(&[("MUNDAP_RATE_LIMIT_WRITES", "3/1h")]);
    options.env.push(("MUNDAP_IDENTITY", "trusted-email".to_owned()));
    let server = board.own(&options);
    let (email, other) = (new_email(), new_email());
    let upload = |email: &str| server.post("/upload").json(json!({"email": email, "title": "t", "content": ""})).send();
    let row = upload(&email).is(200).json();
    upload(&email.to_uppercase()).is(200);
    let body = json!({"email": email, "title": "t", "content": "", "qna_id": row["qna_id"]});
    server.put("/update_qna").json(body.clone()).send().is(200);
    for reply in [upload(&email), server.put("/update_qna").json(body.clone()).send()] {
        is_one_too_many(&reply);
        reply.detail(429, "too many requests, try again later");
    }
    server.delete("/delete_qna").json(body).send().detail(429, "too many requests, try again later");
    upload(&other).is(200);
}

fn a_limit_lets_go_with_time(board: &Board) {
    let limits = [("MUNDAP_RATE_LIMIT_WRITES", "2/2s"), ("MUNDAP_RATE_LIMIT_ANONYMOUS", "2/2s")];
    let server = limited(board, &limits);
    server.document();
    let user = server.new_user();
    for call in [&(|| ask(&server, &user)) as &dyn Fn() -> Reply, &|| server.get("/api/v1/qna").send()] {
        let deadline = Instant::now() + PATIENCE;
        let mut statuses = Vec::new();
        // Until it bit, and let go again.
        while !(statuses.contains(&429) && statuses.last().is_some_and(|status| *status < 300)) {
            assert!(Instant::now() < deadline, "{statuses:?}");
            statuses.push(call().status);
        }
        assert!(statuses.iter().all(|status| [200, 201, 429].contains(status)), "{statuses:?}");
    }
}

/// Two nodes on one database.
fn nodes(board: &Board, limits: &[(&'static str, &str)]) -> [Server; 2] {
    let mut options = options(limits);
    options.env.push(("MUNDAP_PUBLIC_URL", "http://board.example.com".to_owned()));
    let url = board.database.fresh();
    let first = Server::start(&url, &options);
    options.dir = Some(first.dir.clone());
    let second = Server::start(&url, &options);
    for server in [&first, &second] {
        server.document();
    }
    [first, second]
}

fn nodes_on_one_database_count_writes_together(board: &Board) {
    let nodes = nodes(board, &[("MUNDAP_RATE_LIMIT_WRITES", "5/1h")]);
    let user = nodes[0].new_user();
    let statuses: Vec<u16> = (0..8).map(|n| ask(&nodes[n % 2], &user).status).collect();
    assert_eq!(statuses, [201, 201, 201, 201, 201, 429, 429, 429]);
    let user = nodes[1].new_user();
    let statuses = at_once(12, |n| ask(&nodes[n % 2], &user).status);
    assert_eq!(statuses, BTreeMap::from([(201, 5), (429, 7)]));
}

fn nodes_on_one_database_count_signing_in_together(board: &Board) {
    let nodes = nodes(board, &[("MUNDAP_RATE_LIMIT_SIGN_IN", "5/1h"), ("MUNDAP_RATE_LIMIT_ATTEMPTS", "3/1h")]);
    let statuses = |call: &dyn Fn(&Server, usize) -> Reply| -> Vec<u16> {
        (0..7).map(|n| call(&nodes[n % 2], n).status).collect()
    };
    let by_address = statuses(&|server, _| wrong(server, &new_email(), "203.0.113.1"));
    assert_eq!(by_address, [400, 400, 400, 400, 400, 429, 429]);
    let email = new_email();
    let by_account = statuses(&|server, n| wrong(server, &email, &format!("203.0.113.{}", n + 10)));
    assert_eq!(by_account, [400, 400, 400, 429, 429, 429, 429]);
}

fn nodes_that_pay_in_blocks_exceed_the_limit_by_no_more_than_those(board: &Board) {
    // A tenth of it is a block of four.
    let nodes = nodes(board, &[("MUNDAP_RATE_LIMIT_WRITES", "40/1h")]);
    let user = nodes[0].new_user();
    let statuses: Vec<u16> =
        (0..60).map(|n| nodes[n % 2].delete("/api/v1/qna/999999").by(&user).send().status).collect();
    let admitted = statuses.iter().filter(|status| **status == 404).count();
    assert!((40..=46).contains(&admitted), "{admitted} {statuses:?}");
    // One node alone counts every one.
    let user = nodes[1].new_user();
    let statuses: Vec<u16> = (0..45).map(|_| nodes[0].delete("/api/v1/qna/999999").by(&user).send().status).collect();
    assert_eq!(statuses.iter().position(|status| *status == 429), Some(40), "{statuses:?}");
}

fn a_limiter_that_cannot_count_turns_writes_away_and_lets_reads_through(board: &Board) {
    let server = limited(board, &[]);
    let user = server.new_user();
    let path = server.ask_at(&user, "Without a limiter");
    execute(&server.database_url, "ALTER TABLE rate_limit RENAME TO rate_limit_gone");
    // Within a block nothing is asked.
    let replies: Vec<Reply> =
        (0..12).map(|_| server.delete("/api/v1/qna/999999").by(&user).may_fail().send()).collect();
    let refused = replies.iter().find(|reply| reply.status != 404).expect("a block has an end");
    assert_eq!((refused.status, &refused.json()["code"]), (503, &json!("database_unavailable")), "{refused}");
    let form = [("grant_type", "password"), ("username", user.email.as_str()), ("password", PASSWORD)];
    server.post("/api/v1/auth/token").form(&form).may_fail().send().problem(503, "database_unavailable");
    server.get(&path).send().is(200);
    server.get(&path).by(&user).send().is(200);
    server.refresh(&user.refresh).is(200);
    execute(&server.database_url, "ALTER TABLE rate_limit_gone RENAME TO rate_limit");
    server.sign_in(&user.email, PASSWORD).is(200);
    ask(&server, &user).is(201);
}

fn forwarded_addresses_of_strangers_are_not_believed(board: &Board) {
    let mut options = options(&[("MUNDAP_RATE_LIMIT_ANONYMOUS", "4/1h")]);
    options.env.retain(|(name, _)| *name != "MUNDAP_TRUSTED_PROXIES");
    options.env.push(("MUNDAP_TRUSTED_PROXIES", "198.51.100.0/24".to_owned()));
    let server = board.own(&options);
    server.document();
    let statuses: Vec<u16> = (0..5)
        .map(|n| {
            let call = server.get("/api/v1/qna").from(&format!("203.0.113.{n}"));
            call.header("forwarded", &format!("for=203.0.113.{n}")).send().status
        })
        .collect();
    // The document was the first.
    assert_eq!(statuses, [200, 200, 200, 429, 429]);
}

fn a_proxy_that_is_not_named_is_noticed(board: &Board) {
    let server = board.own(&Options::default());
    server.get("/api/v1/qna").from("203.0.113.1").send().is(200);
    let line = server.log.wait_for("the one that names the setting", |line| {
        line["message"].as_str().is_some_and(|message| message.contains("MUNDAP_TRUSTED_PROXIES"))
    });
    assert_eq!(line["level"], "WARN");
}

fn browsers_may_read_what_is_left(board: &Board) {
    let mut options = options(&[("MUNDAP_RATE_LIMIT_ANONYMOUS", "3/1h")]);
    options.env.push(("MUNDAP_CORS_ORIGINS", "https://board.example.com".to_owned()));
    let server = board.own(&options);
    server.document();
    for expected in [200, 404, 401, 429] {
        let call = match expected {
            200 | 429 => server.get("/api/v1/qna"),
            404 => server.get("/api/v1/qna/999999"),
            _ => server.get("/api/v1/qna").bearer("a.guessed.token"),
        };
        let reply = call.from("203.0.113.1").header("origin", "https://board.example.com").send().is(expected);
        assert_eq!(reply.header("access-control-allow-origin"), Some("https://board.example.com"), "{reply}");
        let exposed = reply.header("access-control-expose-headers").unwrap().to_lowercase();
        for name in ["ratelimit", "ratelimit-policy", "retry-after"] {
            assert!(exposed.split(',').any(|exposed| exposed.trim() == name), "{name}: {exposed}");
        }
    }
}

fn off_means_off(board: &Board) {
    let server = board.server();
    let reply = server.get("/api/v1/qna").send().is(200);
    assert_eq!((reply.header("ratelimit"), reply.header("ratelimit-policy")), (None, None));
}

fn the_table_of_limits_is_the_programs(_: &Board) {
    let rows = table(&read("docs/api.md"), "limit");
    assert_eq!(rows.len(), Policy::ALL.len());
    let dir = tempfile::tempdir().unwrap();
    let shown = run(mundap(dir.path()).arg("check")).out;
    for (row, policy) in rows.iter().zip(Policy::ALL) {
        let cell = |n: usize| row[n].trim_matches('`');
        assert_eq!(cell(0), policy.name());
        assert!(shown.lines().any(|line| line == format!("{}={}", cell(4), cell(3))), "{row:?}: {shown}");
        assert_eq!(row[5] == "yes", policy.is_shared(), "{row:?}");
    }
}
