//! `inference.GRPCInferenceService`: each call is one of the protocol's.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

use super::Grpc;
use super::arrived::{Arrived, Decoded};
use super::call::Call;
use super::proto::grpc_inference_service_server::GrpcInferenceService;
use super::proto::model_repository_parameter::ParameterChoice;
use super::proto::{
    ModelConfigRequest, ModelConfigResponse, ModelInferRequest, ModelInferResponse, ModelMetadataRequest,
    ModelMetadataResponse, ModelReadyRequest, ModelReadyResponse, ModelStatisticsRequest, ModelStatisticsResponse,
    ModelStreamInferResponse, RepositoryIndexRequest, RepositoryIndexResponse, RepositoryModelLoadRequest,
    RepositoryModelLoadResponse, RepositoryModelUnloadRequest, RepositoryModelUnloadResponse, ServerLiveRequest,
    ServerLiveResponse, ServerMetadataRequest, ServerMetadataResponse, ServerReadyRequest, ServerReadyResponse,
};
use super::{status, tensors};
use crate::guard::Admitted;
use crate::oip::{OipError, Parameter, Parameters};

/// Answers the calls.
#[derive(Debug)]
pub(super) struct Service(pub(super) Grpc);

#[tonic::async_trait]
impl GrpcInferenceService for Service {
    async fn server_live(&self, _: Request<ServerLiveRequest>) -> Result<Response<ServerLiveResponse>, Status> {
        Ok(Response::new(ServerLiveResponse { live: self.0.oip.is_live() }))
    }

    async fn server_ready(&self, _: Request<ServerReadyRequest>) -> Result<Response<ServerReadyResponse>, Status> {
        Ok(Response::new(ServerReadyResponse { ready: self.0.oip.is_ready() }))
    }

    async fn model_ready(&self, request: Request<ModelReadyRequest>) -> Result<Response<ModelReadyResponse>, Status> {
        let ModelReadyRequest { name, version } = request.get_ref();
        Ok(Response::new(ModelReadyResponse { ready: self.0.oip.is_model_ready(name, some(version)) }))
    }

    async fn server_metadata(
        &self,
        _: Request<ServerMetadataRequest>,
    ) -> Result<Response<ServerMetadataResponse>, Status> {
        Ok(Response::new(self.0.oip.server().into()))
    }

    async fn model_metadata(
        &self,
        request: Request<ModelMetadataRequest>,
    ) -> Result<Response<ModelMetadataResponse>, Status> {
        let ModelMetadataRequest { name, version } = request.get_ref();
        let metadata = self.0.oip.metadata(name, some(version)).map_err(|error| status::of_oip(&error))?;
        Ok(Response::new(metadata.into()))
    }

    async fn model_infer(&self, request: Request<ModelInferRequest>) -> Result<Response<ModelInferResponse>, Status> {
        let call = call_of(&request);
        let decoded = self.0.decoded(call.take()).await?;
        let answer = self.0.infer(decoded, &call).await;
        answer.map(Response::new).map_err(|error| status::of_oip(&error))
    }

    type ModelStreamInferStream = Pin<Box<dyn Stream<Item = Result<ModelStreamInferResponse, Status>> + Send>>;

    async fn model_stream_infer(
        &self,
        request: Request<Streaming<ModelInferRequest>>,
    ) -> Result<Response<Self::ModelStreamInferStream>, Status> {
        let (grpc, call) = (self.0.clone(), call_of(&request));
        let admitted = request.extensions().get::<Admitted>().cloned();
        let beside = grpc.limits.stream_requests_max;
        let answers = request.into_inner().map(move |message| {
            let (grpc, call, arrived) = (grpc.clone(), call.clone(), call.take());
            let counted = admitted.as_ref().map_or(Ok(()), Admitted::again);
            async move {
                // A stream is no way around the rate; one that is above it ends.
                counted?;
                // A message that cannot be read ends the stream, after the answers to those before it.
                message?;
                Ok(grpc.infer_of_stream(grpc.decoded(arrived).await?, &call).await)
            }
        });
        // In the order of the requests; further ones are read when one is answered.
        Ok(Response::new(Box::pin(answers.buffered(beside))))
    }

    async fn model_config(
        &self,
        request: Request<ModelConfigRequest>,
    ) -> Result<Response<ModelConfigResponse>, Status> {
        let ModelConfigRequest { name, version } = request.get_ref();
        let config = self.0.oip.config(name, some(version)).map_err(|error| status::of_oip(&error))?;
        Ok(Response::new(ModelConfigResponse { config: Some(config.into()) }))
    }

