//! Loads a model, after finding out by runs what its file alone cannot tell: whether images share a batch without a trace,
//! whether a fixed batch can be made free, and whether scores of unknown meaning are probabilities.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use prost::Message as _;

use super::instances::{Instances, Plan, can_share};
use super::layout::InstanceGroup;
use super::register::{EngineShapes, SessionOptions};
use super::session::{Graph, Making};
use super::shared::Optimised;
use super::signature::{BatchForm, BatchSupport, Contract, Element, Rows, Scores, ScoresSource, Signature};
use super::trial::{Looks, alone, distance, finite, largest, looks, samples, together};
use super::{Batch, Environment, InferError, ModelSource, Precision, Session};
use crate::graph::edit::{free_batch, relocate};
use crate::graph::proto::ModelProto;
use crate::graph::{self, ExternalFile, GraphError, OnnxFile, check_external};
use crate::pipeline::types::SampleShape;

/// What is loaded, and for whom.
#[derive(Debug, Clone, Copy)]
pub struct Load<'a> {
    /// The loaded library.
    pub environment: &'a Environment,
    /// The model's name, for errors and the log.
    pub model: &'a str,
    /// Its ONNX bytes.
    pub source: &'a ModelSource,
    /// What it takes and returns, by its file.
    pub signature: &'a Signature,
    /// The samples that its recipe makes.
    pub sample: SampleShape,
    /// How its sessions run; the threads are those of the widest group.
    pub options: &'a SessionOptions,
    /// Images of the largest batch that the settings allow.
    pub images_max: usize,
    /// Instances wanted, from the most intra-op threads to the fewest; at least one group.
    pub layout: &'a [InstanceGroup],
    /// Groups that make nothing faster may be left out.
    pub elastic: bool,
}

/// A session that was loaded before the others, and its graph as the runtime optimised it.
struct First {
    session: Session,
    optimised: Option<Optimised>,
}

