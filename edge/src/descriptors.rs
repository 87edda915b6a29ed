//! File descriptors: as many as the system lets us have, shared out so that clients cannot take those that serving them needs.
//!
//! Arrives: the limits asked for. Leaves: the limits that the descriptors allow. Goes wrong: nothing; where the system says less than was
//! asked for, it is told once, and as a warning where it matters: where that number was asked for by somebody, or is small.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Limits;

/// Those that belong to neither clients nor the origin: listeners, the runtime, the source, files being read.
const RESERVED: u64 = 64;

/// As many as one machine has at a quiet hour; a limit below it is felt, whoever chose it.
const FEW_CONNECTIONS: usize = 2_000;

/// Raises what this process may open to what the system allows, and fits the limits to it; each of `origins` has its own connections.
pub(crate) fn fit(limits: &mut Limits, origins: usize) {
    let available = raise();
    let asked = limits.max_connections;
    share(limits, available, origins);
    let (connections, message) =
        (limits.max_connections, "fewer connections than asked for: the system allows few open files (`ulimit -Hn`)");
    if matters(asked, connections) {
        tracing::warn!(descriptors = available, connections, asked, "{message}");
    } else if connections < asked {
        tracing::debug!(descriptors = available, connections, asked, "{message}");
    }
}

/// Whether a person should know that the connections became fewer: when it was a person who asked for more, or when few are left.
fn matters(asked: usize, connections: usize) -> bool {
    connections < asked && (asked != Limits::default().max_connections || connections < FEW_CONNECTIONS)
}

/// Half for clients, since each may need one to the origin as well; the origin's are fewer, because idle clients have none.
fn share(limits: &mut Limits, available: u64, origins: usize) {
    let available = usize::try_from(available.saturating_sub(RESERVED)).unwrap_or(usize::MAX).max(16);
    let asked = limits.max_connections;
    limits.max_connections = asked.min(available / 2);
    // One address keeps the part of them that it had, or it could have them all.
    limits.per_address.max_open = limits.per_address.open_of(limits.max_connections, asked);
    limits.max_origin_connections = limits.max_origin_connections.min((available / 8 * 3 / origins).max(1));
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
            share(&mut limits, available, 3);
            let used = limits.max_connections + 3 * limits.max_origin_connections + 2 * limits.max_plain_connections;
            assert!(used as u64 <= available.saturating_sub(RESERVED).max(16), "{available}: {limits:?}");
            let share = limits.per_address.max_open;
            assert!(share >= 1 && (share * 5 <= limits.max_connections || share == 1), "{available}: {limits:?}");
            assert!(limits.max_connections > 0 && limits.max_origin_connections > 0 && limits.max_plain_connections > 0);
        }
    }

    #[test]
    fn what_one_address_may_have_is_lifted_or_it_is_its_part_of_what_there_is() {
        let mut limits = Limits::default();
        limits.per_address.max_open = usize::MAX;
        share(&mut limits, 1024, 1);
        assert_eq!(limits.per_address.max_open, usize::MAX);
        for (asked, left) in [(4_000, 2_000), (15_000, 7_500), (3, 3), (2_001, 2_000)] {
            limits = Limits::default();
            limits.per_address.max_open = asked;
            share(&mut limits, 20_000 + RESERVED, 1);
            assert_eq!((limits.max_connections, limits.per_address.max_open), (10_000, left));
        }
    }

    #[test]
    fn few_open_files_are_told_to_whoever_asked_for_more_or_is_left_with_few() {
        let default = Limits::default().max_connections;
        assert!(!matters(default, default) && !matters(default, 9_968) && !matters(500, 500));
        assert!(matters(default, 480) && matters(30_000, 9_968) && matters(1_000, 480));
    }
}
