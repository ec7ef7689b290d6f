//! Drivers, servers and books of one script: what a step does, and the end of all.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use profilestore::env::Env;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{
    books::{Books, Found},
    driver::{Driver, PATIENCE, Pending},
    proxy::Link,
    world::{Ground, World},
};

/// The lease time of the game servers.
pub(crate) const LEASE_MS: u64 = 10_000;

/// The data of a profile that begins.
pub(crate) fn template() -> Value {
    json!({ "coins": 0, "items": [], "got": {}, "gifts": 0, "edits": {} })
}

#[derive(Debug)]
struct Open {
    pending: Pending,
    command: Value,
    on: String,
}

/// A key that the script may revoke.
#[derive(Debug)]
pub(super) struct MadeKey {
    pub(super) id: String,
    pub(super) secret: String,
}

/// What a script or a run came to.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) wrong: Vec<String>,
    /// How many sessions were not let go in time for another game server that asked.
    pub(crate) late: u64,
}

#[derive(Debug)]
pub(crate) struct Stage {
    command: String,
    pub(crate) world: World,
    drivers: BTreeMap<String, Driver>,
    open: HashMap<String, Open>,
    /// Which profile a session's name stands for, by driver.
    sessions: HashMap<(String, String), String>,
    /// Which drivers wanted a profile.
    wanted: BTreeMap<String, BTreeSet<String>>,
    /// Keys that were made for drivers, by name.
    pub(super) keys: BTreeMap<String, MadeKey>,
    pub(super) books: Books,
    /// The time in the ids of messages.
    at_ms: i64,
}

/// Whether all that is expected is there; objects may have more.
pub(crate) fn fits(found: &Value, expected: &Value) -> bool {
    match (found, expected) {
        (Value::Object(found), Value::Object(expected)) => expected
            .iter()
            .all(|(name, value)| fits(found.get(name).unwrap_or(&Value::Null), value)),
        _ => found == expected,
    }
}

pub(super) fn text<'a>(step: &'a Value, name: &str, default: &'a str) -> &'a str {
    step[name].as_str().unwrap_or(default)
}

pub(super) fn millis(step: &Value, default: u64) -> Duration {
    Duration::from_millis(step["ms"].as_u64().unwrap_or(default))
}

impl Stage {
    pub(crate) async fn new(
        command: &str,
        ground: &Ground,
        servers: usize,
        drivers: &[String],
    ) -> Result<Self, String> {
        let world = World::new(ground, servers).await?;
        let mut stage = Self {
            command: command.to_owned(),
            world,
            drivers: BTreeMap::new(),
            open: HashMap::new(),
            sessions: HashMap::new(),
            wanted: BTreeMap::new(),
            keys: BTreeMap::new(),
            books: Books::default(),
            at_ms: Env::system().unix_ms(),
        };
        for name in drivers {
            stage.driver(name, None).await?;
        }
        Ok(stage)
    }

    /// Starts a driver and connects it, with a key that was made for it or with the kit's.
    pub(crate) async fn driver(&mut self, name: &str, key: Option<&str>) -> Result<(), String> {
        let key = match key {
            Some(name) => &self.keys.get(name).ok_or(format!("there is no key {name}"))?.secret,
            None => &self.world.key,
        };
        let mut driver = Driver::start(&self.command)?;
        let connect = json!({
            "do": "connect", "urls": self.world.urls(), "key": key,
            "job": name, "lease_ms": LEASE_MS, "store": self.world.store,
            "template": template(),
        });
        let until = Instant::now() + PATIENCE;
        let mut answer = driver.ask(connect.clone()).await?;
        // A first connection is given up after a while, which a slow machine can take.
        while answer["error"]["kind"] == "unavailable" && Instant::now() < until {
            answer = driver.ask(connect.clone()).await?;
        }
        if answer.get("error").is_some() {
            return Err(format!("{name} cannot connect: {}", answer["error"]));
        }
        self.drivers.insert(name.to_owned(), driver);
        Ok(())
    }

