//! The processes that are measured: the server, and a bare handler.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::SocketAddr,
    path::Path,
    pin::pin,
    process::{Child, Command, Stdio},
    sync::Arc,
};

use axum::{Router, http::header, routing::get};
use bytes::Bytes;
use profilestore::{
    Attribution, GameServer, Settings,
    data_store::{SqliteMessenger, SqliteStore},
    env::Env,
    hosting::{Host, HostParts},
};
use profilestore_server::{
    App, Keys, Parts, Server,
    config::Options,
    keys::{NewKey, Scope},
};

use crate::Outcome;

/// A process of this program. It ends when this is dropped.
pub(crate) struct Other {
    child: Child,
    pub(crate) address: SocketAddr,
    /// The key of the server.
    pub(crate) key: String,
}

impl Other {
    pub(crate) fn start(what: &str, path: &Path) -> Outcome<Self> {
        Self::start_at(what, path, "127.0.0.1:0")
    }

    pub(crate) fn start_at(what: &str, path: &Path, listen: &str) -> Outcome<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["child", what, path.to_str().ok_or("a path that is no UTF-8")?, listen])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().ok_or("no pipe")?).read_line(&mut line)?;
        let (address, key) = line.trim().split_once(' ').ok_or("the process has not begun")?;
        Ok(Self { child, address: address.parse()?, key: key.to_owned() })
    }

    pub(crate) fn id(&self) -> String {
        self.child.id().to_string()
    }

    /// Lets the server process leave in order, as SIGTERM does, and waits until it has ended.
    pub(crate) async fn leave(mut self) -> Outcome {
        if let Some(input) = &mut self.child.stdin {
            input.write_all(b"leave\n")?;
        }
        tokio::task::spawn_blocking(move || self.child.wait()).await??;
        Ok(())
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        // Its standard input ends, and so does it.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// Waits for a word on the standard input. False: that has ended.
pub(crate) async fn is_told() -> bool {
    let read = || std::io::stdin().read_line(&mut String::new()).is_ok_and(|read| read > 0);
    tokio::task::spawn_blocking(read).await.unwrap_or(false)
}

/// Ends when the standard input does.
async fn until_let_go() {
    while is_told().await {}
}

/// `profilestore serve` without the program around it.
pub(crate) async fn serve(folder: &Path, listen: &str) -> Outcome {
    let store = SqliteStore::open(folder.join("served.db"), Default::default())?;
    let new = NewKey {
        name: "bench".to_owned(),
        scopes: BTreeSet::from([Scope::Admin]),
        store: None,
        prefix: None,
        expires_ms: None,
    };
    let keys = Keys::new(Arc::new(store.clone()), Env::system());
    let key = keys.add(new, &Attribution::new("bench")).await?.1;
    let messenger = SqliteMessenger::new(&store);
    let desk = GameServer::builder(store.clone()).messenger(messenger.clone()).start().await?;
    let host = Host::new(HostParts {
        store: Arc::new(store.clone()),
        messenger: Arc::new(messenger),
        settings: Settings::default(),
        env: Env::system(),
    })?;
    let listen = Some(listen.to_owned());
    // The bench asks as fast as it can.
    let requests_per_second = Some(1_000_000);
    let config = Options { listen, requests_per_second, ..Options::default() }
        .settle()
        .map_err(|problems| problems.join("; "))?;
    let listening = Server::bind(&config).await?;
    let address = listening.address()?;
    let parts = Parts {
        store: Arc::new(store),
        server: desk,
        host: Some(host),
        env: Env::system(),
        metrics: profilestore_server::record_metrics(),
    };
    let app = App::new(parts, &config);
    let (leave, told) = tokio::sync::oneshot::channel::<()>();
    let leaving = app.clone();
    let stop = async move {
        let _ = told.await;
        leaving.send_away().await;
    };
    let mut serving = pin!(listening.serve(app.router(), stop));
    println!("{address} {key}");
    // Without a word what is under way need not be finished: the game servers are gone.
    let leaves = tokio::select! {
        _ = &mut serving => false,
        leaves = is_told() => leaves,
    };
    if leaves && leave.send(()).is_ok() {
        serving.await;
    }
    std::process::exit(0)
}

/// A handler that answers the bytes of a file.
pub(crate) async fn bare(body: &Path) -> Outcome {
    let body = Bytes::from(fs::read(body)?);
    let answer = move || async move { ([(header::CONTENT_TYPE, "application/json")], body) };
    let router = Router::new().route("/", get(answer));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("{} none", listener.local_addr()?);
    axum::serve(listener, router).with_graceful_shutdown(until_let_go()).await?;
    Ok(())
}
