use super::*;

/// A folder with these empty files.
fn folder(files: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in files {
        let path = folder.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, b"").unwrap();
    }
    folder
}

/// `name version model | beside...` of all that is found, with paths from the folder.
fn listed(folder: &Path, repository: bool) -> Result<Vec<String>, String> {
    let within = |path: &Path| path.strip_prefix(folder).unwrap_or(path).display().to_string();
    let text = |error: ZooError| error.to_string().replace(&folder.display().to_string(), "DIR");
    let wanted: Vec<Wanted> =
        if repository { vec![] } else { vec![format!("m={}", folder.display()).parse().unwrap()] };
    let mut listing = find(repository.then_some(folder), &wanted).map_err(text)?;
    if !repository && !listing.broken.is_empty() {
        return Err(text(listing.broken.remove(0).1));
    }
    Ok(listing
        .found
        .iter()
        .map(|Found { name, version, files }| match files {
            Files::Builtin => format!("{name} {version} builtin"),
            Files::Disk { model, beside } => {
                let beside: Vec<_> = beside.iter().map(|path| within(path)).collect();
                format!("{name} {version} {} | {}", within(model), beside.join(" "))
            }
        })
        .chain(listing.skipped.iter().map(|path| format!("skipped {}", within(path))))
        .chain(listing.broken.into_iter().map(|(name, error)| format!("broken {name}: {}", text(error))))
        .collect())
}

#[test]
fn every_layout_of_one_model_is_understood() {
    for (files, expected) in [
        (&["model.onnx", "config.json"][..], "m 1 model.onnx | "),
        (&["onnx/model.onnx", "onnx/model_fp16.onnx", "config.json"], "m 1 onnx/model.onnx | onnx "),
        (&["resnet50-v1-12.onnx", "synset.txt"], "m 1 resnet50-v1-12.onnx | "),
        (&["model.onnx", "other.onnx"], "m 1 model.onnx | "),
        (&["model.safetensors", "config.json"], "m 1 model.safetensors | "),
        (&["model.onnx", "model.safetensors"], "m 1 model.onnx | "),
        (&["7/model.onnx", "config.pbtxt"], "m 7 7/model.onnx | 7 "),
        (&["1/model.onnx/model.onnx", "1/model.onnx/weights"], "m 1 1/model.onnx/model.onnx | 1/model.onnx 1 "),
        (&["refs/main", "blobs/x"], "DIR holds no model"),
        (&["a.onnx", "b.onnx"], "DIR holds several models (a.onnx, b.onnx)"),
        (&["pytorch_model.bin", "config.json"], "DIR/pytorch_model.bin is of a format that is not read"),
        (&["notes.txt"], "DIR holds no model"),
    ] {
        let folder = folder(files);
        let text = match listed(folder.path(), false) {
            Ok(found) => found.join("\n"),
            Err(error) => error,
        };
        assert!(text.starts_with(expected), "{files:?}: {text}");
    }
}

#[test]
fn versions_are_found_with_the_newest_last() {
    let folder = folder(&["10/model.onnx", "9/model.onnx", "11/notes.txt", "labels.txt"]);
    assert_eq!(listed(folder.path(), false).unwrap(), ["m 9 9/model.onnx | 9 ", "m 10 10/model.onnx | 10 "]);
}

#[test]
fn a_snapshot_of_the_hugging_face_cache_is_followed() {
    let root = folder(&["models--microsoft--resnet-50/snapshots/abc123/model.onnx"]);
    let model = root.path().join("models--microsoft--resnet-50");
    std::fs::create_dir_all(model.join("refs")).unwrap();
    std::fs::write(model.join("refs/main"), "abc123").unwrap();
    let found = listed(root.path(), true).unwrap();
    assert!(found[0].starts_with("resnet-50 1 models--microsoft--resnet-50/snapshots/abc123/model.onnx"), "{found:?}");
    std::fs::write(model.join("refs/main"), "../../..").unwrap();
    assert!(listed(root.path(), true).is_err(), "a reference is a hash and no path");
}

#[test]
fn a_repository_holds_files_and_directories_side_by_side() {
    let folder = folder(&[
        "zoo.onnx",
        "hf/model.onnx",
        "triton/1/model.onnx",
        "triton/2/model.onnx",
        "lost+found/x",
        ".git/model.onnx",
        "README.md",
        "two/a.onnx",
        "two/b.onnx",
    ]);
    assert_eq!(
        listed(folder.path(), true).unwrap(),
        [
            "hf 1 hf/model.onnx | hf",
            "triton 1 triton/1/model.onnx | triton/1 triton",
            "triton 2 triton/2/model.onnx | triton/2 triton",
            "zoo 1 zoo.onnx | ",
            "skipped lost+found",
            "broken two: DIR/two holds several models (a.onnx, b.onnx); name one: --model NAME=DIR/two/a.onnx",
        ]
    );
}

#[test]
fn what_is_no_repository_is_told_apart() {
    assert!(listed(folder(&["README.md"]).path(), true).unwrap_err().starts_with("no model in the repository DIR"));
    for one_model in [
        &["model.onnx", "config.json"][..],
        &["1/model.onnx", "labels.txt"],
        &["onnx/model.onnx", "preprocessor_config.json"],
        &["resnet.onnx", "residual.toml"],
    ] {
        let error = listed(folder(one_model).path(), true).unwrap_err();
        assert_eq!(error, "DIR is a model's own directory and no repository; give it as --model DIR");
    }
    assert!(listed(Path::new("/no/such"), true).unwrap_err().starts_with("open model DIR: nothing is there"));
}

