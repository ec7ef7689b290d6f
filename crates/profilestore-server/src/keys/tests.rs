use std::collections::BTreeSet;

use profilestore::data_store::{DataStoreExt as _, MemoryStore, Returning};
use profilestore::record::Stored;

use super::*;

fn keys() -> Arc<Keys> {
    over(Arc::new(MemoryStore::new(Env::system())))
}

fn over(store: Arc<dyn DataStore>) -> Arc<Keys> {
    Arc::new(Keys::new(store, Env::system()))
}

fn by() -> Attribution {
    Attribution::new("ann")
}

fn reader() -> NewKey {
    NewKey {
        name: "reader".into(),
        scopes: BTreeSet::from([Scope::ProfilesRead]),
        ..NewKey::default()
    }
}

fn refusal(answer: Result<Arc<KeyRecord>, Unverified>) -> KeyRefusal {
    match answer {
        Err(Unverified::Refused(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_key_is_known_by_its_text_alone_and_the_store_has_no_secret() {
    let store = Arc::new(MemoryStore::new(Env::system()));
    let keys = over(store.clone());
    let (record, text) = keys.add(reader(), &by()).await.unwrap();
    assert_eq!(text.len(), 59, "{text}");
    assert_eq!(keys.verify(&text).await.unwrap().id, record.id);
    let other = format!("{}{}", &text[..58], if text.ends_with('A') { 'B' } else { 'A' });
    let short = &text[..58];
    for wrong in [&*other, short, "", "ps_", "ps__", "ps_000000000000_", "Bearer"] {
        assert_eq!(refusal(keys.verify(wrong).await), KeyRefusal::Unknown, "{wrong}");
    }
    let place = keys.shelf.place(&record.id).unwrap();
    let (_, state) = store.read_one(&place, Returning::ALL).await.unwrap();
    let Stored::Foreign(stored) = Stored::decode(&state.value.unwrap()).unwrap() else {
        panic!("a key is no profile")
    };
    assert!(!stored.value.get().contains(&text[16..]));
}

#[tokio::test]
async fn a_revoked_key_and_an_expired_one_are_refused() {
    let keys = keys();
    let (record, text) = keys.add(reader(), &by()).await.unwrap();
    keys.verify(&text).await.unwrap();
    assert!(keys.revoke(&record.id, &by()).await.unwrap().revoked_ms.is_some());
    assert_eq!(refusal(keys.verify(&text).await), KeyRefusal::Revoked);
    keys.revoke(&record.id, &by()).await.unwrap();
    assert!(matches!(keys.revoke("000000000000", &by()).await, Err(KeyError::NotFound(_))));
    let old = NewKey { expires_ms: Some(1), ..reader() };
    let (_, text) = keys.add(old, &by()).await.unwrap();
    assert_eq!(refusal(keys.verify(&text).await), KeyRefusal::Expired);
    assert_eq!(keys.list().await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_key_that_makes_no_sense_is_not_made() {
    let keys = keys();
    let wrong = [
        NewKey { name: String::new(), ..reader() },
        NewKey { name: "a\nb".into(), ..reader() },
        NewKey { scopes: BTreeSet::new(), ..reader() },
        NewKey { prefix: Some("a".into()), ..reader() },
        NewKey { store: Some("x".repeat(51)), ..reader() },
        NewKey { store: Some("S".into()), scopes: BTreeSet::from([Scope::Admin]), ..reader() },
    ];
    for new in wrong {
        assert!(matches!(keys.add(new, &by()).await, Err(KeyError::Invalid(_))));
    }
}

#[test]
fn scopes_are_read_as_they_are_shown() {
    for scope in Scope::ALL {
        assert_eq!(scope.to_string().parse(), Ok(scope));
        assert_eq!(serde_json::to_value(scope).unwrap(), scope.as_str());
    }
    assert!("profiles".parse::<Scope>().unwrap_err().contains("profiles:read"));
}
