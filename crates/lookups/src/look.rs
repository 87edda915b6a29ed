//! One look: the questions in waves, each as wide as it can be, none that an earlier answer made needless.
//!
//! Arrives: a [`LookSubject`]. Leaves: a [`Look`]. Goes wrong: nothing as a whole; see the crate's own words.
//!
//! 1. the resolver: CNAME at the hostname (never at a registered domain, which cannot have one), TXT at the proof's name
//! 2. the resolver: the zone's servers, then their addresses where they did not come along
//! 3. every server: the same two questions
//! 4. addresses, only while no CNAME leads to a target; the panel's doubled names, only while neither proof is in sight
//! 5. what [`crate::further`] makes of these: CAA and HTTPS where the name leads here, a wildcard where it does not, DNSSEC where the
//!    resolver fails
//!
//! The delegation of dns-01 challenges is asked of the resolver in wave 1, and of two servers in wave 3 when the customer is asked for it or
//! the resolver shows anything but its absence.

use std::sync::Arc;

use async_trait::async_trait;
use domains::{Answer, Asked, ChainEnd, Failure, Further, Look, LookSubject, Observed, OwnershipLookup, ServerAnswer, ZoneCut};
use futures_util::future::{join, join_all};
use hickory_proto::{
    op::Message,
    rr::{Name, RecordType},
};

use crate::{
    LookupConfig,
    budget::Budget,
    exchange::{Exchange, Question},
    further::First,
    reading::{self, MAX_CHAIN, Voice, text_of},
    zone::{Server, Zone},
};

/// Looks at DNS. Cheap to share; it holds no answers.
#[derive(Clone, Debug)]
pub struct Lookups {
    config: Arc<LookupConfig>,
    exchange: Arc<Exchange>,
}

impl Lookups {
    /// Makes one, for as many looks at once as there may be.
    pub fn new(config: LookupConfig) -> Self {
        let exchange = Exchange::new(config.query_timeout, config.max_in_flight);
        Self { config: Arc::new(config), exchange: Arc::new(exchange) }
    }
}

#[async_trait]
impl OwnershipLookup for Lookups {
    async fn look(&self, subject: &LookSubject) -> Look {
        let budget = Budget::new(self.config.look_budget, self.config.max_queries);
        Walk { config: &self.config, exchange: &self.exchange, budget }.look(subject).await
    }
}

/// One look under way.
pub(crate) struct Walk<'l> {
    pub(crate) config: &'l LookupConfig,
    exchange: &'l Exchange,
    budget: Budget,
}

/// What one server said in the first round of questions to it.
pub(crate) struct Said {
    pub(crate) server: Server,
    /// `None` at an apex, where it is not asked.
    pub(crate) cname: Option<Answer>,
    pub(crate) txt: Answer,
    /// `None` where it was not asked.
    delegation: Option<Answer>,
}

/// How many of a zone's servers are asked for the delegation: a look's queries are few, and those two tell a forgotten secondary.
const DELEGATION_SERVERS: usize = 2;

/// The names a look asks about.
pub(crate) struct Names {
    pub(crate) hostname: Name,
    /// `None` when the proof's name does not fit into DNS.
    pub(crate) txt: Option<Name>,
    /// `None` when nobody looks for a delegation.
    delegation: Option<Name>,
    /// Whether the hostname can have a CNAME.
    pub(crate) aliasable: bool,
    /// The name nothing above which is asked about, but for CAA.
    pub(crate) floor: Name,
}

