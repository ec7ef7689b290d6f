//! A TCP proxy between client and server that cuts, stalls, delays and loses what it carries, on
//! command.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, sleep_until},
};

/// What the way lets through, for the connections that are there and those to come.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Link {
    /// Everything.
    #[default]
    Open,
    /// Everything, the server's words so much later.
    Late(Duration),
    /// Nothing for now: what was sent waits and arrives when the link is open again.
    Stalled,
    /// Nothing: what is sent is lost silently, and the connections never recover.
    BlackHole,
    /// No connections: those that are there break, new ones are closed at once.
    Cut,
    /// Everything but answers that hold these bytes: the connection breaks instead of carrying one.
    /// A server's word that a commit is done, say: the commit is made, and its client never hears
    /// so.
    LosingAnswersWith(Vec<u8>),
}

/// What PostgreSQL answers when a transaction is committed.
const POSTGRES_COMMITTED: &[u8] = b"C\0\0\0\x0bCOMMIT\0";

/// What PostgreSQL answers behind the row of a statement that was a transaction of its own: the end
/// of `SELECT 1` or `UPDATE 1`, and that no transaction is open.
const POSTGRES_ONE_ROW: &[u8] = b" 1\0Z\0\0\0\x05I";

impl Link {
    /// Loses PostgreSQL's answers to statements that are transactions of their own and have one
    /// row, as lone saves are, and some reads. Only unencrypted connections can be read.
    pub fn losing_lone_answers() -> Self {
        Self::LosingAnswersWith(POSTGRES_ONE_ROW.to_vec())
    }

    /// Loses PostgreSQL's answers to COMMIT. Only unencrypted connections can be read.
    pub fn losing_commit_answers() -> Self {
        Self::LosingAnswersWith(POSTGRES_COMMITTED.to_vec())
    }
}

/// A proxy on a port of its own. Ends, with its connections, when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    link: watch::Sender<Link>,
    counts: Arc<Counts>,
    accepting: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Counts {
    connections: AtomicUsize,
    lost: AtomicUsize,
    round_trips: AtomicUsize,
}

impl Proxy {
    /// Carries connections to a server, which need not be there yet.
    pub async fn to(server: SocketAddr) -> io::Result<Self> {
        Self::among(vec![server]).await
    }

    /// Carries each connection to the next of several servers that accepts it: a plain balancer.
    pub async fn among(servers: Vec<SocketAddr>) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        let (link, counts) = (watch::Sender::new(Link::Open), Arc::<Counts>::default());
        let accepting =
            tokio::spawn(accept(listener, servers.into(), link.clone(), counts.clone()));
        Ok(Self { port, link, counts, accepting })
    }

    /// Carries connections to a port of this machine.
    pub async fn to_port(port: u16) -> io::Result<Self> {
        Self::to(([127, 0, 0, 1], port).into()).await
    }

    /// Its own port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Changes what it lets through.
    pub fn set(&self, link: Link) {
        self.link.send_replace(link);
    }

    /// How many connections were accepted so far.
    pub fn connections(&self) -> usize {
        self.counts.connections.load(Ordering::SeqCst)
    }

    /// How many answers were lost by [`Link::LosingAnswersWith`].
    pub fn lost_answers(&self) -> usize {
        self.counts.lost.load(Ordering::SeqCst)
    }

    /// How often a client spoke after it had been answered, or for the first time: for how many
    /// answers clients have waited. What is sent together counts once if answers are
    /// [late](Link::Late).
    pub fn round_trips(&self) -> usize {
        self.counts.round_trips.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.link.send_replace(Link::Cut);
    }
}

async fn accept(
    listener: TcpListener,
    servers: Arc<[SocketAddr]>,
    link: watch::Sender<Link>,
    counts: Arc<Counts>,
) {
    while let Ok((client, _)) = listener.accept().await {
        let first = counts.connections.fetch_add(1, Ordering::SeqCst);
        let (link, counts) = (link.subscribe(), counts.clone());
        tokio::spawn(connection(client, servers.clone(), first, link, counts));
    }
}

async fn connection(
    client: TcpStream,
    servers: Arc<[SocketAddr]>,
    first: usize,
    link: watch::Receiver<Link>,
    counts: Arc<Counts>,
) {
    let mut cut = link.clone();
    let carried = async {
        let Some(server) = some_server(&servers, first).await else { return };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        let answered = AtomicBool::new(true);
        let (asking, answering) =
            (Words::Clients(&counts, &answered), Words::Servers(&counts, &answered));
        // Whichever direction ends first ends both.
        tokio::select! {
            () = carry(from_client, to_server, link.clone(), asking) => {}
            () = carry(from_server, to_client, link.clone(), answering) => {}
        }
    };
    tokio::select! {
        () = carried => {}
        _ = cut.wait_for(|link| *link == Link::Cut) => {}
    }
}

/// The first of the servers that accepts a connection, beginning with one of them.
async fn some_server(servers: &[SocketAddr], first: usize) -> Option<TcpStream> {
    for step in 0..servers.len() {
        let server = servers[(first + step) % servers.len()];
        if let Ok(stream) = TcpStream::connect(server).await {
            return Some(stream);
        }
    }
    None
}

/// Whose words one direction of a connection carries, what is counted, and whether the client was
/// answered since it spoke last.
#[derive(Clone, Copy)]
enum Words<'a> {
    Clients(&'a Counts, &'a AtomicBool),
    Servers(&'a Counts, &'a AtomicBool),
}

