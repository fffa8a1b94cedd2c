//! From the first moment to the last.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use residual::edge::Drained;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Answer, PATIENCE, TestServer, photo, png, read, root, send};

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_still_loading_is_live_and_not_ready() {
    let server = TestServer::bind(&[]).await;
    assert_eq!(server.get("/health/live").await.status, 200);
    for path in ["/health/ready", "/api/v1/models", "/api/v1/models/resnet20-cifar10"] {
        assert!(server.get(path).await.assert_problem(503, "not_ready").contains("loading"), "{path}");
    }
    server.classify(png(4, 4)).await.assert_problem(503, "not_ready");
    server.load().await;
    assert_eq!(server.get("/health/ready").await.status, 200);
    assert_eq!(server.classify(png(4, 4)).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_drain_waits_for_what_is_in_flight_and_refuses_what_is_new() {
    let flags = ["--batch-delay", "1h", "--batch-images-max", "2", "--request-timeout", "2s"];
    let server = TestServer::start(&flags).await;
    let (classify, ready) = (server.url("/api/v1/classify"), server.url("/health/ready"));
    let in_flight = tokio::spawn(server.client.post(&classify).body(png(4, 4)).send());
    server.until_metric("residual_queue_images{model=\"resnet20-cifar10\",version=\"1\"}", 1.0).await;
    let (server, client) = server.into_parts();
    // A client of its own: the drain closes idle connections, and a pooled one may be among them.
    let late = reqwest::Client::new().post(&classify).body(png(4, 4));
    let drain = tokio::spawn(server.drain());
    // New connections during the drain: readiness is off, classification refused.
    until_unready(&client, &ready).await.assert_problem(503, "shutting_down");
    let refused = send(late).await;
    refused.assert_problem(503, "shutting_down");
    assert_eq!(refused.header("retry-after"), "1");
    // What was in flight waits for company until its own deadline, and is answered then.
    let answer = read(in_flight.await.unwrap().unwrap()).await;
    answer.assert_problem(504, "deadline_exceeded");
    assert_eq!(drain.await.unwrap(), Drained::All);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_has_begun_is_answered_with_classes_during_the_drain() {
    let server = TestServer::start(&[]).await;
    let image = photo("cat.jpg");
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    let head = format!("POST /api/v1/classify HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", image.len());
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&image[..1000]).await.unwrap();
    server.until_metric("residual_requests_in_flight", 2.0).await;
    let ready = server.url("/health/ready");
    let (server, client) = server.into_parts();
    let drain = tokio::spawn(server.drain());
    until_unready(&client, &ready).await;
    stream.write_all(&image[1000..]).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"cat\""), "{answer}");
    assert_eq!(drain.await.unwrap(), Drained::All);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_grace_limit_ends_a_drain_that_hangs() {
    let flags = ["--batch-delay", "1h", "--batch-images-max", "2", "--request-timeout", "1h", "--drain-grace", "50ms"];
    let server = TestServer::start(&flags).await;
    let in_flight = tokio::spawn(server.client.post(server.url("/api/v1/classify")).body(png(4, 4)).send());
    server.until_metric("residual_queue_images{model=\"resnet20-cifar10\",version=\"1\"}", 1.0).await;
    assert_eq!(server.drain().await, Drained::GraceOver);
    in_flight.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn during_the_drain_delay_requests_are_still_served() {
    let server = TestServer::start(&["--drain-delay", "1h"]).await;
    let (ready, classify) = (server.url("/health/ready"), server.url("/api/v1/classify"));
    let (server, client) = server.into_parts();
    let drain = tokio::spawn(server.drain());
    until_unready(&client, &ready).await;
    assert_eq!(send(client.post(&classify).body(png(4, 4))).await.status, 200);
    drain.abort();
}

/// Asks until readiness is off. A connection that the drain closes under the question is asked again.
async fn until_unready(client: &reqwest::Client, ready: &str) -> Answer {
    loop {
        match client.get(ready).send().await {
            Ok(response) if response.status() == 503 => return read(response).await,
            Ok(_) | Err(_) => tokio::task::yield_now().await,
        }
    }
}

/// The binary itself, with the lines it logs.
struct Process {
    child: Child,
    lines: mpsc::Receiver<String>,
}

/// A test that fails leaves no server behind.
impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Process {
    fn start(flags: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_residual"))
            .args(["--http-port", "0"])
            .args(flags)
            .current_dir(root())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = mpsc::channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        // Ends with the process's standard error.
        std::thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { child, lines }
    }

    /// Reads the log up to the line with `text`, and returns all of it so far.
    fn until(&self, text: &str) -> String {
        let mut seen = String::new();
        loop {
            let line =
                self.lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{text:?} never came after:\n{seen}"));
            seen += &line;
            seen.push('\n');
            if line.contains(text) {
                return seen;
            }
        }
    }

    fn signal(&self, name: &str) {
        let kill = Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
        assert!(kill.success());
    }

    fn exit_code(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

/// `http://127.0.0.1:PORT` out of the start block.
fn address(log: &str) -> String {
    let start = log.find("http://127.0.0.1:").unwrap();
    log[start..].split_whitespace().next().unwrap().to_owned()
}

#[test]
fn the_binary_says_what_it_decided_and_a_signal_ends_it_with_0() {
    for signal in ["-INT", "-TERM"] {
        let process = Process::start(&[]);
        let log = process.until("try ");
        for word in [
            "runtime   ONNX Runtime 1.",
            "provider  cpu",
            "cores     ",
            "threads   ",
            "model     resnet20-cifar10",
            "recipe    shortest edge 32",
        ] {
            assert!(log.contains(word), "{word:?} is missing in:\n{log}");
        }
        process.signal(signal);
        process.until("the requests in flight were answered");
        assert_eq!(process.exit_code(), Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_the_binary_at_once() {
    let process = Process::start(&["--batch-delay", "1h", "--request-timeout", "2h"]);
    let url = address(&process.until("try "));
    let client = reqwest::Client::new();
    let stuck = tokio::spawn(client.post(format!("{url}/api/v1/classify")).body(photo("cat.jpg")).send());
    let waits = "residual_queue_images{model=\"resnet20-cifar10\",version=\"1\"} 1";
    while !client.get(format!("{url}/metrics")).send().await.unwrap().text().await.unwrap().contains(waits) {}
    process.signal("-TERM");
    process.until("finishing the requests in flight");
    process.signal("-TERM");
    process.until("quitting now");
    assert_eq!(process.exit_code(), Some(130));
    assert!(stuck.await.unwrap().is_err());
}

#[test]
fn what_keeps_the_binary_from_starting_is_said_with_its_fix() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let folder = tempfile::tempdir().unwrap();
    let text_file = folder.path().join("lib.so");
    std::fs::write(&text_file, "no library").unwrap();
    for (flags, expected) in [
        (vec!["--http-port", &port], "choose another with --host and --http-port"),
        (vec!["--model", "/no/such/model"], "open model /no/such/model: nothing is there"),
        (vec!["--ort-lib", text_file.to_str().unwrap()], "lib.so"),
        (vec!["--provider", "cuda", "--ort-lib", "/no/such/lib.so"], "/no/such/lib.so"),
        (vec!["--config", "/no/such.toml"], "settings file /no/such.toml"),
        (
            vec!["--request-images-max", "9", "--queue-images-max", "8"],
            "request_images_max (9) is above queue_images_max (8)",
        ),
        (vec!["--batch-delay", "10s"], "batch_delay (10s) is not below request_timeout (10s)"),
        (vec!["--log", "residual=loud"], "is no log filter"),
        (vec!["--log", "verbose"], "\"verbose\" is no level"),
    ] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_residual"))
            .args(
                ["serve", "--http-port", "0"]
                    .iter()
                    .copied()
                    .filter(|flag| flags[0] != "--http-port" || *flag == "serve"),
            )
            .args(&flags)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = String::new();
        child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(1), "{flags:?}:\n{log}");
        assert!(log.contains(expected) && log.contains("error: "), "{flags:?}:\n{log}");
    }
}

/// Waits for the process to answer, without its log.
async fn until_live(client: &reqwest::Client, url: &str) {
    while client.get(format!("{url}/health/ready")).send().await.is_ok_and(|answer| answer.status() != 200) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_nobody_reads_any_more_costs_nothing_but_the_log() {
    let mut process = Process::start(&["--log", "debug"]);
    let url = address(&process.until("try "));
    // Dropping the receiver ends the thread that reads the log, and with it the pipe.
    process.lines = mpsc::channel().1;
    let client = reqwest::Client::new();
    until_live(&client, &url).await;
    for _ in 0..50 {
        let answer = send(client.post(format!("{url}/api/v1/classify")).body(png(4, 4))).await;
        assert_eq!(answer.status, 200);
    }
    process.signal("-TERM");
    assert_eq!(process.exit_code(), Some(0));
}

#[test]
fn a_hangup_makes_the_server_look_at_its_models_again() {
    let repository = tempfile::tempdir().unwrap();
    let put = |name: &str| {
        let (from, to) = (root().join("tests/models/colours"), repository.path().join(name));
        std::fs::create_dir(&to).unwrap();
        for file in ["model.onnx", "config.json", "preprocessor_config.json"] {
            std::fs::copy(from.join(file), to.join(file)).unwrap();
        }
    };
    put("first");
    let process = Process::start(&["--models", repository.path().to_str().unwrap()]);
    process.until("ready at http://");
    put("second");
    process.signal("-HUP");
    assert!(process.until("SIGHUP").contains("loaded model second version 1"));
    process.signal("-TERM");
    assert_eq!(process.exit_code(), Some(0));
}

#[test]
fn json_logs_carry_the_decisions_as_fields() {
    let process = Process::start(&["--log-format", "json"]);
    let log = process.until("\"ready\"");
    let line: serde_json::Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
    assert!(line["address"].as_str().unwrap().starts_with("127.0.0.1:"));
    for key in ["runtime", "cores"] {
        assert!(!line[key].as_str().unwrap().is_empty(), "{key}: {line}");
    }
    let model = log.lines().find(|line| line.contains("\"serving ")).unwrap();
    let model: serde_json::Value = serde_json::from_str(model).unwrap();
    for key in ["model", "version", "sha256", "about", "recipe", "provider", "threads"] {
        assert!(!model[key].as_str().unwrap().is_empty(), "{key}: {model}");
    }
    process.signal("-TERM");
    assert_eq!(process.exit_code(), Some(0));
}

#[test]
fn a_precision_that_the_provider_does_not_have_ends_the_start() {
    for provider in ["cpu", "auto"] {
        let output = Command::new(env!("CARGO_BIN_EXE_residual"))
            .args(["serve", "--http-port", "0", "--provider", provider, "--precision", "f16"])
            .output()
            .unwrap();
        let log = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{log}");
        assert!(log.contains("precision f16 is not to be had from provider cpu") && log.contains("auto, f32"), "{log}");
    }
}

#[test]
fn a_runtime_that_is_not_there_is_named_with_the_command_that_brings_it() {
    let empty = tempfile::tempdir().unwrap();
    for (flags, expected) in [
        (vec!["--provider", "cuda"], "residual runtime install cuda"),
        (vec!["--provider", "openvino", "--offline"], "residual runtime install"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_residual"))
            .args(["serve", "--http-port", "0"])
            .args(&flags)
            .env("RESIDUAL_CACHE_DIR", empty.path())
            .env_remove("ORT_DYLIB_PATH")
            .env_remove("LD_LIBRARY_PATH")
            .output()
            .unwrap();
        let log = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{flags:?}:\n{log}");
        assert!(log.contains(expected), "{flags:?}:\n{log}");
    }
}
