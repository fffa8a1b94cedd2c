//! TLS: certificate and key from files, read again when they change, and what each port offers with them. When to look
//! again is decided outside.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;
use x509_cert::Certificate;
use x509_cert::der::Decode as _;

use super::reread::{Looked, Reread, SmallFile};

/// The files, all PEM.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The server's certificate and those between it and its authority, in this order.
    pub certificate: PathBuf,
    /// The key of the first of them.
    pub key: PathBuf,
    /// Authorities whose certificates clients must have, if they must have any.
    pub client_ca: Option<PathBuf>,
}

/// Why the files cannot be used.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the sentence of each says what its fields are")]
pub enum TlsError {
    #[error("{flag} {}: {cause}", path.display())]
    Read { flag: &'static str, path: PathBuf, cause: String },
    #[error("{flag} {}: it is not PEM: {cause}", path.display())]
    BadPem { flag: &'static str, path: PathBuf, cause: String },
    #[error(
        "{flag} {}: there is no certificate in it; it must hold -----BEGIN CERTIFICATE-----, the server's own before those of \
         its authorities", path.display()
    )]
    NoCertificate { flag: &'static str, path: PathBuf },
    #[error("--tls-key {}: there is no private key in it; it must hold -----BEGIN PRIVATE KEY-----, of RSA or EC as well", path.display())]
    NoKey { path: PathBuf },
    #[error(
        "--tls-key {}: the key is encrypted, and nobody is there to type its passphrase; decrypt it with: openssl pkey -in KEY \
         -out key.pem", path.display()
    )]
    EncryptedKey { path: PathBuf },
    #[error("{flag} {}: the certificate is not understood: {cause}", path.display())]
    BadCertificate { flag: &'static str, path: PathBuf, cause: String },
    #[error(
        "--tls-key {} is not the key of the first certificate in --tls-cert {}; name the pair that belongs together, and put the \
         server's own certificate first", key.display(), certificate.display()
    )]
    Mismatch { certificate: PathBuf, key: PathBuf },
    #[error("--tls-key {}: the key cannot be used: {cause}; RSA of 2048 bits or more, EC P-256 or P-384 and Ed25519 can", key.display())]
    BadKey { key: PathBuf, cause: String },
}

/// What is spoken under TLS, as clients ask for it in the handshake (ALPN, RFC 7301).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alpn {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

impl Alpn {
    fn name(self) -> Vec<u8> {
        match self {
            Self::Http1 => b"http/1.1".to_vec(),
            Self::Http2 => b"h2".to_vec(),
        }
    }
}

/// What the files say.
#[derive(Debug)]
pub struct Terms {
    http1: Arc<ServerConfig>,
    http2: Arc<ServerConfig>,
    expires: SystemTime,
    asks_clients: bool,
}

impl Terms {
    /// When the first of the certificates expires: clients need all of them.
    #[must_use]
    pub fn expires(&self) -> SystemTime {
        self.expires
    }

    /// The same in seconds of Unix time.
    #[must_use]
    pub fn expires_unix(&self) -> i64 {
        let since = self.expires.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        i64::try_from(since).unwrap_or(i64::MAX)
    }
}

