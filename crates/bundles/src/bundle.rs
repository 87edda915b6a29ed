//! One hostname's object: what is served, or that nothing is any more.
//!
//! Arrives: chain, sealed key and tenant at the publisher; bytes at the edge. Leaves: bytes to publish; a certified key. Goes wrong:
//! anything a faulty writer, a torn write or an intruder in the bucket can do to an object, each with its own [`BundleError`].

use domains::{ClaimId, Hostname, OriginName, OwnershipToken, SiteVersion, TenantId};
use rustls::{crypto::aws_lc_rs, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject};
use serde::{Deserialize, Serialize};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::{
    BundleError, Digest, FORMAT, SealKeys, SealedKey, UnixSeconds,
    encoding::{self, hex32},
};

/// The largest site object accepted: a chain of five RSA-4096 certificates with a sealed RSA key has a quarter of that.
pub const MAX_SITE_BYTES: usize = 64 * 1024;

/// The most certificates a chain may have; public CAs use two to four.
const MAX_CHAIN: usize = 10;

/// A hostname's object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SiteObject {
    /// The name is served.
    Present(Bundle),
    /// The name is gone.
    Removed(Tombstone),
}

/// All that is needed to serve one hostname: one object, so that a reader sees the old or the new, never a mix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bundle {
    /// The name served.
    pub hostname: Hostname,
    /// Whose it is.
    pub tenant: TenantId,
    /// Grows with every change of the name's site.
    pub version: SiteVersion,
    /// PEM, leaf first.
    pub certificate_chain: String,
    /// The leaf's private key, sealed to the edge.
    pub sealed_key: SealedKey,
    /// SHA-256 of the leaf's SubjectPublicKeyInfo.
    #[serde(with = "hex32")]
    pub spki_sha256: [u8; 32],
    /// The leaf's first second.
    pub not_before: UnixSeconds,
    /// The leaf's last second.
    pub not_after: UnixSeconds,
    /// The claim that proved the name, so that the bucket alone tells what a lost store knew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<ClaimIdentity>,
    /// The origin that the name's requests go to, as the edge's settings name it; `None` is the usual one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<OriginName>,
}

/// What a customer's records say of a claim. Both stand in public DNS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimIdentity {
    /// The claim's label, which its target and its delegation carry.
    pub id: ClaimId,
    /// What its TXT proof says.
    pub token: OwnershipToken,
}

/// Says that a name is gone, so that nothing older can bring it back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tombstone {
    /// The name removed.
    pub hostname: Hostname,
    /// The removal's own version, higher than any before it.
    pub version: SiteVersion,
    /// When.
    pub removed_at: UnixSeconds,
    /// Whose it is where it is only out of service, so that whoever has to make the record again from the bucket knows it. Edges do not care.
    pub suspended: Option<TenantId>,
}

/// What a chain's leaf certificate says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeafFacts {
    /// SHA-256 of its SubjectPublicKeyInfo.
    pub spki_sha256: [u8; 32],
    /// The first second of its validity.
    pub not_before: UnixSeconds,
    /// The last second of its validity.
    pub not_after: UnixSeconds,
    /// The DNS names it covers, as written in the certificate.
    pub dns_names: Vec<String>,
}

impl LeafFacts {
    /// Reads the leaf of a PEM chain.
    ///
    /// # Errors
    /// [`BundleError::BadChain`] when there is none or any certificate of the chain cannot be read.
    pub fn of_chain(certificate_chain: &str) -> Result<Self, BundleError> {
        let chain = parse_chain(certificate_chain)?;
        let leaf = parse_certificate(&chain[0])?;
        let names = leaf.subject_alternative_name().map_err(|error| BundleError::BadChain(error.to_string()))?;
        let dns_names = names.map_or(&[][..], |names| &names.value.general_names);
        let dns_names = dns_names.iter().filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            _ => None,
        });
        Ok(Self {
            spki_sha256: *Digest::of(leaf.public_key().raw).as_bytes(),
            not_before: leaf.validity().not_before.timestamp(),
            not_after: leaf.validity().not_after.timestamp(),
            dns_names: dns_names.collect(),
        })
    }

    /// Whether the leaf covers a hostname: by its exact name, or by a wildcard one label above it.
    pub fn covers(&self, hostname: &Hostname) -> bool {
        let wildcard = hostname.covering_wildcard();
        self.dns_names.iter().any(|name| {
            name.eq_ignore_ascii_case(hostname.as_str())
                || wildcard.as_ref().is_some_and(|wildcard| name.eq_ignore_ascii_case(wildcard.as_str()))
        })
    }
}

