//! What the log says of requests, and that a log which nobody takes holds up none of them.

use std::fs::OpenOptions;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use reqwest::Client;
use serde_json::Value;

use crate::support::{PATIENCE, photo, root};

/// The binary itself.
struct Process(Child);

/// A test that fails leaves no server behind.
impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(flags: &[&str], stderr: impl Into<Stdio>) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_residual"));
    Process(command.args(["--grpc-port", "0"]).args(flags).current_dir(root()).stderr(stderr).spawn().unwrap())
}

fn client() -> Client {
    Client::builder().timeout(PATIENCE).build().unwrap()
}

/// The log up to the line that names the address, and that.
fn until_ready(log: &mut impl Iterator<Item = String>) -> String {
    let line = log.find(|line| line.contains("\"ready\"")).unwrap();
    let line: Value = serde_json::from_str(&line).unwrap();
    format!("http://{}", line["address"].as_str().unwrap())
}

fn terminated(mut process: Process) -> Option<i32> {
    let kill = Command::new("kill").args(["-TERM", &process.0.id().to_string()]).status().unwrap();
    assert!(kill.success());
    process.0.wait().unwrap().code()
}

#[tokio::test(flavor = "multi_thread")]
async fn answered_requests_are_in_the_log_when_asked_for_and_bounded() {
    let flags = ["--http-port", "0", "--log-format", "json", "--log-requests-per-second", "3"];
    let mut process = start(&flags, Stdio::piped());
    let mut log = BufReader::new(process.0.stderr.take().unwrap()).lines().map_while(Result::ok);
    let (url, client) = (until_ready(&mut log), client());
    let traced = client
        .post(format!("{url}/api/v1/classify?top_k=2"))
        .header("x-request-id", "mine")
        .header("authorization", "Bearer s3cret")
        .header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        .body(photo("cat.jpg"));
    assert_eq!(traced.send().await.unwrap().status(), 200);
    // A path can hold what a log must not: an escape that begins a line when it is decoded.
    let sly = client.get(format!("{url}/x%0a2026-11-24T00:00:00Z%20ERROR%20forged")).send().await.unwrap();
    assert_eq!(sly.status(), 404);
    for _ in 0..500 {
        assert_eq!(client.get(format!("{url}/health/live")).send().await.unwrap().status(), 200);
    }
    assert_eq!(terminated(process), Some(0));
    let log: Vec<String> = log.collect();
    assert!(!log.iter().any(|line| line.contains("s3cret")), "{log:?}");
    let lines: Vec<Value> = log.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let answered: Vec<&Value> = lines.iter().filter(|line| line["message"] == "request answered").collect();
    for (key, value) in [
        ("level", "INFO"),
        ("request.id", "mine"),
        ("trace_id", "0af7651916cd43dd8448eb211c80319c"),
        ("method", "POST"),
        ("path", "/api/v1/classify"),
        ("code", "ok"),
        ("model", "resnet20-cifar10"),
    ] {
        assert_eq!(answered[0][key], value, "{key}: {}", answered[0]);
    }
    assert_eq!(answered[0]["status"], 200);
    assert!(answered[0]["timestamp"].is_string() && answered[0]["duration_ms"].as_f64().unwrap() > 0.0);
    assert!(answered[0].get("span_id").is_none(), "no span is exported: {}", answered[0]);
    assert_eq!(answered[1]["path"], "/x%0a2026-11-24T00:00:00Z%20ERROR%20forged");
    // 502 requests in a few seconds.
    assert!(answered.len() < 300, "{} lines", answered.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_on_a_full_disk_costs_nothing_but_the_log() {
    // The log cannot tell the port, so it is one that was free a moment ago.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let process = start(&["--http-port", &port.to_string(), "--log", "debug"], full);
    let (url, client) = (format!("http://127.0.0.1:{port}"), client());
    let ready = async {
        while client.get(format!("{url}/health/ready")).send().await.map_or(0, |answer| answer.status().as_u16()) != 200
        {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, ready).await.unwrap();
    let answer = client.post(format!("{url}/api/v1/classify")).body(photo("cat.jpg")).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let lost = lost_lines(&client, &url).await;
    assert!(lost > 0.0, "{lost}");
    assert_eq!(terminated(process), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_stops_reading_holds_up_no_request() {
    let mut process = start(&["--http-port", "0", "--log-format", "json", "--log", "trace"], Stdio::piped());
    let mut log = BufReader::new(process.0.stderr.take().unwrap()).lines().map_while(Result::ok);
    let (url, client) = (until_ready(&mut log), client());
    // The pipe stays open and is read no more: it fills, then the queue before it, and then lines are lost.
    let ask = async {
        while lost_lines(&client, &url).await == 0.0 {
            for _ in 0..50 {
                assert_eq!(client.get(format!("{url}/health/live")).send().await.unwrap().status(), 200);
            }
        }
    };
    tokio::time::timeout(PATIENCE * 3, ask).await.unwrap();
    let answer = client.post(format!("{url}/api/v1/classify")).body(photo("cat.jpg")).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    // The last lines wait a second for a reader, and then the process ends without them.
    assert_eq!(terminated(process), Some(0));
    drop(log);
}

async fn lost_lines(client: &Client, url: &str) -> f64 {
    let page = client.get(format!("{url}/metrics")).send().await.unwrap().text().await.unwrap();
    let line = page.lines().find_map(|line| line.strip_prefix("residual_log_lines_dropped_total "));
    line.unwrap().parse().unwrap()
}
