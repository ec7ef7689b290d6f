use bytes::Bytes;
use uuid::Uuid;

use super::*;
use crate::data_store::{
    Cause, Holder, MAX_MESSAGE_BYTES, MAX_VALUE_BYTES, NewMessage, Offer, Request, RequestId,
    Returning,
};

fn key() -> ProfileKey {
    ProfileKey::new("S", "global", "k").unwrap()
}

fn commit(changes: Vec<Change>) -> Commit {
    let id = |n| Uuid::from_u128(n);
    Commit {
        id: CommitId(id(1)),
        incarnation: Incarnation(id(2)),
        from: None,
        changes,
        returning: Returning::HEAD,
        fingerprint: None,
    }
}

fn write(bytes: usize, author: usize) -> Change {
    Change::Write {
        key: key(),
        epoch: 0,
        version: 0,
        value: NewValue::Bytes(vec![0; bytes].into()),
        user_ids: vec![],
        cause: Cause::Save,
        author: "a".repeat(author),
        keep_previous: false,
        seal: false,
        imported: None,
    }
}

fn reason(changes: Vec<Change>) -> String {
    match check_commit(&commit(changes)) {
        Err(StoreError::Invalid { reason }) => reason,
        other => panic!("expected an invalid call, found {other:?}"),
    }
}

#[test]
fn sizes_are_limited_and_named() {
    assert!(check_commit(&commit(vec![write(MAX_VALUE_BYTES, MAX_AUTHOR_BYTES)])).is_ok());
    let text = reason(vec![write(MAX_VALUE_BYTES + 1, 0)]);
    assert!(text.contains("S/k") && text.contains(&MAX_VALUE_BYTES.to_string()), "{text}");
    assert!(reason(vec![write(0, 201)]).contains("limit=`200`"));
    let message = |bytes| Change::AppendMessage {
        key: key(),
        message: NewMessage {
            id: MessageId::new(0, "m").unwrap(),
            payload: Bytes::from(vec![0; bytes]),
        },
        cap: 1,
    };
    assert!(check_commit(&commit(vec![message(MAX_MESSAGE_BYTES)])).is_ok());
    assert!(reason(vec![message(MAX_MESSAGE_BYTES + 1)]).contains("a message is too large"));
    assert!(reason(vec![message(1), message(1)]).contains("at most once"));
}

#[test]
fn malformed_commits_are_refused() {
    assert!(reason(vec![]).contains("at least one"));
    assert!(reason(vec![write(1, 1), write(1, 1)]).contains("at most once"));
    let lease = || Change::Lease {
        key: key(),
        revision: 0,
        lease: LeaseState::default(),
        raise_epoch: false,
        seal: false,
    };
    assert!(reason(vec![lease(), lease()]).contains("at most once"));
    let abort = |n| Change::Abort { commit: CommitId(Uuid::from_u128(n)) };
    assert!(reason(vec![abort(9), lease()]).contains("only change"));
    assert!(reason(vec![abort(1)]).contains("itself"));
    let remove = || Change::RemoveMessage { key: key(), index: 1, receipt: false };
    let lock = || Change::LockMessage { key: key(), index: 1, revision: 1 };
    assert!(reason(vec![remove(), lock()]).contains("after removing"));
    assert!(check_commit(&commit(vec![lock(), remove()])).is_ok());
    let import =
        || Change::ReplaceInbox { key: key(), revision: 0, last_message: 1, messages: vec![] };
    assert!(reason(vec![lock(), import()]).contains("before other changes"));
    assert!(reason(vec![import(), lock()]).contains("that it replaces"));
    assert!(reason(vec![import(), remove()]).contains("that it replaces"));
    let dead = || Change::MarkDead { id: ServerId(Uuid::nil()), revision: 1 };
    assert!(reason(vec![dead(), dead()]).contains("a server at most once"));
    let erase = || Change::Erase { key: key(), epoch: 0 };
    assert!(reason(vec![erase(), write(1, 1)]).contains("last change"));
    assert!(reason(vec![erase(), erase()]).contains("last change"));
    assert!(check_commit(&commit(vec![write(1, 1), erase()])).is_ok());
}

#[test]
fn a_message_id_lives_thirty_days_and_may_be_a_day_ahead() {
    let now = 100 * DAY_MS;
    let accepts = |created| accepts_message_id(&MessageId::new(created, "m").unwrap(), now);
    assert!(accepts(now - 30 * DAY_MS));
    assert!(!accepts(now - 30 * DAY_MS - 1));
    assert!(accepts(now + DAY_MS));
    assert!(!accepts(now + DAY_MS + 1));
    assert!(!accepts(i64::MIN) && !accepts(i64::MAX));
}

