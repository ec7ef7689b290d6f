//! Cases about hosts: the processes that host the engines of game servers.

use super::*;
use crate::data_store::{HostId, ServerRow, rules::MAX_OWNER_BYTES};

impl Subject {
    async fn host(&self) -> HostId {
        HostId(self.uuid().await)
    }

    /// Registers a server that a process hosts.
    async fn hosted(&self, host: HostId) -> ServerId {
        let id = self.server().await;
        self.ok(vec![registration(id, Some(host), Some("key-1"))]).await;
        id
    }

    async fn server_row(&self, id: ServerId) -> ServerRow {
        let (_, rows) = self.store.servers().await.expect("the servers are listed");
        rows.into_iter().find(|row| row.id == id).expect("a row")
    }

    /// Expects a conflict about a server, and gives its kind and the row that it shows.
    async fn server_conflict(&self, changes: Vec<Change>) -> (ConflictKind, Option<ServerRow>) {
        let conflict = self.conflict(changes).await;
        assert_eq!(conflict.state, None);
        (conflict.kind, conflict.server)
    }
}

fn registration(id: ServerId, host: Option<HostId>, owner: Option<&str>) -> Change {
    let owner = owner.map(str::to_owned);
    Change::RegisterServer { id, place_id: 7, job_id: "job".into(), lease_ms: 20_000, host, owner }
}

fn renewal(id: ServerId, revision: u64, host: Option<HostId>) -> Change {
    Change::RenewServer { id, revision, host, acknowledged: vec![] }
}

/// A row tells who hosts its server, and who may have it hosted.
pub async fn a_server_registers_with_its_host(s: Subject) {
    let (host, key) = (s.host().await, key("p"));
    let id = s.hosted(host).await;
    let row = s.server_row(id).await;
    assert_eq!(
        (row.host, row.generation, row.owner.as_deref(), row.revision),
        (Some(host), 0, Some("key-1"), 1)
    );
    let state = s.held_by(&key, id).await;
    assert_eq!(
        (&state.holder_server, &s.state(&key).await.holder_server),
        (&Some(row), &Some(s.server_row(id).await))
    );
    let own = s.server_row(s.registered().await).await;
    assert_eq!((own.host, own.generation, own.owner), (None, 0, None));
}

/// The text of an owner has its bound.
pub async fn an_owner_is_bounded(s: Subject) {
    let (id, host) = (s.server().await, s.host().await);
    let long = "o".repeat(MAX_OWNER_BYTES + 1);
    match s.commit(vec![registration(id, Some(host), Some(&long))]).await {
        Err(StoreError::Invalid { reason }) => assert!(reason.contains("limit=`200`"), "{reason}"),
        other => panic!("expected an invalid call, found {other:?}"),
    }
    s.ok(vec![registration(id, Some(host), Some(&long[1..]))]).await;
    assert_eq!(s.server_row(id).await.owner.as_deref(), Some(&long[1..]));
}

/// Two hosts never renew one row side by side: a renewal names its host, and the refusal shows
/// whose row it is. An old host is told so even when the row is dead.
pub async fn a_renewal_needs_the_host(s: Subject) {
    let (host, other) = (s.host().await, s.host().await);
    let (hosted, own) = (s.hosted(host).await, s.registered().await);
    s.ok(vec![renewal(hosted, 1, Some(host))]).await;
    for wrong in [Some(other), None] {
        let (kind, row) = s.server_conflict(vec![renewal(hosted, 2, wrong)]).await;
        assert_eq!((kind, row), (ConflictKind::Hosted, Some(s.server_row(hosted).await)));
    }
    let (kind, row) = s.server_conflict(vec![renewal(own, 1, Some(host))]).await;
    assert_eq!((kind, row.map(|row| row.host)), (ConflictKind::Hosted, Some(None)));
    let (kind, _) = s.server_conflict(vec![renewal(hosted, 1, Some(host))]).await;
    assert_eq!(kind, ConflictKind::Server, "the right host, and an old revision");
    s.ok(vec![Change::MarkDead { id: hosted, revision: 2 }]).await;
    for (named, kind) in [(other, ConflictKind::Hosted), (host, ConflictKind::Server)] {
        let row = Some(s.server_row(hosted).await);
        assert_eq!(s.server_conflict(vec![renewal(hosted, 2, Some(named))]).await, (kind, row));
    }
}

/// Another host takes a row over under a greater generation. It is renewed by that; its notices
/// come with the reply, and stay until they are acknowledged.
pub async fn a_server_is_rehosted_under_a_greater_generation(s: Subject) {
    let (old, new, key) = (s.host().await, s.host().await, key("p"));
    let id = s.hosted(old).await;
    s.held_by(&key, id).await;
    s.put(&key, "1").await;
    s.advance(5000);
    let rehost = |generation, host| Change::RehostServer { id, generation, host };
    let (kind, row) = s.server_conflict(vec![rehost(0, new)]).await;
    assert_eq!((kind, row), (ConflictKind::Hosted, Some(s.server_row(id).await)));
    let commit = s.make(vec![rehost(3, new)]).await;
    let reply = s.store.commit_one(commit.clone()).await.unwrap();
    let row = reply.server.clone().expect("the reply shows the row");
    assert_eq!(
        (row.host, row.generation, row.revision, row.renewed_ms, row.owner.as_deref()),
        (Some(new), 3, 2, s.now().await, Some("key-1"))
    );
    assert_eq!(s.server_row(id).await, row);
    let noticed: Vec<_> = reply.notices.iter().map(|notice| notice.key.key()).collect();
    assert_eq!(noticed, ["p"]);
    let again = s.store.commit_one(commit).await.unwrap();
    assert_eq!((again.already_applied, &again.notices), (true, &reply.notices));
    for generation in [1, 2, 3] {
        let refused = s.server_conflict(vec![rehost(generation, old)]).await;
        assert_eq!(refused, (ConflictKind::Hosted, Some(row.clone())));
    }
    let refused = s.server_conflict(vec![renewal(id, 2, Some(old))]).await;
    assert_eq!(refused, (ConflictKind::Hosted, Some(row)));
    let renewed = s.ok(vec![renewal(id, 2, Some(new))]).await;
    assert_eq!(renewed.notices, reply.notices, "nothing was acknowledged");
    let acknowledged = renewed.notices;
    let done = Change::RenewServer { id, revision: 3, host: Some(new), acknowledged };
    assert_eq!(s.ok(vec![done]).await.notices, []);
    // The same host may take it anew, under another generation.
    assert_eq!(s.ok(vec![rehost(4, new)]).await.server.map(|row| row.generation), Some(4));
}

