//! What an edge is told when it starts.
//!
//! Arrives: values from a program, or an environment. Leaves: a [`Config`]. Goes wrong: every problem of an environment at once
//! ([`ConfigProblems`]), before anything is bound or read.

use std::{collections::BTreeMap, fmt, net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use domains::OriginName;
use telemetry::LogFormat;

/// Everything an edge may be told; the defaults are the tested ones.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where TLS connections arrive.
    pub https_listen: SocketAddr,
    /// Where plain HTTP arrives: challenges and redirects.
    pub http_listen: SocketAddr,
    /// Where health and metrics are read. Not for strangers.
    pub private_listen: SocketAddr,
    /// The port people see in `https://` addresses; `None` is the one bound.
    pub public_https_port: Option<u16>,
    /// `host:port` of the origin that requests go to, unless their site names another.
    pub origin: String,
    /// How it is spoken to; plain HTTP/1.1 unless said otherwise.
    pub origin_protocol: OriginProtocol,
    /// The other origins, by the name that sites know them by.
    pub origins: BTreeMap<OriginName, OriginPlace>,
    /// Whether a load balancer tells who the client is (PROXY protocol, version 2). Then every connection on the two public ports must begin
    /// so; nothing but the load balancer may reach them.
    pub proxy_protocol: bool,
    /// A folder with the operator's own `502.html`, `503.html` and `504.html`, any of them; `{request_id}` in one becomes the request's id.
    pub error_pages: Option<PathBuf>,
    /// Where sealed bundles and the index are kept, so that a restarted edge needs nobody.
    pub cache_dir: PathBuf,
    /// How many bytes of parsed certified keys stay in memory.
    pub certificate_cache_bytes: usize,
    /// How many tenants the metrics show by name, the ones with the most requests; all others are one.
    pub metrics_tenants: usize,
    /// Where a line for each request goes; `None` is nowhere.
    pub access_log: Option<AccessLogPlace>,
    /// What such a line shows of the client's address.
    pub logged_address: LoggedAddress,
    /// Whose keys TLS session tickets are sealed with.
    pub tickets: TicketKeys,
    /// How the source is read.
    pub refresh: Refresh,
    /// What connections and requests may take.
    pub limits: Limits,
    /// How the edge leaves.
    pub drain: Drain,
}

/// Where an origin is, and how it is spoken to.
#[derive(Clone, Debug)]
pub struct OriginPlace {
    /// `host:port`.
    pub address: String,
    /// How it is spoken to.
    pub protocol: OriginProtocol,
}

impl OriginPlace {
    /// Reads `host:port` or `http://host:port`, which are plain HTTP/1.1, or `https://host` with or without a port, whose certificate
    /// must be signed by one of the system's CAs.
    ///
    /// # Errors
    /// What the text should be instead.
    pub fn parse(text: &str) -> Result<Self, String> {
        let OriginAddress { address, tls } = origin_address(text)?;
        let tls = tls.then(|| OriginTls { server_name: None, ca_file: PathBuf::from(SYSTEM_CAS) });
        Ok(Self { address, protocol: OriginProtocol { tls, http2: false } })
    }
}

/// Reads `name=place`, several separated by commas.
///
/// # Errors
/// What is wrong with the first that is.
pub fn named_origins(text: &str) -> Result<BTreeMap<OriginName, OriginPlace>, String> {
    let mut origins = BTreeMap::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (name, place) = part.split_once('=').ok_or_else(|| format!("`{part}` is not name=host:port or name=https://host"))?;
        let name = OriginName::parse(name.trim()).map_err(|error| error.to_string())?;
        let place = OriginPlace::parse(place.trim())?;
        if let Some(twice) = origins.insert(name.clone(), place) {
            return Err(format!("`{name}` stands there twice, first as {}", twice.address));
        }
    }
    Ok(origins)
}

/// How the origin is spoken to.
#[derive(Clone, Debug, Default)]
pub struct OriginProtocol {
    /// TLS, with its certificate verified; `None` is plain.
    pub tls: Option<OriginTls>,
    /// HTTP/2, as gRPC needs it: agreed on by ALPN over TLS, with prior knowledge over plain TCP. A WebSocket is asked for over HTTP/1.1.
    pub http2: bool,
}

/// How the origin is known over TLS.
#[derive(Clone, Debug)]
pub struct OriginTls {
    /// The name in SNI and certificate; `None` is the origin's host.
    pub server_name: Option<String>,
    /// The CAs trusted, in PEM.
    pub ca_file: PathBuf,
}

