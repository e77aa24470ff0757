//! Images: cleaned, stored before their row, counted against a quota, and swept when no row is left.

use std::sync::Arc;

use mundap_domain::comment::{Comment, CommentId, CommentRecord};
use mundap_domain::error::{Cause, StoreError};
use mundap_domain::idempotency::{Claimant, IdempotencyKey, REMEMBERED, Receipt};
use mundap_domain::image::{BlobError, Digest, Image, ImageId, MediaType, Refusal, Shelf, Upload};
use mundap_domain::testing::{QUOTA, a_comment, a_picture, a_user, an_author, an_image, noon};
use mundap_domain::user::{Role, UserId};
use mundap_domain::version::Expected;
use mundap_domain::{Actor, Error, Housekeeping};

use crate::stage::{Stage, admin, banned, code, contention, made_on, member, moderator, unavailable};

const COMMENT: CommentId = CommentId::new(5);
const IMAGE: ImageId = ImageId::new(9);

fn upload() -> Upload {
    Upload::parse(b"an upload".to_vec()).expect("one")
}

/// Comment 5 of user 1 with so many images.
fn comment_with(images: usize) -> Comment {
    let images = (0..images).map(|n| an_image(100 + i64::try_from(n).expect("few"), 5, 1)).collect();
    Comment::restore(CommentRecord { images, ..(*a_comment(5, 7, 1)).clone() })
}

/// Comment 5 of user 1, as it is read and as it is in a unit.
fn stage(images: usize, used: u64) -> Stage {
    let mut stage = Stage::default();
    stage.outside.comments.expect_find().returning(move |_| Ok(Some(comment_with(images))));
    stage.outside.images.expect_quota_used().returning(move |_| Ok(used));
    let tape = stage.tape.clone();
    stage.outside.image_cleaner.expect_clean().returning(move |_| {
        tape.note("clean");
        Ok(a_picture())
    });
    let tape = stage.tape.clone();
    stage.outside.blobs.expect_put().returning(move |digest, content| {
        assert_eq!(digest, Digest::of(&content));
        tape.note("put");
        Ok(())
    });
    let tape = stage.tape.clone();
    stage.inside.users.expect_find_locked().returning(move |id| {
        tape.note(format!("lock user {id}"));
        Ok(Some(a_user(id.get(), Role::Member)))
    });
    let tape = stage.tape.clone();
    stage.inside.comments.expect_find_locked().returning(move |id| {
        tape.note(format!("lock comment {id}"));
        Ok(Some(comment_with(images)))
    });
    stage.inside.images.expect_quota_used().returning(move |_| Ok(used));
    let tape = stage.tape.clone();
    stage.inside.comments.expect_count_images().returning(move |_, by| {
        tape.note(format!("count {by}"));
        Ok(true)
    });
    let tape = stage.tape.clone();
    stage.inside.images.expect_insert().returning(move |new| {
        tape.note("insert");
        Ok(new.clone().stored(IMAGE))
    });
    stage
}

#[test]
fn a_digest_is_written_in_hexadecimal_and_read_back() {
    let digest = Digest::of(b"abc");
    let text = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(digest.to_string(), text);
    assert_eq!(Digest::parse(text), Some(digest));
    for wrong in ["", "ba78", &text[1..], &text.to_uppercase(), &text.replace('b', "g"), &text.replace("ba", "é")] {
        assert_eq!(Digest::parse(wrong), None, "{wrong}");
    }
}

#[test]
fn media_types_have_their_names() {
    assert_eq!(MediaType::ALL.map(MediaType::name), MediaType::NAMES);
    assert_eq!(MediaType::NAMES.map(|name| MediaType::parse(name).expect("its own name")), MediaType::ALL);
    assert_eq!(MediaType::parse("image/svg+xml"), None);
}

#[test]
fn an_upload_has_at_most_five_mebibytes() {
    assert!(Upload::parse(vec![0; Upload::MAX_BYTES]).is_ok());
    assert_eq!(code(Upload::parse(vec![0; Upload::MAX_BYTES + 1])), "image_too_large");
}

