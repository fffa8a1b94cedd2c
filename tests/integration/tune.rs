//! `residual tune` on the built-in model: what it says holds together, and what it writes can be served.

use serde_json::Value;

use crate::cli::{run, text};
use crate::support::{fixture, photo};

#[test]
fn the_winner_meets_the_bound_and_its_settings_are_taken() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tuned.toml");
    let file = file.to_str().unwrap();
    let images = folder.path().join("images");
    std::fs::create_dir(&images).unwrap();
    std::fs::write(images.join("a.jpg"), photo("cat.jpg")).unwrap();
    std::fs::write(images.join("b.png"), fixture("png-gray16.png")).unwrap();
    std::fs::write(images.join("broken.jpg"), &photo("cat.jpg")[..900]).unwrap();
    let arguments =
        ["tune", "builtin", "--provider", "cpu", "--time", "3s", "--latency", "10s", "--json", "--output", file];
    let output = run(&[&arguments[..], &["--images", images.to_str().unwrap()]].concat());
    let errors = text(&output.stderr);
    assert!(output.status.success(), "{errors}");
    assert!(errors.contains("1 file(s) cannot be decoded"), "{errors}");

    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    let candidates = json["candidates"].as_array().unwrap();
    let winner = &candidates[usize::try_from(json["winner"].as_u64().unwrap()).unwrap()];
    assert_eq!(
        (json["bound_ms"].as_f64(), json["bound_given"].as_bool(), json["images"].as_u64()),
        (Some(10_000.0), Some(true), Some(2))
    );
    assert!(candidates.iter().filter(|row| row["default"] == true).count() == 1 && candidates[0]["default"] == true);
    assert!(winner["p99_ms"].as_f64().unwrap() <= 10_000.0 && winner["meets_bound"] == true, "{winner}");
    assert!(winner["p50_ms"].as_f64().unwrap() <= winner["p99_ms"].as_f64().unwrap(), "{winner}");
    assert!(winner["finalist"] == true && winner["status"] == "measured", "{winner}");
    let rate = |row: &Value| row["images_per_second"].as_f64().unwrap();
    for row in candidates.iter().filter(|row| row["finalist"] == true && json["keep_default"] == false) {
        assert!(rate(winner) >= rate(row), "{winner} against {row}");
    }
    assert!(candidates.iter().any(|row| row["pareto"] == true));
    assert_eq!(json["keep_default"] == true, winner["default"] == true && json["flags"].as_array().unwrap().is_empty());

    let written = std::fs::read_to_string(file).unwrap();
    assert!(written.starts_with("# Found by: ") && written.contains("--latency 10s"), "{written}");
    let served = run(&["serve", "--config", file, "--print-config"]);
    assert!(served.status.success(), "{}", text(&served.stderr));
    let printed: toml::Table = text(&served.stdout).parse().unwrap();
    assert_eq!(printed["provider"].as_str(), Some("cpu"));
    assert_eq!(printed["precision"].as_str(), Some("f32"));
    assert_eq!(printed["batch_images_max"].as_integer(), winner["batch_images_max"].as_i64());
    assert_eq!(printed.get("instances").and_then(toml::Value::as_integer), winner["instances"].as_i64());
    assert_eq!(printed.get("intra_op_threads").and_then(toml::Value::as_integer), winner["intra_op_threads"].as_i64());

    let again = run(&["tune", "builtin", "--output", file]);
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again.stderr).contains("give --force to replace it"), "{}", text(&again.stderr));
    assert_eq!(std::fs::read_to_string(file).unwrap(), written);
}

#[test]
fn a_bound_that_nothing_meets_is_an_error_that_names_the_closest() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tuned.toml");
    let output = run(&[
        "tune",
        "builtin",
        "--provider",
        "cpu",
        "--time",
        "1s",
        "--latency",
        "1us",
        "--output",
        file.to_str().unwrap(),
    ]);
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(errors.contains("no settings keep p99 within 0.001 ms; the closest (cpu, "), "{errors}");
    assert!(text(&output.stdout).contains("too slow"), "{}", text(&output.stdout));
    assert!(!file.exists());
}

#[test]
fn what_cannot_be_tuned_is_refused_before_anything_is_measured() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("notes.txt"), "no image").unwrap();
    let place = folder.path().to_str().unwrap();
    for (arguments, said) in [
        (vec!["tune", "no/such/model"], "no/such/model"),
        (vec!["tune", "builtin", "--images", place], "no image in it that can be decoded"),
        (vec!["tune", "builtin", "--images", "no/such/folder"], "no such folder"),
        (vec!["tune", "builtin", "--output", "no/such/folder/x.toml"], "there is no folder no/such/folder"),
        (vec!["tune", "builtin", "--time", "10ms"], "must be from 1s to 1day"),
    ] {
        let output = run(&arguments);
        assert!(!output.status.success() && output.stdout.is_empty(), "{arguments:?}");
        assert!(text(&output.stderr).contains(said), "{arguments:?}: {}", text(&output.stderr));
    }
}
