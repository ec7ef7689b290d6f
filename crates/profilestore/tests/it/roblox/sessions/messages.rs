//! Messages, locks and edits between sessions of ours and foreign ones.

use super::*;

#[tokio::test(start_paused = true)]
async fn messages_reach_foreign_sessions_once_and_theirs_reach_us() {
    for place in Place::both() {
        let (a, b) = (place.server("a").await, place.server("b").await);
        let store = players_in(&b);
        let mut foreign = Foreign::new(&place, store.clone(), json!([9, "FOREIGN", "guid"]));
        let id = MessageId::new(place.env.unix_ms(), "gift").unwrap();
        players(&a).send_message_as("k", &id, &json!({ "gift": 1 })).await.unwrap();
        assert_same(
            &read(&store, "k").await.unwrap(),
            &json!({ "GlobalUpdates": [1, [[1, { "gift": 1 }]]] }),
        );
        assert_eq!(foreign.load("k", player(0)).await, Loaded::Yes(player(0)));
        assert_eq!(foreign.save("k", player(1), true).await.messages, [json!([1, { "gift": 1 }])]);
        let again = players(&a).send_message_as("k", &id, &json!({ "gift": 1 })).await.unwrap();
        assert_eq!(again, profilestore::Sent::Before, "a receipt stands for it");

        let profile = open(&a, "k").await;
        profile.message_handler(|data, message| {
            data.coins += message.parse::<i64>().unwrap();
            message.processed();
        });
        // The way that the modules send: the document with one row more.
        for coins in [10, 20] {
            let sent = store.update("k", move |now| {
                let mut document = parsed(now.unwrap());
                let next = document["GlobalUpdates"][0].as_u64().unwrap() + 1;
                document["GlobalUpdates"][0] = next.into();
                document["GlobalUpdates"][1].as_array_mut().unwrap().push(json!([next, coins]));
                Some(entry(&document))
            });
            sent.await.unwrap().unwrap();
        }
        settle().await;
        profile.save().await.unwrap();
        assert_eq!(profile.data().coins, 31);
        let found = read(&store, "k").await.unwrap();
        assert_eq!((&found["GlobalUpdates"], &found["Data"]), (&json!([3, []]), &player(31)));
    }
}

#[tokio::test(start_paused = true)]
async fn locks_and_changes_of_waiting_messages_are_taken_over() {
    for place in Place::both() {
        let a = place.server("a").await;
        let store = players_in(&a);
        let mut value = document(0, Value::Null, 1);
        for updates in [
            json!([2, [[1, 1, false, { "n": 1 }], [2, 1, false, { "n": 2 }]]]),
            json!([2, [[1, 2, false, { "n": 10 }], [2, 1, true, { "n": 2 }]]]),
            json!([4, [[2, 1, true, { "n": 2 }], [4, 1, false, { "n": 4 }]]]),
            json!([4, []]),
        ] {
            value["GlobalUpdates"] = updates.clone();
            set(&store, "k", value.clone()).await;
            assert_same(&read(&store, "k").await.unwrap(), &value);
            let key = players(&a).key("k").unwrap();
            let state = place.store_state(&key).await;
            let waiting: Vec<_> =
                state.inbox.unwrap().iter().map(|m| (m.index, m.revision, m.locked)).collect();
            let stated = updates[1].as_array().unwrap();
            let expected: Vec<_> = stated
                .iter()
                .map(|row| (row[0].as_u64().unwrap(), row[1].as_u64().unwrap(), row[2] == true))
                .collect();
            assert_eq!(waiting, expected);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_operators_edit_that_waits_is_neither_seen_nor_lost() {
    let place = Place::in_memory();
    let (a, b) = (place.server("a").await, place.server("b").await);
    let store = players_in(&b);
    let mut foreign = Foreign::new(&place, store.clone(), json!([9, "FOREIGN", "guid"]));
    foreign.load("k", player(1)).await;
    let key = players(&a).key("k").unwrap();
    let edit = Edit::new().increase("/coins", 100.into()).unwrap();
    let waiting = a.operator(Attribution::new("op")).edit(&key, &edit);
    assert_eq!(
        waiting.await.unwrap_err().kind(),
        ErrorKind::Unknown,
        "a foreign session does not answer"
    );
    assert_eq!(read(&store, "k").await.unwrap()["GlobalUpdates"][1], json!([]));
    assert_eq!(foreign.save("k", player(2), true).await, Saved::default());
    let profile = open(&a, "k").await;
    assert_eq!(profile.data().coins, 102);
}
