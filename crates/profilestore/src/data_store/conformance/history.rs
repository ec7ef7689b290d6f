//! Cases about versions: which are kept, how they are listed, and when they go.

use super::*;
use crate::data_store::{
    DAY_MS, Imported, KeyFilter, KeyQuery, Order, Retention, SweepReport, VersionInfo,
    VersionQuery, VersionRef,
};

const MONTH: Retention = Retention { history_ms: 30 * DAY_MS };

impl Subject {
    async fn kept(&self, key: &ProfileKey) -> Vec<u64> {
        numbers(&self.store.versions(&query(key)).await.unwrap())
    }

    /// Sweeps until the sweep is complete; gives what it did in all.
    pub(super) async fn sweep(&self, retention: Retention) -> SweepReport {
        let mut all = SweepReport::default();
        let mut cursor = None;
        for _ in 0..100 {
            let piece = self.store.sweep(retention, cursor).await.unwrap();
            all.versions += piece.versions;
            all.receipts += piece.receipts;
            all.outcomes += piece.outcomes;
            all.servers += piece.servers;
            if piece.next.is_none() {
                return all;
            }
            cursor = piece.next;
        }
        panic!("a sweep of a few keys goes on for ever");
    }

    async fn version_value(&self, key: &ProfileKey, number: u64) -> Option<String> {
        let version = self.store.version(key, &VersionRef::Number(number)).await.unwrap()?;
        assert_eq!(version.info.number, number);
        version.value.map(|value| String::from_utf8(value.to_vec()).unwrap())
    }
}

fn query(key: &ProfileKey) -> VersionQuery {
    VersionQuery {
        key: key.clone(),
        order: Order::Ascending,
        from_ms: None,
        to_ms: None,
        after: None,
        limit: 100,
    }
}

fn numbers(infos: &[VersionInfo]) -> Vec<u64> {
    infos.iter().map(|info| info.number).collect()
}

fn pin(key: &ProfileKey, version: u64, pinned: bool) -> Change {
    Change::Pin { key: key.clone(), version, pinned }
}

/// The first write in an hour keeps the value that it replaces; later ones in the hour do not.
pub async fn the_first_write_of_an_hour_keeps_the_previous(s: Subject) {
    let key = key("p");
    s.next_hour().await;
    s.put(&key, "1").await;
    s.put(&key, "2").await;
    assert_eq!(s.kept(&key).await, [2]);
    s.next_hour().await;
    let third_at = s.now().await;
    s.put(&key, "3").await;
    assert_eq!(s.kept(&key).await, [2, 3]);
    s.advance(60_000);
    s.put(&key, "4").await;
    s.next_hour().await;
    s.put(&key, "5").await;
    assert_eq!(s.kept(&key).await, [2, 4, 5]);
    let infos = s.store.versions(&query(&key)).await.unwrap();
    let superseded: Vec<_> = infos.iter().map(|info| info.superseded_ms).collect();
    assert_eq!(superseded, [Some(third_at), Some(s.now().await), None]);
    assert_eq!(infos[1].stored_ms, third_at + 60_000);
    assert_eq!(s.version_value(&key, 2).await.as_deref(), Some("2"));
    assert_eq!(s.version_value(&key, 4).await.as_deref(), Some("4"));
    assert_eq!(s.version_value(&key, 5).await.as_deref(), Some("5"));
    for gone in [0, 1, 3, 6] {
        assert_eq!(s.version_value(&key, gone).await, None);
    }
}

