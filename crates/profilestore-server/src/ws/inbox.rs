//! What came over one connection and waits for its turn: while the sessions of a resume are found
//! again, no frame is taken.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::mpsc;

use super::frames::ClientFrame;

/// How many bytes of frames may wait. A connection that brings more is closed.
const MOST_WAITING: usize = 256 << 20;

/// Where frames are put.
pub(super) struct Inbox {
    frames: mpsc::UnboundedSender<(ClientFrame, usize)>,
    bytes: Arc<AtomicUsize>,
}

/// Where they are taken, in order.
pub(super) struct Waiting {
    frames: mpsc::UnboundedReceiver<(ClientFrame, usize)>,
    bytes: Arc<AtomicUsize>,
}

pub(super) fn inbox() -> (Inbox, Waiting) {
    let (put, taken) = mpsc::unbounded_channel();
    let bytes = Arc::<AtomicUsize>::default();
    (Inbox { frames: put, bytes: bytes.clone() }, Waiting { frames: taken, bytes })
}

impl Inbox {
    /// Puts a frame of so many bytes behind the others. False: too much waits already.
    pub(super) fn put(&self, frame: ClientFrame, bytes: usize) -> bool {
        let waiting = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if waiting > MOST_WAITING {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            return false;
        }
        self.frames.send((frame, bytes)).is_ok()
    }
}

impl Waiting {
    pub(super) async fn next(&mut self) -> Option<ClientFrame> {
        let (frame, bytes) = self.frames.recv().await?;
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        Some(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_waits_is_bounded_by_its_bytes() {
        let (inbox, mut waiting) = inbox();
        let frame = |n| ClientFrame::Ping { n };
        assert!(inbox.put(frame(1), MOST_WAITING - 10));
        assert!(!inbox.put(frame(2), 11));
        assert!(inbox.put(frame(3), 10));
        assert!(matches!(waiting.next().await, Some(ClientFrame::Ping { n: 1 })));
        assert!(inbox.put(frame(4), MOST_WAITING - 10));
        assert!(matches!(waiting.next().await, Some(ClientFrame::Ping { n: 3 })));
    }
}
