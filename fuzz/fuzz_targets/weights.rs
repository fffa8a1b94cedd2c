//! Any bytes are a safetensors file or an error, and the library of that name agrees.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    residual::fuzzing::weights(data);
});
