//! An order, state by state, from wherever it stands to its certificate.
//!
//! Arrives: an order's URL and the CSR that was stored before. Leaves: the PEM chain, unchecked. Goes wrong: the CA needs longer than our
//! budget (`NotYet`), the order ended (its reason is looked for), or an answer failed. Nothing here remembers: the order's own state at the
//! CA is the only one, so that a walk that was cut off anywhere goes on from there.

use std::time::Duration;

use domains::{Attempt, ChallengeWay, Hostname, IssueError, StoreError};
use instant_acme::{AuthorizationStatus, Challenge, ChallengeStatus, ChallengeType, Error, Order, OrderStatus, Problem};
use tokio::time::{Instant, sleep};

use super::client::last_wait;
use super::problems::{Kind, Said, is_bad_nonce, judge_problem};
use super::{AcmeIssuer, FRESH_NONCES, Stop, past_bad_nonces};

/// The longest of our own waits between two looks at an order.
const LONGEST_PAUSE: Duration = Duration::from_secs(3);
/// How long after its beginning a valid order's certificate may still be missing before we order anew.
const CERTIFICATE_PATIENCE: Duration = Duration::from_hours(1);

impl AcmeIssuer {
    /// Takes an order to its certificate.
    ///
    /// Answers in the answer zone follow from the order alone: they are put there before the CA is told to look, and taken away at its end,
    /// whoever put them there.
    pub(super) async fn walk(&self, hostname: &Hostname, order_url: &str, csr: &[u8], attempt: &Attempt) -> Result<String, Stop> {
        let way = &attempt.plan.challenge;
        let mut pace = Pace::new(self.config.poll_initial, self.config.step_budget);
        let mut order = self.reopen(order_url).await?;
        let (mut answered, mut finalized) = (false, false);
        loop {
            match order.state().status {
                OrderStatus::Pending if !answered => {
                    answered = true;
                    self.present_answers(&mut order, way).await?;
                    fail::fail_point!("issue.answers_presented", |_| std::process::abort());
                    answer_challenges(&mut order, way).await?;
                }
                OrderStatus::Ready if !finalized => {
                    finalized = true;
                    finalize(&mut order, csr).await?;
                    if order.state().status == OrderStatus::Valid {
                        continue;
                    }
                }
                // Answered or finalized, and the CA's state is a moment behind.
                OrderStatus::Pending | OrderStatus::Ready | OrderStatus::Processing => {}
                OrderStatus::Valid => {
                    self.withdraw_answers(hostname, &mut order, way).await;
                    return self.download(&mut order, attempt).await;
                }
                OrderStatus::Invalid => {
                    self.withdraw_answers(hostname, &mut order, way).await;
                    return Err(self.why_invalid(&mut order).await);
                }
            }
            pace.pause(last_wait()).await?;
            past_bad_nonces!(order.refresh()).map_err(Said::ToOrderRequest.failure())?;
        }
    }

    async fn reopen(&self, order_url: &str) -> Result<Order, Stop> {
        let elsewhere = self.is_elsewhere(order_url);
        let account = self.account().await?;
        past_bad_nonces!(account.order(order_url.to_owned())).map_err(|error| match error {
            // The CA was changed or moved while the order was open; its old place may be silent for ever.
            error if elsewhere => IssueError::OrderDead { detail: format!("{order_url} is not at the configured CA: {error}") }.into(),
            error => Said::ToOrderRequest.failure()(error).into(),
        })
    }

    /// Puts the answers of all challenges that wait into the answer zone; returns once the zone gives them.
    async fn present_answers(&self, order: &mut Order, way: &ChallengeWay) -> Result<(), Stop> {
        let ChallengeWay::Dns01 { name } = way else { return Ok(()) };
        let Some(zone) = &self.config.answers else {
            return Err(IssueError::Refused { detail: "a dns-01 challenge, and this installation has no answer zone".into() }.into());
        };
        let values = past_bad_nonces!(answers_of(order, true)).map_err(Said::ToOrderRequest.failure())?;
        for value in values {
            zone.present(name, &value).await.map_err(|error| match error {
                StoreError::Unavailable { detail } => {
                    IssueError::Unavailable { retry_after: None, detail: format!("our answer zone: {detail}") }
                }
                StoreError::Defect { detail } => IssueError::Refused { detail: format!("our answer zone: {detail}") },
            })?;
        }
        Ok(())
    }