impl Bundle {
    /// Builds a bundle whose dates and public key digest are the leaf's own.
    ///
    /// # Errors
    /// [`BundleError::BadChain`] when the chain cannot be read, [`BundleError::WrongHostname`] when its leaf does not cover the name.
    pub fn new(
        hostname: Hostname,
        tenant: TenantId,
        version: SiteVersion,
        certificate_chain: String,
        sealed_key: SealedKey,
    ) -> Result<Self, BundleError> {
        let LeafFacts { spki_sha256, not_before, not_after, .. } = LeafFacts::of_chain(&certificate_chain)?;
        let bundle = Self {
            hostname,
            tenant,
            version,
            certificate_chain,
            sealed_key,
            spki_sha256,
            not_before,
            not_after,
            claim: None,
            origin: None,
        };
        bundle.check_leaf()?;
        Ok(bundle)
    }

    /// Checks all that can be seen without opening the key: the chain reads, covers the name, has the key named, and is in its time.
    ///
    /// # Errors
    /// [`BundleError::BadChain`], [`BundleError::WrongHostname`], [`BundleError::KeyMismatch`], [`BundleError::DatesDiffer`],
    /// [`BundleError::Expired`] or [`BundleError::NotYetValid`].
    pub fn check(&self, now: UnixSeconds) -> Result<(), BundleError> {
        self.check_leaf()?;
        if now > self.not_after {
            return Err(BundleError::Expired { not_after: self.not_after, now });
        }
        if now < self.not_before {
            return Err(BundleError::NotYetValid { not_before: self.not_before, now });
        }
        Ok(())
    }

    /// Opens a bundle that is to be taken into service.
    ///
    /// # Errors
    /// Those of [`check`](Self::check) and of [`open_in_service`](Self::open_in_service).
    pub fn open(&self, seal_keys: &SealKeys, now: UnixSeconds) -> Result<CertifiedKey, BundleError> {
        self.check(now)?;
        self.open_in_service(seal_keys)
    }

    /// Opens a bundle that was good when it was taken into service, whatever the time is now: without a newer one, an expired
    /// certificate is still the best there is, and its reader may judge it.
    ///
    /// # Errors
    /// [`BundleError::UnknownSealKey`], [`BundleError::Unsealable`], [`BundleError::BadKey`], [`BundleError::KeyMismatch`], or what is
    /// wrong with the leaf beside its dates.
    pub fn open_in_service(&self, seal_keys: &SealKeys) -> Result<CertifiedKey, BundleError> {
        self.check_leaf()?;
        let chain = parse_chain(&self.certificate_chain)?;
        let key = seal_keys.open(&self.sealed_key, &self.hostname, &self.tenant, &self.spki_sha256)?;
        // rustls takes the key by value and gives no way to wipe that copy; ours is wiped here.
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.to_vec()));
        CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => BundleError::KeyMismatch("private key"),
            other => BundleError::BadKey(other),
        })
    }

    fn check_leaf(&self) -> Result<(), BundleError> {
        let leaf = LeafFacts::of_chain(&self.certificate_chain)?;
        if !leaf.covers(&self.hostname) {
            let found = leaf.dns_names.iter().take(5).map(|name| name.chars().filter(|c| !c.is_control()).take(80).collect::<String>());
            let found = format!("a certificate for {}", found.collect::<Vec<_>>().join(", "));
            return Err(BundleError::WrongHostname { expected: self.hostname.clone(), found });
        }
        if leaf.spki_sha256 != self.spki_sha256 {
            return Err(BundleError::KeyMismatch("public key digest"));
        }
        let (said, leaf) = ((self.not_before, self.not_after), (leaf.not_before, leaf.not_after));
        if said != leaf {
            return Err(BundleError::DatesDiffer { said, leaf });
        }
        Ok(())
    }
}

