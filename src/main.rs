//! Arguments, one call, exit code.

use std::ffi::OsString;
use std::process::ExitCode;

use residual::cli;

fn main() -> ExitCode {
    keep_the_runtime_quiet();
    let arguments: Vec<OsString> = std::env::args_os().collect();
    cli::run(&arguments)
}

/// ONNX Runtime 1.31 reports its use to Microsoft: it looks a collector up and keeps a file about the machine in the user's
/// cache, as soon as its environment is made, which is before its own call to turn that off can be made. Only this variable, read
/// when the library is loaded, keeps it from beginning. Whoever has set it to something else meant that.
#[expect(
    unsafe_code,
    reason = "the environment is changed as the first thing in main, while no other thread can read it"
)]
fn keep_the_runtime_quiet() {
    const VARIABLE: &str = "ORT_DISABLE_TELEMETRY";
    if std::env::var_os(VARIABLE).is_none() {
        // SAFETY: no other thread has been started; see above.
        unsafe { std::env::set_var(VARIABLE, "1") };
    }
}
