//! Which provider runs a model: the one that was named, or the fastest that is installed and proven.

use super::engine::{EngineOptions, ModelSpec};
use super::infer::{
    BatchSupport, Contract, Environment, InferError, InstanceGroup, Instances, Layout, LayoutRequest, Load,
    ModelSource, Precision, PrecisionChoice, Provider, ProviderChoice, SessionOptions, images_per_second, layout,
};
use super::proof::{self, Agreement};

/// A provider that nobody named must be this much faster than the CPU provider to be worth its other rounding.
const GAIN_MIN: f64 = 1.1;
/// Enough to judge by.
const ONE_INSTANCE: LayoutRequest = LayoutRequest { instances: Some(1), intra_op_threads: None, decode_threads: None };

/// A model on the provider that was chosen for it.
pub(super) struct Chosen {
    pub(super) provider: Provider,
    pub(super) precision: Precision,
    /// The reason, for people.
    pub(super) why: String,
    /// How its answers compare with the CPU provider's, where that was asked.
    pub(super) agreement: Option<Agreement>,
    pub(super) layout: Layout,
    pub(super) images_max: usize,
    pub(super) contract: Contract,
    pub(super) instances: Instances,
}

/// How long a batch runs on the CPU provider, about, unless one image takes longer.
const RUN_MILLISECONDS: f64 = 10.0;

/// One model that is to be loaded on some provider.
#[derive(Clone, Copy)]
pub(super) struct Chooser<'a> {
    environment: &'a Environment,
    spec: &'a ModelSpec,
    source: &'a ModelSource,
    options: &'a EngineOptions,
    layout: LayoutRequest,
    precision: PrecisionChoice,
}

impl<'a> Chooser<'a> {
    pub(super) fn new(
        environment: &'a Environment,
        spec: &'a ModelSpec,
        source: &'a ModelSource,
        options: &'a EngineOptions,
    ) -> Self {
        Self { environment, spec, source, options, layout: options.layout, precision: options.precision }
    }

    pub(super) fn choose(self) -> Result<Chosen, InferError> {
        match self.options.provider {
            ProviderChoice::Named(provider) => self.load(provider, "asked for by name"),
            ProviderChoice::Auto => self.fastest(),
        }
    }

    /// The CPU provider, unless another gives the same classes faster.
    fn fastest(self) -> Result<Chosen, InferError> {
        let others = self.environment.accelerators();
        if others.is_empty() {
            return self.load(Provider::Cpu, "auto: nothing faster is installed");
        }
        // Each is judged by one instance with all cores, which is gone before the next is loaded: they need not fit beside
        // each other.
        let judge = Self { layout: ONE_INSTANCE, precision: PrecisionChoice::Auto, ..self };
        let cpu = Judged::new(judge, Provider::Cpu)?;
        let (mut best, mut refused) = (None::<Candidate>, Vec::new());
        for (provider, available) in others {
            let candidate = available
                .map_err(|error| match error {
                    InferError::Provider { cause, .. } => cause,
                    error => error.to_string(),
                })
                .and_then(|()| Self { layout: ONE_INSTANCE, ..self }.candidate(provider, &cpu));
            match candidate {
                Ok(candidate) if best.as_ref().is_none_or(|best| candidate.gain > best.gain) => best = Some(candidate),
                Ok(_) => {}
                Err(why) => refused.push(format!("{provider} is installed and not used: {why}")),
            }
        }
        match best {
            Some(Candidate { provider, agreement, why, .. }) => {
                let chosen = self.load(provider, &why)?;
                Ok(Chosen { agreement: Some(agreement), ..chosen })
            }
            None => self.load(Provider::Cpu, &format!("auto: {}", refused.join("; "))),
        }
    }

    /// What there is to say for `provider`, or against it.
    fn candidate(self, provider: Provider, cpu: &Judged) -> Result<Candidate, String> {
        let judged = Judged::new(self, provider).map_err(|error| error.to_string())?;
        let agreement = proof::compare(&cpu.answers, &judged.answers);
        if !agreement.holds() {
            return Err(agreement.to_string());
        }
        let gain = judged.images_per_second / cpu.images_per_second;
        if gain < GAIN_MIN {
            return Err(format!("it computes {gain:.1} times as many images a second as cpu"));
        }
        let why = format!("auto: {gain:.1} times as fast as cpu; {agreement}");
        Ok(Candidate { provider, agreement, gain, why })
    }

    /// What one instance on `provider` answers to the pictures.
    pub(super) fn answers(self, provider: Provider) -> Result<Vec<Vec<f32>>, InferError> {
        let one = Self { layout: ONE_INSTANCE, ..self };
        answers(one, &mut one.load(provider, "")?)
    }

