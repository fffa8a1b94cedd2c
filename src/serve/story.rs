//! What was decided at the start: one block that a person reads once, or one JSON line that an operator searches later.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::ports::Served;
use super::secrets::Secrets;
use crate::config::LogSetting;
use crate::machine;
use crate::models::Handle;
use crate::pipeline::Execution;
use crate::runtime::Found;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The decisions, each as one line.
pub(super) struct Story {
    http: SocketAddr,
    grpc: Option<SocketAddr>,
    admin: Option<SocketAddr>,
    scheme: &'static str,
    access: String,
    needs_key: bool,
    took: Duration,
    runtime: String,
    cores: String,
    models: Vec<Model>,
}

/// One version of one model.
struct Model {
    name: String,
    version: String,
    sha256: String,
    model: String,
    recipe: String,
    provider: String,
    threads: String,
}

impl Story {
    pub(super) fn new(
        (ports, secrets): (&Served, &Secrets),
        engines: &[Handle],
        found: &Found,
        took: Duration,
    ) -> Self {
        let cores = machine::cores();
        let version = found.version.map_or_else(|| "of unknown version".to_owned(), |version| version.to_string());
        let online = cores.online.map(|online| format!(" of {online} online")).unwrap_or_default();
        Self {
            http: ports.http,
            grpc: ports.grpc,
            admin: ports.admin,
            scheme: if secrets.tls().is_some() { "https" } else { "http" },
            access: access(ports.http.ip(), Cover::of(secrets), secrets.keys().map(|keys| keys.ring().len())),
            needs_key: secrets.keys().is_some(),
            took,
            runtime: format!("ONNX Runtime {version}, {} ({})", found.library.display(), found.source),
            cores: format!("{} usable{online} (affinity and cgroup quota counted)", cores.usable),
            models: engines.iter().map(Model::new).collect(),
        }
    }

    pub(super) fn log(&self, format: LogSetting) {
        match format {
            LogSetting::Text => tracing::info!("{self}"),
            LogSetting::Json => self.log_fields(),
        }
    }

    /// One line for each model, then one for the server: fields of a line hold single values.
    fn log_fields(&self) {
        for Model { name, version, sha256, model, recipe, provider, threads } in &self.models {
            tracing::info!(
                model = name,
                version,
                sha256,
                about = model,
                recipe,
                provider,
                threads,
                "serving {name} version {version}"
            );
        }
        tracing::info!(
                version = VERSION,
                address = %self.http,
                grpc = self.grpc.map(tracing::field::display),
                admin = self.admin.map(tracing::field::display),
                tls = self.scheme == "https",
                access = self.access,
                ready_seconds = self.took.as_secs_f64(),
                runtime = self.runtime,
                cores = self.cores,
                models = self.models.len(),
                "ready"
        );
    }
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "residual {VERSION} ready at {}://{} after {:.2} s",
            self.scheme,
            self.http,
            self.took.as_secs_f64()
        )?;
        if let Some(grpc) = self.grpc {
            write!(f, "\n  {:<9} {grpc}", "grpc")?;
        }
        if let Some(admin) = self.admin {
            write!(f, "\n  {:<9} http://{admin}", "admin")?;
        }
        write!(f, "\n  {:<9} {}", "access", self.access)?;
        let server = [("runtime", &self.runtime), ("cores", &self.cores)];
        let models = self.models.iter().flat_map(|Model { model, recipe, provider, threads, .. }| {
            [("model", model), ("recipe", recipe), ("provider", provider), ("threads", threads)]
        });
        for (key, value) in server.into_iter().chain(models) {
            write!(f, "\n  {key:<9} {value}")?;
        }
        let call = if self.models.is_empty() {
            // Models come with SageMaker's calls.
            format!(
                "curl -d '{{\"model_name\": \"NAME\", \"url\": \"DIRECTORY\"}}' {}://{}/models",
                self.scheme, self.http
            )
        } else {
            let key = if self.needs_key { "-H \"Authorization: Bearer $KEY\" " } else { "" };
            format!("curl {key}--data-binary @photo.jpg {}://{}/api/v1/classify", self.scheme, self.http)
        };
        write!(f, "\n  {:<9} {call}", "try")
    }
}

/// What protects the bytes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cover {
    /// Nothing here.
    Open,
    Tls,
    /// TLS in which clients show a certificate as well.
    MutualTls,
}

impl Cover {
    fn of(secrets: &Secrets) -> Self {
        match secrets.tls() {
            None => Self::Open,
            Some(tls) if tls.asks_clients() => Self::MutualTls,
            Some(_) => Self::Tls,
        }
    }
}

