//! Signals -> one drain; and whether the server is fit to be asked.
//!
//! The first Ctrl-C or SIGTERM starts the drain; the second ends the process at once. Everyone who must know watches the
//! same [`Phase`].

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;

/// Where the server is in its life. It only moves forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Models are loading and warming up.
    Starting,
    /// Requests are answered.
    Ready,
    /// A signal came: readiness is off, requests are still answered for the drain delay.
    Leaving,
    /// New requests are refused; those in flight finish.
    Draining,
}

/// Why the server should not be asked, though its phase says that it can be.
#[derive(Debug, Clone)]
pub struct Ailing {
    /// In a sentence.
    pub what: Arc<str>,
    /// A restart may cure it.
    pub restart_helps: bool,
    /// When it began, whatever else came to it.
    pub since: Instant,
}

#[derive(Debug, Clone)]
struct Life {
    phase: Phase,
    ailing: Option<Ailing>,
}

/// Moves the server from phase to phase. One per server; the others hold a [`Phases`].
#[derive(Debug)]
pub struct Lifecycle(watch::Sender<Life>);

/// Sees the phase. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Phases(watch::Receiver<Life>);

impl Lifecycle {
    /// A server that is starting.
    #[must_use]
    pub fn new() -> Self {
        Self(watch::Sender::new(Life { phase: Phase::Starting, ailing: None }))
    }

    /// Moves on to `phase`; a phase that has passed is not entered again, so that a model that becomes ready during the
    /// drain does not turn readiness back on.
    pub fn advance(&self, phase: Phase) {
        self.0.send_if_modified(|current| {
            let moves = phase > current.phase;
            if moves {
                current.phase = phase;
            }
            moves
        });
    }

    /// Says what ails the server and whether a restart may help, or that nothing does. True if it was well and is not, or the other way round.
    pub fn ails(&self, what: Option<(&str, bool)>) -> bool {
        let mut turned = false;
        self.0.send_if_modified(|life| {
            if life.ailing.as_ref().map(|ailing| (&*ailing.what, ailing.restart_helps)) == what {
                return false;
            }
            turned = life.ailing.is_some() != what.is_some();
            let since = life.ailing.as_ref().map_or_else(Instant::now, |ailing| ailing.since);
            life.ailing = what.map(|(what, restart_helps)| Ailing { what: what.into(), restart_helps, since });
            true
        });
        turned
    }

    /// A view for others.
    #[must_use]
    pub fn phases(&self) -> Phases {
        Phases(self.0.subscribe())
    }
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self::new()
    }
}

impl Phases {
    /// The phase now.
    #[must_use]
    pub fn now(&self) -> Phase {
        self.0.borrow().phase
    }

    /// What ails the server, if anything does.
    #[must_use]
    pub fn ailing(&self) -> Option<Ailing> {
        self.0.borrow().ailing.clone()
    }

    /// The server is in [`Phase::Ready`] and nothing ails it.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let life = self.0.borrow();
        life.phase == Phase::Ready && life.ailing.is_none()
    }

    /// Waits until something has changed since the last call. False if the server is gone, which is past every phase.
    pub async fn changed(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }

    /// Waits until `phase` is reached or passed.
    pub async fn reached(&mut self, phase: Phase) {
        // An error means that the server is gone, which is past every phase.
        let _ = self.0.wait_for(|life| life.phase >= phase).await;
    }
}

/// The signals that end a server. Listens from its creation on, so none is lost between two waits.
#[derive(Debug)]
pub struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    /// Begins to listen for Ctrl-C and SIGTERM.
    ///
    /// # Errors
    /// If the system refuses to register the handlers.
    #[cfg(unix)]
    pub fn listen() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Begins to listen for Ctrl-C.
    ///
    /// # Errors
    /// Never on this system.
    #[cfg(not(unix))]
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self {})
    }

    /// Waits for the next signal and returns its name.
    pub async fn next(&mut self) -> &'static str {
        #[cfg(unix)]
        return tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        };
        #[cfg(not(unix))]
        {
            // Without a handler there is nothing to wait for, and the system ends the process by itself.
            if tokio::signal::ctrl_c().await.is_err() {
                std::future::pending::<()>().await;
            }
            "Ctrl-C"
        }
    }
}

/// Hangups: the usual way to ask a server to look at its files again, and what a terminal sends when it closes. Listens
/// from its creation on, so that a hangup during the start does not end the process.
#[derive(Debug)]
pub struct Hangups {
    #[cfg(unix)]
    signal: tokio::signal::unix::Signal,
    /// The process was started from a terminal.
    #[cfg(unix)]
    has_terminal: bool,
}

impl Hangups {
    /// Begins to listen.
    ///
    /// # Errors
    /// If the system refuses to register the handler.
    pub fn listen() -> std::io::Result<Self> {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            Ok(Self { signal: signal(SignalKind::hangup())?, has_terminal: stdin_is_terminal() })
        }
        #[cfg(not(unix))]
        Ok(Self {})
    }

    /// Waits for the next one: `None` asks to look at the files again, a name means that the server's terminal was closed.
    pub async fn next(&mut self) -> Option<&'static str> {
        #[cfg(unix)]
        {
            self.signal.recv().await;
            // A closed terminal is one no longer; one that is open sent nothing, so somebody else did.
            (self.has_terminal && !stdin_is_terminal()).then_some("SIGHUP of a closed terminal")
        }
        #[cfg(not(unix))]
        std::future::pending().await
    }
}

#[cfg(unix)]
fn stdin_is_terminal() -> bool {
    std::io::IsTerminal::is_terminal(&std::io::stdin())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_only_move_forward() {
        let lifecycle = Lifecycle::new();
        let phases = lifecycle.phases();
        assert_eq!(phases.now(), Phase::Starting);
        lifecycle.advance(Phase::Draining);
        lifecycle.advance(Phase::Ready);
        assert_eq!(phases.now(), Phase::Draining);
    }
}
