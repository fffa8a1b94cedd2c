//! The outputs of a run: which are wanted, and how rows of values become them.

use super::infer::is_of_the_wire;
use super::tensor::{Datatype, Tensor};
use super::{Face, OipError, Parameter, WantedOutput, describe};
use crate::pipeline::batch::Row;

/// What a label file has for the value before the classes, where a graph has one.
const BACKGROUND: &str = "background";

/// The outputs that a request wants, checked.
#[derive(Debug)]
pub(super) struct Outputs<'a> {
    face: &'a Face,
    wanted: Vec<Wanted>,
}

#[derive(Debug)]
struct Wanted {
    name: String,
    what: What,
}

#[derive(Debug, Clone, Copy)]
enum What {
    /// The values of the graph's output, or the probabilities of a photo.
    Values,
    /// The best of them as texts: value, index, label.
    Classification(usize),
    /// The index of the best class.
    ClassIndex,
    /// The label of the best class.
    Label,
}

impl<'a> Outputs<'a> {
    /// Checks what a request wants; all outputs if it names none.
    pub(super) fn wanted(face: &'a Face, wanted: &[WantedOutput]) -> Result<Self, OipError> {
        let there = describe::outputs(face);
        if wanted.is_empty() {
            let wanted =
                there.into_iter().map(|output| Wanted { what: What::values(face, &output.name), name: output.name });
            return Ok(Self { face, wanted: wanted.collect() });
        }
        let mut checked: Vec<Wanted> = Vec::with_capacity(wanted.len().min(there.len()));
        for output in wanted {
            if !there.iter().any(|known| known.name == output.name) {
                let names: Vec<_> = there.iter().map(|known| known.name.as_str()).collect();
                return Err(OipError::invalid(format!(
                    "model {:?} has no output {:?}; it has {}",
                    face.name(),
                    output.name,
                    names.join(", ")
                )));
            }
            if checked.iter().any(|before| before.name == output.name) {
                return Err(OipError::invalid(format!("output {:?} is asked for twice", output.name)));
            }
            checked.push(Wanted { name: output.name.clone(), what: What::asked(face, output)? });
        }
        Ok(Self { face, wanted: checked })
    }

    /// How many of the largest values the outputs need.
    pub(super) fn top_k(&self) -> usize {
        let of = |wanted: &Wanted| match wanted.what {
            What::Values => 0,
            What::ClassIndex | What::Label => 1,
            What::Classification(k) => k,
        };
        self.wanted.iter().map(of).max().unwrap_or(0)
    }

    /// The outputs of so many images. rows: one an image, `[values]`
    pub(super) fn of(&self, rows: &[Row]) -> Result<Vec<Tensor>, OipError> {
        self.wanted.iter().map(|wanted| self.one(wanted, rows)).collect()
    }

    fn one(&self, Wanted { name, what }: &Wanted, rows: &[Row]) -> Result<Tensor, OipError> {
        let images = dimension(rows.len());
        let best = |row: &Row| row.best.first().copied().unwrap_or_default();
        match *what {
            What::Values => {
                let element = describe::scores_element(self.face);
                let mut raw = Vec::new();
                for row in rows {
                    element.write(&row.values, &mut raw);
                }
                let width = dimension(rows.first().map_or(0, |row| row.values.len()));
                let shape = vec![images, width];
                Ok(Tensor { name: name.clone(), datatype: element.into(), shape, raw: raw.into() })
            }
            What::Classification(k) => {
                let texts = rows.iter().flat_map(|row| {
                    row.best.iter().take(k).map(|&index| {
                        // Six decimals, as C++'s std::to_string has them.
                        format!("{:.6}:{index}:{}", row.values[index], self.label(index))
                    })
                });
                Tensor::of_texts(name, vec![images, dimension(k)], texts)
            }
            What::ClassIndex => {
                let raw: Vec<u8> = rows.iter().flat_map(|row| dimension(best(row)).to_le_bytes()).collect();
                Ok(Tensor { name: name.clone(), datatype: Datatype::Int64, shape: vec![images, 1], raw: raw.into() })
            }
            What::Label => Tensor::of_texts(name, vec![images, 1], rows.iter().map(|row| self.label(best(row)))),
        }
    }

    /// The label of value `index` of an output. The graph's own output may begin with a background, which is no class.
    fn label(&self, index: usize) -> &str {
        let background = match self.face {
            Face::Tensor(engine) => usize::from(engine.contract().signature.output.background),
            Face::Image(_) => 0,
        };
        index.checked_sub(background).map_or(BACKGROUND, |class| self.face.engine().spec().labels.get(class))
    }
}

impl What {
    /// A graph may call its own output `label`: only the photo side's names mean something.
    fn values(face: &Face, name: &str) -> Self {
        match (face, name) {
            (Face::Image(_), describe::CLASS_INDEX) => Self::ClassIndex,
            (Face::Image(_), describe::LABEL) => Self::Label,
            (Face::Image(_) | Face::Tensor(_), _) => Self::Values,
        }
    }

    fn asked(face: &Face, output: &WantedOutput) -> Result<Self, OipError> {
        let what = Self::values(face, &output.name);
        let unknown = output.parameters.keys().find(|name| !is_of_the_wire(name));
        if let Some(unknown) = unknown.filter(|name| name.starts_with("shared_memory")) {
            return Err(OipError::invalid(format!(
                "output {:?} asks for {unknown}; shared memory is not offered",
                output.name
            )));
        }
        let width = describe::width(face);
        match (output.parameters.get("classification"), what) {
            (None | Some(Parameter::Int(0)), _) => Ok(what),
            (Some(&Parameter::Int(k @ 1..)), Self::Values) => {
                Ok(Self::Classification(usize::try_from(k).map_or(width, |k| k.min(width))))
            }
            (Some(Parameter::Int(1..)), _) => Err(OipError::invalid(format!(
                "output {:?} has no scores to classify; ask for classification of {:?}",
                output.name,
                describe::PROBABILITIES
            ))),
            (Some(other), _) => Err(OipError::invalid(format!(
                "classification of output {:?} is {other:?}; it is a whole number of classes from 1 to {width}",
                output.name
            ))),
        }
    }
}

fn dimension(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
