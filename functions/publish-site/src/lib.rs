//! The only writer of the bucket: projects records into bundles and the index.
//!
//! Arrives: a batch of nudges from `publish-site`. Leaves: for each name the bundle or tombstone that its record calls for, the index that
//! says so, and the record, which then knows. Goes wrong: another writer was first (read again, merge, retry), the bucket cannot be asked
//! (the message comes back). Versions only grow, so a late or repeated nudge changes nothing.

mod project;
mod write;

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
    time::Duration,
};

use aws_lambda_events::event::sqs::{SqsBatchResponse, SqsEvent};
use bundles::{EDGE_SETTINGS_OBJECT, EdgeSettings, IndexEntry, IndexShard, SiteObject, index_object, shard_of, site_object};
use domains::{BundleBucket, Claim, Clock, CommitError, DomainTable, Hostname, Nudge, SiteVersion, Step, decide};
use futures_util::{StreamExt, stream};
use steps::{Outcome, StepFailure, message_id, read_nudge, respond};

use crate::project::Projection;

/// How often one write is decided anew after other writers were first.
const RACES: usize = 6;

/// How many names of a batch are worked on at once: each waits for the disk or the network, not for the processor.
const CONCURRENCY: usize = 32;

/// How long one batch may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// The step's parts.
pub struct PublishSite {
    /// Claims, owners and certificates: the truth.
    pub table: Arc<dyn DomainTable>,
    /// The projection.
    pub bucket: Arc<dyn BundleBucket>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
}

/// One nudge's way through a batch.
struct Job {
    message: Option<String>,
    claim: Claim,
    projection: Projection,
}

impl PublishSite {
    /// Publishes what each message of the batch asks for, and reports the failed ones.
    pub async fn handle_batch(&self, event: SqsEvent) -> SqsBatchResponse {
        let ids: Vec<_> = event.records.iter().filter_map(message_id).collect();
        let nudges = event.records.iter().map(|message| (message_id(message), read_nudge(message))).collect();
        match tokio::time::timeout(DEADLINE, self.publish(nudges)).await {
            Ok(failed) => respond(failed),
            Err(_) => {
                tracing::warn!(step = Step::PublishSite.as_str(), "the batch ran out of time");
                respond(ids)
            }
        }
    }

    /// Publishes for one nudge.
    ///
    /// # Errors
    /// [`StepFailure`] when it must be tried again.
    pub async fn take(&self, nudge: &Nudge) -> Result<Outcome, StepFailure> {
        let failed = self.publish(vec![(Some("one".into()), Ok(nudge.clone()))]).await;
        if failed.is_empty() { Ok(Outcome::Recorded("published")) } else { Err(StepFailure::Retry("the site was not published".into())) }
    }

    /// Tells every edge how to answer http-01 challenges: the thumbprints of the ACME accounts in use.
    ///
    /// # Errors
    /// [`StepFailure`] when the bucket cannot be asked or other writers were first each time.
    pub async fn publish_edge_settings(&self, thumbprints: &[String]) -> Result<(), StepFailure> {
        for _ in 0..RACES {
            let present = self.bucket.get(EDGE_SETTINGS_OBJECT).await?;
            // The keys in the object are schedule-renewals' part of it.
            let mut settings = match &present {
                Some((bytes, _)) => EdgeSettings::from_bytes(bytes).map_err(|error| StepFailure::Defect(error.to_string()))?,
                None => EdgeSettings::new(0, Vec::new()),
            };
            if present.is_some() && settings.challenge_thumbprints == thumbprints {
                return Ok(());
            }
            settings.generation += 1;
            settings.challenge_thumbprints = thumbprints.to_vec();
            match self.bucket.put(EDGE_SETTINGS_OBJECT, &settings.to_bytes(), &write::condition(present.as_ref())).await {
                Ok(()) => return Ok(()),
                Err(CommitError::Conflict) => {}
                Err(CommitError::Store(error)) => return Err(error.into()),
            }
        }
        Err(CommitError::Conflict.into())
    }

