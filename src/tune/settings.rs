//! The winner as `residual serve` takes it: flags, and a settings file.

use std::fmt::Write as _;

use super::candidate::Threads;
use super::rank::Row;
use crate::pipeline::EngineOptions;
use crate::pipeline::infer::CudnnSearch;

/// Keys of `default.toml` with the values that make a row, in the order of that file. `base` is what all rows had in
/// common; of it, what is not the default is named as well.
#[must_use]
pub fn keys(row: &Row, base: &EngineOptions) -> Vec<(&'static str, String)> {
    let candidate = &row.candidate;
    let mut keys = vec![("provider", candidate.provider.name().to_owned())];
    keys.extend(row.precision.map(|precision| ("precision", precision.name().to_owned())));
    if candidate.provider.is_gpu() {
        if base.gpu.device != 0 {
            keys.push(("device", base.gpu.device.to_string()));
        }
        if base.gpu.cudnn_search == CudnnSearch::Exhaustive {
            keys.push(("cudnn_search", "exhaustive".to_owned()));
        }
    }
    keys.push(("batch_images_max", candidate.batch_images_max.to_string()));
    keys.push(("batch_delay", humantime::format_duration(candidate.batch_delay).to_string()));
    match candidate.threads {
        Threads::Elastic => {}
        Threads::Fixed(group) => {
            keys.push(("instances", group.instances.to_string()));
            keys.push(("intra_op_threads", group.intra_op_threads.to_string()));
        }
    }
    keys
}

/// `--provider=cpu --batch-images-max=8`.
#[must_use]
pub fn flags(keys: &[(&str, String)]) -> Vec<String> {
    keys.iter().map(|(key, value)| format!("--{}={value}", key.replace('_', "-"))).collect()
}

/// A settings file, with what is to be known about it above.
#[must_use]
pub fn file(comments: &[String], keys: &[(&str, String)]) -> String {
    let mut text = String::new();
    // A line break inside a comment would end it, and what follows would be read as a setting.
    for line in comments.iter().flat_map(|comment| comment.lines()) {
        let line: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let _ = writeln!(text, "# {line}");
    }
    text.push('\n');
    for (key, value) in keys {
        let _ = match value.parse::<u64>() {
            Ok(number) => writeln!(text, "{key} = {number}"),
            Err(_) => writeln!(text, "{key} = {}", toml::Value::String(value.clone())),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::pipeline::batch::Cores;
    use crate::pipeline::infer::{
        GpuOptions, InstanceGroup, LayoutRequest, Precision, PrecisionChoice, Provider, ProviderChoice,
    };
    use crate::tune::rank::tests::row;

    fn base() -> EngineOptions {
        EngineOptions {
            provider: ProviderChoice::Auto,
            precision: PrecisionChoice::Auto,
            gpu: GpuOptions { device: 1, cudnn_search: CudnnSearch::Exhaustive, engine_cache: None },
            cores: Cores::new(2),
            layout: LayoutRequest::default(),
            batch_images_max: None,
            batch_delay: Duration::ZERO,
            queue_images_max: 256,
            queue_delay_max: None,
        }
    }

    #[test]
    fn an_elastic_winner_leaves_the_threads_to_the_server() {
        let mut elastic = row(100, 10);
        elastic.precision = Some(Precision::F32);
        let flags = flags(&keys(&elastic, &base())).join(" ");
        assert_eq!(flags, "--provider=cpu --precision=f32 --batch-images-max=4 --batch-delay=0s");
    }

    #[test]
    fn a_settings_file_names_what_is_fixed_and_what_it_was_found_with() {
        let mut fixed = row(100, 10);
        fixed.precision = Some(Precision::Tf32);
        fixed.candidate.provider = Provider::Cuda;
        fixed.candidate.batch_delay = Duration::from_millis(2);
        fixed.candidate.threads = Threads::Fixed(InstanceGroup { instances: 3, intra_op_threads: 1 });
        let text = file(&["one".to_owned(), "two\nlines".to_owned(), "a\rreturn".to_owned()], &keys(&fixed, &base()));
        assert_eq!(
            text,
            "# one\n# two\n# lines\n# a return\n\nprovider = \"cuda\"\nprecision = \"tf32\"\ndevice = 1\n\
             cudnn_search = \"exhaustive\"\nbatch_images_max = 4\nbatch_delay = \"2ms\"\ninstances = 3\n\
             intra_op_threads = 1\n"
        );
    }
}
