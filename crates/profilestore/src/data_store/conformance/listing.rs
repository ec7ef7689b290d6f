//! Cases about listing keys: order, filters, pages.

use super::*;
use crate::data_store::{KeyFilter, KeyQuery, Offer, RequestId};

impl Subject {
    async fn listed(&self, query: KeyQuery) -> Vec<String> {
        let states = self.store.keys(&query).await.unwrap();
        for state in &states {
            assert_eq!(
                (state.value.as_ref(), state.inbox.as_ref()),
                (None, None),
                "a listing brings neither"
            );
        }
        states.iter().map(|state| state.key.to_string()).collect()
    }

    async fn filtered(&self, filter: KeyFilter) -> Vec<String> {
        self.listed(KeyQuery { filter, ..everything() }).await
    }
}

fn everything() -> KeyQuery {
    KeyQuery { store: None, scope: None, filter: KeyFilter::All, after: None, limit: 100 }
}

fn named(store: &str, scope: &str, key: &str) -> ProfileKey {
    ProfileKey::new(store, scope, key).unwrap()
}

/// Keys are listed by store, scope and key, bytewise, each way of narrowing them alone and
/// together.
pub async fn keys_are_listed_in_order(s: Subject) {
    for (store, scope, key) in [
        ("B", "global", "2"),
        ("A", "z", "1"),
        ("A", "global", "10"),
        ("A", "global", "ä"),
        ("A", "global", "9"),
        ("B", "z", "1"),
    ] {
        s.put(&named(store, scope, key), "1").await;
    }
    assert_eq!(s.listed(everything()).await, ["A/10", "A/9", "A/ä", "A/z/1", "B/2", "B/z/1"]);
    let of = |store: Option<&str>, scope: Option<&str>| KeyQuery {
        store: store.map(str::to_owned),
        scope: scope.map(str::to_owned),
        ..everything()
    };
    assert_eq!(s.listed(of(Some("A"), None)).await, ["A/10", "A/9", "A/ä", "A/z/1"]);
    assert_eq!(s.listed(of(None, Some("z"))).await, ["A/z/1", "B/z/1"]);
    assert_eq!(s.listed(of(Some("B"), Some("z"))).await, ["B/z/1"]);
    assert_eq!(s.listed(of(Some("C"), None)).await, Vec::<String>::new());
    let state = s.state(&named("A", "z", "1")).await;
    let listed = s.store.keys(&of(Some("A"), Some("z"))).await.unwrap();
    assert_eq!(listed, [KeyState { value: None, inbox: None, ..state }]);
}

/// A listing goes on after the last key of the page before, whichever keys come and go.
pub async fn keys_are_listed_in_pages(s: Subject) {
    for n in 0..25 {
        s.put(&named(if n < 13 { "A" } else { "B" }, "global", &format!("{n:02}")), "1").await;
    }
    let all = s.listed(everything()).await;
    let mut paged = Vec::new();
    let mut after = None;
    loop {
        let states = s
            .store
            .keys(&KeyQuery { after: after.clone(), limit: 10, ..everything() })
            .await
            .unwrap();
        if states.is_empty() {
            break;
        }
        assert!(states.len() <= 10);
        after = states.last().map(|state| state.key.clone());
        paged.extend(states.iter().map(|state| state.key.to_string()));
    }
    assert_eq!((paged.len(), &paged), (25, &all));
    assert_eq!(s.listed(KeyQuery { limit: 0, ..everything() }).await, Vec::<String>::new());
    let between = KeyQuery { after: Some(named("A", "global", "11x")), limit: 2, ..everything() };
    assert_eq!(s.listed(between.clone()).await, ["A/12", "B/13"]);
    let in_b = KeyQuery { store: Some("B".into()), ..between };
    assert_eq!(s.listed(in_b).await, ["B/13", "B/14"], "a page may start before its store");
}

