//! The DNS server as a process of its own.
//!
//! Arrives: options. Leaves: one line of JSON when it is ready, then answers until SIGTERM or ctrl-c. Goes wrong: one line on standard
//! error with the whole chain of causes, and exit code 1.

use std::{
    error::Error,
    io::{self, Write},
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
};

use clap::Parser;
use dev_dns::{Config, DEFAULT_REGISTERED_LABELS, DEFAULT_TTL_SECONDS, DevDns};
use tokio::signal::unix::{SignalKind, signal};

/// An editable DNS server for one machine: an authority for whatever records it is given, and a resolver whose whole world they are.
#[derive(Parser)]
#[command(name = "dev-dns", version)]
struct Options {
    /// Where DNS questions are taken, over UDP and TCP; port 0 finds a free one
    #[arg(long, default_value = "127.0.0.1:5300")]
    dns: SocketAddr,
    /// Where records are edited over HTTP: a loopback address
    #[arg(long, default_value = "127.0.0.1:5301")]
    admin: SocketAddr,
    /// The file that keeps the records; without one they are forgotten at the end
    #[arg(long)]
    file: Option<PathBuf>,
    /// A name at which a zone begins; may be given several times. Registered domains need not be named
    #[arg(long = "apex", value_name = "NAME")]
    apexes: Vec<String>,
    /// The TTL in seconds of records that come without one
    #[arg(long, default_value_t = DEFAULT_TTL_SECONDS)]
    default_ttl: u32,
    /// How many labels a registered domain has
    #[arg(long, default_value_t = DEFAULT_REGISTERED_LABELS)]
    registered_labels: usize,
    /// A zone that another server answers for, as NAME=ADDRESS:PORT; may be given several times
    #[arg(long = "forward", value_name = "NAME=ADDR", value_parser = forward)]
    forwards: Vec<(String, SocketAddr)>,
}

fn forward(text: &str) -> Result<(String, SocketAddr), String> {
    let (apex, server) = text.split_once('=').ok_or("write NAME=ADDRESS:PORT")?;
    Ok((apex.to_owned(), server.parse().map_err(|_| format!("`{server}` is not an address with a port"))?))
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dev-dns: {}", chain(&*error));
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options) -> Result<(), Box<dyn Error>> {
    let Options { dns, admin, file, apexes, default_ttl, registered_labels, forwards } = options;
    // Listened for before the ready line, so that whoever reads that line may stop the server at once.
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let server = DevDns::start(Config { dns, admin: Some(admin), file, apexes, default_ttl, registered_labels, forwards }).await?;
    let admin = server.admin_addr().map(|address| format!("http://{address}"));
    let ready = serde_json::json!({ "dns": server.dns_addr(), "admin": admin });
    writeln!(io::stdout(), "{ready}")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    server.shutdown().await?;
    Ok(())
}

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
