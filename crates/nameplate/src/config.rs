//! The one configuration file and its environment variables.
//!
//! Arrives: `nameplate.toml`, then `NAMEPLATE_…` variables, which win. Leaves: a [`Config`]. Goes wrong: every key that is unknown and every
//! value that does not read is reported at once, before anything is bound. The documentation of each key stands beside its reading, so that
//! `nameplate config` prints what is true.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    net::SocketAddr,
    num::{NonZeroU16, NonZeroU32, NonZeroUsize},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use domains::{
    CaChoice, CaaIssuer, ChallengeKind, Failover, Hostname, HostnamePolicy, IssuancePolicy, LookSchedule, OriginName, ZoneSettings,
};
use edge::config::{AccessLogPlace, LoggedAddress, OriginPlace, TicketKeys, named_origins};

use crate::limits::{AcmeLimits, LimitsOf};

/// Which command is configured: its defaults, and what it must be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    /// A demo on loopback: everything has a default.
    Dev,
    /// A public machine: what only its operator can know has none.
    Serve,
}

/// What `serve` takes where `dev` has a demo's value.
const SERVE_DEFAULTS: &[(&str, &str)] = &[
    ("listen.https", "[::]:443"),
    ("listen.http", "[::]:80"),
    ("listen.answers", "[::]:53"),
    ("hostnames.allow_special_use", ""),
    ("looks.floor", "10s"),
    ("looks.cap", "10m"),
    ("issuance.lease", "90s"),
    ("issuance.first_retry", "60s"),
    ("issuance.retry_cap", "24h"),
    ("acme.directory", STAGING),
    ("dns.server", "system"),
    ("timer.interval", "5s"),
    ("timer.grace", "30s"),
    ("edge.poll", "2s"),
    ("drain", "10s"),
];

/// What `serve` cannot guess.
const SERVE_NEEDS: &[&str] = &["data", "zone.name", "zone.addresses", "origin"];

/// What only a demo has.
const DEV_ONLY: &[&str] =
    &["listen.dns", "listen.dns_admin", "listen.ca", "listen.ca_control", "listen.origin", "acme.lifetime", "chaos_seed"];

/// The CAs that have a name of their own here. Source: letsencrypt.org/docs/acme-protocol-updates and /docs/staging-environment (read 2026-11).
const LETS_ENCRYPT: (&str, &str) = ("letsencrypt", "https://acme-v02.api.letsencrypt.org/directory");
const STAGING: &str = "letsencrypt-staging";
const STAGING_URL: &str = "https://acme-staging-v02.api.letsencrypt.org/directory";

/// Where a system keeps its resolver's address.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// How a problem ends that time may mend.
const NOT_YET: &str = "; name one, or wait until the network is up";

/// The port name servers listen on. Source: RFC 1035, section 4.2.
const DNS_PORT: u16 = 53;

/// Everything the product can be told.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// Where all data lives.
    pub(crate) data: PathBuf,
    /// Where what is remembered is kept.
    pub(crate) home: HomePlace,
    /// What listens where.
    pub(crate) listen: Listen,
    /// Where targets, proofs and edge are.
    pub(crate) zone: ZoneSettings,
    /// Which hostnames are refused.
    pub(crate) policy: HostnamePolicy,
    /// When DNS is looked at.
    pub(crate) looks: LookSchedule,
    /// Lease and backoff of orders.
    pub(crate) issuance: IssuancePolicy,
    /// The CA; without a directory the local one is started.
    pub(crate) acme: AcmeSettings,
    /// The CA to turn to while the first is down or limited for too long.
    pub(crate) second_ca: Option<AcmeSettings>,
    /// What the CA allows.
    pub(crate) acme_limits: AcmeLimits,
    /// How long the local CA's certificates live.
    pub(crate) certificate_lifetime: Duration,
    /// A DNS server elsewhere; `None` starts the demo DNS.
    pub(crate) dns_server: Option<SocketAddr>,
    /// The port of the zones' own servers.
    pub(crate) authority_port: u16,
    /// Whether name servers may have addresses that are not on the public internet.
    pub(crate) allow_non_global: bool,
    /// Where requests go; `None` starts the demo origin.
    pub(crate) origin: Option<String>,
    /// The origins that single domains can be sent to.
    pub(crate) origins: BTreeMap<OriginName, OriginPlace>,
    /// Who signs the certificates of origins over TLS; `None` are the system's CAs.
    pub(crate) origin_ca: Option<PathBuf>,
    /// The name in the origin's certificate; `None` is its host.
    pub(crate) origin_sni: Option<String>,
    /// How often the timer ticks; `None` turns it off.
    pub(crate) timer: Option<Duration>,
    /// How long the timer leaves a due entry to its own message.
    pub(crate) timer_grace: Duration,
    /// How many workers receive from the queues.
    pub(crate) workers: NonZeroUsize,
    /// Whether the change feed is read.
    pub(crate) stream: bool,
    /// How often the edge looks at the index.
    pub(crate) edge_poll: Duration,
    /// What else the edge is told.
    pub(crate) edge: EdgeOptions,
    /// How webhooks are told.
    pub(crate) webhooks: WebhookSettings,
    /// How long shutdown may take.
    pub(crate) drain: Duration,
    /// Faults on purpose in feed, queues and due-index, from this seed.
    pub(crate) chaos_seed: Option<u64>,
}

