//! Arrows point down. Reads the `crate::` paths of every source file and holds them to the table below.

use std::collections::BTreeSet;

use walkdir::WalkDir;

use crate::support::root;

/// Each top-level module and the ones it may use.
const MAY_USE: [(&str, &[&str]); 19] = [
    // For tests and cargo-fuzz only.
    ("fuzzing", &["config", "graph", "grpc", "http", "pipeline", "zoo"]),
    ("cli", &["config", "graph", "machine", "pipeline", "runtime", "serve", "shutdown", "telemetry", "tune", "zoo"]),
    ("tune", &["machine", "models", "pipeline", "zoo"]),
    (
        "serve",
        &[
            "apis",
            "config",
            "edge",
            "grpc",
            "guard",
            "http",
            "machine",
            "models",
            "oip",
            "pipeline",
            "runtime",
            "shutdown",
            "telemetry",
            "zoo",
        ],
    ),
    ("config", &["apis", "guard", "pipeline", "zoo"]),
    ("oip", &["models", "pipeline", "shutdown", "telemetry"]),
    ("http", &["apis", "edge", "graph", "guard", "models", "oip", "pipeline", "shutdown", "telemetry", "zoo"]),
    ("grpc", &["edge", "guard", "oip", "pipeline", "shutdown", "telemetry"]),
    ("guard", &["edge"]),
    ("edge", &["shutdown", "telemetry"]),
    ("models", &["machine", "pipeline", "telemetry", "zoo"]),
    ("zoo", &["graph", "pipeline"]),
    ("pipeline", &["graph", "telemetry"]),
    ("graph", &[]),
    ("runtime", &[]),
    ("shutdown", &[]),
    ("apis", &[]),
    ("machine", &[]),
    ("telemetry", &[]),
];

/// The only folder that may name the binding to ONNX Runtime.
const ORT_HOME: &str = "pipeline/infer/";

/// Calls `check` with the path below `src/` and the text of every source file, less its tests.
fn for_every_source(mut check: impl FnMut(&str, &str)) {
    let src = root().join("src");
    for entry in WalkDir::new(&src).sort_by_file_name() {
        let entry = entry.unwrap();
        let path = entry.path().strip_prefix(&src).unwrap().to_str().unwrap().to_owned();
        if entry.file_type().is_file() && !path.ends_with("tests.rs") {
            let text = std::fs::read_to_string(entry.path()).unwrap();
            check(&path, text.split("#[cfg(test)]\nmod tests {").next().unwrap());
        }
    }
}

#[test]
fn modules_use_only_what_stands_below_them() {
    let mut seen = BTreeSet::new();
    for_every_source(|path, text| {
        let module = path.split('/').next().unwrap().trim_end_matches(".rs");
        if ["lib", "main"].contains(&module) {
            return;
        }
        seen.insert(module.to_owned());
        let (_, allowed) = MAY_USE
            .iter()
            .find(|(name, _)| *name == module)
            .unwrap_or_else(|| panic!("{module} is not in the table of layers"));
        for (number, line) in text.lines().enumerate() {
            for used in line.split("crate::").skip(1) {
                let used = used.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap();
                assert!(
                    used == module || allowed.contains(&used),
                    "src/{path}:{}: {module} may not use {used}: {line}",
                    number + 1
                );
            }
        }
    });
    let table: BTreeSet<String> = MAY_USE.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(seen, table, "the table lists the modules there are");
}

#[test]
fn only_infer_names_ort() {
    for_every_source(|path, text| {
        let names = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        let found = names.filter(|line| names_ort(line)).count();
        assert!(found == 0 || path.starts_with(ORT_HOME), "src/{path} names ort");
    });
}

/// `ort` as a path's first word: `ort::`, `use ort`, and not `support::`.
fn names_ort(line: &str) -> bool {
    let starts_a_word = |at: usize| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
    let is_path = |rest: &str| rest.starts_with("::") || rest.starts_with(';') || rest.starts_with(" as ");
    line.match_indices("ort").any(|(at, word)| starts_a_word(at) && is_path(&line[at + word.len()..]))
}

#[test]
fn ort_is_recognised_as_a_path() {
    for line in ["use ort::ep;", "fn f() -> Vec<ort::Error>", "(ort::Error)", "&ort::Session", "use ort;"] {
        assert!(names_ort(line), "{line}");
    }
    for line in ["support::x", "let ort = 1", "self.ort.run()", "a::ort::b", "abort;"] {
        assert!(!names_ort(line), "{line}");
    }
}

#[test]
fn files_stay_readable() {
    for_every_source(|path, text| {
        let lines = text.lines().count();
        assert!(lines <= 450, "src/{path} has {lines} lines without its tests; split it by noun");
    });
}
