//! The description of all routes, OpenAPI 3.1: what each takes and answers, with schemas made of the types that the code
//! reads and writes.

mod document;
mod operation;
mod packed;
mod page;
mod schemas;

pub(super) use document::{Document, Security};
pub(super) use operation::Operation;
pub(super) use page::routes;
