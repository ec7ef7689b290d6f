//! Reserved servers: a script reserves one, and it starts when players are first sent there. Nobody
//! comes to it otherwise.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use mlua::{Lua, Table};

use super::world::{Server, World};
use crate::vm::{Failed, Vm};

/// A server that is to be started.
pub(crate) struct Opening {
    /// Its place in the world.
    pub(crate) server: usize,
    pub(crate) job_id: String,
}

/// What scripts have reserved, by its access code.
#[derive(Default)]
pub(super) struct Reservations(BTreeMap<String, Reservation>);

struct Reservation {
    /// `game.PrivateServerId` there.
    private_id: String,
    /// Once players were sent there.
    server: Option<usize>,
}

impl World {
    /// Reserves a server: its access code, and what its `game.PrivateServerId` will be.
    fn reserve(&self) -> (String, String) {
        let (code, private_id) = (self.env.uuid().to_string(), self.env.uuid().to_string());
        let reservation = Reservation { private_id: private_id.clone(), server: None };
        self.inner.lock().reservations.0.insert(code.clone(), reservation);
        (code, private_id)
    }

    /// What `game.PrivateServerId` is on the server that was reserved with this code.
    fn private_id_of(&self, code: &str) -> Option<String> {
        let inner = self.inner.lock();
        let found = inner.reservations.0.get(code);
        found.map(|reservation| reservation.private_id.clone())
    }

    /// The server that was reserved with this code; it begins to start if it has not yet.
    pub(super) fn reserved_server(&self, code: &str) -> Option<usize> {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        let reservation = inner.reservations.0.get_mut(code)?;
        if reservation.server.is_none() {
            let (server, job_id) = (inner.servers.len(), self.env.uuid().to_string());
            inner.servers.push(Server::new(job_id.clone(), false));
            reservation.server = Some(server);
            // Nobody receives any more when the game is over; then nobody arrives either.
            let _ = self.openings.send(Opening { server, job_id });
        }
        reservation.server
    }

    /// `game.PrivateServerId` of a server: empty for one that everybody may join.
    pub(super) fn private_id(&self, server: usize) -> String {
        let inner = self.inner.lock();
        let mut reservations = inner.reservations.0.values();
        let found = reservations.find(|reservation| reservation.server == Some(server));
        found.map(|reservation| reservation.private_id.clone()).unwrap_or_default()
    }

    /// Waits until a server's scripts have begun.
    pub(super) async fn has_started(&self, server: usize) {
        while !self.inner.lock().servers[server].is_started {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// A server's scripts have begun.
    pub(crate) fn started(&self, server: usize) {
        self.inner.lock().servers[server].is_started = true;
    }
}

pub(super) fn install(vm: &Vm, host: &Table, world: &Arc<World>) -> Result<(), Failed> {
    let own = world.clone();
    host.set("reserve", vm.prompt(move |_: &Lua, ()| Ok(own.reserve()))?)?;
    let own = world.clone();
    let private_id = move |_: &Lua, code: String| Ok(own.private_id_of(&code));
    host.set("private_id_of", vm.prompt(private_id)?)?;
    Ok(())
}
