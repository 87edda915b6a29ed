//! Which limits of a CA the configuration chooses.

use std::num::NonZeroU32;

use domains::ledger::CaLimits;

/// Whose limits hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LimitsOf {
    /// Those that belong to the directory; none for the local CA.
    Directory,
    LetsEncrypt,
    LetsEncryptStaging,
    Nobody,
}

/// Whose limits hold, and how fast their time runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AcmeLimits {
    pub(crate) of: LimitsOf,
    pub(crate) scale: NonZeroU32,
}

impl std::str::FromStr for LimitsOf {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "" => Ok(Self::Directory),
            "lets-encrypt" => Ok(Self::LetsEncrypt),
            "lets-encrypt-staging" => Ok(Self::LetsEncryptStaging),
            "none" => Ok(Self::Nobody),
            _ => Err("write lets-encrypt, lets-encrypt-staging or none, or leave it empty".to_owned()),
        }
    }
}

impl AcmeLimits {
    /// What the local CA holds us to: the same limits, counted by itself.
    pub(crate) fn of_local_ca(self) -> dev_ca::Limits {
        match self.of {
            LimitsOf::LetsEncrypt => dev_ca::Limits::lets_encrypt(self.scale.get()),
            LimitsOf::LetsEncryptStaging | LimitsOf::Directory | LimitsOf::Nobody => dev_ca::Limits::default(),
        }
    }

    /// The limits at the second CA's directory, as they are known of it, on the same scale.
    pub(crate) fn of_second(self, directory: &str) -> CaLimits {
        Self { of: LimitsOf::Directory, ..self }.at(Some(directory))
    }

    /// The limits at a directory; `None`: the local CA's.
    pub(crate) fn at(self, directory: Option<&str>) -> CaLimits {
        let ca = directory.map_or("local", |url| url.strip_prefix("https://").unwrap_or(url).trim_end_matches('/'));
        let limits = match (self.of, directory) {
            (LimitsOf::Directory, Some(url)) => CaLimits::of_directory(url),
            (LimitsOf::Directory, None) | (LimitsOf::Nobody, _) => CaLimits::none(ca),
            (LimitsOf::LetsEncrypt, _) => CaLimits::lets_encrypt(ca),
            (LimitsOf::LetsEncryptStaging, _) => CaLimits::lets_encrypt_staging(ca),
        };
        limits.scaled(self.scale.get())
    }
}
