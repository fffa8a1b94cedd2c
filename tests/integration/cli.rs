//! The command line, as a person and as a script use it.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::support::{photo, png, root};

fn residual(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_residual"));
    command.args(arguments).current_dir(root()).stdin(Stdio::null());
    // The developer's own settings are not the test's; where the runtime library lies is.
    let own = |name: &str| name.starts_with("RESIDUAL_") && name != "RESIDUAL_CACHE_DIR";
    for (name, _) in std::env::vars().filter(|(name, _)| own(name)) {
        command.env_remove(name);
    }
    command
}

pub(crate) fn run(arguments: &[&str]) -> Output {
    residual(arguments).output().unwrap()
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> String {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, bytes).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn classify_shows_a_table() {
    let folder = tempfile::tempdir().unwrap();
    let cat = write(folder.path(), "cat.jpg", &photo("cat.jpg"));
    let output = run(&["classify", &cat]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let table = text(&output.stdout);
    assert!(table.contains("cat.jpg") && table.contains("451x300") && table.contains(" cat "), "{table}");
    assert!(output.stderr.is_empty(), "{}", text(&output.stderr));
}

#[test]
fn classify_goes_on_after_a_broken_file_and_its_exit_code_says_so() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "a/1.png", &png(40, 50));
    write(folder.path(), "a/2.jpg", &photo("cat.jpg")[..5000]);
    write(folder.path(), "a/deep/3.dat", &photo("cat.jpg"));
    write(folder.path(), "a/named.png", b"");
    write(folder.path(), "a/notes.txt", b"no image");
    let named = write(folder.path(), "b.txt", b"no image either");
    let missing = folder.path().join("missing.jpg");
    let output = run(&[
        "classify",
        "--json",
        "-k",
        "1",
        folder.path().join("a").to_str().unwrap(),
        &named,
        missing.to_str().unwrap(),
    ]);
    assert_eq!(output.status.code(), Some(1));
    let lines: Vec<Value> = text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let result = |line: &Value| match &line["error"] {
        Value::Null => line["predictions"][0]["label"].as_str().unwrap().to_owned(),
        error => error["code"].as_str().unwrap().to_owned(),
    };
    let results: Vec<String> = lines.iter().map(result).collect();
    assert_eq!(results[1..], ["broken_image", "cat", "empty_image", "not_an_image", "unreadable_file"]);
    assert_eq!(lines[0]["image"]["height"], 50);
    assert!(lines[2]["path"].as_str().unwrap().ends_with("a/deep/3.dat"));
    assert!(text(&output.stderr).contains("1 file(s) in the folders are no images"), "{}", text(&output.stderr));
}

#[test]
fn classify_reads_standard_input() {
    let folder = tempfile::tempdir().unwrap();
    let cat = write(folder.path(), "cat.jpg", &photo("cat.jpg"));
    let stdin = std::fs::File::open(cat).unwrap();
    let output = residual(&["classify", "--json", "-"]).stdin(stdin).output().unwrap();
    let line: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((line["path"].as_str(), line["predictions"][0]["label"].as_str()), (Some("-"), Some("cat")));
}

#[test]
fn classify_without_any_image_says_where_it_looked() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "notes.txt", b"no image");
    let output = run(&["classify", folder.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains("no image in") && said.contains("1 other file(s)"), "{said}");
}

#[test]
fn flags_variables_and_file_agree_in_that_order() {
    let folder = tempfile::tempdir().unwrap();
    let config = "http_port = 1111\nbatch_delay = \"3ms\"\nqueue_images_max = 99\n";
    let config = write(folder.path(), "residual.toml", config.as_bytes());
    let output = residual(&["serve", "--print-config", "--config", &config, "--http-port", "3333"])
        .env("RESIDUAL_HTTP_PORT", "2222")
        .env("RESIDUAL_BATCH_DELAY", "7ms")
        .output()
        .unwrap();
    let printed = text(&output.stdout);
    for line in [
        "[flag]\nhttp_port = 3333",
        "[variable]\nbatch_delay = \"7ms\"",
        "[file]\nqueue_images_max = 99",
        "[default]\n# batch_images_max =",
    ] {
        assert!(printed.contains(line), "{line:?} is missing in:\n{printed}{}", text(&output.stderr));
    }
}

#[test]
fn the_printed_settings_with_all_defaults_are_the_committed_file() {
    let output = residual(&["serve", "--print-config"]).env_clear().output().unwrap();
    let committed = std::fs::read_to_string(root().join("default.toml")).unwrap();
    let printed = text(&output.stdout);
    assert!(
        printed == committed,
        "default.toml is stale; write it with: residual serve --print-config > default.toml\n{printed}"
    );
}

