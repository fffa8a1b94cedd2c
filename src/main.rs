//! Arguments, one call, exit code.

use std::ffi::OsString;
use std::process::ExitCode;

use residual::cli;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    cli::run(&arguments)
}