impl SiteObject {
    /// The name the object is about.
    pub fn hostname(&self) -> &Hostname {
        match self {
            Self::Present(bundle) => &bundle.hostname,
            Self::Removed(tombstone) => &tombstone.hostname,
        }
    }

    /// The object's version.
    pub fn version(&self) -> SiteVersion {
        match self {
            Self::Present(bundle) => bundle.version,
            Self::Removed(tombstone) => tombstone.version,
        }
    }

    /// Writes the object; the same object is always the same bytes.
    ///
    /// # Errors
    /// [`BundleError::TooLarge`] when no reader would accept it.
    pub fn to_bytes(&self) -> Result<Vec<u8>, BundleError> {
        let bytes = match self {
            Self::Present(bundle) => encoding::write(&Written { format: FORMAT, object: bundle }),
            Self::Removed(Tombstone { hostname, version, removed_at, suspended }) => encoding::write(&TombstoneFile {
                format: FORMAT,
                hostname: hostname.clone(),
                removed: true,
                version: *version,
                removed_at: *removed_at,
                suspended: suspended.clone(),
            }),
        };
        match bytes.len() <= MAX_SITE_BYTES {
            true => Ok(bytes),
            false => Err(BundleError::TooLarge { bytes: bytes.len(), limit: MAX_SITE_BYTES }),
        }
    }

    /// Reads the object. What is in a bundle is not judged yet: see [`Bundle::check`] and [`Bundle::open`].
    ///
    /// # Errors
    /// [`BundleError::TooLarge`], [`BundleError::Truncated`], [`BundleError::NotJson`] or [`BundleError::Format`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BundleError> {
        #[derive(Deserialize)]
        struct Kind {
            #[serde(default)]
            removed: bool,
        }
        let Kind { removed } = encoding::read(bytes, MAX_SITE_BYTES)?;
        if removed {
            let TombstoneFile { hostname, version, removed_at, suspended, .. } = encoding::read(bytes, MAX_SITE_BYTES)?;
            return Ok(Self::Removed(Tombstone { hostname, version, removed_at, suspended }));
        }
        encoding::read(bytes, MAX_SITE_BYTES).map(Self::Present)
    }
}

/// Says whether an object may follow what is known: only a higher version may, and one version has one content.
///
/// # Errors
/// [`BundleError::NotNewer`] for a lower version, or for the same version with the same bytes;
/// [`BundleError::SameVersionOtherBytes`] for the same version with other bytes.
pub fn check_replacement(have: (SiteVersion, Digest), offered: (SiteVersion, Digest)) -> Result<(), BundleError> {
    match offered.0.cmp(&have.0) {
        std::cmp::Ordering::Greater => Ok(()),
        std::cmp::Ordering::Equal if offered.1 != have.1 => Err(BundleError::SameVersionOtherBytes { version: offered.0 }),
        _ => Err(BundleError::NotNewer { have: have.0, offered: offered.0 }),
    }
}

#[derive(Serialize)]
struct Written<'a> {
    format: u32,
    #[serde(flatten)]
    object: &'a Bundle,
}

#[derive(Serialize, Deserialize)]
struct TombstoneFile {
    format: u32,
    hostname: Hostname,
    removed: bool,
    version: SiteVersion,
    removed_at: UnixSeconds,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    suspended: Option<TenantId>,
}

fn parse_chain(pem: &str) -> Result<Vec<CertificateDer<'static>>, BundleError> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .take(MAX_CHAIN + 1)
        .collect::<Result<_, _>>()
        .map_err(|error| BundleError::BadChain(error.to_string()))?;
    if chain.is_empty() || chain.len() > MAX_CHAIN {
        return Err(BundleError::BadChain(format!("it has {} certificates; 1 to {MAX_CHAIN} are accepted", chain.len())));
    }
    chain.iter().try_for_each(|certificate| parse_certificate(certificate).map(|_| ()))?;
    Ok(chain)
}

