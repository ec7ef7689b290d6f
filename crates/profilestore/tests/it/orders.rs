//! The game is told what operators do to its sessions: who, what and why.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use profilestore::{
    Attribution, Edit, GameServer, LastSave, Operator, Profile, ProfileKey, SessionEnd,
    StartOptions,
    audit::{AuditOutcome, AuditQuery, audit_entries},
    data_store::VersionRef,
};
use serde_json::json;

use crate::world::{Player, World, coins, earn, open, players, settle};

const SECOND: Duration = Duration::from_secs(1);

fn key() -> ProfileKey {
    ProfileKey::new("PlayerData", "global", "p").unwrap()
}

fn ann(server: &GameServer) -> Operator {
    server.operator(Attribution::new("ann").because("ticket 17"))
}

/// What the listeners of a session were told.
#[derive(Default)]
struct Told {
    ends: Mutex<Vec<SessionEnd>>,
    last_saves: Mutex<Vec<LastSave>>,
}

impl Told {
    fn about(profile: &Profile<Player>) -> Arc<Self> {
        let told = Arc::new(Self::default());
        let (ends, last_saves) = (told.clone(), told.clone());
        profile.on_session_end(move |end| ends.ends.lock().push(end));
        profile.on_last_save(move |reason, _| last_saves.last_saves.lock().push(reason));
        told
    }

    /// The action of the operator who ended it, and whether it was saved. None: the end was
    /// another one, or there was none.
    fn ordered(&self) -> Option<(String, bool)> {
        let ends = self.ends.lock();
        let [SessionEnd::Operator { entry, saves }] = &ends[..] else { return None };
        assert_eq!(entry.by, Attribution::new("ann").because("ticket 17"));
        assert_eq!((&entry.keys, ends[0].saves()), (&vec![key()], *saves));
        Some((entry.action.clone(), *saves))
    }
}

/// A session with 5 coins stored, and 7 more that are not.
async fn played(server: &GameServer) -> (Profile<Player>, Arc<Told>) {
    let profile = open(server, "p").await;
    profile.add_user_id(7).unwrap();
    earn(&profile, 5);
    profile.save().await.unwrap();
    earn(&profile, 7);
    let told = Told::about(&profile);
    (profile, told)
}

