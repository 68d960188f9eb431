//! Leaf clusters: what the authority says of them, and asking each with its word for a proof.

use std::time::Instant;

use futures_util::future::join_all;
use zeroize::Zeroizing;

use crate::destination::manifest::MissingOutput;
use crate::error::{Context as _, Error, Kind, Result};
use crate::join::prove::Presented;
use crate::net::{self, AuthorityTrust};
use crate::once::exchange::authority::{Asker, Authority, Place, Question};
use crate::once::exchange::check::{Issuance, check};
use crate::once::exchange::keys::JobKeys;
use crate::once::exchange::refusal;
use crate::once::exchange::request::{output_request, signature_of};
use crate::once::run::Run;
use crate::once::settings::leaf::{PinnedLeaf, checked};
use crate::once::settings::output::Output;
use crate::secret::Secret;
use crate::text::shown_long;
use crate::wire::{ExchangeRequest, LeafAnswer, LeafRequest, OutputRequest, Proof, TRUSTED_CLUSTER, binding};

/// What the authority is asked for: each leaf cluster that has outputs, with what its proof is to be bound to.
pub(super) fn requests(run: Run<'_>) -> Vec<LeafRequest> {
    let request = |leaf: &str| {
        let keys: Vec<_> = run.issued_by(Some(leaf)).map(|(_, keys)| keys.bound()).collect();
        let roles = run.issued_by(Some(leaf)).next().map(|(output, _)| output.roles.clone());
        LeafRequest { name: leaf.to_owned(), binding: binding(&keys, &[]), roles: roles.unwrap_or_default() }
    };
    run.settings.leaves_asked().into_iter().map(request).collect()
}

/// A leaf cluster, as it is believed to be, and the proof for it.
pub(super) struct Leaf {
    known: PinnedLeaf,
    proof: Secret,
}

/// What the authority says of the leaves that were asked for, and beside them what the settings know, which counts before it.
///
/// # Errors
/// `Kind::Unreachable` where that cannot be: a host of two clusters, say.
pub(super) fn believed(
    answers: Vec<LeafAnswer>,
    (asked, cluster): (&[LeafRequest], &str),
    pinned: &[PinnedLeaf],
) -> Result<(Vec<Leaf>, Vec<String>)> {
    let wrong = |why: String| {
        Error::new(Kind::Unreachable, why).context("what the authority says of leaf clusters cannot be").hint(
            "have its policy corrected (`leaf_cluster`), or `leaves` of --config, which counts before it",
        )
    };
    if !answers.iter().map(|answer| &answer.name).eq(asked.iter().map(|leaf| &leaf.name)) {
        return Err(wrong("it names others than were asked for".to_owned()));
    }
    let mut all = pinned.to_vec();
    all.extend(
        answers
            .iter()
            .filter(|answer| pinned.iter().all(|it| it.name != answer.name))
            .map(PinnedLeaf::of_answer),
    );
    let all = checked(all).map_err(wrong)?;
    if all.iter().any(|leaf| leaf.name == cluster) {
        return Err(wrong("it names itself".to_owned()));
    }
    let hosts = all.iter().flat_map(|leaf| leaf.hosts.clone()).collect();
    let leaves = answers.into_iter().filter_map(|answer| {
        let known = all.iter().find(|leaf| leaf.name == answer.name)?.clone();
        Some(Leaf { known, proof: answer.proof })
    });
    Ok((leaves.collect(), hosts))
}

/// What a leaf cluster gave.
pub(super) struct OfLeaf {
    pub place: Place,
    pub hosts: Vec<String>,
    pub issuance: Issuance,
}

/// A leaf cluster that gave nothing.
pub(super) struct Failed {
    pub leaf: String,
    pub error: Error,
    denial: Option<String>,
}

impl Failed {
    /// What it is in the end of a run: the authority refused, or there was no answer that could be used.
    pub(super) fn into_error(self) -> Error {
        let kind = if self.error.kind() == Kind::Refused { Kind::Refused } else { Kind::Unreachable };
        let error = Error::new(kind, self.error.to_string()).context(format!("leaf {}", self.leaf));
        self.error.hints().iter().fold(error, |error, hint| error.hint(hint.as_str()))
    }