/// Where Debian, and images made from it, have the public CAs.
const SYSTEM_CAS: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Where the access log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLogPlace {
    /// Standard output.
    Stdout,
    /// A file, appended to.
    File(PathBuf),
}

impl AccessLogPlace {
    /// Reads `off`, which is nowhere, `stdout`, or a file's path.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Option<Self>, String> {
        match text {
            "off" => Ok(None),
            "stdout" => Ok(Some(Self::Stdout)),
            file => path(file).map(|file| Some(Self::File(file))),
        }
    }
}

/// What the access log shows of a client's address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LoggedAddress {
    /// Its network: /24 of IPv4, /48 of IPv6.
    #[default]
    Truncated,
    /// All of it.
    Full,
    /// Nothing.
    None,
}

impl FromStr for LoggedAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "truncated" => Ok(Self::Truncated),
            "full" => Ok(Self::Full),
            "none" => Ok(Self::None),
            _ => Err(format!("`{text}` is not truncated, full or none")),
        }
    }
}

/// Whose keys TLS session tickets are sealed with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TicketKeys {
    /// Each process has its own: no session resumes at another edge, or after a restart.
    #[default]
    Process,
    /// Those that the pipeline makes for all edges; while there are none, the process's own.
    Shared,
}

impl FromStr for TicketKeys {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "process" => Ok(Self::Process),
            "shared" => Ok(Self::Shared),
            _ => Err(format!("`{text}` is neither process nor shared")),
        }
    }
}

/// Tenants that the metrics show by name, unless told otherwise: a screen of a dashboard.
const METRICS_TENANTS: usize = 20;
/// The most of them: each is two series, and a handshake of a tenant without a seat looks at five times as many.
const MAX_METRICS_TENANTS: usize = 200;

/// Reads how many tenants the metrics show by name; `off` is none.
///
/// # Errors
/// What is wrong with the text, too many among it.
pub fn metrics_tenants(text: &str) -> Result<usize, String> {
    match or_off(text, 0, number)? {
        many if many > MAX_METRICS_TENANTS => Err(format!("{many} are too many; the most is {MAX_METRICS_TENANTS}")),
        enough => Ok(enough),
    }
}

/// How the source is read.
#[derive(Clone, Debug)]
pub struct Refresh {
    /// How often the index is listed; up to a fifth is added at random, so that a fleet does not move in step.
    pub poll_interval: Duration,
    /// How long one read in the background may take.
    pub source_timeout: Duration,
    /// How long a handshake may wait for the one read of a bundle that is not on the local disk yet.
    pub cold_read_timeout: Duration,
    /// How long an edge that never read the whole index leaves connections in the kernel's queue before it accepts all the same.
    pub first_index_wait: Duration,
    /// How many bundles are read at once in the background.
    pub fill_concurrency: usize,
    /// How many bundles a second are read in the background for names nobody asked for yet.
    pub fill_per_second: u32,
    /// How long a bundle that was refused or could not be read is left alone; doubles up to a minute.
    pub retry_after: Duration,
}

/// What connections and requests may take: a deadline for every phase, a bound for every count.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections open at once on the TLS port; more are closed at once and counted.
    pub max_connections: usize,
    /// Connections open at once on each of the plain ports.
    pub max_plain_connections: usize,
    /// From accept to the end of the handshake, ClientHello included.
    pub handshake: Duration,
    /// From a request's first byte to the end of its header; and from the handshake to the first request.
    pub header_read: Duration,
    /// Between requests on a connection, so that a browser's next click meets an open one. Only a connection that was asked something may rest
    /// so long: before its first request [`header_read`](Self::header_read) counts, and within one the stalls below.
    pub idle: Duration,
    /// How long an upload may make no progress.
    pub upload_stall: Duration,
    /// How long a client may leave what it was sent unread.
    pub write_stall: Duration,
    /// How long one response may be left unread while others on the connection move.
    pub stream_stall: Duration,
    /// How long a tunnel (WebSocket) may be silent both ways.
    pub tunnel_idle: Duration,
    /// How long a connection may live; it is then finished politely, and cut off after as long again.
    pub connection_lifetime: Duration,
    /// What a connection of a removed or transferred name gets to finish.
    pub close_grace: Duration,
    /// Header lines in one request.
    pub max_header_count: usize,
    /// Bytes of one request's header.
    pub max_header_bytes: usize,
    /// Requests at once on one HTTP/2 connection.
    pub max_concurrent_streams: u32,
    /// Pings, settings, priorities, empty and unknown frames that may come at once on one HTTP/2 connection; refilled in ten seconds.
    pub max_control_frames: u32,
    /// Streams that a client may reset at once on one HTTP/2 connection; refilled in ten seconds.
    pub max_resets: u32,
    /// Bytes of one request's body; `u64::MAX` leaves it to the origin.
    pub max_body_bytes: u64,
    /// What one client address may take.
    pub per_address: AddressLimits,
    /// Connections to one origin at once.
    pub max_origin_connections: usize,
    /// Idle connections to the origin kept for reuse.
    pub max_origin_idle: usize,
    /// How long an idle connection to the origin is kept: shorter than common servers keep theirs (5 s), so that we seldom write
    /// into a connection they are closing.
    pub origin_idle: Duration,
    /// How long connecting to the origin may take.
    pub origin_connect: Duration,
    /// How long the origin may take to begin its answer, counted from the upload's last progress.
    pub origin_response: Duration,
    /// How long the origin may be silent in the middle of an answer.
    pub origin_silence: Duration,
}

