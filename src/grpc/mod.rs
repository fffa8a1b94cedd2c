//! The gRPC wire.
pub mod proto;
