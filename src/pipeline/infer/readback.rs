//! What only the runtime can tell: which provider really computes which nodes, and what a device can compute in.
//! ONNX Runtime gives nodes that a provider cannot compute to its CPU provider without a word; here one can see it.
//!
//! The bindings have no safe call for this yet (`Session_GetEpGraphAssignmentInfo`, since version 24 of the C API), so that
//! this file makes the calls itself.
#![expect(unsafe_code, reason = "calls into ONNX Runtime's C API that the bindings do not wrap; argued at each call")]

use std::collections::BTreeMap;
use std::ffi::{CStr, c_char};
use std::ptr;

use ort::AsPointer as _;
use schemars::JsonSchema;
use serde::Serialize;

/// Nodes of the loaded graph by provider, as ONNX Runtime names them, after its own fusions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct Placement(BTreeMap<String, Nodes>);

/// The nodes of one provider.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Nodes {
    /// How many.
    pub nodes: usize,
    /// Of which operators, by name, with the number of each.
    #[serde(skip)]
    pub operators: BTreeMap<String, usize>,
}

/// The session option without which nothing is recorded.
pub(super) const RECORD: &str = "session.record_ep_graph_assignment_info";

impl Placement {
    /// Asks a session that was made with [`RECORD`]. None if the runtime does not tell.
    pub(super) fn of(session: &ort::session::Session) -> Option<Self> {
        let api = ort::api();
        let mut placement = Self::default();
        let (mut subgraphs, mut count) = (ptr::null(), 0usize);
        // SAFETY: the session is alive, both out-pointers are valid, and what they receive lives as long as the session.
        let status =
            unsafe { (api.Session_GetEpGraphAssignmentInfo)(session.ptr(), &raw mut subgraphs, &raw mut count) };
        is_ok(status).then_some(())?;
        for index in 0..count {
            // SAFETY: the runtime returned an array of `count` pointers.
            let subgraph = unsafe { *subgraphs.add(index) };
            let provider = text(|out| {
                // SAFETY: `subgraph` is one of the session's; `out` is valid.
                unsafe { (api.EpAssignedSubgraph_GetEpName)(subgraph, out) }
            })?;
            let (mut nodes, mut node_count) = (ptr::null(), 0usize);
            // SAFETY: as above.
            let status = unsafe { (api.EpAssignedSubgraph_GetNodes)(subgraph, &raw mut nodes, &raw mut node_count) };
            is_ok(status).then_some(())?;
            let entry = placement.0.entry(provider).or_default();
            entry.nodes += node_count;
            for index in 0..node_count {
                // SAFETY: the runtime returned an array of `node_count` pointers to nodes of the session.
                let node = unsafe { *nodes.add(index) };
                let operator = text(|out| {
                    // SAFETY: `node` is one of the session's; `out` is valid.
                    unsafe { (api.EpAssignedNode_GetOperatorType)(node, out) }
                })?;
                *entry.operators.entry(operator).or_default() += 1;
            }
        }
        Some(placement)
    }

    /// Nodes of `provider`.
    #[must_use]
    pub fn nodes(&self, provider: &str) -> usize {
        self.0.get(provider).map_or(0, |nodes| nodes.nodes)
    }

    /// All providers with their nodes, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Nodes)> {
        self.0.iter().map(|(provider, nodes)| (provider.as_str(), nodes))
    }
}

/// Whether a call went well. The runtime's status is freed.
fn is_ok(status: ort::sys::OrtStatusPtr) -> bool {
    if status.0.is_null() {
        return true;
    }
    // SAFETY: a status that is not null is the caller's to release, once.
    unsafe { (ort::api().ReleaseStatus)(status.0) };
    false
}

/// A text that the runtime owns, copied.
fn text(get: impl FnOnce(*mut *const c_char) -> ort::sys::OrtStatusPtr) -> Option<String> {
    let mut text = ptr::null();
    let status = get(&raw mut text);
    if !is_ok(status) || text.is_null() {
        return None;
    }
    // SAFETY: the runtime returned a zero-terminated string that lives as long as its session.
    Some(unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
}

/// What a device of the OpenVINO plugin says that it can compute in: names such as `FP32 BF16 INT8`.
pub(super) fn capabilities(device: &ort::device::Device<'_>) -> String {
    let api = ort::api();
    // SAFETY: the device belongs to the environment that lists it and lives as long; the pairs belong to the device.
    let pairs = unsafe { (api.EpDevice_EpMetadata)(device.ptr()) };
    if pairs.is_null() {
        return String::new();
    }
    // SAFETY: `pairs` is valid and the key is zero-terminated. The value lives as long as the pairs.
    let value = unsafe { (api.GetKeyValue)(pairs, c"OPTIMIZATION_CAPABILITIES".as_ptr()) };
    if value.is_null() {
        return String::new();
    }
    // SAFETY: a value that is not null is a zero-terminated string.
    unsafe { CStr::from_ptr(value) }.to_string_lossy().into_owned()
}