/// What one client address (of IPv6, its /64) may take. Ten seconds' worth of each rate may come at once.
///
/// A load balancer that hides its clients' addresses looks like one client: let it tell them ([`Config::proxy_protocol`]), or lift these.
#[derive(Clone, Debug)]
pub struct AddressLimits {
    /// Connections open at once.
    pub max_open: usize,
    /// New connections a second; `u32::MAX` is no limit.
    pub connections_per_second: u32,
    /// Requests a second; `u32::MAX` is no limit.
    pub requests_per_second: u32,
    /// HTTP/2 streams reset a second, over all its connections; `u32::MAX` is no limit.
    pub resets_per_second: u32,
}

/// How the edge leaves.
#[derive(Clone, Copy, Debug)]
pub struct Drain {
    /// From the signal to the end: a load balancer goes on sending connections for a while, so they are accepted until `grace` is left.
    pub timeout: Duration,
    /// The last part of `timeout`, in which nothing new is accepted and what is open may finish.
    pub grace: Duration,
    /// How long of `grace`, half of it at most, a quiet HTTP/1 connection stays open: closing it at once would meet a request that is on its
    /// way, and HTTP/1 has no word for that. Its answer asks to close.
    pub linger: Duration,
}

/// Longer than a request travels from anywhere on earth, and short enough for a restart to wait for.
const LINGER: Duration = Duration::from_secs(1);

impl Default for Refresh {
    fn default() -> Self {
        Self {
            poll_interval: Duration::from_secs(2),
            source_timeout: Duration::from_secs(10),
            cold_read_timeout: Duration::from_secs(2),
            // Common clients give a handshake that long (Go's `http.DefaultTransport`, read 2026-11); an answer should reach them before.
            first_index_wait: Duration::from_secs(9),
            fill_concurrency: 16,
            fill_per_second: 1000,
            retry_after: Duration::from_secs(1),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 20_000,
            max_plain_connections: 2_000,
            handshake: Duration::from_secs(10),
            header_read: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            upload_stall: Duration::from_secs(10),
            write_stall: Duration::from_secs(10),
            stream_stall: Duration::from_secs(60),
            tunnel_idle: Duration::from_secs(600),
            connection_lifetime: Duration::from_secs(3600),
            close_grace: Duration::from_secs(5),
            max_header_count: 100,
            max_header_bytes: 32 * 1024,
            max_concurrent_streams: 100,
            max_control_frames: 1000,
            max_resets: 200,
            max_body_bytes: u64::MAX,
            per_address: AddressLimits::default(),
            max_origin_connections: 2_000,
            max_origin_idle: 256,
            origin_idle: Duration::from_secs(4),
            origin_connect: Duration::from_secs(5),
            origin_response: Duration::from_secs(60),
            origin_silence: Duration::from_secs(300),
        }
    }
}

impl Default for AddressLimits {
    /// Room for a large office behind one address; its handshakes take a seventh of a core at most.
    fn default() -> Self {
        Self { max_open: 4_000, connections_per_second: 1_000, requests_per_second: u32::MAX, resets_per_second: 50 }
    }
}

/// One address may have a fifth of the connections, unless somebody says otherwise.
const USUAL_PART: usize = 5;

impl AddressLimits {
    /// What an address may have open of `places`, where it may have [`max_open`](Self::max_open) of `all`: the same part of them, and no less
    /// than it may have of `all` while that is not more than [`USUAL_PART`]. Where it may have them all, it may have them all.
    pub(crate) fn open_of(&self, places: usize, all: usize) -> usize {
        if self.max_open >= all {
            return self.max_open;
        }
        let part = self.max_open as u128 * places as u128 / all.max(1) as u128;
        let usual = self.max_open.min(places / USUAL_PART);
        usize::try_from(part).unwrap_or(usize::MAX).max(usual).max(1)
    }
}

