//! The document of a session in a frame, and what is stored beside it.

use std::collections::BTreeMap;

use profilestore::{
    UserId,
    audit::MAX_REASON_BYTES,
    hosting::{EditDone, Save},
    storable::DATA,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, value::RawValue};
use uuid::Uuid;

use super::User;
use crate::problem::Problem;

/// A frame with the document of one session. (A flattened struct would lose the raw text.)
macro_rules! with_document {
    ($(#[$doc:meta])* $name:ident { $($(#[$of:meta])* $field:ident),* }) => {
        $(#[$doc])*
        #[derive(Debug, Serialize, Deserialize, JsonSchema)]
        pub(crate) struct $name {
            $($(#[$of])* pub(crate) $field: u64,)*
            /// The session.
            pub(crate) s: u64,
            /// The save's number within the session: it grows.
            pub(crate) n: u64,
            /// The whole document.
            #[serde(default)]
            #[schemars(with = "Option<Value>")]
            pub(crate) data: Option<Box<RawValue>>,
            /// The messages whose effect is in the data, by their index.
            #[serde(default)]
            pub(crate) processed: Vec<u64>,
            /// The users associated with the profile, by number or by name. Without it, and so on:
            /// as before.
            #[serde(default)]
            #[schemars(with = "Option<Vec<User>>")]
            pub(crate) user_ids: Option<Vec<UserId>>,
            /// The game's tags.
            #[serde(default)]
            #[schemars(with = "Option<BTreeMap<String, Value>>")]
            pub(crate) tags: Option<Box<RawValue>>,
            /// The metadata of the profile's key.
            #[serde(default)]
            #[schemars(with = "Option<BTreeMap<String, Value>>")]
            pub(crate) metadata: Option<Box<RawValue>>,
            /// Operators' edits that are in the data, or were refused.
            #[serde(default)]
            pub(crate) edits_done: Vec<EditOutcome>,
        }

        impl $name {
            /// What is to be stored. None: nothing, there is no data.
            pub(crate) fn save(self) -> Result<Option<Save>, Problem> {
                let Some(data) = self.data else { return Ok(None) };
                let mut save = Save::new(data);
                save.processed = self.processed;
                save.users = self.user_ids;
                save.tags = self.tags.map(|tags| table("tags", &tags)).transpose()?;
                save.metadata =
                    self.metadata.map(|metadata| table("metadata", &metadata)).transpose()?;
                save.edits_done = self.edits_done.into_iter().map(EditOutcome::done).collect();
                Ok(Some(save))
            }
        }
    };
}

/// What stands beside the document, as it is written: a reader of values rounds numbers, and drops
/// a member whose name comes again.
fn table(name: &str, json: &RawValue) -> Result<Map<String, Value>, Problem> {
    let read = DATA.parse(json.get()).map_err(|mut wrong| {
        wrong.path.insert_str(0, &format!("/{name}"));
        Problem::from(wrong)
    })?;
    match read {
        Value::Object(table) => Ok(table),
        _ => Err(Problem::invalid(format!("`{name}` is an object"))),
    }
}

with_document! {
    /// The whole document, with the messages that are in it.
    Saving {
        /// The request.
        i
    }
}

with_document! {
    /// The last save and the release. Without data the profile is released as it is stored.
    Ending {
        /// The request.
        i
    }
}

with_document! {
    /// One session's part of a transaction. Without data it is what was staged under `s` and `n`.
    TxPart {}
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct EditOutcome {
    pub(crate) op: Uuid,
    /// Why it was not made. Without it, it was.
    #[serde(default)]
    pub(crate) refused: Option<String>,
}

impl EditOutcome {
    fn done(self) -> EditDone {
        // It is for people, and goes into the audit log.
        let refused = self.refused.map(|mut why| {
            why.truncate(why.floor_char_boundary(MAX_REASON_BYTES));
            why
        });
        EditDone { operation: self.op, refused }
    }
}