/// Where what is remembered is kept.
#[derive(Clone, Debug)]
pub(crate) enum HomePlace {
    /// Below the data folder.
    Local,
    /// In tables, queues and a bucket on AWS; the data folder holds keys and the edge's own copies.
    Aws(AwsPlaces),
}

/// What everything of the home on AWS is called.
#[derive(Clone, Debug)]
#[cfg_attr(not(feature = "aws"), allow(dead_code, reason = "read by the home on AWS alone"))]
pub(crate) struct AwsPlaces {
    /// Its tables, queues and bucket, by the variables that name them.
    pub(crate) names: BTreeMap<String, String>,
    /// The hosted zone in which dns-01 is answered.
    pub(crate) answers_hosted_zone: Option<String>,
}

/// What the edge is told beside where it listens.
#[derive(Clone, Debug)]
pub(crate) struct EdgeOptions {
    /// Whose keys TLS session tickets are sealed with.
    pub(crate) tickets: TicketKeys,
    /// Where the access log goes.
    pub(crate) access_log: Option<AccessLogPlace>,
    /// What it shows of clients' addresses.
    pub(crate) logged_address: LoggedAddress,
    /// How many tenants the metrics show by name.
    pub(crate) metrics_tenants: usize,
}

/// How webhooks are told.
#[derive(Clone, Debug)]
pub(crate) struct WebhookSettings {
    /// How often new events are looked for; `None`: nobody is told.
    pub(crate) interval: Option<Duration>,
    /// Whether endpoints may be inside a network.
    pub(crate) allow_private: bool,
    /// A root certificate to trust beside the machine's.
    pub(crate) root: Option<PathBuf>,
}

/// One CA.
#[derive(Clone, Debug)]
pub(crate) struct AcmeSettings {
    /// Its directory.
    pub(crate) directory: Option<String>,
    /// Its root certificate, a PEM file, when no public root signs it.
    pub(crate) root: Option<PathBuf>,
    /// The certificate profile to order there.
    pub(crate) profile: Option<String>,
    /// Who it may write to.
    pub(crate) contact: Option<String>,
    /// The key identifier of an external account there, and the file with its HMAC key.
    pub(crate) external_account: Option<(String, PathBuf)>,
}

/// What listens where.
#[derive(Clone, Debug)]
pub(crate) struct Listen {
    /// The HTTP API.
    pub(crate) api: SocketAddr,
    /// The edge, HTTPS.
    pub(crate) https: SocketAddr,
    /// The edge, HTTP: challenges and redirects.
    pub(crate) http: SocketAddr,
    /// The edge's private port.
    pub(crate) private: SocketAddr,
    /// The demo DNS, UDP and TCP.
    pub(crate) dns: SocketAddr,
    /// The demo DNS's editor.
    pub(crate) dns_admin: SocketAddr,
    /// The local CA.
    pub(crate) ca: SocketAddr,
    /// The local CA's controls and counters.
    pub(crate) ca_control: SocketAddr,
    /// The demo origin.
    pub(crate) origin: SocketAddr,
    /// The zone with the answers of dns-01 challenges, UDP and TCP.
    pub(crate) answers: SocketAddr,
}

/// Everything that is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
#[error("the configuration has {} problem{}:\n  {}\n`nameplate config` prints every key with its meaning", .0.len(), if .0.len() == 1 { "" } else { "s" }, .0.join("\n  "))]
pub(crate) struct ConfigProblems(pub(crate) Vec<String>);

impl ConfigProblems {
    /// Whether waiting may mend all of it: at boot, [`RESOLV_CONF`] may be written after this program starts.
    pub(crate) fn may_pass(&self) -> bool {
        self.0.iter().all(|problem| problem.ends_with(NOT_YET))
    }
}

struct Reader {
    program: Program,
    values: BTreeMap<String, (String, String)>,
    problems: Vec<String>,
    documented: Vec<Documented>,
}

struct Documented {
    key: &'static str,
    default: &'static str,
    meaning: &'static str,
    is_needed: bool,
}

