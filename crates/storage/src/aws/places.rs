//! What the parts of the home on AWS are called.

use domains::Step;

/// The names of everything the home on AWS consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// The table with claims, owners, certificates and history.
    pub table: String,
    /// The table with token buckets, callers and marks.
    pub second_table: String,
    /// The URL of verify-ownership's queue.
    pub verify_ownership: String,
    /// The URL of issue-certificate's queue.
    pub issue_certificate: String,
    /// The URL of publish-site's queue.
    pub publish_site: String,
    /// The bucket.
    pub bucket: String,
    /// How often a message is received before it is dead, as the queues' redrive policies say.
    pub max_receives: u32,
}

impl Places {
    /// The URL of a step's queue.
    pub fn queue(&self, step: Step) -> &str {
        match step {
            Step::VerifyOwnership => &self.verify_ownership,
            Step::IssueCertificate => &self.issue_certificate,
            Step::PublishSite => &self.publish_site,
        }
    }

    /// The URL of the queue with a step's dead letters: the queue's own, with `-dead` behind it.
    pub fn dead_queue(&self, step: Step) -> String {
        format!("{}-dead", self.queue(step))
    }
}
