//! One change after the other: looking at the places, loading, replacing, unloading.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use super::load::{self, LoadError, Tried};
use super::roster::{Entry, Roster};
use super::{Handle, Models, Source, Starter};
use crate::machine::heap;
use crate::zoo::{Fingerprint, Found, Listing, Version, ZooError};

/// One version of one model.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Id {
    name: String,
    version: Version,
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} version {}", self.name, self.version)
    }
}

/// What a change did, each version as `NAME version V`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Served now and not before.
    pub loaded: Vec<String>,
    /// Served by a new engine.
    pub replaced: Vec<String>,
    /// Served no longer.
    pub unloaded: Vec<String>,
    /// Not loaded, with the reason; what was served before is served on.
    pub failed: Vec<String>,
}

/// Which versions a pass loads.
pub(super) enum Scope {
    /// Those whose files have changed.
    Changed,
    /// Those whose files have changed, and those that failed the last time.
    ChangedOrFailed,
    /// All of one model; the others are left alone.
    Only(String),
}

/// What is remembered between two changes.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) source: Source,
    pub(super) starter: Starter,
    /// How the files looked when each version was loaded, or when that was tried.
    tried: BTreeMap<Id, Tried>,
    /// How the files looked at the last call of [`Work::watch`].
    watched: Option<BTreeMap<Id, Fingerprint>>,
    /// Models that were unloaded by name: they come back by name only.
    unloaded: BTreeSet<String>,
    /// What is wrong with places now, by model, or by the empty name where no pass could run: each is logged once.
    obstacles: BTreeMap<String, String>,
}

impl Work {
    /// The first pass: all or nothing.
    pub(super) fn begin<E: From<LoadError>>(
        models: &Models,
        source: Source,
        starter: impl FnOnce() -> Result<Starter, E>,
    ) -> Result<Self, E> {
        let listing = source.find().map_err(LoadError::from)?;
        for path in &listing.skipped {
            tracing::warn!(path = %path.display(), "{} holds no model and was skipped", path.display());
        }
        let Listing { found, broken, .. } = listing;
        if let Some((_, error)) = broken.into_iter().next() {
            return Err(LoadError::from(error).into());
        }
        load::check_names(&source, &found)?;
        let opened: Vec<_> = found.iter().map(|found| load::open(&source, found)).collect::<Result<_, _>>()?;
        let starter = starter()?;
        let mut roster = Roster { default: default_of(&source), begun: true, ..Roster::default() };
        let mut all_tried = BTreeMap::new();
        for (found, (opened, tried)) in found.iter().zip(opened) {
            let handle = load::start(&starter, models, found, opened, &tried)?;
            all_tried.insert(id(found), tried);
            *roster.entry(&found.name, &found.version) = Entry { handle: Some(handle), ..Entry::default() };
        }
        if models.is_stopping() {
            return Err(LoadError::Stopping.into());
        }
        models.publish(|now| *now = roster);
        // The files, decoded, and what the runtime needed only to load them.
        heap::trim();
        Ok(Self {
            source,
            starter,
            tried: all_tried,
            watched: None,
            unloaded: BTreeSet::new(),
            obstacles: BTreeMap::new(),
        })
    }

    /// Looks at all places and brings what is served in line with them.
    pub(super) fn pass(&mut self, models: &Models, scope: &Scope) -> Changes {
        match self.source.find() {
            Ok(listing) => self.apply(models, &listing, scope),
            Err(error) => self.refuse(&error),
        }
    }

    /// A place that is not there at all is more likely a mount that failed than a wish to serve nothing.
    fn refuse(&mut self, error: &ZooError) -> Changes {
        let text = error.to_string();
        if self.obstacles.get("") != Some(&text) {
            tracing::error!("the models were not looked at again, those that are served stay: {text}");
        }
        self.obstacles.insert(String::new(), text.clone());
        Changes { failed: vec![text], ..Changes::default() }
    }

