//! The file of the signing key.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use mundap_domain::env::Timestamp;

use super::{Doctor, DoctorError, FORGOTTEN, Finding};
use crate::keyring::{self, KeyError};

/// Nothing for others, and for the group no more than reading, by which several services may share it.
const FORBIDDEN: u32 = 0o037;

impl Doctor<'_> {
    pub(super) async fn signing_key(&mut self) -> Result<(), DoctorError> {
        let path = self.board.signing_key;
        let shown = path.display();
        match keyring::read(path) {
            Ok((_, mode)) if mode & FORBIDDEN == 0 => {}
            Ok((_, mode)) => {
                let what =
                    format!("others may read or change {shown} (its mode is {:o}, and should be 600)", mode & 0o777);
                let kept = Permissions::from_mode(mode & 0o777 & !FORBIDDEN);
                let mended = self.examination.repair && fs::set_permissions(path, kept).is_ok();
                self.tell(&Finding { mended, ..Finding::new("signing key", what) });
            }
            Err(KeyError::Unreadable(_, error)) if error.kind() == io::ErrorKind::NotFound => {
                // A board that nobody has signed in to gets its key at its first start.
                if self.is_anybody_signed_in().await? {
                    let todo = "bring it back, or the next start makes another one and everybody has to sign in again";
                    self.tell(&Finding::new("signing key", format!("{shown} is missing: {todo}")));
                }
            }
            Err(error) => self.tell(&Finding::new("signing key", error.to_string())),
        }
        for draft in drafts(path, self.examination.now.plus(-FORGOTTEN)) {
            let what = format!("{} was left by a process that was killed while it wrote a key", draft.display());
            let mended = self.examination.repair && fs::remove_file(&draft).is_ok();
            self.tell(&Finding { mended, ..Finding::new("signing key", what) });
        }
        Ok(())
    }

    /// Whether a sign-in is stored; not, where there is no table for it yet.
    async fn is_anybody_signed_in(&self) -> Result<bool, DoctorError> {
        let status = mundap_migration::status(self.store().looking()).await;
        if !status.is_ok_and(|all| all.iter().all(|(_, applied)| *applied)) {
            return Ok(false);
        }
        Ok(!self.ask("SELECT sign_in_id FROM sign_in LIMIT 1".to_owned(), []).await?.is_empty())
    }
}

/// Keys beside the file that never came to its name, or came to it and stayed under this one too. A folder that cannot be
/// read has none: whether the key itself can be read was told.
fn drafts(key: &Path, before: Timestamp) -> Vec<PathBuf> {
    let folder = match key.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let is_old = |path: &PathBuf| {
        let modified = fs::metadata(path).and_then(|metadata| metadata.modified());
        modified.is_ok_and(|modified| Timestamp::new(modified.into()) < before)
    };
    let is_draft = |path: &PathBuf| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(keyring::DRAFT))
    };
    let files = fs::read_dir(folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    files.filter(is_draft).filter(is_old).collect()
}
