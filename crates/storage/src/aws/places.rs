//! What the parts of the home on AWS are called.
//!
//! Arrives: settings, by the names of the variables below. Leaves: [`Places`]. Goes wrong: what is missing, which the reader of settings says.

use domains::Step;

use super::definitions::MAX_RECEIVES;

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
    /// Reads every place with `text`, which is told a variable's name and what it names: all of them, so that all problems show at once.
    pub fn read(mut text: impl FnMut(&'static str, &'static str) -> Option<String>) -> Option<Self> {
        let table = text("NAMEPLATE_AWS_TABLE", "the table with claims, owners and certificates");
        let second_table = text("NAMEPLATE_AWS_SECOND_TABLE", "the table with limits, callers and documents");
        let verify_ownership = text("NAMEPLATE_AWS_VERIFY_OWNERSHIP_QUEUE", "the URL of verify-ownership's queue");
        let issue_certificate = text("NAMEPLATE_AWS_ISSUE_CERTIFICATE_QUEUE", "the URL of issue-certificate's queue");
        let publish_site = text("NAMEPLATE_AWS_PUBLISH_SITE_QUEUE", "the URL of publish-site's queue");
        let bucket = text("NAMEPLATE_AWS_BUCKET", "the bucket that the edge reads");
        Some(Self {
            table: table?,
            second_table: second_table?,
            verify_ownership: verify_ownership?,
            issue_certificate: issue_certificate?,
            publish_site: publish_site?,
            bucket: bucket?,
            max_receives: MAX_RECEIVES,
        })
    }

    /// What [`Places::read`] reads these places from.
    pub fn variables(&self) -> [(&'static str, &str); 6] {
        [
            ("NAMEPLATE_AWS_TABLE", &self.table),
            ("NAMEPLATE_AWS_SECOND_TABLE", &self.second_table),
            ("NAMEPLATE_AWS_VERIFY_OWNERSHIP_QUEUE", &self.verify_ownership),
            ("NAMEPLATE_AWS_ISSUE_CERTIFICATE_QUEUE", &self.issue_certificate),
            ("NAMEPLATE_AWS_PUBLISH_SITE_QUEUE", &self.publish_site),
            ("NAMEPLATE_AWS_BUCKET", &self.bucket),
        ]
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_from_what_names_them_and_each_that_is_missing_is_asked_for() {
        let text = |name: &str| format!("https://sqs.eu-central-1.amazonaws.com/123456789012/{name}");
        let places = Places::read(|name, _| Some(text(name))).unwrap();
        assert_eq!(places.variables().map(|(name, _)| text(name)), places.variables().map(|(_, value)| value.to_owned()));
        let mut asked = 0;
        let nothing = Places::read(|_, _| {
            asked += 1;
            None
        });
        assert_eq!((nothing, asked), (None, places.variables().len()));
    }
}
