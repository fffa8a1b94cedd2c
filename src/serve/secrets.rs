//! Certificates and keys: read at the start, looked at again by the clock and on SIGHUP, and what the log says of it.

use std::time::{Duration, SystemTime};

use tokio::task::JoinHandle;

use crate::config::{SecuritySettings, limits};
use crate::edge::{Looked, Networks, Terms, Tls, TlsFiles};
use crate::guard::{Guard, Keys, RateLimit, TrustedProxies};
use crate::telemetry::Metrics;

/// What has to be kept secret, as it is now.
#[derive(Debug)]
pub(super) struct Secrets {
    files: Files,
    /// Looks at the files again and again.
    clock: Option<JoinHandle<()>>,
}

#[derive(Debug, Clone)]
struct Files {
    tls: Option<Tls>,
    keys: Option<Keys>,
    metrics: Metrics,
}

impl Secrets {
    /// Reads what the settings name, and goes on looking at it. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// If a file cannot be used; the text names it, its setting and the fix.
    pub(super) fn open(settings: &SecuritySettings, metrics: &Metrics) -> anyhow::Result<Self> {
        let tls = match (&settings.tls_cert, &settings.tls_key) {
            (Some(certificate), Some(key)) => {
                let (certificate, key) = (certificate.clone(), key.clone());
                Some(Tls::open(TlsFiles { certificate, key, client_ca: settings.tls_client_ca.clone() })?)
            }
            _ => None,
        };
        let keys = settings.api_keys_file.clone().map(Keys::open).transpose()?;
        let files = Files { tls, keys, metrics: metrics.clone() };
        if let Some(tls) = &files.tls {
            files.tell(&tls.terms());
        }
        let clock = (files.tls.is_some() || files.keys.is_some()).then(|| tokio::spawn(look_for_ever(files.clone())));
        Ok(Self { files, clock })
    }

    /// What stands at the door.
    pub(super) fn guard(&self, settings: &SecuritySettings) -> Guard {
        let limit = settings.rate_limit.map(|rate| RateLimit::new(rate, settings.rate_limit_burst));
        let proxies = TrustedProxies::new(Networks::new(settings.trusted_proxy.clone()));
        Guard::new(self.files.keys.clone(), limit, proxies)
    }

    pub(super) fn tls(&self) -> Option<&Tls> {
        self.files.tls.as_ref()
    }

    pub(super) fn keys(&self) -> Option<&Keys> {
        self.files.keys.as_ref()
    }

    /// Looks at the files because somebody asked for it.
    pub(super) async fn look_now(&self) {
        look(self.files.clone(), true).await;
    }
}

impl Drop for Secrets {
    fn drop(&mut self) {
        if let Some(clock) = &self.clock {
            clock.abort();
        }
    }
}

/// Ends with the server, whose [`Secrets`] abort it.
async fn look_for_ever(files: Files) {
    loop {
        tokio::time::sleep(limits::SECRETS_INTERVAL).await;
        look(files.clone(), false).await;
    }
}

/// A disk may be slow, or far away. A panic has been printed, and the next look tries again.
async fn look(files: Files, at_once: bool) {
    let _ = tokio::task::spawn_blocking(move || files.look(at_once)).await;
}

impl Files {
    fn look(&self, at_once: bool) {
        match self.tls.as_ref().map_or(Looked::Same, |tls| tls.look(at_once)) {
            Looked::Same => {}
            Looked::Changed(terms) => {
                tracing::info!("the TLS files have changed: new connections get the new certificate");
                self.tell(&terms);
            }
            Looked::Broken(error) => {
                tracing::error!("the TLS files have changed and cannot be used, so the former ones stay: {error}");
            }
        }
        match self.keys.as_ref().map_or(Looked::Same, |keys| keys.look(at_once)) {
            Looked::Same => {}
            Looked::Changed(ring) => {
                tracing::info!(keys = ring.len(), "the API keys have changed: {} from now on", ring.len());
            }
            Looked::Broken(error) => {
                tracing::error!("the API keys have changed and cannot be used, so the former ones stay: {error}");
            }
        }
    }

    /// Says until when a certificate is valid, where that is soon.
    fn tell(&self, terms: &Terms) {
        self.metrics.tls_expires(terms.expires_unix());
        match left(terms.expires(), SystemTime::now()) {
            None => {
                tracing::warn!("the TLS certificate has expired: clients refuse it; replace --tls-cert and --tls-key");
            }
            Some(left) if left < limits::CERTIFICATE_WARNING => {
                let hours = left.as_secs() / 3600;
                tracing::warn!(hours, "the TLS certificate expires in {hours} hours; replace --tls-cert and --tls-key");
            }
            Some(_) => {}
        }
    }
}

/// The time until `expires`; none if it has passed.
fn left(expires: SystemTime, now: SystemTime) -> Option<Duration> {
    expires.duration_since(now).ok().filter(|left| !left.is_zero())
}
