//! Connections that are kept at hand instead of being given back.
//!
//! The driver's pool tests each connection that is given back, which is a round trip: as much as a short statement takes by
//! itself. So a connection whose work came to a good end is kept for what its thread does next. Whatever failed or was
//! given up goes back to the pool and is tested there; what lay idle for a moment, or was idle while there was trouble, is tested
//! before it is used. Not all of a pool's connections may be kept: others find some too.
//!
//! What arrives on a socket is heard by the thread that opened it, which has to wake whoever else waits for it: what is kept of a
//! server's was opened by the thread that keeps it.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use scopeguard::ScopeGuard;
use sea_orm::sea_query::Values;
use sea_orm::sqlx::pool::PoolConnection;
use sea_orm::sqlx::query::Query;
use sea_orm::sqlx::{self, AssertSqlSafe, Connection as _, Database, IntoArguments, MySql, Pool};
use sea_orm::{ConnAcquireErr, DbErr, RuntimeErr, Statement};
use sea_query_sqlx::SqlxValues;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use crate::batch::home;
use crate::limit::Trouble;

/// Where connections are kept: threads share a place only where there are more of them.
const PLACES: usize = 16;

/// After so long without use one is not needed, and closed.
const IDLE: Duration = Duration::from_secs(30);

/// And after so long anyway: the pool knows how old one may become.
const AWAY: Duration = Duration::from_mins(10);

/// How long it may take to say good-bye to a server that may have gone.
const GOODBYE: Duration = Duration::from_secs(1);

/// Those of a pool that are kept, each with what whoever prepared it noted of it.
pub(crate) struct Kept<DB: Database, N = ()> {
    pool: Pool<DB>,
    /// How many more may be kept.
    room: Arc<Semaphore>,
    places: [Mutex<Vec<Idle<DB, N>>>; PLACES],
    trouble: Trouble,
    /// How many ask the pool itself.
    wanted: Arc<AtomicUsize>,
}

/// A connection that waits for its next use.
struct Idle<DB: Database, N> {
    connection: Out<DB, N>,
    since: Instant,
}

/// A connection that is not in the pool. Dropping it gives it back, and it is tested there.
pub(crate) struct Out<DB: Database, N = ()> {
    pub(crate) connection: PoolConnection<DB>,
    /// None unless it was prepared since it came from the pool.
    pub(crate) note: Option<N>,
    /// Where it was opened, so that its thread hears first of what arrives for it.
    place: usize,
    since: Instant,
    /// That it may be kept.
    _room: OwnedSemaphorePermit,
}

/// A connection that is closed when this is dropped, unless it comes to a good end and is taken out. The pool would test it, without
/// a time limit, and be one short meanwhile.
pub(crate) type Unfinished<DB, N = ()> = ScopeGuard<Out<DB, N>, fn(Out<DB, N>)>;

tokio::task_local! {
    /// Whether the connection that is waited for was opened for it.
    static OPENED: Cell<bool>;
}

/// To be said by a pool that has opened a connection of a server.
pub(crate) fn opened() {
    // Elsewhere nobody wants to know.
    let _ = OPENED.try_with(|opened| opened.set(true));
}

impl<DB: Database, N> Out<DB, N> {
    pub(crate) fn unfinished(self) -> Unfinished<DB, N> {
        scopeguard::guard(self, Self::discard)
    }

    /// The connection, if it answers.
    async fn tested(self) -> Option<Self> {
        let mut tested = self.unfinished();
        tested.connection.ping().await.ok()?;
        Some(ScopeGuard::into_inner(tested))
    }

    /// Closes it: its server may have gone, or it is in the middle of something.
    fn discard(self) {
        discard(self.connection);
    }
}

/// Closes a connection. The pool may open another at once.
fn discard<DB: Database>(connection: PoolConnection<DB>) {
    let connection = connection.detach();
    if let Ok(runtime) = Handle::try_current() {
        runtime.spawn(timeout(GOODBYE, connection.close()));
    }
}

impl<DB: Database, N> Kept<DB, N> {
    /// Keeps so many of the pool's connections. `trouble` says when they are in doubt.
    pub(crate) fn new(pool: Pool<DB>, most: u32, trouble: Trouble) -> Self {
        let places = std::array::from_fn(|_| Mutex::new(Vec::new()));
        Self { pool, room: Arc::new(Semaphore::new(most as usize)), places, trouble, wanted: Arc::default() }
    }

    fn place(&self, place: usize) -> MutexGuard<'_, Vec<Idle<DB, N>>> {
        self.places[place].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last one that was put there, and whether it is in doubt.
    fn find(&self, place: usize) -> Option<(Out<DB, N>, bool)> {
        // A statement of its own: the place is free again.
        let idle = self.place(place).pop();
        let Idle { connection, since } = idle?;
        Some((connection, self.trouble.doubts(since.elapsed())))
    }

    /// One of another place.
    fn find_elsewhere(&self, place: usize) -> Option<(Out<DB, N>, bool)> {
        (1..PLACES).find_map(|step| self.find((place + step) % PLACES))
    }

    /// One that is kept for this thread and not in doubt, at once.
    pub(crate) fn at_hand(&self) -> Option<Out<DB, N>> {
        let mut idle = self.place(home() % PLACES);
        if self.trouble.doubts(idle.last()?.since.elapsed()) { None } else { idle.pop().map(|idle| idle.connection) }
    }

