//! The game over HTTP and WebSockets: the page, the players' connections, purchases, administrators
//! and metrics.

use std::{future::pending, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Bytes,
    extract::{Path, State, WebSocketUpgrade, ws},
    http::{HeaderMap, StatusCode, header},
    response::{Html, IntoResponse, Response},
    routing::{get, post},
};
use metrics_exporter_prometheus::PrometheusHandle;
use profilestore::{Advice, ErrorKind};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::{
    sync::mpsc,
    time::{interval, timeout},
};

use crate::{
    Error, Refusal, Result,
    admin::Order,
    board::TOP,
    game::{Command, Game, is_name},
    refuse,
    seats::{Event, Seated},
};

const PAGE: &str = include_str!("page.html");

/// Only what is in the page itself runs, and it may talk to the game's servers.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                      connect-src *; img-src data:; base-uri 'none'; form-action 'none'";

/// The longest message of a client, in bytes.
const MAX_MESSAGE: usize = 4096;

/// How long a client may be silent. The page says something every ten seconds.
const SILENCE: Duration = Duration::from_secs(40);

/// How often a client is told about the world around its player.
const LOOK_AROUND: Duration = Duration::from_secs(2);

/// What the handlers share.
#[derive(Debug, Clone)]
pub struct Web {
    pub game: Arc<Game>,
    pub metrics: PrometheusHandle,
    /// Administrators and payment providers show it. Without one they are refused.
    pub token: Option<String>,
    /// The addresses of all servers of the game, for the page.
    pub servers: Vec<String>,
    /// Every connection holds one until it is closed.
    pub open: mpsc::Sender<()>,
}

pub fn router(web: Web) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/servers", get(|State(web): State<Web>| async move { json(&web.servers) }))
        .route("/play", get(play))
        .route("/purchases", post(purchase))
        .route("/players/{name}", get(show_player).post(administer))
        .route("/metrics", get(|State(web): State<Web>| async move { web.metrics.render() }))
        .with_state(web)
}

async fn page() -> impl IntoResponse {
    ([(header::CONTENT_SECURITY_POLICY, POLICY)], Html(PAGE))
}

// --- players -------------------------------------------------------------------------------------

async fn play(State(web): State<Web>, upgrade: WebSocketUpgrade) -> Response {
    let upgrade = upgrade.max_message_size(MAX_MESSAGE).max_frame_size(MAX_MESSAGE);
    upgrade.on_upgrade(async move |mut socket| {
        if let Err(error) = converse(&mut socket, &web.game).await {
            let again = error.advice() == Advice::Retry;
            let bye = json!({ "is": "bye", "text": error.to_string(), "again": again });
            let _ = send(&mut socket, bye).await;
        }
        let _ = timeout(Duration::from_secs(1), socket.send(ws::Message::Close(None))).await;
        drop(web.open);
    })
}

/// A connection, from the login to its end. An error is one of the login, or of leaving.
async fn converse(socket: &mut ws::WebSocket, game: &Arc<Game>) -> Result<()> {
    #[derive(Deserialize)]
    struct Login {
        login: String,
    }
    let first = timeout(SILENCE, socket.recv()).await;
    let Ok(Some(Ok(ws::Message::Text(text)))) = first else { return Ok(()) };
    let name = serde_json::from_str(&text).map(|Login { login }| login).unwrap_or_default();
    if !is_name(&name) {
        return refuse("A name has 1 to 20 letters and digits.");
    }
    let (events, heard) = mpsc::channel(64);
    let seated = game.login(&name, events).await?;
    // The connection may break at any time; the player leaves then.
    let _ = conduct(socket, game, &seated, heard).await;
    game.leave(&seated).await
}

/// None: the connection is over.
async fn conduct(
    socket: &mut ws::WebSocket,
    game: &Game,
    seated: &Seated,
    mut heard: mpsc::Receiver<Event>,
) -> Option<()> {
    let mut looks = interval(LOOK_AROUND);
    send(socket, look_at_self(game, seated)).await?;
    loop {
        let answer = tokio::select! {
            biased;
            event = heard.recv() => match event {
                Some(Event::Bye { text, again }) => {
                    return send(socket, json!({ "is": "bye", "text": text, "again": again })).await;
                }
                Some(Event::Note(text)) => json!({ "is": "note", "text": text }),
                Some(Event::Changed) => look_at_self(game, seated),
                None => return pending().await,
            },
            _ = looks.tick() => look_around(game, seated),
            message = timeout(SILENCE, socket.recv()) => match message.ok()??.ok()? {
                ws::Message::Text(text) => obey(game, seated, &text).await,
                ws::Message::Close(_) => return None,
                _ => continue,
            },
        };
        send(socket, answer).await?;
        send(socket, look_at_self(game, seated)).await?;
    }
}

