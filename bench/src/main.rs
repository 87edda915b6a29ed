//! The edge beside its peers, in one run: what an operation costs the server in CPU time.
//!
//! Arrives: which servers, which operations, how many rounds. Leaves: a table, and a plot. Goes wrong: a peer that is not there is named
//! and left out; an answer that is not the origin's page, byte for byte, ends the run.
//!
//! Server and client are pinned to a core each, client and origin share one. Rounds are interleaved (each server once, then again), so that
//! what else the machine does falls on all alike; medians are compared, and how noisy it was is told. Nobody logs requests.

mod load;
mod measure;
mod memory;
mod origin;
mod peers;
mod report;
mod site;

use std::{error::Error, path::PathBuf, process::ExitCode, time::Duration};

use clap::Parser;
use rustix::{
    process::getpid,
    thread::{CpuSet, sched_setaffinity},
};

use crate::{
    load::{Load, Operation},
    measure::{Noise, Sample},
    peers::Peer,
    report::Results,
    site::Site,
};

/// Failures end the run; there is nobody to tell them apart for.
type Failure = Box<dyn Error + Send + Sync>;

/// Compares the edge with nginx, haproxy, caddy and h2o.
#[derive(Parser)]
struct Arguments {
    /// Rounds; the median of them counts.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds of load for each operation of each server and round.
    #[arg(long, default_value_t = 2)]
    seconds: u64,
    /// Only these operations (all when none is named).
    #[arg(long, value_delimiter = ',')]
    operations: Vec<String>,
    /// Another edge's program to measure beside this one, such as an earlier build.
    #[arg(long)]
    before: Option<PathBuf>,
    /// Only these servers (all when none is named), beside the edge, which is always there.
    #[arg(long, value_delimiter = ',')]
    peers: Vec<String>,
    /// Names in the edge's index; the peers have one, which is their best case.
    #[arg(long, default_value_t = 1000)]
    names: usize,
    /// Tells, instead of what operations cost, what `--names` names and idle connections cost in memory, and how soon the edge is ready.
    #[arg(long)]
    memory: bool,
    /// Where `--memory` makes its names, and finds them again the next time; they are made anew, and removed, when it is not named.
    #[arg(long, requires = "memory")]
    site: Option<PathBuf>,
    /// The server's core.
    #[arg(long, default_value_t = 0)]
    server_core: usize,
    /// The client's and the origin's core.
    #[arg(long, default_value_t = 1)]
    client_core: usize,
    /// The edge's program; built when it is not named.
    #[arg(long)]
    edge: Option<PathBuf>,
    /// Where the table is written, beside standard output.
    #[arg(long)]
    table: Option<PathBuf>,
    /// Where the plot is written.
    #[arg(long)]
    plot: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("bench: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<(), Failure> {
    let edge = match &arguments.edge {
        Some(edge) => edge.clone(),
        None => peers::build_edge()?,
    };
    if arguments.memory {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let site =
            arguments.site.as_deref().map_or_else(|| Site::make(arguments.names), |folder| Site::make_in(folder, arguments.names))?;
        let origin = origin::start()?;
        println!("{}", runtime.block_on(memory::measure(&edge, &site, arguments.names, origin))?);
        return Ok(());
    }
    let operations = Operation::chosen(&arguments.operations)?;
    let mut client = CpuSet::new();
    client.set(arguments.client_core);
    // Before any thread begins, so that all of them inherit it.
    sched_setaffinity(Some(getpid()), &client)?;
    // Blocking work (there is none to speak of) stays on the client's core too.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let origin = origin::start()?;
    let site = Site::make(arguments.names)?;
    let (mut running, mut missing) = (Vec::new(), Vec::new());
    for peer in Peer::ALL.into_iter().filter(|peer| match peer {
        Peer::Edge => true,
        Peer::Before => arguments.before.is_some(),
        _ => arguments.peers.is_empty() || arguments.peers.iter().any(|name| name == peer.name()),
    }) {
        let program = arguments.before.as_ref().filter(|_| peer == Peer::Before).unwrap_or(&edge);
        match runtime.block_on(peer.start(program, &site, origin, arguments.server_core)) {
            Ok(server) => running.push(server),
            Err(failure) if peer == Peer::Edge => return Err(failure),
            Err(failure) => missing.push(format!("{}: {failure}", peer.name())),
        }
    }
    missing.iter().for_each(|missing| eprintln!("bench: left out: {missing}"));
    let spent_by_servers = || running.iter().map(|server| Ok(Sample::of(server.pid())?.nanos())).sum::<Result<u64, Failure>>();
    let (noise, mut results) = (Noise::begin(spent_by_servers()?)?, Results::new(&running, missing));
    for round in 0..arguments.rounds {
        for &operation in &operations {
            for server in &running {
                if !results.can(operation, server.name) {
                    continue;
                }
                let mut load = Load::new(&site, server.address, operation);
                // The first connections, pools and caches are everybody's, and nobody's figure.
                if let Err(failure) = runtime.block_on(load.run(Duration::from_millis(300))) {
                    if server.name == Peer::Edge.name() || round > 0 {
                        return Err(format!("{}, {}: {failure}", server.name, operation.name()).into());
                    }
                    eprintln!("bench: {} cannot do {}: {failure}", server.name, operation.name());
                    results.cannot(operation, server.name, failure.to_string());
                    continue;
                }
                let before = Sample::of(server.pid())?;
                let done = runtime.block_on(load.run(Duration::from_secs(arguments.seconds)))?;
                let spent = Sample::of(server.pid())?.since(&before);
                eprintln!(
                    "round {} {:<12} {:<10} {:>9.1} µs/op  {:>8} ops",
                    round + 1,
                    operation.name(),
                    server.name,
                    spent.micros_each(done),
                    done
                );
                results.add(operation, server.name, spent.micros_each(done));
            }
        }
    }
    let report = results.report(&noise.end(spent_by_servers()?)?, arguments.rounds, arguments.seconds);
    println!("{}", report.table);
    if let Some(path) = &arguments.table {
        std::fs::write(path, &report.table)?;
    }
    if let Some(path) = &arguments.plot {
        std::fs::write(path, &report.plot)?;
    }
    Ok(())
}
