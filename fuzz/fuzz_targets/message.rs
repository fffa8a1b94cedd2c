//! Any bytes are a message with tensors or an error, within the memory that was foretold.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    residual::fuzzing::message(data);
});
