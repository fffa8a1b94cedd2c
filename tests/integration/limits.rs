//! The page that lists every bound says what the program does.

use std::collections::BTreeMap;

use clap::{Args as _, Command};
use residual::config::Settings;
use walkdir::WalkDir;

use crate::support::root;

/// Constants beside the bounds that are none.
const NO_BOUNDS: [&str; 3] = ["GRPC_PORT", "WATCH_INTERVAL", "WATCH_OFF"];

/// Each bound of the page with its default.
fn page() -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(root().join("docs/LIMITS.md")).unwrap();
    let mut bounds = BTreeMap::new();
    for row in text.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.split(" | ").collect();
        let names: Vec<&str> =
            cells[0].trim_start_matches("| ").split(' ').map(|name| name.trim_matches('`')).collect();
        for name in names {
            assert!(bounds.insert(name.to_owned(), cells[1].to_owned()).is_none(), "{name} stands twice");
        }
    }
    bounds
}

#[test]
fn every_bound_has_its_row() {
    let page = page();
    let source = std::fs::read_to_string(root().join("src/config/limits.rs")).unwrap();
    let names = source.lines().filter_map(|line| line.strip_prefix("pub const ")?.split(':').next());
    let names: Vec<&str> = names.filter(|name| !NO_BOUNDS.contains(name)).collect();
    assert!(names.len() > 25, "{names:?}");
    for name in names {
        let flag = format!("--{}", name.to_lowercase().replace('_', "-"));
        assert!(page.contains_key(name) || page.contains_key(&flag), "docs/LIMITS.md lacks {name}");
    }
}

#[test]
fn every_setting_that_bounds_something_has_its_row_and_its_default() {
    let page = page();
    let command = Settings::augment_args(Command::new("serve"));
    let bounds = |flag: &str| {
        let ends = ["-max", "-timeout", "-delay", "-grace", "-burst", "-per-client"];
        flag == "rate-limit" || ends.iter().any(|end| flag.ends_with(end))
    };
    for arg in command.get_arguments() {
        let flag = arg.get_long().unwrap_or_default();
        let Some(told) = page.get(&format!("--{flag}")) else {
            assert!(!bounds(flag), "docs/LIMITS.md lacks --{flag}");
            continue;
        };
        let defaults: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
        let default = if defaults.is_empty() { "none".to_owned() } else { format!("`{}`", defaults.join(",")) };
        assert_eq!(*told, default, "--{flag}");
    }
    let flags: Vec<&str> = command.get_arguments().filter_map(clap::Arg::get_long).collect();
    for name in page.keys().filter_map(|name| name.strip_prefix("--")) {
        assert!(flags.contains(&name), "docs/LIMITS.md has --{name}, which is no setting");
    }
}

#[test]
fn every_constant_of_the_page_is_one_of_the_source() {
    let mut source = String::new();
    for entry in WalkDir::new(root().join("src")).into_iter().map(Result::unwrap).filter(|it| it.file_type().is_file())
    {
        source += &std::fs::read_to_string(entry.path()).unwrap_or_default();
    }
    for name in page().keys().filter(|name| !name.starts_with("--")) {
        assert!(source.contains(&format!("const {name}:")), "docs/LIMITS.md has {name}, which the source lacks");
    }
}
