//! Keys and certificates: the root, the intermediate, and what they sign.
//!
//! Arrives: a folder (or none) at start; then signing requests with the names that were proved. Leaves: a chain of two levels,
//! leaf ← intermediate ← root. Goes wrong: a folder that holds half a CA ([`AuthorityError`]), or a request that does not fit its
//! order (a `badCSR` [`Problem`]).
//!
//! The CA's own certificates have dates so wide that no test's virtual clock leaves them; only leaves have real dates.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, SubjectPublicKeyInfo,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509Certificate, X509CertificationRequest};

use crate::files::{self, FileError, Readers};
use crate::problem::{Kind, Problem};

/// How far a leaf's first second lies before its issuance, for clients whose clock is slow.
const BACKDATING: Duration = Duration::from_secs(10);
/// The years between which the CA's own certificates are valid.
const OWN_YEARS: (i32, i32) = (2000, 2100);
/// The smallest RSA key signed, in bits. Source: CA/Browser Forum Baseline Requirements, 6.1.5.
const SMALLEST_RSA_BITS: usize = 2048;
/// The name and, in its `--state` folder, the file of the certificate that clients are given.
pub(crate) const ROOT_FILE: &str = "root.pem";

/// The CA's keys or certificates could not be made or loaded.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file could not be read or written.
    #[error("the CA's folder")]
    File(#[from] FileError),
    /// The root is there, but something that belongs to it is not.
    #[error("{} is missing beside {ROOT_FILE}; put it back, or remove {ROOT_FILE} to start a new CA", path.display())]
    Incomplete {
        /// The missing file.
        path: PathBuf,
    },
    /// A file is there but its contents are not what its name says, or do not belong to their neighbour.
    #[error("{} is not usable: {reason}", path.display())]
    Corrupt {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Making a key or certificate failed.
    #[error("making the CA's certificates")]
    Make(#[from] rcgen::Error),
}

/// The CA's signing half.
pub(crate) struct Authority {
    root_pem: String,
    intermediate_pem: String,
    intermediate_der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    /// The intermediate's key identifier in base64url: the first half of every ARI certificate identifier.
    key_identifier: String,
    random: SystemRandom,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("key_identifier", &self.key_identifier).finish_non_exhaustive()
    }
}

/// What a signing request asks for, checked as far as one can without its order.
#[derive(Debug)]
pub(crate) struct Request {
    names: BTreeSet<String>,
    key: SubjectPublicKeyInfo,
}

/// One issued certificate.
#[derive(Debug, Clone)]
pub(crate) struct Issued {
    /// The serial number in base64url, as in an ARI certificate identifier.
    pub(crate) serial: String,
    pub(crate) der: Vec<u8>,
    /// Leaf, then intermediate.
    pub(crate) chain_pem: String,
    pub(crate) not_before: Timestamp,
    pub(crate) not_after: Timestamp,
}

impl Authority {
    /// Loads the CA of `folder`, or makes one there on the first start; without a folder, makes one that lives in memory.
    pub(crate) fn open(folder: Option<&Path>) -> Result<Self, AuthorityError> {
        let Some(folder) = folder else {
            let material = Material::generate()?;
            return Self::assemble(material, Path::new(""));
        };
        let material = match Material::load(folder)? {
            Some(material) => material,
            None => {
                let material = Material::generate()?;
                material.store(folder)?;
                material
            }
        };
        Self::assemble(material, folder)
    }

    fn assemble(material: Material, folder: &Path) -> Result<Self, AuthorityError> {
        let corrupt = |name: &str, reason: &str| AuthorityError::Corrupt { path: folder.join(name), reason: reason.to_owned() };
        for (certificate, key, name) in
            [(&material.root, &material.root_key, ROOT_FILE), (&material.intermediate, &material.intermediate_key, INTERMEDIATE_FILE)]
        {
            let key = KeyPair::from_pem(key).map_err(|_| corrupt(name, "its key is not a PEM private key"))?;
            if spki_of(certificate) != Some(key.subject_public_key_info()) {
                return Err(corrupt(name, "it is not the certificate of the key beside it"));
            }
        }
        let intermediate_der = CertificateDer::from_pem_slice(material.intermediate.as_bytes())
            .map_err(|_| corrupt(INTERMEDIATE_FILE, "it is not a PEM certificate"))?;
        let key_identifier =
            subject_key_identifier(&intermediate_der).ok_or_else(|| corrupt(INTERMEDIATE_FILE, "it has no subject key identifier"))?;
        let issuer = Issuer::from_ca_cert_pem(&material.intermediate, KeyPair::from_pem(&material.intermediate_key)?)?;
        Ok(Self {
            root_pem: material.root,
            intermediate_pem: material.intermediate,
            intermediate_der,
            issuer,
            key_identifier,
            random: SystemRandom::new(),
        })
    }

    pub(crate) fn root_pem(&self) -> &str {
        &self.root_pem
    }

    pub(crate) fn key_identifier(&self) -> &str {
        &self.key_identifier
    }

    /// Issues the certificate with which the CA's own HTTPS answers, for `hostname` and every name of loopback.
    pub(crate) fn server_certificate(
        &self,
        hostname: &str,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), AuthorityError> {
        let key = KeyPair::generate()?;
        let names: BTreeSet<String> = [hostname, "localhost", "127.0.0.1", "::1"].into_iter().map(str::to_owned).collect();
        let mut params = CertificateParams::new(names.into_iter().collect::<Vec<_>>())?;
        params.distinguished_name = DistinguishedName::new();
        set_own_dates(&mut params);
        params.serial_number = Some(SerialNumber::from_slice(&self.fresh_serial()));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let leaf = params.signed_by(&key, &self.issuer)?;
        let chain = vec![leaf.der().clone(), self.intermediate_der.clone()];
        Ok((chain, PrivatePkcs8KeyDer::from(key.serialize_der()).into()))
    }

    /// Signs a leaf for the names and key of `request`, valid from a moment before `now`.
    pub(crate) fn issue(&self, request: &Request, now: Timestamp, lifetime: Duration) -> Result<Issued, rcgen::Error> {
        let serial = self.fresh_serial();
        let now = whole_second(now);
        let not_before = now.checked_sub(BACKDATING).unwrap_or(now);
        let not_after = now.checked_add(lifetime).unwrap_or(Timestamp::MAX);
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names =
            request.names.iter().map(|name| Ok(SanType::DnsName(name.as_str().try_into()?))).collect::<Result<_, rcgen::Error>>()?;
        set_dates(&mut params, not_before, not_after);
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let leaf = params.signed_by(&request.key, &self.issuer)?;
        Ok(Issued {
            serial: BASE64_URL_SAFE_NO_PAD.encode(serial),
            der: leaf.der().to_vec(),
            chain_pem: format!("{}{}", leaf.pem(), self.intermediate_pem),
            not_before,
            not_after,
        })
    }

    /// A positive 16-byte number: the first byte is between 0x40 and 0x7f, so its DER is neither padded nor shortened.
    fn fresh_serial(&self) -> [u8; 16] {
        let mut serial = random_bytes::<16>(&self.random);
        serial[0] = (serial[0] & 0x3f) | 0x40;
        serial
    }
}

/// Fills an array from the operating system's generator.
pub(crate) fn random_bytes<const N: usize>(random: &SystemRandom) -> [u8; N] {
    let mut bytes = [0; N];
    // Without randomness there is no serial, nonce or token worth giving out; aws-lc itself aborts rather than return an error here.
    random.fill(&mut bytes).expect("the system's random generator answers");
    bytes
}

impl Request {
    /// Parses a signing request and checks its signature, its key and that it names hosts only.
    pub(crate) fn parse(der: &[u8], account_key: &[u8]) -> Result<Self, Problem> {
        let bad = |detail: String| Problem::new(Kind::BadCsr, detail);
        // rcgen checks the signature and refuses extensions that a server certificate has no use for; x509-parser shows the rest.
        CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(der))
            .map_err(|error| bad(format!("the CSR is refused: {error}")))?;
        let (rest, csr) = X509CertificationRequest::from_der(der).map_err(|error| bad(format!("the CSR does not parse: {error}")))?;
        if !rest.is_empty() {
            return Err(bad("there are bytes after the CSR".into()));
        }
        let info = &csr.certification_request_info;
        let key = &info.subject_pki;
        if key.subject_public_key.data.as_ref() == account_key {
            return Err(bad("the certificate's key must not be the account's key".into()));
        }
        check_key(key).map_err(bad)?;
        let key = SubjectPublicKeyInfo::from_der(key.raw).map_err(|_| bad("the CSR's key type is not supported".into()))?;

        let mut names = BTreeSet::new();
        for extension in csr.requested_extensions().into_iter().flatten() {
            if let ParsedExtension::SubjectAlternativeName(alternatives) = extension {
                for name in &alternatives.general_names {
                    let GeneralName::DNSName(name) = name else {
                        return Err(bad(format!("the CSR asks for {name}, which is not a DNS name")));
                    };
                    names.insert(name.to_ascii_lowercase());
                }
            }
        }
        for common_name in info.subject.iter_common_name() {
            names.insert(common_name.as_str().map_err(|_| bad("the CSR's common name is not text".into()))?.to_ascii_lowercase());
        }
        if names.is_empty() {
            return Err(bad("the CSR asks for no name".into()));
        }
        Ok(Self { names, key })
    }

    /// Checks that the request asks for exactly the names of its order.
    pub(crate) fn expect_names(&self, ordered: &[String]) -> Result<(), Problem> {
        if self.names.iter().eq(ordered.iter().collect::<BTreeSet<_>>()) {
            return Ok(());
        }
        let asked: Vec<_> = self.names.iter().map(String::as_str).collect();
        let detail = format!("the CSR asks for [{}] but the order is for [{}]", asked.join(", "), ordered.join(", "));
        Err(Problem::new(Kind::BadCsr, detail))
    }
}

