//! The origins that requests can go to.
//!
//! Arrives: the name that a site's bundle has. Leaves: the origin with its connections. Goes wrong: a name that this edge was not told of;
//! another origin would get what is not its own, so such a request is refused.

use std::{collections::BTreeMap, io, sync::Arc};

use domains::OriginName;

use crate::{
    config::Config,
    origin::{Origin, OriginError},
};

/// The usual origin, and the named ones.
#[derive(Debug)]
pub(crate) struct Origins {
    usual: Arc<Origin>,
    named: BTreeMap<OriginName, Arc<Origin>>,
}

impl Origins {
    /// The origins of a configuration.
    ///
    /// # Errors
    /// What TLS needs cannot be read.
    pub(crate) fn new(config: &Config) -> io::Result<Self> {
        let origin = |address: &str, protocol| Origin::new(address.to_owned(), protocol, config.limits.clone());
        let named = config.origins.iter().map(|(name, place)| Ok((name.clone(), origin(&place.address, &place.protocol)?)));
        Ok(Self { usual: origin(&config.origin, &config.origin_protocol)?, named: named.collect::<io::Result<_>>()? })
    }

    /// The origin of this name; `None` is the usual one.
    ///
    /// # Errors
    /// [`OriginError::Unknown`].
    pub(crate) fn find(&self, name: Option<&OriginName>) -> Result<&Arc<Origin>, OriginError> {
        let Some(name) = name else { return Ok(&self.usual) };
        self.named.get(name).ok_or_else(|| OriginError::Unknown(name.clone()))
    }

    /// All of them.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Origin>> {
        std::iter::once(&self.usual).chain(self.named.values())
    }
}