    fn apply(&mut self, models: &Models, listing: &Listing, scope: &Scope) -> Changes {
        let mut changes = Changes::default();
        let concerns = |name: &str| !matches!(scope, Scope::Only(only) if only != name);
        let obstacles: BTreeMap<String, String> =
            listing.broken.iter().map(|(name, error)| (name.clone(), error.to_string())).collect();
        for (name, error) in obstacles.iter().filter(|(name, _)| concerns(name)) {
            if self.obstacles.get(name) != Some(error) {
                tracing::error!(model = name, "model {name} stays as it is: {error}");
            }
            changes.failed.push(format!("{name}: {error}"));
        }
        self.obstacles = obstacles;
        let broken: BTreeSet<&str> = listing.broken.iter().map(|(name, _)| name.as_str()).collect();
        let found: BTreeSet<Id> = listing.found.iter().map(id).collect();
        for found in &listing.found {
            if concerns(&found.name) && !self.unloaded.contains(&found.name) && !models.is_stopping() {
                self.visit(models, found, scope, &mut changes);
            }
        }
        let gone = |row: &Id| concerns(&row.name) && !broken.contains(row.name.as_str()) && !found.contains(row);
        let rows = models.rows().into_iter().map(|row| Id { name: row.name, version: row.version });
        for id in rows.filter(gone).collect::<Vec<_>>() {
            self.forget(models, &id, &mut changes);
        }
        changes
    }

    /// Loads one version, if it is new, has changed, or is asked for.
    fn visit(&mut self, models: &Models, found: &Found, scope: &Scope, changes: &mut Changes) {
        let id = id(found);
        let before = self.tried.get(&id).cloned().unwrap_or_default();
        let seen = before.again(found);
        let row = models.rows().into_iter().find(|row| row.name == id.name && row.version == id.version);
        let failed = row.as_ref().is_none_or(|row| row.problem.is_some());
        let unchanged = self.tried.contains_key(&id) && before.seen == seen;
        let due = match scope {
            Scope::Changed => !unchanged,
            Scope::ChangedOrFailed => !unchanged || failed,
            Scope::Only(_) => true,
        };
        if !due {
            return;
        }
        let old = row.and_then(|row| row.handle);
        models.publish(|roster| roster.entry(&id.name, &id.version).loading = true);
        let started = Instant::now();
        let load = || {
            let (opened, tried) = load::open(&self.source, found)?;
            let handle = load::start(&self.starter, models, found, opened, &tried)?;
            if models.is_stopping() { Err(LoadError::Stopping) } else { Ok((handle, tried)) }
        };
        // A panic must not leave the version "loading" for ever.
        let loaded = catch_unwind(AssertUnwindSafe(load)).unwrap_or(Err(LoadError::Panicked));
        match loaded {
            Ok((handle, tried)) => {
                self.tried.insert(id.clone(), tried);
                let (took, sha256) = (started.elapsed(), handle.spec().sha256.clone());
                let entry = Entry { handle: Some(handle), ..Entry::default() };
                models.publish(|roster| *roster.entry(&id.name, &id.version) = entry);
                let done = if old.is_some() { "replaced" } else { "loaded" };
                heap::trim();
                tracing::info!(model = id.name, version = %id.version, sha256, "{done} model {id} in {took:.2?}");
                let list = if old.is_some() { &mut changes.replaced } else { &mut changes.loaded };
                list.push(id.to_string());
            }
            Err(error) => {
                // As they were before, so that a change during the load is seen as one.
                self.tried.insert(id.clone(), Tried { seen, ..before });
                let problem = error.to_string();
                let what = if old.is_some() { "was not replaced, the old one serves on" } else { "was not loaded" };
                tracing::error!(model = id.name, version = %id.version, "model {id} {what}: {problem}");
                changes.failed.push(format!("{id}: {problem}"));
                models.publish(|roster| {
                    let entry = roster.entry(&id.name, &id.version);
                    (entry.loading, entry.problem) = (false, Some(problem));
                });
            }
        }
        if let Some(old) = old {
            self.retire_metrics(models, &old);
        }
    }

