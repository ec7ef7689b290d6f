//! One game server: its stores, and what players can do.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use profilestore::{GameServer, ProfileStore, env::Env};
use serde::Deserialize;

use crate::{
    Result,
    board::{self, Board},
    guild::Guild,
    kept::Kept,
    player::{self, Player},
    refuse,
    seats::{Seat, Seated},
    shop,
    trade::Offer,
};

/// A running game. The program and the tests make the [`GameServer`].
#[derive(Debug)]
pub struct Game {
    pub server: GameServer,
    pub players: ProfileStore<Player>,
    pub guilds: ProfileStore<Guild>,
    pub boards: ProfileStore<Board>,
    /// Where the ids of new items come from.
    pub env: Env,
    pub(crate) seats: Mutex<BTreeMap<String, Seat>>,
    pub(crate) offers: Mutex<BTreeMap<u64, Offer>>,
    pub kept: Kept,
}

/// What a client asks for, as JSON: `{"do":"gift","to":"bob","coins":5}`.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Command {
    /// Tells the server that the client is still there.
    Ping,
    Fight,
    Daily,
    Buy {
        kind: String,
    },
    Gift {
        to: String,
        coins: u64,
    },
    GiveItem {
        to: String,
        item: String,
    },
    Offer {
        to: String,
        item: String,
        price: u64,
    },
    Accept {
        offer: u64,
    },
    Join {
        guild: String,
    },
    Deposit {
        coins: u64,
    },
    Withdraw {
        coins: u64,
    },
}

impl Game {
    pub fn start(server: GameServer, env: Env) -> Result<Arc<Self>> {
        let game = Arc::new(Self {
            players: player::store(&server)?,
            guilds: server.store_builder("Guilds").template(Guild::default()).build()?,
            boards: server.store_builder("Boards").template(Board::default()).build()?,
            server,
            env,
            seats: Mutex::default(),
            offers: Mutex::default(),
            kept: Kept::default(),
        });
        game.kept.keep(game.boards.clone(), board::TOP, Board::receive);
        Ok(game)
    }

    /// Does what a player asks for. The answer is a note for the player.
    pub async fn act(&self, seated: &Seated, command: Command) -> Result<String> {
        let profile = &seated.profile;
        match command {
            Command::Ping => Ok(String::new()),
            Command::Fight => {
                let win = |player: &mut Player| {
                    player.coins += 5;
                    player.score += 1;
                };
                profile.update_when_free(win).await?;
                Ok("You won 5 coins.".into())
            }
            Command::Daily => {
                let today = shop::day(self.server.now_ms());
                let reward = |player: &mut Player| shop::daily_reward(player, today);
                let coins = profile.try_update_when_free(reward).await?;
                Ok(format!("Your reward of today: {coins} coins."))
            }
            Command::Buy { kind } => {
                let id = self.env.uuid().to_string();
                profile.try_update_when_free(|player| shop::buy(player, &kind, id)).await?;
                Ok(format!("The {kind} is yours."))
            }
            Command::Gift { to, coins } => self.gift_coins(seated, &to, coins).await,
            Command::GiveItem { to, item } => self.gift_item(seated, &to, &item).await,
            Command::Offer { to, item, price } => self.offer(seated, &to, &item, price),
            Command::Accept { offer } => self.accept(seated, offer).await,
            Command::Join { guild } => self.join_guild(seated, &guild).await,
            Command::Deposit { coins } => self.deposit(seated, coins).await,
            Command::Withdraw { coins } => self.withdraw(seated, coins).await,
        }
    }

    /// Refuses names that nobody has.
    pub(crate) async fn expect_player(&self, name: &str) -> Result<()> {
        match self.players.get(name).await? {
            Some(_) => Ok(()),
            None => refuse(format!("Nobody is called {name}.")),
        }
    }
}

/// Whether a player or a guild can be called so.
pub fn is_name(name: &str) -> bool {
    (1..=20).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}
