//! Questions over gRPC.

use mundap_grpc::v1;
use prost_types::FieldMask;
use tonic::{Code, Response};
use tonic_types::StatusExt as _;

use crate::board::{Board, new_email};
use crate::database::insert_qnas;
use crate::grpc::{Caller, reason};
use crate::grpc_parity::rfc3339;
use crate::server::Options;

crate::tests![
    what_is_asked_here_is_read_there,
    an_edit_names_what_it_changes_and_what_it_was_made_on,
    a_repetition_is_answered_as_the_first_one_was,
    pages_lead_from_one_face_to_the_other,
    all_questions_come_as_a_stream,
];

fn what_is_asked_here_is_read_there(board: &Board) {
    let (server, ann) = (board.server(), board.ann());
    let caller = Caller::of(server).by(ann);
    let qna = caller.ask("What is the capital?", "Of the moon").unwrap();
    let rest = server.get(format!("/api/v1/qna/{}", qna.qna_id)).by(ann).send().is(200);
    let body = rest.json();
    assert_eq!(body["title"], qna.title);
    assert_eq!(body["content"], qna.content);
    assert_eq!(body["version"], qna.version);
    assert_eq!(body["comment_count"], qna.comment_count);
    let author = qna.author.clone().unwrap();
    assert_eq!(body["author"]["user_id"], author.user_id);
    assert_eq!(body["author"]["display_name"], author.display_name);
    assert_eq!(body["author"]["email"], author.email.unwrap());
    assert_eq!(body["created_at"], rfc3339(qna.create_time));
    assert_eq!(body["updated_at"], rfc3339(qna.update_time));

    let path = server.ask_at(ann, "What is asked there");
    let id = path.rsplit('/').next().unwrap().parse().unwrap();
    server.comment_at(ann, &path, "is read here");
    let request = v1::GetQnaRequest { qna_id: id, comment_count: 10 };
    let read = caller.run(caller.qnas().get_qna(request)).unwrap().into_inner();
    assert_eq!(read.title, "What is asked there");
    let comments = read.comments.unwrap();
    assert_eq!(comments.comments.iter().map(|comment| &*comment.content).collect::<Vec<_>>(), ["is read here"]);
    assert_eq!(caller.qna(id).unwrap().comments, None);
    // An e-mail is its owner's own.
    let stranger = Caller::of(server).by(board.bob());
    assert_eq!(stranger.qna(id).unwrap().author.unwrap().email, None);
}

fn an_edit_names_what_it_changes_and_what_it_was_made_on(board: &Board) {
    let (server, ann) = (board.server(), board.ann());
    let caller = Caller::of(server).by(ann);
    let edit = |qna: v1::Qna, mask: Option<&[&str]>| {
        let paths = |paths: &[&str]| FieldMask { paths: paths.iter().map(ToString::to_string).collect() };
        let request = v1::UpdateQnaRequest { qna: Some(qna), update_mask: mask.map(paths) };
        caller.run(caller.qnas().update_qna(request)).map(Response::into_inner)
    };
    let first = caller.ask("A title", "A content").unwrap();
    let second =
        edit(v1::Qna { title: "Another".to_owned(), content: String::new(), ..first.clone() }, Some(&["title"]));
    let second = second.unwrap();
    assert_eq!((&*second.title, &*second.content, second.version), ("Another", "A content", 2));
    assert_ne!(second.etag, first.etag);
    // What the first one read is not there any more.
    let stale = edit(v1::Qna { title: "Late".to_owned(), ..first.clone() }, Some(&["title"])).unwrap_err();
    assert_eq!((stale.code(), &*reason(&stale)), (Code::Aborted, "version_mismatch"));
    // Without a mask, what is there; with *, everything.
    let third = edit(v1::Qna { qna_id: first.qna_id, content: "More".to_owned(), ..v1::Qna::default() }, None).unwrap();
    assert_eq!((&*third.title, &*third.content, third.version), ("Another", "More", 3));
    let fourth = edit(v1::Qna { content: String::new(), ..third.clone() }, Some(&["*"])).unwrap();
    assert_eq!((&*fourth.title, &*fourth.content, fourth.version), ("Another", "", 4));
    // REST's tag names the same version.
    let path = format!("/api/v1/qna/{}", first.qna_id);
    let tag = server.get(&*path).by(ann).send().is(200).header("etag").unwrap().to_owned();
    let fifth = edit(v1::Qna { title: "By a tag of REST".to_owned(), etag: tag, ..fourth.clone() }, Some(&["title"]));
    let fifth = fifth.unwrap();
    server
        .patch(&*path)
        .by(ann)
        .header("if-match", &fifth.etag)
        .json(serde_json::json!({"title": "Back"}))
        .send()
        .is(200);
    for (mask, field) in [(Some(&["version"][..]), "update_mask"), (Some(&["title", "author.email"]), "update_mask")] {
        let refused = edit(fifth.clone(), mask).unwrap_err();
        assert_eq!((refused.code(), &*reason(&refused)), (Code::InvalidArgument, "validation_failed"), "{field}");
    }
    let refused = edit(v1::Qna { etag: "7".to_owned(), ..fifth.clone() }, None).unwrap_err();
    assert_eq!((refused.code(), &*reason(&refused)), (Code::InvalidArgument, "validation_failed"));
    let details = refused.get_error_details();
    let fields: Vec<_> = details.bad_request().unwrap().field_violations.iter().map(|broken| &*broken.field).collect();
    assert_eq!(fields, ["qna.etag"]);

    let bob = Caller::of(server).by(board.bob());
    let delete = |caller: &Caller, etag: &str| {
        let request = v1::DeleteQnaRequest { qna_id: first.qna_id, etag: etag.to_owned() };
        caller.run(caller.qnas().delete_qna(request)).map(Response::into_inner)
    };
    assert_eq!(reason(&delete(&bob, "").unwrap_err()), "not_author");
    assert_eq!(reason(&delete(&caller, &fifth.etag).unwrap_err()), "version_mismatch");
    delete(&caller, "").unwrap();
    assert_eq!(reason(&delete(&caller, "").unwrap_err()), "qna_not_found");
    server.get(path).send().is(404);
}

