//! What the server tells about itself.

use std::collections::BTreeSet;

use crate::support::{TestServer, photo, root};

#[tokio::test(flavor = "multi_thread")]
async fn a_model_tells_its_contract_recipe_classes_and_execution() {
    let server = TestServer::start(&["--instances", "1", "--intra-op-threads", "1", "--decode-threads", "2"]).await;
    let answer = server.get("/api/v1/models/resnet20-cifar10").await;
    assert_eq!(answer.status, 200);
    insta::assert_json_snapshot!(answer.json);
    insta::assert_json_snapshot!(server.get("/api/v1/models").await.json);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_runtime_tells_which_provider_computes_what() {
    let server = TestServer::start(&["--provider", "cpu", "--instances", "2"]).await;
    let execution = server.get("/api/v1/models/resnet20-cifar10").await.json["execution"].clone();
    assert_eq!(execution["provider_reason"], "asked for by name");
    assert_eq!(execution["precision"], "f32");
    let placement = execution["placement"].as_object().unwrap();
    assert_eq!(placement.keys().collect::<Vec<_>>(), ["CPUExecutionProvider"]);
    // 19 convolutions and a fully connected layer, at least.
    assert!(placement["CPUExecutionProvider"]["nodes"].as_u64().unwrap() >= 20, "{execution}");
    let info = r#"residual_model_info{model="resnet20-cifar10",precision="f32",provider="cpu","#;
    let metrics = server.client.get(server.url("/metrics")).send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains(info), "{metrics}");
    server.classify(photo("cat.jpg")).await;
    server.until_metric(r#"residual_runs_total{cores="1",model="resnet20-cifar10",version="1"}"#, 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_index_lists_only_routes_that_exist() {
    let server = TestServer::start(&[]).await;
    let index = server.get("/").await.json;
    let routes = index["routes"].as_object().unwrap();
    assert!(routes.len() > 10, "{index}");
    for route in routes.keys() {
        let (method, path) = route.split_once(' ').unwrap();
        // A path that exists says which methods it has, and nothing happens.
        let url = server.url(&path.replace(['{', '}'], ""));
        let answer = server.client.patch(url).send().await.unwrap();
        let allow = answer.headers().get("allow").map_or("", |allow| allow.to_str().unwrap());
        assert_eq!(answer.status(), 405, "{route}");
        assert!(allow.split(", ").any(|allowed| allowed == method), "{route} is told to use {allow}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_description_is_sent_once_to_who_keeps_it() {
    let server = TestServer::start(&[]).await;
    for path in ["/openapi.json", "/docs/swagger-ui-bundle.js", "/docs/start.js"] {
        let first = server.client.get(server.url(path)).send().await.unwrap();
        assert_eq!(first.status(), 200, "{path}");
        let etag = first.headers()["etag"].clone();
        let again = server.client.get(server.url(path)).header("if-none-match", &etag).send().await.unwrap();
        assert_eq!(again.status(), 304, "{path}");
        assert_eq!(again.headers()["etag"], etag, "{path}");
        assert_eq!(again.bytes().await.unwrap().len(), 0, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_may_ask_nobody_but_its_server() {
    let server = TestServer::start(&[]).await;
    let page = server.client.get(server.url("/docs")).send().await.unwrap();
    assert_eq!(page.headers()["content-type"], "text/html; charset=utf-8");
    let policy = page.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
    assert!(!policy.contains("http"), "{policy}");
    let page = page.text().await.unwrap();
    assert!(!page.contains("://"), "{page}");
    for part in page.split(['"']).filter(|part| part.starts_with("docs/")) {
        assert_eq!(server.client.get(server.url(&format!("/{part}"))).send().await.unwrap().status(), 200, "{part}");
    }
    server.get("/docs/nothing.js").await.assert_problem(404, "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_in_base_units_with_help_for_each() {
    let server = TestServer::start(&[]).await;
    server.classify(photo("cat.jpg")).await;
    server.classify("nonsense").await;
    let page = server.client.get(server.url("/metrics")).send().await.unwrap();
    assert_eq!(page.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let page = page.text().await.unwrap();
    let families: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    insta::assert_snapshot!(families.join("\n"));
    for family in &families {
        let name = family.split(' ').next().unwrap();
        assert!(page.contains(&format!("# HELP {name} ")), "{name} has no help");
    }
    for sample in [
        "residual_requests_total{model=\"resnet20-cifar10\",outcome=\"ok\",route=\"/api/v1/classify\"} 1",
        "residual_requests_total{model=\"resnet20-cifar10\",outcome=\"not_an_image\",route=\"/api/v1/classify\"} 1",
        "residual_images_total{model=\"resnet20-cifar10\",outcome=\"not_an_image\",version=\"1\"} 1",
        "residual_stage_duration_seconds_count{model=\"resnet20-cifar10\",stage=\"infer\",version=\"1\"} 1",
        "residual_batch_images_sum{model=\"resnet20-cifar10\",version=\"1\"} 1",
        "residual_queue_images{model=\"resnet20-cifar10\",version=\"1\"} 0",
    ] {
        assert!(page.contains(sample), "{sample} is missing in:\n{page}");
    }
}

/// Metrics that stand in the document and are shown only where there is a certificate, or whatever else they are about.
const ONLY_WITH_MORE: [&str; 1] = ["residual_tls_certificate_expiry_seconds"];

/// Dashboards are made from the page, and alerts from the document.
#[tokio::test(flavor = "multi_thread")]
async fn every_metric_stands_in_the_document_and_every_one_there_exists() {
    let server = TestServer::start(&["--triton-metrics"]).await;
    server.classify(photo("cat.jpg")).await;
    // Prometheus asks for OpenMetrics first and takes this as well.
    let accept = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    let page = server.client.get(server.url("/metrics")).header("accept", accept).send().await.unwrap();
    assert_eq!(page.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let page = page.text().await.unwrap();
    let samples = |name: &str| {
        let page = page.clone();
        let starts = [format!("{name}{{"), format!("{name} "), format!("{name}_count{{"), format!("{name}_count ")];
        page.lines().filter(|line| starts.iter().any(|start| line.starts_with(start))).map(str::to_owned).collect()
    };
    let shown: BTreeSet<String> = page
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .map(|(name, kind)| {
            let samples: Vec<String> = samples(name);
            let inside = samples[0].split_once('{').map_or("", |(_, rest)| rest.split('}').next().unwrap());
            let mut labels: Vec<&str> =
                inside.split("\",").filter_map(|label| Some(label.split_once('=')?.0)).collect();
            labels.sort_unstable();
            format!("{name} {kind} {}", labels.join(" "))
        })
        .collect();
    let document = std::fs::read_to_string(root().join("docs/METRICS.md")).unwrap();
    let documented: BTreeSet<String> = document
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| {
            let cells: Vec<String> = line.split('|').map(|cell| cell.trim().replace('`', "")).collect();
            let mut labels: Vec<&str> = cells[3].split_whitespace().collect();
            labels.sort_unstable();
            format!("{} {} {}", cells[1], cells[2], labels.join(" "))
        })
        .collect();
    let needs_more = |row: &&String| !ONLY_WITH_MORE.iter().any(|name| row.starts_with(name));
    assert_eq!(shown, documented.iter().filter(needs_more).cloned().collect());
}

#[tokio::test(flavor = "multi_thread")]
async fn bounds_stand_beside_what_they_bound() {
    let flags = ["--queue-images-max", "40", "--connections-max", "30", "--upload-memory-max", "64MiB"];
    let server = TestServer::bind(&flags).await;
    assert_eq!(server.metric("residual_ready").await, 0.0);
    server.load().await;
    for (metric, value) in [
        ("residual_ready", 1.0),
        // HTTP and gRPC have a port each.
        ("residual_connections_max", 60.0),
        ("residual_upload_memory_max_bytes", 64.0 * 1024.0 * 1024.0),
        ("residual_decode_memory_max_bytes", 1024.0 * 1024.0 * 1024.0),
        (r#"residual_queue_images_max{model="resnet20-cifar10",version="1"}"#, 40.0),
    ] {
        assert_eq!(server.metric(metric).await, value, "{metric}");
    }
    assert!(server.metric(r#"residual_model_load_seconds{model="resnet20-cifar10",version="1"}"#).await > 0.0);
    assert!(server.metric("process_resident_memory_bytes").await > 1e6);
}

#[tokio::test(flavor = "multi_thread")]
async fn triton_s_counters_say_how_requests_ended() {
    let server = TestServer::start(&["--triton-metrics"]).await;
    for _ in 0..2 {
        server.classify(photo("cat.jpg")).await;
    }
    server.classify("no image").await;
    let ended = |name: &str| format!(r#"nv_inference_{name}{{model="resnet20-cifar10",version="1"}}"#);
    for (name, value) in [("request_success", 2.0), ("count", 2.0), ("exec_count", 2.0), ("pending_request_count", 0.0)]
    {
        assert_eq!(server.metric(&ended(name)).await, value, "{name}");
    }
    for (reason, value) in [("OTHER", 1.0), ("REJECTED", 0.0), ("CANCELED", 0.0), ("BACKEND", 0.0)] {
        let failure =
            format!(r#"nv_inference_request_failure{{model="resnet20-cifar10",reason="{reason}",version="1"}}"#);
        assert_eq!(server.metric(&failure).await, value, "{reason}");
    }
    let time = async |name: &str| server.metric(&ended(&format!("{name}_duration_us"))).await;
    let stages = [time("compute_input").await, time("compute_infer").await, time("compute_output").await];
    assert!(stages.iter().all(|time| *time > 0.0), "{stages:?}");
    assert!(time("request").await > stages.iter().sum::<f64>());
    let without = TestServer::start(&[]).await;
    let page = without.client.get(without.url("/metrics")).send().await.unwrap().text().await.unwrap();
    assert!(!page.contains("nv_"));
}

/// What clients match on must be written down.
#[test]
fn every_code_of_a_problem_stands_in_the_documents() {
    let source = std::fs::read_to_string(root().join("src/http/error.rs")).unwrap();
    let document = std::fs::read_to_string(root().join("docs/API.md")).unwrap();
    let rows = source.lines().filter(|line| line.contains("(S::"));
    let codes: Vec<&str> = rows.filter_map(|line| line.split('"').nth(1)).filter(|code| !code.contains(' ')).collect();
    assert!(codes.len() > 25, "{codes:?}");
    for code in codes {
        assert!(document.contains(&format!("`{code}`")), "docs/API.md lacks {code}");
    }
}
