//! Rate limits: what a bucket lets through, what a node knows by itself, and what it asks the database.

use std::net::IpAddr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};

use async_trait::async_trait;
use chrono::TimeDelta;
use mundap_domain::account::PasswordHash;
use mundap_domain::env::{Clock, Timestamp};
use mundap_domain::event::Event;
use mundap_domain::rate::{Allowance, Charge, Charged, Policy, Quota, Quotas, RateLimits, Subject};
use mundap_domain::testing::noon;
use mundap_domain::user::{Email, UserId};
use mundap_domain::{Error, StoreError};
use proptest::prelude::*;

use crate::stage::{Stage, code, contention, unavailable};

/// Three in a minute: one in twenty seconds.
fn three() -> Quota {
    Quota::new(3, TimeDelta::minutes(1)).expect("a quota")
}

/// A clock that a test moves.
#[derive(Clone, Default)]
struct Hands(Arc<AtomicI64>);

impl Hands {
    fn turn(&self, seconds: i64) {
        self.0.fetch_add(seconds, Ordering::SeqCst);
    }
}

#[async_trait]
impl Clock for Hands {
    fn now(&self) -> Timestamp {
        noon().plus(TimeDelta::seconds(self.0.load(Ordering::SeqCst)))
    }

    async fn pause_before(&self, _attempt: u32) {}
}

/// The database's buckets: one, which charges as the port asks, and writes down what it was asked for.
#[derive(Clone, Default)]
struct Shared {
    end: Arc<Mutex<Option<Timestamp>>>,
    owed: Arc<Mutex<Vec<u32>>>,
}

impl Shared {
    fn charge(&self, charge: &Charge) -> Charged {
        self.owed.lock().expect("a bucket").push(charge.owed);
        let mut end = self.end.lock().expect("a bucket");
        let bounded = |end| if end > charge.last_end() { charge.end_when_full() } else { end };
        let from = end.map_or(charge.now, |end| bounded(end).max(charge.now));
        let admitted = from <= charge.last_end_with_room();
        let uses = if admitted { charge.owed + 1 } else { charge.owed };
        let filled = from.plus(charge.quota.time_of(uses));
        let new = if admitted { filled } else { filled.min(charge.end_when_full()).max(from) };
        *end = Some(new);
        Charged { admitted, end: new }
    }

    fn asked(&self) -> Vec<u32> {
        std::mem::take(&mut self.owed.lock().expect("a bucket"))
    }
}

/// One node on `shared`.
fn node(quota: Quota, hands: &Hands, shared: &Shared) -> Arc<RateLimits> {
    let mut stage =
        Stage { quotas: Some(Quotas::all(quota)), clock: Some(Arc::new(hands.clone())), ..Stage::default() };
    let charges = shared.clone();
    stage.inside.rates.expect_charge().returning(move |charge| Ok(charges.charge(charge)));
    stage.services().rates
}

fn account(id: i64) -> Subject {
    Subject::Account(UserId::new(id))
}

fn address(text: &str) -> Subject {
    Subject::address(text.parse::<IpAddr>().expect("an address"))
}

