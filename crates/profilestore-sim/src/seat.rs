//! A session's handle. The same profiles are opened through several store objects and as several
//! types, as programs do whose parts do not know of each other.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
};

use profilestore::{
    GameServer, Message, Profile, ProfileKey, ProfileStore, Result, SessionEnd, StartOptions,
    Transaction, TransactionBuilder,
};
use serde::{Deserialize, Deserializer, Serialize};

use crate::{data::Player, meanwhile};

/// The same data as another type. While the library decodes it, another thread may call.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(transparent)]
pub struct Visitor(pub Player);

impl<'de> Deserialize<'de> for Visitor {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let player = Player::deserialize(from)?;
        meanwhile::comes_in();
        Ok(Self(player))
    }
}

/// Through which store object a session is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    Main,
    /// A second object of the same name and type.
    Side,
    /// An object of the same name and another type.
    Visitors,
}

/// A game server's store objects of one name.
#[derive(Clone)]
pub struct Doors {
    pub main: ProfileStore<Player>,
    side: ProfileStore<Player>,
    visitors: ProfileStore<Visitor>,
}

/// A start under way.
pub type Starting = Pin<Box<dyn Future<Output = Result<Seat>> + Send>>;

impl Doors {
    pub fn new(server: &GameServer, name: &str) -> Self {
        let store = || {
            let built = server.store_builder(name).template(Player::default()).build();
            built.expect("the store's name and template are right")
        };
        let visitors = server.store_builder(name).template(Visitor::default()).build();
        let visitors = visitors.expect("the store's name and template are right");
        Self { main: store(), side: store(), visitors }
    }

    /// Calls a start. It is under way when this returns.
    pub fn start(&self, door: Door, key: &str, options: StartOptions) -> Starting {
        let players = match door {
            Door::Main => &self.main,
            Door::Side => &self.side,
            Door::Visitors => {
                let start = self.visitors.start_session_with(key, options);
                return Box::pin(async move { start.await.map(Seat::Visitor) });
            }
        };
        let start = players.start_session_with(key, options);
        Box::pin(async move { start.await.map(Seat::Player) })
    }
}

/// A session's handle.
#[derive(Clone)]
pub enum Seat {
    Player(Profile<Player>),
    Visitor(Profile<Visitor>),
}

/// The same for both types.
macro_rules! of_either {
    ($seat:expr, $profile:ident => $answer:expr) => {
        match $seat {
            Seat::Player($profile) => $answer,
            Seat::Visitor($profile) => $answer,
        }
    };
}

impl Seat {
    /// True when the data behind the handle is of the handle's type.
    pub fn fits(&self) -> bool {
        catch_unwind(AssertUnwindSafe(|| self.read(|_| ()))).is_ok()
    }

    pub fn key(&self) -> &ProfileKey {
        of_either!(self, profile => profile.key())
    }

    pub fn is_active(&self) -> bool {
        of_either!(self, profile => profile.is_active())
    }

    pub fn is_over(&self) -> bool {
        of_either!(self, profile => profile.is_over())
    }

    pub fn read<R>(&self, look: impl FnOnce(&Player) -> R) -> R {
        match self {
            Self::Player(profile) => profile.read(look),
            Self::Visitor(profile) => profile.read(|visitor| look(&visitor.0)),
        }
    }

    pub fn update<R>(&self, edit: impl FnOnce(&mut Player) -> R) -> Result<R> {
        match self {
            Self::Player(profile) => profile.update(edit),
            Self::Visitor(profile) => profile.update(|visitor| edit(&mut visitor.0)),
        }
    }

    /// Calls a save. It is under way when this returns, as with the calls that follow.
    pub fn save(&self) -> Pin<Box<dyn Future<Output = Result<()>> + Send>> {
        of_either!(self, profile => Box::pin(profile.save()))
    }

    pub fn end_session(&self) -> Pin<Box<dyn Future<Output = Result<()>> + Send>> {
        of_either!(self, profile => Box::pin(profile.end_session()))
    }

    pub fn add_user_id(&self, user: i64) -> Result<()> {
        of_either!(self, profile => profile.add_user_id(user))
    }

    pub fn on_session_end(&self, listener: impl Fn(SessionEnd) + Send + Sync + 'static) {
        of_either!(self, profile => profile.on_session_end(listener));
    }

    pub fn on_after_save(&self, listener: impl Fn(&Player) + Send + Sync + 'static) {
        match self {
            Self::Player(profile) => profile.on_after_save(listener),
            Self::Visitor(profile) => profile.on_after_save(move |visitor| listener(&visitor.0)),
        };
    }

    pub fn message_handler(
        &self,
        handler: impl Fn(&mut Player, &Message<'_>) + Send + Sync + 'static,
    ) {
        match self {
            Self::Player(profile) => profile.message_handler(handler),
            Self::Visitor(profile) => {
                profile.message_handler(move |visitor, message| handler(&mut visitor.0, message));
            }
        }
    }

    /// Names the profile as one that takes part in a transaction.
    pub fn joins(&self, transaction: TransactionBuilder) -> TransactionBuilder {
        of_either!(self, profile => transaction.with(profile))
    }

    /// Edits the profile in a transaction.
    pub fn edit_in<R>(
        &self,
        tx: &mut Transaction<'_>,
        edit: impl FnOnce(&mut Player) -> R,
    ) -> Result<R> {
        match self {
            Self::Player(profile) => tx.edit(profile, edit),
            Self::Visitor(profile) => tx.edit(profile, |visitor| edit(&mut visitor.0)),
        }
    }
}
