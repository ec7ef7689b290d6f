//! Order: the operations of this server on one key run one after the other, in the order they were
//! called.
//!
//! A queue exists only while something waits in it, so an idle profile costs nothing. Its driver is
//! a task of its own: a caller that goes away neither stops its operation half-way nor changes the
//! order.

use std::{
    collections::{BTreeMap, VecDeque},
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
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

/// How many bytes that calls bring may wait for a key. One call alone may bring more.
const LINE_BYTES: usize = 64 << 20;

type Operation = BoxFuture<'static, ()>;

/// The queues of all keys.
pub(crate) struct KeyQueues {
    runtime: Handle,
    state: Mutex<State>,
    idle: Notify,
}

/// How many operations the queues of all game servers of this process have: what the metric says.
static QUEUED: Mutex<usize> = Mutex::new(0);

#[derive(Default)]
struct State {
    /// A key is here while a driver runs for it.
    lines: BTreeMap<ProfileKey, Line>,
    total: usize,
    /// How many of them the metric has.
    shown: usize,
}

impl State {
    /// Brings the metric up to date.
    fn show(&mut self) {
        let mut queued = QUEUED.lock();
        *queued = (*queued + self.total).saturating_sub(self.shown);
        self.shown = self.total;
        metrics::gauge!("profilestore_queued_operations").set(*queued as f64);
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.total = 0;
        self.show();
    }
}

/// The operations of a key that wait behind the one that is being done. The first one waits here
/// too, until the driver has begun.
#[derive(Default)]
struct Line {
    waiting: VecDeque<Waiting>,
    /// How many of them are not to be done any more.
    given_up: usize,
    /// How many bytes they have brought with them, and those of them that are not to be done.
    bytes: usize,
    bytes_given_up: usize,
    /// The driver has begun: one is being done that does not wait any more.
    begun: bool,
}

struct Waiting {
    operation: Operation,
    /// None: its caller does not give up.
    turn: Option<Turn>,
}

impl Waiting {
    fn bytes(&self) -> usize {
        self.turn.as_ref().map_or(0, |turn| turn.bytes)
    }
}

/// What becomes of an operation that waits, whichever comes first: its turn, or a caller that gives
/// up.
#[derive(Clone, Default)]
pub(crate) struct Turn {
    taken: Arc<AtomicBool>,
    bytes: usize,
}

impl Turn {
    /// That of an operation which has so many bytes of the caller's with it.
    pub(crate) fn with(bytes: usize) -> Self {
        Self { bytes, ..Self::default() }
    }

    /// True for the first to ask.
    fn take(&self) -> bool {
        !self.taken.swap(true, Ordering::AcqRel)
    }

    fn is_taken(&self) -> bool {
        self.taken.load(Ordering::Acquire)
    }
}

impl Line {
    /// How many operations wait for another one.
    fn len(&self) -> usize {
        let wanted = self.waiting.len().saturating_sub(self.given_up);
        wanted.saturating_sub(usize::from(!self.begun))
    }

    /// Whether there is room for so many bytes more.
    fn has_room(&self, bytes: usize) -> bool {
        bytes == 0 || self.bytes == 0 || self.bytes.saturating_add(bytes) <= LINE_BYTES
    }

    fn push(&mut self, waiting: Waiting) {
        self.bytes += waiting.bytes();
        self.waiting.push_back(waiting);
    }

    /// The next operation. What was given up before it goes to `gone`.
    fn next(&mut self, gone: &mut Vec<Waiting>) -> Option<Operation> {
        loop {
            let waiting = self.waiting.pop_front()?;
            self.bytes = self.bytes.saturating_sub(waiting.bytes());
            if waiting.turn.as_ref().is_none_or(Turn::take) {
                self.begun = true;
                return Some(waiting.operation);
            }
            self.given_up = self.given_up.saturating_sub(1);
            self.bytes_given_up = self.bytes_given_up.saturating_sub(waiting.bytes());
            gone.push(waiting);
        }
    }

    /// Takes out what was given up, once that is half of all: so each costs little.
    fn prune(&mut self) -> VecDeque<Waiting> {
        if self.given_up * 2 <= self.waiting.len() && self.bytes_given_up * 2 <= self.bytes {
            return VecDeque::new();
        }
        self.bytes = self.bytes.saturating_sub(self.bytes_given_up);
        (self.given_up, self.bytes_given_up) = (0, 0);
        let is_wanted =
            |waiting: &Waiting| waiting.turn.as_ref().is_none_or(|turn| !turn.is_taken());
        let (wanted, gone) = std::mem::take(&mut self.waiting).into_iter().partition(is_wanted);
        self.waiting = wanted;
        gone
    }
}

impl KeyQueues {
    pub(crate) fn new(runtime: Handle) -> Arc<Self> {
        Arc::new(Self { runtime, state: Mutex::default(), idle: Notify::new() })
    }

    /// Puts an operation behind those of its key. The answer comes even if the operation panics,
    /// and when the runtime goes away. Fails when `limit` operations wait already, or too much of
    /// what they bring with them.
    pub(crate) fn run<T: Send + 'static>(
        self: &Arc<Self>,
        key: &ProfileKey,
        limit: usize,
        operation: impl Future<Output = T> + Send + 'static,
    ) -> Result<Answer<T>> {
        self.put(key, limit, None, operation)
    }

    /// The same for an operation whose caller may give up before its turn comes.
    pub(crate) fn run_unless_given_up<T: Send + 'static>(
        self: &Arc<Self>,
        key: &ProfileKey,
        limit: usize,
        turn: &Turn,
        operation: impl Future<Output = T> + Send + 'static,
    ) -> Result<Answer<T>> {
        self.put(key, limit, Some(turn.clone()), operation)
    }

    /// An operation's caller waits no longer. True: its turn had not come, and it is not going to
    /// be done. What it holds goes then, however long the one before it takes.
    pub(crate) fn give_up(&self, key: &ProfileKey, turn: &Turn) -> bool {
        let gone = {
            let mut state = self.state.lock();
            if !turn.take() {
                return false;
            }
            let Some(line) = state.lines.get_mut(key) else { return true };
            line.given_up += 1;
            line.bytes_given_up += turn.bytes;
            let gone = line.prune();
            state.total = state.total.saturating_sub(gone.len());
            state.show();
            gone
        };
        // Outside of the lock.
        drop(gone);
        true
    }

    fn put<T: Send + 'static>(
        self: &Arc<Self>,
        key: &ProfileKey,
        limit: usize,
        turn: Option<Turn>,
        operation: impl Future<Output = T> + Send + 'static,
    ) -> Result<Answer<T>> {
        let (mut reply, answer) = Answer::to_come();
        // Boxed by itself: a future that awaits what it was given keeps room for it twice.
        let operation = AssertUnwindSafe(operation).catch_unwind().boxed();
        let operation = async move {
            reply.begun = true;
            if let Ok(answer) = operation.await {
                reply.send(Ok(answer));
            } else {
                tracing::error!("an operation panicked");
            }
        }
        .boxed();
        let waiting = Waiting { operation, turn };
        let mut state = self.state.lock();
        let is_first = match state.lines.get_mut(key) {
            Some(line) if line.len() >= limit || !line.has_room(waiting.bytes()) => {
                let message = "too many operations, or bytes of theirs, wait for the profile";
                return Err(Error::new(ErrorKind::Overloaded, message).about(key));
            }
            Some(line) => {
                line.push(waiting);
                false
            }
            None => {
                let mut line = Line::default();
                line.push(waiting);
                state.lines.insert(key.clone(), line);
                true
            }
        };
        state.total += 1;
        state.show();
        drop(state);
        if is_first {
            let driving = Driving { queues: self.clone(), key: key.clone(), over: false };
            // Not under the lock: a runtime that is gone drops the task at once.
            self.runtime.spawn(driving.drive());
        }
        Ok(answer)
    }

    /// Waits until nothing is queued or running.
    pub(crate) async fn drained(&self) {
        loop {
            let idle = self.idle.notified();
            if self.state.lock().lines.is_empty() {
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
    async fn drive(mut self) {
        let mut done = 0;
        while let Some(operation) = self.next(done) {
            operation.await;
            done = 1;
        }
    }

    /// The next operation, behind the one that is done if there was one; none ends the queue.
    fn next(&mut self, done: usize) -> Option<Operation> {
        // What was given up is dropped outside of the lock.
        let mut gone = Vec::new();
        let mut state = self.queues.state.lock();
        let next = state.lines.get_mut(&self.key).and_then(|line| line.next(&mut gone));
        state.total = state.total.saturating_sub(done + gone.len());
        state.show();
        if next.is_none() {
            state.lines.remove(&self.key);
            if state.lines.is_empty() {
                self.queues.idle.notify_waiters();
            }
            self.over = true;
        }
        drop(state);
        next
    }
}

impl Drop for Driving {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let left = {
            let mut state = self.queues.state.lock();
            let left = state.lines.remove(&self.key).unwrap_or_default();
            let dropped = usize::from(left.begun) + left.waiting.len();
            state.total = state.total.saturating_sub(dropped);
            state.show();
            if state.lines.is_empty() {
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
        let broken_off =
            || Error::new(ErrorKind::Unknown, "the operation was broken off; see the log");
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

    /// It stayed until the operations before it were done, with all that it held.
    #[tokio::test]
    async fn an_operation_that_was_given_up_holds_nothing_and_takes_no_place() {
        let queues = KeyQueues::new(Handle::current());
        let (go_on, held) = (Arc::new(Notify::new()), Arc::new(()));
        let going = go_on.clone();
        let first = queues.run(&key("a"), 2, async move { going.notified().await }).unwrap();
        let last = queues.run(&key("a"), 2, async { 7 }).unwrap();
        for _ in 0..100 {
            let (turn, held) = (Turn::default(), held.clone());
            let operation = async move { drop(held) };
            drop(queues.run_unless_given_up(&key("a"), 2, &turn, operation).unwrap());
            assert!(queues.give_up(&key("a"), &turn));
            assert!(!queues.give_up(&key("a"), &turn), "once");
        }
        assert!(Arc::strong_count(&held) <= 3, "{}", Arc::strong_count(&held));
        go_on.notify_one();
        first.wait().await.unwrap();
        assert_eq!(last.wait().await.unwrap(), 7);
        queues.drained().await;
        assert_eq!(Arc::strong_count(&held), 1);
        let turn = Turn::default();
        let done = queues.run_unless_given_up(&key("a"), 2, &turn, async { 8 }).unwrap();
        assert_eq!(done.wait().await.unwrap(), 8);
        assert!(!queues.give_up(&key("a"), &turn), "its turn has come");
    }

    /// Ten thousand calls could wait for a profile, whatever they had with them.
    #[tokio::test]
    async fn what_calls_bring_with_them_is_bounded_by_its_bytes() {
        let queues = KeyQueues::new(Handle::current());
        let put = |turn: &Turn| queues.run_unless_given_up(&key("a"), 99, turn, async { 7 });
        let half = || Turn::with(LINE_BYTES / 2);
        let (first, second, none) = (half(), half(), Turn::default());
        // On a runtime of one thread no driver begins before this test waits.
        drop((put(&first).unwrap(), put(&second).unwrap()));
        let refused = put(&Turn::with(1)).err().map(|error| error.kind());
        assert_eq!(refused, Some(ErrorKind::Overloaded));
        let last = put(&none).unwrap();
        // What gives up makes room, once that is more than half.
        assert!(queues.give_up(&key("a"), &first));
        assert!(put(&half()).is_err());
        assert!(queues.give_up(&key("a"), &second));
        drop((put(&half()).unwrap(), put(&half()).unwrap()));
        assert!(put(&half()).is_err());
        assert_eq!(last.wait().await.unwrap(), 7);
        queues.drained().await;
        // One alone may have more.
        let alone = put(&Turn::with(2 * LINE_BYTES)).unwrap();
        assert_eq!(alone.wait().await.unwrap(), 7);
    }

    /// Its caller was told that it may have been done, as its turn was taken to have come at once.
    #[tokio::test]
    async fn a_first_operation_that_is_given_up_before_its_turn_is_not_done() {
        let queues = KeyQueues::new(Handle::current());
        let (turn, begun) = (Turn::default(), Arc::new(AtomicBool::new(false)));
        let doing = begun.clone();
        let operation = async move { doing.store(true, Ordering::SeqCst) };
        // On a runtime of one thread no driver begins before this test waits.
        let first = queues.run_unless_given_up(&key("a"), 1, &turn, operation).unwrap();
        let second = queues.run(&key("a"), 1, async { 7 }).unwrap();
        assert!(queues.give_up(&key("a"), &turn));
        assert_eq!(second.wait().await.unwrap(), 7);
        queues.drained().await;
        assert_eq!(first.wait().await.unwrap_err().kind(), ErrorKind::Closing);
        assert!(!begun.load(Ordering::SeqCst));
        assert_eq!(queues.state.lock().total, 0);
    }
}
