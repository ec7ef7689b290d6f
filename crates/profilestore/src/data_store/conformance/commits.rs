//! Cases about commits: preconditions, atomicity, identity, batches.

use super::*;

/// A key that was never used reads as absent, and reading it does not make it.
pub async fn an_unused_key_is_absent(s: Subject) {
    let key = key("new");
    assert_eq!(
        s.state(&key).await,
        KeyState { inbox: Some(vec![]), ..KeyState::absent(key.clone()) }
    );
    let (_, state) = s.store.read_one(&key, Returning::HEAD).await.unwrap();
    assert_eq!(state, KeyState::absent(key));
}

/// The first write makes version 1; the reply, a read and the version itself say the same.
pub async fn a_first_write_makes_version_1(s: Subject) {
    let key = key("p");
    let now = s.now().await;
    let reply = s.ok(vec![write(&KeyState::absent(key.clone()), "one")]).await;
    assert_eq!(reply.now_ms, now);
    assert!(!reply.already_applied);
    let state = &reply.states[0];
    assert_eq!(
        (state.version, state.epoch, state.created_ms, value(state)),
        (1, 0, now, Some("one"))
    );
    let head = state.head.as_ref().unwrap();
    assert_eq!(
        (head.number, head.written_ms, head.stored_ms, head.superseded_ms),
        (1, now, now, None)
    );
    assert_eq!(
        (head.cause, head.author.as_str(), head.bytes, head.pinned),
        (Cause::Save, "tester", 3, false)
    );
    assert_eq!(*state, s.state(&key).await);
    s.advance(5);
    let second = s.put(&key, "two").await;
    assert_eq!((second.version, second.created_ms, value(&second)), (2, now, Some("two")));
    assert_eq!(second.head.unwrap().written_ms, now + 5);
}

/// A write fails unless it names the epoch and the version, the epoch first; the conflict shows
/// what is there.
pub async fn a_write_needs_epoch_and_version(s: Subject) {
    let key = key("p");
    let before = KeyState::absent(key.clone());
    s.ok(vec![write(&before, "one"), lease(&before, LeaseState::default(), true)]).await;
    let now = s.state(&key).await;
    assert_eq!((now.epoch, now.version), (1, 1));
    for (epoch, version, kind) in [
        (0, 1, ConflictKind::Epoch),
        (2, 1, ConflictKind::Epoch),
        (0, 0, ConflictKind::Epoch),
        (1, 0, ConflictKind::Version),
        (1, 2, ConflictKind::Version),
    ] {
        let wrong = KeyState { epoch, version, ..now.clone() };
        let conflict = s.conflict(vec![write(&wrong, "x")]).await;
        assert_eq!(
            (conflict.kind, conflict.state.as_ref(), conflict.server),
            (kind, Some(&now), None)
        );
    }
    assert_eq!(s.state(&key).await, now);
    assert_eq!(s.put(&key, "two").await.version, 2);
}

/// A lease fails unless it names the revision; it is stored as it was given and counts on.
pub async fn a_lease_needs_its_revision(s: Subject) {
    let key = key("p");
    let absent = KeyState::absent(key.clone());
    let given = held(s.server().await);
    let state = s.ok(vec![lease(&absent, given.clone(), true)]).await.states.remove(0);
    assert_eq!((state.lease_revision, state.epoch, &state.lease, state.version), (1, 1, &given, 0));
    assert_eq!(state.holder_server, None, "there is no row of that server");
    let conflict = s.conflict(vec![lease(&absent, LeaseState::default(), true)]).await;
    assert_eq!((conflict.kind, conflict.state), (ConflictKind::Lease, Some(state.clone())));
    let state = s.ok(vec![lease(&state, LeaseState::default(), false)]).await.states.remove(0);
    assert_eq!((state.lease_revision, state.epoch, &state.lease), (2, 1, &LeaseState::default()));
    assert_eq!(state, s.state(&key).await);
}

