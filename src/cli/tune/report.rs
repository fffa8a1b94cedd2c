//! What a search has found, for people and for programs.

use std::time::{Duration, SystemTime};

use comfy_table::{CellAlignment, ContentArrangement, LineStyle, Table, presets};
use serde::Serialize;

use crate::machine;
use crate::pipeline::infer::Precision;
use crate::pipeline::{EngineOptions, ModelSpec};
use crate::tune::rank::{self, BOUND_FACTOR};
use crate::tune::{Decision, Point, Row, Threads, Tuning, Verdict, settings};

/// A search that is over.
pub(super) struct Report<'a> {
    pub(super) model: &'a ModelSpec,
    /// Images that were sent in turn.
    pub(super) images: usize,
    pub(super) tuning: &'a Tuning,
    /// What all candidates had in common.
    pub(super) base: &'a EngineOptions,
    pub(super) interrupted: bool,
}

/// The object of `--json`.
#[derive(Serialize)]
struct Json<'a> {
    residual: &'static str,
    model: &'a str,
    version: &'a str,
    sha256: &'a str,
    processor: Option<String>,
    cores: usize,
    images: usize,
    /// 99th percentile of latency, at most.
    bound_ms: Option<f64>,
    bound_given: bool,
    interrupted: bool,
    not_tried: usize,
    candidates: Vec<JsonRow>,
    /// Place of the winner in `candidates`.
    winner: Option<usize>,
    /// The winner is the default, or no better: nothing needs to be set.
    keep_default: bool,
    /// Images a second of the best, in those of the default.
    gain: Option<f64>,
    /// What to give to `residual serve`.
    flags: Vec<String>,
    sentence: String,
}

#[derive(Serialize)]
struct JsonRow {
    default: bool,
    pareto: bool,
    finalist: bool,
    /// `measured`, `failed` or `other_classes`.
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    provider: &'static str,
    precision: Option<&'static str>,
    elastic: bool,
    instances: Option<usize>,
    intra_op_threads: Option<usize>,
    batch_images_max: usize,
    batch_delay_ms: f64,
    meets_bound: bool,
    callers: Option<usize>,
    images_per_second: Option<f64>,
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
    alone_p50_ms: Option<f64>,
    resident_bytes: Option<u64>,
}

