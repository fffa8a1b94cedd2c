//! Pulling models, from a hub that does everything wrong that a network can.

mod hub;

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prost::Message as _;
use residual::graph::proto::{DataLocation, GraphProto, ModelProto, NodeProto, StringStringEntryProto, TensorProto};
use residual::zoo::catalog::{Entry, Pinned};
use residual::zoo::pull::{Convert, Event, Hub, Options, Patience, Proxies, PullError, Pulled, Token, Wanted, pull};
use sha2::{Digest as _, Sha256};

use crate::support::{PATIENCE, photo, root};
use hub::{Answer, FakeHub, Request};

const FILE: &str = "validated/m.onnx";

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes that are like no others, more than a client reads at once.
fn weights() -> Vec<u8> {
    (0..300_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

/// A row of a catalogue that holds `bytes`.
fn row(bytes: &[u8]) -> Wanted {
    let pinned = Pinned { file: FILE.to_owned(), bytes: bytes.len() as u64, sha256: sha256(bytes), opset: 7 };
    let entry = Entry {
        name: "resnet".to_owned(),
        aliases: Vec::new(),
        repository: "zoo/models".to_owned(),
        pinned: Some(pinned),
        preset: Some("onnx-zoo".to_owned()),
        labels: None,
        top1: Some(74.97),
        top5: None,
        licence: Some("Apache-2.0".to_owned()),
        note: None,
    };
    let (repository, revision) = (entry.repository.clone(), "main".to_owned());
    Wanted { repository, revision, file: None, entry: Some(Box::leak(Box::new(entry))) }
}

fn no_conversion(_: &Path, _: Option<&Path>, _: &Path) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    panic!("nothing to convert")
}

/// A folder for models, and what a puller would see.
struct Bench {
    folder: tempfile::TempDir,
    said: RefCell<Vec<String>>,
    patience: Patience,
    proxies: Proxies,
    token: Option<String>,
    offline: bool,
    force: bool,
}

impl Bench {
    fn new() -> Self {
        let patience = Patience { stall: Duration::from_millis(300), tries_max: 3, ..Patience::default() };
        let folder = tempfile::tempdir().unwrap();
        let (said, proxies) = (RefCell::default(), Proxies::default());
        Self { folder, said, patience, proxies, token: None, offline: false, force: false }
    }

    fn target(&self) -> PathBuf {
        self.folder.path().join("models/resnet")
    }

    fn pull(&self, wanted: &Wanted, hub: &FakeHub) -> Result<Pulled, PullError> {
        self.pull_with(wanted, &hub.url(), &no_conversion)
    }

    fn pull_with(&self, wanted: &Wanted, hub: &str, convert: &Convert<'_>) -> Result<Pulled, PullError> {
        let say = |text: String| self.said.borrow_mut().push(text);
        let options = Options {
            hub: Hub::parse(hub).unwrap(),
            token: self.token.clone(),
            proxies: self.proxies.clone(),
            patience: self.patience.clone(),
            offline: self.offline,
            force: self.force,
            progress: &|event| match event {
                Event::Begun { file, from, .. } => say(format!("{file} from {from}")),
                Event::Retrying { wait, .. } => say(format!("retry after {}", wait.as_secs())),
                Event::Converting { file } => say(format!("convert {file}")),
                _ => {}
            },
            pause: &|_| {},
            convert,
        };
        pull(wanted, &self.target(), &options)
    }

    fn said(&self) -> Vec<String> {
        self.said.take()
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.target().join(name)).unwrap()
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.target().join(name)).unwrap()
    }

    /// All files below the folder of models, however hidden.
    fn files(&self) -> Vec<String> {
        let root = self.folder.path().join("models");
        let files = walkdir::WalkDir::new(&root).sort_by_file_name().into_iter().filter_map(Result::ok);
        let files = files.filter(|entry| !entry.file_type().is_dir());
        files.map(|entry| entry.path().strip_prefix(&root).unwrap().to_str().unwrap().to_owned()).collect()
    }
}

