use super::*;

use crate::names::parse_name;

/// The example zone of RFC 4592, section 2.2.1, beside a customer's and the operator's.
fn contents() -> Contents {
    let settings = Settings { address: [127, 0, 0, 1].into(), default_ttl: 60, registered_labels: 2, forwarded: Vec::new() };
    let mut contents = Contents::new(settings, &[parse_name("edge.np.test").unwrap()], 0);
    for (name, record_type, data) in [
        ("*.example.lab", "TXT", "this is a wildcard"),
        ("*.example.lab", "MX", "10 host1.example.lab"),
        ("sub.*.example.lab", "TXT", "this is not a wildcard"),
        ("host1.example.lab", "A", "192.0.2.1"),
        ("_ssh._tcp.host1.example.lab", "TXT", "srv"),
        ("subdel.example.lab", "NS", "ns.elsewhere.lab"),
        ("shop.brand.test", "CNAME", "claim.t.edge.np.test"),
        ("alias.brand.test", "CNAME", "shop.brand.test"),
        ("dangling.brand.test", "CNAME", "gone.brand.test"),
        ("away.brand.test", "CNAME", "nowhere.else"),
        ("*.t.edge.np.test", "A", "127.0.0.9"),
    ] {
        set(&mut contents, name, record_type, &[data]).unwrap();
    }
    contents
}

fn set(contents: &mut Contents, name: &str, record_type: &str, data: &[&str]) -> Result<Record, RecordError> {
    let stored = contents.edit(&[Edit::Set(record(name, record_type, data))]).map_err(|refused| refused.error)?;
    Ok(stored[0].clone())
}

fn record(name: &str, record_type: &str, data: &[&str]) -> Record {
    let data = data.iter().map(|&text| text.into()).collect();
    Record { name: name.into(), record_type: record_type.parse().unwrap(), ttl: None, data }
}

fn ask(contents: &Contents, name: &str, record_type: WireType, recursion_desired: bool) -> Answer {
    contents.answer(&Question { name: Name::from_ascii(name).unwrap(), record_type, recursion_desired, checking_disabled: false })
}

/// Owner, type and data of each record, one after the other.
fn lines(records: &[Answered]) -> Vec<String> {
    records.iter().map(|record| format!("{} {} {}", record.name, record.record_type(), record.data)).collect()
}

/// The zone whose SOA record says that something is absent.
fn denied_by(answer: &Answer) -> String {
    assert!(answer.answers.iter().all(|record| record.record_type() == WireType::CNAME));
    match answer.authorities.as_slice() {
        [soa] if soa.record_type() == WireType::SOA => soa.name.to_string(),
        other => panic!("no SOA in the authority section: {other:?}"),
    }
}

#[test]
fn the_wildcards_of_the_standards_own_example_answer_as_it_says() {
    // Source: RFC 4592, section 2.2.1.
    let contents = contents();
    let ask = |name, record_type| ask(&contents, name, record_type, false);

    assert_eq!(lines(&ask("host3.example.lab.", WireType::MX).answers), ["host3.example.lab. MX 10 host1.example.lab."]);
    assert_eq!(ask("host3.example.lab.", WireType::A).code, ResponseCode::NoError);
    assert_eq!(denied_by(&ask("host3.example.lab.", WireType::A)), "example.lab.");
    assert_eq!(ask("foo.bar.example.lab.", WireType::TXT).answers.len(), 1);

    for (name, record_type) in
        [("host1.example.lab.", WireType::MX), ("sub.*.example.lab.", WireType::MX), ("_tcp.host1.example.lab.", WireType::TXT)]
    {
        let answer = ask(name, record_type);
        assert_eq!((answer.code, denied_by(&answer).as_str()), (ResponseCode::NoError, "example.lab."), "{name}");
    }
    let below_a_name_that_exists = ask("_telnet._tcp.host1.example.lab.", WireType::TXT);
    assert_eq!(below_a_name_that_exists.code, ResponseCode::NXDomain);
    assert_eq!(ask("ghost.*.example.lab.", WireType::MX).code, ResponseCode::NXDomain);

    let referral = ask("host.subdel.example.lab.", WireType::A);
    assert!(!referral.authoritative && referral.answers.is_empty());
    assert_eq!(lines(&referral.authorities), ["subdel.example.lab. NS ns.elsewhere.lab."]);
}

