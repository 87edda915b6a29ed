//! TLS sessions for resumption, in this process only, and never across names or tenants.
//!
//! Arrives: rustls' sessions. Leaves: the same to the same hostname of the same tenant. Goes wrong: a session that is not found costs
//! a full handshake, nothing else. rustls compares the SNI too; this does not rest on it, and a name that changed hands starts anew.

use std::{fmt, sync::Arc};

use bundles::Digest;
use domains::{Hostname, TenantId};
use rustls::server::{ServerSessionMemoryCache, StoresServerSessions};

/// The sessions of one hostname of one tenant, within a store that all share.
pub(super) struct ScopedSessions {
    scope: [u8; 32],
    shared: Arc<ServerSessionMemoryCache>,
}

impl ScopedSessions {
    pub(super) fn new(hostname: &Hostname, tenant: &TenantId, shared: Arc<ServerSessionMemoryCache>) -> Self {
        Self { scope: *Digest::of(format!("{hostname}|{tenant}").as_bytes()).as_bytes(), shared }
    }

    fn scoped(&self, key: &[u8]) -> Vec<u8> {
        [&self.scope, key].concat()
    }
}

impl fmt::Debug for ScopedSessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScopedSessions").finish_non_exhaustive()
    }
}

impl StoresServerSessions for ScopedSessions {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        self.shared.put(self.scoped(&key), value)
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.shared.get(&self.scoped(key))
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.shared.take(&self.scoped(key))
    }

    fn can_cache(&self) -> bool {
        true
    }
}
