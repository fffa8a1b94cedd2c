//! Looks at the running models every second. Runs that hang are stopped; while a model does not answer, readiness is off, so
//! that a balancer looks elsewhere.

use std::time::Duration;

use futures_util::future::join_all;

use crate::models::{Handle, Models};
use crate::pipeline::Ailment;
use crate::shutdown::Lifecycle;

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(1);

/// Watches for ever. A run may take `stuck_after`.
pub(super) async fn watch(models: &Models, lifecycle: &Lifecycle, stuck_after: Duration) {
    loop {
        tokio::time::sleep(INTERVAL.min(stuck_after)).await;
        look(&models.ready(), lifecycle, stuck_after).await;
    }
}

/// Looks once, at all models beside each other: one that hangs must not hide another.
async fn look(models: &[Handle], lifecycle: &Lifecycle, stuck_after: Duration) {
    let found = join_all(models.iter().map(|model| model.check_up(stuck_after))).await;
    let ill = models.iter().zip(&found).find_map(|(model, ailment)| Some((model, ailment.as_ref()?)));
    let Some((model, ailment)) = ill else {
        if lifecycle.ails(None) {
            tracing::info!("every model answers again; the server is ready");
        }
        return;
    };
    let (model, version) = (model.spec().name.as_str(), model.spec().version.as_str());
    // A model that fails would fail again, and take those that answer with it.
    let restart_helps = found.iter().flatten().any(|ailment| !matches!(ailment, Ailment::Fails { .. }));
    if lifecycle.ails(Some((&format!("model {model:?}, version {version}: {ailment}"), restart_helps))) {
        let cause = match ailment {
            Ailment::Fails { cause, .. } => cause.as_str(),
            Ailment::Hangs { .. } | Ailment::Unattended { .. } => "",
        };
        tracing::error!(model, version, cause, "readiness is off: model {model:?}: {ailment}");
    }
}
