//! Bodies that are made while they are sent: they keep their request's place, and take turns.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use actix_web::body::{BodySize, BoxBody, MessageBody};
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::lane::Seat;

/// Whose turn it is to make a piece. A piece takes milliseconds, which whoever asks for a single question would have to
/// wait for times the number of streams: so few make one at the same time, and the others stand in line.
#[derive(Clone)]
pub(super) struct Turns(Arc<Semaphore>);

impl Turns {
    pub(super) fn new(at_once: usize) -> Self {
        Self(Arc::new(Semaphore::new(at_once)))
    }

    /// One's turn, until it is dropped; none if there are no turns any more.
    pub(super) async fn mine(self) -> Option<OwnedSemaphorePermit> {
        self.0.acquire_owned().await.ok()
    }
}

/// A body that holds its request's place until it is sent, and its turn while a piece of it is made.
pub(super) struct Streaming {
    body: BoxBody,
    _seat: Option<Seat>,
    turns: Turns,
    /// While it stands in line.
    awaited: Option<LocalBoxFuture<'static, Option<OwnedSemaphorePermit>>>,
    /// While a piece is made.
    turn: Option<OwnedSemaphorePermit>,
}

impl Streaming {
    pub(super) fn new(body: BoxBody, seat: Option<Seat>, turns: Turns) -> Self {
        Self { body, _seat: seat, turns, awaited: None, turn: None }
    }
}

impl MessageBody for Streaming {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let this = self.get_mut();
        if this.turn.is_none() {
            let awaited = this.awaited.get_or_insert_with(|| this.turns.clone().mine().boxed_local());
            this.turn = ready!(awaited.poll_unpin(cx));
            this.awaited = None;
        }
        let piece = Pin::new(&mut this.body).poll_next(cx);
        if piece.is_ready() {
            this.turn = None;
        }
        piece
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use actix_web::Error;
    use actix_web::body::BodyStream;
    use futures_util::future::poll_fn;
    use futures_util::stream;
    use tokio::sync::watch;

    use super::super::tests::in_paused_time;
    use super::*;

    /// A body whose pieces are there as soon as `open` says so.
    fn body(turns: &Turns, open: &watch::Receiver<bool>) -> Streaming {
        let pieces = stream::unfold(open.clone(), |mut open| async {
            open.wait_for(|open| *open).await.ok()?;
            Some((Ok::<_, Error>(Bytes::from_static(b"piece")), open))
        });
        Streaming::new(BoxBody::new(BodyStream::new(Box::pin(pieces))), None, turns.clone())
    }

    async fn piece(body: &mut Streaming) -> Bytes {
        poll_fn(|cx| Pin::new(&mut *body).poll_next(cx)).await.unwrap().unwrap()
    }

    #[test]
    fn whose_turn_it_is_not_stands_in_line() {
        in_paused_time(async {
            let turns = Turns::new(1);
            let (opener, closed) = watch::channel(false);
            let (_kept, open) = watch::channel(true);
            let (mut slow, mut quick) = (body(&turns, &closed), body(&turns, &open));
            assert_eq!(piece(&mut quick).await, "piece", "between two pieces it is nobody's turn");
            let mut slow_one = pin!(piece(&mut slow));
            assert!(slow_one.as_mut().now_or_never().is_none(), "its piece is being made");
            let mut quick_one = Box::pin(piece(&mut quick));
            assert!(quick_one.as_mut().now_or_never().is_none(), "it is the other's turn");
            opener.send_replace(true);
            assert_eq!(slow_one.await, "piece");
            assert_eq!(quick_one.await, "piece");
        });
    }

    #[test]
    fn whoever_leaves_gives_up_the_turn() {
        in_paused_time(async {
            let turns = Turns::new(1);
            let (_opener, closed) = watch::channel(false);
            let (_kept, open) = watch::channel(true);
            let (mut held, mut waiting) = (body(&turns, &closed), body(&turns, &closed));
            assert!(piece(&mut held).now_or_never().is_none());
            assert!(piece(&mut waiting).now_or_never().is_none());
            drop(waiting);
            drop(held);
            assert_eq!(piece(&mut body(&turns, &open)).now_or_never().unwrap(), "piece");
        });
    }
}
