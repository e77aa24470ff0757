//! Pages of lists. Those who ask for the same one at the same time read it together: most people read the first. Different ones
//! go together where it can be guessed where they end.

use std::sync::Arc;

use mundap_domain::StoreError;
use mundap_domain::page::Slice;
use sea_orm::{ConnectionTrait, FromQueryResult, StreamTrait};

use crate::author::ByAuthor;
use crate::batch::{Answer, Batch, Pool};
use crate::row::{Naming, Written};
use crate::windows::Windows;
use crate::{Batches, Origin, Session};

/// Which one: of those where a column has a value, this slice, with its authors or without.
type Page = (Option<(&'static str, i64)>, Slice, Naming);

/// Pages of a list.
pub(crate) struct Pages<M> {
    /// Each read by one statement for all who wait for it.
    same: Batch<(), Arc<Vec<M>>, Page>,
    windows: Windows<M>,
}

impl<M: ByAuthor + Clone + FromQueryResult + Send + Sync + 'static> Pages<M> {
    /// Reads pages of this list from this pool.
    pub(crate) fn new(list: &'static Written, pool: Pool) -> Self {
        let windows = Windows::new(list, pool.clone());
        let same = Batch::new(pool.limit.statement, move |(of, slice, naming), waiting| {
            let pool = pool.clone();
            Box::pin(async move {
                let rows = Arc::new(pool.run(list.rows(&pool.connection, of, &slice, naming)).await?);
                Ok(waiting.into_iter().map(|()| Ok(rows.clone())).collect())
            })
        });
        Self { same, windows }
    }

    async fn get(&self, (of, slice, naming): Page) -> Answer<Vec<M>> {
        if let Some(rows) = self.windows.get(of, &slice, naming).await {
            return rows;
        }
        let rows = self.same.get_in((of, slice, naming), ()).await?;
        self.windows.learn(of, &slice, &rows);
        Ok(Arc::unwrap_or_clone(rows))
    }
}

impl<C: ConnectionTrait + StreamTrait + Send> Session<C> {
    /// The rows of a slice of `list`, of those where `of` has this value.
    pub(crate) async fn rows<M>(
        &self,
        query: &'static str,
        list: &Written,
        pages: impl Fn(&Batches) -> &Pages<M>,
        of: Option<(&'static str, i64)>,
        slice: &Slice,
        naming: Naming,
    ) -> Result<Vec<M>, StoreError>
    where
        M: ByAuthor + Clone + FromQueryResult + Send + Sync + 'static,
    {
        match &self.origin {
            // A walk's pieces are large, and no two walks are at the same place.
            Origin::Pool { batches, .. } if slice.bytes == Slice::ANY_SIZE => {
                self.timed(query, pages(batches).get((of, *slice, naming))).await
            }
            Origin::Pool { .. } | Origin::Unit { .. } => {
                self.run(query, list.rows(&self.connection, of, slice, naming)).await
            }
        }
    }
}
