//! The Open Inference Protocol over gRPC, with health and reflection. It puts the protocol into protobuf, and decides
//! nothing about images or models.

mod arrived;
mod call;
mod codec;
mod config;
mod deadline;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod health;
mod limits;
mod messages;
mod methods;
mod observe;
pub mod proto;
mod scan;
mod service;
mod status;
mod tensors;
mod unpack;

use std::ops::Deref;
use std::sync::Arc;

use axum::Router;
use tokio::sync::Semaphore;
use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;

pub use limits::GrpcLimits;

use crate::edge::{OverloadLog, Shared};
use crate::guard::Guard;
use crate::oip::Oip;
use crate::pipeline::PreparePool;
use methods::{Kind, Methods};
use proto::grpc_inference_service_server::GrpcInferenceServiceServer;

/// What every call can reach. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Grpc(Arc<Parts>);

/// The parts of a [`Grpc`].
#[derive(Debug)]
pub struct Parts {
    oip: Oip,
    limits: GrpcLimits,
    pool: PreparePool,
    shared: Shared,
    guard: Guard,
    methods: Methods,
    /// For open calls of each [`Kind`].
    places: [Arc<Semaphore>; 3],
    overload: OverloadLog,
}

impl Grpc {
    /// The protocol's gRPC side, with `guard` at its door.
    #[must_use]
    pub fn new(oip: Oip, limits: GrpcLimits, pool: PreparePool, shared: Shared, guard: Guard) -> Self {
        let places = std::array::from_fn(|_kind| Arc::new(Semaphore::new(limits.calls_max)));
        let (methods, overload) = (Methods::new(), OverloadLog::default());
        Self(Arc::new(Parts { oip, limits, pool, shared, guard, methods, places, overload }))
    }
}

impl Parts {
    fn places(&self, kind: Kind) -> &Arc<Semaphore> {
        &self.places[kind as usize]
    }
}

impl Deref for Grpc {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// Every service. Messages reach them whole and within their bounds, so tonic has none of its own.
///
/// # Panics
/// Never in a program whose tests pass: the descriptors are compiled in.
pub fn router(grpc: Grpc) -> Router {
    let inference =
        GrpcInferenceServiceServer::new(service::Service(grpc.clone())).max_decoding_message_size(usize::MAX);
    let health = HealthServer::new(health::Health(grpc.shared.phases.clone()));
    let reflection = || {
        // The reflection services bring their own descriptors.
        let described = [proto::DESCRIPTORS, tonic_health::pb::FILE_DESCRIPTOR_SET];
        described.into_iter().fold(tonic_reflection::server::Builder::configure(), |builder, descriptors| {
            builder.register_encoded_file_descriptor_set(descriptors)
        })
    };
    Routes::new(inference)
        .add_service(health)
        .add_service(reflection().build_v1().expect("descriptors are compiled in"))
        .add_service(reflection().build_v1alpha().expect("descriptors are compiled in"))
        .into_axum_router()
        .layer(axum::middleware::from_fn_with_state(grpc, observe::observe))
}
