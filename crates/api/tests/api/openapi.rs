//! The document, and whether the program is what it says.

use std::collections::BTreeSet;

use mundap_domain::account::Password;
use mundap_domain::comment::CommentContent;
use mundap_domain::qna::{Content, Title};
use mundap_domain::user::{DisplayName, Email};
use serde_json::{Map, Value, json};

use crate::board::Board;
use crate::server::run;

crate::tests![
    every_operation_is_described,
    every_operation_has_a_name_of_its_own,
    what_is_made_is_linked_to_what_becomes_of_it,
    a_form_holds_text,
    entity_tags_have_their_pattern,
    limits_are_the_domains,
    a_body_is_what_the_document_says,
    pages_work_without_a_network;
    once: the_command_prints_what_is_served,
];

fn every_operation_is_described(board: &Board) {
    let document = board.server().document();
    assert!(document.0["openapi"].as_str().unwrap().starts_with("3.1."));
    let operations = document.operations();
    assert!(operations.len() >= 24, "{}", operations.len());
    for operation in operations {
        let about = operation.about;
        assert!(about["summary"].as_str().is_some_and(|text| !text.is_empty()), "{operation:?}");
        assert!(about["tags"].as_array().is_some_and(|tags| tags.len() == 1), "{operation:?}");
        assert!(about["security"].is_array(), "{operation:?}");
        for status in ["500", "503"] {
            assert!(about["responses"][status].is_object(), "{status}: {operation:?}");
        }
    }
}

fn every_operation_has_a_name_of_its_own(board: &Board) {
    let document = board.server().document();
    let operations = document.operations();
    let names: BTreeSet<&str> =
        operations.iter().filter_map(|operation| operation.about["operationId"].as_str()).collect();
    assert_eq!(names.len(), operations.len(), "{names:?}");
    for name in ["read_qna", "read_comments", "read_users", "me", "load_all_qna", "jwks"] {
        assert!(names.contains(name), "{name}: {names:?}");
    }
}

fn what_is_made_is_linked_to_what_becomes_of_it(board: &Board) {
    let document = board.server().document();
    let operations = document.operations();
    let links = |name: &str| {
        let made = operations.iter().find(|operation| operation.about["operationId"] == name).unwrap();
        made.about["responses"]["201"]["links"].as_object().unwrap().clone()
    };
    for (name, id, expected) in [
        ("ask_qna", "qna_id", &["read_qna", "edit_qna", "remove_qna", "list_comments", "write_comments"][..]),
        ("write_comments", "comment_id", &["read_comments", "edit_comments", "remove_comments"]),
        ("register_users", "user_id", &["profile_users", "read_users", "change_users"]),
    ] {
        let links = links(name);
        for target in expected {
            let link = &links[*target];
            assert_eq!(link["operationId"], *target, "{name}: {links:?}");
            assert_eq!(link["parameters"][id], format!("$response.body#/{id}"), "{name}: {links:?}");
        }
    }
}

/// What a form holds beside what is known is ignored, but nothing else than text fits into it.
fn a_form_holds_text(board: &Board) {
    let document = board.server().document();
    let schemas = document.0["components"]["schemas"].as_object().unwrap();
    let forms: Vec<&Value> = schemas.iter().filter(|(name, _)| name.ends_with("Form")).map(|(_, form)| form).collect();
    assert!(forms.len() >= 2, "{forms:?}");
    for form in forms {
        assert_eq!(form["additionalProperties"], json!({"type": "string"}), "{form}");
    }
}

fn entity_tags_have_their_pattern(board: &Board) {
    let mut found = 0;
    for operation in board.server().document().operations() {
        for parameter in operation.about["parameters"].as_array().into_iter().flatten() {
            if parameter["name"] == "If-Match" {
                found += 1;
                assert!(
                    parameter["schema"]["pattern"].as_str().is_some_and(|text| text.contains("W/")),
                    "{operation:?}"
                );
                assert_eq!(parameter["schema"]["type"], "string", "{operation:?}");
            }
        }
    }
    assert!(found >= 8, "{found}");
}

fn limits_are_the_domains(board: &Board) {
    let document = board.server().document();
    let schemas = document.0["components"]["schemas"].as_object().unwrap();
    let mut compared = 0;
    for (schema, about) in schemas.iter().filter(|(schema, _)| schema.ends_with("Body")) {
        for (name, about) in about["properties"].as_object().unwrap() {
            let limits = match (schema.as_str(), name.as_str()) {
                (_, "title") => (Title::MIN, Title::MAX),
                ("CommentBody" | "CommentPatchBody", "content") => (CommentContent::MIN, CommentContent::MAX),
                (_, "content") => (0, Content::MAX),
                (_, "email") => (Email::MIN, Email::MAX),
                (_, "display_name") => (DisplayName::MIN, DisplayName::MAX),
                (_, "password" | "new_password") => (Password::MIN, Password::MAX),
                // What is compared with the stored one may be anything; a file is counted in bytes.
                (_, "current_password" | "token") | ("UpdateBody", "qna_id") | ("ImageBody", "file") => continue,
                // Words and truth values.
                ("UserChangeBody", _) => {
                    assert!(about["enum"].is_array() || about["type"] == "boolean", "{about}");
                    continue;
                }
                _ => panic!("{schema}: {name} has no limits here"),
            };
            assert_eq!(about["maxLength"], limits.1, "{schema} {name}: {about}");
            assert_eq!(about["minLength"].as_u64().unwrap_or_default(), limits.0 as u64, "{schema} {name}: {about}");
            compared += 1;
        }
    }
    assert!(compared >= 17, "{compared}");
}

