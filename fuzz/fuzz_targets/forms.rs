//! Any bytes are a form of the native API or an error, and nothing is lost.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    residual::fuzzing::forms(data);
});
