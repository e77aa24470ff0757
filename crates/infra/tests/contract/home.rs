//! Which folder the images of a database are in, said once and looked at by every node.

use futures_util::future::join_all;
use mundap_infra::{BlobFolder, Home};

use crate::board::Board;

crate::tests![
    of_nodes_that_come_first_at_once_one_says_which_folder_it_is,
    nodes_with_one_folder_agree_also_where_they_come_first_at_once,
    a_folder_without_an_id_gets_none_where_another_is_known,
    a_file_that_holds_no_id_is_told_and_left,
    what_is_settled_holds_for_every_node,
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
