//! The suite that every messenger runs: what [`Messenger`]'s contract promises while nothing is
//! wrong, and that a slow receiver hears of its gap. Each messenger tests by itself what happens
//! when something *is* wrong.
//!
//! A messenger's test module names a factory for [`Subject`]s, an `async fn() -> Subject`, and lets
//! [`messenger_conformance!`](crate::messenger_conformance) make one test a case.

use std::{any::Any, fmt, sync::Arc, time::Duration};

use tokio::{sync::mpsc, time::timeout};
use uuid::Uuid;

use super::{HINT_QUEUE, Hint, Messenger};
use crate::{data_store::ServerId, env::Env, key::ProfileKey};

/// How long a hint may take on a busy machine before it counts as lost.
const SOON: Duration = Duration::from_secs(20);

/// How long it takes to be sure that nothing comes.
const SILENCE: Duration = Duration::from_millis(150);

/// Two ends of a messenger under test: two processes' where it connects processes, else the same
/// twice.
pub struct Subject {
    near: Arc<dyn Messenger>,
    far: Arc<dyn Messenger>,
    guards: Vec<Box<dyn Any + Send + Sync>>,
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Subject").field(&self.near).field(&self.far).finish()
    }
}

impl Subject {
    /// Two ends between which hints go both ways.
    pub fn new(near: Arc<dyn Messenger>, far: Arc<dyn Messenger>) -> Self {
        Self { near, far, guards: Vec::new() }
    }

    /// Subscribes at the near end, and waits until hints of the far end arrive: between machines
    /// word of a subscription takes a moment.
    async fn listen(&self, server: ServerId) -> mpsc::Receiver<Hint> {
        listen(&*self.near, &*self.far, server).await
    }

    /// Keeps something alive as long as the subject: a temporary directory, say.
    #[must_use]
    pub fn keeping(mut self, guard: impl Any + Send + Sync) -> Self {
        self.guards.push(Box::new(guard));
        self
    }
}

fn server() -> ServerId {
    ServerId(Env::system().uuid())
}

fn key(name: &str) -> ProfileKey {
    ProfileKey::new("PlayerData", "global", name).expect("a valid name")
}

async fn heard(hints: &mut mpsc::Receiver<Hint>) -> Hint {
    timeout(SOON, hints.recv()).await.expect("a hint in time").expect("the messenger is there")
}

async fn listen(
    at: &dyn Messenger,
    from: &dyn Messenger,
    server: ServerId,
) -> mpsc::Receiver<Hint> {
    let mut hints = at.subscribe(server).await;
    for n in 0..400 {
        let probe = key(&format!("probe {n}"));
        from.hint(server, &probe).await;
        while let Ok(Some(hint)) = timeout(SOON / 400, hints.recv()).await {
            if hint == Hint::Look(probe.clone()) {
                // Word that nobody had listened before may come behind the first hint.
                while let Ok(Some(_)) = timeout(SILENCE, hints.recv()).await {}
                return hints;
            }
        }
    }
    panic!("no hint arrives");
}

#[track_caller]
fn silent(hints: &mut mpsc::Receiver<Hint>) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    async move {
        if let Ok(hint) = timeout(SILENCE, hints.recv()).await {
            panic!("something was heard at {caller}: {hint:?}");
        }
    }
}

/// Every key that can exist can be hinted at.
pub async fn hints_arrive_whatever_the_key(subject: Subject) {
    let me = server();
    let mut hints = subject.listen(me).await;
    let longest = "\u{1f600}".repeat(50);
    for [store, scope, name] in [
        ["PlayerData", "global", "7"],
        ["a b", "*", ">"],
        ["\r\n", ".", "x/y'\\\""],
        [&longest, &longest, &longest],
    ] {
        let key = ProfileKey::new(store, scope, name).expect("a valid name");
        subject.far.hint(me, &key).await;
        assert_eq!(heard(&mut hints).await, Hint::Look(key));
    }
}

/// Both ends send and hear.
pub async fn hints_go_both_ways(subject: Subject) {
    let (one, other) = (server(), server());
    let mut near = subject.listen(one).await;
    let mut far = listen(&*subject.far, &*subject.near, other).await;
    subject.far.hint(one, &key("a")).await;
    subject.near.hint(other, &key("b")).await;
    subject.near.hint(one, &key("c")).await;
    // In any order.
    let near = [heard(&mut near).await, heard(&mut near).await];
    assert!(
        near.contains(&Hint::Look(key("a"))) && near.contains(&Hint::Look(key("c"))),
        "{near:?}"
    );
    assert_eq!(heard(&mut far).await, Hint::Look(key("b")));
}

