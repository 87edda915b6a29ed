//! The parameters of paths and queries, described once and read as described.
//!
//! Arrives: a query. Leaves: its values. Goes wrong: a parameter that stands there twice, a number out of bounds; both said, never guessed.

use std::borrow::Cow;

use domains::{StateName, TenantId};
use serde_json::{Value, json};

use crate::{Code, Refusal, access::tenant_of};

/// How many results one page holds at most.
pub(crate) const MAX_PAGE: u64 = 200;

/// How many results a page holds when nobody says.
const DEFAULT_PAGE: u64 = 50;

/// The largest number that every JSON reader keeps exactly.
///
/// Source: RFC 8259, section 6 (read 2026-11).
const MAX_NUMBER: u64 = (1 << 53) - 1;

/// A parameter of a path or a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parameter {
    /// The hostname in a path.
    Hostname,
    /// Hostnames whose registered domains are shown, too.
    Hostnames,
    /// The secret in `ask`'s path.
    Secret,
    /// The name of an import or a webhook in a path.
    Id,
    /// Whose domain, or whose list.
    Tenant,
    /// Which state.
    State,
    /// Where a list goes on.
    Cursor,
    /// How many results.
    Limit,
    /// The number after which a history goes on.
    AfterNumber,
    /// The cursor after which the feed of events goes on.
    AfterEvent,
    /// The name that Caddy asks about.
    AskDomain,
}

impl Parameter {
    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Hostname => "hostname",
            Self::Hostnames => "hostnames",
            Self::Secret => "secret",
            Self::Id => "id",
            Self::Tenant => "tenant",
            Self::State => "state",
            Self::Cursor => "cursor",
            Self::Limit => "limit",
            Self::AfterNumber | Self::AfterEvent => "after",
            Self::AskDomain => "domain",
        }
    }

    /// Whether it stands in the path, and so is always there.
    pub(crate) fn is_in_path(self) -> bool {
        matches!(self, Self::Hostname | Self::Secret | Self::Id)
    }

    /// The parameter in the document.
    pub(crate) fn document(self) -> Value {
        let (schema, meaning) = match self {
            Self::Hostname => {
                (json!({ "type": "string", "minLength": 1, "maxLength": 253 }), "The hostname, in A-labels or as its people write it.")
            }
            Self::Hostnames => (json!({ "type": "string" }), "Hostnames, separated by commas, whose registered domains are shown, too."),
            Self::Secret => (json!({ "type": "string", "minLength": 1, "maxLength": 100 }), "What `GET /v1/ask` shows."),
            Self::Id => (json!({ "type": "string", "minLength": 1, "maxLength": 100 }), "The `id`, as it was answered when it was made."),
            Self::Tenant => (
                json!({ "type": "string", "pattern": TenantId::PATTERN }),
                "Whose. A tenant's API key needs none and may name no other; an operator names one where several tenants claim a hostname.",
            ),
            Self::State => {
                let states: Vec<_> = StateName::ALL.iter().map(|state| state.as_str()).collect();
                (json!({ "type": "string", "enum": states }), "Only domains in this state.")
            }
            Self::Cursor => (json!({ "type": "string" }), "The `cursor` of the page before."),
            Self::Limit => {
                (json!({ "type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": DEFAULT_PAGE }), "The most results of the page.")
            }
            Self::AfterNumber => {
                (json!({ "type": "integer", "minimum": 0, "maximum": MAX_NUMBER, "default": 0 }), "Only what has a higher number.")
            }
            Self::AfterEvent => (json!({ "type": "string" }), "The `cursor` of the page before; from the beginning without one."),
            Self::AskDomain => (json!({ "type": "string" }), "The name, in A-labels."),
        };
        json!({
            "name": self.name(),
            "in": if self.is_in_path() { "path" } else { "query" },
            "required": self.is_in_path(),
            "description": meaning,
            "schema": schema,
        })
    }
}

/// A request's query.
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads a query of these parameters; others are passed over.
    pub(crate) fn read(query: Option<&str>, parameters: &[Parameter]) -> Result<Self, Refusal> {
        let known = |name: &str| parameters.iter().any(|parameter| !parameter.is_in_path() && parameter.name() == name);
        let mut values: Vec<(String, String)> = Vec::new();
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()).filter(|(name, _)| known(name)) {
            if values.iter().any(|(before, _)| *before == name) {
                return Err(Refusal::new(Code::DuplicateParameter, format!("`{name}` stands there more than once; send it once")));
            }
            values.push((name.into_owned(), value.into_owned()));
        }
        Ok(Self(values))
    }

    pub(crate) fn text(&self, parameter: Parameter) -> Option<Cow<'_, str>> {
        self.0.iter().find(|(known, _)| known == parameter.name()).map(|(_, value)| Cow::Borrowed(value.as_str()))
    }

    fn number(&self, parameter: Parameter, least: u64, most: u64, default: u64) -> Result<u64, Refusal> {
        let Some(text) = self.text(parameter) else { return Ok(default) };
        let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = if is_plain { text.parse().ok() } else { None };
        number.filter(|number| (least..=most).contains(number)).ok_or_else(|| {
            Refusal::new(Code::InvalidNumber, format!("`{}` must be a whole number from {least} to {most}", parameter.name()))
        })
    }

    pub(crate) fn after(&self) -> Result<u64, Refusal> {
        self.number(Parameter::AfterNumber, 0, MAX_NUMBER, 0)
    }

    pub(crate) fn limit(&self) -> Result<usize, Refusal> {
        let limit = self.number(Parameter::Limit, 1, MAX_PAGE, DEFAULT_PAGE)?;
        Ok(usize::try_from(limit).unwrap_or(1))
    }

    pub(crate) fn tenant(&self, caller: &domains::Caller) -> Result<Option<TenantId>, Refusal> {
        tenant_of(caller, self.text(Parameter::Tenant).as_deref())
    }
}
