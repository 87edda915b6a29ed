//! The small names that must not be swapped by mistake.
//!
//! Arrives: strings. Leaves: a type each. Goes wrong: [`IdError`], with what is allowed.

use std::{fmt, sync::Arc};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A tenant, a claim or a token could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{value}` is not a valid {what}: {allowed}")]
pub struct IdError {
    what: &'static str,
    value: String,
    allowed: &'static str,
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $max:literal, $allowed:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Reads the text form.
            ///
            /// # Errors
            /// [`IdError`] when a character or the length is not allowed.
            pub fn parse(value: &str) -> Result<Self, IdError> {
                let check: fn(u8) -> bool = $check;
                if value.is_empty() || value.len() > $max || !value.bytes().all(check) {
                    let shown = value.chars().filter(|c| !c.is_control()).take(80).collect();
                    return Err(IdError { what: $what, value: shown, allowed: $allowed });
                }
                Ok(Self(value.into()))
            }

            /// The text form.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;

            fn try_from(value: String) -> Result<Self, IdError> {
                Self::parse(&value)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0.as_ref().into()
            }
        }
    };
}

text_id!(
    /// The SaaS's customer, in the SaaS's own words.
    TenantId, "tenant", 64, "1 to 64 letters, digits, `-`, `_` or `.`",
    |b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')
);
text_id!(
    /// One claim's own label: `<claim>.t.<zone>` is its routing target. Never reused, so never guessable.
    ClaimId, "claim", 63, "1 to 63 lower-case letters and digits",
    |b| b.is_ascii_lowercase() || b.is_ascii_digit()
);
text_id!(
    /// What the TXT proof must contain. Never reused.
    OwnershipToken, "ownership token", 128, "1 to 128 letters, digits, `-`, `_` or `=`",
    |b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'=')
);

text_id!(
    /// One of the operator's origins, as the edge's settings name it.
    OriginName, "origin", 32, "1 to 32 lower-case letters, digits or `-`",
    |b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'
);

impl OriginName {
    /// What is allowed, as a regular expression.
    pub const PATTERN: &str = "^[a-z0-9-]{1,32}$";
}

impl TenantId {
    /// What is allowed, as a regular expression.
    pub const PATTERN: &str = "^[A-Za-z0-9._-]{1,64}$";
}

/// The version of what a hostname's site should be: grows with every change of owner, certificate or removal, across tenants and for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SiteVersion(pub u64);

impl SiteVersion {
    /// The version after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for SiteVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One claim's key: a hostname may be claimed by many tenants, each at most once.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct ClaimKey {
    /// The name claimed.
    #[schemars(with = "String")]
    pub hostname: crate::Hostname,
    /// Who claims it.
    #[schemars(with = "String")]
    pub tenant: TenantId,
}

impl fmt::Display for ClaimKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}|{}", self.hostname, self.tenant)
    }
}
