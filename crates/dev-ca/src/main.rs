//! `dev-ca`: the CA as a process of its own.
//!
//! Arrives: flags. Leaves: one line of JSON on standard output once it answers, logs on standard error, and an orderly end on SIGTERM or
//! Ctrl-C. Goes wrong: a folder or address that cannot be used, told in one line with exit code 1.

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use dev_ca::{Config, DevCa, Error, Limits, parse_duration};
use tracing_subscriber::EnvFilter;

/// A small ACME certificate authority for one machine.
#[derive(Parser)]
#[command(version)]
struct Flags {
    /// Where to serve ACME over HTTPS; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// The name in this CA's own URLs and certificate
    #[arg(long, value_name = "NAME", default_value = "localhost")]
    hostname: String,
    /// Where root, intermediate and accounts are kept
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// The recursive DNS server to look names up at
    #[arg(long, value_name = "ADDR")]
    dns: SocketAddr,
    /// The port to fetch http-01 challenges from
    #[arg(long, value_name = "PORT", default_value_t = 80)]
    http_port: u16,
    /// Where to serve counters, faults and settings over plain HTTP; loopback only
    #[arg(long, value_name = "ADDR")]
    control: Option<SocketAddr>,
    /// How long certificates live, such as 90d or 3m
    #[arg(long, value_name = "DURATION", default_value = "90d", value_parser = parse_duration)]
    lifetime: Duration,
    /// Of 100 good nonces, how many to refuse
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u8).range(..=100))]
    bad_nonce_percent: u8,
    /// How long an order stays `processing`, such as 250ms
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = parse_duration)]
    finalize_delay: Duration,
    /// How long a proof is good for further orders, such as 7h
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = parse_duration)]
    authorization_reuse: Duration,
    /// Hold orders to limits
    #[arg(long, value_name = "CA", default_value = "none")]
    limits: LimitsOf,
    /// How many times faster than published those limits' time runs
    #[arg(long, value_name = "TIMES", default_value_t = 1)]
    limits_scale: u32,
}

/// Whose limits.
#[derive(Clone, Copy, clap::ValueEnum)]
enum LimitsOf {
    None,
    LetsEncrypt,
}

#[tokio::main]
async fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,hickory_resolver=warn,hickory_net=warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal()).init();
    match run(Flags::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut line = format!("dev-ca: {error}");
            let mut cause = std::error::Error::source(&error);
            while let Some(error) = cause {
                line = format!("{line}: {error}");
                cause = error.source();
            }
            eprintln!("{line}");
            ExitCode::FAILURE
        }
    }
}

async fn run(flags: Flags) -> Result<(), Error> {
    // Absolute, because whoever reads our line may stand in another folder.
    let state = std::path::absolute(&flags.state).unwrap_or(flags.state);
    let ca = DevCa::start(Config {
        listen: flags.listen,
        hostname: flags.hostname,
        state: Some(state),
        dns: flags.dns,
        http_port: flags.http_port,
        control: flags.control,
        lifetime: flags.lifetime,
        bad_nonce_percent: flags.bad_nonce_percent,
        finalize_delay: flags.finalize_delay,
        authorization_reuse: flags.authorization_reuse,
        limits: match flags.limits {
            LimitsOf::None => Limits::default(),
            LimitsOf::LetsEncrypt => Limits::lets_encrypt(flags.limits_scale),
        },
        ..Config::default()
    })
    .await?;
    let mut ready = serde_json::json!({ "directory": ca.directory_url(), "root": ca.root_path() });
    if let Some(control) = ca.control_url() {
        ready["control"] = control.into();
    }
    // Whoever started us may have gone away without reading this; the CA is still of use to others.
    let _ = writeln!(std::io::stdout(), "{ready}");
    told_to_stop().await;
    tracing::info!("stopping");
    ca.shutdown().await;
    Ok(())
}

/// Returns on SIGTERM or Ctrl-C.
async fn told_to_stop() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        match signal(SignalKind::terminate()) {
            Ok(mut terminate) => {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = tokio::signal::ctrl_c() => {}
                }
                return;
            }
            Err(error) => tracing::warn!(%error, "SIGTERM is not heard; use Ctrl-C"),
        }
    }
    let _ = tokio::signal::ctrl_c().await;
}
