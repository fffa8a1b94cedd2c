//! What browsers are told: whose pages may ask, and how to treat an answer.

use reqwest::Method;

use super::{KEY, Secret};
use crate::support::{TestServer, photo};

async fn preflight(server: &TestServer, origin: &str) -> reqwest::Response {
    let request = server.client.request(Method::OPTIONS, server.url("/api/v1/classify"));
    let request = request.header("origin", origin).header("access-control-request-method", "POST");
    request.header("access-control-request-headers", "authorization").send().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_page_may_ask_unless_its_origin_is_named() {
    let server = TestServer::start(&[]).await;
    let answer = preflight(&server, "https://app.example").await;
    assert_eq!(answer.status(), 405);
    let allowed = |answer: &reqwest::Response| answer.headers().get("access-control-allow-origin").cloned();
    assert_eq!(allowed(&answer), None);
    let get = server.client.get(server.url("/health/live")).header("origin", "https://app.example");
    assert_eq!(allowed(&get.send().await.unwrap()), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_named_origin_may_ask_before_it_has_shown_a_key() {
    let (_secret, file) = Secret::keys(KEY);
    let flags = ["--cors-origin", "https://app.example", "--cors-origin", "http://localhost:3000"];
    let server = TestServer::start(&[&flags[..], &["--api-keys-file", &file]].concat()).await;
    for origin in ["https://app.example", "http://localhost:3000"] {
        let answer = preflight(&server, origin).await;
        assert_eq!(answer.status(), 200, "{origin}");
        let header = |name| answer.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(header("access-control-allow-origin"), origin);
        assert_eq!(header("access-control-allow-methods"), "GET,POST");
        assert!(header("access-control-allow-headers").contains("authorization"));
        assert!(header("vary").contains("origin"));
    }
    let stranger = preflight(&server, "https://evil.example").await;
    assert!(!stranger.headers().contains_key("access-control-allow-origin"));
    // The answer itself, and a refusal: the page may read both.
    for (key, status) in [(KEY, 200), ("a-key-of-24-characters-y", 401)] {
        let ask = server.post("/api/v1/classify").body(photo("cat.jpg")).bearer_auth(key);
        let answer = ask.header("origin", "https://app.example").send().await.unwrap();
        assert_eq!(answer.status(), status);
        assert_eq!(answer.headers()["access-control-allow-origin"], "https://app.example");
        let readable = answer.headers()["access-control-expose-headers"].to_str().unwrap();
        assert!(readable.contains("x-request-id") && readable.contains("server-timing"), "{readable}");
        assert!(!answer.headers().contains_key("access-control-allow-credentials"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_star_is_every_origin() {
    let server = TestServer::start(&["--cors-origin", "*"]).await;
    let answer = preflight(&server, "https://anything.example").await;
    assert_eq!(answer.headers()["access-control-allow-origin"], "*");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_says_how_browsers_shall_treat_it() {
    let server = TestServer::start(&[]).await;
    let get = |path: &str| server.client.get(server.url(path));
    let classify = server.post("/api/v1/classify").body(photo("cat.jpg"));
    for request in [classify, get("/health/live"), get("/nothing"), get("/metrics"), server.post("/metrics")] {
        let answer = request.send().await.unwrap();
        let header = |name| answer.headers()[name].to_str().unwrap();
        assert_eq!(header("x-content-type-options"), "nosniff");
        assert_eq!(header("content-security-policy"), "default-src 'none'; frame-ancestors 'none'");
        assert_eq!(header("x-frame-options"), "DENY");
        assert_eq!(header("referrer-policy"), "no-referrer");
        assert_eq!(header("cache-control"), "no-store");
        for absent in ["server", "strict-transport-security"] {
            assert!(!answer.headers().contains_key(absent), "{absent}");
        }
    }
    // The page runs its own scripts, and may be kept by who asks again.
    let page = get("/docs").send().await.unwrap();
    assert!(page.headers()["content-security-policy"].to_str().unwrap().contains("script-src 'self'"));
    assert_eq!(page.headers()["cache-control"], "no-cache");
    assert_eq!(page.headers()["x-frame-options"], "DENY");
}
