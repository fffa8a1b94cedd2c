//! How a connection learns that it should end, and how the listener learns that all have.

use tokio::sync::watch;

use super::guests::{Guest, Traffic};

/// Asks all connections at once. One a listener.
#[derive(Debug)]
pub(super) struct Closings(watch::Sender<bool>);

/// What one connection sees of it. The connection counts as open until this is dropped.
#[derive(Debug)]
pub struct Closing {
    all: Option<watch::Receiver<bool>>,
    guest: Guest,
}

/// Why a connection should end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// The server ends.
    WithAll,
    /// It has been idle, and others wait.
    ToMakeRoom,
}

impl Closings {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    /// For a connection that may stay until it is asked to end.
    pub(super) fn when_asked(&self, guest: Guest) -> Closing {
        Closing { all: Some(self.0.subscribe()), guest }
    }

    /// Asks, and waits until the last connection has ended.
    pub(super) async fn ask(&self) {
        self.0.send_replace(true);
        self.0.closed().await;
    }
}

impl Closing {
    /// For a connection that comes while all others are asked to end: it carries one request.
    pub(super) fn after_one(guest: Guest) -> Self {
        Self { all: None, guest }
    }

    /// The connection carries one request.
    #[must_use]
    pub fn is_after_one(&self) -> bool {
        self.all.is_none()
    }

    /// Tells of the requests on the connection, so that an idle one can make room.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        self.guest.traffic().clone()
    }

    /// Waits until the first request has begun.
    pub(super) async fn first_request(&mut self) {
        self.guest.has_asked().await;
    }

    /// Waits until the connection is asked to end, with all others or to make room for one.
    pub async fn asked(&mut self) -> Asked {
        let Self { all, guest } = self;
        let all_are = async {
            match all {
                // An error means that the listener is gone, and nobody waits for this connection.
                Some(asked) => drop(asked.wait_for(|asked| *asked).await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = all_are => Asked::WithAll,
            () = guest.should_leave() => Asked::ToMakeRoom
        }
    }
}
