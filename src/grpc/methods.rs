//! The methods there are, read from the descriptors that reflection serves.

use std::collections::HashMap;
use std::sync::Arc;

use prost::Message as _;
use prost_types::FileDescriptorSet;

use super::proto;
use crate::guard::Access;

/// Every descriptor set whose services are served.
pub(super) const DESCRIPTORS: [&[u8]; 4] = [
    proto::DESCRIPTORS,
    tonic_health::pb::FILE_DESCRIPTOR_SET,
    tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
    tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
];
/// Requests with these messages carry tensors; all others are small.
const TENSORS: &str = ".inference.ModelInferRequest";

/// What calls are counted beside each other, each kind under the same bound: whoever holds all places of one kind keeps
/// nobody from the others, and probes ask by the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Requests carry tensors.
    Tensors,
    /// One small request, one answer.
    Brief,
    /// Small requests or answers for as long as somebody listens.
    Open,
}

/// What has to be known of a method before its messages are read.
#[derive(Debug, Clone)]
pub(super) struct Method {
    /// `/package.Service/Method`.
    pub path: Arc<str>,
    /// Requests come as long as the client likes.
    pub streams: bool,
    pub kind: Kind,
    /// Who may call it.
    pub access: Access,
}

/// Calls that tell whether the server answers, to everybody.
const PROBES: [&str; 4] = [
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
    "/inference.GRPCInferenceService/ServerLive",
    "/inference.GRPCInferenceService/ServerReady",
];

fn access(path: &str) -> Access {
    if PROBES.contains(&path) { Access::Probe } else { Access::Use }
}

/// All methods by their paths.
#[derive(Debug)]
pub(super) struct Methods(HashMap<Arc<str>, Method>);

impl Methods {
    pub(super) fn new() -> Self {
        let mut methods = HashMap::new();
        for descriptors in DESCRIPTORS {
            let files = FileDescriptorSet::decode(descriptors).expect("descriptors are compiled in").file;
            for file in files {
                for service in &file.service {
                    for method in &service.method {
                        let path: Arc<str> = format!("/{}.{}/{}", file.package(), service.name(), method.name()).into();
                        let streams = method.client_streaming();
                        let kind = match method.input_type() == TENSORS {
                            true => Kind::Tensors,
                            false if streams || method.server_streaming() => Kind::Open,
                            false => Kind::Brief,
                        };
                        methods.insert(Arc::clone(&path), Method { access: access(&path), path, streams, kind });
                    }
                }
            }
        }
        Self(methods)
    }

    pub(super) fn get(&self, path: &str) -> Option<&Method> {
        self.0.get(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_probe_is_a_method() {
        let methods = Methods::new();
        for probe in PROBES {
            assert_eq!(methods.get(probe).map(|method| method.access), Some(Access::Probe), "{probe}");
        }
        assert_eq!(methods.0.values().filter(|method| method.access == Access::Probe).count(), PROBES.len());
    }

    #[test]
    fn methods_are_known_with_what_they_take() {
        let methods = Methods::new();
        let of = |path: &str| methods.get(path).map(|method| (method.streams, method.kind));
        assert_eq!(of("/inference.GRPCInferenceService/ModelInfer"), Some((false, Kind::Tensors)));
        assert_eq!(of("/inference.GRPCInferenceService/ModelStreamInfer"), Some((true, Kind::Tensors)));
        assert_eq!(of("/inference.GRPCInferenceService/ServerLive"), Some((false, Kind::Brief)));
        assert_eq!(of("/grpc.health.v1.Health/Check"), Some((false, Kind::Brief)));
        assert_eq!(of("/grpc.health.v1.Health/Watch"), Some((false, Kind::Open)));
        assert_eq!(of("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"), Some((true, Kind::Open)));
        assert_eq!(of("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"), Some((true, Kind::Open)));
        assert_eq!(of("/inference.GRPCInferenceService/CudaSharedMemoryStatus"), None);
    }
}