    /// Returns the ids of the messages that failed.
    async fn publish(&self, nudges: Vec<(Option<String>, Result<Nudge, StepFailure>)>) -> Vec<String> {
        let mut failed = Vec::new();
        let mut jobs: BTreeMap<Hostname, Job> = BTreeMap::new();
        let read = stream::iter(nudges).map(|(message, nudge)| async move { (message.clone(), self.job(message, nudge).await) });
        let read: Vec<_> = read.buffer_unordered(CONCURRENCY).collect().await;
        for (message, job) in read {
            match job {
                // Two claims to one name share one site, hence one projection; the second message comes again, and finds its own turn.
                Ok(Some(job)) => match jobs.entry(job.claim.key.hostname.clone()) {
                    Entry::Vacant(slot) => drop(slot.insert(job)),
                    Entry::Occupied(slot) if slot.get().claim.key == job.claim.key => {}
                    Entry::Occupied(_) => failed.extend(message),
                },
                Ok(None) => {}
                Err(error) => failed.extend(self.report(message, &error, None)),
            }
        }

        // Present: bundle, then index. Removed: index, then bundle. An edge thus never finds a name without its bundle.
        let (present, removed): (Vec<_>, Vec<_>) = jobs.into_values().partition(|job| job.projection.is_present());
        let present = self.each(present, &mut failed, |job| self.write_object(job)).await;
        fail::fail_point!("publish.bundle_put", |_| std::process::abort());
        let all: Vec<_> = present.into_iter().chain(removed).collect();
        let indexed = self.write_index(all, &mut failed).await;
        fail::fail_point!("publish.index_put", |_| std::process::abort());
        let (present, removed): (Vec<_>, Vec<_>) = indexed.into_iter().partition(|job| job.projection.is_present());
        let removed = self.each(removed, &mut failed, |job| self.remove_object(job)).await;
        let published = present.into_iter().chain(removed).collect();
        self.each(published, &mut failed, |job| async move {
            match self.record(&job).await {
                Ok(()) => Ok(job),
                Err(error) => Err((job, error)),
            }
        })
        .await;
        failed
    }

    async fn job(&self, message: Option<String>, nudge: Result<Nudge, StepFailure>) -> Result<Option<Job>, StepFailure> {
        let nudge = nudge?;
        let Some(claim) = self.table.claim(&nudge.key()).await? else { return Ok(None) };
        if !claim.is_due(Step::PublishSite, self.clock.now()) {
            return Ok(None);
        }
        let projection = project::project(self.table.as_ref(), &claim, self.clock.now()).await?;
        Ok(Some(Job { message, claim, projection }))
    }

