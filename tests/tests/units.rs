//! The units of `infra/systemd` say what keeps a machine up.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::{fs, path::PathBuf, process::Command};

use system_tests::process::binary;

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

/// The commands of the guide that are the product's own: what stands behind `nameplate` in its console blocks.
fn commands_of_the_guide() -> Vec<Vec<String>> {
    let guide = fs::read_to_string(folder().join("README.md")).unwrap();
    let blocks = guide.split("```console\n").skip(1).filter_map(|rest| rest.split("```").next());
    let lines = blocks.flat_map(str::lines).filter_map(|line| line.strip_prefix("sudo -u nameplate nameplate "));
    lines.map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
}

#[test]
fn every_command_and_flag_of_the_guide_exists() {
    let commands = commands_of_the_guide();
    for wanted in ["setup", "doctor", "domains", "backup"] {
        assert!(commands.iter().any(|command| command[0] == wanted), "the guide has no {wanted} any more: {commands:?}");
    }
    for command in commands {
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        // Subcommands come before the first value, and all of ours are two words at most.
        let depth = if words[0] == "domains" { 2 } else { 1 };
        let help = Command::new(binary("nameplate")).args(&words[..depth]).arg("--help").output().unwrap();
        let text = String::from_utf8_lossy(&help.stdout).into_owned();
        assert!(help.status.success(), "{words:?}: {}", String::from_utf8_lossy(&help.stderr));
        for flag in words.iter().filter(|word| word.starts_with("--")) {
            assert!(text.split_whitespace().any(|known| known.trim_end_matches(',') == *flag), "{words:?}: there is no {flag} in\n{text}");
        }
    }
}

#[test]
fn systemd_reads_the_units_without_a_complaint() {
    let at = tempfile::tempdir().unwrap();
    let mut units = Vec::new();
    for file in fs::read_dir(folder()).unwrap().map(|file| file.unwrap().path()) {
        if file.extension().is_some_and(|extension| extension == "service" || extension == "socket") {
            let unit = at.path().join(file.file_name().unwrap());
            // The program is not installed here.
            fs::write(&unit, fs::read_to_string(&file).unwrap().replace("/usr/local/bin/nameplate", "/bin/true")).unwrap();
            units.push(unit);
        }
    }
    assert!(units.len() >= 5, "{units:?}");
    let verified = match Command::new("systemd-analyze").args(["verify", "--man=no"]).args(&units).output() {
        Ok(verified) => verified,
        Err(error) => return println!("not run: systemd-analyze: {error}"),
    };
    let said = String::from_utf8_lossy(&verified.stderr).into_owned();
    let ours = said.lines().filter(|line| line.contains("nameplate") && !NEWER.iter().any(|key| line.contains(key)));
    assert_eq!(ours.collect::<Vec<_>>(), Vec::<&str>::new());
}

/// Keys that systemd before 254 reports as unknown, and passes over.
const NEWER: &[&str] = &["RestartSteps", "RestartMaxDelaySec"];