#[test]
fn variables_that_are_empty_are_unset_and_yes_has_many_words() {
    let printed = |variable: &str, value: &str| {
        let output = residual(&["serve", "--print-config"]).env(variable, value).output().unwrap();
        assert!(output.status.success(), "{variable}={value}: {}", text(&output.stderr));
        text(&output.stdout)
    };
    assert!(printed("RESIDUAL_INSTANCES", "").contains("# instances ="));
    assert!(printed("RESIDUAL_LOG", "").contains("[default]\nlog = \"info\""));
    assert!(printed("RESIDUAL_OFFLINE", "1").contains("offline = 1"));
    assert!(printed("RESIDUAL_OFFLINE", "yes").contains("offline = \"yes\""));
}

#[cfg(unix)]
#[test]
fn links_in_a_folder_are_followed() {
    let folder = tempfile::tempdir().unwrap();
    let blob = write(folder.path(), "blobs/0a1b", &photo("cat.jpg"));
    std::fs::create_dir(folder.path().join("snapshot")).unwrap();
    std::os::unix::fs::symlink(&blob, folder.path().join("snapshot/cat.jpg")).unwrap();
    std::os::unix::fs::symlink("/no/such/file", folder.path().join("snapshot/gone.jpg")).unwrap();
    let output = run(&["classify", "--json", "-k", "1", folder.path().join("snapshot").to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1), "the dangling link is a failure");
    let lines = text(&output.stdout);
    assert!(lines.contains("\"label\":\"cat\"") && lines.contains("unreadable_file"), "{lines}");
}

