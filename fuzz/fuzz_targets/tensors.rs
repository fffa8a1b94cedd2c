//! Any bytes are a body of the Open Inference Protocol or an error, and a tree of values agrees.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    residual::fuzzing::tensors(data);
});
