//! A trade between players on two servers that no crash can break: an escrow, itself a profile,
//! holds both items until it settles.
//!
//! ```text
//! alice's server   one commit: the sword leaves alice's data, which remembers the trade, and
//!                  becomes a message to the escrow
//! bob's server     one commit: the same with the shield
//! any server       one commit: both items leave the escrow, as messages to bob and alice (or back,
//!                  after the deadline)
//! each server      one commit: the message becomes an item, and the trade is forgotten
//! ```
//!
//! Between two commits every item is in exactly one place. A player who has put something into a
//! trade remembers it until something comes back, so the server that opens the profile next
//! finishes the trade. Two servers that settle at once meet at the escrow's session: one gets it,
//! the other finds it settled.
//!
//! `cargo run -p profilestore --example trade_across_servers`

use std::{collections::BTreeMap, error::Error, path::Path, time::Duration};

use profilestore::{
    GameServer, MessageId, Profile, ProfileStore, Settings,
    data_store::{SqliteMessenger, SqliteStore},
    env::Env,
};
use serde::{Deserialize, Serialize};

type Outcome<T> = Result<T, Box<dyn Error>>;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Player {
    items: Vec<String>,
    /// Trades into which the player has put something, until something comes back.
    open_trades: BTreeMap<String, Terms>,
}

/// What two players agreed on.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Terms {
    /// The escrow's key.
    trade: String,
    created_ms: i64,
    /// A player who has not got the other's item by then gets their own item back.
    deadline_ms: i64,
    /// Who gives what.
    sides: [(String, String); 2],
}

/// The message that puts an item into the escrow.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Deposit {
    from: String,
    item: String,
    terms: Terms,
}

/// The message that takes an item out of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Delivery {
    trade: String,
    item: String,
}

/// The data of a trade's own profile.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Escrow {
    terms: Terms,
    /// Deposits that have not come out yet: (player, item).
    held: Vec<(String, String)>,
    closed: bool,
}

impl Escrow {
    /// What comes out now, and to whom.
    fn settle(&mut self, now_ms: i64) -> Vec<(String, String)> {
        let [one, other] = &self.terms.sides;
        if !self.closed && self.held.contains(one) && self.held.contains(other) {
            self.closed = true;
            self.held.clear();
            return vec![(one.0.clone(), other.1.clone()), (other.0.clone(), one.1.clone())];
        }
        if self.closed || now_ms >= self.terms.deadline_ms {
            // What comes later than this goes straight back.
            self.closed = true;
            return std::mem::take(&mut self.held);
        }
        Vec::new()
    }
}

/// A game server with its two stores.
struct Host {
    server: GameServer,
    players: ProfileStore<Player>,
    trades: ProfileStore<Escrow>,
    env: Env,
}

impl Host {
    async fn start(name: &str, file: &Path) -> Outcome<Self> {
        let store = SqliteStore::open(file, Default::default())?;
        // Short, so that this example need not wait long for the dead.
        let (lease_time, renew_period) = (Duration::from_secs(1), Duration::from_millis(250));
        let settings = Settings { lease_time, renew_period, ..Settings::default() };
        let builder = GameServer::builder(store.clone())
            .messenger(SqliteMessenger::new(&store))
            .settings(settings);
        let server = builder.job_id(name).start().await?;
        let players = server.store_builder("PlayerData").template(Player::default()).build()?;
        let trades = server.store_builder("Trades").template(Escrow::default()).build()?;
        Ok(Self { server, players, trades, env: Env::system() })
    }

    /// Starts a player's session, takes what comes for the player, and finishes open trades.
    async fn join(&self, name: &str) -> Outcome<Profile<Player>> {
        let profile = self.players.start_session(name).await?;
        profile.message_handler(|data, message| {
            if let Ok(delivery) = message.parse::<Delivery>() {
                data.items.push(delivery.item);
                data.open_trades.remove(&delivery.trade);
                message.processed();
            }
        });
        for trade in profile.read(|data| data.open_trades.keys().cloned().collect::<Vec<_>>()) {
            self.settle(&trade).await?;
        }
        Ok(profile)
    }

    /// The item leaves the player's data and is on its way into the escrow, or neither. False when
    /// the player does not have it.
    async fn deposit(&self, profile: &Profile<Player>, terms: &Terms) -> Outcome<bool> {
        let (from, trades, terms) = (profile.clone(), self.trades.clone(), terms.clone());
        let given = self.server.transaction().with(profile).run(move |tx| {
            let name = from.key().key().to_owned();
            let Some((_, item)) = terms.sides.iter().find(|(who, _)| *who == name).cloned() else {
                return Ok(false);
            };
            let had = tx.edit(&from, |data| {
                let at = data.items.iter().position(|other| *other == item)?;
                data.open_trades.insert(terms.trade.clone(), terms.clone());
                Some(data.items.swap_remove(at))
            })?;
            if had.is_none() {
                return Ok(false);
            }
            // An identity that does not change: putting it in twice would be an error of the
            // program, and is refused as such.
            let id = MessageId::new(terms.created_ms, &format!("deposit of {name}"))
                .expect("it is short");
            tx.gift_as(
                &trades,
                &terms.trade,
                &id,
                &Deposit { from: name, item, terms: terms.clone() },
            )?;
            Ok::<_, profilestore::Error>(true)
        });
        Ok(given.await?)
    }

