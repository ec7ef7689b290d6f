//! Cases about servers: their rows, their deaths, and the notices left for them.

use super::*;
use crate::data_store::{DAY_MS, Notice, Offer, Request, RequestId, Retention, ServerRow};

const MONTH: Retention = Retention { history_ms: 30 * DAY_MS };

impl Subject {
    async fn renew(&self, id: ServerId, revision: u64, acknowledged: &[Notice]) -> CommitReply {
        self.ok(vec![renewal(id, revision, acknowledged)]).await
    }

    /// The keys of a server's notices, as a renewal brings them.
    async fn noticed(&self, id: ServerId) -> Vec<String> {
        let row = self.row(id).await.expect("a row");
        let reply = self.renew(id, row.revision, &[]).await;
        let keys = reply.notices.iter().map(|notice| notice.key.key().to_owned()).collect();
        self.renew(id, row.revision + 1, &reply.notices).await;
        keys
    }

    async fn row(&self, id: ServerId) -> Option<ServerRow> {
        self.store.servers().await.unwrap().1.into_iter().find(|row| row.id == id)
    }
}

fn renewal(id: ServerId, revision: u64, acknowledged: &[Notice]) -> Change {
    Change::RenewServer { id, revision, host: None, acknowledged: acknowledged.to_vec() }
}

/// A server registers once; its row tells what it said and when.
pub async fn a_server_registers_once(s: Subject) {
    let id = s.server().await;
    let now = s.now().await;
    let reply = s.ok(vec![register(id)]).await;
    let row = ServerRow {
        id,
        place_id: 7,
        job_id: "job".into(),
        revision: 1,
        lease_ms: 20_000,
        started_ms: now,
        renewed_ms: now,
        dead: false,
        host: None,
        generation: 0,
        owner: None,
    };
    assert_eq!(reply.server, Some(row.clone()));
    assert_eq!(s.store.servers().await.unwrap(), (now, vec![row.clone()]));
    let conflict = s.conflict(vec![register(id)]).await;
    assert_eq!(
        (conflict.kind, conflict.state, conflict.server),
        (ConflictKind::Server, None, Some(row))
    );
}

/// A renewal names the revision and counts it up.
pub async fn a_renewal_needs_the_revision(s: Subject) {
    let id = s.registered().await;
    s.advance(5000);
    let row = s.renew(id, 1, &[]).await.server.unwrap();
    assert_eq!(
        (row.revision, row.renewed_ms, row.started_ms),
        (2, s.now().await, s.now().await - 5000)
    );
    for revision in [0, 1, 3] {
        let conflict = s.conflict(vec![renewal(id, revision, &[])]).await;
        assert_eq!((conflict.kind, conflict.server.as_ref()), (ConflictKind::Server, Some(&row)));
    }
    let unknown = s.conflict(vec![renewal(s.server().await, 1, &[])]).await;
    assert_eq!((unknown.kind, unknown.server), (ConflictKind::Server, None));
    assert_eq!(s.row(id).await, Some(row));
}

/// A death names the revision: a server that was renewed meanwhile is not declared dead. A dead one
/// is never renewed again.
pub async fn a_dead_server_stays_dead(s: Subject) {
    let id = s.registered().await;
    s.renew(id, 1, &[]).await;
    let dead = |revision| Change::MarkDead { id, revision };
    let conflict = s.conflict(vec![dead(1)]).await;
    assert_eq!((conflict.kind, conflict.server), (ConflictKind::Server, s.row(id).await));
    let renewed_ms = s.now().await;
    s.advance(1000);
    let row = s.ok(vec![dead(2)]).await.server.unwrap();
    assert_eq!((row.dead, row.revision, row.renewed_ms), (true, 2, renewed_ms));
    let conflict = s.conflict(vec![renewal(id, 2, &[])]).await;
    assert_eq!((conflict.kind, conflict.server.as_ref()), (ConflictKind::Server, Some(&row)));
    assert_eq!(
        s.ok(vec![dead(2)]).await.server.as_ref(),
        Some(&row),
        "a dead one is declared dead again to no effect"
    );
    assert_eq!(s.conflict_kind(vec![dead(3)]).await, ConflictKind::Server);
    assert_eq!(s.conflict_kind(vec![register(id)]).await, ConflictKind::Server);
    let unknown = Change::MarkDead { id: s.server().await, revision: 1 };
    assert_eq!(s.conflict_kind(vec![unknown]).await, ConflictKind::Server);
}

