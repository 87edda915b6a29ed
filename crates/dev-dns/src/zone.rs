//! What the server knows, and what DNS's rules make of it.
//!
//! Arrives: edits, and questions. Leaves: an [`Answer`], by a function of contents and question alone. Goes wrong: an edit against the
//! rules ([`EditError`], with nothing changed); a question never does, it gets the response code that a real server would give.
//!
//! Zones are cut by themselves: an apex is a name that was configured as one, a name that holds a SOA record, or the registered domain
//! of any name present. A question belongs to the deepest apex above it.

use std::{collections::BTreeMap, net::IpAddr, ops::Bound, sync::Arc};

use hickory_proto::{
    op::ResponseCode,
    rr::{
        Name, RData, Record as Answered, RecordType as WireType,
        rdata::{A, AAAA, NS, SOA},
    },
};

use crate::{
    names::{Key, shown, wildcard_below},
    record::{Record, RecordError, RecordSet, RecordType},
};

/// How many aliases one answer follows. Past that a real resolver gives up too.
const MAX_CHAIN: usize = 16;
/// How long a resolver may remember that something is absent, where the zone has no SOA record of its own: people watch this zone change.
const NEGATIVE_TTL_SECONDS: u32 = 1;
/// Refresh, retry and expire of a SOA record made up here; nobody transfers these zones. Source: RIPE-203.
const SOA_TIMES: (i32, i32, i32) = (86_400, 7_200, 3_600_000);

/// One question.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    /// The name in the letters it was asked in; answers repeat them.
    pub(crate) name: Name,
    pub(crate) record_type: WireType,
    /// Whether the client wants the whole chain (RD), or what this name's zone says.
    pub(crate) recursion_desired: bool,
    /// Whether the client checks DNSSEC itself (CD).
    pub(crate) checking_disabled: bool,
}

/// What a question gets.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) code: ResponseCode,
    pub(crate) authoritative: bool,
    pub(crate) answers: Vec<Answered>,
    pub(crate) authorities: Vec<Answered>,
    pub(crate) additionals: Vec<Answered>,
    /// The name that another server has to be asked for, to finish this answer.
    pub(crate) onward: Option<Name>,
}

impl Answer {
    /// An answer that is a response code and nothing else.
    pub(crate) fn bare(code: ResponseCode) -> Self {
        Self { code, authoritative: false, answers: Vec::new(), authorities: Vec::new(), additionals: Vec::new(), onward: None }
    }
}

/// A change of the contents.
#[derive(Clone, Debug)]
pub(crate) enum Edit {
    /// These records, instead of those of the same name and type.
    Set(Record),
    /// These records, beside those of the same name and type.
    Add(Record),
}

/// Why nothing of a list of edits was done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("record {index} of the list was refused, so none was taken")]
pub struct EditError {
    /// The position in the list, from 0.
    pub index: usize,
    /// What is wrong with that record.
    #[source]
    pub error: RecordError,
}

/// Everything stored, in the order of reversed names.
#[derive(Debug)]
pub(crate) struct Contents {
    nodes: BTreeMap<Box<[u8]>, Node>,
    settings: Settings,
    changes: u64,
}

/// What the contents are read with.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// The server's own address, for the name servers it makes up.
    pub(crate) address: IpAddr,
    pub(crate) default_ttl: u32,
    /// How many labels a registered domain has.
    pub(crate) registered_labels: usize,
    /// The apexes of the zones that another server answers for.
    pub(crate) forwarded: Vec<Name>,
}

#[derive(Clone, Debug)]
struct Node {
    name: Arc<str>,
    /// Whether the configuration says that a zone begins here.
    is_configured_apex: bool,
    sets: Vec<Arc<RecordSet>>,
}

/// The zone that a name belongs to.
struct Zone<'k> {
    apex: &'k [u8],
    labels: usize,
    name: Name,
}

impl Contents {
    pub(crate) fn new(settings: Settings, apexes: &[Name], changes: u64) -> Self {
        let mut contents = Self { nodes: BTreeMap::new(), settings, changes };
        for apex in apexes {
            contents.node_mut(&Key::of(apex), apex).is_configured_apex = true;
        }
        contents
    }

