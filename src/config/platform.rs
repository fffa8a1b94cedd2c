//! What the platform that runs the container says through its variables, as defaults: they replace the built-in ones, and a
//! settings file, a `RESIDUAL_*` variable and a flag replace them.
//!
//! Amazon SageMaker's and Google Vertex AI's contracts for containers say which variables there are, and OpenTelemetry's
//! specification names those of [`otel`].

use std::ffi::OsString;
use std::fmt;
use std::path::Path;

use clap::parser::ValueSource;
use clap::{ArgMatches, Command};

use super::otel;

/// Where SageMaker unpacks a model.
const SAGEMAKER_MODEL: &str = "/opt/ml/model";
/// Where both platforms send requests unless they say otherwise.
const PORT: &str = "8080";
/// Platforms connect from outside of the container.
const HOST: &str = "0.0.0.0";

/// A setting that the platform decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The setting, by its key in a settings file.
    pub key: &'static str,
    /// Its value.
    pub value: String,
    /// The variable, or the directory, that says so.
    pub because: &'static str,
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {} ({})", self.key, self.value, self.because)
    }
}

/// Why the platform's variables cannot be followed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlatformError {
    /// The model is in a bucket.
    #[error(
        "AIP_STORAGE_URI is {uri:?}; this server reads no buckets: put the model into the image and name it with --model, which \
         is then used instead"
    )]
    Bucket {
        /// The variable's value.
        uri: String,
    },
    /// A value that its setting refuses.
    #[error("{because} gives {value:?} for {key}: {cause}")]
    Value {
        /// The setting.
        key: &'static str,
        /// The value.
        value: String,
        /// The variable.
        because: &'static str,
        /// What the setting's own check says.
        cause: String,
    },
}

/// What the variables decide. `variable` has the value of each that is set to something, `is_directory` looks at the disk.
#[must_use]
pub fn decide(variable: impl Fn(&str) -> Option<String>, is_directory: impl Fn(&Path) -> bool) -> Vec<Decision> {
    let mut decisions = vertex(&variable);
    if decisions.is_empty() {
        decisions = sagemaker(&variable, is_directory);
    }
    decisions.extend(otel::decide(&variable));
    decisions
}

/// Vertex AI sets its variables in every container.
fn vertex(variable: &impl Fn(&str) -> Option<String>) -> Vec<Decision> {
    let set = |name: &'static str| variable(name).map(|value| (name, value));
    let names = [
        "AIP_HTTP_PORT",
        "AIP_MODE",
        "AIP_PREDICT_ROUTE",
        "AIP_HEALTH_ROUTE",
        "AIP_STORAGE_URI",
        "AIP_ENDPOINT_ID",
        "AIP_DEPLOYED_MODEL_ID",
    ];
    let Some((first, _)) = names.into_iter().find_map(set) else { return Vec::new() };
    let decision = |key, (because, value)| Decision { key, value, because };
    // Where nobody configured routes, the platform asks for this one.
    let own_route = || {
        let (endpoint, model) = (variable("AIP_ENDPOINT_ID")?, variable("AIP_DEPLOYED_MODEL_ID")?);
        Some(("AIP_ENDPOINT_ID", format!("/v1/endpoints/{endpoint}/deployedModels/{model}:predict")))
    };
    let mut decisions = vec![
        decision("host", (first, HOST.to_owned())),
        decision("http_port", set("AIP_HTTP_PORT").unwrap_or_else(|| (first, PORT.to_owned()))),
    ];
    let predict = set("AIP_PREDICT_ROUTE").or_else(own_route);
    let health = set("AIP_HEALTH_ROUTE").filter(|_| predict.is_some());
    decisions.extend(predict.map(|route| decision("vertex_predict_route", route)));
    decisions.extend(health.map(|route| decision("vertex_health_route", route)));
    decisions.extend(set("AIP_STORAGE_URI").map(|(name, uri)| {
        let place = uri.strip_prefix("file://").map(str::to_owned).unwrap_or(uri);
        decision("model", (name, place))
    }));
    decisions
}