/// A check fails unless it names the epoch, changes nothing, and its id is not kept.
pub async fn a_check_writes_nothing(s: Subject) {
    let key = key("p");
    let check = |epoch| Change::Check { key: key.clone(), epoch };
    let commit = s.make(vec![check(0)]).await;
    for _ in 0..2 {
        let reply = s.store.commit_one(commit.clone()).await.unwrap();
        assert!(!reply.already_applied);
        assert_eq!(reply.states[0], s.state(&key).await);
    }
    assert_eq!(s.conflict_kind(vec![check(1)]).await, ConflictKind::Epoch);
    let state = s
        .ok(vec![lease(&KeyState::absent(key.clone()), LeaseState::default(), true)])
        .await
        .states
        .remove(0);
    assert_eq!(s.conflict_kind(vec![check(0)]).await, ConflictKind::Epoch);
    assert_eq!(s.ok(vec![check(1)]).await.states, std::slice::from_ref(&state));
    assert_eq!(s.state(&key).await, state);
}

/// A request that found nothing to change was done all the same: it changes nothing later either.
pub async fn a_check_for_a_request_is_kept(s: Subject) {
    let key = key("p");
    s.put(&key, "1").await;
    let state = s.state(&key).await;
    let mut commit = s.make(vec![Change::Check { key: key.clone(), epoch: state.epoch }]).await;
    commit.fingerprint = Some(7);
    let first = s.store.commit_one(commit.clone()).await.unwrap();
    assert!(!first.already_applied);
    assert_eq!(first.states, std::slice::from_ref(&state));
    assert_eq!(s.state(&key).await, state, "nothing was written");
    let again = Commit { changes: vec![write(&state, "2")], ..commit.clone() };
    let again = s.store.commit_one(again).await.unwrap();
    assert!(again.already_applied);
    assert_eq!((again.states, s.state(&key).await), (vec![state.clone()], state));
    let other = Commit { fingerprint: Some(8), ..commit.clone() };
    let reused = s.store.commit_one(other).await.unwrap_err();
    assert_eq!(reused.conflict(), Some(&ConflictKind::CommitIdReused));
    let kind = s.conflict_kind(vec![Change::Abort { commit: commit.id }]).await;
    assert_eq!(kind, ConflictKind::AlreadyApplied);
}

/// One failing change undoes all of its commit, over several keys and kinds of change.
pub async fn a_commit_is_all_or_nothing(s: Subject) {
    let (a, b) = (key("a"), key("b"));
    let (first_a, first_b) = (s.put(&a, "a1").await, s.put(&b, "b1").await);
    let id = message_id(s.now().await, "gift");
    let server = s.server().await;
    let both = |version| {
        let stale = KeyState { version, ..first_b.clone() };
        vec![
            write(&first_a, "a2"),
            lease(&first_a, held(server), true),
            append(&a, &id, "1"),
            register(server),
            write(&stale, "b2"),
        ]
    };
    let conflict = s.conflict(both(7)).await;
    assert_eq!((conflict.kind, conflict.state.as_ref()), (ConflictKind::Version, Some(&first_b)));
    assert_eq!((s.state(&a).await, s.state(&b).await), (first_a.clone(), first_b.clone()));
    assert_eq!(s.store.servers().await.unwrap().1, []);
    let reply = s.ok(both(1)).await;
    let values: Vec<_> = reply.states.iter().map(value).collect();
    assert_eq!(values, [Some("a2"), Some("b2")]);
    assert_eq!((reply.states[0].last_message, reply.states[0].epoch), (1, 1));
    assert_eq!(reply.states[0].holder_server.as_ref().map(|row| row.id), Some(server));
}