/// However a listing is narrowed, its pages together are the whole of it, in order.
pub async fn narrowed_listings_are_paged_without_a_gap(s: Subject) {
    for store in ["A", "B"] {
        for scope in ["a", "global", "z"] {
            for n in 0..7 {
                s.put(&named(store, scope, &format!("{}{n}", if n < 3 { "x" } else { "y" })), "1")
                    .await;
            }
        }
    }
    let narrowings = [
        (None, Some("global"), KeyFilter::All),
        (Some("A"), None, KeyFilter::All),
        (Some("B"), None, KeyFilter::Prefix("y".into())),
        (Some("B"), Some("global"), KeyFilter::All),
        (Some("A"), Some("z"), KeyFilter::Prefix("y".into())),
        (Some("A"), Some("a"), KeyFilter::UpdatedSince(0).within("x")),
    ];
    for (store, scope, filter) in narrowings {
        let whole = KeyQuery {
            store: store.map(str::to_owned),
            scope: scope.map(str::to_owned),
            filter,
            ..everything()
        };
        let mut page = KeyQuery { limit: 2, ..whole.clone() };
        let mut paged = Vec::new();
        loop {
            let states = s.store.keys(&page).await.unwrap();
            let Some(last) = states.last() else { break };
            page.after = Some(last.key.clone());
            paged.extend(states.iter().map(|state| state.key.to_string()));
            assert!(paged.len() <= 42, "a page goes on where the one before ended");
        }
        assert_eq!(paged, s.listed(whole).await);
        assert!(paged.len() >= 3);
        // Pages may also begin in front of what is wanted, or behind all of it.
        page.after = Some(named("A", "a", "w"));
        page.limit = 100;
        assert_eq!(s.listed(page.clone()).await, paged);
        page.after = Some(named("C", "a", "w"));
        assert_eq!(s.listed(page).await, Vec::<String>::new());
    }
}

/// A prefix is taken as it stands, without wildcards.
pub async fn keys_are_listed_by_prefix(s: Subject) {
    for name in [
        "Player_1",
        "Player_12",
        "Player_2",
        "PlayerX1",
        "player_1",
        "Pl%yer",
        "ä1",
        "ä\u{10FFFF}",
        "ö",
    ] {
        s.put(&key(name), "1").await;
    }
    let prefixed = |prefix: &str| s.filtered(KeyFilter::Prefix(prefix.to_owned()));
    assert_eq!(prefixed("Player_1").await, ["PlayerData/Player_1", "PlayerData/Player_12"]);
    assert_eq!(prefixed("Player_").await.len(), 3);
    assert_eq!(prefixed("Pl%").await, ["PlayerData/Pl%yer"]);
    assert_eq!(prefixed("ä").await.len(), 2);
    assert_eq!(prefixed("ä\u{10FFFF}").await.len(), 1);
    assert_eq!(prefixed("").await.len(), 9);
    assert_eq!(prefixed("x").await, Vec::<String>::new());
    let page = KeyQuery {
        after: Some(key("Player_1")),
        limit: 1,
        filter: KeyFilter::Prefix("Player_".into()),
        ..everything()
    };
    assert_eq!(s.listed(page).await, ["PlayerData/Player_12"]);
}

/// Removed keys are listed as such, and keys with only a message; keys that were only asked for are
/// not.
pub async fn removed_keys_are_listed(s: Subject) {
    let removed = key("removed");
    let state = s.put(&removed, "1").await;
    s.ok(vec![remove(&state)]).await;
    s.ok(vec![append(&key("gift only"), &message_id(s.now().await, "m"), "1")]).await;
    s.state(&key("only read")).await;
    s.ok(vec![Change::Check { key: key("only checked"), epoch: 0 }]).await;
    assert_eq!(
        s.conflict_kind(vec![Change::Pin { key: key("failed"), version: 1, pinned: true }]).await,
        ConflictKind::VersionGone
    );
    let states = s.store.keys(&everything()).await.unwrap();
    let listed: Vec<_> = states
        .iter()
        .map(|state| (state.key.key(), state.head.as_ref().map(|head| head.removed)))
        .collect();
    assert_eq!(listed, [("gift only", None), ("removed", Some(true))]);
}

/// Keys are found by the users of their current version.
pub async fn keys_are_listed_by_user(s: Subject) {
    let with = |users: &[i64]| Write { user_ids: users.to_vec(), ..Write::of("1") };
    for (name, users) in [("a", &[1, 2][..]), ("b", &[2, 2]), ("c", &[]), ("d", &[-5, i64::MAX])] {
        s.ok(vec![with(users).over(&KeyState::absent(key(name)))]).await;
    }
    let of = |user| s.filtered(KeyFilter::User(user));
    assert_eq!(of(1).await, ["PlayerData/a"]);
    assert_eq!(of(2).await, ["PlayerData/a", "PlayerData/b"]);
    assert_eq!(
        (of(-5).await, of(i64::MAX).await),
        (vec!["PlayerData/d".to_owned()], vec!["PlayerData/d".to_owned()])
    );
    assert_eq!(of(3).await, Vec::<String>::new());
    s.ok(vec![with(&[3]).over(&s.state(&key("a")).await)]).await;
    s.ok(vec![lease(&s.state(&key("a")).await, LeaseState::default(), true)]).await;
    assert_eq!(of(1).await, Vec::<String>::new());
    assert_eq!(
        (of(2).await, of(3).await),
        (vec!["PlayerData/b".to_owned()], vec!["PlayerData/a".to_owned()])
    );
    s.ok(vec![remove(&s.state(&key("b")).await)]).await;
    assert_eq!(of(2).await, Vec::<String>::new());
    let page = KeyQuery { after: Some(key("a")), filter: KeyFilter::User(3), ..everything() };
    assert_eq!(s.listed(page).await, Vec::<String>::new());
}

