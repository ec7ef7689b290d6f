//! A foreign server: it keeps sessions on profiles by nothing but updates of their documents, the
//! way that the published modules do.

use std::sync::Mutex;

use super::*;

/// A server that knows data stores and nothing of us.
pub struct Foreign {
    store: RobloxDataStore,
    env: Env,
    /// Its session, as it stands in `ActiveSession`.
    identity: Value,
    load_count: u64,
    pub stamps_updates: bool,
}

/// What an attempt to load came to.
#[derive(Debug, PartialEq)]
pub enum Loaded {
    /// It has the profile, with this data.
    Yes(Value),
    /// This session has it, which was asked to let go.
    Asked(Value),
}

/// What a save came to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Saved {
    /// Another server has the profile; nothing was saved.
    pub lost: bool,
    /// Who asked for the profile, which it let go for that.
    pub asked: Option<Value>,
    /// The messages that it took out.
    pub messages: Vec<Value>,
}

impl Foreign {
    pub fn new(place: &Place, store: RobloxDataStore, identity: Value) -> Self {
        Self { store, env: place.env.clone(), identity, load_count: 0, stamps_updates: true }
    }

    async fn edit(&self, key: &str, mut edit: impl FnMut(&mut Value) + 'static) -> Value {
        let update = self.store.update(key, move |now| {
            let mut document = now.map_or(Value::Null, parsed);
            edit(&mut document);
            let ids = document["UserIds"].as_array().cloned().unwrap_or_default();
            Some(entry(&document).user_ids(ids.iter().filter_map(Value::as_i64).collect()))
        });
        parsed(&update.await.unwrap().unwrap())
    }

    fn stamp(&self) -> impl Fn(&mut serde_json::Map<String, Value>) + 'static {
        let (env, stamps) = (self.env.clone(), self.stamps_updates);
        move |meta| {
            if stamps {
                meta.insert("LastUpdate".into(), env.unix_ms().div_euclid(1000).into());
            }
        }
    }

    /// One attempt to take the profile, which begins with this data if there is none.
    pub async fn load(&mut self, key: &str, template: Value) -> Loaded {
        let (me, stamp) = (self.identity.clone(), self.stamp());
        let document = self.edit(key, move |document| {
            if document["Data"].is_null() {
                let updates = document.get("GlobalUpdates").cloned().unwrap_or_else(|| json!([0, []]));
                *document = json!({
                    "Data": template, "GlobalUpdates": updates, "UserIds": [], "RobloxMetaData": {},
                    "MetaData": { "ProfileCreateTime": 1_795_000_000, "SessionLoadCount": 0, "MetaTags": {} },
                });
            }
            let meta = document["MetaData"].as_object_mut().unwrap();
            if meta.get("ActiveSession").is_none_or(Value::is_null) {
                let count = meta["SessionLoadCount"].as_u64().unwrap() + 1;
                meta.insert("ActiveSession".into(), me.clone());
                meta.insert("SessionLoadCount".into(), count.into());
                stamp(meta);
                meta.shift_remove("ForceLoadSession");
            } else if meta["ActiveSession"] != me {
                meta.insert("ForceLoadSession".into(), json!([me[0], me[1]]));
            }
        });
        let document = document.await;
        let meta = &document["MetaData"];
        if meta["ActiveSession"] != self.identity {
            return Loaded::Asked(meta["ActiveSession"].clone());
        }
        self.load_count = meta["SessionLoadCount"].as_u64().unwrap();
        Loaded::Yes(document["Data"].clone())
    }

    /// Saves, and lets go if that is wanted or another server asked for it.
    pub async fn save(&self, key: &str, data: Value, end: bool) -> Saved {
        let (me, load_count, stamp) = (self.identity.clone(), self.load_count, self.stamp());
        let saved = Arc::new(Mutex::new(Saved::default()));
        let told = saved.clone();
        self.edit(key, move |document| {
            let meta = &document["MetaData"];
            if meta["ActiveSession"] != me || meta["SessionLoadCount"] != load_count {
                *told.lock().unwrap() = Saved { lost: true, ..Saved::default() };
                return;
            }
            let asked = meta.get("ForceLoadSession").filter(|asked| !asked.is_null()).cloned();
            let messages = document["GlobalUpdates"][1].as_array().cloned().unwrap_or_default();
            document["GlobalUpdates"][1] = json!([]);
            document["Data"] = data.clone();
            let meta = document["MetaData"].as_object_mut().unwrap();
            stamp(meta);
            if end || asked.is_some() {
                meta.shift_remove("ActiveSession");
            }
            *told.lock().unwrap() = Saved { lost: false, asked, messages };
        })
        .await;
        let saved = saved.lock().unwrap();
        saved.clone()
    }
}
