//! Whether the nodes on one database share the folder of images, and what an operator sees where they do not.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::board::{Board, User};
use crate::images::a_png;
use crate::program::ends;
use crate::server::{Options, Server, mundap};

crate::tests![
    nodes_with_one_folder_are_well,
    a_node_with_another_folder_says_so_and_goes_on,
    a_folder_that_is_not_mounted_is_told_and_found_again,
    a_board_of_before_has_its_folder_at_the_next_start,
    a_restored_board_has_its_images_where_they_were_restored,
    a_copied_board_has_its_images_where_it_is_started,
    nothing_is_imported_beside_another_folder,
    a_database_that_is_not_the_folder_s_takes_nothing_away,
];

impl Server {
    /// What an operator sees of the folder: in `/readyz`, which stays at 200, and as a figure.
    fn images_are(&self, state: &str) {
        let (status, ready) = self.readiness();
        assert_eq!((status, &ready["images"], &ready["status"]), (200, &state.into(), &"ready".into()), "{ready}");
        let shared = if state == "ok" { 1.0 } else { 0.0 };
        assert!((self.metrics()["mundap_image_folder_shared"] - shared).abs() < f64::EPSILON, "{state}");
    }

    fn folder(&self) -> PathBuf {
        self.data_dir().join("images")
    }

    /// What `mundap check` and `mundap doctor --quick` end with, and both say.
    fn is_told(&self, expected: Option<&str>) {
        for command in [&["check"][..], &["doctor", "--quick"]] {
            let ended = ends(&mut self.command(command));
            assert_eq!(ended.code, Some(i32::from(expected.is_some())), "{ended:?}");
            let said = ended.out + &ended.err;
            let place = self.folder().display().to_string();
            assert_eq!(said.contains(&place), expected.is_some(), "{said}");
            assert!(said.contains(expected.unwrap_or_default()), "{said}");
        }
    }

    /// Ends it, and starts another one on the same database and folder.
    fn again(self) -> Self {
        self.signal("TERM");
        self.end();
        Self::start(&self.database_url, &Options { dir: Some(self.dir.clone()), ..options() })
    }
}

/// Tokens of one node are tokens of all: they have one key, and one name.
fn options() -> Options {
    Options::env("MUNDAP_PUBLIC_URL", "https://board.example.com")
}

/// A second node on the database of the first, with the same signing key and a folder of its own.
fn beside(first: &Server) -> Server {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    std::fs::create_dir(dir.path().join("data")).unwrap();
    std::fs::copy(first.data_dir().join("signing-key.pem"), dir.path().join("data/signing-key.pem")).unwrap();
    Server::start(&first.database_url, &Options { dir: Some(dir), ..options() })
}

/// The blobs below a folder of images, without the file that tells it from others.
pub(crate) fn blobs(folder: &Path) -> Vec<PathBuf> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() { walk(&path, found) } else { found.push(path) }
        }
    }
    let mut found = Vec::new();
    walk(folder, &mut found);
    found.retain(|file| *file != folder.join("folder-id"));
    found
}

/// The only one of them.
pub(crate) fn only_blob(folder: &Path) -> PathBuf {
    let found = blobs(folder);
    assert_eq!(found.len(), 1, "{found:?}");
    found.into_iter().next().unwrap()
}

fn with_an_image(server: &Server) -> (User, String) {
    let ann = server.new_user();
    let comment = server.comment_at(&ann, &server.ask_at(&ann, "Where are they?"), "Here");
    let image = server.image_at(&ann, &comment, &a_png());
    (ann, image)
}

fn an_error(server: &Server) -> Value {
    server.log.wait_for("an error about images", |line| {
        line["level"] == "ERROR" && line.to_string().contains("images are missing on this node")
    })
}

/// What a sweep would take if no image showed it.
fn grow_old(folder: &Path) {
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_hours(24 * 365 * 50);
    for file in blobs(folder) {
        std::fs::File::options().write(true).open(file).unwrap().set_modified(long_ago).unwrap();
    }
}

const TAKEN: &str = "holds images that this database does not name";
const ELSEWHERE: &str = "is another folder than the one that holds this database's images";
const UNMARKED: &str = "has no folder-id";

fn nodes_with_one_folder_are_well(board: &Board) {
    let first = Server::start(&board.database.fresh(), &options());
    let second = Server::start(&first.database_url, &Options { dir: Some(first.dir.clone()), ..options() });
    let (_, image) = with_an_image(&first);
    second.get(&image).send().is(200);
    first.images_are("ok");
    second.images_are("ok");
    second.is_told(None);
    let id = std::fs::read_to_string(first.folder().join("folder-id")).unwrap();
    assert_eq!(id.trim().len(), 32, "{id}");
    let second = second.again();
    second.images_are("ok");
    assert_eq!(std::fs::read_to_string(first.folder().join("folder-id")).unwrap(), id, "once and for all");
}

fn a_node_with_another_folder_says_so_and_goes_on(board: &Board) {
    let first = Server::start(&board.database.fresh(), &options());
    let (ann, _) = with_an_image(&first);
    let second = beside(&first);
    second.images_are("unmarked_folder");
    second.is_told(Some(UNMARKED));
    an_error(&second);
    // It makes no folder of its own out of what may be an empty mount point.
    assert!(!second.folder().join("folder-id").exists());
    // One that was another board's.
    let other = Server::start(&board.database.fresh(), &options());
    std::fs::create_dir_all(second.folder()).unwrap();
    std::fs::copy(other.folder().join("folder-id"), second.folder().join("folder-id")).unwrap();
    let second = second.again();
    second.images_are("other_folder");
    second.is_told(Some(ELSEWHERE));
    an_error(&second);
    second.ask_at(&ann, "Is anybody there?");
    // Nothing that an image needs is taken for mended.
    let ended = ends(&mut second.command(&["doctor", "--repair"]));
    assert_eq!(ended.code, Some(1), "{ended:?}");
    second.images_are("other_folder");
    first.images_are("ok");
    first.again().images_are("ok");
}

