//! Which folder the images of a database are in, said once and looked at by every node.

use std::sync::Arc;
use std::time::SystemTime;

use chrono::TimeDelta;
use futures_util::future::join_all;
use mundap_domain::env::Clock as _;
use mundap_domain::image::{BlobStore as _, Digest, ImageHome as _, NewImage};
use mundap_domain::testing::ports;
use mundap_domain::{Ports, Services};
use mundap_infra::{BlobFolder, Home, Household, SystemClock};

use crate::board::Board;
use crate::image::{attach, new};

crate::tests![
    of_nodes_that_come_first_at_once_one_says_which_folder_it_is,
    nodes_with_one_folder_agree_also_where_they_come_first_at_once,
    a_folder_without_an_id_gets_none_where_another_is_known,
    a_file_that_holds_no_id_is_told_and_left,
    what_is_settled_holds_for_every_node,
    a_database_takes_no_folder_of_images_that_it_does_not_name,
    images_are_here_where_the_database_says_so_and_nowhere_else,
    no_blob_is_taken_away_while_its_row_may_be_on_its_way,
    what_is_settled_stays_where_others_come_first_meanwhile,
];

/// Folders that are not there yet, as at a first start.
fn folders<const N: usize>() -> (tempfile::TempDir, [BlobFolder; N]) {
    let dir = tempfile::tempdir().unwrap();
    let folders = std::array::from_fn(|n| BlobFolder::new(dir.path().join(format!("{n}/images"))));
    (dir, folders)
}

async fn of_nodes_that_come_first_at_once_one_says_which_folder_it_is(board: Board) {
    let board = board.own().await;
    let (_dir, folders) = folders::<5>();
    assert_eq!(board.store.home(&folders[0]).await.unwrap(), Home::Nowhere);
    let homes = join_all(folders.iter().map(async |folder| board.store.claim_home(folder).await.unwrap())).await;
    assert_eq!(homes.iter().filter(|home| **home == Home::Here).count(), 1, "{homes:?}");
    for (folder, home) in folders.iter().zip(homes) {
        assert_eq!(board.store.home(folder).await.unwrap(), home, "and it stays so");
        assert_eq!(home.fault(folder.root()).is_none(), home == Home::Here);
    }
}

async fn nodes_with_one_folder_agree_also_where_they_come_first_at_once(board: Board) {
    let board = board.own().await;
    let (_dir, [folder]) = folders();
    let homes = join_all((0..5).map(async |_| board.store.claim_home(&folder).await.unwrap())).await;
    assert_eq!(homes, [Home::Here; 5]);
    let left = std::fs::read_dir(folder.root()).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(left.collect::<Vec<_>>(), ["folder-id"]);
}

async fn a_folder_without_an_id_gets_none_where_another_is_known(board: Board) {
    let board = board.own().await;
    let (_dir, [first, second]) = folders();
    assert_eq!(board.store.claim_home(&first).await.unwrap(), Home::Here);
    assert_eq!(board.store.claim_home(&second).await.unwrap(), Home::Unmarked);
    assert!(!second.root().exists());
}

