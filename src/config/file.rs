//! The TOML file, and the way back: printing the settings that result.
//!
//! A key of the file is turned into its flag and parsed by the same parser, so a file can say exactly what a flag can,
//! with the same checks and the same messages.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};

use super::platform::Decision;

/// Why a settings file is not taken. Every text names the file.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("settings file {}: {cause}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// It is not TOML.
    #[error("settings file {}: {cause}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why.
        cause: toml::de::Error,
    },
    /// A key that is no setting.
    #[error("settings file {}: unknown setting {key:?}{hint}", path.display())]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The key found.
        key: String,
        /// The nearest known one, if any is near.
        hint: String,
    },
    /// A value that no flag could have.
    #[error("settings file {}: {key} is {found}; write {expected}", path.display())]
    Type {
        /// The file.
        path: PathBuf,
        /// The setting.
        key: String,
        /// The TOML type found.
        found: &'static str,
        /// What could stand there.
        expected: &'static str,
    },
    /// A value that its flag refuses.
    #[error("settings file {}: {cause}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// What the flag's own check says.
        cause: String,
    },
}

/// Settings that belong to one call and not to a file.
const CALL_ONLY: [&str; 4] = ["config", "print_config", "help", "version"];

/// Reads `path` as flags for `command`: `batch_delay = "2ms"` becomes `--batch-delay=2ms`. Settings that `given` has from
/// a flag or a variable are left out, since those win.
///
/// # Errors
/// [`FileError`].
pub fn flags(path: &Path, command: &Command, given: &ArgMatches) -> Result<Vec<OsString>, FileError> {
    let text = std::fs::read_to_string(path).map_err(|cause| FileError::Read { path: path.to_owned(), cause })?;
    let table: toml::Table = text.parse().map_err(|cause| FileError::Syntax { path: path.to_owned(), cause })?;
    let all = to_flags(path, &table, command)?;
    check_values(path, command, &all)?;
    Ok(all.into_iter().filter(|(key, _)| !was_given(given, key)).map(|(_, flag)| flag).collect())
}

fn to_flags(path: &Path, table: &toml::Table, command: &Command) -> Result<Vec<(String, OsString)>, FileError> {
    let mut flags = Vec::with_capacity(table.len());
    for (key, value) in table {
        let Some(arg) = settings(command).find(|arg| arg.get_id() == key.as_str()) else {
            return Err(FileError::UnknownKey { path: path.to_owned(), key: key.clone(), hint: hint(key, command) });
        };
        let is_list = matches!(arg.get_action(), ArgAction::Append);
        let values = match value {
            toml::Value::Array(values) if is_list => values.iter().collect(),
            value => vec![value],
        };
        let long = arg.get_long().expect("every setting has a long flag");
        for value in values {
            let text = text_of(value).ok_or_else(|| FileError::Type {
                path: path.to_owned(),
                key: key.clone(),
                found: value.type_str(),
                expected: if is_list { "a string or a list of strings" } else { "a string, a number or true/false" },
            })?;
            flags.push((key.clone(), OsString::from(format!("--{long}={text}"))));
        }
    }
    Ok(flags)
}

/// A value as its flag takes it.
fn text_of(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Boolean(flag) => Some(flag.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Datetime(_) | toml::Value::Array(_) | toml::Value::Table(_) => None,
    }
}

/// Parses the file's values alone, so that a refusal names the file and not the command line.
fn check_values(path: &Path, command: &Command, flags: &[(String, OsString)]) -> Result<(), FileError> {
    let arguments = std::iter::once(OsString::from("serve")).chain(flags.iter().map(|(_, flag)| flag.clone()));
    command.clone().try_get_matches_from(arguments).map(drop).map_err(|error| {
        let text = error.render().to_string();
        let first = text.lines().next().unwrap_or_default();
        FileError::Value { path: path.to_owned(), cause: first.trim_start_matches("error: ").to_owned() }
    })
}

fn was_given(matches: &ArgMatches, key: &str) -> bool {
    matches!(matches.value_source(key), Some(ValueSource::CommandLine | ValueSource::EnvVariable))
}

fn settings(command: &Command) -> impl Iterator<Item = &Arg> {
    command.get_arguments().filter(|arg| !CALL_ONLY.contains(&arg.get_id().as_str()))
}

/// `; did you mean "batch_delay"?` for a key that is one slip away from a known one.
fn hint(key: &str, command: &Command) -> String {
    let wanted = key.replace('-', "_");
    settings(command)
        .map(|arg| arg.get_id().as_str())
        .map(|known| (strsim::levenshtein(&wanted, known), known))
        .min()
        .filter(|&(slips, known)| slips <= known.len() / 3)
        .map_or_else(String::new, |(_, known)| format!("; did you mean {known:?}?"))
}

/// The settings that result, as a file that [`flags`] reads back: each with its sentence and where its value is from.
#[must_use]
pub fn print(
    command: &Command,
    matches: &ArgMatches,
    from_file: &[OsString],
    from_platform: &[(Decision, OsString)],
) -> String {
    let mut text = String::from("# residual serve: the settings that result\n");
    let mut heading = None;
    for arg in settings(command) {
        if arg.get_help_heading() != heading {
            heading = arg.get_help_heading();
            let _ = write!(text, "\n# --- {} ---\n", heading.unwrap_or("Other"));
        }
        let (key, long) = (arg.get_id().as_str(), arg.get_long().unwrap_or_default());
        let in_file = from_file.iter().any(|flag| flag.to_string_lossy().starts_with(&format!("--{long}=")));
        let decision = from_platform.iter().find(|(decision, _)| decision.key == key);
        let of_platform = decision.map(|(decision, _)| format!("platform: {}", decision.because));
        let source = match matches.value_source(key) {
            _ if in_file => "file",
            _ if let Some(text) = &of_platform => text,
            Some(ValueSource::CommandLine) => "flag",
            Some(ValueSource::EnvVariable) => "variable",
            Some(_) | None => "default",
        };
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let _ = writeln!(text, "\n# {} [{source}]", help.replace('\n', " "));
        let values: Vec<String> =
            matches.get_raw(key).into_iter().flatten().map(|value| literal(&value.to_string_lossy())).collect();
        let _ = match values.as_slice() {
            [] => writeln!(text, "# {key} ="),
            [value] => writeln!(text, "{key} = {value}"),
            values => writeln!(text, "{key} = [{}]", values.join(", ")),
        };
    }
    text
}

fn literal(value: &str) -> String {
    // "007" and "+5" are numbers to a parser and not to TOML, and would come back as something else.
    let is_number = value.parse::<i64>().is_ok_and(|number| number.to_string() == value)
        || value.contains('.') && value.parse::<f64>().is_ok_and(|number| number.to_string() == value);
    if value == "true" || value == "false" || is_number {
        value.to_owned()
    } else {
        toml::Value::String(value.to_owned()).to_string()
    }
}

#[cfg(test)]
mod tests;