    fn forget(&mut self, models: &Models, id: &Id, changes: &mut Changes) {
        self.tried.remove(id);
        let handle = models.get(Some(&id.name), Some(id.version.as_str())).ok();
        let mut served = false;
        models.publish(|roster| served = roster.remove(&id.name, &id.version));
        if served {
            tracing::info!(model = id.name, version = %id.version, "unloaded model {id}");
            changes.unloaded.push(id.to_string());
        }
        if let Some(handle) = handle {
            self.retire_metrics(models, &handle);
        }
    }

    /// Takes the announcement of an engine that serves no longer off the metrics page.
    fn retire_metrics(&self, models: &Models, old: &Handle) {
        let (spec, rows) = (old.spec(), models.ready());
        let same = |other: &&Handle| other.spec().name == spec.name && other.spec().version == spec.version;
        match rows.iter().find(same) {
            Some(now) if now.is(old) || now.spec().sha256 == spec.sha256 => {}
            other => self.starter.metrics.forget_model(load::info(old), other.is_none()),
        }
    }

    pub(super) fn watch(&mut self, models: &Models) -> Changes {
        let listing = match self.source.find() {
            Ok(listing) => listing,
            Err(error) => return self.refuse(&error),
        };
        let now = |found: &Found| {
            let id = id(found);
            let seen = self.tried.get(&id).map_or_else(|| Tried::default().again(found), |tried| tried.again(found));
            (id, seen)
        };
        let seen: BTreeMap<Id, Fingerprint> =
            listing.found.iter().filter(|found| !self.unloaded.contains(&found.name)).map(now).collect();
        let still = self.watched.as_ref() == Some(&seen);
        let changed = !self.tried.iter().map(|(id, tried)| (id, &tried.seen)).eq(&seen);
        self.watched = Some(seen);
        if still && changed { self.apply(models, &listing, &Scope::Changed) } else { Changes::default() }
    }

    pub(super) fn load(&mut self, models: &Models, name: &str) -> Result<Changes, LoadError> {
        if models.is_stopping() {
            return Err(LoadError::Stopping);
        }
        let listing = self.source.find()?;
        if !listing.found.iter().any(|found| found.name == name) {
            let broken = listing.broken.into_iter().find(|(broken, _)| broken == name);
            return Err(broken.map_or_else(|| LoadError::unknown(name), |(_, error)| error.into()));
        }
        self.unloaded.remove(name);
        models.publish(|roster| drop(roster.unloaded.remove(name)));
        let changes = self.apply(models, &listing, &Scope::Only(name.to_owned()));
        if changes.failed.is_empty() { Ok(changes) } else { Err(LoadError::Partly { problems: changes.failed }) }
    }

    pub(super) fn unload(&mut self, models: &Models, name: &str) -> Result<Changes, LoadError> {
        if self.unloaded.contains(name) {
            // As was asked for.
            return Ok(Changes::default());
        }
        let rows = models.rows().into_iter().filter(|row| row.name == name);
        let versions: Vec<Version> = rows.map(|row| row.version).collect();
        if versions.is_empty() {
            return Err(LoadError::unknown(name));
        }
        if models.roster().added.contains_key(name) {
            return Ok(self.remove(models, name));
        }
        let changes = self.forget_model(models, name);
        self.unloaded.insert(name.to_owned());
        models.publish(|roster| drop(roster.unloaded.insert(name.to_owned(), versions)));
        Ok(changes)
    }

    /// Stops serving every version of a model, and those that could not be loaded.
    pub(super) fn forget_model(&mut self, models: &Models, name: &str) -> Changes {
        let mut changes = Changes::default();
        let rows = models.rows().into_iter().filter(|row| row.name == name);
        let ids: Vec<Id> = rows.map(|row| Id { name: row.name, version: row.version }).collect();
        ids.iter().for_each(|id| self.forget(models, id, &mut changes));
        changes
    }
}

fn id(found: &Found) -> Id {
    Id { name: found.name.clone(), version: found.version.clone() }
}

/// The default that was asked for, else the first model that was named: whoever lists models one by one begins with the
/// one that matters.
fn default_of(source: &Source) -> Option<String> {
    let first = || {
        let only = Source { wanted: source.wanted.first().cloned().into_iter().collect(), ..Source::default() };
        only.find().ok()?.found.first().map(|found| found.name.clone())
    };
    source.default.clone().or_else(first)
}