#[tokio::test]
async fn an_image_is_cleaned_and_stored_before_its_row_and_looked_for_after_it() {
    let stage = stage(0, 0);
    let tape = stage.tape.clone();
    let image = stage.services().images.attach(&member(1), COMMENT, upload(), None).await.expect("one").into_inner();
    assert_eq!((image.id, image.comment, image.owner), (IMAGE, COMMENT, UserId::new(1)));
    assert_eq!((image.bytes, image.width, image.height), (9, 640, 480));
    assert_eq!((image.digest, image.created_at), (Digest::of(b"a picture"), noon()));
    let steps = ["clean", "put", "begin", "lock user 1", "lock comment 5", "count 1", "insert", "commit", "put"];
    assert_eq!(tape, steps);
}

#[tokio::test]
async fn who_may_not_attach_costs_no_work() {
    for (by, refused) in [
        (Actor::Anonymous, "unauthenticated"),
        (Actor::Operator, "unauthenticated"),
        (banned(1), "account_suspended"),
        (member(2), "not_author"),
        (moderator(2), "not_author"),
        (admin(2), "not_author"),
    ] {
        let stage = stage(0, 0);
        let tape = stage.tape.clone();
        assert_eq!(code(stage.services().images.attach(&by, COMMENT, upload(), None).await), refused, "{by:?}");
        assert_eq!(tape, [""; 0], "{by:?}");
    }
    let mut nowhere = Stage::default();
    nowhere.outside.comments.expect_find().returning(|_| Ok(None));
    let tape = nowhere.tape.clone();
    assert_eq!(code(nowhere.services().images.attach(&member(1), COMMENT, upload(), None).await), "comment_not_found");
    assert_eq!(tape, [""; 0]);
}

#[tokio::test]
async fn a_comment_has_at_most_ten_images() {
    assert_eq!(code(stage(9, 0).services().images.attach(&member(1), COMMENT, upload(), None).await), "ok");
    let full = stage(10, 0);
    let tape = full.tape.clone();
    assert_eq!(code(full.services().images.attach(&member(1), COMMENT, upload(), None).await), "too_many_images");
    assert_eq!(tape, [""; 0]);
}

#[tokio::test]
async fn a_quota_counts_bytes_and_something_for_each_image() {
    let room = 9 + Image::OVERHEAD;
    let fits = stage(0, QUOTA - room);
    assert_eq!(code(fits.services().images.attach(&member(1), COMMENT, upload(), None).await), "ok");
    let full = stage(0, QUOTA - room + 1);
    let tape = full.tape.clone();
    assert_eq!(code(full.services().images.attach(&member(1), COMMENT, upload(), None).await), "image_quota_exceeded");
    // How large the picture is was not known before.
    assert_eq!(tape, ["clean", "put", "begin", "lock user 1", "lock comment 5", "rollback"]);
    let overfull = stage(0, QUOTA);
    let tape = overfull.tape.clone();
    let outcome = overfull.services().images.attach(&member(1), COMMENT, upload(), None).await;
    assert_eq!(code(outcome), "image_quota_exceeded");
    assert_eq!(tape, [""; 0]);
}

#[tokio::test]
async fn what_the_cleaner_refuses_is_stored_nowhere() {
    let mut stage = Stage::default();
    stage.outside.comments.expect_find().returning(|_| Ok(Some(comment_with(0))));
    stage.outside.images.expect_quota_used().returning(|_| Ok(0));
    stage.outside.image_cleaner.expect_clean().returning(|_| Err(Refusal::NotAnImage.into()));
    assert_eq!(code(stage.services().images.attach(&member(1), COMMENT, upload(), None).await), "not_an_image");
}