/// P-256 or better: the curves P-256 and P-384, or RSA of a sensible size.
fn check_key(key: &x509_parser::x509::SubjectPublicKeyInfo<'_>) -> Result<(), String> {
    use x509_parser::public_key::PublicKey;
    match key.parsed() {
        Ok(PublicKey::EC(point)) if matches!(point.key_size(), 256 | 384) => Ok(()),
        Ok(PublicKey::RSA(rsa)) if rsa.key_size() >= SMALLEST_RSA_BITS => Ok(()),
        Ok(PublicKey::EC(point)) => Err(format!("an EC key of {} bits is not accepted; use P-256 or P-384", point.key_size())),
        Ok(PublicKey::RSA(rsa)) => {
            Err(format!("an RSA key of {} bits is too small; use at least {SMALLEST_RSA_BITS}, or better P-256", rsa.key_size()))
        }
        _ => Err("the CSR's key type is not supported; use P-256".into()),
    }
}

const ROOT_KEY_FILE: &str = "root.key";
const INTERMEDIATE_FILE: &str = "intermediate.pem";
const INTERMEDIATE_KEY_FILE: &str = "intermediate.key";

/// The four PEM files of a CA.
struct Material {
    root: String,
    root_key: String,
    intermediate: String,
    intermediate_key: String,
}

