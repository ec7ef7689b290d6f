//! Running the kit, and its table.

use std::{borrow::Cow, sync::Arc};

use serde_json::Value;
use tokio::{sync::Semaphore, task::JoinSet};

use super::{
    Conformance, SCRIPTS, VECTORS,
    random::{self, Kills},
    script::{Script, scripts},
    vectors,
    world::{Ground, program},
};
use crate::{
    app::App,
    output::{Failure, Status, say},
    place::Place,
};

/// What one script, one seed or all vectors came to.
struct Row {
    name: String,
    shows: String,
    wrong: Vec<String>,
    kills: Kills,
    late: u64,
}

impl Row {
    /// A row of what kills nothing at random.
    fn of(name: String, shows: String, wrong: Vec<String>) -> Self {
        Self { name, shows, wrong, kills: Kills::default(), late: 0 }
    }

    /// Its line, and one for each thing that is wrong.
    fn tell(&self) -> Result<(), Failure> {
        let verdict = if self.wrong.is_empty() { "ok  " } else { "FAIL" };
        say(format_args!("{verdict}  {}  ({})", self.name, self.shows))?;
        for why in &self.wrong {
            say(format_args!("        {why}"))?;
        }
        Ok(())
    }
}

impl Conformance {
    pub(crate) async fn run(self, app: &App) -> Result<Status, Failure> {
        let ground = match &app.named {
            Some(place @ Place::Postgres(_)) => database(place).await?,
            _ => Ground::Files,
        };
        let mut rows = Vec::new();
        if !self.random || self.quick {
            if self.only.is_empty() {
                let text = self.text("vectors.json", VECTORS)?;
                let ran = vectors::run(&self.driver, &text).await;
                let (count, wrong) = ran.map_err(Failure::Work)?;
                let shows = "rules that need no server".to_owned();
                let row = Row::of(format!("{count} vectors"), shows, wrong);
                row.tell()?;
                rows.push(row);
            }
            rows.extend(self.scripts(&ground).await?);
        }
        if self.random || self.quick {
            rows.extend(self.seeds(&ground).await?);
        }
        self.sum_up(&rows)
    }

    /// A file of the kit.
    fn text(&self, name: &str, own: &'static str) -> Result<Cow<'static, str>, Failure> {
        let Some(folder) = &self.data else { return Ok(own.into()) };
        let file = folder.join(name);
        let text = std::fs::read_to_string(&file);
        let text = text.map_err(|error| {
            Failure::Usage(format!("it cannot be read: {error}: file=`{}`", file.display()))
        })?;
        Ok(text.into())
    }

    async fn scripts(&self, ground: &Ground) -> Result<Vec<Row>, Failure> {
        let text = self.text("scripts.json", SCRIPTS)?;
        let mut all = scripts(&text).map_err(Failure::Work)?;
        all.retain(|script| {
            let is_named =
                self.only.is_empty() || self.only.iter().any(|text| script.name.contains(text));
            let has_ground = matches!(ground, Ground::Files) || !script.is_file_only;
            is_named && has_ground && (!self.quick || script.is_quick)
        });
        if all.is_empty() {
            return Err(Failure::Usage("no script has this in its name".into()));
        }
        let driver = self.driver.clone();
        let ground = ground.clone();
        at_once(self.at_once, all, move |script: Script| {
            let (driver, ground) = (driver.clone(), ground.clone());
            async move {
                let wrong = script.run(&driver, &ground).await;
                Row::of(script.name, script.shows, wrong)
            }
        })
        .await
    }

    async fn seeds(&self, ground: &Ground) -> Result<Vec<Row>, Failure> {
        let seeds: Vec<u64> =
            self.seeds.clone().take(if self.quick { 2 } else { usize::MAX }).collect();
        let (driver, ground) = (self.driver.clone(), ground.clone());
        at_once(self.at_once, seeds, move |seed| {
            let (driver, ground) = (driver.clone(), ground.clone());
            async move {
                let ended = random::run(&driver, &ground, seed).await;
                Row {
                    name: format!("seed {seed}"),
                    shows: "random play with kills".into(),
                    wrong: ended.wrong,
                    kills: ended.kills,
                    late: ended.late,
                }
            }
        })
        .await
    }

    /// What all of them came to.
    fn sum_up(&self, rows: &[Row]) -> Result<Status, Failure> {
        let failed: Vec<_> = rows.iter().filter(|row| !row.wrong.is_empty()).collect();
        let servers: u64 = rows.iter().map(|row| row.kills.servers).sum();
        let game_servers: u64 = rows.iter().map(|row| row.kills.game_servers).sum();
        let late: u64 = rows.iter().map(|row| row.late).sum();
        let (count, wrong) = (rows.len(), failed.len());
        say(format_args!(
            "rows: {count}, with violations: {wrong}; killed at random: {servers} servers, \
             {game_servers} game servers; sessions that let go too late: {late}"
        ))?;
        if let Some(row) = failed.first() {
            let again = match row.name.strip_prefix("seed ") {
                Some(seed) => {
                    let end = seed.parse::<u64>().map_or(0, |seed| seed + 1);
                    format!("--random --seeds {seed}..{end}")
                }
                None if row.name.ends_with("vectors") => String::new(),
                None => format!("--only '{}'", row.name),
            };
            say(format_args!(
                "to see it again: profilestore conformance --driver '{}' {again}",
                self.driver
            ))?;
            return Ok(Status::Problems);
        }
        Ok(Status::Fine)
    }
}

/// Works on several at a time, and tells each result when it is there. They come back in the order
/// of the work.
async fn at_once<Item, Work, Doing>(
    most: usize,
    items: Vec<Item>,
    work: Work,
) -> Result<Vec<Row>, Failure>
where
    Item: Send + 'static,
    Work: Fn(Item) -> Doing,
    Doing: Future<Output = Row> + Send + 'static,
{
    let room = Arc::new(Semaphore::new(most.max(1)));
    let mut running = JoinSet::new();
    for (at, item) in items.into_iter().enumerate() {
        let (room, doing) = (room.clone(), work(item));
        running.spawn(async move {
            let _permit = room.acquire().await;
            (at, doing.await)
        });
    }
    let mut rows = Vec::new();
    while let Some(ended) = running.join_next().await {
        let (at, row) = ended.map_err(|error| Failure::Work(error.to_string()))?;
        row.tell()?;
        rows.push((at, row));
    }
    rows.sort_by_key(|(at, _)| *at);
    Ok(rows.into_iter().map(|(_, row)| row).collect())
}

/// Makes the tables if they are not there, and a key.
async fn database(place: &Place) -> Result<Ground, Failure> {
    let store = place.secret();
    let ask = async |arguments: &[&str]| {
        let output = program(&store)?.args(arguments).output().await.map_err(|e| e.to_string())?;
        if output.status.success() {
            Ok(output.stdout)
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    };
    ask(&["migrate"]).await.map_err(Failure::Work)?;
    let made = ask(&["keys", "add", "conformance", "--scope", "admin", "--json"]).await;
    let made: Value = serde_json::from_slice(&made.map_err(Failure::Work)?)
        .map_err(|error| Failure::Work(format!("the key that was made: {error}")))?;
    let key = made["key"].as_str().unwrap_or_default().to_owned();
    Ok(Ground::Database { store, key })
}