    /// Takes the answers of an order that has ended out of the answer zone. One that stays does no harm, and a certificate does not wait for
    /// it to go.
    async fn withdraw_answers(&self, hostname: &Hostname, order: &mut Order, way: &ChallengeWay) {
        let (ChallengeWay::Dns01 { name }, Some(zone)) = (way, &self.config.answers) else { return };
        match past_bad_nonces!(answers_of(order, false)) {
            Ok(values) => {
                for value in values {
                    if let Err(error) = zone.withdraw(name, &value).await {
                        tracing::warn!(%hostname, %error, "an answer stays in the answer zone");
                    }
                }
            }
            Err(error) => tracing::warn!(%hostname, %error, "which answers are left in the answer zone cannot be asked"),
        }
    }

    async fn download(&self, order: &mut Order, attempt: &Attempt) -> Result<String, Stop> {
        let failure = match past_bad_nonces!(order.certificate()) {
            Ok(Some(chain)) => return Ok(chain),
            Ok(None) => return Err(IssueError::NotYet { retry_after: last_wait() }.into()),
            Err(error) => Said::ToOrderRequest.failure()(error),
        };
        let waited = Duration::try_from(self.now().duration_since(attempt.started_at)).unwrap_or_default();
        if failure.status() == Some(404) && waited < CERTIFICATE_PATIENCE {
            // The certificate exists, but this one of the CA's data centres has not heard of it.
            let detail = "the CA does not know it yet".to_owned();
            return Err(IssueError::CertificateLate { retry_after: last_wait(), detail }.into());
        }
        Err(match failure.judge(self.now()) {
            IssueError::OrderDead { detail } => IssueError::CertificateLost { detail },
            error => error,
        }
        .into())
    }

    /// Looks for the reason in the authorizations first: Boulder leaves the order's own error empty, Pebble repeats it there.
    async fn why_invalid(&self, order: &mut Order) -> Stop {
        let of_order = order.state().error.clone();
        let (problem, said) = match past_bad_nonces!(challenge_error(order)) {
            Ok(Some(problem)) => (problem, Said::OfChallenge),
            Ok(None) => match of_order {
                Some(problem) => (problem, Said::OfOrder),
                None => return IssueError::OrderDead { detail: "the CA does not say why; it may have expired".into() }.into(),
            },
            Err(error) => return Said::ToOrderRequest.failure()(error).into(),
        };
        judge_problem(&problem, said, problem.status, None, self.now()).into()
    }
}

/// Sends the CSR of a `ready` order.
async fn finalize(order: &mut Order, csr: &[u8]) -> Result<(), Stop> {
    let sent = past_bad_nonces!(order.finalize_csr(csr));
    fail::fail_point!("issue.finalize_sent", |_| std::process::abort());
    match sent.map_err(Said::ToOrderRequest.failure()) {
        Ok(()) => Ok(()),
        // It was finalized meanwhile, by a request whose answer was lost: the order's state knows.
        Err(failure) if failure.kind() == Some(Kind::OrderNotReady) => Ok(()),
        Err(failure) => Err(failure.into()),
    }
}

/// Tells the CA to look at every challenge that it has not looked at yet.
async fn answer_challenges(order: &mut Order, way: &ChallengeWay) -> Result<(), Stop> {
    let kind = kind_of(way);
    let failure = match past_bad_nonces!(answer_once(order, &kind)) {
        Ok(true) => return Ok(()),
        Ok(false) => {
            let detail = format!("the CA offers no {} challenge for this name", name_of(way));
            return Err(IssueError::Refused { detail }.into());
        }
        Err(error) => Said::ToOrderRequest.failure()(error),
    };
    // Some CAs refuse an answer to a challenge that was settled since we read it; then the order has moved on.
    if failure.kind() == Some(Kind::Malformed) {
        past_bad_nonces!(order.refresh()).map_err(Said::ToOrderRequest.failure())?;
        if !past_bad_nonces!(has_open_challenge(order, &kind)).map_err(Said::ToOrderRequest.failure())? {
            return Ok(());
        }
    }
    Err(failure.into())
}

