//! Residual from outside: the real server on a free port, the real binary, real HTTP. One binary, so that the runtime
//! library is loaded once.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod bad_input;
mod classify;
mod cli;
mod collector;
mod convert;
mod edge;
mod evidence;
mod grpc;
mod huggingface;
mod inspect;
mod layering;
mod lifecycle;
mod limits;
mod logs;
mod metadata;
mod models;
mod oip;
mod overload;
mod published;
mod pull;
mod reference;
mod repository;
mod sagemaker;
mod security;
mod support;
mod synth;
mod tfs;
mod torchserve;
mod traces;
mod tune;
mod vertex;