impl Load<'_> {
    /// All instances, and the contract that they keep. The first is loaded alone, so that a bad model fails once.
    ///
    /// # Errors
    /// [`InferError`] if the model cannot be loaded, or its first runs fail.
    pub fn instances(&self) -> Result<(Contract, Instances), InferError> {
        let source = Graph::Source(self.source);
        let fixed = |images| BatchSupport::Fixed { images, why: String::new() };
        let batch = self.signature.fixed_batch.map_or(BatchSupport::Free, fixed);
        let mut contract = Contract { signature: self.signature.clone(), batch, buckets: false, mixes: false };
        let mut first = self.first(source, &contract)?;
        self.answers_the_same_twice(&contract, &mut first.session)?;
        let (images, cause) = match self.signature.fixed_batch {
            Some(images) => (images, "the file fixes its batch".to_owned()),
            None => match self.first_batch(&contract, &mut first.session)? {
                Ok(()) => return self.settled(contract, first, source),
                Err(cause) => (1, format!("the file says that its batch is free, and two images fail: {cause}")),
            },
        };
        contract.batch = fixed(images);
        let why = match self.free(images, &contract, &mut first.session) {
            Ok(Freed { bytes, folder, first: freed }) => {
                tracing::info!(model = self.model, images, cause, "the batch was made free, and runs have proven it");
                contract.batch = BatchSupport::Freed { from: images };
                drop(first);
                return self.settled(contract, freed, Graph::Edited { bytes: &bytes, folder: folder.as_deref() });
            }
            Err(why) => why,
        };
        tracing::info!(model = self.model, images, cause, why, "the batch stays as it is");
        let why = if self.signature.fixed_batch.is_some() { why } else { format!("{cause}; {why}") };
        contract.batch = BatchSupport::Fixed { images, why };
        contract.mixes = self.mixes(images, &contract, &mut first.session)?;
        if contract.mixes {
            tracing::warn!(
                model = self.model,
                "the images of a batch change each other's scores: each is run alone, in a batch of {images} filled up with \
                 zeros; export the model with a batch of 1"
            );
        }
        self.settled(contract, first, source)
    }

    /// Whether an image gets other scores beside others than it gets beside zeros, in a batch that the file fixes.
    fn mixes(&self, images: usize, contract: &Contract, session: &mut Session) -> Result<bool, InferError> {
        Ok(images > 1 && self.keeps_apart(images, contract, session)?.is_err())
    }

    /// Runs two images alone and then together, `images` of them. The outer error is that of one image.
    fn keeps_apart(
        &self,
        images: usize,
        contract: &Contract,
        session: &mut Session,
    ) -> Result<Result<(), String>, InferError> {
        let form = contract.batch_form(self.sample, images);
        let (mut batch, samples) = (Batch::new(form), samples(form, 1.0));
        let [first, second] = &samples;
        let alone = [
            finite(alone(session, &mut batch, first))?.unwrap_or_default(),
            finite(alone(session, &mut batch, second))?.unwrap_or_default(),
        ];
        let rounding = self.tolerance() * alone.iter().map(|row| largest(row)).fold(0.0, f32::max);
        Ok(together(session, &mut batch, &samples, images, &alone, rounding))
    }

    /// Runs one image twice. A dropout that is still in training rolls dice for every answer.
    fn answers_the_same_twice(&self, contract: &Contract, session: &mut Session) -> Result<(), InferError> {
        let form = contract.batch_form(self.sample, 1);
        let (mut batch, [sample, _]) = (Batch::new(form), samples(form, 1.0));
        let mut scores = || finite(alone(session, &mut batch, &sample));
        let (Some(once), Some(again)) = (scores()?, scores()?) else { return Ok(()) };
        let off = distance(&once, &again);
        if off <= self.tolerance() * largest(&once) {
            return Ok(());
        }
        Err(InferError::Contract {
            model: self.model.to_owned(),
            found: format!("scores that are {off} off those of a first run with the same image"),
            expected: "the same in every run; export the model for inference: in PyTorch call model.eval() first"
                .to_owned(),
        })
    }

    /// Runs one image and then two, where the file says that any number will do. The outer error is that of one image.
    fn first_batch(&self, contract: &Contract, session: &mut Session) -> Result<Result<(), String>, InferError> {
        if self.images_max == 1 {
            return Ok(Ok(()));
        }
        self.keeps_apart(2, contract, session)
    }

    fn first(&self, graph: Graph<'_>, contract: &Contract) -> Result<First, InferError> {
        let shapes = self.shapes(contract);
        let making = self.making(contract, shapes.as_ref());
        let wanted: usize = self.layout.iter().map(|group| group.instances).sum();
        if can_share(self.options.provider) && wanted > 1 {
            match making.load_and_optimise(graph) {
                Ok((session, optimised)) => return Ok(First { session, optimised: Some(optimised) }),
                // If it is the model's fault, the second try says so.
                Err(error) => tracing::debug!(model = self.model, %error, "load with the optimised graph kept"),
            }
        }
        Ok(First { session: making.load(graph)?, optimised: None })
    }

    fn making<'m>(&'m self, contract: &'m Contract, shapes: Option<&'m EngineShapes>) -> Making<'m> {
        Making {
            environment: self.environment,
            model: self.model,
            signature: &contract.signature,
            options: self.options,
            shapes,
        }
    }

    /// The shapes between which the batch may vary; none where it may not.
    fn shapes(&self, contract: &Contract) -> Option<EngineShapes> {
        let form = contract.batch_form(self.sample, self.images_max);
        let dimensions = |rows| BatchForm { rows: Rows::Exactly(rows), ..form }.dimensions(rows);
        match form.rows {
            Rows::Exactly(_) => None,
            Rows::UpTo(rows) | Rows::Buckets(rows) => Some(EngineShapes {
                input: contract.signature.input.name.clone(),
                one: dimensions(1),
                full: dimensions(rows),
            }),
        }
    }

    /// The last question to the first session, then all instances.
    fn settled(
        &self,
        mut contract: Contract,
        First { session: mut first, optimised }: First,
        graph: Graph<'_>,
    ) -> Result<(Contract, Instances), InferError> {
        let asked = (contract.signature.output.scores, contract.signature.output.scores_source);
        if asked == (Scores::Logits, ScoresSource::Assumed) {
            let looks = looks(&mut first, contract.batch_form(self.sample, 1))?;
            let output = &mut contract.signature.output;
            match looks {
                Looks::Distribution => {
                    (output.scores, output.scores_source) = (Scores::Probabilities, ScoresSource::Run);
                    tracing::info!(
                        model = self.model,
                        output = output.name,
                        "the scores of two trial runs are not negative and sum to 1: they are served as probabilities"
                    );
                }
                Looks::Shares => {
                    return Err(InferError::Contract {
                        model: self.model.to_owned(),
                        found: format!(
                            "output {:?}, which ends in no operator that tells what its values mean, and in two trial runs \
                             they lie between 0 and 1 and do not sum to 1",
                            output.name
                        ),
                        expected:
                            "scores = \"multi_label_probabilities\" under [output] in residual.toml if each value is \
                                   the probability of its class, or \"logits\" if they are raw scores"
                                .to_owned(),
                    });
                }
                Looks::Numbers => tracing::warn!(
                    model = self.model,
                    output = output.name,
                    "nothing tells what the scores of the output mean: they are taken for logits, and softmax is applied; \
                     say so with scores = \"logits\" under [output] in residual.toml, or what they are"
                ),
            }
        }
        self.agrees_with_its_setting(&contract, &mut first)?;
        contract.buckets = self.options.provider.is_gpu();
        let shapes = self.shapes(&contract);
        let plan = Plan {
            making: self.making(&contract, shapes.as_ref()),
            graph,
            layout: self.layout,
            elastic: self.elastic,
            form: contract.batch_form(self.sample, 1),
            full: contract.batch_form(self.sample, contract.images_max(self.images_max)),
        };
        let instances = plan.instances(first, optimised)?;
        Ok((contract, instances))
    }

    /// Somebody who says that scores are probabilities can be wrong; numbers outside of 0..=1 would go out as such.
    fn agrees_with_its_setting(&self, contract: &Contract, session: &mut Session) -> Result<(), InferError> {
        let output = &contract.signature.output;
        let claimed = matches!(output.scores, Scores::Probabilities | Scores::MultiLabelProbabilities);
        if output.scores_source != ScoresSource::Setting || !claimed {
            return Ok(());
        }
        match looks(session, contract.batch_form(self.sample, 1))? {
            Looks::Distribution | Looks::Shares => Ok(()),
            Looks::Numbers => Err(InferError::Contract {
                model: self.model.to_owned(),
                found: format!("values outside of 0..=1 in output {:?}, in a trial run", output.name),
                expected: "probabilities, as scores = under [output] in residual.toml says; write \"logits\" or \
                           \"multi_label_logits\" for raw scores"
                    .to_owned(),
            }),
        }
    }

    /// The graph with a free batch, or why there is none. `original` is the judge.
    fn free(&self, images: usize, contract: &Contract, original: &mut Session) -> Result<Freed, String> {
        let text = |error: GraphError| error.to_string();
        if (images, self.images_max) == (1, 1) {
            return Err("no larger batch is asked for".to_owned());
        }
        let model = match self.source {
            ModelSource::Memory(bytes) => graph::decode(bytes.clone()),
            ModelSource::File(path) => OnnxFile::open(path).map(|file| file.model),
        }
        .map_err(text)?;
        let mut freed = free_batch(&model, &self.signature.input.name).map_err(|error| error.to_string())?;
        let folder = match self.source {
            ModelSource::Memory(_) => None,
            ModelSource::File(path) => gather(&mut freed, check_external(path, &model).map_err(text)?, path),
        };
        let bytes = freed.encode_to_vec();
        drop((model, freed));
        let graph = Graph::Edited { bytes: &bytes, folder: folder.as_deref() };
        let mut first = self.first(graph, contract).map_err(|error| error.to_string())?;
        self.prove(contract, original, &mut first.session)?;
        Ok(Freed { bytes, folder, first })
    }

    /// Two different samples, alone, in a batch of two and all through the largest batch, get what each gets alone from
    /// the original.
    fn prove(&self, contract: &Contract, original: &mut Session, freed: &mut Session) -> Result<(), String> {
        let text = |error: InferError| error.to_string();
        let form = contract.batch_form(self.sample, self.images_max);
        let mut batch = Batch::new(form);
        let tolerance = self.tolerance();
        let mut told_apart = None;
        // A confident softmax may drown two strong samples in the same certainty, and not two faint ones.
        for contrast in [1.0, 0.25] {
            let samples = samples(form, contrast);
            let [first, second] = &samples;
            let alone =
                [alone(original, &mut batch, first).map_err(text)?, alone(original, &mut batch, second).map_err(text)?];
            let scale = largest(&alone[0]).max(largest(&alone[1]));
            // Rows that hardly differ cannot show that they were kept apart: the mean of two is off by half their
            // distance.
            if distance(&alone[0], &alone[1]) > 4.0 * tolerance * scale {
                told_apart = Some((samples, alone, tolerance * scale));
                break;
            }
        }
        let Some((samples, alone, rounding)) = told_apart else {
            return Err("two different samples get the same scores, so that no run can prove anything".to_owned());
        };
        let images_max = self.images_max.max(2);
        let mut batch = Batch::new(BatchForm { rows: Rows::UpTo(images_max), ..form });
        for len in [1, 2, images_max] {
            together(freed, &mut batch, &samples, len, &alone, rounding)?;
        }
        Ok(())
    }

    /// How far the scores of one sample may differ between batches, relative to the largest score.
    fn tolerance(&self) -> f32 {
        let input = self.signature.input.element;
        let halves = matches!(input, Element::F16 | Element::Bf16)
            || matches!(self.signature.output.element, Element::F16 | Element::Bf16);
        self.options.precision.tolerance().max(if halves { Precision::F16.tolerance() } else { 0.0 })
    }
}

/// A graph whose batch was made free, and proven so.
struct Freed {
    bytes: Vec<u8>,
    folder: Option<PathBuf>,
    first: First,
}

/// The folder of the weights outside the file; none if all are inside.
///
/// The runtime lets a graph from memory read below one folder, and follows links before it judges. A cache of Hugging
/// Face consists of links into another folder, so the model is told where they lead. Weights in several folders are left
/// to the runtime, beside the model.
fn gather(model: &mut ModelProto, files: Vec<ExternalFile>, path: &Path) -> Option<PathBuf> {
    let files: HashMap<String, PathBuf> = files.into_iter().map(|file| (file.location, file.path)).collect();
    let folder = files.values().next()?.parent()?.to_owned();
    if files.values().any(|file| file.parent() != Some(&folder)) {
        return path.canonicalize().ok()?.parent().map(Path::to_owned);
    }
    relocate(model, |location| Some(files.get(location)?.file_name()?.to_str()?.to_owned()));
    Some(folder)
}