/// Preconditions see the state before the commit, not what its other changes do.
pub async fn preconditions_are_judged_before_the_commit(s: Subject) {
    let key = key("p");
    let absent = KeyState::absent(key.clone());
    // The lease raises the epoch first; check and write still name the old one.
    let check = Change::Check { key: key.clone(), epoch: 0 };
    let reply = s
        .ok(vec![lease(&absent, held(s.server().await), true), check, write(&absent, "one")])
        .await;
    let state = &reply.states[0];
    assert_eq!((state.epoch, state.version, value(state)), (1, 1, Some("one")));
    assert_eq!(
        state.head.as_ref().unwrap().load_count,
        3,
        "a version tells the load count after its commit"
    );
    // A message that this commit appends cannot be locked by it.
    let id = message_id(s.now().await, "m");
    let lock = Change::LockMessage { key: key.clone(), index: 1, revision: 1 };
    assert_eq!(
        s.conflict_kind(vec![append(&key, &id, "1"), lock]).await,
        ConflictKind::MessageGone
    );
    let pin = Change::Pin { key: key.clone(), version: 2, pinned: true };
    assert_eq!(s.conflict_kind(vec![write(state, "two"), pin]).await, ConflictKind::VersionGone);
    // A server that this commit declares dead is alive for its other preconditions.
    let server = s.registered().await;
    s.ok(vec![Change::MarkDead { id: server, revision: 1 }, write(state, "two")]).await;
}

/// The states of a reply come in the order of first mention, as much of them as was asked for.
pub async fn a_reply_says_what_was_asked_for(s: Subject) {
    let (a, b) = (key("a"), key("b"));
    let (at_a, at_b) = (KeyState::absent(a.clone()), KeyState::absent(b.clone()));
    let id = message_id(s.now().await, "m");
    let mut commit = s
        .make(vec![
            write(&at_b, "b"),
            append(&b, &id, "1"),
            write(&at_a, "a"),
            append(&a, &id, "1"),
        ])
        .await;
    commit.returning = Returning::HEAD;
    let reply = s.store.commit_one(commit).await.unwrap();
    let keys: Vec<_> = reply.states.iter().map(|state| state.key.clone()).collect();
    assert_eq!(keys, [b.clone(), a.clone()]);
    assert!(
        reply
            .states
            .iter()
            .all(|state| state.value.is_none() && state.inbox.is_none() && state.head.is_some())
    );
    for (unless, brought) in [(u64::MAX, true), (0, true), (1, false), (2, true)] {
        let returning = Returning { value: false, inbox_unless: Some(unless) };
        let snapshot = s.store.read(&[b.clone(), a.clone()], returning).await.unwrap();
        assert_eq!(snapshot.states.len(), 2);
        for (state, key) in snapshot.states.iter().zip([&b, &a]) {
            assert_eq!(
                (&state.key, state.value.is_none(), state.inbox.is_some()),
                (key, true, brought),
                "unless={unless}"
            );
        }
        let check = Change::Check { key: a.clone(), epoch: 0 };
        let mut commit = s.make(vec![check]).await;
        commit.returning = returning;
        assert_eq!(s.store.commit_one(commit).await.unwrap().states[0].inbox.is_some(), brought);
    }
    assert_eq!(s.store.read(&[], Returning::ALL).await.unwrap().states, []);
}

/// The same id again does nothing, and says so with what is there now.
pub async fn a_commit_is_applied_once(s: Subject) {
    let key = key("p");
    let server = s.server().await;
    let commit = s.make(vec![write(&KeyState::absent(key.clone()), "one"), register(server)]).await;
    assert!(!s.store.commit_one(commit.clone()).await.unwrap().already_applied);
    let later = s.put(&key, "two").await;
    let reply = s.store.commit_one(commit.clone()).await.unwrap();
    assert!(reply.already_applied);
    assert_eq!((&reply.states[0], reply.server.map(|row| row.id)), (&later, Some(server)));
    assert_eq!(s.state(&key).await, later);
    let twice = s.make(vec![write(&later, "three")]).await;
    let replies = s.store.commit(vec![twice.clone(), twice]).await;
    let applied: Vec<_> = replies.into_iter().map(|reply| reply.unwrap().already_applied).collect();
    assert_eq!(applied, [false, true]);
    assert_eq!(s.state(&key).await.version, 3);
}