fn a_folder_that_is_not_mounted_is_told_and_found_again(board: &Board) {
    let server = Server::start(&board.database.fresh(), &options());
    let (_, image) = with_an_image(&server);
    let away = server.dir.path().join("away");
    std::fs::rename(server.folder(), &away).unwrap();
    let server = server.again();
    server.images_are("unmarked_folder");
    std::fs::rename(&away, server.folder()).unwrap();
    let server = server.again();
    server.images_are("ok");
    // Where the files came back from a backup of files, and the id did not, the operator says that it is the one.
    std::fs::remove_file(server.folder().join("folder-id")).unwrap();
    let server = server.again();
    server.images_are("unmarked_folder");
    let ended = ends(&mut server.command(&["doctor", "--repair"]));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.out.contains(UNMARKED) && ended.out.contains("(mended)"), "{ended:?}");
    let server = server.again();
    server.images_are("ok");
    server.get(&image).send().is(200);
}

fn a_board_of_before_has_its_folder_at_the_next_start(board: &Board) {
    let server = Server::start(&board.database.fresh(), &options());
    let (_, image) = with_an_image(&server);
    // As the version before left it.
    crate::database::execute(&server.database_url, "DELETE FROM image_folder");
    std::fs::remove_file(server.folder().join("folder-id")).unwrap();
    server.is_told(None);
    let server = server.again();
    server.images_are("ok");
    server.get(&image).send().is(200);
    beside(&server).images_are("unmarked_folder");
}

fn a_restored_board_has_its_images_where_they_were_restored(board: &Board) {
    let old = Server::start(&board.database.fresh(), &options());
    let (_, image) = with_an_image(&old);
    let archive = old.dir.path().join("board.mundap");
    let archive = archive.to_str().unwrap();
    assert_eq!(ends(&mut old.command(&["backup", archive])).code, Some(0));
    // Into a database that is new, and into one that somebody has started with another folder.
    for tried in [false, true] {
        let url = board.database.fresh();
        if tried {
            Server::start(&url, &options()).images_are("ok");
        }
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let mut restore = mundap(dir.path());
        restore.envs(crate::server::PATIENT).env("MUNDAP_DATABASE_URL", &url);
        let ended = ends(restore.args(["--data-dir", "data", "restore", archive]));
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let new = Server::start(&url, &Options { dir: Some(dir), ..options() });
        new.images_are("ok");
        new.is_told(None);
        new.get(&image).send().is(200);
    }
    old.images_are("ok");
}

fn a_copied_board_has_its_images_where_it_is_started(board: &Board) {
    let old = Server::start(&board.database.fresh(), &options());
    let (_, image) = with_an_image(&old);
    let url = board.database.fresh();
    // Somebody has tried out whether it would start.
    Server::start(&url, &options()).images_are("ok");
    let ended = ends(&mut old.command(&["copy", "--from", &old.database_url, "--to", &url]));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let new = Server::start(&url, &Options { dir: Some(old.dir.clone()), ..options() });
    new.images_are("ok");
    new.get(&image).send().is(200);
    old.images_are("ok");
}

fn nothing_is_imported_beside_another_folder(board: &Board) {
    let first = Server::start(&board.database.fresh(), &options());
    let second = beside(&first);
    for old in crate::import::an_old_board() {
        for more in [&[][..], &["--dry-run"]] {
            let ended = ends(&mut second.command(&[&["import-fastapi", old.url()], more].concat()));
            assert_eq!(ended.code, Some(1), "{ended:?}");
            assert!(
                ended.err.starts_with("mundap: nothing was imported: ") && ended.err.contains(UNMARKED),
                "{ended:?}"
            );
            assert_eq!(ends(&mut first.command(&[&["import-fastapi", old.url()], more].concat())).code, Some(0));
        }
    }
}

fn a_database_that_is_not_the_folder_s_takes_nothing_away(board: &Board) {
    let first = Server::start(&board.database.fresh(), &options());
    let (_, image) = with_an_image(&first);
    let blob = only_blob(&first.folder());
    grow_old(&first.folder());
    let env = vec![
        ("MUNDAP_LOG", "info,mundap_api=debug".to_owned()),
        ("MUNDAP_PUBLIC_URL", "https://board.example.com".to_owned()),
    ];
    let swept = |server: &Server| {
        server.log.wait_for("the sweep's", |line| line.to_string().contains("took away the bytes of 0 images"));
        assert_eq!(only_blob(&server.folder()), blob);
    };
    // A new database, as where somebody forgot to name the board's; and one whose images are in another folder.
    let other = Server::start(&board.database.fresh(), &options());
    for (url, told) in [(&board.database.fresh(), TAKEN), (&other.database_url, ELSEWHERE)] {
        let second = Server::start(url, &Options { dir: Some(first.dir.clone()), env: env.clone() });
        second.images_are("other_folder");
        second.is_told(Some(told));
        swept(&second);
        // The empty database proves nothing of a folder that holds images.
        let ended = ends(&mut second.command(&["doctor", "--repair"]));
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert_eq!(only_blob(&second.folder()), blob);
    }
    let first = first.again();
    first.images_are("ok");
    first.get(&image).send().is(200);
}
