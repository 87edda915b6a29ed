//! `nameplate backup` and `nameplate restore`.
//!
//! Arrives: a data folder, in use or not; a file. Leaves: one file with everything as of one moment; or a data folder that carries on from
//! it, as [`backups::restore`] makes it, and what the operator has to know about it. Goes wrong: a store that is in the way, keys that are missing, a bucket that
//! does not read; each with what to do, and a restore that did not end is begun anew by the next one.

use std::{
    collections::BTreeSet,
    fs,
    io::ErrorKind,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use backups::{Restore, Restored};
use bundles::SealKeys;
use clap::Args;
use domains::{Clock, Hostname, SystemClock, Timestamp, ledger::CaLimits};
use serde_json::json;
use storage::local::{BackupError, CarriedFile, back_up, read_backup};

use crate::{
    config::{Config, HomePlace},
    failure::Failure,
    files,
    home::HOME,
    product::{self, EDGE_CACHE},
    screen::Screen,
};

/// The secrets that a backup carries when asked to, below the data folder: whoever has them is this installation.
const SECRETS: &[&str] = &["operator.key", "keys/seal.json", "keys/acme-account.json", "keys/acme-account-second.json", "keys/terms.json"];

pub(crate) fn take(config: &Config, to: &Path, with_keys: bool, screen: &Screen) -> Result<(), Failure> {
    refuse_on_aws(config)?;
    let mut files = Vec::new();
    for path in SECRETS.iter().filter(|_| with_keys) {
        let text =
            files::read(&config.data.join(path)).map_err(|error| Failure::failed(error.to_string(), "run this as the user that serves"))?;
        files.extend(text.map(|text| ((*path).to_owned(), text.into_bytes())));
    }
    let facts = back_up(&config.data.join(HOME), to, env!("CARGO_PKG_VERSION"), &files, SystemClock.now())
        .map_err(|error| Failure::failed(error.to_string(), what_helps(&error)))?;
    if screen.is_json() {
        screen.json(&json!({ "file": to, "taken_at": facts.taken_at, "files": facts.files }));
        return Ok(());
    }
    screen.text(&format!("{} holds the store as of {}.", to.display(), told(facts.taken_at)));
    screen.text(&match facts.files.as_slice() {
        [] => {
            format!("Its private keys are sealed: keep {} elsewhere, or take backups with --with-keys.", config.data.join("keys").display())
        }
        files => format!("It also holds {}: whoever has it can be this installation. Keep it secret.", files.join(", ")),
    });
    Ok(())
}

/// What the operator does about a backup that was not written.
fn what_helps(error: &BackupError) -> &'static str {
    match error {
        BackupError::File { source, .. } if source.kind() == ErrorKind::PermissionDenied => {
            "name a file in a folder of the user that runs this: install -d -m 700 -o nameplate -g nameplate /var/backups/nameplate"
        }
        BackupError::File { source, .. } if source.kind() == ErrorKind::NotFound => "name a file in a folder that is there",
        _ => "name a file that is not there yet, on a disk with room",
    }
}

/// What is on AWS is backed up there; a file beside it would be a second, older truth.
fn refuse_on_aws(config: &Config) -> Result<(), Failure> {
    match config.home {
        HomePlace::Local => Ok(()),
        HomePlace::Aws(_) => Err(Failure::failed(
            "the store is on AWS, and backups here are of a store on this machine",
            "turn on point-in-time recovery for both tables and versioning for the bucket",
        )),
    }
}

/// What the operator knows, and wants.
#[derive(Args)]
pub(crate) struct RestoreCommand {
    /// The backup.
    #[arg(long, value_name = "FILE")]
    from: PathBuf,
    /// Hostnames that were removed after the backup, one a line, for when the bucket is lost as well.
    #[arg(long, value_name = "FILE")]
    removed: Option<PathBuf>,
    /// Hostnames that were suspended after the backup, one a line, for the same.
    #[arg(long, value_name = "FILE")]
    suspended: Option<PathBuf>,
    /// Tells every webhook of the backup on; without it each waits until `webhooks redeliver`, since it may have been removed since.
    #[arg(long)]
    keep_webhooks: bool,
    /// Gives `ask` a new secret path, for when it was rotated after the backup.
    #[arg(long)]
    new_ask_secret: bool,
}

