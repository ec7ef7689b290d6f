//! Starts: each is answered when its session is open, when it is refused, or when it is called off
//! and nothing of it is left.

use std::{sync::Arc, time::Duration};

use profilestore::{
    Advice, Error, ErrorKind, ProfileKey, WhenHeld,
    data_store::{CommitId, DataStoreExt as _, Returning},
    hosting::{Document, HostedSession, HostedStart, Request, Started},
    record::Stored,
};
use serde_json::value::RawValue;
use tokio::sync::Notify;
use uuid::Uuid;

use super::{Desk, WindowRoom, revoked};
use crate::{
    keys::Scope,
    problem::Problem,
    ws::{
        frames::{Meta, ServerFrame, Start},
        guest::{Guest, LettingGo},
    },
};

/// How soon it is tried again to let a profile go whose start was called off.
const LET_GO_AGAIN: Duration = Duration::from_millis(500);

/// How long finding such a session again may take at once.
const FIND_TIME: Duration = Duration::from_secs(10);

impl Desk {
    pub(super) fn start(&self, start: Start) {
        let i = start.i;
        let Some(request) = self.begin_in_window(i, "start", &start) else { return };
        let key =
            self.profile(&start.store, start.scope.as_deref(), &start.key, Scope::SessionsHold);
        let key = key.and_then(|key| self.guest.starting(start.s, &key).map(|()| key));
        let key = match key {
            Ok(key) => key,
            Err(problem) => {
                self.guest.give_window_back();
                return self.guest.refuse(i, &problem);
            }
        };
        let is_open = self.guest.started_before(start.s, request.id).is_some();
        if is_open {
            // The session is there. Its end calls it off, and nothing else.
            self.guest.keep_start(i);
        }
        let number = Number { guest: self.guest.clone(), s: start.s, is_open };
        let off = Arc::new(Notify::new());
        let (desk, room, called_off) = (self.clone(), WindowRoom(self.guest.clone()), off.clone());
        let task = tokio::spawn(async move {
            let _room = room;
            desk.started(start, &key, request, number, &called_off).await;
        });
        self.guest.note_start(i, task.abort_handle(), off);
    }

    /// The key is valid no more: nothing is opened with it. What was taken before is answered, also
    /// when it is sent again: the session that it opened may be saved and ended.
    pub(super) fn start_revoked(&self, start: Start) {
        let request = self.guest.instance.request(start.i, "start", &start);
        if self.guest.started_before(start.s, request.id).is_some() {
            return self.start(start);
        }
        if self.begin(start.i, "start", &start).is_some() {
            self.guest.refuse(start.i, &revoked());
        }
    }

    async fn started(
        &self,
        start: Start,
        key: &ProfileKey,
        request: Request,
        mut number: Number,
        off: &Notify,
    ) {
        let (i, s) = (start.i, start.s);
        if let Some(session) = self.guest.started_before(s, request.id) {
            // Its answer did not arrive.
            return match self.document(&session, start.template).await {
                Ok(document) => self.tell_started(i, s, document),
                // It is asked for again. Otherwise no game server would know of the session.
                Err(why) => self.guest.refuse(i, &Problem::new("unknown", why.to_string())),
            };
        }
        number.is_open = false;
        let how = start.how();
        let begun = tokio::select! {
            biased;
            () = off.notified() => None,
            begun = self.start_while_heard(request, key, &how) => Some(begun),
        };
        match begun {
            Some(Ok(Started { session, document, .. })) if self.guest.keep_start(i) => {
                number.is_open = true;
                let is_another = self.guest.opened(s, session, Some(request.id));
                self.tell_started(i, s, document);
                if is_another {
                    // Something may have been told under the number of a start that gave way.
                    self.guest.server.tell_again();
                }
                return;
            }
            // It was called off when it had just begun. No game server knows the session.
            Some(Ok(Started { session, .. })) => {
                drop(number);
                if let Err(error) = self.end_unseen(&session).await {
                    tracing::warn!(%error, "the session of a start that was called off goes on");
                }
            }
            Some(Err(error)) => {
                drop(number);
                return self.guest.refuse(i, &error.into());
            }
            None => {
                drop(number);
                if self.guest.is_taken_over {
                    self.let_go(key, request, &how).await;
                }
            }
        }
        self.guest.refuse(i, &Problem::new("cancelled", "the start was called off"));
    }

    /// A start that no game server waits for neither asks nor takes: it is called off, and begins
    /// again with the next word of its game server. It ends with the hosting.
    async fn start_while_heard(
        &self,
        request: Request,
        key: &ProfileKey,
        how: &HostedStart,
    ) -> Result<Started, Error> {
        let Guest { server, .. } = &*self.guest;
        loop {
            self.guest.until_let_go(key).await;
            if server.stopped().is_none() {
                self.guest.until_heard(true).await;
            }
            tokio::select! {
                biased;
                started = server.start(request, key, how.clone()) => return started,
                () = self.guest.until_heard(false), if server.stopped().is_none() => {}
            }
        }
    }

