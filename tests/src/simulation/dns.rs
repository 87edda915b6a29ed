//! The customers' DNS: what each hostname's CNAME says, the same at the zone's servers and at the resolver.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Mutex,
};

use async_trait::async_trait;
use domains::{Answer, ChainEnd, Look, LookSubject, Observed, OwnershipLookup, ServerAnswer, ZoneCut};

use super::locked;

/// The customers' DNS: what each hostname's CNAME says, the same at the zone's servers and at the resolver.
#[derive(Debug, Default)]
pub struct SimulatedDns {
    cnames: Mutex<HashMap<String, String>>,
    looks: Mutex<BTreeMap<String, u32>>,
}

impl SimulatedDns {
    /// Points a hostname at a target.
    pub fn point(&self, hostname: &str, target: &str) {
        locked(&self.cnames).insert(hostname.to_owned(), target.to_owned());
    }

    /// Takes a hostname's record away.
    pub fn forget(&self, hostname: &str) {
        locked(&self.cnames).remove(hostname);
    }

    /// How often each hostname was looked at since this was asked last.
    pub fn take_looks(&self) -> BTreeMap<String, u32> {
        std::mem::take(&mut *locked(&self.looks))
    }
}

#[async_trait]
impl OwnershipLookup for SimulatedDns {
    async fn look(&self, subject: &LookSubject) -> Look {
        let hostname = subject.hostname.to_string();
        *locked(&self.looks).entry(hostname.clone()).or_default() += 1;
        let target = locked(&self.cnames).get(&hostname).cloned();
        let observed = |name: &str, answer: Answer| Observed {
            name: name.to_owned(),
            authority: vec![ServerAnswer { server: "ns1.dns.net (192.0.2.53)".into(), answer: answer.clone() }],
            resolver: answer,
        };
        let cname = target.as_ref().map_or(Answer::NxDomain, |target| Answer::Records(vec![target.clone()]));
        let address = if target.is_some() { Answer::NoData } else { Answer::NxDomain };
        Look {
            zone: Ok(ZoneCut {
                apex: subject.hostname.registered_domain().unwrap_or_default().into(),
                servers: vec!["ns1.dns.net".into()],
            }),
            cname: observed(&hostname, cname),
            chain: target.into_iter().collect(),
            chain_end: ChainEnd::Complete,
            a: observed(&hostname, address.clone()),
            aaaa: observed(&hostname, address),
            txt: observed(&subject.txt_name, Answer::NxDomain),
            txt_doubled: None,
            further: domains::Further::default(),
            delegation: None,
            queries: 6,
        }
    }
}
