//! The OpenAPI 3.1 document: what the handlers say of themselves, and what is true of all of them.

use std::collections::HashSet;

use bytes::Bytes;
use mundap_domain::idempotency::IdempotencyKey;
use utoipa::openapi::content::Content;
use utoipa::openapi::header::Header;
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::schema::{AdditionalProperties, ObjectBuilder, Schema, Type};
use utoipa::openapi::security::{
    Flow, HttpAuthScheme, HttpBuilder, OAuth2, Password, Scopes, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{
    ComponentsBuilder, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder, Ref, RefOr, Required, Response,
    ResponseBuilder,
};
use utoipa::{PartialSchema as _, ToSchema as _};
use xxhash_rust::xxh3::xxh3_64;

use crate::docs::link::{link, name_operations};
use crate::docs::schema::{ENTITY_TAGS, OrderName};
use crate::problem::{FieldError, ProblemBody};
use crate::routes::v1::auth::OAuthErrorView;
use crate::routes::{seed, v1};

/// The document as it is served.
pub struct Document {
    pub json: Bytes,
    pub etag: String,
}

impl Document {
    #[must_use]
    pub fn new(document: &OpenApi) -> Self {
        let json = document.to_json().unwrap_or_default();
        Self { etag: format!("\"{:016x}\"", xxh3_64(json.as_bytes())), json: json.into() }
    }
}

/// What the document says before any route is in it.
#[must_use]
pub fn base() -> OpenApi {
    let info = InfoBuilder::new()
        .title("Mundap")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "A Q&A board beside your product: people ask, people answer, and each may change only what is theirs.\n\n\
             Sign in with **Authorize**, or at `/api/v1/auth/token`. Every error has a `code` that never changes; \
             [the list of codes](/docs/errors) says what each means and what to do. Its `detail` is in Korean or English, \
             by `Accept-Language`.",
        ))
        .license(Some(LicenseBuilder::new().name("Apache-2.0 OR MIT").identifier(Some("Apache-2.0 OR MIT")).build()))
        .build();
    let flow = Flow::Password(Password::new("/api/v1/auth/token", Scopes::new()));
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build();
    let components = ComponentsBuilder::new()
        .schema("Problem", ProblemBody::schema())
        .schema(FieldError::name(), FieldError::schema())
        .schema("OrderName", OrderName::schema())
        .schema("OAuthError", OAuthErrorView::schema())
        .schema("Detail", seed::Detail::schema())
        .schema("HTTPValidationError", seed::ValidationErrors::schema())
        .schema("ValidationError", seed::ValidationError::schema())
        .security_scheme("oauth2", SecurityScheme::OAuth2(OAuth2::new([flow])))
        .security_scheme("bearer", SecurityScheme::Http(bearer))
        .build();
    let tag = |&(name, text): &(&str, &str)| TagBuilder::new().name(name).description(Some(text)).build();
    OpenApiBuilder::new()
        .info(info)
        .components(Some(components))
        .tags(Some(v1::TAGS.iter().chain([&seed::TAG]).map(tag)))
        .build()
}

/// Adds what every route has in common, so that no handler repeats it: who may call, conditional headers, and the
/// errors that its kind of route can answer.
#[must_use]
pub fn complete(mut document: OpenApi) -> OpenApi {
    name_operations(&mut document);
    let versioned = versioned(&document);
    for (path, item) in &mut document.paths.paths {
        let is_versioned = item.get.as_ref().is_some_and(|get| answers_one_of(get, &versioned));
        for (method, operation) in operations(item) {
            if seed::is_path(path) {
                seed::complete(path, method, operation);
            } else {
                add_headers(method, operation, &versioned, is_versioned);
                complete_operation(path, method, operation);
            }
            for (status, description) in HEAD_PROBLEMS {
                add_response(operation, status, description, "Problem", "application/problem+json");
            }
            add_rate_limit_headers(operation);
            add_headers_by_status(operation);
        }
    }
    for (name, schema) in document.components.iter_mut().flat_map(|components| &mut components.schemas) {
        let RefOr::T(Schema::Object(object)) = schema else { continue };
        object.properties.values_mut().for_each(unite);
        if name.ends_with("Body") {
            object.additional_properties = Some(Box::new(AdditionalProperties::FreeForm(false)));
        } else if name.ends_with("Form") {
            // Whatever else stands there is ignored, but it is text, and stands there once.
            let text = ObjectBuilder::new().schema_type(Type::String).build();
            object.additional_properties = Some(Box::new(AdditionalProperties::RefOr(text.into())));
        }
    }
    link(&mut document);
    document
}

