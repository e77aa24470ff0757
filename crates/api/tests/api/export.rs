//! The export of one's own data.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::board::Board;

crate::tests![
    an_export_holds_everything_and_nothing_of_others,
    an_export_of_many_things_is_whole,
    a_suspended_account_may_export,
];

const EXPORT: &str = "/api/v1/users/me/export";

fn an_export_holds_everything_and_nothing_of_others(board: &Board) {
    let server = board.server();
    let user = server.new_user();
    let empty = server.get(EXPORT).by(&user).send().is(200).json();
    for list in ["qna", "comments", "images", "audit"] {
        assert_eq!(empty[list], json!([]), "{empty}");
    }
    let mine = server.ask_at(&user, "Mine");
    let others = server.ask_at(board.bob(), "Another's");
    let comments = [server.comment_at(&user, &mine, "On mine"), server.comment_at(&user, &others, "On another's")];
    server.comment_at(board.bob(), &mine, "Another's comment");
    let picture = crate::images::attach(server, &user, &comments[0], &crate::images::a_png());
    let image = picture.is(201).json();
    let admin = board.admin();
    let path = format!("/api/v1/admin/users/{}", user.id);
    server.patch(&path).by(admin).json(json!({"role": "moderator"})).send().is(200);
    server.sign_in(&user.email, crate::board::PASSWORD).is(200);

    let reply = server.get(EXPORT).by(&user).send().is(200);
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    let disposition = format!("attachment; filename=\"mundap-{}.json\"", user.id);
    assert_eq!(reply.header("content-disposition"), Some(&*disposition));
    let export = reply.json();
    let read = |path: &str| server.get(path).by(&user).send().is(200).json();
    assert_eq!(export["account"], read("/api/v1/users/me"));
    assert_eq!(export["qna"], json!([read(&mine)]));
    assert_eq!(export["comments"], json!([read(&comments[0]), read(&comments[1])]));
    let bytes = server.get(image["url"].as_str().unwrap()).send().is(200).body;
    assert_eq!(export["images"], json!([{"image": image, "data": STANDARD.encode(bytes)}]));
    assert_eq!(export["sign_ins"].as_array().unwrap().len(), 2);
    assert_eq!(
        (&export["audit"][0]["action"], export["audit"].as_array().unwrap().len()),
        (&json!("assigned_role"), 1)
    );
    // With its quotes: somebody-9 is in somebody-98.
    assert!(!reply.text().contains(&format!("\"{}\"", board.bob().name)), "{export}");
    server.get(EXPORT).send().problem(401, "unauthenticated");
}

/// More than a batch of each.
fn an_export_of_many_things_is_whole(board: &Board) {
    const MANY: usize = 401;
    let server = board.own(&crate::server::Options::default());
    let user = server.new_user();
    let qna = server.ask(&user, "The first of many")["qna_id"].as_i64().unwrap();
    let values =
        |rest: &str| vec![format!("({rest}, 'x', '2026-01-02 12:00:00', '2026-01-02 12:00:00')"); MANY].join(",");
    let questions = values(&format!("{}, 'A question'", user.id));
    let comments = values(&format!("{qna}, {}", user.id));
    let insert = "INSERT INTO qna (user_id, title, content, created_at, updated_at) VALUES";
    crate::database::execute(&server.database_url, &format!("{insert} {questions}"));
    let insert = "INSERT INTO comment (qna_id, user_id, content, created_at, updated_at) VALUES";
    crate::database::execute(&server.database_url, &format!("{insert} {comments}"));

    let export = server.get(EXPORT).by(&user).send().is(200).json();
    for (list, id, length) in [("qna", "qna_id", MANY + 1), ("comments", "comment_id", MANY)] {
        let ids: Vec<i64> = export[list].as_array().unwrap().iter().map(|item| item[id].as_i64().unwrap()).collect();
        assert_eq!(ids.len(), length, "{list}");
        assert!(ids.is_sorted_by(|earlier, later| earlier < later), "{list}: each once, oldest first");
    }
}

fn a_suspended_account_may_export(board: &Board) {
    let server = board.server();
    let user = server.new_suspended_user();
    let export: Value = server.get(EXPORT).by(&user).send().is(200).json();
    assert_eq!(export["account"]["suspended"], true);
    assert_eq!(export["audit"][0]["action"], "suspended");
    assert_eq!(export["audit"][0]["actor_id"], Value::Null);
}
