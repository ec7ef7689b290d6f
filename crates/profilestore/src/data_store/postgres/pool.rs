//! The connections of a store, shared by those who read and those who write.
//!
//! A part of them failing is no outage: where the server refuses another connection because there
//! are too many, the store goes on with those that it has, and tries for more now and then. So a
//! connection is a turn, taken in the order of asking, and a refused one takes its turn with it. (A
//! general pool tries to connect for each caller instead, and fails each.)

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use super::connect::{Conn, Dialer};
use crate::data_store::StoreError;

/// How long to get by with the connections there are, before more are tried for.
const GET_BY: Duration = Duration::from_secs(10);

pub(super) struct Pool {
    pub(super) dialer: Dialer,
    idle: Mutex<Vec<Conn>>,
    turns: Arc<Semaphore>,
    size: usize,
    missing: Mutex<Missing>,
    warned: AtomicBool,
}

/// Connections that the server refused.
#[derive(Default)]
struct Missing {
    count: usize,
    /// When they are tried for again.
    until: Option<Instant>,
}

/// A connection in use. It is kept for the next one if it is said to be at rest again before this
/// is dropped: a caller that is called off in the middle leaves it in the middle of something.
pub(super) struct Lease {
    /// None when it was lost; see [`Lease::connection`].
    conn: Option<Conn>,
    at_rest: bool,
    pool: Arc<Pool>,
    /// Given back when this is dropped.
    turn: Option<OwnedSemaphorePermit>,
}

impl Pool {
    pub(super) fn new(dialer: Dialer, size: usize) -> Arc<Self> {
        let turns = Arc::new(Semaphore::new(size));
        Arc::new(Self {
            dialer,
            idle: Mutex::default(),
            turns,
            size,
            missing: Mutex::default(),
            warned: AtomicBool::new(false),
        })
    }

    /// The next connection that is free, made if need be. Fails when the database cannot be
    /// reached, or refuses even the only one.
    pub(super) async fn take(self: &Arc<Self>) -> Result<Lease, StoreError> {
        self.try_for_more();
        loop {
            let turn = self.turns.clone().acquire_owned().await.map_err(|_| closed())?;
            let mut lease =
                Lease { conn: self.pop(), at_rest: true, pool: self.clone(), turn: Some(turn) };
            if lease.conn.is_some() {
                return Ok(lease);
            }
            match self.dialer.try_connect(None).await {
                Ok(conn) => {
                    lease.conn = Some(conn);
                    return Ok(lease);
                }
                Err(refusal) if !refusal.too_many || !self.get_by_without(&refusal.error) => {
                    return Err(refusal.error);
                }
                // One of the others will be free.
                Err(_) => lease.turn.take().into_iter().for_each(OwnedSemaphorePermit::forget),
            }
        }
    }

    fn pop(&self) -> Option<Conn> {
        let mut idle = self.idle.lock();
        std::iter::from_fn(|| idle.pop()).find(|conn| !conn.is_closed())
    }

    /// Gives up one connection for a while; false when it is the only one.
    fn get_by_without(&self, err: &StoreError) -> bool {
        let mut missing = self.missing.lock();
        if missing.count + 1 >= self.size {
            return false;
        }
        missing.count += 1;
        missing.until = Some(self.dialer.options.env.after(GET_BY));
        metrics::gauge!("profilestore_postgres_connections_missing").set(missing.count as f64);
        if !self.warned.swap(true, Relaxed) {
            tracing::warn!(%err, wanted = self.size, "the database refuses more connections; the store goes on with fewer");
        }
        true
    }

    fn try_for_more(&self) {
        let mut missing = self.missing.lock();
        if missing.until.is_some_and(|until| until <= self.dialer.options.env.now()) {
            self.turns.add_permits(std::mem::take(&mut *missing).count);
            metrics::gauge!("profilestore_postgres_connections_missing").set(0.0);
        }
    }

    /// Drops connections that have ended.
    pub(super) fn drop_closed(&self) {
        self.idle.lock().retain(|conn| !conn.is_closed());
    }
}

impl Lease {
    /// The connection, made anew if it was lost; to be followed by [`Lease::rest`] or
    /// [`Lease::discard`].
    pub(super) async fn connection(&mut self) -> Result<&Conn, StoreError> {
        if self.conn.as_ref().is_none_or(Conn::is_closed) {
            self.conn = None;
            self.conn = Some(self.pool.dialer.connect().await?);
        }
        self.at_rest = false;
        self.conn.as_ref().ok_or_else(closed)
    }

    /// What was begun on the connection is done.
    pub(super) fn rest(&mut self) {
        self.at_rest = true;
    }

    /// The connection, if it is still there.
    pub(super) fn kept(&self) -> Option<&Conn> {
        self.conn.as_ref().filter(|conn| !conn.is_closed())
    }

    /// The connection is not fit for use any more.
    pub(super) fn discard(&mut self) {
        self.conn = None;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(conn) = self.conn.take().filter(|conn| self.at_rest && !conn.is_closed()) {
            self.pool.idle.lock().push(conn);
        }
    }
}

fn closed() -> StoreError {
    StoreError::Unavailable { reason: "the store is closed".into() }
}
