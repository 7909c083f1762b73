//! The result of one run: numbers, checks, costs and the facts needed to repeat it.
//!
//! Everything here is what `--json` writes; tables, pages and comparisons are made from it.

pub(crate) mod compare;
pub(crate) mod html;
pub(crate) mod summary;
pub(crate) mod table;

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::cost::Usage;
use crate::ledger::Checks;
use crate::machine::Machine;
use crate::shape::Shape;

/// Less CPU than this is no measurement.
const MIN_CPU_SECS: f64 = 0.01;
/// From this share of the broker's CPU per message on, the generator's is worth a remark.
const DEARER: f64 = 1.05;
/// From this share of its time on, the generator may be what limits the result.
const GENERATOR_BUSY: f64 = 0.93;

/// Latencies of one kind of message, in milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Latency {
    /// What was timed.
    pub what: String,
    /// How many.
    pub count: u64,
    /// The quickest.
    pub min_ms: f64,
    /// The mean.
    pub mean_ms: f64,
    /// Half were at most this.
    pub p50_ms: f64,
    /// 90 of 100.
    pub p90_ms: f64,
    /// 99 of 100.
    pub p99_ms: f64,
    /// 999 of 1000.
    pub p999_ms: f64,
    /// The slowest.
    pub max_ms: f64,
    /// Percentile and milliseconds, for the curve.
    pub curve: Vec<(f64, f64)>,
}

impl Latency {
    /// Reads the percentiles out of a histogram of nanoseconds; none when it is empty.
    pub(crate) fn from_histogram(what: &str, h: &Histogram<u64>) -> Option<Latency> {
        if h.is_empty() {
            return None;
        }
        let at = |quantile: f64| h.value_at_quantile(quantile) as f64 / 1e6;
        let curve = h
            .iter_quantiles(4)
            .map(|step| {
                (step.quantile_iterated_to() * 100.0, step.value_iterated_to() as f64 / 1e6)
            })
            .collect();
        Some(Latency {
            what: what.to_owned(),
            count: h.len(),
            min_ms: h.min() as f64 / 1e6,
            mean_ms: h.mean() / 1e6,
            p50_ms: at(0.5),
            p90_ms: at(0.9),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            max_ms: h.max() as f64 / 1e6,
            curve,
        })
    }
}

/// What the broker spent between begin and end of the measurement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct BrokerCost {
    /// CPU seconds in user mode.
    pub user_secs: f64,
    /// CPU seconds in the kernel.
    pub system_secs: f64,
    /// Share of one core that was kept busy, 1.0 = one core.
    pub cores_busy: f64,
    /// Resident bytes before anything connected.
    pub rss_before_bytes: u64,
    /// Resident bytes at the end of the measurement.
    pub rss_after_bytes: u64,
    /// Highest resident bytes.
    pub peak_rss_bytes: u64,
    /// Microseconds per message in either direction.
    #[serde(default)]
    pub us_per_message: Option<f64>,
}

impl BrokerCost {
    /// User and system CPU seconds together.
    pub(crate) fn cpu_secs(&self) -> f64 {
        self.user_secs + self.system_secs
    }

    /// The difference between two readings `secs` apart.
    pub(crate) fn between(before: &Usage, begin: &Usage, end: &Usage, secs: f64) -> BrokerCost {
        let cpu = (end.cpu_secs() - begin.cpu_secs()).max(0.0);
        BrokerCost {
            user_secs: (end.user_secs - begin.user_secs).max(0.0),
            system_secs: (end.system_secs - begin.system_secs).max(0.0),
            cores_busy: if secs > 0.0 { cpu / secs } else { 0.0 },
            rss_before_bytes: before.rss_bytes,
            rss_after_bytes: end.rss_bytes,
            peak_rss_bytes: end.peak_rss_bytes,
            us_per_message: None,
        }
    }
}

/// What the generator itself spent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct GeneratorCost {
    /// CPU seconds of its threads.
    pub cpu_secs: f64,
    /// Threads.
    pub threads: usize,
    /// Share of its threads' time that was spent working, 1.0 = all of it.
    pub busy: f64,
    /// It never slept, and what it spent says nothing.
    #[serde(default)]
    pub spins: bool,
    /// True when the generator, not the broker, was the limit.
    pub is_the_limit: bool,
    /// Microseconds per message in either direction, to hold against the broker's.
    #[serde(default)]
    pub us_per_message: Option<f64>,
}

