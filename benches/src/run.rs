//! What all threads of one run share: the target, the shape, the gate between phases, live counters,
//! and the marks between which broker and generator are charged.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};
use hdrhistogram::Histogram;

use crate::clock::{now_ns, ns_to_secs};
use crate::cost::{Usage, Watch, thread_cpu_secs};
use crate::ledger::Checks;
use crate::machine::{Machine, command_line};
use crate::net::{Net, Target, Totals};
use crate::report::{BrokerCost, GeneratorCost, Latency, Report, Sample};
use crate::shape::Shape;

/// The slowest latency that is told apart.
const MAX_LATENCY_NS: u64 = 600_000_000_000;
/// The slowest latency that is told apart while a run goes on.
const MAX_SHOWN_NS: u64 = 60_000_000_000;
/// Samples kept of one run; later ones are dropped.
const MAX_SAMPLES: usize = 20_000;

/// A histogram of nanoseconds, exact to three digits and a microsecond.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1000, MAX_LATENCY_NS, 3)
        .expect("1 µs to 10 minutes at three digits is within what histograms can hold")
}

/// A histogram for what is shown while it runs: emptied several times a second, which costs as much as
/// it has places, so it has two digits and ends at a minute.
pub(crate) fn shown_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1000, MAX_SHOWN_NS, 2)
        .expect("1 µs to a minute at two digits is within what histograms can hold")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counters that one thread shows to the others.
#[derive(Default)]
struct Shown {
    published: AtomicU64,
    delivered: AtomicU64,
    up: AtomicU64,
}

#[derive(Clone, Copy, Default)]
struct Mark {
    at_ns: u64,
    usage: Usage,
}

#[derive(Default)]
struct Gate {
    arrived: usize,
    generation: u64,
}

/// How a broker can be killed and started again in the middle of a run.
pub(crate) trait Lever: Send + Sync {
    /// Kills it without warning.
    fn kill(&self) -> Result<()>;
    /// Starts it again; returns the processes to watch from now on, none if unknown.
    fn restart(&self) -> Result<Vec<u32>>;
}

/// Settings of a run that are not the scenario's shape.
#[derive(Clone, Default)]
pub(crate) struct Settings {
    /// Generator threads.
    pub threads: usize,
    /// They never sleep.
    pub spin: bool,
    /// Name of the broker in results.
    pub broker: String,
    /// Which round of several this is.
    pub round: u32,
    /// Processes of the broker.
    pub broker_pids: Vec<u32>,
    /// User name; `{n}` stands for the client's number, `{id}` for its client identifier.
    pub username: Option<String>,
    /// Password; `{n}` stands for the client's number.
    pub password: Option<String>,
    /// The password of each client by its number, in place of that for all.
    pub tokens: Vec<String>,
    /// First level of all topics and start of all client identifiers.
    pub prefix: String,
    /// Leave persistent sessions in the broker.
    pub keep: bool,
    /// Kills and restarts the broker, where the scenario needs it.
    pub lever: Option<Arc<dyn Lever>>,
}

/// One run.
pub(crate) struct Run {
    /// What is played.
    pub shape: Shape,
    /// Everything else.
    pub settings: Settings,
    /// Where to.
    pub target: Arc<Target>,
    /// Distinguishes this run's topics, clients and payloads.
    pub tag: u32,
    stop: Arc<AtomicBool>,
    failed: AtomicBool,
    done: AtomicBool,
    gate: Mutex<Gate>,
    gate_opened: Condvar,
    phase: Mutex<&'static str>,
    shown: Vec<Shown>,
    interval: Mutex<Histogram<u64>>,
    watch: Mutex<Option<Watch>>,
    before: Mutex<Mark>,
    begin: Mutex<Mark>,
    end: Mutex<Mark>,
    samples: Mutex<Vec<Sample>>,
    began_ns: u64,
    began_unix: u64,
}