    fn of(&mut self, name: &str) -> Result<&mut Driver, String> {
        self.drivers.get_mut(name).ok_or_else(|| format!("there is no driver {name}"))
    }

    /// Does one step. What comes out otherwise than the step says is the error.
    pub(crate) async fn step(&mut self, step: &Value) -> Result<(), String> {
        let server = usize::try_from(step["server"].as_u64().unwrap_or(0)).unwrap_or(0);
        let on = text(step, "on", "one").to_owned();
        match text(step, "do", "") {
            "kill" => self.world.end(server, "KILL").await,
            "term" => self.world.end(server, "TERM").await,
            "run" => self.world.run(server).await?,
            "freeze" => self.world.freeze(server).await?,
            "thaw" => self.world.signal(server, "CONT").await,
            "way" => self.world.set(server, &link(step)?),
            "heal" => self.world.heal().await?,
            "sleep" => sleep(millis(step, 100)).await,
            "driver" => self.driver(&on, step["key"].as_str()).await?,
            "backup" => self.world.tool(&["backup", "backup.db"]).await?,
            "restore" => self.world.tool(&["restore", "backup.db", "--force"]).await?,
            "key" => self.make_key(step).await?,
            "revoke" => self.revoke(step).await?,
            "kill_driver" => self.kill_driver(&on).await?,
            "freeze_driver" => self.of(&on)?.signal("STOP").await,
            "thaw_driver" => self.of(&on)?.signal("CONT").await,
            "await" => return self.answered(step).await,
            "pending" => return self.still_pending(step).await,
            "event" => return self.event(&on, step).await,
            "active" => return self.active(&on, step).await,
            "stored" => return self.stored(step).await,
            "held" => return self.held(step).await,
            "inbox" => return self.inbox(step).await,
            "http" => return self.http(step).await,
            "edit" => return self.edit(step).await,
            "" => return Err("a step has `do`".into()),
            _ => return self.command(&on, step).await,
        }
        Ok(())
    }

    // --- what drivers do -----------------------------------------------------------------------

    /// Passes a command on, and waits for its answer unless the step says `later`.
    async fn command(&mut self, on: &str, step: &Value) -> Result<(), String> {
        let command = self.noted(on, step);
        let pending = self.of(on)?.tell(command.clone()).await;
        let open = Open { pending, command, on: on.to_owned() };
        if let Some(name) = step["later"].as_str() {
            self.open.insert(name.to_owned(), open);
            return Ok(());
        }
        self.outcome(open, step).await
    }

    /// The command as a driver gets it, with what the books have to know of it.
    fn noted(&mut self, on: &str, step: &Value) -> Value {
        let mut command = step.clone();
        let name = text(step, "as", "a").to_owned();
        command["as"] = name.clone().into();
        match text(step, "do", "") {
            "start" => {
                let key = text(step, "key", &name).to_owned();
                self.books.name(&key);
                self.sessions.insert((on.to_owned(), name), key.clone());
                self.wanted.entry(key.clone()).or_default().insert(on.to_owned());
                command["key"] = key.into();
            }
            "update" => {
                if let Some(item) = step["push"].as_str() {
                    self.books.make(item);
                }
            }
            "send" => {
                let (key, id) = (text(step, "key", "a"), text(step, "name", "gift"));
                let id = format!("{}:{id}", self.at_ms);
                let coins = step["coins"].as_u64().unwrap_or(1);
                self.books.send(key, &id, coins);
                command["key"] = key.into();
                command["id_of_message"] = id.into();
                command["coins"] = coins.into();
            }
            "trade" => {
                if let Some(gift) = step.get("gift") {
                    let id = format!("{}:{}", self.at_ms, text(gift, "name", "g"));
                    let coins = gift["coins"].as_u64().unwrap_or(1);
                    self.books.send(text(gift, "key", "a"), &id, coins);
                    command["gift"]["id"] = id.into();
                    command["gift"]["coins"] = coins.into();
                }
            }
            _ => {}
        }
        command
    }