/// utoipa writes an inlined field that has a description as "what it is, and an object with this description", which no
/// value but an object satisfies. Here the description moves to what it describes.
fn unite(property: &mut RefOr<Schema>) {
    let RefOr::T(Schema::AllOf(all)) = property else { return };
    if let [RefOr::T(Schema::Object(is)), RefOr::T(Schema::Object(says))] = all.items.as_mut_slice()
        && says.properties.is_empty()
    {
        is.description = says.description.take();
        *property = is.clone().into();
    }
}

/// The operations of a path, each with its method's name.
pub fn operations(item: &mut PathItem) -> impl Iterator<Item = (&'static str, &mut Operation)> {
    [
        ("get", &mut item.get),
        ("post", &mut item.post),
        ("put", &mut item.put),
        ("patch", &mut item.patch),
        ("delete", &mut item.delete),
    ]
    .into_iter()
    .filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
}

/// What [`crate::input::head`] refuses, in the same shape for every face.
const HEAD_PROBLEMS: [(u16, &str); 2] = [(414, "The path and query are too long"), (431, "The headers are too large")];

/// What the document says of 429.
pub const TOO_MANY_REQUESTS: &str = "Too often: a rate limit; see `Retry-After`";

fn header(text: &str, kind: Type) -> RefOr<Header> {
    let mut header = Header::new(ObjectBuilder::new().schema_type(kind).build());
    header.description = Some(text.to_owned());
    RefOr::T(header)
}

/// What answers of one status have in common: [`crate::problem`] and [`crate::reply`] send it.
fn add_headers_by_status(operation: &mut Operation) {
    let has_key =
        operation.parameters.iter().flatten().any(|p| matches!(p, RefOr::T(p) if p.name == "Idempotency-Key"));
    for (status, response) in &mut operation.responses.responses {
        let RefOr::T(response) = response else { continue };
        let mut add = |name: &str, text: &str, kind| drop(response.headers.insert(name.to_owned(), header(text, kind)));
        match status.as_str() {
            "401" => add("WWW-Authenticate", "`Bearer`, with what is wrong with the token (RFC 6750, 3)", Type::String),
            "503" => add("Retry-After", "Seconds", Type::Integer),
            "200" | "201" if has_key => {
                add("Idempotent-Replayed", "`true` where a request with this key was answered before", Type::String);
            }
            _ => {}
        }
    }
}

/// What a rate limit tells its client: [`crate::rate::Budget`] sends it.
fn add_rate_limit_headers(operation: &mut Operation) {
    for (status, response) in &mut operation.responses.responses {
        let RefOr::T(response) = response else { continue };
        if !(status.starts_with('2') || status == "429") {
            continue;
        }
        let policy = "The limits that this request counted for, such as `\"writes\";q=60;w=60`: 60 in 60 seconds";
        response.headers.insert("RateLimit-Policy".to_owned(), header(policy, Type::String));
        let left = "What is left, such as `\"writes\";r=59;t=1`: 59, and one more in a second";
        response.headers.insert("RateLimit".to_owned(), header(left, Type::String));
        if status == "429" {
            response.headers.insert("Retry-After".to_owned(), header("Seconds", Type::Integer));
        }
    }
}