/// SageMaker sets variables for some containers; of others only the directory of the model tells.
fn sagemaker(variable: &impl Fn(&str) -> Option<String>, is_directory: impl Fn(&Path) -> bool) -> Vec<Decision> {
    let decision = |key, value: &str, because| Decision { key, value: value.to_owned(), because };
    let port = variable("SAGEMAKER_BIND_TO_PORT");
    // The platform sets it to true or not at all; people write other words for yes.
    let yes = |value: &str| ["true", "1", "yes", "on"].iter().any(|yes| value.eq_ignore_ascii_case(yes));
    let multi_model = variable("SAGEMAKER_MULTI_MODEL").is_some_and(|value| yes(&value));
    let model = !multi_model && is_directory(Path::new(SAGEMAKER_MODEL));
    let because = match (&port, multi_model, variable("SAGEMAKER_SAFE_PORT_RANGE"), model) {
        (Some(_), ..) => "SAGEMAKER_BIND_TO_PORT",
        (None, true, ..) => "SAGEMAKER_MULTI_MODEL",
        (None, false, Some(_), _) => "SAGEMAKER_SAFE_PORT_RANGE",
        (None, false, None, true) => SAGEMAKER_MODEL,
        (None, false, None, false) => return Vec::new(),
    };
    let mut decisions =
        vec![decision("host", HOST, because), decision("http_port", port.as_deref().unwrap_or(PORT), because)];
    // Containers that share a host may take ports of this range alone, beside the one that requests come to.
    let range = variable("SAGEMAKER_SAFE_PORT_RANGE");
    if let Some((first, last)) = range.as_deref().and_then(|range| range.split_once('-')) {
        // Its ends are in the range; the first may be the one that is taken.
        let free = if port.as_deref() == Some(first) { last } else { first };
        decisions.push(decision("grpc_port", free, "SAGEMAKER_SAFE_PORT_RANGE"));
    }
    if multi_model {
        decisions.push(decision("sagemaker_multi_model", "true", "SAGEMAKER_MULTI_MODEL"));
    }
    if model {
        decisions.push(decision("model", SAGEMAKER_MODEL, SAGEMAKER_MODEL));
    }
    decisions
}

/// The decisions that count, as flags for `command`: those about settings that neither `given` nor the settings file has. A
/// model is one of these as soon as any is named.
///
/// # Errors
/// [`PlatformError`] about a decision that counts.
pub fn flags(
    decisions: Vec<Decision>,
    command: &Command,
    given: &ArgMatches,
    from_file: &[OsString],
) -> Result<Vec<(Decision, OsString)>, PlatformError> {
    let in_file = |long: &str| from_file.iter().any(|flag| flag.to_string_lossy().starts_with(&format!("--{long}=")));
    let is_given = |key: &str| {
        let given = matches!(given.value_source(key), Some(ValueSource::CommandLine | ValueSource::EnvVariable));
        given || in_file(&key.replace('_', "-"))
    };
    let counts = |decision: &Decision| match decision.key {
        "model" => !is_given("model") && !is_given("models"),
        key => !is_given(key),
    };
    decisions.into_iter().filter(counts).map(|decision| flag(command, decision)).collect()
}

