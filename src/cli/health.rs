//! `residual health`: asks the server on this machine how it is, for containers without a shell or curl.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use ureq::Agent;
use ureq::tls::TlsConfig;

use crate::config::{Settings, positive_duration};

/// Arguments of `residual health`.
#[derive(Debug, Args)]
pub(super) struct HealthArgs {
    /// Ask whether the process is alive, instead of whether it is ready for requests.
    #[arg(long)]
    live: bool,

    /// Where the server is, as http://HOST:PORT. Default: on this machine, where the RESIDUAL_* variables and the settings file
    /// say that it listens.
    #[arg(long, value_name = "URL")]
    url: Option<String>,

    /// Time for the answer.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = positive_duration)]
    timeout: humantime::Duration,
}

/// An answer is one short JSON object.
const ANSWER_BYTES_MAX: u64 = 4096;

/// Runs `residual health`: prints what the server says, and returns 0 if it is well, 1 if it is not or does not answer.
pub(super) fn run(args: &HealthArgs) -> anyhow::Result<ExitCode> {
    let base = match &args.url {
        Some(url) => url.trim_end_matches('/').to_owned(),
        None => address(&super::serve::settings_of_environment()?)?,
    };
    let url = format!("{base}/health/{}", if args.live { "live" } else { "ready" });
    let mut response = match agent(*args.timeout).get(&url).call() {
        Ok(response) => response,
        Err(error) => anyhow::bail!("ask {url}: {error}; is the server there, and is that its port?"),
    };
    let status = response.status();
    let text = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string().unwrap_or_default();
    let answer = format!("{url} answers {}: {}", status.as_u16(), text.trim());
    if status.is_success() {
        writeln!(std::io::stdout(), "{answer}")?;
        return Ok(ExitCode::SUCCESS);
    }
    anyhow::bail!(answer)
}

/// Where a server with these settings can be asked from this machine: on the port of the operators, if it has one.
fn address(settings: &Settings) -> anyhow::Result<String> {
    let security = &settings.security;
    let (host, port, scheme) = match security.admin_port {
        Some(port) => (&security.admin_host, port, "http"),
        None => {
            let scheme = if security.tls_cert.is_some() { "https" } else { "http" };
            (&settings.http.host, settings.http.http_port, scheme)
        }
    };
    anyhow::ensure!(
        security.admin_port.is_some() || security.tls_client_ca.is_none(),
        "the server wants a certificate of whoever asks: give it an --admin-port, which is asked then"
    );
    anyhow::ensure!(port != 0, "the server takes any free port: give --url with the one that its log says");
    let host = match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) if address.is_unspecified() => Ipv4Addr::LOCALHOST.to_string(),
        Ok(IpAddr::V6(address)) if address.is_unspecified() => format!("[{}]", Ipv6Addr::LOCALHOST),
        Ok(IpAddr::V6(address)) => format!("[{address}]"),
        Ok(IpAddr::V4(_)) | Err(_) => host.clone(),
    };
    Ok(format!("{scheme}://{host}:{port}"))
}

fn agent(timeout: Duration) -> Agent {
    let tls = TlsConfig::builder()
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        // A server is asked on an address that its certificate does not name, and is told nothing that is secret.
        .disable_verification(true)
        .build();
    Agent::config_builder()
        .timeout_global(Some(timeout))
        .http_status_as_error(false)
        .max_redirects(0)
        // It is this machine that is asked, whatever its proxy is.
        .proxy(None)
        .tls_config(tls)
        .build()
        .new_agent()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(change: impl FnOnce(&mut Settings)) -> Result<String, String> {
        let mut settings = Settings::defaults();
        change(&mut settings);
        address(&settings).map_err(|error| error.to_string())
    }

    #[test]
    fn the_server_is_asked_where_it_listens() {
        assert_eq!(asked(|_| {}).unwrap(), "http://127.0.0.1:8000");
        assert_eq!(asked(|settings| settings.http.host = "0.0.0.0".to_owned()).unwrap(), "http://127.0.0.1:8000");
        assert_eq!(asked(|settings| settings.http.host = "::".to_owned()).unwrap(), "http://[::1]:8000");
        assert_eq!(asked(|settings| settings.http.host = "10.1.2.3".to_owned()).unwrap(), "http://10.1.2.3:8000");
        assert_eq!(asked(|settings| settings.http.host = "localhost".to_owned()).unwrap(), "http://localhost:8000");
        let tls = |settings: &mut Settings| settings.security.tls_cert = Some("cert.pem".into());
        assert_eq!(asked(tls).unwrap(), "https://127.0.0.1:8000");
        let admin = |settings: &mut Settings| {
            tls(settings);
            settings.security.admin_port = Some(9090);
        };
        assert_eq!(asked(admin).unwrap(), "http://127.0.0.1:9090");
        assert!(asked(|settings| settings.http.http_port = 0).unwrap_err().contains("--url"));
    }
}
