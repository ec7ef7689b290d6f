//! What a transaction's closure gets, and what it may do with it: participants as arguments, edits
//! that fail, looks.

use serde::{Deserialize, Serialize};

use super::*;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Guild {
    bank: i64,
}

#[derive(Debug)]
enum Refused {
    TooPoor,
    Store(Error),
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

/// Takes coins, and notices only afterwards that there were too few.
fn pay(player: &mut Player, price: i64) -> Result<i64, Refused> {
    player.coins -= price;
    if player.coins < 0 { Err(Refused::TooPoor) } else { Ok(player.coins) }
}

#[tokio::test(start_paused = true)]
async fn participants_of_any_types_are_handed_to_the_closure() {
    let world = World::new();
    let a = world.server("a").await;
    let (alice, bob) = pair(&a).await;
    let guilds = a.store_builder("Guilds").template(Guild::default()).build().unwrap();
    let guild = guilds.start_session("g").await.unwrap();
    let (before, store) = (world.store.plan().commits(), players(&a));
    let left = a
        .transaction()
        .between((&alice, &guild, &bob))
        .run(move |tx, (alice, guild, bob)| {
            alice.coins -= 50;
            guild.bank += 20;
            bob.coins += 20;
            tx.gift(&store, "carol", &json!({"coins": 10}))?;
            Ok::<_, Error>(alice.coins)
        })
        .await
        .unwrap();
    assert_eq!((left, both(&alice, &bob), guild.data().bank), (50, (50, 120), 20));
    assert_eq!(world.store.plan().commits(), before + 1, "one commit");
    assert_eq!(both_stored(&a).await, (50, 120));
    assert_eq!(players(&a).get("carol").await.unwrap().unwrap().waiting_messages().len(), 1);
    // A slice, and beside it one that is named by its handle.
    let bank = guild.clone();
    let all = [alice.clone(), bob.clone()];
    let taxed = a.transaction().with(&guild).between(&all[..]).run(move |tx, players| {
        for player in players {
            player.coins -= 5;
            tx.edit(&bank, |guild| guild.bank += 5)?;
        }
        tx.read(&bank, |guild| guild.bank)
    });
    assert_eq!(taxed.await.unwrap(), 30);
    assert_eq!((both(&alice, &bob), guild.data().bank), ((45, 115), 30));
}

#[tokio::test(start_paused = true)]
async fn an_error_or_a_panic_leaves_the_participants_that_were_handed_over_as_they_were() {
    let world = World::new();
    let a = world.server("a").await;
    let (alice, bob) = pair(&a).await;
    let refused = a.transaction().between((&alice, &bob)).run(|_, (alice, bob)| {
        bob.coins += 500;
        pay(alice, 500)
    });
    assert!(matches!(refused.await, Err(Refused::TooPoor)));
    let panicked = a.transaction().between((&alice, &bob)).run(|_, (alice, _)| -> Result<()> {
        alice.coins = 0;
        panic!("on purpose")
    });
    assert!(tokio::spawn(panicked).await.unwrap_err().is_panic());
    assert_eq!(both(&alice, &bob), (100, 100));
    earn(&alice, 1);
    alice.save().await.unwrap();
    assert_eq!(both_stored(&a).await, (101, 100));
}

#[tokio::test(start_paused = true)]
async fn a_profile_that_is_handed_over_is_named_once_and_edited_as_an_argument() {
    let world = World::new();
    let a = world.server("a").await;
    let (alice, bob) = pair(&a).await;
    let ok = |_: &mut Player| Ok::<_, Error>(());
    for builder in [a.transaction(), a.transaction().with(&alice)] {
        let twice = builder.between((&alice, &bob, &alice)).run(move |_, (alice, ..)| ok(alice));
        let refused = twice.await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Invalid);
        assert!(refused.to_string().contains("named twice"), "{refused}");
    }
    let handle = alice.clone();
    let by_handle = a.transaction().between((&alice,)).run(move |tx, (alice,)| {
        alice.coins = 0;
        tx.edit(&handle, |data| data.coins += 1)
    });
    let refused = by_handle.await.unwrap_err();
    assert!(refused.to_string().contains("an argument of the closure"), "{refused}");
    let none: &[Profile<Player>] = &[];
    let refused = a.transaction().between(none).run(|_, _| Ok::<_, Error>(())).await.unwrap_err();
    assert!(refused.to_string().contains("at least one"), "{refused}");
    assert_eq!(both(&alice, &bob), (100, 100));
}

#[tokio::test(start_paused = true)]
async fn an_edit_that_fails_leaves_the_data_as_it_was() {
    let world = World::new();
    let a = world.server("a").await;
    let (alice, bob) = pair(&a).await;
    assert!(matches!(alice.try_update(|data| pay(data, 101)), Err(Refused::TooPoor)));
    assert_eq!(alice.try_update(|data| pay(data, 40)).unwrap(), 60);
    let waited = alice.try_update_when_free(|data| pay(data, 61)).await;
    assert!(matches!(waited, Err(Refused::TooPoor)));
    assert_eq!(alice.try_update_when_free(|data| pay(data, 10)).await.unwrap(), 50);
    // One question mark, and the transaction may go on without the edit.
    let (one, other) = (alice.clone(), bob.clone());
    let traded = a.transaction().with(&alice).with(&bob).run(move |tx| {
        assert_eq!(tx.try_edit(&one, |data| pay(data, 20))?, 30);
        assert!(matches!(tx.try_edit(&one, |data| pay(data, 31)), Err(Refused::TooPoor)));
        assert_eq!(tx.read(&one, |data| data.coins)?, 30);
        tx.edit(&other, |data| data.coins += 20)?;
        Ok::<_, Refused>(())
    });
    traded.await.unwrap();
    assert_eq!(both(&alice, &bob), (30, 120));
    assert_eq!(both_stored(&a).await, (30, 120));
    let (one, other) = (alice.clone(), bob.clone());
    let refused = a.transaction().with(&alice).with(&bob).run(move |tx| {
        tx.edit(&other, |data| data.coins += 50)?;
        tx.try_edit(&one, |data| pay(data, 50))
    });
    assert!(matches!(refused.await, Err(Refused::TooPoor)));
    assert_eq!(both(&alice, &bob), (30, 120));
    // The library's own errors come through the same way.
    alice.end_session().await.unwrap();
    let over = alice.try_update(|data| pay(data, 1));
    assert!(
        matches!(&over, Err(Refused::Store(error)) if error.kind() == ErrorKind::SessionEnded),
        "{over:?}"
    );
}