/// Who can ask, in a line. What a balancer in front adds is not known here.
fn access(http: IpAddr, cover: Cover, keys: Option<usize>) -> String {
    let mut line = match http.is_loopback() {
        true => "this machine alone".to_owned(),
        false => "any machine that reaches this one".to_owned(),
    };
    line += match cover {
        Cover::Open if http.is_loopback() => "",
        Cover::Open => ", in the open",
        Cover::Tls => ", under TLS",
        Cover::MutualTls => ", under TLS, with a certificate of its own",
    };
    match keys {
        Some(keys) => line += &format!(", with an API key ({})", count(keys, "key")),
        None if http.is_loopback() || cover == Cover::MutualTls => {}
        None => line += ", without an API key",
    }
    line += match (cover, keys) {
        _ if http.is_loopback() => "",
        (Cover::Open, None) => {
            ": let only a balancer that has both connect, or set --tls-cert with --tls-key, and --api-keys-file"
        }
        (Cover::Open, Some(_)) => ": keys can be read on the way, unless a balancer in front has TLS",
        (Cover::Tls | Cover::MutualTls, _) => "",
    };
    line
}

impl Model {
    fn new(engine: &Handle) -> Self {
        let spec = engine.spec();
        let classes = count(spec.labels.len(), "class");
        Self {
            name: spec.name.clone(),
            version: spec.version.clone(),
            sha256: spec.sha256.clone(),
            model: format!(
                "{} version {}, {}, {classes} ({}), {}",
                spec.name, spec.version, spec.summary.name, spec.label_source, spec.origin
            ),
            recipe: format!("{} ({})", spec.recipe, spec.recipe_source),
            provider: provider(engine.execution()),
            threads: threads(engine.execution()),
        }
    }
}

/// `cpu in f32, all 57 nodes (asked for by name)`.
fn provider(execution: &Execution) -> String {
    let Execution { provider, precision, provider_reason, placement, .. } = execution;
    let nodes = placement.as_ref().map(|placement| {
        let all: usize = placement.iter().map(|(_, nodes)| nodes.nodes).sum();
        match placement.nodes(provider.ort_name()) {
            here if here == all => format!(", all {}", count(all, "node")),
            here => format!(", {here} of {}", count(all, "node")),
        }
    });
    format!("{provider} in {precision}{} ({provider_reason})", nodes.unwrap_or_default())
}

/// `as the load asks: 1 instance x 2 intra-op threads (one image: 42.0 ms) or 2 instances x 1 (78.1 ms); batches of up to
/// 4 images`.
fn threads(execution: &Execution) -> String {
    let groups = &execution.layout.instance_groups;
    let time = |threads: usize| execution.one_image.iter().find(|one| one.intra_op_threads == threads);
    let groups: Vec<String> = groups
        .iter()
        .map(|group| {
            let time = time(group.intra_op_threads).map(|one| format!(" ({:.1} ms an image)", one.milliseconds));
            let threads = count(group.intra_op_threads, "intra-op thread");
            format!("{} x {threads}{}", count(group.instances, "instance"), time.unwrap_or_default())
        })
        .collect();
    let elastic = if groups.len() > 1 { "as the load asks, " } else { "" };
    format!("{elastic}{}; batches of up to {}", groups.join(" or "), count(execution.batch_images_max, "image"))
}

/// `1 instance`, `2 instances`, `10 classes`.
fn count(n: usize, noun: &str) -> String {
    let plural = match noun.strip_suffix('s') {
        _ if n == 1 => "",
        Some(_) => "es",
        None => "s",
    };
    format!("{n} {noun}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_says_who_can_ask() {
        let (here, everywhere) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0]));
        let lines = [
            access(here, Cover::Open, None),
            access(here, Cover::Open, Some(1)),
            access(everywhere, Cover::Open, None),
            access(everywhere, Cover::Open, Some(2)),
            access(everywhere, Cover::Tls, None),
            access(everywhere, Cover::Tls, Some(2)),
            access(everywhere, Cover::MutualTls, None),
        ];
        assert_eq!(
            lines.join("\n"),
            "this machine alone\n\
             this machine alone, with an API key (1 key)\n\
             any machine that reaches this one, in the open, without an API key: let only a balancer that has both connect, or \
             set --tls-cert with --tls-key, and --api-keys-file\n\
             any machine that reaches this one, in the open, with an API key (2 keys): keys can be read on the way, unless a \
             balancer in front has TLS\n\
             any machine that reaches this one, under TLS, without an API key\n\
             any machine that reaches this one, under TLS, with an API key (2 keys)\n\
             any machine that reaches this one, under TLS, with a certificate of its own"
        );
    }

    #[test]
    fn nouns_follow_their_number() {
        assert_eq!(count(1, "instance"), "1 instance");
        assert_eq!(count(2, "instance"), "2 instances");
        assert_eq!(count(10, "class"), "10 classes");
    }
}