#[test]
fn a_name_below_a_target_switches_the_wildcard_off_for_that_target_only() {
    let mut contents = contents();
    let target = |contents: &Contents| ask(contents, "claim.t.edge.np.test.", WireType::A, false);
    assert_eq!(lines(&target(&contents).answers), ["claim.t.edge.np.test. A 127.0.0.9"]);

    set(&mut contents, "_acme-challenge.claim.t.edge.np.test", "TXT", &["x"]).unwrap();
    let switched_off = target(&contents);
    assert_eq!((switched_off.code, denied_by(&switched_off).as_str()), (ResponseCode::NoError, "edge.np.test."));
    assert_eq!(ask(&contents, "other.t.edge.np.test.", WireType::A, false).answers.len(), 1);

    contents.remove(&parse_name("_acme-challenge.claim.t.edge.np.test").unwrap(), None);
    assert_eq!(target(&contents).answers.len(), 1);
}

#[test]
fn an_alias_is_followed_to_its_end_for_a_resolvers_client_and_to_the_zones_end_for_others() {
    let contents = contents();
    let whole = ask(&contents, "alias.brand.test.", WireType::A, true);
    assert_eq!(
        lines(&whole.answers),
        ["alias.brand.test. CNAME shop.brand.test.", "shop.brand.test. CNAME claim.t.edge.np.test.", "claim.t.edge.np.test. A 127.0.0.9"]
    );
    let own_zone = ask(&contents, "alias.brand.test.", WireType::A, false);
    assert_eq!(lines(&own_zone.answers), lines(&whole.answers)[..2]);
    assert_eq!((own_zone.code, own_zone.authorities.len()), (ResponseCode::NoError, 0));
    assert!(whole.authoritative && own_zone.authoritative);

    let the_alias_itself = ask(&contents, "alias.brand.test.", WireType::CNAME, true);
    assert_eq!(lines(&the_alias_itself.answers), lines(&whole.answers)[..1]);
}

#[test]
fn the_response_code_of_a_chain_is_that_of_its_last_name() {
    let contents = contents();
    for recursion_desired in [true, false] {
        let dangling = ask(&contents, "dangling.brand.test.", WireType::TXT, recursion_desired);
        assert_eq!((dangling.code, dangling.answers.len()), (ResponseCode::NXDomain, 1));
        assert_eq!(denied_by(&dangling), "brand.test.");
    }
    let away = ask(&contents, "away.brand.test.", WireType::A, true);
    assert_eq!((away.code, denied_by(&away).as_str()), (ResponseCode::NXDomain, "."));
    let away = ask(&contents, "away.brand.test.", WireType::A, false);
    assert_eq!((away.code, away.answers.len(), away.authorities.len()), (ResponseCode::NoError, 1, 0));
    let nodata = ask(&contents, "alias.brand.test.", WireType::AAAA, true);
    assert_eq!((nodata.code, denied_by(&nodata).as_str()), (ResponseCode::NoError, "edge.np.test."));
}

#[test]
fn a_circle_of_aliases_is_a_failure_for_a_resolvers_client_and_ends_for_others() {
    let mut contents = contents();
    set(&mut contents, "a.brand.test", "CNAME", &["b.brand.test"]).unwrap();
    set(&mut contents, "b.brand.test", "CNAME", &["A.brand.test"]).unwrap();
    let failure = ask(&contents, "a.brand.test.", WireType::A, true);
    assert_eq!((failure.code, failure.answers.len()), (ResponseCode::ServFail, 0));
    let known = ask(&contents, "a.brand.test.", WireType::A, false);
    assert_eq!((known.code, known.answers.len()), (ResponseCode::NoError, 2));
}

#[test]
fn a_chain_is_followed_as_far_as_the_limit_and_no_further() {
    let mut contents = contents();
    for n in 0..=MAX_CHAIN {
        set(&mut contents, &format!("n{n}.long.test"), "CNAME", &[&format!("n{}.long.test", n + 1)]).unwrap();
    }
    let end = format!("n{}.long.test", MAX_CHAIN + 1);
    set(&mut contents, &end, "A", &["127.0.0.1"]).unwrap();
    let allowed = ask(&contents, "n1.long.test.", WireType::A, true);
    assert_eq!((allowed.code, allowed.answers.len()), (ResponseCode::NoError, MAX_CHAIN + 1));
    assert_eq!(ask(&contents, "n0.long.test.", WireType::A, true).code, ResponseCode::ServFail);
}