/// One moment of the run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// Seconds since the run began.
    pub at_secs: f64,
    /// Publications per second since the last sample.
    pub published: f64,
    /// Deliveries per second since the last sample.
    pub delivered: f64,
    /// Connections that are up.
    pub up: u64,
    /// Median latency of the interval.
    pub p50_ms: f64,
    /// 99th percentile of the interval.
    pub p99_ms: f64,
    /// Cores that the broker kept busy.
    pub broker_cores: f64,
    /// Resident bytes of the broker.
    pub broker_rss_bytes: u64,
}

/// The result of one scenario against one broker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// What was played.
    pub shape: Shape,
    /// Name of the broker, where one was given.
    pub broker: String,
    /// Which round of several.
    #[serde(default)]
    pub round: u32,
    /// Address, wire and protocol version.
    pub target: String,
    /// Version of this program.
    pub version: String,
    /// The exact command.
    pub command: String,
    /// When it began, seconds since 1970.
    pub started_unix: u64,
    /// Where it ran.
    pub machine: Machine,
    /// True when the user ended it early.
    pub interrupted: bool,
    /// Seconds measured.
    pub secs: f64,
    /// PUBLISH packets sent in the measured time.
    pub published: u64,
    /// PUBLISH packets received in the measured time.
    pub delivered: u64,
    /// What the figure of the scenario counts ("deliveries", "connections", …).
    pub unit: String,
    /// How many of them in the measured time.
    pub work: u64,
    /// Latencies.
    pub latencies: Vec<Latency>,
    /// Correctness over the whole run.
    pub checks: Checks,
    /// What went wrong, in words; empty when all promises of the QoS were kept.
    pub faults: Vec<String>,
    /// Things the reader should know.
    pub notes: Vec<String>,
    /// The broker's cost, where its process is known.
    pub cost: Option<BrokerCost>,
    /// The generator's cost.
    pub generator: GeneratorCost,
    /// Figures of single scenarios, by name.
    pub figures: BTreeMap<String, f64>,
    /// The run over time.
    pub samples: Vec<Sample>,
}

impl Report {
    /// Work per second.
    pub(crate) fn per_sec(&self) -> f64 {
        if self.secs > 0.0 { self.work as f64 / self.secs } else { 0.0 }
    }

    /// Work per CPU second of the broker, where it is known and more than a clock tick.
    pub(crate) fn per_cpu_sec(&self) -> Option<f64> {
        let cpu = self.cost.as_ref()?.cpu_secs();
        (cpu >= MIN_CPU_SECS).then(|| self.work as f64 / cpu)
    }

    /// Microseconds of the generator per message in either direction.
    pub(crate) fn generator_us_per_message(&self) -> Option<f64> {
        let messages = self.published + self.delivered;
        let says = messages > 0 && !self.generator.spins;
        says.then(|| self.generator.cpu_secs * 1e6 / messages as f64)
    }

    /// Microseconds of the broker per message in either direction.
    pub(crate) fn broker_us_per_message(&self) -> Option<f64> {
        let messages = self.published + self.delivered;
        let cpu = self.cost.as_ref()?.cpu_secs();
        (messages > 0).then(|| cpu * 1e6 / messages as f64)
    }

    /// The generator's CPU per message as a share of the broker's; below 1 it is the leaner of both.
    pub(crate) fn generator_share(&self) -> Option<f64> {
        let (ours, theirs) = (self.generator_us_per_message()?, self.broker_us_per_message()?);
        (theirs > 0.0).then(|| ours / theirs)
    }

    /// Writes down what a message costs on either side, and warns when the broker had time to spare
    /// while the generator had none, or when a message cost the generator more than the broker.
    pub(crate) fn warn_of_generator(&mut self) {
        self.generator.us_per_message = self.generator_us_per_message();
        let theirs = self.broker_us_per_message();
        if let Some(cost) = &mut self.cost {
            cost.us_per_message = theirs;
        }
        if let Some(share) = self.generator_share().filter(|share| *share > DEARER) {
            self.notes.push(format!(
                "a message cost the generator {share:.2} times what it cost the broker{}",
                match self.shape.rate {
                    Some(_) => {
                        ": one message at a time is a wake-up each; --tick 1 lets several fall due \
                         together"
                    }
                    None => "",
                }
            ));
        }
        let g = &mut self.generator;
        let broker_busy = self.cost.as_ref().map(|cost| cost.cores_busy);
        // A broker's busiest thread may be one of several: a whole core counts as its limit.
        let broker_is_limit = broker_busy.is_some_and(|busy| busy >= 0.93);
        if g.spins {
            self.notes.push("the generator never slept: what it spent says nothing".to_owned());
            return;
        }
        g.is_the_limit = g.busy >= GENERATOR_BUSY && !broker_is_limit;
        if g.is_the_limit {
            self.notes.push(format!(
                "THE GENERATOR IS THE LIMIT: it was busy for {:.0} % of the time; what the broker can \
                 do is more than this. Use --threads, another machine, or fewer cores for the broker. \
                 Figures per broker CPU second still hold",
                g.busy * 100.0
            ));
        } else if g.busy >= GENERATOR_BUSY {
            self.notes.push(format!(
                "generator and broker were both at their limit ({:.0} % busy): figures per broker CPU \
                 second hold, those per second depend on both",
                g.busy * 100.0
            ));
        }
    }

