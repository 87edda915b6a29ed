//! The settings that functions share, read from their environment.
//!
//! Arrives: `NAMEPLATE_…` variables, named as the command's, and the files that some of them name; secrets arrive by reference only. Leaves: what
//! one function needs, whole. Goes wrong: [`SettingsProblems`] with everything that is missing or does not read, before anything is opened.

use std::{fmt, fs, net::IpAddr, net::SocketAddr, num::NonZeroU16};

use domains::{CaChoice, CaaIssuer, Hostname, HostnamePolicy, ZoneSettings};

/// The label before a hostname where its TXT proof stands, unless the environment says otherwise.
const TXT_PREFIX: &str = "_nameplate";
/// As whom CAA records allow Let's Encrypt, unless the environment says otherwise. Source: letsencrypt.org/docs/caa (read 2026-11).
const CAA_IDENTITY: &str = "letsencrypt.org";

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

/// Everything that is wrong with an environment.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
pub struct SettingsProblems(pub Vec<String>);

impl fmt::Display for SettingsProblems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the environment has {} problem(s):", self.0.len())?;
        self.0.iter().try_for_each(|problem| write!(f, "\n  - {problem}"))
    }
}

/// As its `Display`: what `main` returns is printed this way.
impl fmt::Debug for SettingsProblems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Reads what one function needs.
///
/// `wanted` must ask for every setting before it gives up on one, so that all problems show at once.
///
/// # Errors
/// [`SettingsProblems`] with every problem met.
pub fn read<T>(env: &dyn Env, wanted: impl FnOnce(&mut Reader<'_>) -> Option<T>) -> Result<T, SettingsProblems> {
    let mut reader = Reader { env, problems: Vec::new() };
    let found = wanted(&mut reader);
    match found {
        Some(settings) if reader.problems.is_empty() => Ok(settings),
        _ => Err(SettingsProblems(reader.problems)),
    }
}

/// Whom looks ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DnsSettings {
    /// The public resolver.
    pub resolver: SocketAddr,
    /// The port of the zones' own servers; `None` is DNS's own.
    pub authority_port: Option<NonZeroU16>,
    /// Whether name servers may have addresses that are not on the public internet. With it, anyone who can register a hostname can make this
    /// function ask inside the network it runs in.
    pub allow_non_global: bool,
}

/// The CA to turn to while the first is down or limited for too long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecondCa {
    /// Its directory's URL.
    pub directory: String,
    /// The text of the file with its root certificates, for a CA that no public root signs.
    pub root: Option<String>,
    /// Which secret holds the account there.
    pub account_secret: String,
}

/// Reads variables and gathers what is wrong with them.
pub struct Reader<'e> {
    env: &'e dyn Env,
    problems: Vec<String>,
}