fn flag(command: &Command, decision: Decision) -> Result<(Decision, OsString), PlatformError> {
    if decision.key == "model" && decision.value.contains("://") {
        return Err(PlatformError::Bucket { uri: decision.value });
    }
    let flag = OsString::from(format!("--{}={}", decision.key.replace('_', "-"), decision.value));
    match command.clone().try_get_matches_from([OsString::from("serve"), flag.clone()]) {
        Ok(_) => Ok((decision, flag)),
        Err(error) => {
            let text = error.render().to_string();
            let cause = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
            let Decision { key, value, because } = decision;
            Err(PlatformError::Value { key, value, because, cause })
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Args as _;

    use super::*;
    use crate::config::Settings;

    fn decided(variables: &[(&str, &str)], directory: bool) -> Vec<String> {
        let variable =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        decide(variable, |path| directory && path == Path::new(SAGEMAKER_MODEL))
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn without_a_platform_nothing_is_decided() {
        assert!(decided(&[("PATH", "/bin"), ("SAGEMAKER_MULTI_MODEL", "false")], false).is_empty());
    }

    #[test]
    fn sagemaker_is_known_by_its_variables_or_its_directory() {
        assert_eq!(
            decided(&[], true),
            [
                "host = 0.0.0.0 (/opt/ml/model)",
                "http_port = 8080 (/opt/ml/model)",
                "model = /opt/ml/model (/opt/ml/model)"
            ]
        );
        assert_eq!(
            decided(&[("SAGEMAKER_BIND_TO_PORT", "9123"), ("SAGEMAKER_MULTI_MODEL", "true")], true),
            [
                "host = 0.0.0.0 (SAGEMAKER_BIND_TO_PORT)",
                "http_port = 9123 (SAGEMAKER_BIND_TO_PORT)",
                "sagemaker_multi_model = true (SAGEMAKER_MULTI_MODEL)"
            ]
        );
        assert_eq!(
            decided(&[("SAGEMAKER_SAFE_PORT_RANGE", "21000-22000")], false)[1..],
            ["http_port = 8080 (SAGEMAKER_SAFE_PORT_RANGE)", "grpc_port = 21000 (SAGEMAKER_SAFE_PORT_RANGE)"]
        );
    }

    #[test]
    fn vertex_names_its_routes_or_has_one_of_its_own() {
        assert_eq!(
            decided(
                &[
                    ("AIP_HTTP_PORT", "7080"),
                    ("AIP_PREDICT_ROUTE", "/predict"),
                    ("AIP_HEALTH_ROUTE", "/health"),
                    ("AIP_STORAGE_URI", "file:///models/x"),
                ],
                true
            ),
            [
                "host = 0.0.0.0 (AIP_HTTP_PORT)",
                "http_port = 7080 (AIP_HTTP_PORT)",
                "vertex_predict_route = /predict (AIP_PREDICT_ROUTE)",
                "vertex_health_route = /health (AIP_HEALTH_ROUTE)",
                "model = /models/x (AIP_STORAGE_URI)",
            ]
        );
        assert_eq!(
            decided(&[("AIP_MODE", "PREDICTION"), ("AIP_ENDPOINT_ID", "12"), ("AIP_DEPLOYED_MODEL_ID", "34")], false),
            [
                "host = 0.0.0.0 (AIP_MODE)",
                "http_port = 8080 (AIP_MODE)",
                "vertex_predict_route = /v1/endpoints/12/deployedModels/34:predict (AIP_ENDPOINT_ID)",
            ]
        );
    }

    /// No test may depend on the variables of whoever runs it.
    fn command() -> Command {
        Settings::augment_args(Command::new("serve")).mut_args(|arg| arg.env(None::<&'static str>))
    }

    fn counting(variables: &[(&str, &str)], given: &[&str], file: &[&str]) -> Result<Vec<String>, String> {
        let variable =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        let matches = command().get_matches_from([&["serve"], given].concat());
        let file: Vec<OsString> = file.iter().map(OsString::from).collect();
        let flags =
            flags(decide(variable, |_| false), &command(), &matches, &file).map_err(|error| error.to_string())?;
        Ok(flags.into_iter().map(|(_, flag)| flag.into_string().unwrap()).collect())
    }

    #[test]
    fn the_file_and_the_flags_win_over_the_platform() {
        let variables = [("AIP_HTTP_PORT", "7080"), ("AIP_STORAGE_URI", "/m")];
        assert_eq!(counting(&variables, &[], &[]).unwrap(), ["--host=0.0.0.0", "--http-port=7080", "--model=/m"]);
        assert_eq!(counting(&variables, &["--http-port", "1"], &["--host=::"]).unwrap(), ["--model=/m"]);
        for named in [["--model", "x"], ["--models", "y"]] {
            assert_eq!(counting(&variables, &named, &[]).unwrap(), ["--host=0.0.0.0", "--http-port=7080"]);
        }
    }

    #[test]
    fn what_cannot_be_followed_is_told_with_its_variable() {
        let bucket = [("AIP_STORAGE_URI", "gs://bucket/model")];
        assert!(counting(&bucket, &[], &[]).unwrap_err().contains("reads no buckets"));
        assert!(counting(&bucket, &["--model", "x"], &[]).is_ok());
        let error = counting(&[("AIP_HTTP_PORT", "http")], &[], &[]).unwrap_err();
        assert!(error.starts_with("AIP_HTTP_PORT gives \"http\" for http_port: invalid value"), "{error}");
        let error = counting(&[("AIP_PREDICT_ROUTE", "predict")], &[], &[]).unwrap_err();
        assert!(error.contains("begins with a slash"), "{error}");
    }
}
