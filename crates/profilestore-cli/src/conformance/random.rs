//! Random play from a seed: several game servers and server processes, and what kills them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{task::JoinSet, time::sleep};

use super::{
    stage::{Stage, note_done},
    world::Ground,
};
use crate::demo::Dice;

const STEPS: u64 = 80;
const KEYS: u64 = 5;

/// How long a start may wait for its profile. Well below [`super::driver::PATIENCE`], since a slow
/// machine can hold a profile up for long and each process counts anew: a start that the kit gives
/// up was not answered, and did not only wait.
const START_MS: u64 = 50_000;

/// Kinds of errors that play and faults explain.
const EXPECTED: [&str; 12] = [
    "already-loaded",
    "busy",
    "cancelled",
    "closing",
    "overloaded",
    "session-ended",
    "superseded",
    "taken-elsewhere",
    "timed-out",
    "unavailable",
    "unconfirmed",
    "done-before",
];

/// What became of commands that were not waited for: driver, command, answer.
type Done = Arc<Mutex<Vec<(String, Value, Value)>>>;

struct Play {
    stage: Stage,
    /// Of the whole run.
    seed: Dice,
    /// Of one step.
    dice: Dice,
    drivers: Vec<String>,
    /// The profiles that a driver has, as far as its answers say.
    open: BTreeMap<String, Vec<String>>,
    waiting: JoinSet<Option<String>>,
    done: Done,
    wrong: Vec<String>,
    count: u64,
    kills: Kills,
}

/// How many processes were killed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Kills {
    pub(crate) servers: u64,
    pub(crate) game_servers: u64,
}

/// How a run ended.
#[derive(Debug, Default)]
pub(crate) struct Ended {
    pub(crate) wrong: Vec<String>,
    pub(crate) kills: Kills,
    /// See [`Verdict::late`](super::stage::Verdict::late).
    pub(crate) late: u64,
}

/// Plays one seed.
pub(crate) async fn run(command: &str, ground: &Ground, seed: u64) -> Ended {
    let drivers: Vec<String> = ["d0", "d1", "d2"].map(Into::into).into();
    let stage = match Stage::new(command, ground, 2, &drivers).await {
        Ok(stage) => stage,
        Err(why) => return Ended { wrong: vec![why], ..Ended::default() },
    };
    let mut play = Play {
        stage,
        seed: Dice::new(seed),
        dice: Dice::new(seed),
        drivers,
        open: BTreeMap::new(),
        waiting: JoinSet::new(),
        done: Done::default(),
        wrong: Vec::new(),
        count: 0,
        kills: Kills::default(),
    };
    for _ in 0..STEPS {
        if let Err(why) = play.step().await {
            play.wrong.push(why);
            break;
        }
        play.hear();
    }
    play.finish().await
}

impl Play {
    async fn step(&mut self) -> Result<(), String> {
        self.count += 1;
        // Dice of its own for each step: what they say does not depend on earlier answers.
        self.dice = self.seed.fork(self.count);
        let at = usize::try_from(self.dice.below(self.drivers.len() as u64)).unwrap_or(0);
        let on = self.drivers[at].clone();
        let what = self.dice.below(100);
        let fault = self.dice.below(2);
        match what {
            0..30 => self.make(&on).await?,
            30..42 => self.later(&on, "save").await?,
            42..58 => self.start(&on).await?,
            58..66 => self.later(&on, "end").await?,
            66..74 => self.trade(&on).await?,
            74..82 => self.send(&on).await?,
            82..87 => {
                let signal = if self.dice.chance(70) { "kill" } else { "term" };
                self.kills.servers += 1;
                self.stage.step(&json!({ "do": signal, "server": fault })).await?;
                sleep(Duration::from_millis(self.dice.below(300))).await;
                self.stage.step(&json!({ "do": "run", "server": fault })).await?;
            }
            87..95 => self.break_the_way(fault).await?,
            95..97 => {
                let key = format!("k{}", self.dice.below(KEYS));
                let mark = format!("e{}", self.count);
                let edit = json!({ "do": "edit", "key": key, "mark": mark, "status": "any" });
                if self.stage.books().keys().contains(&key) {
                    self.stage.step(&edit).await?;
                }
            }
            _ => {
                self.kills.game_servers += 1;
                self.stage.kill_driver(&on).await?;
                self.open.remove(&on);
                let anew = format!("d{}", self.count + 10);
                self.stage.driver(&anew, None).await?;
                self.drivers[at] = anew;
            }
        }
        sleep(Duration::from_millis(self.dice.below(25))).await;
        Ok(())
    }

