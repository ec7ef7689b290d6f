//! Cases about inboxes: appending once, receipts, locks, revisions, imports.

use super::*;
use crate::data_store::{DAY_MS, Digest, Retention, StoredMessage};

const NO_HISTORY: Retention = Retention { history_ms: 0 };

fn take(key: &ProfileKey, index: u64, receipt: bool) -> Change {
    Change::RemoveMessage { key: key.clone(), index, receipt }
}

fn lock(key: &ProfileKey, index: u64, revision: u64) -> Change {
    Change::LockMessage { key: key.clone(), index, revision }
}

fn change(key: &ProfileKey, index: u64, revision: u64, payload: &str) -> Change {
    Change::ChangeMessage {
        key: key.clone(),
        index,
        revision,
        payload: Bytes::copy_from_slice(payload.as_bytes()),
    }
}

fn indexes(state: &KeyState) -> Vec<u64> {
    state.inbox.as_ref().unwrap().iter().map(|message| message.index).collect()
}

/// Messages get the next index, on keys without data too; each change counts the inbox's revision.
pub async fn messages_are_numbered(s: Subject) {
    let key = key("p");
    let now = s.now().await;
    let first = message_id(now - 5, "first");
    let state = s.ok(vec![append(&key, &first, r#"{"a":1}"#)]).await.states.remove(0);
    assert_eq!(
        (state.version, state.epoch, state.last_message, state.inbox_revision),
        (0, 0, 1, 1)
    );
    let expected = StoredMessage {
        index: 1,
        id: first,
        payload: Bytes::from_static(br#"{"a":1}"#),
        locked: false,
        revision: 1,
        sent_ms: now,
    };
    assert_eq!(state.inbox, Some(vec![expected]));
    let [b, c] = ["b", "c"].map(|name| append(&key, &message_id(now, name), "2"));
    let state = s.ok(vec![b, c]).await.states.remove(0);
    assert_eq!((indexes(&state), state.last_message), (vec![1, 2, 3], 3));
    assert!(state.inbox_revision > 1);
    let before = state.inbox_revision;
    let state = s.ok(vec![take(&key, 2, false)]).await.states.remove(0);
    assert_eq!((indexes(&state), state.last_message), (vec![1, 3], 3));
    assert!(state.inbox_revision > before);
    let state = s.ok(vec![take(&key, 1, false), take(&key, 3, false)]).await.states.remove(0);
    assert_eq!((indexes(&state), state.last_message), (vec![], 3));
    let state = s.ok(vec![append(&key, &message_id(now, "d"), "4")]).await.states.remove(0);
    assert_eq!((indexes(&state), state.last_message), (vec![4], 4));
    assert_eq!(state, s.state(&key).await);
}

/// The same message with its members in another order is the same message, while it waits and
/// afterwards.
pub async fn a_messages_content_is_compared_as_a_json_value(s: Subject) {
    let key = key("p");
    let id = message_id(s.now().await, "gift");
    let again = r#"{"b": [1, {"y": 2, "x": 1}], "a": "é"}"#;
    s.ok(vec![append(&key, &id, r#"{"a":"\u00e9","b":[1,{"x":1,"y":2}]}"#)]).await;
    assert_eq!(s.conflict_kind(vec![append(&key, &id, again)]).await, ConflictKind::MessageSeen);
    assert_eq!(
        s.conflict_kind(vec![append(&key, &id, r#"{"a":"é","b":[{"x":1,"y":2},1]}"#)]).await,
        ConflictKind::MessageIdReused
    );
    s.ok(vec![take(&key, 1, true)]).await;
    assert_eq!(s.conflict_kind(vec![append(&key, &id, again)]).await, ConflictKind::MessageSeen);
    assert_eq!(
        s.conflict_kind(vec![append(&key, &id, r#"{"a":"é"}"#)]).await,
        ConflictKind::MessageIdReused
    );
}

/// The same message again is seen while it waits; with another content it is an error; both leave
/// the inbox alone.
pub async fn a_message_is_appended_once(s: Subject) {
    let key = key("p");
    let id = message_id(s.now().await, "gift");
    let state = s.ok(vec![append(&key, &id, "1")]).await.states.remove(0);
    let conflict = s.conflict(vec![append(&key, &id, "1")]).await;
    assert_eq!((conflict.kind, conflict.state.as_ref()), (ConflictKind::MessageSeen, Some(&state)));
    assert_eq!(s.conflict_kind(vec![append(&key, &id, "2")]).await, ConflictKind::MessageIdReused);
    // What counts is the content that it was sent with.
    let state = s.ok(vec![change(&key, 1, 1, "2")]).await.states.remove(0);
    assert_eq!(s.conflict_kind(vec![append(&key, &id, "1")]).await, ConflictKind::MessageSeen);
    assert_eq!(s.conflict_kind(vec![append(&key, &id, "2")]).await, ConflictKind::MessageIdReused);
    assert_eq!(s.state(&key).await, state);
    // Another key, another time and another name are other messages.
    s.ok(vec![append(&super::key("q"), &id, "1")]).await;
    s.ok(vec![append(&key, &message_id(id.created_ms() + 1, "gift"), "1")]).await;
    s.ok(vec![append(&key, &message_id(id.created_ms(), "gift2"), "1")]).await;
    assert_eq!(indexes(&s.state(&key).await), [1, 2, 3]);
}

/// A receipt stands for its message after it was taken, and after the key was removed; without one
/// the id is free.
pub async fn receipts_outlive_message_and_data(s: Subject) {
    let key = key("p");
    let now = s.now().await;
    let [taken, dropped] = ["taken", "dropped"].map(|name| message_id(now, name));
    s.put(&key, "1").await;
    s.ok(vec![append(&key, &taken, "1"), append(&key, &dropped, "1")]).await;
    s.ok(vec![take(&key, 1, true), take(&key, 2, false)]).await;
    for _ in 0..2 {
        assert_eq!(
            s.conflict_kind(vec![append(&key, &taken, "1")]).await,
            ConflictKind::MessageSeen
        );
        assert_eq!(
            s.conflict_kind(vec![append(&key, &taken, "2")]).await,
            ConflictKind::MessageIdReused
        );
        let state = s.state(&key).await;
        if state.exists() {
            s.ok(vec![remove(&state)]).await;
        }
    }
    let state = s.ok(vec![append(&key, &dropped, "2")]).await.states.remove(0);
    assert_eq!(indexes(&state), [3]);
    s.ok(vec![take(&key, 3, true)]).await;
    assert_eq!(s.conflict_kind(vec![append(&key, &dropped, "2")]).await, ConflictKind::MessageSeen);
}

/// Ids are refused from a time too long ago or too far ahead; a message that is there is seen all
/// the same.
pub async fn message_ids_expire(s: Subject) {
    let key = key("p");
    let now = s.now().await;
    for (created, accepted) in [
        (now - 30 * DAY_MS, true),
        (now - 30 * DAY_MS - 1, false),
        (now + DAY_MS, true),
        (now + DAY_MS + 1, false),
    ] {
        let change = append(&key, &message_id(created, &format!("m{created}")), "1");
        if accepted {
            s.ok(vec![change]).await;
        } else {
            assert_eq!(s.conflict_kind(vec![change]).await, ConflictKind::MessageIdExpired);
        }
    }
    s.advance(DAY_MS);
    let old = message_id(now - 30 * DAY_MS, &format!("m{}", now - 30 * DAY_MS));
    assert_eq!(s.conflict_kind(vec![append(&key, &old, "1")]).await, ConflictKind::MessageSeen);
}

/// Receipts are kept as long as their ids are accepted, and deleted after 31 days.
pub async fn receipts_are_swept_when_their_ids_expired(s: Subject) {
    let key = key("p");
    let ahead = message_id(s.now().await + DAY_MS, "ahead");
    s.ok(vec![append(&key, &ahead, "1")]).await;
    s.ok(vec![take(&key, 1, true)]).await;
    s.advance(31 * DAY_MS);
    assert_eq!(s.sweep(NO_HISTORY).await.receipts, 0);
    assert_eq!(s.conflict_kind(vec![append(&key, &ahead, "1")]).await, ConflictKind::MessageSeen);
    s.advance(1);
    assert_eq!(s.sweep(NO_HISTORY).await.receipts, 1);
    assert_eq!(
        s.conflict_kind(vec![append(&key, &ahead, "1")]).await,
        ConflictKind::MessageIdExpired
    );
}

/// As many messages wait as the cap allows; one commit cannot go beyond it either.
pub async fn an_inbox_has_a_cap(s: Subject) {
    let key = key("p");
    let now = s.now().await;
    let capped = |name: &str, cap| match append(&key, &message_id(now, name), "1") {
        Change::AppendMessage { key, message, .. } => Change::AppendMessage { key, message, cap },
        other => other,
    };
    assert_eq!(s.conflict_kind(vec![capped("a", 0)]).await, ConflictKind::InboxFull);
    assert_eq!(
        s.conflict_kind(vec![capped("a", 1), capped("b", 1)]).await,
        ConflictKind::InboxFull
    );
    s.ok(vec![capped("a", 2), capped("b", 2)]).await;
    let conflict = s.conflict(vec![capped("c", 2)]).await;
    assert_eq!(
        (conflict.kind, conflict.state),
        (ConflictKind::InboxFull, Some(s.state(&key).await))
    );
    assert_eq!(
        s.conflict_kind(vec![capped("a", 2)]).await,
        ConflictKind::MessageSeen,
        "a retry is told the truth"
    );
    s.ok(vec![take(&key, 1, true)]).await;
    assert_eq!(indexes(&s.ok(vec![capped("c", 2)]).await.states[0]), [2, 3]);
}

/// A waiting message's payload is changed under its revision until it is locked.
pub async fn messages_are_changed_under_their_revision(s: Subject) {
    let key = key("p");
    assert_eq!(s.conflict_kind(vec![change(&key, 1, 1, "2")]).await, ConflictKind::MessageGone);
    s.ok(vec![append(&key, &message_id(s.now().await, "m"), "1")]).await;
    for revision in [0, 2] {
        assert_eq!(
            s.conflict_kind(vec![change(&key, 1, revision, "x")]).await,
            ConflictKind::MessageRevision
        );
        assert_eq!(
            s.conflict_kind(vec![lock(&key, 1, revision)]).await,
            ConflictKind::MessageRevision
        );
    }
    let before = s.state(&key).await;
    let state = s.ok(vec![change(&key, 1, 1, "two")]).await.states.remove(0);
    let message = &state.inbox.as_ref().unwrap()[0];
    assert_eq!((message.revision, &message.payload[..], message.locked), (2, &b"two"[..], false));
    assert!(state.inbox_revision > before.inbox_revision);
    assert_eq!(
        s.conflict_kind(vec![change(&key, 1, 1, "three")]).await,
        ConflictKind::MessageRevision
    );
    let locked = s.ok(vec![lock(&key, 1, 2)]).await.states.remove(0);
    assert!(
        locked.inbox.as_ref().unwrap()[0].locked && locked.inbox_revision > state.inbox_revision
    );
    assert_eq!(
        s.conflict_kind(vec![change(&key, 1, 2, "three")]).await,
        ConflictKind::MessageLocked
    );
    let again = s.ok(vec![lock(&key, 1, 2)]).await.states.remove(0);
    assert_eq!(again, locked, "locking a locked message does nothing");
    s.ok(vec![take(&key, 1, true)]).await;
    for gone in
        [change(&key, 1, 2, "x"), lock(&key, 1, 2), take(&key, 1, true), take(&key, 2, false)]
    {
        assert_eq!(s.conflict_kind(vec![gone]).await, ConflictKind::MessageGone);
    }
}

/// A message's effect on the data and its removal are one commit.
pub async fn effect_and_receipt_are_one_commit(s: Subject) {
    let key = key("p");
    let state = s.put(&key, "0 coins").await;
    let id = message_id(s.now().await, "coins");
    s.ok(vec![append(&key, &id, "5")]).await;
    let stale = KeyState { version: 9, ..state.clone() };
    assert_eq!(
        s.conflict_kind(vec![take(&key, 1, true), write(&stale, "5 coins")]).await,
        ConflictKind::Version
    );
    assert_eq!(indexes(&s.state(&key).await), [1]);
    s.ok(vec![take(&key, 1, true), write(&state, "5 coins")]).await;
    let conflict =
        s.conflict(vec![take(&key, 1, true), write(&s.state(&key).await, "10 coins")]).await;
    assert_eq!(
        (conflict.kind, conflict.state.as_ref().and_then(value)),
        (ConflictKind::MessageGone, Some("5 coins"))
    );
}

/// An import brings an inbox to a key whose inbox was never used, and to no other.
pub async fn an_inbox_is_imported_once(s: Subject) {
    let key = key("p");
    let id = message_id(s.now().await - 90 * DAY_MS, "old");
    let message = StoredMessage {
        index: 3,
        id: id.clone(),
        payload: Bytes::from_static(b"[1]"),
        locked: true,
        revision: 4,
        sent_ms: 77,
    };
    let import = |messages: &[StoredMessage]| vec![replace(&key, 0, 5, messages)];
    let state = s.ok(import(std::slice::from_ref(&message))).await.states.remove(0);
    assert_eq!((state.last_message, state.inbox.as_deref()), (5, Some(&[message.clone()][..])));
    assert!(state.inbox_revision > 0);
    assert_eq!(s.conflict_kind(import(&[])).await, ConflictKind::InboxRevision);
    assert_eq!(s.conflict_kind(vec![append(&key, &id, "[1]")]).await, ConflictKind::MessageSeen);
    let next =
        s.ok(vec![append(&key, &message_id(s.now().await, "new"), "1")]).await.states.remove(0);
    assert_eq!(indexes(&next), [3, 6]);
    let wrong = StoredMessage { index: 6, ..message };
    assert!(matches!(s.commit(import(&[wrong])).await, Err(StoreError::Invalid { .. })));
    // An inbox that was emptied was used.
    let used = super::key("used");
    s.ok(vec![append(&used, &id_now(&s).await, "1")]).await;
    s.ok(vec![take(&used, 1, false)]).await;
    assert_eq!(s.conflict_kind(vec![replace(&used, 0, 9, &[])]).await, ConflictKind::InboxRevision);
}

/// An inbox is replaced at its revision: what stays keeps the content that its id stands for, what
/// goes leaves a receipt, and the index goes on from the greatest one ever known.
pub async fn an_inbox_is_replaced_at_its_revision(s: Subject) {
    let key = key("p");
    let now = s.now().await;
    let [stays, goes, comes] = ["stays", "goes", "comes"].map(|name| message_id(now, name));
    let before =
        s.ok(vec![append(&key, &stays, "1"), append(&key, &goes, "1")]).await.states.remove(0);
    let inbox = before.inbox.clone().unwrap();
    let stayed = StoredMessage {
        payload: Bytes::from_static(b"2"),
        locked: true,
        revision: 7,
        ..inbox[0].clone()
    };
    let came = StoredMessage { index: 9, id: comes.clone(), ..inbox[1].clone() };
    let messages = [stayed.clone(), came.clone()];
    for revision in [0, before.inbox_revision + 1] {
        assert_eq!(
            s.conflict_kind(vec![replace(&key, revision, 9, &messages)]).await,
            ConflictKind::InboxRevision
        );
    }
    let after =
        s.ok(vec![replace(&key, before.inbox_revision, 9, &messages)]).await.states.remove(0);
    assert!(after.inbox_revision > before.inbox_revision);
    assert_eq!((after.last_message, after.inbox.as_deref()), (9, Some(&messages[..])));
    for (id, payload, kind) in [
        (&stays, "1", ConflictKind::MessageSeen),
        (&stays, "2", ConflictKind::MessageIdReused),
        (&goes, "1", ConflictKind::MessageSeen),
        (&goes, "2", ConflictKind::MessageIdReused),
        (&comes, "1", ConflictKind::MessageSeen),
    ] {
        assert_eq!(s.conflict_kind(vec![append(&key, id, payload)]).await, kind, "{id}");
    }
    // Another message in the place of one that goes, and fewer indexes than were given out.
    let other = StoredMessage { id: message_id(now, "other"), ..came };
    let after = s
        .ok(vec![replace(&key, after.inbox_revision, 9, std::slice::from_ref(&other))])
        .await
        .states
        .remove(0);
    assert_eq!(after.inbox.as_deref(), Some(&[other][..]));
    let after = s.ok(vec![replace(&key, after.inbox_revision, 0, &[])]).await.states.remove(0);
    assert_eq!((after.last_message, after.inbox.as_deref()), (9, Some(&[][..])));
    assert_eq!(s.conflict_kind(vec![append(&key, &stays, "1")]).await, ConflictKind::MessageSeen);
    let next = s.ok(vec![append(&key, &message_id(now, "next"), "1")]).await.states.remove(0);
    assert_eq!(indexes(&next), [10]);
}

fn replace(
    key: &ProfileKey,
    revision: u64,
    last_message: u64,
    messages: &[StoredMessage],
) -> Change {
    Change::ReplaceInbox { key: key.clone(), revision, last_message, messages: messages.to_vec() }
}

/// A message id is shown and read as `TIME:NAME`, and its digest is that of the shown form.
pub async fn message_ids_are_shown_as_time_and_name(s: Subject) {
    let id = message_id(12, "a:b");
    assert_eq!(id.to_string(), "12:a:b");
    assert_eq!("12:a:b".parse::<MessageId>().as_ref(), Ok(&id));
    assert_eq!(id.digest(), Digest::of(b"12:a:b"));
    let key = key("p");
    let named = message_id(s.now().await, "ä:\u{1F600}");
    let state = s.ok(vec![append(&key, &named, "1")]).await.states.remove(0);
    assert_eq!(state.inbox.unwrap()[0].id, named);
}

async fn id_now(s: &Subject) -> MessageId {
    message_id(s.now().await, "now")
}

/// A message that is moved within its inbox leaves a receipt, and another one when it is taken or
/// erased later. The later one counts.
pub async fn a_message_moved_within_an_inbox_can_be_taken(s: Subject) {
    let id = message_id(s.now().await + DAY_MS, "moved");
    let keys = ["taken", "erased"].map(key);
    for key in &keys {
        let state = s.ok(vec![append(key, &id, "1")]).await.states.remove(0);
        let moved = StoredMessage { index: 2, ..state.inbox.as_ref().unwrap()[0].clone() };
        s.ok(vec![replace(key, state.inbox_revision, 2, &[moved])]).await;
    }
    s.advance(20 * DAY_MS);
    s.ok(vec![take(&keys[0], 2, true)]).await;
    s.ok(vec![Change::Erase { key: keys[1].clone(), epoch: 0 }]).await;
    s.advance(11 * DAY_MS + 1);
    assert_eq!(s.sweep(NO_HISTORY).await.receipts, 0, "those of the move are not old yet");
    for key in &keys {
        assert_eq!(indexes(&s.state(key).await), [] as [u64; 0]);
        assert_eq!(s.conflict_kind(vec![append(key, &id, "1")]).await, ConflictKind::MessageSeen);
    }
    s.advance(20 * DAY_MS);
    assert_eq!(s.sweep(NO_HISTORY).await.receipts, 2);
}

/// A commit that replaces an inbox changes no message of it otherwise: it may be another one than
/// before. It may append to it.
pub async fn a_message_of_a_replaced_inbox_is_not_changed(s: Subject) {
    let key = key("p");
    let now = s.now().await;
    let [a, b] = ["a", "b"].map(|name| message_id(now, name));
    let state = s.ok(vec![append(&key, &id_now(&s).await, "1")]).await.states.remove(0);
    let other = StoredMessage { id: a, ..state.inbox.as_ref().unwrap()[0].clone() };
    let replaced = || replace(&key, state.inbox_revision, 1, std::slice::from_ref(&other));
    for changed in [take(&key, 1, true), lock(&key, 1, 1), change(&key, 1, 1, "2")] {
        let refused = s.commit(vec![replaced(), changed]).await;
        assert!(matches!(refused, Err(StoreError::Invalid { .. })), "{refused:?}");
    }
    assert_eq!(s.state(&key).await, state);
    let after = s.ok(vec![replaced(), append(&key, &b, "2")]).await.states.remove(0);
    assert_eq!(indexes(&after), [1, 2]);
}