impl Material {
    fn generate() -> Result<Self, AuthorityError> {
        // A few letters that differ tell one machine's roots apart in a trust store.
        let mark = BASE64_URL_SAFE_NO_PAD.encode(random_bytes::<6>(&SystemRandom::new()));
        let root_key = KeyPair::generate()?;
        let root = ca_params(&format!("Nameplate dev root {mark}"), BasicConstraints::Unconstrained);
        let root_certificate = root.self_signed(&root_key)?;
        let intermediate_key = KeyPair::generate()?;
        let mut intermediate = ca_params(&format!("Nameplate dev intermediate {mark}"), BasicConstraints::Constrained(0));
        intermediate.use_authority_key_identifier_extension = true;
        let intermediate_certificate = intermediate.signed_by(&intermediate_key, &Issuer::from_params(&root, &root_key))?;
        Ok(Self {
            root: root_certificate.pem(),
            root_key: root_key.serialize_pem(),
            intermediate: intermediate_certificate.pem(),
            intermediate_key: intermediate_key.serialize_pem(),
        })
    }

    /// Reads the four files. No root means that nothing was ever handed out, whatever else an interrupted first start left behind.
    fn load(folder: &Path) -> Result<Option<Self>, AuthorityError> {
        let Some(root) = files::read_if_there(&folder.join(ROOT_FILE))? else {
            return Ok(None);
        };
        let needed = |name: &str| {
            let path = folder.join(name);
            files::read_if_there(&path)?.ok_or(AuthorityError::Incomplete { path })
        };
        Ok(Some(Self {
            root,
            root_key: needed(ROOT_KEY_FILE)?,
            intermediate: needed(INTERMEDIATE_FILE)?,
            intermediate_key: needed(INTERMEDIATE_KEY_FILE)?,
        }))
    }

