use super::*;

fn world() -> (World, mpsc::UnboundedReceiver<Order>) {
    let mut world = World::new(2, 1);
    let (sender, orders) = mpsc::unbounded_channel();
    world.begin(0, sender.clone());
    world.report(0, Report::Ready);
    world.begin(1, sender);
    world.report(1, Report::Ready);
    (world, orders)
}

fn join(
    world: &mut World,
    orders: &mut mpsc::UnboundedReceiver<Order>,
    slot: usize,
    load_count: u64,
) -> u64 {
    drop(world.order(slot, What::Join { player: 0 }));
    // Orders of before may still lie there, unread.
    let id = std::iter::from_fn(|| orders.try_recv().ok()).last().unwrap().id;
    world.report(slot, Report::Done { id, answer: Answer::Joined { load_count, micros: 9 } });
    id
}

#[test]
fn the_newest_session_counts_whichever_word_comes_first() {
    let (mut world, mut orders) = world();
    let first = join(&mut world, &mut orders, 0, 1);
    join(&mut world, &mut orders, 1, 2);
    assert_eq!(world.seat(0).unwrap().slot, 1);
    assert_eq!(world.figures.hand_over_times.count(), 1);
    world.report(0, Report::Ended { player: 0, session: first, how: "handed over".into() });
    assert_eq!(world.sessions(), [Some(0), Some(1)]);
}

#[test]
fn a_play_is_complete_when_everything_has_happened_and_everybody_was_served_again() {
    let (mut world, mut orders) = world();
    let plan =
        Plan { servers: 2, players: 1, kill: true, roll: true, complete: true, ..Plan::default() };
    let began = Instant::now();
    assert_eq!(world.missing(&plan, began).len(), 13, "nothing has happened");
    join(&mut world, &mut orders, 0, 1);
    join(&mut world, &mut orders, 1, 2);
    let figures = &mut world.figures;
    for count in
        [&mut figures.saves, &mut figures.messages_sent, &mut figures.trades, &mut figures.presents]
    {
        *count = 1;
    }
    (figures.settlements, figures.edits_online, figures.kills, figures.restarts) = (1, 1, 1, 1);
    for (player, fits) in [(Some(0), true), (Some(0), false), (None, true)] {
        let task = world.order_edit(Uuid::nil(), player, 5, fits);
        match fits {
            true => world.ledger.edits.acknowledge(task.number),
            false => world.ledger.edits.refuse(task.number),
        }
    }
    assert_eq!(world.missing(&plan, began), ["a restart of each server"]);
    world.figures.restarts = 2;
    assert_eq!(world.missing(&plan, began), [""; 0]);
    assert_eq!(world.missing(&plan, Instant::now()), ["an answer to each player"]);
}

#[test]
fn a_session_that_nobody_ended_was_thrown_out() {
    let (mut world, mut orders) = world();
    let lost = |session| Report::Ended { player: 0, session, how: "lost".into() };
    let first = join(&mut world, &mut orders, 0, 1);
    world.report(0, lost(first));
    assert_eq!(world.thrown_out.len(), 1);
    let second = join(&mut world, &mut orders, 0, 2);
    join(&mut world, &mut orders, 1, 3);
    world.report(0, lost(second));
    assert_eq!(world.thrown_out.len(), 1, "the third session ended the second one");
}

#[test]
fn of_two_starts_at_once_either_may_end_the_other() {
    let (mut world, mut orders) = world();
    drop(world.order(0, What::Join { player: 0 }));
    let second = join(&mut world, &mut orders, 1, 1);
    world.report(1, Report::Ended { player: 0, session: second, how: "handed over".into() });
    assert_eq!(world.thrown_out, [""; 0]);
}

#[test]
fn an_edit_that_no_server_took_stays_open_and_one_of_all_is_due_to_those_with_a_profile() {
    let (mut world, mut orders) = world();
    let task = world.order_edit(Uuid::nil(), None, 5, true);
    assert_eq!(world.ledger.edits.bounds(1), (0, 5));
    world.gone(0);
    drop(world.order(0, What::Edit { task: task.clone() }));
    assert!(world.ledger.edits.is_open(task.number));
    world.ledger.edits.refuse(task.number);
    join(&mut world, &mut orders, 1, 1);
    let task = world.order_edit(Uuid::nil(), None, 5, true);
    drop(world.order(1, What::Edit { task }));
    let id = orders.try_recv().unwrap().id;
    world.report(1, Report::Done { id, answer: Answer::Edited { online: true } });
    assert_eq!(world.ledger.edits.bounds(1), (5, 5));
}

#[test]
fn a_server_that_dies_leaves_its_players_and_its_orders_open() {
    let (mut world, mut orders) = world();
    join(&mut world, &mut orders, 0, 1);
    let step = world.ledger.order_earning(0, 5);
    let mut answer = world.order(0, What::Earn { player: 0, step, amount: 5, save: true });
    world.gone(0);
    assert!(answer.try_recv().is_err());
    assert_eq!((world.seat(0), world.ready()), (None, vec![1]));
    join(&mut world, &mut orders, 1, 2);
    assert_eq!(world.figures.take_over_times.count(), 1);
    // An order for a server that is down was never carried out.
    let step = world.ledger.order_earning(0, 5);
    assert!(matches!(
        world.order(0, What::Earn { player: 0, step, amount: 5, save: true }).try_recv(),
        Ok(Answer::Refused { .. })
    ));
}
