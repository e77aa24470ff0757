//! An answer on its way: watched until its last message is sent, given up where nobody reads it.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::Status;
use tonic::body::Body;

use super::record::Record;
use crate::admission::Seat;

/// What a stream of messages holds, beside its record.
pub(super) struct Stream {
    /// Its place, kept until the last message is sent.
    pub(super) seat: Option<Seat>,
    /// When its caller gives up.
    pub(super) deadline: Option<Instant>,
    /// How long it may lie unread.
    pub(super) patience: Duration,
}

/// The answer, with its body watched.
pub(super) fn watched(answer: Response<Body>, record: Record, stream: Option<Stream>) -> Response<Body> {
    answer.map(|body| {
        let deadline = stream.as_ref().and_then(|stream| stream.deadline);
        let deadline = deadline.map(|deadline| Box::pin(sleep_until(deadline)));
        let (seat, patience) = stream.map(|stream| (stream.seat, stream.patience)).unzip();
        let sending = Sending { body, record, seat: seat.flatten(), unread_since: None, given_up: false };
        let sending = Arc::new(Mutex::new(sending));
        if let Some(patience) = patience {
            tokio::spawn(give_up_unread(Arc::downgrade(&sending), patience));
        }
        Body::new(Answer { sending, deadline })
    })
}

struct Answer {
    sending: Arc<Mutex<Sending>>,
    deadline: Option<Pin<Box<Sleep>>>,
}

struct Sending {
    body: Body,
    record: Record,
    seat: Option<Seat>,
    /// Since when what was taken last waits for its reader; no more is taken before there is room for it.
    unread_since: Option<Instant>,
    given_up: bool,
}

fn lock(sending: &Mutex<Sending>) -> MutexGuard<'_, Sending> {
    sending.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Frees what a stream holds that nobody reads: a place, and what was read for it. Its caller learns it with its next look;
/// until then nobody here can tell it, for there is no room to.
async fn give_up_unread(sending: Weak<Mutex<Sending>>, patience: Duration) {
    loop {
        let next = {
            let Some(sending) = sending.upgrade() else { return };
            let mut sending = lock(&sending);
            let now = Instant::now();
            match sending.unread_since {
                Some(since) if now.duration_since(since) >= patience => {
                    sending.given_up = true;
                    sending.body = Body::empty();
                    sending.seat = None;
                    return;
                }
                Some(since) => since + patience,
                None => now + patience,
            }
        };
        sleep_until(next).await;
    }
}

impl Sending {
    /// It ends here: what is read for it is given up.
    fn cut(&mut self, status: &Status) -> Frame<Bytes> {
        self.body = Body::empty();
        self.seat = None;
        self.record.end(status.code());
        let mut trailers = HeaderMap::new();
        // A status of ours fits into a header.
        let _ = status.add_header(&mut trailers);
        Frame::trailers(trailers)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.record.moved();
        self.unread_since = None;
        if std::mem::take(&mut self.given_up) {
            let unread = Status::deadline_exceeded("the answer lay unread for too long");
            return Poll::Ready(Some(Ok(self.cut(&unread))));
        }
        // What is read while it is sent belongs to the call.
        let body = Pin::new(&mut self.body);
        let polled = self.record.trace.span().in_scope(|| body.poll_frame(cx));
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                self.record.sent(frame);
                if frame.is_trailers() {
                    self.seat = None;
                } else {
                    self.unread_since = Some(Instant::now());
                }
            }
            Poll::Ready(Some(Err(status))) => self.record.end(status.code()),
            Poll::Ready(None) | Poll::Pending => {}
        }
        polled
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let mut sending = lock(&this.sending);
        if let Some(deadline) = &mut this.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            this.deadline = None;
            let late = Status::deadline_exceeded("the time that the caller gave is over");
            return Poll::Ready(Some(Ok(sending.cut(&late))));
        }
        sending.poll(cx)
    }

    fn is_end_stream(&self) -> bool {
        let sending = lock(&self.sending);
        sending.body.is_end_stream() && !sending.given_up
    }

    fn size_hint(&self) -> SizeHint {
        lock(&self.sending).body.size_hint()
    }
}
