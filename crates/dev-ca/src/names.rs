//! Names a client may order.
//!
//! Arrives: the identifiers of a newOrder request. Leaves: lower-case hostnames, sorted, each once. Goes wrong: a problem that says about
//! each refused name why.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::Deserialize;

use crate::problem::{Kind, Problem};

/// As many names as one certificate may have. Source: Let's Encrypt's profiles `tlsserver` and `shortlived` (read 2026-11).
const MOST_NAMES: usize = 25;
/// The longest hostname, in characters. Source: RFC 1035, section 2.3.4, without the root's dot and length byte.
const LONGEST_NAME: usize = 253;
/// The longest label, in characters. Source: as above.
const LONGEST_LABEL: usize = 63;

/// One identifier as the client wrote it.
#[derive(Debug, Deserialize)]
pub(crate) struct Identifier {
    #[serde(rename = "type")]
    kind: String,
    value: String,
}

/// Checks the identifiers of an order and brings them into one form, so that equal orders compare equal.
pub(crate) fn parse_names(identifiers: &[Identifier]) -> Result<Vec<String>, Problem> {
    if identifiers.is_empty() {
        return Err(Problem::malformed("the order names no identifier"));
    }
    if let Some(other) = identifiers.iter().find(|identifier| identifier.kind != "dns") {
        let detail = format!("identifiers of type {:?} are not supported, only \"dns\"", other.kind);
        return Err(Problem::new(Kind::UnsupportedIdentifier, detail));
    }
    let names: BTreeSet<String> = identifiers.iter().map(|identifier| identifier.value.to_ascii_lowercase()).collect();
    if names.len() > MOST_NAMES {
        return Err(Problem::malformed(format!("{} names are too many for one order; {MOST_NAMES} at most", names.len())));
    }
    let refused: Vec<(String, String)> = names.iter().filter_map(|name| Some((name.clone(), refusal(name)?.to_owned()))).collect();
    match refused.as_slice() {
        [] => Ok(names.into_iter().collect()),
        [(name, reason)] => Err(Problem::new(Kind::RejectedIdentifier, format!("cannot issue for {name:?}: {reason}"))),
        several => {
            let detail = format!("cannot issue for {} of the names; see the subproblems", several.len());
            Err(Problem::new(Kind::RejectedIdentifier, detail).about_names(Kind::RejectedIdentifier, refused))
        }
    }
}

/// Splits `*.example.com` into (`example.com`, true) and any other name into (itself, false).
pub(crate) fn without_wildcard(name: &str) -> (&str, bool) {
    name.strip_prefix("*.").map_or((name, false), |base| (base, true))
}

fn refusal(name: &str) -> Option<&'static str> {
    let (base, wildcard) = without_wildcard(name);
    if base.is_empty() || name.len() > LONGEST_NAME {
        return Some("it is empty or longer than a hostname may be");
    }
    if base.contains('*') {
        return Some("a wildcard is only allowed as the whole first label");
    }
    if base.parse::<IpAddr>().is_ok() {
        return Some("it is an IP address, not a hostname");
    }
    let labels: Vec<&str> = base.split('.').collect();
    if labels.len() < 2 {
        return Some(if wildcard { "a wildcard needs at least two labels below it" } else { "it needs at least one dot" });
    }
    labels.into_iter().find_map(label_refusal)
}

fn label_refusal(label: &str) -> Option<&'static str> {
    if label.is_empty() || label.len() > LONGEST_LABEL {
        return Some("it has an empty label, a trailing dot, or a label that is too long");
    }
    if label.starts_with('-') || label.ends_with('-') {
        return Some("a label starts or ends with a hyphen");
    }
    if !label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        return Some("a label has characters other than letters, digits and hyphens (write international names as xn--…)");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(names: &[&str]) -> Result<Vec<String>, Problem> {
        let identifiers: Vec<_> = names.iter().map(|name| Identifier { kind: "dns".into(), value: (*name).into() }).collect();
        parse_names(&identifiers)
    }

    #[test]
    fn equal_orders_compare_equal_whatever_their_case_and_order() {
        let names = order(&["B.example.com", "a.example.com", "b.EXAMPLE.com", "*.example.com"]).expect("good names");
        assert_eq!(names, ["*.example.com", "a.example.com", "b.example.com"]);
    }

    #[test]
    fn names_no_certificate_can_carry_are_refused_with_a_reason() {
        let (long_label, long_name) = (format!("{}.example.com", "a".repeat(64)), format!("{}com", "abcdefg.".repeat(32)));
        for name in [
            "",
            "localhost",
            "example.com.",
            "a..example.com",
            "-a.example.com",
            "a_b.example.com",
            "127.0.0.1",
            "::1",
            "*.com",
            "*",
            "a.*.com",
            "*.*.example.com",
            "bücher.example",
            "a b.example.com",
            &long_label,
            &long_name,
        ] {
            let problem = order(&[name]).expect_err(name);
            assert_eq!(problem.short_type(), "rejectedIdentifier", "{name}");
        }
        let several =
            serde_json::to_value(order(&["good.example.com", "bad_.example.com", "localhost"]).expect_err("two bad")).expect("json");
        let refused: Vec<_> = several["subproblems"].as_array().expect("listed").iter().map(|one| &one["identifier"]["value"]).collect();
        assert_eq!(refused, ["bad_.example.com", "localhost"]);
    }

    #[test]
    fn too_many_names_and_other_identifiers_have_their_own_types() {
        assert_eq!(order(&[]).expect_err("none").short_type(), "malformed");
        let many: Vec<String> = (0..26).map(|number| format!("n{number}.example.com")).collect();
        assert_eq!(order(&many.iter().map(String::as_str).collect::<Vec<_>>()).expect_err("26").short_type(), "malformed");
        let address = [Identifier { kind: "ip".into(), value: "192.0.2.1".into() }];
        assert_eq!(parse_names(&address).expect_err("ip").short_type(), "unsupportedIdentifier");
    }
}