impl Reader<'_> {
    /// A variable that must be set, as it is.
    pub fn text(&mut self, name: &str, what: &str) -> Option<String> {
        self.required(name, what, |text| Ok(text.to_owned()))
    }

    /// `NAMEPLATE_ZONE_NAME`, `NAMEPLATE_ZONE_TXT_PREFIX` and `NAMEPLATE_ZONE_ADDRESSES`: where targets, proofs and the edge are;
    /// `NAMEPLATE_ACME_CAA_IDENTITIES` and `NAMEPLATE_ACME_ACCOUNT_URL`: as whom CAA records may allow us. Where
    /// `NAMEPLATE_ACME_SECOND_DIRECTORY` names a second CA, the same two of it, with `SECOND_` in their names.
    pub fn zone(&mut self) -> Option<ZoneSettings> {
        let zone = self.required("NAMEPLATE_ZONE_NAME", "the operator's edge zone", |text| {
            Hostname::parse_name(text).map_err(|error| error.to_string())
        });
        let txt_prefix = self.optional("NAMEPLATE_ZONE_TXT_PREFIX", label);
        let edge_addresses = self.list("NAMEPLATE_ZONE_ADDRESSES", "the edge's addresses, separated by commas", |text| {
            text.parse::<IpAddr>().map_err(|_| format!("`{text}` is not an IP address"))
        });
        let first = self.issuer(CaChoice::First, "", &[CAA_IDENTITY]);
        let second_directory = self.second_directory();
        // Without a name it is asked only where no CAA record names a CA.
        let second = self.issuer(CaChoice::Second, "SECOND_", &[]);
        let second = second_directory?.map(|_| second);
        Some(ZoneSettings {
            issuers: std::iter::once(first?).chain(second.flatten()).collect(),
            zone: zone?,
            txt_prefix: txt_prefix?.unwrap_or_else(|| TXT_PREFIX.to_owned()),
            edge_addresses: edge_addresses?,
        })
    }

    /// A CA as CAA records would name it, and our account there.
    fn issuer(&mut self, ca: CaChoice, which: &str, usual: &[&str]) -> Option<CaaIssuer> {
        let identities = self.optional(&format!("NAMEPLATE_ACME_{which}CAA_IDENTITIES"), |text| {
            Ok(text.split(',').map(|part| part.trim().to_ascii_lowercase()).filter(|part| !part.is_empty()).collect::<Vec<_>>())
        });
        let account_uri = self.optional(&format!("NAMEPLATE_ACME_{which}ACCOUNT_URL"), |text| Ok(text.to_owned()));
        Some(CaaIssuer {
            ca,
            identities: identities?.unwrap_or_else(|| usual.iter().map(|&name| name.to_owned()).collect()),
            account_uri: account_uri?,
            methods: vec!["http-01".to_owned(), "dns-01".to_owned()],
        })
    }

    /// `NAMEPLATE_ACME_SECOND_DIRECTORY`: the directory of a second CA, for when the first is down or limited for too long; without it there is none.
    pub fn second_directory(&mut self) -> Option<Option<String>> {
        self.optional("NAMEPLATE_ACME_SECOND_DIRECTORY", https_url)
    }

    /// The second CA, if there is one: `NAMEPLATE_ACME_SECOND_DIRECTORY`, and then `NAMEPLATE_ACME_SECOND_ACCOUNT_SECRET` must be set, and
    /// `NAMEPLATE_ACME_SECOND_ROOT` may be.
    pub fn second_ca(&mut self) -> Option<Option<SecondCa>> {
        let Some(directory) = self.second_directory()? else { return Some(None) };
        let account = self.text("NAMEPLATE_ACME_SECOND_ACCOUNT_SECRET", "the secret with the account at the second CA");
        let root = self.optional("NAMEPLATE_ACME_SECOND_ROOT", contents);
        Some(Some(SecondCa { directory, root: root?, account_secret: account? }))
    }

    /// Which hostnames may be claimed, beside the operator's zone. `NAMEPLATE_HOSTNAMES_TENANT_WILDCARDS`: whether tenants may claim wildcards.
    /// `NAMEPLATE_HOSTNAMES_ALLOW_SPECIAL_USE`: special-use domains, separated by commas, under which names may be claimed all the same. They
    /// get no public certificate, but one's own CA may give them one.
    pub fn hostnames(&mut self) -> Option<HostnamePolicy> {
        let tenant_wildcards = self.optional("NAMEPLATE_HOSTNAMES_TENANT_WILDCARDS", on_off);
        let special_use =
            self.optional("NAMEPLATE_HOSTNAMES_ALLOW_SPECIAL_USE", |text| Ok(text.split(',').map(str::trim).map(str::to_owned).collect()));
        Some(HostnamePolicy {
            operator_zones: Vec::new(),
            tenant_wildcards: tenant_wildcards?.unwrap_or_default(),
            allowed_special_use: special_use?.unwrap_or_default(),
        })
    }

    /// `NAMEPLATE_DNS_SERVER`: the resolver that looks ask beside the zones' own servers. `NAMEPLATE_DNS_AUTHORITY_PORT` and
    /// `NAMEPLATE_DNS_ALLOW_NON_GLOBAL` are for tests: see [`DnsSettings`].
    pub fn dns(&mut self) -> Option<DnsSettings> {
        let resolver = self.required("NAMEPLATE_DNS_SERVER", "the public resolver to ask", |text| {
            text.parse().map_err(|_| format!("`{text}` is not an address with a port, such as 192.0.2.53:53"))
        });
        let authority_port =
            self.optional("NAMEPLATE_DNS_AUTHORITY_PORT", |text| text.parse().map_err(|_| format!("`{text}` is not a port")));
        let allow_non_global = self.optional("NAMEPLATE_DNS_ALLOW_NON_GLOBAL", on_off);
        Some(DnsSettings { resolver: resolver?, authority_port: authority_port?, allow_non_global: allow_non_global?.unwrap_or_default() })
    }

    /// `NAMEPLATE_ACME_ACCOUNT_URL`, and with a second CA `NAMEPLATE_ACME_SECOND_ACCOUNT_URL`, for who looks at CAA records without the accounts'
    /// secrets: without them, records that allow another account alone would look as if they allowed ours, and the CA would refuse each order.
    pub fn acme_account_urls(&mut self) -> Option<()> {
        let second = self.second_directory();
        let first = self.text("NAMEPLATE_ACME_ACCOUNT_URL", "the account at the CA, as CAA records may name it");
        if second?.is_some() {
            self.text("NAMEPLATE_ACME_SECOND_ACCOUNT_URL", "the account at the second CA, as CAA records may name it")?;
        }
        first.map(drop)
    }

    /// `NAMEPLATE_ACME_DIRECTORY`: the CA's directory.
    pub fn acme_directory(&mut self) -> Option<String> {
        self.required("NAMEPLATE_ACME_DIRECTORY", "the URL of the CA's directory", https_url)
    }

    /// `NAMEPLATE_ACME_ROOT`: a file with the CA's root certificates, for a CA that no public root signs; its text.
    pub fn acme_root(&mut self) -> Option<Option<String>> {
        self.optional("NAMEPLATE_ACME_ROOT", contents)
    }

    /// `NAMEPLATE_ACME_ACCOUNT_SECRET`: which secret holds the account at the CA.
    pub fn acme_account_secret(&mut self) -> Option<String> {
        self.text("NAMEPLATE_ACME_ACCOUNT_SECRET", "the secret with the account at the CA")
    }

    /// `NAMEPLATE_SEAL_PUBLIC_KEY_SECRET`: which secret holds the key that private keys are sealed to.
    pub fn seal_public_key_secret(&mut self) -> Option<String> {
        self.text("NAMEPLATE_SEAL_PUBLIC_KEY_SECRET", "the secret with the edge's public seal key")
    }

    /// `NAMEPLATE_EDGE_TICKETS`: whether edges share the keys of session tickets (`shared`) or each process has its own (`process`, as
    /// without it).
    pub fn shared_tickets(&mut self) -> Option<bool> {
        let shared = self.optional("NAMEPLATE_EDGE_TICKETS", |text| match text {
            "shared" => Ok(true),
            "process" => Ok(false),
            _ => Err(format!("`{text}` is neither shared nor process")),
        });
        shared.map(Option::unwrap_or_default)
    }

    /// A variable that must be set; `what` says what it names.
    pub fn required<T>(&mut self, name: &str, what: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let Some(value) = self.value(name) else {
            self.problems.push(format!("{name} is not set; it names {what}"));
            return None;
        };
        self.parsed(name, parse(&value))
    }

    /// A variable that may be left out: `Some(None)`. `None` when it does not read.
    pub fn optional<T>(&mut self, name: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<Option<T>> {
        match self.value(name) {
            Some(value) => self.parsed(name, parse(&value)).map(Some),
            None => Some(None),
        }
    }

    /// A variable with one value or several, separated by commas.
    pub fn list<T>(&mut self, name: &str, what: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<Vec<T>> {
        self.required(name, what, |text| text.split(',').map(|part| parse(part.trim())).collect())
    }

    fn value(&self, name: &str) -> Option<String> {
        self.env.var(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    fn parsed<T>(&mut self, name: &str, result: Result<T, String>) -> Option<T> {
        result.map_err(|problem| self.problems.push(format!("{name}: {problem}"))).ok()
    }
}

fn https_url(text: &str) -> Result<String, String> {
    if text.starts_with("https://") { Ok(text.to_owned()) } else { Err(format!("`{text}` does not begin with https://")) }
}

fn contents(path: &str) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("{path} cannot be read: {error}"))
}

fn on_off(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!("`{text}` is neither `on` nor `off`")),
    }
}

