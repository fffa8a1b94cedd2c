//! The composition root: the one file that knows all parts.
//!
//! settings -> listener -> models -> runtime library -> engines -> ready -> signal -> drain. The listener comes first, so
//! that a port in use is noticed before anything is loaded and probes can tell a starting server from a dead one.

mod ports;
mod ready;
mod secrets;
mod story;
mod watchdog;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytesize::ByteSize;

use crate::apis::Api;
use crate::config::{
    BatchSettings, ExifSetting, HttpSettings, ImageSettings, ModelControl, PlatformSettings, RuntimeSettings, Settings,
    TellingSettings,
};
use crate::edge::{Drained, Shared, UploadMemory};
use crate::grpc::Grpc;
use crate::guard::CorsOrigins;
use crate::http::{App, HttpLimits, MultiModel, VertexRoutes};
use crate::machine::{self, Cores};
use crate::models::{Changes, Models, Source, Starter};
use crate::oip::{self, Oip, OipLimits};
use crate::pipeline::batch;
use crate::pipeline::decode::budget::MemoryBudget;
use crate::pipeline::decode::{DecodeLimits, DecodeOptions, ExifOrientation};
use crate::pipeline::infer::{GpuOptions, LayoutRequest};
use crate::pipeline::{Engine, EngineOptions, PreparePool};
use crate::runtime::Search;
use crate::shutdown::{Hangups, Lifecycle, Phase, Signals};
use crate::telemetry::traces::TraceSettings;
use crate::telemetry::{Metrics, RequestLog, Tracer, logging};
use crate::zoo::{self, Choices, Opened, Wanted};
use ports::{Ports, Served, grpc_limits};
use ready::{Ready, ready_runtime};
use secrets::Secrets;
use story::Story;

/// Async threads only move bytes; more than a few of them would only be switched between.
const ASYNC_THREADS_MAX: usize = 8;
/// Blocking threads beside the prepare pool: JSON bodies, loading, files.
const SPARE_BLOCKING_THREADS: usize = 4;
/// After the last answer: how long a batch whose callers left may still take.
const ENGINE_STOP_TIME: Duration = Duration::from_secs(5);
/// Beside it: how long the last traces may take to their collector.
const TRACES_STOP_TIME: Duration = Duration::from_secs(5);
/// Exit code of a process that a second signal ends: 128 + SIGINT, as shells count.
const EXIT_INTERRUPTED: i32 = 130;

/// Runs a server until a signal ends it.
///
/// # Errors
/// Whatever keeps the server from starting; the text names the file or setting and the fix.
pub fn run(settings: &Settings) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    tell_of_few_files(settings, machine::files::raise_limit());
    let cores = machine::cores();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.usable.clamp(1, ASYNC_THREADS_MAX))
        .max_blocking_threads(decode_threads(&settings.batch, cores) + SPARE_BLOCKING_THREADS)
        .enable_all()
        .build()
        .context("start the async runtime")?;
    let result = runtime.block_on(run_until_signal(settings, started));
    // A load that a signal interrupted may still run on a blocking thread; the process does not wait for it.
    runtime.shutdown_background();
    result
}

/// Files that are open beside connections: libraries, models that are read, the log.
const FILES_BESIDE_CONNECTIONS: u64 = 64;

/// Warns where the bound on connections is none: the process will be out of files first.
fn tell_of_few_files(settings: &Settings, files_max: Option<u64>) {
    let ports = 1 + u64::from(settings.http.apis.has(Api::Grpc)) + u64::from(settings.security.admin_port.is_some());
    let wanted = u64::try_from(settings.http.connections_max).unwrap_or(u64::MAX).saturating_mul(ports);
    if let Some(files_max) = files_max.filter(|files| *files < wanted.saturating_add(FILES_BESIDE_CONNECTIONS)) {
        tracing::warn!(
            files_max,
            "this process may open {files_max} files, too few for {wanted} connections on {ports} ports: lower \
             --connections-max, or raise the limit (ulimit -n)"
        );
    }
}

