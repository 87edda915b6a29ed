//! The edge as a program: reads its environment, serves until SIGTERM or SIGINT, and leaves politely.

use std::{fs, io, os::unix::fs::PermissionsExt, process::ExitCode, sync::Arc};

use bundles::{SealKeyPair, SealKeys};
use domains::SystemClock;
#[cfg(feature = "s3")]
use edge::BucketSource;
use edge::{
    FolderSource, Inherited, Parts, Source,
    config::{ProcessEnv, Program, SourcePlace},
};
use telemetry::error_chain;
use tokio::signal::unix::{SignalKind, signal};

/// `EX_USAGE` of sysexits.h: the configuration is wrong, and starting again would not help.
const EXIT_CONFIG: u8 = 64;

fn main() -> ExitCode {
    // Before any thread is there, since it edits the environment.
    let sockets = match edge::inherited() {
        Ok(sockets) => sockets,
        Err(problem) => {
            eprintln!("edge: {problem}");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(serve(sockets)),
        Err(error) => {
            eprintln!("edge: the runtime did not start: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(sockets: Inherited) -> ExitCode {
    let program = match Program::from_env(&ProcessEnv) {
        Ok(program) => program,
        Err(problems) => {
            eprintln!("edge: {problems}");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    telemetry::init(program.log_format);
    let seal_keys = match read_seal_keys(&program) {
        Ok(seal_keys) => seal_keys,
        Err(problem) => {
            eprintln!("edge: {problem}");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    tracing::info!(config = ?program.config, source = ?program.source, "configuration");
    let source: Arc<dyn Source> = match program.source {
        SourcePlace::Folder(folder) => Arc::new(FolderSource::new(folder)),
        #[cfg(feature = "s3")]
        SourcePlace::Bucket(place) => Arc::new(BucketSource::open(place).await),
    };
    // Before it serves, so that whoever saw it serve may tell it to leave.
    let leave = match told_to_leave() {
        Ok(leave) => leave,
        Err(error) => {
            tracing::error!(error = error_chain(&error), "signals cannot be received");
            return ExitCode::FAILURE;
        }
    };
    match edge::run(sockets, program.config, Parts { source, seal_keys, clock: Arc::new(SystemClock) }, leave).await {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = error_chain(&error), "the edge did not start");
            ExitCode::FAILURE
        }
    }
}

fn read_seal_keys(program: &Program) -> Result<SealKeys, String> {
    let read = |path: &std::path::PathBuf| {
        let mode = fs::metadata(path).map_or(0, |file| file.permissions().mode());
        if mode & 0o077 != 0 {
            return Err(format!("the seal key {} is open to others (mode {:o}); set it to 600", path.display(), mode & 0o777));
        }
        let bytes = fs::read(path)
            .map(zeroize::Zeroizing::new)
            .map_err(|error| format!("the seal key {} cannot be read: {error}", path.display()))?;
        SealKeyPair::from_json(&bytes).map_err(|error| format!("the seal key {} cannot be used: {}", path.display(), error_chain(&error)))
    };
    program.seal_key_files.iter().map(read).collect()
}

fn told_to_leave() -> io::Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
