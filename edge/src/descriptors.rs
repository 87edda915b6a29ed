//! File descriptors: as many as the system lets us have, shared out so that clients cannot take those that serving them needs.
//!
//! Arrives: the limits asked for. Leaves: the limits that the descriptors allow. Goes wrong: nothing; where the system says less than was
//! asked for, it is told once.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Limits;

/// Those that belong to neither clients nor the origin: listeners, the runtime, the source, files being read.
const RESERVED: u64 = 64;

/// Raises what this process may open to what the system allows, and fits the limits to it.
pub(crate) fn fit(limits: &mut Limits) {
    let available = raise();
    let asked = limits.max_connections;
    share(limits, available);
    if limits.max_connections < asked {
        tracing::warn!(
            descriptors = available,
            connections = limits.max_connections,
            asked,
            "fewer connections than asked for, since the system allows this process too few open files (`ulimit -n`)"
        );
    }
}

/// Half for clients, since each may need one to the origin as well; the origin's are fewer, because idle clients have none.
fn share(limits: &mut Limits, available: u64) {
    let available = usize::try_from(available.saturating_sub(RESERVED)).unwrap_or(usize::MAX).max(16);
    limits.max_connections = limits.max_connections.min(available / 2);
    limits.max_origin_connections = limits.max_origin_connections.min(available / 8 * 3);
    limits.max_plain_connections = limits.max_plain_connections.min(available / 16);
}

fn raise() -> u64 {
    let now = getrlimit(Resource::Nofile);
    let most = now.maximum.unwrap_or(u64::MAX);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: now.maximum, maximum: now.maximum });
    match raised {
        Ok(()) => most,
        Err(_) => now.current.unwrap_or(most),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_never_get_the_descriptors_that_serving_them_needs() {
        for available in [0, 64, 256, 1024, 65_536, 1 << 20, u64::MAX] {
            let mut limits = Limits::default();
            share(&mut limits, available);
            let used = limits.max_connections + limits.max_origin_connections + 2 * limits.max_plain_connections;
            assert!(used as u64 <= available.saturating_sub(RESERVED).max(16), "{available}: {limits:?}");
            assert!(limits.max_connections > 0 && limits.max_origin_connections > 0 && limits.max_plain_connections > 0);
        }
    }
}
