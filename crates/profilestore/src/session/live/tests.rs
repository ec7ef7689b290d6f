use super::*;
use crate::data::{typed, typed_mut};

fn live() -> (Live, ProfileKey) {
    let record = Record::new(0, RawValue::NULL.to_owned());
    (Live::new(Arc::new(5_i64), record), ProfileKey::new("s", "g", "k").unwrap())
}

fn add_one(data: &mut dyn Data) -> Result<()> {
    *typed_mut::<i64>(data).unwrap() += 1;
    Ok(())
}

fn value(live: &Live) -> i64 {
    *typed::<i64>(&*live.data()).unwrap()
}

#[test]
fn a_panic_leaves_the_data_as_it_was_and_open() {
    let (live, key) = live();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        live.edit(&key, |data| -> Result<()> {
            *typed_mut::<i64>(data).unwrap() = 7;
            panic!("on purpose");
        })
    }));
    assert!(panicked.is_err());
    assert_eq!(value(&live), 5);
    live.edit(&key, add_one).unwrap();
    assert_eq!(value(&live), 6);
}

#[test]
fn an_edit_that_fails_leaves_the_data_as_it_was() {
    let (live, key) = live();
    let before = live.snapshot();
    let failed = live.edit(&key, |data| {
        *typed_mut::<i64>(data).unwrap() = 7;
        Err::<(), _>(Error::new(ErrorKind::Refused, "on purpose"))
    });
    assert_eq!(failed.unwrap_err().kind(), ErrorKind::Refused);
    let after = live.snapshot();
    assert!(Arc::ptr_eq(&before.data, &after.data));
    assert_eq!((after.generation, value(&live)), (before.generation, 5), "nothing to save");
}

#[test]
fn an_edit_inside_an_edit_is_refused_and_readers_do_not_wait() {
    let (live, key) = live();
    let inner = live
        .edit(&key, |_| {
            let inner = live.edit(&key, |_| Ok::<_, Error>(()));
            Ok::<_, Error>((inner.map_err(|e| e.kind()), value(&live)))
        })
        .unwrap();
    assert_eq!(inner, (Err(ErrorKind::Busy), 5));
}

#[test]
fn edits_from_many_threads_are_all_there_and_none_comes_after_the_close() {
    let (live, key) = live();
    let done = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut done = 0;
                    for _ in 0..1000 {
                        done += i64::from(live.edit(&key, add_one).is_ok());
                    }
                    done
                })
            })
            .collect();
        while value(&live) < 1000 {
            std::thread::yield_now();
        }
        let last = live.close_if(|_| Ok::<_, ()>(())).unwrap().unwrap();
        let done: i64 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
        (done, *typed::<i64>(&*last.data).unwrap())
    });
    assert_eq!(done.0 + 5, done.1);
    assert!(live.close_if(|_| Ok::<_, ()>(())).unwrap().is_none());
}

#[test]
fn data_that_must_not_be_closed_is_open_again() {
    let (live, key) = live();
    assert_eq!(live.begin_end(), Some(EndBegun::Now));
    assert_eq!(
        live.close_if(|last| if *typed::<i64>(&*last.data).unwrap() == 5 {
            Err("no")
        } else {
            Ok(())
        })
        .map(drop),
        Err("no")
    );
    live.edit(&key, add_one).unwrap();
    assert_eq!((live.begin_end(), live.is_over()), (Some(EndBegun::Now), false));
}

#[test]
fn a_message_whose_handling_is_spoiled_leaves_the_data_as_it_was() {
    let (live, _) = live();
    let spoiled = live.edit_for_message(
        3,
        || true,
        |data| {
            *typed_mut::<i64>(data).unwrap() = 7;
            Handled::Spoiled(Error::new(ErrorKind::Invalid, "on purpose"))
        },
    );
    assert!(matches!(spoiled, Ok(Handled::Spoiled(_))));
    assert_eq!((value(&live), live.is_processed(3)), (5, false));
}

#[test]
fn a_message_is_processed_once() {
    let (live, _) = live();
    let processed = |_: &mut dyn Data| Handled::Processed(Vec::new());
    let left = live.edit_for_message(3, || true, |_| Handled::Left);
    assert!(matches!(left, Ok(Handled::Left)));
    assert!(matches!(live.edit_for_message(3, || true, processed), Ok(Handled::Processed(_))));
    assert!(matches!(live.edit_for_message(3, || true, processed), Err(Refusal::Processed)));
}
