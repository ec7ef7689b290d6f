//! Hints between machines over NATS: core only, since a hint may be lost.
//!
//! A game server listens on one subject of its own, `PREFIX.hint.SERVER`; a profile has none, so a
//! million sessions cost NATS nothing. While a sender is cut off its hints are dropped, not
//! hoarded: when it is back, a renewal has brought the notices behind them. Telling every receiver
//! of a gap would send all servers to the store at once, when it helps least. A *receiver* that was
//! cut off hears of the gap once its subscription is in place again.
//!
//! A subscription is in place when a message that the client sends to itself comes back, because
//! NATS handles one client's requests in order.

use std::{
    error::Error as _,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, Subscriber, connection::State};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::{
    sync::{broadcast, mpsc, oneshot},
    time::timeout,
};

use super::{HINT_QUEUE, Hint, Messenger, wire};
use crate::{
    data_store::ServerId,
    error::{Error, ErrorKind, Result},
    key::ProfileKey,
};

mod options;

use options::Login;
pub use options::NatsOptions;

/// How often a silent connection is tried. Three tries without an answer, and it is given up and
/// made anew.
const PING_PERIOD: Duration = Duration::from_secs(2);

/// The longest pause between attempts to connect again.
const RECONNECT_PAUSE: Duration = Duration::from_secs(1);

/// How long a new subscription is waited for before it is left to stand later.
const SUBSCRIBE: Duration = Duration::from_secs(1);

/// What a subscription sends to itself: the first time, and when it may have missed something. No
/// key looks like it.
const STANDS: &[u8] = b"stands";
const MISSED: &[u8] = b"missed";

/// Hints over NATS. Cheap to clone; the connection ends with the last clone and the last receiver.
///
/// Connections that break are made again, to any server of the cluster, for as long as it takes.
#[derive(Clone)]
pub struct NatsMessenger {
    client: Client,
    shared: Arc<Shared>,
}

struct Shared {
    options: NatsOptions,
    doubts: broadcast::Sender<Doubt>,
    dropped: AtomicUsize,
}

/// Why hints may have been missed.
#[derive(Debug, Clone, Copy)]
enum Doubt {
    /// The connection was made anew.
    Connected,
    /// The client could not keep up.
    Slow,
}

impl fmt::Debug for NatsMessenger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NatsMessenger").field(&self.shared.options).finish()
    }
}

impl NatsMessenger {
    /// Connects to one of the servers, unless [`NatsOptions::in_background`] says not to wait for
    /// that.
    ///
    /// Fails with [`ErrorKind::Unavailable`] when none can be reached, with [`ErrorKind::Invalid`]
    /// when a file cannot be used, a login is refused or TLS fails. May wait for
    /// [`NatsOptions::connect_timeout`] a server. Must be called within a Tokio runtime.
    pub async fn connect(options: NatsOptions) -> Result<Self> {
        install_tls_provider();
        let (doubts, mut first) = broadcast::channel(16);
        let servers = options.servers.iter().map(|server| format!("nats://{server}").parse());
        let servers: Vec<async_nats::ServerAddr> =
            servers.collect::<Result<_, _>>().map_err(|error: std::io::Error| {
                Error::new(
                    ErrorKind::Invalid,
                    format!("the address of a NATS server cannot be used: servers=`{options}`"),
                )
                .caused_by(error)
            })?;
        let connecting = connect_options(&options, doubts.clone()).await?.connect(servers);
        let client = connecting.await.map_err(|error| refused(&options, error))?;
        if options.wait_for_server {
            // The event of this connection is not one of a later one: it must not look like a gap.
            let _ = timeout(SUBSCRIBE, first.recv()).await;
        }
        Ok(Self {
            client,
            shared: Arc::new(Shared { options, doubts, dropped: AtomicUsize::new(0) }),
        })
    }