    fn load(self, provider: Provider, why: &str) -> Result<Chosen, InferError> {
        let Self { environment, spec, source, options, layout: request, precision } = self;
        let precision = environment.precision(provider, precision)?;
        let layout = layout(options.cores.total(), provider, request);
        let allowed = options.batch_images_max.unwrap_or(provider.batch_images_max());
        let widest = layout.instance_groups.iter().map(|group| group.intra_op_threads).max().unwrap_or(1);
        let (contract, instances) = Load {
            environment,
            model: &spec.name,
            source,
            signature: &spec.signature,
            sample: spec.sample_shape,
            options: &SessionOptions { provider, precision, intra_op_threads: widest, gpu: options.gpu.clone() },
            images_max: allowed,
            layout: &layout.instance_groups,
            elastic: request.is_elastic(),
        }
        .instances()?;
        // Groups may have been left out.
        let instance_groups: Vec<InstanceGroup> = instances.groups.iter().map(|(group, _)| *group).collect();
        let layout = Layout { instance_groups, ..layout };
        let images_max = contract.images_max(match options.batch_images_max {
            None if !matches!(contract.batch, BatchSupport::Fixed { .. }) => worth(provider, &instances, allowed),
            None | Some(_) => allowed,
        });
        placed(provider, spec, &instances)?;
        let why = why.to_owned();
        Ok(Chosen { provider, precision, why, agreement: None, layout, images_max, contract, instances })
    }
}

/// Images of the largest batch that pays, up to `allowed`.
///
/// On the CPU provider a batch spares only what a run costs beside its images: a worker woken, a queue locked. That is a few
/// percent for a model of 1 ms an image, and nothing for one of 80 ms, whose images would wait for each other and whose
/// instances would need memory for all of them (ResNet-50: 45 MB for each further image in a batch, in three instances).
fn worth(provider: Provider, instances: &Instances, allowed: usize) -> usize {
    match (provider, instances.one_image.last()) {
        (Provider::Cpu, Some(narrowest)) => {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a quotient of two times")]
            let images = (RUN_MILLISECONDS / narrowest.milliseconds) as usize;
            images.clamp(1, allowed)
        }
        (Provider::Cpu | Provider::Openvino | Provider::Cuda | Provider::Tensorrt, _) => allowed,
    }
}

/// A provider that computes nothing of the graph is not there, whatever it says.
fn placed(provider: Provider, spec: &ModelSpec, instances: &Instances) -> Result<(), InferError> {
    let Some(placement) = &instances.placement else { return Ok(()) };
    let gpu = |name: &str| provider.is_gpu() && name == Provider::Cuda.ort_name();
    let mut elsewhere = Vec::new();
    for (name, nodes) in placement.iter().filter(|(name, _)| *name != provider.ort_name() && !gpu(name)) {
        let operators: Vec<String> = nodes.operators.iter().map(|(name, count)| format!("{count} {name}")).collect();
        elsewhere.push(format!("{} on {name} ({})", nodes.nodes, operators.join(", ")));
    }
    if elsewhere.is_empty() {
        return Ok(());
    }
    let (here, elsewhere) = (placement.nodes(provider.ort_name()), elsewhere.join("; "));
    if here == 0 {
        return Err(InferError::Placement { model: spec.name.clone(), provider: provider.name(), elsewhere });
    }
    tracing::warn!(
        model = spec.name,
        "{here} nodes of the graph are computed by {provider}, others are not: {elsewhere}"
    );
    Ok(())
}

/// A provider that gives the same classes faster.
struct Candidate {
    provider: Provider,
    agreement: Agreement,
    /// Times the images that the CPU provider computes in the same time.
    gain: f64,
    why: String,
}

/// A provider's answers to the pictures, and its speed.
struct Judged {
    answers: Vec<Vec<f32>>,
    images_per_second: f64,
}

impl Judged {
    fn new(chooser: Chooser<'_>, provider: Provider) -> Result<Self, InferError> {
        let mut chosen = chooser.load(provider, "")?;
        let answers = answers(chooser, &mut chosen)?;
        let form = chosen.contract.batch_form(chooser.spec.sample_shape, chosen.images_max);
        let images_per_second = images_per_second(&mut chosen.instances.groups[0].1, form)?;
        Ok(Self { answers, images_per_second })
    }
}

/// The answers of the widest instance, which alone has all cores.
fn answers(chooser: Chooser<'_>, chosen: &mut Chosen) -> Result<Vec<Vec<f32>>, InferError> {
    let spec = chooser.spec;
    let form = chosen.contract.batch_form(spec.sample_shape, chosen.images_max);
    let pictures = proof::pictures(&spec.recipe).map_err(|error| InferError::Model {
        model: spec.name.clone(),
        cause: format!("prepare a photo for it: {error}"),
    })?;
    let reading = chosen.contract.signature.output.reading();
    proof::answers(&mut chosen.instances.groups[0].1[0], form, &pictures, reading, &spec.labels)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::infer::OneImage;

    #[test]
    fn a_batch_is_as_large_as_it_is_worth() {
        let timed = |milliseconds: &[f64]| Instances {
            groups: Vec::new(),
            one_image: milliseconds
                .iter()
                .map(|&milliseconds| OneImage { intra_op_threads: 1, milliseconds })
                .collect(),
            placement: None,
            shared_weights: false,
        };
        let cpu = |milliseconds: &[f64], allowed| worth(Provider::Cpu, &timed(milliseconds), allowed);
        assert_eq!(cpu(&[42.0, 78.0], 8), 1, "ResNet-50 on one core");
        assert_eq!(cpu(&[0.9, 0.8], 8), 8, "ResNet-20");
        assert_eq!(cpu(&[2.5], 8), 4);
        assert_eq!(cpu(&[80.0], 1), 1, "a fixed batch");
        assert_eq!(cpu(&[0.0], 8), 8);
        assert_eq!(cpu(&[], 8), 8, "nothing was timed");
        assert_eq!(worth(Provider::Cuda, &timed(&[42.0]), 32), 32);
    }
}
