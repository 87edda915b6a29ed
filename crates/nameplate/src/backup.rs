//! `nameplate backup` and `nameplate restore`.
//!
//! Arrives: a data folder, in use or not; a file. Leaves: one file with everything as of one moment; or a data folder that carries on from
//! it, with nothing issued again and nothing brought back. Goes wrong: a store that is in the way, keys that are missing, a bucket that
//! does not read; each with what to do, and a restore that did not end is begun anew by the next one.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::ErrorKind,
    path::Path,
    sync::Arc,
    time::Duration,
};

use bundles::{IndexShard, SealKeys, SiteObject, index_object};
use domains::{
    BundleBucket, Claim, Clock, DomainTable, Hostname, LedgerMove, Limits, Listings, SiteVersion, SystemClock, Timestamp,
    decide::{self, Shown, ShownSite},
};
use issuers::acme::read_issued;
use serde_json::json;
use storage::local::{BackupError, CarriedFile, LocalConfig, LocalHome, back_up, place, read_backup, restored};

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

/// How many claims are read at once.
const PAGE: usize = 500;

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
    screen.text(&format!("{} holds the store as of {}.", to.display(), facts.taken_at.strftime("%Y-%m-%d %H:%M:%S UTC")));
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

/// What a restore made of the names.
#[derive(Default)]
struct Tally {
    names: usize,
    changed: usize,
    taken_over: Vec<String>,
    gone: Vec<String>,
    withheld: Vec<String>,
    unknown: Vec<String>,
}

pub(crate) async fn restore(config: &Config, from: &Path, removed: Option<&Path>, screen: &Screen) -> Result<(), Failure> {
    refuse_on_aws(config)?;
    let failed = |error: &dyn std::fmt::Display| {
        Failure::failed(error.to_string(), "nothing is served from this folder until `nameplate restore` has ended well")
    };
    let (facts, secrets) =
        read_backup(from).map_err(|error| Failure::failed(error.to_string(), "name a file that `nameplate backup` wrote"))?;
    let now = SystemClock.now();
    let removed = removed.map(read_removed).transpose()?.unwrap_or_default();
    files::make_private_folder(&config.data).map_err(|error| failed(&error))?;
    put_secrets(config, &secrets)?;
    let seal_key = product::read_seal_key(&config.data).map_err(|error| failed(&error))?.ok_or_else(|| {
        Failure::failed(
            format!("neither the backup nor {} has the seal key, without which no certificate can be used", config.data.display()),
            "put keys/seal.json back, or use a backup taken with --with-keys",
        )
    })?;
    let folder = config.data.join(HOME);
    place(from, &folder).map_err(|error| {
        Failure::failed(
            error.to_string(),
            "stop the product and move the store (home/home.sqlite3, -wal and -shm) away if it shall be replaced; leave bucket/ where it is",
        )
    })?;
    let home =
        LocalHome::open(LocalConfig::new(&folder, Arc::new(SystemClock))).map_err(|error| failed(&telemetry::error_chain(&error)))?;
    let mut seal_keys = SealKeys::default();
    seal_keys.insert(seal_key);
    let shown = shown_by_bucket(&home, &seal_keys, config.second_ca.is_some()).await?;
    if shown.is_empty() {
        forget_edge_cache(config)?;
    }
    let tally = reconcile(&home, &shown, &removed, facts.taken_at, now).await?;
    hold_orders(&home, config, facts.taken_at, now).await?;
    home.close().await.map_err(|error| failed(&error))?;
    restored(&folder).map_err(|error| failed(&error))?;
    show(&tally, facts.taken_at, !shown.is_empty(), screen);
    Ok(())
}

fn read_removed(file: &Path) -> Result<BTreeSet<Hostname>, Failure> {
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

/// A bucket that begins anew counts from the beginning, and an edge that remembers more would take none of it, while it went on serving what
/// may have been removed.
fn forget_edge_cache(config: &Config) -> Result<(), Failure> {
    let cache = config.data.join(EDGE_CACHE);
    match fs::remove_dir_all(&cache) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(Failure::failed(format!("{}: {error}", cache.display()), "remove that folder and run `nameplate restore` again"))
        }
        _ => Ok(()),
    }
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