    async fn outcome(&mut self, mut open: Open, step: &Value) -> Result<(), String> {
        let until = Instant::now() + PATIENCE;
        let mut answer = open.pending.wait().await?;
        // Nothing was done, as the lease was not confirmed just then: a slow machine is enough.
        while step["fails"].is_null()
            && answer["error"]["kind"] == "unconfirmed"
            && Instant::now() < until
        {
            sleep(Duration::from_millis(200)).await;
            answer = self.of(&open.on)?.ask(open.command.clone()).await?;
        }
        let command = &open.command;
        let what = || format!("{} on {}", command["do"], open.on);
        if let Some(error) = answer.get("error") {
            let kind = &error["kind"];
            return match &step["fails"] {
                Value::String(expected) if kind == expected => Ok(()),
                Value::Array(any) if any.contains(kind) => Ok(()),
                Value::Null => Err(format!("{} failed: {error}", what())),
                expected => Err(format!("{} fails with {error}, not {expected}", what())),
            };
        }
        let ok = &answer["ok"];
        // Also of what should have failed: the audit is to know of it.
        note_done(&mut self.books, command, ok);
        match &step["fails"] {
            Value::Null => {}
            // A list may say that it need not fail.
            Value::Array(any) if any.contains(&Value::Null) => {}
            expected => return Err(format!("{} did not fail with {expected}: {ok}", what())),
        }
        match step.get("gives") {
            Some(expected) if !fits(ok, expected) => {
                Err(format!("{} gives {ok}, not {expected}", what()))
            }
            _ => Ok(()),
        }
    }

    async fn answered(&mut self, step: &Value) -> Result<(), String> {
        let name = text(step, "of", "");
        let open = self.open.remove(name).ok_or_else(|| format!("nothing is open as {name}"))?;
        self.outcome(open, step).await
    }

    async fn still_pending(&mut self, step: &Value) -> Result<(), String> {
        let name = text(step, "of", "");
        let open = self.open.get_mut(name).ok_or_else(|| format!("nothing is open as {name}"))?;
        match tokio::time::timeout(millis(step, 300), &mut open.pending.answer).await {
            Err(_) => Ok(()),
            Ok(answer) => Err(format!("{name} was answered too early: {answer:?}")),
        }
    }

    async fn event(&mut self, on: &str, step: &Value) -> Result<(), String> {
        let (name, of) = (text(step, "name", "end"), text(step, "as", "a"));
        let driver = self.of(on)?;
        let found = driver.event(|event| event["name"] == name && event["as"] == of).await;
        let found = found.ok_or_else(|| format!("no event `{name}` came on {on}"))?;
        match step.get("gives") {
            Some(expected) if !fits(&found, expected) => {
                Err(format!("the event is {found}, not {expected}"))
            }
            _ => Ok(()),
        }
    }

