//! Arguments, one call, exit code.

fn main() {}
