//! The ports that the server listens on, and what is spoken on each.

use std::net::SocketAddr;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::apis::Api;
use crate::config::{HttpSettings, SecuritySettings, Settings, limits};
use crate::edge::{
    self, ClientConnections, ConnectionLimits, Drained, Entrance, Http1, Http2, Http2Limits, Networks, Shared, Tls,
    Wire,
};
use crate::grpc::{self, Grpc, GrpcLimits};
use crate::guard::Guard;
use crate::http::{self, App, Side};

/// The settings that choose the port of gRPC, and that of the operators.
const GRPC: &str = "--host and --grpc-port, or leave grpc out of --apis";
const ADMIN: &str = "--admin-host and --admin-port";

/// Bound and not yet served: clients that connect wait.
pub(super) struct Ports {
    http: Port,
    /// Only where that API is spoken.
    grpc: Option<Port>,
    /// Only where operators have a port of their own.
    admin: Option<Port>,
}

struct Port {
    listener: TcpListener,
    address: SocketAddr,
}

/// Served until the drain.
#[derive(Debug)]
pub(super) struct Served {
    /// Where HTTP is spoken.
    pub(super) http: SocketAddr,
    /// Where gRPC is spoken, if it is.
    pub(super) grpc: Option<SocketAddr>,
    /// Where the operators' port is, if they have one.
    pub(super) admin: Option<SocketAddr>,
    edges: Vec<JoinHandle<Drained>>,
}

impl Ports {
    /// Binds every port that the settings ask for.
    ///
    /// # Errors
    /// If one of them cannot be bound; the text names the setting.
    pub(super) async fn bind(settings: &Settings) -> anyhow::Result<Self> {
        let HttpSettings { host, http_port, apis, .. } = &settings.http;
        let http = Port::bind(host, *http_port, "--host and --http-port").await?;
        let grpc = match apis.has(Api::Grpc) {
            true => Some(Port::bind(host, settings.grpc_port(), GRPC).await?),
            false => None,
        };
        let security = &settings.security;
        let admin = match security.admin_port {
            Some(port) => Some(Port::bind(&security.admin_host, port, ADMIN).await?),
            None => None,
        };
        Ok(Self { http, grpc, admin })
    }

    /// Where the operators' port will be.
    pub(super) fn admin(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(|port| port.address)
    }

    /// Where HTTP will be spoken.
    pub(super) fn http(&self) -> SocketAddr {
        self.http.address
    }

    /// Serves them: `app` and `grpc` to clients, `operators` on the port of these, if they have one.
    pub(super) fn serve(
        self,
        settings: &Settings,
        (app, operators, grpc): (&App, &App, Grpc),
        shared: &Shared,
        (guard, tls): (&Guard, Option<&Tls>),
    ) -> Served {
        let (http, grpc_address) = (self.http.address, self.grpc.as_ref().map(|port| port.address));
        let admin = self.admin();
        let side = if self.admin.is_some() { Side::Clients } else { Side::Everything };
        let tells_peers = guard.asks_for_peers();
        let entrance = Entrance {
            limits: connection_limits(settings),
            per_client: per_client(&settings.security),
            tls: tls.cloned(),
        };
        let router = http::router(app, side);
        let mut edges = vec![self.http.serve(Http1 { router, tells_peers }, entrance.clone(), settings, shared)];
        if let Some(port) = self.admin {
            // For probes and collectors, which no certificate has to fit; nobody is told apart there.
            let entrance = Entrance { per_client: None, tls: None, ..entrance.clone() };
            let router = http::router(operators, Side::Operators);
            edges.push(port.serve(Http1 { router, tells_peers: false }, entrance, settings, shared));
        }
        if let Some(port) = self.grpc {
            let limits = Http2Limits { calls_max: limits::GRPC_CONNECTION_CALLS_MAX };
            let wire = Http2 { router: grpc::router(grpc), limits, tells_peers };
            edges.push(port.serve(wire, entrance, settings, shared));
        }
        Served { http, grpc: grpc_address, admin, edges }
    }
}

impl Port {
    async fn bind(host: &str, port: u16, other: &str) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((host, port))
            .await
            .with_context(|| format!("listen on {host} port {port}; choose another with {other}"))?;
        let address = listener.local_addr().context("read the listener's address")?;
        Ok(Self { listener, address })
    }

    fn serve(self, wire: impl Wire, entrance: Entrance, settings: &Settings, shared: &Shared) -> JoinHandle<Drained> {
        let (phases, metrics) = (shared.phases.clone(), shared.metrics.clone());
        metrics.connections_max.add(i64::try_from(entrance.limits.connections_max).unwrap_or(i64::MAX));
        // Joined by `drained`.
        tokio::spawn(edge::serve(self.listener, wire, entrance, phases, metrics, *settings.http.drain_grace))
    }
}

impl Served {
    /// Waits until the drain has ended on every port.
    pub(super) async fn drained(self) -> Drained {
        let mut drained = Drained::All;
        for edge in self.edges {
            // The accept loops neither panic nor are aborted.
            if edge.await.unwrap_or(Drained::GraceOver) == Drained::GraceOver {
                drained = Drained::GraceOver;
            }
        }
        drained
    }
}

/// Bounds on calls, from the settings.
pub(super) fn grpc_limits(settings: &Settings) -> GrpcLimits {
    GrpcLimits {
        message_bytes_max: settings.grpc.grpc_message_bytes_max.as_u64(),
        calls_max: settings.grpc.grpc_calls_max,
        stream_requests_max: settings.grpc.grpc_stream_requests_max,
        stream_timeout: *settings.grpc.grpc_stream_timeout,
        body_timeout: *settings.http.body_timeout,
    }
}

fn per_client(security: &SecuritySettings) -> Option<ClientConnections> {
    let exempt = || Networks::new(security.trusted_proxy.clone());
    security.connections_per_client.map(|max| ClientConnections { max, exempt: exempt() })
}

fn connection_limits(settings: &Settings) -> ConnectionLimits {
    let http = &settings.http;
    ConnectionLimits {
        connections_max: http.connections_max,
        header_bytes_max: limits::HEADER_BYTES_MAX,
        handshake_timeout: *settings.security.tls_handshake_timeout,
        header_timeout: *http.header_timeout,
        write_timeout: *http.write_timeout,
    }
}