impl Walk<'_> {
    async fn look(self, subject: &LookSubject) -> Look {
        let Some(names) = Names::of(subject) else { return self.unaskable(subject) };
        let no_cname = async { None };
        let ask_cname = async { Some(self.ask_resolver(checked(&names.hostname, RecordType::CNAME)).await) };
        let ask_delegation = async {
            match &names.delegation {
                Some(name) => Some(self.at_resolver(Some(name), RecordType::CNAME).await),
                None => None,
            }
        };
        let ((cname, txt), delegation_at_resolver) = join(
            join(
                async { if names.aliasable { ask_cname.await } else { no_cname.await } },
                self.at_resolver(names.txt.as_ref(), RecordType::TXT),
            ),
            ask_delegation,
        )
        .await;
        let in_sight = |answer: &Answer| !answer.records().is_empty() || answer.failure().is_some();
        let wanted = subject.delegation.as_ref().is_some_and(|delegation| delegation.wanted);
        let asks_delegation = delegation_at_resolver.as_ref().is_some_and(|answer| wanted || in_sight(answer));
        let cname_at_resolver =
            cname.as_ref().map_or(Answer::NoData, |reply| reading::answer(reply, &names.hostname, RecordType::CNAME, Voice::Resolver));

        let zone = self.find_zone(names.closest_zone(cname.as_ref()), &names.floor).await;
        let servers = match &zone {
            Ok(zone) => self.servers(zone, &names.hostname).await,
            Err(_) => Vec::new(),
        };
        let (walk, names) = (&self, &names);
        let said =
            join_all(servers.into_iter().enumerate().map(|(number, server)| async move {
                walk.first_round(server, names, asks_delegation && number < DELEGATION_SERVERS).await
            }))
            .await;
        let delegation = delegation_at_resolver.filter(|_| asks_delegation).map(|resolver| Observed {
            name: subject.delegation.as_ref().map(|delegation| delegation.name.clone()).unwrap_or_default(),
            authority: said.iter().filter_map(|said| Some(said.server.says(said.delegation.clone()?))).collect(),
            resolver,
        });

        let cname = Observed {
            name: text_of(&names.hostname),
            authority: said.iter().filter_map(|said| Some(said.server.says(said.cname.clone()?))).collect(),
            resolver: cname_at_resolver,
        };
        let txt = Observed {
            name: subject.txt_name.clone(),
            authority: said.iter().map(|said| said.server.says(said.txt.clone())).collect(),
            resolver: txt,
        };
        let ((a, aaaa, chain, chain_end), (txt_doubled, cname_doubled)) =
            join(self.addresses(subject, names, &cname, &said), self.doubled(subject, names, &cname, &txt, &said, zone.as_ref().ok()))
                .await;
        let first = First {
            subject,
            names,
            delegation: delegation.as_ref(),
            cname: &cname,
            txt: &txt,
            a: &a,
            aaaa: &aaaa,
            chain: &chain,
            said: &said,
        };
        let further = Further { cname_doubled, ..self.further(&first, zone.as_ref().ok()).await };
        let zone = zone.map(|zone| ZoneCut { apex: text_of(&zone.apex), servers: zone.servers.iter().map(text_of).collect() });
        Look { zone, cname, chain, chain_end, a, aaaa, txt, txt_doubled, delegation, further, queries: self.budget.sent() }
    }

    async fn first_round(&self, server: Server, names: &Names, asks_delegation: bool) -> Said {
        let cname = async {
            match names.aliasable {
                true => Some(self.at_server(&server, &names.hostname, RecordType::CNAME).await),
                false => None,
            }
        };
        let txt = async {
            match &names.txt {
                Some(name) => self.at_server(&server, name, RecordType::TXT).await,
                None => unaskable(),
            }
        };
        let delegation = async {
            match names.delegation.as_ref().filter(|_| asks_delegation) {
                Some(name) => Some(self.at_server(&server, name, RecordType::CNAME).await),
                None => None,
            }
        };
        let ((cname, txt), delegation) = join(join(cname, txt), delegation).await;
        Said { cname, txt, delegation, server }
    }

    /// A and AAAA at the hostname, and the chain that the resolver follows to them.
    async fn addresses(
        &self,
        subject: &LookSubject,
        names: &Names,
        cname: &Observed,
        said: &[Said],
    ) -> (Observed, Observed, Vec<String>, ChainEnd) {
        let observed = |resolver, authority| Observed { name: text_of(&names.hostname), authority, resolver };
        if target_settles_it(cname, subject) {
            // The chain ends in our own zone, whose addresses are not the customer's to mend. The resolver's view first: it is what people
            // reach today.
            let chain = std::iter::once(&cname.resolver).chain(from_authority(cname)).find_map(|answer| answer.records().first().cloned());
            let skipped = || observed(Answer::NoData, Vec::new());
            return (skipped(), skipped(), chain.into_iter().collect(), ChainEnd::Complete);
        }
        if nowhere(cname) {
            // What does not exist has no records of any type (RFC 8020).
            let denied = || observed(Answer::NxDomain, cname.authority.clone());
            return (denied(), denied(), Vec::new(), ChainEnd::Complete);
        }
        // A server that shows a CNAME has no addresses of its own for the name.
        let without_alias: Vec<&Said> =
            said.iter().filter(|said| said.cname.as_ref().is_none_or(|answer| answer.records().is_empty())).collect();
        let from_servers = async |record_type| {
            join_all(without_alias.iter().map(|said| async move {
                said.server.says(match said.unusable() {
                    Some(failure) => Answer::Failed(failure),
                    None => self.at_server(&said.server, &names.hostname, record_type).await,
                })
            }))
            .await
        };
        let ((a_reply, aaaa_reply), (a_servers, aaaa_servers)) = join(
            join(self.ask_resolver(checked(&names.hostname, RecordType::A)), self.ask_resolver(checked(&names.hostname, RecordType::AAAA))),
            join(from_servers(RecordType::A), from_servers(RecordType::AAAA)),
        )
        .await;
        let a = reading::answer(&a_reply, &names.hostname, RecordType::A, Voice::Resolver);
        let aaaa = reading::answer(&aaaa_reply, &names.hostname, RecordType::AAAA, Voice::Resolver);
        let (chain, end) = match (&a_reply, &aaaa_reply) {
            (Ok(message), _) if a.failure().is_none() => reading::chain(message, &names.hostname),
            (_, Ok(message)) if aaaa.failure().is_none() => reading::chain(message, &names.hostname),
            _ => self.walk_chain(&names.hostname, cname).await,
        };
        (observed(a, a_servers), observed(aaaa, aaaa_servers), chain.iter().map(text_of).collect(), end)
    }

    /// Follows the chain link by link: resolvers fail on one that loops or is too long, and do not say which.
    async fn walk_chain(&self, hostname: &Name, cname: &Observed) -> (Vec<Name>, ChainEnd) {
        let mut names: Vec<Name> = Vec::new();
        let mut link = cname.resolver.clone();
        loop {
            let next = match &link {
                Answer::Records(targets) => targets.first().and_then(|target| fqdn(target)),
                Answer::NoData | Answer::NxDomain => return (names, ChainEnd::Complete),
                Answer::Failed(_) => return (names, ChainEnd::Unknown),
            };
            let Some(next) = next else { return (names, ChainEnd::Unknown) };
            let seen = next == *hostname || names.contains(&next);
            if !seen && names.len() == MAX_CHAIN {
                return (names, ChainEnd::TooLong);
            }
            names.push(next.clone());
            if seen {
                return (names, ChainEnd::Loop);
            }
            link = self.at_resolver(Some(&next), RecordType::CNAME).await;
        }
    }

    /// TXT and CNAME with the zone repeated after their names; `None` unless something stands there. One server is enough to tell.
    async fn doubled(
        &self,
        subject: &LookSubject,
        names: &Names,
        cname: &Observed,
        txt: &Observed,
        said: &[Said],
        zone: Option<&Zone>,
    ) -> (Option<Observed>, Option<Asked>) {
        let in_sight = from_authority(txt).chain([&txt.resolver]).any(|answer| !answer.records().is_empty());
        let usable = said.iter().find(|said| said.txt.failure().is_none());
        let (Some(zone), Some(Said { server, .. }), false) = (zone, usable, in_sight || shows_target(cname, subject)) else {
            return (None, None);
        };
        let doubled = |name: &Name| name.clone().append_domain(&zone.apex).ok();
        let at_txt = async {
            let name = doubled(names.txt.as_ref()?)?;
            let answer = self.at_server(server, &name, RecordType::TXT).await;
            if answer.records().is_empty() {
                return None;
            }
            let resolver = self.at_resolver(Some(&name), RecordType::TXT).await;
            Some(Observed { name: text_of(&name), authority: vec![server.says(answer)], resolver })
        };
        let at_hostname = async {
            let name = doubled(&names.hostname).filter(|_| names.aliasable)?;
            let answer = self.at_server(server, &name, RecordType::CNAME).await;
            is_target(&answer, subject).then(|| server.asked(&name, answer))
        };
        join(at_txt, at_hostname).await
    }

    pub(crate) async fn ask_resolver(&self, question: Question<'_>) -> Result<Message, Failure> {
        self.exchange.ask(self.config.resolver, question, &self.budget).await
    }

    pub(crate) async fn at_resolver(&self, name: Option<&Name>, record_type: RecordType) -> Answer {
        let Some(name) = name else { return unaskable() };
        reading::answer(&self.ask_resolver(checked(name, record_type)).await, name, record_type, Voice::Resolver)
    }

    pub(crate) async fn at_server(&self, server: &Server, name: &Name, record_type: RecordType) -> Answer {
        reading::answer(&self.reply_of(server, name, record_type).await, name, record_type, Voice::Authority)
    }

    pub(crate) async fn reply_of(&self, server: &Server, name: &Name, record_type: RecordType) -> Result<Message, Failure> {
        let question = Question { name, record_type, recursive: false, unchecked: false, signed: false };
        match &server.address {
            Ok(address) => self.exchange.ask(*address, question, &self.budget).await,
            Err(failure) => Err(failure.clone()),
        }
    }

    fn unaskable(&self, subject: &LookSubject) -> Look {
        let observed = |name: &str| Observed { name: name.to_owned(), authority: Vec::new(), resolver: unaskable() };
        let hostname = subject.hostname.as_str();
        Look {
            zone: Err(unaskable()),
            cname: observed(hostname),
            chain: Vec::new(),
            chain_end: ChainEnd::Unknown,
            a: observed(hostname),
            aaaa: observed(hostname),
            txt: observed(&subject.txt_name),
            txt_doubled: None,
            further: Further::default(),
            delegation: None,
            queries: 0,
        }
    }
}

