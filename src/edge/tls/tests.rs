use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};

use super::*;

/// A certificate for `localhost` and its key, both PEM, valid until this year.
fn pair(year: i32) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(year, 1, 1);
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

fn write(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn open(dir: &Path, certificate: &str, key: &str) -> Result<Tls, TlsError> {
    let files =
        TlsFiles { certificate: write(dir, "cert.pem", certificate), key: write(dir, "key.pem", key), client_ca: None };
    Tls::open(files)
}

#[test]
fn the_certificate_that_expires_first_counts() {
    let dir = tempfile::tempdir().unwrap();
    let ((leaf, key), (authority, _)) = (pair(2031), pair(2030));
    let tls = open(dir.path(), &format!("{leaf}\n{authority}"), &key).unwrap();
    // date -ud 2030-01-01 +%s
    assert_eq!(tls.terms().expires_unix(), 1_893_456_000);
    assert!(!tls.asks_clients());
    assert_eq!(tls.terms().http1.alpn_protocols, [b"http/1.1".to_vec()]);
    assert_eq!(tls.terms().http2.alpn_protocols, [b"h2".to_vec()]);
}

#[test]
fn a_key_whose_line_breaks_were_lost_is_not_told_to_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let (certificate, key) = pair(2031);
    let secret = key.lines().nth(1).unwrap();
    for broken in [key.replace('\n', " "), key.replacen('\n', " ", 1), key.replacen("-----END", "END", 1)] {
        let error = open(dir.path(), &certificate, &broken).unwrap_err().to_string();
        let bytes = format!("{:?}", &secret.as_bytes()[..8]);
        assert!(error.contains("key.pem"), "{error}");
        assert!(!error.contains(&secret[..8]) && !error.contains(bytes.trim_matches(['[', ']'])), "{error}");
    }
}

#[test]
fn each_thing_that_is_wrong_has_its_file_and_its_fix() {
    let ((certificate, key), (_, other_key)) = (pair(2031), pair(2031));
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let older = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n\
                 -----END RSA PRIVATE KEY-----\n";
    let nothing = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    let no_certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let cut = &certificate[..certificate.len() / 2];
    for (certificate, key, file, says) in [
        ("", key.as_str(), "cert.pem", "there is no certificate in it"),
        (&key, &key, "cert.pem", "there is no certificate in it"),
        (cut, &key, "cert.pem", "it is not PEM"),
        (no_certificate, &key, "cert.pem", "is not understood"),
        (&certificate, "", "key.pem", "there is no private key in it"),
        (&certificate, &certificate, "key.pem", "there is no private key in it"),
        (&certificate, encrypted, "key.pem", "openssl pkey"),
        (&certificate, older, "key.pem", "openssl pkey"),
        (&certificate, nothing, "key.pem", "the key cannot be used"),
        (&certificate, &other_key, "key.pem", "is not the key of the first certificate"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let error = open(dir.path(), certificate, key).unwrap_err().to_string();
        assert!(error.contains(file) && error.contains(says), "wanted {says:?} of {file}: {error}");
        assert!(!error.contains("AAAA"), "{error}");
    }
    let dir = tempfile::tempdir().unwrap();
    let files = TlsFiles {
        certificate: write(dir.path(), "cert.pem", &certificate),
        key: dir.path().join("nothing.pem"),
        client_ca: None,
    };
    assert!(Tls::open(files).unwrap_err().to_string().contains("nothing.pem: No such file"));
}

#[test]
fn authorities_of_clients_must_be_certificates() {
    let dir = tempfile::tempdir().unwrap();
    let (certificate, key) = pair(2031);
    let files = |client_ca: &str| TlsFiles {
        certificate: write(dir.path(), "cert.pem", &certificate),
        key: write(dir.path(), "key.pem", &key),
        client_ca: Some(write(dir.path(), "ca.pem", client_ca)),
    };
    assert!(Tls::open(files(&certificate)).unwrap().asks_clients());
    let error = Tls::open(files("nothing")).unwrap_err().to_string();
    assert!(error.contains("--tls-client-ca") && error.contains("ca.pem: there is no certificate"), "{error}");
}

#[test]
fn a_pair_that_is_replaced_file_by_file_is_never_half_used() {
    let dir = tempfile::tempdir().unwrap();
    let ((certificate, key), (next, next_key)) = (pair(2031), pair(2032));
    let tls = open(dir.path(), &certificate, &key).unwrap();
    let before = tls.terms().expires();
    write(dir.path(), "cert.pem", &next);
    assert!(matches!(tls.look(false), Looked::Same), "the key may come in a moment");
    assert_eq!(tls.terms().expires(), before);
    write(dir.path(), "key.pem", &next_key);
    assert!(matches!(tls.look(false), Looked::Changed(_)));
    assert!(tls.terms().expires() > before + Duration::from_secs(300 * 24 * 60 * 60));
    write(dir.path(), "key.pem", &key);
    assert!(matches!(tls.look(true), Looked::Broken(TlsError::Mismatch { .. })));
    assert!(tls.terms().expires() > before, "what worked stays");
}