fn complete_operation(path: &str, method: &str, operation: &mut Operation) {
    let writes = method != "get";
    let of_one = path.contains('{');
    let oauth = matches!(path, "/api/v1/auth/token" | "/api/v1/auth/revoke");
    let security = operation.security.get_or_insert_with(|| {
        let named = |name: &str| SecurityRequirement::new::<_, _, String>(name, []);
        let mut either = vec![named("oauth2"), named("bearer")];
        if !writes {
            either.insert(0, SecurityRequirement::default());
        }
        either
    });
    let open = security.iter().any(|requirement| *requirement == SecurityRequirement::default());
    let anybody = open && writes;

    let mut problems = vec![
        (429, TOO_MANY_REQUESTS),
        (500, "A fault of ours"),
        (503, "Too busy, too slow, or the database is away; see `Retry-After`"),
    ];
    if oauth {
        add_response(operation, 400, "What is wrong with the form or the grant", "OAuthError", "application/json");
        add_response(operation, 408, "The form took too long to arrive", "OAuthError", "application/json");
        add_response(operation, 413, "The form is too large", "OAuthError", "application/json");
        add_response(operation, 415, "Not a form", "OAuthError", "application/json");
    } else if path.starts_with("/api/") {
        if operation.request_body.is_some() {
            problems.extend([
                (400, "The request cannot be read"),
                (408, "The body took too long to arrive"),
                (413, "The body is too large"),
                (415, "Not JSON"),
                (422, "A field breaks a rule"),
            ]);
        }
        // Where anybody may write, too: a bad token is refused. Signing in looks at none.
        if !anybody || !path.starts_with("/api/v1/auth/") {
            problems.push((401, "No token, or not a valid one"));
        }
        if path.starts_with("/api/v1/admin/") {
            problems.push((403, "Only an administrator may"));
        } else if writes && !anybody {
            problems.push((403, "Not yours"));
        }
        if of_one {
            problems.extend([(400, "The request cannot be read"), (404, "There is no such thing")]);
        }
        if has_parameter(operation, &ParameterIn::Query) {
            problems.extend([(400, "The request cannot be read"), (422, "A parameter is out of its range")]);
        }
        if has_parameter(operation, &ParameterIn::Header) && matches!(method, "patch" | "delete") {
            problems.extend([(400, "The request cannot be read"), (412, "It was changed since you read it")]);
        }
        if operation.responses.responses.contains_key("201") {
            add_idempotency_key(operation);
            let running = "The first request with this `Idempotency-Key` is still running";
            let of_account =
                "Another account has this e-mail, or the first request with this `Idempotency-Key` is still running";
            problems.push((409, if path == "/api/v1/users" { of_account } else { running }));
        }
        if path == "/api/v1/users/me" && method == "patch" {
            problems.push((409, "Another account has this e-mail"));
        }
    }
    for (status, description) in problems {
        add_response(operation, status, description, "Problem", "application/problem+json");
    }
}

/// What [`crate::input::OnceKey`] reads.
pub fn add_idempotency_key(operation: &mut Operation) {
    let text = "A name for this request and its repetitions, for 24 hours: a repetition is answered as the first was, with \
                `Idempotent-Replayed: true`; with another body it is 422";
    let key = ObjectBuilder::new().schema_type(Type::String).min_length(Some(1)).max_length(Some(IdempotencyKey::MAX));
    let parameter = ParameterBuilder::new()
        .name("Idempotency-Key")
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(text))
        .schema(Some(key.pattern(Some("^[!-~]+$")).build()))
        .build();
    operation.parameters.get_or_insert_with(Vec::new).push(RefOr::T(parameter));
}

/// The schemas of what has an entity tag: those that carry a `version`, and a profile, which does not show its own.
fn versioned(document: &OpenApi) -> HashSet<String> {
    let schemas = document.components.iter().flat_map(|components| &components.schemas);
    let has_version = |schema: &RefOr<Schema>| matches!(schema, RefOr::T(Schema::Object(object)) if object.properties.contains_key("version"));
    let tagged = schemas.filter(|(name, schema)| *name == "Profile" || has_version(schema));
    tagged.map(|(name, _)| format!("#/components/schemas/{name}")).collect()
}

