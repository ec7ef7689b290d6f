//! The same on a file, in real time: another host of the same file goes on.

use profilestore::data_store::{SqliteMessenger, SqliteStore};

use super::*;
use crate::world;

#[tokio::test]
async fn a_game_server_goes_on_at_another_host_of_the_same_file() {
    let folder = tempfile::tempdir().unwrap();
    let open = || SqliteStore::open(folder.path().join("profiles.db"), Default::default()).unwrap();
    let host = |file: SqliteStore| {
        let messenger = Arc::new(SqliteMessenger::new(&file));
        let settings = profilestore::Settings::default();
        let env = profilestore::env::Env::system();
        Host::new(HostParts { store: Arc::new(file), messenger, settings, env }).unwrap()
    };
    let (first, second) = (host(open()), host(open()));
    let (server, old) = hosted(&first, "a").await;
    let Started { session, .. } = start(&server, 1, "p").await;
    assert_eq!(session.save(request(2), player(5)).await.unwrap(), Some(2));
    drop((old, server.clone(), first));
    let (again, _calling) = resumed(&server, &second).await;
    let same = adopted(&again, &session).await;
    again.all_named();
    assert_eq!(same.save(request(2), player(5)).await.unwrap(), None, "it was done before");
    assert_eq!(same.save(request(3), player(6)).await.unwrap(), Some(3));
    assert_eq!(kind(session.end(request(4), None).await), Some(ErrorKind::Unknown));
    let file = open();
    let other = profilestore::GameServer::builder(file.clone())
        .messenger(SqliteMessenger::new(&file))
        .start()
        .await
        .unwrap();
    let asking = tokio::spawn(world::players(&other).start_session("p"));
    let Event::Release { session: asked, .. } = again.next_event(room).await else { panic!() };
    asked.end(request(5), Some(player(7))).await.unwrap();
    let profile = asking.await.unwrap().unwrap();
    assert_eq!(profile.read(|data| data.coins), 7);
    profile.end_session().await.unwrap();
    assert!(other.shutdown().await.is_complete());
}
