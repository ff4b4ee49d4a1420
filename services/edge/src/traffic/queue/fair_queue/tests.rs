use futures::{FutureExt as _, future::join_all};

use super::*;

const WAIT: Duration = Duration::from_secs(600);

fn limits() -> QueueLimits {
    QueueLimits {
        per_caller: 64,
        per_queue: 512,
        queues: [].into(),
        waiting_per_caller: 64,
        waiting_per_queue: 1024,
        wait: WAIT,
        wait_backlogged: WAIT,
    }
}

fn fair_queue(change: impl FnOnce(&mut QueueLimits)) -> Arc<FairQueue> {
    let mut limits = limits();
    change(&mut limits);
    let metrics = |_: &str| QueueMetrics {
        running: Gauge::noop(),
        waiting: Gauge::noop(),
        waited: Histogram::noop(),
        rejected: [Counter::noop(), Counter::noop()],
    };
    Arc::new(FairQueue::new(limits, metrics))
}

const ALICE: CallerHash = CallerHash(1);
const BOB: CallerHash = CallerHash(2);

/// Asserts that no call runs or waits.
fn assert_empty(fair_queue: &FairQueue) {
    let state = fair_queue.state();
    assert!(state.callers.is_empty());
    for queue in &state.queues {
        assert_eq!((queue.running, queue.waiting, queue.waiting_since), (0, 0, None));
        assert!(queue.waiters.is_empty() && queue.order.is_empty());
    }
}

#[tokio::test]
async fn queued_callers_are_served_round_robin() {
    let fair_queue = fair_queue(|limits| limits.per_queue = 1);
    let first = fair_queue.acquire("a", ALICE).await.unwrap();
    let order: Mutex<Vec<(CallerHash, usize)>> = Mutex::default();
    let call = async |caller, number| {
        let permit = fair_queue.acquire("a", caller).await.unwrap();
        order.lock().unwrap().push((caller, number));
        drop(permit);
    };
    let waiting = [(ALICE, 1), (ALICE, 2), (ALICE, 3), (BOB, 1), (BOB, 2)];
    let calls = join_all(waiting.map(|(caller, number)| call(caller, number)));
    let end = async { drop(first) };
    tokio::join!(calls, end);
    let expected = [(ALICE, 1), (BOB, 1), (ALICE, 2), (BOB, 2), (ALICE, 3)];
    assert_eq!(*order.lock().unwrap(), expected);
    assert_empty(&fair_queue);
}

#[tokio::test]
async fn the_limit_of_a_caller_spans_all_queues_and_does_not_delay_others() {
    let fair_queue = fair_queue(|limits| limits.per_caller = 2);
    let one = fair_queue.acquire("a", ALICE).await.unwrap();
    let _two = fair_queue.acquire("b", ALICE).await.unwrap();
    let mut third = Box::pin(fair_queue.acquire("b", ALICE));
    assert!(third.as_mut().now_or_never().is_none());
    assert!(fair_queue.acquire("b", BOB).now_or_never().is_some_and(|permit| permit.is_ok()));
    // A permit released in one queue is available to its caller in another.
    drop(one);
    assert!(third.as_mut().now_or_never().is_some_and(|permit| permit.is_ok()));
}

#[tokio::test]
async fn a_full_queue_evicts_a_waiter_of_the_caller_with_the_most() {
    let fair_queue = fair_queue(|limits| {
        limits.per_queue = 1;
        limits.waiting_per_queue = 3;
        limits.waiting_per_caller = 3;
    });
    let running = fair_queue.acquire("a", ALICE).await.unwrap();
    let mut waiting: Vec<_> = (0..3).map(|_| Box::pin(fair_queue.acquire("a", ALICE))).collect();
    for one in &mut waiting {
        assert!(one.as_mut().now_or_never().is_none());
    }
    assert_eq!(fair_queue.acquire("a", ALICE).await.unwrap_err(), Busy::Caller);
    let mut bob = Box::pin(fair_queue.acquire("a", BOB));
    assert!(bob.as_mut().now_or_never().is_none());
    assert_eq!(waiting[2].as_mut().now_or_never().unwrap().unwrap_err(), Busy::Caller);
    // Alice has two waiters and Bob one: another eviction would only swap their shares.
    assert_eq!(fair_queue.acquire("a", BOB).await.unwrap_err(), Busy::Queue);
    drop((bob, waiting, running));
    assert_empty(&fair_queue);
}

#[tokio::test]
async fn a_dropped_waiter_passes_its_permit_to_the_next() {
    let fair_queue = fair_queue(|limits| limits.per_queue = 1);
    let running = fair_queue.acquire("a", ALICE).await.unwrap();
    let mut granted = Box::pin(fair_queue.acquire("a", ALICE));
    let mut next = Box::pin(fair_queue.acquire("a", BOB));
    assert!(granted.as_mut().now_or_never().is_none() && next.as_mut().now_or_never().is_none());
    drop(running);
    // The permit was granted but not received.
    drop(granted);
    assert!(next.as_mut().now_or_never().is_some_and(|permit| permit.is_ok()));
    drop(next);
    assert_empty(&fair_queue);
}

#[tokio::test]
async fn waiting_times_out_and_much_sooner_in_a_backlogged_queue() {
    let fair_queue = fair_queue(|limits| {
        limits.per_queue = 1;
        limits.wait = Duration::from_millis(80);
        limits.wait_backlogged = Duration::from_millis(10);
    });
    let running = fair_queue.acquire("a", ALICE).await.unwrap();
    assert_eq!(fair_queue.acquire("a", BOB).await.unwrap_err(), Busy::Queue);

    let mut first = Box::pin(fair_queue.acquire("a", BOB));
    assert!(first.as_mut().now_or_never().is_none());
    let timeout = || {
        let state = &mut *fair_queue.state();
        let (id, _granted, timeout) = state.enqueue(0, ALICE);
        assert!(state.remove_waiter(0, ALICE, id));
        timeout
    };
    assert_eq!(timeout(), Duration::from_millis(80));
    std::thread::sleep(BACKLOGGED_AFTER * 2);
    assert_eq!(timeout(), Duration::from_millis(10));
    drop((first, running));
    assert_empty(&fair_queue);
}

#[tokio::test]
async fn a_raised_limit_dispatches_waiting_calls() {
    let fair_queue = fair_queue(|limits| limits.per_queue = 1);
    let _running = fair_queue.acquire("a", ALICE).await.unwrap();
    let mut waiting = Box::pin(fair_queue.acquire("a", ALICE));
    assert!(waiting.as_mut().now_or_never().is_none());
    fair_queue.set_limits(QueueLimits { queues: [("a".to_owned(), 2)].into(), ..limits() });
    assert!(waiting.as_mut().now_or_never().is_some_and(|permit| permit.is_ok()));
}
