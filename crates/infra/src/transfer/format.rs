//! The archive: a tar in zstd, so that `tar --zstd -tf FILE` shows what is in it.
//!
//! | member | holds |
//! | --- | --- |
//! | `mundap.json` | [`Head`]: the format, who made it and when, the schema's migrations, and every table's description |
//! | `images/5c/1f/5c1f…` | an image's bytes, named by their SHA-256 |
//! | `rows/qna/000001.jsonl` | some rows of a table, one a line; all parts of a table joined have the checksum that the manifest names |
//! | `manifest.json` | [`Manifest`]: what there must be, with checksums; the last one, so an archive without it was cut off |
//!
//! It is a stranger's file when it is read: names of members are never used as paths, sizes are bounded, and nothing in it
//! is believed before the whole of it was checked once.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek as _, Write};
use std::path::{Path, PathBuf};

use mundap_domain::image::{Digest, Picture};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tar::{Archive, Builder, EntryType, Header};
use zstd::zstd_safe::MAGICNUMBER;
use zstd::{Decoder, Encoder};

use super::rows::Sum;
use super::table::{Row, Table};
use super::{TableSum, TransferError};

/// The newest format that this program writes and reads.
pub(crate) const FORMAT: u32 = 1;

/// From how many bytes on a part of a table is full.
pub(crate) const PART: usize = 4 << 20;

/// The most bytes of a member: a part ends with a whole row, and the longest row is some hundred kilobytes.
const MAX_PART: u64 = 16 << 20;
/// Of the two JSON documents. A manifest lists lost images, 70 bytes each.
const MAX_JSON: u64 = 64 << 20;

const HEAD: &str = "mundap.json";
const MANIFEST: &str = "manifest.json";

/// How hard it is compressed: images hardly are, text is to a third.
const LEVEL: i32 = 3;

/// What an archive begins with.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Head {
    pub(crate) format: u32,
    /// The version of mundap that made it.
    pub(crate) program: String,
    /// RFC 3339.
    pub(crate) made_at: String,
    /// Such as `MariaDB 10.11.14`.
    pub(crate) engine: String,
    /// The schema that the rows are of, oldest first.
    pub(crate) migrations: Vec<String>,
    pub(crate) tables: Vec<Table>,
}

/// What an archive ends with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    /// In the order of the head's tables.
    pub(crate) tables: Vec<Listed>,
    pub(crate) images: ImageSum,
    /// Images that a row names and whose bytes were not there.
    pub(crate) lost: Vec<String>,
    /// SHA-256 of `mundap.json`.
    pub(crate) head: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Listed {
    #[serde(flatten)]
    pub(crate) sum: TableSum,
    /// The id that the next row gets, where the database counts.
    pub(crate) next_id: Option<i64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ImageSum {
    pub(crate) count: u64,
    pub(crate) bytes: u64,
    /// SHA-256 of their names in the archive's order, a line each.
    pub(crate) names: String,
}

/// Counts images and sums their names up.
#[derive(Default)]
pub(crate) struct Images {
    sum: ImageSum,
    names: Sha256,
}

impl Images {
    pub(crate) fn add(&mut self, digest: Digest, content: &[u8]) {
        self.sum.count += 1;
        self.sum.bytes += content.len() as u64;
        self.names.update(format!("{digest}\n"));
    }

    pub(crate) fn finish(self) -> ImageSum {
        ImageSum { names: Digest::new(self.names.finalize().into()).to_string(), ..self.sum }
    }
}

/// A member's name and content.
pub(crate) type Member = (String, Vec<u8>);

pub(crate) fn head_member(head: &Head) -> io::Result<Member> {
    Ok((HEAD.to_owned(), serde_json::to_vec_pretty(head)?))
}

pub(crate) fn manifest_member(manifest: &Manifest) -> io::Result<Member> {
    Ok((MANIFEST.to_owned(), serde_json::to_vec_pretty(manifest)?))
}

pub(crate) fn rows_member(table: &Table, part: u32, lines: String) -> Member {
    (format!("rows/{}/{part:06}.jsonl", table.name), lines.into_bytes())
}

pub(crate) fn image_member(digest: Digest, content: Vec<u8>) -> Member {
    let [first, second, ..] = *digest.as_bytes();
    (format!("images/{first:02x}/{second:02x}/{digest}"), content)
}

/// Writes an archive, member by member.
pub(crate) struct Writer<W: Write> {
    tar: Builder<Encoder<'static, W>>,
    /// Seconds since 1970, of every member.
    made_at: u64,
}

impl<W: Write> Writer<W> {
    pub(crate) fn new(out: W, made_at: u64) -> io::Result<Self> {
        let mut zstd = Encoder::new(out, LEVEL)?;
        zstd.include_checksum(true)?;
        Ok(Self { tar: Builder::new(zstd), made_at })
    }

    pub(crate) fn add(&mut self, (name, content): &Member) -> io::Result<()> {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Regular);
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(self.made_at);
        self.tar.append_data(&mut header, name, content.as_slice())
    }

    pub(crate) fn finish(self) -> io::Result<W> {
        self.tar.into_inner()?.finish()
    }
}