#[tokio::test]
async fn without_its_blob_there_is_no_row() {
    let mut stage = Stage::default();
    stage.outside.comments.expect_find().returning(|_| Ok(Some(comment_with(0))));
    stage.outside.images.expect_quota_used().returning(|_| Ok(0));
    stage.outside.image_cleaner.expect_clean().returning(|_| Ok(a_picture()));
    stage.outside.blobs.expect_put().returning(|_, _| Err(BlobError(Cause::from("no space left"))));
    let tape = stage.tape.clone();
    assert_eq!(code(stage.services().images.attach(&member(1), COMMENT, upload(), None).await), "storage_unavailable");
    assert_eq!(tape, [""; 0]);
}

/// A repetition is answered as the first was, though the comment is gone by now and the quota full.
#[tokio::test]
async fn a_repetition_asks_nothing_that_may_have_changed() {
    let key = IdempotencyKey::parse("once").expect("a key");
    let fingerprint = {
        let mut first = stage(0, 0);
        first.outside.receipts.expect_find().returning(|_, _| Ok(None));
        let seen = Arc::new(std::sync::Mutex::new([0; 32]));
        let kept = seen.clone();
        first.inside.receipts.expect_insert().returning(move |receipt| {
            *kept.lock().expect("one") = receipt.fingerprint;
            Ok(())
        });
        let outcome = first.services().images.attach(&member(1), COMMENT, upload(), Some(&key)).await;
        assert!(!outcome.expect("one").is_replayed());
        *seen.lock().expect("one")
    };
    let again = |said: &'static [u8]| {
        let key = key.clone();
        async move {
            let mut stage = Stage::default();
            stage.outside.receipts.expect_find().returning(move |claimant, key| {
                let (key, author) = (key.clone(), Some(an_author(1)));
                Ok(Some(Receipt { claimant, key, fingerprint, id: 9, author, created_at: noon() }))
            });
            stage.outside.image_cleaner.expect_clean().returning(|_| Ok(a_picture()));
            stage.outside.blobs.expect_put().once().returning(|_, _| Ok(()));
            let upload = Upload::parse(said.to_vec()).expect("one");
            stage.services().images.attach(&member(1), COMMENT, upload, Some(&key)).await
        }
    };
    let outcome = again(b"an upload").await.expect("a replay");
    assert!(outcome.is_replayed());
    assert_eq!((outcome.get().id, outcome.get().digest), (IMAGE, Digest::of(b"a picture")));
    assert_eq!(code(again(b"another upload").await), "idempotency_key_reused");
    assert_eq!(Claimant::account(UserId::new(1)).get(), 1);
}

/// Nothing is decoded for it before it is known whether the comment has room.
#[tokio::test]
async fn after_a_day_a_repetition_is_asked_what_a_first_one_is() {
    let key = IdempotencyKey::parse("once").expect("a key");
    let mut stage = Stage::default();
    stage.outside.receipts.expect_find().returning(|claimant, key| {
        let (key, author, created_at) = (key.clone(), Some(an_author(1)), noon().plus(-REMEMBERED));
        Ok(Some(Receipt { claimant, key, fingerprint: [0; 32], id: 9, author, created_at }))
    });
    stage.outside.comments.expect_find().returning(|_| Ok(None));
    assert_eq!(
        code(stage.services().images.attach(&member(1), COMMENT, upload(), Some(&key)).await),
        "comment_not_found"
    );
}

#[tokio::test]
async fn the_author_and_moderators_delete_an_image() {
    for (by, outcome) in [
        (member(1), "ok"),
        (moderator(2), "ok"),
        (admin(2), "ok"),
        (member(2), "not_author"),
        (Actor::Anonymous, "unauthenticated"),
        (banned(1), "account_suspended"),
    ] {
        let mut stage = Stage::default();
        stage.inside.images.expect_find().returning(|_| Ok(Some(an_image(9, 5, 1))));
        let tape = stage.tape.clone();
        stage.inside.comments.expect_count_images().returning(move |id, by| {
            tape.note(format!("count {id} {by}"));
            Ok(true)
        });
        let tape = stage.tape.clone();
        stage.inside.images.expect_delete().returning(move |id| {
            tape.note(format!("delete {id}"));
            Ok(true)
        });
        let tape = stage.tape.clone();
        assert_eq!(code(stage.services().images.delete(&by, IMAGE, &Expected::Any).await), outcome, "{by:?}");
        match outcome {
            "ok" => assert_eq!(tape, ["begin", "count 5 -1", "delete 9", "commit"]),
            "not_author" => assert_eq!(tape, ["begin", "rollback"]),
            _ => assert_eq!(tape, [""; 0]),
        }
    }
}