impl Default for Drain {
    fn default() -> Self {
        // ECS stops a Fargate task 120 s after SIGTERM at most; a load balancer deregisters within about that time.
        Self { timeout: Duration::from_secs(110), grace: Duration::from_secs(10), linger: LINGER }
    }
}

impl Config {
    /// An edge on loopback with ports of the system's choice, which leaves at once: for one machine and for tests.
    pub fn on_loopback(origin: impl Into<String>, cache_dir: impl Into<PathBuf>) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            https_listen: any,
            http_listen: any,
            private_listen: any,
            public_https_port: None,
            proxy_protocol: false,
            error_pages: None,
            origin: origin.into(),
            origin_protocol: OriginProtocol::default(),
            origins: BTreeMap::new(),
            cache_dir: cache_dir.into(),
            certificate_cache_bytes: 64 * 1024 * 1024,
            access_log: None,
            logged_address: LoggedAddress::default(),
            metrics_tenants: METRICS_TENANTS,
            tickets: TicketKeys::default(),
            refresh: Refresh { poll_interval: Duration::from_millis(500), ..Refresh::default() },
            limits: Limits::default(),
            drain: Drain { timeout: Duration::from_secs(2), grace: Duration::from_secs(2), linger: LINGER },
        }
    }
}

/// Where settings come from; a trait, because changing the environment of a running process is a data race.
pub trait Env {
    /// The value of a variable, `None` when it is not set.
    fn var(&self, name: &str) -> Option<String>;
}

/// The environment of this process.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessEnv;

impl Env for ProcessEnv {
    fn var(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }
}

/// Where a source is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourcePlace {
    /// A folder.
    Folder(PathBuf),
    /// A bucket.
    #[cfg(feature = "s3")]
    Bucket(crate::BucketPlace),
}

/// What the edge's own program needs beside the [`Config`].
#[derive(Clone, Debug)]
pub struct Program {
    /// What the edge is told.
    pub config: Config,
    /// Where its source is.
    pub source: SourcePlace,
    /// The files with its seal keys; secrets arrive as references.
    pub seal_key_files: Vec<PathBuf>,
    /// How it logs.
    pub log_format: LogFormat,
}

/// Every problem of an environment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigProblems(pub Vec<String>);

impl fmt::Display for ConfigProblems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration has {} problem(s):", self.0.len())?;
        self.0.iter().try_for_each(|problem| write!(f, "\n  - {problem}"))
    }
}

impl Program {
    /// Reads `EDGE_*` variables; only the source (a folder or a bucket), the seal keys, the cache folder and the origin have no default.
    ///
    /// # Errors
    /// [`ConfigProblems`] with everything that is wrong.
    pub fn from_env(env: &dyn Env) -> Result<Self, ConfigProblems> {
        let mut read = Reader { env, problems: Vec::new() };
        let origin = read.required("EDGE_ORIGIN", "the origin, host:port or https://host", origin_address).unwrap_or_default();
        let mut origins = read.or("EDGE_ORIGINS", BTreeMap::new(), named_origins);
        let mut config = Config {
            https_listen: read.or("EDGE_HTTPS_LISTEN", SocketAddr::from(([0, 0, 0, 0], 443)), address),
            http_listen: read.or("EDGE_HTTP_LISTEN", SocketAddr::from(([0, 0, 0, 0], 80)), address),
            private_listen: read.or("EDGE_PRIVATE_LISTEN", SocketAddr::from(([127, 0, 0, 1], 9090)), address),
            public_https_port: read.or("EDGE_PUBLIC_HTTPS_PORT", None, |text| number(text).map(Some)),
            origin_protocol: read.origin_protocol(origin.tls, &mut origins),
            origin: origin.address,
            origins,
            proxy_protocol: read.or("EDGE_PROXY_PROTOCOL", false, |text| switch(text, "v2")),
            error_pages: read.or("EDGE_ERROR_PAGES", None, |text| path(text).map(Some)),
            cache_dir: read.required("EDGE_CACHE_DIR", "a folder of its own", path).unwrap_or_default(),
            certificate_cache_bytes: read.or("EDGE_CERTIFICATE_CACHE", 64 * 1024 * 1024, bytes),
            access_log: read.or("EDGE_ACCESS_LOG", None, AccessLogPlace::parse),
            logged_address: read.or("EDGE_ACCESS_LOG_ADDRESSES", LoggedAddress::default(), str::parse),
            metrics_tenants: read.or("EDGE_METRICS_TENANTS", METRICS_TENANTS, metrics_tenants),
            tickets: read.or("EDGE_TICKETS", TicketKeys::default(), str::parse),
            refresh: Refresh::default(),
            limits: Limits::default(),
            drain: Drain::default(),
        };
        read.refresh(&mut config.refresh);
        read.limits(&mut config.limits);
        config.drain.timeout = read.or("EDGE_DRAIN_TIMEOUT", config.drain.timeout, duration);
        config.drain.grace = read.or("EDGE_DRAIN_GRACE", config.drain.grace, duration);
        config.drain.linger = read.or("EDGE_DRAIN_LINGER", config.drain.linger, duration);
        if config.drain.grace > config.drain.timeout {
            read.problems.push("EDGE_DRAIN_GRACE is longer than EDGE_DRAIN_TIMEOUT, of which it is a part".to_owned());
        }
        let source = read.source();
        let seal_key_files = read.required("EDGE_SEAL_KEYS", "the seal key files, separated by commas", |text| {
            text.split(',').map(|t| path(t.trim())).collect()
        });
        let log_format = read.or("EDGE_LOG_FORMAT", LogFormat::Text, |text| text.parse().map_err(|error| format!("{error}")));
        match source {
            Some(source) if read.problems.is_empty() => {
                Ok(Self { config, source, seal_key_files: seal_key_files.unwrap_or_default(), log_format })
            }
            _ => Err(ConfigProblems(read.problems)),
        }
    }
}

