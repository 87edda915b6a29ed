//! Whether the certificate that a CA returned is the one we asked for.
//!
//! Arrives: a PEM chain and what was asked. Leaves: an [`Issued`] whose chain is written anew, so that what is stored is exactly what was
//! checked. Goes wrong: a [`Difference`], and the certificate is thrown away.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bundles::Digest;
use domains::{Hostname, Issued};
use instant_acme::CertificateIdentifier;
use jiff::Timestamp;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate, X509CertificationRequest};

/// How far a certificate's first second may lie ahead of our clock: clocks differ, and a certificate that starts within a few minutes
/// starts before anybody is sent to it.
const CLOCK_TOLERANCE: Duration = Duration::from_mins(5);
/// The longest chain that is read; Let's Encrypt's default has four. Source: certificates of Let's Encrypt (read 2026-11).
const MOST_CERTIFICATES: usize = 10;

/// What was asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) hostname: &'a Hostname,
    /// SHA-256 of the key's SubjectPublicKeyInfo, hex.
    pub(crate) spki_sha256: &'a str,
    /// Where the chain must lead; empty accepts any chain that holds together.
    pub(crate) anchors: &'a [TrustAnchor<'static>],
    pub(crate) now: Timestamp,
}

/// How a certificate differs from what was asked for.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum Difference {
    #[error("the answer is not a PEM certificate chain")]
    NotPem,
    #[error("the chain has {0} certificates; at least the leaf and its issuer are needed, and at most {MOST_CERTIFICATES} are read")]
    Length(usize),
    #[error("certificate {0} of the chain does not parse")]
    NotX509(usize),
    #[error("the leaf is for the key {found}, not for ours {expected}")]
    Key { expected: String, found: String },
    #[error("the leaf is for [{found}], not for exactly {expected}")]
    Names { expected: String, found: String },
    #[error("the leaf may act as a CA")]
    LeafIsCa,
    #[error("the leaf is valid from {not_before} to {not_after}, but now is {now}")]
    Dates { not_before: Timestamp, not_after: Timestamp, now: Timestamp },
    #[error("certificate {0} of the chain is not followed by its issuer")]
    Broken(usize),
    #[error("the chain does not verify: {0}")]
    Unverified(String),
}

/// Checks a chain against what was asked: key, name, dates, every signature.
pub(crate) fn check_chain(pem: &str, asked: &Asked<'_>) -> Result<Issued, Difference> {
    let chain = read_chain(pem)?;
    let parsed: Vec<_> = chain
        .iter()
        .enumerate()
        .map(|(position, der)| match X509Certificate::from_der(der) {
            Ok(([], certificate)) => Ok(certificate),
            _ => Err(Difference::NotX509(position)),
        })
        .collect::<Result<_, _>>()?;
    let [leaf, issuers @ ..] = parsed.as_slice() else { return Err(Difference::Length(0)) };
    if issuers.is_empty() && asked.anchors.is_empty() {
        return Err(Difference::Length(1));
    }

    expect_key(leaf, asked.spki_sha256)?;
    expect_name(leaf, asked.hostname)?;
    if leaf.is_ca() {
        return Err(Difference::LeafIsCa);
    }
    let (not_before, not_after) = expect_dates(leaf, asked.now)?;
    // Clients build their path from the order in which a server sends it.
    if let Some(position) = parsed.windows(2).position(|pair| pair[0].issuer().as_raw() != pair[1].subject().as_raw()) {
        return Err(Difference::Broken(position));
    }
    verify(&chain, asked.anchors, asked.now.max(not_before))?;

    Ok(Issued {
        chain: chain.iter().map(to_pem).collect(),
        serial: hex(leaf.raw_serial()),
        not_before,
        not_after,
        ari_id: CertificateIdentifier::try_from(&chain[0]).ok().map(|id| id.to_string()),
    })
}

