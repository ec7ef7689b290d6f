//! What is saved: the keys, and changes that write 4 KB each.

use bytes::Bytes;
use profilestore::{
    ProfileKey,
    data_store::{
        Cause, Change, Commit, CommitId, Holder, Incarnation, KeyState, LeaseState, NewValue,
        Returning, ServerId,
    },
    env::Env,
};
use uuid::Uuid;

pub(super) const KEYS: usize = 1000;
pub(super) const VALUE: usize = 4096;

/// The server that holds all profiles.
const SERVER: ServerId = ServerId(Uuid::from_u128(0x7000_8000_0000_0000_0007));

/// A commit of one change, by the server that holds the profile.
pub(super) fn commit(incarnation: Incarnation, change: Change) -> Commit {
    Commit {
        id: CommitId(Env::system().uuid()),
        incarnation,
        from: Some(SERVER),
        changes: vec![change],
        returning: Returning::HEAD,
        fingerprint: None,
    }
}

pub(super) fn key(n: usize) -> ProfileKey {
    ProfileKey::new("PlayerData", "global", &format!("Player_{n}")).expect("a name")
}

/// Gives the server its row.
pub(super) fn registered() -> Change {
    Change::RegisterServer {
        id: SERVER,
        place_id: 1,
        job_id: "job".into(),
        lease_ms: 20_000,
        host: None,
        owner: None,
    }
}

/// Makes the server the holder of a profile.
pub(super) fn held(state: &KeyState) -> Change {
    let holder = Holder {
        server: Some(SERVER),
        place_id: 1,
        job_id: "job".into(),
        session: "0192f0c1-2345-7abc-8def-0123456789ab".into(),
        since_ms: 1_768_472_400_000,
        last_update_ms: None,
        document: None,
    };
    Change::Lease {
        key: state.key.clone(),
        revision: state.lease_revision,
        lease: LeaseState { load_count: 1, holder: Some(holder), ..LeaseState::default() },
        raise_epoch: false,
        seal: false,
    }
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
