//! `grpc.health.v1`: whether the server takes requests, asked once or watched.

use std::pin::Pin;

use futures_util::{Stream, stream};
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_server};

use super::proto::grpc_inference_service_server::SERVICE_NAME;
use super::status;
use crate::shutdown::{Phase, Phases};

/// The whole server, as the health protocol names it.
const SERVER: &str = "";

/// Answers from the server's phase.
#[derive(Debug)]
pub(super) struct Health(pub(super) Phases);

#[tonic::async_trait]
impl health_server::Health for Health {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let service = &request.get_ref().service;
        if is_known(service) {
            Ok(Response::new(said(serving(&self.0))))
        } else {
            Err(status::unknown_service(service))
        }
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let (phases, known) = (self.0.clone(), is_known(&request.get_ref().service));
        Ok(Response::new(Box::pin(stream::unfold(Watch::Begin(phases), move |watch| watch.next(known)))))
    }
}

/// Where a watch is.
enum Watch {
    /// Nothing was said yet.
    Begin(Phases),
    /// This was said.
    Told(Phases, ServingStatus),
    /// The call has ended.
    Ended,
}

impl Watch {
    /// The next thing to say, once there is one. A service that is not known may become known, says the protocol; here
    /// none ever does.
    async fn next(self, known: bool) -> Option<(Result<HealthCheckResponse, Status>, Self)> {
        let status = |phases: &Phases| if known { serving(phases) } else { ServingStatus::ServiceUnknown };
        let (mut phases, told) = match self {
            Self::Begin(phases) => {
                let status = status(&phases);
                return Some((Ok(said(status)), Self::Told(phases, status)));
            }
            Self::Told(phases, told) => (phases, told),
            Self::Ended => return None,
        };
        while phases.now() < Phase::Draining {
            let status = status(&phases);
            if status != told {
                return Some((Ok(said(status)), Self::Told(phases, status)));
            }
            if !phases.changed().await {
                break;
            }
        }
        // Whoever watches would keep its connection open.
        Some((Err(status::shutting_down()), Self::Ended))
    }
}

fn is_known(service: &str) -> bool {
    service == SERVER || service == SERVICE_NAME
}

fn serving(phases: &Phases) -> ServingStatus {
    if phases.is_ready() { ServingStatus::Serving } else { ServingStatus::NotServing }
}

fn said(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;
    use tonic::Code;
    use tonic_health::pb::health_server::Health as _;

    use super::*;
    use crate::shutdown::Lifecycle;

    async fn watched(lifecycle: &Lifecycle, service: &str) -> <Health as health_server::Health>::WatchStream {
        let request = HealthCheckRequest { service: service.to_owned() };
        Health(lifecycle.phases()).watch(Request::new(request)).await.unwrap().into_inner()
    }

    #[tokio::test]
    async fn a_watch_tells_each_change_and_ends_with_the_server() {
        let lifecycle = Lifecycle::new();
        let mut watch = watched(&lifecycle, SERVICE_NAME).await;
        let mut next = async || watch.next().await.unwrap().map(|said| said.status());
        assert_eq!(next().await.unwrap(), ServingStatus::NotServing);
        lifecycle.advance(Phase::Ready);
        assert_eq!(next().await.unwrap(), ServingStatus::Serving);
        assert!(lifecycle.ails(Some(("a run hangs", true))));
        assert_eq!(next().await.unwrap(), ServingStatus::NotServing);
        assert!(lifecycle.ails(None));
        assert_eq!(next().await.unwrap(), ServingStatus::Serving);
        lifecycle.advance(Phase::Leaving);
        assert_eq!(next().await.unwrap(), ServingStatus::NotServing);
        lifecycle.advance(Phase::Draining);
        assert_eq!(next().await.unwrap_err().code(), Code::Unavailable);
        assert!(watch.next().await.is_none());
    }

    #[tokio::test]
    async fn an_unknown_service_is_not_found_and_stays_unknown() {
        let lifecycle = Lifecycle::new();
        let request = HealthCheckRequest { service: "other".to_owned() };
        let refused = Health(lifecycle.phases()).check(Request::new(request)).await.unwrap_err();
        assert_eq!(refused.code(), Code::NotFound);
        let mut watch = watched(&lifecycle, "other").await;
        assert_eq!(watch.next().await.unwrap().unwrap().status(), ServingStatus::ServiceUnknown);
        lifecycle.advance(Phase::Draining);
        assert!(watch.next().await.unwrap().is_err());
    }
}
