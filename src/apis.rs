//! Which protocols are spoken beside the native API.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// One protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Api {
    /// Open Inference Protocol v2 over HTTP.
    V2,
    /// The same over gRPC, on a port of its own.
    Grpc,
    /// Hugging Face's image classification.
    Huggingface,
    /// KServe v1, which is `TensorFlow` Serving's REST API.
    Kserve,
    /// Amazon SageMaker's container contract.
    Sagemaker,
    /// Google Vertex AI's container contract.
    Vertex,
    /// TorchServe's inference API.
    Torchserve,
}

impl Api {
    const ALL: [Self; 7] =
        [Self::V2, Self::Grpc, Self::Huggingface, Self::Kserve, Self::Sagemaker, Self::Vertex, Self::Torchserve];

    /// The name in settings.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::V2 => "v2",
            Self::Grpc => "grpc",
            Self::Huggingface => "huggingface",
            Self::Kserve => "kserve",
            Self::Sagemaker => "sagemaker",
            Self::Vertex => "vertex",
            Self::Torchserve => "torchserve",
        }
    }
}

/// A set of protocols.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Apis(BTreeSet<Api>);

/// The word for the empty set.
const NONE: &str = "none";

impl Apis {
    /// All of them.
    #[must_use]
    pub fn all() -> Self {
        Self(Api::ALL.into())
    }

    /// Whether `api` is spoken.
    #[must_use]
    pub fn has(&self, api: Api) -> bool {
        self.0.contains(&api)
    }
}

impl FromStr for Apis {
    type Err = String;

    /// Names with commas between, or `none`.
    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim() == NONE {
            return Ok(Self(BTreeSet::new()));
        }
        let one = |name: &str| {
            let name = name.trim();
            Api::ALL.into_iter().find(|api| api.name() == name).ok_or_else(|| {
                let names: Vec<_> = Api::ALL.iter().map(|api| api.name()).collect();
                format!("there is no API {name:?}; list some of {}, or write {NONE}", names.join(","))
            })
        };
        text.split(',').map(one).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for Apis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str(NONE);
        }
        let names: Vec<_> = self.0.iter().map(|api| api.name()).collect();
        f.write_str(&names.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_reads_as_it_is_shown() {
        for text in ["v2,grpc,huggingface,kserve,sagemaker,vertex,torchserve", "v2", "none"] {
            assert_eq!(text.parse::<Apis>().unwrap().to_string(), text);
        }
        assert_eq!(Apis::all().to_string().parse(), Ok(Apis::all()));
        assert!(" v2 , grpc".parse::<Apis>().unwrap().has(Api::Grpc));
        assert!(!"v2".parse::<Apis>().unwrap().has(Api::Grpc));
        for text in ["", "v2,", "v3", "all,v2"] {
            assert!(text.parse::<Apis>().unwrap_err().contains("torchserve"), "{text}");
        }
    }
}
