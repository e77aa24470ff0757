//! Pages of lists. Those who ask for the same one at the same time read it together: most people read the first.

use std::sync::Arc;

use mundap_domain::StoreError;
use mundap_domain::page::Slice;
use sea_orm::{ConnectionTrait, FromQueryResult, StreamTrait};

use crate::author::ByAuthor;
use crate::batch::{Batch, Pool};
use crate::row::{Naming, Written};
use crate::{Batches, Origin, Session};

/// Which one: of those where a column has a value, this slice, with its authors or without.
type Page = (Option<(&'static str, i64)>, Slice, Naming);

/// Pages, each read by one statement for all who wait for it.
pub(crate) type Pages<M> = Batch<(), Arc<Vec<M>>, Page>;

/// What reads pages of this list from this pool.
pub(crate) fn pages<M>(list: &'static Written, pool: Pool) -> Pages<M>
where
    M: ByAuthor + FromQueryResult + Send + Sync + 'static,
{
    Batch::new(pool.limit.statement, move |(of, slice, naming), waiting| {
        let pool = pool.clone();
        Box::pin(async move {
            let rows = Arc::new(pool.run(list.rows(&pool.connection, of, &slice, naming)).await?);
            Ok(waiting.into_iter().map(|()| Ok(rows.clone())).collect())
        })
    })
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
                let page = pages(batches).get_in((of, *slice, naming), ());
                self.timed(query, page).await.map(Arc::unwrap_or_clone)
            }
            _ => self.run(query, list.rows(&self.connection, of, slice, naming)).await,
        }
    }
}
