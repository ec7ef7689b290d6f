//! Sessions for game servers in any language, over a WebSocket: `/v1/connect`, protocol
//! `profilestore.v1+json`. `docs/protocol.md` has it in plain English.
//!
//! The game server holds its sessions, and this process only hosts their engine: it renews the
//! lease, makes the commits, and passes on what is to be told. It keeps no play that the store does
//! not have. So it may die or be deployed anew at any moment, and no session ends.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Extension,
    extract::{
        State,
        ws::{WebSocketUpgrade, rejection::WebSocketUpgradeRejection},
    },
    response::Response,
};
use parking_lot::Mutex;
use profilestore::{data_store::ServerId, hosting::Host};
use tokio::time::Instant;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    app::{App, RequestId},
    auth::Caller,
    keys::Scope,
    listen::Place,
    problem::{Problem, ProblemBody},
};
use frames::{Instance, MAX_FRAME, PROTOCOL, ServerFrame};
use guest::{GOAWAY_TIME, Guest};

mod connection;
pub(crate) mod frames;
mod guest;
mod inbox;
mod outbox;
mod requests;
mod telling;

/// How much larger than allowed a frame may be to be refused by name. A larger one ends the
/// connection.
const BEYOND: usize = 3 << 20;

/// How many bytes wait for a client that does not read: one frame, and answers to its pings (those
/// of WebSocket itself, which are never refused).
const MOST_UNREAD: usize = 16 << 20;

/// How often game servers that are hosted here no more are forgotten.
const FORGET: Duration = Duration::from_secs(1);

/// How many runs of one game server are remembered that made way to a later one.
const MOST_RUNS: usize = 100;

/// The game servers that this process hosts.
pub(crate) struct Hub {
    host: Option<Host>,
    /// This process stops: nothing new is hosted.
    leaves: AtomicBool,
    guests: Mutex<HashMap<ServerId, Known>>,
}

/// A game server of this process.
struct Known {
    /// The run of its SDK that goes on.
    guest: Arc<Guest>,
    /// The runs that made way to it, in order.
    made_way: VecDeque<Instance>,
}

impl Known {
    /// What stopped before this process took the game server over again is of an earlier hosting.
    fn is_hosted(&self) -> bool {
        self.guest.server.stopped().is_none()
    }

    /// Fails for a run that made way. It would end the connection of the one that goes on, which
    /// would come again and end this one's, in turn for ever.
    fn check(&self, run: Instance) -> Result<(), Problem> {
        if !self.made_way.contains(&run) {
            return Ok(());
        }
        let detail = "another run of the game server has resumed it, and goes on";
        Err(Problem::new("run-replaced", detail))
    }
}

impl Hub {
    /// Must be called within a Tokio runtime.
    pub(crate) fn new(host: Option<Host>) -> Arc<Self> {
        let hub = Arc::new(Self { host, leaves: AtomicBool::new(false), guests: Mutex::default() });
        tokio::spawn(forget(Arc::downgrade(&hub)));
        hub
    }

    /// This process is about to stop.
    pub(crate) fn leaves(&self) -> bool {
        self.leaves.load(Ordering::Relaxed)
    }

    fn host(&self) -> Result<&Host, Problem> {
        if self.leaves() {
            return Err(Problem::new("closing", "this process is stopping"));
        }
        self.host.as_ref().ok_or_else(|| Problem::new("unavailable", "sessions are not served"))
    }

    /// Enters a guest. When another greeting of the same game server was faster, a connection may
    /// have that one's guest already: then it is the one. A guest of another run of the SDK makes
    /// way. Fails for a run that made way before.
    async fn enter(&self, guest: Guest) -> Result<Arc<Guest>, Problem> {
        let (guest, before) = self.put(guest)?;
        if let Some(before) = before {
            before.make_way().await;
        }
        Ok(guest)
    }

