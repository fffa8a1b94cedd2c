//! Connections: accepted under a bound, served as their port's [`Wire`] says, all closed gently at the end.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prometheus::IntGauge;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;

use super::closing::{Closing, Closings};
use super::guests::{Guest, Guests};
use super::limits::ConnectionLimits;
use super::peer::Peer;
use super::places::{ClientConnections, NoPlace, Place, Places};
use super::stream::Stream;
use super::tls::{Alpn, Tls};
use crate::shutdown::{Phase, Phases};
use crate::telemetry::Metrics;

/// What is spoken on the connections of a port.
pub trait Wire: Clone + Send + Sync + 'static {
    /// Serves one connection until its client leaves, breaks a limit, or `closing` asks for the end: then what is in
    /// flight is answered first.
    fn serve(
        self,
        stream: Stream,
        peer: Peer,
        limits: ConnectionLimits,
        closing: Closing,
    ) -> impl Future<Output = Result<(), hyper::Error>> + Send;

    /// Its name in a TLS handshake.
    const ALPN: Alpn;
}

/// Whom a port lets in, and how.
#[derive(Debug, Clone)]
pub struct Entrance {
    /// Its bounds.
    pub limits: ConnectionLimits,
    /// What connections of one client are held to, if they are.
    pub per_client: Option<ClientConnections>,
    /// What secures connections, if anything does.
    pub tls: Option<Tls>,
}

/// How long accepting pauses when the process has run out of file descriptors: trying again at once would only burn a
/// core until some connection ends.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Between two idle connections that are asked to make room for the same client.
const ROOM_INTERVAL: Duration = Duration::from_millis(500);

/// Between two lines in the log about connections that cannot be accepted.
const FAILURES_LOG_PAUSE: Duration = Duration::from_secs(10);

/// Failures to accept, told of now and then: out of descriptors, each try fails until some connection ends.
#[derive(Debug, Default)]
struct Failures {
    logged: Option<Instant>,
}

impl Failures {
    fn note(&mut self, error: &std::io::Error, now: Instant) {
        if self.logged.is_none_or(|logged| now.duration_since(logged) >= FAILURES_LOG_PAUSE) {
            self.logged = Some(now);
            tracing::warn!(%error, "failed to accept connections; trying on");
        }
    }

    fn end(&mut self) {
        if self.logged.take().is_some() {
            tracing::info!("connections are accepted again");
        }
    }
}

/// How the last connections ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// Every request in flight was answered.
    All,
    /// The grace limit came first.
    GraceOver,
}

/// Serves `wire` on `listener` until the drain, then finishes the requests in flight for at most `grace`.
///
/// While the drain lasts, new connections are still accepted: probes must be able to read that readiness is off, and
/// late clients get a refusal that tells them why instead of a refused connection, up to the moment in which the last
/// connections close. Only a drain delay, in which a balancer looks away, spares them all.
pub async fn serve(
    listener: TcpListener,
    wire: impl Wire,
    entrance: Entrance,
    mut phases: Phases,
    metrics: Metrics,
    grace: Duration,
) -> Drained {
    let places = Arc::new(Semaphore::new(entrance.limits.connections_max));
    let closings = Closings::new();
    let of_clients = entrance.per_client.map(Places::new);
    let Entrance { limits, tls, .. } = entrance;
    let guests = Guests::default();
    let accept =
        Acceptor { listener, wire, limits, tls, places, of_clients, guests, arrived: Mutex::default(), metrics };
    tokio::select! {
        () = accept.run(|guest| closings.when_asked(guest)) => {}
        () = phases.reached(Phase::Draining) => {}
    }
    // What was sent before the drain and still lies in a socket is read now, and answered with a refusal. hyper would
    // close such a connection without a word.
    let settled = tokio::time::sleep(DRAIN_SETTLE_TIME);
    tokio::select! {
        () = accept.run(|guest| closings.when_asked(guest)) => {}
        () = settled => {}
    }
    tokio::select! {
        () = accept.run(Closing::after_one) => Drained::All,
        () = closings.ask() => Drained::All,
        () = tokio::time::sleep(grace) => Drained::GraceOver,
    }
}

/// Between the last moment in which requests are taken and the closing of idle connections.
const DRAIN_SETTLE_TIME: Duration = Duration::from_millis(100);

struct Acceptor<W> {
    listener: TcpListener,
    wire: W,
    limits: ConnectionLimits,
    tls: Option<Tls>,
    places: Arc<Semaphore>,
    of_clients: Option<Places>,
    guests: Guests,
    /// The client that waits for a place, kept here while nobody accepts: between two phases of the drain.
    arrived: Mutex<Option<Arrived>>,
    metrics: Metrics,
}

/// A client that has no place yet.
struct Arrived {
    stream: TcpStream,
    peer: Peer,
    of_client: Option<Place>,
}

/// What a connection holds while it lasts.
struct Held {
    _place: OwnedSemaphorePermit,
    _of_client: Option<Place>,
    _open: OpenConnection,
}