#[test]
fn every_zone_has_its_start_its_name_server_and_that_servers_address() {
    let contents = contents();
    for zone in ["edge.np.test.", "brand.test.", "np.test."] {
        let soa = ask(&contents, zone, WireType::SOA, false);
        assert!(soa.authoritative && lines(&soa.answers)[0].starts_with(&format!("{zone} SOA ns1.{zone} hostmaster.{zone}")), "{soa:?}");
        let servers = ask(&contents, zone, WireType::NS, false);
        assert_eq!(lines(&servers.answers), [format!("{zone} NS ns1.{zone}")]);
        assert_eq!(lines(&servers.additionals), [format!("ns1.{zone} A 127.0.0.1")]);
        assert_eq!(lines(&ask(&contents, &format!("ns1.{zone}"), WireType::A, false).answers), lines(&servers.additionals));
        assert_eq!(denied_by(&ask(&contents, zone, WireType::A, false)), zone);
    }
}

#[test]
fn a_name_that_is_no_apex_has_neither_start_nor_name_server() {
    let contents = contents();
    for (name, code) in [("t.edge.np.test.", ResponseCode::NoError), ("no.edge.np.test.", ResponseCode::NXDomain)] {
        for record_type in [WireType::SOA, WireType::NS] {
            let answer = ask(&contents, name, record_type, false);
            assert_eq!((answer.code, denied_by(&answer).as_str()), (code, "edge.np.test."), "{name} {record_type}");
        }
    }
}

#[test]
fn records_of_the_owners_own_take_the_place_of_what_is_made_up() {
    let mut contents = contents();
    let soa = "ns.brand.test admin.brand.test 7 1 2 3 30";
    set(&mut contents, "brand.test", "SOA", &[soa]).unwrap();
    set(&mut contents, "brand.test", "NS", &["ns.brand.test"]).unwrap();
    set(&mut contents, "ns.brand.test", "AAAA", &["::1"]).unwrap();

    let servers = ask(&contents, "brand.test.", WireType::NS, false);
    assert_eq!(lines(&servers.answers), ["brand.test. NS ns.brand.test."]);
    assert_eq!(lines(&servers.additionals), ["ns.brand.test. AAAA ::1"]);
    let absent = ask(&contents, "ns1.brand.test.", WireType::A, false);
    assert_eq!((absent.code, absent.authorities[0].ttl), (ResponseCode::NXDomain, 30));
    assert!(lines(&absent.authorities)[0].ends_with("ns.brand.test. admin.brand.test. 7 1 2 3 30"));
}

#[test]
fn a_soa_record_makes_a_zone_of_its_own() {
    let mut contents = contents();
    set(&mut contents, "own.brand.test", "SOA", &["ns1.own.brand.test admin.brand.test 1 2 3 4 5"]).unwrap();
    assert_eq!(denied_by(&ask(&contents, "x.own.brand.test.", WireType::A, false)), "own.brand.test.");
    assert_eq!(denied_by(&ask(&contents, "x.brand.test.", WireType::A, false)), "brand.test.");
    contents.remove(&parse_name("own.brand.test").unwrap(), None);
    assert_eq!(denied_by(&ask(&contents, "x.own.brand.test.", WireType::A, false)), "brand.test.");
}

#[test]
fn a_name_in_no_zone_is_refused_by_the_authority_and_unknown_to_the_resolver() {
    let contents = contents();
    let refused = ask(&contents, "www.unknown.test.", WireType::A, false);
    assert_eq!((refused.code, refused.authoritative, refused.authorities.len()), (ResponseCode::Refused, false, 0));
    let unknown = ask(&contents, "www.unknown.test.", WireType::A, true);
    assert_eq!((unknown.code, denied_by(&unknown).as_str()), (ResponseCode::NXDomain, "."));
    assert!(!unknown.authoritative);
}

#[test]
fn a_delegated_name_is_referred_with_glue_and_is_a_failure_for_a_resolvers_client() {
    let mut contents = contents();
    set(&mut contents, "ns.elsewhere.lab", "A", &["127.0.0.8"]).unwrap();
    let referral = ask(&contents, "subdel.example.lab.", WireType::NS, false);
    assert!(!referral.authoritative);
    assert_eq!(lines(&referral.additionals), ["ns.elsewhere.lab. A 127.0.0.8"]);
    assert_eq!(ask(&contents, "x.subdel.example.lab.", WireType::A, true).code, ResponseCode::ServFail);
    assert_eq!(denied_by(&ask(&contents, "subdel.example.lab.", WireType::DS, false)), "example.lab.");
}

