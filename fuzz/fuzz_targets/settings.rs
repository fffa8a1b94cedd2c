//! Any bytes are a settings file or an error, and printing loses nothing.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    residual::fuzzing::settings(data);
});
