//! Which provider runs a model: the one that was named, or the fastest that is installed and proven.

use super::engine::{EngineOptions, ModelSpec};
use super::infer::{
    Contract, Environment, InferError, InstanceGroup, Instances, Layout, LayoutRequest, Load, ModelSource, Precision,
    Provider, ProviderChoice, SessionOptions, images_per_second, layout,
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

/// One model that is to be loaded on some provider.
#[derive(Clone, Copy)]
pub(super) struct Chooser<'a> {
    environment: &'a Environment,
    spec: &'a ModelSpec,
    source: &'a ModelSource,
    options: &'a EngineOptions,
    layout: LayoutRequest,
}

impl<'a> Chooser<'a> {
    pub(super) fn new(
        environment: &'a Environment,
        spec: &'a ModelSpec,
        source: &'a ModelSource,
        options: &'a EngineOptions,
    ) -> Self {
        Self { environment, spec, source, options, layout: options.layout }
    }

    fn with(self, layout: LayoutRequest) -> Self {
        Self { layout, ..self }
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
        // One instance is enough to judge by, and is gone before the next is loaded: they need not fit beside each other.
        let judge = self.with(ONE_INSTANCE);
        let Judged { answers, images_per_second: baseline, chosen } =
            Judged::new(judge, judge.load(Provider::Cpu, "")?)?;
        drop(chosen);
        let (mut best, mut refused) = (None::<Judged>, Vec::new());
        for provider in others {
            match self.candidate(provider, &answers, baseline) {
                Ok(candidate) => {
                    if best.as_ref().is_none_or(|best| candidate.images_per_second > best.images_per_second) {
                        best = Some(candidate);
                    }
                }
                Err(why) => {
                    tracing::info!(model = self.spec.name, "auto: {provider} is not used for this model: {why}");
                    refused.push(format!("{provider} is installed and not used: {why}"));
                }
            }
        }
        match best {
            Some(best) => Ok(best.chosen),
            None => self.load(Provider::Cpu, &format!("auto: {}", refused.join("; "))),
        }
    }

    /// The model on `provider`, or why not.
    fn candidate(self, provider: Provider, judge: &[Vec<f32>], baseline: f64) -> Result<Judged, String> {
        let chosen = self.load(provider, "").map_err(|error| error.to_string())?;
        let mut judged = Judged::new(self, chosen).map_err(|error| error.to_string())?;
        let agreement = proof::compare(judge, &judged.answers);
        if !agreement.holds() {
            return Err(agreement.to_string());
        }
        let gain = judged.images_per_second / baseline;
        if gain < GAIN_MIN {
            return Err(format!("it computes {gain:.1} times as many images a second as cpu"));
        }
        judged.chosen.why = format!("auto: {gain:.1} times as fast as cpu; {agreement}");
        judged.chosen.agreement = Some(agreement);
        Ok(judged)
    }

    /// What one instance on `provider` answers to the pictures.
    pub(super) fn answers(self, provider: Provider) -> Result<Vec<Vec<f32>>, InferError> {
        let one = self.with(ONE_INSTANCE);
        answers(one, &mut one.load(provider, "")?)
    }

    fn load(self, provider: Provider, why: &str) -> Result<Chosen, InferError> {
        let Self { environment, spec, source, options, layout: request } = self;
        let precision = environment.precision(provider, options.precision)?;
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
        let images_max = contract.images_max(allowed);
        placed(provider, spec, &instances)?;
        let why = why.to_owned();
        Ok(Chosen { provider, precision, why, agreement: None, layout, images_max, contract, instances })
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

/// A provider's answers to the pictures, and its speed.
struct Judged {
    chosen: Chosen,
    answers: Vec<Vec<f32>>,
    images_per_second: f64,
}

impl Judged {
    fn new(chooser: Chooser<'_>, mut chosen: Chosen) -> Result<Self, InferError> {
        let answers = answers(chooser, &mut chosen)?;
        let form = chosen.contract.batch_form(chooser.spec.sample_shape, chosen.images_max);
        let images_per_second = images_per_second(&mut chosen.instances.groups[0].1[..1], form)?;
        Ok(Self { chosen, answers, images_per_second })
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
