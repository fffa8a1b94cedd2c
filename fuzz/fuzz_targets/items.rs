//! Any bytes are a JSON body of the compat APIs or an error, and a tree of values agrees.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    residual::fuzzing::items(data);
});