#[test]
fn the_first_write_of_an_hour_keeps_what_it_replaces() {
    let plain = Replaced {
        stored_ms: HOUR_MS,
        removed: false,
        sealed: false,
        pinned: false,
        imported: false,
    };
    let kept = |previous, now| keeps_previous(previous, false, now);
    assert!(!kept(plain, HOUR_MS) && !kept(plain, 2 * HOUR_MS - 1));
    assert!(kept(plain, 2 * HOUR_MS));
    assert!(!kept(plain, HOUR_MS - 1), "a clock that stepped back keeps nothing");
    assert!(keeps_previous(plain, true, HOUR_MS));
    for special in [
        Replaced { removed: true, ..plain },
        Replaced { sealed: true, ..plain },
        Replaced { pinned: true, ..plain },
        Replaced { imported: true, ..plain },
    ] {
        assert!(kept(special, HOUR_MS), "{special:?}");
    }
}

#[test]
fn notices_go_to_the_old_holder_and_the_new_offer() {
    let [a, b] = [10, 11].map(|n| ServerId(Uuid::from_u128(n)));
    let holder = Holder {
        server: Some(a),
        place_id: 1,
        job_id: "a".into(),
        session: "s".into(),
        since_ms: 0,
        last_update_ms: None,
        document: None,
    };
    let held = LeaseState { holder: Some(holder), ..LeaseState::default() };
    let offer = Offer { to: RequestId(Uuid::from_u128(5)), server: b, at_ms: 1 };
    let lease = LeaseState { offer: Some(offer), ..LeaseState::default() };
    let change = Change::Lease {
        key: key(),
        revision: 1,
        lease: lease.clone(),
        raise_epoch: false,
        seal: false,
    };
    let mut made = commit(vec![change]);
    assert_eq!(notified(&made, &key(), &held), [a, b]);
    made.from = Some(a);
    assert_eq!(notified(&made, &key(), &held), [b]);
    assert_eq!(notified(&made, &key(), &lease), [], "an offer that was there before is not new");
    assert_eq!(notified(&commit(vec![write(1, 1)]), &key(), &held), [a]);
    assert_eq!(notified(&commit(vec![write(1, 1)]), &key(), &lease), []);
}

#[test]
fn a_notice_goes_to_the_server_that_asked_in_vain() {
    let [a, b] = [10, 11].map(|n| ServerId(Uuid::from_u128(n)));
    let request = |n, server| Request {
        id: RequestId(Uuid::from_u128(n)),
        server: Some(server),
        place_id: 1,
        job_id: "j".into(),
        at_ms: 0,
        document: None,
    };
    let asked = |request| LeaseState { request, ..LeaseState::default() };
    let lease = |lease| {
        commit(vec![Change::Lease {
            key: key(),
            revision: 1,
            lease,
            raise_epoch: false,
            seal: false,
        }])
    };
    let before = asked(Some(request(1, a)));
    assert_eq!(
        notified(&lease(asked(Some(request(2, b)))), &key(), &before),
        [a],
        "another one asks"
    );
    assert_eq!(notified(&lease(asked(None)), &key(), &before), [a], "nobody asks any more");
    assert_eq!(notified(&lease(before.clone()), &key(), &before), [], "it is still there");
    let mut withdrawn = lease(asked(None));
    withdrawn.from = Some(a);
    assert_eq!(notified(&withdrawn, &key(), &before), [], "withdrawn");
    let offer = Offer { to: RequestId(Uuid::from_u128(5)), server: b, at_ms: 1 };
    let offered = LeaseState { offer: Some(offer), ..before.clone() };
    assert_eq!(notified(&lease(before.clone()), &key(), &offered), [a], "it comes next");
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
#[test]
fn a_prefix_ends_before_the_next_string() {
    for (prefix, end) in [
        ("a", Some("b")),
        ("az", Some("a{")),
        ("", None),
        ("\u{10ffff}", None),
        ("a\u{10ffff}\u{10ffff}", Some("b")),
        ("\u{d7ff}", Some("\u{e000}")),
    ] {
        assert_eq!(end_of_prefix(prefix).as_deref(), end, "{prefix}");
    }
}
