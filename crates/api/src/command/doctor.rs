//! `mundap doctor`.

use clap::Args;
use mundap_domain::env::Clock as _;
use mundap_infra::doctor::{Board, DoctorError, Examination, Examined, Finding, examine};
use mundap_infra::{BlobFolder, SystemClock};

use super::carry::{patient, unless_interrupted};
use super::{DATABASE_URL, Fault, exists, open, print};
use crate::settings::Settings;

#[derive(Args, Clone, Copy, Debug)]
pub struct Doctor {
    /// Mend what follows from something else: counts, blobs that were set aside, files that nothing names
    #[arg(long)]
    repair: bool,
    /// Leave out what reads every byte: the images' checksums, and SQLite's indexes
    #[arg(long)]
    quick: bool,
}

impl From<DoctorError> for Fault {
    fn from(error: DoctorError) -> Self {
        Self::Other(error.into())
    }
}

/// Prints a line for each finding, and fails where one is left.
pub(super) async fn doctor(settings: &Settings, arguments: Doctor) -> Result<(), Fault> {
    let database = patient(settings.database()?);
    // Neither a folder nor a file is made: what is not there is not sound.
    exists(DATABASE_URL, &database)?;
    let store = open(DATABASE_URL, &database).await?;
    let (blobs, signing_key) = (BlobFolder::new(settings.images_dir()), settings.signing_key_file());
    let board = Board { store: &store, blobs: &blobs, signing_key: &signing_key };
    let how = Examination { repair: arguments.repair, quick: arguments.quick, now: SystemClock.now() };
    let mut printed = Ok(());
    let mut tell = |finding: &Finding| {
        if printed.is_ok() {
            printed = print(&finding.to_string());
        }
    };
    let examined = unless_interrupted(Box::pin(examine(board, how, &mut tell))).await?;
    printed?;
    store.close().await;
    let Examined { rows, blobs, found, mended } = examined;
    print(&format!("rows: {rows}, images: {blobs}; findings: {found}, mended: {mended}"))?;
    let left = match examined.left() {
        0 => return print("the board is sound"),
        1 => "1 finding is".to_owned(),
        left => format!("{left} findings are"),
    };
    let hint = if arguments.repair { "" } else { "; --repair mends what can be mended" };
    Err(Fault::LeftOver(format!("{left} left, as told above{hint}")))
}
