//! What is saved: the keys, and changes that write 4 KB each.

use bytes::Bytes;
use profilestore::{
    ProfileKey,
    data_store::{Cause, Change, Commit, CommitId, Incarnation, KeyState, NewValue, Returning},
    env::Env,
};

pub(super) const KEYS: usize = 1000;
pub(super) const VALUE: usize = 4096;

/// A commit of one change.
pub(super) fn commit(incarnation: Incarnation, change: Change) -> Commit {
    Commit {
        id: CommitId(Env::system().uuid()),
        incarnation,
        from: None,
        changes: vec![change],
        returning: Returning::HEAD,
        fingerprint: None,
    }
}

pub(super) fn key(n: usize) -> ProfileKey {
    ProfileKey::new("PlayerData", "global", &format!("Player_{n}")).expect("a name")
}

pub(super) fn save(state: &KeyState, payload: Bytes) -> Change {
    Change::Write {
        key: state.key.clone(),
        epoch: state.epoch,
        version: state.version,
        value: NewValue::Bytes(payload),
        user_ids: Vec::new(),
        cause: Cause::Save,
        author: "job".into(),
        keep_previous: false,
        seal: false,
        imported: None,
    }
}

/// Bytes that nothing compresses.
pub(super) fn value(seed: u64) -> Vec<u8> {
    let mut state = seed;
    let step = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as u8
    };
    (0..VALUE).map(step).collect()
}