/// What an archive is made of, in this order: one head, images and rows, one end.
pub(crate) enum Piece {
    Head(Head),
    Image(Digest, Vec<u8>),
    /// Rows of the table with this index in the head.
    Rows(usize, Vec<Row>),
    /// The whole archive is as its manifest says.
    End(Manifest),
}

/// Reads an archive from its beginning to its end and checks all of it. `take` says whether to go on.
pub(crate) fn read(path: &Path, take: &mut dyn FnMut(Piece) -> bool) -> Result<(), TransferError> {
    let file = File::open(path).map_err(|error| TransferError::Read(path.to_owned(), error))?;
    let zstd = Decoder::new(file).map_err(|error| TransferError::Read(path.to_owned(), error))?;
    let mut tar = Archive::new(BufReader::with_capacity(1 << 17, zstd));
    let mut reading = Reading { path, head: None, images: Images::default(), tables: Vec::new(), part: 0 };
    let mut end = None;
    // Raw: what extends a member's name or size is read into memory by the library, whatever it says its length is.
    for entry in tar.entries().map_err(|error| reading.broken(&error))?.raw(true) {
        let mut entry = entry.map_err(|error| reading.broken(&error))?;
        let name = entry.path_bytes().into_owned();
        let Some(name) = String::from_utf8(name).ok().filter(|_| entry.header().entry_type() == EntryType::Regular)
        else {
            return Err(reading.foreign("there is something in it that is no plain file"));
        };
        if end.is_some() {
            return Err(reading.damaged(format!("{name} comes behind the end")));
        }
        let most = if name.starts_with("images/") {
            Picture::MAX_BYTES as u64
        } else if name.starts_with("rows/") {
            MAX_PART
        } else {
            MAX_JSON
        };
        let size = entry.size();
        if size > most {
            return Err(reading.damaged(format!("{name} has {size} bytes, more than can be")));
        }
        let mut content = Vec::with_capacity(usize::try_from(size).unwrap_or_default().min(1 << 20));
        entry.read_to_end(&mut content).map_err(|error| reading.broken(&error))?;
        if content.len() as u64 != size {
            return Err(reading.damaged("it ends too early".to_owned()));
        }
        match reading.member(&name, content)? {
            Piece::End(manifest) => end = Some(manifest),
            piece => {
                if !take(piece) {
                    return Ok(());
                }
            }
        }
    }
    // To the very end: the checksum of the whole stream stands there.
    let mut rest = tar.into_inner();
    let mut buffer = [0; 4096];
    loop {
        match rest.read(&mut buffer).map_err(|error| reading.broken(&error))? {
            0 => break,
            read if buffer[..read].iter().all(|byte| *byte == 0) => {}
            _ => return Err(reading.damaged("something comes behind the end".to_owned())),
        }
    }
    let Some(end) = end else { return Err(reading.broken(&io::ErrorKind::UnexpectedEof.into())) };
    take(Piece::End(end));
    Ok(())
}

/// Why what is compressed as an archive is cannot be unpacked any more: a small one is a single block, and damaged from its beginning.
fn damage(path: &Path) -> io::Result<Option<io::Error>> {
    let mut file = File::open(path)?;
    let mut magic = [0; 4];
    file.read_exact(&mut magic)?;
    if u32::from_le_bytes(magic) != MAGICNUMBER {
        return Ok(None);
    }
    file.rewind()?;
    Ok(io::copy(&mut Decoder::new(file)?, &mut io::sink()).err())
}

struct Reading<'a> {
    path: &'a Path,
    /// With its checksum.
    head: Option<(Head, String)>,
    images: Images,
    /// Of the tables that began, the last of which may go on.
    tables: Vec<(Sum, Option<Row>)>,
    /// Of the last table.
    part: u32,
}

