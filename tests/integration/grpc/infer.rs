//! Tensors and photos in, scores out, and what a model tells about itself.

use std::collections::HashMap;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use residual::grpc::proto::infer_parameter::ParameterChoice;
use residual::grpc::proto::model_infer_request::InferRequestedOutputTensor;
use residual::grpc::proto::{
    InferParameter, InferTensorContents, ModelConfigRequest, ModelInferRequest, ModelInferResponse,
    ModelMetadataRequest, ModelReadyRequest, ModelStatisticsRequest, RepositoryIndexRequest,
    RepositoryModelLoadRequest, RepositoryModelUnloadRequest, ServerLiveRequest, ServerMetadataRequest,
    ServerReadyRequest,
};
use tonic::Code;

use super::client::{MODEL, client, input, photos, samples};
use crate::support::{TestServer, photo};

fn parameter(choice: ParameterChoice) -> InferParameter {
    InferParameter { parameter_choice: Some(choice) }
}

/// The scores of an answer with raw contents. `[images,10]`
fn scores(answer: &ModelInferResponse) -> Vec<[f32; 10]> {
    let values: Vec<f32> =
        answer.raw_output_contents[0].chunks(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect();
    values.chunks(10).map(|image| image.try_into().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_tells_what_it_takes_and_how_it_is_served() {
    let server = TestServer::start(&[]).await;
    let mut client = client(server.grpc_address()).await;
    assert!(client.server_live(ServerLiveRequest {}).await.unwrap().into_inner().live);
    assert!(client.server_ready(ServerReadyRequest {}).await.unwrap().into_inner().ready);
    for (name, version, ready) in [(MODEL, "", true), (MODEL, "1", true), (MODEL, "2", false), ("other", "", false)] {
        let request = ModelReadyRequest { name: name.to_owned(), version: version.to_owned() };
        assert_eq!(client.model_ready(request).await.unwrap().into_inner().ready, ready, "{name} {version:?}");
    }
    let about = client.server_metadata(ServerMetadataRequest {}).await.unwrap().into_inner();
    assert_eq!(about.name, "residual");
    assert!(about.extensions.iter().any(|extension| extension == "statistics"));
    let request = ModelMetadataRequest { name: MODEL.to_owned(), version: String::new() };
    let metadata = client.model_metadata(request).await.unwrap().into_inner();
    let tensor = &metadata.inputs[0];
    assert_eq!((tensor.name.as_str(), tensor.datatype.as_str()), ("input", "FP32"));
    assert_eq!(tensor.shape, [-1, 3, 32, 32]);
    assert_eq!((metadata.outputs.len(), metadata.outputs[0].shape.as_slice()), (1, &[-1, 10][..]));
    let request = ModelConfigRequest { name: format!("{MODEL}_image"), version: String::new() };
    let config = client.model_config(request).await.unwrap().into_inner().config.unwrap();
    assert_eq!((config.max_batch_size, config.input[0].dims.as_slice()), (32, &[1][..]));
    assert_eq!(config.output.len(), 3);
    let request = RepositoryIndexRequest { ready: true, ..Default::default() };
    let index = client.repository_index(request).await.unwrap().into_inner().models;
    assert_eq!(index.iter().map(|model| model.state.as_str()).collect::<Vec<_>>(), ["READY", "READY"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn typed_contents_give_what_raw_ones_give_and_come_back_typed() {
    let server = TestServer::start(&[]).await;
    let mut client = client(server.grpc_address()).await;
    let mut request = samples(&[0.25, -1.5]);
    request.id = "mine".to_owned();
    request.parameters.insert("note".to_owned(), parameter(ParameterChoice::Uint64Param(7)));
    let raw = client.model_infer(request.clone()).await.unwrap().into_inner();
    assert_eq!((raw.id.as_str(), raw.model_name.as_str(), raw.model_version.as_str()), ("mine", MODEL, "1"));
    assert_eq!(raw.parameters, request.parameters);
    assert_eq!(raw.outputs[0].shape, [2, 10]);
    assert!(raw.outputs[0].contents.is_none());
    let fp32_contents = [0.25, -1.5].iter().flat_map(|&value| vec![value; 3 * 32 * 32]).collect();
    request.raw_input_contents.clear();
    request.inputs[0].contents = Some(InferTensorContents { fp32_contents, ..Default::default() });
    let typed = client.model_infer(request).await.unwrap().into_inner();
    assert!(typed.raw_output_contents.is_empty());
    assert_eq!(typed.outputs[0].contents.as_ref().unwrap().fp32_contents, scores(&raw).concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_photo_gets_the_classes_that_the_native_api_gives() {
    let server = TestServer::start(&[]).await;
    let mut client = client(server.grpc_address()).await;
    let cat = photo("cat.jpg");
    let answer = client.model_infer(photos(&[&cat, &cat])).await.unwrap().into_inner();
    assert_eq!(
        answer.outputs.iter().map(|output| output.name.as_str()).collect::<Vec<_>>(),
        ["probabilities", "class_index", "label"]
    );
    let native = server.classify(cat.clone()).await;
    let best = native.json["predictions"][0]["score"].as_f64().unwrap();
    for image in scores(&answer) {
        assert!((f64::from(image.iter().copied().fold(0.0, f32::max)) - best).abs() < 1e-5, "{image:?} and {best}");
    }
    assert_eq!(answer.raw_output_contents[1], [3_i64.to_le_bytes(), 3_i64.to_le_bytes()].concat());
    assert_eq!(answer.raw_output_contents[2], &b"\x03\0\0\0cat\x03\0\0\0cat"[..]);
    // As KServe's clients send it: typed, and back.
    let mut typed = photos(&[]);
    typed.raw_input_contents.clear();
    typed.inputs[0].shape = vec![1];
    typed.inputs[0].contents = Some(InferTensorContents { bytes_contents: vec![cat.into()], ..Default::default() });
    let answer = client.model_infer(typed).await.unwrap().into_inner();
    let contents = |index: usize| answer.outputs[index].contents.clone().unwrap();
    assert_eq!(contents(1).int64_contents, [3]);
    assert_eq!(contents(2).bytes_contents, ["cat"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_best_classes_come_as_texts_where_they_are_asked_for() {
    let server = TestServer::start(&[]).await;
    let mut client = client(server.grpc_address()).await;
    for choice in [ParameterChoice::Int64Param(2), ParameterChoice::Uint64Param(2)] {
        let mut request = photos(&[&photo("cat.jpg")]);
        request.outputs = vec![InferRequestedOutputTensor {
            name: "probabilities".to_owned(),
            parameters: HashMap::from([("classification".to_owned(), parameter(choice))]),
        }];
        let answer = client.model_infer(request).await.unwrap().into_inner();
        assert_eq!((answer.outputs[0].datatype.as_str(), answer.outputs[0].shape.as_slice()), ("BYTES", &[1, 2][..]));
        let text = String::from_utf8_lossy(&answer.raw_output_contents[0]);
        assert!(text.contains(":3:cat"), "{text:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_request_is_said_and_nothing_else_happens() {
    let server = TestServer::start(&[]).await;
    let mut client = client(server.grpc_address()).await;
    let of = |change: fn(&mut ModelInferRequest)| {
        let mut request = samples(&[0.0]);
        change(&mut request);
        request
    };
    for (request, code, says) in [
        (of(|r| r.model_name = "other".to_owned()), Code::NotFound, "there is no model \"other\""),
        (of(|r| r.model_version = "7".to_owned()), Code::NotFound, "no version \"7\""),
        (of(|r| r.model_version = "new".to_owned()), Code::NotFound, "no version \"new\""),
        (of(|r| r.inputs[0].name = "data".to_owned()), Code::InvalidArgument, "takes one input, \"input\""),
        (of(|r| r.inputs[0].datatype = "FLOAT".to_owned()), Code::InvalidArgument, "no datatype \"FLOAT\""),
        (of(|r| r.inputs[0].datatype = "INT64".to_owned()), Code::InvalidArgument, "is INT64, expected FP32"),
        (of(|r| r.inputs[0].shape = vec![1, 32, 32, 3]), Code::InvalidArgument, "expected [-1, 3, 32, 32]"),
        (of(|r| r.inputs[0].shape = vec![]), Code::InvalidArgument, "has shape []"),
        (of(|r| r.inputs[0].shape[0] = -1), Code::InvalidArgument, "the batch is -1"),
        (of(|r| r.inputs[0].shape[0] = 0), Code::InvalidArgument, "the batch is 0"),
        (of(|r| r.inputs[0].shape[0] = i64::MAX), Code::InvalidArgument, "at most 32 are allowed"),
        (of(|r| r.inputs[0].shape[0] = 33), Code::InvalidArgument, "at most 32 are allowed"),
        (of(|r| r.inputs[0].shape[0] = 2), Code::InvalidArgument, "has 12288 bytes"),
        (of(|r| r.raw_input_contents.push("x".into())), Code::InvalidArgument, "2 raw contents for 1 input(s)"),
        (of(|r| r.inputs.push(input("more", "FP32", &[1]))), Code::InvalidArgument, "1 raw contents for 2 input(s)"),
        (of(|r| r.inputs.clear()), Code::InvalidArgument, "1 raw contents for 0 input(s)"),
        (
            of(|r| {
                r.inputs.clear();
                r.raw_input_contents.clear();
            }),
            Code::InvalidArgument,
            "the request has none",
        ),
        (
            of(|r| {
                r.inputs[0].contents = Some(InferTensorContents { fp32_contents: vec![1.0], ..Default::default() });
            }),
            Code::InvalidArgument,
            "send one of them",
        ),
        (
            of(|r| {
                r.raw_input_contents.clear();
                r.inputs[0].contents = Some(InferTensorContents { fp64_contents: vec![1.0], ..Default::default() });
            }),
            Code::InvalidArgument,
            "belong into fp32_contents; the request has fp64_contents",
        ),
        (
            of(|r| {
                r.raw_input_contents.clear();
                r.inputs[0].datatype = "FP16".to_owned();
            }),
            Code::InvalidArgument,
            "send raw contents",
        ),
        (
            of(|r| {
                r.raw_input_contents.clear();
                r.inputs[0].datatype = "UINT8".to_owned();
                r.inputs[0].contents = Some(InferTensorContents { uint_contents: vec![256], ..Default::default() });
            }),
            Code::InvalidArgument,
            "a value of 256, which UINT8 cannot be",
        ),
        (
            of(|r| {
                let region = parameter(ParameterChoice::StringParam("mine".to_owned()));
                r.inputs[0].parameters.insert("shared_memory_region".to_owned(), region);
            }),
            Code::InvalidArgument,
            "shared memory is not offered",
        ),
        (
            of(|r| {
                r.parameters.insert("empty".to_owned(), InferParameter::default());
            }),
            Code::InvalidArgument,
            "\"empty\" has no value",
        ),
        (
            of(|r| {
                r.parameters.insert("timeout".to_owned(), parameter(ParameterChoice::Int64Param(-5)));
            }),
            Code::InvalidArgument,
            "whole number of microseconds",
        ),
        (
            of(|r| r.outputs = vec![InferRequestedOutputTensor { name: "x".to_owned(), ..Default::default() }]),
            Code::InvalidArgument,
            "no output \"x\"",
        ),
        (samples(&[1.0, f32::NAN]), Code::InvalidArgument, "image 1: a value is NaN"),
        (samples(&[f32::INFINITY]), Code::InvalidArgument, "must be finite"),
        (photos(&[b"no photo"]), Code::InvalidArgument, "image"),
        (photos(&[b""]), Code::InvalidArgument, "image"),
        (photos(&[]), Code::InvalidArgument, "the batch is 0"),
    ] {
        let refused = client.model_infer(request.clone()).await.expect_err(says);
        assert_eq!(refused.code(), code, "{says}: {refused:?}");
        assert!(refused.message().contains(says), "{says}: {}", refused.message());
        assert!(refused.metadata().contains_key("residual-code"), "{refused:?}");
        assert!(refused.metadata().contains_key("x-request-id"), "{refused:?}");
    }
    server.until_metric("residual_upload_memory_bytes", 0.0).await;
    assert_eq!(server.metric("residual_requests_in_flight").await, 1.0, "only the metrics page itself");
    client.model_infer(samples(&[0.0])).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn many_requests_at_once_share_batches_and_get_their_own_answers() {
    let server = TestServer::start(&[]).await;
    let client = client(server.grpc_address()).await;
    let values: Vec<f32> = (0..100_u8).map(|n| f32::from(n) / 50.0).collect();
    let each = values.iter().map(|&value| {
        let mut client = client.clone();
        async move { scores(&client.model_infer(samples(&[value])).await.unwrap().into_inner()) }
    });
    let answers = join_all(each).await;
    let mut client = client;
    let together = scores(&client.model_infer(samples(&values[..32])).await.unwrap().into_inner());
    for (index, expected) in together.iter().enumerate() {
        for (a, b) in answers[index][0].iter().zip(expected) {
            // Batches of other sizes add in another order.
            assert!((a - b).abs() < 1e-3, "image {index}: {a} and {b}");
        }
    }
    assert_ne!(answers[0], answers[99]);
    let request = ModelStatisticsRequest { name: MODEL.to_owned(), version: String::new() };
    let statistics = client.model_statistics(request).await.unwrap().into_inner().model_stats;
    assert_eq!((statistics.len(), statistics[0].inference_count), (1, 132));
    assert!(statistics[0].execution_count < 132, "{:?}", statistics[0].batch_stats);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_answered_in_order_and_goes_on_after_an_error() {
    let server = TestServer::start(&[]).await;
    let mut client = client(server.grpc_address()).await;
    let requests = (0..100).map(|n| {
        let mut request = samples(&[1.0]);
        request.id = n.to_string();
        if n % 10 == 3 {
            request.model_name = "other".to_owned();
        }
        request
    });
    let requests = futures_util::stream::iter(requests.collect::<Vec<_>>());
    let answers = client.model_stream_infer(requests).await.unwrap().into_inner();
    let answers: Vec<_> = answers.map(Result::unwrap).collect().await;
    assert_eq!(answers.len(), 100);
    for (n, answer) in answers.iter().enumerate() {
        let response = answer.infer_response.as_ref().unwrap();
        assert_eq!(response.id, n.to_string());
        assert_eq!(answer.error_message.contains("no model \"other\""), n % 10 == 3, "{n}: {}", answer.error_message);
        assert_eq!(response.outputs.len(), usize::from(n % 10 != 3));
    }
    server.until_metric("residual_upload_memory_bytes", 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn models_come_and_go_where_clients_may_control_them() {
    let server = TestServer::start(&[]).await;
    let mut client = client(server.grpc_address()).await;
    let ready = ModelReadyRequest { name: MODEL.to_owned(), version: String::new() };
    let unload = RepositoryModelUnloadRequest { model_name: MODEL.to_owned(), ..Default::default() };
    client.repository_model_unload(unload).await.unwrap();
    assert!(!client.model_ready(ready.clone()).await.unwrap().into_inner().ready);
    let load = RepositoryModelLoadRequest { model_name: MODEL.to_owned(), ..Default::default() };
    client.repository_model_load(load.clone()).await.unwrap();
    assert!(client.model_ready(ready).await.unwrap().into_inner().ready);
    let mut other = load.clone();
    other.model_name = "other".to_owned();
    assert_eq!(client.repository_model_load(other).await.unwrap_err().code(), Code::NotFound);
    let mut with_files = load;
    with_files.parameters.insert("file:1/model.onnx".to_owned(), Default::default());
    let refused = client.repository_model_load(with_files).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented, "{}", refused.message());
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_may_not_control_models_where_the_operator_says_so() {
    let server = TestServer::start(&["--model-control", "off"]).await;
    let mut client = client(server.grpc_address()).await;
    let unload = RepositoryModelUnloadRequest { model_name: MODEL.to_owned(), ..Default::default() };
    assert_eq!(client.repository_model_unload(unload).await.unwrap_err().code(), Code::PermissionDenied);
}
