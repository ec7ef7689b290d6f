//! One connection of a game server: the greeting, then frames in both directions until one side
//! ends it.
//!
//! The socket is always read. Pings are answered by the task that also hands out what is to be
//! told, so that a game server hears of a lost session before it hears that it may go on. Other
//! frames wait in order until all sessions of a resume are found again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::extract::ws::{Message, WebSocket};
use futures_util::{
    SinkExt as _, StreamExt as _,
    stream::{self, SplitSink, SplitStream},
};
use profilestore::{
    ErrorKind, ProfileKey,
    data_store::{Incarnation, ServerId},
    hosting::{Adopted, Registration, Resume, Resumed},
};
use tokio::{
    sync::mpsc,
    task::{JoinHandle, JoinSet},
    time::timeout,
};

use super::{
    Hub,
    frames::{ClientFrame, Hello, Instance, MAX_FRAME, ResumedAs, ServerFrame, WINDOW},
    guest::{Guest, new_token},
    inbox::{Inbox, Waiting, inbox},
    outbox::Outbox,
    requests::Desk,
    telling::{by_server, millis, tell},
};
use crate::{app::App, auth::Caller, keys::Scope, problem::Problem};
use reading::{number_of, parse};

mod reading;
#[cfg(test)]
mod tests;

/// How long a client may take for its greeting, with the answer of the store to it.
const HELLO_TIME: Duration = Duration::from_secs(10);

/// How long a client may be silent, and how long one frame may take to be sent.
const SILENCE: Duration = Duration::from_secs(30);

/// How long a client may be silent until its starts wait for its next word: two of the periods in
/// which it pings.
const QUIET: Duration = Duration::from_secs(4);

/// How long the work may take that a client asked for just before its connection ended.
const LAST_WORK_TIME: Duration = Duration::from_secs(10);

/// How long a client may take to answer a closing frame.
const CLOSE_TIME: Duration = Duration::from_secs(1);

/// How often the key is looked at again.
const KEY_PERIOD: Duration = Duration::from_secs(2);

/// How many sessions are adopted at once.
const ADOPTED_AT_ONCE: usize = 64;

/// How soon an adoption is tried again that the store did not answer.
const ADOPT_AGAIN: Duration = Duration::from_millis(500);

/// How many bytes the frames of one greeting have at most: the names of some 200,000 sessions.
const MOST_GREETING: usize = 32 << 20;

/// How much is logged of the names that a client gives itself, in characters.
const MOST_LOGGED: usize = 100;

/// The shortest secret of an SDK's run, in bytes.
const MIN_INSTANCE: usize = 16;

type Incoming = SplitStream<WebSocket>;

/// Serves one connection to its end. `instance`: the request that opened it.
pub(crate) async fn serve(
    app: App,
    hub: Arc<Hub>,
    caller: Caller,
    socket: WebSocket,
    instance: Arc<str>,
) {
    let (sink, mut incoming) = socket.split();
    let (outbox, sent) = Outbox::new(instance.clone());
    let mut writer = tokio::spawn(write(sink, sent, outbox.queued.clone()));
    let mut has_come = false;
    let greeting = greet(&hub, &caller, &mut incoming, &mut has_come);
    let greeted = timeout(HELLO_TIME, greeting).await;
    let greeted = greeted.unwrap_or_else(|_| Err(too_late(has_come)));
    let (guest, resumed, named) = match greeted {
        Ok(greeted) => greeted,
        Err(problem) => {
            outbox.complain(None, &problem);
            outbox.close(1008, "the greeting was refused");
            let _ = timeout(HELLO_TIME, &mut writer).await;
            writer.abort();
            return;
        }
    };
    let desk = Desk { app, caller, guest: guest.clone() };
    let connection = guest.attach(outbox.clone(), &welcome(&guest, resumed));
    // Of this connection's key from now on, whichever key the game server had before.
    let author = desk.caller.author_for(guest.server.job());
    if guest.is_current(connection)
        && let Err(error) = guest.server.write_as(&author)
    {
        tracing::error!(%error, "the history shows the game server's name as author");
    }
    let named: Vec<_> = named.into_iter().filter_map(|named| desk.expected(named)).collect();
    guest.keep_named(|s| named.iter().any(|past| past.s == s));
    converse(desk, connection, named, outbox, &mut incoming, &mut writer).await;
    // What was sent before goes out, a closing frame included, and the client may close too.
    if !writer.is_finished() {
        let _ = timeout(HELLO_TIME, &mut writer).await;
        // A client that reads slowly gets no more, and nothing waits for it any more.
        writer.abort();
    }
    let closed = async { while let Some(Ok(_)) = incoming.next().await {} };
    let _ = timeout(CLOSE_TIME, closed).await;
}

