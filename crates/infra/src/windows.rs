//! Pages of lists as ranges of ids: those that are asked for at the same time are one statement.
//!
//! Most of what a page costs a server is to plan its statement, which a `LIMIT` for each page would have it do for each.
//! Several ranges of ids are planned once, and where a page ends can be guessed. Of a whole list, ids are given one after the
//! other, so the rows of a page are nearly those of as many ids. Of rows that lie together, as the comments of a question do, a
//! page in their order ends where it did the last time: what is new comes behind it. Where a guess was too short a page has the
//! rest from a statement of its own, and the next guess is a better one. Rows are never remembered, only where pages end.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use futures_util::future::try_join_all;
use mundap_domain::StoreError;
use mundap_domain::page::{Order, Slice};
use quick_cache::sync::Cache;
use sea_orm::FromQueryResult;
use tokio::time::Instant;

use crate::author::ByAuthor;
use crate::batch::{Answer, Batch, Pool};
use crate::row::{Naming, Written};

/// Rows of one statement at the most, if each id has one: it has to hold all of them at once.
const MOST: i64 = 512;

/// Pages whose ends are remembered, a few hundred KB at the most.
const ENDS: usize = 4_096;

/// How long a page that was not full is taken for one that everything behind it fits into.
const SHORT: Duration = Duration::from_secs(5);

/// Which pages go together.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Kind {
    /// The column that each page's rows have a value in; none for pages of the whole list.
    column: Option<&'static str>,
    order: Order,
    /// How many rows a page may have.
    limit: u64,
    naming: Naming,
}

/// Ids from the first to the last, of all rows or of those with this value in the column of their kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) of: Option<i64>,
    pub(crate) first: i64,
    pub(crate) last: i64,
}

/// Pages by where they are looked for.
pub(crate) struct Windows<M> {
    list: &'static Written,
    batch: Batch<Window, Vec<M>, Kind>,
    spread: Arc<Spread>,
    ends: Ends,
}