impl Program {
    fn default_of(self, key: &str, default: &'static str) -> &'static str {
        match self {
            Self::Dev => default,
            Self::Serve => SERVE_DEFAULTS.iter().find(|(known, _)| *known == key).map_or(default, |(_, default)| default),
        }
    }
}

impl Reader {
    /// Reads one key; what is not set takes the default, which goes through the same parser.
    fn read<T>(
        &mut self,
        key: &'static str,
        default: &'static str,
        meaning: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let default = self.program.default_of(key, default);
        let is_needed = self.program == Program::Serve && SERVE_NEEDS.contains(&key);
        self.documented.push(Documented { key, default, meaning, is_needed });
        if is_needed && self.values.get(key).is_none_or(|(text, _)| text.is_empty()) {
            self.values.remove(key);
            self.problems.push(format!("{key} is missing; set it. {meaning}"));
            return None;
        }
        if self.program == Program::Serve
            && DEV_ONLY.contains(&key)
            && let Some((_, origin)) = self.values.remove(key)
        {
            self.problems.push(format!("{key} ({origin}): only `nameplate dev` has it; remove it"));
        }
        let (text, origin) = self.values.remove(key).unwrap_or_else(|| (default.to_owned(), "the default".to_owned()));
        match parse(&text) {
            Ok(value) => Some(value),
            Err(why) => {
                self.problems.push(format!("{key} = \"{text}\" ({origin}): {why}"));
                None
            }
        }
    }
}

fn parsed<T: FromStr>(what: &'static str) -> impl Fn(&str) -> Result<T, String> {
    move |text| text.parse().map_err(|_| format!("not {what}"))
}

fn optional<T>(parse: impl Fn(&str) -> Result<T, String>) -> impl Fn(&str) -> Result<Option<T>, String> {
    move |text| if text.is_empty() { Ok(None) } else { parse(text).map(Some) }
}

fn duration(text: &str) -> Result<Duration, String> {
    let signed: jiff::SignedDuration = text.parse().map_err(|_| "not a duration; write 500ms, 5s, 10m, 24h".to_owned())?;
    Duration::try_from(signed).map_err(|_| "a duration cannot be negative".to_owned())
}

fn at_least(least: Duration) -> impl Fn(&str) -> Result<Duration, String> {
    move |text| {
        let found = duration(text)?;
        if found < least { Err(format!("at least {least:?} is needed")) } else { Ok(found) }
    }
}

fn list<T: FromStr>(what: &'static str) -> impl Fn(&str) -> Result<Vec<T>, String> {
    move |text| text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(parsed(what)).collect()
}

fn hostname(text: &str) -> Result<Hostname, String> {
    Hostname::parse_name(text).map_err(|error| error.to_string())
}

fn url(text: &str) -> Result<String, String> {
    match text.parse::<http::Uri>() {
        Ok(uri) if uri.scheme().is_some() && uri.host().is_some() => Ok(text.to_owned()),
        _ => Err("not a URL with scheme and host".to_owned()),
    }
}

/// A directory's URL, or one of the names that stand for one.
fn directory(text: &str) -> Result<String, String> {
    match text {
        name if name == LETS_ENCRYPT.0 => Ok(LETS_ENCRYPT.1.to_owned()),
        STAGING => Ok(STAGING_URL.to_owned()),
        other => url(other).map_err(|why| format!("{why}, nor {} or {STAGING}", LETS_ENCRYPT.0)),
    }
}

/// A resolver: an address with or without a port, or `system` for the one this machine uses.
fn resolver(text: &str) -> Result<SocketAddr, String> {
    if text != "system" {
        let alone = || text.parse::<IpAddr>().map(|address| SocketAddr::new(address, DNS_PORT));
        return text.parse().or_else(|_| alone()).map_err(|_| "not an address like 1.1.1.1 or 1.1.1.1:53, nor `system`".to_owned());
    }
    system_resolver(RESOLV_CONF)
}

fn system_resolver(file: &str) -> Result<SocketAddr, String> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| format!("{file} does not say which resolver this machine uses ({error}){NOT_YET}"))?;
    first_name_server(&text).ok_or_else(|| format!("{file} names no resolver{NOT_YET}"))
}

/// Source: resolv.conf(5): the first `nameserver` is asked first.
fn first_name_server(file: &str) -> Option<SocketAddr> {
    let addresses = file.lines().filter_map(|line| line.trim().strip_prefix("nameserver")?.trim().parse::<IpAddr>().ok());
    addresses.map(|address| SocketAddr::new(address, DNS_PORT)).next()
}

fn label(text: &str) -> Result<String, String> {
    let fine =
        (1..=63).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'));
    if fine { Ok(text.to_owned()) } else { Err("not a DNS label of lower-case letters, digits, `-` and `_`".to_owned()) }
}

