//! Every method of the gRPC port × every kind of caller × whose it is, by the table that REST is held to: a method stands
//! for an operation, and whoever may not do the one may not do the other.

use std::collections::BTreeSet;

use mundap_grpc::{Method, v1};
use tonic::{Code, Status};

use crate::access_matrix::{CALLERS, GONE, Row, TABLE, Things, caller, one_of_a_kind, things};
use crate::board::{Board, PASSWORD, User, new_email};
use crate::grpc::Caller;
use crate::images::a_png;

crate::tests![every_method_for_every_caller, every_method_has_its_operation_and_every_operation_its_method];

/// Each method and the operation that it does.
const TWINS: &[(&str, &str, &str)] = &[
    ("QnaService/ListQnas", "get", "/api/v1/qna"),
    ("QnaService/CreateQna", "post", "/api/v1/qna"),
    ("QnaService/GetQna", "get", "/api/v1/qna/{qna_id}"),
    ("QnaService/UpdateQna", "patch", "/api/v1/qna/{qna_id}"),
    ("QnaService/DeleteQna", "delete", "/api/v1/qna/{qna_id}"),
    ("QnaService/StreamQnas", "get", "/load_all_qna"),
    ("CommentService/ListComments", "get", "/api/v1/qna/{qna_id}/comments"),
    ("CommentService/CreateComment", "post", "/api/v1/qna/{qna_id}/comments"),
    ("CommentService/GetComment", "get", "/api/v1/comments/{comment_id}"),
    ("CommentService/UpdateComment", "patch", "/api/v1/comments/{comment_id}"),
    ("CommentService/DeleteComment", "delete", "/api/v1/comments/{comment_id}"),
    ("ImageService/UploadImage", "post", "/api/v1/comments/{comment_id}/images"),
    ("ImageService/DownloadImage", "get", "/api/v1/images/{image_id}"),
    ("ImageService/DeleteImage", "delete", "/api/v1/images/{image_id}"),
    ("UserService/GetUser", "get", "/api/v1/users/{user_id}"),
    ("AccountService/CreateAccount", "post", "/api/v1/users"),
    ("AccountService/GetAccount", "get", "/api/v1/users/me"),
    ("AccountService/UpdateAccount", "patch", "/api/v1/users/me"),
    ("AccountService/DeleteAccount", "delete", "/api/v1/users/me"),
    ("AccountService/ChangePassword", "post", "/api/v1/users/me/password"),
    ("AccountService/RequestVerification", "post", "/api/v1/users/me/verification"),
    ("AccountService/ExportAccount", "get", "/api/v1/users/me/export"),
    ("AdminService/ListAccounts", "get", "/api/v1/admin/users"),
    ("AdminService/GetUserAccount", "get", "/api/v1/admin/users/{user_id}"),
    ("AdminService/UpdateUserAccount", "patch", "/api/v1/admin/users/{user_id}"),
    ("AdminService/ListAuditEntries", "get", "/api/v1/admin/audit"),
    ("AuthService/SignIn", "post", "/api/v1/auth/token"),
    ("AuthService/RefreshToken", "post", "/api/v1/auth/token"),
    ("AuthService/RevokeToken", "post", "/api/v1/auth/revoke"),
    ("AuthService/RequestPasswordReset", "post", "/api/v1/auth/forgot"),
    ("AuthService/ResetPassword", "post", "/api/v1/auth/reset"),
    ("AuthService/VerifyEmail", "post", "/api/v1/auth/verify"),
];

/// Operations without a method, each with the reason.
const WITHOUT_A_TWIN: &[(&str, &str, &str)] = &[
    ("get", "/.well-known/jwks.json", "whoever checks tokens finds keys by RFC 8414, over HTTP"),
    ("post", "/upload", "the first program's; CreateQna does it"),
    ("get", "/load_qna/{qna_id}", "the first program's; GetQna does it"),
    ("put", "/update_qna", "the first program's; UpdateQna does it"),
    ("delete", "/delete_qna", "the first program's; DeleteQna does it"),
];

fn every_method_has_its_operation_and_every_operation_its_method(board: &Board) {
    let methods: BTreeSet<String> = Method::all().map(|method| method.name.replace("mundap.v1.", "")).collect();
    let known: BTreeSet<String> = TWINS.iter().map(|(method, ..)| (*method).to_owned()).collect();
    assert_eq!(methods, known);
    assert_eq!(known.len(), TWINS.len(), "no method stands there twice");
    let document = board.server().document();
    let documented: BTreeSet<(&str, &str)> =
        document.operations().iter().map(|operation| (operation.method, operation.path)).collect();
    let twins = TWINS.iter().map(|(_, verb, path)| (*verb, *path));
    let without = WITHOUT_A_TWIN.iter().map(|(verb, path, _)| (*verb, *path));
    assert_eq!(documented, twins.chain(without).collect());
    assert!(!WITHOUT_A_TWIN.iter().any(|(_, path, _)| path.starts_with("/api/v1")));
}