fn a_repetition_is_answered_as_the_first_one_was(board: &Board) {
    let (server, ann) = (board.server(), board.ann());
    let caller = Caller::of(server).by(ann);
    let key = new_email();
    let ask = |title: &str| {
        let qna = v1::Qna { title: title.to_owned(), content: "once".to_owned(), ..v1::Qna::default() };
        let request = v1::CreateQnaRequest { qna: Some(qna), idempotency_key: key.clone() };
        caller.run(caller.qnas().create_qna(request))
    };
    let first = ask("Only").unwrap();
    assert_eq!(first.metadata().get("idempotent-replayed"), None);
    let again = ask("Only").unwrap();
    assert_eq!(again.metadata().get("idempotent-replayed").unwrap(), "true");
    assert_eq!(first.get_ref(), again.get_ref());
    let other = ask("Other").unwrap_err();
    assert_eq!((other.code(), &*reason(&other)), (Code::FailedPrecondition, "idempotency_key_reused"));
    // The key is the caller's, whichever face it comes by.
    let rest = server.post("/api/v1/qna").by(ann).header("idempotency-key", &key);
    let rest = rest.json(serde_json::json!({"title": "Only", "content": "once"})).send().is(201);
    assert_eq!(rest.header("idempotent-replayed"), Some("true"));
    assert_eq!(rest.json()["qna_id"], first.get_ref().qna_id);
}

fn pages_lead_from_one_face_to_the_other(board: &Board) {
    let server = board.server();
    let author = server.new_user();
    let caller = Caller::of(server).by(&author);
    let ids: Vec<i64> = (0..5).map(|n| caller.ask(&format!("Number {n}"), "").unwrap().qna_id).collect();
    let list = |size: i32, token: &str, order: v1::Order| {
        let request = v1::ListQnasRequest {
            page_size: size,
            page_token: token.to_owned(),
            author_id: Some(author.id),
            order: order.into(),
        };
        caller.run(caller.qnas().list_qnas(request)).map(Response::into_inner)
    };
    let of = |page: &v1::ListQnasResponse| page.qnas.iter().map(|qna| qna.qna_id).collect::<Vec<_>>();
    let first = list(2, "", v1::Order::Oldest).unwrap();
    assert_eq!(of(&first), ids[..2]);
    let second = list(2, &first.next_page_token, v1::Order::Oldest).unwrap();
    assert_eq!(of(&second), ids[2..4]);
    let target = format!("/api/v1/qna?author={}&order=oldest&cursor={}", author.id, second.next_page_token);
    let rest = server.get(target).send().is(200).json();
    assert_eq!(rest["items"][0]["qna_id"], ids[4]);
    let third = list(2, &second.next_page_token, v1::Order::Oldest).unwrap();
    assert_eq!((of(&third), &*third.next_page_token), (ids[4..].to_vec(), ""));
    let newest = list(0, "", v1::Order::Unspecified).unwrap();
    assert_eq!(of(&newest), ids.iter().rev().copied().collect::<Vec<_>>());
    // A token is bound to its order.
    let forged = list(2, &first.next_page_token, v1::Order::Newest).unwrap_err();
    assert_eq!((forged.code(), &*reason(&forged)), (Code::InvalidArgument, "invalid_cursor"));
}

fn all_questions_come_as_a_stream(board: &Board) {
    let server = board.own(&Options::default());
    let author = server.new_user();
    insert_qnas(&server.database_url, author.id, 1000, "content");
    let caller = Caller::of(&server);
    let ids: Vec<i64> = caller.run(async {
        let mut stream = caller.qnas().stream_qnas(v1::StreamQnasRequest {}).await.unwrap().into_inner();
        let mut ids = Vec::new();
        while let Some(qna) = stream.message().await.unwrap() {
            ids.push(qna.qna_id);
        }
        ids
    });
    assert_eq!(ids.len(), 1000);
    assert!(ids.is_sorted_by(|one, next| one < next));
}
