use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use proptest::prelude::*;

use super::*;

/// An item that knows whether its caller is there and what became of it.
struct Item {
    id: usize,
    left: Arc<AtomicBool>,
    deadline: Instant,
}

impl Item {
    fn new(id: usize) -> Self {
        Self { id, left: Arc::default(), deadline: Instant::now() + Duration::from_secs(3600) }
    }

    fn late(id: usize) -> Self {
        Self { deadline: Instant::now(), ..Self::new(id) }
    }
}

impl Waiting for Item {
    fn caller_left(&self) -> bool {
        self.left.load(Ordering::Relaxed)
    }

    fn deadline(&self) -> Instant {
        self.deadline
    }
}

/// The instance of a test: its name.
type TestQueue = Queue<Item, &'static str>;

/// One instance on one core.
fn queue(places: usize, images_max: usize) -> Arc<TestQueue> {
    let limits = BatchLimits { images_max, delay: Duration::ZERO, fixed: false };
    Queue::new(places, limits, &Cores::new(1), vec![Instances { cores: 1, all: vec!["only"] }])
}

/// One instance with both of two cores, and one for each.
fn elastic(cores: &Cores) -> Arc<TestQueue> {
    let groups = vec![Instances { cores: 1, all: vec!["narrow", "narrow"] }, Instances { cores: 2, all: vec!["wide"] }];
    Queue::new(64, BatchLimits { images_max: 4, delay: Duration::ZERO, fixed: false }, cores, groups)
}

/// Takes and gives back at once. False where the queue has ended.
fn take(queue: &TestQueue, taken: &mut Taken<Item>) -> bool {
    queue.take(taken).map(|run| queue.give_back(run)).is_some()
}

fn push(queue: &TestQueue, item: Item) {
    let place = queue.reserve(1).unwrap().pop().unwrap();
    assert!(queue.push(place, item).is_ok());
}

fn ids(taken: &Taken<Item>) -> Vec<usize> {
    taken.batch.iter().map(|(item, _)| item.id).collect()
}

#[test]
fn first_in_first_out_up_to_the_limit() {
    let (queue, mut taken) = (queue(8, 3), Taken::default());
    (0..5).for_each(|id| push(&queue, Item::new(id)));
    assert!(take(&queue, &mut taken));
    assert_eq!(ids(&taken), [0, 1, 2]);
    assert!(take(&queue, &mut taken));
    assert_eq!(ids(&taken), [3, 4]);
}

#[test]
fn one_past_the_bound_is_refused_and_a_taken_image_makes_room() {
    let (queue, mut taken) = (queue(2, 1), Taken::default());
    push(&queue, Item::new(0));
    let held = queue.reserve(1).unwrap();
    assert_eq!(queue.reserve(1).unwrap_err(), BatchError::Overloaded { images: 1, images_max: 2 });
    assert!(take(&queue, &mut taken));
    assert_eq!(queue.reserve(1).unwrap().len(), 1);
    drop(held);
    assert_eq!(queue.reserve(2).unwrap().len(), 2);
}

#[test]
fn what_would_wait_too_long_is_refused_at_the_door() {
    let limits = BatchLimits { images_max: 4, delay: Duration::ZERO, fixed: false };
    let places = Places { images_max: 64, delay_max: Some(Duration::from_secs(2)), rate: None, prepared_at_once: 1 };
    let queue: Arc<TestQueue> =
        Queue::new(places, limits, &Cores::new(1), vec![Instances { cores: 1, all: vec!["only"] }]);
    let mut taken = Taken::default();
    // Nothing is known of the model yet.
    let held = queue.reserve(20).unwrap();
    push(&queue, Item::new(0));
    let run = queue.take(&mut taken).unwrap();
    queue.finish(run, 1, Duration::from_millis(250));
    // Four a second, as far as can be known: nine would wait for more than two seconds.
    assert_eq!(queue.reserve(1).unwrap_err(), BatchError::Behind { ahead_ms: 5000, max_ms: 2000 });
    drop(held);
    let held = queue.reserve(8).unwrap();
    let one = queue.reserve(1).unwrap();
    assert_eq!(queue.reserve(1).unwrap_err(), BatchError::Behind { ahead_ms: 2250, max_ms: 2000 });
    drop((held, one));
    // Where nothing waits, a request may be as long as it likes.
    assert_eq!(queue.reserve(64).unwrap().len(), 64);
}

#[test]
fn places_are_all_or_none() {
    let queue = queue(3, 1);
    let held = queue.reserve(2).unwrap();
    assert!(queue.reserve(2).is_err());
    assert_eq!(queue.reserve(1).unwrap().len(), 1, "the refused request holds nothing");
    drop(held);
}

#[test]
fn a_caller_that_left_is_skipped_and_makes_room_in_the_batch() {
    let (queue, mut taken) = (queue(8, 2), Taken::default());
    for id in 0..4 {
        let item = Item::new(id);
        item.left.store(id % 2 == 0, Ordering::Relaxed);
        push(&queue, item);
    }
    assert!(take(&queue, &mut taken));
    assert_eq!(ids(&taken), [1, 3]);
    assert!(queue.is_empty());
}

