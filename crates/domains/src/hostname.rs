//! What a hostname is here, and which hostnames nobody may claim.
//!
//! Arrives: whatever a stranger typed. Leaves: a [`Hostname`], always lower-case A-labels without a trailing dot, so that no later
//! reader wonders. Goes wrong: a [`HostnameError`] that names the rule and says what to send instead.

use std::{fmt, net::IpAddr, sync::Arc};

use serde::{Deserialize, Serialize};

/// The longest hostname we accept, in bytes: with `_acme-challenge.` before it the name must still fit DNS's 253.
///
/// Source: RFC 1035, section 2.3.4; RFC 8555, section 8.4.
pub const MAX_HOSTNAME_BYTES: usize = 253 - "_acme-challenge.".len();

/// Special-use names of RFC 6761, 6762, 7686, 8375, 9476 and ICANN's reservation of `internal` (2024-07): no public CA may sign them.
const SPECIAL_USE: &[&str] =
    &["alt", "arpa", "example", "example.com", "example.net", "example.org", "internal", "invalid", "local", "localhost", "onion", "test"];

/// The labels below an operator's zone under which claims' targets (`t`) and answers (`acme`) lie.
const RESERVED_LABELS: &[&str] = &["t", "acme"];

/// An exact name served, or a wildcard one label deep: lower-case A-labels, no trailing dot, never empty. Copies share their text.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hostname(Arc<str>);

/// Which hostnames this installation refuses beyond what no installation may serve.
#[derive(Clone, Debug, Default)]
pub struct HostnamePolicy {
    /// The operator's own zones: names in them, and their parents, are nobody's to claim.
    pub operator_zones: Vec<Hostname>,
    /// Whether tenants may claim `*.` names. They need dns-01, so this is off unless such a challenge can be answered.
    pub tenant_wildcards: bool,
    /// Special-use top-level names that are allowed all the same, such as `test` on a machine of one's own.
    pub allowed_special_use: Vec<String>,
}

/// Why a hostname was refused. Each variant has its own stable code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HostnameError {
    /// Nothing was sent.
    #[error("the hostname is empty; send a name such as shop.customer-brand.com")]
    Empty,
    /// A URL, a port or a path came along.
    #[error("`{0}` is not a bare hostname; send only the name, without https://, port or path")]
    NotBare(String),
    /// Too long for DNS together with `_acme-challenge.` before it.
    #[error("the hostname has {0} bytes as A-labels; at most {MAX_HOSTNAME_BYTES} fit, so that `_acme-challenge.` can stand before it")]
    TooLong(usize),
    /// Not a name of the domain name system (IDNA 2008 with the strict rules of UTS 46).
    #[error(
        "`{0}` is not a valid domain name: labels have 1 to 63 letters, digits and inner hyphens, and international ones must follow IDNA"
    )]
    Invalid(String),
    /// An underscore label cannot be in a certificate.
    #[error("`{0}` contains an underscore, which no certificate may carry; use a hyphen")]
    Underscore(String),
    /// An address is not a name.
    #[error("`{0}` is an IP address; a hostname is needed")]
    IpAddress(String),
    /// One label alone is no public name.
    #[error("`{0}` is a single label; send the full name, such as {0}.customer-brand.com")]
    SingleLabel(String),
    /// Reserved by a standard; no public CA signs it.
    #[error("`{hostname}` lies under the special-use name `{special}`, for which no public certificate exists")]
    SpecialUse {
        /// What was asked for.
        hostname: String,
        /// The reserved name it falls under.
        special: String,
    },
    /// The name is itself a public suffix.
    #[error("`{0}` is a public suffix under which strangers register names; send a name below it")]
    PublicSuffix(String),
    /// The operator's own.
    #[error("`{hostname}` belongs to the operator's zone `{zone}`; only customers' own names can be claimed")]
    OperatorZone {
        /// What was asked for.
        hostname: String,
        /// The zone it belongs to.
        zone: String,
    },
    /// Wildcards are not open to tenants here.
    #[error("`{0}` is a wildcard, which this installation does not open to tenants; claim each name by itself")]
    WildcardNotAllowed(String),
    /// A `*` that is not the whole leftmost label.
    #[error("`{0}` has a `*` that is not the whole leftmost label; only names like *.customer-brand.com are wildcards")]
    WildcardPosition(String),
}

