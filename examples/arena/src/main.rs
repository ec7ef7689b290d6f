//! One server of the game. `cargo run -p arena -- --help`

use std::{error::Error, net::SocketAddr, time::Duration};

use arena::{
    game::Game,
    web::{Web, router},
};
use clap::Parser;
use metrics_exporter_prometheus::PrometheusBuilder;
use profilestore::{
    GameServer, Settings,
    data_store::{SqliteMessenger, SqliteStore},
    env::Env,
};
use tokio::{net::TcpListener, sync::mpsc, time::timeout};

/// One server of a small game. Start several on one store.
#[derive(Debug, Parser)]
struct Args {
    /// Where it listens; also its name. Port 0 takes a free one and prints it
    #[arg(long, default_value = "127.0.0.1:8001")]
    listen: SocketAddr,
    /// sqlite:PATH, or postgres://USER@HOST/DATABASE (with the feature `postgres`)
    #[arg(long, default_value = "sqlite:arena.db")]
    store: String,
    /// The addresses of all servers, which the page offers
    #[arg(long, value_delimiter = ',', default_value = "127.0.0.1:8001,127.0.0.1:8002")]
    servers: Vec<String>,
    /// What administrators and payment providers must show
    #[arg(long, env = "ARENA_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let args = Args::parse();
    let metrics = PrometheusBuilder::new().install_recorder()?;
    profilestore::describe_metrics();
    let listener = TcpListener::bind(args.listen).await?;
    let address = listener.local_addr()?;
    let server = open(&args.store, &address.to_string()).await?;
    let game = Game::start(server.clone(), Env::system())?;
    println!("http://{address}");

    let upkeep = metrics.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(5)).await;
            upkeep.run_upkeep();
        }
    });
    let (open, mut closed) = mpsc::channel(1);
    let app = router(Web { game, metrics, token: args.token, servers: args.servers, open });
    let report = tokio::select! {
        biased;
        report = server.shutdown_on_signal() => report?,
        served = axum::serve(listener, app) => return Ok(served?),
    };
    // Everything is saved. The connections say goodbye.
    let _ = timeout(Duration::from_secs(2), closed.recv()).await;
    for (profile, error) in &report.not_saved {
        eprintln!("not saved: {profile}: {error}");
    }
    if report.is_complete() { Ok(()) } else { Err("not everything was saved".into()) }
}

/// The game server on its store. The lease is short, so that players of a server that was killed
/// are back within seconds, and a crash costs at most a second of play.
async fn open(place: &str, name: &str) -> Result<GameServer, Box<dyn Error>> {
    let settings = Settings {
        lease_time: Duration::from_secs(5),
        renew_period: Duration::from_secs(1),
        save_changes_within: Some(Duration::from_secs(1)),
        ..Settings::default()
    };
    #[cfg(feature = "postgres")]
    if place.starts_with("postgres") {
        let options: profilestore::data_store::PostgresOptions = place.parse()?;
        let store = profilestore::data_store::PostgresStore::open(options.clone()).await?;
        let hints = profilestore::messenger::PostgresMessenger::new(options)?;
        let server = GameServer::builder(store).messenger(hints).settings(settings).job_id(name);
        return Ok(server.start().await?);
    }
    let path = place.strip_prefix("sqlite:").ok_or(
        "a store is sqlite:PATH, or postgres://USER@HOST/DATABASE with the feature `postgres`",
    )?;
    let file = SqliteStore::open(path, Default::default())?;
    let hints = SqliteMessenger::new(&file);
    let server = GameServer::builder(file).messenger(hints).settings(settings).job_id(name);
    Ok(server.start().await?)
}