async fn a_file_that_holds_no_id_is_told_and_left(board: Board) {
    let board = board.own().await;
    let (_dir, [folder]) = folders();
    std::fs::create_dir_all(folder.root()).unwrap();
    let file = folder.root().join("folder-id");
    for text in
        ["", "not an id\n", "abc\n", "+0000000000000000000000000000001", "00000000000000000000000000000001\n2\n"]
    {
        std::fs::write(&file, text).unwrap();
        let told = board.store.claim_home(&folder).await.unwrap_err().to_string();
        assert!(told.contains("folder-id holds no id of a folder"), "{text:?}: {told}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
    }
}

async fn what_is_settled_holds_for_every_node(board: Board) {
    let board = board.own().await;
    let (_dir, [first, second, third]) = folders();
    let home = async |folder| board.store.home(folder).await.unwrap();
    board.store.claim_home(&first).await.unwrap();
    board.store.settle_home(&second).await.unwrap();
    assert_eq!(
        (home(&first).await, home(&second).await, home(&third).await),
        (Home::Elsewhere, Home::Here, Home::Unmarked)
    );
    board.store.settle_home(&first).await.unwrap();
    assert_eq!((home(&first).await, home(&second).await), (Home::Here, Home::Elsewhere));
    board.store.forget_home().await.unwrap();
    assert_eq!((home(&first).await, home(&third).await), (Home::Nowhere, Home::Nowhere));
    assert_eq!(board.store.claim_home(&second).await.unwrap(), Home::Here);
}

async fn held(folder: &BlobFolder, name: &str) -> Digest {
    let digest = Digest::of(name.as_bytes());
    folder.put(digest, Arc::new(name.as_bytes().to_vec())).await.unwrap();
    digest
}

async fn a_database_takes_no_folder_of_images_that_it_does_not_name(board: Board) {
    let other = board.own().await;
    let board = board.own().await;
    let (_dir, [folder]) = folders();
    other.store.claim_home(&folder).await.unwrap();
    for n in 0..4 {
        held(&folder, &format!("theirs {n}")).await;
    }
    assert_eq!(board.store.claim_home(&folder).await.unwrap(), Home::Taken);
    assert!(Home::Taken.fault(folder.root()).unwrap().contains("holds images that this database does not name"));
    // What is uploaded there meanwhile does not make the rest its own.
    let author = board.user().await;
    let comment = board.comment(board.qna(&author).await.id, &author).await;
    for n in 0..3 {
        let digest = held(&folder, &format!("ours {n}")).await;
        attach(&board, &NewImage { digest, ..new(&comment, b"") }).await;
    }
    assert_eq!(board.store.claim_home(&folder).await.unwrap(), Home::Taken);
    assert_eq!(board.store.home(&folder).await.unwrap(), Home::Taken);
    assert_eq!(other.store.home(&folder).await.unwrap(), Home::Here);
    // An operator may say that it is.
    board.store.settle_home(&folder).await.unwrap();
    assert_eq!(board.store.home(&folder).await.unwrap(), Home::Here);
    // A copy of a database names what is there, but for what no sweep has taken yet.
    other.store.settle_home(&folder).await.unwrap();
    board.store.forget_home().await.unwrap();
    for n in 0..3 {
        let digest = Digest::of(format!("theirs {n}").as_bytes());
        folder.set_aside(digest, SystemClock.now().plus(TimeDelta::hours(1))).await.unwrap();
        folder.discard(digest).await.unwrap();
    }
    assert_eq!(board.store.claim_home(&folder).await.unwrap(), Home::Here);
    board.close().await;
    other.close().await;
}

async fn images_are_here_where_the_database_says_so_and_nowhere_else(board: Board) {
    let board = board.own().await;
    let (_dir, [first, second, third]) = folders();
    let is_here = async |blobs: &BlobFolder| {
        let household = Household { store: board.store.clone(), blobs: blobs.clone() };
        household.is_here().await.unwrap()
    };
    assert!(!is_here(&first).await, "nobody has said yet");
    board.store.claim_home(&first).await.unwrap();
    board.store.settle_home(&second).await.unwrap();
    held(&third, "a blob").await;
    assert_eq!((is_here(&first).await, is_here(&second).await, is_here(&third).await), (false, true, false));
    board.close().await;
}

/// A restore puts the images first, and may take longer than a blob without a row is left alone.
async fn no_blob_is_taken_away_while_its_row_may_be_on_its_way(board: Board) {
    let board = board.own().await;
    let (_dir, [folder]) = folders();
    board.store.claim_home(&folder).await.unwrap();
    let restored = held(&folder, "restored").await.to_string();
    let file = folder.root().join(&restored[..2]).join(&restored[2..4]).join(&restored);
    std::fs::File::options().write(true).open(&file).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    let household = Household { store: board.store.clone(), blobs: folder.clone() };
    let ports = Ports {
        blobs: Arc::new(folder.clone()),
        image_home: Arc::new(household),
        ..ports(Arc::new(board.store.clone()))
    };
    let services = Services::new(&ports);
    mundap_migration::mark(board.writer(), "restore").await.unwrap();
    assert_eq!(services.housekeeping.sweep_images().await.unwrap(), 0);
    assert!(file.exists());
    mundap_migration::unmark(board.writer()).await.unwrap();
    assert_eq!(services.housekeeping.sweep_images().await.unwrap(), 1);
    board.close().await;
}

/// A node with another folder looks once a minute whether it may say which one it is.
async fn what_is_settled_stays_where_others_come_first_meanwhile(board: Board) {
    let board = board.own().await;
    let (_dir, [first, second]) = folders();
    board.store.claim_home(&first).await.unwrap();
    for _ in 0..20 {
        for (folder, other) in [(&second, &first), (&first, &second)] {
            let others = async {
                for _ in 0..5 {
                    // It may meet whoever settles.
                    let _ = board.store.claim_home(other).await;
                }
            };
            let (settled, ()) = tokio::join!(board.store.settle_home(folder), others);
            settled.unwrap();
            assert_eq!(board.store.home(folder).await.unwrap(), Home::Here);
        }
    }
    board.close().await;
}