#[tokio::test]
async fn an_image_that_another_one_deleted_first_is_not_found_and_not_counted_twice() {
    let mut stage = Stage::default();
    stage.inside.images.expect_find().returning(|_| Ok(Some(an_image(9, 5, 1))));
    stage.inside.comments.expect_count_images().returning(|_, _| Ok(true));
    stage.inside.images.expect_delete().returning(|_| Ok(false));
    let tape = stage.tape.clone();
    assert_eq!(code(stage.services().images.delete(&member(1), IMAGE, &Expected::Any).await), "image_not_found");
    assert_eq!(tape, ["begin", "rollback"]);
}

#[tokio::test]
async fn an_image_is_in_its_first_version_for_good() {
    for (expected, outcome) in [(made_on(1), "ok"), (made_on(2), "version_mismatch")] {
        let mut stage = Stage::default();
        stage.inside.images.expect_find().returning(|_| Ok(Some(an_image(9, 5, 1))));
        stage.inside.comments.expect_count_images().returning(|_, _| Ok(true));
        stage.inside.images.expect_delete().returning(|_| Ok(true));
        assert_eq!(code(stage.services().images.delete(&member(1), IMAGE, &expected).await), outcome);
    }
}

#[tokio::test]
async fn bytes_that_are_lost_are_a_fault_of_ours() {
    for lost in [None, Some(Vec::new())] {
        let mut stage = Stage::default();
        stage.outside.blobs.expect_read().returning(move |_, _, _| Ok(lost.clone()));
        let outcome = stage.services().images.content(&an_image(9, 5, 1), 0, 100).await;
        assert_eq!(code(outcome), "internal_error");
    }
    let mut stage = Stage::default();
    stage.outside.blobs.expect_read().returning(|_, _, _| Ok(Some(Vec::new())));
    assert_eq!(
        stage.services().images.content(&an_image(9, 5, 1), 1000, 100).await.expect("the end"),
        Vec::<u8>::new()
    );
}

/// A board whose first shelf holds these blobs, and whose rows show those that `shown` says at the first and at the second
/// question.
fn shelves(old: &[&[u8]], aside: &[&[u8]], shown: [&'static [&'static [u8]]; 2]) -> Stage {
    let digests = |names: &[&[u8]]| names.iter().map(|name| Digest::of(name)).collect::<Vec<_>>();
    let mut stage = Stage::default();
    stage.outside.image_home.expect_is_here().returning(|| Ok(true));
    let shelf = Shelf { seen: old.len(), old: digests(old), aside: digests(aside) };
    stage.outside.blobs.expect_list().returning(move |n, before| {
        assert_eq!((noon().as_utc() - before.as_utc()).num_minutes(), 60);
        Ok(if n == 0 { shelf.clone() } else { Shelf::default() })
    });
    let mut answers = shown.into_iter();
    stage.outside.images.expect_shown().returning(move |asked| {
        let shown = answers.next().expect("two questions").iter().map(|name| Digest::of(name));
        Ok(shown.filter(|digest| asked.contains(digest)).collect())
    });
    let tape = stage.tape.clone();
    stage.outside.blobs.expect_set_aside().returning(move |digest, _| {
        tape.note(format!("aside {}", name(digest)));
        Ok(digest != Digest::of(b"young"))
    });
    let tape = stage.tape.clone();
    stage.outside.blobs.expect_bring_back().returning(move |digest| {
        tape.note(format!("back {}", name(digest)));
        Ok(())
    });
    let tape = stage.tape.clone();
    stage.outside.blobs.expect_discard().returning(move |digest| {
        tape.note(format!("discard {}", name(digest)));
        Ok(())
    });
    stage
}

