//! Which resource a path is, and which path a resource has.
//!
//! Arrives: the path of a request. Leaves: a [`Route`], which also knows where faults can be set and which hostnames a request is about.
//! Goes wrong: a path that is nobody's, as `None`.

use crate::ca::{ACCOUNT_PATH, Ca};
use crate::control::Endpoint;
use crate::jws;
use crate::lock;
use crate::orders::ChallengeKind;

/// A resource, by its path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Route {
    Directory,
    NewNonce,
    NewAccount,
    Account(String),
    Orders(String),
    NewOrder,
    Order(String),
    Finalize(String),
    Authorization(String),
    Challenge(String, ChallengeKind),
    Certificate(String),
    RevokeCert,
    RenewalInfo(String),
}

impl Route {
    pub(crate) fn parse(path: &str) -> Option<Self> {
        if path == "/directory" {
            return Some(Self::Directory);
        }
        let parts: Vec<&str> = path.strip_prefix("/acme/")?.split('/').collect();
        Some(match parts.as_slice() {
            ["new-nonce"] => Self::NewNonce,
            ["new-account"] => Self::NewAccount,
            ["account", id] => Self::Account((*id).into()),
            ["account", id, "orders"] => Self::Orders((*id).into()),
            ["new-order"] => Self::NewOrder,
            ["order", id] => Self::Order((*id).into()),
            ["order", id, "finalize"] => Self::Finalize((*id).into()),
            ["authorization", id] => Self::Authorization((*id).into()),
            ["challenge", id, kind] => Self::Challenge((*id).into(), ChallengeKind::parse(kind)?),
            ["certificate", serial] => Self::Certificate((*serial).into()),
            ["revoke-cert"] => Self::RevokeCert,
            ["renewal-info", identifier] => Self::RenewalInfo((*identifier).into()),
            _ => return None,
        })
    }

    pub(crate) fn path(&self) -> String {
        match self {
            Self::Directory => "/directory".into(),
            Self::NewNonce => "/acme/new-nonce".into(),
            Self::NewAccount => "/acme/new-account".into(),
            Self::Account(id) => format!("{ACCOUNT_PATH}{id}"),
            Self::Orders(id) => format!("{ACCOUNT_PATH}{id}/orders"),
            Self::NewOrder => "/acme/new-order".into(),
            Self::Order(id) => format!("/acme/order/{id}"),
            Self::Finalize(id) => format!("/acme/order/{id}/finalize"),
            Self::Authorization(id) => format!("/acme/authorization/{id}"),
            Self::Challenge(id, kind) => format!("/acme/challenge/{id}/{}", kind.name()),
            Self::Certificate(serial) => format!("/acme/certificate/{serial}"),
            Self::RevokeCert => "/acme/revoke-cert".into(),
            Self::RenewalInfo(identifier) => format!("/acme/renewal-info/{identifier}"),
        }
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        match self {
            Self::Directory => Endpoint::Directory,
            Self::NewNonce => Endpoint::NewNonce,
            Self::NewAccount => Endpoint::NewAccount,
            Self::Account(_) | Self::Orders(_) => Endpoint::Account,
            Self::NewOrder => Endpoint::NewOrder,
            Self::Order(_) => Endpoint::Order,
            Self::Finalize(_) => Endpoint::Finalize,
            Self::Authorization(_) => Endpoint::Authorization,
            Self::Challenge(..) => Endpoint::Challenge,
            Self::Certificate(_) => Endpoint::Certificate,
            Self::RevokeCert => Endpoint::RevokeCert,
            Self::RenewalInfo(_) => Endpoint::RenewalInfo,
        }
    }

    /// The hostnames a request is about, as far as one can tell without believing it.
    pub(crate) fn names(&self, ca: &Ca, body: &[u8]) -> Vec<String> {
        let book = lock(&ca.book);
        let names = match self {
            Self::NewOrder => {
                let payload = jws::unverified_payload(body).unwrap_or_default();
                let identifiers = payload["identifiers"].as_array().cloned().unwrap_or_default();
                return identifiers.iter().filter_map(|one| Some(one["value"].as_str()?.to_ascii_lowercase())).collect();
            }
            Self::Order(id) | Self::Finalize(id) => book.order(id).map(|order| order.names.clone()),
            Self::Authorization(id) | Self::Challenge(id, _) => book.authorization(id).map(|one| vec![one.name.clone()]),
            Self::Certificate(serial) => book.certificate(serial).map(|certificate| certificate.names.clone()),
            Self::RenewalInfo(identifier) => {
                let serial = identifier.split_once('.').map_or("", |(_, serial)| serial);
                book.certificate(serial).map(|certificate| certificate.names.clone())
            }
            Self::Directory | Self::NewNonce | Self::NewAccount | Self::Account(_) | Self::Orders(_) | Self::RevokeCert => None,
        };
        names.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_resource_is_found_at_the_path_it_is_advertised_with() {
        for route in [
            Route::Directory,
            Route::NewNonce,
            Route::NewAccount,
            Route::Account("a".into()),
            Route::Orders("a".into()),
            Route::NewOrder,
            Route::Order("o".into()),
            Route::Finalize("o".into()),
            Route::Authorization("z".into()),
            Route::Challenge("z".into(), ChallengeKind::Http01),
            Route::Challenge("z".into(), ChallengeKind::Dns01),
            Route::Certificate("s".into()),
            Route::RevokeCert,
            Route::RenewalInfo("k.s".into()),
        ] {
            assert_eq!(Route::parse(&route.path()).as_ref(), Some(&route));
        }
        for path in ["", "/", "/acme", "/acme/", "/acme/order", "/acme/order/a/b", "/acme/challenge/z/tls-alpn-01", "/directory/"] {
            assert_eq!(Route::parse(path), None, "{path}");
        }
    }
}