/// A commit id that comes again for another request is refused, and is not taken for done. What
/// the commit holds does not matter: another server builds another one for the same request.
pub async fn a_commit_id_is_used_for_one_request(s: Subject) {
    let (key, greatest) = (key("p"), u64::MAX);
    let mut commit = s.make(vec![write(&KeyState::absent(key.clone()), "one")]).await;
    commit.fingerprint = Some(greatest);
    s.store.commit_one(commit.clone()).await.unwrap();
    let state = s.put(&key, "two").await;
    let again = |fingerprint, changes: &[Change]| {
        let changes = changes.to_vec();
        s.store.commit_one(Commit { fingerprint, changes, ..commit.clone() })
    };
    let other = [write(&state, "three")];
    for changes in [&commit.changes[..], &other] {
        for same in [Some(greatest), None] {
            assert!(again(same, changes).await.unwrap().already_applied);
        }
        for reused in [0, 1, greatest - 1] {
            match again(Some(reused), changes).await {
                Err(StoreError::Conflict(conflict)) => {
                    assert_eq!(conflict.kind, ConflictKind::CommitIdReused);
                    assert_eq!((conflict.state, conflict.server), (None, None));
                }
                other => panic!("expected a conflict, found {other:?}"),
            }
        }
    }
    assert_eq!(s.state(&key).await, state);
    // An id that was used without one is known as ever, and an abort has none.
    let plain = s.make(vec![write(&state, "three")]).await;
    s.store.commit_one(plain.clone()).await.unwrap();
    let named = Commit { fingerprint: Some(7), ..plain };
    assert!(s.store.commit_one(named.clone()).await.unwrap().already_applied);
    let aborted = Commit { id: CommitId(s.uuid().await), ..named };
    s.ok(vec![Change::Abort { commit: aborted.id }]).await;
    let error = s.store.commit_one(aborted).await.unwrap_err();
    assert_eq!(error.conflict(), Some(&ConflictKind::Aborted));
}

/// A commit that failed left nothing: its id may be used again.
pub async fn a_failed_id_may_come_again(s: Subject) {
    let key = key("p");
    let ahead = KeyState { version: 1, ..KeyState::absent(key.clone()) };
    let commit = s.make(vec![write(&ahead, "two")]).await;
    assert_eq!(
        s.store.commit_one(commit.clone()).await.unwrap_err().conflict(),
        Some(&ConflictKind::Version)
    );
    s.put(&key, "one").await;
    let reply = s.store.commit_one(commit).await.unwrap();
    assert_eq!((reply.already_applied, reply.states[0].version), (false, 2));
}

/// A commit that was aborted first never takes effect, however late and often it arrives.
pub async fn an_aborted_commit_arrives_too_late(s: Subject) {
    let key = key("p");
    let late = s.make(vec![write(&KeyState::absent(key.clone()), "late")]).await;
    let abort = s.make(vec![Change::Abort { commit: late.id }]).await;
    let reply = s.store.commit_one(abort.clone()).await.unwrap();
    assert_eq!((reply.already_applied, reply.states.len()), (false, 0));
    for _ in 0..2 {
        let err = s.store.commit_one(late.clone()).await.unwrap_err();
        assert_eq!(err.conflict(), Some(&ConflictKind::Aborted));
    }
    assert_eq!(s.state(&key).await.version, 0);
    assert!(
        s.store.commit_one(abort).await.unwrap().already_applied,
        "an abort is a commit like others"
    );
    s.ok(vec![Change::Abort { commit: late.id }]).await;
    assert_eq!(s.put(&key, "other").await.version, 1);
}