    async fn active(&mut self, on: &str, step: &Value) -> Result<(), String> {
        let expected = step["is"].as_bool().unwrap_or(true);
        let until = Instant::now() + PATIENCE;
        loop {
            let state = json!({ "do": "state", "as": text(step, "as", "a") });
            let answer = self.of(on)?.ask(state).await?;
            if answer["ok"]["active"] == expected {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(format!("the session never came to active={expected}: {answer}"));
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) async fn kill_driver(&mut self, on: &str) -> Result<(), String> {
        self.of(on)?.kill().await;
        self.drivers.remove(on);
        self.open.retain(|_, open| open.on != on);
        Ok(())
    }

    // --- the end -------------------------------------------------------------------------------

    /// Everything is healed, the drivers close, and what is stored is audited.
    pub(crate) async fn finish(mut self, may_end: bool) -> Verdict {
        let (mut wrong, mut late) = (Vec::new(), 0);
        if let Err(why) = self.world.heal().await {
            return Verdict { wrong: vec![why], late };
        }
        for (name, open) in std::mem::take(&mut self.open) {
            if let Err(why) = self.outcome(open, &json!({})).await {
                wrong.push(format!("{name}: {why}"));
            }
        }
        for (name, mut driver) in std::mem::take(&mut self.drivers) {
            driver.signal("CONT").await;
            match driver.ask(json!({ "do": "close" })).await {
                Ok(answer) if answer["ok"]["unsaved"] == json!([]) => {
                    let saved = answer["ok"]["data"].as_array();
                    saved.into_iter().flatten().for_each(|data| self.books.keep(data));
                }
                Ok(answer) => wrong.push(format!("{name} closes with {answer}")),
                Err(why) => wrong.push(format!("{name}: {why}")),
            }
            for event in driver.events() {
                late += u64::from(event["reason"] == "external");
                if !self.is_explained(&name, &event, may_end) {
                    wrong.push(format!("{name} was told what no order explains: {event}"));
                }
            }
            driver.kill().await;
        }
        match self.found().await {
            Ok(found) => wrong.extend(self.books.audit(&found)),
            Err(why) => wrong.push(why),
        }
        Verdict { wrong, late }
    }

    /// Whether what was done explains an event that no step waited for.
    fn is_explained(&self, on: &str, event: &Value, may_end: bool) -> bool {
        match (event["name"].as_str(), event["reason"].as_str()) {
            (Some("release" | "save-failed"), _) => true,
            (Some("end"), Some("ended")) => event["loss"] == false,
            (Some("end"), Some("released")) => {
                may_end && event["loss"] == false && self.is_wanted(on, event)
            }
            // It was asked for, and did not let go in time. A slow machine is enough for that.
            (Some("end"), Some("external")) => may_end && self.is_wanted(on, event),
            _ => false,
        }
    }

    /// Whether another driver wanted the profile of an event.
    fn is_wanted(&self, on: &str, event: &Value) -> bool {
        let name = text(event, "as", "").to_owned();
        let wanted = self.sessions.get(&(on.to_owned(), name)).and_then(|key| self.wanted.get(key));
        wanted.is_some_and(|drivers| drivers.iter().any(|driver| driver != on))
    }

    /// What is stored, as a server process finds it that had no part in it.
    async fn found(&mut self) -> Result<BTreeMap<String, Found>, String> {
        self.world.end(0, "KILL").await;
        self.world.run(0).await?;
        let mut found = BTreeMap::new();
        for key in self.books.keys() {
            let profile = self.world.call("GET", &self.world.path(&key, ""), &[], None).await?;
            let inbox =
                self.world.call("GET", &self.world.path(&key, "/messages"), &[], None).await?;
            let ids = inbox.body["items"].as_array().into_iter().flatten();
            let inbox = ids.filter_map(|one| one["id"].as_str().map(str::to_owned)).collect();
            let data = profile.body["data"].clone();
            found.insert(key, Found { data, inbox });
        }
        Ok(found)
    }

    // --- for random runs -----------------------------------------------------------------------

    pub(crate) fn books(&mut self) -> &mut Books {
        &mut self.books
    }

    /// Gives a command without waiting for its answer.
    pub(crate) async fn tell(&mut self, on: &str, step: &Value) -> Result<Pending, String> {
        let command = self.noted(on, step);
        Ok(self.of(on)?.tell(command).await)
    }
}

/// What a command that succeeded says for the books.
pub(crate) fn note_done(books: &mut Books, command: &Value, ok: &Value) {
    match command["do"].as_str() {
        Some("save" | "end") => books.keep(&ok["data"]),
        Some("trade") => {
            ok["data"].as_array().into_iter().flatten().for_each(|data| books.keep(data));
            if let Some(id) = command["gift"]["id"].as_str() {
                books.sent(id);
            }
        }
        Some("send") => books.sent(command["id_of_message"].as_str().unwrap_or_default()),
        _ => {}
    }
}

fn link(step: &Value) -> Result<Link, String> {
    Ok(match text(step, "is", "open") {
        "open" => Link::Open,
        "cut" => Link::Cut,
        "stalled" => Link::Stalled,
        "black_hole" => Link::BlackHole,
        "late" => Link::Late(millis(step, 200)),
        "losing" => Link::LosingAnswersWith(text(step, "text", "saved").as_bytes().to_vec()),
        other => return Err(format!("the way cannot be {other}")),
    })
}
