//! Any bytes are a model or an error: no panic, no stack overflow, and no more memory than the bounds allow (libFuzzer's
//! own limits on memory and time are the judges).

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use residual::graph::{decode, external_data, summarise};

fuzz_target!(|data: &[u8]| {
    if let Ok(model) = decode(Bytes::copy_from_slice(data)) {
        let summary = summarise(&model, None);
        assert!(summary.stages.iter().flat_map(|stage| &stage.blocks).count() <= data.len());
        // What was decoded has been checked.
        external_data(&model).expect("decode checks every reference to external data");
    }
});
