//! Answers that go on: read in pieces at the pace of whoever takes them. Between two pieces no connection is held.

use std::collections::VecDeque;
use std::pin::Pin;

use futures_util::stream::{self, Stream, StreamExt as _};
use mundap_domain::Error;
use mundap_domain::page::Slice;
use tonic::{Response, Status};

use crate::call::Call;

/// Items as they are read.
pub(crate) type Walk<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Streams a list from its beginning by `piece`, which reads one piece of it and says which is the next.
///
/// # Errors
/// What the first piece says, as long as there is another answer to give.
pub(crate) async fn walk<T, P, F>(call: Call, piece: P) -> Result<Response<Walk<T>>, Status>
where
    T: Send + 'static,
    P: Fn(Call, Slice) -> F + Send + 'static,
    F: Future<Output = Result<Option<(VecDeque<T>, Slice)>, Error>> + Send,
{
    let first = piece(call.clone(), Slice::stream()).await.map_err(|error| call.refuse(error))?;
    let (items, next) = first.unzip();
    let state = (call, piece, items.unwrap_or_default(), next);
    let items = stream::try_unfold(state, |(call, piece, mut items, mut next)| async move {
        if items.is_empty()
            && let Some(slice) = next.take()
        {
            let read = piece(call.clone(), slice).await.map_err(|error| call.refuse(error))?;
            let (more, behind) = read.unzip();
            (items, next) = (more.unwrap_or_default(), behind);
        }
        Ok(items.pop_front().map(|item| (item, (call, piece, items, next))))
    });
    Ok(Response::new(items.boxed()))
}