/// What was applied cannot be aborted.
pub async fn an_applied_commit_cannot_be_aborted(s: Subject) {
    let key = key("p");
    let commit = s.make(vec![write(&KeyState::absent(key.clone()), "one")]).await;
    s.store.commit_one(commit.clone()).await.unwrap();
    let conflict = s.conflict(vec![Change::Abort { commit: commit.id }]).await;
    assert_eq!((conflict.kind, conflict.state), (ConflictKind::AlreadyApplied, None));
    assert!(s.store.commit_one(commit.clone()).await.unwrap().already_applied);
    // In one batch too.
    let next = s.make(vec![write(&s.state(&key).await, "two")]).await;
    let abort = s.make(vec![Change::Abort { commit: next.id }]).await;
    let replies = s.store.commit(vec![next, abort]).await;
    assert!(replies[0].is_ok());
    assert_eq!(replies[1].as_ref().unwrap_err().conflict(), Some(&ConflictKind::AlreadyApplied));
}

/// Epoch, version, lease revision, inbox revision and message index go on counting after a removal.
pub async fn counters_survive_removal(s: Subject) {
    let key = key("p");
    let absent = KeyState::absent(key.clone());
    let id = message_id(s.now().await, "m");
    let used = s
        .ok(vec![
            write(&absent, "one"),
            lease(&absent, held(s.server().await), true),
            append(&key, &id, "1"),
        ])
        .await;
    let used = &used.states[0];
    let take = Change::RemoveMessage { key: key.clone(), index: 1, receipt: true };
    let removed = s
        .ok(vec![remove(used), lease(used, LeaseState::default(), true), take])
        .await
        .states
        .remove(0);
    assert!(!removed.exists() && removed.head.as_ref().unwrap().removed);
    assert_eq!((removed.epoch, removed.version, removed.lease_revision), (2, 2, 2));
    assert_eq!((removed.inbox_revision, removed.last_message), (2, 1));
    assert_eq!((removed.value.as_ref(), removed.head.as_ref().unwrap().bytes), (None, 0));
    assert_eq!(removed, s.state(&key).await);
    assert_eq!(s.conflict_kind(vec![write(&absent, "again")]).await, ConflictKind::Epoch);
    let id = message_id(s.now().await, "n");
    let again = s.ok(vec![write(&removed, "again"), append(&key, &id, "1")]).await.states.remove(0);
    assert_eq!(
        (again.epoch, again.version, again.last_message, again.created_ms),
        (2, 3, 2, used.created_ms)
    );
    assert!(again.exists());
}

/// A malformed commit is refused as such, and the others of its batch are not.
pub async fn malformed_commits_are_invalid(s: Subject) {
    let absent = KeyState::absent(key("p"));
    let too_big = "x".repeat(super::super::MAX_VALUE_BYTES + 1);
    let bad = [
        s.make(vec![]).await,
        s.make(vec![write(&absent, "a"), write(&absent, "b")]).await,
        s.make(vec![write(&absent, &too_big)]).await,
        s.make(vec![Change::Abort { commit: CommitId(s.uuid().await) }, write(&absent, "a")]).await,
    ];
    let mut batch = bad.to_vec();
    batch.push(s.make(vec![write(&absent, "good")]).await);
    let replies = s.store.commit(batch).await;
    for reply in &replies[..4] {
        assert!(matches!(reply, Err(StoreError::Invalid { .. })), "{reply:?}");
    }
    assert!(replies[4].is_ok());
    assert_eq!(value(&s.state(&absent.key).await), Some("good"));
}

/// A commit that names other contents is refused, a check included.
pub async fn a_commit_for_other_contents_is_refused(s: Subject) {
    let absent = KeyState::absent(key("p"));
    for change in [write(&absent, "a"), Change::Check { key: absent.key.clone(), epoch: 0 }] {
        let mut commit = s.make(vec![change]).await;
        let found = commit.incarnation;
        commit.incarnation = Incarnation(Uuid::from_u128(4));
        match s.store.commit_one(commit.clone()).await {
            Err(StoreError::Replaced { expected, found: told }) => {
                assert_eq!((expected, told), (commit.incarnation, found))
            }
            other => panic!("expected a refusal, found {other:?}"),
        }
    }
    assert_eq!(s.state(&absent.key).await.version, 0);
}

