//! From one proven session to all instances of a model: shares the weights where the provider allows, and leaves out
//! groups whose further threads make nothing faster.

use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::Serialize;

use super::layout::{InstanceGroup, without_sharing};
use super::readback::Placement;
use super::session::{Graph, Making};
use super::shared::{Optimised, Shared};
use super::signature::BatchForm;
use super::trial::{alone, samples};
use super::{Batch, Infer as _, InferError, Provider, Session};
use crate::pipeline::types::Sample;

/// Below this, starting and joining threads for each operator can cost what they gain, and the clock decides whether a
/// wider group stays. Above it wider is faster, whatever a clock says on a machine that is busy with something else just
/// now.
const SURE_GAIN: Duration = Duration::from_millis(10);
/// Below it, a wider group stays if one image takes at most this part of the time that the next narrower group needs.
const GAIN_MIN: f64 = 0.85;
/// Instances with weights of their own stay beside a wider one if together they compute this many times its images.
const WORTH_MIN: f64 = 1.05;
/// How long a rate is measured.
const RATE_TIME: Duration = Duration::from_millis(300);
/// Runs of which the fastest counts: what else happens on the machine can only make a run slower.
const TIMED_RUNS: usize = 4;

/// All instances of a model.
#[derive(Debug)]
pub struct Instances {
    /// From the most intra-op threads to the fewest; none is empty.
    pub groups: Vec<(InstanceGroup, Vec<Session>)>,
    /// How long one image takes with each number of intra-op threads that was tried, those of groups that were left out as
    /// well. Empty where nothing was tried.
    pub one_image: Vec<OneImage>,
    /// Which provider computes which nodes.
    pub placement: Option<Placement>,
    /// The instances use one copy of the weights.
    pub shared_weights: bool,
}

/// How long one image takes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
pub struct OneImage {
    /// Threads inside the run.
    pub intra_op_threads: usize,
    /// The fastest of a few runs, in milliseconds.
    pub milliseconds: f64,
}

/// What the instances are made of.
pub(super) struct Plan<'a> {
    pub(super) making: Making<'a>,
    pub(super) graph: Graph<'a>,
    pub(super) layout: &'a [InstanceGroup],
    /// Groups may be left out.
    pub(super) elastic: bool,
    /// A batch of one image.
    pub(super) form: BatchForm,
    /// The largest batch.
    pub(super) full: BatchForm,
}

