//! Any text is a settings file or an error, and what a settings file says survives being printed and read again.

use std::ffi::OsString;
use std::io::{Seek as _, Write as _};

use clap::{ArgMatches, Args as _, Command, FromArgMatches as _};
use tempfile::NamedTempFile;

use crate::config::{Settings, file};

thread_local! {
    static FILE: NamedTempFile = NamedTempFile::new().expect("a folder for temporary files");
    /// Without what the environment says.
    static COMMAND: Command =
        Settings::augment_args(Command::new("serve")).mut_args(|arg| arg.env(None::<&'static str>));
}

/// Reads `data` as a settings file. What is taken is printed, read again, and must come out the same. True for settings.
pub fn settings(data: &[u8]) -> bool {
    let Some(first) = read(data) else { return false };
    let printed = COMMAND.with(|command| file::print(command, &first, &[], &[]));
    let again = read(printed.as_bytes()).unwrap_or_else(|| panic!("not read again: {printed}"));
    let reprinted = COMMAND.with(|command| file::print(command, &again, &[], &[]));
    let values = |text: &str| text.replace("[flag]", "[default]");
    assert_eq!(values(&printed), values(&reprinted));
    // Settings that contradict each other are told and no more.
    let _ = Settings::from_arg_matches(&first).expect("every value was checked").check();
    true
}

/// The settings of a file with these bytes, by the way that `residual serve` reads it.
fn read(text: &[u8]) -> Option<ArgMatches> {
    COMMAND.with(|command| {
        FILE.with(|file| {
            let mut handle = file.as_file();
            handle.rewind().and_then(|()| handle.set_len(0)).expect("a file of our own");
            handle.write_all(text).expect("room for a small file");
            let nothing = command.clone().get_matches_from(["serve"]);
            let flags = file::flags(file.path(), command, &nothing).ok()?;
            let arguments = std::iter::once(OsString::from("serve")).chain(flags);
            Some(command.clone().try_get_matches_from(arguments).expect("the file's values were checked"))
        })
    })
}
