//! `mundap import-fastapi`: the first program's board brought over, and a report of it.

use std::fmt::Display;
use std::path::PathBuf;

use clap::Args;
use mundap_infra::{
    BlobFolder, ConnectError, DatabaseSettings, FastApi, ImportError, ImportPlan, ImportReport, PicturePool,
    TableReport, Zone,
};

use super::{DATABASE_URL, Fault, data_dir, print, store};
use crate::settings::{Settings, SettingsError};

#[derive(Args, Debug)]
pub struct ImportArgs {
    /// The first program's database, as mysql://USER:PASSWORD@HOST:PORT/NAME; - reads it from standard input, where no
    /// other process sees the password
    url: String,
    /// Where the old program's clock was, such as Asia/Seoul: its times do not say it
    #[arg(long, default_value = "UTC", value_name = "ZONE", value_parser = zone)]
    timezone: Zone,
    /// The folder of the old program's image files
    #[arg(long, value_name = "DIR")]
    images: Option<PathBuf>,
    /// Only tell what an import would do
    #[arg(long)]
    dry_run: bool,
}

fn zone(name: &str) -> Result<Zone, String> {
    name.parse().map_err(|_| "not a time zone of the IANA database, such as Asia/Seoul".to_owned())
}

/// Imports, and fails where something was left out.
pub(super) async fn import(settings: &Settings, args: &ImportArgs) -> Result<(), Fault> {
    let url = if args.url == "-" {
        let text = std::io::read_to_string(std::io::stdin()).map_err(|error| Fault::Other(error.into()))?;
        text.lines().next().unwrap_or_default().trim().to_owned()
    } else {
        args.url.clone()
    };
    if let Some(folder) = args.images.as_ref().filter(|folder| !folder.is_dir()) {
        let reason = format!("{} is no folder", folder.display());
        return Err(SettingsError::Value { name: "--images", reason }.into());
    }
    if settings.database()?.is_same_database(&DatabaseSettings::new(&*url)) {
        let reason = "this is the first program's database: name another one, which is filled from it".to_owned();
        return Err(SettingsError::Value { name: DATABASE_URL, reason }.into());
    }
    let mut source = FastApi::open(&url).await.map_err(wrong_url)?;
    data_dir(settings)?;
    let store = store(settings).await?;
    mundap_migration::up(store.writer()).await?;
    let (cleaner, blobs) = (PicturePool::start(), BlobFolder::new(settings.images_dir()));
    // They would be where the board that serves does not look.
    let home = if args.dry_run { store.home(&blobs).await } else { store.claim_home(&blobs).await };
    if let Some(fault) = home.map_err(|error| Fault::Other(error.into()))?.fault(blobs.root()) {
        return Err(Fault::LeftOver(format!("nothing was imported: {fault}")));
    }
    let plan = ImportPlan {
        zone: args.timezone,
        images: args.images.clone(),
        dry_run: args.dry_run,
        cleaner: &cleaner,
        blobs: &blobs,
    };
    let report = Box::pin(mundap_infra::import(&store, &mut source, &plan)).await?;
    store.close().await;
    print(&format!("the old server's time zone is {}; times were read in {}", source.clock(), args.timezone))?;
    tell(&report, args.dry_run)?;
    if report.is_whole() {
        return Ok(());
    }
    let left: u64 = report.tables().iter().map(|(_, table)| table.left()).sum();
    let tables = report.unknown.len();
    Err(Fault::LeftOver(format!(
        "left out: {left} rows and {tables} tables, as told above; the next import tries again"
    )))
}

/// A URL that is none is wrong usage.
fn wrong_url(error: ImportError) -> Fault {
    match error {
        ImportError::Connect(ConnectError::Url(reason)) => {
            let reason = format!("the URL must be mysql://USER:PASSWORD@HOST:PORT/NAME: {reason}");
            SettingsError::Value { name: "the first program's database", reason }.into()
        }
        other => other.into(),
    }
}

fn tell(report: &ImportReport, dry_run: bool) -> Result<(), Fault> {
    let imported = if dry_run { "to import" } else { "imported" };
    print(&row(["table", "read", imported, "there already", "deleted here", "changed to fit", "left out"]))?;
    for (name, table) in report.tables() {
        let TableReport { read, imported, there, deleted_here, .. } = table;
        let changed = table.changed.values().flatten().collect::<std::collections::BTreeSet<_>>().len();
        let cells = [*read, *imported, *there, *deleted_here, changed as u64, table.left()].map(|n| n.to_string());
        let [read, imported, there, deleted, changed, left] = &cells;
        print(&row([name, read, imported, there, deleted, changed, left]))?;
    }
    for (name, table) in report.tables() {
        for (change, ids) in &table.changed {
            print(&format!("changed to fit, {name}: {change}: {}", listed(ids, 20)))?;
        }
    }
    for (name, table) in report.tables() {
        for (reason, ids) in &table.left_out {
            print(&format!("left out, {name}: {reason}: {}", listed(ids, usize::MAX)))?;
        }
    }
    for (name, why) in &report.unknown {
        print(&format!("left out, table {}: {why}", plain(name)))?;
    }
    let changes: u64 = report.tables().iter().map(|(_, table)| table.imported).sum();
    if changes == 0 && !dry_run {
        print("nothing was new")?;
    }
    Ok(())
}

fn row(cells: [impl Display; 7]) -> String {
    let [table, rest @ ..] = cells;
    let rest: Vec<String> = rest.iter().map(|cell| format!("{cell:>14}")).collect();
    format!("{table:<8}{}", rest.concat())
}

/// The first of them; a person without an e-mail is shown as nothing in quotes.
fn listed(ids: &[String], most: usize) -> String {
    let shown = |id: &String| if id.is_empty() { "\"\"".to_owned() } else { plain(id) };
    let shown: Vec<String> = ids.iter().take(most).map(shown).collect();
    let more = ids.len() - shown.len();
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    format!("{}{more}", shown.join(", "))
}

/// What somebody wrote on the old board, on one line, and so that it means nothing to a terminal.
fn plain(text: &str) -> String {
    text.replace(char::is_control, "\u{fffd}")
}
