//! What a game server that runs in another process hands over with a save.

use std::sync::Arc;

use serde_json::{Map, Value, value::RawValue};
use uuid::Uuid;

use super::document::{Document, check_version};
use crate::{
    data::Data,
    error::{Error, ErrorKind, Result},
    migration::{DATA_VERSION, DataVersion, READABLE_FROM},
    record::{Record, UserId},
    storable::{DATA, check_metadata},
};

/// A whole document, and what belongs into the commit that stores it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Save {
    /// The data, as a whole.
    pub data: Box<RawValue>,
    /// The indexes of the messages whose effect is in the data: they leave the inbox with it. Those
    /// that are gone already may be named again.
    pub processed: Vec<u64>,
    /// The users associated with the profile from now on, by number or by name. None: as before.
    pub users: Option<Vec<UserId>>,
    /// The game's tags, as a whole. None: as before. The data version stays.
    pub tags: Option<Map<String, Value>>,
    /// The profile's metadata, in the limits of [`crate::Profile::set_roblox_metadata`]. None: as
    /// before.
    pub metadata: Option<Map<String, Value>>,
    /// The data version of the data. None: as before.
    pub data_version: Option<DataVersion>,
    /// What became of operators' edits. With one that was done the data holds the edit and nothing
    /// else that is new, so that undoing it takes back the edit only.
    pub edits_done: Vec<EditDone>,
}

impl Save {
    /// The data alone.
    pub fn new(data: Box<RawValue>) -> Self {
        Self {
            data,
            processed: Vec::new(),
            users: None,
            tags: None,
            metadata: None,
            data_version: None,
            edits_done: Vec::new(),
        }
    }

    /// Checked, as it can be stored.
    pub(crate) fn check(self) -> Result<Handed> {
        let Self { data, processed, users, tags, metadata, data_version, edits_done } = self;
        let data = Document::new(&data)?;
        users.iter().flatten().try_for_each(UserId::check)?;
        metadata.as_ref().map_or(Ok(()), check_metadata)?;
        tags.as_ref()
            .map_or(Ok(()), |tags| DATA.check_map(tags))
            .map_err(|wrong| Error::from(wrong.inside("tags")))?;
        data_version.map_or(Ok(()), check_version)?;
        if edits_done.iter().filter(|edit| edit.refused.is_none()).count() > 1 {
            let message = "a save holds one operator's edit at most, so that each can be undone";
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        let beside = Beside { users, tags, metadata, data_version };
        Ok(Handed { data: Arc::new(data), processed, beside, edits_done })
    }
}

/// What became of an operator's edit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EditDone {
    /// The edit's operation.
    pub operation: Uuid,
    /// Why it was not done. None: it was.
    pub refused: Option<String>,
}

/// A [`Save`] that can be stored.
pub(crate) struct Handed {
    pub(super) data: Arc<Document>,
    pub(super) processed: Vec<u64>,
    pub(super) beside: Beside,
    pub(super) edits_done: Vec<EditDone>,
}

impl Handed {
    pub(super) fn data(&self) -> Arc<dyn Data> {
        self.data.clone()
    }

    pub(crate) fn has_edits(&self) -> bool {
        !self.edits_done.is_empty()
    }
}

/// What is stored beside the data.
#[derive(Clone)]
pub(super) struct Beside {
    users: Option<Vec<UserId>>,
    tags: Option<Map<String, Value>>,
    metadata: Option<Map<String, Value>>,
    data_version: Option<DataVersion>,
}

impl Beside {
    pub(super) fn apply(self, record: &mut Record) {
        if let Some(users) = self.users {
            record.set_users(users);
        }
        if let Some(metadata) = self.metadata {
            record.roblox_metadata = metadata;
        }
        if let Some(mut tags) = self.tags {
            for ours in [DATA_VERSION, READABLE_FROM] {
                match record.meta_tags.get(ours).cloned() {
                    Some(known) => tags.insert(ours.into(), known),
                    None => tags.remove(ours),
                };
            }
            record.meta_tags = tags;
        }
        if let Some(version) = self.data_version {
            DataVersion::stamp(Some(version), &mut record.meta_tags);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tags_are_replaced_and_the_data_version_stays() {
        let mut record = Record::new(0, RawValue::NULL.to_owned());
        let known = DataVersion { version: 3, readable_from: 2 };
        DataVersion::stamp(Some(known), &mut record.meta_tags);
        record.meta_tags.insert("old".into(), json!(1));
        let mut save = Save::new(RawValue::NULL.to_owned());
        save.tags = Some(Map::from_iter([("new".to_owned(), json!(2))]));
        save.check().unwrap().beside.apply(&mut record);
        let tags = json!({"new": 2, DATA_VERSION: 3, READABLE_FROM: 2});
        assert_eq!(Value::from(record.meta_tags.clone()), tags);
    }

    #[test]
    fn tags_that_a_game_hands_back_change_no_data_version() {
        let handed_back = |record: &mut Record| {
            let mut save = Save::new(RawValue::NULL.to_owned());
            let old = json!({"new": 2, DATA_VERSION: 1, READABLE_FROM: 1});
            save.tags = old.as_object().cloned();
            save.check().unwrap().beside.apply(record);
            Value::from(record.meta_tags.clone())
        };
        let mut record = Record::new(0, RawValue::NULL.to_owned());
        assert_eq!(handed_back(&mut record), json!({"new": 2}), "it has none");
        let known = DataVersion { version: 3, readable_from: 2 };
        DataVersion::stamp(Some(known), &mut record.meta_tags);
        let tags = json!({"new": 2, DATA_VERSION: 3, READABLE_FROM: 2});
        assert_eq!(handed_back(&mut record), tags);
    }
}