/// Sends what the outbox holds, in order, up to a closing frame. Ends when the client reads no
/// more.
async fn write(
    mut sink: SplitSink<WebSocket, Message>,
    mut sent: mpsc::UnboundedReceiver<Message>,
    queued: Arc<AtomicUsize>,
) {
    while let Some(message) = sent.recv().await {
        let bytes = match &message {
            Message::Text(text) => text.len(),
            _ => 0,
        };
        let last = matches!(message, Message::Close(_));
        match timeout(SILENCE, sink.send(message)).await {
            Ok(Ok(())) if !last => queued.fetch_sub(bytes, Ordering::Relaxed),
            _ => break,
        };
    }
}

fn welcome(guest: &Guest, resumed: Option<ResumedAs>) -> ServerFrame {
    ServerFrame::Welcome {
        incarnation: guest.incarnation(),
        token: guest.token.clone(),
        store: guest.server.store().0,
        lease_ms: millis(guest.server.lease_time()),
        window: WINDOW,
        max_frame: MAX_FRAME,
        resumed,
    }
}

/// Takes frames and tells what there is to tell, until one side ends it. Then the guest has no
/// connection, and what it asked for before it left has been done, as far as there was time.
async fn converse(
    desk: Desk,
    connection: u64,
    named: Vec<Past>,
    outbox: Outbox,
    incoming: &mut Incoming,
    writer: &mut JoinHandle<()>,
) {
    let over = outbox.over.clone();
    let revoked = Arc::new(AtomicBool::new(false));
    let is_resumed = Arc::new(AtomicBool::new(named.is_empty()));
    let (ping, pings) = mpsc::unbounded_channel();
    let (inbox, frames) = inbox();
    let mut tasks = JoinSet::new();
    tasks.spawn(tell(desk.guest.clone(), pings, outbox));
    let mut worker = JoinSet::new();
    let done = is_resumed.clone();
    worker.spawn(work(desk.clone(), connection, named, frames, revoked.clone(), done));
    tasks.spawn(watch_key(desk.clone(), revoked));
    let is_left = tokio::select! {
        biased;
        () = over.notified() => false,
        () = listen(&desk, connection, incoming, &ping, &inbox) => true,
        _ = tasks.join_next() => false,
        _ = worker.join_next() => false,
        // The closing frame is out, or the client reads no more.
        _ = writer => false,
    };
    tasks.abort_all();
    desk.guest.detach(connection);
    drop((desk, ping, inbox));
    if is_left && is_resumed.load(Ordering::Acquire) {
        // What came before the end counts, a goodbye above all: no client sends it again. A resume
        // that is under way is the next connection's.
        let _ = timeout(LAST_WORK_TIME, worker.join_next()).await;
    }
    worker.abort_all();
}

/// A session that a game server had before.
struct Past {
    s: u64,
    key: ProfileKey,
    epoch: u64,
}

impl Desk {
    fn expected(&self, named: (u64, String, String, String, u64)) -> Option<Past> {
        let (s, store, scope, key, epoch) = named;
        let key = ProfileKey::new(&store, &scope, &key).ok();
        let key = key.filter(|key| self.caller.may(Scope::SessionsHold, key).is_ok());
        match key {
            Some(key) => {
                self.guest.expect(s, &key);
                Some(Past { s, key, epoch })
            }
            None => {
                self.guest.tell(&ServerFrame::Lost { s, by: None });
                None
            }
        }
    }
}

/// What is wrong with a greeting that took too long. `has_come`: as a whole.
fn too_late(has_come: bool) -> Problem {
    let seconds = HELLO_TIME.as_secs();
    if has_come {
        let detail = format!("the store has not answered within {seconds} s");
        return Problem::new("unavailable", detail);
    }
    Problem::invalid(format!("no `hello` came within {seconds} s; it comes first"))
}

type NamedSession = (u64, String, String, String, u64);