    /// One that is kept, or a new one to be kept; none where all that may be are in use.
    ///
    /// # Errors
    /// The pool's, where it gives no connection.
    pub(crate) async fn take(&self) -> Result<Option<Out<DB, N>>, sqlx::Error> {
        let place = home() % PLACES;
        let mut found = self.find(place);
        let mut room = None;
        if found.is_none() {
            room = self.room.clone().try_acquire_owned().ok();
            if room.is_none() {
                found = self.find_elsewhere(place);
            }
        }
        let kept = match found {
            Some((connection, true)) => connection.tested().await,
            Some((connection, false)) => Some(connection),
            None => None,
        };
        if kept.is_some() {
            return Ok(kept);
        }
        let Some(room) = room.or_else(|| self.room.clone().try_acquire_owned().ok()) else { return Ok(None) };
        let out = |connection| Out { connection, note: None, place, since: Instant::now(), _room: room };
        // Seldom, and large.
        Box::pin(self.here()).await.map(out).map(Some)
    }

    /// One of the pool; of a server, one that this thread has opened. Where there is trouble any will do: a server is not helped by
    /// having to open more.
    async fn here(&self) -> Result<PoolConnection<DB>, sqlx::Error> {
        loop {
            let acquiring = async { (self.pool.acquire().await, OPENED.with(Cell::get)) };
            let (connection, is_opened_here) = OPENED.scope(Cell::new(false), acquiring).await;
            let connection = connection?;
            // SQLite's connections have no sockets.
            if is_opened_here || DB::NAME != MySql::NAME || self.is_in_doubt() {
                return Ok(connection);
            }
            discard(connection);
        }
    }

    /// Keeps a connection whose work came to a good end.
    pub(crate) fn keep(&self, connection: Out<DB, N>) {
        let is_wanted = self.wanted.load(Ordering::Relaxed) > 0 && self.pool_is_empty();
        if self.is_in_doubt() || is_wanted || connection.since.elapsed() >= AWAY {
            return;
        }
        let (place, since) = (connection.place, Instant::now());
        let mut idle = self.place(place);
        // One at a time: those that are needed least are the first.
        let oldest = idle.first().is_some_and(|oldest| oldest.since.elapsed() >= IDLE).then(|| idle.remove(0));
        idle.push(Idle { connection, since });
        drop(idle);
        if let Some(Idle { connection, .. }) = oldest {
            connection.discard();
        }
        if self.pool.is_closed() {
            self.give_back();
        }
    }

    /// Whether there is trouble, so that none of them is to be trusted and nothing is kept.
    pub(crate) fn is_in_doubt(&self) -> bool {
        self.trouble.is_recent()
    }

    /// After one of them has failed: the others are tested before they are used.
    pub(crate) fn distrust(&self) {
        self.trouble.mark();
    }

    /// Gives back what is idle.
    pub(crate) fn give_back(&self) {
        drop(self.take_idle());
    }

    /// For whoever asks the pool itself, until what this gives is dropped: where the pool has no connection, one that does nothing
    /// is given back, or the next ones whose work is done.
    pub(crate) fn wanted(&self) -> Wanted {
        self.wanted.fetch_add(1, Ordering::Relaxed);
        if self.pool_is_empty() {
            drop((0..PLACES).find_map(|place| self.find(place)));
        }
        Wanted(self.wanted.clone())
    }

    fn pool_is_empty(&self) -> bool {
        self.pool.num_idle() == 0 && self.pool.size() >= self.pool.options().get_max_connections()
    }

    /// Closes what is idle.
    pub(crate) fn discard_idle(&self) {
        for idle in self.take_idle() {
            idle.connection.discard();
        }
    }

    fn take_idle(&self) -> Vec<Idle<DB, N>> {
        (0..PLACES).flat_map(|place| std::mem::take(&mut *self.place(place))).collect()
    }

    /// How many are kept and not in use.
    pub(crate) fn idle(&self) -> usize {
        (0..PLACES).map(|place| self.place(place).len()).sum()
    }

    pub(crate) fn pool(&self) -> &Pool<DB> {
        &self.pool
    }

    #[cfg(test)]
    pub(crate) fn room(&self) -> usize {
        self.room.available_permits()
    }
}

/// That somebody asks the pool itself.
pub(crate) struct Wanted(Arc<AtomicUsize>);

impl Drop for Wanted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A statement as the driver has it.
pub(crate) fn query<DB: Database>(statement: Statement) -> Query<'static, DB, SqlxValues>
where
    SqlxValues: IntoArguments<DB>,
{
    let values = statement.values.unwrap_or_else(|| Values(Vec::new()));
    sqlx::query_with(AssertSqlSafe(statement.sql), SqlxValues(values))
}

/// As SeaORM puts it.
pub(crate) fn query_error(error: sqlx::Error) -> DbErr {
    DbErr::Query(RuntimeErr::SqlxError(error.into()))
}

/// As SeaORM puts it.
pub(crate) fn acquire_error(error: sqlx::Error) -> DbErr {
    match error {
        sqlx::Error::PoolTimedOut => DbErr::ConnectionAcquire(ConnAcquireErr::Timeout),
        sqlx::Error::PoolClosed => DbErr::ConnectionAcquire(ConnAcquireErr::ConnectionClosed),
        error => DbErr::Conn(RuntimeErr::SqlxError(error.into())),
    }
}