impl HostnameError {
    /// The stable code a client may branch on.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Empty => "hostname.empty",
            Self::NotBare(_) => "hostname.not_bare",
            Self::TooLong(_) => "hostname.too_long",
            Self::Invalid(_) => "hostname.invalid",
            Self::Underscore(_) => "hostname.underscore",
            Self::IpAddress(_) => "hostname.ip_address",
            Self::SingleLabel(_) => "hostname.single_label",
            Self::SpecialUse { .. } => "hostname.special_use",
            Self::PublicSuffix(_) => "hostname.public_suffix",
            Self::OperatorZone { .. } => "hostname.operator_zone",
            Self::WildcardNotAllowed(_) => "hostname.wildcard_not_allowed",
            Self::WildcardPosition(_) => "hostname.wildcard_position",
        }
    }
}

impl Hostname {
    /// Parses what a stranger typed and applies the installation's policy.
    ///
    /// # Errors
    /// One [`HostnameError`] a rule; the first that fails, in the order a person would mend them.
    ///
    /// Source: UTS 46 strict processing by `idna`; Public Suffix List by `psl`.
    pub fn parse(input: &str, policy: &HostnamePolicy) -> Result<Self, HostnameError> {
        let hostname = Self::parse_name(input)?;
        hostname.permitted_by(policy)?;
        Ok(hostname)
    }

    /// Parses a name that the operator registers: as any other, and beside those wildcards below the operator's own zones, such as
    /// `*.sandbox.<zone>`.
    ///
    /// # Errors
    /// As [`Self::parse`]; [`HostnameError::OperatorZone`] also for wildcards over the names under which claims' targets and answers lie.
    pub fn parse_for_operator(input: &str, policy: &HostnamePolicy) -> Result<Self, HostnameError> {
        let hostname = Self::parse_name(input)?;
        let base = hostname.base();
        let reserved = |zone: &Self| RESERVED_LABELS.iter().any(|label| is_at_or_below(base, &format!("{label}.{}", zone.base())));
        let own = |zone: &&Self| base != zone.base() && is_at_or_below(base, zone.base()) && !reserved(zone);
        if hostname.is_wildcard() && policy.operator_zones.iter().any(|zone| own(&zone)) {
            return Ok(hostname);
        }
        hostname.permitted_by(policy)?;
        Ok(hostname)
    }

    /// Parses a name of the operator's own configuration: same syntax, no policy.
    ///
    /// # Errors
    /// The syntactic variants of [`HostnameError`].
    pub fn parse_name(input: &str) -> Result<Self, HostnameError> {
        let shown = || excerpt(input);
        let trimmed = input.trim();
        let trimmed = trimmed.strip_suffix('.').unwrap_or(trimmed);
        if trimmed.is_empty() {
            return Err(HostnameError::Empty);
        }
        if trimmed.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() {
            return Err(HostnameError::IpAddress(shown()));
        }
        if trimmed.contains(['/', ':', '@', '?', '#']) {
            return Err(HostnameError::NotBare(shown()));
        }
        let (wildcard, base) = match trimmed.strip_prefix("*.") {
            Some(base) => ("*.", base),
            None => ("", trimmed),
        };
        if base.contains('*') {
            return Err(HostnameError::WildcardPosition(shown()));
        }
        if base.contains('_') {
            return Err(HostnameError::Underscore(shown()));
        }
        // Four times the limit: no input that long can become a name short enough, and mapping it would cost work for nothing.
        if base.len() > 4 * MAX_HOSTNAME_BYTES {
            return Err(HostnameError::TooLong(base.len()));
        }
        let ascii = idna::domain_to_ascii_strict(base).map_err(|_| match base.is_ascii() && base.len() > MAX_HOSTNAME_BYTES {
            true => HostnameError::TooLong(base.len()),
            false => HostnameError::Invalid(shown()),
        })?;
        let name = format!("{wildcard}{ascii}");
        if name.len() > MAX_HOSTNAME_BYTES {
            return Err(HostnameError::TooLong(name.len()));
        }
        if !is_ldh_name(&ascii) {
            return Err(HostnameError::Invalid(shown()));
        }
        if ends_in_a_number(&ascii) {
            return Err(HostnameError::IpAddress(shown()));
        }
        if !ascii.contains('.') {
            return Err(HostnameError::SingleLabel(ascii));
        }
        Ok(Self(name.into()))
    }

    fn permitted_by(&self, policy: &HostnamePolicy) -> Result<(), HostnameError> {
        let base = self.base();
        if let Some(special) = SPECIAL_USE.iter().find(|special| is_at_or_below(base, special))
            && !policy.allowed_special_use.iter().any(|allowed| is_at_or_below(base, allowed))
        {
            return Err(HostnameError::SpecialUse { hostname: self.to_string(), special: (*special).to_owned() });
        }
        if let Some(zone) = policy.operator_zones.iter().find(|zone| is_at_or_below(base, zone.base()) || is_at_or_below(zone.base(), base))
        {
            return Err(HostnameError::OperatorZone { hostname: self.to_string(), zone: zone.to_string() });
        }
        if self.registered_domain().is_none() {
            return Err(HostnameError::PublicSuffix(self.to_string()));
        }
        if self.is_wildcard() && !policy.tenant_wildcards {
            return Err(HostnameError::WildcardNotAllowed(self.to_string()));
        }
        Ok(())
    }

