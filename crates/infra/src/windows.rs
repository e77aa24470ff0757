//! Pages of a list that begin behind some row: those that are asked for at the same time are one statement.
//!
//! Most of what a page costs a server is to plan its statement, which a `LIMIT` for each page would have it do for each. But ids are given one
//! after the other, so the rows of a page are nearly those of as many ids: several pages are several ranges of ids, which
//! are planned once. Where ids are missing (what was deleted, Galera's steps) a page has the rest from a statement of its own, and the next
//! ranges are wider.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use futures_util::future::try_join_all;
use mundap_domain::StoreError;
use mundap_domain::page::{Order, Slice};
use sea_orm::FromQueryResult;

use crate::author::ByAuthor;
use crate::batch::{Answer, Batch, Pool};
use crate::row::{Naming, Written};

/// Ids of one statement's ranges at the most: about the rows that it may have to hold at once.
const MOST: i64 = 512;

/// Pages in this order, of so many rows, with their authors or without.
type Kind = (Order, u64, Naming);

/// Pages by what they are behind.
pub(crate) type Windows<M> = Batch<i64, Vec<M>, Kind>;

/// What reads such pages of this list from this pool.
pub(crate) fn windows<M>(list: &'static Written, pool: Pool) -> Windows<M>
where
    M: ByAuthor + Clone + FromQueryResult + Send + 'static,
{
    let spread = Arc::new(Spread::default());
    Batch::new(pool.limit.statement, move |(order, limit, naming), afters| {
        let reading = Reading { list, pool: pool.clone(), spread: spread.clone(), order, limit, naming };
        Box::pin(async move { reading.pages(afters).await })
    })
}

/// How many ids a row takes up, in sixteenths. More as soon as a page has to be completed, and slowly fewer.
struct Spread(AtomicI64);

impl Default for Spread {
    fn default() -> Self {
        Self(AtomicI64::new(Self::DENSE))
    }
}

impl Spread {
    /// No id is missing.
    const DENSE: i64 = 16;
    /// So many are that nothing is gained by guessing.
    const MOST: i64 = 8 * Self::DENSE;

    /// How many ids have so many rows, if they are as those before.
    fn ids(&self, rows: u64) -> i64 {
        i64::try_from(rows).unwrap_or(i64::MAX).saturating_mul(self.0.load(Ordering::Relaxed)) / Self::DENSE
    }

    /// After one statement. Two at once may each overlook what the other learnt: it is a guess.
    fn learn(&self, were_missing: bool) {
        let now = self.0.load(Ordering::Relaxed);
        let next = if were_missing { now + now / 4 } else { now - 1 };
        self.0.store(next.clamp(Self::DENSE, Self::MOST), Ordering::Relaxed);
    }
}

/// Ids from the first to the last.
type Window = (i64, i64);

/// The ids where a page is looked for.
fn window(order: Order, after: i64, ids: i64) -> Window {
    match order {
        Order::Newest => (after.saturating_sub(ids), after.saturating_sub(1)),
        Order::Oldest => (after.saturating_add(1), after.saturating_add(ids)),
    }
}

/// Where a page goes on that such a window has not filled; none where no id can follow.
const fn behind(order: Order, (first, last): Window) -> Option<i64> {
    match order {
        Order::Newest if first <= 1 => None,
        Order::Newest => Some(first),
        Order::Oldest => Some(last),
    }
}

/// The places of a window's rows among these ids, which are in that order: `limit` at most.
fn places(order: Order, ids: &[i64], (first, last): Window, limit: usize) -> Range<usize> {
    let (start, end) = match order {
        Order::Newest => (ids.partition_point(|id| *id > last), ids.partition_point(|id| *id >= first)),
        Order::Oldest => (ids.partition_point(|id| *id < first), ids.partition_point(|id| *id <= last)),
    };
    start..end.min(start.saturating_add(limit))
}

struct Reading {
    list: &'static Written,
    pool: Pool,
    spread: Arc<Spread>,
    order: Order,
    limit: u64,
    naming: Naming,
}

impl Reading {
    async fn pages<M>(&self, afters: Vec<i64>) -> Result<Vec<Answer<Vec<M>>>, StoreError>
    where
        M: ByAuthor + Clone + FromQueryResult + Send,
    {
        let ids = self.spread.ids(self.limit);
        let together = usize::try_from(MOST / ids.max(1)).unwrap_or(0);
        let pages = if afters.len() == 1 || together < 2 {
            try_join_all(afters.iter().map(|after| self.rest(*after, self.limit))).await?
        } else {
            try_join_all(afters.chunks(together).map(|afters| self.together(afters, ids))).await?.concat()
        };
        Ok(pages.into_iter().map(Ok).collect())
    }

    /// The rows behind this one, by a statement of their own.
    async fn rest<M>(&self, after: i64, limit: u64) -> Result<Vec<M>, StoreError>
    where
        M: ByAuthor + FromQueryResult + Send,
    {
        let slice = Slice { after: Some(after), order: self.order, limit, bytes: Slice::ANY_SIZE };
        self.pool.run(self.list.rows(&self.pool.connection, None, &slice, self.naming)).await
    }

    /// The pages behind these, each looked for among so many ids.
    async fn together<M>(&self, afters: &[i64], ids: i64) -> Result<Vec<Vec<M>>, StoreError>
    where
        M: ByAuthor + Clone + FromQueryResult + Send,
    {
        let windows: Vec<Window> = afters.iter().map(|after| window(self.order, *after, ids)).collect();
        let statement = self.list.between(self.pool.connection.get_database_backend(), &windows, self.naming);
        let rows = self.list.all(&self.pool.connection, statement, self.order, self.naming);
        let mut pages = self.deal(self.pool.run(rows).await?, &windows);
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let short = pages.iter_mut().zip(&windows).filter(|(page, _)| page.len() < limit);
        let short = short.filter_map(|(page, window)| Some((page, behind(self.order, *window)?)));
        let completed = try_join_all(short.map(|(page, after)| self.complete(page, after))).await?;
        self.spread.learn(completed.contains(&true));
        Ok(pages)
    }

    /// Adds what a page lacks, and tells whether there was more.
    async fn complete<M>(&self, page: &mut Vec<M>, after: i64) -> Result<bool, StoreError>
    where
        M: ByAuthor + FromQueryResult + Send,
    {
        let rest = self.rest(after, self.limit - page.len() as u64).await?;
        let were_missing = !rest.is_empty();
        page.extend(rest);
        Ok(were_missing)
    }

    /// To each window its rows, of all that were read in the list's order.
    fn deal<M: ByAuthor + Clone>(&self, rows: Vec<M>, windows: &[Window]) -> Vec<Vec<M>> {
        let ids: Vec<i64> = rows.iter().map(|row| row.reading().id).collect();
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let places: Vec<Range<usize>> = windows.iter().map(|window| places(self.order, &ids, *window, limit)).collect();
        // Each row is given away at the last place that it is wanted at.
        let mut wanted = vec![0_usize; rows.len()];
        places.iter().flat_map(Clone::clone).for_each(|place| wanted[place] += 1);
        let mut rows: Vec<Option<M>> = rows.into_iter().map(Some).collect();
        let mut row = |place: usize| {
            wanted[place] -= 1;
            if wanted[place] == 0 { rows[place].take() } else { rows[place].clone() }
        };
        places.into_iter().map(|places| places.filter_map(&mut row).collect()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// What is behind an id in this order.
    fn list(order: Order, ids: &BTreeSet<i64>, after: i64) -> Vec<i64> {
        match order {
            Order::Newest => ids.range(..after).rev().copied().collect(),
            Order::Oldest => ids.range(after + 1..).copied().collect(),
        }
    }

    proptest! {
        /// Whichever ids there are, and however many a window has.
        #[test]
        fn a_window_and_what_follows_it_are_the_page(
            ids in proptest::collection::btree_set(1_i64..60, 0..40),
            after in 0_i64..62,
            width in 0_i64..70,
            limit in 1_usize..20,
            order in prop_oneof![Just(Order::Newest), Just(Order::Oldest)],
        ) {
            let window = window(order, after, width);
            let mut all: Vec<i64> = ids.iter().copied().collect();
            if order == Order::Newest {
                all.reverse();
            }
            let mut page = all[places(order, &all, window, limit)].to_vec();
            if page.len() < limit && let Some(after) = behind(order, window) {
                page.extend(list(order, &ids, after));
            }
            let mut expected = list(order, &ids, after);
            expected.truncate(limit);
            page.truncate(limit);
            prop_assert_eq!(page, expected);
        }
    }

    #[test]
    fn the_ends_of_the_numbers_are_no_trap() {
        assert_eq!(window(Order::Newest, i64::MIN, 20), (i64::MIN, i64::MIN));
        assert_eq!(window(Order::Oldest, i64::MAX, 20), (i64::MAX, i64::MAX));
        assert_eq!(window(Order::Oldest, i64::MAX - 1, i64::MAX), (i64::MAX, i64::MAX));
    }

    #[test]
    fn windows_are_wider_at_once_and_narrower_by_and_by() {
        let spread = Spread::default();
        assert_eq!(spread.ids(21), 21);
        spread.learn(false);
        assert_eq!(spread.ids(21), 21, "a row has an id");
        spread.learn(true);
        assert_eq!(spread.ids(16), 20);
        for ids in [19, 18, 17, 16, 16] {
            spread.learn(false);
            assert_eq!(spread.ids(16), ids);
        }
        for _ in 0..20 {
            spread.learn(true);
        }
        assert_eq!(spread.ids(16), 128);
        assert_eq!(spread.ids(u64::MAX), i64::MAX / 16);
    }
}
