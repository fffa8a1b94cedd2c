//! A gRPC client on one connection, which may also do what no client should.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Bytes;
use futures_util::{Stream, StreamExt as _};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use residual::grpc::proto::ModelInferRequest;
use residual::grpc::proto::grpc_inference_service_client::GrpcInferenceServiceClient;
use residual::grpc::proto::model_infer_request::InferInputTensor;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::body::Body;

pub(crate) const MODEL: &str = "resnet20-cifar10";
pub(crate) const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";
pub(crate) const STREAM: &str = "/inference.GRPCInferenceService/ModelStreamInfer";

/// One HTTP/2 connection. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Connection(SendRequest<Body>);

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> (Self, JoinHandle<()>) {
        Self::with(address, &Builder::new(TokioExecutor::new())).await
    }

    /// The task ends with the connection.
    pub(crate) async fn with(address: SocketAddr, builder: &Builder<TokioExecutor>) -> (Self, JoinHandle<()>) {
        Self::over(TcpStream::connect(address).await.unwrap(), builder).await
    }

    /// The same over whatever carries bytes.
    pub(crate) async fn over(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        builder: &Builder<TokioExecutor>,
    ) -> (Self, JoinHandle<()>) {
        let (send, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
        let ended = tokio::spawn(async move {
            let _ = connection.await;
        });
        (Self(send), ended)
    }

    /// Sends a call whose body is these pieces, as they come.
    pub(crate) async fn call(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Stream<Item = Bytes> + Send + 'static,
    ) -> Response<Incoming> {
        let mut request = Request::post(format!("http://residual{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let frames = body.map(|bytes| Ok::<_, Infallible>(Frame::data(bytes)));
        self.0.ready().await.unwrap();
        self.0.send_request(request.body(Body::new(StreamBody::new(frames))).unwrap()).await.unwrap()
    }

    /// The status of such a call, and its sentence.
    pub(crate) async fn status(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Stream<Item = Bytes> + Send + 'static,
    ) -> (tonic::Code, String) {
        let response = self.call(path, headers, body).await;
        let (head, body) = response.into_parts();
        let trailers = body.collect().await.unwrap().trailers().cloned().unwrap_or_default();
        let of = |name| head.headers.get(name).or(trailers.get(name)).map(|value| value.to_str().unwrap().to_owned());
        let code = tonic::Code::from_bytes(of("grpc-status").unwrap_or_default().as_bytes());
        (code, of("grpc-message").unwrap_or_default().replace("%20", " "))
    }
}

impl tower::Service<Request<Body>> for Connection {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

pub(crate) fn origin() -> hyper::Uri {
    "http://residual".parse().unwrap()
}

/// A client of the inference service.
pub(crate) async fn client(address: SocketAddr) -> GrpcInferenceServiceClient<Connection> {
    GrpcInferenceServiceClient::with_origin(Connection::open(address).await.0, origin())
}

/// A message with its head.
pub(crate) fn framed(message: &[u8]) -> Vec<u8> {
    let mut framed = vec![0];
    framed.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
    framed.extend_from_slice(message);
    framed
}

/// The whole body of a call with one message.
pub(crate) fn whole(message: &impl Message) -> impl Stream<Item = Bytes> + Send + 'static {
    pieces([framed(&message.encode_to_vec())])
}

/// A body of these pieces, and then its end.
pub(crate) fn pieces(pieces: impl IntoIterator<Item = Vec<u8>>) -> impl Stream<Item = Bytes> + Send + 'static {
    futures_util::stream::iter(pieces.into_iter().map(Bytes::from).collect::<Vec<_>>())
}

/// A body of these pieces, and then silence.
pub(crate) fn stalling(first: impl IntoIterator<Item = Vec<u8>>) -> impl Stream<Item = Bytes> + Send + 'static {
    pieces(first).chain(futures_util::stream::pending())
}

/// A body of these pieces, which ends when `end` does.
pub(crate) fn until(
    first: impl IntoIterator<Item = Vec<u8>>,
    end: oneshot::Receiver<Infallible>,
) -> impl Stream<Item = Bytes> + Send + 'static {
    pieces(first).chain(futures_util::stream::once(end).filter_map(async |_| None))
}

/// So many samples for the built-in model, each of one value.
pub(crate) fn samples(values: &[f32]) -> ModelInferRequest {
    let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes().repeat(3 * 32 * 32)).collect();
    let input = input("input", "FP32", &[i64::try_from(values.len()).unwrap(), 3, 32, 32]);
    ModelInferRequest {
        model_name: MODEL.to_owned(),
        inputs: vec![input],
        raw_input_contents: vec![raw.into()],
        ..Default::default()
    }
}

/// Photos for the photo side of the built-in model.
pub(crate) fn photos(photos: &[&[u8]]) -> ModelInferRequest {
    let mut raw = Vec::new();
    for photo in photos {
        raw.extend_from_slice(&u32::try_from(photo.len()).unwrap().to_le_bytes());
        raw.extend_from_slice(photo);
    }
    ModelInferRequest {
        model_name: format!("{MODEL}_image"),
        inputs: vec![input("image", "BYTES", &[i64::try_from(photos.len()).unwrap(), 1])],
        raw_input_contents: vec![raw.into()],
        ..Default::default()
    }
}

pub(crate) fn input(name: &str, datatype: &str, shape: &[i64]) -> InferInputTensor {
    InferInputTensor {
        name: name.to_owned(),
        datatype: datatype.to_owned(),
        shape: shape.to_vec(),
        ..Default::default()
    }
}