/// What a chain that was checked before says of itself; `None` when it does not read. Nothing is judged.
pub fn read_issued(pem: &str) -> Option<Issued> {
    let chain = read_chain(pem).ok()?;
    let (_, leaf) = X509Certificate::from_der(chain.first()?).ok()?;
    let moment = |at: i64| Timestamp::from_second(at).ok();
    Some(Issued {
        chain: pem.to_owned(),
        serial: hex(leaf.raw_serial()),
        not_before: moment(leaf.validity().not_before.timestamp())?,
        not_after: moment(leaf.validity().not_after.timestamp())?,
        ari_id: CertificateIdentifier::try_from(&chain[0]).ok().map(|id| id.to_string()),
    })
}

/// SHA-256 of the SubjectPublicKeyInfo in a CSR, hex; `None` when it is not a CSR.
pub(crate) fn spki_sha256_of_csr(der: &[u8]) -> Option<String> {
    match X509CertificationRequest::from_der(der) {
        Ok(([], csr)) => Some(Digest::of(csr.certification_request_info.subject_pki.raw).to_string()),
        _ => None,
    }
}

/// Reads roots for [`Asked::anchors`].
pub(crate) fn anchors_of(roots: &[CertificateDer<'static>]) -> Result<Vec<TrustAnchor<'static>>, webpki::Error> {
    roots.iter().map(|root| anchor_from_trusted_cert(root).map(|anchor| anchor.to_owned())).collect()
}

fn read_chain(pem: &str) -> Result<Vec<CertificateDer<'static>>, Difference> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .take(MOST_CERTIFICATES + 1)
        .collect::<Result<_, _>>()
        .map_err(|_| Difference::NotPem)?;
    match chain.len() {
        0 => Err(Difference::NotPem),
        1..=MOST_CERTIFICATES => Ok(chain),
        length => Err(Difference::Length(length)),
    }
}

fn expect_key(leaf: &X509Certificate<'_>, expected: &str) -> Result<(), Difference> {
    let found = Digest::of(leaf.public_key().raw).to_string();
    if found == expected { Ok(()) } else { Err(Difference::Key { expected: expected.to_owned(), found }) }
}

fn expect_name(leaf: &X509Certificate<'_>, expected: &Hostname) -> Result<(), Difference> {
    let extension = leaf.subject_alternative_name().ok().flatten();
    let names = extension.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
    match names {
        [GeneralName::DNSName(name)] if name.eq_ignore_ascii_case(expected.as_str()) => Ok(()),
        names => {
            let found: Vec<_> = names.iter().take(MOST_CERTIFICATES).map(ToString::to_string).collect();
            Err(Difference::Names { expected: expected.to_string(), found: super::problems::printable(&found.join(", ")) })
        }
    }
}

fn expect_dates(leaf: &X509Certificate<'_>, now: Timestamp) -> Result<(Timestamp, Timestamp), Difference> {
    let validity = leaf.validity();
    let seconds = |time: x509_parser::time::ASN1Time| Timestamp::from_second(time.timestamp()).map_err(|_| Difference::NotX509(0));
    let (not_before, not_after) = (seconds(validity.not_before)?, seconds(validity.not_after)?);
    let started = not_before <= now.checked_add(CLOCK_TOLERANCE).unwrap_or(Timestamp::MAX);
    if started && now < not_after { Ok((not_before, not_after)) } else { Err(Difference::Dates { not_before, not_after, now }) }
}

/// Verifies each signature up to an anchor; without anchors, up to the last certificate of the chain.
fn verify(chain: &[CertificateDer<'static>], anchors: &[TrustAnchor<'static>], at: Timestamp) -> Result<(), Difference> {
    let unverified = |error: webpki::Error| Difference::Unverified(error.to_string());
    let [leaf, issuers @ ..] = chain else { return Err(Difference::Length(0)) };
    let (own_anchor, intermediates);
    let anchors = match issuers {
        [between @ .., last] if anchors.is_empty() => {
            own_anchor = [anchor_from_trusted_cert(last).map_err(unverified)?];
            intermediates = between;
            &own_anchor
        }
        issuers => {
            intermediates = issuers;
            anchors
        }
    };
    let at = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(at.as_second()).unwrap_or_default()));
    EndEntityCert::try_from(leaf)
        .and_then(|leaf| {
            leaf.verify_for_usage(ALL_VERIFICATION_ALGS, anchors, intermediates, at, KeyUsage::server_auth(), None, None).map(|_| ())
        })
        .map_err(unverified)
}

