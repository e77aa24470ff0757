use std::os::unix::fs::MetadataExt as _;
use std::sync::Barrier;

use mundap_domain::testing::noon;

use super::*;
use crate::key::tests::the_rfc_s_key;

const OVERLAP: TimeDelta = TimeDelta::seconds(30);

fn later(seconds: i64) -> Timestamp {
    noon().plus(TimeDelta::seconds(seconds))
}

fn id(path: &Path) -> String {
    SigningKeys::load_or_create(path).unwrap().states(noon())[0].id.clone()
}

#[test]
fn a_key_is_made_once_and_stays() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/folder/signing-key.pem");
    let made = id(&path);
    assert_eq!(id(&path), made);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no draft is left");
    assert_ne!(id(&folder.path().join("other.pem")), made);
}

#[test]
fn many_that_start_at_once_have_one_key() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("signing-key.pem");
    let start = Barrier::new(20);
    let ids: std::collections::HashSet<String> = std::thread::scope(|scope| {
        let starters: Vec<_> = (0..20)
            .map(|_| {
                scope.spawn(|| {
                    start.wait();
                    id(&path)
                })
            })
            .collect();
        starters.into_iter().map(|starter| starter.join().unwrap()).collect()
    });
    assert_eq!(ids.len(), 1);
}

#[test]
fn a_file_that_is_no_key_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("signing-key.pem");
    let key = the_rfc_s_key().to_pem().unwrap();
    for rubbish in [
        "",
        "swordfish",
        "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        "-----BEGIN PRIVATE KEY-----\n",
        &format!("Signs-From: tomorrow\n{key}"),
        &format!("{key}-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
        &format!("{key}-----BEGIN MUNDAP SECRET-----\nAAAA\n-----END MUNDAP SECRET-----\n"),
        "-----BEGIN MUNDAP SECRET-----\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n-----END MUNDAP SECRET-----\n",
    ] {
        std::fs::write(&path, rubbish).unwrap();
        let refused = SigningKeys::load_or_create(&path).unwrap_err();
        assert!(matches!(refused, KeyError::NotAKey(_)), "{rubbish}: {refused}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), rubbish);
    }
    std::fs::write(&path, b"\xff\xfe").unwrap();
    assert!(matches!(SigningKeys::load_or_create(&path), Err(KeyError::NotAKey(_))));
    let refused = SigningKeys::load_or_create(folder.path()).unwrap_err();
    assert!(matches!(refused, KeyError::Unreadable(..)), "{refused}");
    let refused = SigningKeys::load_or_create(Path::new("/dev/null/key.pem")).unwrap_err();
    assert!(matches!(refused, KeyError::Unreadable(..) | KeyError::Unwritable(..)), "{refused}");
}

/// What another process sees of the file.
fn states(path: &Path, seconds: i64) -> Vec<KeyState> {
    SigningKeys::load_or_create(path).unwrap().states(later(seconds))
}

#[test]
fn a_new_key_takes_over_when_every_node_knows_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("signing-key.pem");
    let keys = SigningKeys::load_or_create(&path).unwrap();
    let old = keys.states(noon())[0].id.clone();
    let rotation = keys.rotate(noon(), Some(OVERLAP)).unwrap();
    assert_eq!((rotation.signs_from, rotation.old_verifies_until), (later(30), Some(later(30 + 600 + 60))));
    let signer = |seconds| states(&path, seconds).into_iter().find(|key| key.signs).unwrap().id;
    assert_eq!((signer(0), signer(29)), (old.clone(), old.clone()));
    assert_eq!((signer(30), signer(1_000_000)), (rotation.new.clone(), rotation.new.clone()));
    let published = |seconds| keys.jwks(later(seconds))["keys"].as_array().unwrap().len();
    assert_eq!((published(0), published(689), published(690)), (2, 2, 1));
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no draft is left");
}

