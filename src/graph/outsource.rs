//! Takes the weights out of a graph, so that several sessions can be made from one copy of them.

use bytes::Bytes;

use super::proto::{DataLocation, DataType, ModelProto, StringStringEntryProto};

/// One weight that was taken out.
#[derive(Debug, Clone)]
pub struct Weight {
    /// Name of the initializer.
    pub name: String,
    /// Type of its values.
    pub data_type: DataType,
    /// Its shape.
    pub dims: Vec<i64>,
    /// Its values, row-major and little-endian, as the file has them.
    pub bytes: Bytes,
}

/// Takes every initializer of `bytes_min` bytes and more out of `model` and leaves a note that it lies elsewhere, which
/// must be made good with the weight itself before the graph can be loaded. Smaller ones stay: shapes and axes are among
/// them, which a runtime reads while it loads.
pub fn take_weights(model: &mut ModelProto, bytes_min: usize) -> Vec<Weight> {
    let Some(graph) = &mut model.graph else { return Vec::new() };
    let mut weights = Vec::new();
    for tensor in &mut graph.initializer {
        let (Some(name), Ok(data_type)) = (&tensor.name, DataType::try_from(tensor.data_type())) else { continue };
        let Some(bytes) = tensor.raw_data.take_if(|bytes| bytes.len() >= bytes_min) else { continue };
        weights.push(Weight { name: name.clone(), data_type, dims: tensor.dims.clone(), bytes: bytes.clone() });
        let entry = |key: &str, value: String| StringStringEntryProto { key: Some(key.to_owned()), value: Some(value) };
        tensor.data_location = Some(DataLocation::External.into());
        tensor.external_data = vec![
            entry("location", "weights".to_owned()),
            entry("offset", "0".to_owned()),
            entry("length", bytes.len().to_string()),
        ];
    }
    weights
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::proto::{GraphProto, TensorProto};

    #[test]
    fn large_weights_go_and_small_ones_stay() {
        let tensor = |name: &str, len: usize| TensorProto {
            name: Some(name.to_owned()),
            dims: vec![i64::try_from(len / 4).unwrap()],
            data_type: Some(DataType::Float.into()),
            raw_data: Some(vec![7; len].into()),
            ..TensorProto::default()
        };
        let typed = TensorProto { float_data: vec![0.5; 1000], ..tensor("typed", 0) };
        let graph = GraphProto {
            initializer: vec![tensor("large", 4096), tensor("small", 16), TensorProto { raw_data: None, ..typed }],
            ..GraphProto::default()
        };
        let mut model = ModelProto { graph: Some(graph), ..ModelProto::default() };
        let weights = take_weights(&mut model, 1024);
        assert_eq!(weights.len(), 1);
        assert_eq!((weights[0].name.as_str(), weights[0].dims.as_slice()), ("large", &[1024][..]));
        assert_eq!((weights[0].data_type, weights[0].bytes.len()), (DataType::Float, 4096));
        let initializers = model.graph.unwrap().initializer;
        assert_eq!(initializers[0].data_location(), DataLocation::External);
        assert_eq!((initializers[0].raw_data.as_ref(), initializers[0].external_data.len()), (None, 3));
        assert_eq!(initializers[1].raw_data.as_deref(), Some(&[7; 16][..]));
        assert_eq!(initializers[2].float_data.len(), 1000, "values outside of raw_data stay where they are");
    }
}