#[test]
fn a_late_image_is_handed_out_apart() {
    let (queue, mut taken) = (queue(8, 2), Taken::default());
    push(&queue, Item::late(0));
    push(&queue, Item::new(1));
    assert!(take(&queue, &mut taken));
    assert_eq!(ids(&taken), [1]);
    assert_eq!(taken.late.iter().map(|item| item.id).collect::<Vec<_>>(), [0]);
}

#[test]
fn a_closed_queue_gives_out_what_waits_then_ends() {
    let mut taken = Taken::default();
    let limits = BatchLimits { images_max: 8, delay: Duration::from_secs(3600), fixed: false };
    let queue = Queue::new(8, limits, &Cores::new(1), vec![Instances { cores: 1, all: vec!["only"] }]);
    push(&queue, Item::new(0));
    let place = queue.reserve(1).unwrap().pop().unwrap();
    queue.close();
    assert!(take(&queue, &mut taken), "the delay does not hold up a closing queue");
    assert_eq!(ids(&taken), [0]);
    assert!(!take(&queue, &mut taken));
    assert!(queue.push(place, Item::new(1)).is_err());
}

#[test]
fn one_image_gets_both_cores_and_two_get_one_each() {
    let (queue, mut taken) = (elastic(&Cores::new(2)), Taken::default());
    push(&queue, Item::new(0));
    let alone = queue.take(&mut taken).unwrap();
    assert_eq!((alone.instance, alone.cores), ("wide", 2));
    push(&queue, Item::new(1));
    push(&queue, Item::new(2));
    queue.give_back(alone);
    let first = queue.take(&mut taken).unwrap();
    assert_eq!((first.instance, ids(&taken)), ("narrow", vec![1]));
    let second = queue.take(&mut taken).unwrap();
    assert_eq!((second.instance, ids(&taken)), ("narrow", vec![2]));
    queue.give_back(first);
    queue.give_back(second);
    push(&queue, Item::new(3));
    assert_eq!(queue.take(&mut taken).unwrap().instance, "wide", "idle again");
}

#[test]
fn late_images_alone_come_with_an_empty_batch_and_cost_no_core() {
    let cores = Cores::new(2);
    let (queue, mut taken) = (elastic(&cores), Taken::default());
    push(&queue, Item::late(0));
    assert!(take(&queue, &mut taken));
    assert_eq!((taken.batch.len(), taken.late.len(), cores.free()), (0, 1, 2));
}

#[test]
fn models_share_the_cores_and_the_older_image_goes_first() {
    let cores = Cores::new(2);
    let (one, other) = (elastic(&cores), elastic(&cores));
    let mut taken = Taken::default();
    push(&one, Item::new(0));
    let running = one.take(&mut taken).unwrap();
    assert_eq!(cores.free(), 0);
    push(&other, Item::new(1));
    push(&one, Item::new(2));
    let order = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for queue in [&one, &other] {
            scope.spawn(|| {
                let mut taken = Taken::default();
                while let Some(run) = queue.take(&mut taken) {
                    order.lock().unwrap().extend(ids(&taken));
                    queue.give_back(run);
                }
            });
        }
        one.give_back(running);
        while order.lock().unwrap().len() < 2 {
            std::thread::yield_now();
        }
        one.close();
        other.close();
    });
    // Which queue's worker sees the free cores first is chance; that both get them is not.
    let mut seen = order.into_inner().unwrap();
    seen.sort_unstable();
    assert_eq!((seen, cores.free()), (vec![1, 2], 2));
}

/// A worker for each queue, which notes what it runs.
fn serve<'s>(scope: &'s std::thread::Scope<'s, '_>, queue: &'s TestQueue, seen: &'s Mutex<Vec<usize>>) {
    scope.spawn(move || {
        let mut taken = Taken::default();
        while let Some(run) = queue.take(&mut taken) {
            seen.lock().unwrap().extend(ids(&taken));
            queue.give_back(run);
        }
    });
}

fn until(seen: &Mutex<Vec<usize>>, count: usize) {
    let started = Instant::now();
    while seen.lock().unwrap().len() < count {
        assert!(started.elapsed() < Duration::from_secs(20), "only {:?}", seen.lock().unwrap());
        std::thread::yield_now();
    }
}

fn one_core(cores: &Cores, images_max: usize, delay: Duration) -> Arc<TestQueue> {
    let limits = BatchLimits { images_max, delay, fixed: false };
    Queue::new(64, limits, cores, vec![Instances { cores: 1, all: vec!["only"] }])
}

