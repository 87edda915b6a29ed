//! The command people type.
//!
//! Arrives: arguments, one configuration file, the environment. Leaves: text for people, JSON for scripts (`--json`), an exit code. Goes
//! wrong: each error says what happened and what to do next, on stderr.

mod accounts;
mod api_server;
mod ask;
mod backup;
mod beside;
mod client;
mod config;
mod consent;
mod demo_origin;
mod dev;
mod dns;
mod doctor;
mod domain;
mod events;
mod explain;
mod failure;
mod files;
mod home;
mod import;
mod limits;
mod plan;
mod product;
mod screen;
mod serve;
mod setup;
mod supervisor;
mod webhooks;

use std::{path::PathBuf, process::ExitCode, time::Instant};

use clap::{Parser, Subcommand};
use domains::{Clock, SystemClock};

use crate::{
    config::{Config, HomePlace, Program},
    dev::Dev,
    failure::Failure,
    files::Endpoints,
    product::Sockets,
    screen::Screen,
    serve::Serving,
};

/// Custom domains for SaaS: every customer's own domain over HTTPS.
#[derive(Parser)]
#[command(
    name = "nameplate",
    version,
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong arguments, 3 refused by the API, 4 nothing answers, 5 gave up waiting, 64 wrong configuration."
)]
struct Arguments {
    /// The configuration file; every key has a default.
    #[arg(long, global = true, env = "NAMEPLATE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print JSON for scripts.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Starts the whole product on this machine: API, edge, demo DNS, local CA, demo origin.
    Dev,
    /// Serves for real on this machine, with a public CA and public DNS.
    Serve,
    /// Makes keys and accounts for `serve`, once, and says which DNS records to create.
    Setup {
        /// Agrees to the CA's terms of service without asking.
        #[arg(long)]
        agree_tos: bool,
    },
    /// Checks what goes wrong in practice with a machine that serves, or is about to.
    Doctor,
    /// Copies the store to a file while the product runs.
    Backup {
        /// The file to write; it must not be there yet.
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
        /// Puts keys and accounts in as well; the file is then as secret as they are.
        #[arg(long)]
        with_keys: bool,
    },
    /// Makes a store from a backup, in a data folder that has none; what the bucket shows is newer and wins.
    Restore(backup::RestoreCommand),
    /// Registers, shows and removes domains.
    #[command(subcommand)]
    Domains(domain::DomainCommand),
    /// Prints what happened to all domains.
    Events(events::EventsCommand),
    /// Registers many hostnames, from a file or from a Caddy.
    Import(import::ImportCommand),
    /// Says who is told what happens.
    #[command(subcommand)]
    Webhooks(webhooks::WebhooksCommand),
    /// Shows the secret path that answers a Caddy's `ask`.
    Ask(ask::AskCommand),
    /// Edits the demo DNS of `nameplate dev`.
    #[command(subcommand)]
    Dns(dns::DnsCommand),
    /// Says when an import would be done under the CA's limits, and what holds it up. Registers nothing.
    Plan {
        /// A CSV file: a hostname a line and, if wanted, its tenant.
        file: PathBuf,
        /// As if nothing of the limits were used yet.
        #[arg(long)]
        fresh: bool,
    },
    /// Prints every configuration key with its default and its meaning.
    Config {
        /// The defaults of `serve` instead of those of `dev`.
        #[arg(long)]
        serve: bool,
    },
}

fn main() -> ExitCode {
    // Only in the build for the crash test: reads the named moments from FAILPOINTS and keeps them until the end.
    #[cfg(feature = "failpoints")]
    let _moments = fail::FailScenario::setup();
    let arguments = Arguments::parse();
    let screen = Screen::new(arguments.json);
    // Before any thread is there, since it edits the environment.
    let sockets = match arguments.command {
        Command::Serve => supervisor::inherited(),
        _ => Ok(Sockets::default()),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            screen.failure(&Failure::failed(format!("the runtime did not start: {error}"), "check the limits of this account (ulimit -a)"));
            return ExitCode::FAILURE;
        }
    };
    let ended = sockets.and_then(|sockets| runtime.block_on(run(arguments, sockets, &screen)));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            screen.failure(&failure);
            ExitCode::from(failure.exit_code)
        }
    }
}

async fn run(arguments: Arguments, sockets: Sockets, screen: &Screen) -> Result<(), Failure> {
    if let Command::Doctor = arguments.command {
        let config = read_config(Program::Serve, arguments.config);
        return doctor::run(config, screen).await;
    }
    let program = match arguments.command {
        Command::Config { serve } => {
            let program = if serve { Program::Serve } else { Program::Dev };
            screen.text(Config::documentation(program).trim_end());
            return Ok(());
        }
        Command::Serve | Command::Setup { .. } | Command::Backup { .. } | Command::Restore(_) => Program::Serve,
        // They forecast by what the file says of the CA, and a file of `serve` may leave its CA to the default.
        Command::Plan { .. } | Command::Import(_) if read_config(Program::Serve, arguments.config.clone()).is_ok() => Program::Serve,
        _ => Program::Dev,
    };
    let config = read_config(program, arguments.config)?;
    match arguments.command {
        Command::Serve => serve_until_told(&config, sockets, screen).await,
        Command::Backup { to, with_keys } => backup::take(&config, &to, with_keys, screen),
        Command::Restore(command) => backup::restore(&config, &command, screen).await,
        Command::Setup { agree_tos } => setup::run(&config, agree_tos, screen).await,
        Command::Dev => develop(&config, screen).await,
        Command::Domains(command) => domain::run(command, &config, screen).await,
        Command::Events(command) => events::run(command, &config, screen).await,
        Command::Import(command) => import::run(command, &config, SystemClock.now(), screen).await,
        Command::Webhooks(command) => webhooks::run(command, &config, screen).await,
        Command::Ask(command) => ask::run(command, &config, screen).await,
        Command::Plan { file, fresh } => plan::run(&file, fresh, &config, SystemClock.now(), screen).await,
        Command::Dns(command) => dns::run(command, &config, screen).await,
        Command::Config { .. } | Command::Doctor => Ok(()),
    }
}

