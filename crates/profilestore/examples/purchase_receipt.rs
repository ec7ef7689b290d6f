//! Purchases that are granted once and confirmed only when they are saved.
//!
//! A payment provider reports a purchase again and again until it is confirmed. So the grant and
//! the purchase's id go into the data in one edit, and the confirmation waits until that edit is
//! durable. A crash in between costs nothing: the next report finds the id, or grants anew.
//!
//! `cargo run -p profilestore --example purchase_receipt`

use std::error::Error;

use profilestore::{ErrorKind, GameServer, Profile, data_store::SqliteStore};
use serde::{Deserialize, Serialize};

/// How many purchase ids a profile remembers. Far more than a provider leaves unconfirmed.
const REMEMBERED: usize = 100;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Player {
    coins: u64,
    purchases: Vec<String>,
}

#[derive(Debug, PartialEq)]
enum Decision {
    Granted,
    /// Report it again later.
    NotProcessedYet,
}

async fn process_receipt(
    profile: &Profile<Player>,
    purchase: &str,
    coins: u64,
) -> Result<Decision, Box<dyn Error>> {
    if !profile.is_active() {
        return Ok(Decision::NotProcessedYet);
    }
    let granted = profile.update(|data| {
        if !data.purchases.iter().any(|id| id == purchase) {
            data.coins += coins;
            data.purchases.push(purchase.to_owned());
            if data.purchases.len() > REMEMBERED {
                data.purchases.remove(0);
            }
        }
    });
    match granted {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::SessionEnded => {
            return Ok(Decision::NotProcessedYet);
        }
        Err(error) => return Err(error.into()),
    }
    match profile.save().await {
        Ok(()) => Ok(Decision::Granted),
        Err(error) => {
            println!("{purchase}: not saved ({error}), to be reported again");
            Ok(Decision::NotProcessedYet)
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let server = GameServer::builder(SqliteStore::open(
        folder.path().join("profiles.db"),
        Default::default(),
    )?)
    .start()
    .await?;
    let players = server.store_builder("PlayerData").template(Player::default()).build()?;
    let profile = players.start_session("1").await?;

    assert_eq!(process_receipt(&profile, "purchase-1", 100).await?, Decision::Granted);
    // The provider did not hear the confirmation and reports it again.
    assert_eq!(process_receipt(&profile, "purchase-1", 100).await?, Decision::Granted);
    assert_eq!(profile.last_saved_data().coins, 100);
    profile.end_session().await?;
    // The player has left: the purchase waits for the next session.
    assert_eq!(process_receipt(&profile, "purchase-2", 50).await?, Decision::NotProcessedYet);
    let profile = players.start_session("1").await?;
    assert_eq!(process_receipt(&profile, "purchase-2", 50).await?, Decision::Granted);
    println!(
        "coins: {}, purchases: {:?}",
        profile.read(|data| data.coins),
        profile.read(|data| data.purchases.clone())
    );
    assert_eq!(profile.last_saved_data().coins, 150);
    assert!(server.shutdown().await.is_complete());
    Ok(())
}