/// A take-over is one commit: who renewed in between keeps the profile.
pub async fn a_take_over_fails_when_its_holder_lives(s: Subject) {
    let (old, new, key) = (s.registered().await, s.registered().await, key("p"));
    let state = s.held_by(&key, old).await;
    assert_eq!(state.holder_server, s.row(old).await);
    let take_over =
        || vec![Change::MarkDead { id: old, revision: 1 }, lease(&state, held(new), true)];
    s.renew(old, 1, &[]).await;
    assert_eq!(s.conflict_kind(take_over()).await, ConflictKind::Server);
    assert_eq!(s.state(&key).await.lease, state.lease);
    let mut dead = take_over();
    dead[0] = Change::MarkDead { id: old, revision: 2 };
    let taken = s.ok(dead).await.states.remove(0);
    assert_eq!((taken.epoch, taken.holder_server), (state.epoch + 1, s.row(new).await));
}

/// The holder gets a notice of whatever others do to its key's lease, data or inbox; not of its own
/// doings.
pub async fn a_holder_gets_notices(s: Subject) {
    let (holder, key) = (s.registered().await, key("p"));
    s.held_by(&key, holder).await;
    assert_eq!(
        s.noticed(holder).await,
        Vec::<String>::new(),
        "who gets the lease held nothing before"
    );
    let state = s.state(&key).await;
    let request = Request {
        id: RequestId(s.uuid().await),
        server: Some(s.server().await),
        place_id: 1,
        job_id: "b".into(),
        at_ms: 1,
        document: None,
    };
    let asked = lease(&state, LeaseState { request: Some(request), ..state.lease.clone() }, false);
    let gift = append(&key, &message_id(s.now().await, "gift"), "1");
    let touched = [
        vec![asked],
        vec![write(&state, "operator")],
        vec![gift],
        vec![Change::ChangeMessage {
            key: key.clone(),
            index: 1,
            revision: 1,
            payload: Bytes::from_static(b"2"),
        }],
        vec![Change::LockMessage { key: key.clone(), index: 1, revision: 2 }],
        vec![Change::RemoveMessage { key: key.clone(), index: 1, receipt: true }],
    ];
    for changes in touched {
        let reply = s.ok(changes.clone()).await;
        assert_eq!(reply.notified, [(holder, key.clone())], "{changes:?}");
        assert_eq!(s.noticed(holder).await, ["p"], "{changes:?}");
    }
    for changes in [
        vec![Change::Check { key: key.clone(), epoch: 1 }],
        vec![Change::Pin { key: key.clone(), version: 1, pinned: true }],
        vec![write(&KeyState::absent(super::key("other")), "1")],
    ] {
        assert_eq!(s.ok(changes.clone()).await.notified, []);
        assert_eq!(s.noticed(holder).await, Vec::<String>::new(), "{changes:?}");
    }
    let mut own = s.make(vec![write(&s.state(&key).await, "own")]).await;
    own.from = Some(holder);
    assert_eq!(s.store.commit_one(own).await.unwrap().notified, []);
    assert_eq!(s.noticed(holder).await, Vec::<String>::new());
    // A steal: who held the lease before the commit hears of it, who holds it afterwards does not.
    let thief = s.registered().await;
    let stolen = s.ok(vec![lease(&s.state(&key).await, held(thief), true)]).await;
    assert_eq!(stolen.notified, [(holder, key.clone())]);
    assert_eq!((s.noticed(holder).await, s.noticed(thief).await), (vec!["p".to_owned()], vec![]));
    // A commit that failed leaves none.
    let stale = KeyState { version: 99, ..s.state(&key).await };
    assert_eq!(s.conflict_kind(vec![write(&stale, "x")]).await, ConflictKind::Version);
    assert_eq!(s.noticed(thief).await, Vec::<String>::new());
}

/// The server that a new offer names gets a notice.
pub async fn an_offer_is_noticed(s: Subject) {
    let (holder, other, key) = (s.registered().await, s.registered().await, key("p"));
    let state = s.held_by(&key, holder).await;
    let offer = Offer { to: RequestId(s.uuid().await), server: other, at_ms: 1 };
    let offered = LeaseState { load_count: 3, offer: Some(offer), ..LeaseState::default() };
    let mut commit = s.make(vec![write(&state, "last"), lease(&state, offered, false)]).await;
    commit.from = Some(holder);
    assert_eq!(s.store.commit_one(commit).await.unwrap().notified, [(other, key.clone())]);
    assert_eq!((s.noticed(other).await, s.noticed(holder).await), (vec!["p".to_owned()], vec![]));
    let state = s.state(&key).await;
    let mut accept = s.make(vec![lease(&state, held(other), true)]).await;
    accept.from = Some(other);
    assert_eq!(s.store.commit_one(accept).await.unwrap().notified, []);
    assert_eq!((s.noticed(other).await, s.noticed(holder).await), (vec![], vec![]));
}