/// A row that is dead or missing is not taken over: its server registers anew.
pub async fn a_dead_server_is_not_rehosted(s: Subject) {
    let (old, new) = (s.host().await, s.host().await);
    let id = s.hosted(old).await;
    s.ok(vec![Change::MarkDead { id, revision: 1 }]).await;
    let rehost = |id, generation| Change::RehostServer { id, generation, host: new };
    for generation in [0, 1] {
        let refused = s.server_conflict(vec![rehost(id, generation)]).await;
        assert_eq!(refused, (ConflictKind::Server, Some(s.server_row(id).await)));
    }
    let unknown = s.server_conflict(vec![rehost(s.server().await, 1)]).await;
    assert_eq!(unknown, (ConflictKind::Server, None));
}

/// A host that changes a lease checks in the same commit that it is still the host. A late release
/// by an old host is refused, and changes nothing.
pub async fn a_release_by_an_old_host_is_refused(s: Subject) {
    let (old, new, key) = (s.host().await, s.host().await, key("p"));
    let id = s.hosted(old).await;
    let check = |host| Change::CheckHost { id, host };
    let state = s.held_by(&key, id).await;
    let release = || lease(&state, LeaseState::default(), false);
    let refused = s.server_conflict(vec![release(), check(new)]).await;
    assert_eq!(refused, (ConflictKind::Hosted, Some(s.server_row(id).await)));
    assert_eq!(s.state(&key).await, state);
    s.ok(vec![check(old)]).await;
    s.ok(vec![Change::Check { key: key.clone(), epoch: 1 }, check(old), check(old)]).await;
    // In one batch: the second sees what the first did.
    let rehosted = s.make(vec![Change::RehostServer { id, generation: 1, host: new }]).await;
    let late = s.make(vec![check(old), release()]).await;
    let mut replies = s.store.commit(vec![rehosted, late]).await;
    let late = replies.pop().unwrap().unwrap_err();
    assert_eq!(late.conflict(), Some(&ConflictKind::Hosted));
    assert!(replies.pop().unwrap().is_ok());
    assert_eq!(s.state(&key).await.lease, state.lease);
    assert_eq!(s.server_conflict(vec![check(old)]).await.0, ConflictKind::Hosted);
    let released = s.ok(vec![check(new), release()]).await.states.remove(0);
    assert_eq!(released.lease, LeaseState::default());
    // A row that is not there has no host, nor has one of a server that hosts itself.
    let (own, unknown) = (s.registered().await, s.server().await);
    for (id, row) in [(own, Some(s.server_row(own).await)), (unknown, None)] {
        let refused = s.server_conflict(vec![Change::CheckHost { id, host: new }]).await;
        assert_eq!(refused, (ConflictKind::Hosted, row));
    }
    // A dead server's host may let go in the commit that says so.
    s.ok(vec![check(new), Change::MarkDead { id, revision: 2 }]).await;
    s.ok(vec![check(new)]).await;
}

/// Releases of an old host and the take-over by the new one at once: each release is applied before
/// the take-over, or not at all.
pub async fn releases_and_a_new_host_at_once(s: Subject) {
    let (old, new) = (s.host().await, s.host().await);
    let id = s.hosted(old).await;
    let mut releases = Vec::new();
    for n in 0..16 {
        let state = s.held_by(&key(&format!("p{n}")), id).await;
        let changes =
            vec![lease(&state, LeaseState::default(), false), Change::CheckHost { id, host: old }];
        releases.push((state, s.make(changes).await));
    }
    let rehost = s.make(vec![Change::RehostServer { id, generation: 1, host: new }]).await;
    let mut tasks = tokio::task::JoinSet::new();
    for (n, (state, commit)) in releases.into_iter().enumerate() {
        let store = s.store.clone();
        tasks.spawn(async move { (n, state, store.commit_one(commit).await) });
    }
    s.store.commit_one(rehost).await.expect("the new host takes over");
    let taken_over: Vec<KeyState> = {
        let keys: Vec<_> = (0..16).map(|n| key(&format!("p{n}"))).collect();
        s.store.read(&keys, Returning::HEAD).await.unwrap().states
    };
    for (n, state, result) in tasks.join_all().await {
        let after = s.state(&key(&format!("p{n}"))).await;
        assert_eq!(after.lease, taken_over[n].lease, "nothing was released after the take-over");
        match result {
            Ok(_) => assert_eq!(after.lease, LeaseState::default()),
            Err(error) => {
                assert_eq!(error.conflict(), Some(&ConflictKind::Hosted));
                assert_eq!(after.lease, state.lease);
            }
        }
    }
}
