//! Who runs a zone, told from its name servers' names, and where in that provider's panel records are edited.
//!
//! Arrives: the names of a zone's servers. Leaves: a [`Provider`], or nothing. Goes wrong: nothing; an unknown provider is called by nothing
//! but the zone's name, and mixed servers belong to nobody.
//!
//! Source: the names that zones at each provider are publicly seen to have, and where its customers say records are edited, as of 2026-11; not
//! every panel was opened. All of it is a hint for people: no decision follows from it.

/// A DNS provider as its customers know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Provider {
    /// Its name.
    pub name: &'static str,
    /// Where in its panel a zone's records are edited.
    pub panel: &'static str,
    /// What its panel makes of a record's name.
    pub names: PanelNames,
    /// What its name servers' names end with, or contain where a pattern begins with `*`.
    patterns: &'static [&'static str],
}

/// What a panel makes of the name that is typed into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PanelNames {
    /// The zone is added to whatever is typed, so a whole name comes out doubled.
    Relative,
    /// A whole name is understood as one.
    Whole,
}

const fn provider(name: &'static str, panel: &'static str, names: PanelNames, patterns: &'static [&'static str]) -> Provider {
    Provider { name, panel, names, patterns }
}

use PanelNames::{Relative, Whole};

/// The providers known.
pub const PROVIDERS: &[Provider] = &[
    provider("Cloudflare", "the zone > DNS > Records", Whole, &[".ns.cloudflare.com", ".secondary.cloudflare.com"]),
    provider("Amazon Route 53", "Route 53 > Hosted zones > the zone > Create record", Relative, &["*.awsdns-"]),
    provider("Google Cloud DNS", "Network services > Cloud DNS > the zone", Relative, &["*ns-cloud-"]),
    provider("Squarespace", "Domains > the domain > DNS > DNS Settings", Relative, &[".googledomains.com", ".squarespacedns.com"]),
    provider("Azure DNS", "DNS zones > the zone > Recordsets", Relative, &["*.azure-dns."]),
    provider("GoDaddy", "My Products > the domain > DNS", Relative, &[".domaincontrol.com"]),
    provider("Namecheap", "Domain List > Manage > Advanced DNS", Relative, &[".registrar-servers.com"]),
    provider("IONOS", "Domains & SSL > the domain > DNS", Relative, &["*.ui-dns."]),
    provider("OVHcloud", "Web Cloud > Domain names > the domain > DNS zone", Relative, &[".ovh.net", ".ovh.ca", ".anycast.me"]),
    provider("Gandi", "Domains > the domain > DNS Records", Relative, &[".gandi.net"]),
    provider(
        "Hetzner",
        "DNS > the zone > Records",
        Relative,
        &[".ns.hetzner.com", ".ns.hetzner.de", ".first-ns.de", ".second-ns.de", ".second-ns.com"],
    ),
    provider("DigitalOcean", "Networking > Domains > the domain", Relative, &[".digitalocean.com"]),
    provider(
        "DNSimple",
        "the domain > DNS > Records",
        Relative,
        &[".dnsimple.com", ".dnsimple-edge.net", ".dnsimple-edge.org", ".dnsimple-edge.io"],
    ),
    provider("DNS Made Easy", "DNS > Managed DNS > the domain", Relative, &[".dnsmadeeasy.com"]),
    provider("NS1", "Zones > the zone > Records", Relative, &[".nsone.net"]),
    provider("Vercel", "Domains > the domain > DNS Records", Relative, &[".vercel-dns.com"]),
    provider("Wix", "Domains > the domain > Manage DNS Records", Relative, &[".wixdns.net"]),
    provider("Name.com", "My Domains > the domain > Manage DNS Records", Relative, &[".name.com"]),
    provider("Hover", "the domain > DNS", Relative, &[".hover.com"]),
    provider("Network Solutions", "My Domains > the domain > Advanced DNS", Relative, &[".worldnic.com"]),
    provider("Porkbun", "Domain Management > the domain > DNS", Relative, &[".ns.porkbun.com", ".porkbun.com"]),
    provider("Dynadot", "My Domains > the domain > DNS Settings", Relative, &[".dynadot.com"]),
    provider("Bluehost", "Domains > the domain > DNS", Relative, &[".bluehost.com"]),
    provider("HostGator", "Domains > the domain > DNS", Relative, &[".hostgator.com"]),
    provider("SiteGround", "Site Tools > Domain > DNS Zone Editor", Relative, &[".siteground.net"]),
    provider("DreamHost", "Websites > DNS", Relative, &[".dreamhost.com"]),
    provider("Linode", "Domains > the domain", Relative, &[".linode.com"]),
    provider("Akamai Edge DNS", "Edge DNS > the zone > Records", Whole, &[".akam.net"]),
    provider("Vultr", "Products > Network > DNS > the domain", Relative, &[".vultr.com"]),
    provider("STRATO", "Domains > the domain > DNS", Relative, &[".rzone.de"]),
    provider("Infomaniak", "Domains > the domain > DNS zone", Relative, &[".infomaniak.ch", ".infomaniak.com"]),
    provider("TransIP", "Domains > the domain > DNS", Relative, &[".transip.net", ".transip.nl"]),
    provider("All-Inkl", "KAS > Tools > DNS settings", Relative, &[".kasserver.com"]),
    provider("netcup", "Domains > the domain > DNS", Relative, &[".netcup.net"]),
    provider("one.com", "DNS settings > DNS records", Relative, &[".one.com"]),
    provider("Loopia", "Domain names > the domain > DNS editor", Relative, &[".loopia.se"]),
    provider("Simply.com", "the domain > DNS", Relative, &[".simply.com"]),
    provider("Hostpoint", "Domains > the domain > DNS zone", Relative, &[".hostpoint.ch"]),
    provider("Hostinger", "Domains > the domain > DNS / Nameservers", Relative, &[".dns-parking.com"]),
    provider("Alibaba Cloud DNS", "DNS > the zone > DNS Settings", Relative, &[".alidns.com", ".hichina.com"]),
    provider("DNSPod", "My Domains > the domain > Records", Relative, &[".dnspod.net"]),
    provider("ClouDNS", "DNS zones > the zone", Relative, &["*.cloudns."]),
    provider("Hurricane Electric", "Free DNS > the zone", Whole, &[".he.net"]),
    provider("deSEC", "the domain > record sets", Relative, &[".desec.io", ".desec.org"]),
    provider("bunny.net", "DNS > the zone", Relative, &[".bunny.net"]),
    provider("UltraDNS", "Zones > the zone", Relative, &["*.ultradns."]),
    provider("easyDNS", "Domains > the domain > DNS", Relative, &[".easydns.com", ".easydns.net", ".easydns.org"]),
    provider("WordPress.com", "Domains > the domain > DNS records", Relative, &[".wordpress.com"]),
    provider("123 Reg", "Domains > the domain > Advanced DNS", Relative, &[".123-reg.co.uk"]),
    provider("Scaleway", "Domains and DNS > the zone > Records", Relative, &[".dom.scw.cloud"]),
];

