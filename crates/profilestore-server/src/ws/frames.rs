//! The frames of `profilestore.v1+json`: one JSON object each, with one member that says what it
//! is, such as `{"ping":{"n":1}}`. Unknown members are ignored.
//!
//! Documents are raw text here, so no number is read as a float.

use std::{collections::BTreeMap, time::Duration};

use profilestore::{
    UserId, WhenHeld,
    data_store::CommitId,
    hosting::{HostedStart, Request},
    migration::DataVersion,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, value::RawValue};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

mod document;

use document::TxPart;
pub(crate) use document::{Ending, Saving};

/// What a client says first, in `Sec-WebSocket-Protocol`.
pub(crate) const PROTOCOL: &str = "profilestore.v1+json";

/// The largest frame, in bytes.
pub(crate) const MAX_FRAME: usize = 5 << 20;

/// How many starts and messages of one game server may be unanswered.
pub(crate) const WINDOW: usize = 1000;

/// What a game server says.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ClientFrame {
    /// The first frame: a new game server, or one that resumes.
    Hello(Hello),
    /// More sessions of a resume, if `hello` said that more come.
    Sessions(Named),
    /// Every 2 s. The answer says how old the confirmation is that counts.
    Ping {
        /// Comes back in the answer.
        n: u64,
    },
    /// Opens a profile.
    Start(Box<Start>),
    /// Calls a start off.
    Cancel {
        /// The start's.
        i: u64,
    },
    /// The whole document, with the messages that are in it.
    Save(Box<Saving>),
    /// The last save and the release, in one commit.
    End(Box<Ending>),
    /// Several documents and gifts: all of it or nothing.
    Tx(Box<Tx>),
    /// A document for a transaction that is too large for one frame.
    Stage(Box<Stage>),
    /// A message to a profile.
    Send(Box<Sending>),
    /// The game server ends, and has ended its sessions.
    Bye {},
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Hello {
    /// A secret of this run of the SDK, at least 128 random bits as text. It names the requests.
    pub(crate) instance: String,
    /// The game server's name, for people: 1 to 100 bytes.
    pub(crate) job: String,
    /// Which game or part of it.
    #[serde(default)]
    pub(crate) place: i64,
    /// After how long without a renewal others may call it dead.
    #[serde(default)]
    pub(crate) lease_ms: Option<u64>,
    /// The SDK and its version, for the log and for `/v1/servers`: 100 characters of it are kept.
    #[serde(default)]
    pub(crate) sdk: Option<String>,
    /// What it was before.
    #[serde(default)]
    pub(crate) resume: Option<ResumeOf>,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct ResumeOf {
    /// As `welcome` named it.
    pub(crate) incarnation: Uuid,
    /// As the last `welcome` gave it.
    pub(crate) token: String,
    /// As `welcome` named it.
    pub(crate) store: Uuid,
    /// Its sessions.
    #[serde(flatten)]
    pub(crate) named: Named,
}

#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Named {
    /// Each as `[s, store, scope, key, epoch]`.
    #[serde(default)]
    pub(crate) sessions: Vec<(u64, String, String, String, u64)>,
    /// More come in a frame `sessions`.
    #[serde(default)]
    pub(crate) more: bool,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Start {
    /// The request.
    pub(crate) i: u64,
    /// The session, a number of the client's choice that it uses once.
    pub(crate) s: u64,
    pub(crate) store: String,
    #[serde(default)]
    pub(crate) scope: Option<String>,
    pub(crate) key: String,
    /// The data of a profile that begins. Without it a profile that is not there is an error.
    #[serde(default)]
    #[schemars(with = "Option<Value>")]
    pub(crate) template: Option<Box<RawValue>>,
    /// When another game server holds the profile: `ask`, `wait`, `give_up` or `steal`.
    #[serde(default)]
    pub(crate) when_held: Held,
    #[serde(default)]
    pub(crate) timeout_ms: Option<u64>,
    /// The data version that the program knows.
    #[serde(default)]
    pub(crate) data_version: Option<u32>,
    /// The oldest data version whose programs may open what this one saves. The same by default.
    #[serde(default)]
    pub(crate) readable_from: Option<u32>,
    /// Begin anew where something else than a profile is stored.
    #[serde(default)]
    pub(crate) overwrite: bool,
}

impl Start {
    pub(crate) fn how(self) -> HostedStart {
        HostedStart {
            template: self.template,
            when_held: match self.when_held {
                Held::Ask => WhenHeld::Ask,
                Held::Wait => WhenHeld::Wait,
                Held::GiveUp => WhenHeld::GiveUp,
                Held::Steal => WhenHeld::Steal,
            },
            timeout: self.timeout_ms.map(Duration::from_millis),
            overwrite: self.overwrite,
            data_version: self.data_version.map(|version| DataVersion {
                version,
                readable_from: self.readable_from.unwrap_or(version),
            }),
        }
    }
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Held {
    #[default]
    Ask,
    Wait,
    GiveUp,
    Steal,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Tx {
    pub(crate) i: u64,
    pub(crate) parts: Vec<TxPart>,
    #[serde(default)]
    pub(crate) gifts: Vec<GiftTo>,
    #[serde(default)]
    pub(crate) deadline_ms: Option<u64>,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Stage {
    pub(crate) s: u64,
    pub(crate) n: u64,
    #[schemars(with = "Value")]
    pub(crate) data: Box<RawValue>,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct GiftTo {
    pub(crate) store: String,
    #[serde(default)]
    pub(crate) scope: Option<String>,
    pub(crate) key: String,
    /// TIME:NAME, the time in Unix milliseconds. A message is sent once under it.
    pub(crate) id: String,
    #[schemars(with = "Value")]
    pub(crate) message: Box<RawValue>,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Sending {
    pub(crate) i: u64,
    pub(crate) gift: GiftTo,
}

/// What the server says.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ServerFrame {
    /// The answer to `hello`.
    Welcome {
        /// The game server's identity: another one after it was declared dead.
        incarnation: Uuid,
        /// Proves at a resume that it is the same game server. To be kept secret. Another one comes
        /// with another incarnation.
        token: String,
        /// The identity of what the store holds.
        store: Uuid,
        lease_ms: u64,
        /// How many starts and messages may be unanswered.
        window: usize,
        max_frame: usize,
        /// What the resume has come to.
        resumed: Option<ResumedAs>,
    },
    /// A session of a resume goes on.
    Resumed {
        s: u64,
        version: u64,
    },
    /// A session of a resume is over.
    Lost {
        s: u64,
        by: Option<ByServer>,
    },
    /// The answer to `ping`.
    Pong {
        n: u64,
        incarnation: Uuid,
        /// How long ago the renewal was sent that the store confirmed last, in milliseconds.
        age: u64,
    },
    /// The answer to `ping` after a pause of this process, until it has renewed: a sign of life.
    Heard {
        n: u64,
    },
    Started {
        i: u64,
        s: u64,
        epoch: u64,
        version: u64,
        #[schemars(with = "Value")]
        data: Box<RawValue>,
        meta: Meta,
    },
    Saved {
        i: u64,
        s: u64,
        n: u64,
        /// The version that it made. Null: it had been done before, and that is not known any more.
        version: Option<u64>,
    },
    Ended {
        i: u64,
    },
    /// A transaction took effect. The versions of its parts, if they are known.
    Done {
        i: u64,
        versions: Vec<u64>,
    },
    /// A message is stored.
    Sent {
        i: u64,
        stored_now: bool,
    },
    /// A request failed. `problem` is what HTTP answers: kind, detail, advice …
    Error {
        /// The request, if it is about one.
        #[serde(skip_serializing_if = "Option::is_none")]
        i: Option<u64>,
        #[schemars(with = "BTreeMap<String, Value>")]
        problem: Value,
    },
    /// Not now; for starts and messages only.
    Overloaded {
        i: u64,
        retry_after_ms: u64,
    },
    /// Let the profile go: save last and `end`, within so many milliseconds.
    Release {
        s: u64,
        by: Asker,
        deadline_ms: u64,
    },
    /// The session is over. What came behind save `n` is lost.
    Closed {
        s: u64,
        n: Option<u64>,
        why: &'static str,
        by: Option<ByServer>,
    },
    /// A message: its effect and its index belong into the next save.
    Message {
        s: u64,
        index: u64,
        id: String,
        sent_ms: i64,
        #[schemars(with = "Value")]
        body: Box<RawValue>,
    },
    /// An operator's edit: to be applied alone, and saved with `edits_done`.
    Edit {
        s: u64,
        op: Uuid,
        #[schemars(with = "Value")]
        changes: Value,
        by: String,
        reason: String,
    },
    /// This process stops: resume at another one.
    Goaway {
        after_ms: u64,
    },
    /// Nothing is done here any more for this game server: resume.
    Stopped {
        /// `hosted`, `dead`, `replaced`, `quiet` or `left`.
        why: &'static str,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ResumedAs {
    /// The same incarnation goes on.
    Same,
    /// It had been declared dead: a new incarnation.
    Anew,
    /// The store holds other contents: all sessions are lost.
    Replaced,
}

#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct ByServer {
    pub(crate) job: String,
    pub(crate) place: i64,
}

#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Asker {
    Server(ByServer),
    Operator { name: String, reason: String },
}

/// A user, in the description.
#[derive(JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "it describes")]
enum User {
    Number(u64),
    Name(String),
}

#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct Meta {
    #[schemars(with = "Vec<User>")]
    pub(crate) user_ids: Vec<UserId>,
    #[schemars(with = "BTreeMap<String, Value>")]
    pub(crate) tags: Map<String, Value>,
    #[schemars(with = "BTreeMap<String, Value>")]
    pub(crate) metadata: Map<String, Value>,
    pub(crate) load_count: u64,
    /// When the profile was created, Unix seconds.
    #[schemars(with = "f64")]
    pub(crate) created_s: serde_json::Number,
}

/// The JSON Schemas of both sides' frames.
pub(crate) fn schemas() -> String {
    let all = serde_json::json!({
        "client": schemars::schema_for!(ClientFrame),
        "server": schemars::schema_for!(ServerFrame),
    });
    let mut text = serde_json::to_string_pretty(&all).unwrap_or_default();
    text.push('\n');
    text
}

/// Names the requests of one run of an SDK. Its secret is not kept.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Instance([u8; 32]);

impl Instance {
    pub(crate) fn new(secret: &str) -> Self {
        Self(Sha256::digest(secret.as_bytes()).into())
    }

    /// The identity of a request, and a fingerprint of its kind and of all that it asks for. A
    /// retry has both of the first one's, through whichever server process it comes.
    pub(crate) fn request(&self, i: u64, kind: &str, frame: &impl Serialize) -> Request {
        let id = Sha256::new().chain_update(self.0).chain_update(i.to_be_bytes()).finalize();
        let content = serde_json::to_vec(frame).unwrap_or_default();
        // A save and an end have the same members.
        let content = Sha256::new().chain_update(kind).chain_update([0_u8]).chain_update(content);
        let content = content.finalize();
        let (mut first, mut print) = ([0; 16], [0; 8]);
        first.copy_from_slice(&id[..16]);
        print.copy_from_slice(&content[..8]);
        let fingerprint = u64::from_be_bytes(print);
        Request { id: CommitId(Uuid::from_bytes(first)), fingerprint }
    }
}
