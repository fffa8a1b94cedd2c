//! What JSON bodies look like, for the description of the routes alone. `items.rs` and `document.rs` read them, in one pass and
//! with more forms than a schema should list.

use schemars::JsonSchema;

use super::document::Parameters;

/// One image or tensor.
#[derive(JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only its schema is used")]
pub(super) enum Instance {
    /// A photo in base64; `data:image/...;base64,` may stand before it.
    Base64(String),
    /// The same in an object. Instead of `b64` the member may be named `image`, `image_bytes`, `bytes`, `content`, `data`, `body`,
    /// `input` or as the graph's input, and hold base64, `{"b64": ...}` or a tensor.
    Object {
        /// Base64.
        b64: String,
    },
    /// The graph's own input for one image: `[3][H][W]` or `[H][W][3]` numbers.
    Tensor(Vec<Vec<Vec<f32>>>),
}

/// Rows: an instance for each prediction.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "only its schema is used")]
pub(super) struct Rows {
    /// The images.
    #[schemars(length(min = 1))]
    instances: Vec<Instance>,
    #[serde(default)]
    parameters: Option<Parameters>,
    /// `serving_default`.
    #[serde(default)]
    signature_name: Option<String>,
}

/// Columns: a list for each input.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "only its schema is used")]
pub(super) struct Columns {
    /// One instance, a list of them, or either under the name of the input.
    inputs: ColumnsInputs,
    #[serde(default)]
    parameters: Option<Parameters>,
    /// `serving_default`.
    #[serde(default)]
    signature_name: Option<String>,
}

/// What columns hold.
#[derive(JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only its schema is used")]
pub(super) enum ColumnsInputs {
    /// One for each prediction.
    Several(#[schemars(length(min = 1))] Vec<Instance>),
    /// The only one.
    One(Instance),
    /// Under the name of the graph's input, or `image`.
    Named {
        /// One for each prediction.
        #[schemars(length(min = 1))]
        image: Vec<Instance>,
    },
}

/// Rows or columns.
#[derive(JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only its schema is used")]
pub(super) enum Predict {
    /// By row.
    Rows(Rows),
    /// By column.
    Columns(Columns),
}

/// Photos of Hugging Face's clients.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "only its schema is used")]
pub(super) struct Inputs {
    /// One photo, or a list of them.
    inputs: OneOrSeveral,
    #[serde(default)]
    parameters: Option<Parameters>,
}

/// Base64 of one photo or of several.
#[derive(JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only its schema is used")]
pub(super) enum OneOrSeveral {
    /// One photo.
    One(String),
    /// Several.
    Several(#[schemars(length(min = 1))] Vec<String>),
}

/// A photo of TorchServe's clients.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "only its schema is used")]
pub(super) struct Data {
    /// One photo, or a list of them, in base64.
    data: OneOrSeveral,
}

/// What `/invocations` takes as JSON.
#[derive(JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only its schema is used")]
pub(super) enum Invocation {
    /// As Hugging Face's containers have it.
    Inputs(Inputs),
    /// As TensorFlow Serving has it.
    Predict(Predict),
    /// As the native API has it.
    Image {
        /// Base64.
        image: String,
    },
}
