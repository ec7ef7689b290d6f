//! Who plays here: login, a second login of the same player, leaving, and being told to go.
//!
//! The library knows which sessions are live ([`profilestore::ProfileStore::live`]). A player who
//! logs in twice takes the place of the first session, on this server or from another one, and the
//! first connection is told. A seat is only where a player's connection hears what happens.

use std::sync::atomic::{AtomicU64, Ordering};

use profilestore::{Profile, SessionEnd, StartOptions};
use tokio::sync::mpsc;

use crate::{Result, game::Game, player::Player, refuse};

/// What a connection is told.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The player's data is other than before.
    Changed,
    Note(String),
    /// The session is over. `again`: the client should log in again, perhaps on another server.
    Bye {
        text: String,
        again: bool,
    },
}

/// Where a connection hears events. One that does not listen for long misses some.
pub type Events = mpsc::Sender<Event>;

#[derive(Debug)]
pub(crate) struct Seat {
    connection: u64,
    events: Events,
}

/// A connection's hold on its player.
#[derive(Debug)]
pub struct Seated {
    pub name: String,
    pub profile: Profile<Player>,
    connection: u64,
}

/// Numbers the connections of this process.
static CONNECTIONS: AtomicU64 = AtomicU64::new(1);

impl Game {
    /// Starts a player's session. Waits for a hand-over if the player is on another server, and for
    /// the end of a lease if that server was killed.
    pub async fn login(&self, name: &str, events: Events) -> Result<Seated> {
        let options = StartOptions::new().supersede();
        let profile = self.players.start_session_with(name, options).await?;
        if profile.read(|player| player.banned_until_ms) > self.server.now_ms() {
            profile.end_session().await?;
            return refuse("You are banned.");
        }
        let connection = CONNECTIONS.fetch_add(1, Ordering::Relaxed);
        {
            let mut seats = self.seats.lock();
            // A session that is over has lost its seat, perhaps to a login that sits there by now.
            if !profile.is_over() {
                seats.insert(name.into(), Seat { connection, events: events.clone() });
            }
        }

        let changed = events.clone();
        profile.message_handler(move |player, message| {
            player.receive(message);
            let _ = changed.try_send(Event::Changed);
        });
        let ended = events.clone();
        profile.on_session_end(move |end| {
            let _ = ended.try_send(bye(&end));
        });
        if profile.is_over() {
            // Another login was that fast: the session ended before there was a listener.
            let _ = events.try_send(bye(&SessionEnd::External));
        }
        self.report_score(&profile, name);
        if let Some(guild) = profile.read(|player| player.guild.clone()) {
            self.keep_guild(&guild);
        }
        Ok(Seated { name: name.into(), profile, connection })
    }

    /// A connection is gone, and its session ends; not the one that took its place.
    pub async fn leave(&self, seated: &Seated) -> Result<()> {
        {
            let mut seats = self.seats.lock();
            if seats.get(&seated.name).is_some_and(|seat| seat.connection == seated.connection) {
                seats.remove(&seated.name);
            }
        }
        Ok(seated.profile.end_session().await?)
    }

    /// Tells a player something, if the player is here.
    pub(crate) fn tell(&self, name: &str, event: Event) {
        if let Some(seat) = self.seats.lock().get(name) {
            let _ = seat.events.try_send(event);
        }
    }

    /// The names of the players who are here.
    pub fn here(&self) -> Vec<String> {
        self.seats.lock().keys().cloned().collect()
    }
}

/// What a player is told at the end of a session.
fn bye(end: &SessionEnd) -> Event {
    let (text, again) = match end {
        SessionEnd::Superseded => ("You have logged in again elsewhere.", false),
        SessionEnd::External => ("You play on another server now.", false),
        SessionEnd::Shutdown => ("This server stops. Your things are saved.", true),
        SessionEnd::Lost => ("This server has lost you.", true),
        SessionEnd::Operator { entry, .. } => {
            let text = format!("An administrator ended your session: {}.", entry.by.reason);
            return Event::Bye { text, again: false };
        }
        _ => ("Your session was ended.", false),
    };
    Event::Bye { text: text.into(), again }
}
