//! The standard variables of OpenTelemetry, which platforms set in every container: they decide settings of the same meaning.
//! Those that have no setting, because they hold secrets or concern the collector alone, are left to `telemetry/traces`.

use super::platform::Decision;

/// Where traces go. What is said of them goes before what is said of everything.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
/// How they get there.
const PROTOCOLS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];

/// What the variables decide. `variable` has the value of each that is set to something.
pub(super) fn decide(variable: &impl Fn(&str) -> Option<String>) -> Vec<Decision> {
    let set = |name: &'static str| variable(name).map(|value| (name, value));
    if is_off(variable) || not_followed(variable).is_some() {
        return Vec::new();
    }
    let endpoint = ENDPOINTS.into_iter().find_map(set);
    // What cannot be read is left out, as the specification asks: it may be meant for others in the same container.
    let is_ratio = |ratio: &str| ratio.parse::<f64>().is_ok_and(|ratio| (0.0..=1.0).contains(&ratio));
    let sampler = set("OTEL_TRACES_SAMPLER").and_then(|(because, name)| {
        let ratio = match name.trim_start_matches("parentbased_") {
            "always_on" => Some("1".to_owned()),
            "always_off" => Some("0".to_owned()),
            "traceidratio" => Some(variable("OTEL_TRACES_SAMPLER_ARG").unwrap_or_else(|| "1".to_owned())),
            // Samplers that ask a server of theirs, or that nobody knows: the setting's own default.
            _ => None,
        };
        ratio.filter(|ratio| is_ratio(ratio)).map(|ratio| (because, ratio))
    });
    let decision = |key| move |(because, value)| Decision { key, value, because };
    endpoint.map(decision("otlp_endpoint")).into_iter().chain(sampler.map(decision("trace_ratio"))).collect()
}

fn is_off(variable: &impl Fn(&str) -> Option<String>) -> bool {
    let disabled = variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    disabled || variable("OTEL_TRACES_EXPORTER").is_some_and(|value| value != "otlp")
}

/// The variable that asks for a protocol which is not spoken here, so that the endpoint beside it cannot be used either.
#[must_use]
pub fn not_followed(variable: &impl Fn(&str) -> Option<String>) -> Option<&'static str> {
    let set = |name: &'static str| variable(name).map(|value| (name, value));
    let (endpoint, address) = ENDPOINTS.into_iter().find_map(set).filter(|_| !is_off(variable))?;
    // Exporters over gRPC take an address without a scheme.
    if !address.starts_with("http://") && !address.starts_with("https://") {
        return Some(endpoint);
    }
    PROTOCOLS.into_iter().find_map(set).filter(|(_, value)| value != "http/protobuf").map(|(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decided(variables: &[(&str, &str)]) -> Vec<String> {
        let variable =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        decide(&variable).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_variable_for_traces_goes_before_the_one_for_everything() {
        let all = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:4318");
        let traces = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://b:4318/v1/traces");
        assert_eq!(decided(&[all]), ["otlp_endpoint = http://a:4318 (OTEL_EXPORTER_OTLP_ENDPOINT)"]);
        assert_eq!(
            decided(&[all, traces]),
            ["otlp_endpoint = http://b:4318/v1/traces (OTEL_EXPORTER_OTLP_TRACES_ENDPOINT)"]
        );
    }

    #[test]
    fn samplers_become_a_ratio() {
        for (sampler, argument, ratio) in [
            ("always_on", None, Some("1")),
            ("parentbased_always_off", None, Some("0")),
            ("parentbased_traceidratio", Some("0.25"), Some("0.25")),
            ("traceidratio", None, Some("1")),
            ("jaeger_remote", Some("endpoint=x"), None),
        ] {
            let argument = argument.map(|argument| ("OTEL_TRACES_SAMPLER_ARG", argument));
            let variables: Vec<_> = [Some(("OTEL_TRACES_SAMPLER", sampler)), argument].into_iter().flatten().collect();
            let wanted = ratio.map(|ratio| format!("trace_ratio = {ratio} (OTEL_TRACES_SAMPLER)"));
            assert_eq!(decided(&variables), Vec::from_iter(wanted), "{sampler}");
        }
    }

    #[test]
    fn what_turns_traces_off_or_asks_for_another_protocol_decides_nothing() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:4318");
        for other in [
            ("OTEL_SDK_DISABLED", "true"),
            ("OTEL_TRACES_EXPORTER", "none"),
            ("OTEL_TRACES_EXPORTER", "zipkin"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ] {
            assert!(decided(&[endpoint, other]).is_empty(), "{other:?}");
        }
        let told = |variables: &[(&str, &str)]| {
            let value =
                |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
            not_followed(&value)
        };
        let grpc = ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
        assert_eq!(told(&[endpoint, grpc]), Some("OTEL_EXPORTER_OTLP_PROTOCOL"));
        assert_eq!(told(&[grpc]), None, "nobody wants traces");
        assert_eq!(told(&[endpoint, grpc, ("OTEL_TRACES_EXPORTER", "none")]), None);
        for same in [("OTEL_SDK_DISABLED", "false"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")] {
            assert_eq!(decided(&[endpoint, same]).len(), 1, "{same:?}");
        }
    }
}