#[test]
fn preprocess_writes_what_a_model_would_see() {
    let folder = tempfile::tempdir().unwrap();
    let cat = write(folder.path(), "cat.jpg", &photo("cat.jpg"));
    let sample = folder.path().join("cat.npy");
    let output = run(&["preprocess", &cat, "--preset", "timm-a3", "--size", "224x224", "-o", sample.to_str().unwrap()]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    assert!(said.starts_with("[3, 224, 224] f32: shortest edge 235 bicubic, centre crop 224x224, RGB"), "{said}");
    assert!(said.ends_with("(timm-a3)\n"), "{said}");
    let note = "note: timm-a3 is published for 160x160; resize and crop are brought to 224x224\n";
    assert_eq!(text(&output.stderr), note);
    let bytes = std::fs::read(sample).unwrap();
    assert_eq!((&bytes[..6], bytes.len()), (&b"\x93NUMPY"[..], 128 + 3 * 224 * 224 * 4));
}

#[test]
fn preprocess_decodes_large_photos_as_the_server_does_unless_told_not_to() {
    use libjpeg_turbo_rs::{PixelFormat, Subsampling, compress};
    let folder = tempfile::tempdir().unwrap();
    let (width, height) = (2400, 1800);
    let rgb: Vec<u8> =
        (0..width * height).flat_map(|at| [(at % width / 10) as u8, (at / width / 8) as u8, 90]).collect();
    let jpeg = compress(&rgb, width, height, PixelFormat::Rgb, 85, Subsampling::S420).unwrap();
    let photo = write(folder.path(), "photo.jpg", &jpeg);
    let [scaled, also_scaled, exact] =
        [&[][..], &["--scaled-decode", "auto"], &["--scaled-decode", "off"]].map(|mode| {
            let sample = folder.path().join("sample.npy");
            let recipe = ["preprocess", &photo, "--preset", "torchvision-v1", "-o", sample.to_str().unwrap()];
            let output = run(&[&recipe[..], mode].concat());
            assert!(output.status.success(), "{}", text(&output.stderr));
            let values = std::fs::read(sample).unwrap().split_off(128);
            values.chunks_exact(4).map(|value| f32::from_le_bytes(value.try_into().unwrap())).collect::<Vec<_>>()
        });
    assert_eq!(scaled, also_scaled);
    assert_ne!(scaled, exact);
    // Two levels of 255, over the smallest deviation of the recipe.
    let most = scaled.iter().zip(&exact).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(most < 2.5 / 255.0 / 0.224, "{most}");
}

#[test]
fn preprocess_follows_the_files_of_a_model() {
    let folder = tempfile::tempdir().unwrap();
    let cat = write(folder.path(), "cat.jpg", &photo("cat.jpg"));
    let timm = br#"{"architecture": "resnet50", "pretrained_cfg": {"input_size": [3, 96, 64], "crop_mode": "border"}}"#;
    let timm = write(folder.path(), "config.json", timm);
    let output = run(&["preprocess", &cat, "--recipe", &timm]);
    let said = text(&output.stdout);
    assert!(
        said.starts_with("[3, 96, 64] f32: fit into 73x109 bicubic, centre crop 64x96 on [124, 116, 104]"),
        "{said}"
    );
    assert!(said.ends_with("(config.json)\n"), "{said}");
    let output = run(&["preprocess", &cat, "--recipe", &timm, "--size", "64x64"]);
    assert_eq!(output.status.code(), Some(1));
    let complaint = "it prepares images of 64x96, and the graph takes 64x64";
    assert!(text(&output.stderr).contains(complaint), "{}", text(&output.stderr));
    let output = run(&["preprocess", &cat, "--model", "builtin"]);
    assert!(text(&output.stdout).starts_with("[3, 32, 32] f32: shortest edge 32 bilinear"), "{output:?}");
}

#[test]
fn presets_are_listed_and_a_misspelt_one_is_answered_with_them() {
    let listed = text(&run(&["preprocess", "--list-presets"]).stdout);
    let output = run(&["preprocess", "cat.jpg", "--preset", "torchvision"]);
    assert_eq!(output.status.code(), Some(2));
    let complaint = text(&output.stderr);
    for preset in ["torchvision-v1", "mlperf", "hf-resnet", "cifar10"] {
        assert!(listed.contains(preset) && complaint.contains(preset), "{preset}: {listed} {complaint}");
    }
    let none = run(&["preprocess", "cat.jpg"]);
    assert!(text(&none.stderr).contains("--preset <NAME>|--recipe <FILE>|--model <PATH>"), "{none:?}");
}

#[test]
fn help_and_usage_errors_read_well() {
    insta::assert_snapshot!("help", text(&residual(&["--help"]).env_clear().output().unwrap().stdout));
    insta::assert_snapshot!(
        "help_classify",
        text(&residual(&["classify", "--help"]).env_clear().output().unwrap().stdout)
    );
    let wrong = run(&["serve", "--batch-dealy", "1ms"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(text(&wrong.stderr).contains("--batch-delay"), "{}", text(&wrong.stderr));
    let wrong = run(&["serve", "--batch-delay", "1"]);
    assert!(text(&wrong.stderr).contains("write a time with its unit"), "{}", text(&wrong.stderr));
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let folder = tempfile::tempdir().unwrap();
    (0..40).for_each(|n| drop(write(folder.path(), &format!("{n}.png"), &png(8, 8))));
    let mut child = residual(&["classify", "--json", folder.path().to_str().unwrap()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && !text(&output.stderr).contains("panicked"), "{}", text(&output.stderr));
}

#[test]
fn runtime_names_the_cuda_libraries_and_what_brings_them() {
    let cache = tempfile::tempdir().unwrap();
    let runtime = |arguments: &[&str]| {
        let cache = cache.path().to_str().unwrap();
        run(&[&["runtime", "--offline", "--cache-dir", cache], arguments].concat())
    };
    let listed: Value = serde_json::from_slice(&runtime(&["list", "--json"]).stdout).unwrap();
    let row = listed.as_array().unwrap().iter().find(|row| row["flavour"] == "cuda-libraries").unwrap();
    assert_eq!((&row["state"], &row["chosen"]), (&"not installed".into(), &false.into()));
    let path = runtime(&["path", "cuda-libraries"]);
    assert_eq!((path.status.code(), path.stdout.len()), (Some(1), 0));
    assert!(text(&path.stderr).contains("residual runtime install cuda-libraries"), "{}", text(&path.stderr));
    for arguments in [["install", "cuda"].as_slice(), &["install", "cuda", "--no-cuda-libraries"]] {
        let refused = runtime(arguments);
        assert_eq!(refused.status.code(), Some(1));
        assert!(text(&refused.stderr).contains("offline mode forbids fetching"), "{}", text(&refused.stderr));
    }
    let wrong = runtime(&["install", "openvino", "--no-cuda-libraries"]);
    assert!(text(&wrong.stderr).contains("only cuda brings the CUDA libraries"), "{}", text(&wrong.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn health_tells_how_the_server_is_and_so_does_its_exit_code() {
    let server = crate::support::TestServer::bind(&[]).await;
    let ask = async |arguments: &[&str], server: &str| {
        let mut command = residual(arguments);
        command.arg("--url").arg(server);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let url = server.url("");
    let (code, _, error) = ask(&["health"], &url).await;
    assert_eq!(code, Some(1));
    assert!(error.contains("/health/ready answers 503") && error.contains("not_ready"), "{error}");
    assert_eq!(ask(&["health", "--live"], &url).await.0, Some(0));
    server.load().await;
    let (code, output, error) = ask(&["health"], &url).await;
    assert_eq!((code, error.as_str()), (Some(0), ""));
    assert!(output.contains("/health/ready answers 200") && output.contains("ready"), "{output}");
    drop(server);
    // A port that nobody listens on.
    let (code, _, error) = ask(&["health"], "http://127.0.0.1:1").await;
    assert_eq!(code, Some(1));
    assert!(error.contains("is the server there"), "{error}");
}
