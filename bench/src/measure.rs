//! CPU time of a server, and what else the machine did meanwhile.

use std::{collections::BTreeMap, fs, time::Instant};

use crate::Failure;

/// Nanoseconds on a CPU so far, of each thread of a process and its children.
#[derive(Debug)]
pub(crate) struct Sample(BTreeMap<u32, u64>);

impl Sample {
    pub(crate) fn of(pid: u32) -> Result<Self, Failure> {
        let mut threads = BTreeMap::new();
        let mut processes = vec![pid];
        while let Some(process) = processes.pop() {
            for task in fs::read_dir(format!("/proc/{process}/task"))?.flatten() {
                let (Some(thread), path) = (task.file_name().to_str().and_then(|name| name.parse().ok()), task.path()) else { continue };
                // A thread may have ended since it was listed.
                let Ok(spent) = fs::read_to_string(path.join("schedstat")) else { continue };
                threads.insert(thread, spent.split_whitespace().next().unwrap_or_default().parse()?);
                let children = fs::read_to_string(path.join("children")).unwrap_or_default();
                processes.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
            }
        }
        Ok(Self(threads))
    }

    pub(crate) fn nanos(&self) -> u64 {
        self.0.values().sum()
    }

    pub(crate) fn since(&self, before: &Self) -> Spent {
        Spent { nanos: self.0.iter().map(|(thread, now)| now - before.0.get(thread).copied().unwrap_or(0)).sum() }
    }
}

/// CPU time between two samples.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spent {
    nanos: u64,
}

impl Spent {
    pub(crate) fn micros_each(self, operations: u64) -> f64 {
        self.nanos as f64 / 1000.0 / operations.max(1) as f64
    }
}

/// What the machine did while we measured.
#[derive(Debug)]
pub(crate) struct Noise {
    began: Instant,
    ticks: Ticks,
    servers_nanos: u64,
}

/// `USER_HZ`, which is a hundred on every Linux that Rust runs on.
const NANOS_PER_TICK: u64 = 10_000_000;

#[derive(Clone, Copy, Debug)]
struct Ticks {
    busy: u64,
    steal: u64,
    all: u64,
    ours: u64,
}

impl Noise {
    /// Begins to look; `servers_nanos` is what the servers have spent so far.
    pub(crate) fn begin(servers_nanos: u64) -> Result<Self, Failure> {
        Ok(Self { began: Instant::now(), ticks: Ticks::now()?, servers_nanos })
    }

    /// Says it in a sentence.
    pub(crate) fn end(&self, servers_nanos: u64) -> Result<String, Failure> {
        let now = Ticks::now()?;
        let share = |part: u64| part as f64 * 100.0 / (now.all - self.ticks.all).max(1) as f64;
        let servers = (servers_nanos - self.servers_nanos) / NANOS_PER_TICK;
        let others = (now.busy - self.ticks.busy).saturating_sub(now.ours - self.ticks.ours).saturating_sub(servers);
        let loads = fs::read_to_string("/proc/loadavg")?;
        let loads: Vec<&str> = loads.split_whitespace().take(3).collect();
        Ok(format!(
            "It took {:.0} s, in which others used {:.0} % of the machine and {:.1} % was stolen; load {} at the end",
            self.began.elapsed().as_secs_f64(),
            share(others),
            share(now.steal - self.ticks.steal),
            loads.join(" ")
        ))
    }
}

impl Ticks {
    fn now() -> Result<Self, Failure> {
        let stat = fs::read_to_string("/proc/stat")?;
        let cpu = stat.lines().next().unwrap_or_default();
        let of: Vec<u64> = cpu.split_whitespace().skip(1).filter_map(|ticks| ticks.parse().ok()).collect();
        let [user, nice, system, idle, iowait, irq, softirq, steal, ..] = of[..] else { return Err("/proc/stat cannot be read".into()) };
        let own = fs::read_to_string("/proc/self/stat")?;
        let after_name = own.rsplit_once(')').map_or("", |(_, rest)| rest);
        let ours = after_name.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
        let busy = user + nice + system + irq + softirq;
        Ok(Self { busy, steal, all: busy + idle + iowait + steal, ours })
    }
}