async fn run_until_signal(settings: &Settings, started: Instant) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::listen().context("listen for signals")?;
    let hangups = Hangups::listen().context("listen for signals")?;
    let server = Server::bind(settings).await?;
    let serving = async {
        server.load(started).await?;
        anyhow::Ok(tokio::select! {
            name = server.keep_up(hangups) => name,
            () = server.watch() => unreachable!("the watchdog does not end"),
        })
    };
    let name = tokio::select! {
        name = signals.next() => name,
        name = serving => name?,
    };
    let waits = *settings.http.drain_delay + *settings.http.drain_grace;
    tracing::info!(signal = name, "{name}: finishing the requests in flight, for at most {waits:?}; again to quit now");
    tokio::select! {
        drained = server.drain() => match drained {
            Drained::All => tracing::info!("the requests in flight were answered; bye"),
            Drained::GraceOver => tracing::warn!("the drain grace is over; requests still in flight were cut off"),
        },
        name = signals.next() => {
            tracing::warn!(signal = name, "{name} again: quitting now, requests in flight are cut off");
            logging::flush();
            std::process::exit(EXIT_INTERRUPTED);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A listening server. Tests run several in one process.
#[derive(Debug)]
pub struct Server {
    models: Models,
    lifecycle: Lifecycle,
    pool: PreparePool,
    metrics: Metrics,
    tracer: Tracer,
    settings: Settings,
    secrets: Secrets,
    ports: Served,
}

impl Server {
    /// Listens and answers probes. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub async fn bind(settings: &Settings) -> anyhow::Result<Self> {
        let metrics = Metrics::new().with_triton(settings.telling.triton_metrics);
        let (lifecycle, models) = (Lifecycle::new(), Models::default());
        let secrets = Secrets::open(&settings.security, &metrics)?;
        let ports = Ports::bind(settings).await?;
        let threads = decode_threads(&settings.batch, machine::cores());
        let bytes = |bytes: ByteSize| i64::try_from(bytes.as_u64()).unwrap_or(i64::MAX);
        metrics.upload_memory_max_bytes.set(bytes(settings.http.upload_memory_max));
        metrics.decode_memory_max_bytes.set(bytes(settings.image.decode_memory_max));
        let pool = prepare_pool(&settings.image, threads);
        let limits = http_limits(&settings.http);
        let oip_limits = OipLimits {
            request_images_max: limits.request_images_max,
            request_bytes_max: limits.body_bytes_max,
            request_timeout: limits.request_timeout,
            model_control: model_control(settings, ports.admin().unwrap_or(ports.http())),
        };
        let operators = Oip::new(models.clone(), lifecycle.phases(), pool.clone(), oip_limits);
        let oip = match ports.admin() {
            Some(_) if oip_limits.model_control == oip::ModelControl::Here => {
                operators.with_model_control(oip::ModelControl::OnAdminPort)
            }
            _ => operators.clone(),
        };
        let guard = secrets.guard(&settings.security);
        let uploads = UploadMemory::new(settings.http.upload_memory_max.as_u64());
        let tracer = tracer(&settings.telling, &metrics)?;
        let shared = Shared {
            uploads,
            phases: lifecycle.phases(),
            metrics: metrics.clone(),
            tracer: tracer.clone(),
            log: RequestLog::new(settings.log.log_requests_per_second),
        };
        let grpc = Grpc::new(oip.clone(), grpc_limits(settings), pool.clone(), shared.clone(), guard.clone());
        let app = App::new(settings.http.apis.clone(), oip, models.clone(), limits, pool.clone(), shared.clone());
        let origins = CorsOrigins::new(settings.security.cors_origin.clone());
        let app = on_platform(app, &settings.platforms).guarded(guard.clone(), origins);
        let apps = (&app, &app.for_operators(operators), grpc);
        let ports = ports.serve(settings, apps, &shared, (&guard, secrets.tls()));
        Ok(Self { models, lifecycle, pool, metrics, tracer, settings: settings.clone(), secrets, ports })
    }

    /// Opens the models, finds the runtime library, loads and warms the models, turns readiness on and logs what was
    /// decided. `started` is when the process began.
    ///
    /// # Errors
    /// Whatever keeps one of the models from being served.
    pub async fn load(&self, started: Instant) -> anyhow::Result<()> {
        let (settings, pool, metrics) = (self.settings.clone(), self.pool.clone(), self.metrics.clone());
        let models = self.models.clone();
        let load = move || {
            let mut decided = None;
            models.begin::<anyhow::Error>(source_of(&settings), || {
                let ready = ready_runtime(&settings.runtime)?;
                let mut starter = starter(&ready, &settings.runtime, &settings.batch, pool, metrics);
                starter.options.queue_delay_max = Some(settings.queue_delay_max());
                decided = Some(ready);
                Ok(starter)
            })?;
            anyhow::Ok(decided.expect("models begin only with a runtime"))
        };
        let ready = tokio::task::spawn_blocking(load).await.context("load the models")??;
        self.lifecycle.advance(Phase::Ready);
        let story = Story::new((&self.ports, &self.secrets), &self.models.ready(), &ready.found, started.elapsed());
        story.log(self.settings.log.log_format);
        if let Some(advice) = ready.advice {
            tracing::info!("{advice}");
        }
        Ok(())
    }

    /// Looks for new and changed models whenever a hangup or the clock says so. Returns the name of the signal that is
    /// meant to end the server: a hangup whose terminal is gone.
    async fn keep_up(&self, mut hangups: Hangups) -> &'static str {
        let interval = *self.settings.models.watch;
        loop {
            let tick = async {
                match interval.is_zero() {
                    true => std::future::pending().await,
                    false => tokio::time::sleep(interval).await,
                }
            };
            tokio::select! {
                ends = hangups.next() => match ends {
                    Some(name) => return name,
                    None => {
                        let changes = self.reload().await;
                        tracing::info!(
                            loaded = ?changes.loaded, replaced = ?changes.replaced, unloaded = ?changes.unloaded,
                            failed = changes.failed.len(), "SIGHUP: looked at the models again"
                        );
                    }
                },
                () = tick => {
                    let models = self.models.clone();
                    // A panic has been printed, and the next tick tries again.
                    let _ = tokio::task::spawn_blocking(move || models.watch()).await;
                }
            }
        }
    }

    /// Watches over the models until it is dropped, which is its stop.
    pub async fn watch(&self) {
        watchdog::watch(&self.models, &self.lifecycle, self.settings.stuck_after()).await;
    }

    /// Does what SIGHUP does: reads certificates and keys again; loads what is new, replaces what has changed, unloads what
    /// is gone.
    pub async fn reload(&self) -> Changes {
        self.secrets.look_now().await;
        let models = self.models.clone();
        tokio::task::spawn_blocking(move || models.reload()).await.unwrap_or_default()
    }

    /// The models that are served.
    #[must_use]
    pub fn models(&self) -> &Models {
        &self.models
    }

    /// Where the server listens for HTTP.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.ports.http
    }

    /// Where it listens for gRPC, if it speaks that.
    #[must_use]
    pub fn grpc_address(&self) -> Option<SocketAddr> {
        self.ports.grpc
    }

    /// Where the operators' port is, if they have one.
    #[must_use]
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.ports.admin
    }

    /// Turns readiness off, keeps serving for the drain delay, then refuses new requests and finishes those in flight
    /// within the drain grace.
    pub async fn drain(self) -> Drained {
        if !self.settings.http.drain_delay.is_zero() {
            self.lifecycle.advance(Phase::Leaving);
            tokio::time::sleep(*self.settings.http.drain_delay).await;
        }
        self.lifecycle.advance(Phase::Draining);
        let drained = self.ports.drained().await;
        let tracer = self.tracer;
        let flushed = tokio::task::spawn_blocking(move || tracer.stop(TRACES_STOP_TIME));
        // Nobody waits for the runs that still go on. With the last handles the engines go, which joins their workers.
        for model in self.models.ready() {
            model.stop_runs();
        }
        let models = self.models;
        let stopped = tokio::task::spawn_blocking(move || models.stop());
        let stopped = tokio::time::timeout(ENGINE_STOP_TIME, stopped).await;
        // It keeps its own time, and what it could not send it has counted.
        let _ = flushed.await;
        match stopped {
            Ok(_) => drained,
            Err(_elapsed) => Drained::GraceOver,
        }
    }
}