impl<M: ByAuthor + Clone + FromQueryResult + Send + 'static> Windows<M> {
    /// Reads such pages of this list from this pool.
    pub(crate) fn new(list: &'static Written, pool: Pool) -> Self {
        let spread = Arc::new(Spread::default());
        let learning = spread.clone();
        let batch = Batch::new(pool.limit.statement, move |kind, windows| {
            let reading = Reading { list, pool: pool.clone(), spread: learning.clone(), kind };
            Box::pin(async move { reading.pages(windows).await })
        });
        Self { list, batch, spread, ends: Ends::default() }
    }

    /// The rows of a slice, of those where `of` has this value; none where nobody can guess where it ends.
    pub(crate) async fn get(
        &self,
        of: Option<(&'static str, i64)>,
        slice: &Slice,
        naming: Naming,
    ) -> Option<Answer<Vec<M>>> {
        let window = match (of, slice.after) {
            (None, Some(after)) => self.spread.window(slice.order, after, slice.limit),
            (Some((column, value)), _) if self.remembers(column, slice) => self.ends.window(value, slice)?,
            _ => return None,
        };
        let column = of.map(|(column, _)| column);
        let kind = Kind { column, order: slice.order, limit: slice.limit, naming };
        let rows = self.batch.get_in(kind, window).await;
        if let Ok(rows) = &rows {
            self.learn(of, slice, rows);
        }
        Some(rows)
    }

    /// Remembers where a page ended.
    pub(crate) fn learn(&self, of: Option<(&'static str, i64)>, slice: &Slice, rows: &[M]) {
        if let Some((column, value)) = of
            && self.remembers(column, slice)
        {
            let is_full = rows.len() as u64 >= slice.limit;
            self.ends.learn(value, slice, rows.last().filter(|_| is_full).map(|last| last.reading().id));
        }
    }

    /// What is new comes at the end of a page in their order alone.
    fn remembers(&self, column: &str, slice: &Slice) -> bool {
        self.list.clustered_by == Some(column) && slice.order == Order::Oldest
    }
}

/// How many ids a row takes up, in parts of 256. More as soon as a page has to be completed, and slowly fewer: to complete pages
/// costs more than to read some rows too many.
struct Spread(AtomicI64);

impl Default for Spread {
    fn default() -> Self {
        Self(AtomicI64::new(Self::DENSE))
    }
}

impl Spread {
    /// No id is missing.
    const DENSE: i64 = 256;
    /// So many are that nothing is gained by guessing.
    const MOST: i64 = 8 * Self::DENSE;

    /// How many ids have so many rows, if they are as those before.
    fn ids(&self, rows: u64) -> i64 {
        i64::try_from(rows).unwrap_or(i64::MAX).saturating_mul(self.0.load(Ordering::Relaxed)) / Self::DENSE
    }

    /// Where a page is looked for.
    fn window(&self, order: Order, after: i64, rows: u64) -> Window {
        let ids = self.ids(rows);
        let (first, last) = match order {
            Order::Newest => (after.saturating_sub(ids), after.saturating_sub(1)),
            Order::Oldest => (after.saturating_add(1), after.saturating_add(ids)),
        };
        Window { of: None, first, last }
    }

    /// After one statement. Two at once may each overlook what the other learnt: it is a guess.
    fn learn(&self, were_missing: bool) {
        let now = self.0.load(Ordering::Relaxed);
        let next = if were_missing { now + now / 16 } else { now - 1 };
        self.0.store(next.clamp(Self::DENSE, Self::MOST), Ordering::Relaxed);
    }
}

/// Where pages ended, by the value that their rows have, what they are behind, and how many rows they may have.
struct Ends(Cache<(i64, i64, u64), End>);

#[derive(Clone, Copy)]
struct End {
    /// The last id of a page that was full.
    last: Option<i64>,
    at: Instant,
}

impl Default for Ends {
    fn default() -> Self {
        Self(Cache::new(ENDS))
    }
}

impl Ends {
    fn key(of: i64, slice: &Slice) -> (i64, i64, u64) {
        (of, slice.after.unwrap_or_default(), slice.limit)
    }

    fn window(&self, of: i64, slice: &Slice) -> Option<Window> {
        let end = self.0.get(&Self::key(of, slice))?;
        let last = end.last.or_else(|| (end.at.elapsed() < SHORT).then_some(i64::MAX))?;
        Some(Window { of: Some(of), first: slice.after.unwrap_or_default().saturating_add(1), last })
    }

    /// `last` is that of a full page. What is known of one that was not full gets no younger: it is read whole now and then.
    fn learn(&self, of: i64, slice: &Slice, last: Option<i64>) {
        let key = Self::key(of, slice);
        let is_known =
            self.0.get(&key).is_some_and(|end| end.last == last && (last.is_some() || end.at.elapsed() < SHORT));
        if !is_known {
            self.0.insert(key, End { last, at: Instant::now() });
        }
    }
}

impl Window {
    /// Where a page goes on that this has not filled; none where no id can follow.
    const fn behind(self, order: Order) -> Option<i64> {
        match order {
            Order::Newest if self.first <= 1 => None,
            Order::Newest => Some(self.first),
            Order::Oldest if self.last == i64::MAX => None,
            Order::Oldest => Some(self.last),
        }
    }

    /// What the page is behind.
    const fn after(self, order: Order) -> i64 {
        match order {
            Order::Newest => self.last.saturating_add(1),
            Order::Oldest => self.first.saturating_sub(1),
        }
    }

    /// The rows that it may have, if each id has one.
    const fn rows(self, limit: i64) -> i64 {
        // What lies together has few of the ids.
        if self.of.is_some() { limit } else { self.last.saturating_sub(self.first).saturating_add(1) }
    }

    /// Its places among these, which are sorted: `limit` at most, of those with higher ids if the newest come first.
    fn places(self, order: Order, ids: &[(Option<i64>, i64)], limit: usize) -> Range<usize> {
        let start = ids.partition_point(|id| *id < (self.of, self.first));
        let end = ids.partition_point(|id| *id <= (self.of, self.last)).max(start);
        match order {
            Order::Newest => start.max(end.saturating_sub(limit))..end,
            Order::Oldest => start..end.min(start.saturating_add(limit)),
        }
    }
}

struct Reading {
    list: &'static Written,
    pool: Pool,
    spread: Arc<Spread>,
    kind: Kind,
}

impl Reading {
    async fn pages<M>(&self, windows: Vec<Window>) -> Result<Vec<Answer<Vec<M>>>, StoreError>
    where
        M: ByAuthor + Clone + FromQueryResult + Send,
    {
        let Kind { order, limit, .. } = self.kind;
        let rows = i64::try_from(limit).unwrap_or(i64::MAX);
        let most = windows.iter().map(|window| window.rows(rows)).max().unwrap_or_default();
        let together = usize::try_from(MOST / most.max(1)).unwrap_or_default();
        if windows.len() == 1 || together < 2 {
            let pages = windows.iter().map(|window| self.rest(window.of, window.after(order), limit));
            return Ok(try_join_all(pages).await?.into_iter().map(Ok).collect());
        }
        let pages = try_join_all(windows.chunks(together).map(|windows| self.together(windows))).await?;
        Ok(pages.into_iter().flatten().map(Ok).collect())
    }

    /// The rows behind this one, by a statement of their own.
    async fn rest<M>(&self, of: Option<i64>, after: i64, limit: u64) -> Result<Vec<M>, StoreError>
    where
        M: ByAuthor + FromQueryResult + Send,
    {
        let Kind { column, order, naming, .. } = self.kind;
        let slice = Slice { after: Some(after), order, limit, bytes: Slice::ANY_SIZE };
        self.pool.run(self.list.rows(&self.pool.connection, column.zip(of), &slice, naming)).await
    }

    /// A page for each window.
    async fn together<M>(&self, windows: &[Window]) -> Result<Vec<Vec<M>>, StoreError>
    where
        M: ByAuthor + Clone + FromQueryResult + Send,
    {
        let Kind { column, order, limit, naming } = self.kind;
        let statement = self.list.within(self.pool.connection.get_database_backend(), column, windows, naming);
        let rows = self.list.all(&self.pool.connection, statement, naming);
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut pages = deal(self.pool.run(rows).await?, windows, order, limit);
        let short = pages.iter_mut().zip(windows).filter(|(page, _)| page.len() < limit);
        let short = short.filter_map(|(page, window)| Some((page, window.of, window.behind(order)?)));
        let completed = try_join_all(short.map(|(page, of, after)| self.complete(page, of, after))).await?;
        if column.is_none() {
            self.spread.learn(completed.contains(&true));
        }
        Ok(pages)
    }

    /// Adds what a page lacks, and tells whether there was more.
    async fn complete<M>(&self, page: &mut Vec<M>, of: Option<i64>, after: i64) -> Result<bool, StoreError>
    where
        M: ByAuthor + FromQueryResult + Send,
    {
        let rest = self.rest(of, after, self.kind.limit - page.len() as u64).await?;
        let were_missing = !rest.is_empty();
        page.extend(rest);
        Ok(were_missing)
    }
}

/// To each window its rows, in this order.
fn deal<M: ByAuthor + Clone>(mut rows: Vec<M>, windows: &[Window], order: Order, limit: usize) -> Vec<Vec<M>> {
    let id = |row: &M| (row.lies_with(), row.reading().id);
    rows.sort_unstable_by_key(id);
    let ids: Vec<_> = rows.iter().map(id).collect();
    let places: Vec<Range<usize>> = windows.iter().map(|window| window.places(order, &ids, limit)).collect();
    // Each row is given away at the last place that it is wanted at.
    let mut wanted = vec![0_usize; rows.len()];
    places.iter().flat_map(Clone::clone).for_each(|place| wanted[place] += 1);
    let mut rows: Vec<Option<M>> = rows.into_iter().map(Some).collect();
    let mut row = |place: usize| {
        wanted[place] -= 1;
        if wanted[place] == 0 { rows[place].take() } else { rows[place].clone() }
    };
    let page = |places: Range<usize>| match order {
        Order::Newest => places.rev().filter_map(&mut row).collect(),
        Order::Oldest => places.filter_map(&mut row).collect(),
    };
    places.into_iter().map(page).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::batch::tests::in_paused_time;

    /// What is behind an id in this order.
    fn list(order: Order, ids: &BTreeSet<i64>, after: i64) -> Vec<i64> {
        match order {
            Order::Newest => ids.range(..after).rev().copied().collect(),
            Order::Oldest => ids.range(after + 1..).copied().collect(),
        }
    }

    proptest! {
        /// Whichever ids there are, and wherever a window ends.
        #[test]
        fn a_window_and_what_follows_it_are_the_page(
            ids in proptest::collection::btree_set(1_i64..60, 0..40),
            (after, width) in (0_i64..62, 0_i64..70),
            limit in 1_usize..20,
            is_newest in any::<bool>(),
            of in proptest::option::of(1_i64..4),
        ) {
            let order = if is_newest { Order::Newest } else { Order::Oldest };
            let (first, last) = if is_newest { (after - width, after - 1) } else { (after + 1, after + width) };
            let window = Window { of, first, last };
            prop_assert_eq!(window.after(order), after);
            // Others have the same ids.
            let all: BTreeSet<_> = [None, Some(1), Some(2), Some(3)].iter().flat_map(|of| ids.iter().map(|id| (*of, *id))).collect();
            let all: Vec<_> = all.into_iter().collect();
            let mut page = all[window.places(order, &all, limit)].to_vec();
            prop_assert!(page.iter().all(|(owner, _)| *owner == of));
            if is_newest {
                page.reverse();
            }
            let mut page: Vec<i64> = page.into_iter().map(|(_, id)| id).collect();
            if page.len() < limit && let Some(after) = window.behind(order) {
                page.extend(list(order, &ids, after));
                page.truncate(limit);
            }
            let mut expected = list(order, &ids, after);
            expected.truncate(limit);
            prop_assert_eq!(page, expected);
        }
    }

    #[test]
    fn the_ends_of_the_numbers_are_no_trap() {
        let spread = Spread::default();
        let window = |order, after, rows| {
            let Window { first, last, .. } = spread.window(order, after, rows);
            (first, last)
        };
        assert_eq!(window(Order::Newest, i64::MIN, 20), (i64::MIN, i64::MIN));
        assert_eq!(window(Order::Oldest, i64::MAX, 20), (i64::MAX, i64::MAX));
        assert_eq!(window(Order::Oldest, i64::MAX - 1, u64::MAX), (i64::MAX, i64::MAX));
        assert_eq!(Window { of: None, first: i64::MIN, last: i64::MAX }.rows(20), i64::MAX);
    }

    #[test]
    fn windows_are_wider_at_once_and_narrower_by_and_by() {
        let spread = Spread::default();
        assert_eq!(spread.ids(21), 21);
        spread.learn(false);
        assert_eq!(spread.ids(21), 21, "a row has an id");
        spread.learn(true);
        assert_eq!(spread.ids(256), 272);
        for ids in (256..272).rev().chain([256]) {
            spread.learn(false);
            assert_eq!(spread.ids(256), ids);
        }
        for _ in 0..100 {
            spread.learn(true);
        }
        assert_eq!(spread.ids(16), 128);
        assert_eq!(spread.ids(u64::MAX), i64::MAX / 256);
    }

    #[test]
    fn the_end_of_a_full_page_is_remembered_and_of_a_short_one_for_a_while() {
        in_paused_time(async {
            let ends = Ends::default();
            let slice = |after| Slice { after, order: Order::Oldest, limit: 3, bytes: Slice::ANY_SIZE };
            let window =
                |of, after| ends.window(of, &slice(after)).map(|window| (window.of, window.first, window.last));
            assert_eq!(window(7, None), None);
            ends.learn(7, &slice(None), Some(40));
            ends.learn(7, &slice(Some(40)), None);
            assert_eq!(window(7, None), Some((Some(7), 1, 40)));
            assert_eq!(window(7, Some(40)), Some((Some(7), 41, i64::MAX)));
            assert_eq!((window(8, None), window(7, Some(39))), (None, None));
            // To be told the same again makes it no younger.
            tokio::time::advance(SHORT / 2).await;
            ends.learn(7, &slice(Some(40)), None);
            tokio::time::advance(SHORT / 2).await;
            assert_eq!(window(7, None), Some((Some(7), 1, 40)));
            assert_eq!(window(7, Some(40)), None);
            ends.learn(7, &slice(Some(40)), None);
            assert_eq!(window(7, Some(40)), Some((Some(7), 41, i64::MAX)));
            ends.learn(7, &slice(None), Some(50));
            assert_eq!(window(7, None), Some((Some(7), 1, 50)), "what was deleted made it longer");
        });
    }
}