/// The greeting: a new game server, or one that resumes. `has_come`: all of it, and what is left is
/// the store's to answer.
async fn greet(
    hub: &Hub,
    caller: &Caller,
    incoming: &mut Incoming,
    has_come: &mut bool,
) -> Result<(Arc<Guest>, Option<ResumedAs>, Vec<NamedSession>), Problem> {
    let mut room = MOST_GREETING;
    let ClientFrame::Hello(hello) = next_frame(incoming, &mut room).await? else {
        return Err(Problem::invalid("the first frame is `hello`"));
    };
    let Hello { instance, job, place, lease_ms, sdk, resume } = hello;
    if instance.len() < MIN_INSTANCE {
        let detail = format!("`instance` is a secret of at least {MIN_INSTANCE} bytes");
        return Err(Problem::invalid(detail));
    }
    if resume.as_ref().is_some_and(|resume| resume.token.len() < MIN_INSTANCE) {
        return Err(Problem::invalid("`token` is what `welcome` gave"));
    }
    let instance = Instance::new(&instance);
    let lease_time = lease_ms.map(Duration::from_millis);
    let registration =
        |token: &str| Registration { job: job.clone(), place, owner: owner_of(token), lease_time };
    let logged = |name: &str| name.chars().take(MOST_LOGGED).collect::<String>();
    tracing::info!(
        job = logged(&job),
        sdk = sdk.as_deref().map(logged),
        key = caller.id(),
        resumes = resume.is_some(),
        "a game server"
    );
    let Some(resume) = resume else {
        *has_come = true;
        let token = new_token()?;
        let server = hub.host()?.register(registration(&token)).await?;
        let guest = Guest::new(server, instance, token, sdk.as_deref());
        return Ok((hub.enter(guest).await?, None, Vec::new()));
    };
    let mut sessions = resume.named.sessions;
    let mut more = resume.named.more;
    while more {
        let ClientFrame::Sessions(named) = next_frame(incoming, &mut room).await? else {
            return Err(Problem::invalid("after `more` comes `sessions`"));
        };
        sessions.extend(named.sessions);
        more = named.more;
    }
    *has_come = true;
    // Before anything is done for it. One that makes way meanwhile is refused when it is entered.
    hub.check_run(ServerId(resume.incarnation), instance)?;
    // What the client brings proves nothing where the store does not know it.
    let token = new_token()?;
    let resumed = hub
        .host()?
        .resume(Resume {
            incarnation: ServerId(resume.incarnation),
            store: Incarnation(resume.store),
            owner: owner_of(&resume.token),
            again: registration(&token),
        })
        .await?;
    let (server, how, token) = match resumed {
        Resumed::Same(server) => (server, ResumedAs::Same, resume.token),
        Resumed::Anew(server) => (server, ResumedAs::Anew, token),
        Resumed::Replaced(server) => (server, ResumedAs::Replaced, token),
        _ => return Err(Problem::new("internal", "the resume has come to something unknown")),
    };
    let known = hub.guest(server.incarnation()).filter(|guest| guest.instance == instance);
    let guest = match known {
        Some(known) => known,
        None => {
            let guest = Guest::new(server, instance, token, sdk.as_deref());
            hub.enter(if how == ResumedAs::Same { guest.taken_over() } else { guest }).await?
        }
    };
    Ok((guest, Some(how), sessions))
}

/// What a game server's row says of its owner: a digest of the token. The client that has the token
/// may resume it.
fn owner_of(token: &str) -> String {
    use sha2::{Digest as _, Sha256};
    format!("token {}", crate::secret::hex(&Sha256::digest(token.as_bytes())))
}

/// The next frame of a greeting, which has room for so many bytes more.
async fn next_frame(incoming: &mut Incoming, room: &mut usize) -> Result<ClientFrame, Problem> {
    loop {
        match incoming.next().await {
            Some(Ok(Message::Text(text))) => {
                take_room(room, text.len())?;
                return parse(&text);
            }
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            _ => return Err(Problem::invalid("the connection ended before its greeting")),
        }
    }
}

fn take_room(room: &mut usize, bytes: usize) -> Result<(), Problem> {
    *room = room.checked_sub(bytes).ok_or_else(|| {
        let detail =
            format!("the frames of a greeting have too many bytes: limit=`{MOST_GREETING}`");
        Problem::new("too-large", detail)
    })?;
    Ok(())
}