    /// How often the contents changed, ever: it grows over restarts, so it serves as the zones' serial number too.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// Every set with its owner, in order; cheap enough to take under a lock.
    pub(crate) fn sets(&self) -> Vec<(Arc<str>, Arc<RecordSet>)> {
        self.nodes.values().flat_map(|node| node.sets.iter().map(|set| (node.name.clone(), set.clone()))).collect()
    }

    /// The sets of one name.
    pub(crate) fn sets_of(&self, name: &Name) -> Vec<Record> {
        let node = self.nodes.get(Key::of(name).full());
        node.iter().flat_map(|node| node.sets.iter().map(|set| set.to_record(&node.name))).collect()
    }

    /// Does all edits or none; returns the sets as they are after each.
    pub(crate) fn edit(&mut self, edits: &[Edit]) -> Result<Vec<Record>, EditError> {
        let mut before = Vec::with_capacity(edits.len());
        let mut after = Vec::with_capacity(edits.len());
        for (index, edit) in edits.iter().enumerate() {
            match self.apply(edit, &mut before) {
                Ok(record) => after.push(record),
                Err(error) => {
                    self.undo(before);
                    return Err(EditError { index, error });
                }
            }
        }
        self.changes += u64::from(!edits.is_empty());
        Ok(after)
    }

    /// Removes the sets of a name, all or one; returns what they were.
    pub(crate) fn remove(&mut self, name: &Name, only: Option<RecordType>) -> Vec<Record> {
        let key = Key::of(name);
        let Some(node) = self.nodes.get_mut(key.full()) else { return Vec::new() };
        let (gone, kept) = node.sets.drain(..).partition(|set| only.is_none_or(|only| set.record_type == only));
        node.sets = kept;
        let gone: Vec<Arc<RecordSet>> = gone;
        let gone: Vec<Record> = gone.iter().map(|set| set.to_record(&node.name)).collect();
        // An empty node would make the name exist, which only a configured apex does without records.
        if node.sets.is_empty() && !node.is_configured_apex {
            self.nodes.remove(key.full());
        }
        self.changes += u64::from(!gone.is_empty());
        gone
    }

    fn apply(&mut self, edit: &Edit, before: &mut Vec<(Key, Option<Node>)>) -> Result<Record, RecordError> {
        let (Edit::Set(record) | Edit::Add(record)) = edit;
        let (owner, mut set) = RecordSet::parse(record)?;
        let key = Key::of(&owner);
        let present = self.nodes.get(key.full());
        self.check_alone(&owner, &key, present, set.record_type)?;
        let same_type = present.and_then(|node| node.set(set.record_type));
        if let (Edit::Add(_), Some(present)) = (edit, same_type) {
            set = present.with(&set, &owner)?;
        }
        set.ttl.get_or_insert(self.settings.default_ttl);
        let stored = set.to_record(&shown(&owner));
        before.push((key.clone(), present.cloned()));
        let node = self.node_mut(&key, &owner);
        node.sets.retain(|present| present.record_type != set.record_type);
        node.sets.push(Arc::new(set));
        node.sets.sort_by_key(|set| set.record_type);
        Ok(stored)
    }

    /// A CNAME is the only data of its name (RFC 1034, section 3.6.2), which an apex can never promise.
    fn check_alone(&self, owner: &Name, key: &Key, present: Option<&Node>, record_type: RecordType) -> Result<(), RecordError> {
        let is_alias = record_type == RecordType::Cname;
        let mut others = present.iter().flat_map(|node| &node.sets).map(|set| set.record_type);
        let conflict = others.find(|other| is_alias != (*other == RecordType::Cname));
        if let Some(present) = conflict {
            return Err(RecordError::CnameConflict { name: shown(owner), record_type, present });
        }
        let is_configured_apex = present.is_some_and(|node| node.is_configured_apex);
        if is_alias && (is_configured_apex || key.labels() <= self.settings.registered_labels) {
            return Err(RecordError::CnameAtApex { name: shown(owner) });
        }
        Ok(())
    }