/// What is kept whatever the hour: when asked for, sealed versions, pinned ones, tombstones,
/// imported ones.
pub async fn special_versions_are_kept(s: Subject) {
    s.next_hour().await;
    let asked = key("asked");
    let state = s.put(&asked, "1").await;
    s.ok(vec![Write { keep_previous: true, ..Write::of("2") }.over(&state)]).await;
    s.put(&asked, "3").await;
    assert_eq!(s.kept(&asked).await, [1, 3]);

    let sealed = key("sealed");
    s.ok(vec![Write { seal: true, ..Write::of("1") }.over(&KeyState::absent(sealed.clone()))])
        .await;
    s.put(&sealed, "2").await;
    s.put(&sealed, "3").await;
    assert_eq!(s.kept(&sealed).await, [1, 3], "a seal holds for its version only");

    let by_lease = key("by lease");
    let state = s.put(&by_lease, "1").await;
    let revision = state.lease_revision;
    let seal = |key: &ProfileKey, revision| Change::Lease {
        key: key.clone(),
        revision,
        lease: LeaseState::default(),
        raise_epoch: false,
        seal: true,
    };
    s.ok(vec![seal(&by_lease, revision)]).await;
    let state = s.put(&by_lease, "2").await;
    // The lease seals what is current after its commit.
    s.ok(vec![seal(&by_lease, state.lease_revision), write(&state, "3")]).await;
    s.put(&by_lease, "4").await;
    assert_eq!(s.kept(&by_lease).await, [1, 3, 4]);
    s.ok(vec![seal(&key("nothing to seal"), 0)]).await;

    let removed = key("removed");
    let state = s.put(&removed, "1").await;
    s.ok(vec![remove(&state)]).await;
    assert_eq!(s.kept(&removed).await, [2]);
    s.put(&removed, "3").await;
    assert_eq!(s.kept(&removed).await, [2, 3]);
    let tombstone = s.store.version(&removed, &VersionRef::Number(2)).await.unwrap().unwrap();
    assert_eq!(
        (tombstone.info.removed, tombstone.info.cause, tombstone.value),
        (true, Cause::Remove, None)
    );

    let pinned = key("pinned");
    s.put(&pinned, "1").await;
    s.ok(vec![pin(&pinned, 1, true)]).await;
    assert!(s.state(&pinned).await.head.unwrap().pinned);
    s.put(&pinned, "2").await;
    assert!(!s.state(&pinned).await.head.unwrap().pinned, "a pin holds for its version only");
    s.ok(vec![pin(&pinned, 2, true)]).await;
    s.ok(vec![pin(&pinned, 2, false)]).await;
    s.put(&pinned, "3").await;
    assert_eq!(s.kept(&pinned).await, [1, 3]);
}

/// An import's times and version string are told; the store's own time is kept beside them.
pub async fn imports_bring_their_times_and_labels(s: Subject) {
    let key = key("p");
    s.next_hour().await;
    let now = s.now().await;
    let imported = |written_ms, label: Option<&str>| {
        Some(Imported { written_ms, created_ms: 1000, label: label.map(str::to_owned) })
    };
    let first =
        Write { imported: imported(2000, Some("v-a")), cause: Cause::Import, ..Write::of("1") };
    let state = s.ok(vec![first.over(&KeyState::absent(key.clone()))]).await.states.remove(0);
    assert_eq!(state.created_ms, 1000);
    let head = state.head.as_ref().unwrap();
    assert_eq!((head.written_ms, head.stored_ms, head.label.as_deref()), (2000, now, Some("v-a")));
    let second =
        Write { imported: imported(3000, Some("v-b")), cause: Cause::Import, ..Write::of("2") };
    let state = s.ok(vec![second.over(&state)]).await.states.remove(0);
    s.ok(vec![write(&state, "3")]).await;
    s.put(&key, "4").await;
    assert_eq!(s.kept(&key).await, [1, 2, 4]);
    for (label, number) in [("v-a", Some(1)), ("v-b", Some(2)), ("v-c", None)] {
        let found = s.store.version(&key, &VersionRef::Label(label.into())).await.unwrap();
        assert_eq!(found.map(|version| version.info.number), number, "{label}");
    }
    let infos = s
        .store
        .versions(&VersionQuery { from_ms: Some(2001), to_ms: Some(3000), ..query(&key) })
        .await
        .unwrap();
    assert_eq!(numbers(&infos), [2]);
    // A history that came in at once stays for the whole retention, counted from the import.
    s.advance(30 * DAY_MS);
    assert_eq!(s.sweep(MONTH).await.versions, 0);
    s.advance(1);
    assert_eq!(s.sweep(MONTH).await.versions, 2);
    assert_eq!(s.kept(&key).await, [4]);
    assert_eq!(s.state(&key).await.created_ms, 1000);
}

