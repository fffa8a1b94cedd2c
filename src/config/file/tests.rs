use std::io::Write as _;

use clap::Args as _;

use super::*;
use crate::config::Settings;

fn command() -> Command {
    Settings::augment_args(Command::new("serve"))
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn flags_of(text: &str, given: &[&str]) -> Result<Vec<String>, String> {
    let file = file(text);
    let matches = command().get_matches_from([&["serve"], given].concat());
    match flags(file.path(), &command(), &matches) {
        Ok(flags) => Ok(flags.into_iter().map(|flag| flag.into_string().unwrap()).collect()),
        Err(error) => Err(error.to_string().replace(&file.path().display().to_string(), "FILE")),
    }
}

#[test]
fn keys_become_flags_and_the_command_line_wins() {
    let text = "batch_delay = \"2ms\"\nhttp_port = 9000\noffline = true\n";
    assert_eq!(flags_of(text, &[]).unwrap(), ["--batch-delay=2ms", "--http-port=9000", "--offline=true"]);
    assert_eq!(flags_of(text, &["--http-port", "1"]).unwrap(), ["--batch-delay=2ms", "--offline=true"]);
}

#[test]
fn a_list_becomes_a_flag_for_each_and_the_command_line_replaces_it_whole() {
    let text = "model = [\"a\", \"b=c\"]\n";
    assert_eq!(flags_of(text, &[]).unwrap(), ["--model=a", "--model=b=c"]);
    assert_eq!(flags_of("model = \"a\"", &[]).unwrap(), ["--model=a"]);
    assert_eq!(flags_of(text, &["--model", "d"]).unwrap(), [""; 0]);
}

#[test]
fn what_a_flag_refuses_a_file_cannot_say() {
    for (text, expected) in [
        ("http_port = 70000", "settings file FILE: invalid value '70000' for '--http-port <PORT>'"),
        ("batch_images_max = 0", "settings file FILE: invalid value '0' for '--batch-images-max <N>'"),
        ("provider = \"coreml\"", "settings file FILE: invalid value 'coreml' for '--provider <NAME>'"),
        ("batch_dealy = \"1ms\"", "settings file FILE: unknown setting \"batch_dealy\"; did you mean \"batch_delay\"?"),
        ("print_config = true", "settings file FILE: unknown setting \"print_config\""),
        ("batch_delay = 1.5", "settings file FILE: invalid value '1.5' for '--batch-delay <TIME>': time unit needed"),
        ("trace_ratio = 1.5", "settings file FILE: invalid value '1.5' for '--trace-ratio <RATIO>'"),
        ("http_port = [1]", "settings file FILE: http_port is array; write a string, a number or true/false"),
        ("model = [\"a\", {}]", "settings file FILE: model is table; write a string or a list of strings"),
        ("[batch]\ndelay = 1", "settings file FILE: unknown setting \"batch\""),
        ("batch_delay = ", "settings file FILE: TOML parse error at line 1, column 15"),
    ] {
        let error = flags_of(text, &[]).unwrap_err();
        assert!(error.starts_with(expected), "{text}: {error}");
    }
}

#[test]
fn a_missing_file_is_named() {
    let matches = command().get_matches_from(["serve"]);
    let error = flags(Path::new("/no/such.toml"), &command(), &matches).unwrap_err();
    assert!(error.to_string().starts_with("settings file /no/such.toml: No such file"), "{error}");
}

#[test]
fn what_is_printed_is_read_back_as_the_same_settings() {
    let given = [
        "serve",
        "--http-port",
        "9000",
        "--batch-delay",
        "250us",
        "--body-bytes-max",
        "3MiB",
        "--model",
        "a",
        "--model=b=c",
        "--trace-ratio=0.25",
    ];
    let matches = command().get_matches_from(given);
    let printed = print(&command(), &matches, &[], &[]);
    let file = file(&printed);
    let nothing = command().get_matches_from(["serve"]);
    let flags = flags(file.path(), &command(), &nothing).unwrap();
    let arguments = std::iter::once(OsString::from("serve")).chain(flags);
    let again = command().get_matches_from(arguments);
    assert_eq!(
        print(&command(), &again, &[], &[]).replace("[flag]", "[default]"),
        printed.replace("[flag]", "[default]")
    );
    assert!(printed.contains("[flag]\nhttp_port = 9000\n"), "{printed}");
    assert!(printed.contains("[flag]\ntrace_ratio = 0.25\n"), "{printed}");
}
