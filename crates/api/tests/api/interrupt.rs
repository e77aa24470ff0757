//! Ctrl-C, and SIGTERM, while a command is at work: it ends at once, with 1 and one line, and leaves nothing by half. A named
//! pipe in place of an image holds each where it reads the images, as a file system on a network does that hangs.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use crate::board::Board;
use crate::image_folder::only_blob;
use crate::images::a_png;
use crate::program::{ends, eventually};
use crate::server::{Options, Server, send};

crate::tests![a_doctor_that_is_interrupted_ends_at_once, a_backup_that_is_interrupted_leaves_nothing];

/// Far less than the pipe would be waited for, far more than the end takes.
const AT_ONCE: Duration = Duration::from_secs(8);

/// A blob that hangs whoever reads it, until it is dropped.
struct Hanging {
    blob: PathBuf,
    was: Vec<u8>,
    /// Open for writing too, so that no reader comes to its end.
    _pipe: File,
}

impl Hanging {
    fn at(blob: PathBuf) -> Self {
        let was = std::fs::read(&blob).unwrap();
        std::fs::remove_file(&blob).unwrap();
        assert!(Command::new("mkfifo").arg(&blob).status().unwrap().success());
        let pipe = OpenOptions::new().read(true).write(true).open(&blob).unwrap();
        Self { blob, was, _pipe: pipe }
    }

    /// Waits until it is being read.
    fn holds(&self, child: &mut Child) {
        let files = PathBuf::from(format!("/proc/{}/fd", child.id()));
        eventually("the image to be read", || {
            assert_eq!(child.try_wait().unwrap(), None);
            let open = std::fs::read_dir(&files).unwrap().flatten();
            open.filter_map(|entry| std::fs::read_link(entry.path()).ok()).any(|file| file == self.blob)
        });
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        std::fs::remove_file(&self.blob).unwrap();
        std::fs::write(&self.blob, &self.was).unwrap();
    }
}

fn with_an_image(board: &Board) -> (Server, PathBuf) {
    let server = board.own(&Options::default());
    let ann = server.new_user();
    let comment = server.comment_at(&ann, &server.ask_at(&ann, "How long?"), "Too long");
    server.image_at(&ann, &comment, &a_png());
    let blob = only_blob(&server.data_dir().join("images"));
    (server, blob)
}

#[track_caller]
fn interrupted(mut child: Child, signal: &str) {
    let start = Instant::now();
    send(&child, signal);
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1), "{signal}: {said}");
    assert!(start.elapsed() < AT_ONCE, "{signal}: {:?}", start.elapsed());
    // Before it, how far it was.
    assert!(said.ends_with("mundap: interrupted\n"), "{signal}: {said}");
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = entries.collect();
    names.sort();
    names
}

fn a_doctor_that_is_interrupted_ends_at_once(board: &Board) {
    let (server, blob) = with_an_image(board);
    let key = server.data_dir().join("signing-key.pem");
    let before = names(blob.parent().unwrap());
    for (signal, repair) in [("INT", &[][..]), ("TERM", &["--repair"])] {
        std::fs::set_permissions(&key, Permissions::from_mode(0o644)).unwrap();
        let hanging = Hanging::at(blob.clone());
        let mut child = server.command(&[&["doctor"], repair].concat()).spawn().unwrap();
        // It is at work: this comes first.
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with("signing key: ") && line.contains("(mended)") != repair.is_empty(), "{line}");
        hanging.holds(&mut child);
        interrupted(child, signal);
        drop(hanging);
        assert_eq!(names(blob.parent().unwrap()), before);
        // What it mended until then stays mended, and it can be run again.
        let ended = ends(&mut server.command(&["doctor"]));
        assert_eq!(ended.code, Some(i32::from(repair.is_empty())), "{ended:?}");
    }
}

fn a_backup_that_is_interrupted_leaves_nothing(board: &Board) {
    let (server, blob) = with_an_image(board);
    let folder = server.dir.path().join("backups");
    std::fs::create_dir(&folder).unwrap();
    let (archive, partial) = (folder.join("board.mundap"), folder.join("board.mundap.partial"));
    for signal in ["INT", "TERM"] {
        let hanging = Hanging::at(blob.clone());
        let mut child = server.command(&["backup", archive.to_str().unwrap()]).spawn().unwrap();
        hanging.holds(&mut child);
        assert!(partial.exists());
        interrupted(child, signal);
        assert_eq!(names(&folder), [""; 0], "{signal}");
        drop(hanging);
    }
    // One that was there is as it was.
    assert_eq!(ends(&mut server.command(&["backup", archive.to_str().unwrap()])).code, Some(0));
    let whole = std::fs::read(&archive).unwrap();
    let hanging = Hanging::at(blob);
    let mut child = server.command(&["backup", "--force", archive.to_str().unwrap()]).spawn().unwrap();
    hanging.holds(&mut child);
    interrupted(child, "INT");
    assert_eq!(names(&folder), ["board.mundap"]);
    assert_eq!(std::fs::read(&archive).unwrap(), whole);
}