/// Carries one direction until it ends.
async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    link: watch::Receiver<Link>,
    words: Words<'_>,
) {
    // So much may be under way. Beyond it the sender's own buffers fill up.
    let (under_way, mut arriving) = mpsc::channel::<(Instant, Vec<u8>)>(64);
    let (mut here, mut there) = (link.clone(), link);
    let reading = async {
        let mut seen = Vec::new();
        let mut buffer = vec![0; 16 << 10];
        while let Ok(n @ 1..) = from.read(&mut buffer).await {
            let now = here.borrow_and_update().clone();
            if let Words::Clients(counts, answered) = words
                && answered.swap(false, Ordering::SeqCst)
            {
                counts.round_trips.fetch_add(1, Ordering::SeqCst);
            }
            let due = match (&now, words) {
                (Link::BlackHole, _) => continue,
                (Link::Late(delay), Words::Servers(..)) => Instant::now() + *delay,
                (Link::LosingAnswersWith(bytes), Words::Servers(counts, _))
                    if holds(&mut seen, &buffer[..n], bytes) =>
                {
                    counts.lost.fetch_add(1, Ordering::SeqCst);
                    return;
                }
                _ => Instant::now(),
            };
            if under_way.send((due, buffer[..n].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let writing = async {
        while let Some((due, bytes)) = arriving.recv().await {
            sleep_until(due).await;
            if there.wait_for(|link| *link != Link::Stalled).await.is_err() {
                return;
            }
            if let Words::Servers(_, answered) = words {
                answered.store(true, Ordering::SeqCst);
            }
            let lost = *there.borrow() == Link::BlackHole;
            if !lost && to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = reading => {}
        () = writing => {}
    }
}

/// Whether the bytes are in what was seen so far, the pieces put together.
fn holds(seen: &mut Vec<u8>, piece: &[u8], bytes: &[u8]) -> bool {
    seen.extend_from_slice(piece);
    let found = seen.windows(bytes.len()).any(|window| window == bytes);
    seen.drain(..seen.len().saturating_sub(bytes.len()));
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::timeout;

    /// A server that sends back what it gets, and a connection to it through a proxy.
    async fn echo() -> (Proxy, TcpStream) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let proxy = Proxy::to(listener.local_addr().unwrap()).await.unwrap();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = client.split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        let client = connect(&proxy).await;
        (proxy, client)
    }

    async fn connect(proxy: &Proxy) -> TcpStream {
        TcpStream::connect(("127.0.0.1", proxy.port())).await.unwrap()
    }

    /// What comes back; None: nothing in time, or the end.
    async fn say(client: &mut TcpStream, word: &str) -> Option<String> {
        client.write_all(word.as_bytes()).await.ok()?;
        let mut buffer = [0; 64];
        let n = timeout(Duration::from_millis(200), client.read(&mut buffer)).await.ok()?.ok()?;
        (n > 0).then(|| String::from_utf8_lossy(&buffer[..n]).into_owned())
    }

    #[tokio::test]
    async fn a_proxy_carries_stalls_delays_and_cuts() {
        let (proxy, mut client) = echo().await;
        assert_eq!(say(&mut client, "one").await.unwrap(), "one");
        proxy.set(Link::Stalled);
        assert_eq!(say(&mut client, "two").await, None);
        proxy.set(Link::Open);
        let mut buffer = [0; 3];
        client.read_exact(&mut buffer).await.unwrap();
        assert_eq!(&buffer, b"two");
        proxy.set(Link::Late(Duration::from_millis(100)));
        let before = Instant::now();
        assert_eq!(say(&mut client, "three").await.unwrap(), "three");
        assert!(before.elapsed() >= Duration::from_millis(100));
        proxy.set(Link::Cut);
        assert_eq!(client.read(&mut buffer).await.unwrap_or(0), 0);
        assert_eq!(say(&mut connect(&proxy).await, "four").await, None);
        proxy.set(Link::Open);
        assert_eq!(say(&mut connect(&proxy).await, "five").await.unwrap(), "five");
        proxy.set(Link::BlackHole);
        let mut lost = connect(&proxy).await;
        assert_eq!(say(&mut lost, "six").await, None);
        proxy.set(Link::Open);
        assert_eq!(say(&mut lost, "seven").await.unwrap(), "seven", "six is gone");
        assert_eq!(proxy.connections(), 4);
    }

    #[tokio::test]
    async fn a_proxy_loses_the_answers_that_it_is_told_to_lose() {
        let (proxy, mut client) = echo().await;
        proxy.set(Link::LosingAnswersWith(b"COMMIT".to_vec()));
        assert_eq!(say(&mut client, "BEGIN").await.unwrap(), "BEGIN");
        assert_eq!(say(&mut client, "COM").await.unwrap(), "COM");
        assert_eq!(say(&mut client, "MIT").await, None, "also in two pieces");
        assert_eq!((client.read(&mut [0]).await.unwrap_or(0), proxy.lost_answers()), (0, 1));
        assert_eq!(say(&mut connect(&proxy).await, "BEGIN").await.unwrap(), "BEGIN");
    }

    #[tokio::test]
    async fn a_proxy_counts_round_trips() {
        let (proxy, mut client) = echo().await;
        for trips in 1..4 {
            assert_eq!(say(&mut client, "one").await.unwrap(), "one");
            assert_eq!(proxy.round_trips(), trips);
        }
        proxy.set(Link::Late(Duration::from_millis(100)));
        client.write_all(b"first").await.unwrap();
        tokio::task::yield_now().await;
        client.write_all(b"second").await.unwrap();
        let mut buffer = [0; 11];
        client.read_exact(&mut buffer).await.unwrap();
        assert_eq!((&buffer, proxy.round_trips()), (b"firstsecond", 4));
    }
}