/// One model without a server, for the command line: its newest version.
///
/// # Errors
/// Whatever keeps the model from being loaded.
pub fn engine(
    model: &Wanted,
    choices: &Choices,
    runtime: &RuntimeSettings,
    batch: &BatchSettings,
    image: &ImageSettings,
) -> anyhow::Result<Engine> {
    let (opened, starter) = opened(model, choices, runtime, batch, image)?;
    Ok(starter.start(opened)?)
}

/// One model and what starts it, for the command line: its newest version.
///
/// # Errors
/// Whatever keeps the model from being opened, or the runtime.
pub fn opened(
    model: &Wanted,
    choices: &Choices,
    runtime: &RuntimeSettings,
    batch: &BatchSettings,
    image: &ImageSettings,
) -> anyhow::Result<(Opened, Starter)> {
    let opened = zoo::open_newest(model, choices)?;
    let pool = prepare_pool(image, decode_threads(batch, machine::cores()));
    Ok((opened, starter(&ready_runtime(runtime)?, runtime, batch, pool, Metrics::new())))
}

fn starter(
    ready: &Ready,
    runtime: &RuntimeSettings,
    batch: &BatchSettings,
    pool: PreparePool,
    metrics: Metrics,
) -> Starter {
    let options = EngineOptions {
        provider: runtime.provider,
        precision: runtime.precision,
        gpu: GpuOptions {
            device: runtime.device,
            cudnn_search: runtime.cudnn_search,
            engine_cache: Search::from_environment().cache_dir.map(|cache| cache.join("tensorrt")),
        },
        cores: batch::Cores::new(machine::cores().usable),
        layout: LayoutRequest {
            instances: batch.instances,
            intra_op_threads: batch.intra_op_threads,
            decode_threads: batch.decode_threads,
        },
        batch_images_max: batch.batch_images_max,
        batch_delay: *batch.batch_delay,
        queue_images_max: batch.queue_images_max,
        queue_delay_max: None,
    };
    Starter { environment: ready.environment.clone(), options, pool, metrics }
}

