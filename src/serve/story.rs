//! What was decided at the start: one block that a person reads once, or one JSON line that an operator searches later.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use crate::config::LogSetting;
use crate::machine;
use crate::models::Handle;
use crate::pipeline::infer::Layout;
use crate::runtime::Found;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The decisions, each as one line.
pub(super) struct Story {
    address: SocketAddr,
    took: Duration,
    runtime: String,
    provider: String,
    cores: String,
    threads: String,
    models: Vec<Model>,
}

/// One version of one model.
struct Model {
    name: String,
    version: String,
    sha256: String,
    model: String,
    recipe: String,
}

impl Story {
    pub(super) fn new(address: SocketAddr, engines: &[Handle], found: &Found, why: &str, took: Duration) -> Self {
        let cores = machine::cores();
        // All models are run in the same way, but for graphs that fix their batch.
        let execution =
            engines.iter().map(|engine| engine.execution()).max_by_key(|execution| execution.batch_images_max);
        let execution = execution.expect("a server that is ready has a model");
        let Layout { workers, intra_op_threads, decode_threads } = execution.layout;
        let version = found.version.map_or_else(|| "of unknown version".to_owned(), |version| version.to_string());
        let online = cores.online.map(|online| format!(" of {online} online")).unwrap_or_default();
        Self {
            address,
            took,
            runtime: format!("ONNX Runtime {version}, {} ({})", found.library.display(), found.source),
            provider: format!("{} ({why})", execution.provider),
            cores: format!("{} usable{online} (affinity and cgroup quota counted)", cores.usable),
            threads: format!(
                "{} x {}, {}, batches of up to {}",
                count(workers, "worker"),
                count(intra_op_threads, "intra-op thread"),
                count(decode_threads, "decode thread"),
                count(execution.batch_images_max, "image"),
            ),
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
        for Model { name, version, sha256, model, recipe } in &self.models {
            tracing::info!(model = name, version, sha256, about = model, recipe, "serving {name} version {version}");
        }
        tracing::info!(
                version = VERSION,
                address = %self.address,
                ready_seconds = self.took.as_secs_f64(),
                runtime = self.runtime,
                provider = self.provider,
                cores = self.cores,
                threads = self.threads,
                models = self.models.len(),
                "ready"
        );
    }
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "residual {VERSION} ready at http://{} after {:.2} s", self.address, self.took.as_secs_f64())?;
        for (key, value) in [
            ("runtime", &self.runtime),
            ("provider", &self.provider),
            ("cores", &self.cores),
            ("threads", &self.threads),
        ] {
            write!(f, "\n  {key:<9} {value}")?;
        }
        for Model { model, recipe, .. } in &self.models {
            write!(f, "\n  {:<9} {model}\n  {:<9} {recipe}", "model", "recipe")?;
        }
        write!(f, "\n  {:<9} curl --data-binary @photo.jpg http://{}/api/v1/classify", "try", self.address)
    }
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
        }
    }
}

/// `1 worker`, `2 workers`, `10 classes`.
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
    fn nouns_follow_their_number() {
        assert_eq!(count(1, "worker"), "1 worker");
        assert_eq!(count(2, "worker"), "2 workers");
        assert_eq!(count(10, "class"), "10 classes");
    }
}