/// Reads until the connection ends. Nothing here waits for anything but the socket.
async fn listen(
    desk: &Desk,
    connection: u64,
    incoming: &mut Incoming,
    ping: &mpsc::UnboundedSender<u64>,
    inbox: &Inbox,
) {
    let guest = &desk.guest;
    while let Some(message) = next_message(guest, connection, incoming).await {
        if !guest.is_current(connection) {
            return;
        }
        let text = match message {
            Message::Text(text) => text,
            Message::Ping(_) | Message::Pong(_) => continue,
            Message::Binary(_) => return guest.close(1003, "frames are text"),
            Message::Close(_) => return,
        };
        let going_on = match parse(&text) {
            Ok(ClientFrame::Ping { n }) => ping.send(n).is_ok(),
            Ok(frame) => {
                if !inbox.put(frame, text.len()) {
                    return guest.close(1013, "too much waits to be taken");
                }
                true
            }
            Err(problem) => {
                guest.complain(number_of(&text), &problem);
                true
            }
        };
        if !going_on {
            return;
        }
    }
}

/// The next message. None: the connection has ended, or was silent for too long.
async fn next_message(guest: &Guest, connection: u64, incoming: &mut Incoming) -> Option<Message> {
    if let Ok(message) = timeout(QUIET, incoming.next()).await {
        return message?.ok();
    }
    guest.note_heard(connection, false);
    let message = timeout(SILENCE.saturating_sub(QUIET), incoming.next()).await.ok()??.ok()?;
    guest.note_heard(connection, true);
    Some(message)
}

/// Finds the sessions of a resume again, then takes frames in order.
async fn work(
    desk: Desk,
    connection: u64,
    named: Vec<Past>,
    mut frames: Waiting,
    revoked: Arc<AtomicBool>,
    is_resumed: Arc<AtomicBool>,
) {
    stream::iter(named).for_each_concurrent(ADOPTED_AT_ONCE, |named| adopt(&desk, named)).await;
    if !desk.guest.is_current(connection) {
        // The connection that took its place names what it still has.
        return;
    }
    desk.guest.server.all_named();
    is_resumed.store(true, Ordering::Release);
    while let Some(frame) = frames.next().await {
        if !desk.guest.is_current(connection) {
            return;
        }
        if let ClientFrame::Bye {} = frame {
            if let Err(error) = desk.guest.server.retire().await {
                tracing::debug!(%error, "a game server left, and its row runs out by itself");
            }
            return desk.guest.close(1000, "goodbye");
        }
        desk.take(frame, revoked.load(Ordering::Relaxed));
        desk.guest.until_less_full(connection).await;
    }
}

async fn adopt(desk: &Desk, Past { s, key, epoch }: Past) {
    if let Some(version) = find_again(desk, s, &key, epoch).await {
        desk.guest.tell(&ServerFrame::Resumed { s, version });
        desk.guest.tell_early(s);
    }
}

/// Finds a session in the store that this process does not know: the version that is stored. None:
/// it is lost, and the game server is told so; or nothing is done for that here any more.
pub(super) async fn find_again(desk: &Desk, s: u64, key: &ProfileKey, epoch: u64) -> Option<u64> {
    loop {
        match desk.guest.server.adopt(key, epoch).await {
            Ok(Adopted::Held { session, version }) => {
                desk.guest.opened(s, session, None);
                return Some(version);
            }
            Ok(Adopted::Lost { by }) => {
                desk.guest.over(s);
                desk.guest.tell(&ServerFrame::Lost { s, by: by.map(by_server) });
                return None;
            }
            // The game server is told so, and resumes again.
            Err(_) if desk.guest.server.stopped().is_some() => return None,
            Err(error) if is_not_known_yet(error.kind()) => tokio::time::sleep(ADOPT_AGAIN).await,
            Err(error) => {
                tracing::warn!(%error, "a session was not found again");
                desk.guest.over(s);
                desk.guest.tell(&ServerFrame::Lost { s, by: None });
                return None;
            }
            Ok(_) => return None,
        }
    }
}

/// The store has not answered, or a start of the profile is under way here, which ends in its time.
fn is_not_known_yet(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Unavailable | ErrorKind::TimedOut | ErrorKind::Busy)
}

/// Looks whether the key still holds. One that was revoked may save and end for one lease time.
async fn watch_key(desk: Desk, revoked: Arc<AtomicBool>) {
    loop {
        tokio::time::sleep(KEY_PERIOD).await;
        if desk.app.keys().is_refused(desk.caller.id()).await {
            revoked.store(true, Ordering::Relaxed);
            tokio::time::sleep(desk.guest.server.lease_time()).await;
            desk.guest.server.leave();
            return desk.guest.close(1008, "the key is valid no more");
        }
    }
}
