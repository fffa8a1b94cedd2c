//! Loads a model once a worker, after finding out by runs what its file alone cannot tell: whether a fixed batch can be
//! made free, and whether scores of unknown meaning are probabilities.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use prost::Message as _;

use super::session::Graph;
use super::signature::{BatchForm, BatchSupport, Contract, Element, Rows, Scores, ScoresSource, Signature};
use super::{Batch, Environment, Infer as _, InferError, ModelSource, Provider, Session, SessionOptions};
use crate::graph::edit::{free_batch, relocate};
use crate::graph::proto::ModelProto;
use crate::graph::{self, ExternalFile, GraphError, OnnxFile, check_external};
use crate::pipeline::types::{Sample, SampleShape};

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
    /// How its sessions run.
    pub options: SessionOptions,
    /// Images of the largest batch that the settings allow.
    pub images_max: usize,
    /// Sessions wanted, at least one.
    pub workers: usize,
}

impl Load<'_> {
    /// One session a worker, and the contract that they all keep. The first is loaded alone, so that a bad model fails
    /// once.
    ///
    /// # Errors
    /// [`InferError`] if the model cannot be loaded, or its first runs fail.
    pub fn sessions(&self) -> Result<(Contract, Vec<Session>), InferError> {
        let source = Graph::Source(self.source);
        let mut contract = Contract { signature: self.signature.clone(), batch: BatchSupport::Free };
        let mut first = self.session(source, &contract)?;
        let (images, cause) = match self.signature.fixed_batch {
            Some(images) => (images, "the file fixes its batch".to_owned()),
            None => match self.first_batch(&contract, &mut first)? {
                Ok(()) => return self.settled(contract, first, source),
                Err(cause) => (1, format!("the file says that its batch is free, and two images fail: {cause}")),
            },
        };
        contract.batch = BatchSupport::Fixed { images, why: String::new() };
        let why = match self.free(images, &contract, &mut first) {
            Ok(Freed { bytes, folder, session }) => {
                tracing::info!(model = self.model, images, cause, "the batch was made free, and runs have proven it");
                contract.batch = BatchSupport::Freed { from: images };
                drop(first);
                return self.settled(contract, session, Graph::Edited { bytes: &bytes, folder: folder.as_deref() });
            }
            Err(why) => why,
        };
        tracing::info!(model = self.model, images, cause, why, "the batch stays as it is");
        contract.batch = BatchSupport::Fixed { images, why };
        self.settled(contract, first, source)
    }

    /// Runs one image and then two, where the file says that any number will do. The outer error is that of one image.
    fn first_batch(&self, contract: &Contract, session: &mut Session) -> Result<Result<(), InferError>, InferError> {
        if self.images_max == 1 {
            return Ok(Ok(()));
        }
        let form = contract.batch_form(self.sample, 2);
        let mut batch = Batch::new(form);
        for sample in &samples(form, 1.0) {
            batch.push(sample);
            if let Err(error) = session.infer(&batch) {
                return if batch.len() == 1 { Err(error) } else { Ok(Err(error)) };
            }
        }
        Ok(Ok(()))
    }

    fn session(&self, graph: Graph<'_>, contract: &Contract) -> Result<Session, InferError> {
        Session::load(self.environment, self.model, graph, &contract.signature, self.options)
    }

    /// The last question to the first session, then as many more as are wanted.
    fn settled(
        &self,
        mut contract: Contract,
        mut first: Session,
        graph: Graph<'_>,
    ) -> Result<(Contract, Vec<Session>), InferError> {
        let asked = (contract.signature.output.scores, contract.signature.output.scores_source);
        if asked == (Scores::Logits, ScoresSource::Assumed) && self.returns_probabilities(&contract, &mut first)? {
            let output = &mut contract.signature.output;
            (output.scores, output.scores_source) = (Scores::Probabilities, ScoresSource::Run);
            tracing::info!(
                model = self.model,
                output = output.name,
                "the scores of two trial runs are not negative and sum to 1: they are served as probabilities"
            );
        }
        let mut sessions = vec![first];
        for _ in 1..self.workers {
            sessions.push(self.session(graph, &contract)?);
        }
        Ok((contract, sessions))
    }

    /// Runs two samples and looks at the scores. A network that ends in softmax taken apart would get it twice, which
    /// leaves the classes right and every score wrong.
    fn returns_probabilities(&self, contract: &Contract, session: &mut Session) -> Result<bool, InferError> {
        let form = contract.batch_form(self.sample, 1);
        let mut batch = Batch::new(form);
        for sample in &samples(form, 1.0) {
            match alone(session, &mut batch, sample) {
                Ok(row) if is_probabilities(&row) => {}
                // Noise is no picture: what a network makes of it says nothing about what it makes of pictures.
                Ok(_) | Err(InferError::NotFinite { .. }) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// The graph with a free batch, or why there is none. `original` is the judge.
    fn free(&self, images: usize, contract: &Contract, original: &mut Session) -> Result<Freed, String> {
        let text = |error: GraphError| error.to_string();
        if (images, self.images_max) == (1, 1) {
            return Err("no larger batch is asked for".to_owned());
        }
        let model = match self.source {
            ModelSource::Memory(bytes) => graph::decode(Bytes::copy_from_slice(bytes)),
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
        let mut session = self.session(graph, contract).map_err(|error| error.to_string())?;
        self.prove(contract, original, &mut session)?;
        Ok(Freed { bytes, folder, session })
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
            let scale = alone.iter().flatten().fold(0.0f32, |max, score| max.max(score.abs()));
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
            batch.clear();
            (0..len).for_each(|index| batch.push(&samples[index % 2]));
            let together = freed.infer(&batch).map_err(text)?;
            for index in 0..len {
                let off = distance(together.row(index).map_err(text)?, &alone[index % 2]);
                if off > rounding {
                    return Err(format!(
                        "in a batch of {len}, scores of image {index} are {off} off those it gets alone, where at most \
                         {rounding} is rounding"
                    ));
                }
            }
        }
        Ok(())
    }

    /// How far the scores of one sample may differ between batches, relative to the largest score.
    ///
    /// A kernel may add in another order when the batch is larger. ONNX Runtime 1.31 on AVX2 does not: scores of
    /// ResNet-20 and of a graph like ResNet-50 were equal in every bit for 1, 2, 8 and 32 images. 1e-4 leaves room for
    /// processors whose kernels do, and is far below what one image's pixels do to another's scores. A step of f16 is
    /// 5e-4, and accelerators multiply in TF32 or bf16, whose steps are 5e-4 and 4e-3.
    fn tolerance(&self) -> f32 {
        let input = self.signature.input.element;
        let exact = matches!(input, Element::F32 | Element::F64 | Element::U8)
            && matches!(self.signature.output.element, Element::F32 | Element::F64)
            && self.options.provider == Provider::Cpu;
        if exact { 1e-4 } else { 1e-2 }
    }
}

/// A graph whose batch was made free, and proven so.
struct Freed {
    bytes: Vec<u8>,
    folder: Option<PathBuf>,
    session: Session,
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

/// The scores of one sample that is alone in its batch.
fn alone(session: &mut Session, batch: &mut Batch, sample: &Sample) -> Result<Vec<f32>, InferError> {
    batch.clear();
    batch.push(sample);
    Ok(session.infer(batch)?.row(0)?.to_vec())
}

/// Two samples of noise, each with another bright channel so that averages differ as well. A `contrast` of 1 spans what
/// normalised pictures do.
fn samples(form: BatchForm, contrast: f32) -> [Sample; 2] {
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    // Uniform in -0.5..0.5.
    let mut noise = move || {
        // xorshift64: Marsaglia, "Xorshift RNGs", 2003. Nothing depends on its quality.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    let plane = form.sample.len() / SampleShape::CHANNELS;
    [0, 1].map(|bright| {
        let values = (0..form.sample.len()).map(|at| {
            let level = if at / plane == bright { 1.0 } else { -1.0 };
            match form.element {
                Element::U8 => (128.0 + contrast * (60.0 * level + 120.0 * noise())).round(),
                Element::F16 | Element::Bf16 | Element::F32 | Element::F64 => contrast * (level + 2.0 * noise()),
            }
        });
        Sample::new(form.sample, values.collect())
    })
}

fn distance(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).fold(0.0, |max, (a, b)| max.max((a - b).abs()))
}

/// Logits that look like this by chance do not exist: of n free numbers, none negative and their sum 1 within rounding.
fn is_probabilities(row: &[f32]) -> bool {
    row.len() > 1 && row.iter().all(|&score| score >= 0.0) && (row.iter().sum::<f32>() - 1.0).abs() < 1e-3
}
