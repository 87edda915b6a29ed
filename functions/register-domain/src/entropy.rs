//! Where unguessable names come from.

use domains::{ClaimId, IdError, OwnershipToken};

/// Fills bytes that nobody can guess; injected, so that tests can repeat a run.
pub trait Entropy: Send + Sync {
    /// Fills the buffer.
    ///
    /// # Errors
    /// When the machine's source of randomness fails.
    fn fill(&self, bytes: &mut [u8]) -> Result<(), String>;
}

/// The machine's source of randomness.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), String> {
        getrandom::fill(bytes).map_err(|error| error.to_string())
    }
}

/// 125 bits as lower-case base 32: a DNS label that nobody can guess.
const LABEL_CHARS: usize = 25;

/// RFC 4648's alphabet in lower case.
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

fn label(entropy: &dyn Entropy) -> Result<String, String> {
    let mut bytes = [0u8; LABEL_CHARS];
    entropy.fill(&mut bytes)?;
    Ok(bytes.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect())
}

pub(crate) fn new_claim_id(entropy: &dyn Entropy) -> Result<ClaimId, String> {
    ClaimId::parse(&label(entropy)?).map_err(|error: IdError| error.to_string())
}

/// A part of a path that nobody can guess.
pub(crate) fn new_secret(entropy: &dyn Entropy) -> Result<String, String> {
    label(entropy)
}

pub(crate) fn new_token(entropy: &dyn Entropy) -> Result<OwnershipToken, String> {
    OwnershipToken::parse(&format!("nameplate-verify={}", label(entropy)?)).map_err(|error| error.to_string())
}
