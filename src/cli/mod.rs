//! One file a subcommand: what the terminal asks for, put into calls of the library, and the answer put into text.

pub mod runtime;