pub(crate) async fn restore(config: &Config, command: &RestoreCommand, screen: &Screen) -> Result<(), Failure> {
    refuse_on_aws(config)?;
    let failed = |error: &dyn std::fmt::Display| {
        Failure::failed(error.to_string(), "nothing is served from this folder until `nameplate restore` has ended well")
    };
    refuse_a_stranger(&config.data)?;
    let (_, secrets) = read_backup(&command.from).map_err(|error| Failure::failed(error.to_string(), what_helps_to_read(&error)))?;
    let removed = command.removed.as_deref().map(read_names).transpose()?.unwrap_or_default();
    let suspended = command.suspended.as_deref().map(read_names).transpose()?.unwrap_or_default();
    files::make_private_folder(&config.data).map_err(|error| failed(&error))?;
    put_secrets(config, &secrets)?;
    let seal_key = product::read_seal_key(&config.data).map_err(|error| failed(&error))?.ok_or_else(|| {
        Failure::failed(
            format!("neither the backup nor {} has the seal key, without which no certificate can be used", config.data.display()),
            "put keys/seal.json back, or use a backup taken with --with-keys",
        )
    })?;
    let mut seal_keys = SealKeys::default();
    seal_keys.insert(seal_key);
    let asked = Restore {
        from: &command.from,
        home: &config.data.join(HOME),
        edge_cache: Some(&config.data.join(EDGE_CACHE)),
        seal_keys: &seal_keys,
        removed: &removed,
        suspended: &suspended,
        limits: &limits(config),
        keep_webhooks: command.keep_webhooks,
        new_ask_secret: command.new_ask_secret,
        clock: Arc::new(SystemClock),
    };
    let made = backups::restore(&asked).await.map_err(|error| Failure::failed(telemetry::error_chain(&error), error.what_helps()))?;
    show(&made, screen);
    Ok(())
}

/// What is made as somebody else, by root in a hurry say, the product cannot open.
fn refuse_a_stranger(data: &Path) -> Result<(), Failure> {
    let Ok(about) = fs::metadata(data) else { return Ok(()) };
    let (owner, ours) = (about.uid(), rustix::process::geteuid().as_raw());
    if owner == ours {
        return Ok(());
    }
    Err(Failure::failed(
        format!("{} belongs to the user {owner}, and this runs as {ours}", data.display()),
        "run this as the user that serves: sudo -u nameplate nameplate restore …",
    ))
}

/// What the operator does about a backup that does not read.
fn what_helps_to_read(error: &BackupError) -> &'static str {
    match error {
        BackupError::File { source, .. } if source.kind() == ErrorKind::PermissionDenied => {
            "give it to the user that serves: install -m 600 -o nameplate -g nameplate FILE /var/backups/nameplate/"
        }
        _ => "name a file that `nameplate backup` wrote",
    }
}

fn limits(config: &Config) -> Vec<CaLimits> {
    let second = config.second_ca.as_ref().and_then(|second| second.directory.as_deref());
    let first = config.acme_limits.at(config.acme.directory.as_deref());
    std::iter::once(first).chain(second.map(|directory| config.acme_limits.of_second(directory))).collect()
}

fn read_names(file: &Path) -> Result<BTreeSet<Hostname>, Failure> {
    let text = files::read(file).map_err(|error| Failure::failed(error.to_string(), "check the path"))?;
    let text = text.ok_or_else(|| Failure::failed(format!("{} does not exist", file.display()), "name a file with one hostname a line"))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            Hostname::parse_name(line)
                .map_err(|error| Failure::failed(format!("`{line}`: {error}"), "mend that line; nothing was restored"))
        })
        .collect()
}

