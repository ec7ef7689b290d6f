//! The audit. The parent becomes a game server of its own and opens every player. It lets the rest
//! of the messages arrive, and compares what is stored then with the ledger.
//!
//! The servers do not help: profiles that killed servers hold must be free within one lease time.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use profilestore::{ErrorKind, GameServer, Profile, ProfileStore, StartOptions, env::Env};
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, timeout},
};

use super::{
    data::{PlayerData, Transfer},
    edit_books::EditBooks,
    edits::{Desk, Log, Outcome},
    figures::Times,
    fleet::Call,
    ledger::{Check, Ledger},
    player_key,
    server::post,
    settings, storage,
    trades::Market,
};

/// How many players are opened, settled and read at once.
const AT_ONCE: usize = 64;

/// What an open may take beyond the lease time, on a machine that is busy.
const MARGIN: Duration = Duration::from_secs(5);

/// How long the rest of the messages may take.
const SETTLE: Duration = Duration::from_secs(30);

/// What the audit found.
#[derive(Debug)]
pub(crate) struct Findings {
    pub(crate) checks: Vec<Check>,
    /// How long the players' starts took.
    pub(crate) opened: Times,
    pub(crate) sent_again: u64,
    /// Players that the edit of all reached, and those of them that their holders edited.
    pub(crate) all_edited: Option<(u64, u64)>,
}

/// Opens, settles, reads and judges. The ledger learns what became of edits whose outcome was not
/// known.
pub(crate) async fn audit(
    call: &Call,
    players: u32,
    ledger: &mut Ledger,
) -> anyhow::Result<Findings> {
    let (store, messenger) = storage::open(call).await?;
    let server = GameServer::builder(store.any())
        .messenger(messenger)
        .settings(settings(call.lease_seconds))
        .job_id("audit")
        .start()
        .await
        .context("the audit could not start")?;
    let market = Market::open(&server, &call.scope)?;
    let patience = Duration::from_secs_f64(call.lease_seconds) + MARGIN;
    let (opened, times, not_opened) = open_all(&market.players, players, patience).await;
    let mut checks = vec![Check::counted("players opened in time", u64::from(players), not_opened)];
    let desk = Desk { server: server.clone(), store, scope: call.scope.clone() };
    let unknown = settle_edits(&desk, &mut ledger.edits, patience).await;
    checks.push(Check::counted("edits whose outcome is known", ledger.edits.count(), unknown));
    let (sent_again, unsettled) = settle(&market, &opened, patience).await;
    checks.push(Check::counted("players with nothing on the way", opened.len() as u64, unsettled));
    drop(opened);
    let report = server.shutdown().await;
    checks.push(Check::counted(
        "players saved at the end",
        u64::from(players),
        report.not_saved.iter().map(|(key, error)| format!("{key}: {error}")).collect(),
    ));
    let (found, not_read) = read_all(call, players).await?;
    checks.push(Check::counted("players read back", u64::from(players), not_read));
    let log = Log::read(&desk.store, &call.scope).await?;
    checks.extend(ledger.edits.judge(&found, &log));
    checks.extend(ledger.judge(&found));
    let all_edited = ledger.edits.of_all().map(|(task, _)| {
        let reached =
            found.iter().flatten().filter(|data| data.edited.contains(&task.number)).count() as u64;
        (
            reached,
            log.online.iter().filter(|(operation, _)| *operation == task.operation).count() as u64,
        )
    });
    Ok(Findings { checks, opened: times, sent_again, all_edited })
}

/// Runs `work` for every player, some at once. Answers come in the players' order.
async fn for_all<R: Send + 'static, F: Future<Output = R> + Send + 'static>(
    players: impl IntoIterator<Item = u32>,
    work: impl Fn(u32) -> F,
) -> Vec<(u32, R)> {
    let gate = Arc::new(Semaphore::new(AT_ONCE));
    let mut tasks = JoinSet::new();
    for player in players {
        let (gate, work) = (gate.clone(), work(player));
        tasks.spawn(async move {
            let _turn = gate.acquire_owned().await;
            (player, work.await)
        });
    }
    let mut answers = Vec::new();
    while let Some(answer) = tasks.join_next().await {
        answers.extend(answer.ok());
    }
    answers.sort_by_key(|(player, _)| *player);
    answers
}

type Opened = Vec<(u32, Profile<PlayerData>)>;

/// Starts every player; all wait for a dead server's lease at the same time.
async fn open_all(
    profiles: &ProfileStore<PlayerData>,
    players: u32,
    patience: Duration,
) -> (Opened, Times, Vec<String>) {
    let mut starts = JoinSet::new();
    let began = Instant::now();
    for player in 0..players {
        let starting =
            profiles.start_session_with(&player_key(player), StartOptions::new().timeout(patience));
        starts.spawn(async move { (player, starting.await, began.elapsed()) });
    }
    let (mut opened, mut times, mut not_opened) = (Opened::new(), Times::default(), Vec::new());
    while let Some(start) = starts.join_next().await {
        let Ok((player, start, took)) = start else { continue };
        match start {
            Ok(profile) => {
                times.record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
                // A player who never played has items too. The session is new: nothing refuses
                // that.
                let _ = profile.update(|data| data.mint(player));
                profile.message_handler(|data, message| {
                    if let Ok(transfer) = message.parse::<Transfer>() {
                        data.credit(&transfer);
                        message.processed();
                    } else {
                        data.receive(message);
                    }
                });
                opened.push((player, profile));
            }
            Err(error) => {
                not_opened.push(format!("player {player}: not opened within {patience:?}: {error}"))
            }
        }
    }
    opened.sort_by_key(|(player, _)| *player);
    (opened, times, not_opened)
}