/// Everything the bucket shows, object and index together: of two that differ the newer one counts.
async fn shown_by_bucket(home: &LocalHome, keys: &SealKeys, two_cas: bool) -> Result<BTreeMap<Hostname, Shown>, Failure> {
    let unreadable = |what: &str, error: &dyn std::fmt::Display| {
        Failure::failed(
            format!("{what} in the bucket does not read: {error}"),
            "mend the disk, or move bucket/ away: then every name waits until it is seen in DNS",
        )
    };
    let mut shown = BTreeMap::new();
    let sites = home.bucket_folder().join("sites");
    let listed = match fs::read_dir(&sites) {
        Ok(listed) => listed.collect::<Result<Vec<_>, _>>().map_err(|error| unreadable("the folder of sites", &error))?,
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(unreadable("the folder of sites", &error)),
    };
    for file in listed {
        let bytes = fs::read(file.path()).map_err(|error| unreadable(&file.path().display().to_string(), &error))?;
        // One that does not read is told apart below by its index entry.
        if let Ok(object) = SiteObject::from_bytes(&bytes) {
            shown.insert(object.hostname().clone(), shown_by(object, keys, two_cas));
        }
    }
    for shard in 0..=u8::MAX {
        let name = index_object(shard);
        let Some((bytes, _)) = home.get(&name).await.map_err(|error| unreadable(&name, &error))? else { continue };
        let index = IndexShard::from_bytes(&bytes).map_err(|error| unreadable(&name, &error))?;
        for (hostname, entry) in index.entries {
            if shown.get(&hostname).is_none_or(|known: &Shown| known.version() < entry.version) {
                let version = entry.version;
                shown.insert(hostname, if entry.is_tombstone() { Shown::Gone { version, suspended: None } } else { Shown::Lost { version } });
            }
        }
    }
    Ok(shown)
}

fn shown_by(object: SiteObject, keys: &SealKeys, two_cas: bool) -> Shown {
    let version = object.version();
    let bundle = match object {
        SiteObject::Present(bundle) => bundle,
        SiteObject::Removed(tombstone) => return Shown::Gone { version, suspended: tombstone.suspended },
    };
    let opens = bundle.open_in_service(keys).is_ok();
    let (Some(mut issued), Ok(sealed_key)) = (read_issued(&bundle.certificate_chain), serde_json::to_string(&bundle.sealed_key)) else {
        return Shown::Lost { version };
    };
    if !opens {
        return Shown::Lost { version };
    }
    if two_cas {
        // Which of them issued it is not written in it, and only that one knows its renewal window.
        issued.ari_id = None;
    }
    Shown::Site(Box::new(ShownSite {
        tenant: bundle.tenant,
        version,
        issued,
        sealed_key,
        spki_sha256: bundle.spki_sha256.iter().map(|byte| format!("{byte:02x}")).collect(),
        claim: bundle.claim.map(|claim| (claim.id, claim.token)),
        origin: bundle.origin,
    }))
}