#[test]
fn an_image_that_leaves_while_it_is_first_in_line_holds_up_nobody() {
    for _ in 0..50 {
        let cores = Cores::new(1);
        let holder = one_core(&cores, 1, Duration::ZERO);
        let queues = [one_core(&cores, 1, Duration::ZERO), one_core(&cores, 1, Duration::ZERO)];
        push(&holder, Item::new(9));
        let held = holder.take(&mut Taken::default()).unwrap();
        let seen = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            let first = Item::new(0);
            let left = Arc::clone(&first.left);
            push(&queues[0], first);
            push(&queues[1], Item::new(1));
            queues.iter().for_each(|queue| serve(scope, queue, &seen));
            while queues.iter().any(|queue| !queue.lock().starved) {
                std::thread::yield_now();
            }
            push(&queues[0], Item::new(2));
            left.store(true, Ordering::Relaxed);
            holder.give_back(held);
            until(&seen, 2);
            queues.iter().for_each(|queue| queue.close());
        });
        let mut seen = seen.into_inner().unwrap();
        seen.sort_unstable();
        assert_eq!(seen, [1, 2]);
    }
}

#[test]
fn a_queue_that_waits_for_company_is_not_in_line_for_cores() {
    let cores = Cores::new(1);
    let holder = one_core(&cores, 1, Duration::ZERO);
    let patient = one_core(&cores, 2, Duration::from_secs(3600));
    let eager = one_core(&cores, 1, Duration::ZERO);
    push(&holder, Item::new(9));
    let held = holder.take(&mut Taken::default()).unwrap();
    let seen = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        let leaving = Item::new(0);
        let left = Arc::clone(&leaving.left);
        push(&patient, leaving);
        push(&patient, Item::new(1));
        serve(scope, &patient, &seen);
        while !patient.lock().starved {
            std::thread::yield_now();
        }
        left.store(true, Ordering::Relaxed);
        holder.give_back(held);
        push(&eager, Item::new(2));
        serve(scope, &eager, &seen);
        until(&seen, 1);
        push(&patient, Item::new(3));
        until(&seen, 3);
        patient.close();
        eager.close();
    });
    assert_eq!(seen.into_inner().unwrap(), [2, 1, 3], "the full batch of the patient one goes at once as well");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Producers and workers of two models on real threads that share the cores: every image that got a place comes out
    /// exactly once, no batch is above the limit, never more images wait than there are places, the cores of the runs never
    /// exceed the budget, and all end.
    #[test]
    fn everyone_comes_out_exactly_once(
        producers in 1usize..4, each in 1usize..40, total in 1usize..5, places in 1usize..12, images_max in 1usize..6,
        delay_us in 0u64..300, leaving in 0usize..4,
    ) {
        let cores = Cores::new(total);
        let limits = BatchLimits { images_max, delay: Duration::from_micros(delay_us), fixed: false };
        let queues: Vec<Arc<TestQueue>> = (0..2).map(|_| {
            let groups =
                vec![Instances { cores: total, all: vec!["wide"] }, Instances { cores: 1, all: vec!["narrow"; total] }];
            Queue::new(places, limits, &cores, groups)
        }).collect();
        let out: Vec<AtomicUsize> = (0..2 * producers * each).map(|_| AtomicUsize::new(0)).collect();
        let (busy, over) = (AtomicUsize::new(0), AtomicBool::new(false));
        let leaves = |id: usize| leaving > 0 && id.is_multiple_of(leaving + 1);
        std::thread::scope(|scope| {
            let (out, busy, over, leaves) = (&out, &busy, &over, &leaves);
            let taking: Vec<_> = queues.iter().flat_map(|queue| (0..total).map(move |_| scope.spawn(move || {
                let mut taken = Taken::default();
                while let Some(run) = queue.take(&mut taken) {
                    if busy.fetch_add(run.cores, Ordering::SeqCst) + run.cores > total
                        || taken.batch.len() > images_max || !taken.late.is_empty()
                    {
                        over.store(true, Ordering::SeqCst);
                    }
                    for (item, _) in &taken.batch {
                        out[item.id].fetch_add(1, Ordering::Relaxed);
                    }
                    std::thread::yield_now();
                    busy.fetch_sub(run.cores, Ordering::SeqCst);
                    queue.give_back(run);
                }
            }))).collect();
            let pushing: Vec<_> = queues.iter().enumerate().flat_map(|(model, queue)| (0..producers).map(move |producer| {
                scope.spawn(move || for n in 0..each {
                    let place = loop {
                        match queue.reserve(1) {
                            Ok(mut places) => break places.pop().unwrap(),
                            Err(_) => std::thread::yield_now(),
                        }
                    };
                    let item = Item::new((model * producers + producer) * each + n);
                    item.left.store(leaves(item.id), Ordering::Relaxed);
                    assert!(queue.push(place, item).is_ok());
                    assert!(queue.len() <= places);
                })
            })).collect();
            pushing.into_iter().for_each(|thread| thread.join().unwrap());
            queues.iter().for_each(|queue| queue.close());
            taking.into_iter().for_each(|thread| thread.join().unwrap());
        });
        prop_assert!(!over.load(Ordering::SeqCst), "a bound was exceeded");
        for (id, count) in out.iter().enumerate() {
            prop_assert_eq!(count.load(Ordering::Relaxed), usize::from(!leaves(id)), "image {}", id);
        }
        prop_assert_eq!(cores.free(), total, "every core came back");
        for queue in &queues {
            prop_assert_eq!(queue.reserve(places).unwrap().len(), places, "every place came back");
        }
    }
}
