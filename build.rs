//! Compiles `proto/` into Rust, with a compiler that is Rust itself: building needs no `protoc` on the machine.

use std::error::Error;
use std::path::PathBuf;

/// Read by `src/grpc/proto.rs`; served by reflection, with the comments.
const DESCRIPTORS: &str = "inference.bin";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_source_info(true).include_imports(true).open_file("inference.proto")?;
    let descriptors = PathBuf::from(std::env::var("OUT_DIR")?).join(DESCRIPTORS);
    std::fs::write(descriptors, compiler.encode_file_descriptor_set())?;
    tonic_prost_build::configure()
        // The contents of tensors stay views into the message that brought them.
        .bytes(".")
        .codec_path("crate::grpc::codec::Protobuf")
        .build_transport(false)
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
