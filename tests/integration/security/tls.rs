//! TLS on both ports, with certificates made here.

use std::net::SocketAddr;
use std::sync::Arc;

use hyper_util::rt::TokioExecutor;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use residual::grpc::proto::ServerLiveRequest;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Secret;
use crate::grpc::client::{Connection, whole};
use crate::support::{PATIENCE, TestServer, settings};

/// A certificate and its key, PEM.
struct Pair {
    certificate: String,
    key: String,
}

/// Who signs the others.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    /// A certificate for this name, valid until this year.
    fn sign(&self, name: &str, year: i32) -> Pair {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        Pair { certificate: params.signed_by(&key, &self.issuer).unwrap().pem(), key: key.serialize_pem() }
    }

    /// A client that trusts this authority, shows `own` if there is one, and asks for these protocols.
    fn client(&self, own: Option<&Pair>, alpn: &[&str]) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match own {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let chain = vec![CertificateDer::from_pem_slice(own.certificate.as_bytes()).unwrap()];
                let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        TlsConnector::from(Arc::new(config))
    }
}

async fn connect(connector: &TlsConnector, address: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await.unwrap();
    connector.connect(ServerName::try_from("localhost").unwrap(), stream).await
}

/// The answer to one request, as it comes.
async fn get(connector: &TlsConnector, address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = connect(connector, address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

fn flags<'a>(certificate: &'a str, key: &'a str) -> [&'a str; 6] {
    ["--tls-cert", certificate, "--tls-key", key, "--admin-port", "0"]
}

async fn metric(server: &TestServer, sample: &str) -> Option<f64> {
    let page = server.client.get(server.admin_url("/metrics")).send().await.unwrap().text().await.unwrap();
    page.lines().find_map(|line| line.strip_prefix(sample)?.trim().parse().ok())
}

const EXPIRY: &str = "residual_tls_certificate_expiry_seconds ";

#[tokio::test(flavor = "multi_thread")]
async fn both_ports_speak_tls_and_nothing_else() {
    let (authority, secret) = (Authority::new(), Secret::new());
    let pair = authority.sign("localhost", 2040);
    let (certificate, key) = (secret.put("cert.pem", &pair.certificate), secret.put("key.pem", &pair.key));
    let server = TestServer::start(&flags(&certificate, &key)).await;

    let answer = get(&authority.client(None, &["h2", "http/1.1"]), server.address(), "/health/ready").await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("\"ready\""), "{answer}");
    assert!(answer.contains("strict-transport-security: max-age="), "{answer}");
    assert!(get(&authority.client(None, &[]), server.address(), "/").await.unwrap().starts_with("HTTP/1.1 200"));
    assert!(get(&authority.client(None, &["h2"]), server.address(), "/").await.is_err(), "HTTP/2 is on the other port");

    let stream = connect(&authority.client(None, &["h2"]), server.grpc_address()).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut connection, _) =
        Connection::over(stream, &hyper::client::conn::http2::Builder::new(TokioExecutor::new())).await;
    let live = "/inference.GRPCInferenceService/ServerLive";
    assert_eq!(connection.status(live, &[], whole(&ServerLiveRequest {})).await.0, tonic::Code::Ok);

    // In the open: an alert, and the end.
    let mut plain = TcpStream::connect(server.address()).await.unwrap();
    plain.write_all(b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, plain.read_to_end(&mut answer)).await.expect("the server ends it");
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    assert!(metric(&server, r#"residual_connections_refused_total{reason="handshake"}"#).await >= Some(1.0));
    // The port of the operators is not under TLS.
    let page = server.client.get(server.admin_url("/health/ready")).send().await.unwrap();
    assert!(page.status() == 200 && !page.headers().contains_key("strict-transport-security"));
    // date -ud 2040-01-01 +%s
    assert_eq!(metric(&server, EXPIRY).await, Some(2_208_988_800.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_certificate_there_is_no_expiry() {
    let server = TestServer::bind(&["--admin-port", "0"]).await;
    assert_eq!(metric(&server, EXPIRY).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_counts_for_new_connections_and_a_broken_one_never() {
    let (first, second, secret) = (Authority::new(), Authority::new(), Secret::new());
    let (old, new) = (first.sign("localhost", 2040), second.sign("localhost", 2041));
    let (certificate, key) = (secret.put("cert.pem", &old.certificate), secret.put("key.pem", &old.key));
    let server = TestServer::start(&flags(&certificate, &key)).await;
    let (knows_first, knows_second) = (first.client(None, &[]), second.client(None, &[]));
    let mut kept = connect(&knows_first, server.address()).await.unwrap();
    assert!(connect(&knows_second, server.address()).await.is_err());

    secret.put("cert.pem", &new.certificate);
    server.reload().await;
    assert!(connect(&knows_first, server.address()).await.is_ok(), "a certificate without its key is not taken");
    secret.put("key.pem", &new.key);
    server.reload().await;
    assert!(connect(&knows_second, server.address()).await.is_ok());
    assert!(connect(&knows_first, server.address()).await.is_err());
    assert_eq!(metric(&server, EXPIRY).await, Some(2_240_611_200.0));
    // The connection from before goes on.
    kept.write_all(b"GET /health/live HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    kept.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");

    for broken in ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        secret.put("cert.pem", broken);
        server.reload().await;
        assert!(connect(&knows_second, server.address()).await.is_ok(), "what worked stays");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_may_have_to_show_a_certificate() {
    let (authority, others, secret) = (Authority::new(), Authority::new(), Secret::new());
    let pair = authority.sign("localhost", 2040);
    let (certificate, key) = (secret.put("cert.pem", &pair.certificate), secret.put("key.pem", &pair.key));
    let client_ca = secret.put("ca.pem", &authority.certificate);
    let server = TestServer::start(&[&flags(&certificate, &key)[..], &["--tls-client-ca", &client_ca]].concat()).await;
    let known = authority.sign("client", 2040);
    let ask = async |client: &TlsConnector| get(client, server.address(), "/health/live").await;
    assert!(ask(&authority.client(Some(&known), &[])).await.unwrap().starts_with("HTTP/1.1 200"));
    assert!(ask(&authority.client(None, &[])).await.is_err());
    assert!(ask(&authority.client(Some(&others.sign("client", 2040)), &[])).await.is_err());
    assert!(ask(&authority.client(Some(&authority.sign("client", 2020)), &[])).await.is_err(), "one that has expired");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_never_ends_gives_its_place_back() {
    let (authority, secret) = (Authority::new(), Secret::new());
    let pair = authority.sign("localhost", 2040);
    let (certificate, key) = (secret.put("cert.pem", &pair.certificate), secret.put("key.pem", &pair.key));
    let bound = ["--tls-handshake-timeout", "100ms", "--connections-max", "1", "--header-timeout", "1h"];
    let server = TestServer::start(&[&flags(&certificate, &key)[..], &bound].concat()).await;
    for start in [&b""[..], b"\x16\x03\x01\x02\x00\x01"] {
        let mut silent = TcpStream::connect(server.address()).await.unwrap();
        silent.write_all(start).await.unwrap();
        // It holds the only place until its time is over.
        let client = authority.client(None, &[]);
        let answer = tokio::time::timeout(PATIENCE, get(&client, server.address(), "/health/live")).await.unwrap();
        assert!(answer.unwrap().starts_with("HTTP/1.1 200"));
    }
    assert_eq!(metric(&server, r#"residual_connections_refused_total{reason="handshake"}"#).await, Some(2.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_in_flight_are_answered_under_tls_as_well() {
    let (authority, secret) = (Authority::new(), Secret::new());
    let pair = authority.sign("localhost", 2040);
    let (certificate, key) = (secret.put("cert.pem", &pair.certificate), secret.put("key.pem", &pair.key));
    let server = TestServer::start(&flags(&certificate, &key)).await;
    let connector = authority.client(None, &[]);
    let address = server.address();
    let idle = connect(&connector, address).await.unwrap();
    let mut asking = connect(&connector, address).await.unwrap();
    let photo = crate::support::photo("cat.jpg");
    let head = format!("POST /api/v1/classify HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", photo.len());
    asking.write_all(head.as_bytes()).await.unwrap();
    asking.write_all(&photo[..1000]).await.unwrap();
    let in_flight = async {
        while metric(&server, "residual_requests_in_flight ").await != Some(2.0) {
            tokio::task::yield_now().await;
        }
    };
    // The other one asks for the metrics.
    tokio::time::timeout(PATIENCE, in_flight).await.unwrap();
    let (server, _client) = server.into_parts();
    let drained = tokio::spawn(server.drain());
    asking.write_all(&photo[1000..]).await.unwrap();
    let mut answer = String::new();
    asking.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"cat\""), "{answer}");
    drop(idle);
    assert_eq!(drained.await.unwrap(), residual::edge::Drained::All);
}

#[tokio::test]
async fn files_that_do_not_serve_are_no_start() {
    let (authority, secret) = (Authority::new(), Secret::new());
    let (pair, other) = (authority.sign("localhost", 2040), authority.sign("localhost", 2040));
    let (certificate, key) = (secret.put("cert.pem", &pair.certificate), secret.put("key.pem", &other.key));
    let missing = secret.path("missing.pem").to_str().unwrap().to_owned();
    for (certificate, key, says) in [
        (&certificate, &key, "is not the key of the first certificate"),
        (&missing, &key, "missing.pem: No such file"),
        (&key, &key, "there is no certificate in it"),
    ] {
        let error = residual::serve::Server::bind(&settings(&flags(certificate, key))).await.unwrap_err();
        assert!(format!("{error:#}").contains(says), "{error:#}");
    }
}