/// For every JSON body under `/api`: nothing at all, everything of the wrong type, and something unknown.
fn a_body_is_what_the_document_says(board: &Board) {
    let server = board.server();
    let user = server.new_user();
    let path = server.ask_at(&user, "About bodies");
    let comment = server.comment_at(&user, &path, "They have fields");
    let document = server.document();
    let mut tried = 0;
    for operation in document.operations() {
        let Some(schema) = document.request_schema(operation) else { continue };
        if !operation.path.starts_with("/api/") {
            continue;
        }
        tried += 1;
        assert_eq!(schema["additionalProperties"], false, "{operation:?}");
        let target = operation
            .path
            .replace("{qna_id}", path.rsplit('/').next().unwrap())
            .replace("{comment_id}", comment.rsplit('/').next().unwrap())
            .replace("{user_id}", &user.id.to_string());
        let by = if operation.path.starts_with("/api/v1/admin/") { board.admin() } else { &user };
        let send = |body: Value| server.call(&operation.method.to_uppercase(), &*target).by(by).json(body).send();
        let properties: Vec<&str> = schema["properties"].as_object().unwrap().keys().map(String::as_str).collect();
        let required: Vec<&str> =
            schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();

        let lacking: Vec<String> = required.iter().map(|name| format!("/{name} required")).collect();
        if required.is_empty() {
            // As it says itself.
            let responses = operation.about["responses"].as_object().unwrap();
            let success = responses.keys().find(|status| status.starts_with('2')).unwrap();
            send(json!({})).is(success.parse().unwrap());
        } else {
            send(json!({})).violates(&lacking.iter().map(String::as_str).collect::<Vec<_>>());
        }
        let wrong: Map<String, Value> = properties.iter().map(|name| ((*name).to_owned(), json!([1]))).collect();
        let kind = |name: &str| if schema["properties"][name]["type"] == "boolean" { "boolean" } else { "string" };
        let mistyped: Vec<String> = properties.iter().map(|name| format!("/{name} not_a_{}", kind(name))).collect();
        send(wrong.into()).violates(&mistyped.iter().map(String::as_str).collect::<Vec<_>>());
        let unknown: Vec<&str> =
            lacking.iter().map(String::as_str).chain(["/version unknown_field", "/x~1y unknown_field"]).collect();
        send(json!({"version": 2, "x/y": null})).violates(&unknown);
    }
    assert!(tried >= 7, "{tried}");
}

fn pages_work_without_a_network(board: &Board) {
    let server = board.server();
    for page in ["/docs", "/redoc"] {
        let reply = server.get(page).send().is(200);
        let policy = reply.header("content-security-policy").unwrap();
        assert!(policy.contains("default-src 'none'") && !policy.contains("http"), "{policy}");
        let html = reply.text();
        let loaded: Vec<&str> = ["src=\"", "href=\""]
            .iter()
            .flat_map(|attribute| html.split(attribute).skip(1))
            .filter_map(|rest| rest.split('"').next())
            .filter(|target| !target.starts_with("data:"))
            .collect();
        assert!(!loaded.is_empty(), "{html}");
        for target in loaded {
            assert!(target.starts_with('/') && !target.starts_with("//"), "{page} loads {target}");
            let loaded = server.get(target).send().is(200);
            assert!(!loaded.body.is_empty(), "{loaded}");
            if !target.starts_with("/openapi.json") {
                assert_eq!(loaded.header("content-security-policy"), Some(policy), "{loaded}");
            }
        }
    }
    let initializer = server.get("/docs/swagger-initializer.js").send().is(200).text();
    assert!(initializer.contains("/openapi.json") && !initializer.contains("https://"), "{initializer}");
    assert_eq!(server.get("/").send().is(302).header("location"), Some("/docs"));
    server.get("/docs/no-such-file.js").send().problem(404, "route_not_found");
    for page in ["/docs", "/redoc", "/docs/errors"] {
        let reply = server.get(page).header("accept", "text/html,application/xhtml+xml;q=0.9").send().is(200);
        let html = reply.text();
        assert!(html.contains("width=device-width") && html.contains("<title>Mundap API"), "{page} on a phone: {html}");
        let reply = server.post(page).send();
        assert_eq!(reply.header("allow"), Some("GET, HEAD"), "{reply}");
        reply.problem(405, "method_not_allowed");
    }
    let errors = server.get("/docs/errors");
    let page = errors.header("accept", "text/html").send().is(200).text();
    assert!(page.contains("<a id=\"validation_failed\"></a>") && !page.contains("href=\"api.md"), "{page}");
    for (accept, is_page) in [
        ("text/markdown, TEXT/HTML", true),
        ("text/markdown;q=0.5, text/html;level=1;q=0.6", true),
        ("text/markdown, text/html;q=0", false),
        ("text/markdown, text/html;q=0.1", false),
        ("*/*", false),
    ] {
        let text = server.get("/docs/errors").header("accept", accept).send().is(200).text();
        assert_eq!(text.starts_with("<!doctype html>"), is_page, "{accept}");
    }
    let list = server.get("/docs/errors").send().is(200);
    assert_eq!(
        (list.header("content-type"), list.header("vary")),
        (Some("text/markdown; charset=utf-8"), Some("Accept"))
    );
    // What has not changed is not sent again, however its tag comes back.
    let tag = server.get("/openapi.json").send().is(200).etag();
    for known in [tag.clone(), format!("W/{tag}"), format!("\"x\", {tag}"), "*".to_owned()] {
        server.get("/openapi.json").header("if-none-match", &known).send().is(304);
    }
    server.get("/openapi.json").header("if-none-match", "\"x\"").send().is(200);
}

fn the_command_prints_what_is_served(board: &Board) {
    let server = board.server();
    let ended = run(&mut server.command(&["openapi"]));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let printed: Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(printed, server.document().0);
}
