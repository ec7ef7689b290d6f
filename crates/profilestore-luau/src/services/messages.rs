//! MessagingService: topics that all servers of a game hear, with Roblox's limits. Within one
//! process; what is published while nobody listens is gone.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use mlua::{Lua, Table};
use profilestore::GameServer;
use serde_json::json;
use tokio::time::Instant;

use super::world::World;
use crate::vm::{Answer, Failed, Vm};

/// The longest name of a topic, in characters.
const MAX_TOPIC: usize = 80;
/// The longest message, in characters of JSON.
const MAX_MESSAGE: usize = 1024;
const MINUTE: Duration = Duration::from_secs(60);

/// Who listens to what, and how much was said lately.
#[derive(Default)]
pub(super) struct Topics {
    /// Topic, then server: how many listeners it has there.
    listeners: BTreeMap<String, BTreeMap<usize, usize>>,
    sent: BTreeMap<usize, Count>,
    received: BTreeMap<String, Count>,
}

impl Topics {
    fn subscriptions(&self, server: usize) -> usize {
        self.listeners.values().filter_map(|servers| servers.get(&server)).sum()
    }

    fn add(&mut self, server: usize, topic: &str) {
        *self.listeners.entry(topic.to_owned()).or_default().entry(server).or_default() += 1;
    }

    fn remove(&mut self, server: usize, topic: &str) {
        let Some(servers) = self.listeners.get_mut(topic) else { return };
        if let Some(count) = servers.get_mut(&server) {
            *count -= 1;
            if *count == 0 {
                servers.remove(&server);
            }
        }
        if servers.is_empty() {
            self.listeners.remove(topic);
            self.received.remove(topic);
        }
    }

    /// A server is gone.
    pub(super) fn forget(&mut self, server: usize) {
        for servers in self.listeners.values_mut() {
            servers.remove(&server);
        }
        self.listeners.retain(|_, servers| !servers.is_empty());
    }
}

/// How often something happened in the current minute, which begins with the first time.
#[derive(Clone, Copy)]
struct Count {
    began: Instant,
    count: usize,
}

/// Counts once more, unless that is beyond the limit a minute.
fn allow(count: &mut Option<Count>, now: Instant, limit: usize) -> bool {
    let current = count.get_or_insert(Count { began: now, count: 0 });
    if now - current.began >= MINUTE {
        *current = Count { began: now, count: 0 };
    }
    if current.count >= limit {
        return false;
    }
    current.count += 1;
    true
}

fn check_topic(topic: &str) -> Answer<()> {
    let length = topic.chars().count();
    if (1..=MAX_TOPIC).contains(&length) {
        return Ok(());
    }
    Err(format!("MessagingService: a topic has 1 to {MAX_TOPIC} characters, and not {length}"))
}

impl World {
    fn subscribe(&self, server: usize, topic: &str) -> Answer<()> {
        check_topic(topic)?;
        let limit = 20 + 8 * self.players_on(server);
        let mut inner = self.inner.lock();
        if inner.topics.subscriptions(server) >= limit {
            return Err(format!(
                "MessagingService: a server with so many players has at most {limit} subscriptions"
            ));
        }
        inner.topics.add(server, topic);
        Ok(())
    }

    fn publish(self: &Arc<Self>, server: usize, topic: String, json: String) -> Answer<()> {
        check_topic(&topic)?;
        let length = json.chars().count();
        if length > MAX_MESSAGE {
            return Err(format!(
                "MessagingService: a message has at most {MAX_MESSAGE} characters \
                of JSON, and not {length}"
            ));
        }
        let limit = 600 + 240 * self.players_on(server);
        let now = self.env.now();
        {
            let mut inner = self.inner.lock();
            let mut count = inner.topics.sent.get(&server).copied();
            let allowed = allow(&mut count, now, limit);
            inner.topics.sent.extend(count.map(|count| (server, count)));
            if !allowed {
                return Err(format!(
                    "MessagingService: a server with so many players sends at most \
                    {limit} messages a minute"
                ));
            }
        }
        let sent = self.env.unix_ms();
        let world = self.clone();
        self.spawn(async move {
            tokio::time::sleep(world.latency).await;
            for server in world.hears(&topic) {
                world.tell(server, "message", (topic.as_str(), json.as_str(), sent / 1000));
            }
        });
        Ok(())
    }

    /// The servers that hear a message about this topic now; none when there were too many.
    fn hears(&self, topic: &str) -> Vec<usize> {
        let now = self.env.now();
        let limit = 40 + 80 * self.servers();
        let mut inner = self.inner.lock();
        let topics = &mut inner.topics;
        let Some(servers) = topics.listeners.get(topic) else { return Vec::new() };
        let servers: Vec<usize> = servers.keys().copied().collect();
        let mut count = topics.received.get(topic).copied();
        let allowed = allow(&mut count, now, limit);
        topics.received.extend(count.map(|count| (topic.to_owned(), count)));
        if allowed { servers } else { Vec::new() }
    }
}

/// Sessions of the published modules listen for requests and messages. What `game_server` asks of
/// one is published to it, as its own kind would do it.
pub(crate) fn reach_foreign_holders(world: &Arc<World>, server: usize, game_server: &GameServer) {
    let world = Arc::downgrade(world);
    game_server.on_foreign_holder(move |holder| {
        let Some(world) = world.upgrade() else { return };
        let message = match holder.wanted {
            true => json!({ "LoadCount": holder.load_count, "EndSession": true }),
            false => json!({ "LoadCount": holder.load_count }),
        };
        if let Err(error) =
            world.publish(server, format!("PS_{}", holder.session), message.to_string())
        {
            tracing::debug!(key = %holder.key, error, "the holder of a profile cannot be told");
        }
    });
}

pub(super) fn install(
    vm: &Vm,
    host: &Table,
    world: &Arc<World>,
    server: usize,
) -> Result<(), Failed> {
    // Both wait, as on Roblox, but for no time: messages take theirs on the way.
    let own = world.clone();
    let publish = move |_: &Lua, (topic, json): (String, String)| {
        own.publish(server, topic, json)?;
        Ok(async { Ok(()) })
    };
    host.set("publish", vm.waiting(publish)?)?;

    let own = world.clone();
    let subscribe = move |_: &Lua, topic: String| {
        own.subscribe(server, &topic)?;
        Ok(async { Ok(()) })
    };
    host.set("subscribe", vm.waiting(subscribe)?)?;

    let own = world.clone();
    let unsubscribe = move |_: &Lua, topic: String| {
        own.inner.lock().topics.remove(server, &topic);
        Ok(())
    };
    host.set("unsubscribe", vm.prompt(unsubscribe)?)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_minute_begins_with_the_first_count() {
        let mut count = None;
        let begin = Instant::now();
        assert!(allow(&mut count, begin, 2) && allow(&mut count, begin + MINUTE / 2, 2));
        assert!(!allow(&mut count, begin + MINUTE / 2, 2));
        assert!(allow(&mut count, begin + MINUTE, 2));
    }
}
