//! Who calls, and what they may see.
//!
//! Arrives: the Authorization header. Leaves: a [`Caller`]. Goes wrong: no key, an unknown key (401), another tenant's domain (which does
//! not exist for this caller).

use domains::{Caller, Callers, Role, TenantId};
use http::{HeaderMap, header::AUTHORIZATION};
use sha2::{Digest, Sha256};

use crate::{Code, Refusal};

/// The form in which an API key is stored: its SHA-256, hex. Keys are long and random, so that a fast hash is enough.
pub fn key_sha256(key: &str) -> String {
    Sha256::digest(key).iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) async fn caller(callers: &dyn Callers, headers: &HeaderMap) -> Result<Caller, Refusal> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return Err(Refusal::no_key()) };
    let key = value.to_str().ok().and_then(|text| text.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let Some((_, key)) = key else { return Err(Refusal::no_key()) };
    callers.caller(&key_sha256(key.trim())).await?.ok_or_else(Refusal::unknown_key)
}

/// The tenant a request is about: a tenant's key speaks for its own only, an operator's must say which.
pub(crate) fn tenant_of(caller: &Caller, named: Option<&str>) -> Result<Option<TenantId>, Refusal> {
    let named = named.map(TenantId::parse).transpose().map_err(|error| Refusal::new(Code::InvalidTenant, error.to_string()))?;
    match (&caller.role, &caller.tenant, named) {
        (Role::Operator, _, named) => Ok(named),
        (Role::Tenant, Some(own), None) => Ok(Some(own.clone())),
        (Role::Tenant, Some(own), Some(named)) if named == *own => Ok(Some(named)),
        (Role::Tenant, _, _) => Err(Refusal::forbidden("this API key speaks for one tenant only; leave `tenant` out or name that one")),
    }
}
