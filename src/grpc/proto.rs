//! What `build.rs` makes of `proto/`: messages, the server's trait, and a client, which tests and tools use.

#![expect(
    missing_docs,
    unused_qualifications,
    clippy::all,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated: the comments stand in proto/, and the style is the generator's"
)]

tonic::include_proto!("inference");

/// The same as descriptors, for reflection.
pub(super) const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/inference.bin"));