/// Keys are found by when their current version was stored; a lease or a message does not count.
pub async fn keys_are_listed_by_update(s: Subject) {
    s.put(&key("old"), "1").await;
    s.advance(1000);
    let at = s.now().await;
    s.put(&key("new"), "1").await;
    s.ok(vec![lease(&s.state(&key("old")).await, LeaseState::default(), true)]).await;
    s.ok(vec![append(&key("gift"), &message_id(at, "m"), "1")]).await;
    assert_eq!(s.filtered(KeyFilter::UpdatedSince(at)).await, ["PlayerData/new"]);
    assert_eq!(
        s.filtered(KeyFilter::UpdatedSince(at - 1000)).await,
        ["PlayerData/new", "PlayerData/old"]
    );
    assert_eq!(s.filtered(KeyFilter::UpdatedSince(at + 1)).await, Vec::<String>::new());
    s.advance(1);
    s.put(&key("old"), "2").await;
    assert_eq!(s.filtered(KeyFilter::UpdatedSince(at + 1)).await, ["PlayerData/old"]);
}

/// Keys that a session holds, or that are offered to one.
pub async fn keys_are_listed_when_held(s: Subject) {
    let server = s.registered().await;
    for name in ["c", "a", "b"] {
        s.put(&key(name), "1").await;
    }
    s.held_by(&key("c"), server).await;
    s.held_by(&key("a"), server).await;
    let states = s.store.keys(&KeyQuery { filter: KeyFilter::Held, ..everything() }).await.unwrap();
    let listed: Vec<_> = states
        .iter()
        .map(|state| (state.key.key(), state.holder_server.as_ref().map(|row| row.id)))
        .collect();
    assert_eq!(listed, [("a", Some(server)), ("c", Some(server))]);
    let offer = Offer { to: RequestId(s.uuid().await), server, at_ms: 1 };
    let offered = LeaseState { offer: Some(offer), ..LeaseState::default() };
    s.ok(vec![lease(&s.state(&key("a")).await, offered, false)]).await;
    s.ok(vec![lease(&s.state(&key("c")).await, LeaseState::default(), false)]).await;
    assert_eq!(s.filtered(KeyFilter::Held).await, ["PlayerData/a"]);
    let page = KeyQuery { after: Some(key("a")), filter: KeyFilter::Held, ..everything() };
    assert_eq!(s.listed(page).await, Vec::<String>::new());
}

/// Within a prefix the other filters find what they find elsewhere, and pages do not leave it.
pub async fn keys_are_listed_within_a_prefix(s: Subject) {
    let server = s.registered().await;
    let of = |user: i64| Write { user_ids: vec![user], ..Write::of("1") };
    for name in ["a1", "eu-1", "eu-2", "eu-3", "eu.", "us-1"] {
        s.ok(vec![of(7).over(&KeyState::absent(key(name)))]).await;
        s.held_by(&key(name), server).await;
    }
    s.ok(vec![of(8).over(&s.state(&key("eu-2")).await)]).await;
    let within = |filter: KeyFilter| s.filtered(filter.within("eu-"));
    let all = ["PlayerData/eu-1", "PlayerData/eu-2", "PlayerData/eu-3"];
    assert_eq!(within(KeyFilter::All).await, all);
    assert_eq!(within(KeyFilter::Held).await, all);
    assert_eq!(within(KeyFilter::UpdatedSince(0)).await, all);
    assert_eq!(within(KeyFilter::User(7)).await, ["PlayerData/eu-1", "PlayerData/eu-3"]);
    assert_eq!(within(KeyFilter::User(8)).await, ["PlayerData/eu-2"]);
    assert_eq!(within(KeyFilter::Prefix("eu-3".into())).await, ["PlayerData/eu-3"]);
    assert_eq!(within(KeyFilter::Prefix("us".into())).await, Vec::<String>::new());
    assert_eq!(within(KeyFilter::Held.within("eu-2")).await, ["PlayerData/eu-2"]);
    for after in ["a", "eu-1"] {
        let filter = KeyFilter::User(7).within("eu-");
        let page = KeyQuery { filter, after: Some(key(after)), limit: 1, ..everything() };
        let first = if after == "a" { "PlayerData/eu-1" } else { "PlayerData/eu-3" };
        assert_eq!(s.listed(page).await, [first]);
    }
}
