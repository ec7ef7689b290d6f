//! The game in paused time: two servers, one store, faults on command.

use std::{pin::pin, sync::Arc, time::Duration};

use arena::{
    Error, Result,
    admin::{Deed, Order},
    board::{Board, TOP},
    game::{Command, Game},
    player::{Mail, Player},
    seats::{Event, Seated},
    shop,
};
use futures_util::poll;
use profilestore::{
    ProfileStore, Sent, Settings,
    testing::{TestServer, World},
};
use serde_json::{Value, json};
use tokio::sync::mpsc;

mod wild;

/// A server of the game in a world.
struct Host {
    server: TestServer,
    game: Arc<Game>,
}

/// A player's connection.
struct Client {
    game: Arc<Game>,
    seated: Seated,
    heard: mpsc::Receiver<Event>,
}

fn world() -> World {
    let save_changes_within = Some(Duration::from_secs(1));
    World::new().settings(Settings { save_changes_within, ..Settings::default() })
}

async fn host(world: &World, name: &str) -> Host {
    let server = world.server(name).await;
    let game = Game::start(server.game_server(), world.env()).unwrap();
    Host { server, game }
}

impl Host {
    async fn try_login(&self, name: &str) -> Result<Client> {
        let (events, heard) = mpsc::channel(64);
        let seated = self.game.login(name, events).await?;
        Ok(Client { game: self.game.clone(), seated, heard })
    }

    async fn login(&self, name: &str) -> Client {
        self.try_login(name).await.unwrap()
    }
}

impl Client {
    async fn ask(&self, command: Value) -> Result<String> {
        let command: Command = serde_json::from_value(command).unwrap();
        self.game.act(&self.seated, command).await
    }

    async fn do_it(&self, command: Value) -> String {
        let what = command.to_string();
        self.ask(command).await.unwrap_or_else(|error| panic!("{what}: {error}"))
    }

    async fn is_refused(&self, command: Value) {
        let what = command.to_string();
        let answer = self.ask(command).await;
        assert!(matches!(answer, Err(Error::Refused(_))), "{what}: {answer:?}");
    }

    fn data(&self) -> Player {
        self.seated.profile.data()
    }

    fn coins(&self) -> u64 {
        self.data().coins
    }

    fn kinds(&self) -> Vec<String> {
        self.data().items.into_iter().map(|item| item.kind).collect()
    }

    /// What the connection was told at the end, if it was told that.
    fn goodbye(&mut self) -> Option<(String, bool)> {
        while let Ok(event) = self.heard.try_recv() {
            if let Event::Bye { text, again } = event {
                return Some((text, again));
            }
        }
        None
    }

    async fn leave(self) {
        self.game.leave(&self.seated).await.unwrap();
    }
}

fn bye(text: &str, again: bool) -> Option<(String, bool)> {
    Some((text.to_owned(), again))
}

fn order(deed: Deed) -> Order {
    Order { by: "admin".into(), reason: "a test".into(), deed }
}

#[tokio::test(start_paused = true)]
async fn who_logs_in_again_goes_on_and_the_first_connection_is_told() {
    let world = world();
    let (one, two) = (host(&world, "one").await, host(&world, "two").await);
    let mut first = one.login("alice").await;
    first.do_it(json!({ "do": "fight" })).await;
    let mut second = one.login("alice").await;
    assert_eq!(first.goodbye(), bye("You have logged in again elsewhere.", false));
    assert_eq!(second.coins(), 105, "nothing is lost");
    // The first connection's end does not end the second one's session.
    let _ = first.game.leave(&first.seated).await;
    second.do_it(json!({ "do": "fight" })).await;
    let third = two.login("alice").await;
    assert_eq!(second.goodbye(), bye("You play on another server now.", false));
    assert_eq!(third.coins(), 110);
    assert_eq!(two.game.here(), ["alice"]);
}

/// The first login is told of its session only when a second one has taken its place.
#[tokio::test(start_paused = true)]
async fn a_slow_first_login_does_not_take_the_seat_of_the_second() {
    let world = world();
    let one = host(&world, "one").await;
    let mut first = pin!(one.try_login("alice"));
    assert!(poll!(first.as_mut()).is_pending());
    world.until("its session is live", || one.game.players.live("alice").is_some()).await;
    let second = one.login("alice").await;
    let mut first = first.await.unwrap();
    assert!(first.goodbye().is_some(), "the first connection is told");
    let _ = first.game.leave(&first.seated).await;
    assert_eq!(one.game.here(), ["alice"]);
    second.leave().await;
    assert!(one.game.here().is_empty());
}

