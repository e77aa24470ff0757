//! Images: each is decoded and cleaned as an upload is, and a unit of work by itself.

use std::path::{Component, Path, PathBuf};

use mundap_domain::comment::CommentId;
use mundap_domain::image::{BlobError, Digest, Image, NewImage, Picture, Upload};
use mundap_domain::user::UserId;
use mundap_domain::{Error, StoreError};

use super::source::{FastApi, OldImage};
use super::target::Kept;
use super::{Change, ImportError, Pass, Passed, Reason, Sorted, Unit, nothing_taken, retried};

impl Pass<'_> {
    pub(super) async fn images(&mut self, source: &mut FastApi, start: i64) -> Result<(), ImportError> {
        let mut rows = source.images();
        let (mut mark, mut taken) = (start, Vec::new());
        while let Some(old) = rows.next().await? {
            let passed = Passed::over(mark, [old.id]);
            let batch = std::slice::from_ref(&old);
            // Asked before the work: a picture that is here costs no decoding.
            let unit = self.store.unit().await?;
            let is_new = !self.sort(&unit, Kept::Image, start, batch, |row| (row.id, None)).await?.new.is_empty();
            drop(unit);
            let picture = if is_new { Some(self.picture(&old).await?) } else { None };
            if let Some(Ok(Some(picture))) = &picture {
                let digest = Digest::of(&picture.content);
                self.plan.blobs.put(digest, picture.content.clone()).await.map_err(stopped)?;
            }
            let this = &*self;
            let done = retried(async || {
                let unit = this.store.unit().await?;
                let Sorted { new, mut done } =
                    this.sort(&unit, Kept::Image, start, batch, |row| (row.id, None)).await?;
                if let Some((_, before)) = new.first() {
                    let mut changes = Vec::new();
                    match this.attach(&unit, &old, picture.as_ref(), &mut changes).await? {
                        Ok(()) => {
                            done.report.imported = 1;
                            done.report.change(&old.id, &changes);
                            done.brought(old.id, *before);
                        }
                        Err(reason) => done.leave(old.id, *before, reason),
                    }
                }
                this.keep(unit, Kept::Image, &passed, &done).await?;
                Ok(done)
            })
            .await?;
            self.nobody_met(Kept::Image, &done)?;
            mark = passed.to;
            taken.extend(done.taken);
            self.report.image.add(done.report);
        }
        nothing_taken(Kept::Image, taken)
    }

    async fn attach(
        &self,
        unit: &Unit,
        old: &OldImage,
        picture: Option<&Result<Option<Picture>, Reason>>,
        changes: &mut Vec<Change>,
    ) -> Result<Result<(), Reason>, StoreError> {
        let picture = match picture {
            Some(Ok(picture)) => picture.as_ref(),
            Some(Err(reason)) => return Ok(Err(*reason)),
            None => None,
        };
        let is_another = !unit.not_brought(Kept::Comment, &[old.comment]).await?.is_empty();
        let commented = if is_another { None } else { unit.commented(old.comment).await? };
        let Some((owner, images, commented_at)) = commented else {
            let comes = old.has_comment && self.comes(Kept::Comment, old.comment);
            return Ok(if comes { Ok(()) } else { Err(Reason::NoComment) });
        };
        if usize::try_from(images).unwrap_or_default() >= Image::MAX_PER_COMMENT {
            return Ok(Err(Reason::CommentFull));
        }
        let created_at = match old.created_at.text {
            Some(_) => self.time(&old.created_at, changes),
            // Most such tables have no time.
            None => commented_at,
        };
        if let Some(picture) = picture {
            let image = NewImage {
                comment: CommentId::new(old.comment),
                owner: UserId::new(owner),
                media_type: picture.media_type,
                bytes: u32::try_from(picture.content.len()).unwrap_or(u32::MAX),
                width: picture.width,
                height: picture.height,
                digest: Digest::of(&picture.content),
                created_at,
            };
            unit.insert_image(old.id, &image).await?;
        }
        Ok(Ok(()))
    }

    /// The picture that is made of an old image; none while only looking, which decodes nothing.
    async fn picture(&self, old: &OldImage) -> Result<Result<Option<Picture>, Reason>, ImportError> {
        let bytes = match (&old.bytes, &old.path) {
            (Some(bytes), _) if !bytes.is_empty() => bytes.clone(),
            (_, Some(path)) if !path.trim().is_empty() => {
                let Some(folder) = self.plan.images.clone() else { return Ok(Err(Reason::NoFolder)) };
                let path = path.clone();
                let found = tokio::task::spawn_blocking(move || read_below(&folder, &path)).await;
                match found.map_err(Error::internal).map_err(ImportError::Stopped)? {
                    Some(bytes) => bytes,
                    None => return Ok(Err(Reason::NoFile)),
                }
            }
            _ => return Ok(Err(Reason::NeitherBytesNorPath)),
        };
        let cleaned = match Upload::parse(bytes) {
            Ok(_) if !self.writes => return Ok(Ok(None)),
            Ok(upload) => self.plan.cleaner.clean(upload).await,
            Err(error) => Err(error),
        };
        match cleaned {
            Ok(picture) => Ok(Ok(Some(picture))),
            Err(Error::Image(refusal)) => Ok(Err(Reason::Image(refusal.code()))),
            Err(other) => Err(ImportError::Stopped(other)),
        }
    }
}

fn stopped(error: BlobError) -> ImportError {
    ImportError::Stopped(error.into())
}

/// The file in `folder` that an old path or URL names: what was `static/images/a.png` for the program, or
/// `http://host/static/images/a.png` for its clients, may be `images/a.png` or `a.png` there. The longest such path is
/// taken; none leads out of the folder.
fn read_below(folder: &Path, path: &str) -> Option<Vec<u8>> {
    let path = path.trim().replace('\\', "/");
    let path = match path.split_once("://") {
        Some((_, rest)) => rest.split_once('/').map_or("", |(_, path)| path),
        None => &path,
    };
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let parts: Vec<Component<'_>> = Path::new(path).components().collect();
    (0..parts.len()).find_map(|from| {
        let below = &parts[from..];
        let plain = below.iter().all(|part| matches!(part, Component::Normal(_)));
        let file = folder.join(below.iter().collect::<PathBuf>());
        // One byte more than is allowed: enough to be refused.
        let limit = Upload::MAX_BYTES as u64 + 1;
        if !plain || !file.is_file() {
            return None;
        }
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut std::io::Read::take(std::fs::File::open(file).ok()?, limit), &mut bytes)
            .ok()?;
        Some(bytes)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_path_is_found_below_the_folder_and_nowhere_else() {
        let top = tempfile::tempdir().unwrap();
        let folder = top.path().join("images");
        std::fs::create_dir_all(folder.join("images")).unwrap();
        std::fs::write(top.path().join("secret.png"), "secret").unwrap();
        std::fs::write(folder.join("a.png"), "short").unwrap();
        std::fs::write(folder.join("images/a.png"), "long").unwrap();
        for (path, expected) in [
            ("a.png", Some("short")),
            ("images/a.png", Some("long")),
            ("/static/images/a.png", Some("long")),
            ("http://host:8000/static/images/a.png?v=1", Some("long")),
            ("uploads\\a.png", Some("short")),
            ("../secret.png", None),
            ("images/../../secret.png", None),
            ("b.png", None),
            ("http://host", None),
            ("/", None),
        ] {
            let found = read_below(&folder, path).map(|bytes| String::from_utf8(bytes).unwrap());
            assert_eq!(found.as_deref(), expected, "{path}");
        }
    }
}