async fn obey(game: &Game, seated: &Seated, text: &str) -> Value {
    let done = match serde_json::from_str::<Command>(text) {
        Ok(command) => game.act(seated, command).await,
        Err(error) => Err(Refusal(format!("That is no command: {error}")).into()),
    };
    match done {
        Ok(text) => json!({ "is": "note", "text": text }),
        Err(error) => json!({ "is": "refusal", "text": error.to_string() }),
    }
}

fn look_at_self(game: &Game, seated: &Seated) -> Value {
    json!({
        "is": "you",
        "name": seated.name,
        "server": game.server.job_id(),
        "active": seated.profile.is_active(),
        "player": seated.profile.data(),
    })
}

/// The board and the guild, as this server saw them last.
fn look_around(game: &Game, seated: &Seated) -> Value {
    let guild = seated.profile.read(|player| player.guild.clone());
    json!({
        "is": "around",
        "board": game.kept.seen("Boards", TOP)["best"],
        "guild": guild.map(|name| game.kept.seen("Guilds", &name)),
        "here": game.here(),
    })
}

async fn send(socket: &mut ws::WebSocket, value: Value) -> Option<()> {
    let text = ws::Message::Text(value.to_string().into());
    timeout(SILENCE, socket.send(text)).await.ok()?.ok()
}

// --- payment providers and administrators --------------------------------------------------------

impl Web {
    fn check(&self, headers: &HeaderMap) -> Result<(), Response> {
        let shown = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let expected = self.token.as_ref().map(|token| format!("Bearer {token}"));
        if expected.is_none() || shown != expected.as_deref() {
            let text = "set ARENA_TOKEN, and show it: Authorization: Bearer TOKEN\n";
            return Err((StatusCode::UNAUTHORIZED, text).into_response());
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct Purchase {
    player: String,
    id: String,
    bought_ms: i64,
    product: String,
}

/// What a payment provider calls until it gets 200.
async fn purchase(
    State(web): State<Web>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<String, Response> {
    web.check(&headers)?;
    let bought: Purchase = parse(&body)?;
    let Purchase { player, id, bought_ms, product } = &bought;
    let sent = web.game.purchase(player, id, *bought_ms, product).await?;
    Ok(format!("{sent:?}\n"))
}

async fn show_player(
    State(web): State<Web>,
    headers: HeaderMap,
    Path(name): Path<String>,
) -> Result<Response, Response> {
    web.check(&headers)?;
    let read = web.game.players.get(&name).await.map_err(Error::from)?;
    Ok(match read {
        Some(read) => json(&read.data),
        None => (StatusCode::NOT_FOUND, "there is no such player\n").into_response(),
    })
}

async fn administer(
    State(web): State<Web>,
    headers: HeaderMap,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<String, Response> {
    web.check(&headers)?;
    let order: Order = parse(&body)?;
    web.game.administer(&name, &order).await?;
    Ok("done\n".into())
}

fn json<T: Serialize>(value: &T) -> Response {
    let text = serde_json::to_string(value).expect("what the game answers is plain");
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Response> {
    serde_json::from_slice(body)
        .map_err(|error| (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response())
}

impl Error {
    /// What the caller should do.
    fn advice(&self) -> Advice {
        match self {
            Self::Refused(_) => Advice::Fix,
            Self::Store(error) => error.advice(),
        }
    }
}

impl From<Error> for Response {
    fn from(error: Error) -> Self {
        let status = match &error {
            Error::Refused(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Error::Store(error) if error.kind() == ErrorKind::NotFound => StatusCode::NOT_FOUND,
            Error::Store(error) => match error.advice() {
                Advice::Fix => StatusCode::UNPROCESSABLE_ENTITY,
                _ => StatusCode::SERVICE_UNAVAILABLE,
            },
        };
        (status, format!("{error}\n")).into_response()
    }
}
