//! Answers that go on: read in pieces at the pace of whoever takes them. Between two pieces no connection is held.

use std::collections::VecDeque;
use std::pin::Pin;

use futures_util::stream::{self, Stream, StreamExt as _};
use mundap_domain::Error;
use mundap_domain::page::Slice;
use tokio::task::yield_now;
use tonic::{Response, Status};

use crate::call::Call;

/// Items as they are read.
pub(crate) type Walk<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Waits for room to send before more is read. What was read so far is sent on now; whoever sends it comes back only when its
/// reader has room for more. A read that was begun already would stand still until then, and a connection with it.
pub(crate) async fn before_more() {
    yield_now().await;
}

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
            before_more().await;
            let caller = call.clone().by_now().await.map_err(|error| call.refuse(error))?;
            let read = piece(caller, slice).await.map_err(|error| call.refuse(error))?;
            let (more, behind) = read.unzip();
            (items, next) = (more.unwrap_or_default(), behind);
        }
        Ok(items.pop_front().map(|item| (item, (call, piece, items, next))))
    });
    Ok(Response::new(items.boxed()))
}

#[cfg(test)]
mod tests {
    use std::future::ready;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::FutureExt as _;
    use mundap_domain::Actor;
    use mundap_domain::mail::Language;

    use super::*;
    use crate::call::Said;

    #[tokio::test]
    async fn nothing_is_read_before_what_was_read_is_on_its_way() {
        let reads = Arc::new(AtomicUsize::new(0));
        let counted = reads.clone();
        let piece = move |_: Call, piece: Slice| {
            let n = counted.fetch_add(1, Ordering::Relaxed);
            ready(Ok((n < 2).then(|| (VecDeque::from([2 * n, 2 * n + 1]), piece))))
        };
        let voice = |_: &Error, _: Language| Said { message: String::new(), fields: Vec::new() };
        let call = Call::new(Actor::Anonymous, Language::default(), voice);
        let mut items = walk(call, piece).await.unwrap().into_inner();
        for n in 0..2 {
            for item in [2 * n, 2 * n + 1] {
                assert!(matches!(items.next().now_or_never(), Some(Some(Ok(found))) if found == item));
            }
            // This is where whoever sends sends on, and comes back when there is room.
            assert!(items.next().now_or_never().is_none());
            assert_eq!(reads.load(Ordering::Relaxed), n + 1);
        }
        assert!(matches!(items.next().now_or_never(), Some(None)));
    }
}
