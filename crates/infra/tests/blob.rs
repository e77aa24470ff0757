//! `BlobStore`, as a folder. A MUST of the port has a test that is named after it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use mundap_domain::env::{Clock as _, Timestamp};
use mundap_domain::image::{BlobStore as _, Digest, Shelf};
use mundap_infra::{BlobFolder, SystemClock};
use tempfile::TempDir;

fn folder() -> (BlobFolder, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    (BlobFolder::new(dir.path().join("images")), dir)
}

async fn put(blobs: &BlobFolder, content: &[u8]) -> Digest {
    let digest = Digest::of(content);
    blobs.put(digest, Arc::new(content.to_vec())).await.unwrap();
    digest
}

async fn read(blobs: &BlobFolder, digest: Digest) -> Option<Vec<u8>> {
    blobs.read(digest, 0, 1_000_000).await.unwrap()
}

/// An hour ago.
fn before() -> Timestamp {
    SystemClock.now().plus(-chrono::TimeDelta::hours(1))
}

/// Makes a file look as if it had been written long ago.
fn age(path: &Path) {
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_hours(24 * 365 * 50)).unwrap();
}

/// Where a blob is.
fn path(dir: &TempDir, digest: Digest) -> PathBuf {
    let name = digest.to_string();
    dir.path().join("images").join(&name[..2]).join(&name[2..4]).join(&name)
}

fn shelf(digest: Digest) -> u8 {
    digest.as_bytes()[0]
}

/// The names of all files, wherever they are.
fn names(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(names(&entry.path()));
        } else {
            found.push(entry.file_name().into_string().unwrap());
        }
    }
    found
}

#[tokio::test]
async fn what_is_put_is_read_in_parts() {
    let (blobs, dir) = folder();
    assert_eq!(read(&blobs, Digest::of(b"nothing yet")).await, None);
    let content: Vec<u8> = (0..100_000_u32).flat_map(u32::to_be_bytes).collect();
    let digest = put(&blobs, &content).await;
    assert_eq!(read(&blobs, digest).await.as_deref(), Some(&*content));
    let part = async |offset, length| blobs.read(digest, offset, length).await.unwrap().unwrap();
    assert_eq!(part(0, 10).await, content[..10]);
    assert_eq!(part(399_990, 100).await, content[399_990..]);
    assert_eq!(part(400_000, 100).await, b"");
    assert_eq!(part(500_000, 100).await, b"");
    assert_eq!(names(dir.path()), [digest.to_string()], "nothing else is left");
    assert!(path(&dir, digest).is_file(), "in two levels of folders");
}

#[tokio::test]
async fn only_the_owner_of_the_data_can_look_at_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let (blobs, dir) = folder();
    let file = path(&dir, put(&blobs, b"a picture").await);
    for (path, mode) in [(&*file, 0o600), (file.parent().unwrap(), 0o700)] {
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, mode, "{}", path.display());
    }
}

#[tokio::test]
async fn put_leaves_a_blob_that_is_there_save_that_it_counts_as_put_just_now() {
    let (blobs, dir) = folder();
    let digest = put(&blobs, b"a picture").await;
    let file = path(&dir, digest);
    age(&file);
    let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&path.metadata().unwrap());
    let first = inode(&file);
    assert_eq!(blobs.list(shelf(digest), before()).await.unwrap().old, [digest]);
    put(&blobs, b"a picture").await;
    assert_eq!(inode(&file), first);
    assert_eq!(blobs.list(shelf(digest), before()).await.unwrap().old, []);
}

#[tokio::test]
async fn many_put_the_same_blob_at_once() {
    let (blobs, dir) = folder();
    let content = vec![7; 300_000];
    let digests = join_all((0..20).map(|_| put(&blobs, &content))).await;
    assert_eq!(read(&blobs, digests[0]).await, Some(content));
    assert_eq!(names(dir.path()), [digests[0].to_string()]);
}