fn source_of(settings: &Settings) -> Source {
    let models = &settings.models;
    let begins_empty = settings.platforms.sagemaker_multi_model && models.model.is_empty() && models.models.is_none();
    Source {
        repository: models.models.clone(),
        wanted: if begins_empty { Vec::new() } else { models.wanted() },
        default: models.default_model.clone(),
        presets: models.preset.clone(),
    }
}

/// What exports traces, if a collector is named.
fn tracer(settings: &TellingSettings, metrics: &Metrics) -> anyhow::Result<Tracer> {
    let Some(endpoint) = &settings.otlp_endpoint else { return Ok(Tracer::default()) };
    let traces = TraceSettings::new(endpoint, settings.trace_ratio, |name| std::env::var(name).ok());
    let tracer = traces.and_then(|traces| Tracer::start(traces, metrics));
    tracer.context("send traces to a collector")
}

/// What platforms want of the edge.
fn on_platform(app: App, settings: &PlatformSettings) -> App {
    let multi_model =
        settings.sagemaker_multi_model.then(|| MultiModel { root: settings.sagemaker_models_root.clone() });
    let vertex = settings.vertex_predict_route.clone().map(|predict| VertexRoutes {
        health: settings.vertex_health_route.clone().unwrap_or_else(|| predict.clone()),
        predict,
    });
    app.on_platform(multi_model, vertex)
}

/// Decodes at the same time; the same for all models, whatever their provider.
fn decode_threads(batch: &BatchSettings, cores: Cores) -> usize {
    batch.decode_threads.unwrap_or(cores.usable).max(1)
}

fn prepare_pool(image: &ImageSettings, threads: usize) -> PreparePool {
    let options = DecodeOptions {
        exif_orientation: match image.exif_orientation {
            ExifSetting::Apply => ExifOrientation::Apply,
            ExifSetting::Ignore => ExifOrientation::Ignore,
        },
        scaled_decode: image.scaled_decode.into(),
        limits: DecodeLimits {
            width_max: image.image_width_max,
            height_max: image.image_height_max,
            pixels_max: image.image_pixels_max,
        },
    };
    PreparePool::new(threads, Arc::new(MemoryBudget::new(image.decode_memory_max.as_u64())), options)
}

/// Whether models may be loaded and unloaded by whoever can connect to `address`.
fn model_control(settings: &Settings, address: SocketAddr) -> oip::ModelControl {
    let may = match settings.models.model_control {
        // A platform whose models come and go by calls asks for it.
        ModelControl::Auto => address.ip().is_loopback() || settings.platforms.sagemaker_multi_model,
        ModelControl::On => true,
        ModelControl::Off => false,
    };
    if may { oip::ModelControl::Here } else { oip::ModelControl::Off }
}

fn http_limits(http: &HttpSettings) -> HttpLimits {
    HttpLimits {
        body_bytes_max: http.body_bytes_max.as_u64(),
        request_images_max: http.request_images_max,
        body_timeout: *http.body_timeout,
        request_timeout: *http.request_timeout,
    }
}