#[test]
fn a_name_belongs_to_one_model() {
    let folder = folder(&["a/model.onnx"]);
    let wanted: Wanted = format!("a={}", folder.path().join("a").display()).parse().unwrap();
    let error = find(Some(folder.path()), &[wanted]).unwrap_err().to_string();
    assert!(error.starts_with("two models are called \"a\":"), "{error}");
}

#[test]
fn what_is_wanted_is_a_path_with_or_without_a_name() {
    let of = |text: &str| text.parse::<Wanted>().map(|wanted| (wanted.name, wanted.place));
    let path = |path: &str| Place::Path(PathBuf::from(path));
    assert_eq!(of("builtin"), Ok((None, Place::Builtin)));
    assert_eq!(of("small=builtin"), Ok((Some("small".to_owned()), Place::Builtin)));
    assert_eq!(of("a=b/c.onnx"), Ok((Some("a".to_owned()), path("b/c.onnx"))));
    assert_eq!(of("./a=b.onnx"), Ok((None, path("./a=b.onnx"))));
    assert!(of("a=").is_err() && of("").is_err());
    assert_eq!("a=b/c.onnx".parse::<Wanted>().unwrap().to_string(), "a=b/c.onnx");
}

#[test]
fn a_place_gives_the_name() {
    for (path, name) in [
        ("/m/resnet50-v1-12.onnx", "resnet50-v1-12"),
        ("/m/resnet/model.onnx", "resnet"),
        ("/m/resnet/1/model.onnx", "resnet"),
        ("/m/resnet/1", "resnet"),
        ("/m/resnet/onnx/model.onnx", "resnet"),
        ("/m/resnet.v2", "resnet.v2"),
        ("/", "model"),
    ] {
        assert_eq!(name_of(Path::new(path)), name, "{path}");
    }
}

#[test]
fn a_fingerprint_changes_with_any_file_that_opening_reads_and_no_other() {
    let folder = folder(&["model.onnx", "config.json", "other.onnx", "server.log", "parts/w.bin"]);
    let more = [folder.path().join("parts/w.bin")];
    let of = || fingerprint(&find_one(folder.path(), None).unwrap()[0].files, &more);
    let before = of();
    for neighbour in ["other.onnx", "server.log", "model_card.md"] {
        std::fs::write(folder.path().join(neighbour), b"x").unwrap();
        assert_eq!(of(), before, "{neighbour}");
    }
    let mut seen = vec![before];
    for file in ["config.json", "labels.txt", "model.residual.toml", "parts/w.bin", "model.onnx"] {
        std::fs::write(folder.path().join(file), b"{}").unwrap();
        let now = of();
        assert!(!seen.contains(&now), "{file}");
        seen.push(now);
    }
    // The same size and, within the clock's tick, the same time: a replaced file still has another inode.
    std::fs::write(folder.path().join("new"), b"{}").unwrap();
    std::fs::rename(folder.path().join("new"), folder.path().join("config.json")).unwrap();
    assert!(!seen.contains(&of()));
}

#[test]
fn a_file_named_inside_a_layout_keeps_what_lies_around_it() {
    let folder = folder(&["hf/onnx/model_fp16.onnx", "hf/config.json", "tri/2/model.onnx", "tri/labels.txt"]);
    for (path, name, side) in [
        ("hf/onnx/model_fp16.onnx", "model_fp16", "config.json"),
        ("tri/2/model.onnx", "tri", "labels.txt"),
        ("tri/2", "tri", "labels.txt"),
    ] {
        let found = find_one(&folder.path().join(path), None).unwrap().remove(0);
        assert_eq!(found.name, name, "{path}");
        assert!(found.files.side(&[side]).is_some(), "{path}");
    }
}

#[test]
fn the_nearest_directory_wins_over_the_better_name() {
    let folder = folder(&["2/model.onnx", "2/synset.txt", "labels.txt"]);
    let found = find_one(folder.path(), None).unwrap().remove(0);
    assert_eq!(found.files.side(&["labels.txt", "synset.txt"]), Some(folder.path().join("2/synset.txt")));
}

#[test]
fn one_foreign_version_does_not_take_the_others_away() {
    let folder = folder(&["1/model.onnx", "2/model.pt"]);
    assert_eq!(listed(folder.path(), false).unwrap(), ["m 1 1/model.onnx | 1 "]);
}

#[test]
fn a_directory_of_too_many_files_is_refused_and_not_read_in_part() {
    let folder = folder(&["model.onnx"]);
    for n in 0..ENTRIES_MAX {
        std::fs::File::create(folder.path().join(n.to_string() + ".jpg")).unwrap();
    }
    assert!(entries(folder.path()).unwrap_err().to_string().contains("more than 4096 entries"));
    std::fs::remove_file(folder.path().join("0.jpg")).unwrap();
    assert_eq!(entries(folder.path()).unwrap().len(), ENTRIES_MAX);
}