    /// The outputs that are missing for it.
    pub(super) fn missing(&self, run: Run<'_>) -> Vec<MissingOutput> {
        let missing = |(output, _): (&Output, &JobKeys)| MissingOutput {
            name: output.name.clone(),
            at: self.leaf.clone(),
            reason: self.error.to_string(),
            denial_id: self.denial.clone(),
        };
        run.issued_by(Some(&self.leaf)).map(missing).collect()
    }

    /// In words.
    pub(super) fn said(&self, run: Run<'_>) -> String {
        let names: Vec<_> = run.issued_by(Some(&self.leaf)).map(|(output, _)| output.name.as_str()).collect();
        let denial = self.denial.as_ref().map(|id| {
            format!(" (denial {id}: its operator sees why with `machine-id authority explain {id}`)")
        });
        format!(
            "leaf {}: without {}, since {}{}",
            self.leaf,
            names.join(", "),
            self.error,
            denial.unwrap_or_default()
        )
    }
}

/// Asks all of them side by side, in the name of the job of that cluster.
pub(super) async fn ask_all(
    run: Run<'_>,
    leaves: Vec<Leaf>,
    (cluster, now): (&str, i64),
    deadline: Instant,
) -> Vec<Result<OfLeaf, Failed>> {
    join_all(leaves.into_iter().map(async |leaf| {
        let name = leaf.known.name.clone();
        let mut denial = None;
        let asked = ask(run, leaf, (cluster, now), deadline, &mut denial).await;
        asked.map_err(|error| Failed { leaf: name, error, denial })
    }))
    .await
}

async fn ask(
    run: Run<'_>,
    Leaf { known, proof }: Leaf,
    (cluster, now): (&str, i64),
    deadline: Instant,
    denial: &mut Option<String>,
) -> Result<OfLeaf> {
    let PinnedLeaf { name, url, ca_pin, hosts } = known;
    let trust = AuthorityTrust::new(None, ca_pin.as_deref());
    let client = net::authority_client(&trust, &url, run.settings.timeout)?;
    let place = Place { leaf: Some(name.clone()), url, trust, client };
    let authority = Authority::new(place.clone(), run.progress);
    if let Some(signature) = signature_of(proof.expose()) {
        run.progress.mask(signature);
    }
    // The same proof with the same keys is answered again; there is no other before the job proves itself anew.
    let Presented { proof, lasts, .. } = Presented::handed_over(proof, now);
    let good_until = lasts.and_then(|lasts| Instant::now().checked_add(lasts)).unwrap_or(deadline);
    let body = body(run, &name, cluster, proof)?;
    let question = Question { body: &body, suite: None, asker: Asker::default() };
    let answer = authority.post(&question, deadline.min(good_until), async |_| false).await;
    let answer = answer.inspect_err(|_| *denial = authority.denial());
    let answer = answer?.ok_or_else(|| Error::internal("a leaf was given up"))?;
    let keys: Vec<&JobKeys> = run.issued_by(Some(&name)).map(|(_, keys)| keys).collect();
    let mut issuance = check(answer, &keys, &place.url)?;
    if issuance.response.cluster != name {
        return Err(Error::new(
            Kind::Unreachable,
            format!("what answers at {} is the authority of {}", place.url, issuance.response.cluster),
        ));
    }
    // Whatever it says of other clusters, nobody asked it.
    issuance.response.leaves.clear();
    let clock_warning = refusal::clock_warning(authority.time(), authority.clock.now());
    let warnings = issuance.response.warnings.iter().map(|warning| shown_long(warning).to_string());
    for warning in clock_warning.into_iter().chain(warnings) {
        run.progress.warning(&format!("leaf {name}: {warning}"));
    }
    Ok(OfLeaf { place, hosts, issuance })
}

fn body(run: Run<'_>, leaf: &str, cluster: &str, proof: Proof) -> Result<Zeroizing<Vec<u8>>> {
    let outputs = run.issued_by(Some(leaf)).map(|(output, keys)| OutputRequest {
        // Those that are named are the authority's, which has vouched for them.
        roles: Vec::new(),
        ..output_request(output, keys)
    });
    let request = ExchangeRequest {
        token: cluster.to_owned(),
        join_method: TRUSTED_CLUSTER.to_owned(),
        proof,
        ttl_seconds: run.settings.ttl_seconds,
        outputs: outputs.collect(),
        leaves: Vec::new(),
    };
    serde_json::to_vec(&request).map(Zeroizing::new).context(Kind::Internal, "cannot write the request")
}
