//! Saves by the server that holds a profile: the id of the last one is kept in the key.

use super::{
    Cause, Change, Commit, ConflictKind, DataStoreExt as _, KeyState, LeaseState, ServerId,
    Subject, Write, append, held, key, lease, message_id, value, write,
};

/// A save by a server and nothing else.
async fn save(s: &Subject, by: ServerId, state: &KeyState, value: &str) -> Commit {
    Commit { from: Some(by), ..s.make(vec![write(state, value)]).await }
}

/// Saves, and gives the commit with what the key holds then.
async fn saved(s: &Subject, by: ServerId, state: &KeyState, value: &str) -> (Commit, KeyState) {
    let commit = save(s, by, state, value).await;
    let reply = s.store.commit_one(commit.clone()).await.expect("it may save");
    assert!(!reply.already_applied);
    (commit, reply.states.into_iter().next().expect("the key's state"))
}

/// Sends a commit again that was applied.
async fn known(s: &Subject, commit: &Commit) -> KeyState {
    let reply = s.store.commit_one(commit.clone()).await.expect("it was applied");
    assert!(reply.already_applied);
    reply.states.into_iter().next().expect("the key's state")
}

/// Each save of a holder is known for as long as it may ask for it: until it saves again.
pub async fn a_holders_last_save_is_applied_once(s: Subject) {
    let (key, server) = (key("p"), s.registered().await);
    let mut state = s.held_by(&key, server).await;
    for n in 1..=3 {
        let (commit, now) = saved(&s, server, &state, &n.to_string()).await;
        for _ in 0..2 {
            assert_eq!(known(&s, &commit).await, now);
        }
        state = now;
    }
    assert_eq!((state.version, value(&state)), (3, Some("3")));
    // One that was refused is none.
    let stale = KeyState { version: 1, ..state.clone() };
    let late = save(&s, server, &stale, "late").await;
    for _ in 0..2 {
        let error = s.store.commit_one(late.clone()).await.expect_err("it is late");
        assert_eq!(error.conflict(), Some(&ConflictKind::Version));
    }
    // In one batch.
    let next = save(&s, server, &state, "4").await;
    let replies = s.store.commit(vec![next.clone(), next]).await;
    let applied = replies.iter().map(|reply| reply.as_ref().expect("applied").already_applied);
    assert_eq!(applied.collect::<Vec<_>>(), [false, true]);
}

/// Whatever others write under the same epoch, the holder hears that its save was applied.
pub async fn a_holders_last_save_is_known_behind_other_writes(s: Subject) {
    let (key, server) = (key("p"), s.registered().await);
    let state = s.held_by(&key, server).await;
    let (commit, state) = saved(&s, server, &state, "saved").await;
    let id = message_id(s.now().await, "gift");
    let state = s.ok(vec![append(&key, &id, "1")]).await.states.into_iter().next().unwrap_or(state);
    assert_eq!(known(&s, &commit).await.version, 1);
    let over = Write { cause: Cause::Set, ..Write::of("set") }.over(&state);
    let state = s.ok(vec![over, lease(&state, state.lease.clone(), false)]).await;
    assert_eq!(known(&s, &commit).await, state.states[0]);
    assert_eq!(value(&state.states[0]), Some("set"));
}

/// A holder that was shut out hears that its last save was applied, whatever others save behind it.
pub async fn the_last_save_of_a_holder_that_is_shut_out_is_known(s: Subject) {
    let (key, first, second) = (key("p"), s.registered().await, s.registered().await);
    let state = s.held_by(&key, first).await;
    let (earlier, state) = saved(&s, first, &state, "one").await;
    let (last, _) = saved(&s, first, &state, "two").await;
    let state = s.held_by(&key, second).await;
    assert_eq!(known(&s, &last).await, state);
    let (theirs, state) = saved(&s, second, &state, "three").await;
    let (newest, state) = saved(&s, second, &state, "four").await;
    assert_eq!((known(&s, &last).await, known(&s, &newest).await), (state.clone(), state.clone()));
    // It has saved again since, so the first holder does not ask for that one; it is not applied.
    for commit in [earlier, theirs] {
        let _ = s.store.commit_one(commit).await;
    }
    let freed = s.ok(vec![lease(&state, LeaseState::default(), true)]).await;
    assert_eq!(known(&s, &newest).await, freed.states[0]);
    assert_eq!((state.version, value(&state)), (4, Some("four")));
}

/// Saves that are not the holder's, and commits of more than a save, are kept one by one.
pub async fn other_commits_are_known_one_by_one(s: Subject) {
    let (key, server, other) = (key("p"), s.registered().await, s.registered().await);
    let state = s.held_by(&key, server).await;
    let (mine, state) = saved(&s, server, &state, "one").await;
    let (others, state) = saved(&s, other, &state, "two").await;
    let check = |state: &KeyState| Change::Check { key: state.key.clone(), epoch: state.epoch };
    let more = vec![check(&state), write(&state, "three")];
    let more = Commit { from: Some(server), ..s.make(more).await };
    let reply = s.store.commit_one(more.clone()).await.expect("it may save");
    let state = &reply.states[0];
    let named = save(&s, server, state, "four").await;
    let named = Commit { fingerprint: Some(7), ..named };
    let reply = s.store.commit_one(named.clone()).await.expect("it may save");
    let (last, state) = saved(&s, server, &reply.states[0], "five").await;
    for commit in [others, more, named, last] {
        assert_eq!(known(&s, &commit).await, state);
    }
    let error = s.store.commit_one(mine).await.err();
    assert!(error.is_none_or(|error| error.conflict() == Some(&ConflictKind::Version)));
    assert_eq!(value(&s.state(&key).await), Some("five"));
    assert_eq!(state.lease, held(server));
}
