//! Any bytes are an HTTP request that is answered.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    residual::fuzzing::request(data);
});
