//! Any bytes are an ONNX file or an error, within the memory that was foretold.

#![no_main]

#[path = "../src/weigh.rs"]
mod weigh;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    residual::fuzzing::model(data, &weigh::weigh);
});
