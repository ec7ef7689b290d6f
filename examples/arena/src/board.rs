//! The leaderboard: a profile that one server holds. Players' servers send scores to it.

use std::sync::atomic::{AtomicU64, Ordering};

use profilestore::{Message, Profile};
use serde::{Deserialize, Serialize};

use crate::{game::Game, player::Player};

/// The key of the one board.
pub const TOP: &str = "top";

/// How many places it has.
const PLACES: usize = 10;

/// The board's data: the best first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Board {
    pub best: Vec<Score>,
}

/// A player's score, as a place of the board and as a message to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Score {
    pub name: String,
    pub score: u64,
}

impl Board {
    pub(crate) fn receive(&mut self, message: &Message<'_>) {
        let Ok(new) = message.parse::<Score>() else { return };
        self.enter(new);
        message.processed();
    }

    /// Scores only grow, so an old message that comes late changes nothing.
    fn enter(&mut self, new: Score) {
        let before = self.best.iter().position(|place| place.name == new.name);
        let before = before.map(|at| self.best.remove(at));
        self.best.push(before.filter(|before| before.score > new.score).unwrap_or(new));
        self.best.sort_by(|a, b| b.score.cmp(&a.score).then_with(|| a.name.cmp(&b.name)));
        self.best.truncate(PLACES);
    }
}

impl Game {
    /// Sends the player's score whenever a save finds it higher than before. The message is under
    /// way when `send_message` returns; nothing waits for it, and the next save sends the next.
    pub(crate) fn report_score(&self, profile: &Profile<Player>, name: &str) {
        let (boards, name, sent) = (self.boards.clone(), name.to_owned(), AtomicU64::new(0));
        profile.on_after_save(move |player| {
            if sent.swap(player.score, Ordering::Relaxed) < player.score {
                let score = Score { name: name.clone(), score: player.score };
                drop(boards.send_message(TOP, &score));
            }
        });
    }
}