/// Reads variables and gathers what is wrong with them.
struct Reader<'a> {
    env: &'a dyn Env,
    problems: Vec<String>,
}

impl Reader<'_> {
    fn or<T>(&mut self, name: &str, default: T, parse: impl Fn(&str) -> Result<T, String>) -> T {
        match self.env.var(name).map(|text| parse(text.trim())) {
            None => default,
            Some(Ok(value)) => value,
            Some(Err(problem)) => {
                self.problems.push(format!("{name}: {problem}"));
                default
            }
        }
    }

    fn required<T>(&mut self, name: &str, what: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let Some(text) = self.env.var(name).filter(|text| !text.trim().is_empty()) else {
            self.problems.push(format!("{name} is not set; it names {what}"));
            return None;
        };
        parse(text.trim()).map_err(|problem| self.problems.push(format!("{name}: {problem}"))).ok()
    }

    /// `EDGE_SOURCE_FOLDER` or `EDGE_SOURCE_BUCKET`, and not both.
    fn source(&mut self) -> Option<SourcePlace> {
        #[cfg(feature = "s3")]
        if let Some(text) = self.env.var("EDGE_SOURCE_BUCKET").filter(|text| !text.trim().is_empty()) {
            if self.env.var("EDGE_SOURCE_FOLDER").is_some_and(|text| !text.trim().is_empty()) {
                self.problems.push("EDGE_SOURCE_BUCKET and EDGE_SOURCE_FOLDER are both set; there is one source".to_owned());
            }
            let place = crate::BucketPlace::parse(text.trim());
            return place.map_err(|problem| self.problems.push(format!("EDGE_SOURCE_BUCKET: {problem}"))).ok().map(SourcePlace::Bucket);
        }
        let what = "the folder with index/ and sites/; a bucket is named by EDGE_SOURCE_BUCKET instead";
        self.required("EDGE_SOURCE_FOLDER", what, path).map(SourcePlace::Folder)
    }

    /// How the usual origin is spoken to; whom it trusts and which HTTP it speaks are the named ones' as well.
    fn origin_protocol(&mut self, tls: bool, named: &mut BTreeMap<OriginName, OriginPlace>) -> OriginProtocol {
        let server_name = self.or("EDGE_ORIGIN_SNI", None, |text| Ok(Some(text.to_owned())));
        let ca_file = self.or("EDGE_ORIGIN_CA", None, |text| path(text).map(Some));
        if !tls && server_name.is_some() {
            self.problems.push("EDGE_ORIGIN_SNI is for an EDGE_ORIGIN that begins with https://".to_owned());
        }
        let has_tls = tls || named.values().any(|place| place.protocol.tls.is_some());
        if !has_tls && ca_file.is_some() {
            self.problems.push("EDGE_ORIGIN_CA is for an EDGE_ORIGIN or one of EDGE_ORIGINS that begins with https://".to_owned());
        }
        let ca_file = ca_file.unwrap_or_else(|| PathBuf::from(SYSTEM_CAS));
        let tls = tls.then(|| OriginTls { server_name, ca_file: ca_file.clone() });
        let http2 = self.or("EDGE_ORIGIN_HTTP", false, |text| match text {
            "1.1" => Ok(false),
            "2" => Ok(true),
            _ => Err(format!("`{text}` is neither 1.1 nor 2")),
        });
        for place in named.values_mut() {
            place.protocol.http2 = http2;
            place.protocol.tls.iter_mut().for_each(|tls| tls.ca_file.clone_from(&ca_file));
        }
        OriginProtocol { tls, http2 }
    }

    fn refresh(&mut self, refresh: &mut Refresh) {
        refresh.poll_interval = self.or("EDGE_POLL_INTERVAL", refresh.poll_interval, duration);
        refresh.source_timeout = self.or("EDGE_SOURCE_TIMEOUT", refresh.source_timeout, duration);
        refresh.cold_read_timeout = self.or("EDGE_COLD_READ_TIMEOUT", refresh.cold_read_timeout, duration);
        refresh.first_index_wait = self.or("EDGE_FIRST_INDEX_WAIT", refresh.first_index_wait, duration);
        refresh.fill_concurrency = self.or("EDGE_FILL_CONCURRENCY", refresh.fill_concurrency, number);
        refresh.fill_per_second = self.or("EDGE_FILL_PER_SECOND", refresh.fill_per_second, number);
    }

    fn limits(&mut self, limits: &mut Limits) {
        for (name, value) in [
            ("EDGE_HANDSHAKE_TIMEOUT", &mut limits.handshake),
            ("EDGE_HEADER_TIMEOUT", &mut limits.header_read),
            ("EDGE_IDLE_TIMEOUT", &mut limits.idle),
            ("EDGE_UPLOAD_STALL", &mut limits.upload_stall),
            ("EDGE_WRITE_STALL", &mut limits.write_stall),
            ("EDGE_TUNNEL_IDLE", &mut limits.tunnel_idle),
            ("EDGE_CONNECTION_LIFETIME", &mut limits.connection_lifetime),
            ("EDGE_ORIGIN_CONNECT_TIMEOUT", &mut limits.origin_connect),
            ("EDGE_ORIGIN_RESPONSE_TIMEOUT", &mut limits.origin_response),
            ("EDGE_ORIGIN_SILENCE_TIMEOUT", &mut limits.origin_silence),
            ("EDGE_ORIGIN_IDLE", &mut limits.origin_idle),
        ] {
            *value = self.or(name, *value, duration);
        }
        for (name, value) in [
            ("EDGE_MAX_CONNECTIONS", &mut limits.max_connections),
            ("EDGE_MAX_PLAIN_CONNECTIONS", &mut limits.max_plain_connections),
            ("EDGE_MAX_HEADER_COUNT", &mut limits.max_header_count),
            ("EDGE_MAX_ORIGIN_CONNECTIONS", &mut limits.max_origin_connections),
        ] {
            *value = self.or(name, *value, number);
        }
        for (name, value) in [
            ("EDGE_MAX_STREAMS", &mut limits.max_concurrent_streams),
            ("EDGE_MAX_CONTROL_FRAMES", &mut limits.max_control_frames),
            ("EDGE_MAX_RESETS", &mut limits.max_resets),
        ] {
            *value = self.or(name, *value, number);
        }
        let addresses = &mut limits.per_address;
        addresses.max_open = self.or("EDGE_ADDRESS_CONNECTIONS", addresses.max_open, |text| or_off(text, usize::MAX, number));
        addresses.connections_per_second =
            self.or("EDGE_ADDRESS_CONNECTION_RATE", addresses.connections_per_second, |text| or_off(text, u32::MAX, number));
        addresses.requests_per_second =
            self.or("EDGE_ADDRESS_REQUEST_RATE", addresses.requests_per_second, |text| or_off(text, u32::MAX, number));
        addresses.resets_per_second =
            self.or("EDGE_ADDRESS_RESET_RATE", addresses.resets_per_second, |text| or_off(text, u32::MAX, number));
        limits.max_body_bytes =
            self.or("EDGE_MAX_BODY", limits.max_body_bytes, |text| or_off(text, u64::MAX, |text| bytes(text).map(|size| size as u64)));
        limits.max_header_bytes = self.or("EDGE_MAX_HEADER_BYTES", limits.max_header_bytes, |text| match bytes(text)? {
            enough @ 8192.. => Ok(enough),
            little => Err(format!("{little} bytes are too few; browsers send up to 8192")),
        });
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("`{text}` is not an address with a port, such as 0.0.0.0:443"))
}

