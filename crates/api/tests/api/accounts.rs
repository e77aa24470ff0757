//! Registering, the own account, profiles.

use serde_json::json;

use crate::board::{Board, PASSWORD, new_email};

crate::tests![
    registering_answers_with_the_account,
    an_email_is_one_account_in_every_spelling,
    everything_that_is_wrong_is_told_at_once,
    limits_of_an_account,
];

fn registering_answers_with_the_account(board: &Board) {
    let server = board.server();
    let body = json!({"email": "Mixed.Case@EXAMPLE.Com", "password": PASSWORD, "display_name": "문답이"});
    let reply = server.post("/api/v1/users").json(body).send().is(201);
    let account = reply.json();
    let id = account["user_id"].as_i64().unwrap();
    let expected = json!({
        "user_id": id,
        "email": "Mixed.Case@example.com",
        "display_name": "문답이",
        "role": "member",
        "suspended": false,
        "created_at": account["created_at"],
        "updated_at": account["created_at"],
        "version": 1,
    });
    assert_eq!(account, expected);
    let location = reply.header("location").unwrap();
    assert_eq!(location, format!("{}/api/v1/users/{id}", server.base()));
    assert!(reply.etag().starts_with("\"1-"), "{reply}");
    assert_eq!(server.get(location).send().is(200).json(), json!({"user_id": id, "display_name": "문답이"}));

    let tokens = server.sign_in("Mixed.Case@example.com", PASSWORD).is(200).json();
    let me = server.get("/api/v1/users/me").bearer(tokens["access_token"].as_str().unwrap()).send().is(200);
    assert_eq!(me.json(), account);
    assert_eq!(me.etag(), reply.etag());
}

fn an_email_is_one_account_in_every_spelling(board: &Board) {
    let server = board.server();
    let user = server.new_user();
    for spelling in [user.email.clone(), user.email.to_uppercase(), user.email.replace("somebody", "SomeBody")] {
        let body = json!({"email": spelling, "password": PASSWORD, "display_name": "Another"});
        server.post("/api/v1/users").json(body).send().problem(409, "email_taken");
    }
    let tokens = server.sign_in(&user.email.to_uppercase(), PASSWORD).is(200).json();
    let me = server.get("/api/v1/users/me").bearer(tokens["access_token"].as_str().unwrap()).send().is(200).json();
    assert_eq!((&me["user_id"], &me["email"]), (&json!(user.id), &json!(user.email)));
}

fn everything_that_is_wrong_is_told_at_once(board: &Board) {
    let register = |body| board.server().post("/api/v1/users").json(body).send();
    register(json!({})).violates(&["/email required", "/password required", "/display_name required"]);
    register(json!({"email": 5, "password": "short", "display_name": " \n", "a/b~c": 1})).violates(&[
        "/email not_a_string",
        "/password too_short",
        "/display_name blank",
        "/a~1b~0c unknown_field",
    ]);
    register(json!({"email": "nobody", "password": null, "display_name": "a\u{7}b"})).violates(&[
        "/email not_an_email",
        "/password not_a_string",
        "/display_name control_character",
    ]);
}

fn limits_of_an_account(board: &Board) {
    let server = board.server();
    let register = |email: &str, password: &str, name: &str| {
        server.post("/api/v1/users").json(json!({"email": email, "password": password, "display_name": name})).send()
    };
    // Counted in characters, not in bytes, and after composing: this name is 50 long and twice that when decomposed.
    let longest_name = "가".repeat(50);
    let account = register(&new_email(), &"암".repeat(256), &"\u{1100}\u{1161}".repeat(50)).is(201).json();
    assert_eq!(account["display_name"], longest_name);
    let email = new_email();
    register(&email, &"p".repeat(257), &"가".repeat(51)).violates(&["/password too_long", "/display_name too_long"]);
    register(&email, "1234567", "").violates(&["/password too_short", "/display_name too_short"]);
    for bad in ["a@b", "a b@example.com", "@example.com", "a@", "a@example..com", "a@[127.0.0.1]", "a@example.com\n"] {
        register(bad, PASSWORD, "Nobody").violates(&["/email not_an_email"]);
    }
    register("", PASSWORD, "Nobody").problem(422, "validation_failed");
}
