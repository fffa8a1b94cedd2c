//! Which providers may win: those whose classes are the CPU provider's.

use std::sync::Arc;

use super::candidate::Candidate;
use super::rank::{Row, Verdict};
use super::search::{TuneError, Tuner, Tuning};
use crate::pipeline::infer::{Precision, PrecisionChoice, Provider, ProviderChoice};
use crate::pipeline::{Engine, EngineOptions};

impl Tuner {
    /// The providers to try, each with a precision in which its classes are those of the CPU provider. Those that have none
    /// become rows at once.
    pub(super) async fn providers(
        &self,
        tuning: &mut Tuning,
        default: Candidate,
        tell: &dyn Fn(&str),
    ) -> Vec<(Provider, PrecisionChoice)> {
        let all = match self.base().provider {
            ProviderChoice::Named(provider) => vec![provider],
            ProviderChoice::Auto => {
                let usable = self.starter.environment.accelerators().into_iter();
                let usable = usable.filter(|(_, available)| available.is_ok()).map(|(provider, _)| provider);
                [Provider::Cpu].into_iter().chain(usable).collect()
            }
        };
        let asked = self.base().precision;
        let mut providers = Vec::new();
        for provider in all {
            // auto has compared what it has chosen.
            let chosen = self.base().provider == ProviderChoice::Auto && default.provider == provider;
            if provider == Provider::Cpu || chosen {
                providers.push((provider, asked));
                continue;
            }
            let f32 = PrecisionChoice::Named(Precision::F32);
            for precision in [asked, f32] {
                tell(&format!("the classes of {provider}"));
                let used = self.starter.environment.precision(provider, precision).ok();
                let Err(verdict) = self.prove(provider, precision).await else {
                    providers.push((provider, precision));
                    break;
                };
                let failed = matches!(verdict, Verdict::Failed(_));
                if let Some(row) =
                    tuning.rows.iter_mut().find(|row| row.is_default && row.candidate.provider == provider)
                {
                    row.verdict = verdict;
                } else {
                    let batch_images_max = provider.batch_images_max();
                    let candidate = Candidate { provider, precision, batch_images_max, ..default };
                    tuning.rows.push(Row { verdict, precision: used, ..Row::new(candidate) });
                }
                // What was asked for by name has no second choice, and what fails or was exact already needs none.
                if failed || asked != PrecisionChoice::Auto || used == Some(Precision::F32) {
                    break;
                }
            }
        }
        providers
    }

    /// Whether a provider gives the classes of the CPU provider, or why it cannot be tried.
    async fn prove(&self, provider: Provider, precision: PrecisionChoice) -> Result<(), Verdict> {
        let (environment, opened) = (self.starter.environment.clone(), Arc::clone(&self.opened));
        let options = EngineOptions { precision, ..self.base().clone() };
        let prove = move || Engine::agreement(&environment, opened.spec.clone(), &opened.source, &options, provider);
        match tokio::task::spawn_blocking(prove).await {
            Ok(Ok(agreement)) if agreement.holds() => Ok(()),
            Ok(Ok(agreement)) => Err(Verdict::OtherClasses(agreement.to_string())),
            Ok(Err(error)) => Err(Verdict::Failed(error.to_string())),
            Err(_panicked) => Err(Verdict::Failed(TuneError::Panicked.to_string())),
        }
    }
}
