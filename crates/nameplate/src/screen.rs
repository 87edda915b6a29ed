//! What a person or a script reads.
//!
//! Arrives: text, JSON, progress. Leaves: stdout for results, stderr for everything else, colours only on a terminal. Goes wrong: a pipe
//! that was closed by its reader, which ends the output and nothing else.

use std::io::{IsTerminal, Write};

use serde_json::Value;

use crate::failure::Failure;

/// Where output goes and how it looks.
pub(crate) struct Screen {
    json: bool,
    colours: bool,
    live: bool,
}

impl Screen {
    pub(crate) fn new(json: bool) -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { json, colours: !json && !plain && std::io::stdout().is_terminal(), live: !json && std::io::stderr().is_terminal() }
    }

    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    pub(crate) fn text(&self, text: &str) {
        let _ = writeln!(std::io::stdout(), "{text}");
    }

    pub(crate) fn json(&self, value: &Value) {
        self.text(&value.to_string());
    }

    /// For people only; scripts do not see it.
    pub(crate) fn note(&self, text: &str) {
        if !self.json {
            let _ = writeln!(std::io::stderr(), "{text}");
        }
    }

    /// A line that is overwritten by the next one on a terminal, and printed once elsewhere.
    pub(crate) fn progress(&self, text: &str) {
        if self.live {
            let _ = write!(std::io::stderr(), "\r\x1b[2K{text}");
            let _ = std::io::stderr().flush();
        } else {
            self.note(text);
        }
    }

    pub(crate) fn end_progress(&self) {
        if self.live {
            let _ = write!(std::io::stderr(), "\r\x1b[2K");
        }
    }

    pub(crate) fn strong(&self, text: &str) -> String {
        self.coloured(text, "1")
    }

    pub(crate) fn good(&self, text: &str) -> String {
        self.coloured(text, "32")
    }

    pub(crate) fn attention(&self, text: &str) -> String {
        self.coloured(text, "33")
    }

    fn coloured(&self, text: &str, code: &str) -> String {
        if self.colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    pub(crate) fn failure(&self, failure: &Failure) {
        self.end_progress();
        if self.json {
            let error = serde_json::json!({ "error": { "code": failure.code, "message": failure.message, "hint": failure.hint } });
            let _ = writeln!(std::io::stderr(), "{error}");
            return;
        }
        let mut lines = format!("error: {}", failure.message);
        if let Some(hint) = &failure.hint {
            lines.push_str(&format!("\n  next: {hint}"));
        }
        let _ = writeln!(std::io::stderr(), "{lines}");
    }
}