/// The provider whose names all of these servers have.
pub fn provider_of<'s>(servers: impl IntoIterator<Item = &'s str>) -> Option<&'static Provider> {
    let mut found = None;
    for server in servers {
        let provider = PROVIDERS.iter().find(|provider| provider.serves(server))?;
        if found.is_some_and(|other: &Provider| other != provider) {
            return None;
        }
        found = Some(provider);
    }
    found
}

impl Provider {
    fn serves(&self, server: &str) -> bool {
        let server = server.trim_end_matches('.').to_ascii_lowercase();
        self.patterns.iter().any(|pattern| match pattern.strip_prefix('*') {
            Some(part) => server.contains(part),
            None => server.ends_with(pattern),
        })
    }

    /// Where and how to enter a record, in one sentence.
    pub fn hint(&self, zone: &str) -> String {
        let names = match self.names {
            PanelNames::Relative => format!(", its name without {zone} at the end"),
            PanelNames::Whole => String::new(),
        };
        format!("At {}: {}{names}.", self.name, self.panel)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn name(servers: &[&str]) -> Option<&'static str> {
        provider_of(servers.iter().copied()).map(|provider| provider.name)
    }

    #[test]
    fn a_provider_is_told_from_the_names_of_its_servers() {
        assert_eq!(name(&["ana.ns.cloudflare.com", "bob.ns.cloudflare.com"]), Some("Cloudflare"));
        assert_eq!(name(&["ns-1.awsdns-00.org", "ns-2048.awsdns-64.co.uk"]), Some("Amazon Route 53"));
        assert_eq!(name(&["ns-cloud-a1.googledomains.com"]), Some("Google Cloud DNS"));
        assert_eq!(name(&["NS59.DomainControl.com."]), Some("GoDaddy"));
        assert_eq!(name(&["dns1.registrar-servers.com"]), Some("Namecheap"));
    }

    #[test]
    fn mixed_unknown_and_look_alike_servers_belong_to_nobody() {
        assert_eq!(name(&["ana.ns.cloudflare.com", "ns59.domaincontrol.com"]), None);
        assert_eq!(name(&["ns1.brand.com"]), None);
        assert_eq!(name(&["ns1.domaincontrol.com.evil.net", "ns1.notname.com"]), None);
        assert_eq!(name(&[]), None);
    }

    #[test]
    fn no_two_providers_share_a_pattern_and_none_hides_another() {
        let patterns: Vec<&str> = PROVIDERS.iter().flat_map(|provider| provider.patterns).copied().collect();
        assert!(PROVIDERS.len() >= 30);
        assert_eq!(patterns.iter().collect::<BTreeSet<_>>().len(), patterns.len());
        for provider in PROVIDERS {
            for pattern in provider.patterns {
                let end = if pattern.starts_with('*') { "com" } else { "" };
                let server = format!("ns1{}{end}", pattern.trim_start_matches('*'));
                assert_eq!(provider_of([server.as_str()]), Some(provider), "{server}");
            }
        }
    }
}
