//! What this machine itself has to bring: a folder, the right time, accounts, an edge that is reached, a store that moves.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::Arc,
    time::Duration,
};

use bundles::IndexShard;
use domains::{Clock, Timestamp};
use issuers::acme::CaDirectory;
use storage::local::vitals;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::Check;
use crate::{
    accounts::{Ca, CaPlace, Cas},
    config::{Config, HomePlace},
    consent,
    files::{self, Endpoints},
    home::HOME,
    product,
};

/// Below this much room a store of a hundred thousand names may not get its next certificates down; a full disk stops every renewal.
const ROOM_BYTES: u64 = 512 * 1024 * 1024;

/// How far the clock may be from the CA's: a CA backdates certificates by an hour, but a renewal window is judged by the second.
const SKEW_LOOK: i64 = 10;
const SKEW_FAILED: i64 = 300;

/// A message that may be taken and waits longer than this is not being taken.
const QUEUE_AGE: Duration = Duration::from_secs(300);

/// How long connecting to our own edge may take.
const REACH: Duration = Duration::from_secs(5);

/// Whether a process with this number is there.
pub(super) fn is_alive(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

pub(super) fn data_folder(config: &Config) -> Vec<Check> {
    let data = &config.data;
    let set_up = "run `nameplate setup` as the user that will serve";
    let Ok(about) = std::fs::metadata(data) else {
        return vec![Check::failed("data folder", format!("{} is not there, or not ours to read", data.display()), set_up)];
    };
    let mut checks = Vec::new();
    let mode = about.permissions().mode() & 0o777;
    checks.push(if mode & 0o077 == 0 {
        Check::fine("data folder", format!("{} is its owner's alone", data.display()))
    } else {
        Check::failed(
            "data folder",
            format!("{} has mode {mode:o}: others may read keys in it", data.display()),
            format!("chmod 700 {}", data.display()),
        )
    });
    let probe = data.join(".doctor");
    let written = std::fs::write(&probe, b"").and_then(|()| std::fs::remove_file(&probe));
    if let Err(error) = written {
        checks.push(Check::failed(
            "data folder",
            format!("{} cannot be written: {error}", data.display()),
            "run as its owner, or mend the disk",
        ));
    }
    match rustix::fs::statvfs(data) {
        Ok(disk) => {
            let free = disk.f_bavail.saturating_mul(disk.f_frsize);
            let saw = format!("{} MiB are free", free / 1024 / 1024);
            checks.push(if free >= ROOM_BYTES {
                Check::fine("disk", saw)
            } else {
                Check::failed("disk", saw, "make room: a full disk stops every renewal")
            });
        }
        Err(error) => checks.push(Check::look("disk", format!("its room is not known: {error}"), "look with df")),
    }
    for (path, what) in [(files::operator_key_path(data), "operator key"), (data.join("keys/seal.json"), "seal key")] {
        checks.push(match files::read(&path) {
            Ok(Some(_)) => Check::fine(what, "is there"),
            Ok(None) => Check::failed(what, format!("{} is missing", path.display()), set_up),
            Err(error) => Check::failed(what, error.to_string(), "run the doctor as the user that serves"),
        });
    }
    checks
}

pub(super) async fn accounts(config: &Config, clock: &Arc<dyn Clock>) -> Vec<Check> {
    let Ok(Some(seal_key)) = product::read_seal_key(&config.data) else { return Vec::new() };
    let cas = CaPlace::of(&config.acme).and_then(|place| Cas::configured(config, place, seal_key.public(), clock));
    let cas = match cas {
        Ok(cas) => cas,
        Err(error) => return vec![Check::failed("CA", error.to_string(), "mend acme.* in the configuration")],
    };
    let mut checks = Vec::new();
    for ca in cas.all() {
        checks.extend(account(config, ca, clock).await);
    }
    checks
}

async fn account(config: &Config, ca: &Ca, clock: &Arc<dyn Clock>) -> Vec<Check> {
    let directory = &ca.acme.directory_url;
    let told = match CaDirectory::ask(&ca.acme).await {
        Ok(told) => told,
        Err(error) => {
            let saw = format!("{directory}: {}", telemetry::error_chain(&error));
            return vec![Check::failed("CA", saw, "check that this machine reaches it over HTTPS; certificates in service last meanwhile")];
        }
    };
    let mut checks = vec![Check::fine("CA", format!("{directory} answers"))];
    checks.push(clock_against(told.date, clock.now()));
    let agreed = consent::agreements(&config.data).unwrap_or_default().into_iter().find(|known| known.directory == *directory);
    checks.push(match agreed {
        Some(agreed) if agreed.terms == told.terms_of_service => Check::fine("terms", format!("agreed to at {}", agreed.agreed_at)),
        Some(_) => Check::look(
            "terms",
            format!("the CA has new ones: {}", told.terms_of_service.as_deref().unwrap_or("none")),
            "read them; the account stays valid as long as the CA says so",
        ),
        None => Check::failed("terms", format!("nobody agreed to those of {directory}"), "run `nameplate setup`"),
    });
    checks.push(match ca.account() {
        Ok(Some(account)) => match account.check(&ca.acme).await {
            Ok(()) => Check::fine("account", format!("{} is good", account.url())),
            Err(error) => Check::failed(
                "account",
                format!("{}: {}", account.url(), telemetry::error_chain(&error)),
                "if the CA closed it, choose a new data folder and run `nameplate setup`",
            ),
        },
        Ok(None) => Check::failed("account", format!("there is none at {directory}"), "run `nameplate setup`"),
        Err(error) => Check::failed("account", error.to_string(), "put the file back from a backup taken with --with-keys"),
    });
    checks
}

fn clock_against(date: Option<Timestamp>, now: Timestamp) -> Check {
    let Some(date) = date else { return Check::look("clock", "the CA did not tell the time", "compare it with a time server") };
    let skew = now.duration_since(date).as_secs();
    let saw = format!("{skew} s from the CA's");
    match skew.abs() {
        0..=SKEW_LOOK => Check::fine("clock", saw),
        ..=SKEW_FAILED => Check::look("clock", saw, "let a time service set it (timedatectl set-ntp true)"),
        _ => {
            Check::failed("clock", saw, "let a time service set it (timedatectl set-ntp true): certificates and renewals are judged by it")
        }
    }
}

/// Whether challenges that arrive at the addresses in DNS reach our edge, and it answers them for our account.
pub(super) async fn edge(config: &Config, running: Option<&Endpoints>) -> Vec<Check> {
    if running.is_none() {
        return vec![Check::look("edge", "it is reached once the product runs", "start it, then ask the doctor again")];
    }
    let mut checks = Vec::new();
    for address in reachable_at(config) {
        let https = SocketAddr::new(address, config.listen.https.port());
        checks.push(match timeout(REACH, TcpStream::connect(https)).await {
            Ok(Ok(_)) => Check::fine("edge", format!("{https} is reached from here")),
            _ => Check::failed(
                "edge",
                format!("{https} is not reached from here"),
                "open the port in every firewall, and forward it to this machine",
            ),
        });
        let http = SocketAddr::new(address, config.listen.http.port());
        checks.push(match timeout(REACH, challenge_once_settled(http, config)).await {
            Ok(Ok(answer)) if answer.contains("doctor-asks.") => Check::fine("challenges", format!("{http} answers them")),
            Ok(Ok(answer)) => Check::failed(
                "challenges",
                format!("{http} answers {:?}", answer.lines().next().unwrap_or_default()),
                "another server listens at that address: lead port 80 to the edge",
            ),
            _ => Check::failed("challenges", format!("{http} is not reached from here"), "open port 80: the CA fetches challenges there"),
        });
    }
    checks
}

fn reachable_at(config: &Config) -> Vec<IpAddr> {
    match config.zone.edge_addresses.as_slice() {
        [] => vec![Ipv4Addr::LOCALHOST.into()],
        addresses => addresses.to_vec(),
    }
}

/// An edge that has just started may not have seen how to answer yet: it is asked again until it must have.
async fn challenge_once_settled(at: SocketAddr, config: &Config) -> std::io::Result<String> {
    let settled = tokio::time::Instant::now() + (config.edge_poll * 2).min(REACH / 2);
    loop {
        let answer = challenge(at).await?;
        if answer.starts_with("HTTP/1.1 200") || tokio::time::Instant::now() >= settled {
            return Ok(answer);
        }
        tokio::time::sleep(config.edge_poll.min(REACH / 10)).await;
    }
}

/// Fetches a challenge that nobody waits for: the edge answers any token, with its account's thumbprint.
async fn challenge(at: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(at).await?;
    stream.write_all(b"GET /.well-known/acme-challenge/doctor-asks HTTP/1.1\r\nHost: doctor.invalid\r\nConnection: close\r\n\r\n").await?;
    let mut answer = Vec::new();
    stream.take(4096).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// A store that was lost is made anew by the next start, and the edge goes on serving from the bucket: nobody notices before certificates end.
fn forgotten(config: &Config, active: u64) -> Option<Check> {
    let shards = std::fs::read_dir(config.data.join(HOME).join("bucket").join("index")).ok()?;
    let read = |shard: std::io::Result<std::fs::DirEntry>| IndexShard::from_bytes(&std::fs::read(shard.ok()?.path()).ok()?).ok();
    let listed: usize = shards.filter_map(read).map(|shard| shard.entries.values().filter(|entry| !entry.is_tombstone()).count()).sum();
    // What is published or taken down at this moment makes no such difference.
    (listed as u64 > active.saturating_mul(2)).then(|| {
        Check::failed(
            "store",
            format!("the bucket serves {listed} names, and the store knows {active}"),
            "was the store lost? Stop product and sockets, move the store away, and restore a backup: nothing renews these names",
        )
    })
}

pub(super) fn store(config: &Config, now: Timestamp, runs: bool) -> Vec<Check> {
    if let HomePlace::Aws(_) = config.home {
        return vec![Check::look(
            "store",
            "it is on AWS",
            "its alarms are CloudWatch's: the age of the queues' oldest messages, and their dead letters",
        )];
    }
    let vitals = match vitals(&config.data.join(HOME), now) {
        Ok(Some(vitals)) => vitals,
        Ok(None) => {
            return vec![forgotten(config, 0).unwrap_or_else(|| Check::look("store", "there is none yet", "the first start makes it"))];
        }
        Err(error) => return vec![Check::failed("store", error.to_string(), "mend the disk, or restore a backup")],
    };
    let served = Check::fine("store", format!("{} names are served", vitals.active));
    let mut checks = vec![forgotten(config, vitals.active).unwrap_or(served)];
    let first = vitals.ending.first();
    checks.push(match first {
        None => Check::fine("certificates", "none is close to its end"),
        Some((name, until)) => Check::failed(
            "certificates",
            format!("{} should have been renewed by now; the first to end is {name}, at {until}", vitals.ending.len()),
            format!("`nameplate domains show {name}` says what holds it up"),
        ),
    });
    checks.push(match vitals.dead_letters {
        0 => Check::fine("dead letters", "there are none"),
        many => Check::look(
            "dead letters",
            format!("{many} messages could not be worked on"),
            "the log has an error line for each; the timer sends them again",
        ),
    });
    let age = vitals.oldest_message.map(|since| Duration::try_from(now.duration_since(since)).unwrap_or_default());
    checks.push(match age.filter(|age| *age > QUEUE_AGE) {
        None => Check::fine("queues", "nothing waits for long"),
        Some(age) if runs => Check::failed(
            "queues",
            format!("the oldest message waits for {} s", age.as_secs()),
            "read the log; restart the product if it says nothing",
        ),
        Some(age) => {
            Check::look("queues", format!("the oldest message waits for {} s, since the product does not run", age.as_secs()), "start it")
        }
    });
    checks
}