fn parse_certificate<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, BundleError> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) => Err(BundleError::BadChain("bytes follow a certificate".to_owned())),
        Err(error) => Err(BundleError::BadChain(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SealKeyPair;
    use proptest::prelude::*;
    use std::sync::OnceLock;

    /// 2026-01-01 to 2026-04-01.
    const START: UnixSeconds = 1_767_225_600;
    const END: UnixSeconds = 1_775_001_600;
    const NOW: UnixSeconds = START + 3600;

    struct Fixture {
        seal_keys: SealKeys,
        seal_to: crate::SealPublicKey,
        bundle: Bundle,
        key: Vec<u8>,
    }

    fn fixture() -> &'static Fixture {
        static FIXTURE: OnceLock<Fixture> = OnceLock::new();
        FIXTURE.get_or_init(|| {
            let pair = SealKeyPair::generate().unwrap();
            let seal_to = pair.public().clone();
            let (chain, key) = certificate(&["shop.brand.com"]);
            let bundle = sealed(&seal_to, "shop.brand.com", 7, &chain, &key).unwrap();
            Fixture { seal_keys: [pair].into_iter().collect(), seal_to, bundle, key }
        })
    }

    fn certificate(names: &[&str]) -> (String, Vec<u8>) {
        let mut params = rcgen::CertificateParams::new(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>()).unwrap();
        params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        params.not_after = rcgen::date_time_ymd(2026, 4, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_der())
    }

    fn sealed(to: &crate::SealPublicKey, name: &str, version: u64, chain: &str, key: &[u8]) -> Result<Bundle, BundleError> {
        let (hostname, tenant) = (Hostname::parse_name(name).unwrap(), TenantId::parse("acme").unwrap());
        let spki = LeafFacts::of_chain(chain)?.spki_sha256;
        let sealed_key = to.seal(&hostname, &tenant, &spki, key)?;
        Bundle::new(hostname, tenant, SiteVersion(version), chain.to_owned(), sealed_key)
    }

    #[test]
    fn a_published_bundle_opens_to_its_own_certificate_and_key() {
        let Fixture { seal_keys, bundle, .. } = fixture();
        assert_eq!((bundle.not_before, bundle.not_after), (START, END));
        let read = SiteObject::from_bytes(&SiteObject::Present(bundle.clone()).to_bytes().unwrap()).unwrap();
        assert_eq!(read, SiteObject::Present(bundle.clone()));
        let certified = bundle.open(seal_keys, NOW).unwrap();
        certified.keys_match().unwrap();
    }

    #[test]
    fn a_wildcard_certificate_covers_one_label_and_no_more() {
        let to = &fixture().seal_to;
        let (chain, key) = certificate(&["*.brand.com"]);
        for (name, covered) in [("shop.brand.com", true), ("*.brand.com", true), ("a.shop.brand.com", false), ("brand.com", false)] {
            assert_eq!(sealed(to, name, 1, &chain, &key).map_err(|e| e.reason()).is_ok(), covered, "{name}");
        }
        let (chain, key) = certificate(&["shop.brand.com"]);
        assert_eq!(sealed(to, "*.brand.com", 1, &chain, &key).unwrap_err().reason(), "wrong_hostname");
    }

    #[test]
    fn each_corruption_is_refused_with_its_own_reason() {
        let Fixture { seal_keys, seal_to, bundle, key } = fixture();
        let (other_chain, other_key) = certificate(&["shop.brand.com"]);
        let (foreign_chain, _) = certificate(&["shop.other.com"]);
        let foreign_seal = SealKeyPair::generate().unwrap();
        let other_tenant = TenantId::parse("other").unwrap();
        let reseal = |key: &[u8]| seal_to.seal(&bundle.hostname, &bundle.tenant, &bundle.spki_sha256, key).unwrap();
        let good = || bundle.clone();
        let cases = [
            ("expired", good(), END + 1),
            ("not_yet_valid", good(), START - 1),
            ("key_mismatch", Bundle { sealed_key: reseal(&other_key), ..good() }, NOW),
            ("key_mismatch", Bundle { certificate_chain: other_chain, ..good() }, NOW),
            ("key_mismatch", Bundle { spki_sha256: [0; 32], ..good() }, NOW),
            ("bad_key", Bundle { sealed_key: reseal(b"no key"), ..good() }, NOW),
            ("wrong_hostname", Bundle { certificate_chain: foreign_chain, ..good() }, NOW),
            ("wrong_hostname", Bundle { hostname: Hostname::parse_name("shop.other.com").unwrap(), ..good() }, NOW),
            ("unsealable", Bundle { tenant: other_tenant, ..good() }, NOW),
            ("dates_differ", Bundle { not_after: END + 1, ..good() }, NOW),
            ("bad_chain", Bundle { certificate_chain: String::new(), ..good() }, NOW),
            ("bad_chain", Bundle { certificate_chain: bundle.certificate_chain.replace("MII", "MIJ"), ..good() }, NOW),
            ("bad_chain", Bundle { certificate_chain: bundle.certificate_chain.repeat(MAX_CHAIN + 1), ..good() }, NOW),
            (
                "unknown_seal_key",
                Bundle {
                    sealed_key: foreign_seal.public().seal(&bundle.hostname, &bundle.tenant, &bundle.spki_sha256, key).unwrap(),
                    ..good()
                },
                NOW,
            ),
        ];
        for (reason, bundle, now) in cases {
            let refused = bundle.open(seal_keys, now).unwrap_err();
            assert_eq!(refused.reason(), reason, "{refused}");
        }
        bundle.open_in_service(seal_keys).unwrap();
    }

    #[test]
    fn objects_that_are_cut_off_too_large_or_of_another_format_are_refused() {
        let bytes = SiteObject::Present(fixture().bundle.clone()).to_bytes().unwrap();
        for length in 0..bytes.len() {
            assert_eq!(SiteObject::from_bytes(&bytes[..length]).unwrap_err().reason(), "truncated", "{length}");
        }
        assert_eq!(SiteObject::from_bytes(&vec![b' '; MAX_SITE_BYTES + 1]).unwrap_err().reason(), "too_large");
        let text = String::from_utf8(bytes).unwrap();
        for (reason, text) in [
            ("format", text.replace("\"format\":1", "\"format\":2")),
            ("format", text.replace("\"format\":1,", "")),
            ("not_json", text.replace("\"tenant\"", "\"owner\"")),
            ("not_json", format!("{text}x")),
            ("not_json", "[]".to_owned()),
        ] {
            assert_eq!(SiteObject::from_bytes(text.as_bytes()).unwrap_err().reason(), reason, "{text}");
        }
        let huge = Bundle { certificate_chain: "x".repeat(MAX_SITE_BYTES), ..fixture().bundle.clone() };
        assert_eq!(SiteObject::Present(huge).to_bytes().unwrap_err().reason(), "too_large");
    }

    #[test]
    fn only_a_higher_version_replaces_and_one_version_has_one_content() {
        let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
        let have = (SiteVersion(5), one);
        check_replacement(have, (SiteVersion(6), two)).unwrap();
        for (offered, reason) in [((5, one), "not_newer"), ((5, two), "same_version_other_bytes"), ((4, two), "not_newer")] {
            assert_eq!(check_replacement(have, (SiteVersion(offered.0), offered.1)).unwrap_err().reason(), reason);
        }
    }

    proptest! {
        #[test]
        fn tombstones_read_back(version in any::<u64>(), removed_at in any::<i64>()) {
            let hostname = Hostname::parse_name("*.brand.com").unwrap();
            let object = SiteObject::Removed(Tombstone { hostname, version: SiteVersion(version), removed_at, suspended: None });
            prop_assert_eq!(SiteObject::from_bytes(&object.to_bytes().unwrap()).unwrap(), object);
        }

        #[test]
        fn random_bytes_never_panic_and_never_open(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(SiteObject::from_bytes(&bytes).is_err());
        }

        #[test]
        fn a_bundle_with_altered_bytes_opens_only_as_itself(position in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let Fixture { seal_keys, bundle, .. } = fixture();
            let mut bytes = SiteObject::Present(bundle.clone()).to_bytes().unwrap();
            let position = position.index(bytes.len());
            bytes[position] = byte;
            let Ok(SiteObject::Present(read)) = SiteObject::from_bytes(&bytes) else { return Ok(()) };
            if let Ok(opened) = read.open(seal_keys, NOW) {
                // The version and the certificate's signature are not sealed in; name, tenant and key are.
                prop_assert_eq!((&read.hostname, &read.tenant, &read.spki_sha256), (&bundle.hostname, &bundle.tenant, &bundle.spki_sha256));
                opened.keys_match().unwrap();
            }
        }
    }
}