#[derive(Debug, Default, PartialEq, Eq)]
struct OriginAddress {
    address: String,
    tls: bool,
}

/// `host:port`, `http://host:port`, or `https://host` with or without a port.
fn origin_address(text: &str) -> Result<OriginAddress, String> {
    let (tls, rest) = match text.strip_prefix("https://") {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix("http://").unwrap_or(text)),
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let has_port = rest.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
    let address = if tls && !has_port { format!("{rest}:443") } else { rest.to_owned() };
    host_and_port(&address).map(|address| OriginAddress { address, tls })
}

fn host_and_port(text: &str) -> Result<String, String> {
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && !text.contains('/') && port.parse::<u16>().is_ok_and(|port| port > 0) => {
            Ok(text.to_owned())
        }
        _ => Err(format!("`{text}` is not host:port, such as 10.0.0.5:8080")),
    }
}

fn path(text: &str) -> Result<PathBuf, String> {
    match text.is_empty() {
        true => Err("an empty path was given".to_owned()),
        false => Ok(PathBuf::from(text)),
    }
}

/// `off`, or the word for on.
fn switch(text: &str, on: &str) -> Result<bool, String> {
    match text {
        "off" => Ok(false),
        text if text == on => Ok(true),
        _ => Err(format!("`{text}` is neither `{on}` nor `off`")),
    }
}