#[test]
fn names_are_found_in_any_letters_and_the_askers_letters_come_back() {
    let answer = ask(&contents(), "hOsT1.eXample.LAB.", WireType::A, false);
    assert!(answer.answers[0].name.eq_case(&Name::from_ascii("hOsT1.eXample.LAB.").unwrap()));
}

#[test]
fn an_alias_stands_alone_and_never_at_an_apex() {
    let mut contents = contents();
    let beside = set(&mut contents, "host1.example.lab", "CNAME", &["x.test"]).unwrap_err();
    assert!(matches!(beside, RecordError::CnameConflict { present: RecordType::A, .. }) && beside.is_conflict());
    let beside = set(&mut contents, "Shop.brand.test", "TXT", &["x"]).unwrap_err();
    assert!(matches!(beside, RecordError::CnameConflict { present: RecordType::Cname, .. }));
    for apex in ["brand.test", "edge.np.test", "empty.test", "test"] {
        let at_apex = set(&mut contents, apex, "CNAME", &["x.test"]).unwrap_err();
        assert_eq!(at_apex, RecordError::CnameAtApex { name: apex.into() });
    }
    set(&mut contents, "shop.brand.test", "CNAME", &["other.t.edge.np.test"]).unwrap();
    assert_eq!(ask(&contents, "shop.brand.test.", WireType::TXT, false).answers.len(), 1);
}

#[test]
fn a_list_with_one_bad_record_changes_nothing() {
    let mut contents = contents();
    let (before, changes) = (everything(&contents), contents.changes());
    let edits = [
        Edit::Set(record("host1.example.lab", "A", &["192.0.2.2"])),
        Edit::Add(record("new.example.lab", "A", &["192.0.2.3"])),
        Edit::Add(record("new.example.lab", "TXT", &["x"])),
        Edit::Set(record("new.example.lab", "CNAME", &["x.test"])),
    ];
    let refused = contents.edit(&edits).unwrap_err();
    assert_eq!(refused.index, 3);
    assert_eq!((everything(&contents), contents.changes()), (before, changes));
    assert_eq!(ask(&contents, "new.example.lab.", WireType::A, false).answers.len(), 0);
}

#[test]
fn adding_keeps_what_is_there_and_setting_does_not() {
    let mut contents = contents();
    let add = Edit::Add(Record { ttl: Some(9), ..record("host1.example.lab", "A", &["192.0.2.2", "192.0.2.1"]) });
    let sum = contents.edit(&[add]).unwrap().remove(0);
    assert_eq!((sum.data, sum.ttl), (vec!["192.0.2.1".to_owned(), "192.0.2.2".to_owned()], Some(9)));
    assert!(ask(&contents, "host1.example.lab.", WireType::A, false).answers.iter().all(|record| record.ttl == 9));
    assert_eq!(set(&mut contents, "host1.example.lab", "A", &["192.0.2.7"]).unwrap().data, ["192.0.2.7"]);
}

#[test]
fn a_zone_ends_with_its_last_record() {
    let mut contents = contents();
    for name in ["shop", "alias", "dangling", "away"] {
        assert_eq!(contents.remove(&parse_name(&format!("{name}.brand.test")).unwrap(), Some(RecordType::Cname)).len(), 1);
    }
    assert_eq!(ask(&contents, "brand.test.", WireType::SOA, false).code, ResponseCode::Refused);
    assert_eq!(ask(&contents, "edge.np.test.", WireType::SOA, false).answers.len(), 1, "a configured apex stays");
}

#[test]
fn the_serial_number_grows_with_every_change() {
    let mut contents = contents();
    let serial = |contents: &Contents| match &ask(contents, "brand.test.", WireType::SOA, false).answers[0].data {
        RData::SOA(soa) => soa.serial,
        other => panic!("{other:?}"),
    };
    let before = serial(&contents);
    set(&mut contents, "x.brand.test", "A", &["127.0.0.1"]).unwrap();
    let between = serial(&contents);
    contents.remove(&parse_name("x.brand.test").unwrap(), None);
    assert!(before < between && between < serial(&contents));
}

fn everything(contents: &Contents) -> Vec<Record> {
    contents.sets().iter().map(|(name, set)| set.to_record(name)).collect()
}
