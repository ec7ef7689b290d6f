//! What requests are answered with: the store, a game server of its own for calls, the keys, and
//! the layers around every resource.

use std::{fmt, net::IpAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderName, HeaderValue, header, uri::Authority},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse as _, Response},
};
use metrics_exporter_prometheus::PrometheusHandle;
use profilestore::{GameServer, data_store::DataStore, env::Env, hosting::Host};
use tokio::{sync::Semaphore, time::timeout};

use crate::{
    access::{Guesses, Logins, Members, Setup},
    bulk::BulkEdits,
    cleaning::Cleaner,
    config::Config,
    cookie::Reached,
    http::{self, live::Newest},
    keys::Keys,
    listen::Peer,
    problem::Problem,
    rates::Rates,
    ws::Hub,
};

/// How many exports are written at once. Each holds a thread for as long as its reader takes.
const MOST_EXPORTS: usize = 8;

/// The id of a request, for what is answered later than by its response.
#[derive(Clone)]
pub(crate) struct RequestId(pub(crate) Arc<str>);

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What an [`App`] is built from.
#[derive(Debug)]
pub struct Parts {
    /// The store.
    pub store: Arc<dyn DataStore>,
    /// This process as a game server on the store, in whose name calls are made. Its sessions are
    /// those of a moment, to end the session of another server.
    pub server: GameServer,
    /// What hosts game servers that connect. None: there are no sessions.
    pub host: Option<Host>,
    /// Clock and randomness.
    pub env: Env,
    /// What `/metrics` shows. None: it shows nothing.
    pub metrics: Option<PrometheusHandle>,
}

/// What answers requests. Cheap to clone.
#[derive(Clone)]
pub struct App(Arc<Inner>);

struct Inner {
    parts: Parts,
    keys: Arc<Keys>,
    members: Members,
    logins: Logins,
    guesses: Guesses,
    rates: Rates,
    bulk: Arc<BulkEdits>,
    cleaner: Arc<Cleaner>,
    newest: Newest,
    setup: Setup,
    reached: Reached,
    hub: Arc<Hub>,
    is_local: bool,
    request_time: Duration,
    /// One request at a time has all messages counted.
    counting: Arc<Semaphore>,
    exporting: Arc<Semaphore>,
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App").field("server", &self.0.parts.server).finish_non_exhaustive()
    }
}

impl App {
    /// An app on these parts. Must be called within a Tokio runtime.
    pub fn new(parts: Parts, config: &Config) -> Self {
        let (store, env) = (parts.store.clone(), parts.env.clone());
        Self(Arc::new(Inner {
            hub: Hub::new(parts.host.clone()),
            keys: Arc::new(Keys::new(store.clone(), env.clone())),
            members: Members::new(store.clone(), env.clone()),
            logins: Logins::new(store.clone(), env.clone()),
            guesses: Guesses::new(env.clone()),
            rates: Rates::new(env.clone(), config.requests_per_second),
            bulk: BulkEdits::new(store, parts.server.clone(), env),
            cleaner: Arc::default(),
            newest: Newest::default(),
            setup: Setup::default(),
            reached: Reached {
                is_secure: config.tls.is_some() || config.trust_proxy,
                by_proxy: config.trust_proxy,
            },
            parts,
            is_local: config.is_local(),
            request_time: config.request_time,
            counting: Arc::new(Semaphore::new(1)),
            exporting: Arc::new(Semaphore::new(MOST_EXPORTS)),
        }))
    }

    pub(crate) fn counting(&self) -> Arc<Semaphore> {
        self.0.counting.clone()
    }

    pub(crate) fn exporting(&self) -> Arc<Semaphore> {
        self.0.exporting.clone()
    }

    pub(crate) fn store(&self) -> &dyn DataStore {
        &*self.0.parts.store
    }

    pub(crate) fn shared_store(&self) -> Arc<dyn DataStore> {
        self.0.parts.store.clone()
    }

    pub(crate) fn server(&self) -> &GameServer {
        &self.0.parts.server
    }

    pub(crate) fn hub(&self) -> &Arc<Hub> {
        &self.0.hub
    }

    /// Sends every connected game server to another process, and waits some seconds for that. Edits
    /// of many profiles that this process works on are paused. To be called while the server still
    /// answers, before the process ends. No session ends by it.
    pub async fn send_away(&self) {
        tokio::join!(self.0.hub.send_away(), self.0.bulk.leave());
    }

