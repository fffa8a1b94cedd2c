//! The settings that serve the most images a second on this machine, found by trying them: the search, its trials, and
//! what they say.
//!
//! The pure parts ([`candidate`], [`point`], [`rank`], [`settings`]) know no clock; [`measure`] drives a real engine, and
//! [`search`] strings them together. Nothing here prints.

pub mod candidate;
pub mod measure;
pub mod point;
mod prove;
pub mod rank;
pub mod search;
pub mod settings;
mod trial;

pub use candidate::{Candidate, Threads};
pub use point::Point;
pub use rank::{Bound, Decision, Row, Verdict};
pub use search::{Plan, TuneError, Tuner, Tuning};