impl Report<'_> {
    pub(super) fn json(&self) -> String {
        let (tuning, decision) = (self.tuning, self.tuning.decide());
        let pareto = rank::pareto(&tuning.rows, tuning.p99());
        let rows = tuning.rows.iter().zip(pareto).enumerate();
        let (keep_default, gain) = match decision {
            Decision::Default { gain, .. } => (true, Some(gain)),
            Decision::Set { gain, .. } => (false, gain),
            Decision::NothingMeets { .. } => (false, None),
        };
        let flags = decision.winner().filter(|_| !keep_default).map(|row| self.flags(row)).unwrap_or_default();
        let json = Json {
            residual: env!("CARGO_PKG_VERSION"),
            model: &self.model.name,
            version: &self.model.version,
            sha256: &self.model.sha256,
            processor: machine::processor(),
            cores: machine::cores().usable,
            images: self.images,
            bound_ms: tuning.bound.map(|bound| ms(bound.p99)),
            bound_given: tuning.bound.is_some_and(|bound| bound.given),
            interrupted: self.interrupted,
            not_tried: tuning.not_tried,
            candidates: rows.map(|(index, (row, pareto))| self.json_row(index, row, pareto)).collect(),
            winner: decision.winner(),
            keep_default,
            gain,
            flags,
            sentence: self.sentence(decision),
        };
        serde_json::to_string_pretty(&json).expect("strings and finite numbers are always JSON")
    }

    fn json_row(&self, index: usize, row: &Row, pareto: bool) -> JsonRow {
        let (p99, candidate) = (self.tuning.p99(), &row.candidate);
        let (status, reason) = match &row.verdict {
            Verdict::Measured => ("measured", None),
            Verdict::Failed(reason) => ("failed", Some(reason.clone())),
            Verdict::OtherClasses(reason) => ("other_classes", Some(reason.clone())),
        };
        let group = match candidate.threads {
            Threads::Elastic => None,
            Threads::Fixed(group) => Some(group),
        };
        let shown = row.shown(p99);
        JsonRow {
            default: row.is_default,
            pareto,
            finalist: self.tuning.finalists.contains(&index),
            status,
            reason,
            provider: candidate.provider.name(),
            precision: row.precision.map(Precision::name),
            elastic: group.is_none(),
            instances: group.map(|group| group.instances),
            intra_op_threads: group.map(|group| group.intra_op_threads),
            batch_images_max: candidate.batch_images_max,
            batch_delay_ms: ms(candidate.batch_delay),
            meets_bound: row.best(p99).is_some(),
            callers: shown.map(|point| point.callers),
            images_per_second: shown.map(Point::images_per_second),
            p50_ms: shown.map(|point| ms(point.p50())),
            p99_ms: shown.map(|point| ms(point.p99())),
            alone_p50_ms: row.alone().map(|point| ms(point.p50())),
            resident_bytes: row.resident_bytes,
        }
    }

    /// The table, what is to be known about it, and the sentence.
    pub(super) fn text(&self) -> String {
        let (tuning, decision) = (self.tuning, self.tuning.decide());
        let mut lines = vec![self.table(decision).to_string()];
        for row in &tuning.rows {
            match &row.verdict {
                Verdict::Measured => {}
                Verdict::Failed(reason) => lines.push(format!("{}: failed: {reason}", row.candidate)),
                Verdict::OtherClasses(reason) => lines.push(format!("{}: other classes: {reason}", row.candidate)),
            }
        }
        if let Some(bound) = tuning.bound {
            let why = match bound.given {
                true => "as --latency asks".to_owned(),
                false => format!("{BOUND_FACTOR} x what the default needs for a lone caller; --latency sets another"),
            };
            lines.push(format!(
                "Each row: the callers who got the most images a second with p99 within {} ({why}).",
                time(bound.p99)
            ));
            lines.push("Front: nothing has both more images a second and a shorter time alone.".to_owned());
        }
        if tuning.not_tried > 0 {
            lines.push(format!("{} more were not tried for want of time; --time gives more.", tuning.not_tried));
        }
        if self.interrupted {
            lines.push("The search was interrupted; what follows is what was known by then.".to_owned());
        }
        if decision.winner().is_some() {
            lines.push(String::new());
            lines.push(self.sentence(decision));
        }
        if let Decision::Set { row, .. } = decision {
            lines.push(format!("  residual serve {}", self.flags(row).join(" ")));
        }
        lines.join("\n")
    }

    fn table(&self, decision: Decision) -> Table {
        let (rows, p99) = (&self.tuning.rows, self.tuning.p99());
        let mut table = Table::new();
        let style = presets::UTF8_HORIZONTAL_ONLY.row_separator(LineStyle::none());
        table.load_style(style).set_content_arrangement(ContentArrangement::Dynamic);
        table.set_header([
            "provider", "threads", "batch", "delay", "images/s", "callers", "p50", "p99", "alone", "memory", "",
        ]);
        for column in 2..10 {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let pareto = rank::pareto(rows, p99);
        let mut order = rank::ranked(rows, p99);
        order.extend((0..rows.len()).filter(|&index| rows[index].best(p99).is_none()));
        for index in order {
            let row = &rows[index];
            let shown = row.shown(p99);
            let cell = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
            let precision = row.precision.map_or(String::new(), |precision| format!(" {precision}"));
            let mut marks = Vec::new();
            marks.extend((decision.winner() == Some(index)).then_some("best"));
            marks.extend(row.is_default.then_some("default"));
            marks.extend(pareto[index].then_some("front"));
            marks.extend(match row.verdict {
                Verdict::Measured => row.best(p99).is_none().then_some("too slow"),
                Verdict::Failed(_) => Some("failed"),
                Verdict::OtherClasses(_) => Some("other classes"),
            });
            table.add_row([
                format!("{}{precision}", row.candidate.provider),
                row.candidate.threads.to_string(),
                row.candidate.batch_images_max.to_string(),
                humantime::format_duration(row.candidate.batch_delay).to_string(),
                cell(shown.map(|point| format!("{:.1}", point.images_per_second()))),
                cell(shown.map(|point| point.callers.to_string())),
                cell(shown.map(|point| time(point.p50()))),
                cell(shown.map(|point| time(point.p99()))),
                cell(row.alone().map(|point| time(point.p50()))),
                cell(row.resident_bytes.map(|bytes| format!("{} MB", bytes / 1_000_000))),
                marks.join(", "),
            ]);
        }
        table
    }

    /// What to do, in one sentence.
    pub(super) fn sentence(&self, decision: Decision) -> String {
        let rows = &self.tuning.rows;
        match decision {
            Decision::Default { row, gain, uncertainty } => {
                let rest = match gain > 1.0 {
                    true => format!(
                        "nothing serves clearly more (the best: {:+.1} %, give or take {:.1})",
                        (gain - 1.0) * 100.0,
                        uncertainty * 100.0
                    ),
                    false => "nothing serves more".to_owned(),
                };
                let (candidate, numbers) = (&rows[row].candidate, self.numbers(row));
                format!("Nothing needs to be set: the default ({candidate}) serves {numbers}, and {rest}.")
            }
            Decision::Set { row, gain: Some(gain) } => format!(
                "Best: {}, which serves {}: {gain:.2} times the images of the default, {}.",
                rows[row].candidate,
                self.numbers(row),
                rows.iter().position(|row| row.is_default).map_or_else(String::new, |row| self.numbers(row))
            ),
            Decision::Set { row, gain: None } => format!(
                "Best: {}, which serves {}; the default does not stay within the bound.",
                rows[row].candidate,
                self.numbers(row)
            ),
            Decision::NothingMeets { closest: None } => "nothing was measured".to_owned(),
            Decision::NothingMeets { closest: Some((row, callers)) } => {
                let point = rows[row].points.iter().find(|point| point.callers == callers);
                format!(
                    "no settings keep p99 within {}; the closest ({}) has {} with {}; allow more with --latency, or serve a \
                     smaller model",
                    time(self.tuning.p99()),
                    rows[row].candidate,
                    point.map_or_else(String::new, |point| time(point.p99())),
                    count(callers, "caller"),
                )
            }
        }
    }

    /// `38.1 images/s to 4 callers with p50 101 ms and p99 140 ms`.
    fn numbers(&self, row: usize) -> String {
        self.tuning.rows[row].shown(self.tuning.p99()).map_or_else(String::new, |point| {
            let callers = count(point.callers, "caller");
            let (p50, p99) = (time(point.p50()), time(point.p99()));
            format!("{:.1} images/s to {callers} with p50 {p50} and p99 {p99}", point.images_per_second())
        })
    }

    fn flags(&self, row: usize) -> Vec<String> {
        settings::flags(&settings::keys(&self.tuning.rows[row], self.base))
    }

    /// What stands above the settings in their file.
    pub(super) fn comments(&self, command: &str, decision: Decision) -> Vec<String> {
        let ModelSpec { name, version, sha256, .. } = self.model;
        let processor = machine::processor().unwrap_or_else(|| "unknown processor".to_owned());
        let alone = decision.winner().and_then(|row| self.tuning.rows[row].alone());
        vec![
            format!("Found by: {command}"),
            format!(
                "on {}, residual {}",
                humantime::format_rfc3339_seconds(SystemTime::now()),
                env!("CARGO_PKG_VERSION")
            ),
            format!("Machine: {processor}, {}", count(machine::cores().usable, "core")),
            format!("Model: {name} version {version}, sha256 {sha256}"),
            format!("Bound: p99 within {}", time(self.tuning.p99())),
            self.sentence(decision),
            alone.map_or_else(String::new, |alone| format!("A lone caller waits {}.", time(alone.p50()))),
        ]
    }
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Three digits: `1.23 ms`, `45.6 ms`, `789 ms`; of less than a tenth of a millisecond, the microseconds.
fn time(duration: Duration) -> String {
    let ms = ms(duration);
    let digits = if ms < 0.1 {
        3
    } else if ms < 10.0 {
        2
    } else {
        usize::from(ms < 100.0)
    };
    format!("{ms:.digits$} ms")
}

/// `1 caller`, `2 callers`.
fn count(n: usize, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_digits() {
        let text = |micros| time(Duration::from_micros(micros));
        assert_eq!([text(1234), text(45_678), text(789_012), text(9)], ["1.23 ms", "45.7 ms", "789 ms", "0.009 ms"]);
    }
}