/// What is there stays; a backup only fills gaps.
fn put_secrets(config: &Config, secrets: &[CarriedFile]) -> Result<(), Failure> {
    for (path, bytes) in secrets.iter().filter(|(path, _)| SECRETS.contains(&path.as_str())) {
        let path = config.data.join(path);
        let failed = |error: files::FileError| Failure::failed(error.to_string(), "run this as the user that serves");
        if files::read(&path).map_err(failed)?.is_none() {
            files::write_secret(&path, bytes).map_err(failed)?;
        }
    }
    Ok(())
}

fn show(made: &Restored, screen: &Screen) {
    if screen.is_json() {
        screen.json(&json!({
            "taken_at": made.taken_at, "bucket_survived": made.bucket_survived, "names": made.names, "changed": made.changed,
            "taken_over": made.taken_over, "gone": made.gone, "suspended": made.suspended, "withheld": made.withheld,
            "unknown": made.unknown, "paused_webhooks": made.webhooks, "stopped_imports": made.imports, "ask_made_at": made.ask_made_at,
        }));
        return;
    }
    screen.text(&format!("Restored {} names from the backup of {}.", made.names, told(made.taken_at)));
    for (list, what) in [
        (&made.taken_over, "have a newer certificate in the bucket, which was taken over"),
        (&made.gone, "were removed after the backup, and stay gone"),
        (&made.suspended, "were suspended after the backup, and stay so until `nameplate domains resume`"),
        (&made.withheld, "wait until their records are seen in DNS, since nothing tells whether they were removed after the backup"),
        (&made.unknown, "are served from the bucket, but no claim to them is known: register them again"),
    ] {
        if !list.is_empty() {
            screen.text(&format!("  {} {what}: {}", list.len(), sample(list)));
        }
    }
    if !made.withheld.is_empty() {
        screen.text(
            "If names were removed or suspended since, restore once more with --removed FILE and --suspended FILE before you serve: their old \
             records would bring them back.",
        );
    }
    for webhook in &made.webhooks {
        screen.text(&format!("  paused   webhook {}  {}", webhook.id, webhook.url));
    }
    if !made.webhooks.is_empty() {
        screen.text(
            "Once it serves, `nameplate webhooks redeliver ID` tells a paused webhook on, from where it was. First remove those that were removed \
             since the backup, and rotate the secrets that were rotated since.",
        );
    }
    for import in &made.imports {
        let whose = import.tenant.as_ref().map_or_else(String::new, |tenant| format!(" of {tenant}"));
        screen.text(&format!("  stopped  import {}{whose}: {} of {} lines were not taken", import.id, import.left, import.lines));
    }
    if !made.imports.is_empty() {
        screen.text("Who sends the list of a stopped import again starts it again; lines that are registered stay as they are.");
    }
    if let Some(made_at) = made.ask_made_at {
        screen.text(&format!(
            "The secret path of `ask` is that of {}. If it was rotated since, run `nameplate ask --rotate` once it serves.",
            told(made_at)
        ));
    }
}

fn told(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// The first few of a list.
fn sample(list: &[String]) -> String {
    const SHOWN: usize = 10;
    let shown = list.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if list.len() > SHOWN { format!("{shown}, … (--json lists all)") } else { shown }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_somebody_else_is_told_apart_from_a_file_in_the_way() {
        let file = |kind: ErrorKind| BackupError::File { path: "/var/backups/nameplate.1".into(), source: kind.into() };
        assert!(what_helps(&file(ErrorKind::PermissionDenied)).contains("/var/backups/nameplate"));
        assert!(what_helps(&file(ErrorKind::NotFound)).contains("folder that is there"));
        assert!(what_helps_to_read(&file(ErrorKind::PermissionDenied)).contains("-o nameplate"));
        assert!(what_helps(&BackupError::InTheWay("/x".into())).contains("not there yet"));
    }
}
