//! The origin that a domain's requests go to.
//!
//! Arrives: a claim, its owner item and its certificate. Leaves: the claim with its origin and, when its site is served, the same site one
//! version on, which says so to the edge. Goes wrong: nothing; what was removed is sent nowhere.

use jiff::Timestamp;

use super::{
    rewrite,
    suspension::{is_over, shown_anew},
};
use crate::{Change, Claim, OriginName, Owner, Publication, State, StoredCertificate};

/// Sends the domain's requests to one of the operator's origins, or with `None` to the edge's usual one. `None` when the claim is over or
/// has this origin already, or when `stored` is not the certificate that a served claim names.
pub fn set_origin(
    claim: &Claim,
    owner: Option<&Owner>,
    stored: Option<&StoredCertificate>,
    origin: Option<&OriginName>,
    now: Timestamp,
) -> Option<Change> {
    if is_over(claim) || claim.origin.as_ref() == origin {
        return None;
    }
    let (state, site) = match &claim.state {
        State::Active { publication, .. } if claim.suspension.is_none() => {
            let was_shown = matches!(publication, Publication::Done { .. });
            let (mut state, site) = shown_anew(claim, owner, stored, now)?;
            if let State::Active { renewed, .. } = &mut state {
                // What is shown is served until this is.
                *renewed |= was_shown;
            }
            (state, Some(site))
        }
        // Its site, once there is one, is published with the origin it then has.
        state => (state.clone(), None),
    };
    let mut change = rewrite(claim, state, claim.problem.clone(), claim.last_look.clone(), now, Some("origin_changed"));
    change.claims[0].item.origin = origin.cloned();
    change.history[0].detail = Some(origin.map_or_else(|| "the usual origin".to_owned(), ToString::to_string));
    Some(match site {
        Some(site) => site.written_with(change),
        None => change,
    })
}