/// What the status of REST is here.
fn code(status: u16) -> Code {
    match status {
        200..300 => Code::Ok,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::NotFound,
        422 => Code::InvalidArgument,
        other => panic!("{other} is not in the table"),
    }
}

/// The row of the operation that a method does.
fn row(table: &'static [Row], (verb, path): (&str, &str)) -> Option<[u16; 7]> {
    table.iter().find(|(of, at, _)| (*of, *at) == (verb, path)).map(|(.., statuses)| *statuses)
}

fn number(id: &str) -> i64 {
    id.parse().unwrap()
}

/// Calls a method; a stream is read to its end.
fn call(board: &Board, method: &str, by: Option<&User>, things: &Things) -> Result<(), Status> {
    let anonymous = Caller::of(board.server());
    let of = match by {
        Some(user) => anonymous.by(user),
        None => anonymous,
    };
    let (qna_id, comment_id) = (things.qna.as_i64().unwrap(), number(&things.comment));
    let (image_id, etag, no_key) = (number(&things.image), String::new(), String::new());
    match method {
        "QnaService/ListQnas" => of.run(of.qnas().list_qnas(v1::ListQnasRequest::default())).map(drop),
        "QnaService/CreateQna" => of.ask("A row", "of the matrix").map(drop),
        "QnaService/GetQna" => of.qna(qna_id).map(drop),
        "QnaService/UpdateQna" => {
            let qna = Some(v1::Qna { qna_id, title: "Another row".to_owned(), ..v1::Qna::default() });
            of.run(of.qnas().update_qna(v1::UpdateQnaRequest { qna, update_mask: None })).map(drop)
        }
        "QnaService/DeleteQna" => of.run(of.qnas().delete_qna(v1::DeleteQnaRequest { qna_id, etag })).map(drop),
        "QnaService/StreamQnas" => of.run(async {
            let mut stream = of.qnas().stream_qnas(v1::StreamQnasRequest {}).await?.into_inner();
            while stream.message().await?.is_some() {}
            Ok(())
        }),
        "CommentService/ListComments" => {
            let request = v1::ListCommentsRequest { qna_id, ..v1::ListCommentsRequest::default() };
            of.run(of.comments().list_comments(request)).map(drop)
        }
        "CommentService/CreateComment" => {
            let comment = Some(v1::Comment { content: "A column".to_owned(), ..v1::Comment::default() });
            let request = v1::CreateCommentRequest { qna_id, comment, idempotency_key: no_key };
            of.run(of.comments().create_comment(request)).map(drop)
        }
        "CommentService/GetComment" => {
            of.run(of.comments().get_comment(v1::GetCommentRequest { comment_id })).map(drop)
        }
        "CommentService/UpdateComment" => {
            let content = "Another column".to_owned();
            let comment = Some(v1::Comment { comment_id, content, ..v1::Comment::default() });
            of.run(of.comments().update_comment(v1::UpdateCommentRequest { comment, update_mask: None })).map(drop)
        }
        "CommentService/DeleteComment" => {
            of.run(of.comments().delete_comment(v1::DeleteCommentRequest { comment_id, etag })).map(drop)
        }
        "ImageService/UploadImage" => of.attach(comment_id, &a_png(), "").map(drop),
        "ImageService/DownloadImage" => of.run(async {
            let request = v1::DownloadImageRequest { image_id, offset_bytes: 0 };
            let mut stream = of.images().download_image(request).await?.into_inner();
            while stream.message().await?.is_some() {}
            Ok(())
        }),
        "ImageService/DeleteImage" => {
            of.run(of.images().delete_image(v1::DeleteImageRequest { image_id, etag })).map(drop)
        }
        _ => call_on_accounts(board, method, by, things.user, &of),
    }
}

