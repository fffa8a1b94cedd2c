//! How a connection learns that it should end, and how the listener learns that all have.

use tokio::sync::watch;

/// Asks all connections at once. One a listener.
#[derive(Debug)]
pub(super) struct Closings(watch::Sender<bool>);

/// What one connection sees of it. The connection counts as open until this is dropped.
#[derive(Debug)]
pub struct Closing(Option<watch::Receiver<bool>>);

impl Closings {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    /// For a connection that may stay until it is asked to end.
    pub(super) fn when_asked(&self) -> Closing {
        Closing(Some(self.0.subscribe()))
    }

    /// Asks, and waits until the last connection has ended.
    pub(super) async fn ask(&self) {
        self.0.send_replace(true);
        self.0.closed().await;
    }
}

impl Closing {
    /// For a connection that comes while all others are asked to end: it carries one request.
    pub(super) fn after_one() -> Self {
        Self(None)
    }

    /// The connection carries one request.
    #[must_use]
    pub fn is_after_one(&self) -> bool {
        self.0.is_none()
    }

    /// Waits until the connection is asked to end; for ever, where it ends after one request.
    pub async fn asked(&mut self) {
        match &mut self.0 {
            // An error means that the listener is gone, and nobody waits for this connection.
            Some(asked) => {
                let _ = asked.wait_for(|asked| *asked).await;
            }
            None => std::future::pending().await,
        }
    }
}
