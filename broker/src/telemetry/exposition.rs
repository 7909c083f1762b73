//! The Prometheus text format, version 0.0.4, as far as the broker uses it.
//!
//! Owns the text being written. A family can only be written whole: its help, its type, then its
//! samples.

use std::fmt::{Display, Write};

/// The types of families the broker has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Only goes up.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts of values by upper bound.
    Histogram,
}

/// A text that grows family by family.
#[derive(Default)]
pub(super) struct Exposition {
    text: String,
}

/// A family while its samples are written.
pub(super) struct Family<'a> {
    text: &'a mut String,
    name: &'a str,
}

impl Exposition {
    /// Begins a family. `help` is one line without backslashes.
    pub(super) fn family<'a>(&'a mut self, name: &'a str, kind: Kind, help: &str) -> Family<'a> {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let text = &mut self.text;
        push(text, format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        Family { text, name }
    }

    /// A counter without labels.
    pub(super) fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, Kind::Counter, help).sample(&[], value);
    }

    /// A gauge without labels.
    pub(super) fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, Kind::Gauge, help).sample(&[], value);
    }

    /// The text so far.
    pub(super) fn into_text(self) -> String {
        self.text
    }
}

impl Family<'_> {
    /// One sample of the family.
    pub(super) fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.write("", labels, value);
    }

    /// One histogram: how many values were at or below each bound, how many there were, and
    /// their sum.
    pub(super) fn histogram(
        &mut self,
        labels: &[(&str, &str)],
        buckets: impl IntoIterator<Item = (String, u64)>,
        count: u64,
        sum: impl Display,
    ) {
        for (bound, below) in buckets {
            self.write("_bucket", &[labels, &[("le", &bound)]].concat(), below);
        }
        self.write("_bucket", &[labels, &[("le", "+Inf")]].concat(), count);
        self.write("_sum", labels, sum);
        self.write("_count", labels, count);
    }

    fn write(&mut self, suffix: &str, labels: &[(&str, &str)], value: impl Display) {
        push(self.text, format_args!("{}{suffix}", self.name));
        for (at, (label, content)) in labels.iter().enumerate() {
            let opening = if at == 0 { '{' } else { ',' };
            push(self.text, format_args!("{opening}{label}=\"{}\"", escaped(content)));
        }
        let closing = if labels.is_empty() { "" } else { "}" };
        push(self.text, format_args!("{closing} {value}\n"));
    }
}

fn escaped(content: &str) -> String {
    content.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn push(text: &mut String, what: std::fmt::Arguments<'_>) {
    // Writing to a String does not fail.
    let _ = text.write_fmt(what);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_look_as_prometheus_reads_them() {
        let mut exposition = Exposition::default();
        exposition.counter("a_total", "All of it.", 3);
        let mut family = exposition.family("b", Kind::Gauge, "By place.");
        family.sample(&[("place", "a\"b\\c\nd"), ("kind", "x")], 0.5);
        let expected = "# HELP a_total All of it.\n# TYPE a_total counter\na_total 3\n\
            # HELP b By place.\n# TYPE b gauge\nb{place=\"a\\\"b\\\\c\\nd\",kind=\"x\"} 0.5\n";
        assert_eq!(exposition.into_text(), expected);
    }

    #[test]
    fn histograms_end_in_the_bucket_of_all() {
        let mut exposition = Exposition::default();
        let mut family = exposition.family("h", Kind::Histogram, "Sizes.");
        family.histogram(&[("shard", "0")], [("1".to_owned(), 2)], 3, 40);
        let expected = "# HELP h Sizes.\n# TYPE h histogram\n\
            h_bucket{shard=\"0\",le=\"1\"} 2\nh_bucket{shard=\"0\",le=\"+Inf\"} 3\n\
            h_sum{shard=\"0\"} 40\nh_count{shard=\"0\"} 3\n";
        assert_eq!(exposition.into_text(), expected);
    }
}
