//! NSD, an authoritative name server that others made, as the DNS provider of the operator and of customers.
//!
//! It is installed by `scripts/install-nsd`. It listens at an address of its own on loopback, so that it and the product's answer zone can
//! have one port number, as both have port 53 in the world.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{process::Process, resolver::resolver, tools, waiting::until};

/// How long it may take to serve what was written.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running NSD.
#[derive(Debug)]
pub struct ForeignDns {
    /// Where it is asked.
    pub address: SocketAddr,
    folder: PathBuf,
    zones: BTreeMap<String, BTreeSet<String>>,
    serial: u32,
    process: Process,
}

impl ForeignDns {
    /// Starts one that serves these zones, with nothing in them but their own names.
    pub async fn start(folder: &Path, port: u16, zones: &[&str]) -> Self {
        let address = SocketAddr::from(([127, 0, 53, 1], port));
        let folder = folder.join("nsd");
        fs::create_dir_all(&folder).unwrap();
        let at = folder.display();
        let mut config = format!(
            "server:\n ip-address: {}@{port}\n username: \"\"\n chroot: \"\"\n pidfile: \"\"\n zonesdir: \"{at}\"\n database: \"\"\n \
             xfrdfile: \"{at}/xfrd\"\n xfrdir: \"{at}\"\n zonelistfile: \"{at}/zones\"\n server-count: 1\nremote-control:\n control-enable: no\n",
            address.ip()
        );
        for zone in zones {
            config.push_str(&format!("zone:\n name: {zone}\n zonefile: {zone}.zone\n"));
        }
        fs::write(folder.join("nsd.conf"), config).unwrap();
        let zones: BTreeMap<_, _> = zones.iter().map(|zone| ((*zone).to_owned(), BTreeSet::new())).collect();
        for (zone, records) in &zones {
            write(&folder, zone, records, 1, address.ip());
        }
        let program = tools::install("install-nsd", "nsd/run");
        let file = folder.join("nsd.conf").display().to_string();
        let process = Process::start(&program, &["-d", "-c", &file], &[], &folder);
        let dns = Self { address, folder, zones, serial: 1, process };
        // Until it answers, the signal to read its files again would end it.
        dns.until_served(false).await;
        dns
    }

    /// Adds records: name, type and value, in whichever zone they belong.
    pub async fn add(&mut self, records: &[(String, String, String)]) {
        for (name, record_type, value) in records {
            let line = format!("{name}. {record_type} {}", data(record_type, value));
            self.zone_of(name).insert(line);
        }
        self.reload().await;
    }

    /// Takes away everything at a name.
    pub async fn remove(&mut self, name: &str) {
        let owner = format!("{name}. ");
        self.zone_of(name).retain(|line| !line.starts_with(&owner));
        self.reload().await;
    }

    fn zone_of(&mut self, name: &str) -> &mut BTreeSet<String> {
        let around = |zone: &str| name == zone || name.ends_with(&format!(".{zone}"));
        let found = self.zones.iter_mut().filter(|(zone, _)| around(zone)).max_by_key(|(zone, _)| zone.len());
        found.map(|(_, records)| records).unwrap_or_else(|| panic!("{name} is in no zone here"))
    }

    /// Writes every zone and waits until what was written is served.
    async fn reload(&mut self) {
        self.serial += 1;
        for (zone, records) in &self.zones {
            write(&self.folder, zone, records, self.serial, self.address.ip());
        }
        self.until_served(true).await;
    }

    async fn until_served(&self, reads_again: bool) {
        let asked = resolver(self.address);
        let log = self.process.log().display().to_string();
        for zone in self.zones.keys() {
            until(&format!("NSD serves {zone} as written; its log is {log}"), PATIENCE, async || {
                if reads_again {
                    self.process.signal("HUP").await;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
                let answer = asked.soa_lookup(format!("{zone}.")).await.ok()?;
                let serial = format!(" {} 3600 ", self.serial);
                answer.answers().iter().any(|record| record.data.to_string().contains(&serial)).then_some(())
            })
            .await;
        }
    }
}

fn write(folder: &Path, zone: &str, records: &BTreeSet<String>, serial: u32, address: IpAddr) {
    let mut text = format!(
        "$TTL 1\n{zone}. SOA ns1.{zone}. hostmaster.{zone}. {serial} 3600 600 86400 1\n{zone}. NS ns1.{zone}.\nns1.{zone}. A {address}\n"
    );
    for record in records {
        text.push_str(record);
        text.push('\n');
    }
    fs::write(folder.join(format!("{zone}.zone")), text).unwrap();
}

/// A value as a zone file has it: names end with a dot, texts stand in quotes.
fn data(record_type: &str, value: &str) -> String {
    match record_type {
        "CNAME" | "NS" => format!("{}.", value.trim_end_matches('.')),
        "TXT" => format!("\"{value}\""),
        _ => value.to_owned(),
    }
}