/// A hub that answers ranges as it should.
fn ranges(body: &[u8], request: &Request) -> Answer {
    let etag = format!("\"{}\"", &sha256(body)[..8]);
    let wanted =
        request.header("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    let same = request.header("if-range").is_none_or(|tag| tag == etag);
    match wanted {
        Some(from) if from < body.len() && same => {
            let range = format!("bytes {from}-{}/{}", body.len() - 1, body.len());
            let rest = Answer::ok(&body[from..]).header("content-range", &range).header("etag", &etag);
            rest.with_status(206)
        }
        _ => Answer::ok(body).header("etag", &etag),
    }
}

#[test]
fn a_row_of_the_catalogue_becomes_a_folder_with_recipe_and_receipt() {
    let (bench, bytes) = (Bench::new(), weights());
    let hub = FakeHub::start({
        let bytes = bytes.clone();
        move |_| Answer::ok(&bytes)
    });
    let pulled = bench.pull(&row(&bytes), &hub).unwrap();
    assert!(pulled.fetched);
    assert_eq!(pulled.folder, bench.target());
    assert_eq!(bench.files(), ["resnet/model.onnx", "resnet/receipt.json", "resnet/residual.toml"]);
    assert_eq!(bench.bytes("model.onnx"), bytes);
    let recipe: toml::Table = toml::from_str(&bench.text("residual.toml")).unwrap();
    assert_eq!(recipe["preset"].as_str(), Some("onnx-zoo"));
    assert!(bench.text("residual.toml").contains(&sha256(&bytes)), "{}", bench.text("residual.toml"));
    assert_eq!(hub.requests()[0].path, format!("/zoo/models/resolve/main/{FILE}"));
}

#[test]
fn a_second_pull_checks_what_is_there_and_asks_nobody() {
    let (mut bench, bytes) = (Bench::new(), weights());
    let hub = FakeHub::start({
        let bytes = bytes.clone();
        move |_| Answer::ok(&bytes)
    });
    bench.pull(&row(&bytes), &hub).unwrap();
    std::fs::write(bench.target().join("residual.toml"), "preset = \"zoo-notebook\"\n").unwrap();
    assert!(!bench.pull(&row(&bytes), &hub).unwrap().fetched);
    bench.offline = true;
    assert!(!bench.pull(&row(&bytes), &hub).unwrap().fetched);
    assert_eq!(hub.requests().len(), 1);

    std::fs::write(bench.target().join("model.onnx"), b"damaged").unwrap();
    assert!(matches!(bench.pull(&row(&bytes), &hub), Err(PullError::Offline { .. })));
    bench.offline = false;
    assert!(bench.pull(&row(&bytes), &hub).unwrap().fetched);
    assert_eq!(bench.bytes("model.onnx"), bytes);
    assert_eq!(bench.text("residual.toml"), "preset = \"zoo-notebook\"\n", "the user's own file stays");
    bench.force = true;
    assert!(bench.pull(&row(&bytes), &hub).unwrap().fetched);
    assert_eq!(bench.files(), ["resnet/model.onnx", "resnet/receipt.json", "resnet/residual.toml"]);
}

#[test]
fn what_was_not_pulled_is_never_replaced() {
    let (mut bench, bytes) = (Bench::new(), weights());
    bench.force = true;
    let hub = FakeHub::start({
        let bytes = bytes.clone();
        move |_| Answer::ok(&bytes)
    });
    std::fs::create_dir_all(bench.target()).unwrap();
    std::fs::write(bench.target().join("mine.txt"), "mine").unwrap();
    let error = bench.pull(&row(&bytes), &hub).unwrap_err();
    assert!(error.to_string().contains("files that were not pulled; remove it, or choose another"), "{error}");
    std::fs::remove_file(bench.target().join("mine.txt")).unwrap();

    bench.pull(&row(&bytes), &hub).unwrap();
    let other = Wanted { repository: "other/models".to_owned(), ..row(&bytes) };
    let error = bench.pull(&other, &hub).unwrap_err();
    assert!(error.to_string().contains("holds validated/m.onnx of zoo/models at main"), "{error}");
    assert_eq!(hub.requests().len(), 1, "nothing is fetched in vain");

    std::fs::remove_dir_all(bench.target()).unwrap();
    std::fs::write(bench.target(), "a file").unwrap();
    assert!(matches!(bench.pull(&row(&bytes), &hub), Err(PullError::Occupied { .. })));
}

/// Pulls what should be [`weights`] from a hub that always answers this, and expects nothing to be left.
fn failure(answer: Answer) -> (PullError, usize) {
    let bench = Bench::new();
    let hub = FakeHub::start(move |_| answer.clone());
    let error = bench.pull(&row(&weights()), &hub).unwrap_err();
    assert_eq!(bench.files(), Vec::<String>::new(), "{error}");
    assert!(!bench.target().exists(), "{error}");
    (error, hub.requests().len())
}

#[test]
fn a_body_that_is_something_else_is_told_apart() {
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1200000\n";
    let (error, requests) = failure(Answer::ok(pointer));
    assert!(matches!(error, PullError::LfsPointer { .. }) && requests == 1, "{error}");
    for page in ["<!DOCTYPE html><title>Sign in</title>", "\n  <HTML>"] {
        let (error, requests) = failure(Answer::ok(page.as_bytes()));
        assert!(matches!(error, PullError::WebPage { .. }) && requests == 1, "{error}");
    }
    let (error, _) = failure(Answer::ok(&weights()).header("content-type", "Text/HTML; charset=utf-8"));
    assert!(matches!(error, PullError::WebPage { .. }), "{error}");

    let mut wrong = weights();
    wrong[700_000] ^= 1;
    let (error, requests) = failure(Answer::ok(&wrong));
    assert!(matches!(&error, PullError::WrongHash { found, .. } if *found == sha256(&wrong)), "{error}");
    assert!(requests == 1 && error.to_string().contains(&sha256(&weights())), "{error}");
}

#[test]
fn a_body_of_the_wrong_size_is_not_read_to_its_end() {
    let (error, requests) = failure(Answer::ok(&weights()[..900_000]));
    assert!(matches!(error, PullError::SizeMismatch { announced: 900_000, expected: 1_200_000, .. }), "{error}");
    assert_eq!(requests, 1);
    let (error, _) = failure(Answer::ok(&[7; 100_000]).endless());
    assert!(matches!(error, PullError::TooLong { bytes_max: 1_200_000, .. }), "{error}");
}

#[test]
fn refusals_say_what_to_do() {
    let missing = Answer::status(404).header("x-error-code", "EntryNotFound").header("x-error-message", "no such file");
    let (error, requests) = failure(missing);
    assert!(error.to_string().contains("not found (404, EntryNotFound: no such file); check the name"), "{error}");
    assert_eq!(requests, 1, "a second try would not find it either");
    for status in [401, 403] {
        let (error, requests) = failure(Answer::status(status).header("x-error-code", "GatedRepo"));
        assert!(matches!(error, PullError::Denied { token: Token::Unset, .. }), "{error}");
        assert!(error.to_string().contains("GatedRepo") && error.to_string().contains("set HF_TOKEN"), "{error}");
        assert_eq!(requests, 1);
    }
    assert!(matches!(failure(Answer::status(204)).0, PullError::Status { status: 204, .. }));
}

#[test]
fn a_server_that_cannot_now_is_asked_again_and_in_the_end_no_more() {
    for status in [408, 429, 500, 503] {
        let (error, requests) = failure(Answer::status(status).header("retry-after", "7"));
        assert!(matches!(&error, PullError::GaveUp { tries: 3, .. }), "{error}");
        assert!(error.to_string().contains(&format!("the server says {status} and asks to wait 7 s")), "{error}");
        assert_eq!(requests, 3);
    }
    let (error, requests) = failure(Answer::status(429).header("retry-after", "86400"));
    assert!(matches!(&error, PullError::GaveUp { tries: 1, .. }), "nobody waits for a day: {error}");
    assert_eq!(requests, 1);

    let (bench, bytes) = (Bench::new(), weights());
    let hub = FakeHub::start({
        let bytes = bytes.clone();
        move |request| match request.earlier {
            0 => Answer::status(503).header("retry-after", "7"),
            1 => Answer::status(502),
            _ => Answer::ok(&bytes),
        }
    });
    bench.pull(&row(&bytes), &hub).unwrap();
    assert_eq!(bench.said(), ["retry after 7", "retry after 2", &format!("{FILE} from 0")]);
}

#[test]
fn a_cut_connection_is_taken_up_where_it_broke() {
    let (bench, bytes) = (Bench::new(), weights());
    let hub = FakeHub::start({
        let bytes = bytes.clone();
        move |request| match request.earlier {
            0 => ranges(&bytes, request).cut_after(500_000),
            1 => ranges(&bytes, request).cut_after(100_000),
            _ => ranges(&bytes, request),
        }
    });
    bench.pull(&row(&bytes), &hub).unwrap();
    assert_eq!(bench.bytes("model.onnx"), bytes);
    let ranges = hub.header_of(FILE, "range");
    assert_eq!(ranges, [None, Some("bytes=500000-".to_owned()), Some("bytes=600000-".to_owned())]);
    let tag = Some(format!("\"{}\"", &sha256(&bytes)[..8]));
    assert_eq!(hub.header_of(FILE, "if-range"), [None, tag.clone(), tag]);
}

#[test]
fn a_body_of_unknown_length_that_ends_early_is_a_cut_one() {
    let (bench, bytes) = (Bench::new(), weights());
    let hub = FakeHub::start({
        let bytes = bytes.clone();
        move |request| match request.earlier {
            0 => ranges(&bytes, request).unannounced().cut_after(500_000),
            _ => ranges(&bytes, request),
        }
    });
    bench.pull(&row(&bytes), &hub).unwrap();
    assert_eq!(bench.bytes("model.onnx"), bytes);
    assert_eq!(hub.header_of(FILE, "range"), [None, Some("bytes=500000-".to_owned())]);
}

#[test]
fn a_part_of_an_earlier_pull_is_gone_on_with() {
    let (mut bench, bytes) = (Bench::new(), weights());
    bench.patience.tries_max = 1;
    let cut = FakeHub::start({
        let bytes = bytes.clone();
        move |request| ranges(&bytes, request).cut_after(400_000)
    });
    bench.pull(&row(&bytes), &cut).unwrap_err();
    assert_eq!(bench.said(), [format!("{FILE} from 0")]);
    let hub = FakeHub::start({
        let bytes = bytes.clone();
        move |request| ranges(&bytes, request)
    });
    bench.pull(&row(&bytes), &hub).unwrap();
    assert_eq!(bench.said(), [format!("{FILE} from 400000")]);
    assert_eq!(bench.bytes("model.onnx"), bytes);
    assert_eq!(hub.header_of(FILE, "range"), [Some("bytes=400000-".to_owned())]);
}

#[test]
fn a_part_of_another_file_is_not_gone_on_with() {
    let (mut bench, bytes) = (Bench::new(), weights());
    bench.patience.tries_max = 1;
    let cut = FakeHub::start({
        let bytes = bytes.clone();
        move |request| ranges(&bytes, request).cut_after(400_000)
    });
    bench.pull(&row(&bytes), &cut).unwrap_err();
    let other: Vec<u8> = bytes.iter().map(|byte| !byte).collect();
    let hub = FakeHub::start({
        let other = other.clone();
        move |request| ranges(&other, request)
    });
    bench.pull(&row(&other), &hub).unwrap();
    assert_eq!(bench.bytes("model.onnx"), other);
    assert_eq!(hub.header_of(FILE, "range"), [None]);
}

#[test]
fn a_part_that_rotted_is_fetched_anew() {
    let (mut bench, bytes) = (Bench::new(), weights());
    bench.patience.tries_max = 1;
    let cut = FakeHub::start({
        let bytes = bytes.clone();
        move |request| ranges(&bytes, request).cut_after(400_000)
    });
    let error = bench.pull(&row(&bytes), &cut).unwrap_err();
    assert!(
        matches!(&error, PullError::GaveUp { tries: 1, cause } if matches!(**cause, PullError::Cut { got: 400_000, .. })),
        "{error}"
    );
    assert!(!bench.target().exists());
    let part = bench.folder.path().join("models/.resnet.pull/parts/model.onnx.part");
    assert_eq!(std::fs::read(&part).unwrap(), bytes[..400_000]);

    // A byte of it changes meanwhile. The hash of the whole tells.
    let mut rotten = bytes[..400_000].to_vec();
    rotten[5] ^= 1;
    std::fs::write(&part, rotten).unwrap();
    bench.patience.tries_max = 3;
    let hub = FakeHub::start({
        let bytes = bytes.clone();
        move |request| ranges(&bytes, request)
    });
    bench.pull(&row(&bytes), &hub).unwrap();
    assert_eq!(bench.bytes("model.onnx"), bytes);
    assert_eq!(hub.header_of(FILE, "range"), [Some("bytes=400000-".to_owned()), None]);
    assert_eq!(bench.files(), ["resnet/model.onnx", "resnet/receipt.json", "resnet/residual.toml"]);
}

#[test]
fn a_server_without_ranges_or_with_a_new_version_starts_over() {
    // Knows no ranges; answers a wrong one; says there is none; has another file by now.
    type Second = fn(&[u8], &Request) -> Answer;
    let seconds: [Second; 4] = [
        |bytes, _| Answer::ok(bytes),
        |bytes, _| Answer::ok(&bytes[9..]).header("content-range", "bytes 9-1199999/1200000").with_status(206),
        |_, _| Answer::status(416),
        |bytes, request| if request.header("if-range").is_some() { Answer::ok(bytes) } else { Answer::status(500) },
    ];
    for second in seconds {
        let (bench, bytes) = (Bench::new(), weights());
        let hub = FakeHub::start({
            let bytes = bytes.clone();
            move |request| match request.earlier {
                0 => ranges(&bytes, request).cut_after(500_000),
                1 => second(&bytes, request),
                _ => ranges(&bytes, request),
            }
        });
        bench.pull(&row(&bytes), &hub).unwrap();
        assert_eq!(bench.bytes("model.onnx"), bytes);
    }
}

#[test]
fn a_stalled_connection_is_given_up() {
    let (mut bench, bytes) = (Bench::new(), weights());
    bench.patience.tries_max = 2;
    let hub = FakeHub::start({
        let bytes = bytes.clone();
        move |request| ranges(&bytes, request).hang_after(1000)
    });
    let error = bench.pull(&row(&bytes), &hub).unwrap_err();
    let PullError::GaveUp { tries: 2, cause } = &error else { panic!("{error}") };
    assert!(matches!(**cause, PullError::Stalled { got: 2000, .. }), "{error}");
    assert!(error.to_string().contains("nothing came for 0.3 s after 2000 bytes"), "{error}");
}

#[test]
fn nobody_listening_is_unreachable() {
    let bench = Bench::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = bench.pull_with(&row(b"x"), &url, &no_conversion).unwrap_err();
    let PullError::GaveUp { tries: 3, cause } = &error else { panic!("{error}") };
    assert!(matches!(**cause, PullError::Unreachable { .. }), "{error}");
}

#[test]
fn a_proxy_is_asked_for_all_but_the_hosts_that_are_let_past() {
    let proxy = FakeHub::start(|_| Answer::status(418));
    let mut bench = Bench::new();
    bench.patience.tries_max = 1;
    bench.proxies.http = Some(("HTTP_PROXY", proxy.url()));
    let error = bench.pull_with(&row(b"x"), "http://hub.invalid", &no_conversion).unwrap_err();
    assert!(matches!(error, PullError::GaveUp { .. }), "{error}");
    assert_eq!(proxy.requests()[0].path, "hub.invalid:80");

    bench.proxies.bypass = vec!["127.0.0.1".to_owned()];
    let hub = FakeHub::start(|_| Answer::ok(b"x"));
    bench.pull(&row(b"x"), &hub).unwrap();
    assert_eq!((proxy.requests().len(), hub.requests().len()), (1, 1));
}

#[test]
fn redirects_are_followed_but_not_forever() {
    let (error, requests) = failure(Answer::redirect("/again"));
    assert!(matches!(error, PullError::RedirectLoop { limit: 8, .. }), "{error}");
    assert_eq!(requests, 9);
    let (error, _) = failure(Answer::redirect("file:///etc/passwd"));
    assert!(matches!(error, PullError::BadRedirect { .. }), "{error}");
}

#[test]
fn the_token_goes_to_the_hub_and_to_nobody_else() {
    let (mut bench, bytes) = (Bench::new(), weights());
    bench.token = Some("hf_secret".to_owned());
    let storage = FakeHub::start({
        let bytes = bytes.clone();
        move |request| ranges(&bytes, request)
    });
    let elsewhere = format!("{}/blob?signature=1", storage.url());
    let hub = FakeHub::start(move |request| match request.path.as_str() {
        "/renamed" => Answer::redirect(&elsewhere),
        _ => Answer::status(307).header("location", "/renamed"),
    });
    bench.pull(&row(&bytes), &hub).unwrap();
    let token = Some("Bearer hf_secret".to_owned());
    assert_eq!(hub.header_of("", "authorization"), [token.clone(), token]);
    assert_eq!(storage.header_of("", "authorization"), [None]);

    let hub = FakeHub::start(|_| Answer::status(403));
    let error = Bench { token: bench.token, ..Bench::new() }.pull(&row(&bytes), &hub).unwrap_err();
    assert!(matches!(error, PullError::Denied { token: Token::Sent, .. }), "{error}");
    assert!(error.to_string().contains("accept the repository's terms") && !error.to_string().contains("hf_secret"));
}

#[test]
fn a_file_that_the_disk_cannot_hold_is_refused_before_it_comes() {
    let bench = Bench::new();
    let mut wanted = row(b"x");
    let mut entry = wanted.entry.unwrap().clone();
    entry.pinned.as_mut().unwrap().bytes = 1 << 60;
    wanted.entry = Some(Box::leak(Box::new(entry)));
    let hub = FakeHub::start(|_| Answer::ok(b"abc").unannounced());
    let error = bench.pull(&wanted, &hub).unwrap_err();
    assert!(matches!(error, PullError::DiskFull { needed, free: Some(_), .. } if needed == 1 << 60), "{error}");
    assert!(error.to_string().contains("1.0 EiB more are needed") && error.to_string().contains("are free"), "{error}");
    assert_eq!(bench.files(), Vec::<String>::new());
}

#[cfg(target_os = "linux")]
#[test]
fn a_folder_that_cannot_be_written_to_is_named() {
    let mut bench = Bench::new();
    bench.patience.tries_max = 1;
    // Not even root may create anything below /proc.
    let hub = FakeHub::start(|_| Answer::ok(b"x"));
    let options = Options {
        hub: Hub::parse(&hub.url()).unwrap(),
        token: None,
        proxies: Proxies::default(),
        patience: bench.patience.clone(),
        offline: false,
        force: false,
        progress: &|_| {},
        pause: &|_| {},
        convert: &no_conversion,
    };
    let error = pull(&row(b"x"), Path::new("/proc/models/resnet"), &options).unwrap_err();
    assert!(matches!(error, PullError::Io { .. }), "{error}");
    assert!(error.to_string().contains("/proc/models") && error.to_string().contains("--output"), "{error}");
    assert!(matches!(pull(&row(b"x"), Path::new("/"), &options), Err(PullError::Occupied { .. })));
    assert_eq!(hub.requests().len(), 0);
}

#[test]
fn of_two_pulls_at_once_one_fetches_and_the_other_waits() {
    let (bench, bytes) = (Bench::new(), weights());
    let (release, held) = std::sync::mpsc::channel::<()>();
    let held = Mutex::new(held);
    let hub = Arc::new(FakeHub::start({
        let bytes = bytes.clone();
        move |_| {
            held.lock().unwrap().recv().unwrap();
            Answer::ok(&bytes)
        }
    }));
    let target = bench.target();
    let go = |waiting: &(dyn Fn() + Sync)| {
        let options = Options {
            hub: Hub::parse(&hub.url()).unwrap(),
            token: None,
            proxies: Proxies::default(),
            patience: Patience::default(),
            offline: false,
            force: false,
            progress: &|event| {
                if matches!(event, Event::Waiting) {
                    waiting();
                }
            },
            pause: &|_| {},
            convert: &no_conversion,
        };
        pull(&row(&bytes), &target, &options).unwrap().fetched
    };
    std::thread::scope(|scope| {
        let first = scope.spawn(|| go(&|| panic!("nobody to wait for")));
        hub.until_asked(|_| true);
        // The second only lets the first go on once it waits.
        let second = scope.spawn(|| go(&|| release.send(()).unwrap()));
        assert_eq!((first.join().unwrap(), second.join().unwrap()), (true, false));
    });
    assert_eq!(hub.requests().len(), 1);
    assert_eq!(bench.files(), ["resnet/model.onnx", "resnet/receipt.json", "resnet/residual.toml"]);
}

#[test]
fn an_existing_empty_folder_is_filled_in_place() {
    let (bench, bytes) = (Bench::new(), weights());
    std::fs::create_dir_all(bench.target()).unwrap();
    let held = std::fs::File::open(bench.target()).unwrap();
    let hub = FakeHub::start({
        let bytes = bytes.clone();
        move |_| Answer::ok(&bytes)
    });
    bench.pull(&row(&bytes), &hub).unwrap();
    assert_eq!(bench.files(), ["resnet/model.onnx", "resnet/receipt.json", "resnet/residual.toml"]);
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        let inode = |metadata: std::io::Result<std::fs::Metadata>| metadata.unwrap().ino();
        assert_eq!(inode(held.metadata()), inode(bench.target().metadata()), "whoever is inside of it sees the files");
    }
}

