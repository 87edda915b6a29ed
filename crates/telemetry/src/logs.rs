//! The subscriber that turns spans and events into lines on stderr.
//!
//! Arrives: the form wanted, and `RUST_LOG`. Leaves: a subscriber for the whole process. Goes wrong: see [`init`].

use std::{error::Error, io::IsTerminal, str::FromStr};

use tracing_subscriber::EnvFilter;

/// What is logged when `RUST_LOG` says nothing.
const DEFAULT_FILTER: &str = "info";

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people: one line an event, coloured on a terminal.
    #[default]
    Text,
    /// For machines: one JSON object a line.
    Json,
}

/// A log format that is neither `text` nor `json`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a log format; use text or json")]
pub struct UnknownLogFormat(String);

impl FromStr for LogFormat {
    type Err = UnknownLogFormat;

    fn from_str(text: &str) -> Result<Self, UnknownLogFormat> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => Err(UnknownLogFormat(other.chars().filter(|c| !c.is_control()).take(80).collect())),
        }
    }
}

/// Installs the process's subscriber: to stderr, filtered by `RUST_LOG`.
///
/// A second call changes nothing, so that several parts may run in one process. A `RUST_LOG` that cannot be read is told on the
/// first line and `info` is used.
pub fn init(format: LogFormat) {
    let asked = std::env::var(EnvFilter::DEFAULT_ENV).unwrap_or_default();
    let (filter, problem) = match asked.is_empty() {
        true => (EnvFilter::new(DEFAULT_FILTER), None),
        false => EnvFilter::try_new(&asked).map_or_else(|error| (EnvFilter::new(DEFAULT_FILTER), Some(error)), |filter| (filter, None)),
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let installed = match format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_ansi(false).try_init(),
    };
    if let (Ok(()), Some(error)) = (installed, problem) {
        tracing::warn!(error = error_chain(&error), "RUST_LOG cannot be read; logging at {DEFAULT_FILTER}");
    }
}

/// Writes an error with all of its causes on one line, each once and without control characters.
pub fn error_chain(error: &dyn Error) -> String {
    let mut line = String::new();
    let mut next = Some(error);
    while let Some(cause) = next {
        let text: String = cause.to_string().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        // Some libraries repeat their cause in their own text.
        if !line.ends_with(&text) {
            if !line.is_empty() {
                line.push_str(": ");
            }
            line.push_str(&text);
        }
        next = cause.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Told {
        text: &'static str,
        #[source]
        cause: Option<Box<Self>>,
    }

    fn told(text: &'static str, cause: Option<Told>) -> Told {
        Told { text, cause: cause.map(Box::new) }
    }

    #[test]
    fn an_error_is_one_line_with_every_cause_once() {
        let error = told("cannot publish", Some(told("put failed: disk\nfull", Some(told("disk\nfull", None)))));
        assert_eq!(error_chain(&error), "cannot publish: put failed: disk full");
        assert_eq!(error_chain(&told("alone", None)), "alone");
    }

    #[test]
    fn log_formats_are_read_by_name() {
        assert_eq!("json".parse(), Ok(LogFormat::Json));
        assert_eq!("text".parse(), Ok(LogFormat::Text));
        assert_eq!("xml".parse::<LogFormat>().unwrap_err().to_string(), "`xml` is not a log format; use text or json");
    }

    #[test]
    fn the_subscriber_may_be_installed_twice() {
        init(LogFormat::Json);
        init(LogFormat::Text);
        tracing::info!("still logging");
    }
}
