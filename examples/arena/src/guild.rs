//! Guilds: a bank that one server holds and members change from any server.
//!
//! Coins go in and out as messages. Each is in one place at any time: with the player, on the way,
//! or in the bank.

use std::{collections::BTreeSet, time::Duration};

use profilestore::{Message, Profile};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use crate::{
    Result,
    game::{Game, is_name},
    player::Mail,
    refuse,
    seats::Seated,
};

/// A guild's data.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Guild {
    pub bank: u64,
    pub members: BTreeSet<String>,
    /// What has left the bank and is not sent yet.
    pub owed: Vec<(String, u64)>,
}

/// What members send to their guild.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuildMail {
    Join { name: String },
    Deposit { from: String, coins: u64 },
    Withdraw { by: String, coins: u64 },
}

impl Guild {
    fn receive(&mut self, message: &Message<'_>) {
        match message.parse() {
            Ok(GuildMail::Join { name }) => {
                self.members.insert(name);
            }
            Ok(GuildMail::Deposit { coins, .. }) => self.bank += coins,
            Ok(GuildMail::Withdraw { by, coins }) => {
                // Two members may ask for the same coins: the first gets them.
                if self.members.contains(&by) && self.bank >= coins {
                    self.bank -= coins;
                    self.owed.push((by, coins));
                }
            }
            Err(_) => return,
        }
        message.processed();
    }
}

impl Game {
    /// Keeps a guild of which a member plays here.
    pub(crate) fn keep_guild(&self, guild: &str) {
        let players = self.players.clone();
        self.kept.keep(self.guilds.clone(), guild, Guild::receive, move |guild| {
            let players = players.clone();
            async move {
                while !guild.is_over() {
                    if let Err(error) = pay(&guild, &players).await {
                        tracing::warn!(%error, guild = %guild.key(), "a guild cannot pay now");
                    }
                    sleep(Duration::from_millis(200)).await;
                }
            }
        });
    }

    /// The player becomes a member; the guild is founded if it is new.
    pub async fn join_guild(&self, seated: &Seated, guild: &str) -> Result<String> {
        if !is_name(guild) {
            return refuse("A guild's name has 1 to 20 letters and digits.");
        }
        let (member, guilds) = (seated.profile.clone(), self.guilds.clone());
        let (name, to) = (seated.name.clone(), guild.to_owned());
        let joined = self.server.transaction().with(&seated.profile).run(move |tx| {
            tx.edit(&member, |player| player.guild = Some(to.clone()))?;
            tx.gift(&guilds, &to, &GuildMail::Join { name })?;
            Ok::<_, crate::Error>(())
        });
        joined.await?;
        self.keep_guild(guild);
        Ok(format!("You are in {guild}."))
    }

    pub async fn deposit(&self, seated: &Seated, coins: u64) -> Result<String> {
        let guild = guild_of(seated)?;
        let (member, guilds) = (seated.profile.clone(), self.guilds.clone());
        let mail = GuildMail::Deposit { from: seated.name.clone(), coins };
        let paid = self.server.transaction().with(&seated.profile).run(move |tx| {
            tx.edit(&member, |player| player.pay(coins))??;
            tx.gift(&guilds, &guild, &mail)?;
            Ok::<_, crate::Error>(())
        });
        paid.await?;
        Ok(format!("{coins} coins are on the way to the bank."))
    }

    /// Asks for coins. They come by mail if the bank has them.
    pub async fn withdraw(&self, seated: &Seated, coins: u64) -> Result<String> {
        let mail = GuildMail::Withdraw { by: seated.name.clone(), coins };
        self.guilds.send_message(&guild_of(seated)?, &mail).await?;
        Ok("The guild was asked.".into())
    }
}

fn guild_of(seated: &Seated) -> Result<String> {
    match seated.profile.read(|player| player.guild.clone()) {
        Some(guild) => Ok(guild),
        None => refuse("You are in no guild."),
    }
}

/// Sends what the guild owes: it leaves the guild in the commit that sends it.
async fn pay(
    guild: &Profile<Guild>,
    players: &profilestore::ProfileStore<crate::player::Player>,
) -> Result<()> {
    let Some((to, coins)) = guild.read(|guild| guild.owed.first().cloned()) else { return Ok(()) };
    let (from, players, payer) = (guild.key().key().to_owned(), players.clone(), guild.clone());
    let server = players.server().clone();
    let paid = server.transaction().with(guild).run(move |tx| {
        tx.edit(&payer, |guild| guild.owed.remove(0))?;
        tx.gift(&players, &to, &Mail::Coins { from, coins })
    });
    Ok(paid.await?)
}