/// An offer that nobody takes is withdrawn: the server that asks next gets a notice.
pub async fn the_next_to_ask_is_noticed_when_an_offer_is_withdrawn(s: Subject) {
    let (offered, next, key) = (s.registered().await, s.registered().await, key("p"));
    let state = s.held_by(&key, offered).await;
    let request = Request {
        id: RequestId(s.uuid().await),
        server: Some(next),
        place_id: 1,
        job_id: "j".into(),
        at_ms: 1,
        document: None,
    };
    let offer = Offer { to: RequestId(s.uuid().await), server: offered, at_ms: 1 };
    let free = LeaseState { load_count: 3, request: Some(request), ..LeaseState::default() };
    let made = LeaseState { offer: Some(offer), ..free.clone() };
    s.ok(vec![lease(&state, made, false)]).await;
    s.noticed(next).await;
    let state = s.state(&key).await;
    let mut withdraw = s.make(vec![lease(&state, free, false)]).await;
    withdraw.from = Some(offered);
    assert_eq!(s.store.commit_one(withdraw).await.unwrap().notified, [(next, key.clone())]);
    assert_eq!(s.noticed(next).await, ["p"]);
}

/// The server whose request gives way to another one's gets a notice: it waits in vain.
pub async fn a_request_that_is_replaced_is_noticed(s: Subject) {
    let (holder, first, second, key) =
        (s.registered().await, s.registered().await, s.registered().await, key("p"));
    let state = s.held_by(&key, holder).await;
    let mut state = state;
    for (server, noticed) in [(first, vec![holder]), (second, vec![holder, first])] {
        let request = Request {
            id: RequestId(s.uuid().await),
            server: Some(server),
            place_id: 1,
            job_id: "j".into(),
            at_ms: 1,
            document: None,
        };
        let mut ask = s
            .make(vec![lease(
                &state,
                LeaseState { request: Some(request), ..state.lease.clone() },
                false,
            )])
            .await;
        ask.from = Some(server);
        let told: Vec<_> = s
            .store
            .commit_one(ask)
            .await
            .unwrap()
            .notified
            .into_iter()
            .map(|(server, _)| server)
            .collect();
        assert_eq!(told, noticed);
        state = s.state(&key).await;
    }
    assert_eq!((s.noticed(first).await, s.noticed(second).await), (vec!["p".to_owned()], vec![]));
}

/// Notices come with every renewal until they are acknowledged by the commit that left them.
pub async fn notices_stay_until_acknowledged(s: Subject) {
    let holder = s.registered().await;
    for name in ["a", "b"] {
        s.held_by(&key(name), holder).await;
    }
    let first = s.make(vec![write(&s.state(&key("a")).await, "1")]).await;
    s.store.commit_one(first.clone()).await.unwrap();
    let mine = s.renew(holder, 1, &[]).await.notices;
    assert_eq!(mine, [Notice { key: key("a"), commit: first.id }]);
    assert_eq!(s.renew(holder, 2, &[]).await.notices, mine, "not acknowledged yet");
    // A newer notice about the same key takes the old one's place and is not lost by the old one's
    // acknowledgement.
    let second = s
        .make(vec![write(&s.state(&key("a")).await, "2"), write(&s.state(&key("b")).await, "2")])
        .await;
    let told = s.store.commit_one(second.clone()).await.unwrap().notified;
    assert_eq!(told, [(holder, key("a")), (holder, key("b"))]);
    let newer = s.renew(holder, 3, &mine).await.notices;
    assert_eq!(newer, ["a", "b"].map(|name| Notice { key: key(name), commit: second.id }));
    assert_eq!(s.renew(holder, 4, &newer[..1]).await.notices, newer[1..]);
    // Another server's acknowledgement is another's.
    let other = s.registered().await;
    assert_eq!(s.renew(other, 1, &newer).await.notices, []);
    assert_eq!(s.renew(holder, 5, &[]).await.notices, newer[1..]);
    assert_eq!(s.renew(holder, 6, &newer).await.notices, []);
    assert_eq!(s.renew(holder, 7, &[]).await.notices, []);
}