/// What one thread (or a whole scenario) found.
#[derive(Default)]
pub(crate) struct Outcome {
    /// PUBLISH packets sent between the marks.
    pub published: u64,
    /// PUBLISH packets received between the marks.
    pub delivered: u64,
    /// The scenario's unit of work between the marks.
    pub work: u64,
    /// CPU seconds of this thread between the marks.
    pub cpu_secs: f64,
    /// Correctness.
    pub checks: Checks,
    /// Histograms by name, in order of interest.
    pub histograms: Vec<(&'static str, Histogram<u64>)>,
    /// Scenario figures.
    pub figures: BTreeMap<String, f64>,
    /// Remarks.
    pub notes: Vec<String>,
    /// Faults beyond the checks.
    pub faults: Vec<String>,
}

impl Outcome {
    /// Adds what another thread found.
    pub(crate) fn merge(&mut self, other: Outcome) {
        self.published += other.published;
        self.delivered += other.delivered;
        self.work += other.work;
        self.cpu_secs += other.cpu_secs;
        self.checks.add(&other.checks);
        for (what, theirs) in other.histograms {
            match self.histograms.iter_mut().find(|(name, _)| *name == what) {
                // Both were made by `histogram()`: same bounds, so adding cannot fail.
                Some((_, ours)) => ours.add(&theirs).unwrap_or_default(),
                None => self.histograms.push((what, theirs)),
            }
        }
        for (name, value) in other.figures {
            *self.figures.entry(name).or_default() += value;
        }
        self.notes.extend(other.notes);
        self.faults.extend(other.faults);
    }
}

impl Run {
    /// A run that has not begun.
    pub(crate) fn new(
        shape: Shape,
        mut settings: Settings,
        target: Arc<Target>,
        stop: Arc<AtomicBool>,
    ) -> Result<Run> {
        if shape.kind.is_im() {
            // Everybody is a user of its own, whom the others know by the client identifier.
            settings.username = Some("{id}".to_owned());
            settings.password.get_or_insert_with(|| "any".to_owned());
        }
        let watch = match settings.broker_pids.as_slice() {
            [] => None,
            pids => Some(Watch::new(pids)?),
        };
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let tag = crate::stamp::mix(wall.as_nanos() as u64 ^ u64::from(std::process::id())) as u32;
        Ok(Run {
            shown: (0..settings.threads.max(1)).map(|_| Shown::default()).collect(),
            shape,
            settings,
            target,
            tag,
            stop,
            failed: AtomicBool::new(false),
            done: AtomicBool::new(false),
            gate: Mutex::default(),
            gate_opened: Condvar::new(),
            phase: Mutex::new("starting"),
            interval: Mutex::new(shown_histogram()),
            watch: Mutex::new(watch),
            before: Mutex::default(),
            begin: Mutex::default(),
            end: Mutex::default(),
            samples: Mutex::default(),
            began_ns: now_ns(),
            began_unix: wall.as_secs(),
        })
    }

    /// True when the user asked to end, or another thread gave up.
    pub(crate) fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.failed.load(Ordering::Relaxed)
    }

