//! Where everything is kept: on this machine or on AWS, and the same to whoever works with it.
//!
//! Arrives: the configuration. Leaves: a [`Home`], each contract of `domains` by itself. Goes wrong: a folder in use, which is said at once;
//! what AWS refuses is said by the first call that meets it.

use std::sync::Arc;

use domains::{
    AnswerZone, BundleBucket, Callers, Clock, Documents, DomainTable, DueIndex, EventFeed, Limits, Listings, Marks, StepQueue, StoreError,
};
use edge::{FolderSource, Source};
use storage::{
    consumers::{FeedConsumer, QueueConsumer},
    local::{Chaos, LocalConfig, LocalHome},
};

use crate::{
    config::{Config, HomePlace},
    product::{StartError, start_failed},
};

/// Where the home on this machine is, below the data folder.
pub(crate) const HOME: &str = "home";

/// Everything that the parts of the product remember by.
pub(crate) struct Home {
    pub(crate) table: Arc<dyn DomainTable>,
    pub(crate) listings: Arc<dyn Listings>,
    pub(crate) events: Arc<dyn EventFeed>,
    pub(crate) due: Arc<dyn DueIndex>,
    pub(crate) queue: Arc<dyn StepQueue>,
    pub(crate) limits: Arc<dyn Limits>,
    pub(crate) callers: Arc<dyn Callers>,
    pub(crate) marks: Arc<dyn Marks>,
    pub(crate) documents: Arc<dyn Documents>,
    pub(crate) bucket: Arc<dyn BundleBucket>,
    pub(crate) feed: Arc<dyn FeedConsumer>,
    pub(crate) queues: Arc<dyn QueueConsumer>,
    /// Where dns-01 is answered; `None` where names are proved by http-01 only.
    pub(crate) answers: Option<Arc<dyn AnswerZone>>,
    /// The bucket as the edge reads it.
    pub(crate) source: Arc<dyn Source>,
    /// The home on this machine, when it is that one.
    pub(crate) local: Option<LocalHome>,
}

impl Home {
    /// Opens the home that the configuration names.
    pub(crate) async fn open(config: &Config, clock: Arc<dyn Clock>) -> Result<Self, StartError> {
        match &config.home {
            HomePlace::Local => local(config, clock),
            HomePlace::Aws(places) => aws::open(places, clock).await,
        }
    }

    /// Lets go of it; what was answered is kept whether or not this succeeds.
    pub(crate) async fn close(self) -> Result<(), StoreError> {
        match self.local {
            Some(local) => local.close().await,
            None => Ok(()),
        }
    }

    fn of<H>(home: &Arc<H>, source: Arc<dyn Source>) -> Self
    where
        H: domains::Home + FeedConsumer + QueueConsumer + 'static,
    {
        Self {
            table: home.clone(),
            listings: home.clone(),
            events: home.clone(),
            due: home.clone(),
            queue: home.clone(),
            limits: home.clone(),
            callers: home.clone(),
            marks: home.clone(),
            documents: home.clone(),
            bucket: home.clone(),
            feed: home.clone(),
            queues: home.clone(),
            answers: None,
            source,
            local: None,
        }
    }
}

fn local(config: &Config, clock: Arc<dyn Clock>) -> Result<Home, StartError> {
    let folder = config.data.join(HOME);
    if storage::local::is_under_way(&folder).map_err(|error| start_failed("the store")(&error))? {
        let detail = "its restoring from a backup did not end; run `nameplate restore` again".to_owned();
        return Err(StartError::Start { what: "the store", detail });
    }
    let mut settings = LocalConfig::new(folder, clock);
    settings.chaos = config.chaos_seed.map(Chaos::seeded);
    let local = LocalHome::open(settings).map_err(|error| start_failed("the store")(&error))?;
    let home = Arc::new(local.clone());
    let source = Arc::new(FolderSource::new(local.bucket_folder()));
    Ok(Home { answers: Some(home.clone()), local: Some(local), ..Home::of(&home, source) })
}

#[cfg(feature = "aws")]
mod aws {
    use edge::{BucketPlace, BucketSource};
    use storage::aws::{Access, AwsHome, Places, Route53Zone};

    use super::{AnswerZone, Arc, Clock, Home, StartError};
    use crate::config::AwsPlaces;

    pub(super) async fn open(named: &AwsPlaces, clock: Arc<dyn Clock>) -> Result<Home, StartError> {
        let failed = |detail: String| StartError::Start { what: "the home on AWS", detail };
        let places = Places::read(|variable, _| named.names.get(variable).cloned());
        let places = places.ok_or_else(|| failed("a place has no name".to_owned()))?;
        let bucket = BucketPlace::parse(&format!("s3://{}", places.bucket)).map_err(failed)?;
        let source = Arc::new(BucketSource::open(bucket).await);
        let home = Arc::new(AwsHome::open(&Access::Ambient, places, clock).await);
        let answers = match &named.answers_hosted_zone {
            Some(zone) => Some(Arc::new(Route53Zone::open(&Access::Ambient, zone).await) as Arc<dyn AnswerZone>),
            None => None,
        };
        Ok(Home { answers, ..Home::of(&home, source) })
    }
}

#[cfg(not(feature = "aws"))]
mod aws {
    use super::{Arc, Clock, Home, StartError};
    use crate::config::AwsPlaces;

    /// A configuration that names AWS is refused by a build without it; this says so to whoever comes here all the same.
    pub(super) async fn open(_: &AwsPlaces, _: Arc<dyn Clock>) -> Result<Home, StartError> {
        Err(StartError::Start { what: "the home on AWS", detail: "this build has none".to_owned() })
    }
}