    fn tell_started(&self, i: u64, s: u64, document: Document) {
        let Document { epoch, version, data, meta, .. } = document;
        let meta = Meta {
            user_ids: meta.users,
            tags: meta.tags,
            metadata: meta.metadata,
            load_count: meta.load_count,
            created_s: meta.created_s,
        };
        self.guest.answer(i, &ServerFrame::Started { i, s, epoch, version, data, meta });
        self.guest.tell_early(s);
    }

    /// The document of a session that has saved nothing yet.
    async fn document(
        &self,
        session: &HostedSession,
        template: Option<Box<RawValue>>,
    ) -> Result<Document, Problem> {
        let (_, state) = self.app.store().read_one(session.key(), Returning::ALL).await?;
        let stored = state.value.as_deref().map(Stored::decode).transpose();
        let (data, meta) = match stored.map_err(Error::from)? {
            Some(Stored::Profile(record)) => {
                let meta = profilestore::hosting::Meta {
                    users: record.users(),
                    tags: record.meta_tags,
                    metadata: record.roblox_metadata,
                    load_count: state.lease.load_count,
                    created_s: record.created_s,
                };
                (record.data, meta)
            }
            _ => {
                let data = template.unwrap_or_else(|| RawValue::NULL.to_owned());
                let meta = profilestore::hosting::Meta {
                    users: Vec::new(),
                    tags: serde_json::Map::new(),
                    metadata: serde_json::Map::new(),
                    load_count: state.lease.load_count,
                    created_s: self.app.env().unix_ms().div_euclid(1000).into(),
                };
                (data, meta)
            }
        };
        Ok(Document { epoch: session.epoch(), version: session.version(), data, meta })
    }
}

/// What a start leaves behind that is called off.
impl Desk {
    /// Lets a profile go that an earlier host of the game server took for a start, if it did: its
    /// answer was lost with that host, and nobody waits for the session. Until that is known to be
    /// over the start is not answered. So the game server calls it off again at the next host, if
    /// this one ends too.
    ///
    /// Only the session of this very start is let go, and only while the game server has no other
    /// session of the profile and none is about to begin.
    async fn let_go(&self, key: &ProfileKey, request: Request, how: &HostedStart) {
        while self.guest.server.stopped().is_none() {
            match self.guest.begin_letting_go(key) {
                LettingGo::Kept => return,
                LettingGo::NotNow => {}
                LettingGo::Turn(_turn) => match self.let_go_now(key, request, how).await {
                    Ok(()) => return,
                    Err(error) if is_for_good(&error) => {
                        tracing::warn!(%error, "a profile whose start was called off stays held");
                        return;
                    }
                    Err(error) => tracing::debug!(%error, "a profile is to be let go later"),
                },
            }
            tokio::time::sleep(LET_GO_AGAIN).await;
        }
    }

    async fn let_go_now(
        &self,
        key: &ProfileKey,
        request: Request,
        how: &HostedStart,
    ) -> Result<(), Error> {
        let (_, state) = self.app.store().read_one(key, Returning::HEAD).await?;
        let own = (Some(self.guest.server.incarnation()), session_of(request));
        let holder = state.lease.holder.map(|holder| (holder.server, holder.session));
        if holder != Some(own) {
            return Ok(());
        }
        // Of the same start, so it goes on with the session that is there, and writes nothing.
        let again = HostedStart {
            when_held: WhenHeld::GiveUp,
            timeout: Some(FIND_TIME),
            data_version: how.data_version,
            ..HostedStart::default()
        };
        let Started { session, .. } = self.guest.server.start(request, key, again).await?;
        self.end_unseen(&session).await
    }

    /// Ends a session that no game server knows, as it is stored.
    async fn end_unseen(&self, session: &HostedSession) -> Result<(), Error> {
        // Each time another request: an earlier one of the same identity may have ended an earlier
        // session of the same start.
        let request = Request { id: CommitId(self.app.env().uuid()), fingerprint: 0 };
        match session.end(request, None).await {
            Err(error) if error.kind() == ErrorKind::SessionEnded => Ok(()),
            ended => ended,
        }
    }
}

/// Whether trying again helps nothing. That a session of the profile is there means that its end is
/// under way.
fn is_for_good(error: &Error) -> bool {
    error.advice() == Advice::Fix && error.kind() != ErrorKind::AlreadyLoaded
}

/// The name that the library gives to the session of a start: its request's identity, as a UUID of
/// version 7.
fn session_of(request: Request) -> String {
    let mut bytes = request.id.0.into_bytes();
    bytes[6] = (bytes[6] & 0x0f) | 0x70;
    Uuid::from_bytes(bytes).to_string()
}

/// The number of a session that is being started: free again when nothing comes of it.
struct Number {
    guest: Arc<Guest>,
    s: u64,
    is_open: bool,
}

impl Drop for Number {
    fn drop(&mut self) {
        if !self.is_open {
            self.guest.over(self.s);
        }
    }
}