    /// The name as stored: lower-case A-labels.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is a `*.` name.
    pub fn is_wildcard(&self) -> bool {
        self.0.starts_with("*.")
    }

    /// The name without a leading `*.`: where DNS is asked.
    pub fn base(&self) -> &str {
        self.0.strip_prefix("*.").unwrap_or(&self.0)
    }

    /// The public-suffix + 1 name a CA counts its limits on, or `None` for a name that is itself a suffix.
    pub fn registered_domain(&self) -> Option<&str> {
        psl::domain_str(self.base())
    }

    /// Whether the name is its zone's registered domain, where DNS forbids a CNAME.
    pub fn is_apex(&self) -> bool {
        self.registered_domain() == Some(self.base())
    }

    /// The wildcard that would cover this name: `*.brand.com` for `shop.brand.com`; `None` for a wildcard itself.
    pub fn covering_wildcard(&self) -> Option<Self> {
        if self.is_wildcard() {
            return None;
        }
        let (_, parent) = self.0.split_once('.')?;
        parent.contains('.').then(|| Self(format!("*.{parent}").into()))
    }

    /// The name as people of its script write it (U-labels), for display only.
    pub fn to_unicode(&self) -> String {
        let (unicode, _) = idna::domain_to_unicode(self.base());
        if self.is_wildcard() { format!("*.{unicode}") } else { unicode }
    }
}

impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for Hostname {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl From<Hostname> for String {
    fn from(hostname: Hostname) -> Self {
        hostname.0.as_ref().into()
    }
}

/// Reads a name that was stored or sent by ourselves: the exact stored form, nothing is mapped.
impl TryFrom<String> for Hostname {
    type Error = HostnameError;

    fn try_from(stored: String) -> Result<Self, HostnameError> {
        let base = stored.strip_prefix("*.").unwrap_or(&stored);
        let stored_form = stored.len() <= MAX_HOSTNAME_BYTES && base.contains('.') && is_ldh_name(base) && !ends_in_a_number(base);
        if !stored_form {
            return Err(HostnameError::Invalid(excerpt(&stored)));
        }
        Ok(Self(stored.into()))
    }
}

/// Whether `name` equals `zone` or lies below it.
fn is_at_or_below(name: &str, zone: &str) -> bool {
    name.strip_suffix(zone).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

fn is_ldh_name(name: &str) -> bool {
    name.split('.').all(|label| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    })
}

/// Whether a browser would read the name as an IPv4 address (WHATWG URL, "ends in a number").
fn ends_in_a_number(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or_default();
    last.bytes().all(|b| b.is_ascii_digit()) || last.strip_prefix("0x").is_some_and(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// As much of a stranger's input as an error may repeat, without control characters.
fn excerpt(input: &str) -> String {
    input.chars().filter(|c| !c.is_control()).take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn policy() -> HostnamePolicy {
        HostnamePolicy { operator_zones: vec![Hostname::parse_name("edge.acme-saas.io").unwrap()], ..HostnamePolicy::default() }
    }

    #[test]
    fn each_kind_of_bad_name_is_refused_with_its_own_code() {
        let long = format!("{}.com", vec!["a".repeat(60); 4].join("."));
        for (input, code) in [
            ("", "hostname.empty"),
            ("  . ", "hostname.empty"),
            ("https://shop.brand.com/", "hostname.not_bare"),
            ("shop.brand.com:443", "hostname.not_bare"),
            ("user@brand.com", "hostname.not_bare"),
            (long.as_str(), "hostname.too_long"),
            ("a..brand.com", "hostname.invalid"),
            ("-a.brand.com", "hostname.invalid"),
            ("sh op.brand.com", "hostname.invalid"),
            ("xn--a.brand.com", "hostname.invalid"),
            ("shop.brand.com..", "hostname.invalid"),
            ("store_1.brand.com", "hostname.underscore"),
            ("192.0.2.7", "hostname.ip_address"),
            ("[2001:db8::1]", "hostname.ip_address"),
            ("2001:db8::1", "hostname.ip_address"),
            ("0x7f.0.0.0x1", "hostname.ip_address"),
            ("10.1.300", "hostname.ip_address"),
            ("intranet", "hostname.single_label"),
            ("shop.test", "hostname.special_use"),
            ("printer.local", "hostname.special_use"),
            ("www.example.com", "hostname.special_use"),
            ("db.internal", "hostname.special_use"),
            ("co.uk", "hostname.public_suffix"),
            ("github.io", "hostname.public_suffix"),
            ("*.co.uk", "hostname.public_suffix"),
            ("edge.acme-saas.io", "hostname.operator_zone"),
            ("x.t.edge.acme-saas.io", "hostname.operator_zone"),
            ("acme-saas.io", "hostname.operator_zone"),
            ("*.brand.com", "hostname.wildcard_not_allowed"),
            ("a.*.brand.com", "hostname.wildcard_position"),
            ("*shop.brand.com", "hostname.wildcard_position"),
        ] {
            let refused = Hostname::parse(input, &policy()).expect_err(input);
            assert_eq!(refused.code(), code, "{input}: {refused}");
        }
    }

    #[test]
    fn a_good_name_is_stored_as_lower_case_a_labels() {
        for (input, stored) in [
            ("Shop.Brand.COM.", "shop.brand.com"),
            (" shop.brand.com ", "shop.brand.com"),
            ("bücher.example.de", "xn--bcher-kva.example.de"),
            ("straße.de", "xn--strae-oqa.de"),
            ("例え。jp", "xn--r8jz45g.jp"),
            ("my.github.io", "my.github.io"),
        ] {
            assert_eq!(Hostname::parse(input, &policy()).unwrap().as_str(), stored);
        }
    }

    #[test]
    fn a_wildcard_is_accepted_only_where_the_operator_opened_them() {
        let open = HostnamePolicy { tenant_wildcards: true, ..policy() };
        let wildcard = Hostname::parse("*.Brand.com", &open).unwrap();
        assert!(wildcard.is_wildcard());
        assert_eq!(wildcard.base(), "brand.com");
        assert_eq!(Hostname::parse("shop.brand.com", &open).unwrap().covering_wildcard(), Some(wildcard));
    }

    #[test]
    fn the_operator_has_wildcards_below_the_own_zone_and_nobody_has_those_over_targets_and_answers() {
        let parsed = |input| Hostname::parse_for_operator(input, &policy()).map(|name| name.to_string());
        assert_eq!(parsed("*.Sandbox.edge.acme-saas.io").unwrap(), "*.sandbox.edge.acme-saas.io");
        assert_eq!(parsed("shop.brand.com").unwrap(), "shop.brand.com");
        for (input, code) in [
            ("*.t.edge.acme-saas.io", "hostname.operator_zone"),
            ("*.acme.edge.acme-saas.io", "hostname.operator_zone"),
            ("*.x.t.edge.acme-saas.io", "hostname.operator_zone"),
            ("*.edge.acme-saas.io", "hostname.operator_zone"),
            ("sandbox.edge.acme-saas.io", "hostname.operator_zone"),
            ("*.acme-saas.io", "hostname.operator_zone"),
            ("*.brand.com", "hostname.wildcard_not_allowed"),
        ] {
            assert_eq!(Hostname::parse_for_operator(input, &policy()).expect_err(input).code(), code, "{input}");
        }
        assert!(Hostname::parse("*.sandbox.edge.acme-saas.io", &policy()).is_err(), "a tenant has none of it");
    }

    #[test]
    fn a_special_use_name_is_allowed_only_where_the_operator_said_so() {
        let lab = HostnamePolicy { allowed_special_use: vec!["test".into()], ..policy() };
        assert!(Hostname::parse("shop.brand.test", &lab).is_ok());
        assert_eq!(Hostname::parse("shop.local", &lab).unwrap_err().code(), "hostname.special_use");
    }

    #[test]
    fn the_apex_is_known_by_the_public_suffix_list() {
        for (name, apex) in [("brand.co.uk", true), ("shop.brand.co.uk", false), ("my.github.io", true)] {
            assert_eq!(Hostname::parse_name(name).unwrap().is_apex(), apex, "{name}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_what_it_accepts_reads_back_as_itself(input in "\\PC{0,80}|[a-zA-Z0-9.*_-]{0,300}") {
            if let Ok(hostname) = Hostname::parse(&input, &policy()) {
                prop_assert_eq!(&Hostname::parse(hostname.as_str(), &policy()).unwrap(), &hostname);
                prop_assert_eq!(&Hostname::try_from(hostname.to_string()).unwrap(), &hostname);
                prop_assert!(hostname.as_str().len() <= MAX_HOSTNAME_BYTES);
            }
        }
    }
}