impl Plan<'_> {
    /// Makes the instances. `first` was proven to answer right, and was loaded from the same graph.
    pub(super) fn instances(&self, first: Session, optimised: Option<Optimised>) -> Result<Instances, InferError> {
        let placement = first.placement();
        let instances: usize = self.layout.iter().map(|group| group.instances).sum();
        let (shared, mut first) = match optimised {
            Some(optimised) if instances > 1 => self.share(first, optimised)?,
            Some(_) | None => (None, Some(first)),
        };
        // Each would have weights of its own: three copies at most.
        let unshared;
        let wanted = match shared.is_none() && self.elastic {
            true => {
                let cores = self.layout.iter().map(|group| group.intra_op_threads).max().unwrap_or(1);
                unshared = without_sharing(cores);
                &unshared
            }
            false => self.layout,
        };
        let make = |group: &InstanceGroup| {
            let options = self.making.options.with_threads(group.intra_op_threads);
            let making = Making { options: &options, ..self.making };
            match &shared {
                Some(shared) => making.load_shared(shared),
                None => making.load(self.graph),
            }
        };
        let mut groups = Vec::new();
        for group in wanted {
            let session = match first.take_if(|_| group.intra_op_threads == self.making.options.intra_op_threads) {
                Some(session) => session,
                None => make(group)?,
            };
            groups.push((*group, vec![session]));
        }
        let one_image = if self.elastic { self.keep_what_gains(&mut groups)? } else { Vec::new() };
        for (group, sessions) in &mut groups {
            while sessions.len() < group.instances {
                sessions.push(make(group)?);
            }
        }
        if self.elastic && shared.is_none() {
            self.keep_what_is_worth_its_memory(&mut groups)?;
        }
        Ok(Instances { groups, one_image, placement, shared_weights: shared.is_some() })
    }

    /// The weights for all, if a session that borrows them answers as `first` does; else `first` itself.
    fn share(&self, mut first: Session, optimised: Optimised) -> Result<(Option<Shared>, Option<Session>), InferError> {
        let mut batch = Batch::new(self.form);
        let [sample, _] = samples(self.form, 1.0);
        let expected = alone(&mut first, &mut batch, &sample);
        let mut answers_like_first = |shared: &Shared| {
            let mut session = self.making.load_shared(shared).map_err(|error| error.to_string())?;
            // Equal in every bit: they are the same kernels on the same numbers.
            let equal = alone(&mut session, &mut batch, &sample) == expected;
            equal.then_some(()).ok_or_else(|| "the scores differ".to_owned())
        };
        let found = optimised.share(self.graph.folder()).and_then(|shared| {
            answers_like_first(&shared).map(|()| shared.clone()).or_else(|_| {
                let shared = shared.without_packing();
                answers_like_first(&shared).map(|()| shared)
            })
        });
        match found {
            Ok(shared) => Ok((Some(shared), None)),
            Err(why) => {
                tracing::info!(
                    model = self.making.model,
                    "each instance has weights of its own, so there are few: {why}"
                );
                Ok((None, Some(first)))
            }
        }
    }

    /// Times one image in each group, from the narrowest, and drops the groups that are hardly faster than the next.
    fn keep_what_gains(&self, groups: &mut Vec<(InstanceGroup, Vec<Session>)>) -> Result<Vec<OneImage>, InferError> {
        let mut batch = Batch::new(self.form);
        let [sample, _] = samples(self.form, 1.0);
        batch.push(&sample);
        let (mut times, mut best) = (Vec::new(), None::<Duration>);
        let mut keep = Vec::with_capacity(groups.len());
        for (group, sessions) in groups.iter_mut().rev() {
            let mut fastest = Duration::MAX;
            // One more, whose memory is not there yet.
            for run in 0..=TIMED_RUNS {
                let started = Instant::now();
                sessions[0].infer(&batch)?;
                if run > 0 {
                    fastest = fastest.min(started.elapsed());
                }
            }
            times
                .push(OneImage { intra_op_threads: group.intra_op_threads, milliseconds: fastest.as_secs_f64() * 1e3 });
            let gains = best.is_none_or(|best| best > SURE_GAIN || fastest <= best.mul_f64(GAIN_MIN));
            if gains {
                best = Some(fastest);
            }
            keep.push(gains);
        }
        let mut keep = keep.into_iter().rev();
        groups.retain(|_| keep.next().unwrap_or(true));
        times.reverse();
        Ok(times)
    }
}

impl Plan<'_> {
    /// Where each instance has weights of its own, narrow ones must compute clearly more images together than the wide one
    /// does alone; else that one does for both ends.
    fn keep_what_is_worth_its_memory(&self, groups: &mut Vec<(InstanceGroup, Vec<Session>)>) -> Result<(), InferError> {
        let [(_, wide), (narrow_group, narrow)] = &mut groups[..] else { return Ok(()) };
        let (wide, narrow) = (images_per_second(wide, self.full)?, images_per_second(narrow, self.full)?);
        let gain = narrow / wide;
        tracing::debug!(model = self.making.model, wide, narrow, ?narrow_group, "images a second");
        if gain < WORTH_MIN {
            groups.truncate(1);
        }
        Ok(())
    }
}

/// Images a second that `sessions` compute beside each other, in batches as large as `form` allows.
pub(crate) fn images_per_second(sessions: &mut [Session], form: BatchForm) -> Result<f64, InferError> {
    let rate = |session: &mut Session| {
        let mut batch = Batch::new(form);
        let sample = Sample::new(form.sample, vec![0.0; form.sample.len()]);
        (0..form.rows.max()).for_each(|_| batch.push(&sample));
        session.infer(&batch)?;
        let (started, mut images) = (Instant::now(), 0u32);
        while images == 0 || started.elapsed() < RATE_TIME {
            session.infer(&batch)?;
            images += u32::try_from(batch.len()).unwrap_or(u32::MAX);
        }
        Ok(f64::from(images) / started.elapsed().as_secs_f64())
    };
    std::thread::scope(|scope| {
        let spawn = |session| std::thread::Builder::new().spawn_scoped(scope, move || rate(session));
        let threads = sessions.iter_mut().map(spawn).collect::<Result<Vec<_>, _>>().map_err(InferError::thread)?;
        threads.into_iter().map(|thread| thread.join().unwrap_or(Err(InferError::Panicked))).sum()
    })
}

/// Instances of the CPU provider run the same optimised graph, and can run it on one copy of the weights.
pub(super) fn can_share(provider: Provider) -> bool {
    provider == Provider::Cpu
}
