//! A game server whose Tokio runtime is gone: every call answers, and says what is wrong.

use std::time::Duration;

use profilestore::{Error, ErrorKind, GameServer, Profile};
use tokio::runtime::{Builder, Runtime};

use crate::world::{Player, World, earn, open, players};

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// A server with an open profile that has an unsaved change, on a runtime that is gone.
fn left_behind() -> (GameServer, Profile<Player>) {
    let home = runtime();
    let (server, profile) = home.block_on(async {
        let mut world = World::new();
        world.settings.call_timeout = Duration::from_secs(2);
        world.settings.shutdown_timeout = Duration::from_secs(2);
        let server = world.server("a").await;
        let profile = open(&server, "p").await;
        earn(&profile, 5);
        (server, profile)
    });
    home.shutdown_timeout(Duration::from_secs(5));
    (server, profile)
}

/// Each call answers in time, with an error that names the runtime.
async fn says_so<T>(what: &str, call: impl Future<Output = Result<T, Error>>) {
    let answer = tokio::time::timeout(Duration::from_secs(10), call).await;
    let error = answer
        .unwrap_or_else(|_| panic!("{what} never answers"))
        .err()
        .unwrap_or_else(|| panic!("{what}: Ok"));
    assert_eq!(error.kind(), ErrorKind::Closing, "{what}: {error}");
    assert!(error.to_string().contains("runtime"), "{what}: {error}");
}

#[test]
fn every_call_answers_when_the_runtime_of_its_server_is_gone() {
    let (server, profile) = left_behind();
    let store = players(&server);
    runtime().block_on(async {
        for _ in 0..2 {
            says_so("a start", store.start_session("q")).await;
            says_so("a read", store.get("p")).await;
            says_so("a message", store.send_message("p", &1)).await;
            says_so("a removal", store.remove("q")).await;
            says_so("a save", profile.save()).await;
        }
        let editor = profile.clone();
        let trade = server
            .transaction()
            .with(&profile)
            .run(move |tx| tx.edit(&editor, |data| data.coins += 1));
        says_so("a transaction", trade).await;
        profile.update(|data| data.coins += 1).unwrap();
        assert_eq!(profile.data().coins, 6, "the transaction has done nothing");
        says_so("an end", profile.end_session()).await;
        says_so("a second end", profile.end_session()).await;
        let report = tokio::time::timeout(Duration::from_secs(10), server.shutdown())
            .await
            .expect("it ends");
        let names: Vec<_> = report.not_saved.iter().map(|(key, _)| key.key()).collect();
        assert_eq!(names, ["p"]);
    });
}

#[test]
fn calls_that_wait_hear_that_their_runtime_goes_away() {
    let home = runtime();
    let mut world = World::new();
    world.settings.call_timeout = Duration::from_secs(600);
    let server = home.block_on(world.server("a"));
    let profile = home.block_on(open(&server, "p"));
    earn(&profile, 5);
    // Nothing gets through, so everything waits.
    world.store.plan().cut_off();
    let (start, read) = (players(&server).start_session("q"), players(&server).get("p"));
    let editor = profile.clone();
    let (saved, behind) = (profile.save(), profile.save());
    let trade =
        server.transaction().with(&profile).run(move |tx| tx.edit(&editor, |data| data.coins += 1));
    let ended = profile.end_session();
    #[expect(clippy::disallowed_methods, reason = "the runtime works meanwhile, in real time")]
    std::thread::sleep(Duration::from_millis(100));
    home.shutdown_timeout(Duration::from_secs(5));
    runtime().block_on(async {
        says_so("a start", start).await;
        says_so("a transaction", trade).await;
        says_so("an end", ended).await;
        says_so("a save that waits", behind).await;
        // What had begun may have got through, for all that is known.
        let begun =
            tokio::time::timeout(Duration::from_secs(10), saved).await.unwrap().unwrap_err();
        assert!(matches!(begun.kind(), ErrorKind::Unknown | ErrorKind::Closing), "{begun}");
        assert!(tokio::time::timeout(Duration::from_secs(10), read).await.unwrap().is_err());
    });
}