    /// Writes the four files, the root's certificate last: it is the sign that the others are complete.
    fn store(&self, folder: &Path) -> Result<(), FileError> {
        files::write_whole(&folder.join(ROOT_KEY_FILE), self.root_key.as_bytes(), Readers::Owner)?;
        files::write_whole(&folder.join(INTERMEDIATE_KEY_FILE), self.intermediate_key.as_bytes(), Readers::Owner)?;
        files::write_whole(&folder.join(INTERMEDIATE_FILE), self.intermediate.as_bytes(), Readers::Everyone)?;
        files::write_whole(&folder.join(ROOT_FILE), self.root.as_bytes(), Readers::Everyone)
    }
}

fn ca_params(name: &str, depth: BasicConstraints) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    set_own_dates(&mut params);
    params.is_ca = IsCa::Ca(depth);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    params
}

/// Sets a certificate's dates, which X.509 counts in whole seconds.
fn set_dates(params: &mut CertificateParams, not_before: Timestamp, not_after: Timestamp) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let since_epoch = |time: Timestamp| Duration::from_secs(u64::try_from(time.as_second()).unwrap_or(0));
    params.not_before = epoch + since_epoch(not_before);
    params.not_after = epoch + since_epoch(not_after);
}

fn set_own_dates(params: &mut CertificateParams) {
    params.not_before = rcgen::date_time_ymd(OWN_YEARS.0, 1, 1);
    params.not_after = rcgen::date_time_ymd(OWN_YEARS.1, 1, 1);
}

/// The whole second at or before `time`.
fn whole_second(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// The public key of a PEM certificate, as DER.
fn spki_of(certificate_pem: &str) -> Option<Vec<u8>> {
    let der = CertificateDer::from_pem_slice(certificate_pem.as_bytes()).ok()?;
    public_key_of(&der)
}

/// The public key of a DER certificate, as DER.
pub(crate) fn public_key_of(der: &[u8]) -> Option<Vec<u8>> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    Some(certificate.public_key().raw.to_vec())
}

/// The serial number of a DER certificate, in base64url.
pub(crate) fn serial_of(der: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    Some(BASE64_URL_SAFE_NO_PAD.encode(certificate.raw_serial()))
}

fn subject_key_identifier(der: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(identifier) => Some(BASE64_URL_SAFE_NO_PAD.encode(identifier.0)),
        _ => None,
    })
}
