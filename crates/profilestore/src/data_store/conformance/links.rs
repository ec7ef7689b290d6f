//! Cases about what a version's commit did beyond its profile: messages taken and sent, and trades.

use super::*;
use crate::data_store::{DAY_MS, Links, MAX_LINKS, Retention, SentMessage, Trade, VersionLinks};

impl Subject {
    async fn links(&self, key: &ProfileKey, after: u64) -> Vec<VersionLinks> {
        self.store.links(key, after, 1000).await.unwrap()
    }
}

fn play(state: &KeyState, value: &str, cause: Cause) -> Change {
    let mut change = write(state, value);
    if let Change::Write { cause: of, .. } = &mut change {
        *of = cause;
    }
    change
}

fn take(key: &ProfileKey, index: u64) -> Change {
    Change::RemoveMessage { key: key.clone(), index, receipt: true }
}

/// A save that took and sent messages says which, also when its version is overwritten within the
/// hour; a plain one says nothing.
pub async fn links_say_what_a_save_took_and_sent(subject: Subject) {
    let (a, b) = (key("a"), key("b"));
    let now = subject.now().await;
    let [gift, order, thanks] = ["gift", "order", "thanks"].map(|name| message_id(now, name));
    subject.ok(vec![append(&a, &gift, "1"), append(&a, &order, "2")]).await;
    let state = subject.put(&a, "one").await;
    assert_eq!(subject.links(&a, 0).await, vec![]);
    let changes =
        vec![play(&state, "two", Cause::Save), take(&a, 1), append(&b, &thanks, "3"), take(&a, 2)];
    let commit = subject.make(changes).await;
    let reply = subject.store.commit_one(commit.clone()).await.unwrap();
    assert!(subject.store.commit_one(commit).await.unwrap().already_applied);
    let last = subject.ok(vec![play(&reply.states[0], "three", Cause::End)]).await;
    assert_eq!(last.states[0].version, 3);

    let found = subject.links(&a, 0).await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].version, 2);
    let links = Links {
        taken: vec![gift, order],
        sent: vec![SentMessage { to: b.clone(), id: thanks }],
        ..Links::default()
    };
    assert_eq!(found[0].links, links);
    assert_eq!(subject.links(&a, 1).await, found);
    assert_eq!(subject.links(&a, 2).await, vec![]);
    assert_eq!(subject.links(&b, 0).await, vec![], "it was not written");
    assert_eq!(subject.links(&key("absent"), 0).await, vec![]);
}

/// Each profile of a trade says which transaction it was and with whom, and which gifts went out.
pub async fn links_say_with_whom_a_trade_was(subject: Subject) {
    let [a, b, c] = ["a", "b", "c"].map(key);
    let [of_a, of_b] = [subject.put(&a, "one").await, subject.put(&b, "one").await];
    let id = message_id(subject.now().await, "gift");
    let changes = vec![
        append(&c, &id, "1"),
        play(&of_a, "two", Cause::Transaction),
        play(&of_b, "two", Cause::Transaction),
    ];
    let commit = subject.make(changes).await;
    subject.store.commit_one(commit.clone()).await.unwrap();
    for (key, other) in [(&a, &b), (&b, &a)] {
        let found = subject.links(key, 0).await;
        let [found] = &found[..] else { panic!("{found:?}") };
        let links = Links {
            sent: vec![SentMessage { to: c.clone(), id: id.clone() }],
            trade: Some(Trade { id: commit.id, with: vec![other.clone()] }),
            ..Links::default()
        };
        assert_eq!((found.version, &found.links), (2, &links));
    }
    // A commit that is refused leaves nothing.
    let late = vec![play(&of_a, "x", Cause::Transaction), play(&of_b, "x", Cause::Transaction)];
    assert_eq!(subject.conflict_kind(late).await, ConflictKind::Version);
    assert_eq!(subject.links(&a, 0).await.len(), 1);
}

/// What is not the game's own doing leaves none: a removal that empties the inbox, an operator's
/// restore, an edit that was delivered.
pub async fn links_are_of_play_only(subject: Subject) {
    let a = key("a");
    let now = subject.now().await;
    let state = subject.put(&a, "one").await;
    let edit = MessageId::edit(subject.uuid().await);
    subject.ok(vec![append(&a, &edit, "1"), append(&a, &message_id(now, "gift"), "2")]).await;
    let edited = subject.ok(vec![play(&state, "two", Cause::Edit), take(&a, 1)]).await;
    let restored = subject.ok(vec![play(&edited.states[0], "one", Cause::Restore)]).await;
    subject.ok(vec![remove(&restored.states[0]), take(&a, 2)]).await;
    assert_eq!(subject.links(&a, 0).await, vec![]);
}

/// However many messages a commit takes, a bounded number is named and the rest is counted.
pub async fn links_are_bounded(subject: Subject) {
    let a = key("a");
    let now = subject.now().await;
    let state = subject.put(&a, "one").await;
    let count = MAX_LINKS as u64 + 7;
    let appends =
        (1..=count).map(|n| append(&a, &message_id(now, &format!("gift-{n}")), "1")).collect();
    subject.ok(appends).await;
    let mut changes = vec![play(&state, "two", Cause::Save)];
    changes.extend((1..=count).map(|index| take(&a, index)));
    subject.ok(changes).await;
    let found = subject.links(&a, 0).await;
    assert_eq!((found[0].links.taken.len(), found[0].links.left_out), (MAX_LINKS, 7));
    assert_eq!(found[0].links.taken[0].name(), "gift-1");
}

/// They are listed in pages, oldest first, and go with the history and with an erasure.
pub async fn links_are_kept_as_long_as_the_history(subject: Subject) {
    let [a, b, c] = ["a", "b", "c"].map(key);
    for key in [&a, &b] {
        let mut state = subject.put(key, "0").await;
        for n in 1..=3 {
            let id = message_id(subject.now().await, &format!("{}-{n}", key.key()));
            let changes = vec![play(&state, "x", Cause::Save), append(&c, &id, "1")];
            state = subject.ok(changes).await.states.swap_remove(0);
            subject.advance(DAY_MS);
        }
    }
    let versions = |found: &[VersionLinks]| found.iter().map(|at| at.version).collect::<Vec<_>>();
    assert_eq!(versions(&subject.links(&a, 0).await), [2, 3, 4]);
    assert_eq!(versions(&subject.store.links(&a, 2, 1).await.unwrap()), [3]);
    // Those of `a` are now six, five and four days old.
    subject.sweep(Retention { history_ms: 5 * DAY_MS + DAY_MS / 2 }).await;
    assert_eq!(versions(&subject.links(&a, 0).await), [3, 4]);
    let epoch = subject.state(&b).await.epoch;
    subject.ok(vec![Change::Erase { key: b.clone(), epoch }]).await;
    assert_eq!(subject.links(&b, 0).await, vec![]);
    assert_eq!(versions(&subject.links(&a, 0).await), [3, 4]);
}