    async fn each<'a, F>(&'a self, jobs: Vec<Job>, failed: &mut Vec<String>, act: impl Fn(Job) -> F) -> Vec<Job>
    where
        F: Future<Output = Result<Job, (Job, StepFailure)>> + 'a,
    {
        let ended: Vec<_> = stream::iter(jobs).map(act).buffer_unordered(CONCURRENCY).collect().await;
        let mut done = Vec::new();
        for ended in ended {
            match ended {
                Ok(job) => done.push(job),
                Err((job, error)) => failed.extend(self.report(job.message.clone(), &error, Some(&job.claim))),
            }
        }
        done
    }

    async fn write_object(&self, job: Job) -> Result<Job, (Job, StepFailure)> {
        match self.put_site(&job).await {
            Ok(()) => Ok(job),
            Err(error) => Err((job, error)),
        }
    }

    async fn remove_object(&self, job: Job) -> Result<Job, (Job, StepFailure)> {
        if job.projection.site().is_none() {
            return Ok(job);
        }
        let removed = async {
            self.put_site(&job).await?;
            Ok(self.bucket.purge_older(&site_object(&job.claim.key.hostname)).await?)
        };
        match removed.await {
            Ok(()) => Ok(job),
            Err(error) => Err((job, error)),
        }
    }

    async fn put_site(&self, job: &Job) -> Result<(), StepFailure> {
        match job.projection.site() {
            Some((object, bytes)) => write::put_newer(self.bucket.as_ref(), object, bytes).await,
            None => Ok(()),
        }
    }

    /// Writes every shard the jobs touch once.
    async fn write_index(&self, jobs: Vec<Job>, failed: &mut Vec<String>) -> Vec<Job> {
        let mut shards: BTreeMap<u8, Vec<Job>> = BTreeMap::new();
        for job in jobs {
            shards.entry(shard_of(&job.claim.key.hostname)).or_default().push(job);
        }
        let merged = stream::iter(shards).map(|(shard, jobs)| async move { (self.merge_shard(shard, &jobs).await, jobs) });
        let merged: Vec<_> = merged.buffer_unordered(CONCURRENCY).collect().await;
        let mut done = Vec::new();
        for (result, jobs) in merged {
            match result {
                Ok(()) => done.extend(jobs),
                Err(error) => {
                    for job in jobs {
                        failed.extend(self.report(job.message.clone(), &error, Some(&job.claim)));
                    }
                }
            }
        }
        done
    }

    async fn merge_shard(&self, shard: u8, jobs: &[Job]) -> Result<(), StepFailure> {
        let name = index_object(shard);
        let now = self.clock.now().as_second();
        for _ in 0..RACES {
            let present = self.bucket.get(&name).await?;
            let mut index = match &present {
                Some((bytes, _)) => IndexShard::from_bytes(bytes).map_err(|error| StepFailure::Defect(format!("{name}: {error}")))?,
                None => IndexShard::empty(shard),
            };
            let mut changed = false;
            for job in jobs {
                let Some((object, bytes)) = job.projection.site() else { continue };
                let entry = index_entry(object, bytes);
                changed |= index.merge(&job.claim.key.hostname, entry).map_err(|error| StepFailure::Defect(format!("{name}: {error}")))?;
            }
            if !changed {
                return Ok(());
            }
            index.sweep(now);
            match self.bucket.put(&name, &index.to_bytes(), &write::condition(present.as_ref())).await {
                Ok(()) => return Ok(()),
                Err(CommitError::Conflict) => {}
                Err(CommitError::Store(error)) => return Err(error.into()),
            }
        }
        Err(CommitError::Conflict.into())
    }

    async fn record(&self, job: &Job) -> Result<(), StepFailure> {
        let version = job.projection.version().unwrap_or(SiteVersion(0));
        let mut claim = job.claim.clone();
        for _ in 0..RACES {
            let now = self.clock.now();
            let Some(change) = decide::record_publication(&claim, job.projection.tenant(), version, now) else {
                // The claim ended or was renewed meanwhile: what it waits for now was not published, and this message can still see to it.
                return match claim.is_due(Step::PublishSite, now) {
                    true => Err(StepFailure::Retry("the claim moved on while its site was published".into())),
                    false => Ok(()),
                };
            };
            match self.table.commit(&change).await {
                Ok(()) => {
                    tracing::info!(step = Step::PublishSite.as_str(), hostname = %claim.key.hostname, tenant = %claim.key.tenant, %version,
                        outcome = job.projection.word(), "recorded");
                    return Ok(());
                }
                Err(CommitError::Store(error)) => return Err(error.into()),
                Err(CommitError::Conflict) => {}
            }
            // Another lane of the claim wrote; what the bucket shows is still true of this version.
            match self.table.claim(&claim.key).await? {
                Some(again) if again.claim_id == claim.claim_id => claim = again,
                _ => return Ok(()),
            }
        }
        Err(CommitError::Conflict.into())
    }

    fn report(&self, message: Option<String>, error: &StepFailure, claim: Option<&Claim>) -> Option<String> {
        let hostname = claim.map(|claim| claim.key.hostname.to_string());
        match error {
            StepFailure::Retry(why) => tracing::warn!(step = Step::PublishSite.as_str(), hostname, why, "will be tried again"),
            StepFailure::Defect(why) => tracing::error!(step = Step::PublishSite.as_str(), hostname, why, "needs a person"),
        }
        message
    }
}

fn index_entry(object: &SiteObject, bytes: &[u8]) -> IndexEntry {
    let (tenant, removed_at) = match object {
        SiteObject::Present(bundle) => (Some(bundle.tenant.clone()), None),
        SiteObject::Removed(tombstone) => (None, Some(tombstone.removed_at)),
    };
    IndexEntry { version: object.version(), tenant, removed_at, digest: bundles::Digest::of(bytes) }
}