/// The files and what they say now. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Tls(Arc<Reread<Terms, TlsError>>);

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`], which names the file and what to do.
    pub fn open(files: TlsFiles) -> Result<Self, TlsError> {
        let paths = [files.certificate, files.key].into_iter().chain(files.client_ca).collect();
        Reread::open(paths, terms).map(|reread| Self(Arc::new(reread)))
    }

    /// Reads the files again; what was in use stays if they are broken now. `at_once` where somebody asked for it.
    #[must_use]
    pub fn look(&self, at_once: bool) -> Looked<Terms, TlsError> {
        self.0.look(at_once)
    }

    /// What they say now.
    #[must_use]
    pub fn terms(&self) -> Arc<Terms> {
        self.0.current()
    }

    /// Clients need a certificate as well.
    #[must_use]
    pub fn asks_clients(&self) -> bool {
        self.terms().asks_clients
    }

    /// What begins a connection. New certificates count for new connections; those there are go on.
    pub(super) fn acceptor(&self, alpn: Alpn) -> TlsAcceptor {
        let terms = self.terms();
        TlsAcceptor::from(Arc::clone(match alpn {
            Alpn::Http1 => &terms.http1,
            Alpn::Http2 => &terms.http2,
        }))
    }
}

const CERT: &str = "--tls-cert";
const CLIENT_CA: &str = "--tls-client-ca";

/// Files in the order of [`Tls::open`].
fn terms(files: &[SmallFile]) -> Result<Terms, TlsError> {
    let (certificate, key, client_ca) = match files {
        [certificate, key] => (certificate, key, None),
        [certificate, key, client_ca] => (certificate, key, Some(client_ca)),
        _ => unreachable!("TLS has two files or three"),
    };
    let chain = certificates(CERT, certificate)?;
    let expires = expires(&chain).map_err(|cause| bad_certificate(CERT, &certificate.path, cause))?;
    // Named, and not the process's default: ureq has one of its own.
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("ring has the ciphers of TLS 1.2 and 1.3");
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let authorities = Arc::new(authorities(file)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(authorities, Arc::clone(&provider))
                .build()
                .map_err(|cause| bad_certificate(CLIENT_CA, &file.path, cause))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    check_key(&provider, key)?;
    let config = builder.with_single_cert(chain, private_key(key)?).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            TlsError::Mismatch { certificate: certificate.path.clone(), key: key.path.clone() }
        }
        rustls::Error::InvalidCertificate(cause) => bad_certificate(CERT, &certificate.path, format!("{cause:?}")),
        other => TlsError::BadKey { key: key.path.clone(), cause: other.to_string() },
    })?;
    let offering = |alpn: Alpn| {
        let mut config = config.clone();
        config.alpn_protocols = vec![alpn.name()];
        Arc::new(config)
    };
    Ok(Terms { http1: offering(Alpn::Http1), http2: offering(Alpn::Http2), expires, asks_clients: client_ca.is_some() })
}

fn contents<'a>(flag: &'static str, file: &'a SmallFile) -> Result<&'a [u8], TlsError> {
    file.contents.as_deref().map_err(|cause| TlsError::Read { flag, path: file.path.clone(), cause: cause.clone() })
}

fn bad_certificate(flag: &'static str, path: &Path, cause: impl std::fmt::Display) -> TlsError {
    TlsError::BadCertificate { flag, path: path.to_owned(), cause: cause.to_string() }
}

fn certificates(flag: &'static str, file: &SmallFile) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(contents(flag, file)?)
        .collect::<Result<_, _>>()
        .map_err(|cause| TlsError::BadPem { flag, path: file.path.clone(), cause: fault(&cause).to_owned() })?;
    match chain.is_empty() {
        true => Err(TlsError::NoCertificate { flag, path: file.path.clone() }),
        false => Ok(chain),
    }
}

fn authorities(file: &SmallFile) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(CLIENT_CA, file)? {
        roots.add(certificate).map_err(|cause| bad_certificate(CLIENT_CA, &file.path, cause))?;
    }
    Ok(roots)
}

fn private_key(file: &SmallFile) -> Result<PrivateKeyDer<'static>, TlsError> {
    let (contents, path) = (contents("--tls-key", file)?, file.path.clone());
    // PKCS #8 says it in its label, the older form of OpenSSL in a header.
    let holds = |text: &[u8]| contents.windows(text.len()).any(|window| window == text);
    if holds(b"BEGIN ENCRYPTED PRIVATE KEY") || holds(b"Proc-Type: 4,ENCRYPTED") {
        return Err(TlsError::EncryptedKey { path });
    }
    PrivateKeyDer::from_pem_slice(contents).map_err(|error| match error {
        pem::Error::NoItemsFound => TlsError::NoKey { path },
        other => TlsError::BadPem { flag: "--tls-key", path, cause: fault(&other).to_owned() },
    })
}

/// What is wrong with the text. The library's own words quote the file, and with it a private key whose lines were joined.
fn fault(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::MissingSectionEnd { .. } => {
            "a section has no line with its END: are the file's line breaks lost, or its end?"
        }
        pem::Error::IllegalSectionStart { .. } => "a line begins a section and has more on it than that",
        pem::Error::Base64Decode(_) => "what stands between BEGIN and END is not base64",
        pem::Error::SectionTooLarge => "a section is too large",
        pem::Error::NoItemsFound => "there is nothing of the kind that belongs there",
        _ => "it cannot be read as PEM",
    }
}

/// That the key can sign at all: whether it fits its certificate is another question, and has another answer.
fn check_key(provider: &CryptoProvider, file: &SmallFile) -> Result<(), TlsError> {
    let loaded = provider.key_provider.load_private_key(private_key(file)?);
    loaded.map(drop).map_err(|cause| TlsError::BadKey { key: file.path.clone(), cause: cause.to_string() })
}

fn expires(chain: &[CertificateDer<'_>]) -> Result<SystemTime, x509_cert::der::Error> {
    let mut first = Duration::MAX;
    for certificate in chain {
        let certificate = Certificate::from_der(certificate)?;
        first = first.min(certificate.tbs_certificate().validity().not_after.to_unix_duration());
    }
    Ok(UNIX_EPOCH + first)
}

#[cfg(test)]
mod tests;