    fn undo(&mut self, before: Vec<(Key, Option<Node>)>) {
        for (key, node) in before.into_iter().rev() {
            match node {
                Some(node) => self.nodes.insert(key.full().into(), node),
                None => self.nodes.remove(key.full()),
            };
        }
    }

    fn node_mut(&mut self, key: &Key, name: &Name) -> &mut Node {
        let empty = || Node { name: shown(name).into(), is_configured_apex: false, sets: Vec::new() };
        self.nodes.entry(key.full().into()).or_insert_with(empty)
    }
}

impl Node {
    fn set(&self, record_type: RecordType) -> Option<&RecordSet> {
        self.sets.iter().find(|set| set.record_type == record_type).map(|set| &**set)
    }
}

/// Answering. Source: RFC 1034, section 4.3.2; RFC 2308; RFC 4592; RFC 8020.
impl Contents {
    /// Answers a question: the alias chain of its name, and what stands at the chain's end.
    pub(crate) fn answer(&self, question: &Question) -> Answer {
        let mut answer = Answer::bare(ResponseCode::NoError);
        let mut owner = question.name.clone();
        let mut home: Option<Box<[u8]>> = None;
        for _ in 0..=MAX_CHAIN {
            if answer.answers.iter().any(|alias| alias.name == owner) {
                break;
            }
            if self.settings.forwarded.iter().any(|apex| apex.zone_of(&owner)) {
                return self.onward(answer, question, owner);
            }
            let key = Key::of(&owner);
            let Some(zone) = self.zone_of(&key, &owner) else { return outside(answer, question, home.is_some()) };
            match &home {
                None => {
                    home = Some(zone.apex.into());
                    answer.authoritative = true;
                }
                // An authority speaks for its zone only; who wants the rest asks there.
                Some(home) if **home != *zone.apex && !question.recursion_desired => return answer,
                Some(_) => {}
            }
            if let Some(servers) = self.delegation(&zone, &key, &owner, question.record_type) {
                return self.refer(answer, question, servers);
            }
            let Some(source) = self.source(&zone, &key) else {
                answer.code = ResponseCode::NXDomain;
                answer.authorities.push(self.negative_soa(&zone));
                return answer;
            };
            let Some((alias, target)) = self.alias(&source, &owner, question.record_type) else {
                return self.conclude(answer, question, &zone, &source, &owner);
            };
            answer.answers.push(alias);
            owner = target;
        }
        // The chain is a circle or too long. A resolver calls that a failure; an authority has said what it knows.
        if question.recursion_desired { Answer::bare(ResponseCode::ServFail) } else { answer }
    }

    /// Another server's zone: a resolver asks it, an authority says no more than that it is not its own.
    fn onward(&self, mut answer: Answer, question: &Question, owner: Name) -> Answer {
        if question.recursion_desired {
            answer.onward = Some(owner);
        } else if answer.answers.is_empty() {
            answer.code = ResponseCode::Refused;
        }
        answer
    }

    fn conclude(&self, mut answer: Answer, question: &Question, zone: &Zone<'_>, source: &[u8], owner: &Name) -> Answer {
        let aliases = answer.answers.len();
        self.collect(zone, source, owner, question.record_type, &mut answer.answers);
        if answer.answers.len() == aliases {
            answer.authorities.push(self.negative_soa(zone));
        }
        answer.additionals = self.glue(&answer.answers[aliases..]);
        answer
    }

