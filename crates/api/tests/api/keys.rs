//! How one signing key takes over from another, seen from outside.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::board::{Board, User};
use crate::server::{Options, Server, run};

crate::tests![;
    once:
    a_new_key_signs_and_nothing_of_the_old_one_is_lost,
    a_key_that_would_take_over_in_another_age_is_refused,
];

fn kid(token: &str) -> String {
    let header = URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap();
    serde_json::from_slice::<Value>(&header).unwrap()["kid"].as_str().unwrap().to_owned()
}

fn published(server: &Server) -> Vec<String> {
    let set = server.get("/.well-known/jwks.json").send().is(200).json();
    set["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

/// Rotates the key and waits until the server has read it.
fn rotate(server: &Server, arguments: &[&str]) -> String {
    let before = published(server);
    let ended = run(&mut server.command(&[&["key", "rotate"], arguments].concat()));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let new = ended.out.split(' ').nth(1).unwrap().to_owned();
    assert!(!before.contains(&new), "{ended:?}");
    server.log.wait_for("the one about the new key", |line| line["key.id"] == new);
    new
}

fn works(server: &Server, token: &str) -> bool {
    server.get("/api/v1/users/me").bearer(token).send().status == 200
}

fn a_new_key_signs_and_nothing_of_the_old_one_is_lost(board: &Board) {
    let server = board.own(&Options::default());
    let user: User = server.new_user();
    let old = kid(&user.token);
    assert_eq!(published(&server), [old.as_str()]);
    for title in ["One", "Two"] {
        server.ask(&user, title);
    }
    let page = server.get("/api/v1/qna?limit=1").send().is(200).json();
    let walk = format!("/api/v1/qna?limit=1&cursor={}", page["next"].as_str().unwrap());
    let body = json!({"title": "Asked once", "content": ""});
    let once = || server.post("/api/v1/qna").by(&user).header("idempotency-key", "over-a-rotation").json(body.clone());
    let first = once().send().is(201);

    let new = rotate(&server, &["--in", "0s"]);
    assert_eq!(published(&server), [new.as_str(), &old]);
    assert!(works(&server, &user.token), "the old key's token is good to its end");
    let renewed = server.refresh(&user.refresh).is(200).json();
    let token = renewed["access_token"].as_str().unwrap();
    assert_eq!(kid(token), new);
    assert!(works(&server, token));
    // What other secrets of the board protect is as it was.
    server.get(&walk).send().is(200);
    let replayed = once().send().is(201);
    assert_eq!((replayed.json(), replayed.header("idempotent-replayed")), (first.json(), Some("true")));

    let newest = rotate(&server, &["--compromised"]);
    assert_eq!(published(&server), [newest.as_str()]);
    assert!(!works(&server, &user.token) && !works(&server, token), "no token of a key that got out is good");
    // Nobody has to sign in again.
    let renewed = server.refresh(renewed["refresh_token"].as_str().unwrap()).is(200).json();
    assert_eq!(kid(renewed["access_token"].as_str().unwrap()), newest);

    let listed = run(&mut server.command(&["key", "list"]));
    assert_eq!((listed.code, listed.out), (Some(0), format!("key {newest} signs\n")));
    let refused = run(&mut server.command(&["key", "rotate", "--in", "soon"]));
    assert_eq!(refused.code, Some(2), "{refused:?}");
}

fn a_key_that_would_take_over_in_another_age_is_refused(board: &Board) {
    let server = board.own(&Options::default());
    let before = published(&server);
    for time in ["8000years", "400d", "soon"] {
        let ended = run(&mut server.command(&["key", "rotate", "--in", time]));
        assert!(ended.code == Some(2) && ended.err.contains("--in"), "{time}: {ended:?}");
    }
    assert_eq!(published(&server), before);
    run(&mut server.command(&["key", "list"])).done();
}
