//! Messages of what the domain has.

use mundap_domain::Actor;
use mundap_domain::account::TokenPair;
use mundap_domain::audit::AuditEntry;
use mundap_domain::comment::Comment;
use mundap_domain::env;
use mundap_domain::image::Image;
use mundap_domain::qna::Qna;
use mundap_domain::sign_in::SignIn;
use mundap_domain::user::{Author, Role, User, UserId};
use mundap_domain::version::Version;
use prost::Message;
use prost_types::Timestamp;
use xxhash_rust::xxh3::xxh3_64;

use crate::v1;

/// How an author whose account is gone is shown.
const DELETED: &str = "deleted user";

pub(crate) fn time(instant: env::Timestamp) -> Timestamp {
    let instant = instant.as_utc();
    // Below 10^9, and leap seconds are not kept.
    let nanos = i32::try_from(instant.timestamp_subsec_nanos()).unwrap_or_default();
    Timestamp { seconds: instant.timestamp(), nanos }
}

/// An entity tag in the form of REST's: the version is for whoever compares it, the hash makes the tag change with anything
/// that is shown. The message has none yet.
fn etag(version: Version, message: &impl Message) -> String {
    format!("\"{}-{:016x}\"", version.get(), xxh3_64(&message.encode_to_vec()))
}

pub(crate) fn author(author: &Author, by: &Actor) -> v1::Author {
    v1::Author {
        user_id: author.id.get(),
        display_name: author.display_name.as_ref().map_or(DELETED, |name| name.as_str()).to_owned(),
        email: author.email.as_ref().filter(|_| by.may_see_email_of(author)).map(|email| email.as_str().to_owned()),
    }
}

pub(crate) fn qna(qna: &Qna, by: &Actor) -> v1::Qna {
    qna_with(qna, by, None)
}

pub(crate) fn qna_with(qna: &Qna, by: &Actor, comments: Option<v1::CommentPage>) -> v1::Qna {
    let view = v1::Qna {
        qna_id: qna.id.get(),
        title: qna.title.as_str().to_owned(),
        content: qna.content.as_str().to_owned(),
        author: Some(author(&qna.author, by)),
        comment_count: qna.comment_count,
        create_time: Some(time(qna.created_at)),
        update_time: Some(time(qna.updated_at)),
        version: qna.version.get(),
        etag: String::new(),
        comments,
    };
    v1::Qna { etag: etag(qna.version, &view), ..view }
}

pub(crate) fn comment(comment: &Comment, by: &Actor) -> v1::Comment {
    let view = v1::Comment {
        comment_id: comment.id.get(),
        qna_id: comment.qna.get(),
        author: Some(author(&comment.author, by)),
        content: comment.content.as_str().to_owned(),
        create_time: Some(time(comment.created_at)),
        update_time: Some(time(comment.updated_at)),
        version: comment.version.get(),
        images: comment.images.iter().map(image).collect(),
        etag: String::new(),
    };
    v1::Comment { etag: etag(comment.version, &view), ..view }
}

pub(crate) fn image(image: &Image) -> v1::Image {
    let view = v1::Image {
        image_id: image.id.get(),
        comment_id: image.comment.get(),
        media_type: image.media_type.name().to_owned(),
        size_bytes: i64::from(image.bytes),
        width: image.width,
        height: image.height,
        sha256: image.digest.to_string(),
        url: format!("/api/v1/images/{}", image.id),
        create_time: Some(time(image.created_at)),
        etag: String::new(),
    };
    // It never changes.
    v1::Image { etag: etag(Version::FIRST, &view), ..view }
}

pub(crate) fn user(user: &User) -> v1::User {
    let view =
        v1::User { user_id: user.id.get(), display_name: user.display_name.as_str().to_owned(), etag: String::new() };
    v1::User { etag: etag(user.version, &view), ..view }
}

pub(crate) const fn role(role: Role) -> v1::Role {
    match role {
        Role::Member => v1::Role::Member,
        Role::Moderator => v1::Role::Moderator,
        Role::Admin => v1::Role::Admin,
    }
}

pub(crate) fn account(user: &User) -> v1::Account {
    let view = v1::Account {
        user_id: user.id.get(),
        email: user.email.as_str().to_owned(),
        email_verified: user.email_verified_at.is_some(),
        display_name: user.display_name.as_str().to_owned(),
        role: role(user.role).into(),
        suspended: user.suspended_at.is_some(),
        create_time: Some(time(user.created_at)),
        update_time: Some(time(user.updated_at)),
        version: user.version.get(),
        etag: String::new(),
    };
    v1::Account { etag: etag(user.version, &view), ..view }
}

pub(crate) fn sign_in(sign_in: &SignIn) -> v1::SignIn {
    v1::SignIn {
        create_time: Some(time(sign_in.created_at)),
        renew_time: Some(time(sign_in.rotated_at)),
        expire_time: Some(time(sign_in.expires_at)),
    }
}

pub(crate) fn audit(entry: &AuditEntry) -> v1::AuditEntry {
    let (before, after) = entry.action.roles();
    let name = |role: Role| role.name().to_owned();
    v1::AuditEntry {
        audit_id: entry.id.get(),
        actor_id: entry.actor.map(UserId::get),
        action: entry.action.name().to_owned(),
        user_id: entry.target.map(UserId::get),
        role_before: before.map(name),
        role_after: after.map(name),
        create_time: Some(time(entry.created_at)),
    }
}

pub(crate) fn tokens(pair: &TokenPair) -> v1::Tokens {
    v1::Tokens {
        access_token: pair.access_token.clone(),
        expires_in: Some(prost_types::Duration { seconds: pair.expires_in.num_seconds(), nanos: 0 }),
        refresh_token: pair.refresh_token.expose(),
    }
}