    /// Settles a trade if it can be settled by now; harmless at any time, from any server.
    async fn settle(&self, trade: &str) -> Outcome<()> {
        let escrow = self.trades.start_session(trade).await?;
        escrow.message_handler(|data, message| {
            if let Ok(deposit) = message.parse::<Deposit>() {
                // The first deposit's terms count. A player who agreed on other terms gets
                // their own item back in the end.
                if data.terms.trade.is_empty() {
                    data.terms = deposit.terms;
                }
                data.held.push((deposit.from, deposit.item));
                message.processed();
            }
        });
        let (emptied, players, now_ms) = (escrow.clone(), self.players.clone(), self.env.unix_ms());
        let settled = self.server.transaction().with(&escrow).run(move |tx| {
            let out = tx.edit(&emptied, |data| data.settle(now_ms))?;
            for (to, item) in &out {
                tx.gift(
                    &players,
                    to,
                    &Delivery { trade: emptied.key().key().to_owned(), item: item.clone() },
                )?;
            }
            Ok::<_, profilestore::Error>(out)
        });
        let settled = settled.await;
        escrow.end_session().await?;
        for (to, item) in settled? {
            println!("  {} settled {trade}: the {item} goes to {to}", self.server.job_id());
        }
        Ok(())
    }

    fn terms(&self, trade: &str, time: Duration, sides: [(&str, &str); 2]) -> Terms {
        let created_ms = self.env.unix_ms();
        let deadline_ms = created_ms + i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        Terms {
            trade: trade.into(),
            created_ms,
            deadline_ms,
            sides: sides.map(|(who, item)| (who.into(), item.into())),
        }
    }
}

/// Waits until a player has exactly this, and no trade is open any more.
async fn expect(profile: &Profile<Player>, items: &[&str]) {
    let settled = async {
        while !profile.read(|data| data.items == items && data.open_trades.is_empty()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(20), settled).await;
    assert!(in_time.is_ok(), "{} has {:?}", profile.key(), profile.data());
    println!("  {} has {items:?}", profile.key().key());
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("profiles.db");
    let (one, two) = (Host::start("server-1", &file).await?, Host::start("server-2", &file).await?);
    let (alice, bob) = (one.join("alice").await?, two.join("bob").await?);
    alice.update(|data| data.items.push("sword".into()))?;
    bob.update(|data| data.items.push("shield".into()))?;

    println!("a trade from server to server:");
    let terms =
        one.terms("trade-1", Duration::from_secs(60), [("alice", "sword"), ("bob", "shield")]);
    assert!(one.deposit(&alice, &terms).await?);
    assert!(!one.deposit(&alice, &terms).await?, "the sword has left her");
    one.settle("trade-1").await?; // too early: nothing happens
    assert!(two.deposit(&bob, &terms).await?);
    two.settle("trade-1").await?;
    expect(&alice, &["shield"]).await;
    expect(&bob, &["sword"]).await;

    println!("both servers die in the middle of one:");
    let terms =
        one.terms("trade-2", Duration::from_secs(60), [("alice", "shield"), ("bob", "sword")]);
    assert!(one.deposit(&alice, &terms).await? && two.deposit(&bob, &terms).await?);
    // Dropped without a shutdown: nothing is saved, nothing released.
    drop((alice, bob));
    drop((one, two));
    let three = Host::start("server-3", &file).await?;
    let (alice, bob) = (three.join("alice").await?, three.join("bob").await?);
    expect(&alice, &["sword"]).await;
    expect(&bob, &["shield"]).await;

    println!("one whose other side never comes:");
    let terms =
        three.terms("trade-3", Duration::from_millis(300), [("alice", "sword"), ("bob", "shield")]);
    assert!(three.deposit(&alice, &terms).await?);
    tokio::time::sleep(Duration::from_millis(400)).await;
    three.settle("trade-3").await?;
    expect(&alice, &["sword"]).await;
    // Too late: it comes straight back.
    assert!(three.deposit(&bob, &terms).await?);
    three.settle("trade-3").await?;
    expect(&bob, &["shield"]).await;

    assert!(three.server.shutdown().await.is_complete());
    println!("every item is where it belongs");
    Ok(())
}