/// Repeats every edit of unknown outcome, which makes it or finds that it was made.
async fn settle_edits(desk: &Desk, edits: &mut EditBooks, patience: Duration) -> Vec<String> {
    let open: std::collections::BTreeMap<u32, _> =
        edits.open().into_iter().map(|task| (task.number, task)).collect();
    let outcomes = for_all(open.keys().copied(), |number| {
        let (task, desk) = (open[&number].clone(), desk.clone());
        async move {
            let deadline = Instant::now() + patience;
            loop {
                match task.carry_out(&desk).await {
                    Ok(Outcome::Waits) if Instant::now() < deadline => {}
                    Err(error)
                        if error.kind() == ErrorKind::Unknown && Instant::now() < deadline => {}
                    outcome => return outcome,
                }
            }
        }
    });
    let mut unknown = Vec::new();
    for (number, outcome) in outcomes.await {
        match outcome {
            Ok(Outcome::Done { .. }) => edits.acknowledge(number),
            Ok(Outcome::Waits) => {
                unknown.push(format!("edit {number} of all players still waits for holders"))
            }
            Err(error) if error.kind() == ErrorKind::EditRefused => edits.refuse(number),
            Err(error) => unknown.push(format!("edit {number}: {error}")),
        }
    }
    unknown
}

/// Sends what earlier sessions left in their outboxes, settles their trades, and saves until no
/// inbox, no outbox and no escrow holds anything.
async fn settle(market: &Market, opened: &Opened, patience: Duration) -> (u64, Vec<String>) {
    let by_player: Arc<std::collections::BTreeMap<_, _>> =
        Arc::new(opened.iter().cloned().collect());
    let deadline = Instant::now() + SETTLE;
    let mut sent_again = 0;
    let mut open: Vec<u32> = by_player.keys().copied().collect();
    loop {
        let sent = for_all(open.iter().copied(), |player| {
            let (market, by_player) = (market.clone(), by_player.clone());
            async move {
                settle_rest(&market, &by_player[&player], patience).await;
                send_rest(&market.players, &by_player[&player]).await
            }
        })
        .await;
        sent_again += sent.iter().map(|(_, sent)| sent).sum::<u64>();
        // A player that got something in this round may have been looked at before.
        let states = for_all(by_player.keys().copied(), |player| {
            let by_player = by_player.clone();
            async move { save_rest(&by_player[&player]).await }
        })
        .await;
        let unsettled: Vec<(u32, String)> =
            states.into_iter().filter_map(|(player, state)| Some((player, state?))).collect();
        if unsettled.is_empty() || Instant::now() > deadline {
            return (
                sent_again,
                unsettled
                    .into_iter()
                    .map(|(player, state)| format!("player {player}: {state}"))
                    .collect(),
            );
        }
        open = unsettled.into_iter().map(|(player, _)| player).collect();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A trade that is still open had its time: both sides get what is theirs by now.
async fn settle_rest(market: &Market, profile: &Profile<PlayerData>, patience: Duration) {
    for terms in profile.read(|data| data.open_trades.values().cloned().collect::<Vec<_>>()) {
        // The other side may be at it at this moment; then it is for the next round.
        let _ = market
            .settle(terms.trade, terms.deadline_ms.max(Env::system().unix_ms()), patience)
            .await;
    }
}

async fn send_rest(profiles: &ProfileStore<PlayerData>, profile: &Profile<PlayerData>) -> u64 {
    let mut sent = 0;
    for transfer in profile.read(|data| data.outbox.clone()) {
        if post(profiles, &transfer).await.is_ok()
            && profile.update(|data| data.sent(&transfer)).is_ok()
        {
            sent += 1;
        }
    }
    sent
}

/// What is still on the way, if anything.
async fn save_rest(profile: &Profile<PlayerData>) -> Option<String> {
    if let Err(error) = profile.save().await {
        return Some(format!("not saved: {error}"));
    }
    let inbox = profile.waiting_messages().len();
    let (outbox, trades) = profile.read(|data| (data.outbox.len(), data.open_trades.len()));
    (inbox + outbox + trades > 0)
        .then(|| format!("{inbox} messages wait, {outbox} are not sent, {trades} trades are open"))
}

/// Reads what is stored, with eyes that have seen nothing before.
async fn read_all(
    call: &Call,
    players: u32,
) -> anyhow::Result<(Vec<Option<PlayerData>>, Vec<String>)> {
    let (store, messenger) = storage::open(call).await?;
    let server = GameServer::builder(store.any())
        .messenger(messenger)
        .settings(settings(call.lease_seconds))
        .job_id("audit-reader")
        .start()
        .await
        .context("the audit could not start to read")?;
    let profiles: ProfileStore<PlayerData> =
        server.store_builder("Demo").scope(&call.scope).template(PlayerData::default()).build()?;
    let answers = for_all(0..players, |player| {
        let reading = profiles.get(&player_key(player));
        async move { timeout(SETTLE, reading).await }
    })
    .await;
    let (mut found, mut not_read) = (vec![None; players as usize], Vec::new());
    for (player, answer) in answers {
        match answer {
            Ok(Ok(Some(profile))) => {
                let waiting = profile.waiting_messages().len();
                if waiting > 0 || profile.session().is_some() {
                    not_read.push(format!(
                        "player {player}: {waiting} messages wait, held by {:?}",
                        profile.session()
                    ));
                }
                found[player as usize] = Some(profile.data);
            }
            Ok(Ok(None)) => not_read.push(format!("player {player}: there is no profile")),
            Ok(Err(error)) => not_read.push(format!("player {player}: {error}")),
            Err(_) => not_read.push(format!("player {player}: not read within {SETTLE:?}")),
        }
    }
    let _ = server.shutdown().await;
    Ok((found, not_read))
}
