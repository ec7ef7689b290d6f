//! What the benches of sessions share: a player's data, a server on a file, and what the system
//! says about this process.

use std::{fs, time::Duration};

use profilestore::{
    GameServer, Profile, ProfileData, ProfileStore,
    data_store::{SqliteMessenger, SqliteStore},
};
use serde::{Deserialize, Serialize};

pub(crate) type Outcome<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// About 4 KB of JSON that compresses as players' data does.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Player {
    pub(crate) coins: u64,
    pub(crate) name: String,
    pub(crate) items: Vec<Item>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Item {
    pub(crate) id: u64,
    pub(crate) kind: String,
    pub(crate) level: u32,
}

pub(crate) fn player() -> Player {
    let kinds = ["sword", "shield", "potion", "boots of haste", "dragon scale", "ring"];
    let item = |i: u64| Item {
        id: i.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        kind: kinds[usize::try_from(i).unwrap_or_default() % kinds.len()].to_owned(),
        level: u32::try_from(i * 7 % 100).unwrap_or_default(),
    };
    Player { coins: 0, name: "a player".into(), items: (0..68).map(item).collect() }
}

pub(crate) async fn server_on<T: ProfileData>(
    file: &SqliteStore,
    job: &str,
    template: T,
) -> Outcome<(GameServer, ProfileStore<T>)> {
    let server = GameServer::builder(file.clone())
        .messenger(SqliteMessenger::new(file))
        .job_id(job)
        .start()
        .await?;
    let players = server.store_builder("PlayerData").template(template).build()?;
    Ok((server, players))
}

/// Memory of this process's own; pages of files do not count.
pub(crate) fn resident_bytes() -> Outcome<f64> {
    let text = fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:")).ok_or("no RssAnon")?;
    let kilobytes: f64 = line.split_whitespace().next().ok_or("an empty RssAnon")?.parse()?;
    Ok(kilobytes * 1024.0)
}

/// Opens `prefix0`, `prefix1` and so on, 256 at a time.
pub(crate) async fn open_all<T: ProfileData>(
    players: &ProfileStore<T>,
    prefix: &str,
    count: usize,
) -> Outcome<Vec<Profile<T>>> {
    let mut profiles = Vec::with_capacity(count);
    let names: Vec<String> = (0..count).map(|i| format!("{prefix}{i}")).collect();
    for chunk in names.chunks(256) {
        let starts: Vec<_> =
            chunk.iter().map(|name| tokio::spawn(players.start_session(name))).collect();
        for start in starts {
            profiles.push(start.await??);
        }
    }
    Ok(profiles)
}

pub(crate) fn percentiles(took: &mut [Duration]) -> (f64, f64) {
    took.sort_unstable();
    let at = |share: f64| {
        let index = ((took.len() as f64 * share) as usize).min(took.len().saturating_sub(1));
        took.get(index).map_or(f64::NAN, |duration| duration.as_secs_f64() * 1000.0)
    };
    (at(0.5), at(0.99))
}
