//! Operators' edits through the program's own type (`Operator::through`): online and offline the
//! same edit has the same outcome, for the same reason.

use profilestore::{
    Attribution, Edit, Error, ErrorKind, GameServer, Migrations, Operator, ProfileKey,
    ProfileStore,
    audit::AuditEntry,
    data_store::{DataStoreExt, Returning},
    operator::{BulkEdit, EditScope},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::world::World;

/// The program's type: `lives` are few, `coins` are never negative.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Hero {
    coins: i64,
    lives: u8,
    #[serde(default)]
    items: Vec<String>,
    #[serde(default)]
    title: Option<String>,
}

fn heroes(server: &GameServer) -> ProfileStore<Hero> {
    let template = Hero { coins: 5, lives: 3, ..Hero::default() };
    let store = server.store_builder("Heroes").template(template);
    let judge =
        |hero: &Hero| if hero.coins < 0 { Err("coins are negative".into()) } else { Ok(()) };
    store.validate(judge).build().unwrap()
}

fn ann(server: &GameServer) -> Operator {
    server.operator(Attribution::new("ann"))
}

fn key(name: &str) -> ProfileKey {
    ProfileKey::new("Heroes", "global", name).unwrap()
}

fn set(path: &str, value: Value) -> Edit {
    Edit::new().set(path, value).unwrap()
}

fn add(path: &str, value: Value) -> Edit {
    Edit::from_patch(&json!([{"op": "add", "path": path, "value": value}]).to_string()).unwrap()
}

/// What an edit came to: how it was refused, or what it booked but for the version and the holder.
fn outcome(done: Result<AuditEntry, Error>) -> Result<Value, (ErrorKind, String)> {
    match done {
        Ok(mut entry) => {
            entry.details.remove("version");
            entry.details.remove("held_by");
            Ok(json!(entry.details))
        }
        Err(error) => {
            let text = error.to_string();
            // The profile's name is another one.
            Err((error.kind(), text.split(": profile=").next().unwrap_or_default().to_owned()))
        }
    }
}

async fn stored(world: &World, name: &str) -> Value {
    let all = Returning { value: true, inbox_unless: None };
    let (_, state) = world.store.read_one(&key(name), all).await.unwrap();
    let server = world.server("reader").await;
    let raw: ProfileStore<Value> = server.store("Heroes").unwrap();
    assert!(state.exists());
    let data = raw.get(name).await.unwrap().unwrap().data;
    assert!(server.shutdown().await.is_complete());
    data
}

/// Edits of all kinds, and whether the type keeps what they make.
fn edits() -> Vec<(Edit, bool)> {
    vec![
        (set("/coins", json!(50)), true),
        (set("/coinz", json!(50)), false),
        (set("/coins", json!("many")), false),
        (set("/coins", json!(-1)), false),
        (set("/coins", json!(1.5)), false),
        (set("/lives", json!(300)), false),
        (set("/lives", json!(255)), true),
        (Edit::new().increase("/coins", 7.into()).unwrap(), true),
        (Edit::new().increase("/coins", (-6).into()).unwrap(), false),
        (Edit::new().increase("/gold", 1.into()).unwrap(), false),
        (Edit::new().remove("/coins").unwrap(), false),
        (Edit::new().remove("/items").unwrap(), false),
        (Edit::new().remove("/nothing").unwrap(), false),
        (add("/items/-", json!("sword")), true),
        (add("/items/7", json!("sword")), false),
        (add("/items/-", json!(7)), false),
        (Edit::new().merge(json!({"title": "knight", "coins": 1})), true),
        (Edit::new().merge(json!({"title": null})), true),
        (Edit::new().merge(json!({"rank": 4})), false),
        (Edit::new().test("/coins", json!(5)).unwrap(), true),
        (Edit::new().test("/coins", json!(6)).unwrap(), false),
        (set("", json!([1])), false),
        // The type gives `items` back.
        (set("", json!({"coins": 9, "lives": 1})), false),
        (set("", json!({"coins": 9, "lives": 1, "items": ["bow"], "title": null})), true),
    ]
}

#[tokio::test(start_paused = true)]
async fn online_and_offline_the_same_edit_has_the_same_outcome_for_the_same_reason() {
    for (number, (edit, is_kept)) in edits().into_iter().enumerate() {
        let world = World::new();
        let (game, office) = (world.server("game").await, world.server("office").await);
        let context = format!("edit {number}: {}", json!(edit));
        for name in ["here", "away", "offline"] {
            let profile = heroes(&game).start_session(name).await.unwrap();
            profile.save().await.unwrap();
            profile.end_session().await.unwrap();
        }
        let here = heroes(&office).start_session("here").await.unwrap();
        let away = heroes(&game).start_session("away").await.unwrap();
        let operator = ann(&office).through(&heroes(&office));
        let offline = outcome(operator.edit(&key("offline"), &edit).await);
        // An operator's program that does not know the type: the holder does.
        let online = outcome(ann(&office).edit(&key("away"), &edit).await);
        let own = outcome(operator.edit(&key("here"), &edit).await);
        assert_eq!(offline, online, "{context}");
        assert_eq!(offline, own, "{context}");
        assert_eq!(offline.is_ok(), is_kept, "{context}: {offline:?}");
        if let Err((kind, _)) = &offline {
            assert_eq!(*kind, ErrorKind::EditRefused, "{context}");
        }
        away.save().await.unwrap();
        here.save().await.unwrap();
        let data = stored(&world, "offline").await;
        assert_eq!(data, stored(&world, "away").await, "{context}");
        assert_eq!(data, stored(&world, "here").await, "{context}");
        if !is_kept {
            assert_eq!(data["coins"], 5, "{context}: it was changed");
        }
        // What is stored can be opened.
        assert!(heroes(&game).get("offline").await.unwrap().is_some(), "{context}");
    }
}