    async fn break_the_way(&mut self, server: u64) -> Result<(), String> {
        let ways = [
            json!({ "is": "cut" }),
            json!({ "is": "stalled" }),
            json!({ "is": "late", "ms": 150 }),
            json!({ "is": "losing", "text": "\"saved\"" }),
            json!({ "is": "losing", "text": "\"done\"" }),
            json!({ "is": "losing", "text": "\"ended\"" }),
            json!({ "is": "losing", "text": "\"started\"" }),
            json!({ "is": "losing", "text": "\"sent\"" }),
        ];
        let mut way = ways[usize::try_from(self.dice.below(8)).unwrap_or(0)].clone();
        way["do"] = "way".into();
        way["server"] = server.into();
        self.stage.step(&way).await?;
        sleep(Duration::from_millis(self.dice.below(500))).await;
        self.stage.step(&json!({ "do": "way", "is": "open", "server": server })).await
    }

    /// One of the profiles that a driver has.
    fn one_of(&mut self, on: &str) -> Option<String> {
        let open = self.open.get(on)?;
        let at = usize::try_from(self.dice.below(open.len() as u64)).ok()?;
        open.get(at).cloned()
    }

    async fn make(&mut self, on: &str) -> Result<(), String> {
        let Some(key) = self.one_of(on) else { return self.start(on).await };
        let item = format!("i{}", self.count);
        let step = json!({
            "do": "update", "on": on, "as": key, "push": item,
            "fails": ["session-ended", "busy", null],
        });
        self.stage.step(&step).await
    }

    async fn later(&mut self, on: &str, what: &str) -> Result<(), String> {
        let Some(key) = self.one_of(on) else { return Ok(()) };
        self.wait_for(on, &json!({ "do": what, "as": key })).await
    }

    async fn start(&mut self, on: &str) -> Result<(), String> {
        let key = format!("k{}", self.dice.below(KEYS));
        if self.open.get(on).is_some_and(|open| open.contains(&key)) {
            return Ok(());
        }
        let save_within = 50 + self.dice.below(2000);
        let start = json!({
            "do": "start", "as": key, "key": key, "messages": true, "save_within_ms": save_within,
            "timeout_ms": START_MS,
        });
        self.wait_for(on, &start).await
    }

    async fn trade(&mut self, on: &str) -> Result<(), String> {
        let (from, to) = (self.one_of(on), self.one_of(on));
        let (Some(from), Some(to)) = (from, to) else { return Ok(()) };
        if from == to {
            return Ok(());
        }
        let mut trade = json!({ "do": "trade", "as": from, "to": to, "move": "last" });
        if self.dice.chance(50) {
            let key = format!("k{}", self.dice.below(KEYS));
            trade["gift"] = json!({ "key": key, "name": format!("t{}", self.count), "coins": 3 });
        }
        self.wait_for(on, &trade).await
    }

    async fn send(&mut self, on: &str) -> Result<(), String> {
        let key = format!("k{}", self.dice.below(KEYS));
        let send = json!({
            "do": "send", "key": key, "name": format!("g{}", self.count),
            "coins": 1 + self.dice.below(9),
        });
        self.wait_for(on, &send).await
    }

    async fn wait_for(&mut self, on: &str, step: &Value) -> Result<(), String> {
        let mut pending = self.stage.tell(on, step).await?;
        let command = pending.command();
        let (on, done) = (on.to_owned(), self.done.clone());
        self.waiting.spawn(async move {
            let answer = match pending.wait().await {
                Ok(answer) => answer,
                Err(why) => return Some(format!("{on}: {why}")),
            };
            let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
            done.push((on, command, answer));
            None
        });
        Ok(())
    }

    /// Takes the answers that came.
    fn hear(&mut self) {
        let done = std::mem::take(&mut *self.done.lock().unwrap_or_else(PoisonError::into_inner));
        for (on, command, answer) in done {
            let key = command["as"].as_str().unwrap_or_default().to_owned();
            let error = &answer["error"];
            if error.is_null() {
                note_done(self.stage.books(), &command, &answer["ok"]);
                if command["do"] == "start" && self.drivers.contains(&on) {
                    self.open.entry(on).or_default().push(key);
                    continue;
                }
            } else {
                let kind = error["kind"].as_str().unwrap_or("none");
                if !EXPECTED.contains(&kind) {
                    self.wrong.push(format!("{on}: {command} failed: {error}"));
                }
            }
            let is_over = command["do"] == "end" || error["kind"] == "session-ended";
            if is_over && let Some(open) = self.open.get_mut(&on) {
                open.retain(|it| *it != key);
            }
        }
    }

    async fn finish(mut self) -> Ended {
        if let Err(why) = self.stage.world.heal().await {
            self.wrong.push(why);
        }
        while let Some(waited) = self.waiting.join_next().await {
            // The answers of drivers that were killed do not come.
            let why = waited.unwrap_or_else(|error| Some(error.to_string()));
            self.wrong.extend(why.filter(|why| {
                self.drivers.iter().any(|name| why.starts_with(&format!("{name}:")))
            }));
        }
        self.hear();
        let Self { stage, mut wrong, kills, .. } = self;
        let verdict = stage.finish(true).await;
        wrong.extend(verdict.wrong);
        Ended { wrong, kills, late: verdict.late }
    }
}