fn to_pem(der: &CertificateDer<'_>) -> String {
    // RFC 7468, section 2: lines of 64.
    const LINE: usize = 64;
    let base64 = BASE64_STANDARD.encode(der);
    let mut pem = String::with_capacity(base64.len() + base64.len() / LINE + 64);
    pem.push_str("-----BEGIN CERTIFICATE-----\n");
    let mut rest = base64.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(LINE));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

/// A serial number in hex, without the zero that DER puts before a high bit.
fn hex(serial: &[u8]) -> String {
    let digits = match serial {
        [0, rest @ ..] if !rest.is_empty() => rest,
        whole => whole,
    };
    digits.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{
        BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
        PublicKeyData, SanType, SerialNumber,
    };

    const NAME: &str = "shop.brand.com";

    fn now() -> Timestamp {
        "2026-11-24T10:00:00Z".parse().unwrap()
    }

    struct TestCa {
        root: rcgen::Certificate,
        intermediate: rcgen::Certificate,
        issuer: Issuer<'static, KeyPair>,
    }

    impl TestCa {
        fn new(name: &str) -> Self {
            let (root_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
            let root_params = Self::params(&format!("{name} root"));
            let root = root_params.self_signed(&root_key).unwrap();
            let params = Self::params(&format!("{name} intermediate"));
            let intermediate = params.signed_by(&key, &Issuer::from_params(&root_params, &root_key)).unwrap();
            Self { root, intermediate, issuer: Issuer::new(params, key) }
        }

        fn params(name: &str) -> CertificateParams {
            let mut params = CertificateParams::default();
            params.distinguished_name = DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, name);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
            params.use_authority_key_identifier_extension = true;
            params
        }

        fn issue(&self, key: &KeyPair, edit: impl FnOnce(&mut CertificateParams)) -> String {
            let mut params = leaf_params();
            edit(&mut params);
            format!("{}{}", params.signed_by(key, &self.issuer).unwrap().pem(), self.intermediate.pem())
        }

        fn anchors(&self) -> Vec<TrustAnchor<'static>> {
            anchors_of(&[self.root.der().clone()]).unwrap()
        }
    }

    fn leaf_params() -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![dns(NAME)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(SerialNumber::from_slice(&[0xca, 0xfe, 0x01]));
        params.not_before = rcgen::date_time_ymd(2026, 11, 23);
        params.not_after = rcgen::date_time_ymd(2027, 2, 21);
        params
    }

    fn dns(name: &str) -> SanType {
        SanType::DnsName(name.try_into().unwrap())
    }

    fn spki(key: &KeyPair) -> String {
        Digest::of(&key.subject_public_key_info()).to_string()
    }

    fn check(pem: &str, key: &KeyPair, anchors: &[TrustAnchor<'static>]) -> Result<Issued, Difference> {
        check_for(NAME, pem, key, anchors)
    }

    fn check_for(name: &str, pem: &str, key: &KeyPair, anchors: &[TrustAnchor<'static>]) -> Result<Issued, Difference> {
        let hostname = Hostname::parse_name(name).unwrap();
        check_chain(pem, &Asked { hostname: &hostname, spki_sha256: &spki(key), anchors, now: now() })
    }

    #[test]
    fn a_certificate_as_asked_for_is_taken_with_and_without_a_known_root() {
        let (ca, key) = (TestCa::new("good"), KeyPair::generate().unwrap());
        let pem = ca.issue(&key, |_| {});
        for anchors in [vec![], ca.anchors()] {
            let issued = check(&pem, &key, &anchors).unwrap();
            assert_eq!(issued.serial, "cafe01");
            assert_eq!(
                (issued.not_before.to_string(), issued.not_after.to_string()),
                ("2026-11-23T00:00:00Z".into(), "2027-02-21T00:00:00Z".into())
            );
            let (_, serial) = issued.ari_id.as_deref().unwrap().split_once('.').unwrap();
            assert_eq!(serial, "AMr-AQ", "DER serial in base64url");
        }
    }

    #[test]
    fn what_is_kept_is_the_checked_chain_and_not_the_words_around_it() {
        let (ca, key) = (TestCa::new("chatty"), KeyPair::generate().unwrap());
        let pem = ca.issue(&key, |_| {});
        let chatty = format!("Subject: somebody\n\n{}\ntrailing words", pem.replace('\n', "\r\n"));
        let issued = check(&chatty, &key, &[]).unwrap();
        assert_eq!(issued.chain, pem.replace('\r', ""));
        assert_eq!(read_chain(&issued.chain).unwrap(), read_chain(&pem).unwrap());
    }

    #[test]
    fn a_certificate_for_another_key_is_refused() {
        let (ca, ours, theirs) = (TestCa::new("ca"), KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let difference = check(&ca.issue(&theirs, |_| {}), &ours, &[]).unwrap_err();
        assert_eq!(difference, Difference::Key { expected: spki(&ours), found: spki(&theirs) });
    }

    #[test]
    fn a_certificate_for_another_name_or_one_name_more_is_refused() {
        let (ca, key) = (TestCa::new("ca"), KeyPair::generate().unwrap());
        let cases: [(&str, Vec<SanType>); 6] = [
            ("none", vec![]),
            ("another", vec![dns("shop.other.com")]),
            ("one more", vec![dns(NAME), dns("shop.other.com")]),
            ("the wildcard above", vec![dns("*.brand.com")]),
            ("an address too", vec![dns(NAME), SanType::IpAddress([192, 0, 2, 1].into())]),
            ("the name twice", vec![dns(NAME), dns(NAME)]),
        ];
        for (what, names) in cases {
            let pem = ca.issue(&key, |params| params.subject_alt_names = names);
            assert!(matches!(check(&pem, &key, &[]), Err(Difference::Names { .. })), "{what}");
        }
        let wildcard = ca.issue(&key, |params| params.subject_alt_names = vec![dns("*.brand.com")]);
        assert!(check_for("*.brand.com", &wildcard, &key, &ca.anchors()).is_ok());
        let upper = ca.issue(&key, |params| params.subject_alt_names = vec![dns("Shop.Brand.com")]);
        assert!(check(&upper, &key, &ca.anchors()).is_ok(), "names have no case");
    }

    #[test]
    fn dates_are_held_against_the_clock_with_five_minutes_for_its_errors() {
        let (ca, key) = (TestCa::new("ca"), KeyPair::generate().unwrap());
        let at = |seconds: i64| rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs((now().as_second() + seconds).unsigned_abs());
        for (from, to, good) in
            [(-60, 60, true), (300, 900, true), (301, 900, false), (-900, 0, false), (-900, -60, false), (-900, 1, true)]
        {
            let pem = ca.issue(&key, |params| {
                params.not_before = at(from);
                params.not_after = at(to);
            });
            for anchors in [vec![], ca.anchors()] {
                match check(&pem, &key, &anchors) {
                    Ok(_) => assert!(good, "{from} to {to} was taken"),
                    Err(difference) => assert!(!good && matches!(difference, Difference::Dates { .. }), "{from} to {to}: {difference}"),
                }
            }
        }
    }

    #[test]
    fn a_leaf_that_its_chain_did_not_sign_is_refused() {
        let (ca, other, key) = (TestCa::new("ca"), TestCa::new("ca"), KeyPair::generate().unwrap());
        let leaf_only = leaf_params().signed_by(&key, &ca.issuer).unwrap().pem();
        // The same names all the way up, but other keys.
        let forged = format!("{leaf_only}{}", other.intermediate.pem());
        assert!(matches!(check(&forged, &key, &[]), Err(Difference::Unverified(_))));
        let whole = ca.issue(&key, |_| {});
        assert!(matches!(check(&whole, &key, &other.anchors()), Err(Difference::Unverified(_))), "a root of the same name is not the root");
    }

    #[test]
    fn a_chain_out_of_order_with_strangers_or_cut_short_is_refused() {
        let (ca, other, key) = (TestCa::new("one"), TestCa::new("two"), KeyPair::generate().unwrap());
        let leaf = leaf_params().signed_by(&key, &ca.issuer).unwrap().pem();
        let (root, intermediate, stranger) = (ca.root.pem(), ca.intermediate.pem(), other.intermediate.pem());
        let anchors = ca.anchors();
        assert!(check(&format!("{leaf}{intermediate}{root}"), &key, &anchors).is_ok(), "the root may come along");
        assert_eq!(check(&format!("{leaf}{root}{intermediate}"), &key, &anchors), Err(Difference::Broken(0)));
        assert_eq!(check(&format!("{leaf}{intermediate}{stranger}"), &key, &anchors), Err(Difference::Broken(1)));
        assert_eq!(check(&leaf, &key, &[]), Err(Difference::Length(1)));
        assert!(matches!(check(&leaf, &key, &anchors), Err(Difference::Unverified(_))), "the intermediate is missing");
        assert!(matches!(check(&format!("{intermediate}{leaf}"), &key, &anchors), Err(Difference::Key { .. })), "the leaf comes first");
    }

    #[test]
    fn a_leaf_that_may_sign_or_not_serve_is_refused() {
        let (ca, key) = (TestCa::new("ca"), KeyPair::generate().unwrap());
        let signing = ca.issue(&key, |params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
        assert_eq!(check(&signing, &key, &[]), Err(Difference::LeafIsCa));
        let client = ca.issue(&key, |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]);
        assert!(matches!(check(&client, &key, &[]), Err(Difference::Unverified(_))));
    }

    #[test]
    fn what_is_no_chain_is_refused_without_a_panic() {
        let (ca, key) = (TestCa::new("ca"), KeyPair::generate().unwrap());
        let good = ca.issue(&key, |_| {});
        for text in ["", "<html>", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n", &key.serialize_pem()] {
            assert_eq!(check(text, &key, &[]), Err(Difference::NotPem), "{text}");
        }
        let junk = to_pem(&CertificateDer::from(vec![0x30, 0x03, 1, 2, 3]));
        assert_eq!(check(&junk, &key, &[]), Err(Difference::NotX509(0)));
        assert_eq!(check(&format!("{good}{junk}"), &key, &[]), Err(Difference::NotX509(2)));
        let (whole, _) = good.split_at(good.len() - 40);
        assert!(check(whole, &key, &[]).is_err(), "cut off in the last certificate");
        assert_eq!(check(&good.repeat(20), &key, &[]), Err(Difference::Length(MOST_CERTIFICATES + 1)));
    }

    #[test]
    fn a_leaf_whose_issuer_is_trusted_needs_no_chain() {
        let (ca, key) = (TestCa::new("ca"), KeyPair::generate().unwrap());
        let leaf = leaf_params().signed_by(&key, &ca.issuer).unwrap().pem();
        let anchors = anchors_of(&[ca.intermediate.der().clone()]).unwrap();
        assert!(check(&leaf, &key, &anchors).is_ok());
    }
}