#[test]
fn keys_that_are_long_over_leave_the_file_and_those_that_verify_stay() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("signing-key.pem");
    let keys = SigningKeys::load_or_create(&path).unwrap();
    let first = states(&path, 0)[0].id.clone();
    let second = keys.rotate(later(0), Some(OVERLAP)).unwrap().new;
    let third = keys.rotate(later(10), Some(OVERLAP)).unwrap().new;
    let ids = || states(&path, 0).into_iter().map(|key| key.id).collect::<Vec<_>>();
    assert_eq!(ids(), [third.clone(), second.clone(), first]);
    let fourth = keys.rotate(later(690 + 3_600), Some(OVERLAP)).unwrap().new;
    assert_eq!(ids(), [fourth.clone(), third, second]);
    let fifth = keys.rotate(later(1_000_000), Some(OVERLAP)).unwrap().new;
    assert_eq!(ids(), [fifth, fourth], "the one that signed until a moment ago stays");
}

#[test]
fn a_key_that_got_out_is_gone_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("signing-key.pem");
    let keys = SigningKeys::load_or_create(&path).unwrap();
    keys.rotate(noon(), Some(OVERLAP)).unwrap();
    let rotation = keys.rotate(noon(), None).unwrap();
    let left = states(&path, 0);
    assert_eq!(left.len(), 1);
    assert_eq!((&left[0].id, left[0].signs, rotation.old_verifies_until), (&rotation.new, true, None));
}

#[test]
fn derived_secrets_differ_by_label_and_outlive_the_keys() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("signing-key.pem");
    let keys = SigningKeys::load_or_create(&path).unwrap();
    let secrets = || ["cursor", "mail"].map(|label| SigningKeys::load_or_create(&path).unwrap().derive(label));
    let before = secrets();
    assert_ne!(before[0], before[1]);
    let other = SigningKeys::load_or_create(&folder.path().join("other.pem")).unwrap();
    assert_ne!(other.derive("cursor"), before[0]);
    for after in [Some(OVERLAP), Some(OVERLAP), None, Some(OVERLAP)] {
        keys.rotate(noon(), after).unwrap();
        assert_eq!(secrets(), before);
        assert_eq!(["cursor", "mail"].map(|label| keys.derive(label)), before);
    }
}

#[test]
fn a_file_that_broke_leaves_the_keys_as_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("signing-key.pem");
    let keys = SigningKeys::load_or_create(&path).unwrap();
    let before = keys.states(noon());
    assert!(!keys.reload().unwrap());
    std::fs::write(&path, "swordfish").unwrap();
    assert!(keys.reload().is_err() && keys.rotate(noon(), None).is_err());
    assert_eq!(keys.states(noon()), before);
    std::fs::remove_file(&path).unwrap();
    assert!(keys.reload().is_err());
    assert_eq!(keys.states(noon()), before);
    std::fs::write(&path, the_rfc_s_key().to_pem().unwrap()).unwrap();
    assert!(keys.reload().unwrap());
    assert_eq!(keys.states(noon())[0].id, the_rfc_s_key().id());
}

#[test]
fn a_linked_file_is_replaced_where_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let (real, link) = (folder.path().join("real.pem"), folder.path().join("link.pem"));
    SigningKeys::load_or_create(&real).unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    let new = SigningKeys::load_or_create(&link).unwrap().rotate(noon(), None).unwrap().new;
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(states(&real, 0)[0].id, new);
}

#[test]
fn a_rotation_that_could_not_be_read_back_leaves_the_file_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("signing-key.pem");
    let keys = SigningKeys::load_or_create(&path).unwrap();
    let (text, before) = (std::fs::read_to_string(&path).unwrap(), keys.states(noon()));
    for days in [8_000 * 366, 100_000_000] {
        assert!(keys.rotate(noon(), Some(TimeDelta::days(days))).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        assert_eq!(keys.states(noon()), before);
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no draft is left");
}

/// The service that reads it is seldom who rotates it: that one may be root, or in its group.
#[test]
fn a_rotated_file_is_whose_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("signing-key.pem");
    let keys = SigningKeys::load_or_create(&path).unwrap();
    let about = || {
        let metadata = std::fs::metadata(&path).unwrap();
        (metadata.uid(), metadata.gid(), metadata.mode() & 0o777)
    };
    // Whoever is not root may not give it away.
    let _ = std::os::unix::fs::chown(&path, Some(1234), Some(4321));
    for (mode, kept) in [(0o640, 0o640), (0o600, 0o600), (0o400, 0o600), (0o664, 0o640)] {
        std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let (uid, gid, _) = about();
        keys.rotate(noon(), Some(OVERLAP)).unwrap();
        assert_eq!(about(), (uid, gid, kept), "{mode:o}");
    }
}
