//! Logs: one line per event on standard error, as text for people or JSON for machines.
//!
//! Owns the filter, which a reload may change. The environment has its say through the settings
//! (`HOOPOE_LOG__LEVEL`), not here. What is logged where is the business of each module; message
//! payloads and credentials are logged by none.

use std::io::{self, IsTerminal};

use thiserror::Error;
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

use crate::settings::{LogFormat, LogLevel, LogSettings};

/// What the targets of all our packages begin with.
const OURS: &str = "hoopoe";

/// Why logging could not be set up.
#[derive(Debug, Error)]
pub enum LogError {
    /// Somebody in this process logs already.
    #[error("logging is set up already")]
    AlreadySet,
}

/// Changes what is logged while the broker runs.
#[derive(Clone, Debug)]
pub struct Logging {
    filter: reload::Handle<Targets, Registry>,
}

impl Logging {
    /// Logs from this level on.
    pub fn set_level(&self, level: LogLevel) {
        if let Err(error) = self.filter.reload(targets(level)) {
            tracing::error!(%error, "the log level stays as it was");
        }
    }
}

/// Sets up logging to standard error for the whole process; colours only for a terminal whose
/// user has not declined them (`NO_COLOR`).
///
/// # Errors
/// When logging is set up already.
pub fn init(settings: &LogSettings) -> Result<Logging, LogError> {
    let declined = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let colours = io::stderr().is_terminal() && !declined;
    let (subscriber, handle) = subscriber(settings, colours, io::stderr);
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LogError::AlreadySet)?;
    Ok(handle)
}

fn subscriber<W>(
    settings: &LogSettings,
    colours: bool,
    writer: W,
) -> (impl Subscriber + Send + Sync, Logging)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(targets(settings.level));
    let lines = fmt::layer().with_writer(writer);
    let lines = match settings.format {
        LogFormat::Text => lines.compact().with_ansi(colours).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).boxed(),
    };
    (Registry::default().with(filter).with(lines), Logging { filter: handle })
}

/// Libraries are heard from `warn` on: below it they tell of themselves, not of the broker. Only
/// `trace` means everybody's everything.
fn targets(level: LogLevel) -> Targets {
    let ours = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let others = if level == LogLevel::Trace { ours } else { ours.min(LevelFilter::WARN) };
    Targets::new().with_default(others).with_target(OURS, ours)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use parking_lot::Mutex;
    use tracing::Level;

    use super::*;

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Page {
        /// What `log` writes with these settings.
        fn of(format: LogFormat, level: LogLevel, log: impl FnOnce(&Logging)) -> String {
            let page = Page::default();
            let writer = page.clone();
            let settings = LogSettings { format, level };
            let (subscriber, handle) = subscriber(&settings, false, move || writer.clone());
            tracing::subscriber::with_default(subscriber, || log(&handle));
            String::from_utf8(page.0.lock().clone()).unwrap()
        }
    }

    #[test]
    fn text_is_a_line_with_its_fields_and_no_colours() {
        let page = Page::of(LogFormat::Text, LogLevel::Info, |_| {
            tracing::info!(target: "hoopoe::node", listener = "tcp://[::1]:1883", "listening");
        });
        assert!(page.ends_with("listening listener=\"tcp://[::1]:1883\"\n"), "{page:?}");
        assert!(page.starts_with("20") && page.contains(" INFO "), "{page:?}");
        assert!(!page.contains('\u{1b}'), "{page:?}");
    }

    #[test]
    fn json_is_an_object_per_line() {
        let page = Page::of(LogFormat::Json, LogLevel::Info, |_| {
            tracing::warn!(target: "hoopoe::node", shards = 4, "store \"slow\"\nagain");
            tracing::info!(target: "hoopoe::node", "second");
        });
        let lines: Vec<serde_json::Value> =
            page.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["level"], "WARN");
        assert_eq!(lines[0]["message"], "store \"slow\"\nagain");
        assert_eq!(lines[0]["shards"], 4);
        assert!(lines[0]["timestamp"].is_string());
    }

    #[test]
    fn levels_hold_for_us_and_libraries_are_quieter() {
        use Level as L;
        // Per setting: the least severe event heard from us, and from a library.
        for (level, ours, others) in [
            (LogLevel::Error, L::ERROR, L::ERROR),
            (LogLevel::Warn, L::WARN, L::WARN),
            (LogLevel::Info, L::INFO, L::WARN),
            (LogLevel::Debug, L::DEBUG, L::WARN),
            (LogLevel::Trace, L::TRACE, L::TRACE),
        ] {
            let targets = targets(level);
            for event in [L::ERROR, L::WARN, L::INFO, L::DEBUG, L::TRACE] {
                assert_eq!(targets.would_enable("hoopoe::node", &event), event <= ours);
                assert_eq!(targets.would_enable("hoopoe_store", &event), event <= ours);
                assert_eq!(targets.would_enable("rustls::conn", &event), event <= others);
            }
        }
    }

    #[test]
    fn the_level_changes_while_running() {
        let page = Page::of(LogFormat::Text, LogLevel::Info, |handle| {
            let log = |what: &str| tracing::debug!(target: "hoopoe::connection", "{what}");
            log("unheard");
            handle.set_level(LogLevel::Debug);
            log("heard");
            handle.set_level(LogLevel::Warn);
            log("unheard");
        });
        assert_eq!(page.matches("heard").count(), 1, "{page}");
        assert!(!page.contains("unheard"), "{page}");
    }
}
