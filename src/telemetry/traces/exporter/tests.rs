use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use super::*;
use crate::telemetry::StageTimes;
use crate::telemetry::traces::{Exchange, Sampled, SpanId, TraceId, Wire};

/// Long enough for any machine; only a hang reaches it.
const PATIENCE: Duration = Duration::from_secs(60);

fn ended() -> Ended {
    let exchange = Exchange {
        wire: Wire::Grpc { method: None, status: None },
        request_id: String::new(),
        outcome: "ok".to_owned(),
        is_fault: false,
        model: None,
        times: StageTimes::default(),
    };
    let started = (Instant::now(), std::time::SystemTime::now());
    let sampled = Sampled { trace_id: TraceId(1), span_id: SpanId(1), started };
    Ended { parent: None, sampled, exchange, ended: Instant::now() }
}

fn exporter(address: &str, metrics: &Metrics) -> Exporter {
    let settings = TraceSettings::new(address, 1.0, |_| None).unwrap();
    Exporter::start(settings, metrics).unwrap()
}

/// Reads one request to the end of its body.
fn read(stream: &mut TcpStream) {
    let (mut seen, mut buffer) = (Vec::new(), [0; 65536]);
    loop {
        let len = stream.read(&mut buffer).unwrap();
        assert!(len > 0, "the exporter hung up");
        seen.extend_from_slice(&buffer[..len]);
        let text = String::from_utf8_lossy(&seen).to_ascii_lowercase();
        let Some((head, _)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        if seen.len() >= head.len() + 4 + length.parse::<usize>().unwrap() {
            return;
        }
    }
}

#[test]
fn a_full_queue_loses_what_comes_and_counts_it() {
    let metrics = Metrics::new();
    // It accepts and never answers, so the first batch stays on its way.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let exporter = exporter(&format!("http://{}", silent.local_addr().unwrap()), &metrics);
    (0..BATCH_MAX).for_each(|_| exporter.push(ended()));
    let (mut stream, _) = silent.accept().unwrap();
    read(&mut stream);
    let started = Instant::now();
    (0..WAITING_MAX + 10).for_each(|_| exporter.push(ended()));
    assert!(started.elapsed() < Duration::from_secs(5), "pushing waits for nobody");
    assert_eq!(metrics.spans_not_queued.get(), 10);
    assert_eq!(exporter.queue.lock().waiting.len(), WAITING_MAX);
}

#[test]
fn what_waits_is_sent_at_the_end() {
    let metrics = Metrics::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let exporter = exporter(&format!("http://{}", listener.local_addr().unwrap()), &metrics);
    let collector = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        read(&mut stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
    });
    (0..3).for_each(|_| exporter.push(ended()));
    exporter.stop(PATIENCE);
    assert_eq!((metrics.spans_exported.get(), metrics.spans_not_exported.get()), (3, 0));
    collector.join().unwrap();
    exporter.push(ended());
    assert_eq!(metrics.spans_not_queued.get(), 1, "after the end nothing is taken");
}

#[test]
fn a_collector_that_is_down_holds_up_no_stop() {
    let metrics = Metrics::new();
    // Bound and closed again: nobody listens there.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let exporter = exporter(&format!("http://{address}"), &metrics);
    (0..3).for_each(|_| exporter.push(ended()));
    let started = Instant::now();
    exporter.stop(PATIENCE);
    assert_eq!((metrics.spans_exported.get(), metrics.spans_not_exported.get()), (0, 3));
    assert!(started.elapsed() < PATIENCE / 2, "one try and no pause");
}

#[test]
fn trouble_is_told_once_a_minute_with_all_that_was_lost() {
    let (mut trouble, start) = (Trouble::default(), Instant::now());
    assert_eq!(trouble.count(1, start), Some(1));
    assert_eq!(trouble.count(2, start + LOG_PAUSE - Duration::from_millis(1)), None);
    assert_eq!(trouble.count(3, start + LOG_PAUSE), Some(5));
}
