//! More work than the machine can do, and callers that do not wait for it.

use futures_util::future::join_all;
use reqwest::StatusCode;

use crate::support::{TestServer, photo, png};

const QUEUE: &str = "residual_queue_images{model=\"resnet20-cifar10\",version=\"1\"}";
const BATCHES: &str = "residual_batch_images_count{model=\"resnet20-cifar10\",version=\"1\"}";
const BATCHED: &str = "residual_batch_images_sum{model=\"resnet20-cifar10\",version=\"1\"}";

#[tokio::test(flavor = "multi_thread")]
async fn everyone_is_answered_exactly_once_with_classes_or_with_503() {
    let server = TestServer::start(&["--queue-images-max", "4", "--request-images-max", "4"]).await;
    let cat = photo("cat.jpg");
    let answers = join_all((0..300).map(|_| server.classify(cat.clone()))).await;
    let (served, shed): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == StatusCode::OK);
    assert!(served.len() >= 4 && !shed.is_empty(), "{} served, {} shed", served.len(), shed.len());
    assert!(served.iter().all(|answer| answer.label() == "cat"));
    for answer in shed {
        answer.assert_problem(503, "overloaded");
        assert_eq!(answer.header("retry-after"), "1");
    }
    #[expect(clippy::cast_precision_loss, reason = "a few hundred")]
    let served = served.len() as f64;
    server.until_metric("residual_images_total{model=\"resnet20-cifar10\",outcome=\"ok\",version=\"1\"}", served).await;
    server.until_metric(QUEUE, 0.0).await;
    assert_eq!(server.classify(cat).await.status, 200, "the flood leaves nothing behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_with_more_images_than_places_left_is_refused_whole() {
    // One image waits an hour for company, so that exactly three of four places are free.
    let flags =
        ["--queue-images-max", "4", "--request-images-max", "4", "--batch-delay", "1h", "--batch-images-max", "8"];
    let server = TestServer::start(&flags).await;
    let form = |parts: usize| {
        (0..parts).fold(reqwest::multipart::Form::new(), |form, n| {
            form.part(format!("{n}"), reqwest::multipart::Part::bytes(png(4, 4)).file_name("i.png"))
        })
    };
    let waiting = server.classify(png(4, 4));
    let refused = async {
        server.until_metric(QUEUE, 1.0).await;
        crate::support::send(server.post("/api/v1/classify").multipart(form(4))).await
    };
    tokio::select! {
        _ = waiting => panic!("nothing lets the waiting image go"),
        refused = refused => { refused.assert_problem(503, "overloaded"); }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_while_queued_is_skipped() {
    let server = TestServer::start(&["--batch-delay", "1h", "--batch-images-max", "2", "--instances", "1"]).await;
    {
        let leaving = server.classify(png(4, 4));
        tokio::select! {
            _ = leaving => panic!("nothing lets the waiting image go"),
            () = server.until_metric(QUEUE, 1.0) => {}
        }
    }
    let left = "residual_requests_total{model=\"\",outcome=\"client_left\",route=\"/api/v1/classify\"}";
    server.until_metric(left, 1.0).await;
    // Two more make a batch of two: the one that left is not in it.
    let (a, b) = tokio::join!(server.classify(png(4, 4)), server.classify(png(4, 4)));
    assert_eq!((a.status.as_u16(), b.status.as_u16()), (200, 200));
    assert_eq!((server.metric(BATCHES).await, server.metric(BATCHED).await), (1.0, 2.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_would_be_too_late_is_504() {
    let flags = ["--batch-delay", "1h", "--batch-images-max", "2", "--request-timeout", "50ms"];
    let server = TestServer::start(&flags).await;
    server.classify(png(4, 4)).await.assert_problem(504, "deadline_exceeded");
}
