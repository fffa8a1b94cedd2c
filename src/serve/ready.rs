//! The runtime library that the models will run on: found or fetched, and opened with what its provider needs.

use crate::config::RuntimeSettings;
use crate::pipeline::infer::{Environment, Provider, ProviderChoice, preload};
use crate::runtime::{self, Advice, Flavour, Found, Search};

/// The loaded runtime, and how it came here.
pub(super) struct Ready {
    pub(super) environment: Environment,
    pub(super) found: Found,
    /// What would be much faster on this machine, where nobody named a provider.
    pub(super) advice: Option<Advice>,
}

/// Finds, fetches where that is allowed, and opens the library.
///
/// # Errors
/// What is missing, with the command that brings it.
pub(super) fn ready_runtime(settings: &RuntimeSettings) -> anyhow::Result<Ready> {
    let environment = Search::from_environment();
    let search =
        Search { ort_lib: settings.ort_lib.clone().or(environment.ort_lib), offline: settings.offline, ..environment };
    match settings.provider {
        ProviderChoice::Named(provider) => {
            let (environment, found) = open(&Search { flavour: flavour(provider), ..search }, provider)?;
            Ok(Ready { environment, found, advice: None })
        }
        ProviderChoice::Auto => {
            let advice = runtime::faster_here(&search);
            let (environment, found) = open_fastest(&search)?;
            Ok(Ready { environment, found, advice })
        }
    }
}

/// What `auto` has to choose from: whatever was installed beside the CPU library. What does not open is no reason not to
/// start.
fn open_fastest(search: &Search) -> anyhow::Result<(Environment, Found)> {
    for provider in [Provider::Cuda, Provider::Openvino] {
        let search = Search { flavour: flavour(provider), ..search.clone() };
        match is_installed(&search) {
            Ok(false) => {}
            Ok(true) => match open(&search, provider) {
                Ok(opened) => return Ok(opened),
                // One process can open one library; what is open stays open.
                Err(error) => tracing::warn!("auto: {provider} is left out: {error:#}"),
            },
            Err(error) => tracing::warn!("auto: {provider} is left out: {error}"),
        }
    }
    open(&Search { flavour: Flavour::Cpu, ..search.clone() }, Provider::Cpu)
}

/// The flavour is there, without fetching anything.
fn is_installed(search: &Search) -> Result<bool, runtime::RuntimeError> {
    match search.flavour {
        Flavour::Openvino => Ok(runtime::openvino_plugin(search)?.is_some()),
        // A library of another flavour comes before the cache, and may know nothing of CUDA.
        _ => Ok(runtime::find(search)?.is_some_and(|found| found.source == runtime::Source::Cache(search.flavour))),
    }
}

fn open(search: &Search, provider: Provider) -> anyhow::Result<(Environment, Found)> {
    let found = runtime::find_or_install(search, &|line| tracing::info!("{line}"))?;
    if search.flavour == Flavour::Cuda {
        // Before the library is opened: it would say less.
        runtime::gpu_driver(search, &found)?;
        preload(provider, &found.preload)?;
    }
    let environment = Environment::load(&found.library, found.provider_plugin.as_deref())?;
    Ok((environment, found))
}

fn flavour(provider: Provider) -> Flavour {
    match provider {
        Provider::Cpu => Flavour::Cpu,
        Provider::Openvino => Flavour::Openvino,
        Provider::Cuda | Provider::Tensorrt => Flavour::Cuda,
    }
}
