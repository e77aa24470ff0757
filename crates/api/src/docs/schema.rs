//! The value objects' rules as JSON Schema, made from the domain's own constants so that the two cannot differ.

use mundap_domain::account::Password;
use mundap_domain::comment::CommentContent;
use mundap_domain::image::MediaType;
use mundap_domain::page::Order;
use mundap_domain::qna::{Content, Title};
use mundap_domain::text::INVISIBLE;
use mundap_domain::user::{DisplayName, Email, Role};
use serde_json::json;
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, SchemaType, Type};

/// No control character save newline and tab.
pub const TEXT: &str = r"^[^\u0000-\u0008\u000b-\u001f\u007f-\u009f]*$";
/// The same, and something to see in it.
#[must_use]
pub fn not_blank() -> String {
    let any = r"[^\u0000-\u0008\u000b-\u001f\u007f-\u009f]*";
    let ranges = INVISIBLE.map(|(first, last)| format!(r"\u{:04x}-\u{:04x}", u32::from(first), u32::from(last)));
    let invisible = ranges.concat();
    format!(r"^{any}[^\s\u0000-\u001f\u007f-\u009f{invisible}]{any}$")
}

/// What `If-Match` may say: `*`, or entity tags between commas (RFC 9110, 13.1.1).
pub const ENTITY_TAGS: &str = r#"^(\*|[\t ,]*(W/)?"[\t !#-~]*"([\t ]*,[\t ,]*(W/)?"[\t !#-~]*")*[\t ,]*)$"#;

#[must_use]
pub fn text() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}

/// Makes a type that stands for a value object's schema, for `#[schema(value_type = …, inline)]`; a new entity's file may
/// make its own.
macro_rules! text_schema {
    ($(#[$doc:meta])* $name:ident, $schema:expr) => {
        $(#[$doc])*
        pub struct $name;

        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                $schema.build().into()
            }
        }

        impl utoipa::ToSchema for $name {}
    };
}

pub(crate) use text_schema;

text_schema!(
    TitleText,
    text()
        .min_length(Some(Title::MIN))
        .max_length(Some(Title::MAX))
        .pattern(Some(not_blank()))
        .examples([json!("How do I start?")])
);
text_schema!(
    ContentText,
    text().max_length(Some(Content::MAX)).pattern(Some(TEXT)).examples([json!("I have read the README.")])
);
text_schema!(
    /// [`ContentText`], or null.
    NullableContentText,
    text()
        .schema_type(SchemaType::from_iter([Type::String, Type::Null]))
        .max_length(Some(Content::MAX))
        .pattern(Some(TEXT))
);
text_schema!(
    CommentText,
    text()
        .min_length(Some(CommentContent::MIN))
        .max_length(Some(CommentContent::MAX))
        .pattern(Some(not_blank()))
        .examples([json!("Read it again.")])
);
text_schema!(
    DisplayNameText,
    text()
        .min_length(Some(DisplayName::MIN))
        .max_length(Some(DisplayName::MAX))
        .pattern(Some(not_blank()))
        .examples([json!("문답이")])
);
text_schema!(
    EmailText,
    text()
        .min_length(Some(Email::MIN))
        .max_length(Some(Email::MAX))
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Email)))
        .examples([json!("me@example.com")])
);
text_schema!(
    PasswordText,
    text()
        .min_length(Some(Password::MIN))
        .max_length(Some(Password::MAX))
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Password)))
        .examples([json!("correct horse battery")])
);
text_schema!(RoleName, text().enum_values(Some(Role::NAMES)));
text_schema!(OrderName, text().enum_values(Some(Order::NAMES)));
text_schema!(MediaTypeName, text().enum_values(Some(MediaType::NAMES)));
text_schema!(
    Sha256Text,
    text()
        .pattern(Some("^[0-9a-f]{64}$"))
        .examples([json!("9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")])
);
text_schema!(FileBytes, text().content_media_type("application/octet-stream"));