async fn reconcile(
    home: &LocalHome,
    shown: &BTreeMap<Hostname, Shown>,
    removed: &BTreeSet<Hostname>,
    taken_at: Timestamp,
    now: Timestamp,
) -> Result<Tally, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::failed(format!("the store: {error}"), "run `nameplate restore` again");
    let mut claims: BTreeMap<Hostname, Vec<Claim>> = BTreeMap::new();
    let mut cursor = None;
    loop {
        let page = home.claims(None, None, cursor.as_deref(), PAGE).await.map_err(|error| failed(&error))?;
        for claim in page.items {
            claims.entry(claim.key.hostname.clone()).or_default().push(claim);
        }
        cursor = page.cursor;
        if cursor.is_none() {
            break;
        }
    }
    let hostnames: BTreeSet<&Hostname> = claims.keys().chain(shown.keys()).collect();
    let mut tally = Tally { names: hostnames.len(), ..Tally::default() };
    for hostname in hostnames {
        let owner = home.owner(hostname).await.map_err(|error| failed(&error))?;
        let known = claims.get(hostname).map(Vec::as_slice).unwrap_or_default();
        let version = owner.as_ref().map_or(SiteVersion(0), |owner| owner.site_version);
        // The operator's word, where the bucket says nothing.
        let told = Shown::Gone { version: version.next(), suspended: None };
        let seen = shown.get(hostname).or_else(|| removed.contains(hostname).then_some(&told));
        let Some(change) = decide::restore(hostname, owner.as_ref(), known, seen, taken_at, now) else { continue };
        home.commit(&change).await.map_err(|error| failed(&error))?;
        let newer = seen.is_some_and(|seen| seen.version() > version);
        tally.changed += 1;
        let list = match seen {
            Some(Shown::Site(_)) if newer && change.certificate.is_some() => &mut tally.taken_over,
            Some(Shown::Site(_)) if newer => &mut tally.unknown,
            Some(Shown::Gone { .. }) if newer => &mut tally.gone,
            Some(Shown::Lost { .. }) | None => &mut tally.withheld,
            Some(_) => continue,
        };
        list.push(hostname.to_string());
    }
    Ok(tally)
}

/// What was ordered after the backup counts at the CA and is not in our ledger: new names wait as long as the CA's limit takes to forget it.
/// Renewals that name what they replace wait for nothing.
async fn hold_orders(home: &LocalHome, config: &Config, taken_at: Timestamp, now: Timestamp) -> Result<(), Failure> {
    let first = config.acme_limits.at(config.acme.directory.as_deref());
    let second =
        config.second_ca.as_ref().and_then(|second| second.directory.as_deref()).map(|directory| config.acme_limits.of_second(directory));
    for limits in std::iter::once(first).chain(second) {
        let Some(shape) = limits.orders else { continue };
        let window: Duration = shape.refill.saturating_mul(shape.capacity);
        let until = now.checked_add(window).unwrap_or(Timestamp::MAX);
        let why = format!("restored from the backup of {taken_at}; what was ordered since then is not known");
        let pause = LedgerMove::Pause { bucket: limits.orders_bucket(), until, why };
        home.apply(&pause, now).await.map_err(|error| Failure::failed(format!("the store: {error}"), "run `nameplate restore` again"))?;
    }
    Ok(())
}

fn show(tally: &Tally, taken_at: Timestamp, had_bucket: bool, screen: &Screen) {
    let Tally { names, changed, taken_over, gone, withheld, unknown } = tally;
    if screen.is_json() {
        screen.json(&json!({
            "taken_at": taken_at, "bucket_survived": had_bucket, "names": names, "changed": changed,
            "taken_over": taken_over, "gone": gone, "withheld": withheld, "unknown": unknown,
        }));
        return;
    }
    screen.text(&format!("Restored {names} names from the backup of {}.", taken_at.strftime("%Y-%m-%d %H:%M:%S UTC")));
    for (list, what) in [
        (taken_over, "have a newer certificate in the bucket, which was taken over"),
        (gone, "were removed or suspended after the backup, and stay gone"),
        (withheld, "wait until their records are seen in DNS, since nothing tells whether they were removed after the backup"),
        (unknown, "are served from the bucket, but no claim to them is known: register them again"),
    ] {
        if !list.is_empty() {
            screen.text(&format!("  {} {what}: {}", list.len(), sample(list)));
        }
    }
    if !withheld.is_empty() {
        screen.text(
            "If names were removed since, restore once more with --removed FILE before you serve: their old records would bring them back.",
        );
    }
    screen.text(
        "Webhooks, their secrets, the secret path of `ask` and open imports are as the backup has them: once it serves, remove the webhooks that \
         were removed since, and rotate the secrets that were rotated since.",
    );
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
        assert!(what_helps(&BackupError::InTheWay("/x".into())).contains("not there yet"));
    }
}