/// `off`, which means a limit that is never reached, or the limit.
fn or_off<T>(text: &str, never: T, parse: impl Fn(&str) -> Result<T, String>) -> Result<T, String> {
    if text == "off" { Ok(never) } else { parse(text) }
}

/// A positive whole number.
fn number<T: std::str::FromStr + PartialEq + Default>(text: &str) -> Result<T, String> {
    text.parse().ok().filter(|value| *value != T::default()).ok_or_else(|| format!("`{text}` is not a positive whole number that fits"))
}

/// A duration such as `500ms`, `10s` or `2m`; never zero.
fn duration(text: &str) -> Result<Duration, String> {
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let millis_each = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => 0,
    };
    match digits.parse::<u64>().ok().and_then(|count| count.checked_mul(millis_each)) {
        Some(millis @ 1..) => Ok(Duration::from_millis(millis)),
        _ => Err(format!("`{text}` is not a duration such as 500ms, 10s, 2m or 1h")),
    }
}

/// A size such as `65536`, `64KiB` or `64MiB`; never zero.
fn bytes(text: &str) -> Result<usize, String> {
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let each = match unit {
        "" => 1,
        "KiB" => 1024,
        "MiB" => 1024 * 1024,
        "GiB" => 1024 * 1024 * 1024,
        _ => 0,
    };
    match digits.parse::<usize>().ok().and_then(|count| count.checked_mul(each)) {
        Some(size @ 1..) => Ok(size),
        _ => Err(format!("`{text}` is not a size such as 65536, 64KiB or 64MiB")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    struct Given(BTreeMap<&'static str, &'static str>);

    impl Env for Given {
        fn var(&self, name: &str) -> Option<String> {
            self.0.get(name).map(|&value| value.to_owned())
        }
    }

    fn complete() -> BTreeMap<&'static str, &'static str> {
        [
            ("EDGE_ORIGIN", "10.0.0.5:8080"),
            ("EDGE_CACHE_DIR", "cache"),
            ("EDGE_SOURCE_FOLDER", "bucket"),
            ("EDGE_SEAL_KEYS", "a.json, b.json"),
        ]
        .into()
    }

    #[test]
    fn four_settings_are_enough_and_the_rest_has_defaults() {
        let program = Program::from_env(&Given(complete())).unwrap();
        assert_eq!(program.seal_key_files, [PathBuf::from("a.json"), PathBuf::from("b.json")]);
        assert_eq!(program.config.limits.handshake, Duration::from_secs(10));
        assert_eq!(program.config.https_listen.port(), 443);
    }

    #[test]
    fn limits_on_strangers_are_settable_and_some_can_be_off() {
        let mut given = complete();
        given.extend([
            ("EDGE_ADDRESS_CONNECTIONS", "off"),
            ("EDGE_ADDRESS_CONNECTION_RATE", "20"),
            ("EDGE_MAX_BODY", "10MiB"),
            ("EDGE_MAX_RESETS", "7"),
            ("EDGE_PROXY_PROTOCOL", "v2"),
        ]);
        let config = Program::from_env(&Given(given)).unwrap().config;
        assert_eq!((config.limits.per_address.max_open, config.limits.per_address.connections_per_second), (usize::MAX, 20));
        assert_eq!((config.limits.max_body_bytes, config.limits.max_resets, config.proxy_protocol), (10 << 20, 7, true));
    }

    #[test]
    fn what_the_operator_sees_is_settable() {
        let of = |more: &[(&'static str, &'static str)]| {
            let mut given = complete();
            given.extend(more.iter().copied());
            Program::from_env(&Given(given)).map(|program| {
                let Config { access_log, logged_address, metrics_tenants, tickets, .. } = program.config;
                (access_log, logged_address, metrics_tenants, tickets)
            })
        };
        assert_eq!(of(&[]), Ok((None, LoggedAddress::Truncated, METRICS_TENANTS, TicketKeys::Process)));
        let file = Some(AccessLogPlace::File(PathBuf::from("log/access")));
        let given = [("EDGE_ACCESS_LOG", "log/access"), ("EDGE_ACCESS_LOG_ADDRESSES", "none"), ("EDGE_METRICS_TENANTS", "off")];
        assert_eq!(of(&given), Ok((file, LoggedAddress::None, 0, TicketKeys::Process)));
        let given = [
            ("EDGE_ACCESS_LOG", "stdout"),
            ("EDGE_ACCESS_LOG_ADDRESSES", "full"),
            ("EDGE_METRICS_TENANTS", "200"),
            ("EDGE_TICKETS", "shared"),
        ];
        assert_eq!(of(&given), Ok((Some(AccessLogPlace::Stdout), LoggedAddress::Full, 200, TicketKeys::Shared)));
        let given = [("EDGE_ACCESS_LOG_ADDRESSES", "half"), ("EDGE_METRICS_TENANTS", "201"), ("EDGE_TICKETS", "all")];
        assert_eq!(of(&given).unwrap_err().0.len(), 3);
    }

    #[test]
    fn an_origin_is_plain_or_over_tls_and_has_a_port() {
        let of = |text: &str| origin_address(text).map(|origin| (origin.address, origin.tls));
        for (text, address, tls) in [
            ("10.0.0.5:8080", "10.0.0.5:8080", false),
            ("http://app:8080/", "app:8080", false),
            ("https://app.example.com", "app.example.com:443", true),
            ("https://app.example.com:8443/", "app.example.com:8443", true),
            ("https://[::1]", "[::1]:443", true),
        ] {
            assert_eq!(of(text), Ok((address.to_owned(), tls)));
        }
        for wrong in ["app", "http://app", "https://app/path", "https://:443", "ftp://app:21"] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
        let mut given = complete();
        given.insert("EDGE_ORIGIN_SNI", "app.example.com");
        assert!(Program::from_env(&Given(given)).is_err());
    }

    #[test]
    fn every_problem_is_told_at_once() {
        let mut given = complete();
        given.remove("EDGE_ORIGIN");
        given.extend([
            ("EDGE_HTTPS_LISTEN", "443"),
            ("EDGE_POLL_INTERVAL", "fast"),
            ("EDGE_DRAIN_GRACE", "1h"),
            ("EDGE_MAX_CONNECTIONS", "0"),
        ]);
        let ConfigProblems(problems) = Program::from_env(&Given(given)).unwrap_err();
        for name in ["EDGE_ORIGIN", "EDGE_HTTPS_LISTEN", "EDGE_POLL_INTERVAL", "EDGE_DRAIN_GRACE", "EDGE_MAX_CONNECTIONS"] {
            assert!(problems.iter().any(|problem| problem.contains(name)), "{name}: {problems:?}");
        }
        assert_eq!(problems.len(), 5);
    }

    #[cfg(feature = "s3")]
    #[test]
    fn the_source_is_a_folder_or_a_bucket_and_never_both() {
        let mut given = complete();
        assert_eq!(Program::from_env(&Given(given.clone())).unwrap().source, SourcePlace::Folder(PathBuf::from("bucket")));
        given.insert("EDGE_SOURCE_BUCKET", "s3://sites/eu");
        let ConfigProblems(problems) = Program::from_env(&Given(given.clone())).unwrap_err();
        assert!(problems[0].contains("both set"), "{problems:?}");
        given.remove("EDGE_SOURCE_FOLDER");
        assert!(matches!(Program::from_env(&Given(given.clone())).unwrap().source, SourcePlace::Bucket(_)));
        given.insert("EDGE_SOURCE_BUCKET", "sites");
        let ConfigProblems(problems) = Program::from_env(&Given(given)).unwrap_err();
        assert!(problems.len() == 1 && problems[0].starts_with("EDGE_SOURCE_BUCKET: `sites` is not s3://"), "{problems:?}");
    }

    #[test]
    fn durations_and_sizes_have_units() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(bytes("64MiB"), Ok(64 << 20));
        for wrong in ["", "0s", "10", "1.5s", "99999999999999999999s", "-1s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