/// As [`call`], of what is about accounts.
fn call_on_accounts(board: &Board, method: &str, by: Option<&User>, user_id: i64, of: &Caller) -> Result<(), Status> {
    let email = by.map_or_else(|| board.ann().email.clone(), |user| user.email.clone());
    let (etag, no_key) = (String::new(), String::new());
    match method {
        "UserService/GetUser" => of.run(of.users().get_user(v1::GetUserRequest { user_id })).map(drop),
        "AccountService/CreateAccount" => {
            let display_name = "One more".to_owned();
            let account = Some(v1::Account { email: new_email(), display_name, ..v1::Account::default() });
            let request = v1::CreateAccountRequest { account, password: PASSWORD.to_owned(), idempotency_key: no_key };
            of.run(of.accounts().create_account(request)).map(drop)
        }
        "AccountService/GetAccount" => of.run(of.accounts().get_account(v1::GetAccountRequest {})).map(drop),
        "AccountService/UpdateAccount" => {
            of.run(of.accounts().update_account(v1::UpdateAccountRequest::default())).map(drop)
        }
        "AccountService/DeleteAccount" => {
            of.run(of.accounts().delete_account(v1::DeleteAccountRequest { etag })).map(drop)
        }
        "AccountService/ChangePassword" => {
            let (current_password, new_password) = (PASSWORD.to_owned(), PASSWORD.to_owned());
            let request = v1::ChangePasswordRequest { current_password, new_password };
            of.run(of.accounts().change_password(request)).map(drop)
        }
        "AccountService/RequestVerification" => {
            of.run(of.accounts().request_verification(v1::RequestVerificationRequest {})).map(drop)
        }
        "AccountService/ExportAccount" => of.run(async {
            let mut stream = of.accounts().export_account(v1::ExportAccountRequest {}).await?.into_inner();
            while stream.message().await?.is_some() {}
            Ok(())
        }),
        "AdminService/ListAccounts" => of.run(of.admin().list_accounts(v1::ListAccountsRequest::default())).map(drop),
        "AdminService/GetUserAccount" => {
            of.run(of.admin().get_user_account(v1::GetUserAccountRequest { user_id })).map(drop)
        }
        "AdminService/UpdateUserAccount" => {
            let account = Some(v1::Account { user_id, ..v1::Account::default() });
            let request = v1::UpdateUserAccountRequest { account, update_mask: None };
            of.run(of.admin().update_user_account(request)).map(drop)
        }
        "AdminService/ListAuditEntries" => {
            of.run(of.admin().list_audit_entries(v1::ListAuditEntriesRequest::default())).map(drop)
        }
        "AuthService/SignIn" => {
            let request = v1::SignInRequest { email, password: PASSWORD.to_owned() };
            of.run(of.auth().sign_in(request)).map(drop)
        }
        "AuthService/RefreshToken" => {
            let sign_in = v1::SignInRequest { email, password: PASSWORD.to_owned() };
            let refresh_token = of.run(of.auth().sign_in(sign_in))?.into_inner().refresh_token;
            of.run(of.auth().refresh_token(v1::RefreshTokenRequest { refresh_token })).map(drop)
        }
        "AuthService/RevokeToken" => {
            of.run(of.auth().revoke_token(v1::RevokeTokenRequest { token: "of nobody".to_owned() })).map(drop)
        }
        "AuthService/RequestPasswordReset" => {
            of.run(of.auth().request_password_reset(v1::RequestPasswordResetRequest { email })).map(drop)
        }
        "AuthService/ResetPassword" => {
            let (token, new_password) = ("of nobody".to_owned(), PASSWORD.to_owned());
            of.run(of.auth().reset_password(v1::ResetPasswordRequest { token, new_password })).map(drop)
        }
        "AuthService/VerifyEmail" => {
            of.run(of.auth().verify_email(v1::VerifyEmailRequest { token: "of nobody".to_owned() })).map(drop)
        }
        other => panic!("the matrix does not know how to call {other}"),
    }
}

fn every_method_for_every_caller(board: &Board) {
    let server = board.server();
    let author = board.ann();
    let fallen = server.new_user();
    let by_the_fallen: Vec<Things> = TWINS.iter().map(|_| things(board, &fallen)).collect();
    let gone = things(board, author);
    server.delete(format!("/api/v1/qna/{}", gone.qna)).by(author).send().is(204);
    let gone = Things { user: (1 << 53) - 1, ..gone };
    let fallen = server.suspended(&fallen);

    let mut wrong = Vec::new();
    let mut held = |what: String, outcome: Result<(), Status>, status: u16| {
        let came = outcome.map_or_else(|status| status.code(), |()| Code::Ok);
        if came != code(status) {
            wrong.push(format!("{what}: {came:?} instead of {:?}", code(status)));
        }
        came != Code::Ok
    };
    let mut touched = Vec::new();
    for ((method, verb, path), of_the_fallen) in TWINS.iter().zip(by_the_fallen) {
        let expected = row(TABLE, (verb, path)).unwrap();
        let mut of_the_fallen = Some(of_the_fallen);
        for (name, status) in CALLERS.into_iter().zip(expected) {
            let by = match *method {
                "AccountService/DeleteAccount" | "AccountService/ChangePassword" => one_of_a_kind(board, name),
                _ => caller(board, name, author, &fallen),
            };
            let things = match of_the_fallen.take_if(|_| name == "fallen author") {
                Some(things) => things,
                None => things(board, author),
            };
            let refused = held(format!("{method} by {name}"), call(board, method, by.as_ref(), &things), status);
            // Who was refused has changed nothing.
            let qna = server.get(format!("/api/v1/qna/{}", things.qna)).send();
            let comment = server.get(format!("/api/v1/comments/{}", things.comment)).send();
            let untouched = || {
                let (qna, comment) = (qna.json(), comment.json());
                let images = comment["images"].as_array().map(Vec::len);
                qna["version"] == 1 && qna["comment_count"] == 1 && comment["version"] == 1 && images == Some(1)
            };
            if refused && !untouched() {
                touched.push(format!("{method} by {name}: refused, and yet {qna} {comment}"));
            }
        }
        if let Some(expected) = row(GONE, (verb, path)) {
            for (name, status) in CALLERS.into_iter().zip(expected) {
                let by = caller(board, name, author, &fallen);
                held(format!("{method} by {name}, gone"), call(board, method, by.as_ref(), &gone), status);
            }
        }
    }
    wrong.extend(touched);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