    /// True when the user asked to end.
    pub(crate) fn interrupted(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Tells the other threads that this one cannot go on.
    pub(crate) fn give_up(&self) {
        self.failed.store(true, Ordering::Relaxed);
        self.gate_opened.notify_all();
    }

    /// Says that the run is over.
    pub(crate) fn finish(&self) {
        self.done.store(true, Ordering::Relaxed);
    }

    /// True when the run is over.
    pub(crate) fn finished(&self) -> bool {
        self.done.load(Ordering::Relaxed)
    }

    /// Waits until all threads have come here.
    pub(crate) fn meet(&self) -> Result<()> {
        let mut gate = lock(&self.gate);
        gate.arrived += 1;
        if gate.arrived == self.shown.len() {
            gate.arrived = 0;
            gate.generation += 1;
            self.gate_opened.notify_all();
            return Ok(());
        }
        let generation = gate.generation;
        while gate.generation == generation {
            if self.failed.load(Ordering::Relaxed) {
                bail!("another thread gave up");
            }
            let wait = std::time::Duration::from_millis(50);
            let waited = self.gate_opened.wait_timeout(gate, wait);
            gate = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    /// Names what is going on, for the progress line.
    pub(crate) fn phase(&self, name: &'static str) {
        *lock(&self.phase) = name;
    }

    /// What is going on.
    pub(crate) fn current_phase(&self) -> &'static str {
        *lock(&self.phase)
    }

    /// Shows a thread's totals.
    pub(crate) fn show(&self, net: &Net) {
        let (shown, totals) = (&self.shown[net.thread()], net.totals());
        shown.published.store(totals.published, Ordering::Relaxed);
        shown.delivered.store(totals.delivered, Ordering::Relaxed);
        shown.up.store(totals.up, Ordering::Relaxed);
    }

    /// Shows a thread's latencies since the last time, and empties the histogram.
    pub(crate) fn show_latencies(&self, latencies: &mut Histogram<u64>) {
        if !latencies.is_empty() {
            // Same bounds on both sides: adding cannot fail.
            let _ = lock(&self.interval).add(&*latencies);
            latencies.reset();
        }
    }

    /// Reads the broker's cost now; zero when its process is not known or has gone.
    pub(crate) fn usage(&self) -> Usage {
        lock(&self.watch).as_ref().and_then(|watch| watch.read().ok()).unwrap_or_default()
    }

    /// Watches other processes from now on (after a restart).
    pub(crate) fn watch_instead(&self, pids: &[u32]) -> Result<()> {
        if !pids.is_empty() {
            *lock(&self.watch) = Some(Watch::new(pids)?);
        }
        Ok(())
    }

    fn mark(&self, mark: &Mutex<Mark>) {
        *lock(mark) = Mark { at_ns: now_ns(), usage: self.usage() };
    }

    /// Reads the broker before anything has connected.
    pub(crate) fn mark_before(&self) {
        self.mark(&self.before);
    }

    /// The measured time begins.
    pub(crate) fn mark_begin(&self) {
        self.mark(&self.begin);
    }

    /// The measured time ends.
    pub(crate) fn mark_end(&self) {
        self.mark(&self.end);
    }

    /// Broker usage when nothing had connected.
    pub(crate) fn usage_before(&self) -> Usage {
        lock(&self.before).usage
    }

    /// Takes one sample for plots; `last` is the sample state of the caller.
    pub(crate) fn sample(&self, last: &mut SampleState) -> Sample {
        let sum = |field: fn(&Shown) -> &AtomicU64| -> u64 {
            self.shown.iter().map(|s| field(s).load(Ordering::Relaxed)).sum()
        };
        let (published, delivered) = (sum(|s| &s.published), sum(|s| &s.delivered));
        let at_ns = now_ns();
        let secs = ns_to_secs(at_ns.saturating_sub(last.at_ns)).max(1e-6);
        let usage = self.usage();
        let mut interval = lock(&self.interval);
        let sample = Sample {
            at_secs: ns_to_secs(at_ns - self.began_ns.min(at_ns)),
            published: published.saturating_sub(last.published) as f64 / secs,
            delivered: delivered.saturating_sub(last.delivered) as f64 / secs,
            up: sum(|s| &s.up),
            p50_ms: interval.value_at_quantile(0.5) as f64 / 1e6,
            p99_ms: interval.value_at_quantile(0.99) as f64 / 1e6,
            broker_cores: ((usage.cpu_secs() - last.usage.cpu_secs()) / secs).max(0.0),
            broker_rss_bytes: usage.rss_bytes,
        };
        interval.reset();
        drop(interval);
        let first = last.at_ns == 0;
        *last = SampleState { at_ns, published, delivered, usage };
        let mut samples = lock(&self.samples);
        if !first && samples.len() < MAX_SAMPLES {
            samples.push(sample);
        }
        sample
    }

    /// Makes the report out of what was found.
    pub(crate) fn report(&self, outcome: Outcome, unit: &str) -> Report {
        let (before, begin, end) = (*lock(&self.before), *lock(&self.begin), *lock(&self.end));
        let secs = ns_to_secs(end.at_ns.saturating_sub(begin.at_ns));
        let cost = lock(&self.watch)
            .is_some()
            .then(|| BrokerCost::between(&before.usage, &begin.usage, &end.usage, secs));
        let threads = self.shown.len();
        let busy = if secs > 0.0 { outcome.cpu_secs / secs / threads as f64 } else { 0.0 };
        let latencies = outcome
            .histograms
            .iter()
            .filter_map(|(what, h)| Latency::from_histogram(what, h))
            .collect();
        let mut report = Report {
            shape: self.shape.clone(),
            broker: self.settings.broker.clone(),
            round: self.settings.round,
            target: self.target.describe(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            command: command_line(),
            started_unix: self.began_unix,
            machine: Machine::look(),
            interrupted: self.interrupted(),
            secs,
            published: outcome.published,
            delivered: outcome.delivered,
            unit: unit.to_owned(),
            work: outcome.work,
            latencies,
            checks: outcome.checks,
            faults: outcome.faults,
            notes: outcome.notes,
            cost,
            generator: GeneratorCost {
                cpu_secs: outcome.cpu_secs,
                threads,
                busy,
                spins: self.settings.spin,
                is_the_limit: false,
                us_per_message: None,
            },
            figures: outcome.figures,
            samples: std::mem::take(&mut *lock(&self.samples)),
        };
        report.warn_of_generator();
        report
    }
}

/// What the sampler remembers between samples.
#[derive(Clone, Copy, Default)]
pub(crate) struct SampleState {
    at_ns: u64,
    published: u64,
    delivered: u64,
    usage: Usage,
}

/// Counts what one thread does between two marks.
pub(crate) struct Meter {
    totals: Totals,
    cpu_secs: f64,
}

impl Meter {
    /// Begins to count.
    pub(crate) fn begin(totals: Totals) -> Meter {
        Meter { totals, cpu_secs: thread_cpu_secs() }
    }

    /// Writes what was counted into the outcome.
    pub(crate) fn end(&self, totals: Totals, outcome: &mut Outcome) {
        outcome.published = totals.published - self.totals.published;
        outcome.delivered = totals.delivered - self.totals.delivered;
        outcome.cpu_secs = thread_cpu_secs() - self.cpu_secs;
    }
}