/// The file named, or `nameplate.toml` where there is one.
fn read_config(program: Program, named: Option<PathBuf>) -> Result<Config, Failure> {
    let path = named.clone().unwrap_or_else(|| PathBuf::from("nameplate.toml"));
    let file = match (files::read(&path).map_err(|error| Failure::configuration(error.to_string()))?, named) {
        (Some(text), _) => text,
        (None, None) => String::new(),
        (None, Some(path)) => return Err(Failure::configuration(format!("{} does not exist", path.display()))),
    };
    // Only what the configuration knows is a key of it; these belong to the command itself.
    let own = ["NAMEPLATE_CONFIG", "NAMEPLATE_API", "NAMEPLATE_API_KEY"];
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| !own.contains(&name.as_str()));
    Config::read(program, &file, environment).map_err(|problems| match problems.may_pass() {
        // A supervisor does not start again what ends as wrong configuration.
        true => Failure::failed(problems.to_string(), "start again once this machine has its resolver, or name one as dns.server"),
        false => Failure::configuration(problems.to_string()),
    })
}

async fn develop(config: &Config, screen: &Screen) -> Result<(), Failure> {
    telemetry::init(telemetry::LogFormat::Text);
    let started = Instant::now();
    let mut stop = StopSignal::install().map_err(|error| Failure::failed(format!("signals cannot be watched: {error}"), "try again"))?;
    let dev = Dev::start(config).await.map_err(|error| Failure::failed(error.to_string(), "see the log lines above"))?;
    announce(&dev.endpoints, config, started.elapsed().as_secs_f64(), screen);
    stop.wait().await;
    screen.note("Stopping; a second Ctrl-C stops at once.");
    let clean = tokio::select! {
        clean = dev.stop() => clean,
        () = stop.wait() => false,
    };
    if clean {
        screen.note("Stopped. Everything is kept; start again to carry on.");
    } else {
        screen.note("Stopped before all was finished; what is left is taken up at the next start.");
    }
    Ok(())
}

async fn serve_until_told(config: &Config, sockets: Sockets, screen: &Screen) -> Result<(), Failure> {
    telemetry::init(telemetry::LogFormat::Text);
    let mut stop = StopSignal::install().map_err(|error| Failure::failed(format!("signals cannot be watched: {error}"), "try again"))?;
    let serving = Serving::start(config, sockets).await?;
    supervisor::tell("READY=1");
    let Endpoints { api, https, http, .. } = &serving.endpoints;
    match screen.is_json() {
        true => screen.json(&serde_json::json!({ "ready": true, "endpoints": serving.endpoints, "data": config.data })),
        false => screen.text(&format!("Serving {https} (HTTPS) and {http} (HTTP); the API is at {api}.")),
    }
    stop.wait().await;
    supervisor::tell("STOPPING=1");
    let clean = tokio::select! {
        clean = serving.stop() => clean,
        () = stop.wait() => false,
    };
    if !clean {
        screen.note("Stopped before all was finished; what is left is taken up at the next start.");
    }
    Ok(())
}

fn announce(endpoints: &Endpoints, config: &Config, seconds: f64, screen: &Screen) {
    let data = config.data.display();
    if screen.is_json() {
        screen.json(&serde_json::json!({ "ready": true, "endpoints": endpoints, "data": data.to_string() }));
        return;
    }
    let root = endpoints.ca_root.as_deref().unwrap_or("(public)");
    let port = endpoints.https.rsplit(':').next().unwrap_or("443");
    let dns =
        endpoints.dns_admin.as_ref().map_or_else(|| "elsewhere".to_owned(), |admin| format!("{} (edited at {admin})", config.listen.dns));
    let name = "shop.brand.test";
    let run = "cargo run -q --release --";
    let key = files::operator_key_path(&config.data);
    let kept = match config.home {
        HomePlace::Local => "everything is on this machine and kept in",
        HomePlace::Aws(_) => "what it remembers is on AWS, its keys are in",
    };
    screen.text(&format!(
        "\n{title}  Ready after {seconds:.1} s; {kept} {data}/\n\n  \
         API         {api}  (operator key in {key})\n  \
         edge        https://{https}  http://{http}  private http://{private}\n  \
         demo DNS    {dns}\n  \
         local CA    {ca}  (root in {root})\n\n\
         {try_next} in another terminal:\n\n  \
         {run} domains add {name} --tenant brand\n  \
         {run} dns set {name}\n  \
         curl --retry 9 --retry-delay 1 --retry-all-errors -sS --cacert {root} --resolve {name}:{port}:127.0.0.1 https://{name}:{port}/\n",
        title = screen.strong("nameplate dev"),
        try_next = screen.strong("Try next,"),
        key = key.display(),
        api = endpoints.api,
        https = endpoints.https,
        http = endpoints.http,
        private = endpoints.private,
        ca = endpoints.ca_directory,
    ));
}

/// Ctrl-C or SIGTERM.
struct StopSignal {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl StopSignal {
    fn install() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
