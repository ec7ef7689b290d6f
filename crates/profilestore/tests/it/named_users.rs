//! Users that have names and no numbers: found, taken out and erased, on every store.

use std::sync::Arc;

use bytes::Bytes;
use profilestore::{
    Attribution, GameServer, ProfileKey, UserId,
    data_store::{
        Cause, Change, Commit, CommitId, DataStore, DataStoreExt as _, KeyFilter, KeyQuery,
        KeyState, MemoryStore, NewValue, Returning,
    },
    env::Env,
    record::{Record, Stored},
    transfer::{ExportFilter, ImportOptions, export, import},
};
use serde_json::value::RawValue;

use crate::world::Player;

const UUID: &str = "069a79f4-44e9-4726-a5be-fca90e38aaf5";

fn user(text: &str) -> UserId {
    text.parse().unwrap()
}

fn key(name: &str) -> ProfileKey {
    ProfileKey::new("PlayerData", "global", name).unwrap()
}

async fn found(store: &dyn DataStore, filter: KeyFilter) -> Vec<String> {
    let query = KeyQuery { store: None, scope: None, filter, after: None, limit: 100 };
    let (states, _) = store.profiles(&query).await.unwrap();
    states.iter().map(|state| state.key.key().to_owned()).collect()
}

/// Writes a profile without a program.
async fn write(store: &dyn DataStore, name: &str, users: Vec<i64>) {
    let record = Record::new(0, RawValue::from_string("{}".to_owned()).unwrap());
    let commit = Commit {
        id: CommitId(Env::system().uuid()),
        incarnation: store.identity().await.unwrap().incarnation,
        from: None,
        changes: vec![Change::Write {
            key: key(name),
            epoch: 0,
            version: 0,
            value: NewValue::Bytes(Stored::Profile(record).encode().unwrap()),
            user_ids: users,
            cause: Cause::Set,
            author: "test".to_owned(),
            keep_previous: false,
            seal: false,
            imported: None,
        }],
        returning: Returning::HEAD,
        fingerprint: None,
    };
    store.commit_one(commit).await.unwrap();
}

async fn current(store: &dyn DataStore, name: &str) -> KeyState {
    store.read_one(&key(name), Returning::ALL).await.unwrap().1
}

/// All that there is to a user with a name.
pub(crate) async fn they_are_found_taken_out_and_erased(store: Arc<dyn DataStore>) {
    let game = GameServer::builder(store.clone()).job_id("game").start().await.unwrap();
    let players = game.store_builder("PlayerData").template(Player::default()).build().unwrap();
    let profile = players.start_session("p").await.unwrap();
    for each in [user(UUID), 7.into(), user(UUID), user("Notch")] {
        profile.add_user(each).unwrap();
    }
    profile.remove_user(user("Notch")).unwrap();
    assert!(profile.add_user(-1).is_err());
    assert_eq!((profile.user_ids(), profile.users()), (vec![7], vec![7.into(), user(UUID)]));
    profile.end_session().await.unwrap();

    // They stay through what others do to the profile.
    let profile = players.start_session("p").await.unwrap();
    profile.update(|data| data.coins += 1).unwrap();
    profile.end_session().await.unwrap();
    let desk = game.operator(Attribution::new("ann"));
    let more = profilestore::Edit::new().increase("/coins", 1.into()).unwrap();
    desk.edit(&key("p"), &more).await.unwrap();
    assert_eq!(players.get("p").await.unwrap().unwrap().users(), [7.into(), user(UUID)]);
    for (who, keys) in [(user(UUID), &["p"][..]), (7.into(), &["p"]), (user("Notch"), &[])] {
        assert_eq!(found(&*store, who.keys()).await, keys, "{who}");
    }

    // An export has them, and an import brings them back.
    let mut lines = Vec::new();
    let filter = ExportFilter { keys: user(UUID).keys(), ..ExportFilter::default() };
    export(&*store, &filter, &mut lines, &mut |_| {}).await.unwrap();
    let text = String::from_utf8(lines.clone()).unwrap();
    assert!(text.contains(&format!("\"user_ids\":[7,\"{UUID}\"]")), "{text}");
    let other = MemoryStore::new(Env::system());
    import(&other, &Env::system(), &lines[..], &ImportOptions::default(), &mut |_| {})
        .await
        .unwrap();
    assert_eq!(found(&other, user(UUID).keys()).await, ["p"]);
    let state = current(&other, "p").await;
    let stored = Stored::decode(&state.value.unwrap()).unwrap();
    assert_eq!(stored.users(), [7.into(), user(UUID)]);

    // Another profile that is found under the same number is not the user's.
    write(&*store, "other", vec![user(UUID).indexed()]).await;
    assert_eq!(found(&*store, user(UUID).keys()).await, ["other", "p"]);
    let shared = desk.erase_user(user(UUID), false).await.unwrap();
    assert_eq!(shared.shared.len(), 1, "it belongs to 7 too: {shared:?}");
    let erased = desk.erase_user(user(UUID), true).await.unwrap();
    let keys: Vec<_> = erased.erased.iter().map(|erased| erased.key.key()).collect();
    assert_eq!((keys, erased.user_id.clone()), (vec!["p"], user(UUID)));
    assert!(erased.is_complete(), "{erased:?}");
    assert!(current(&*store, "other").await.exists());
    assert_eq!(found(&*store, user(UUID).keys()).await, ["other"]);

    // A removed profile stays its user's.
    let made = players.start_session("q").await.unwrap();
    made.add_user(user(UUID)).unwrap();
    made.end_session().await.unwrap();
    assert!(players.remove("q").await.unwrap());
    let erased = desk.erase_user(user(UUID), false).await.unwrap();
    assert_eq!(erased.erased.len(), 1, "{erased:?}");
    assert!(game.shutdown().await.is_complete());
}