    /// Whether there is a connection now.
    pub fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// How many hints were dropped so far, because there was no connection or it was too slow.
    pub fn dropped(&self) -> usize {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    fn subject(&self, server: ServerId) -> String {
        format!("{}.hint.{}", self.shared.options.prefix, server.0.simple())
    }
}

#[async_trait]
impl Messenger for NatsMessenger {
    /// Returns when the subscription stands; when that takes longer than a second, before, and its
    /// first word is then a gap.
    async fn subscribe(&self, server: ServerId) -> mpsc::Receiver<Hint> {
        let (to, receiver) = mpsc::channel(HINT_QUEUE);
        let (stands, standing) = oneshot::channel();
        let inbox = Inbox {
            client: self.client.clone(),
            subject: self.subject(server),
            doubts: self.shared.doubts.subscribe(),
            to,
            stands: Some(stands),
            gap: false,
        };
        tokio::spawn(inbox.run());
        if self.is_connected() {
            let _ = timeout(SUBSCRIBE, standing).await;
        }
        receiver
    }

    /// Never waits: a hint for which there is no connection or no room is dropped.
    async fn hint(&self, to: ServerId, key: &ProfileKey) {
        let sent = self.is_connected() && {
            let publish = self.client.publish(self.subject(to), wire::encode(key).into());
            matches!(tokio::task::unconstrained(publish).now_or_never(), Some(Ok(())))
        };
        if !sent {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            metrics::counter!("profilestore_hints_dropped_total").increment(1);
        }
    }
}

/// One server's subscription.
struct Inbox {
    client: Client,
    subject: String,
    doubts: broadcast::Receiver<Doubt>,
    to: mpsc::Sender<Hint>,
    /// Callers that wait until the subscription is in place.
    stands: Option<oneshot::Sender<()>>,
    /// Something was missed, and the receiver was not told yet.
    gap: bool,
}

impl Inbox {
    /// Until the receiver is dropped.
    async fn run(mut self) {
        let to = self.to.clone();
        tokio::select! {
            biased;
            () = to.closed() => {}
            () = self.listen() => {}
        }
    }

    async fn listen(&mut self) {
        let mut messages = match self.client.subscribe(self.subject.clone()).await {
            Ok(messages) => messages,
            Err(error) => {
                return tracing::error!(%error, subject = self.subject, "no hints from NATS");
            }
        };
        self.send_to_itself(STANDS).await;
        while self.next(&mut messages).await {}
    }

    /// False when the client is gone.
    async fn next(&mut self, messages: &mut Subscriber) -> bool {
        let to = self.to.clone();
        tokio::select! {
            biased;
            Ok(room) = to.reserve(), if self.gap => {
                room.send(Hint::Gap);
                self.gap = false;
            }
            doubt = self.doubts.recv() => match doubt {
                Ok(Doubt::Slow) => self.gap = true,
                Ok(Doubt::Connected) | Err(broadcast::error::RecvError::Lagged(_)) => self.send_to_itself(MISSED).await,
                Err(broadcast::error::RecvError::Closed) => return false,
            },
            message = messages.next() => match message {
                Some(message) => self.take(&message.payload),
                None => return false,
            },
        }
        true
    }

    fn take(&mut self, payload: &[u8]) {
        if payload == STANDS {
            // Nobody waits any more: the server has begun to work before it could hear.
            self.gap |= self.stands.take().is_some_and(|stands| stands.send(()).is_err());
        } else if payload == MISSED {
            self.stands = None;
            self.gap = true;
        } else if let Some(key) = wire::decode(payload) {
            // While a gap waits to be told it stands for whatever follows, too.
            self.gap = self.gap || self.to.try_send(Hint::Look(key)).is_err();
        } else {
            metrics::counter!("profilestore_hints_not_understood_total").increment(1);
        }
    }