impl Config {
    /// Reads the file's text (empty when there is no file) and the environment's variables.
    ///
    /// # Errors
    /// [`ConfigProblems`] with everything that is wrong.
    pub(crate) fn read(
        program: Program,
        file: &str,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigProblems> {
        let mut problems = Vec::new();
        let mut values = BTreeMap::new();
        match file.parse::<toml::Table>() {
            Ok(table) => flatten("", &table, &mut values, &mut problems),
            Err(error) => problems.push(format!("the file is not TOML: {}", error.message())),
        }
        let mut reader = Reader { program, values, problems, documented: Vec::new() };
        let variables: BTreeMap<String, String> = environment.into_iter().filter(|(name, _)| name.starts_with("NAMEPLATE_")).collect();
        for key in keys() {
            if let Some(value) = variables.get(&variable(key)) {
                reader.values.insert(key.to_owned(), (value.clone(), variable(key)));
            }
        }
        let config = Self::from_reader(&mut reader);
        for (key, (_, origin)) in std::mem::take(&mut reader.values) {
            reader.problems.push(format!("{key} ({origin}): there is no such key"));
        }
        match config {
            Some(config) if reader.problems.is_empty() => Ok(config),
            _ => Err(ConfigProblems(reader.problems)),
        }
    }

    #[allow(clippy::too_many_lines, reason = "one line a key, in the order of the documentation")]
    fn from_reader(r: &mut Reader) -> Option<Self> {
        let address = || parsed::<SocketAddr>("an address like 127.0.0.1:8443");
        // Every key is read before the first `?`, so that all problems show at once.
        let data = r.read("data", ".nameplate", "The folder where everything is kept.", parsed::<PathBuf>("a path"));
        let home = home(r);
        let api = r.read("listen.api", "127.0.0.1:7080", "The HTTP API.", address());
        let https = r.read("listen.https", "127.0.0.1:8443", "The edge, HTTPS.", address());
        let http = r.read("listen.http", "127.0.0.1:8080", "The edge, HTTP: ACME challenges and redirects.", address());
        let private = r.read("listen.private", "127.0.0.1:8081", "The edge's health, readiness and metrics.", address());
        let dns = r.read("listen.dns", "127.0.0.1:5300", "The demo DNS, UDP and TCP.", address());
        let dns_admin = r.read("listen.dns_admin", "127.0.0.1:5301", "Where `nameplate dns` edits the demo DNS.", address());
        let ca = r.read("listen.ca", "127.0.0.1:14000", "The local CA.", address());
        let ca_control = r.read("listen.ca_control", "127.0.0.1:14001", "The local CA's counters and faults on demand.", address());
        let origin = r.read("listen.origin", "127.0.0.1:7090", "The demo origin, which echoes what it receives.", address());
        let answers = r.read(
            "listen.answers",
            "127.0.0.1:5302",
            "The zone acme.<zone>, where dns-01 challenges are answered, UDP and TCP; port 53 where others delegate to it.",
            address(),
        );
        let wildcards = r.read(
            "hostnames.tenant_wildcards",
            "off",
            "Whether tenants may register wildcards such as *.brand.com; they prove them by delegation.",
            on_off,
        );
        let zone = r.read("zone.name", "edge.nameplate.test", "The operator's edge zone; routing targets are <claim>.t.<zone>.", hostname);
        let txt_prefix = r.read("zone.txt_prefix", "_nameplate", "The label before a hostname where its TXT proof stands.", label);
        let addresses = r.read(
            "zone.addresses",
            "127.0.0.1",
            "The edge's addresses, comma-separated, for names that cannot have a CNAME.",
            list::<IpAddr>("an IP address"),
        );
        let special = r.read(
            "hostnames.allow_special_use",
            "test",
            "Special-use names that may be claimed all the same, comma-separated.",
            list::<String>("a name"),
        );
        let floor =
            r.read("looks.floor", "1s", "The shortest wait between two looks at a hostname's DNS.", at_least(Duration::from_millis(100)));
        let cap =
            r.read("looks.cap", "1s", "The longest wait between two looks at a hostname that waits.", at_least(Duration::from_millis(100)));
        let life = r.read("looks.claim_life", "168h", "How long a claim may stay unproved.", at_least(Duration::from_secs(60)));
        let health = r.read("looks.health", "24h", "How often the DNS of an active domain is looked at.", at_least(Duration::from_secs(1)));
        let hand_over = r.read("looks.hand_over", "60s", "How far apart the two looks are before a name changes hands.", duration);
        let grace_at_risk = r.read(
            "looks.at_risk_grace",
            "168h",
            "How long a served domain that leads elsewhere is looked at often; it is never removed for it.",
            at_least(Duration::from_secs(1)),
        );
        let lease = r.read("issuance.lease", "60s", "How long one worker may hold an order.", at_least(Duration::from_secs(2)));
        let first_retry =
            r.read("issuance.first_retry", "5s", "The wait after a first failed order; each further one triples it, or is 1, 10 and 100 times as long where the CA refuses the name.", duration);
        let retry_cap = r.read("issuance.retry_cap", "1h", "The longest wait between orders.", at_least(Duration::from_secs(1)));
        let profile = r.read(
            "acme.profile",
            "tlsserver",
            "The certificate profile to order where the CA lists it; empty for the CA's usual one.",
            |text| Ok(text.to_owned()),
        );
        let contact = r.read("acme.contact", "", "Who the CA may write to, an e-mail address.", |text| Ok(text.to_owned()));
        let eab_key_id = r.read("acme.eab_key_id", "", "The key identifier of an external account, for a CA that asks for one.", |text| {
            Ok(text.to_owned())
        });
        let eab_hmac = r.read(
            "acme.eab_hmac_file",
            "",
            "The file with that external account's HMAC key, base64url as the CA prints it.",
            optional(parsed::<PathBuf>("a path")),
        );
        let second_directory = r.read(
            "acme.second.directory",
            "",
            "The ACME directory of a second CA, for when the first is down or limited for too long.",
            optional(directory),
        );
        let second_root = r.read(
            "acme.second.root",
            "",
            "The second CA's root certificate, PEM, when no public root signs it.",
            optional(parsed::<PathBuf>("a path")),
        );
        let second_key_id =
            r.read("acme.second.eab_key_id", "", "The key identifier of an external account at the second CA.", |text| Ok(text.to_owned()));
        let second_hmac = r.read(
            "acme.second.eab_hmac_file",
            "",
            "The file with that external account's HMAC key.",
            optional(parsed::<PathBuf>("a path")),
        );
        let second_caa = r.read(
            "acme.second.caa_identities",
            "",
            "The names by which CAA records allow the second CA, comma-separated; without any it is asked only where no CAA record names a CA.",
            list::<String>("a name"),
        );
        let unavailable_for =
            r.read("acme.second.after", "30m", "How long the first CA may be down before orders go to the second.", duration);
        let new_name_patience =
            r.read("acme.second.new_name_wait", "1h", "How long a limit of the first may keep a new name waiting.", duration);
        let renewal_slack = r.read(
            "acme.second.renewal_slack",
            "72h",
            "How much life a certificate must keep when a limit of the first delays its renewal.",
            duration,
        );
        let directory = r.read(
            "acme.directory",
            "",
            "The CA: letsencrypt, letsencrypt-staging or the URL of an ACME directory; empty is the local CA of `nameplate dev`.",
            optional(directory),
        );
        let root = r.read(
            "acme.root",
            "",
            "That CA's root certificate, PEM, when no public root signs it.",
            optional(parsed::<PathBuf>("a path")),
        );
        let caa = r.read(
            "acme.caa_identities",
            "letsencrypt.org",
            "The names by which CAA records allow the CA, comma-separated: its directory's caaIdentities.",
            list::<String>("a name"),
        );
        let limits = r.read(
            "acme.limits",
            "",
            "The limits of that CA: lets-encrypt, lets-encrypt-staging or none; empty takes those that belong to its directory.",
            |text| text.parse::<LimitsOf>(),
        );
        let limits_scale = r.read(
            "acme.limits_scale",
            "1",
            "For tests: how many times faster than published those limits' time runs.",
            parsed::<NonZeroU32>("a whole number, 1 or more"),
        );
        let lifetime = r.read("acme.lifetime", "2160h", "How long the local CA's certificates live.", at_least(Duration::from_secs(30)));
        let dns_server = r.read(
            "dns.server",
            "",
            "The resolver to ask, which should validate DNSSEC: an address, or system for the one this machine uses; empty is the demo DNS of `nameplate dev`.",
            optional(resolver),
        );
        let authority_port =
            r.read("dns.authority_port", "53", "For tests: the port of the zones' own name servers.", parsed::<NonZeroU16>("a port"));
        let allow_non_global = r.read(
            "dns.allow_non_global",
            "off",
            "For tests: whether name servers may have addresses that are not on the public internet; with it, anyone who can register a hostname can make this machine ask inside its own network.",
            on_off,
        );
        let origin_url = r.read(
            "origin",
            "",
            "Where the edge sends requests, instead of the demo origin: http://host:port, or https://host[:port], whose certificate is verified.",
            optional(|text| OriginPlace::parse(text).map(|_| text.to_owned())),
        );
        let origins = r.read(
            "origins",
            "",
            "Other origins that single domains can be sent to by `domains origin`: eu=https://eu.example, us=http://10.0.0.5:8080.",
            named_origins,
        );
        let origin_ca = r.read(
            "origin_ca",
            "",
            "The CAs that the certificates of origins over https are signed by, a PEM file; empty is the system's.",
            optional(parsed::<PathBuf>("a path")),
        );
        let origin_sni = r.read(
            "origin_sni",
            "",
            "The name in the certificate of an `origin` over https; empty is its host.",
            optional(parsed("a name")),
        );
        let timer = r.read(
            "timer.interval",
            "1s",
            "How often what is due is looked for; empty turns the timer off.",
            optional(at_least(Duration::from_millis(50))),
        );
        let grace = r.read("timer.grace", "2s", "How long the timer leaves a due domain to its own message.", duration);
        let workers = r.read(
            "workers",
            "1",
            "How many workers take from the queues side by side; each looks at 60 hostnames and works on 80 orders at once.",
            parsed::<NonZeroUsize>("a number from 1 on"),
        );
        let stream = r.read("stream", "on", "Whether changes are routed at once; off leaves all to the timer.", on_off);
        let edge_poll = r.read("edge.poll", "500ms", "How often the edge looks at the index.", at_least(Duration::from_millis(50)));
        let edge = edge_options(r);
        let webhooks_interval = r.read(
            "webhooks.interval",
            "1s",
            "How often new events are looked for, to tell webhooks; empty tells nobody.",
            optional(at_least(Duration::from_millis(50))),
        );
        let webhooks_private = r.read(
            "webhooks.allow_private",
            "off",
            "Whether webhooks may be sent to addresses that are not on the public internet.",
            on_off,
        );
        let webhooks_root = r.read(
            "webhooks.root",
            "",
            "A root certificate, PEM, that webhooks' endpoints may have beside the public ones.",
            optional(parsed::<PathBuf>("a path")),
        );
        let drain = r.read("drain", "5s", "How long stopping may take.", duration);
        let chaos = r.read(
            "chaos_seed",
            "",
            "For tests: duplicates, reorders and delays what feed and queues carry, from this seed.",
            optional(parsed::<u64>("a whole number")),
        );
        let (floor, cap) = (floor?, cap?);
        let zone = zone?;
        let external_account = external(r, "acme.eab", eab_key_id, eab_hmac?);
        let second_account = external(r, "acme.second.eab", second_key_id, second_hmac.flatten());
        let second = second_directory?.map(|directory| AcmeSettings {
            directory: Some(directory),
            root: second_root.flatten(),
            // Only the first CA's profiles are known to us, and there is no time to find out in an outage.
            profile: None,
            contact: contact.clone().filter(|contact| !contact.is_empty()),
            external_account: second_account,
        });
        let failover = Failover {
            unavailable_for: unavailable_for?,
            new_name_patience: new_name_patience?,
            renewal_slack: renewal_slack?,
            // Known once both accounts are.
            http_01: false,
        };
        let failover = second.is_some().then_some(failover);
        let methods = || ChallengeKind::ALL.iter().map(|kind| kind.as_str().to_owned()).collect();
        let issuer = |ca: CaChoice, identities: Vec<String>| CaaIssuer { ca, identities, account_uri: None, methods: methods() };
        let second_issuer = issuer(CaChoice::Second, second_caa?);
        let issuers = std::iter::once(issuer(CaChoice::First, caa?)).chain(second.is_some().then_some(second_issuer)).collect();
        Some(Self {
            data: data?,
            home: home?,
            listen: Listen {
                api: api?,
                https: https?,
                http: http?,
                private: private?,
                dns: dns?,
                dns_admin: dns_admin?,
                ca: ca?,
                ca_control: ca_control?,
                origin: origin?,
                answers: answers?,
            },
            policy: HostnamePolicy { operator_zones: vec![zone.clone()], tenant_wildcards: wildcards?, allowed_special_use: special? },
            zone: ZoneSettings { zone, txt_prefix: txt_prefix?, edge_addresses: addresses?, issuers },
            looks: LookSchedule { floor, cap, claim_life: life?, health: health?, hand_over: hand_over?, at_risk_grace: grace_at_risk? },
            issuance: IssuancePolicy { lease: lease?, first_retry: first_retry?, retry_cap: retry_cap?, failover },
            acme: AcmeSettings {
                directory: directory?,
                root: root?,
                profile: profile.filter(|profile| !profile.is_empty()),
                contact: contact.filter(|contact| !contact.is_empty()),
                external_account,
            },
            second_ca: second,
            acme_limits: AcmeLimits { of: limits?, scale: limits_scale? },
            certificate_lifetime: lifetime?,
            dns_server: dns_server?,
            authority_port: authority_port?.get(),
            allow_non_global: allow_non_global?,
            origin: origin_url?,
            origins: origins?,
            origin_ca: origin_ca?,
            origin_sni: origin_sni?,
            timer: timer?,
            timer_grace: grace?,
            workers: workers?,
            stream: stream?,
            edge_poll: edge_poll?,
            edge: edge?,
            webhooks: WebhookSettings { interval: webhooks_interval?, allow_private: webhooks_private?, root: webhooks_root? },
            drain: drain?,
            chaos_seed: chaos?,
        })
    }

    /// A file with every key, its default and its meaning.
    pub(crate) fn documentation(program: Program) -> String {
        let whose = if program == Program::Serve { "`nameplate serve`" } else { "`nameplate dev`" };
        let mut out = format!(
            "# Every key of nameplate.toml with its default for {whose}.\n# An environment variable wins over the file; its name stands behind each key.\n",
        );
        let mut reader = Reader { program, values: BTreeMap::new(), problems: Vec::new(), documented: Vec::new() };
        let _ = Self::from_reader(&mut reader);
        let is_shown = |entry: &&Documented| program == Program::Dev || !DEV_ONLY.contains(&entry.key);
        let (top, mut tables): (Vec<_>, Vec<_>) = reader.documented.iter().filter(is_shown).partition(|entry| !entry.key.contains('.'));
        tables.sort_by_key(|entry| entry.key.split('.').next());
        let mut section = "";
        for entry in top.into_iter().chain(tables) {
            let (table, key) = entry.key.split_once('.').unwrap_or(("", entry.key));
            if table != section {
                section = table;
                out.push_str(&format!("\n[{table}]\n"));
            }
            out.push_str(&format!("# {}  ({})\n", entry.meaning, variable(entry.key)));
            out.push_str(&match entry.is_needed {
                true => format!("# {key} = \"\"  must be set\n"),
                false => format!("{key} = \"{}\"\n", entry.default),
            });
        }
        out
    }
}

/// The keys that name the tables, queues and bucket of the home on AWS, and what each names.
const AWS_PLACES: [(&str, &str); 6] = [
    ("aws.table", "With home = \"aws\": the table with claims, owners and certificates."),
    ("aws.second_table", "With home = \"aws\": the table with limits, callers and documents."),
    ("aws.verify_ownership_queue", "With home = \"aws\": the URL of verify-ownership's queue."),
    ("aws.issue_certificate_queue", "With home = \"aws\": the URL of issue-certificate's queue."),
    ("aws.publish_site_queue", "With home = \"aws\": the URL of publish-site's queue."),
    ("aws.bucket", "With home = \"aws\": the bucket that the edge reads."),
];

fn home(r: &mut Reader) -> Option<HomePlace> {
    let is_aws = r.read(
        "home",
        "local",
        "Where everything is kept: local, below the data folder; or aws, in the account and region of the usual AWS variables.",
        |text| match text {
            "local" => Ok(false),
            "aws" if cfg!(feature = "aws") => Ok(true),
            "aws" => Err("this build knows no AWS; build it with `--features nameplate/aws`".to_owned()),
            _ => Err("write local or aws".to_owned()),
        },
    );
    let names = AWS_PLACES.map(|(key, meaning)| (key, r.read(key, "", meaning, |text| Ok(text.to_owned())).unwrap_or_default()));
    let answers_hosted_zone = r.read(
        "aws.answers_hosted_zone",
        "",
        "With home = \"aws\": the id of the hosted zone acme.<zone> in Route 53; empty leaves all proofs to http-01.",
        optional(|text| Ok(text.to_owned())),
    );
    if !is_aws? {
        return Some(HomePlace::Local);
    }
    for (key, _) in names.iter().filter(|(_, name)| name.is_empty()) {
        r.problems.push(format!("{key} is not set; home = \"aws\" needs it"));
    }
    let names = names.into_iter().map(|(key, name)| (variable(key), name)).collect();
    Some(HomePlace::Aws(AwsPlaces { names, answers_hosted_zone: answers_hosted_zone? }))
}

fn edge_options(r: &mut Reader) -> Option<EdgeOptions> {
    let tickets = r.read(
        "edge.tickets",
        "process",
        "Whose keys TLS session tickets are sealed with: process, each edge's own until it ends; or shared, made for all edges by the timer, so that sessions resume at any of them and after a restart.",
        str::parse,
    );
    let access_log = r.read(
        "edge.access_log",
        "off",
        "Where a line of JSON for each request goes: off, stdout, or a file that is appended to.",
        AccessLogPlace::parse,
    );
    let logged_address = r.read(
        "edge.access_log_addresses",
        "truncated",
        "What such a line shows of the client's address: truncated (IPv4 to /24, IPv6 to /48), full, or none.",
        str::parse,
    );
    let metrics_tenants = r.read(
        "edge.metrics_tenants",
        "20",
        "How many tenants the metrics show by name, those with the most requests; off shows none.",
        edge::config::metrics_tenants,
    );
    Some(EdgeOptions { tickets: tickets?, access_log: access_log?, logged_address: logged_address?, metrics_tenants: metrics_tenants? })
}

/// An external account is its key's identifier and its key, or nothing.
fn external(r: &mut Reader, keys: &str, key_id: Option<String>, hmac: Option<PathBuf>) -> Option<(String, PathBuf)> {
    match (key_id.filter(|id| !id.is_empty()), hmac) {
        (Some(key_id), Some(hmac)) => Some((key_id, hmac)),
        (None, None) => None,
        _ => {
            r.problems.push(format!("{keys}_key_id and {keys}_hmac_file belong together; set both or none"));
            None
        }
    }
}

fn keys() -> Vec<&'static str> {
    let mut reader = Reader { program: Program::Dev, values: BTreeMap::new(), problems: Vec::new(), documented: Vec::new() };
    let _ = Config::from_reader(&mut reader);
    reader.documented.into_iter().map(|entry| entry.key).collect()
}