    /// The guest that is the one, and the one before whose place it took.
    fn put(&self, guest: Guest) -> Result<(Arc<Guest>, Option<Arc<Guest>>), Problem> {
        let incarnation = guest.server.incarnation();
        let mut guests = self.guests.lock();
        let mut made_way = VecDeque::new();
        if let Some(known) = guests.get(&incarnation).filter(|known| known.is_hosted()) {
            if known.guest.instance == guest.instance {
                return Ok((known.guest.clone(), None));
            }
            known.check(guest.instance)?;
            made_way.clone_from(&known.made_way);
            made_way.push_back(known.guest.instance);
            if made_way.len() > MOST_RUNS {
                made_way.pop_front();
            }
        }
        let guest = Arc::new(guest);
        let before = guests.insert(incarnation, Known { guest: guest.clone(), made_way });
        Ok((guest, before.map(|before| before.guest)))
    }

    /// Fails for a run that made way to another one, which goes on here.
    fn check_run(&self, incarnation: ServerId, run: Instance) -> Result<(), Problem> {
        let guests = self.guests.lock();
        let known = guests.get(&incarnation).filter(|known| known.is_hosted());
        known.map_or(Ok(()), |known| known.check(run))
    }

    /// One that is hosted here.
    pub(crate) fn guest(&self, incarnation: ServerId) -> Option<Arc<Guest>> {
        let guests = self.guests.lock();
        let known = guests.get(&incarnation).filter(|known| known.is_hosted());
        known.map(|known| known.guest.clone())
    }

    /// How many game servers are connected to this process.
    pub(crate) fn connected(&self) -> u64 {
        let guests = self.guests.lock();
        let is_here = |known: &&Known| known.is_hosted() && known.guest.is_connected();
        guests.values().filter(is_here).count() as u64
    }

    fn all(&self) -> Vec<Arc<Guest>> {
        self.guests.lock().values().map(|known| known.guest.clone()).collect()
    }

    /// Sends every game server away and waits until others host them, for some seconds at most. It
    /// releases nothing: a game server that lives keeps its sessions.
    pub(crate) async fn send_away(&self) {
        self.leaves.store(true, Ordering::Relaxed);
        for guest in self.all() {
            guest.tell(&ServerFrame::Goaway { after_ms: 0 });
        }
        let until = Instant::now() + GOAWAY_TIME;
        while Instant::now() < until
            && self
                .all()
                .iter()
                .any(|guest| guest.server.stopped().is_none() && guest.is_connected())
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for guest in self.all() {
            guest.server.leave();
            guest.close(1001, "this process stops");
        }
    }
}

async fn forget(hub: Weak<Hub>) {
    loop {
        tokio::time::sleep(FORGET).await;
        let Some(hub) = hub.upgrade() else { return };
        hub.guests.lock().retain(|_, known| {
            let is_hosted = known.is_hosted();
            if !is_hosted {
                known.guest.give_up();
            }
            is_hosted
        });
    }
}

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(connect))
}

/// Connect a game server
///
/// A WebSocket of the protocol `profilestore.v1+json`, which a page of the documentation describes.
#[utoipa::path(
    get,
    path = "/v1/connect",
    operation_id = "connect",
    tag = "sessions",
    responses(
        (status = 101, description = "Frames follow"),
        (status = "default", body = ProblemBody<'_>, content_type = "application/problem+json"),
    )
)]
async fn connect(
    State(app): State<App>,
    caller: Caller,
    id: Option<Extension<RequestId>>,
    place: Option<Extension<Place>>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    caller.has(Scope::SessionsHold)?;
    let hub = app.hub().clone();
    hub.host()?;
    let upgrade = upgrade.map_err(|error| Problem::new("upgrade-required", error.body_text()))?;
    let upgrade = upgrade
        .protocols([PROTOCOL])
        .max_message_size(MAX_FRAME + BEYOND)
        .max_frame_size(MAX_FRAME + BEYOND)
        .max_write_buffer_size(MOST_UNREAD);
    if upgrade.selected_protocol().is_none() {
        let detail = format!("the header `Sec-WebSocket-Protocol` names `{PROTOCOL}`");
        return Err(Problem::new("upgrade-required", detail));
    }
    let id = id.map_or_else(|| "".into(), |Extension(RequestId(id))| id);
    Ok(upgrade.on_upgrade(async move |socket| {
        connection::serve(app, hub, caller, socket, id).await;
        drop(place);
    }))
}
