//! How a command ends when it does not end well.

/// What happened, what to do next, and the exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
    pub(crate) code: Option<String>,
    pub(crate) exit_code: u8,
}

impl Failure {
    pub(crate) fn failed(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: Some(hint.into()), code: None, exit_code: 1 }
    }

    pub(crate) fn refused(code: &str, message: impl Into<String>, hint: Option<String>) -> Self {
        Self { message: message.into(), hint, code: Some(code.to_owned()), exit_code: 3 }
    }

    pub(crate) fn unreachable(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: Some(hint.into()), code: None, exit_code: 4 }
    }

    pub(crate) fn gave_up(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: Some(hint.into()), code: None, exit_code: 5 }
    }

    pub(crate) fn configuration(message: impl Into<String>) -> Self {
        // sysexits.h, EX_USAGE: what supervisors read as "do not start again".
        Self { message: message.into(), hint: None, code: None, exit_code: 64 }
    }
}