fn variable(key: &str) -> String {
    format!("NAMEPLATE_{}", key.replace('.', "_").to_uppercase())
}

fn on_off(text: &str) -> Result<bool, String> {
    match text {
        "on" | "true" => Ok(true),
        "off" | "false" => Ok(false),
        _ => Err("write on or off".to_owned()),
    }
}

fn flatten(prefix: &str, table: &toml::Table, values: &mut BTreeMap<String, (String, String)>, problems: &mut Vec<String>) {
    for (name, value) in table {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        let text = match value {
            toml::Value::Table(inner) => {
                flatten(&key, inner, values, problems);
                continue;
            }
            toml::Value::String(text) => text.clone(),
            toml::Value::Integer(number) => number.to_string(),
            toml::Value::Boolean(flag) => flag.to_string(),
            toml::Value::Array(items) => {
                items.iter().map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned)).collect::<Vec<_>>().join(",")
            }
            toml::Value::Float(_) | toml::Value::Datetime(_) => {
                problems.push(format!("{key}: a text, a whole number or a list is expected"));
                continue;
            }
        };
        values.insert(key, (text, "the file".to_owned()));
    }
}

/// The demo's settings with the home on AWS, in builds that know one.
#[cfg(test)]
pub(crate) fn on_aws(answers_hosted_zone: Option<&str>) -> Option<Config> {
    let variables = AWS_PLACES.map(|(key, _)| (variable(key), "x".to_owned())).into_iter();
    let more = [("NAMEPLATE_HOME".to_owned(), "aws".to_owned())].into_iter();
    let zone = answers_hosted_zone.map(|id| (variable("aws.answers_hosted_zone"), id.to_owned()));
    cfg!(feature = "aws").then(|| Config::read(Program::Dev, "", variables.chain(more).chain(zone)).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All that a public machine must be told.
    const SERVED: &str = "data = \"/x\"\norigin = \"http://127.0.0.1:3000\"\n[zone]\nname = \"edge.saas.net\"\naddresses = \"192.0.2.1\"\n[dns]\nserver = \"9.9.9.9\"\n";

    #[test]
    fn every_problem_is_reported_at_once_with_where_it_came_from() {
        let file = "data = \"here\"\nspeed = 3\n[listen]\napi = \"nowhere\"\n[looks]\nfloor = \"soon\"\n";
        let environment = [("NAMEPLATE_TIMER_GRACE".to_owned(), "-3s".to_owned()), ("HOME".to_owned(), "x".to_owned())];
        let ConfigProblems(problems) = Config::read(Program::Dev, file, environment).unwrap_err();
        for part in ["listen.api", "looks.floor", "timer.grace = \"-3s\" (NAMEPLATE_TIMER_GRACE)", "speed (the file): there is no such key"]
        {
            assert!(problems.iter().any(|problem| problem.contains(part)), "{part} is missing in {problems:?}");
        }
        assert_eq!(problems.len(), 4, "{problems:?}");
    }

    #[test]
    fn the_printed_documentation_reads_back_as_the_defaults() {
        let documented = Config::read(Program::Dev, &Config::documentation(Program::Dev), []).unwrap();
        let defaults = Config::read(Program::Dev, "", []).unwrap();
        assert_eq!(format!("{documented:?}"), format!("{defaults:?}"));
    }

    #[cfg(feature = "aws")]
    #[test]
    fn a_home_on_aws_needs_all_its_places_and_calls_them_as_the_lambdas_do() {
        let ConfigProblems(problems) = Config::read(Program::Dev, "home = \"aws\"\n[aws]\nbucket = \"sites\"\n", []).unwrap_err();
        assert!(problems.len() == 5 && problems.iter().all(|problem| problem.ends_with("home = \"aws\" needs it")), "{problems:?}");
        let variables = AWS_PLACES.map(|(key, _)| (variable(key), "x".to_owned()));
        let environment = variables.into_iter().chain([("NAMEPLATE_HOME".to_owned(), "aws".to_owned())]);
        let HomePlace::Aws(places) = Config::read(Program::Dev, "", environment).unwrap().home else { panic!("it names AWS") };
        assert!(storage::aws::Places::read(|variable, _| places.names.get(variable).cloned()).is_some(), "{places:?}");
    }

    #[cfg(not(feature = "aws"))]
    #[test]
    fn a_build_without_aws_says_so() {
        let ConfigProblems(problems) = Config::read(Program::Dev, "home = \"aws\"\n", []).unwrap_err();
        assert!(problems.len() == 1 && problems[0].contains("--features nameplate/aws"), "{problems:?}");
    }

    #[test]
    fn what_the_edge_is_told_is_settable_and_each_wrong_word_is_reported() {
        let usual = Config::read(Program::Serve, SERVED, []).unwrap().edge;
        assert_eq!((usual.tickets, usual.access_log, usual.logged_address), (TicketKeys::Process, None, LoggedAddress::Truncated));
        let on_loopback = edge::Config::on_loopback("127.0.0.1:1", "cache");
        assert_eq!(usual.metrics_tenants, on_loopback.metrics_tenants, "the edge's own program has the same");

        let told = "[edge]\ntickets = \"shared\"\naccess_log = \"log/access\"\naccess_log_addresses = \"none\"\nmetrics_tenants = 7\n";
        let told = Config::read(Program::Serve, &format!("{SERVED}{told}"), []).unwrap().edge;
        assert_eq!((told.tickets, told.logged_address, told.metrics_tenants), (TicketKeys::Shared, LoggedAddress::None, 7));
        assert_eq!(told.access_log, Some(AccessLogPlace::File(PathBuf::from("log/access"))));

        let wrong = "[edge]\ntickets = \"all\"\naccess_log = \"\"\naccess_log_addresses = \"half\"\nmetrics_tenants = 201\n";
        let ConfigProblems(problems) = Config::read(Program::Dev, wrong, []).unwrap_err();
        for key in ["edge.tickets", "edge.access_log =", "edge.access_log_addresses", "edge.metrics_tenants"] {
            assert!(problems.iter().any(|problem| problem.starts_with(key)), "{key} is not told in {problems:?}");
        }
        assert_eq!(problems.len(), 4, "{problems:?}");
    }

    #[test]
    fn a_variable_wins_over_the_file() {
        let config =
            Config::read(Program::Dev, "[listen]\napi = \"127.0.0.1:1\"\n", [("NAMEPLATE_LISTEN_API".into(), "127.0.0.1:2".into())])
                .unwrap();
        assert_eq!(config.listen.api.port(), 2);
    }

    #[test]
    fn a_public_machine_names_what_only_its_operator_knows_and_gets_nothing_of_a_demo() {
        let ConfigProblems(problems) =
            Config::read(Program::Serve, "[acme]\nlifetime = \"1h\"\n[dns]\nserver = \"1.1.1.1\"\n", []).unwrap_err();
        for part in
            ["data is missing", "zone.name is missing", "zone.addresses is missing", "origin is missing", "acme.lifetime (the file)"]
        {
            assert!(problems.iter().any(|problem| problem.contains(part)), "{part} is not told in {problems:?}");
        }
        assert_eq!(problems.len(), 5, "{problems:?}");
    }

    #[test]
    fn a_public_machine_orders_from_staging_until_told_otherwise_and_asks_no_address_that_is_not_global() {
        let file = SERVED;
        let config = Config::read(Program::Serve, file, []).unwrap();
        assert_eq!(config.acme.directory.as_deref(), Some(STAGING_URL));
        assert_eq!((config.listen.https.port(), config.listen.http.port(), config.listen.answers.port()), (443, 80, 53));
        assert_eq!((config.allow_non_global, config.authority_port, config.dns_server), (false, 53, "9.9.9.9:53".parse().ok()));
        let real = Config::read(Program::Serve, &format!("{file}[acme]\ndirectory = \"letsencrypt\"\n"), []).unwrap();
        assert_eq!(real.acme.directory.as_deref(), Some(LETS_ENCRYPT.1));
        assert!(real.policy.allowed_special_use.is_empty());
    }

    #[test]
    fn only_a_resolver_that_the_system_does_not_name_yet_is_a_matter_of_time() {
        let unnamed = format!("dns.server = \"system\" (the default): {RESOLV_CONF} names no resolver{NOT_YET}");
        let wrong = Config::read(Program::Dev, "[dns]\nserver = \"nobody\"\n", []).unwrap_err();
        assert!(!wrong.may_pass(), "{wrong}");
        assert!(ConfigProblems(vec![unnamed.clone()]).may_pass());
        assert!(!ConfigProblems([vec![unnamed], wrong.0].concat()).may_pass());
    }

    #[test]
    fn the_systems_resolver_is_the_first_that_its_file_names() {
        let file = "# made by hand\nsearch lan\nnameserver 192.0.2.53\nnameserver 2001:db8::53\n";
        assert_eq!(first_name_server(file), "192.0.2.53:53".parse().ok());
        assert_eq!(first_name_server("search lan\n"), None);
        assert!(system_resolver("/nowhere/resolv.conf").is_err_and(|why| why.ends_with(NOT_YET)));
    }
}
