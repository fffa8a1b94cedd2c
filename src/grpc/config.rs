//! What a client may read about the server and its models, in protobuf.

use std::collections::HashMap;

use super::proto::model_config::SchedulingChoice;
use super::proto::model_instance_group::Kind;
use super::proto::model_version_policy::{All, PolicyChoice};
use super::proto::{self, DataType, model_input, model_metadata_response, repository_index_response};
use crate::oip::statistics::{BatchStatistics, Duration, InferenceStatistics};
use crate::oip::{IndexEntry, ModelConfig, ModelMetadata, ModelStatistics, ServerMetadata, TensorMetadata};

impl From<ServerMetadata> for proto::ServerMetadataResponse {
    fn from(server: ServerMetadata) -> Self {
        let extensions = server.extensions.into_iter().map(str::to_owned).collect();
        Self { name: server.name.to_owned(), version: server.version.to_owned(), extensions }
    }
}

impl From<ModelMetadata> for proto::ModelMetadataResponse {
    fn from(model: ModelMetadata) -> Self {
        let all = |tensors: Vec<TensorMetadata>| tensors.into_iter().map(Into::into).collect();
        Self {
            name: model.name,
            versions: model.versions,
            platform: model.platform.to_owned(),
            inputs: all(model.inputs),
            outputs: all(model.outputs),
        }
    }
}

impl From<TensorMetadata> for model_metadata_response::TensorMetadata {
    fn from(tensor: TensorMetadata) -> Self {
        Self { name: tensor.name, datatype: tensor.datatype.name().to_owned(), shape: tensor.shape }
    }
}

impl From<ModelConfig> for proto::ModelConfig {
    fn from(config: ModelConfig) -> Self {
        let batching = proto::ModelDynamicBatching {
            preferred_batch_size: config.dynamic_batching.preferred_batch_size.into_iter().map(whole).collect(),
            max_queue_delay_microseconds: config.dynamic_batching.max_queue_delay_microseconds,
            ..Default::default()
        };
        let inputs = config.input.into_iter().map(|input| proto::ModelInput {
            name: input.name,
            data_type: data_type(input.data_type),
            format: model_input::Format::from_str_name(input.format).unwrap_or_default().into(),
            dims: input.dims,
        });
        let outputs = config.output.into_iter().map(|output| proto::ModelOutput {
            name: output.name,
            data_type: data_type(output.data_type),
            dims: output.dims,
            label_filename: output.label_filename.to_owned(),
        });
        let groups = config.instance_group.into_iter().map(|group| proto::ModelInstanceGroup {
            name: group.name,
            count: whole(group.count),
            gpus: Vec::new(),
            kind: Kind::from_str_name(group.kind).unwrap_or_default().into(),
        });
        Self {
            name: config.name,
            platform: config.platform.to_owned(),
            backend: config.backend.to_owned(),
            version_policy: Some(proto::ModelVersionPolicy { policy_choice: Some(PolicyChoice::All(All {})) }),
            max_batch_size: whole(config.max_batch_size),
            input: inputs.collect(),
            output: outputs.collect(),
            instance_group: groups.collect(),
            default_model_filename: config.default_model_filename.to_owned(),
            parameters: HashMap::new(),
            model_transaction_policy: Some(proto::ModelTransactionPolicy {
                decoupled: config.model_transaction_policy.decoupled,
            }),
            scheduling_choice: Some(SchedulingChoice::DynamicBatching(batching)),
        }
    }
}

impl From<ModelStatistics> for proto::ModelStatistics {
    fn from(model: ModelStatistics) -> Self {
        Self {
            name: model.name,
            version: model.version,
            last_inference: model.last_inference,
            inference_count: model.inference_count,
            execution_count: model.execution_count,
            inference_stats: Some(model.inference_stats.into()),
            batch_stats: model.batch_stats.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<InferenceStatistics> for proto::InferStatistics {
    fn from(sums: InferenceStatistics) -> Self {
        Self {
            success: Some(sums.success.into()),
            fail: Some(sums.fail.into()),
            queue: Some(sums.queue.into()),
            compute_input: Some(sums.compute_input.into()),
            compute_infer: Some(sums.compute_infer.into()),
            compute_output: Some(sums.compute_output.into()),
            cache_hit: Some(sums.cache_hit.into()),
            cache_miss: Some(sums.cache_miss.into()),
        }
    }
}

impl From<BatchStatistics> for proto::InferBatchStatistics {
    fn from(batch: BatchStatistics) -> Self {
        Self {
            batch_size: batch.batch_size as u64,
            compute_input: Some(batch.compute_input.into()),
            compute_infer: Some(batch.compute_infer.into()),
            compute_output: Some(batch.compute_output.into()),
        }
    }
}

impl From<Duration> for proto::StatisticDuration {
    fn from(Duration { count, ns }: Duration) -> Self {
        Self { count, ns }
    }
}

impl From<IndexEntry> for repository_index_response::ModelIndex {
    fn from(entry: IndexEntry) -> Self {
        Self { name: entry.name, version: entry.version, state: entry.state.to_owned(), reason: entry.reason }
    }
}

/// `TYPE_FP32` as its number.
fn data_type(name: &str) -> i32 {
    DataType::from_str_name(name).unwrap_or_default().into()
}

/// A small number as protobuf has it.
fn whole(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oip::Datatype;

    #[test]
    fn every_name_of_a_configuration_is_one_of_protobufs() {
        for name in ["BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "BF16"] {
            let config_name = Datatype::named(name).unwrap().config_name();
            assert_eq!(DataType::from_str_name(config_name).unwrap().as_str_name(), config_name);
        }
        for name in ["FP32", "FP64", "BYTES"] {
            assert_ne!(data_type(Datatype::named(name).unwrap().config_name()), DataType::TypeInvalid as i32);
        }
        for format in ["FORMAT_NCHW", "FORMAT_NHWC", "FORMAT_NONE"] {
            assert!(model_input::Format::from_str_name(format).is_some());
        }
        for kind in ["KIND_CPU", "KIND_GPU"] {
            assert!(Kind::from_str_name(kind).is_some());
        }
    }
}
