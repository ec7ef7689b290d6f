//! Order: the operations of this server on one key run one after the other, in the order they were
//! called.
//!
//! A queue exists only while something waits in it, so an idle profile costs nothing. Its driver is
//! a task of its own: a caller that goes away neither stops its operation half-way nor changes the
//! order.

use std::{
    collections::{BTreeMap, VecDeque},
    panic::AssertUnwindSafe,
    sync::Arc,
};

use futures_util::{FutureExt, future::BoxFuture};
use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    sync::{Notify, oneshot},
};

use crate::{
    error::{Error, ErrorKind, Result},
    key::ProfileKey,
};

type Operation = BoxFuture<'static, ()>;

/// The queues of all keys.
pub(crate) struct KeyQueues {
    runtime: Handle,
    state: Mutex<State>,
    idle: Notify,
}

#[derive(Default)]
struct State {
    /// A key is here while a driver runs for it.
    waiting: BTreeMap<ProfileKey, VecDeque<Operation>>,
    total: usize,
}

impl KeyQueues {
    pub(crate) fn new(runtime: Handle) -> Arc<Self> {
        Arc::new(Self { runtime, state: Mutex::default(), idle: Notify::new() })
    }

    /// Puts an operation behind those of its key. The answer comes even if the operation panics,
    /// and when the runtime goes away. Fails when `limit` operations wait already.
    pub(crate) fn run<T: Send + 'static>(
        self: &Arc<Self>,
        key: &ProfileKey,
        limit: usize,
        operation: impl Future<Output = T> + Send + 'static,
    ) -> Result<Answer<T>> {
        let (mut reply, answer) = Answer::to_come();
        let operation = async move {
            reply.begun = true;
            if let Ok(answer) = AssertUnwindSafe(operation).catch_unwind().await {
                reply.send(Ok(answer));
            } else {
                tracing::error!("an operation panicked");
            }
        }
        .boxed();
        let mut state = self.state.lock();
        let first = match state.waiting.get_mut(key) {
            Some(queue) if queue.len() >= limit => {
                return Err(Error::new(
                    ErrorKind::Overloaded,
                    "too many operations wait for the \
                    profile",
                )
                .about(key));
            }
            Some(queue) => {
                queue.push_back(operation);
                None
            }
            None => {
                state.waiting.insert(key.clone(), VecDeque::new());
                Some(operation)
            }
        };
        state.total += 1;
        metrics::gauge!("profilestore_queued_operations").set(state.total as f64);
        drop(state);
        if let Some(operation) = first {
            let driving = Driving { queues: self.clone(), key: key.clone(), over: false };
            // Not under the lock: a runtime that is gone drops the task at once.
            self.runtime.spawn(driving.drive(operation));
        }
        Ok(answer)
    }

    /// Waits until nothing is queued or running.
    pub(crate) async fn drained(&self) {
        loop {
            let idle = self.idle.notified();
            if self.state.lock().waiting.is_empty() {
                return;
            }
            idle.await;
        }
    }
}

/// Runs the operations of one key. When its task is dropped with its runtime, those that wait are
/// dropped too, and their callers hear of it.
struct Driving {
    queues: Arc<KeyQueues>,
    key: ProfileKey,
    /// The queue is empty and gone; another driver may run for the key by now.
    over: bool,
}

impl Driving {
    async fn drive(mut self, mut operation: Operation) {
        loop {
            operation.await;
            let mut state = self.queues.state.lock();
            state.total -= 1;
            metrics::gauge!("profilestore_queued_operations").set(state.total as f64);
            match state.waiting.get_mut(&self.key).and_then(VecDeque::pop_front) {
                Some(next) => operation = next,
                None => {
                    state.waiting.remove(&self.key);
                    if state.waiting.is_empty() {
                        self.queues.idle.notify_waiters();
                    }
                    self.over = true;
                    return;
                }
            }
        }
    }
}

impl Drop for Driving {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let left = {
            let mut state = self.queues.state.lock();
            let left = state.waiting.remove(&self.key).unwrap_or_default();
            state.total = state.total.saturating_sub(1 + left.len());
            if state.waiting.is_empty() {
                self.queues.idle.notify_waiters();
            }
            left
        };
        // What the operations hold is dropped outside of the lock.
        drop(left);
    }
}

/// What is answered in the place of an operation that its runtime took along.
pub(crate) fn runtime_gone() -> Error {
    let message = "the Tokio runtime that this game server was started on is gone; nothing was \
        done";
    Error::new(ErrorKind::Closing, message)
}

/// Answers in any case: when it is dropped, with an error that says whether anything may have been
/// done.
pub(crate) struct Reply<T> {
    sender: Option<oneshot::Sender<Result<T>>>,
    begun: bool,
}

impl<T> Reply<T> {
    /// To be set before anything is done that may last.
    pub(crate) fn begun(&mut self) -> &mut bool {
        &mut self.begun
    }

    pub(crate) fn send(&mut self, answer: Result<T>) {
        if let Some(sender) = self.sender.take() {
            // The caller may have gone.
            let _ = sender.send(answer);
        }
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        let broken_off = || {
            Error::new(
                ErrorKind::Unknown,
                "the operation was broken off; see the \
            log",
            )
        };
        self.send(Err(if self.begun { broken_off() } else { runtime_gone() }));
    }
}

/// The answer to come of an operation.
pub(crate) struct Answer<T>(oneshot::Receiver<Result<T>>);

impl<T> Answer<T> {
    pub(crate) fn to_come() -> (Reply<T>, Self) {
        let (sender, receiver) = oneshot::channel();
        (Reply { sender: Some(sender), begun: false }, Self(receiver))
    }

    /// Waits for it. Dropping the wait does not stop the operation.
    pub(crate) async fn wait(self) -> Result<T> {
        self.0.await.unwrap_or_else(|_| Err(runtime_gone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn key(name: &str) -> ProfileKey {
        ProfileKey::new("s", "g", name).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn operations_of_a_key_run_in_call_order_and_other_keys_do_not_wait() {
        let queues = KeyQueues::new(Handle::current());
        let log = Arc::new(Mutex::new(Vec::new()));
        let op = |name: &'static str, ms: u64| {
            let log = log.clone();
            async move {
                tokio::time::sleep(Duration::from_millis(ms)).await;
                log.lock().push(name);
            }
        };
        drop(queues.run(&key("a"), 9, op("a1", 100)).unwrap());
        let last = queues.run(&key("a"), 9, op("a2", 1)).unwrap();
        queues.run(&key("b"), 9, op("b1", 5)).unwrap().wait().await.unwrap();
        last.wait().await.unwrap();
        assert_eq!(*log.lock(), ["b1", "a1", "a2"]);
        queues.drained().await;
    }

    #[tokio::test]
    async fn a_panic_ends_one_operation_only_and_the_queue_is_bounded() {
        let queues = KeyQueues::new(Handle::current());
        let first = queues.run(&key("a"), 1, async { panic!("on purpose") }).unwrap();
        let second = queues.run(&key("a"), 1, async { 7 }).unwrap();
        assert_eq!(
            queues.run(&key("a"), 1, async {}).err().map(|e| e.kind()),
            Some(ErrorKind::Overloaded)
        );
        let first: Result<()> = first.wait().await;
        assert_eq!(first.unwrap_err().kind(), ErrorKind::Unknown);
        assert_eq!(second.wait().await.unwrap(), 7);
    }
}