/// Versions are listed both ways, between two dates inclusive, page by page.
pub async fn versions_are_listed_in_pages(s: Subject) {
    let key = key("p");
    let mut times = Vec::new();
    for n in 1..=7 {
        s.next_hour().await;
        times.push(s.now().await);
        s.put(&key, &n.to_string()).await;
    }
    let list = async |query: VersionQuery| numbers(&s.store.versions(&query).await.unwrap());
    let all = query(&key);
    let back = VersionQuery { order: Order::Descending, ..all.clone() };
    assert_eq!(list(all.clone()).await, [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(list(back.clone()).await, [7, 6, 5, 4, 3, 2, 1]);
    assert_eq!(list(VersionQuery { limit: 3, ..all.clone() }).await, [1, 2, 3]);
    assert_eq!(list(VersionQuery { limit: 3, after: Some(3), ..all.clone() }).await, [4, 5, 6]);
    assert_eq!(list(VersionQuery { limit: 3, after: Some(6), ..all.clone() }).await, [7]);
    assert_eq!(
        list(VersionQuery { limit: 3, after: Some(7), ..all.clone() }).await,
        Vec::<u64>::new()
    );
    assert_eq!(list(VersionQuery { limit: 3, ..back.clone() }).await, [7, 6, 5]);
    assert_eq!(list(VersionQuery { limit: 3, after: Some(5), ..back.clone() }).await, [4, 3, 2]);
    assert_eq!(list(VersionQuery { limit: 0, ..all.clone() }).await, Vec::<u64>::new());
    let between = |query: VersionQuery| VersionQuery {
        from_ms: Some(times[1]),
        to_ms: Some(times[4]),
        ..query
    };
    assert_eq!(list(between(all.clone())).await, [2, 3, 4, 5]);
    assert_eq!(list(between(back.clone())).await, [5, 4, 3, 2]);
    assert_eq!(list(VersionQuery { limit: 2, after: Some(4), ..between(back) }).await, [3, 2]);
    assert_eq!(list(VersionQuery { from_ms: Some(times[6] + 1), ..all }).await, Vec::<u64>::new());
    assert_eq!(list(query(&super::key("other"))).await, Vec::<u64>::new());
}

/// Only kept versions can be pinned, the current one included.
pub async fn only_kept_versions_are_pinned(s: Subject) {
    let key = key("p");
    s.next_hour().await;
    assert_eq!(s.conflict_kind(vec![pin(&key, 1, true)]).await, ConflictKind::VersionGone);
    s.put(&key, "1").await;
    s.put(&key, "2").await;
    let before = s.state(&key).await;
    for gone in [0, 1, 3] {
        let conflict = s.conflict(vec![pin(&key, gone, true)]).await;
        assert_eq!(
            (conflict.kind, conflict.state.as_ref()),
            (ConflictKind::VersionGone, Some(&before))
        );
    }
    let reply = s.ok(vec![pin(&key, 2, true)]).await;
    assert!(reply.states[0].head.as_ref().unwrap().pinned);
    s.put(&key, "3").await;
    let listed = s.store.versions(&query(&key)).await.unwrap();
    assert_eq!(
        listed.iter().map(|info| (info.number, info.pinned)).collect::<Vec<_>>(),
        [(2, true), (3, false)]
    );
    s.ok(vec![pin(&key, 2, false)]).await;
    assert!(!s.store.version(&key, &VersionRef::Number(2)).await.unwrap().unwrap().info.pinned);
    assert_eq!(s.version_value(&key, 2).await.as_deref(), Some("2"));
    let state = s.state(&key).await;
    s.ok(vec![write(&state, "4"), pin(&key, 3, true)]).await;
    s.put(&key, "5").await;
    assert_eq!(s.kept(&key).await, [2, 3, 5], "pinned and replaced in one commit");
}

/// A sweep deletes versions superseded longer ago than the retention, never the current one, never
/// pinned ones.
pub async fn a_sweep_deletes_old_versions(s: Subject) {
    let (key, idle) = (key("p"), key("idle"));
    s.put(&idle, "1").await;
    for n in 1..=4 {
        s.next_hour().await;
        s.put(&key, &n.to_string()).await;
    }
    // Version 3 was superseded last, just now; 1 and 2 an hour and two before.
    s.ok(vec![pin(&key, 1, true)]).await;
    assert_eq!(s.kept(&key).await, [1, 2, 3, 4]);
    s.advance(30 * DAY_MS - HOUR_MS);
    assert_eq!(s.sweep(MONTH).await.versions, 0, "version 2 was superseded exactly 30 days ago");
    s.advance(1);
    assert_eq!(s.sweep(MONTH).await.versions, 1);
    assert_eq!(s.kept(&key).await, [1, 3, 4]);
    s.advance(HOUR_MS);
    assert_eq!(s.sweep(MONTH).await.versions, 1);
    assert_eq!(s.kept(&key).await, [1, 4]);
    assert_eq!(s.version_value(&key, 3).await, None);
    s.ok(vec![pin(&key, 1, false)]).await;
    s.advance(400 * DAY_MS);
    assert_eq!(s.sweep(MONTH).await.versions, 1);
    assert_eq!(s.sweep(MONTH).await.versions, 0);
    assert_eq!((s.kept(&key).await, s.kept(&idle).await), (vec![4], vec![1]));
    let state = s.state(&key).await;
    assert_eq!((state.version, value(&state)), (4, Some("4")));
    assert_eq!(s.put(&key, "5").await.version, 5);
    assert_eq!(s.kept(&key).await, [4, 5]);
}

/// An erasure forgets earlier versions, pinned ones too, and empties the inbox down to its
/// receipts; counters stay.
pub async fn an_erasure_leaves_counters_and_receipts(s: Subject) {
    let (key, other) = (key("p"), key("other"));
    let user = |value: &str| Write { user_ids: vec![7], keep_previous: true, ..Write::of(value) };
    for key in [&key, &other] {
        for n in 1..=4 {
            let state = s.state(key).await;
            s.ok(vec![user(&n.to_string()).over(&state)]).await;
        }
    }
    s.ok(vec![pin(&key, 2, true), pin(&key, 4, true)]).await;
    let ids = [message_id(s.now().await, "m1"), message_id(s.now().await, "m2")];
    s.ok(vec![
        append(&key, &ids[0], "1"),
        append(&key, &ids[1], "2"),
        append(&other, &ids[0], "1"),
    ])
    .await;
    let server = s.registered().await;
    let before = s.held_by(&key, server).await;
    let others = s.state(&other).await;

    let erase = |epoch| Change::Erase { key: key.clone(), epoch };
    assert_eq!(
        s.conflict_kind(vec![remove(&before), erase(before.epoch - 1)]).await,
        ConflictKind::Epoch
    );
    assert_eq!(s.kept(&key).await, [1, 2, 3, 4], "refused as a whole");
    let free = lease(
        &before,
        LeaseState { load_count: before.lease.load_count, ..LeaseState::default() },
        true,
    );
    let reply = s.ok(vec![remove(&before), free, erase(before.epoch)]).await;
    let (after, notified) = (&reply.states[0], &reply.notified);
    assert_eq!(s.kept(&key).await, [5]);
    assert!(!after.exists() && after.value.is_none());
    assert_eq!((after.inbox.as_deref(), after.last_message), (Some(&[][..]), before.last_message));
    assert!(after.inbox_revision > before.inbox_revision);
    assert_eq!((after.epoch, after.lease_revision), (before.epoch + 1, before.lease_revision + 1));
    assert_eq!(
        (after.version, after.created_ms, after.lease.load_count),
        (5, before.created_ms, 3)
    );
    assert_eq!(notified, &[(server, key.clone())], "the holder is told");
    assert_eq!(s.state(&key).await, *after);
    for number in 1..=4 {
        assert_eq!(s.version_value(&key, number).await, None);
    }
    assert_eq!(s.conflict_kind(vec![append(&key, &ids[0], "1")]).await, ConflictKind::MessageSeen);
    assert_eq!(
        s.conflict_kind(vec![append(&key, &ids[1], "other")]).await,
        ConflictKind::MessageIdReused
    );
    assert_eq!(s.conflict_kind(vec![write(&before, "late")]).await, ConflictKind::Epoch);

    let found = s
        .store
        .keys(&KeyQuery {
            store: None,
            scope: None,
            filter: KeyFilter::User(7),
            after: None,
            limit: 9,
        })
        .await;
    assert_eq!(found.unwrap().iter().map(|state| &state.key).collect::<Vec<_>>(), [&other]);
    assert_eq!(
        (s.state(&other).await, s.kept(&other).await),
        (others, vec![1, 2, 3, 4]),
        "another key is left alone"
    );
    s.put(&key, "6").await;
    assert_eq!(s.kept(&key).await, [5, 6]);
    assert_eq!(s.sweep(MONTH).await.versions, 0);
}

/// An erasure without a write leaves the current value; one of a key that holds nothing does
/// nothing.
pub async fn an_erasure_alone_leaves_the_current_value(s: Subject) {
    let (key, waits) = (key("p"), key("waits"));
    for n in 1..=3 {
        s.next_hour().await;
        s.put(&key, &n.to_string()).await;
    }
    let erase = |key: &ProfileKey| Change::Erase { key: key.clone(), epoch: 0 };
    let reply = s.ok(vec![erase(&key)]).await;
    assert_eq!((value(&reply.states[0]), reply.states[0].version), (Some("3"), 3));
    assert_eq!(s.kept(&key).await, [3]);
    let before = s.state(&key).await;
    s.ok(vec![erase(&key)]).await;
    assert_eq!(s.state(&key).await, before);

    let id = message_id(s.now().await, "m");
    s.ok(vec![append(&waits, &id, "1")]).await;
    s.ok(vec![erase(&waits)]).await;
    assert_eq!(s.state(&waits).await.inbox, Some(vec![]));
    assert_eq!(s.conflict_kind(vec![append(&waits, &id, "1")]).await, ConflictKind::MessageSeen);
    let never = super::key("never");
    s.ok(vec![erase(&never)]).await;
    assert_eq!(s.state(&never).await.version, 0);
    s.next_hour().await;
    s.put(&key, "4").await;
    assert_eq!(s.kept(&key).await, [3, 4]);
}

/// A sweep goes through many keys, piece by piece.
pub async fn a_sweep_goes_through_every_key(s: Subject) {
    const KEYS: usize = 2500;
    for chunk in (0..KEYS).collect::<Vec<_>>().chunks(500) {
        let mut batch = Vec::new();
        for n in chunk {
            let absent = KeyState::absent(key(&format!("p{n:05}")));
            batch.push(s.make(vec![write(&absent, "1")]).await);
            let again = Write { keep_previous: true, ..Write::of("2") };
            batch.push(s.make(vec![again.over(&KeyState { version: 1, ..absent })]).await);
        }
        assert!(s.store.commit(batch).await.iter().all(Result::is_ok));
    }
    s.advance(31 * DAY_MS);
    let report = s.sweep(MONTH).await;
    assert_eq!((report.versions, report.outcomes), (KEYS as u64, 2 * KEYS as u64));
    assert_eq!(s.sweep(MONTH).await, SweepReport::default());
}