#[tokio::test]
async fn a_put_that_fails_leaves_nothing_behind() {
    let (blobs, dir) = folder();
    let digest = Digest::of(b"a picture");
    // Something that is no folder is in the way.
    std::fs::write(dir.path().join("images"), b"").unwrap();
    blobs.put(digest, Arc::new(b"a picture".to_vec())).await.unwrap_err();
    assert_eq!(names(dir.path()), ["images"]);
}

#[tokio::test]
async fn list_holds_what_was_last_put_before_and_what_is_aside() {
    let (blobs, dir) = folder();
    let old = put(&blobs, b"old").await;
    age(&path(&dir, old));
    let left = put(&blobs, b"left aside").await;
    age(&path(&dir, left));
    assert!(blobs.set_aside(left, before()).await.unwrap());
    put(&blobs, b"young").await;
    // What a writer left that was killed: the old one is removed, the other may still be written to.
    let parts = [(".0000000000000001.part", true), (".0000000000000002.part", false)];
    for (name, is_old) in parts {
        let part = path(&dir, old).with_file_name(name);
        std::fs::write(&part, b"half").unwrap();
        if is_old {
            age(&part);
        }
    }
    // And what is nobody's business here.
    std::fs::write(path(&dir, old).with_file_name("notes.txt"), b"").unwrap();

    let mut found = Shelf::default();
    for n in 0..=255 {
        let shelf = blobs.list(n, before()).await.unwrap();
        assert!(shelf.old.iter().chain(&shelf.aside).all(|digest| digest.as_bytes()[0] == n));
        found.old.extend(shelf.old);
        found.aside.extend(shelf.aside);
        found.seen += shelf.seen;
    }
    assert_eq!(found, Shelf { old: vec![old], aside: vec![left], seen: 2 });
    let mut names = names(dir.path());
    names.retain(|name| !name.starts_with(|c: char| c.is_ascii_hexdigit()));
    names.sort();
    assert_eq!(names, [".0000000000000002.part", "notes.txt"]);
}

#[tokio::test]
async fn list_removes_nothing_that_no_writer_of_ours_left() {
    let (blobs, dir) = folder();
    let shelf = path(&dir, put(&blobs, b"a picture").await);
    for file in [shelf.with_file_name("download.part"), dir.path().join("images/download.part")] {
        std::fs::write(&file, b"somebody's").unwrap();
        age(&file);
        for n in 0..=255 {
            blobs.list(n, before()).await.unwrap();
        }
        assert!(file.exists(), "{}", file.display());
    }
}

#[tokio::test]
async fn set_aside_hides_a_blob_until_it_is_brought_back() {
    let (blobs, dir) = folder();
    let digest = put(&blobs, b"a picture").await;
    age(&path(&dir, digest));
    assert!(blobs.set_aside(digest, before()).await.unwrap());
    assert_eq!(read(&blobs, digest).await, None);
    assert!(!blobs.set_aside(digest, before()).await.unwrap(), "it is not there any more");
    blobs.bring_back(digest).await.unwrap();
    assert_eq!(read(&blobs, digest).await.as_deref(), Some(&b"a picture"[..]));
    blobs.bring_back(digest).await.unwrap();
}

#[tokio::test]
async fn set_aside_leaves_what_was_put_at_before_or_later() {
    let (blobs, _dir) = folder();
    let digest = put(&blobs, b"a picture").await;
    assert!(!blobs.set_aside(digest, before()).await.unwrap());
    assert!(read(&blobs, digest).await.is_some());
    assert!(!blobs.set_aside(Digest::of(b"unknown"), before()).await.unwrap());
}

#[tokio::test]
async fn a_blob_that_is_put_while_it_is_aside_is_stored_anew() {
    let (blobs, dir) = folder();
    let digest = put(&blobs, b"a picture").await;
    age(&path(&dir, digest));
    assert!(blobs.set_aside(digest, before()).await.unwrap());
    put(&blobs, b"a picture").await;
    assert!(read(&blobs, digest).await.is_some());
    blobs.discard(digest).await.unwrap();
    assert!(read(&blobs, digest).await.is_some(), "what was put anew stays");
    assert_eq!(names(dir.path()), [digest.to_string()]);
    blobs.discard(digest).await.unwrap();
}