#[tokio::test(start_paused = true)]
async fn a_session_is_told_which_operator_ended_it_and_why() {
    for (world, elsewhere) in
        [(World::new(), true), (World::without_messenger(), true), (World::new(), false)]
    {
        let (a, b) = (world.server("a").await, world.server("b").await);
        let desk = ann(if elsewhere { &b } else { &a });
        let (first, _) = played(&a).await;
        first.end_session().await.unwrap();
        let number = first.key_info().number;
        let (profile, told) = played(&a).await;
        desk.restore(&key(), VersionRef::Number(number)).await.unwrap();
        tokio::time::sleep(10 * SECOND).await;
        assert!(profile.is_over());
        assert_eq!(told.ordered(), Some(("rollback".into(), false)));
        let SessionEnd::Operator { entry, .. } = told.ends.lock()[0].clone() else { panic!() };
        assert_eq!(entry.details["restored"], number);
        assert_eq!(entry.outcome, AuditOutcome::Done);
        assert!(told.last_saves.lock().is_empty());

        let (profile, told) = played(&a).await;
        desk.end_session(&key(), false, 60 * SECOND).await.unwrap();
        assert!(profile.is_over());
        assert_eq!(told.ordered(), Some(("end-session".into(), true)));
        assert_eq!(*told.last_saves.lock(), [LastSave::External]);
        assert_eq!(coins(&b, "p").await, 24, "the last save came");

        let (profile, told) = played(&a).await;
        desk.end_session(&key(), true, 60 * SECOND).await.unwrap();
        tokio::time::sleep(10 * SECOND).await;
        assert!(profile.is_over());
        // On its own server it need not be taken by force.
        assert_eq!(told.ordered(), Some(("end-session".into(), !elsewhere)));

        let (profile, told) = played(&a).await;
        assert!(desk.remove(&key()).await.unwrap());
        tokio::time::sleep(10 * SECOND).await;
        assert!(profile.is_over());
        assert_eq!(told.ordered(), Some(("remove".into(), false)));

        let (profile, told) = played(&a).await;
        assert_eq!(desk.erase_user(7, false).await.unwrap().erased.len(), 1);
        tokio::time::sleep(10 * SECOND).await;
        assert!(profile.is_over());
        assert_eq!(told.ordered(), Some(("erase".into(), false)));
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_that_no_operator_ordered_is_told_as_before() {
    let world = World::new();
    let (a, b) = (world.server("a").await, world.server("b").await);
    // Entries about the profile that ended nothing.
    let (profile, told) = played(&a).await;
    let current = VersionRef::Number(profile.key_info().number);
    ann(&b).pin(&key(), current, true).await.unwrap();
    ann(&b).edit(&key(), &Edit::new().increase("/coins", 1.into()).unwrap()).await.unwrap();
    players(&b).remove("p").await.unwrap();
    settle().await;
    assert!(profile.is_over());
    assert_eq!(*told.ends.lock(), [SessionEnd::Lost], "the program removed it");

    let (_profile, told) = played(&a).await;
    let there = open(&b, "p").await;
    assert_eq!(*told.ends.lock(), [SessionEnd::External]);
    there.end_session().await.unwrap();

    let (_profile, told) = played(&a).await;
    players(&b).start_session_with("p", StartOptions::new().steal()).await.unwrap();
    settle().await;
    assert_eq!(*told.ends.lock(), [SessionEnd::Lost]);
}

#[tokio::test(start_paused = true)]
async fn a_reason_that_cannot_be_read_does_not_hold_the_end_up() {
    for asks in [true, false] {
        let world = World::new();
        let own_way = world.another_way();
        let (a, b) = (world.server_on("a", own_way.clone()).await, world.server("b").await);
        let (profile, told) = played(&a).await;
        own_way.plan().delay_reads(60_000);
        let began = tokio::time::Instant::now();
        if asks {
            ann(&b).end_session(&key(), false, 60 * SECOND).await.unwrap();
            assert_eq!(*told.ends.lock(), [SessionEnd::External]);
            assert_eq!(coins(&b, "p").await, 12);
        } else {
            ann(&b).remove(&key()).await.unwrap();
            while !profile.is_over() {
                tokio::time::sleep(SECOND / 10).await;
            }
            assert_eq!(*told.ends.lock(), [SessionEnd::Lost]);
        }
        assert!(began.elapsed() < 3 * SECOND, "{:?}", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_is_told_of_the_edits_that_operators_made_in_it() {
    let world = World::new();
    let (a, b) = (world.server("a").await, world.server("b").await);
    let (profile, _) = played(&a).await;
    let log = Arc::new(Mutex::new(Vec::new()));
    let (told, of) = (log.clone(), profile.clone());
    profile.on_edited(move |entry, data| {
        // It may use the profile: it is not inside of an edit.
        of.update(|data| data.items.push("told".into())).unwrap();
        told.lock().push((entry.operation, entry.by.clone(), data.coins));
    });
    let edit = Edit::new().increase("/coins", 100.into()).unwrap();
    let done = ann(&b).edit(&key(), &edit).await.unwrap();
    let by = Attribution::new("ann").because("ticket 17");
    assert_eq!(*log.lock(), [(done.operation, by, 112)]);
    // What is refused is not told, and what waited for the next session is in the log.
    let misfit = Edit::new().set("/coins", json!("many")).unwrap();
    ann(&b).edit(&key(), &misfit).await.unwrap_err();
    assert_eq!(log.lock().len(), 1);
    profile.end_session().await.unwrap();
    let stored = players(&b).get("p").await.unwrap().unwrap().data;
    assert_eq!((stored.coins, stored.items), (112, vec!["told".to_owned()]));
    let query = AuditQuery { key: Some(key()), ..AuditQuery::default() };
    assert_eq!(audit_entries(&world.store, &query).await.unwrap().entries.len(), 2);
}
