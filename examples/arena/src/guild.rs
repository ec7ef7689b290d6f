//! Guilds: a bank that one server holds and members change from any server.
//!
//! Coins go in and out as messages. Each is in one place at any time: with the player, on the way,
//! or in the bank.

use std::collections::BTreeSet;

use profilestore::{Message, ProfileStore};
use serde::{Deserialize, Serialize};

use crate::{
    Error, Result,
    game::{Game, is_name},
    player::{Mail, Player},
    refuse,
    seats::Seated,
};

/// A guild's data.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Guild {
    pub bank: u64,
    pub members: BTreeSet<String>,
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
    /// The handler of messages. What it pays is sent in the commit that debits the bank.
    fn receive(&mut self, message: &Message<'_>, players: &ProfileStore<Player>, name: &str) {
        match message.parse() {
            Ok(GuildMail::Join { name }) => {
                self.members.insert(name);
            }
            Ok(GuildMail::Deposit { coins, .. }) => self.bank += coins,
            Ok(GuildMail::Withdraw { by, coins }) => {
                // Two members may ask for the same coins: the first gets them.
                let mail = Mail::Coins { from: name.to_owned(), coins };
                if self.members.contains(&by)
                    && self.bank >= coins
                    && message.gift(players, &by, &mail).is_ok()
                {
                    self.bank -= coins;
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
        let (players, name) = (self.players.clone(), guild.to_owned());
        self.kept.keep(self.guilds.clone(), guild, move |guild, message| {
            guild.receive(message, &players, &name);
        });
    }

    /// The player becomes a member; the guild is founded if it is new.
    pub async fn join_guild(&self, seated: &Seated, guild: &str) -> Result<String> {
        if !is_name(guild) {
            return refuse("A guild's name has 1 to 20 letters and digits.");
        }
        let (guilds, to, name) = (self.guilds.clone(), guild.to_owned(), seated.name.clone());
        let joined =
            self.server.transaction().between((&seated.profile,)).run(move |tx, (member,)| {
                tx.gift(&guilds, &to, &GuildMail::Join { name })?;
                member.guild = Some(to);
                Ok::<_, Error>(())
            });
        joined.await?;
        self.keep_guild(guild);
        Ok(format!("You are in {guild}."))
    }

    pub async fn deposit(&self, seated: &Seated, coins: u64) -> Result<String> {
        let guild = guild_of(seated)?;
        let (guilds, from) = (self.guilds.clone(), seated.name.clone());
        let paid =
            self.server.transaction().between((&seated.profile,)).run(move |tx, (member,)| {
                member.pay(coins)?;
                tx.gift(&guilds, &guild, &GuildMail::Deposit { from, coins })?;
                Ok::<_, Error>(())
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