    pub(crate) fn env(&self) -> &Env {
        &self.0.parts.env
    }

    pub(crate) fn metrics(&self) -> Option<&PrometheusHandle> {
        self.0.parts.metrics.as_ref()
    }

    pub(crate) fn keys(&self) -> &Arc<Keys> {
        &self.0.keys
    }

    pub(crate) fn members(&self) -> &Members {
        &self.0.members
    }

    pub(crate) fn logins(&self) -> &Logins {
        &self.0.logins
    }

    pub(crate) fn guesses(&self) -> &Guesses {
        &self.0.guesses
    }

    pub(crate) fn rates(&self) -> &Rates {
        &self.0.rates
    }

    pub(crate) fn bulk(&self) -> &Arc<BulkEdits> {
        &self.0.bulk
    }

    pub(crate) fn cleaner(&self) -> &Arc<Cleaner> {
        &self.0.cleaner
    }

    /// How long a request may take.
    pub(crate) fn request_time(&self) -> Duration {
        self.0.request_time
    }

    pub(crate) fn newest(&self) -> &Newest {
        &self.0.newest
    }

    pub(crate) fn setup(&self) -> &Setup {
        &self.0.setup
    }

    pub(crate) fn reached(&self) -> Reached {
        self.0.reached
    }

    /// A secret with which the first member can be made, once, for the life of this process. None
    /// when there is a member. To be shown to the operator who starts the server.
    pub async fn open_setup(&self) -> Result<Option<String>, profilestore::Error> {
        self.0.setup.open(&self.0.members).await
    }

    /// Every resource, with the layers around them.
    pub fn router(&self) -> Router {
        let (router, _) = http::router().split_for_parts();
        router
            .fallback(async || {
                Problem::new("no-such-resource", "there is nothing at this path").into_response()
            })
            .method_not_allowed_fallback(async || {
                let detail = "the resource does not have this method";
                Problem::new("method-not-allowed", detail).into_response()
            })
            .layer(from_fn_with_state(self.clone(), around))
            .with_state(self.clone())
    }
}

/// What happens around every request: it gets an id and a time, its host is checked where only this
/// machine is served, and an error gets its body.
async fn around(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let id = app.env().uuid().to_string();
    request.extensions_mut().insert(RequestId(id.as_str().into()));
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0);
    let mut response = if app.0.is_local && !names_this_machine(&request) {
        let detail = "the header `Host` names another machine";
        Problem::new("misdirected", detail).into_response()
    } else if let Some(at) = not_encoded(&path) {
        let detail = format!(
            "in a path, two hexadecimal digits follow a %, and %25 is the % itself: at=`{at}` \
             path=`{path}`"
        );
        Problem::invalid(detail).into_response()
    } else if path.split('/').any(is_dots) {
        let detail = format!(
            "a part of a path that is `.` or `..` names nothing here, since most clients take it \
             away before they send; use the program for such a name: path=`{path}`"
        );
        Problem::invalid(detail).into_response()
    } else {
        match timeout(app.0.request_time, next.run(request)).await {
            Ok(response) => response,
            Err(_) => Problem::new("unknown", "the request took too long").into_response(),
        }
    };
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        tracing::debug!(%method, path, id, ?peer, %problem, "refused");
        let own = std::mem::take(response.headers_mut());
        response = problem.answer(&id);
        for (name, value) in &own {
            if name == header::ALLOW {
                response.headers_mut().insert(name, value.clone());
            }
        }
    }
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Where a % is that no two hexadecimal digits follow.
fn not_encoded(path: &str) -> Option<usize> {
    let bytes = path.as_bytes();
    let is_digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_hexdigit);
    let wrong = |at: &usize| bytes[*at] == b'%' && !(is_digit(at + 1) && is_digit(at + 2));
    (0..bytes.len()).find(wrong)
}

/// Whether a part of a path is `.` or `..`, which clients take away, however it is encoded. What
/// they send then names something else.
fn is_dots(part: &str) -> bool {
    matches!(&*part.to_ascii_lowercase().replace("%2e", "."), "." | "..")
}

/// A page of another site may have its name lead to this machine (DNS rebinding). The browser still
/// says that name.
fn names_this_machine(request: &Request) -> bool {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    let host = host.to_str().ok().filter(|host| !host.contains('@'));
    let Some(authority) = host.and_then(|host| host.parse::<Authority>().ok()) else {
        return false;
    };
    let name = authority.host();
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}