fn name(digest: Digest) -> &'static str {
    let names = ["shown", "gone", "young", "left"];
    names.into_iter().find(|name| Digest::of(name.as_bytes()) == digest).expect("a name")
}

#[tokio::test]
async fn a_sweep_takes_away_what_no_image_shows() {
    let stage = shelves(&[b"shown", b"gone", b"young"], &[], [&[b"shown"], &[]]);
    let tape = stage.tape.clone();
    assert_eq!(stage.services().housekeeping.sweep_images().await.expect("swept"), 1);
    // What was put meanwhile is left where it is.
    assert_eq!(tape, ["aside gone", "aside young", "discard gone"]);
}

#[tokio::test]
async fn a_blob_whose_row_came_while_it_was_set_aside_is_brought_back() {
    let stage = shelves(&[b"gone"], &[], [&[], &[b"gone"]]);
    let tape = stage.tape.clone();
    assert_eq!(stage.services().housekeeping.sweep_images().await.expect("swept"), 0);
    assert_eq!(tape, ["aside gone", "back gone"]);
}

#[tokio::test]
async fn what_an_interrupted_sweep_left_aside_is_brought_to_its_end() {
    let stage = shelves(&[], &[b"shown", b"left"], [&[b"shown"], &[]]);
    let tape = stage.tape.clone();
    assert_eq!(stage.services().housekeeping.sweep_images().await.expect("swept"), 1);
    assert_eq!(tape, ["back shown", "discard left"]);
}

#[tokio::test]
async fn a_sweep_that_cannot_ask_for_rows_takes_nothing_away() {
    let mut stage = Stage::default();
    stage.outside.image_home.expect_is_here().returning(|| Ok(true));
    stage
        .outside
        .blobs
        .expect_list()
        .returning(|_, _| Ok(Shelf { old: vec![Digest::of(b"gone")], aside: Vec::new(), seen: 1 }));
    stage.outside.images.expect_shown().returning(|_| Err(contention()));
    assert_eq!(code(stage.services().housekeeping.sweep_images().await), "busy");
}

/// The rows of another database name none of these blobs.
#[tokio::test]
async fn a_sweep_touches_nothing_unless_the_images_are_known_to_be_here() {
    for (is_here, outcome) in [(Ok(false), "ok"), (Err(unavailable()), "database_unavailable")] {
        let mut stage = Stage::default();
        let mut answer = Some(is_here.map_err(Error::from));
        stage.outside.image_home.expect_is_here().returning(move || answer.take().expect("one question"));
        // Not even listed: no call is expected.
        assert_eq!(code(stage.services().housekeeping.sweep_images().await), outcome);
    }
}

#[tokio::test]
async fn a_large_board_is_looked_through_by_and_by() {
    let mut stage = Stage::default();
    let tape = stage.tape.clone();
    stage.outside.image_home.expect_is_here().returning(|| Ok(true));
    stage.outside.blobs.expect_list().returning(move |n, _| {
        tape.note(format!("shelf {n}"));
        Ok(Shelf { seen: Housekeeping::BLOBS / 2, ..Shelf::default() })
    });
    let (tape, services) = (stage.tape.clone(), stage.services());
    assert_eq!(services.housekeeping.sweep_images().await.expect("swept"), 0);
    assert_eq!(tape, ["shelf 0", "shelf 1"]);
    assert_eq!(services.housekeeping.sweep_images().await.expect("swept"), 0);
    assert_eq!(tape, ["shelf 0", "shelf 1", "shelf 2", "shelf 3"]);
}

#[test]
fn refusals_say_what_is_wrong() {
    for refusal in [
        Refusal::NotAnImage,
        Refusal::Animated,
        Refusal::Broken,
        Refusal::TooLarge,
        Refusal::TooManyPixels,
        Refusal::CommentFull,
        Refusal::QuotaExceeded,
    ] {
        assert_eq!(Error::from(refusal).to_string(), refusal.to_string());
        assert!(Error::CODES.contains(&refusal.code()));
    }
    assert_eq!(Error::from(StoreError::Stale).code(), "busy");
}