/// A hint is heard by the server that it is for, and by no other.
pub async fn hints_reach_their_server_only(subject: Subject) {
    let (one, two, nobody) = (server(), server(), ServerId(Uuid::nil()));
    let mut first = subject.listen(one).await;
    let mut second = subject.listen(two).await;
    subject.far.hint(nobody, &key("nobody")).await;
    subject.far.hint(two, &key("two")).await;
    assert_eq!(heard(&mut second).await, Hint::Look(key("two")));
    silent(&mut first).await;
    silent(&mut second).await;
}

/// Hints that the same end sends after `subscribe` has returned arrive, and nothing is said of a
/// gap when there was none.
pub async fn a_new_subscription_hears_at_once(subject: Subject) {
    for _ in 0..20 {
        let me = server();
        let mut hints = subject.near.subscribe(me).await;
        subject.near.hint(me, &key("a")).await;
        assert_eq!(heard(&mut hints).await, Hint::Look(key("a")));
    }
}

/// A server may listen again, after its receiver was dropped.
pub async fn a_server_can_listen_again(subject: Subject) {
    let me = server();
    for name in ["a", "b", "c"] {
        let mut hints = subject.listen(me).await;
        subject.far.hint(me, &key(name)).await;
        assert_eq!(heard(&mut hints).await, Hint::Look(key(name)));
        drop(hints);
        subject.far.hint(me, &key("while nobody listens")).await;
        // Whatever is under way has passed by then.
        tokio::time::sleep(SILENCE).await;
    }
}

/// As many hints as fit into the queue arrive, from many tasks at once.
pub async fn many_hints_arrive(subject: Subject) {
    let me = server();
    let mut hints = subject.listen(me).await;
    let subject = Arc::new(subject);
    let senders: Vec<_> = (0..8)
        .map(|sender| {
            let subject = subject.clone();
            tokio::spawn(async move {
                for n in 0..100 {
                    subject.far.hint(me, &key(&format!("{sender}-{n}"))).await;
                }
            })
        })
        .collect();
    for sender in senders {
        sender.await.expect("nothing panics");
    }
    let mut keys = std::collections::BTreeSet::new();
    while keys.len() < 800 {
        match heard(&mut hints).await {
            Hint::Look(key) => assert!(keys.insert(key)),
            other => panic!("{other:?}"),
        }
    }
}

/// No sender waits for a receiver that does not listen; it is told of the gap, at the latest by the
/// next hint, and hears again.
pub async fn a_slow_receiver_is_told_of_the_gap(subject: Subject) {
    let me = server();
    let mut hints = subject.listen(me).await;
    let sending = async {
        for n in 0..4 * HINT_QUEUE {
            // Of one key's hints a messenger may make one.
            subject.far.hint(me, &key(&format!("a{n}"))).await;
            if n % 128 == 0 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
    };
    timeout(SOON, sending).await.expect("a sender waits for nobody");
    tokio::time::sleep(SILENCE).await;
    let (mut before, mut gaps, mut more) = (0, 0, 0);
    while gaps == 0 {
        match timeout(SILENCE, hints.recv()).await {
            Ok(Some(Hint::Look(_))) => before += 1,
            Ok(Some(Hint::Gap)) => gaps += 1,
            Ok(None) => panic!("the messenger is gone"),
            Err(_) if more < 3 => {
                more += 1;
                subject.far.hint(me, &key("a")).await;
            }
            Err(_) => panic!(
                "{before} hints of {} arrived, and nothing was said of a gap",
                4 * HINT_QUEUE
            ),
        }
    }
    while timeout(SILENCE, hints.recv()).await.is_ok() {}
    subject.far.hint(me, &key("b")).await;
    assert_eq!(heard(&mut hints).await, Hint::Look(key("b")));
}

/// Makes one test a case of the suite. Takes an `async fn() -> Subject`.
#[macro_export]
macro_rules! messenger_conformance {
    ($factory:expr) => {
        $crate::messenger_conformance! { @cases $factory;
            hints_arrive_whatever_the_key
            hints_go_both_ways
            hints_reach_their_server_only
            a_new_subscription_hears_at_once
            a_server_can_listen_again
            many_hints_arrive
            a_slow_receiver_is_told_of_the_gap
        }
    };
    (@cases $factory:expr; $($case:ident)*) => {$(
        #[tokio::test]
        async fn $case() {
            $crate::messenger::conformance::$case($factory().await).await;
        }
    )*};
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_case_is_in_the_list() {
        let this = include_str!("conformance.rs");
        let cases = this.lines().filter_map(|line| line.strip_prefix("pub async fn "));
        let names: Vec<_> = cases.filter_map(|line| line.split('(').next()).collect();
        assert_eq!(names.len(), 7);
        for name in names {
            let listed = this.lines().filter(|line| line.trim() == name).count();
            assert_eq!(listed, 1, "the case {name} is not in the list of messenger_conformance!");
        }
    }
}
