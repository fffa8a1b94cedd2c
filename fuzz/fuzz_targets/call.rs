//! Any bytes are a gRPC call that ends in a status.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    residual::fuzzing::call(data);
});