impl Names {
    fn of(subject: &LookSubject) -> Option<Self> {
        let hostname = &subject.hostname;
        let floor = hostname.registered_domain().unwrap_or(hostname.base());
        Some(Self {
            hostname: fqdn(hostname.as_str())?,
            txt: fqdn(&subject.txt_name),
            delegation: subject.delegation.as_ref().and_then(|delegation| fqdn(&delegation.name)),
            aliasable: subject.can_be_alias(),
            floor: fqdn(floor)?,
        })
    }

    /// Where the search for the zone starts: as near to it as the answer for the hostname's CNAME shows.
    fn closest_zone(&self, cname: Option<&Result<Message, Failure>>) -> Name {
        let hinted = match cname {
            Some(Ok(message)) if message.answers.is_empty() => {
                reading::denying_zone(message).filter(|zone| self.floor.zone_of(zone) && zone.zone_of(&self.hostname)).cloned()
            }
            // An alias is no zone's apex, so the zone begins above it.
            Some(Ok(_)) => Some(self.hostname.base_name()),
            _ => None,
        };
        let start = hinted.unwrap_or_else(|| self.hostname.clone());
        // A wildcard is no zone either.
        let start = if start.is_wildcard() { start.base_name() } else { start };
        if self.floor.zone_of(&start) { start.to_lowercase() } else { self.floor.clone() }
    }
}