/// How many are left, or `None` where it was one too many.
async fn left(rates: &RateLimits, policy: Policy, subject: &Subject) -> Option<u32> {
    match rates.admit(policy, subject).await {
        Ok(allowance) => Some(allowance.expect("limits are on").left),
        Err(Error::RateLimited(Allowance { left: 0, .. })) => None,
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn each_limit_bites_at_its_figure_and_lets_go_evenly() {
    for policy in Policy::ALL {
        let (hands, shared) = (Hands::default(), Shared::default());
        let rates = node(three(), &hands, &shared);
        let use_one = async || left(&rates, policy, &account(1)).await;
        assert_eq!([use_one().await, use_one().await, use_one().await], [Some(2), Some(1), Some(0)], "{policy:?}");
        assert_eq!(use_one().await, None, "{policy:?}");
        hands.turn(19);
        assert_eq!(use_one().await, None, "{policy:?}");
        hands.turn(1);
        assert_eq!(use_one().await, Some(0), "{policy:?}");
        assert_eq!(use_one().await, None, "{policy:?}");
        hands.turn(60);
        assert_eq!(use_one().await, Some(2), "{policy:?}");
    }
}

#[tokio::test]
async fn a_use_that_others_overtook_with_a_later_clock_is_let_through() {
    let (hands, shared) = (Hands::default(), Shared::default());
    // Two of three, by somebody whose clock shows two seconds more.
    *shared.end.lock().unwrap() = Some(noon().plus(TimeDelta::seconds(42)));
    let mut stage =
        Stage { quotas: Some(Quotas::all(three())), clock: Some(Arc::new(hands.clone())), ..Stage::default() };
    let charges = shared.clone();
    stage.inside.rates.expect_charge().times(2).returning(move |charge| {
        let outcome = charges.charge(charge);
        hands.turn(2);
        Ok(outcome)
    });
    let rates = stage.services().rates;
    assert_eq!(left(&rates, Policy::Writes, &account(1)).await, Some(0));
}

#[tokio::test]
async fn a_clock_that_is_set_back_keeps_nobody_out_for_longer() {
    for policy in Policy::ALL {
        let (hands, shared) = (Hands::default(), Shared::default());
        let rates = node(three(), &hands, &shared);
        let use_one = async || left(&rates, policy, &account(1)).await;
        assert_eq!([use_one().await, use_one().await, use_one().await], [Some(2), Some(1), Some(0)], "{policy:?}");
        hands.turn(-600);
        match rates.admit(policy, &account(1)).await {
            Err(Error::RateLimited(refused)) => assert_eq!(refused.more_in.num_seconds(), 20, "{policy:?}"),
            other => panic!("{policy:?}: {other:?}"),
        }
        hands.turn(20);
        assert_eq!([use_one().await, use_one().await], [Some(0), None], "{policy:?}");
    }
}

#[tokio::test]
async fn a_use_too_many_is_told_of_each_time() {
    for policy in Policy::ALL {
        let (shared, one) = (Shared::default(), Quota::new(1, TimeDelta::minutes(1)).unwrap());
        let mut stage = Stage { quotas: Some(Quotas::all(one)), ..Stage::default() };
        stage.inside.rates.expect_charge().returning(move |charge| Ok(shared.charge(charge)));
        let (events, rates) = (stage.events.clone(), stage.services().rates);
        for told in 0..3 {
            assert_eq!(left(&rates, policy, &account(1)).await.is_some(), told == 0, "{policy:?}");
            assert_eq!(events.events(), vec![Event::RateLimited(policy); told]);
        }
    }
}

#[tokio::test]
async fn a_limit_that_was_changed_counts_what_was_full_as_full() {
    let (hands, shared) = (Hands::default(), Shared::default());
    let before = node(Quota::new(2, TimeDelta::hours(1)).unwrap(), &hands, &shared);
    assert_eq!(left(&before, Policy::Writes, &account(1)).await, Some(1));
    assert_eq!(left(&before, Policy::Writes, &account(1)).await, Some(0));
    let after = node(Quota::new(60, TimeDelta::minutes(1)).unwrap(), &hands, &shared);
    // It owes these five to the next that asks.
    for _ in 0..5 {
        assert!(left(&after, Policy::Writes, &account(1)).await.is_some());
    }
    assert_eq!(left(&after, Policy::Writes, &account(1)).await, None);
    hands.turn(2);
    assert!(left(&after, Policy::Writes, &account(1)).await.is_some());
}

#[tokio::test]
async fn an_allowance_says_when_there_is_more() {
    let hands = Hands::default();
    let rates = node(three(), &hands, &Shared::default());
    let more_in = async || match rates.admit(Policy::Reads, &account(1)).await {
        Ok(allowance) => allowance.unwrap().more_in.num_seconds(),
        Err(Error::RateLimited(allowance)) => -allowance.more_in.num_seconds(),
        Err(error) => panic!("{error}"),
    };
    assert_eq!([more_in().await, more_in().await, more_in().await, more_in().await], [20, 20, 20, -20]);
    hands.turn(15);
    assert_eq!(more_in().await, -5);
}

#[tokio::test]
async fn callers_and_limits_are_counted_apart() {
    let rates = node(Quota::new(1, TimeDelta::minutes(1)).unwrap(), &Hands::default(), &Shared::default());
    for subject in [account(1), account(2), address("192.0.2.1"), address("192.0.2.2")] {
        for policy in [Policy::Reads, Policy::Anonymous, Policy::Renewals] {
            assert_eq!(left(&rates, policy, &subject).await, Some(0));
            assert_eq!(left(&rates, policy, &subject).await, None);
        }
    }
}

#[tokio::test]
async fn ipv6_is_counted_by_its_64_and_ipv4_whole() {
    for (one, other, same) in [
        ("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", true),
        ("2001:db8::1", "2001:db8:0:1::1", false),
        ("192.0.2.1", "::ffff:192.0.2.1", true),
        ("192.0.2.1", "192.0.2.2", false),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", false),
    ] {
        assert_eq!(address(one) == address(other), same, "{one} {other}");
    }
}

#[tokio::test]
async fn a_whole_site_has_sixteen_networks_worth() {
    let rates = node(three(), &Hands::default(), &Shared::default());
    let mut admitted = 0;
    for network in 0..100 {
        let subject = address(&format!("2001:db8:1:{network:x}::1"));
        admitted += u32::from(left(&rates, Policy::Anonymous, &subject).await.is_some());
    }
    assert_eq!(admitted, 48);
    assert_eq!(left(&rates, Policy::Anonymous, &address("2001:db8:2::1")).await, Some(2), "another site");
}

#[tokio::test]
async fn what_one_host_is_refused_does_not_count_for_its_site() {
    for policy in [Policy::Anonymous, Policy::Renewals] {
        let rates = node(three(), &Hands::default(), &Shared::default());
        let mut admitted = 0;
        for network in (0..200).map(|_| 0).chain(1..100) {
            let subject = address(&format!("2001:db8:1:{network:x}::1"));
            admitted += u32::from(left(&rates, policy, &subject).await.is_some());
        }
        assert_eq!(admitted, 48, "{policy:?}");
    }
}

#[tokio::test]
async fn what_is_off_counts_nothing_and_asks_nobody() {
    let rates = Stage::default().services().rates;
    for policy in Policy::ALL {
        assert_eq!(rates.admit(policy, &account(1)).await.unwrap(), None);
    }
}

#[tokio::test]
async fn what_is_kept_in_memory_asks_nobody() {
    let rates = Stage { quotas: Some(Quotas::all(three())), ..Stage::default() }.services().rates;
    for policy in Policy::ALL.into_iter().filter(|policy| !policy.is_shared()) {
        assert_eq!(left(&rates, policy, &account(1)).await, Some(2));
    }
}

#[tokio::test]
async fn a_node_pays_a_tenth_at_once() {
    let (hands, shared) = (Hands::default(), Shared::default());
    let rates = node(Quota::new(40, TimeDelta::hours(1)).unwrap(), &hands, &shared);
    for n in 1..=40 {
        assert_eq!(left(&rates, Policy::Writes, &account(1)).await, Some(40 - n), "{n}");
    }
    assert_eq!(shared.asked(), [3; 10], "the fourth pays for three more");
    for _ in 0..5 {
        assert_eq!(left(&rates, Policy::Writes, &account(1)).await, None);
    }
    assert_eq!(shared.asked(), [0; 0], "that it is full was just learned");
    hands.turn(1);
    assert_eq!(left(&rates, Policy::Writes, &account(1)).await, None);
    assert_eq!(shared.asked(), [0], "others may have given back meanwhile");
}

#[tokio::test]
async fn attempts_are_paid_one_by_one() {
    let shared = Shared::default();
    let rates = node(Quota::new(100, TimeDelta::hours(1)).unwrap(), &Hands::default(), &shared);
    for _ in 0..5 {
        assert!(left(&rates, Policy::Attempts, &account(1)).await.is_some());
    }
    assert_eq!(shared.asked(), [0; 5]);
}

#[tokio::test]
async fn two_nodes_exceed_a_limit_by_their_unfinished_blocks_at_most() {
    let (hands, shared) = (Hands::default(), Shared::default());
    let quota = Quota::new(40, TimeDelta::hours(1)).unwrap();
    let nodes = [node(quota, &hands, &shared), node(quota, &hands, &shared)];
    let mut admitted = 0;
    for n in 0..200 {
        admitted += u32::from(left(&nodes[n % 2], Policy::Writes, &account(1)).await.is_some());
    }
    assert!((40..=46).contains(&admitted), "{admitted}");
}

#[tokio::test]
async fn what_is_owed_is_forgotten_after_a_window_without_use() {
    let (hands, shared) = (Hands::default(), Shared::default());
    let rates = node(Quota::new(40, TimeDelta::minutes(1)).unwrap(), &hands, &shared);
    for seconds in [0, 59, 60] {
        left(&rates, Policy::Writes, &account(1)).await;
        hands.turn(seconds);
    }
    // The third came a minute after the second: one is owed.
    left(&rates, Policy::Writes, &account(1)).await;
    left(&rates, Policy::Writes, &account(1)).await;
    left(&rates, Policy::Writes, &account(1)).await;
    assert_eq!(shared.asked(), [0; 0]);
    left(&rates, Policy::Writes, &account(1)).await;
    assert_eq!(shared.asked(), [3]);
}

#[tokio::test]
async fn a_database_that_is_away_turns_writes_away_and_is_owed_what_it_missed() {
    let shared = Shared::default();
    let mut stage =
        Stage { quotas: Some(Quotas::all(Quota::new(40, TimeDelta::hours(1)).unwrap())), ..Stage::default() };
    let (charges, mut times) = (shared.clone(), 0);
    stage.inside.rates.expect_charge().returning(move |charge| {
        times += 1;
        match times {
            1 => Err(unavailable()),
            2 => Err(StoreError::Backend("no such table".into())),
            _ => Ok(charges.charge(charge)),
        }
    });
    let rates = stage.services().rates;
    for _ in 0..3 {
        left(&rates, Policy::Writes, &account(1)).await;
    }
    for _ in 0..2 {
        assert_eq!(code(rates.admit(Policy::Writes, &account(1)).await), "database_unavailable");
    }
    assert!(left(&rates, Policy::Writes, &account(1)).await.is_some());
    assert_eq!(shared.asked(), [3]);
}

/// A clock of which whoever waits for it waits for ever.
struct Stopped;

#[async_trait]
impl Clock for Stopped {
    fn now(&self) -> Timestamp {
        noon()
    }

    async fn pause_before(&self, _attempt: u32) {
        std::future::pending::<()>().await;
    }
}

#[tokio::test]
async fn whoever_hangs_up_while_they_pay_still_owes() {
    let quotas = Some(Quotas::all(Quota::new(40, TimeDelta::hours(1)).unwrap()));
    let mut stage = Stage { quotas, clock: Some(Arc::new(Stopped)), ..Stage::default() };
    let (shared, mut times) = (Shared::default(), 0);
    let charges = shared.clone();
    stage.inside.rates.expect_charge().returning(move |charge| {
        times += 1;
        if times == 1 { Err(contention()) } else { Ok(charges.charge(charge)) }
    });
    let rates = stage.services().rates;
    let (subject, use_three) = (account(1), async || {
        for _ in 0..3 {
            left(&rates, Policy::Writes, &account(1)).await.expect("there is room");
        }
    });
    use_three().await;
    let mut paying = Box::pin(rates.admit(Policy::Writes, &subject));
    let mut context = Context::from_waker(Waker::noop());
    assert!(paying.as_mut().poll(&mut context).is_pending());
    // Others go on meanwhile, and owe for themselves.
    use_three().await;
    drop(paying);
    assert_eq!(left(&rates, Policy::Writes, &account(1)).await, Some(33));
    assert_eq!(shared.asked(), [6]);
}

#[tokio::test]
async fn a_charge_that_meets_others_is_tried_again_in_a_unit_of_its_own() {
    let mut stage = Stage { quotas: Some(Quotas::all(three())), ..Stage::default() };
    let (tape, shared, mut times) = (stage.tape.clone(), Shared::default(), 0);
    stage.inside.rates.expect_charge().returning(move |charge| {
        times += 1;
        if times == 1 { Err(contention()) } else { Ok(shared.charge(charge)) }
    });
    assert_eq!(left(&stage.services().rates, Policy::Writes, &account(1)).await, Some(2));
    assert_eq!(tape, ["begin", "rollback", "pause 1", "begin", "commit"]);
}

/// Signs in over a bucket; the tape notes the hasher and the bucket.
fn signing_in(is_right: bool) -> Stage {
    let mut stage = Stage { quotas: Some(Quotas::all(three())), ..Stage::default() };
    let (charged, given, hashed) = (stage.tape.clone(), stage.tape.clone(), stage.tape.clone());
    let shared = Shared::default();
    stage.inside.rates.expect_charge().returning(move |charge| {
        charged.note("charge");
        Ok(shared.charge(charge))
    });
    stage.inside.rates.expect_give_back().returning(move |_, _| {
        given.note("give back");
        Ok(())
    });
    let known = || Some(PasswordHash::new("a hash".to_owned()));
    let user = || mundap_domain::testing::a_user(1, mundap_domain::user::Role::Member);
    stage.outside.users.expect_find_by_email().returning(move |_| Ok(Some(user())));
    stage.outside.users.expect_password_hash().returning(move |_| Ok(known()));
    stage.inside.users.expect_password_hash().returning(move |_| Ok(known()));
    stage.inside.sign_ins.expect_insert().returning(|_| Ok(mundap_domain::sign_in::SignInId::new(1)));
    stage.outside.access_tokens.expect_issue().returning(|_| Ok("a token".to_owned()));
    stage.outside.passwords.expect_verify().returning(move |_, _| {
        hashed.note("verify");
        Ok(is_right)
    });
    stage
}

#[tokio::test]
async fn an_attempt_counts_before_the_password_is_compared_and_a_right_one_is_given_back() {
    for (is_right, outcome, expected) in [
        (true, "ok", &["begin", "charge", "commit", "verify", "begin", "give back", "commit"][..]),
        (false, "invalid_credentials", &["begin", "charge", "commit", "verify"]),
    ] {
        let stage = signing_in(is_right);
        let tape = stage.tape.clone();
        assert_eq!(code(stage.services().accounts.sign_in("user1@example.com", "a password").await), outcome);
        assert_eq!(tape.read(), expected);
    }
}

#[tokio::test]
async fn after_too_many_attempts_no_password_is_compared() {
    let stage = signing_in(false);
    let tape = stage.tape.clone();
    let accounts = stage.services().accounts;
    for n in 0..5 {
        let expected = if n < 3 { "invalid_credentials" } else { "rate_limited" };
        assert_eq!(code(accounts.sign_in("user1@example.com", "a password").await), expected);
    }
    assert_eq!(tape.read().iter().filter(|note| *note == "verify").count(), 3);
}

#[test]
fn an_email_counts_in_any_spelling() {
    let key = |text: &str| Subject::email(&Email::parse(text).unwrap());
    assert_eq!(key("Ann@Example.com"), key("ann@example.COM"));
    assert_ne!(key("ann@example.com"), key("bob@example.com"));
}

#[test]
fn a_quota_is_a_whole_number_of_seconds_of_a_day_at_most() {
    for (permits, millis, good) in [
        (1, 1000, true),
        (1_000_000, 86_400_000, true),
        (1_000_000, 1000, true),
        (0, 1000, false),
        (1_000_001, 1000, false),
        (1, 999, false),
        (1, 1500, false),
        (1, 86_401_000, false),
        (1, -1000, false),
    ] {
        assert_eq!(Quota::new(permits, TimeDelta::milliseconds(millis)).is_some(), good, "{permits} {millis}");
    }
}

proptest! {
    /// Whatever somebody does and when, no stretch of time sees more than the quota and what drains meanwhile.
    #[test]
    fn no_stretch_of_time_exceeds_the_quota(
        permits in 1_u32..30,
        window in 1_i64..200,
        pauses in prop::collection::vec(prop_oneof![4 => Just(0_i64), 1 => 0_i64..30], 1..45),
        policy in prop::sample::select(Policy::ALL.to_vec()),
    ) {
        let quota = Quota::new(permits, TimeDelta::seconds(window)).unwrap();
        let (hands, shared) = (Hands::default(), Shared::default());
        let rates = node(quota, &hands, &shared);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut times = Vec::new();
        let mut now = 0;
        for pause in pauses {
            hands.turn(pause);
            now += pause;
            if runtime.block_on(left(&rates, policy, &account(1))).is_some() {
                times.push(now);
            }
        }
        for (n, start) in times.iter().enumerate() {
            for (m, end) in times.iter().enumerate().skip(n) {
                let uses = i64::try_from(m - n + 1).unwrap();
                let drained = (end - start) * 1_000_000 / quota.time_of(1).num_microseconds().unwrap();
                prop_assert!(uses <= i64::from(permits) + drained, "{uses} from {start} to {end}");
            }
        }
    }
}
