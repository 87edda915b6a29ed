//! Who is connected, for which name and tenant, so that a name that is removed or changes hands takes its connections with it.
//!
//! Arrives: connections after their handshake; names that are gone. Leaves: a signal to each connection concerned. Goes wrong:
//! nothing; a connection that ends by itself takes its entry along.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use domains::{Hostname, TenantId};
use tokio_util::sync::CancellationToken;

/// All connections, by the name in the index that they were opened for.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    next: AtomicU64,
    open: Mutex<HashMap<Hostname, HashMap<u64, Entry>>>,
}

#[derive(Debug)]
struct Entry {
    tenant: TenantId,
    finish: CancellationToken,
}

impl Connections {
    /// Enters a connection; it leaves when the registration is dropped.
    pub(crate) fn register(self: &Arc<Self>, hostname: &Hostname, tenant: &TenantId) -> Registration {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let finish = CancellationToken::new();
        let entry = Entry { tenant: tenant.clone(), finish: finish.clone() };
        self.open.lock().unwrap_or_else(PoisonError::into_inner).entry(hostname.clone()).or_default().insert(id, entry);
        Registration { id, hostname: hostname.clone(), finish, connections: Arc::clone(self) }
    }

    /// Tells a name's connections to finish, except those of the tenant it belongs to now.
    pub(crate) fn close_all_of(&self, hostname: &Hostname, except: Option<&TenantId>) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(entries) = open.get(hostname) else { return };
        let concerned = entries.values().filter(|entry| except != Some(&entry.tenant));
        concerned.for_each(|entry| entry.finish.cancel());
    }
}

/// One connection's entry.
#[derive(Debug)]
pub(crate) struct Registration {
    id: u64,
    hostname: Hostname,
    /// Cancelled when the connection must finish.
    pub(crate) finish: CancellationToken,
    connections: Arc<Connections>,
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut open = self.connections.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entries) = open.get_mut(&self.hostname) {
            entries.remove(&self.id);
            if entries.is_empty() {
                open.remove(&self.hostname);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_connections_of_the_name_and_the_former_tenant_are_told() {
        let connections = Arc::new(Connections::default());
        let [a, b] = ["a.brand.com", "b.brand.com"].map(|name| Hostname::parse_name(name).unwrap());
        let [old, new] = ["old", "new"].map(|tenant| TenantId::parse(tenant).unwrap());
        let [of_old, of_new, elsewhere] = [(&a, &old), (&a, &new), (&b, &old)].map(|(name, tenant)| connections.register(name, tenant));
        connections.close_all_of(&a, Some(&new));
        let told = || [&of_old, &of_new, &elsewhere].map(|registration| registration.finish.is_cancelled());
        assert_eq!(told(), [true, false, false]);
        connections.close_all_of(&a, None);
        assert_eq!(told(), [true, true, false]);
        drop((of_old, of_new, elsewhere));
        assert!(connections.open.lock().unwrap().is_empty());
    }
}
