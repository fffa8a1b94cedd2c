//! The models there are, and loading and unloading them by name.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;

use super::{ErrorKind, Face, IMAGE_SUFFIX, ModelControl, Oip, OipError, Parameters, image_name};
use crate::models::{Changes, LoadError, Models, State};

/// One version of one face of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct IndexEntry {
    /// The face's name.
    pub name: String,
    /// The version.
    pub version: String,
    /// `READY`, `LOADING` or `UNAVAILABLE`.
    pub state: &'static str,
    /// Why it is not ready.
    pub reason: String,
}

impl Oip {
    /// Every version of both faces of every model; with `ready`, only those that answer.
    #[must_use]
    pub fn index(&self, ready: bool) -> Vec<IndexEntry> {
        let rows = self.models.rows();
        let taken = |name: &str| rows.iter().any(|row| row.name == name);
        let mut entries = Vec::with_capacity(rows.len() * 2);
        for row in rows.iter().filter(|row| !ready || row.state == State::Ready) {
            let (state, reason) = match row.state {
                State::Ready => ("READY", ""),
                State::Loading => ("LOADING", ""),
                State::Unavailable => ("UNAVAILABLE", "it could not be loaded; the server's log says why"),
            };
            let entry =
                |name: String| IndexEntry { name, version: row.version.to_string(), state, reason: reason.to_owned() };
            entries.push(entry(row.name.clone()));
            entries.extend(Some(image_name(&row.name)).filter(|name| !taken(name)).map(entry));
        }
        for (name, version) in self.models.unloaded().into_iter().filter(|_| !ready) {
            let version = version.to_string();
            entries.push(IndexEntry { name, version, state: "UNAVAILABLE", reason: "unloaded".to_owned() });
        }
        entries
    }

    /// Loads a model's versions from its place, also if nothing has changed. Returns when they serve.
    ///
    /// # Errors
    /// [`OipError`] if clients may not, there is no such model, or it cannot be loaded: then what served before serves on.
    pub async fn load(&self, name: &str, parameters: &Parameters) -> Result<(), OipError> {
        if let Some((parameter, _)) = parameters.iter().next() {
            return Err(OipError::new(
                ErrorKind::Unsupported,
                "unsupported_parameter",
                format!(
                    "parameter {parameter:?} is not offered: models are loaded from the places that the server was started \
                     with, and take no configuration or files from requests"
                ),
            ));
        }
        self.change(name, Models::load).await
    }

    /// Stops serving a model until it is loaded again. Requests in flight are answered.
    ///
    /// # Errors
    /// [`OipError`] if clients may not, or no such model is served.
    pub async fn unload(&self, name: &str) -> Result<(), OipError> {
        self.change(name, Models::unload).await
    }

    /// Whether clients may load and unload models, and the server takes requests now. To ask before a body is read.
    ///
    /// # Errors
    /// [`OipError`] if not.
    pub fn may_change(&self) -> Result<(), OipError> {
        self.admit()?;
        let instead = match self.limits.model_control {
            ModelControl::Here => return Ok(()),
            ModelControl::OnAdminPort => "ask the port of its operators, --admin-port",
            ModelControl::Off => "start the server with --model-control on",
        };
        let message = format!("clients may not load or unload models here; {instead}");
        Err(OipError::new(ErrorKind::Forbidden, "model_control_off", message))
    }

    async fn change(
        &self,
        name: &str,
        change: fn(&Models, &str) -> Result<Changes, LoadError>,
    ) -> Result<(), OipError> {
        self.may_change()?;
        if let Ok(Face::Image(engine)) = self.face(name, None) {
            let model = &engine.spec().name;
            return Err(OipError::invalid(format!(
                "{name:?} is the photo side of {model:?} and comes and goes with it; without {IMAGE_SUFFIX:?} it can be named here"
            )));
        }
        let owned = name.to_owned();
        let waited = self.clone();
        self.in_turn(move |models| {
            // Its turn may come after the signal: what nobody will be served by would only hold the drain up.
            waited.may_change()?;
            Ok::<_, OipError>(change(models, &owned)?)
        })
        .await??;
        Ok(())
    }

    /// Changes the models once no other change that a client asked for is running. It goes on if the caller leaves: half a
    /// change would help nobody.
    ///
    /// # Errors
    /// [`OipError`] if the change panicked.
    pub async fn in_turn<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Models) -> T + Send + 'static,
    ) -> Result<T, OipError> {
        let models = self.models.clone();
        let turn = Arc::clone(&self.changes).acquire_owned().await.map_err(|_closed| OipError::shutting_down())?;
        // Loading takes seconds and blocks.
        let changed = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            change(&models)
        });
        changed.await.map_err(|_panicked| LoadError::Panicked.into())
    }
}
