//! One call, as its layers and its handler see it: when its client stops waiting, the memory of its messages, and what
//! is to be said of it at its end.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::arrived::Arrived;
use crate::edge::UploadShare;
use crate::telemetry::{ServedModel, StageTimes};

/// An extension of every request. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Call(Arc<State>);

#[derive(Debug, Default)]
struct State {
    deadline: Option<Instant>,
    /// Requests with tensors that the handler has not taken yet, in their order.
    arrived: Mutex<VecDeque<Arrived>>,
    /// Of the largest message that went through tonic, whose buffer stays as large until the call ends.
    largest: Mutex<Option<UploadShare>>,
    report: Mutex<Report>,
}

/// What a handler tells about its answer.
#[derive(Debug, Clone, Default)]
pub(super) struct Report {
    /// The model that was asked, if there is one.
    pub model: Option<Arc<ServedModel>>,
    /// Where the time went.
    pub times: StageTimes,
    /// What the log should say about a failure.
    pub cause: Option<String>,
    /// The client has ended the call itself: whatever it is answered, it does not hear it.
    pub left: bool,
}

impl Call {
    pub(super) fn new(deadline: Option<Instant>) -> Self {
        Self(Arc::new(State { deadline, ..State::default() }))
    }

    /// When the client stops waiting, if it said so.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.0.deadline
    }

    /// Keeps a request for the handler, which tonic is about to call.
    pub(super) fn keep(&self, arrived: Arrived) {
        lock(&self.0.arrived).push_back(arrived);
    }

    /// The oldest request that the handler has not taken.
    pub(super) fn take(&self) -> Option<Arrived> {
        lock(&self.0.arrived).pop_front()
    }

    /// Keeps the share of a message that tonic copies, to the end of the call, unless a larger one is kept already.
    pub(super) fn copied(&self, share: UploadShare) {
        let mut largest = lock(&self.0.largest);
        if largest.as_ref().is_none_or(|largest| largest.bytes() < share.bytes()) {
            *largest = Some(share);
        }
    }

    /// Changes the report.
    pub(super) fn report(&self, change: impl FnOnce(&mut Report)) {
        change(&mut lock(&self.0.report));
    }

    /// The report so far.
    pub(super) fn reported(&self) -> Report {
        lock(&self.0.report).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
