//! A server in this process, and the images to send it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args as _, FromArgMatches as _};
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use residual::config::Settings;
use residual::edge::Drained;
use residual::models::{Changes, Models};
use residual::serve::Server;
use serde_json::Value;

/// Long enough for any machine; only a hang reaches it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The settings that these flags give, on a free port.
pub(crate) fn settings(flags: &[&str]) -> Settings {
    let command = Settings::augment_args(clap::Command::new("serve"));
    let arguments = ["serve", "--http-port", "0"].iter().chain(flags);
    Settings::from_arg_matches(&command.get_matches_from(arguments)).unwrap()
}

/// A warm server with a client for it.
pub(crate) struct TestServer {
    server: Server,
    pub(crate) client: Client,
}

impl TestServer {
    pub(crate) async fn start(flags: &[&str]) -> Self {
        let starting = Self::bind(flags).await;
        starting.load().await;
        starting
    }

    /// A server that listens and has not loaded its model.
    pub(crate) async fn bind(flags: &[&str]) -> Self {
        let server = Server::bind(&settings(flags)).await.unwrap();
        Self { server, client: Client::builder().timeout(PATIENCE).build().unwrap() }
    }

    pub(crate) async fn load(&self) {
        self.server.load(Instant::now()).await.unwrap();
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Where gRPC is spoken.
    pub(crate) fn grpc_address(&self) -> SocketAddr {
        self.server.grpc_address().unwrap()
    }

    /// The port of the operators.
    pub(crate) fn admin_url(&self, path: &str) -> String {
        format!("http://{}{path}", self.server.admin_address().unwrap())
    }

    /// Does `work` while the watchdog looks at the models.
    pub(crate) async fn watched<T>(&self, work: impl Future<Output = T>) -> T {
        tokio::select! {
            done = work => done,
            () = self.server.watch() => unreachable!("the watchdog does not end"),
        }
    }

    pub(crate) async fn reload(&self) -> Changes {
        self.server.reload().await
    }

    pub(crate) fn models(&self) -> &Models {
        self.server.models()
    }

    pub(crate) async fn drain(self) -> Drained {
        self.server.drain().await
    }

    /// Splits off the client, for use while the server drains.
    pub(crate) fn into_parts(self) -> (Server, Client) {
        (self.server, self.client)
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address())
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        send(self.client.get(self.url(path))).await
    }

    pub(crate) fn post(&self, path: &str) -> RequestBuilder {
        self.client.post(self.url(path))
    }

    /// Posts raw bytes to the classify route.
    pub(crate) async fn classify(&self, image: impl Into<reqwest::Body>) -> Answer {
        send(self.post("/api/v1/classify").body(image)).await
    }

    /// One sample of the metrics page, by its full name with labels; a series that has not begun counts as 0.
    pub(crate) async fn metric(&self, sample: &str) -> f64 {
        let page = self.client.get(self.url("/metrics")).send().await.unwrap().text().await.unwrap();
        let value = page.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' ')?.parse().ok());
        value.unwrap_or_default()
    }

    /// Asks for a metric until it has the value.
    pub(crate) async fn until_metric(&self, sample: &str, value: f64) {
        let wait = async {
            #[expect(clippy::float_cmp, reason = "counts are exact")]
            while self.metric(sample).await != value {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{sample} never became {value}"));
    }
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) json: Value,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("{name} is missing in {:?}", self.headers)).to_str().unwrap()
    }

    /// The label of the best class.
    pub(crate) fn label(&self) -> &str {
        self.json["predictions"][0]["label"].as_str().unwrap_or_else(|| panic!("no prediction in {}", self.json))
    }

    /// Checks that this is the problem document for `code`, with everything every problem has.
    pub(crate) fn assert_problem(&self, status: u16, code: &str) -> &str {
        assert_eq!((self.status.as_u16(), self.json["code"].as_str()), (status, Some(code)), "{}", self.json);
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!(self.json["status"], status);
        assert_eq!(self.json["type"], format!("urn:residual:problem:{code}"));
        assert!(!self.header("x-request-id").is_empty() && self.header("server-timing").contains("total;dur="));
        assert!(!self.json["title"].as_str().unwrap().is_empty());
        self.json["detail"].as_str().unwrap()
    }
}

pub(crate) async fn send(request: RequestBuilder) -> Answer {
    read(request.send().await.unwrap()).await
}

pub(crate) async fn read(response: Response) -> Answer {
    let (status, headers) = (response.status(), response.headers().clone());
    let text = response.text().await.unwrap();
    let json = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Answer { status, headers, json }
}

/// A committed fixture.
pub(crate) fn fixture(name: &str) -> Vec<u8> {
    let path = root().join("tests/golden/fixtures").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A committed photo.
pub(crate) fn photo(name: &str) -> Vec<u8> {
    let path = root().join("tests/golden/inputs").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A PNG.
pub(crate) fn png(width: u32, height: u32) -> Vec<u8> {
    solid_png(width, height, [200, 30, 40])
}

/// A PNG of one colour.
pub(crate) fn solid_png(width: u32, height: u32, rgb: [u8; 3]) -> Vec<u8> {
    let mut bytes = Vec::new();
    image::RgbImage::from_pixel(width, height, image::Rgb(rgb))
        .write_to(&mut std::io::Cursor::new(&mut bytes), image::ImageFormat::Png)
        .unwrap();
    bytes
}
