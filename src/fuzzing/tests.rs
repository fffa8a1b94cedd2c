//! Every file that fuzzing has kept keeps every promise.

use std::fs;
use std::path::Path;

/// Calls `read` with each file of `fuzz/corpus/{target}`. Some are taken and some refused, or the corpus has rotted.
fn replay(target: &str, read: impl Fn(&[u8]) -> bool) {
    let fuzz = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz"));
    // The package that is published comes without it.
    if !fuzz.exists() {
        return;
    }
    let folder = fuzz.join("corpus").join(target);
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let paths: Vec<_> = files.map(|entry| entry.unwrap().path()).collect();
    let mut taken = 0;
    for path in &paths {
        let data = fs::read(path).unwrap();
        let kept = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| read(&data)));
        taken += usize::from(kept.unwrap_or_else(|_| panic!("{}: see the panic above", path.display())));
    }
    assert!(taken >= 3 && paths.len() > taken, "{}: {taken} of {} are taken", folder.display(), paths.len());
}

macro_rules! replayed {
    ($($target:ident: $read:expr;)*) => {
        $(#[test]
        fn $target() {
            replay(stringify!($target), $read);
        })*

        #[test]
        fn every_target_is_replayed() {
            let fuzz = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/fuzz_targets"));
            let Ok(files) = fs::read_dir(fuzz) else { return };
            let mut targets: Vec<_> =
                files.map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned()).collect();
            targets.sort();
            assert_eq!(targets, [$(stringify!($target)),*]);
        }
    };
}

// In the order of their names.
replayed! {
    call: super::call;
    forms: super::forms;
    image: |data| super::image(data, &super::unweighed);
    items: super::items;
    message: super::message;
    model: |data| super::model(data, &super::unweighed);
    model_folder: super::model_folder;
    request: super::request;
    settings: super::settings;
    tensors: super::tensors;
    weights: super::weights;
}