#[tokio::test(start_paused = true)]
async fn many_logins_at_once_leave_one_session_at_whatever_distance() {
    for distance in [0, 1, 10, 450, 600, 5000] {
        let world = world();
        let (one, two) = (host(&world, "one").await, host(&world, "two").await);
        let late = async |host: &Host, ms: u64| {
            world.pass(Duration::from_millis(ms)).await;
            host.try_login("alice").await
        };
        let (a, b, c) = tokio::join!(late(&one, 0), late(&one, distance), late(&two, 2 * distance));
        let over = |client: &Result<Client>| match client {
            Ok(client) => client.seated.profile.is_over(),
            Err(_) => true,
        };
        world.until("one is left", || [&a, &b, &c].iter().filter(|c| !over(c)).count() == 1).await;
        for mut loser in [a, b, c].into_iter().flatten() {
            if loser.seated.profile.is_over() {
                assert!(loser.goodbye().is_some(), "distance {distance}: one was not told");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_purchase_that_is_reported_again_is_delivered_once_online_or_not() {
    let world = world();
    let (one, two) = (host(&world, "one").await, host(&world, "two").await);
    let bought_ms = world.env().unix_ms();
    let report =
        async |host: &Host, id: &str| host.game.purchase("alice", id, bought_ms, "purse").await;
    assert_eq!(report(&one, "p1").await.unwrap(), Sent::Now);
    assert_eq!(report(&two, "p1").await.unwrap(), Sent::Before);
    let alice = one.login("alice").await;
    assert_eq!(alice.coins(), 600);
    two.server.lose_answers(1);
    report(&two, "p2").await.unwrap();
    world.until("it is there", || alice.coins() == 1100).await;
    report(&one, "p1").await.unwrap();
    report(&one, "p2").await.unwrap();
    alice.leave().await;
    assert_eq!(two.login("alice").await.coins(), 1100);
    assert!(one.game.purchase("alice", "p3", bought_ms, "castle").await.is_err());
}

#[tokio::test(start_paused = true)]
async fn the_daily_reward_comes_once_a_day_and_grows() {
    let world = world();
    let (one, two) = (host(&world, "one").await, host(&world, "two").await);
    let alice = one.login("alice").await;
    alice.do_it(json!({ "do": "daily" })).await;
    alice.is_refused(json!({ "do": "daily" })).await;
    let alice = two.login("alice").await;
    alice.is_refused(json!({ "do": "daily" })).await;
    assert_eq!(alice.coins(), 130);
    // A world begins at noon.
    world.pass(Duration::from_secs(12 * 60 * 60)).await;
    alice.do_it(json!({ "do": "daily" })).await;
    assert_eq!((alice.coins(), alice.data().days_in_a_row), (170, 2));
}

#[test]
fn a_day_without_the_reward_begins_the_row_anew() {
    let mut player = Player::default();
    for (day, coins) in [(10, 30), (11, 40), (13, 30), (14, 40)] {
        assert_eq!(shop::daily_reward(&mut player, day).unwrap(), coins);
        assert!(shop::daily_reward(&mut player, day).is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn a_trade_happens_as_a_whole_or_not_at_all() {
    let world = world();
    let one = host(&world, "one").await;
    let (alice, mut bob) = (one.login("alice").await, one.login("bob").await);
    alice.do_it(json!({ "do": "buy", "kind": "sword" })).await;
    alice.is_refused(json!({ "do": "buy", "kind": "castle" })).await;
    let item = alice.data().items[0].id.clone();
    for price in [1000, 70] {
        let offer = json!({ "do": "offer", "to": "bob", "item": item, "price": price });
        alice.do_it(offer).await;
    }
    assert!(matches!(bob.heard.try_recv(), Ok(Event::Note(text)) if text.contains("offer 1")));
    bob.is_refused(json!({ "do": "accept", "offer": 1 })).await;
    alice.is_refused(json!({ "do": "accept", "offer": 2 })).await;
    assert_eq!((alice.coins(), bob.coins()), (60, 100), "too dear: nothing happened");
    one.server.lose_answers(1);
    bob.do_it(json!({ "do": "accept", "offer": 2 })).await;
    assert_eq!((alice.coins(), bob.coins()), (130, 30));
    assert_eq!((alice.kinds().len(), bob.kinds()), (0, vec!["sword".to_owned()]));
    bob.is_refused(json!({ "do": "accept", "offer": 2 })).await;
}

#[tokio::test(start_paused = true)]
async fn gifts_reach_players_on_other_servers_and_those_who_are_away() {
    let world = world();
    let (one, two) = (host(&world, "one").await, host(&world, "two").await);
    let (alice, bob) = (one.login("alice").await, two.login("bob").await);
    alice.do_it(json!({ "do": "buy", "kind": "hat" })).await;
    let item = alice.data().items[0].id.clone();
    alice.do_it(json!({ "do": "gift", "to": "bob", "coins": 20 })).await;
    world.until("the coins are there", || bob.coins() == 120).await;
    bob.leave().await;
    one.server.lose_answers(1);
    alice.do_it(json!({ "do": "give_item", "to": "bob", "item": item })).await;
    alice.is_refused(json!({ "do": "give_item", "to": "bob", "item": item })).await;
    alice.is_refused(json!({ "do": "gift", "to": "nobody", "coins": 1 })).await;
    alice.is_refused(json!({ "do": "gift", "to": "bob", "coins": 1000 })).await;
    assert_eq!((alice.coins(), alice.kinds().len()), (70, 0));
    assert_eq!(two.login("bob").await.kinds(), ["hat"]);
}

#[tokio::test(start_paused = true)]
async fn a_guild_is_held_by_one_server_changed_by_others_and_outlives_a_crash() {
    let world = world();
    let (one, two) = (host(&world, "one").await, host(&world, "two").await);
    let (alice, bob) = (one.login("alice").await, two.login("bob").await);
    alice.is_refused(json!({ "do": "deposit", "coins": 5 })).await;
    for member in [&alice, &bob] {
        member.do_it(json!({ "do": "join", "guild": "owls" })).await;
        world.pass(Duration::from_secs(5)).await;
        member.do_it(json!({ "do": "deposit", "coins": 30 })).await;
    }
    bob.is_refused(json!({ "do": "deposit", "coins": 1000 })).await;
    bob.do_it(json!({ "do": "withdraw", "coins": 50 })).await;
    world.until("the guild has paid", || bob.coins() == 120).await;
    // Both ask for the last ten: one gets them.
    bob.do_it(json!({ "do": "withdraw", "coins": 10 })).await;
    alice.do_it(json!({ "do": "withdraw", "coins": 10 })).await;
    world.until("one has them", || alice.coins() + bob.coins() == 200).await;
    // The holder dies. What is sent meanwhile waits for the next one.
    assert!(one.game.guilds.live("owls").is_some() && two.game.guilds.live("owls").is_none());
    one.server.crash();
    bob.do_it(json!({ "do": "deposit", "coins": 40 })).await;
    bob.do_it(json!({ "do": "withdraw", "coins": 15 })).await;
    let before = bob.coins();
    world.until("the other server holds it", || bob.coins() == before + 15).await;
    assert!(two.game.guilds.live("owls").is_some());
}

#[tokio::test(start_paused = true)]
async fn the_board_has_the_best_of_all_servers() {
    let world = world();
    let (one, two) = (host(&world, "one").await, host(&world, "two").await);
    let (alice, bob) = (one.login("alice").await, two.login("bob").await);
    for (player, fights) in [(&alice, 2), (&bob, 3)] {
        for _ in 0..fights {
            player.do_it(json!({ "do": "fight" })).await;
        }
    }
    bob.leave().await;
    world.pass(Duration::from_secs(10)).await;
    let places = |host: &Host| {
        let board: Board = serde_json::from_value(host.game.kept.seen("Boards", TOP)).unwrap();
        board.best.into_iter().map(|place| (place.name, place.score)).collect::<Vec<_>>()
    };
    let expected = [("bob".to_owned(), 3), ("alice".to_owned(), 2)];
    assert_eq!(places(&one), expected);
    for _ in 0..2 {
        alice.do_it(json!({ "do": "fight" })).await;
    }
    world.pass(Duration::from_secs(10)).await;
    assert_eq!(places(&two), [("alice".to_owned(), 4), ("bob".to_owned(), 3)]);
}

#[tokio::test(start_paused = true)]
async fn administrators_reach_players_online_and_offline_and_bans_last() {
    let world = world();
    let (one, two) = (host(&world, "one").await, host(&world, "two").await);
    let mut alice = one.login("alice").await;
    two.game.administer("alice", &order(Deed::Coins(7))).await.unwrap();
    assert_eq!(alice.coins(), 107);
    two.game.administer("alice", &order(Deed::BanHours(2))).await.unwrap();
    assert_eq!(alice.goodbye(), bye("An administrator ended your session: a test.", false));
    assert!(matches!(one.try_login("alice").await, Err(Error::Refused(_))));
    one.game.administer("alice", &order(Deed::Coins(-7))).await.unwrap();
    world.pass(Duration::from_secs(2 * 60 * 60)).await;
    let alice = one.login("alice").await;
    assert_eq!(alice.coins(), 100);
    one.game.administer("alice", &order(Deed::BanHours(1))).await.unwrap();
    one.game.administer("alice", &order(Deed::BanHours(0))).await.unwrap();
    let alice = two.login("alice").await;
    assert_eq!(alice.coins(), 100);
    // More than there is: refused online and offline.
    for _ in 0..2 {
        assert!(one.game.administer("alice", &order(Deed::Coins(-101))).await.is_err());
        let _ = two.game.server.shutdown().await;
    }
    assert!(one.game.administer("nobody", &order(Deed::Coins(1))).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_player_of_the_first_version_has_coins_for_gold() {
    let world = world();
    let one = host(&world, "one").await;
    let old: ProfileStore<Value> = one.server.store("Players").unwrap();
    let profile = old.start_session("alice").await.unwrap();
    profile.update(|data| *data = json!({ "gold": 70, "score": 3 })).unwrap();
    profile.end_session().await.unwrap();
    let alice = one.login("alice").await;
    assert_eq!(alice.data(), Player { coins: 70, score: 3, ..Player::default() });
}

#[tokio::test(start_paused = true)]
async fn mail_of_a_newer_version_waits() {
    let world = world();
    let one = host(&world, "one").await;
    let alice = one.login("alice").await;
    one.game.players.send_message("alice", &json!({ "castle": 1 })).await.unwrap();
    let coins = Mail::Coins { from: "bob".into(), coins: 1 };
    one.game.players.send_message("alice", &coins).await.unwrap();
    world.until("the mail behind it is there", || alice.coins() == 101).await;
    assert_eq!(alice.seated.profile.waiting_messages().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_saves_and_tells_players_to_come_again() {
    let world = world();
    let (one, two) = (host(&world, "one").await, host(&world, "two").await);
    let mut alice = one.login("alice").await;
    alice.do_it(json!({ "do": "fight" })).await;
    assert!(one.server.shutdown().await.is_complete());
    assert_eq!(alice.goodbye(), bye("This server stops. Your things are saved.", true));
    assert_eq!(two.login("alice").await.coins(), 105);
}

#[tokio::test(start_paused = true)]
async fn play_goes_on_in_an_outage_and_trades_wait_for_its_end() {
    let world = world();
    let (one, two) = (host(&world, "one").await, host(&world, "two").await);
    let (alice, bob) = (one.login("alice").await, one.login("bob").await);
    world.outage();
    world.pass(Duration::from_secs(60)).await;
    alice.do_it(json!({ "do": "fight" })).await;
    assert!(!alice.seated.profile.is_active() && !alice.seated.profile.is_over());
    let gift = alice.ask(json!({ "do": "gift", "to": "bob", "coins": 5 })).await;
    assert!(matches!(gift, Err(Error::Store(_))), "{gift:?}");
    assert_eq!((alice.coins(), bob.coins()), (105, 100), "nothing was done");
    world.heal();
    world.until("the store is back", || alice.seated.profile.is_active()).await;
    alice.do_it(json!({ "do": "gift", "to": "bob", "coins": 5 })).await;
    assert_eq!(two.login("alice").await.coins(), 100);
}

#[tokio::test(start_paused = true)]
async fn a_killed_server_costs_at_most_a_second_of_play() {
    let world = world();
    let (one, two) = (host(&world, "one").await, host(&world, "two").await);
    let alice = one.login("alice").await;
    alice.do_it(json!({ "do": "fight" })).await;
    world.pass(Duration::from_millis(1100)).await;
    alice.do_it(json!({ "do": "fight" })).await;
    one.server.crash();
    assert_eq!(two.login("alice").await.coins(), 105);
}