fn kind_of(way: &ChallengeWay) -> ChallengeType {
    match way {
        ChallengeWay::Http01 => ChallengeType::Http01,
        ChallengeWay::Dns01 { .. } => ChallengeType::Dns01,
    }
}

fn name_of(way: &ChallengeWay) -> &'static str {
    match way {
        ChallengeWay::Http01 => "http-01",
        ChallengeWay::Dns01 { .. } => "dns-01",
    }
}

/// The TXT values that answer the order's dns-01 challenges: of those that wait, or of all.
async fn answers_of(order: &mut Order, only_waiting: bool) -> Result<Vec<String>, Error> {
    let mut values = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if only_waiting && authorization.status != AuthorizationStatus::Pending {
            continue;
        }
        if let Some(challenge) = authorization.challenge(ChallengeType::Dns01) {
            values.push(challenge.key_authorization().dns_value());
        }
    }
    Ok(values)
}

/// Returns whether every authorization that waits has a challenge of this kind, all of which are answered then.
async fn answer_once(order: &mut Order, kind: &ChallengeType) -> Result<bool, Error> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if authorization.status != AuthorizationStatus::Pending {
            continue;
        }
        let Some(mut challenge) = authorization.challenge(kind.clone()) else { return Ok(false) };
        if challenge.status != ChallengeStatus::Pending {
            continue;
        }
        match challenge.set_ready().await {
            // What a first try brought. The CA may be trying again, so the order's state decides. Source: RFC 8555, section 8.2.
            Err(error @ Error::Api(_)) if !is_bad_nonce(&error) => {}
            answered => answered?,
        }
    }
    Ok(true)
}

async fn has_open_challenge(order: &mut Order, kind: &ChallengeType) -> Result<bool, Error> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let authorization = authorization?;
        let open = |challenge: &Challenge| challenge.r#type == *kind && challenge.status == ChallengeStatus::Pending;
        if authorization.status == AuthorizationStatus::Pending && authorization.challenges.iter().any(open) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Why a validation failed, if one did.
async fn challenge_error(order: &mut Order) -> Result<Option<Problem>, Error> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let authorization = authorization?;
        let failed = authorization.challenges.iter().filter(|challenge| challenge.status == ChallengeStatus::Invalid);
        if let Some(error) = failed.filter_map(|challenge| challenge.error.clone()).next() {
            return Ok(Some(error));
        }
    }
    Ok(None)
}

/// How often the order is looked at: as the CA says, else ever more slowly, and not beyond the budget.
struct Pace {
    shortest: Duration,
    next: Duration,
    deadline: Instant,
}

impl Pace {
    fn new(shortest: Duration, budget: Duration) -> Self {
        Self { shortest, next: shortest, deadline: Instant::now() + budget }
    }

    /// Waits as long as the CA `named`, or our own pause; beyond the budget somebody looks again later.
    async fn pause(&mut self, named: Option<Duration>) -> Result<(), IssueError> {
        // "At once" must not make us busy.
        let wait = named.map_or(self.next, |named| named.max(self.shortest));
        self.next = (self.next * 2).min(LONGEST_PAUSE.max(self.shortest));
        if Instant::now() + wait > self.deadline {
            return Err(IssueError::NotYet { retry_after: named });
        }
        sleep(wait).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_pace_slows_down_follows_the_ca_and_ends_with_the_budget() {
        let start = Instant::now();
        let mut pace = Pace::new(Duration::from_millis(100), Duration::from_secs(20));
        for expected in [100, 200, 400, 800] {
            let before = Instant::now();
            pace.pause(None).await.unwrap();
            assert_eq!(before.elapsed(), Duration::from_millis(expected));
        }
        let before = Instant::now();
        pace.pause(Some(Duration::ZERO)).await.unwrap();
        assert_eq!(before.elapsed(), Duration::from_millis(100), "never busy");
        pace.pause(Some(Duration::from_secs(10))).await.unwrap();
        let named = Some(Duration::from_secs(30));
        assert!(matches!(pace.pause(named).await, Err(IssueError::NotYet { retry_after }) if retry_after == named));
        while pace.pause(None).await.is_ok() {}
        assert!(start.elapsed() <= Duration::from_secs(20) && start.elapsed() > Duration::from_secs(16));
    }
}
