//! A hub on a free port that answers as a test says, and remembers what it was asked. Written on plain sockets: most of
//! what it does no server library would do.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

/// What a client asked.
#[derive(Clone, Debug)]
pub(super) struct Request {
    /// With the query.
    pub(super) path: String,
    headers: BTreeMap<String, String>,
    /// How often this path was asked for before.
    pub(super) earlier: usize,
}

impl Request {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// What it gets.
#[derive(Clone, Debug, Default)]
pub(super) struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// Bytes of the body that are announced.
    announced: Option<usize>,
    then: Then,
}

#[derive(Clone, Copy, Debug, Default)]
enum Then {
    #[default]
    Close,
    /// Send nothing more and keep the connection until the hub is dropped.
    Hang,
    /// Send the body again and again, in chunks.
    Repeat,
}

impl Answer {
    pub(super) fn ok(body: &[u8]) -> Self {
        Self { status: 200, body: body.to_vec(), announced: Some(body.len()), ..Self::default() }
    }

    pub(super) fn status(status: u16) -> Self {
        Self { status, ..Self::ok(b"{}") }
    }

    pub(super) fn with_status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    pub(super) fn redirect(to: &str) -> Self {
        Self::status(302).header("location", to)
    }

    pub(super) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Announces the whole body and closes after `bytes` of it.
    pub(super) fn cut_after(mut self, bytes: usize) -> Self {
        self.body.truncate(bytes);
        self
    }

    /// Announces the whole body and falls silent after `bytes` of it.
    pub(super) fn hang_after(mut self, bytes: usize) -> Self {
        self.body.truncate(bytes);
        self.then = Then::Hang;
        self
    }

    /// Goes on forever, without saying how long it will be.
    pub(super) fn endless(mut self) -> Self {
        self.announced = None;
        self.then = Then::Repeat;
        self
    }

    /// Does not say how long it will be.
    pub(super) fn unannounced(mut self) -> Self {
        self.announced = None;
        self
    }
}

type Handler = dyn Fn(&Request) -> Answer + Send + Sync;

struct Shared {
    handler: Box<Handler>,
    requests: Mutex<Vec<Request>>,
    asked: Condvar,
    over: Mutex<bool>,
    ended: Condvar,
}

/// The hub, up until it is dropped.
pub(super) struct FakeHub {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl FakeHub {
    pub(super) fn start(handler: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            handler: Box::new(handler),
            requests: Mutex::default(),
            asked: Condvar::new(),
            over: Mutex::new(false),
            ended: Condvar::new(),
        });
        let accepting = Arc::clone(&shared);
        // Ends with the connection that `drop` makes.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if *accepting.over.lock().unwrap() {
                    return;
                }
                let shared = Arc::clone(&accepting);
                // Ends when the client is gone, or when the hub is.
                std::thread::spawn(move || serve(&shared, stream.unwrap()));
            }
        });
        Self { address, shared }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What was asked so far.
    pub(super) fn requests(&self) -> Vec<Request> {
        self.shared.requests.lock().unwrap().clone()
    }

    /// Waits until something was asked that `is_it`.
    pub(super) fn until_asked(&self, is_it: impl Fn(&Request) -> bool) {
        let requests = self.shared.requests.lock().unwrap();
        let wait = self
            .shared
            .asked
            .wait_timeout_while(requests, crate::support::PATIENCE, |requests| !requests.iter().any(&is_it));
        assert!(!wait.unwrap().1.timed_out(), "it was never asked for");
    }

    /// The values of a header, one for each request whose path ends like this.
    pub(super) fn header_of(&self, path: &str, header: &str) -> Vec<Option<String>> {
        let requests = self.requests();
        let asked = requests.iter().filter(|request| request.path.ends_with(path));
        asked.map(|request| request.header(header).map(str::to_owned)).collect()
    }
}

impl Drop for FakeHub {
    fn drop(&mut self) {
        *self.shared.over.lock().unwrap() = true;
        self.shared.ended.notify_all();
        drop(TcpStream::connect(self.address));
    }
}

fn serve(shared: &Shared, mut stream: TcpStream) {
    let Some(mut request) = read(&stream) else { return };
    {
        let mut requests = shared.requests.lock().unwrap();
        request.earlier = requests.iter().filter(|earlier| earlier.path == request.path).count();
        requests.push(request.clone());
    }
    shared.asked.notify_all();
    let answer = (shared.handler)(&request);
    let mut head = format!("HTTP/1.1 {} Whatever\r\nconnection: close\r\n", answer.status);
    for (name, value) in &answer.headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += &match (answer.announced, answer.then) {
        (Some(bytes), _) => format!("content-length: {bytes}\r\n\r\n"),
        (None, Then::Repeat) => "transfer-encoding: chunked\r\n\r\n".to_owned(),
        (None, Then::Close | Then::Hang) => "\r\n".to_owned(),
    };
    // A client that leaves early is what some tests are about.
    let _ = stream.write_all(head.as_bytes());
    match answer.then {
        Then::Close => drop(stream.write_all(&answer.body)),
        Then::Hang => {
            let _ = stream.write_all(&answer.body);
            let over = shared.over.lock().unwrap();
            drop(shared.ended.wait_while(over, |over| !*over));
        }
        Then::Repeat => {
            let mut chunk = format!("{:x}\r\n", answer.body.len()).into_bytes();
            chunk.extend(&answer.body);
            chunk.extend(b"\r\n");
            while stream.write_all(&chunk).is_ok() {}
        }
    }
    // Closed with unread bytes the system would reset the connection, and the client lose what was sent.
    let _ = stream.shutdown(std::net::Shutdown::Write);
    drop(stream.take(1 << 20).read_to_end(&mut Vec::new()));
}

fn read(stream: &TcpStream) -> Option<Request> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next()?.ok()?;
    let path = first.split(' ').nth(1)?.to_owned();
    let mut headers = BTreeMap::new();
    for line in lines {
        let line = line.ok()?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    Some(Request { path, headers, earlier: 0 })
}