fn label(text: &str) -> Result<String, String> {
    let fine = text.len() <= 63 && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'));
    if fine { Ok(text.to_owned()) } else { Err(format!("`{text}` is not a DNS label of lower-case letters, digits, `-` and `_`")) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    struct Given(BTreeMap<&'static str, String>);

    impl Env for Given {
        fn var(&self, name: &str) -> Option<String> {
            self.0.get(name).cloned()
        }
    }

    fn given<const N: usize>(values: [(&'static str, &str); N]) -> Given {
        Given(values.into_iter().map(|(name, value)| (name, value.to_owned())).collect())
    }

    #[test]
    fn every_problem_is_told_at_once() {
        let env = given([
            ("NAMEPLATE_AWS_TABLE", "  "),
            ("NAMEPLATE_ZONE_NAME", "edge"),
            ("NAMEPLATE_ZONE_TXT_PREFIX", "Not A Label"),
            ("NAMEPLATE_ZONE_ADDRESSES", "192.0.2.1, here"),
            ("NAMEPLATE_DNS_SERVER", "192.0.2.53"),
            ("NAMEPLATE_DNS_AUTHORITY_PORT", "0"),
            ("NAMEPLATE_DNS_ALLOW_NON_GLOBAL", "yes"),
            ("NAMEPLATE_HOSTNAMES_TENANT_WILDCARDS", "true"),
            ("NAMEPLATE_ACME_DIRECTORY", "http://ca.saas.net/directory"),
            ("NAMEPLATE_ACME_ROOT", "no/such/root.pem"),
        ]);
        let wanted = |read: &mut Reader<'_>| {
            let (table, zone, resolver) = (read.text("NAMEPLATE_AWS_TABLE", "the table"), read.zone(), read.dns());
            let (hostnames, account_url) = (read.hostnames(), read.acme_account_urls());
            let (directory, root) = (read.acme_directory(), read.acme_root());
            let (account, seal_key) = (read.acme_account_secret(), read.seal_public_key_secret());
            Some((table?, zone?, resolver?, hostnames?, account_url?, directory?, root?, account?, seal_key?))
        };
        let problems = read(&env, wanted).unwrap_err();
        let told = problems.to_string();
        for name in [
            "AWS_TABLE is not set",
            "ZONE_NAME:",
            "ZONE_TXT_PREFIX:",
            "ZONE_ADDRESSES: `here`",
            "DNS_SERVER:",
            "DNS_AUTHORITY_PORT:",
            "DNS_ALLOW_NON_GLOBAL:",
            "HOSTNAMES_TENANT_WILDCARDS:",
            "ACME_DIRECTORY:",
        ] {
            assert!(told.contains(&format!("NAMEPLATE_{name}")), "{name} is missing in {told}");
        }
        for name in [
            "ACME_ROOT: no/such/root.pem",
            "ACME_ACCOUNT_SECRET is not set",
            "ACME_ACCOUNT_URL is not set",
            "SEAL_PUBLIC_KEY_SECRET is not set",
        ] {
            assert!(told.contains(&format!("NAMEPLATE_{name}")), "{name} is missing in {told}");
        }
        assert_eq!(problems.0.len(), 13, "{told}");
    }

    #[test]
    fn a_resolver_on_loopback_alone_lets_no_look_into_the_network_around_it() {
        let server = "127.0.0.1:53".parse().unwrap();
        let dns = read(&given([("NAMEPLATE_DNS_SERVER", "127.0.0.1:53")]), |read| read.dns()).unwrap();
        assert_eq!(dns, DnsSettings { resolver: server, authority_port: None, allow_non_global: false });
    }

    #[test]
    fn edges_share_no_keys_of_tickets_unless_told_to() {
        let of = |value: &str| read(&given([("NAMEPLATE_EDGE_TICKETS", value)]), |read| read.shared_tickets());
        assert_eq!(["", "process", "shared"].map(|value| of(value).unwrap()), [false, false, true]);
        assert!(of("all").unwrap_err().to_string().contains("NAMEPLATE_EDGE_TICKETS: `all`"));
    }

    #[test]
    fn a_zone_needs_a_name_and_addresses_and_has_a_usual_prefix() {
        let env = given([("NAMEPLATE_ZONE_NAME", "Edge.SaaS.net."), ("NAMEPLATE_ZONE_ADDRESSES", "192.0.2.1,2001:db8::1")]);
        let zone = read(&env, |read| read.zone()).unwrap();
        assert_eq!(zone.targets_zone(), "t.edge.saas.net");
        assert_eq!(zone.txt_prefix, "_nameplate");
        assert_eq!(zone.edge_addresses, ["192.0.2.1".parse::<IpAddr>().unwrap(), "2001:db8::1".parse().unwrap()]);
    }

    #[test]
    fn a_second_ca_is_whole_or_told_to_be_incomplete_and_named_as_caa_records_name_it() {
        let zone = [("NAMEPLATE_ZONE_NAME", "edge.saas.net"), ("NAMEPLATE_ZONE_ADDRESSES", "192.0.2.1")];
        let directory = ("NAMEPLATE_ACME_SECOND_DIRECTORY", "https://second.net/directory");
        let env = given([zone[0], zone[1], ("NAMEPLATE_ACME_SECOND_CAA_IDENTITIES", "second.net")]);
        assert_eq!(read(&env, |read| read.second_ca()).unwrap(), None);
        assert_eq!(read(&env, |read| read.zone()).unwrap().issuers.len(), 1, "nobody is asked there");
        let env = given([zone[0], zone[1], directory, ("NAMEPLATE_ACME_SECOND_CAA_IDENTITIES", "second.net, Other.net")]);
        let issuers = read(&env, |read| read.zone()).unwrap().issuers;
        assert_eq!(
            (issuers[1].ca, issuers[1].identities.as_slice()),
            (CaChoice::Second, &["second.net".to_owned(), "other.net".to_owned()][..])
        );
        assert_eq!(issuers[0].identities, [CAA_IDENTITY]);
        let problems = read(&env, |read| read.second_ca()).unwrap_err();
        assert!(problems.to_string().contains("NAMEPLATE_ACME_SECOND_ACCOUNT_SECRET is not set"), "{problems}");
        let env = given([("NAMEPLATE_ACME_SECOND_DIRECTORY", "http://second.net/")]);
        assert!(read(&env, |read| read.second_ca()).is_err());
        let env = given([directory, ("NAMEPLATE_ACME_SECOND_ACCOUNT_SECRET", "nameplate/second")]);
        let second = read(&env, |read| read.second_ca()).unwrap().unwrap();
        assert_eq!((second.directory.as_str(), second.account_secret.as_str()), (directory.1, "nameplate/second"));
    }
}
