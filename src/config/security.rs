//! Settings of who may connect and ask: TLS, keys, rates, other origins, the port of the operators.

use std::num::NonZeroU32;
use std::path::PathBuf;

use clap::Args;
use humantime::Duration as Time;
use ipnet::IpNet;

use super::limits;
use super::values::{count, positive_duration};
use super::{HttpSettings, PlatformSettings};
use crate::guard::{Origin, Rate, network};

/// Who may connect and ask.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Security")]
pub struct SecuritySettings {
    /// PEM file with the server's certificate, then those of its authorities: HTTP and gRPC are spoken under TLS then. It is
    /// read again when it changes, and on SIGHUP.
    #[arg(long, env = "RESIDUAL_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,

    /// PEM file with the private key of that certificate, not encrypted.
    #[arg(long, env = "RESIDUAL_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,

    /// PEM file with authorities: clients need a certificate of one of them.
    #[arg(long, env = "RESIDUAL_TLS_CLIENT_CA", value_name = "FILE")]
    pub tls_client_ca: Option<PathBuf>,

    /// Time for a client to finish the TLS handshake.
    #[arg(long, env = "RESIDUAL_TLS_HANDSHAKE_TIMEOUT", value_name = "TIME", default_value_t = limits::TLS_HANDSHAKE_TIMEOUT.into(), value_parser = positive_duration)]
    pub tls_handshake_timeout: Time,

    /// File with the keys that clients need (Authorization: Bearer KEY), one a line, as KEY or NAME: KEY. Health needs none. It
    /// is read again when it changes, and on SIGHUP.
    #[arg(long, env = "RESIDUAL_API_KEYS_FILE", value_name = "FILE")]
    pub api_keys_file: Option<PathBuf>,

    /// How often one client may ask: 50/s, 3000/min, 1000/h. More get 429. A client is a key where there are keys, else an
    /// address (of IPv6 a network of 64 bits). Default: without a limit.
    #[arg(long, env = "RESIDUAL_RATE_LIMIT", value_name = "RATE")]
    pub rate_limit: Option<Rate>,

    /// Requests of one client that may come at once after a pause. Default: what the rate allows in a second.
    #[arg(long, env = "RESIDUAL_RATE_LIMIT_BURST", value_name = "N")]
    pub rate_limit_burst: Option<NonZeroU32>,

    /// Open connections of one client on each port, at most; more are closed at once. A client is an address (of IPv6 a network
    /// of 64 bits) that is no trusted proxy. Default: as many as --connections-max.
    #[arg(long, env = "RESIDUAL_CONNECTIONS_PER_CLIENT", value_name = "N", value_parser = count(1, 1_000_000))]
    pub connections_per_client: Option<usize>,

    /// Networks of proxies whose X-Forwarded-For or Forwarded header is believed, 10.0.0.0/8; may be repeated.
    #[arg(long, env = "RESIDUAL_TRUSTED_PROXY", value_name = "CIDR", value_delimiter = ',', value_parser = network)]
    pub trusted_proxy: Vec<IpNet>,

    /// Web pages that may ask from a browser, by their origin, https://app.example, or * for all; may be repeated. Default: none.
    #[arg(long, env = "RESIDUAL_CORS_ORIGIN", value_name = "ORIGIN", value_delimiter = ',')]
    pub cors_origin: Vec<Origin>,

    /// Port of the operators: health, metrics, loading and unloading, without TLS. The other ports have no metrics and no
    /// loading and unloading then. 0 takes any free port. Default: none, and everything is on the other ports.
    #[arg(long, env = "RESIDUAL_ADMIN_PORT", value_name = "PORT")]
    pub admin_port: Option<u16>,

    /// Address or name that the operators' port listens on.
    #[arg(long, env = "RESIDUAL_ADMIN_HOST", value_name = "HOST", default_value = "127.0.0.1")]
    pub admin_host: String,
}

impl SecuritySettings {
    /// What contradicts something else, in a sentence.
    pub(super) fn contradiction(&self, http: &HttpSettings, platforms: &PlatformSettings) -> Option<String> {
        let contradictions = [
            (
                self.tls_cert.is_some() != self.tls_key.is_some(),
                "tls_cert and tls_key belong together: name both, or neither".to_owned(),
            ),
            (
                self.tls_client_ca.is_some() && self.tls_cert.is_none(),
                "tls_client_ca is set and tls_cert is not: certificates of clients are part of TLS".to_owned(),
            ),
            (
                self.rate_limit_burst.is_some() && self.rate_limit.is_none(),
                "rate_limit_burst is set and rate_limit is not: there is nothing to burst from".to_owned(),
            ),
            (
                !self.trusted_proxy.is_empty() && self.rate_limit.is_none() && self.connections_per_client.is_none(),
                "trusted_proxy is set, and neither rate_limit nor connections_per_client is: nobody asks for addresses"
                    .to_owned(),
            ),
            (
                self.cors_origin.contains(&Origin::Any) && self.cors_origin.len() > 1,
                "cors_origin names * and others: * is all of them".to_owned(),
            ),
            (
                self.connections_per_client.is_some_and(|client| client > http.connections_max),
                format!(
                    "connections_per_client ({}) is above connections_max ({}): one client could not have so many",
                    self.connections_per_client.unwrap_or_default(),
                    http.connections_max
                ),
            ),
            (
                self.admin_port.is_some() && platforms.sagemaker_multi_model,
                "admin_port and sagemaker_multi_model are both set: SageMaker loads models over the port of predictions, which \
                 admin_port forbids; choose one"
                    .to_owned(),
            ),
        ];
        contradictions.into_iter().find(|(holds, _)| *holds).map(|(_, text)| text)
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, Command, FromArgMatches as _};

    use crate::config::Settings;

    fn check(flags: &[&str]) -> Result<(), String> {
        let command = Settings::augment_args(Command::new("serve")).mut_args(|arg| arg.env(None::<&'static str>));
        let matches = command.get_matches_from([&["serve"], flags].concat());
        Settings::from_arg_matches(&matches).unwrap().check().map_err(|error| error.to_string())
    }

    #[test]
    fn settings_that_contradict_each_other_are_told() {
        for (flags, named) in [
            (&["--tls-cert", "a"][..], "tls_key"),
            (&["--tls-key", "a"], "tls_cert"),
            (&["--tls-client-ca", "a"], "tls_client_ca"),
            (&["--rate-limit-burst", "5"], "rate_limit is not"),
            (&["--trusted-proxy", "10.0.0.0/8"], "nobody asks"),
            (&["--cors-origin", "*", "--cors-origin", "https://a.example"], "* is all"),
            (&["--connections-per-client", "2000"], "connections_max (1024)"),
            (&["--admin-port", "0", "--sagemaker-multi-model"], "choose one"),
        ] {
            assert!(check(flags).is_err_and(|error| error.contains(named)), "{flags:?}");
        }
        for flags in [
            &["--tls-cert", "a", "--tls-key", "b", "--tls-client-ca", "c"][..],
            &["--rate-limit", "5/s", "--rate-limit-burst", "9", "--trusted-proxy", "10.0.0.0/8,192.0.2.1"],
            &["--cors-origin", "https://a.example,https://b.example"],
            &["--connections-per-client", "1024", "--trusted-proxy", "::1"],
        ] {
            assert_eq!(check(flags), Ok(()), "{flags:?}");
        }
    }
}