#[tokio::test(start_paused = true)]
async fn without_the_type_an_edit_of_an_unheld_profile_changes_the_stored_json() {
    let world = World::new();
    let server = world.server("a").await;
    heroes(&server).start_session("p").await.unwrap().end_session().await.unwrap();
    ann(&server).edit(&key("p"), &set("/coinz", json!(50))).await.unwrap();
    assert_eq!(stored(&world, "p").await["coinz"], 50);
    // Another store's type, another scope's: none of this profile.
    let others: ProfileStore<Hero> = server.store("Others").unwrap();
    let scoped = server.store_builder::<Hero>("Heroes").scope("other").build().unwrap();
    let operator = ann(&server).through(&others).through(&scoped);
    operator.edit(&key("p"), &set("/rank", json!(1))).await.unwrap();
    assert_eq!(stored(&world, "p").await["rank"], 1);
    // The type drops both with the next edit through it, as a session does with its next save.
    let operator = operator.through(&heroes(&server));
    operator.edit(&key("p"), &set("/coins", json!(1))).await.unwrap();
    assert_eq!(
        stored(&world, "p").await,
        json!({"coins": 1, "lives": 3, "items": [], "title": null})
    );
}

#[tokio::test(start_paused = true)]
async fn data_that_the_type_cannot_open_is_not_edited_and_the_error_says_why() {
    let world = World::new();
    let server = world.server("a").await;
    let raw: ProfileStore<Value> = server.store("Heroes").unwrap();
    let odd = raw.start_session("p").await.unwrap();
    odd.update(|data| *data = json!({"coins": "many", "lives": 1})).unwrap();
    odd.end_session().await.unwrap();
    let operator = ann(&server).through(&heroes(&server));
    let repair = set("/coins", json!(4));
    let refused = operator.edit(&key("p"), &repair).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Undecodable, "{refused}");
    assert_eq!(stored(&world, "p").await["coins"], "many");
    // The same edit without the type repairs it.
    ann(&server).edit(&key("p"), &repair).await.unwrap();
    assert_eq!(heroes(&server).get("p").await.unwrap().unwrap().data.coins, 4);
}

#[tokio::test(start_paused = true)]
async fn data_of_an_older_program_is_migrated_before_it_is_edited() {
    let world = World::new();
    let server = world.server("a").await;
    let raw: ProfileStore<Value> = server.store("Heroes").unwrap();
    let old = raw.start_session("p").await.unwrap();
    old.update(|data| *data = json!({"gold": 30, "lives": 1})).unwrap();
    old.end_session().await.unwrap();
    let migrations = Migrations::new().step(1, |data| {
        data["coins"] = data.as_object_mut().ok_or("no object")?.remove("gold").ok_or("no gold")?;
        Ok(())
    });
    let new = server.store_builder::<Hero>("Heroes").migrations(migrations).build().unwrap();
    let operator = ann(&server).through(&new);
    operator.edit(&key("p"), &Edit::new().increase("/coins", 3.into()).unwrap()).await.unwrap();
    assert_eq!(new.get("p").await.unwrap().unwrap().data.coins, 33);
    // It is marked as migrated: opened again, it is not migrated twice.
    let profile = new.start_session("p").await.unwrap();
    assert_eq!(profile.data().coins, 33);
}

#[tokio::test(start_paused = true)]
async fn an_edit_of_all_profiles_through_the_type_refuses_held_and_unheld_ones_alike() {
    let world = World::new();
    let (game, office) = (world.server("game").await, world.server("office").await);
    let mut held = Vec::new();
    for (name, coins, stays) in [("a", 1, true), ("b", 9, true), ("c", 1, false), ("d", 9, false)] {
        let profile = heroes(&game).start_session(name).await.unwrap();
        profile.update(|hero| hero.coins = coins).unwrap();
        profile.save().await.unwrap();
        if stays {
            held.push(profile);
        } else {
            profile.end_session().await.unwrap();
        }
    }
    let tax = Edit::new().increase("/coins", (-5).into()).unwrap();
    let operator = ann(&office).through(&heroes(&office));
    let bulk = BulkEdit::new(world.env.uuid(), EditScope::all("Heroes"), tax);
    let report = operator.edit_all(&bulk, |_| {}).await.unwrap();
    let mut refused = report.refused;
    refused.sort();
    let names: Vec<&str> = refused.iter().map(|(key, _)| key.key()).collect();
    assert_eq!((report.done, &names[..]), (2, &["a", "c"][..]));
    assert_eq!(refused[0].1, refused[1].1);
    assert!(refused[0].1.contains("coins are negative"), "{}", refused[0].1);
}
