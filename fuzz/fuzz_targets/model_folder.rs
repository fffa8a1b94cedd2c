//! Any texts beside a model are understood or refused, and what is understood can be followed.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    residual::fuzzing::model_folder(data);
});