    /// Says in words what the checks found.
    pub(crate) fn judge(&mut self, lossless: bool, exactly_once: bool) {
        let c = &self.checks;
        let mut say = |count: u64, what: &str| {
            if count > 0 {
                self.faults.push(format!("{count} {what}"));
            }
        };
        if lossless {
            say(c.lost, "lost");
            say(c.disconnects, "connections lost");
        }
        say(c.doubled, "doubled without the DUP flag");
        if exactly_once {
            say(c.redelivered, "delivered twice at QoS 2");
        }
        say(c.out_of_order, "out of order");
        say(c.misrouted, "delivered to the wrong client");
        say(c.damaged, "damaged");
        say(c.refused, "refused");
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A report with this much work in one second and one broker CPU second.
    pub(crate) fn sample_report(scenario: &str, broker: &str, work: u64) -> Report {
        Report {
            shape: Shape { name: scenario.to_owned(), ..Shape::preset("pairs1").unwrap() },
            broker: broker.to_owned(),
            round: 0,
            target: "127.0.0.1:1883 over TCP, MQTT 3.1.1".to_owned(),
            version: "0".to_owned(),
            command: "hoopoe-bench".to_owned(),
            started_unix: 1,
            machine: Machine::default(),
            interrupted: false,
            secs: 1.0,
            published: work,
            delivered: work,
            unit: "deliveries".to_owned(),
            work,
            latencies: Vec::new(),
            checks: Checks::default(),
            faults: Vec::new(),
            notes: Vec::new(),
            cost: Some(BrokerCost { user_secs: 1.0, cores_busy: 1.0, ..BrokerCost::default() }),
            generator: GeneratorCost {
                cpu_secs: 0.5,
                threads: 1,
                busy: 0.5,
                spins: false,
                is_the_limit: false,
                us_per_message: None,
            },
            figures: BTreeMap::new(),
            samples: Vec::new(),
        }
    }

    #[test]
    fn the_generator_admits_to_being_the_limit() {
        // (generator busy, broker cores busy, is the limit, some note)
        for (busy, broker, limit, note) in [
            (0.5, Some(0.2), false, false),
            (0.99, Some(0.4), true, true),
            (0.99, Some(1.0), false, true),
            (0.99, None, true, true),
        ] {
            let mut report = sample_report("pairs1", "x", 10);
            report.generator.busy = busy;
            report.cost = broker.map(|cores_busy| BrokerCost { cores_busy, ..Default::default() });
            report.warn_of_generator();
            assert_eq!(report.generator.is_the_limit, limit, "{busy} {broker:?}");
            assert_eq!(!report.notes.is_empty(), note, "{busy} {broker:?}");
        }
        let mut report = sample_report("pairs1", "x", 10);
        report.generator = GeneratorCost { busy: 1.0, spins: true, ..report.generator };
        report.warn_of_generator();
        assert!(!report.generator.is_the_limit && report.generator_share().is_none());
        assert_eq!(report.notes.len(), 1, "{:?}", report.notes);
    }

    #[test]
    fn faults_depend_on_what_the_qos_promises() {
        let checks = Checks { lost: 3, redelivered: 2, doubled: 1, ..Checks::default() };
        for (lossless, exactly_once, count) in
            [(false, false, 1), (true, false, 2), (true, true, 3)]
        {
            let mut report = sample_report("pairs1", "x", 10);
            report.checks = checks;
            report.judge(lossless, exactly_once);
            assert_eq!(report.faults.len(), count, "{:?}", report.faults);
        }
    }
}
