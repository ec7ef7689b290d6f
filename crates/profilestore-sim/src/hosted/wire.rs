//! What goes between a game server and its host: the requests, and what becomes of each.

use std::{collections::BTreeMap, time::Duration};

use profilestore::{
    ErrorKind, MessageId, ProfileKey, Result, Sent,
    data_store::{CommitId, Digest},
    hosting::{
        Document, Gift, HostedServer, HostedSession, HostedStart, Part, Request, Save, Started,
    },
};
use serde_json::value::{RawValue, to_raw_value};
use uuid::Uuid;

use crate::data::{Label, Letter, Player};

/// One request of a game server. It never changes once it was sent.
#[derive(Debug, Clone)]
pub(super) enum Ask {
    Start {
        key: String,
    },
    Save {
        key: String,
        epoch: u64,
        n: u64,
        document: Player,
        processed: Vec<u64>,
    },
    End {
        key: String,
        epoch: u64,
        n: u64,
        document: Option<Player>,
    },
    /// Each with its session's epoch and the number of the save.
    Trade {
        parts: Vec<(String, u64, u64, Player)>,
    },
    Send {
        to: String,
        letter: Letter,
        id: MessageId,
    },
}

impl Ask {
    /// The profiles whose sessions it is about.
    pub(super) fn keys(&self) -> Vec<&str> {
        match self {
            Self::Start { key } | Self::Save { key, .. } | Self::End { key, .. } => vec![key],
            Self::Trade { parts } => parts.iter().map(|(key, ..)| &**key).collect(),
            Self::Send { .. } => Vec::new(),
        }
    }

    /// The documents that it stores: the profile, the session, and the number of the save.
    pub(super) fn numbered(&self) -> Vec<(&str, Label, u64)> {
        match self {
            Self::Save { key, n, document, .. }
            | Self::End { key, n, document: Some(document), .. } => {
                vec![(key, document.writer, *n)]
            }
            Self::Trade { parts } => {
                parts.iter().map(|(key, _, n, data)| (&**key, data.writer, *n)).collect()
            }
            _ => Vec::new(),
        }
    }

    /// The identity of a request: that of the run of the game server and its number.
    fn request(&self, run: &str, i: u64) -> Request {
        let cut = |digest: Digest| u128::from_be_bytes(digest.0[..16].try_into().expect("16"));
        let id = cut(Digest::of(format!("{run} {i}").as_bytes()));
        let fingerprint = cut(Digest::of(format!("{self:?}").as_bytes())) as u64;
        Request { id: CommitId(Uuid::from_u128(id)), fingerprint }
    }

    /// Asks for it at a host, as its server does for a frame that comes.
    pub(super) async fn ask(self, server: &HostedServer, run: &str, i: u64) -> Result<Answer> {
        let request = self.request(run, i);
        match self {
            Self::Start { key } => {
                let template = Some(raw(&Player::default()));
                let timeout = Some(Duration::from_secs(20));
                let start = HostedStart { template, timeout, ..HostedStart::default() };
                let started = server.start(request, &profile_key(&key), start).await?;
                Ok(Answer::Started(Box::new(started)))
            }
            Self::Save { key, epoch, document, processed, .. } => {
                let Some(session) = session_of(server, &key, epoch) else {
                    return outcome(server, request).await;
                };
                match session.save(request, saved(&document, processed)).await {
                    Err(error) if error.kind() == ErrorKind::SessionEnded => {
                        outcome(server, request).await
                    }
                    done => done.map(|_| Answer::Done),
                }
            }
            Self::End { key, epoch, document, .. } => {
                let Some(session) = session_of(server, &key, epoch) else {
                    return outcome(server, request).await;
                };
                let last = document.map(|document| saved(&document, Vec::new()));
                match session.end(request, last).await {
                    Err(error) if error.kind() == ErrorKind::SessionEnded => {
                        outcome(server, request).await
                    }
                    done => done.map(|()| Answer::Done),
                }
            }
            Self::Trade { parts } => {
                let parts = parts.into_iter().map(|(key, epoch, _, document)| {
                    let session = session_of(server, &key, epoch)?;
                    Some(Part { session, save: saved(&document, Vec::new()) })
                });
                let Some(parts) = parts.collect() else { return outcome(server, request).await };
                server.transact(request, parts, Vec::new(), None).await.map(|_| Answer::Done)
            }
            Self::Send { to, letter, id } => {
                let gift = Gift { to: profile_key(&to), id, body: raw(&letter) };
                server.send(gift).await.map(|_: Sent| Answer::Done)
            }
        }
    }
}

/// What a request was answered with, when it did not fail.
pub(super) enum Answer {
    Started(Box<Started>),
    Done,
    /// Its session is over, and it took no effect.
    NotDone,
}

/// The session that a frame names. A later one of the same profile has another number.
fn session_of(server: &HostedServer, key: &str, epoch: u64) -> Option<HostedSession> {
    server.session(&profile_key(key)).filter(|session| session.epoch() == epoch)
}

async fn outcome(server: &HostedServer, request: Request) -> Result<Answer> {
    let done = server.outcome(request).await?;
    Ok(if done { Answer::Done } else { Answer::NotDone })
}

pub(super) fn profile_key(name: &str) -> ProfileKey {
    ProfileKey::new("PlayerData", "global", name).expect("the name is short")
}

fn raw<T: serde::Serialize>(value: &T) -> Box<RawValue> {
    to_raw_value(value).expect("it is JSON")
}

fn saved(document: &Player, processed: Vec<u64>) -> Save {
    let mut save = Save::new(raw(document));
    save.processed = processed;
    save
}

/// The player in a document.
pub(super) fn player(document: &Document) -> Player {
    serde_json::from_str(document.data.get()).unwrap_or_default()
}

/// Requests by their number.
pub(super) type Asked = BTreeMap<u64, Ask>;