impl<W: Wire> Acceptor<W> {
    /// Accepts for ever; `closing` tells each connection when to end.
    async fn run(&self, closing: impl Fn(Guest) -> Closing) {
        let mut failures = Failures::default();
        loop {
            if lock(&self.arrived).is_some() {
                let place = self.place().await;
                if let Some(arrived) = lock(&self.arrived).take() {
                    self.spawn(arrived, place, closing(self.guests.enter()));
                }
                continue;
            }
            match self.listener.accept().await {
                Ok((stream, address)) => {
                    failures.end();
                    let peer = Peer::of(address.ip());
                    match self.of_clients.as_ref().map(|places| places.take(peer)).transpose() {
                        Ok(of_client) => {
                            *lock(&self.arrived) = Some(Arrived { stream, peer, of_client: of_client.flatten() });
                        }
                        // Closed without a word: an answer would cost more than it tells.
                        Err(NoPlace) => self.metrics.connection_refused("client_full"),
                    }
                }
                Err(error) if is_about_one_connection(&error) => {}
                Err(error) => {
                    failures.note(&error, Instant::now());
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// A place for a client that is there. Above the bound, one client at a time waits here and the others in the backlog, which
    /// costs this process nothing, while those that are idle are asked to go.
    async fn place(&self) -> OwnedSemaphorePermit {
        let mut taken = std::pin::pin!(Arc::clone(&self.places).acquire_owned());
        let mut asked = false;
        loop {
            tokio::select! {
                biased;
                place = &mut taken => return place.expect("the places are never closed"),
                () = tokio::time::sleep(ROOM_INTERVAL), if asked => {}
                () = std::future::ready(()), if !asked => {}
            }
            asked = true;
            self.guests.make_room(Instant::now());
        }
    }

    fn spawn(&self, arrived: Arrived, place: OwnedSemaphorePermit, mut closing: Closing) {
        let Arrived { stream, peer, of_client } = arrived;
        // Answers are small and complete: waiting to fill a segment would only delay them.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "failed to set TCP_NODELAY");
        }
        if let Err(error) = limit_writes(&stream, self.limits.write_timeout) {
            tracing::debug!(%error, "failed to set the write timeout");
        }
        let open = OpenConnection::enter(self.metrics.connections.clone());
        let held = Held { _place: place, _of_client: of_client, _open: open };
        let (wire, limits, metrics) = (self.wire.clone(), self.limits, self.metrics.clone());
        let tls = self.tls.as_ref().map(|tls| tls.acceptor(W::ALPN));
        // Ends with its client, or by the drain that `closing` carries, or with the runtime.
        tokio::spawn(async move {
            let _held = held;
            let stream = match tls {
                None => Stream::Plain(stream),
                Some(tls) => match handshake(tls, stream, limits.handshake_timeout, &mut closing).await {
                    Ok(stream) => stream,
                    Err(Unshaken::Asked) => return,
                    Err(Unshaken::Failed(cause)) => {
                        metrics.connection_refused("handshake");
                        tracing::debug!(cause, "a connection ended in its TLS handshake");
                        return;
                    }
                },
            };
            if let Err(error) = wire.serve(stream, peer, limits, closing).await {
                tracing::debug!(%error, "a connection ended early");
            }
        });
    }
}

/// Why a connection was not secured.
enum Unshaken {
    /// The client did not keep to the protocol, or to the time.
    Failed(String),
    /// It was asked to end meanwhile.
    Asked,
}

/// Secures a connection, while its client keeps to the time and nobody asks for the end.
async fn handshake(
    tls: TlsAcceptor,
    stream: TcpStream,
    timeout: Duration,
    closing: &mut Closing,
) -> Result<Stream, Unshaken> {
    tokio::select! {
        shaken = tokio::time::timeout(timeout, tls.accept(stream)) => match shaken {
            Ok(Ok(stream)) => Ok(Stream::Tls(Box::new(stream))),
            Ok(Err(error)) => Err(Unshaken::Failed(error.to_string())),
            Err(_elapsed) => Err(Unshaken::Failed(format!("it took longer than {timeout:?}"))),
        },
        _ = closing.asked() => Err(Unshaken::Asked),
    }
}

fn lock(arrived: &Mutex<Option<Arrived>>) -> MutexGuard<'_, Option<Arrived>> {
    // Whole values are put in and taken out.
    arrived.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lets the system end a connection whose client takes nothing for this long. hyper has no clock for writing, and a client
/// that asks and never reads would keep its place for ever.
fn limit_writes(stream: &TcpStream, timeout: Duration) -> std::io::Result<()> {
    #[cfg(target_os = "linux")]
    return socket2::SockRef::from(stream).set_tcp_user_timeout(Some(timeout));
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (stream, timeout);
        Ok(())
    }
}

/// Errors of `accept` that concern a client that is already gone, not this listener.
fn is_about_one_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset)
}

/// Counts an open connection while it lives.
struct OpenConnection(IntGauge);

impl OpenConnection {
    fn enter(gauge: IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}
