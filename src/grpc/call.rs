//! One call, as its layers and its handler see it: when its client stops waiting, the memory of its messages, and what
//! is to be said of it at its end.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::edge::UploadShare;
use crate::telemetry::StageTimes;

/// An extension of every request. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Call(Arc<State>);

#[derive(Debug, Default)]
struct State {
    deadline: Option<Instant>,
    /// Of the messages that the handler has not taken yet, in their order.
    shares: Mutex<VecDeque<UploadShare>>,
    report: Mutex<Report>,
}

/// What a handler tells about its answer.
#[derive(Debug, Clone, Default)]
pub(super) struct Report {
    /// The model that was asked, if there is one.
    pub model: String,
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

    /// Keeps the share of a message that is on its way to the handler.
    pub(super) fn keep(&self, share: UploadShare) {
        lock(&self.0.shares).push_back(share);
    }

    /// The share of the oldest message that the handler has; must live as long as the message does.
    pub(super) fn take(&self) -> Option<UploadShare> {
        lock(&self.0.shares).pop_front()
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