    /// Behind the subscription, so that it stands when this comes back.
    async fn send_to_itself(&self, word: &'static [u8]) {
        if let Err(error) =
            self.client.publish(self.subject.clone(), Bytes::from_static(word)).await
        {
            tracing::warn!(%error, subject = self.subject, "a subscription of hints could not be tried");
        }
    }
}

/// A program in which several TLS implementations are compiled in has to name one; if it has not,
/// it is this one.
fn install_tls_provider() {
    use async_nats::rustls::crypto::{CryptoProvider, ring};
    if CryptoProvider::get_default().is_none() {
        let _ = ring::default_provider().install_default();
    }
}

async fn connect_options(
    options: &NatsOptions,
    doubts: broadcast::Sender<Doubt>,
) -> Result<ConnectOptions> {
    let mut connect = ConnectOptions::new()
        .name("profilestore")
        .require_tls(options.tls_required())
        .connection_timeout(options.connect_timeout)
        .ping_interval(PING_PERIOD)
        .client_capacity(HINT_QUEUE)
        .subscription_capacity(HINT_QUEUE)
        .reconnect_delay_callback(pause_before)
        .event_callback(move |event| {
            match &event {
                Event::Connected => tracing::info!("connected to NATS"),
                event => tracing::warn!(%event, "NATS"),
            }
            let doubt = match event {
                Event::Connected => Some(Doubt::Connected),
                Event::SlowConsumer(_) => Some(Doubt::Slow),
                _ => None,
            };
            if let Some(doubt) = doubt {
                // Nobody may listen yet.
                let _ = doubts.send(doubt);
            }
            async {}
        });
    if !options.follows_cluster() {
        connect = connect.ignore_discovered_servers();
    }
    if !options.wait_for_server {
        connect = connect.retry_on_initial_connect();
    }
    if let Some(path) = &options.root_certificates {
        connect = connect.add_root_certificates(path.clone());
    }
    if let Some((certificate, key)) = &options.client_certificate {
        connect = connect.add_client_certificate(certificate.clone(), key.clone());
    }
    match &options.login {
        Login::None => Ok(connect),
        Login::Token(token) => Ok(connect.token(token.clone())),
        Login::User(user, password) => {
            Ok(connect.user_and_password(user.clone(), password.clone()))
        }
        Login::File(path) => connect.credentials_file(path).await.map_err(|error| {
            let what =
                format!("the credentials file for NATS cannot be used: path=`{}`", path.display());
            Error::new(ErrorKind::Invalid, what).caused_by(error)
        }),
    }
}

/// How long to pause before the nth attempt in a row.
fn pause_before(attempt: usize) -> Duration {
    let doublings = u32::try_from(attempt.saturating_sub(1)).unwrap_or(u32::MAX).min(10);
    Duration::from_millis((1 << doublings) - 1).min(RECONNECT_PAUSE)
}

fn refused(options: &NatsOptions, error: async_nats::ConnectError) -> Error {
    let (kind, why) = match error.kind() {
        ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
            (ErrorKind::Invalid, "NATS refused the login, or wants one")
        }
        ConnectErrorKind::Tls if options.tls_required() => (
            ErrorKind::Invalid,
            "no TLS with NATS, which is required for servers on other machines unless the address \
                says tls=off",
        ),
        _ if is_tls(&error) => (ErrorKind::Invalid, "no TLS with NATS"),
        ConnectErrorKind::ServerParse => {
            (ErrorKind::Invalid, "the address of a NATS server cannot be used")
        }
        ConnectErrorKind::Dns => {
            (ErrorKind::Unavailable, "no address is known for the name of a NATS server")
        }
        ConnectErrorKind::TimedOut => (ErrorKind::Unavailable, "no NATS server answered in time"),
        _ => (ErrorKind::Unavailable, "no NATS server could be reached"),
    };
    Error::new(kind, format!("{why}: servers=`{options}`")).caused_by(error)
}

/// Also when the handshake fails, which comes as an error of the connection.
fn is_tls(error: &async_nats::ConnectError) -> bool {
    let io = error.source().and_then(|source| source.downcast_ref::<std::io::Error>());
    let tls = io
        .and_then(std::io::Error::get_ref)
        .is_some_and(|error| error.is::<async_nats::rustls::Error>());
    tls || error.kind() == ConnectErrorKind::Tls
}