/// A batch's commits take effect in order; one that fails stops none behind it, and later ones see
/// earlier ones.
pub async fn a_batch_keeps_its_order(s: Subject) {
    let key = key("p");
    let at = |version| KeyState { version, ..KeyState::absent(key.clone()) };
    let mut batch = Vec::new();
    for (version, value) in [(0, "one"), (1, "two"), (1, "no"), (2, "three")] {
        batch.push(s.make(vec![write(&at(version), value)]).await);
    }
    batch.push(s.make(vec![Change::Check { key: key.clone(), epoch: 0 }]).await);
    let replies = s.store.commit(batch).await;
    let versions: Vec<_> = replies
        .iter()
        .map(|reply| reply.as_ref().map(|reply| reply.states[0].version).ok())
        .collect();
    assert_eq!(versions, [Some(1), Some(2), None, Some(3), Some(3)]);
    match &replies[2] {
        Err(StoreError::Conflict(conflict)) => {
            assert_eq!(conflict.state.as_ref().unwrap().version, 2)
        }
        other => panic!("expected a conflict, found {other:?}"),
    }
    assert_eq!(value(&s.state(&key).await), Some("three"));
    assert!(s.store.commit(vec![]).await.is_empty());
}

/// The largest value comes back as it was, and so does a small one after it.
pub async fn big_values_come_back(s: Subject) {
    let key = key("p");
    let mut seed = 1_u32;
    let mut bytes = vec![0; super::super::MAX_VALUE_BYTES];
    for byte in &mut bytes {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *byte = (seed >> 24) as u8;
    }
    let big = Bytes::from(bytes);
    let change = Write { value: NewValue::Bytes(big.clone()), ..Write::default() }
        .over(&KeyState::absent(key.clone()));
    let state = s.ok(vec![change]).await.states.remove(0);
    assert_eq!(
        (state.head.as_ref().unwrap().bytes, state.value.as_ref()),
        (big.len() as u64, Some(&big))
    );
    assert_eq!(s.state(&key).await.value, Some(big));
    let empty = s.put(&key, "").await;
    assert_eq!((value(&empty), empty.exists()), (Some(""), true));
    assert_eq!(s.state(&key).await, empty);
}

/// Of many that race for one version exactly one wins, each time.
pub async fn one_of_many_writers_wins(s: Subject) {
    let s = Arc::new(s);
    let key = key("p");
    for round in 0..10_u64 {
        let state = s.state(&key).await;
        assert_eq!(state.version, round);
        let mut tasks = tokio::task::JoinSet::new();
        for task in 0..16 {
            let (s, state) = (s.clone(), state.clone());
            tasks.spawn(async move {
                s.commit(vec![write(&state, &task.to_string())]).await.map(|_| task)
            });
        }
        let mut winners = Vec::new();
        while let Some(done) = tasks.join_next().await {
            match done.unwrap() {
                Ok(task) => winners.push(task.to_string()),
                Err(err) => assert_eq!(err.conflict(), Some(&ConflictKind::Version)),
            }
        }
        assert_eq!(winners.len(), 1);
        assert_eq!(value(&s.state(&key).await), Some(winners[0].as_str()));
    }
}

/// Commits on many keys at once all take effect, and a read of all of them sees every one.
pub async fn many_keys_at_once(s: Subject) {
    let s = Arc::new(s);
    let keys: Vec<_> = (0..200).map(|n| key(&format!("p{n}"))).collect();
    let mut tasks = tokio::task::JoinSet::new();
    for key in keys.clone() {
        let s = s.clone();
        tasks.spawn(async move {
            for round in 1..=3 {
                assert_eq!(s.put(&key, key.key()).await.version, round);
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    let snapshot = s.store.read(&keys, Returning::ALL).await.unwrap();
    for (state, key) in snapshot.states.iter().zip(&keys) {
        assert_eq!((&state.key, state.version, value(state)), (key, 3, Some(key.key())));
    }
}
