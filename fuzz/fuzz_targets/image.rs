//! Any bytes are an image or an error, within the memory that was foretold.

#![no_main]

#[path = "../src/weigh.rs"]
mod weigh;

use libfuzzer_sys::fuzz_target;

// The first hook would end the process where the JPEG decoder panics, which the server survives: it is caught, and the upload
// refused. What is not caught still ends the process.
fuzz_target!(init: std::panic::set_hook(Box::new(weigh::tell_unless_caught)), |data: &[u8]| {
    residual::fuzzing::image(data, &weigh::weigh);
});