impl Server {
    fn says(&self, answer: Answer) -> ServerAnswer {
        ServerAnswer { server: self.label.to_string(), answer }
    }

    pub(crate) fn asked(&self, name: &Name, answer: Answer) -> Asked {
        Asked { name: text_of(name), server: self.label.to_string(), answer }
    }
}

impl Said {
    /// Why there is no use in asking this server more: nothing it was asked brought an answer.
    fn unusable(&self) -> Option<Failure> {
        let failure = self.txt.failure()?;
        self.cname.as_ref().is_none_or(|cname| cname.failure().is_some()).then(|| failure.clone())
    }
}

/// Whether this is a CNAME to a target of ours, this claim's or another's.
fn is_target(answer: &Answer, subject: &LookSubject) -> bool {
    let is_target = |name: &String| name.strip_suffix(&subject.targets_zone).is_some_and(|label| label.ends_with('.'));
    answer.records().iter().any(is_target)
}

/// Whether anybody shows a CNAME to a target.
pub(crate) fn shows_target(cname: &Observed, subject: &LookSubject) -> bool {
    is_target(&cname.resolver, subject) || from_authority(cname).any(|answer| is_target(answer, subject))
}

/// Whether a CNAME to a target says all there is to say about where the hostname leads: when a server of the zone shows it, or when only
/// the resolver could be asked. A resolver that still shows what the zone has taken away settles nothing.
fn target_settles_it(cname: &Observed, subject: &LookSubject) -> bool {
    from_authority(cname).any(|answer| is_target(answer, subject))
        || is_target(&cname.resolver, subject) && from_authority(cname).all(|answer| answer.failure().is_some())
}

pub(crate) fn from_authority(observed: &Observed) -> impl Iterator<Item = &Answer> {
    observed.authority.iter().map(|said| &said.answer)
}

/// Whether everybody agrees that the hostname does not exist.
fn nowhere(cname: &Observed) -> bool {
    cname.resolver == Answer::NxDomain && !cname.authority.is_empty() && from_authority(cname).all(|answer| *answer == Answer::NxDomain)
}

/// A question about the records under judgement, which must pass whatever the resolver checks.
pub(crate) fn checked(name: &Name, record_type: RecordType) -> Question<'_> {
    Question { name, record_type, recursive: true, unchecked: false, signed: false }
}

fn unaskable() -> Answer {
    Answer::Failed(Failure::Malformed { detail: "the name does not fit into DNS".into() })
}

pub(crate) fn fqdn(name: &str) -> Option<Name> {
    let mut name = Name::from_ascii(name).ok()?;
    name.set_fqdn(true);
    Some(name)
}