// --- repositories of the hub ---

/// A graph whose weights lie in these files.
fn graph(locations: &[&str]) -> Vec<u8> {
    let entry = |key: &str, value: &str| StringStringEntryProto { key: Some(key.into()), value: Some(value.into()) };
    let tensor = |location: &&str| TensorProto {
        name: Some((*location).into()),
        data_location: Some(DataLocation::External as i32),
        external_data: vec![entry("location", location)],
        ..TensorProto::default()
    };
    let graph = GraphProto { initializer: locations.iter().map(tensor).collect(), ..GraphProto::default() };
    ModelProto { graph: Some(graph), ..ModelProto::default() }.encode_to_vec()
}

/// A hub with the repository `a/b`, which holds `files` at `commit`. Large files are stored as the real one stores them:
/// with their hash in the listing, behind a redirect that says it as well.
fn repository(commit: &'static str, files: Vec<(&'static str, Vec<u8>)>) -> FakeHub {
    FakeHub::start(move |request| repository_answer(commit, &files, request))
}

fn repository_answer(commit: &str, files: &[(&'static str, Vec<u8>)], request: &Request) -> Answer {
    if request.path == "/api/models/a/b/revision/main?blobs=true" {
        let siblings: Vec<_> = files
            .iter()
            .map(|(path, bytes)| {
                let lfs = (!path.ends_with("json")).then(|| serde_json::json!({ "sha256": sha256(bytes) }));
                serde_json::json!({ "rfilename": path, "size": bytes.len(), "lfs": lfs })
            })
            .collect();
        let listing = serde_json::json!({ "sha": commit, "siblings": siblings, "tags": ["license:mit"] });
        return Answer::ok(listing.to_string().as_bytes());
    }
    let found = |prefix: &str| {
        let path = request.path.strip_prefix(prefix)?;
        files.iter().find(|(known, _)| *known == path)
    };
    if let Some((path, bytes)) = found(&format!("/a/b/resolve/{commit}/")) {
        if path.ends_with("json") { Answer::ok(bytes) } else { Answer::redirect(&format!("/storage/{path}")) }
    } else if let Some((_, bytes)) = found("/storage/") {
        ranges(bytes, request)
    } else {
        Answer::status(404)
    }
}

fn wanted(given: &str) -> Wanted {
    Wanted::parse(given, None).unwrap()
}

#[test]
fn a_repository_brings_its_graph_weights_labels_and_recipe() {
    let bench = Bench::new();
    let hub = repository(
        "0a1b",
        vec![
            ("README.md", b"# b".to_vec()),
            ("config.json", b"{}".to_vec()),
            ("onnx/model.onnx", graph(&["model.onnx_data", "more/w.bin"])),
            ("onnx/model.onnx_data", weights()),
            ("onnx/more/w.bin", b"more".to_vec()),
            ("onnx/model_fp16.onnx", graph(&[])),
            ("onnx/preprocessor_config.json", b"{ }".to_vec()),
        ],
    );
    let pulled = bench.pull(&wanted("hf:a/b"), &hub).unwrap();
    let files =
        ["config.json", "model.onnx", "model.onnx_data", "more/w.bin", "preprocessor_config.json", "receipt.json"];
    assert_eq!(bench.files(), files.map(|file| format!("resnet/{file}")));
    assert_eq!((bench.bytes("model.onnx_data"), bench.text("more/w.bin")), (weights(), "more".to_owned()));
    let receipt = &pulled.receipt;
    assert_eq!((receipt.commit.as_deref(), receipt.licence.as_deref()), (Some("0a1b"), Some("mit")));
    assert_eq!(receipt.source, "onnx/model.onnx");
    assert!(hub.requests().iter().all(|request| !request.path.contains("fp16") && !request.path.contains("README")));

    assert!(!bench.pull(&wanted("hf:a/b"), &hub).unwrap().fetched, "the same commit is there");
    std::fs::write(bench.target().join("more/w.bin"), "damaged").unwrap();
    assert!(bench.pull(&wanted("hf:a/b"), &hub).unwrap().fetched);
    assert_eq!(bench.text("more/w.bin"), "more");
}

#[test]
fn a_new_commit_replaces_the_files_of_the_old_and_leaves_the_users() {
    let bench = Bench::new();
    let old = repository("0a", vec![("model.onnx", graph(&["old.bin"])), ("old.bin", b"old".to_vec())]);
    bench.pull(&wanted("hf:a/b"), &old).unwrap();
    std::fs::write(bench.target().join("labels.txt"), "cat\n").unwrap();
    let new = repository("0b", vec![("model.onnx", graph(&["new.bin"])), ("new.bin", b"new".to_vec())]);
    let pulled = bench.pull(&wanted("hf:a/b"), &new).unwrap();
    assert_eq!((pulled.fetched, pulled.receipt.commit.as_deref()), (true, Some("0b")));
    let files = ["labels.txt", "model.onnx", "new.bin", "receipt.json"];
    assert_eq!(bench.files(), files.map(|file| format!("resnet/{file}")));
}

#[test]
fn a_failed_update_leaves_the_old_model_as_it_was() {
    let bench = Bench::new();
    let old = repository("0a", vec![("model.onnx", graph(&[])), ("config.json", b"{}".to_vec())]);
    bench.pull(&wanted("hf:a/b"), &old).unwrap();
    let before = (bench.files(), bench.bytes("model.onnx"), bench.text("receipt.json"));
    let new = repository("0b", vec![("model.onnx", graph(&["gone.bin"])), ("config.json", b"{ }".to_vec())]);
    let error = bench.pull(&wanted("hf:a/b"), &new).unwrap_err();
    assert!(error.to_string().contains("keeps weights in gone.bin, which is not there"), "{error}");
    assert_eq!((bench.files(), bench.bytes("model.onnx"), bench.text("receipt.json")), before);
}

#[test]
fn a_repository_that_breaks_off_keeps_the_files_that_are_whole() {
    let mut bench = Bench::new();
    bench.patience.tries_max = 1;
    let files = vec![("model.onnx", graph(&["w.bin"])), ("w.bin", weights())];
    let hub = FakeHub::start(move |request| match (request.path.as_str(), request.earlier) {
        ("/storage/w.bin", 0) => Answer::status(503),
        _ => repository_answer("0a", &files, request),
    });
    assert!(matches!(bench.pull(&wanted("hf:a/b"), &hub), Err(PullError::GaveUp { .. })));
    bench.pull(&wanted("hf:a/b"), &hub).unwrap();
    assert_eq!(hub.header_of("/storage/model.onnx", "range").len(), 1);
    assert_eq!(bench.files(), ["model.onnx", "receipt.json", "w.bin"].map(|file| format!("resnet/{file}")));
}

#[test]
fn weights_that_climb_out_of_the_folder_are_refused() {
    for location in ["../../evil.bin", "/tmp/evil.bin", "residual.toml", "model.residual.toml", "1/model.onnx"] {
        let bench = Bench::new();
        let files = [location, "x/residual.toml", "x/model.residual.toml", "x/1/model.onnx"];
        let evil = files.map(|path| (path, b"evil".to_vec()));
        let graph = ("x/model.onnx", graph(&[location]));
        let wanted = Wanted::parse("hf:a/b", Some("x/model.onnx")).unwrap();
        let hub = repository("0a", [graph].into_iter().chain(evil).collect());
        let error = bench.pull(&wanted, &hub).unwrap_err();
        assert!(matches!(&error, PullError::UnsafePath { name, .. } if name == location), "{error}");
        assert_eq!(bench.files(), Vec::<String>::new());
    }
}

#[test]
fn a_graph_that_cannot_be_served_is_not_published() {
    // One node reads what nothing writes.
    let node = NodeProto { op_type: Some("Relu".into()), input: vec!["nothing".into()], ..NodeProto::default() };
    let graph = GraphProto { node: vec![node], ..GraphProto::default() };
    let dangling = ModelProto { graph: Some(graph), ..ModelProto::default() }.encode_to_vec();
    for bytes in [dangling, b"\x08\x08".to_vec()] {
        let bench = Bench::new();
        let hub = repository("0a", vec![("model.onnx", bytes)]);
        let error = bench.pull(&wanted("hf:a/b"), &hub).unwrap_err();
        assert!(matches!(error, PullError::NotOnnx { .. }), "{error}");
        assert!(error.to_string().starts_with("read model.onnx: "), "{error}");
        assert_eq!(bench.files(), Vec::<String>::new());
    }
}

#[test]
fn the_hubs_own_hash_is_held_to_where_there_is_no_other() {
    // The listing of an old mirror tells neither size nor hash; the redirect does.
    let (bench, good) = (Bench::new(), graph(&["w.bin"]));
    let mut bad = good.clone();
    bad[0] ^= 0x40;
    for (body, fits) in [(good.clone(), true), (bad, false)] {
        let good = good.clone();
        let hub = FakeHub::start(move |request| match request.path.as_str() {
            "/api/models/a/b/revision/main?blobs=true" => {
                Answer::ok(br#"{"sha":"0a","siblings":[{"rfilename":"model.onnx"},{"rfilename":"w.bin"}]}"#)
            }
            "/a/b/resolve/0a/model.onnx" => Answer::redirect("/storage")
                .header("x-linked-etag", &format!("\"{}\"", sha256(&good)))
                .header("x-linked-size", &good.len().to_string()),
            "/a/b/resolve/0a/w.bin" => Answer::ok(b"w").unannounced(),
            _ => Answer::ok(&body),
        });
        match bench.pull(&wanted("hf:a/b"), &hub) {
            Ok(_) => assert!(fits),
            Err(error) => assert!(!fits && matches!(error, PullError::WrongHash { .. }), "{error}"),
        }
        let _ = std::fs::remove_dir_all(bench.target());
    }
}

#[test]
fn weights_alone_are_converted() {
    let bench = Bench::new();
    let files = vec![("model.safetensors", weights()), ("config.json", b"{\"architecture\":\"resnet50\"}".to_vec())];
    let hub = repository("0a", files);
    let convert = |from: &Path, config: Option<&Path>, folder: &Path| {
        assert_eq!(std::fs::read(from).unwrap(), weights());
        assert!(std::fs::read_to_string(config.unwrap()).unwrap().contains("resnet50"));
        std::fs::write(folder.join("model.onnx"), "converted")?;
        std::fs::write(folder.join("config.json"), "the repository's own is kept")?;
        std::fs::write(folder.join("residual.toml"), "preset = \"timm-a1\"\n")?;
        Ok(())
    };
    let pulled = bench.pull_with(&wanted("hf:a/b"), &hub.url(), &convert).unwrap();
    let files = ["config.json", "model.onnx", "receipt.json", "residual.toml"];
    assert_eq!(bench.files(), files.map(|file| format!("resnet/{file}")));
    assert_eq!(
        (bench.text("model.onnx"), bench.text("residual.toml")),
        ("converted".into(), "preset = \"timm-a1\"\n".into())
    );
    assert!(bench.text("config.json").contains("architecture"));
    assert_eq!(pulled.receipt.sha256, sha256(&weights()), "what the model was made from");
    assert!(!bench.pull(&wanted("hf:a/b"), &hub).unwrap().fetched, "nothing is converted twice");
    assert_eq!(bench.said(), ["model.safetensors from 0", "config.json from 0", "convert model.safetensors"]);
}

#[test]
fn a_converter_that_fails_leaves_nothing() {
    let bench = Bench::new();
    let hub = repository("0a", vec![("model.safetensors", weights())]);
    let refuses = |_: &Path, config: Option<&Path>, _: &Path| match config {
        None => Err("no tensor is called fc.weight".into()),
        Some(_) => Ok(()),
    };
    let error = bench.pull_with(&wanted("hf:a/b"), &hub.url(), &refuses).unwrap_err();
    assert_eq!(error.to_string(), "convert model.safetensors: no tensor is called fc.weight");
    let idle = |_: &Path, _: Option<&Path>, _: &Path| Ok(());
    let error = bench.pull_with(&wanted("hf:a/b"), &hub.url(), &idle).unwrap_err();
    assert!(error.to_string().contains("left no model.onnx"), "{error}");
    assert_eq!(bench.files(), Vec::<String>::new());
}

#[test]
fn answers_that_are_no_hubs_are_told_apart() {
    for answer in [Answer::ok(b"<html>"), Answer::ok(b"{}"), Answer::ok(&[b' '; 1 << 20]).endless()] {
        let hub = FakeHub::start(move |_| answer.clone());
        let error = Bench::new().pull(&wanted("hf:a/b"), &hub).unwrap_err();
        assert!(matches!(error, PullError::BadAnswer { .. }), "{error}");
    }
    let hub = FakeHub::start(|_| Answer::status(401).header("x-error-code", "RepoNotFound"));
    let error = Bench::new().pull(&wanted("hf:a/b"), &hub).unwrap_err();
    assert!(
        error.to_string().contains("RepoNotFound") && error.to_string().contains("does not exist, is private"),
        "{error}"
    );
}

// --- the command ---

fn residual(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_residual"));
    // Neither the developer's token nor proxies.
    command.env_clear().args(arguments).stdin(Stdio::null());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A repository with a model that works.
fn working() -> FakeHub {
    let file = |name: &str| std::fs::read(root().join("models/resnet20-cifar10").join(name)).unwrap();
    let names = ["config.json", "preprocessor_config.json", "model.onnx"];
    repository("0a1b", names.into_iter().map(|name| (name, file(name))).collect())
}

#[test]
fn the_command_ends_with_another_that_serves_what_it_pulled() {
    let (folder, hub) = (tempfile::tempdir().unwrap(), working());
    let pull = |more: &[&str]| -> Output {
        let url = hub.url();
        residual(&[&["pull", "hf:a/b", "--hub-url", &url], more].concat())
            .env("RESIDUAL_CACHE_DIR", folder.path())
            .output()
            .unwrap()
    };
    let output = pull(&[]);
    let (told, noted) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{noted}");
    let model = folder.path().join("models/a--b");
    assert!(told.ends_with(&format!("residual serve --model {}\n", model.display())), "{told}");
    assert!(told.starts_with("hf:a/b: 1.1 MB, pulled and checked: ") && told.contains("licence: mit"), "{told}");
    let noted: Vec<&str> = noted.lines().collect();
    assert!(matches!(noted[..], [one, _, _] if one == "fetching model.onnx, 1.1 MB"), "{noted:?}");

    let again = pull(&["--json"]);
    let report: serde_json::Value = serde_json::from_slice(&again.stdout).unwrap();
    assert_eq!((&report["fetched"], &report["commit"]), (&false.into(), &"0a1b".into()));
    assert_eq!(report["serve"], format!("residual serve --model {}", model.display()));

    let mut classify = Command::new(env!("CARGO_BIN_EXE_residual"));
    let cat = folder.path().join("cat.jpg");
    std::fs::write(&cat, photo("cat.jpg")).unwrap();
    classify.args(["classify", "--json", "-k", "1", "--model"]).arg(&model).arg(&cat);
    let output = classify.output().unwrap();
    assert!(text(&output.stdout).contains("\"label\":\"cat\""), "{}", text(&output.stderr));
}

#[test]
fn the_command_takes_hub_and_token_from_the_usual_variables() {
    let (folder, hub) = (tempfile::tempdir().unwrap(), working());
    let target = folder.path().join("it's here");
    let mut command = residual(&["pull", "hf:a/b", "--output", target.to_str().unwrap()]);
    let output = command.env("HF_ENDPOINT", format!("{}/", hub.url())).env("HF_TOKEN", " hf_x\n").output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).ends_with(
        r"/it'\''s here'
"
    ));
    assert!(hub.header_of("", "authorization").iter().all(|token| token.as_deref() == Some("Bearer hf_x")));
    assert!(target.join("model.onnx").exists());
}

#[test]
fn the_command_fails_with_advice() {
    let folder = tempfile::tempdir().unwrap();
    let hub = FakeHub::start(|_| Answer::ok(b"version https://git-lfs.github.com/spec/v1\n"));
    for (arguments, advice) in [
        (&["resnet50"][..], "got a Git LFS pointer"),
        (&["resnet50", "--offline"], "offline mode forbids fetching it"),
        (&["resnet-50"], "did you mean resnet50"),
        (&["timm/resnet50"], "write `hf:timm/resnet50`"),
        (&["hf:resnet50"], "write hf:organisation/name"),
    ] {
        let url = hub.url();
        let mut command = residual(&[&["pull", "--hub-url", &url], arguments].concat());
        let output = command.env("RESIDUAL_CACHE_DIR", folder.path()).output().unwrap();
        let said = text(&output.stderr);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{said}");
        assert!(said.lines().last().unwrap().starts_with("error: ") && said.contains(advice), "{said}");
    }
    let output = residual(&["pull", "resnet50", "--hub-url", "ftp://x"]).env("HOME", folder.path()).output().unwrap();
    assert!(text(&output.stderr).contains("does not begin with https://"), "{}", text(&output.stderr));
    assert_eq!(residual(&["pull"]).output().unwrap().status.code(), Some(2));
}

#[cfg(unix)]
#[test]
fn a_command_that_is_interrupted_goes_on_where_it_was() {
    let (folder, bytes) = (tempfile::tempdir().unwrap(), graph(&["w.bin"]));
    let files = vec![("model.onnx", bytes), ("w.bin", weights())];
    let hub = FakeHub::start(move |request| match (request.path.as_str(), request.earlier) {
        ("/storage/w.bin", 0) => repository_answer("0a", &files, request).hang_after(400_000),
        _ => repository_answer("0a", &files, request),
    });
    let pull = || {
        let mut command = residual(&["pull", "hf:a/b", "--hub-url", &hub.url()]);
        command.env("RESIDUAL_CACHE_DIR", folder.path());
        command
    };
    let mut child = pull().stderr(Stdio::null()).spawn().unwrap();
    let part = folder.path().join("models/.a--b.pull/parts/w.bin.part");
    let start = std::time::Instant::now();
    while part.metadata().map_or(0, |metadata| metadata.len()) < 400_000 {
        assert!(start.elapsed() < PATIENCE, "the part never grew");
        std::thread::yield_now();
    }
    let status = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(status.success() && !child.wait().unwrap().success());
    assert!(!folder.path().join("models/a--b").exists());

    let output = pull().output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("fetching w.bin, 1.2 MB, from 400.0 kB on"), "{}", text(&output.stderr));
    assert_eq!(std::fs::read(folder.path().join("models/a--b/w.bin")).unwrap(), weights());
    assert_eq!(hub.header_of("/storage/w.bin", "range"), [None, Some("bytes=400000-".to_owned())]);
    assert_eq!(hub.header_of("/storage/model.onnx", "range").len(), 1, "what was whole is not fetched again");
    assert_eq!(std::fs::read_dir(folder.path().join("models")).unwrap().count(), 1, "nothing is left over");
}