impl Reading<'_> {
    fn path(&self) -> PathBuf {
        self.path.to_owned()
    }

    /// Not an archive of ours; or none any more, where it cannot even be unpacked.
    fn foreign(&self, reason: &'static str) -> TransferError {
        match damage(self.path) {
            Ok(Some(error)) => self.damaged(error.to_string()),
            _ => TransferError::Foreign(self.path(), reason),
        }
    }

    fn damaged(&self, reason: String) -> TransferError {
        TransferError::Damaged(self.path(), reason)
    }

    /// What the decompressor or the tar reader could not read.
    fn broken(&self, error: &io::Error) -> TransferError {
        match (&self.head, error.kind()) {
            // The operating system's.
            _ if error.raw_os_error().is_some() => {
                TransferError::Read(self.path(), io::Error::new(error.kind(), error.to_string()))
            }
            (None, _) => self.foreign("it does not begin as one"),
            (Some(_), io::ErrorKind::UnexpectedEof) => self.damaged("it ends too early".to_owned()),
            (Some(_), _) => self.damaged(error.to_string()),
        }
    }

    fn member(&mut self, name: &str, content: Vec<u8>) -> Result<Piece, TransferError> {
        let Some((head, _)) = &self.head else {
            if name != HEAD {
                return Err(self.foreign("it does not begin as one"));
            }
            let head = self.read_head(&content)?;
            self.head = Some((head.clone(), Digest::of(&content).to_string()));
            return Ok(Piece::Head(head));
        };
        if name == MANIFEST {
            return self.end(&content).map(Piece::End);
        }
        if name.starts_with("images/") {
            let named = name.rsplit('/').next().and_then(Digest::parse);
            let found = Digest::of(&content);
            if named != Some(found) {
                return Err(self.damaged(format!("{name} is not what its name says")));
            }
            self.images.add(found, &content);
            return Ok(Piece::Image(found, content));
        }
        // The table that goes on, or the one behind it.
        let going_on = self.tables.len().checked_sub(1);
        let is =
            |at: usize, part: u32| head.tables.get(at).is_some_and(|table| part_of(name) == Some((&table.name, part)));
        let at = match going_on {
            Some(at) if is(at, self.part + 1) => {
                self.part += 1;
                at
            }
            _ => {
                let begun = (self.tables.len()..head.tables.len()).find(|at| is(*at, 1));
                let Some(at) = begun else { return Err(self.damaged(format!("{name} is not expected there"))) };
                self.part = 1;
                self.tables.resize_with(at + 1, Default::default);
                at
            }
        };
        self.rows(at, name, &content)
    }

    fn rows(&mut self, at: usize, name: &str, content: &[u8]) -> Result<Piece, TransferError> {
        let damaged = |reason: String| TransferError::Damaged(self.path.to_owned(), format!("{name}: {reason}"));
        let (Some((head, _)), Some((sum, last))) = (&self.head, self.tables.get_mut(at)) else {
            return Err(damaged("it has no table".to_owned()));
        };
        let table = &head.tables[at];
        let text = std::str::from_utf8(content).map_err(|_| damaged("no text".to_owned()))?;
        let mut rows = Vec::new();
        for line in text.split_inclusive('\n') {
            let row = table.read(line.trim_end_matches('\n')).map_err(damaged)?;
            let key = table.key_of(&row);
            if last.as_ref().is_some_and(|last| *last >= key) {
                return Err(damaged("the rows are not in order".to_owned()));
            }
            *last = Some(key);
            sum.add(line);
            rows.push(row);
        }
        Ok(Piece::Rows(at, rows))
    }

    fn read_head(&self, content: &[u8]) -> Result<Head, TransferError> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
            program: String,
        }
        // First what every format has: a newer one may look otherwise.
        let Ok(Format { format, program }) = serde_json::from_slice(content) else {
            return Err(self.foreign("mundap.json is not what it should be"));
        };
        if format > FORMAT {
            return Err(TransferError::Newer { path: self.path(), made_by: program });
        }
        match serde_json::from_slice::<Head>(content) {
            Ok(head) if head.tables.iter().all(Table::is_sane) => Ok(head),
            _ => Err(self.foreign("mundap.json is not what it should be")),
        }
    }

    /// Compares what was read with what there must be.
    fn end(&mut self, content: &[u8]) -> Result<Manifest, TransferError> {
        let Ok(manifest) = serde_json::from_slice::<Manifest>(content) else {
            return Err(self.damaged("manifest.json is not what it should be".to_owned()));
        };
        let Some((head, head_sum)) = &self.head else { return Err(self.foreign("it does not begin as one")) };
        if *head_sum != manifest.head {
            return Err(self.damaged("mundap.json is not what it was".to_owned()));
        }
        self.tables.resize_with(head.tables.len(), Default::default);
        let found = std::mem::take(&mut self.tables).into_iter().zip(&head.tables);
        let found: Vec<TableSum> = found.map(|((sum, _), table)| sum.finish(table)).collect();
        let listed: Vec<TableSum> = manifest.tables.iter().map(|listed| listed.sum.clone()).collect();
        if found != listed {
            let differs = found.iter().zip(&listed).find(|(found, listed)| found != listed);
            let name = differs.map_or("a table", |(found, _)| &found.table);
            return Err(self.damaged(format!("the rows of {name} are not what they were")));
        }
        if std::mem::take(&mut self.images).finish() != manifest.images {
            return Err(self.damaged("images are missing or came in".to_owned()));
        }
        Ok(manifest)
    }
}

/// `rows/qna/000001.jsonl` is part 1 of `qna`.
fn part_of(name: &str) -> Option<(&str, u32)> {
    let (table, part) = name.strip_prefix("rows/")?.strip_suffix(".jsonl")?.split_once('/')?;
    Some((table, part.parse().ok()?))
}