    async fn model_statistics(
        &self,
        request: Request<ModelStatisticsRequest>,
    ) -> Result<Response<ModelStatisticsResponse>, Status> {
        let ModelStatisticsRequest { name, version } = request.get_ref();
        let models = self.0.oip.statistics(some(name), some(version)).map_err(|error| status::of_oip(&error))?;
        Ok(Response::new(ModelStatisticsResponse { model_stats: models.into_iter().map(Into::into).collect() }))
    }

    async fn repository_index(
        &self,
        request: Request<RepositoryIndexRequest>,
    ) -> Result<Response<RepositoryIndexResponse>, Status> {
        let models = self.0.oip.index(request.get_ref().ready);
        Ok(Response::new(RepositoryIndexResponse { models: models.into_iter().map(Into::into).collect() }))
    }

    async fn repository_model_load(
        &self,
        request: Request<RepositoryModelLoadRequest>,
    ) -> Result<Response<RepositoryModelLoadResponse>, Status> {
        let RepositoryModelLoadRequest { repository_name: _, model_name, parameters } = request.into_inner();
        let value = |choice| match choice {
            Some(ParameterChoice::BoolParam(value)) => Parameter::Bool(value),
            Some(ParameterChoice::Int64Param(value)) => Parameter::Int(value),
            Some(ParameterChoice::StringParam(value)) => Parameter::Text(value),
            // Files of a model: whatever they hold, they are refused.
            Some(ParameterChoice::BytesParam(_)) | None => Parameter::Text(String::new()),
        };
        let parameters: Parameters =
            parameters.into_iter().map(|(name, parameter)| (name, value(parameter.parameter_choice))).collect();
        self.0.oip.load(&model_name, &parameters).await.map_err(|error| status::of_oip(&error))?;
        Ok(Response::new(RepositoryModelLoadResponse {}))
    }

    async fn repository_model_unload(
        &self,
        request: Request<RepositoryModelUnloadRequest>,
    ) -> Result<Response<RepositoryModelUnloadResponse>, Status> {
        // `unload_dependents`, the one parameter there is, asks for nothing: models here depend on no others.
        self.0.oip.unload(&request.get_ref().model_name).await.map_err(|error| status::of_oip(&error))?;
        Ok(Response::new(RepositoryModelUnloadResponse {}))
    }
}

impl Grpc {
    /// The request that has come with the call.
    async fn decoded(&self, arrived: Option<Arrived>) -> Result<Decoded, Status> {
        let arrived = arrived.ok_or_else(status::no_request)?;
        Ok(arrived.decoded(&self.pool, self.limits.body_timeout).await?)
    }

    /// One request, whichever call it came by.
    async fn infer(&self, decoded: Decoded, call: &Call) -> Result<ModelInferResponse, OipError> {
        // The share is held to the end: the tensors live as long.
        let Decoded { model, version, id: _, request, share: _share } = decoded;
        if let Ok(face) = self.oip.face(&model, some(&version)) {
            call.report(|report| report.model = Some(Arc::clone(face.engine().served())));
        }
        let answer = async {
            let (mut request, contents) = request?;
            request.deadline = call.deadline();
            let answer = self.oip.infer(request).await?;
            call.report(|report| report.times = report.times.max(answer.times));
            tensors::response(answer, contents)
        };
        let answer = answer.await;
        if let Err(OipError { cause: Some(cause), .. }) = &answer {
            call.report(|report| report.cause = Some(cause.clone()));
        }
        answer
    }

    /// One request of a stream: its error is its answer.
    async fn infer_of_stream(&self, decoded: Decoded, call: &Call) -> ModelStreamInferResponse {
        let (model_name, id) = (decoded.model.clone(), decoded.id.clone());
        match self.infer(decoded, call).await {
            Ok(answer) => ModelStreamInferResponse { error_message: String::new(), infer_response: Some(answer) },
            Err(error) => ModelStreamInferResponse {
                error_message: error.message,
                // A client with several requests in flight finds the one that failed by its id.
                infer_response: Some(ModelInferResponse { model_name, id, ..ModelInferResponse::default() }),
            },
        }
    }
}

/// The call of a request. Without the layer around it, a call with no deadline.
fn call_of<T>(request: &Request<T>) -> Call {
    request.extensions().get().cloned().unwrap_or_default()
}

/// Protobuf's texts are empty where nothing was said.
fn some(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}
