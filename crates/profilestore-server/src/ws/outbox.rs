//! What is to be sent over one connection.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::extract::ws::{CloseFrame, Message};
use tokio::sync::{Notify, mpsc};

use super::frames::ServerFrame;
use crate::problem::Problem;

/// How many bytes may wait for a connection that does not read. Then it is closed. As many starts
/// as the window has may be answered at once, each with a document: with this, of 256 KiB each. One
/// that reads nothing at all is closed by the time that one frame may take.
const MOST_QUEUED: usize = 256 << 20;

/// What is to be sent over one connection, in order.
#[derive(Clone)]
pub(crate) struct Outbox {
    frames: mpsc::UnboundedSender<Message>,
    pub(crate) queued: Arc<AtomicUsize>,
    /// The connection is to be given up.
    pub(crate) over: Arc<Notify>,
    /// The connection, as the log names it: the id of the request that opened it.
    instance: Arc<str>,
}

impl Outbox {
    pub(crate) fn new(instance: Arc<str>) -> (Self, mpsc::UnboundedReceiver<Message>) {
        let (frames, sent) = mpsc::unbounded_channel();
        (Self { frames, queued: Arc::default(), over: Arc::default(), instance }, sent)
    }

    /// Tells what is wrong, with the request `i` if it is about one.
    pub(crate) fn complain(&self, i: Option<u64>, problem: &Problem) {
        tracing::debug!(id = &*self.instance, i, %problem, "refused");
        self.send(&ServerFrame::Error { i, problem: problem.members(&self.instance) });
    }

    pub(crate) fn send(&self, frame: &ServerFrame) {
        let Ok(text) = serde_json::to_string(frame) else {
            tracing::error!("a frame could not be written");
            return self.over.notify_one();
        };
        let queued = self.queued.fetch_add(text.len(), Ordering::Relaxed) + text.len();
        if queued > MOST_QUEUED || self.frames.send(Message::Text(text.into())).is_err() {
            self.over.notify_one();
        }
    }

    /// A later connection of the game server takes the place of this one.
    pub(crate) fn replaced(&self) {
        self.close(4000, "another connection took this one's place");
        self.over.notify_one();
    }

    /// Closes the connection behind what was sent before.
    pub(crate) fn close(&self, code: u16, reason: &'static str) {
        let close = CloseFrame { code, reason: reason.into() };
        if self.frames.send(Message::Close(Some(close))).is_err() {
            self.over.notify_one();
        }
    }
}
