//! Lines between those who log and the one thread that writes. Whoever logs never waits: a line for which there is no room
//! is lost and counted.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// What stands before each further line of an event, so that no text of a client can pass for an event of its own.
const INDENT: &[u8] = b"  ";

/// The lines that wait.
#[derive(Debug)]
pub(super) struct Lines {
    bytes_max: usize,
    waiting: Mutex<Waiting>,
    changed: Condvar,
    dropped: AtomicU64,
}

#[derive(Debug)]
struct Waiting {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    /// The thread has taken a line and not written it yet.
    writing: bool,
    started: bool,
}

impl Lines {
    pub(super) const fn new(bytes_max: usize) -> Self {
        let waiting = Waiting { lines: VecDeque::new(), bytes: 0, writing: false, started: false };
        Self { bytes_max, waiting: Mutex::new(waiting), changed: Condvar::new(), dropped: AtomicU64::new(0) }
    }

    /// Starts the thread that writes to stderr, once. False if the system gives none.
    pub(super) fn start(&'static self) -> bool {
        let mut waiting = self.lock();
        if !waiting.started {
            waiting.started = stderr().is_ok_and(|stderr| {
                // Ends with the process.
                std::thread::Builder::new().name("log".to_owned()).spawn(move || self.write_to(stderr)).is_ok()
            });
        }
        waiting.started
    }

    /// Queues the lines of one event, or counts it as lost.
    fn push(&self, event: &[u8]) {
        let event = indented(event);
        let mut waiting = self.lock();
        if waiting.bytes + event.len() > self.bytes_max {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        waiting.bytes += event.len();
        waiting.lines.push_back(event.into_owned());
        drop(waiting);
        self.changed.notify_all();
    }

    /// Writes whatever comes, for ever.
    fn write_to(&self, mut sink: impl Write) {
        loop {
            let mut waiting = self.lock();
            while waiting.lines.is_empty() {
                waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            }
            waiting.writing = true;
            let line = waiting.lines.pop_front().unwrap_or_default();
            waiting.bytes -= line.len();
            drop(waiting);
            // A disk may have room again, and a pipe a reader: the next line is tried anew.
            if sink.write_all(&line).is_err() {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
            self.lock().writing = false;
            self.changed.notify_all();
        }
    }

    /// Waits until everything is out, but not longer than this.
    pub(super) fn flush(&self, limit: Duration) {
        let busy = |waiting: &mut Waiting| waiting.started && (waiting.writing || !waiting.lines.is_empty());
        // Whatever is left then is lost with the process.
        let _ = self.changed.wait_timeout_while(self.lock(), limit, busy);
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Stderr without the lock that panics and others take to write there: a pipe that nobody reads must not stop them all.
#[cfg(unix)]
fn stderr() -> io::Result<File> {
    use std::os::fd::AsFd as _;
    io::stderr().as_fd().try_clone_to_owned().map(File::from)
}

#[cfg(not(unix))]
fn stderr() -> io::Result<io::Stderr> {
    Ok(io::stderr())
}

/// An event on several lines with the second and all further ones indented. A carriage return, with which a terminal would
/// begin the line anew, becomes visible.
fn indented(event: &[u8]) -> Cow<'_, [u8]> {
    let (text, end) = event.strip_suffix(b"\n").map_or((event, &b""[..]), |text| (text, b"\n"));
    if !text.contains(&b'\n') && !text.contains(&b'\r') {
        return Cow::Borrowed(event);
    }
    let mut out = Vec::with_capacity(event.len() + 64);
    for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
        if index > 0 {
            out.push(b'\n');
            if !line.starts_with(INDENT) {
                out.extend_from_slice(INDENT);
            }
        }
        for byte in line {
            match byte {
                b'\r' => out.extend_from_slice(b"\\r"),
                byte => out.push(*byte),
            }
        }
    }
    out.extend_from_slice(end);
    Cow::Owned(out)
}

/// Takes one event at each write, as the formatter gives them.
#[derive(Debug)]
pub(super) struct Event<'a>(&'a Lines);

impl<'a> MakeWriter<'a> for &'static Lines {
    type Writer = Event<'a>;

    fn make_writer(&'a self) -> Event<'a> {
        Event(self)
    }
}

impl Write for Event<'_> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        self.0.push(event);
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// Tells of each write, and returns from it when it is told to.
    struct Pipe {
        written: Sender<Vec<u8>>,
        may_return: Receiver<io::Result<()>>,
    }

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.written.send(bytes.to_vec());
            self.may_return.recv().unwrap_or(Ok(()))?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn started(bytes_max: usize) -> (Arc<Lines>, Receiver<Vec<u8>>, Sender<io::Result<()>>) {
        let ((written, see), (answer, may_return)) = (channel(), channel());
        let lines = Arc::new(Lines::new(bytes_max));
        lines.lock().started = true;
        let thread = Arc::clone(&lines);
        // Ends with the test's process.
        std::thread::spawn(move || thread.write_to(Pipe { written, may_return }));
        (lines, see, answer)
    }

    #[test]
    fn who_logs_does_not_wait_for_a_reader_that_stopped() {
        let (lines, see, answer) = started(30);
        lines.push(b"taken\n");
        assert_eq!(see.recv().unwrap(), b"taken\n");
        // The write hangs; three lines of ten bytes find room, the fourth does not.
        (0..4).for_each(|n| lines.push(format!("waiting {n}\n").as_bytes()));
        assert_eq!(lines.dropped(), 1);
        lines.flush(Duration::from_millis(1));
        (0..4).for_each(|_| answer.send(Ok(())).unwrap());
        lines.flush(Duration::from_secs(60));
        assert_eq!(see.try_iter().collect::<Vec<_>>(), [b"waiting 0\n", b"waiting 1\n", b"waiting 2\n"]);
    }

    #[test]
    fn a_write_that_fails_costs_one_line() {
        let (lines, see, answer) = started(1000);
        answer.send(Err(io::Error::from(io::ErrorKind::StorageFull))).unwrap();
        answer.send(Ok(())).unwrap();
        lines.push(b"lost\n");
        lines.push(b"kept\n");
        lines.flush(Duration::from_secs(60));
        assert_eq!((lines.dropped(), see.try_iter().count()), (1, 2));
    }

    #[test]
    fn no_text_inside_an_event_begins_a_line() {
        for (event, line) in [
            ("one\n", "one\n"),
            ("a\n2026-11-24T00:00:00Z ERROR forged\n", "a\n  2026-11-24T00:00:00Z ERROR forged\n"),
            ("ready\n  model x\n", "ready\n  model x\n"),
            ("a\r\nb\n", "a\\r\n  b\n"),
            ("a\n\nb", "a\n  \n  b"),
        ] {
            assert_eq!(String::from_utf8(indented(event.as_bytes()).into_owned()).unwrap(), line, "{event:?}");
        }
    }
}