    /// The deepest apex at or above the name.
    fn zone_of<'k>(&self, key: &'k Key, name: &Name) -> Option<Zone<'k>> {
        let labels = (1..=key.labels()).rev().find(|&labels| self.is_apex(key.ancestor(labels), labels))?;
        Some(Zone { apex: key.ancestor(labels), labels, name: name.trim_to(labels).to_lowercase() })
    }

    fn is_apex(&self, key: &[u8], labels: usize) -> bool {
        let registered = self.settings.registered_labels;
        match self.nodes.get(key) {
            Some(node) if node.is_configured_apex || node.set(RecordType::Soa).is_some() || labels <= registered => true,
            _ => labels == registered && self.has_anything_at_or_below(key),
        }
    }

    fn has_anything_at_or_below(&self, key: &[u8]) -> bool {
        let mut from = self.nodes.range::<[u8], _>((Bound::Included(key), Bound::Unbounded));
        from.next().is_some_and(|(first, _)| first.starts_with(key))
    }

    /// Whether the name exists: by records of its own, by a name below it (an empty non-terminal), or because it is made up here.
    fn exists(&self, zone: &Zone<'_>, key: &[u8]) -> bool {
        key == zone.apex || self.has_anything_at_or_below(key) || self.is_own_name_server(zone, key)
    }

    /// The key whose data answers for the name: its own, or the wildcard's below its closest encloser (RFC 4592, section 3.3.1).
    fn source(&self, zone: &Zone<'_>, key: &Key) -> Option<Box<[u8]>> {
        if self.exists(zone, key.full()) {
            return Some(key.full().into());
        }
        let ancestors = (zone.labels..key.labels()).rev().map(|labels| key.ancestor(labels));
        let encloser = ancestors.into_iter().find(|ancestor| self.exists(zone, ancestor))?;
        let wildcard = wildcard_below(encloser);
        self.has_anything_at_or_below(&wildcard).then(|| wildcard.into())
    }

    /// The alias at a name, unless the alias itself is what was asked for.
    fn alias(&self, source: &[u8], owner: &Name, wanted: WireType) -> Option<(Answered, Name)> {
        if matches!(wanted, WireType::CNAME | WireType::ANY) {
            return None;
        }
        let set = self.nodes.get(source)?.set(RecordType::Cname)?;
        let rdata = set.rdata().next()?;
        let RData::CNAME(target) = rdata else { return None };
        Some((self.record(owner, set.ttl, rdata.clone()), target.0.clone()))
    }

    /// Everything of one type at a name, made-up records included.
    fn collect(&self, zone: &Zone<'_>, source: &[u8], owner: &Name, wanted: WireType, into: &mut Vec<Answered>) {
        let node = self.nodes.get(source);
        for set in node.iter().flat_map(|node| &node.sets) {
            if wanted == WireType::ANY || wanted == set.record_type.wire() {
                into.extend(set.rdata().map(|rdata| self.record(owner, set.ttl, rdata.clone())));
            }
        }
        let lacks = |record_type| node.is_none_or(|node| node.set(record_type).is_none());
        let wants = |record_type: RecordType| (wanted == WireType::ANY || wanted == record_type.wire()) && lacks(record_type);
        if source == zone.apex {
            if wants(RecordType::Soa) {
                into.push(self.record(owner, None, RData::SOA(self.own_soa(zone))));
            }
            if wants(RecordType::Ns) {
                into.push(self.record(owner, None, RData::NS(NS(own_name_server(zone)))));
            }
        }
        if self.is_own_name_server(zone, source) {
            match self.settings.address {
                IpAddr::V4(address) if wants(RecordType::A) => into.push(self.record(owner, None, RData::A(A(address)))),
                IpAddr::V6(address) if wants(RecordType::Aaaa) => into.push(self.record(owner, None, RData::AAAA(AAAA(address)))),
                _ => {}
            }
        }
    }

    fn record(&self, owner: &Name, ttl: Option<u32>, rdata: RData) -> Answered {
        Answered::from_rdata(owner.clone(), ttl.unwrap_or(self.settings.default_ttl), rdata)
    }

    /// Whether this is the name server that a zone without NS records of its own is given, and no alias took its place.
    fn is_own_name_server(&self, zone: &Zone<'_>, key: &[u8]) -> bool {
        key.strip_prefix(zone.apex) == Some(b"\x03ns1")
            && self.nodes.get(zone.apex).is_none_or(|apex| apex.set(RecordType::Ns).is_none())
            && self.nodes.get(key).is_none_or(|node| node.set(RecordType::Cname).is_none())
    }

    fn own_soa(&self, zone: &Zone<'_>) -> SOA {
        let mailbox = zone.name.prepend_label("hostmaster").unwrap_or_else(|_| zone.name.clone());
        let (refresh, retry, expire) = SOA_TIMES;
        // Serial numbers wrap by design (RFC 1982), so the low half is all that is needed.
        let serial = self.changes as u32;
        SOA::new(own_name_server(zone), mailbox, serial, refresh, retry, expire, NEGATIVE_TTL_SECONDS)
    }

    /// The SOA record that says for how long an absence may be remembered (RFC 2308, section 3).
    fn negative_soa(&self, zone: &Zone<'_>) -> Answered {
        let own = self.nodes.get(zone.apex).and_then(|apex| apex.set(RecordType::Soa));
        let stored = own.and_then(|set| Some((set.ttl?, set.rdata().next()?.clone())));
        let (ttl, rdata) = stored.unwrap_or_else(|| (self.settings.default_ttl, RData::SOA(self.own_soa(zone))));
        let minimum = if let RData::SOA(soa) = &rdata { soa.minimum } else { NEGATIVE_TTL_SECONDS };
        Answered::from_rdata(zone.name.clone(), ttl.min(minimum), rdata)
    }

    /// The NS records of a cut between the apex and the name, if its owner handed that part of the zone away.
    fn delegation(&self, zone: &Zone<'_>, key: &Key, owner: &Name, wanted: WireType) -> Option<Vec<Answered>> {
        let cut = (zone.labels + 1..=key.labels()).find_map(|labels| {
            let set = self.nodes.get(key.ancestor(labels))?.set(RecordType::Ns)?;
            Some((labels, set))
        });
        let (labels, set) = cut?;
        // DS is the one type that the parent answers at the cut itself (RFC 4035, section 3.1.4.1).
        if wanted == WireType::DS && labels == key.labels() {
            return None;
        }
        let cut = owner.trim_to(labels).to_lowercase();
        Some(set.rdata().map(|rdata| self.record(&cut, set.ttl, rdata.clone())).collect())
    }

    fn refer(&self, mut answer: Answer, question: &Question, servers: Vec<Answered>) -> Answer {
        // As a resolver we would have to ask those servers, and there is no network of name servers here to ask.
        if question.recursion_desired {
            return Answer::bare(ResponseCode::ServFail);
        }
        answer.authoritative = !answer.answers.is_empty();
        answer.additionals = self.glue(&servers);
        answer.authorities = servers;
        answer
    }

    /// The addresses, as far as they are stored here, of the name servers among these records.
    fn glue(&self, records: &[Answered]) -> Vec<Answered> {
        let mut glue = Vec::new();
        for record in records {
            let RData::NS(NS(server)) = &record.data else { continue };
            let key = Key::of(server);
            if let Some(zone) = self.zone_of(&key, server) {
                self.collect(&zone, key.full(), server, WireType::A, &mut glue);
                self.collect(&zone, key.full(), server, WireType::AAAA, &mut glue);
            }
        }
        glue
    }
}

/// What is said of a name in no zone: an authority is not responsible; for a resolver, the rest of the world is empty here.
fn outside(mut answer: Answer, question: &Question, was_alias: bool) -> Answer {
    if question.recursion_desired {
        answer.code = ResponseCode::NXDomain;
        let root = Name::root();
        let (refresh, retry, expire) = SOA_TIMES;
        let soa = SOA::new(root.clone(), root.clone(), 1, refresh, retry, expire, NEGATIVE_TTL_SECONDS);
        answer.authorities.push(Answered::from_rdata(root, NEGATIVE_TTL_SECONDS, RData::SOA(soa)));
    } else if !was_alias {
        answer.code = ResponseCode::Refused;
    }
    answer
}

fn own_name_server(zone: &Zone<'_>) -> Name {
    // Only an apex within five bytes of the longest name has no room for it; then the apex serves itself.
    zone.name.prepend_label("ns1").unwrap_or_else(|_| zone.name.clone())
}

#[cfg(test)]
mod tests;
