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

fn queue(places: usize, images_max: usize) -> Queue<Item> {
    Queue::new(places, BatchLimits { images_max, delay: Duration::ZERO })
}

fn push(queue: &Queue<Item>, item: Item) {
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
    assert!(queue.take(&mut taken));
    assert_eq!(ids(&taken), [0, 1, 2]);
    assert!(queue.take(&mut taken));
    assert_eq!(ids(&taken), [3, 4]);
}

#[test]
fn one_past_the_bound_is_refused_and_a_taken_image_makes_room() {
    let (queue, mut taken) = (queue(2, 1), Taken::default());
    push(&queue, Item::new(0));
    let held = queue.reserve(1).unwrap();
    assert_eq!(queue.reserve(1).unwrap_err(), BatchError::Overloaded { images: 1, images_max: 2 });
    assert!(queue.take(&mut taken));
    assert_eq!(queue.reserve(1).unwrap().len(), 1);
    drop(held);
    assert_eq!(queue.reserve(2).unwrap().len(), 2);
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
    assert!(queue.take(&mut taken));
    assert_eq!(ids(&taken), [1, 3]);
    assert!(queue.is_empty());
}

#[test]
fn a_late_image_is_handed_out_apart() {
    let (queue, mut taken) = (queue(8, 2), Taken::default());
    push(&queue, Item::late(0));
    push(&queue, Item::new(1));
    assert!(queue.take(&mut taken));
    assert_eq!(ids(&taken), [1]);
    assert_eq!(taken.late.iter().map(|item| item.id).collect::<Vec<_>>(), [0]);
}

#[test]
fn a_closed_queue_gives_out_what_waits_then_ends() {
    let mut taken = Taken::default();
    let queue = Queue::new(8, BatchLimits { images_max: 8, delay: Duration::from_secs(3600) });
    push(&queue, Item::new(0));
    let place = queue.reserve(1).unwrap().pop().unwrap();
    queue.close();
    assert!(queue.take(&mut taken), "the delay does not hold up a closing queue");
    assert_eq!(ids(&taken), [0]);
    assert!(!queue.take(&mut taken));
    assert!(queue.push(place, Item::new(1)).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Producers and workers on real threads: every image that got a place comes out exactly once, no batch is above the
    /// limit, and never more images wait than there are places.
    #[test]
    fn everyone_comes_out_exactly_once(
        producers in 1usize..4, each in 1usize..40, workers in 1usize..4, places in 1usize..12, images_max in 1usize..6,
        delay_us in 0u64..300,
    ) {
        let queue: Queue<Item> = Queue::new(places, BatchLimits { images_max, delay: Duration::from_micros(delay_us) });
        let out: Vec<AtomicUsize> = (0..producers * each).map(|_| AtomicUsize::new(0)).collect();
        std::thread::scope(|scope| {
            let taking: Vec<_> = (0..workers).map(|_| scope.spawn(|| {
                let mut taken = Taken::default();
                while queue.take(&mut taken) {
                    assert!(taken.batch.len() <= images_max && taken.late.is_empty());
                    for (item, _) in &taken.batch {
                        out[item.id].fetch_add(1, Ordering::Relaxed);
                    }
                }
            })).collect();
            let pushing: Vec<_> = (0..producers).map(|producer| scope.spawn({
                let queue = &queue;
                move || for n in 0..each {
                    let place = loop {
                        match queue.reserve(1) {
                            Ok(mut places) => break places.pop().unwrap(),
                            Err(_) => std::thread::yield_now(),
                        }
                    };
                    assert!(queue.push(place, Item::new(producer * each + n)).is_ok());
                    assert!(queue.len() <= places);
                }
            })).collect();
            pushing.into_iter().for_each(|thread| thread.join().unwrap());
            queue.close();
            taking.into_iter().for_each(|thread| thread.join().unwrap());
        });
        prop_assert!(out.iter().all(|count| count.load(Ordering::Relaxed) == 1));
        prop_assert_eq!(queue.reserve(places).unwrap().len(), places, "every place came back");
    }
}
