//! What can be wrong with a recipe that somebody wrote down. Every text names the place and what could stand there.

use crate::pipeline::preprocess::RecipeError;

/// Why no recipe can be made of what lies around a model.
#[derive(Debug, thiserror::Error)]
pub enum RecipeFileError {
    /// The text is no JSON, or of another shape.
    #[error("read {place}: {cause}")]
    Syntax {
        /// The file, or the key of the model's metadata.
        place: String,
        /// Where and why.
        cause: serde_json::Error,
    },
    /// A value is not supported or makes no sense.
    #[error("read {place}: {found}; expected {expected}")]
    Value {
        /// The file, or the key of the model's metadata.
        place: String,
        /// What it says.
        found: String,
        /// What it could say.
        expected: String,
    },
    /// The numbers are no recipe.
    #[error("read {place}: {cause}")]
    Recipe {
        /// The file, or the key of the model's metadata.
        place: String,
        /// Which number.
        cause: RecipeError,
    },
    /// The recipe makes samples of one size, and the graph takes another.
    #[error(
        "read {place}: it prepares images of {}x{}, and the graph takes {}x{}; correct it, or set resize and crop under \
         [recipe] in residual.toml",
        recipe.0, recipe.1, graph.0, graph.1
    )]
    Size {
        /// The file, or the key of the model's metadata.
        place: String,
        /// Width and height of the samples.
        recipe: (u32, u32),
        /// Width and height of the graph's input.
        graph: (u32, u32),
    },
}

/// What a file says and what it could say, before the file's name is put to it.
#[derive(Debug, PartialEq)]
pub(super) struct Wrong {
    pub(super) found: String,
    pub(super) expected: String,
}

impl Wrong {
    pub(super) fn at(self, place: &str) -> RecipeFileError {
        RecipeFileError::Value { place: place.to_owned(), found: self.found, expected: self.expected }
    }
}

/// Shorthand for an early return.
pub(super) fn wrong<T>(found: impl Into<String>, expected: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong { found: found.into(), expected: expected.into() })
}