#[tokio::test]
async fn named_users_in_memory() {
    they_are_found_taken_out_and_erased(Arc::new(MemoryStore::new(Env::system()))).await;
}

#[test]
fn what_is_a_whole_number_is_one_and_anything_else_is_a_name() {
    for (text, number) in [("0", 0), ("7", 7), ("76561198000000000", 76_561_198_000_000_000)] {
        assert_eq!(user(text), number.into());
        assert_eq!(user(text).to_string(), text);
    }
    for name in ["07", "+7", "1e3", "9223372036854775808", "ä", UUID, &"x".repeat(100)] {
        assert!(user(name).indexed() < 0, "{name}");
        assert_eq!(user(name).to_string(), name);
        let json = serde_json::to_string(&user(name)).unwrap();
        assert_eq!(json, format!("\"{name}\""));
        assert_eq!(serde_json::from_str::<UserId>(&json).unwrap(), user(name));
    }
    // UUIDs with hyphens alone have two spellings.
    assert_eq!(user(&UUID.to_uppercase()), user(UUID));
    let bare = UUID.replace('-', "");
    assert_ne!(user(&bare), user(UUID));
    assert_ne!(user(&bare.to_uppercase()), user(&bare));
    assert_ne!(user("NOTCH"), user("Notch"));
    // No language rounds a number of a user.
    let steam = user("76561198000000000");
    assert_eq!(serde_json::to_string(&steam).unwrap(), "\"76561198000000000\"");
    for json in ["76561198000000000", "\"76561198000000000\""] {
        assert_eq!(serde_json::from_str::<UserId>(json).unwrap(), steam);
    }
    for wrong in ["", "-7", "a\0b", &"x".repeat(101)] {
        assert!(wrong.parse::<UserId>().is_err(), "{wrong}");
    }
    assert_eq!(serde_json::to_string(&user("7")).unwrap(), "7");
    assert!(serde_json::from_str::<UserId>("-7").is_err());
}

#[test]
fn a_record_without_named_users_is_stored_as_before() {
    let data = RawValue::from_string("{}".to_owned()).unwrap();
    let mut record = Record::new(0, data);
    let before: Bytes = record.encode().unwrap();
    record.add_user(user(UUID));
    assert_ne!(record.encode().unwrap(), before);
    record.remove_user(&user(UUID));
    assert_eq!(record.encode().unwrap(), before);
}