/// A renewal that is repeated under its id brings the notices again.
pub async fn a_repeated_renewal_brings_the_notices(s: Subject) {
    let (holder, key) = (s.registered().await, key("p"));
    s.held_by(&key, holder).await;
    s.put(&key, "1").await;
    let commit = s.make(vec![renewal(holder, 1, &[])]).await;
    let reply = s.store.commit_one(commit.clone()).await.unwrap();
    let again = s.store.commit_one(commit).await.unwrap();
    assert!(!reply.already_applied && again.already_applied);
    assert_eq!(
        (again.notices.len(), &again.notices, again.server),
        (1, &reply.notices, reply.server)
    );
}

/// A sweep deletes rows of servers dead for longer than 7 days, and no others.
pub async fn a_sweep_deletes_dead_servers(s: Subject) {
    let (dead, alive, key) = (s.registered().await, s.registered().await, key("p"));
    s.held_by(&key, dead).await;
    s.put(&key, "1").await;
    s.advance(3 * DAY_MS);
    s.ok(vec![Change::MarkDead { id: dead, revision: 1 }]).await;
    s.advance(7 * DAY_MS);
    assert_eq!(s.sweep(MONTH).await.servers, 0);
    assert!(s.state(&key).await.holder_server.is_some_and(|row| row.dead));
    s.advance(1);
    assert_eq!(s.sweep(MONTH).await.servers, 1);
    assert_eq!((s.row(dead).await, s.row(alive).await.is_some()), (None, true));
    let state = s.state(&key).await;
    assert_eq!((state.holder_server, state.lease), (None, held(dead)));
    assert_eq!(s.ok(vec![append(&key, &message_id(s.now().await, "m"), "1")]).await.notified, []);
    // Its notices went with it.
    s.ok(vec![register(dead)]).await;
    assert_eq!(s.noticed(dead).await, Vec::<String>::new());
}

/// A commit's id is remembered for 7 days, an abort's too.
pub async fn outcomes_are_kept_for_7_days(s: Subject) {
    let key = key("p");
    let commit = s.make(vec![write(&KeyState::absent(key.clone()), "1")]).await;
    let aborted = s.make(vec![write(&KeyState::absent(super::key("q")), "1")]).await;
    s.store.commit_one(commit.clone()).await.unwrap();
    s.ok(vec![Change::Abort { commit: aborted.id }]).await;
    s.advance(7 * DAY_MS);
    assert_eq!(s.sweep(MONTH).await.outcomes, 0);
    assert!(s.store.commit_one(commit.clone()).await.unwrap().already_applied);
    assert_eq!(
        s.store.commit_one(aborted.clone()).await.unwrap_err().conflict(),
        Some(&ConflictKind::Aborted)
    );
    s.advance(1);
    assert_eq!(s.sweep(MONTH).await.outcomes, 3);
    assert_eq!(
        s.store.commit_one(commit).await.unwrap_err().conflict(),
        Some(&ConflictKind::Version)
    );
}

/// A request from outside is named by a digest, which tells no time. What was kept of it goes as
/// well, and so does what was aborted under such a name.
pub async fn outcomes_of_ids_without_a_time_are_swept(s: Subject) {
    let digest = |n: u8| CommitId(Uuid::from_bytes([0xf0 | n; 16]));
    let mut last = None;
    for n in 0..3 {
        let absent = KeyState::absent(key(&format!("p{n}")));
        let mut commit = s.make(vec![write(&absent, "1")]).await;
        (commit.id, commit.fingerprint) = (digest(n), Some(u64::from(n)));
        s.store.commit_one(commit.clone()).await.unwrap();
        last = Some(commit);
    }
    s.ok(vec![Change::Abort { commit: digest(9) }]).await;
    s.advance(7 * DAY_MS);
    assert_eq!(s.sweep(MONTH).await.outcomes, 0);
    let last = last.unwrap();
    assert!(s.store.commit_one(last.clone()).await.unwrap().already_applied);
    s.advance(1);
    assert_eq!(s.sweep(MONTH).await.outcomes, 5, "and that of the commit that aborted");
    assert_eq!(
        s.store.commit_one(last).await.unwrap_err().conflict(),
        Some(&ConflictKind::Version)
    );
    let mut aborted = s.make(vec![write(&KeyState::absent(key("q")), "1")]).await;
    aborted.id = digest(9);
    assert!(!s.store.commit_one(aborted).await.unwrap().already_applied);
}
