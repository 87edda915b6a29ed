//! The command as scripts and people meet it, without a running product.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

use std::process::{Command, Output};

fn nameplate(folder: &std::path::Path, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nameplate"));
    command.current_dir(folder).args(arguments).env_remove("NAMEPLATE_CONFIG").env_remove("NAMEPLATE_API").env_remove("NAMEPLATE_API_KEY");
    command.envs(environment.iter().copied()).output().expect("the command starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_wrong_configuration_is_told_whole_and_ends_with_ex_usage() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("nameplate.toml"), "colour = \"red\"\n[listen]\napi = \"here\"\n").unwrap();
    let output = nameplate(folder.path(), &["dev"], &[("NAMEPLATE_LOOKS_FLOOR", "soon")]);
    assert_eq!(output.status.code(), Some(64));
    let said = text(&output.stderr);
    for part in ["colour", "listen.api", "NAMEPLATE_LOOKS_FLOOR", "nameplate config"] {
        assert!(said.contains(part), "{part} is missing in: {said}");
    }
    assert!(!folder.path().join(".nameplate").exists(), "nothing is made before the configuration is right");
}

#[test]
fn every_error_says_what_to_do_next_and_json_errors_are_json() {
    let folder = tempfile::tempdir().unwrap();
    let nobody = [("NAMEPLATE_API", "http://127.0.0.1:9"), ("NAMEPLATE_API_KEY", "np_secret")];
    let output = nameplate(folder.path(), &["domains", "list"], &nobody);
    assert_eq!(output.status.code(), Some(4));
    let said = text(&output.stderr);
    assert!(said.contains("next: start it with `nameplate dev`"), "{said}");
    assert!(!said.contains("np_secret"), "a secret was printed: {said}");

    let output = nameplate(folder.path(), &["--json", "domains", "show", "shop.brand.com"], &[]);
    assert_eq!(output.status.code(), Some(4));
    let error: serde_json::Value = serde_json::from_slice(&output.stderr).expect("one JSON object");
    assert!(error["error"]["hint"].as_str().is_some_and(|hint| hint.contains("nameplate dev")), "{error}");
}

#[test]
fn wrong_arguments_end_with_2_and_the_configuration_prints_every_key() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(nameplate(folder.path(), &["domains", "fly"], &[]).status.code(), Some(2));
    let output = nameplate(folder.path(), &["config"], &[]);
    assert!(output.status.success());
    let printed = text(&output.stdout);
    assert!(!printed.contains('\u{1b}'), "no colours where no terminal is");
    // What is printed is a file that reads.
    std::fs::write(folder.path().join("nameplate.toml"), printed).unwrap();
    let output = nameplate(folder.path(), &["dns", "list"], &[]);
    assert_eq!(output.status.code(), Some(4), "{}", text(&output.stderr));
}

#[test]
fn a_restore_as_somebody_else_is_refused_before_it_makes_what_the_product_cannot_open() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("var");
    std::fs::create_dir(&data).unwrap();
    // Only root can give a folder away; whoever runs this as another cannot meet the case.
    if std::os::unix::fs::chown(&data, Some(65_534), None).is_err() {
        return;
    }
    let config =
        format!("data = {data:?}\norigin = \"http://127.0.0.1:3000\"\n[zone]\nname = \"edge.saas.net\"\naddresses = \"192.0.2.1\"\n");
    std::fs::write(folder.path().join("nameplate.toml"), config).unwrap();
    let output = nameplate(folder.path(), &["restore", "--from", "backup"], &[]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("65534") && said.contains("sudo -u nameplate"), "{said}");
    assert_eq!(std::fs::read_dir(&data).unwrap().count(), 0, "nothing was made");
}
