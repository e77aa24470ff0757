//! Archives that no version of this program made, or another one did.

use std::sync::Arc;

use mundap_domain::image::Digest;
use serde_json::{Value, json};

use crate::archive::{on, options, text};
use crate::board::Board;
use crate::program::ends;
use crate::server::{Options, Server, run};

crate::tests![
    ;
    once:
    what_is_no_archive_is_refused,
    an_archive_of_a_newer_version_is_refused,
    an_older_schema_is_restored_and_then_migrated,
];

/// An archive of these members, under its own compression.
fn made_of(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zstd = zstd::Encoder::new(Vec::new(), 1).unwrap();
    zstd.include_checksum(true).unwrap();
    let mut tar = tar::Builder::new(zstd);
    for (name, content) in members {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(if name.ends_with("link") { tar::EntryType::Symlink } else { tar::EntryType::Regular });
        header.set_cksum();
        tar.append(&header, *content).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

fn head(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let table = json!({"name": "users", "columns": [{"name": "user_id", "kind": "integer"}], "key": ["user_id"], "counted": true});
    let mut head = json!({
        "format": 1, "program": "99.1.0", "made_at": "2026-01-02T12:00:00Z", "engine": "SQLite 3",
        "migrations": ["m0001_users"], "tables": [table],
    });
    change(&mut head);
    serde_json::to_vec(&head).unwrap()
}

fn refused(bytes: &[u8]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("strange.mundap");
    std::fs::write(&path, bytes).unwrap();
    let line = ends(&mut on(dir.path(), "sqlite://board.db", &["restore", text(&path)])).refused(1);
    let left: Vec<String> =
        std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(left.iter().all(|name| !name.contains("evil")), "{left:?}");
    line
}

fn what_is_no_archive_is_refused(_: &Board) {
    let good = head(|_| ());
    let bomb = vec![0; 100 << 20];
    let whole = made_of(&[("mundap.json", &good)]);
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    let cases: &[(&str, Vec<u8>)] = &[
        ("is not an archive", Vec::new()),
        ("is not an archive", b"hello".to_vec()),
        ("is not an archive", made_of(&[])),
        ("is not an archive", made_of(&[("etc/passwd", b"x")])),
        ("is not an archive", made_of(&[("mundap.json", b"{}")])),
        (
            "is not an archive",
            made_of(&[("mundap.json", &head(|head| head["tables"][0]["name"] = "users`; DROP".into()))]),
        ),
        ("is not an archive", made_of(&[("mundap.json", &head(|head| head["tables"][0]["key"] = json!([])))])),
        (
            "is not an archive",
            made_of(&[("mundap.json", &head(|head| head["tables"][0]["name"] = "seaql_migrations".into()))]),
        ),
        // As an operator's own archive is after a bad disk, or half a transfer.
        ("is damaged", flipped),
        ("is damaged", whole[..whole.len() - 5].to_vec()),
        ("no plain file", made_of(&[("mundap.json", &good), ("a link", b"")])),
        ("ends too early", made_of(&[("mundap.json", &good)])),
        ("not expected there", made_of(&[("mundap.json", &good), ("../evil", b"x")])),
        ("not expected there", made_of(&[("mundap.json", &good), ("/tmp/evil", b"x")])),
        (
            "\u{fffd}[2Jtwo\u{fffd}lines is not expected",
            made_of(&[("mundap.json", &good), ("\u{1b}[2Jtwo\nlines", b"x")]),
        ),
        ("not expected there", made_of(&[("mundap.json", &good), ("rows/qna/000001.jsonl", b"x")])),
        ("not expected there", made_of(&[("mundap.json", &good), ("rows/users/000002.jsonl", b"x")])),
        ("not an object", made_of(&[("mundap.json", &good), ("rows/users/000001.jsonl", b"x")])),
        (
            "not in order",
            made_of(&[("mundap.json", &good), ("rows/users/000001.jsonl", b"{\"user_id\":2}\n{\"user_id\":1}\n")]),
        ),
        ("not what its name says", made_of(&[("mundap.json", &good), ("images/../../evil", b"x")])),
        ("more than can be", made_of(&[("mundap.json", &good), ("images/bomb", &bomb)])),
        ("more than can be", made_of(&[("mundap.json", &good), ("rows/users/000001.jsonl", &bomb)])),
        ("more than can be", made_of(&[("mundap.json", &good), ("bomb", &bomb)])),
        ("manifest.json is not", made_of(&[("mundap.json", &good), ("manifest.json", b"{}")])),
    ];
    for (expected, bytes) in cases {
        let line = refused(bytes);
        assert!(line.contains(expected), "{expected}: {line}");
    }
}

fn an_archive_of_a_newer_version_is_refused(_: &Board) {
    let of_another_format = |program: &str| {
        made_of(&[("mundap.json", &head(|head| *head = json!({"format": 2, "program": program, "new": true})))])
    };
    let of_a_later_schema =
        made_of(&[("mundap.json", &head(|head| head["migrations"] = json!(["m0001_users", "m0999_later"])))]);
    for newer in [of_another_format("99.1.0"), of_a_later_schema] {
        let line = refused(&newer);
        assert!(line.contains("made by mundap 99.1.0, which is newer"), "{line}");
    }
    let line = refused(&of_another_format("99.1.0\n"));
    assert!(line.contains("made by mundap 99.1.0\u{fffd}, which is newer"), "{line}");
}

/// An archive says itself what its tables are: no version needs to know the schemas before its own.
fn an_older_schema_is_restored_and_then_migrated(board: &Board) {
    let columns = [
        ("user_id", "integer"),
        ("email", "text"),
        ("email_key", "text"),
        ("display_name", "text"),
        ("role", "text"),
        ("password_hash", "text"),
        ("created_at", "time"),
        ("updated_at", "time"),
        ("version", "integer"),
    ];
    let columns: Vec<Value> = columns.iter().map(|(name, kind)| json!({"name": name, "kind": kind})).collect();
    let head = head(|head| head["tables"][0]["columns"] = columns.into());
    let time = "2020-02-29 12:00:00.000001";
    let row = format!(
        "{{\"user_id\":7,\"email\":\"old@example.com\",\"email_key\":\"old@example.com\",\"display_name\":\"Old\",\
         \"role\":\"admin\",\"password_hash\":null,\"created_at\":\"{time}\",\"updated_at\":\"{time}\",\"version\":3}}\n"
    );
    let manifest = json!({
        "tables": [{"table": "users", "rows": 1, "sha256": Digest::of(row.as_bytes()).to_string(), "next_id": 12}],
        "images": {"count": 0, "bytes": 0, "names": Digest::of(b"").to_string()},
        "lost": [], "head": Digest::of(&head).to_string(),
    });
    let manifest = serde_json::to_vec(&manifest).unwrap();
    let archive =
        made_of(&[("mundap.json", &head), ("rows/users/000001.jsonl", row.as_bytes()), ("manifest.json", &manifest)]);
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let path = dir.path().join("old.mundap");
    std::fs::write(&path, archive).unwrap();
    let target = board.database.fresh();
    // Also where the empty database is further already.
    run(&mut on(dir.path(), &target, &["migrate", "up"])).well();
    run(&mut on(dir.path(), &target, &["restore", text(&path)])).well();
    let server = Server::start(&target, &Options { dir: Some(dir), ..options() });
    assert_eq!(server.get("/api/v1/users/7").send().is(200).json()["display_name"], "Old");
    assert_eq!(server.new_user().id, 12);
}
