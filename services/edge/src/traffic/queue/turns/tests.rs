use futures::{FutureExt as _, future::join_all};

use super::*;

const WAIT: Duration = Duration::from_secs(600);

fn room() -> Room {
    Room {
        per_caller: 64,
        per_line: 512,
        lines: [].into(),
        waiting_per_caller: 64,
        waiting_per_line: 1024,
        wait: WAIT,
        wait_standing: WAIT,
    }
}

fn turns(change: impl FnOnce(&mut Room)) -> Arc<Turns> {
    let mut room = room();
    change(&mut room);
    let measured = |_: &str| Measured {
        running: Gauge::noop(),
        waiting: Gauge::noop(),
        waited: Histogram::noop(),
        refused: [Counter::noop(), Counter::noop()],
    };
    Arc::new(Turns::new(room, measured))
}

const ALICE: Caller = Caller(1);
const BOB: Caller = Caller(2);

/// What every count is once nobody calls.
fn assert_empty(turns: &Turns) {
    let state = turns.state();
    assert!(state.callers.is_empty());
    for line in &state.lines {
        assert_eq!((line.running, line.waiting, line.waiting_since), (0, 0, None));
        assert!(line.lanes.is_empty() && line.order.is_empty());
    }
}

#[tokio::test]
async fn callers_take_turns_whoever_has_sent_more() {
    let turns = turns(|room| room.per_line = 1);
    let first = turns.take("a", ALICE).await.unwrap();
    let order: Mutex<Vec<(Caller, usize)>> = Mutex::default();
    let call = async |caller, number| {
        let turn = turns.take("a", caller).await.unwrap();
        order.lock().unwrap().push((caller, number));
        drop(turn);
    };
    let waiting = [(ALICE, 1), (ALICE, 2), (ALICE, 3), (BOB, 1), (BOB, 2)];
    let calls = join_all(waiting.map(|(caller, number)| call(caller, number)));
    let end = async { drop(first) };
    tokio::join!(calls, end);
    let expected = [(ALICE, 1), (BOB, 1), (ALICE, 2), (BOB, 2), (ALICE, 3)];
    assert_eq!(*order.lock().unwrap(), expected);
    assert_empty(&turns);
}

#[tokio::test]
async fn a_caller_has_so_many_calls_on_all_services_and_others_pass() {
    let turns = turns(|room| room.per_caller = 2);
    let one = turns.take("a", ALICE).await.unwrap();
    let _two = turns.take("b", ALICE).await.unwrap();
    let mut third = Box::pin(turns.take("b", ALICE));
    assert!(third.as_mut().now_or_never().is_none());
    assert!(turns.take("b", BOB).now_or_never().is_some_and(|turn| turn.is_ok()));
    // Room on one service is room for the caller on another.
    drop(one);
    assert!(third.as_mut().now_or_never().is_some_and(|turn| turn.is_ok()));
}

#[tokio::test]
async fn in_a_full_line_whoever_waits_most_gives_way() {
    let turns = turns(|room| {
        room.per_line = 1;
        room.waiting_per_line = 3;
        room.waiting_per_caller = 3;
    });
    let running = turns.take("a", ALICE).await.unwrap();
    let mut waiting: Vec<_> = (0..3).map(|_| Box::pin(turns.take("a", ALICE))).collect();
    for one in &mut waiting {
        assert!(one.as_mut().now_or_never().is_none());
    }
    assert_eq!(turns.take("a", ALICE).await.unwrap_err(), Busy::Caller);
    let mut bob = Box::pin(turns.take("a", BOB));
    assert!(bob.as_mut().now_or_never().is_none());
    assert_eq!(waiting[2].as_mut().now_or_never().unwrap().unwrap_err(), Busy::Caller);
    // Alice has two, and whoever comes next would have one: that is as fair as it gets.
    assert_eq!(turns.take("a", BOB).await.unwrap_err(), Busy::Line);
    drop((bob, waiting, running));
    assert_empty(&turns);
}

#[tokio::test]
async fn whoever_stops_waiting_keeps_nothing() {
    let turns = turns(|room| room.per_line = 1);
    let running = turns.take("a", ALICE).await.unwrap();
    let mut told = Box::pin(turns.take("a", ALICE));
    let mut after = Box::pin(turns.take("a", BOB));
    assert!(told.as_mut().now_or_never().is_none() && after.as_mut().now_or_never().is_none());
    drop(running);
    // It was told, and did not hear it.
    drop(told);
    assert!(after.as_mut().now_or_never().is_some_and(|turn| turn.is_ok()));
    drop(after);
    assert_empty(&turns);
}

#[tokio::test]
async fn nobody_waits_longer_than_is_said_and_in_a_standing_line_much_shorter() {
    let turns = turns(|room| {
        room.per_line = 1;
        (room.wait, room.wait_standing) = (Duration::from_millis(80), Duration::from_millis(10));
    });
    let running = turns.take("a", ALICE).await.unwrap();
    assert_eq!(turns.take("a", BOB).await.unwrap_err(), Busy::Line);

    let mut first = Box::pin(turns.take("a", BOB));
    assert!(first.as_mut().now_or_never().is_none());
    let patience = || {
        let state = &mut *turns.state();
        let (ticket, _told, patience) = state.wait(0, ALICE);
        assert!(state.leave(0, ALICE, ticket));
        patience
    };
    assert_eq!(patience(), Duration::from_millis(80));
    std::thread::sleep(STANDING * 2);
    assert_eq!(patience(), Duration::from_millis(10));
    drop((first, running));
    assert_empty(&turns);
}

#[tokio::test]
async fn more_room_lets_those_who_wait_run() {
    let turns = turns(|room| room.per_line = 1);
    let _running = turns.take("a", ALICE).await.unwrap();
    let mut waiting = Box::pin(turns.take("a", ALICE));
    assert!(waiting.as_mut().now_or_never().is_none());
    turns.set(Room { lines: [("a".to_owned(), 2)].into(), ..room() });
    assert!(waiting.as_mut().now_or_never().is_some_and(|turn| turn.is_ok()));
}