/// Whether the operation's success is one of these schemas.
fn answers_one_of(operation: &Operation, schemas: &HashSet<String>) -> bool {
    ["200", "201"].into_iter().filter_map(|status| operation.responses.responses.get(status)).any(|response| {
        let RefOr::T(response) = response else { return false };
        schema_of(response).is_some_and(|schema| schemas.contains(schema))
    })
}

/// Where the schema of its JSON is.
fn schema_of(response: &Response) -> Option<&str> {
    let RefOr::T(content) = response.content.get("application/json")? else { return None };
    match &content.schema {
        Some(RefOr::Ref(Ref { ref_location, .. })) => Some(ref_location),
        Some(RefOr::T(_)) | None => None,
    }
}

/// Entity tags: what [`crate::reply`] sends and [`crate::input::IfMatch`] reads.
fn add_headers(method: &str, operation: &mut Operation, versioned: &HashSet<String>, path_is_versioned: bool) {
    let parameter = |name: &str, text: &str, pattern: Option<&str>| -> Parameter {
        ParameterBuilder::new()
            .name(name)
            .parameter_in(ParameterIn::Header)
            .required(Required::False)
            .description(Some(text))
            .schema(Some(ObjectBuilder::new().schema_type(Type::String).pattern(pattern).build()))
            .build()
    };
    let if_match = |text: &str| Some(parameter("If-Match", text, Some(ENTITY_TAGS)));
    let is_tagged = answers_one_of(operation, versioned);
    for (status, response) in &mut operation.responses.responses {
        let RefOr::T(response) = response else { continue };
        if is_tagged && status.starts_with('2') {
            response.headers.insert("ETag".to_owned(), header("Changes with anything that is shown", Type::String));
        }
        if status == "200" && schema_of(response).is_some_and(|schema| schema.ends_with("Page")) {
            let text = "The next page, as `<…>; rel=\"next\"` (RFC 8288); none on the last one";
            response.headers.insert("Link".to_owned(), header(text, Type::String));
        }
        if status == "201" {
            response.headers.insert("Location".to_owned(), header("Where it is", Type::String));
        }
    }
    let conditional = match method {
        "get" if is_tagged => Some(parameter("If-None-Match", "Answer 304 where this is the current `ETag`", None)),
        "patch" => if_match("The `ETag` that the change was made on; 412 where another change came between"),
        "delete" if path_is_versioned => if_match("The `ETag` that was read; 412 where another change came between"),
        _ => None,
    };
    // Some handlers describe theirs themselves.
    for parameter in operation.parameters.iter_mut().flatten() {
        if let RefOr::T(parameter) = parameter
            && parameter.name == "If-Match"
        {
            parameter.schema = Some(ObjectBuilder::new().schema_type(Type::String).pattern(Some(ENTITY_TAGS)).into());
        }
    }
    if let Some(parameter) = conditional {
        if method == "get" {
            let mut unchanged = ResponseBuilder::new().description("What you have is current").build();
            unchanged.headers.insert("ETag".to_owned(), header("The current one", Type::String));
            operation.responses.responses.insert("304".to_owned(), unchanged.into());
        }
        operation.parameters.get_or_insert_with(Vec::new).push(RefOr::T(parameter));
    }
}

fn has_parameter(operation: &Operation, place: &ParameterIn) -> bool {
    operation.parameters.iter().flatten().any(|p| matches!(p, RefOr::T(p) if p.parameter_in == *place))
}

/// Adds a response unless the operation describes that status itself.
pub fn add_response(operation: &mut Operation, status: u16, description: &str, schema: &str, media_type: &str) {
    let content = Content::new(Some(Ref::from_schema_name(schema)));
    let response = ResponseBuilder::new().description(description).content(media_type, content).build();
    operation.responses.responses.entry(status.to_string()).or_insert_with(|| response.into());
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    /// Every `$ref` below `value`.
    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(object) => {
                found.extend(object.get("$ref").and_then(Value::as_str));
                object.values().for_each(|value| references(value, found));
            }
            Value::Array(array) => array.iter().for_each(|value| references(value, found)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document = serde_json::to_value(crate::app::openapi()).unwrap();
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 50, "{}", found.len());
        for reference in found {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
    }
}
