//! `RateRepository`.

use chrono::TimeDelta;
use futures_util::future::join_all;
use mundap_domain::StoreError;
use mundap_domain::env::Timestamp;
use mundap_domain::rate::{Charge, Charged, Quota, RateKey};
use mundap_domain::testing::noon;

use crate::board::{Board, times};

crate::tests![
    charge_admits_as_many_as_fit_and_one_more_with_time,
    charge_adds_what_is_owed_where_all_of_it_fits,
    charge_without_room_admits_nothing_and_adds_what_is_owed_up_to_the_brim,
    charge_makes_a_bucket_that_is_fuller_than_full_a_full_one,
    charges_at_once_admit_no_more_than_fit,
    a_bucket_that_was_empty_for_long_fills_from_now,
    give_back_takes_one_out_and_is_no_error_where_there_is_none,
    delete_empty_spares_what_is_not_empty,
    delete_empty_forgets_no_more_than_it_may,
    ends_come_back_to_the_microsecond,
];

/// Three in a minute: one in twenty seconds.
fn three() -> Quota {
    Quota::new(3, TimeDelta::minutes(1)).unwrap()
}

fn new_key() -> RateKey {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).unwrap();
    RateKey::new(bytes)
}

fn after(seconds: i64) -> Timestamp {
    noon().plus(TimeDelta::seconds(seconds))
}

fn charge(key: RateKey, owed: u32, now: Timestamp) -> Charge {
    Charge { key, quota: three(), owed, now }
}

async fn charged(board: &Board, charge: Charge) -> Charged {
    board.unit(async |unit| unit.rates().charge(&charge).await).await.unwrap()
}

/// Whether a use is admitted, and after how many seconds from noon the bucket is empty then.
async fn used(board: &Board, key: RateKey, owed: u32, at: i64) -> (bool, i64) {
    let Charged { admitted, end } = charged(board, charge(key, owed, after(at))).await;
    (admitted, (end.as_utc() - noon().as_utc()).num_seconds())
}

async fn charge_admits_as_many_as_fit_and_one_more_with_time(board: Board) {
    let (key, other) = (new_key(), new_key());
    for expected in [(true, 20), (true, 40), (true, 60), (false, 60), (false, 60)] {
        assert_eq!(used(&board, key, 0, 0).await, expected);
    }
    assert_eq!(used(&board, other, 0, 0).await, (true, 20), "another bucket");
    assert_eq!(used(&board, key, 0, 19).await, (false, 60));
    assert_eq!(used(&board, key, 0, 20).await, (true, 80));
    assert_eq!(used(&board, key, 0, 20).await, (false, 80));
}

async fn charge_adds_what_is_owed_where_all_of_it_fits(board: Board) {
    let key = new_key();
    assert_eq!(used(&board, key, 1, 0).await, (true, 40));
    assert_eq!(used(&board, key, 1, 20).await, (true, 80));
}

async fn charge_without_room_admits_nothing_and_adds_what_is_owed_up_to_the_brim(board: Board) {
    let key = new_key();
    assert_eq!(used(&board, key, 0, 0).await, (true, 20));
    assert_eq!(used(&board, key, 2, 0).await, (false, 60), "the two that are owed");
    assert_eq!(used(&board, key, 2, 30).await, (false, 90), "no fuller than full");
    assert_eq!(used(&board, key, 0, 50).await, (true, 110));
}

async fn charge_makes_a_bucket_that_is_fuller_than_full_a_full_one(board: Board) {
    // By a node whose clock is ahead, or before the clock was set back; and by one that is a little ahead.
    let (key, owing, near) = (new_key(), new_key(), new_key());
    for end in [620, 640, 660] {
        assert_eq!(used(&board, key, 0, 600).await, (true, end));
        assert_eq!(used(&board, owing, 0, 600).await, (true, end));
        assert_eq!(used(&board, near, 0, 2).await, (true, end - 598));
    }
    assert_eq!(used(&board, key, 0, 0).await, (false, 60));
    assert_eq!(used(&board, key, 0, 19).await, (false, 60));
    assert_eq!(used(&board, key, 0, 20).await, (true, 80));
    assert_eq!(used(&board, owing, 2, 0).await, (false, 60));
    assert_eq!(used(&board, near, 0, 0).await, (false, 62));
}

async fn charges_at_once_admit_no_more_than_fit(board: Board) {
    for _ in 0..5 {
        let key = new_key();
        let quota = Quota::new(10, TimeDelta::minutes(1)).unwrap();
        let charge = Charge { key, quota, owed: 0, now: noon() };
        // More than a unit is tried again for: what meets too many others is refused with an error, never admitted.
        let outcomes = join_all((0..25).map(|_| board.unit(async |unit| unit.rates().charge(&charge).await))).await;
        let (mut admitted, mut refused_by_contention) = (0, 0);
        for outcome in outcomes {
            match outcome {
                Ok(charged) => admitted += u32::from(charged.admitted),
                Err(StoreError::Contention(_)) => refused_by_contention += 1,
                Err(error) => panic!("{error:?}"),
            }
        }
        assert!(admitted == 10 || (refused_by_contention > 15 && admitted < 10), "{admitted}");
        let Charged { end, .. } = charged(&board, charge).await;
        assert!(end <= charge.end_when_full() && end >= noon().plus(quota.time_of(admitted)), "{admitted} {end}");
    }
}

async fn a_bucket_that_was_empty_for_long_fills_from_now(board: Board) {
    let key = new_key();
    assert_eq!(used(&board, key, 0, 0).await, (true, 20));
    assert_eq!(used(&board, key, 2, 3600).await, (true, 3660));
}

async fn give_back_takes_one_out_and_is_no_error_where_there_is_none(board: Board) {
    let key = new_key();
    let give_back = async || board.unit(async |unit| unit.rates().give_back(&key, three()).await).await.unwrap();
    give_back().await;
    for _ in 0..3 {
        used(&board, key, 0, 0).await;
    }
    assert_eq!(used(&board, key, 0, 0).await, (false, 60));
    give_back().await;
    assert_eq!(used(&board, key, 0, 0).await, (true, 60));
}

async fn delete_empty_spares_what_is_not_empty(board: Board) {
    let board = board.own().await;
    let (empty, kept) = (new_key(), new_key());
    used(&board, empty, 0, 0).await;
    used(&board, kept, 1, 0).await;
    let forgotten = board.unit(async |unit| unit.rates().delete_empty(after(20), 10).await).await.unwrap();
    assert_eq!(forgotten, 1);
    assert_eq!(used(&board, kept, 0, 0).await, (true, 60));
    board.close().await;
}

async fn delete_empty_forgets_no_more_than_it_may(board: Board) {
    let board = board.own().await;
    for _ in 0..3 {
        used(&board, new_key(), 0, 0).await;
    }
    for expected in [2, 1, 0] {
        let forgotten = board.unit(async |unit| unit.rates().delete_empty(after(20), 2).await).await.unwrap();
        assert_eq!(forgotten, expected);
    }
    board.close().await;
}

async fn ends_come_back_to_the_microsecond(board: Board) {
    for now in times().into_iter().rev().skip(1) {
        let charged = charged(&board, charge(new_key(), 0, now)).await;
        assert_eq!(charged, Charged { admitted: true, end: now.plus(three().time_of(1)) });
    }
}
