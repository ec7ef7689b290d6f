//! Listening: connections, their limits, TLS, and a shutdown that finishes what has begun.
//!
//! Each connection is a task. One that does not finish its TLS handshake or the head of a request
//! in time is closed, so idle strangers cost little. More connections than the limit wait in the
//! operating system's queue.

use std::{
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{Router, body::Body};
use bytes::Bytes;
use hyper::{
    body::{Body as _, Frame, Incoming, SizeHint},
    header,
    server::conn::http1,
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

use crate::{
    config::Config,
    tls::{Certificate, TlsError},
};

/// How long a client may take for its TLS handshake, and for the head of a request.
const HEAD_TIME: Duration = Duration::from_secs(10);

/// How often the certificate's files are looked at.
const LOOK_AT_FILES: Duration = Duration::from_secs(2);

/// How much of a body that nobody wants is read, and for how long, so that its sender gets to read
/// the answer.
const MOST_UNWANTED: usize = 64 << 20;
const UNWANTED_TIME: Duration = Duration::from_secs(30);

/// One of the connections that there may be at a time. A WebSocket keeps that of its request.
#[derive(Clone)]
pub(crate) struct Place(#[expect(dead_code, reason = "it is held")] Arc<OwnedSemaphorePermit>);

/// How long to wait when no connection can be accepted, since there are too many open files say.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The other end of the connection that a request came over.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// A server that listens. Made before it serves, so that its address is known.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    certificate: Option<Arc<Certificate>>,
    max_connections: usize,
    stop_time: Duration,
}

/// Why a server cannot listen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// The address cannot be used.
    #[error("cannot listen: {error}: listen=`{address}`")]
    Address {
        /// Which.
        address: SocketAddr,
        /// Why not.
        error: io::Error,
    },
    /// The certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl Server {
    /// Takes the address, and reads the certificate. Nothing is answered yet.
    pub async fn bind(config: &Config) -> Result<Self, ListenError> {
        let certificate = config.tls.clone().map(Certificate::new).transpose()?.map(Arc::new);
        let address = config.listen;
        let listener = TcpListener::bind(address)
            .await
            .map_err(|error| ListenError::Address { address, error })?;
        Ok(Self {
            listener,
            certificate,
            max_connections: config.max_connections,
            stop_time: config.stop_time,
        })
    }

    /// Where it listens: the port that was taken when none was named.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop` is over. Then nothing new is accepted, requests under way are finished
    /// within [`Config::stop_time`], and what is left is cut off. True when nothing was.
    pub async fn serve(self, router: Router, stop: impl Future<Output = ()>) -> bool {
        let room = Arc::new(Semaphore::new(self.max_connections));
        let (stopping, stopped) = watch::channel(false);
        let mut files = interval(LOOK_AT_FILES);
        files.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stop = pin!(stop);
        loop {
            let next = async {
                let permit = room.clone().acquire_owned().await;
                (permit, self.listener.accept().await)
            };
            let (permit, accepted) = tokio::select! {
                biased;
                () = &mut stop => break,
                _ = files.tick() => {
                    if let Some(certificate) = &self.certificate {
                        certificate.refresh();
                    }
                    continue;
                }
                next = next => next,
            };
            let (Ok(permit), Ok((stream, peer))) = (permit, accepted) else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let tls = self.certificate.as_ref().map(|certificate| certificate.current());
            let (router, stopped) = (router.clone(), stopped.clone());
            tokio::spawn(async move {
                let place = Place(Arc::new(permit));
                if let Err(error) = connection(stream, peer, tls, router, stopped, place).await {
                    tracing::debug!(%peer, %error, "a connection ended");
                }
            });
        }
        drop(self.listener);
        drop(stopped);
        let _ = stopping.send(true);
        let everyone = u32::try_from(self.max_connections).unwrap_or(u32::MAX);
        timeout(self.stop_time, room.acquire_many(everyone)).await.is_ok()
    }
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    tls: Option<Arc<rustls::ServerConfig>>,
    router: Router,
    stopped: watch::Receiver<bool>,
    place: Place,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    match tls {
        None => requests(stream, peer, router, stopped, place).await,
        Some(config) => {
            let shaken = timeout(HEAD_TIME, TlsAcceptor::from(config).accept(stream)).await;
            let stream = shaken.map_err(|_| io::ErrorKind::TimedOut)??;
            requests(stream, peer, router, stopped, place).await
        }
    }
}

/// Answers the requests of one connection.
async fn requests(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: SocketAddr,
    router: Router,
    mut stopped: watch::Receiver<bool>,
    place: Place,
) -> io::Result<()> {
    let service = TowerToHyperService::new(router.map_request(
        move |mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(Peer(peer));
            request.extensions_mut().insert(place.clone());
            let asks_first = request.headers().contains_key(header::EXPECT);
            request.map(|body| Body::new(Wanted { body: Some(body), asks_first }))
        },
    ));
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut serving = pin!(serving);
    loop {
        tokio::select! {
            biased;
            served = serving.as_mut() => return served.map_err(io::Error::other),
            changed = stopped.changed() => {
                serving.as_mut().graceful_shutdown();
                if changed.is_err() {
                    return serving.await.map_err(io::Error::other);
                }
            }
        }
    }
}

/// The body of a request. What is left of it when nobody reads on is read and thrown away: a client
/// that cannot send the rest would see a broken connection instead of the answer.
struct Wanted {
    body: Option<Incoming>,
    /// The client sends nothing before it is told to, which the first look at the body does.
    asks_first: bool,
}

impl hyper::body::Body for Wanted {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.asks_first = false;
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, Incoming::size_hint)
    }
}

impl Drop for Wanted {
    fn drop(&mut self) {
        let left = self.body.take().filter(|body| !self.asks_first && !body.is_end_stream());
        if let (Some(body), Ok(runtime)) = (left, tokio::runtime::Handle::try_current()) {
            runtime.spawn(timeout(UNWANTED_TIME, throw_away(body)));
        }
    }
}

async fn throw_away(mut body: Incoming) {
    let mut read = 0;
    while read < MOST_UNWANTED
        && let Some(Ok(frame)) =
            std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await
    {
        read += frame.data_ref().map_or(0, Bytes::len);
    }
}
