//! What reads bytes from outside, each behind a function that takes any bytes at all and panics where a promise is broken.
//!
//! The targets in `fuzz/` call them with what libFuzzer makes up; the test below, with every file of `fuzz/corpus`. Compiled
//! for these two only.

mod image;
mod settings;

#[cfg(test)]
mod tests;

pub use crate::graph::fuzzing::{Weigh, model, weights};
pub use crate::grpc::fuzzing::{call, message};
pub use crate::http::fuzzing::{forms, items, request, tensors};
pub use crate::zoo::fuzzing::model_folder;
pub use image::image;
pub use settings::settings;

/// A [`Weigh`] for where no allocator counts.
pub fn unweighed(work: &mut dyn FnMut()) -> u64 {
    work();
    0
}
