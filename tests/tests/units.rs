//! The units of `infra/systemd` say what keeps a machine up.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::{fs, path::PathBuf};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../infra/systemd")
}

/// The values of a key in a section of a unit.
fn values(unit: &str, section: &str, key: &str) -> Vec<String> {
    let text = fs::read_to_string(folder().join(unit)).unwrap();
    let within = text.lines().skip_while(|line| *line != format!("[{section}]")).skip(1).take_while(|line| !line.starts_with('['));
    within.filter_map(|line| line.strip_prefix(&format!("{key}="))).map(str::to_owned).collect()
}

#[test]
fn a_service_that_fails_for_minutes_is_started_again() {
    assert_eq!(values("nameplate.service", "Unit", "StartLimitIntervalSec"), ["0"]);
    assert_eq!(values("nameplate.service", "Service", "Restart"), ["always"]);
    assert_eq!(values("nameplate.service", "Service", "RestartPreventExitStatus"), ["64"]);
}
