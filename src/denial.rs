//! Why a job is refused: a code for the audit trail, the whole story for
//! `authority explain`, and as much as the caller may hear.

use serde_json::{Map, Value};

use crate::clock::rfc3339;
use crate::wire::Problem;

/// What the caller hears where saying more would tell the rules.
const NOT_ALLOWED: &str = "no rule of this authority lets this job in";

/// What is to be said of a reason.
#[derive(Clone, Copy, Debug)]
pub struct ReasonRow {
    /// The reason.
    pub reason: Reason,
    /// Its code in the audit trail.
    pub code: &'static str,
    /// The HTTP status of the reply: 401 where the proof is not valid, 403 where a rule denies.
    pub status: u16,
    /// What the caller is told.
    pub told: &'static str,
}

/// The table of all reasons: their names, codes, statuses and what the caller is told.
macro_rules! reasons {
    ($($(#[$doc:meta])+ $name:ident = $code:literal, $status:literal, $told:expr;)+) => {
        /// Why. The code stands in the audit trail and in `docs/protocol.md`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason { $($(#[$doc])+ $name,)+ }

        /// Every reason.
        pub const REASONS: &[ReasonRow] = &[$(*Reason::$name.row(),)+];

        impl Reason {
            /// What is to be said of it.
            pub const fn row(self) -> &'static ReasonRow {
                match self {
                    $(Self::$name => {
                        &ReasonRow { reason: Self::$name, code: $code, status: $status, told: $told }
                    })+
                }
            }
        }
    };
}

reasons! {
    /// Not a JWT in compact form, or not of the strict shape we take.
    TokenMalformed = "token_malformed", 401, "the token is not a well-formed JWT";
    /// A proof that is no JWT, and not what its join method takes.
    ProofMalformed = "proof_malformed", 401, "the proof is not one that this join method takes";
    /// An algorithm that this issuer does not use.
    AlgorithmRefused = "algorithm_refused", 401, "the token is signed with an algorithm that is not accepted";
    /// A header that we do not take: `crit`, `b64`, a wrong `typ`, no `kid`.
    HeaderRefused = "header_refused", 401, "the token's header is not one that is accepted";
    /// The issuer has no usable key of that `kid`.
    KeyUnknown = "key_unknown", 401, "the token is signed with a key that its issuer does not publish";
    /// The signature is not the issuer's.
    SignatureInvalid = "signature_invalid", 401, "the token's signature is not valid";
    /// Another issuer's token.
    IssuerWrong = "issuer_wrong", 401, "the token is of another issuer than this join token expects";
    /// Minted for somebody else.
    AudienceWrong = "audience_wrong", 401, "the token was minted for another audience";
    /// Bound to other keys than those of the request.
    BindingWrong = "binding_wrong", 401, "the token is bound to other keys than those of this request";
    /// A claim that must be there is missing or of the wrong type.
    ClaimInvalid = "claim_invalid", 401, "a claim of the token is missing or of the wrong type";
    /// Expired.
    TokenExpired = "token_expired", 401, "the token has expired";
    /// Not valid yet, or issued in the future.
    TokenNotYetValid = "token_not_yet_valid", 401, "the token is not valid yet";
    /// Lives longer than this issuer's tokens do.
    LifetimeTooLong = "lifetime_too_long", 401, "the token is valid for longer than is accepted";
    /// Used before, with other keys or outputs.
    TokenUsed = "token_used", 401, "the token has been used before";
    /// No worker of that id is registered with the join token, and no secret registers it.
    InstanceUnknown = "instance_unknown", 401, "this worker is not registered with this join token";
    /// The registration secret is unknown, used up, expired, not good yet, or of another join token.
    RegistrationRefused = "registration_refused", 401, "the registration secret is not good, or not any more";
    /// The worker presents a generation that the authority has not given out.
    GenerationAhead = "generation_ahead", 401,
        "this worker's storage is newer than what the authority remembers of it";
    /// The worker is locked, since two copies of its storage have joined.
    InstanceLocked = "instance_locked", 403, "this worker's instance is locked";
    /// An operator has locked it out.
    Locked = "locked_out", 403, "an operator of this authority has locked this job out";
    /// No join token of that name.
    TokenUnknown = "token_unknown", 403, NOT_ALLOWED;
    /// The join token is for another join method.
    MethodMismatch = "method_mismatch", 403, NOT_ALLOWED;
    /// The join token wants key-bound proofs and this one is not.
    BindingRequired = "binding_required", 403, NOT_ALLOWED;
    /// No rule of the join token lets these claims in.
    NoRuleMatches = "no_rule_matches", 403, NOT_ALLOWED;
    /// A rule would, but not for this kind of event unless it names it.
    RiskyEvent = "risky_event", 403, NOT_ALLOWED;
    /// The trusted cluster is not believed now.
    ClusterDisabled = "cluster_disabled", 403, "this authority does not take the word of the job's cluster now";
    /// What the job's own cluster has granted is over.
    GrantOver = "grant_over", 401, "what the job's cluster has granted it ends now, and nothing here lives longer";
    /// The bot's name and its cluster's do not fit into a certificate.
    BotNameLong = "bot_name_long", 403, "the names of the bot and of its cluster are too long for certificates";
    /// The role map gives nothing for the roles that the job's own cluster vouches for.
    RoleNotMapped = "role_not_mapped", 403, "no role of the job's own cluster gives it one here";
    /// An output type that this authority does not have, or options it does not take.
    OutputInvalid = "output_invalid", 400, "an output cannot be issued as asked for";
    /// A role that the bot does not have.
    RoleNotHeld = "role_not_held", 403, "a role was asked for that this bot does not have";
    /// A role that needs per-session MFA, which a machine cannot pass.
    MfaRequired = "mfa_required", 403, "the role needs per-session MFA, which a machine cannot pass";
    /// A leaf cluster that there is none of, or that none of the job's roles goes to.
    LeafNotGranted = "leaf_not_granted", 403, "this job is not vouched for at a leaf cluster that it asked for";
    /// A proof for a leaf cluster, asked for with one that is not bound to the request's keys.
    LeafNeedsBinding = "leaf_needs_binding", 403,
        "a token that is not bound to keys buys no proof for a leaf cluster";
    /// Nothing is left that could be put into the certificate.
    NothingGranted = "nothing_granted", 403, "the roles grant nothing that this output could carry";
}

impl ReasonRow {
    /// The kind of its problem. Reasons that are told in the same words are of
    /// the same kind, so that it tells no more than the words.
    fn problem_kind(&self) -> String {
        if self.told == NOT_ALLOWED { "not-allowed".to_owned() } else { self.code.replace('_', "-") }
    }
}

impl Reason {
    /// The reason that a problem tells; none where it is no denial, or one that keeps its reason.
    pub fn of_problem(problem: &Problem) -> Option<Self> {
        let tells = |row: &&ReasonRow| row.told != NOT_ALLOWED && problem.is(&row.problem_kind());
        REASONS.iter().find(tells).map(|row| row.reason)
    }

    /// Whether only a job that a rule has let in is refused so.
    pub fn is_of_admitted(self) -> bool {
        matches!(
            self,
            Self::TokenUsed
                | Self::GenerationAhead
                | Self::InstanceLocked
                | Self::Locked
                | Self::RoleNotMapped
                | Self::OutputInvalid
                | Self::RoleNotHeld
                | Self::MfaRequired
                | Self::LeafNotGranted
                | Self::LeafNeedsBinding
                | Self::NothingGranted
        )
    }

    /// Whether a clock may be what is wrong.
    pub fn is_of_time(self) -> bool {
        matches!(self, Self::TokenExpired | Self::TokenNotYetValid)
    }

    /// What the caller can do; nothing that depends on the rules.
    fn hint(self) -> &'static str {
        match self {
            Self::AudienceWrong => "reach the authority by its public URL, which is the audience it expects",
            Self::TokenExpired => "get a fresh token for each exchange, and check the clocks",
            Self::TokenNotYetValid => "check the clocks of the runner and the authority",
            Self::TokenUsed => "get a fresh token for each exchange",
            Self::IssuerWrong => "check --token and --join-method: the join token is for another issuer",
            Self::InstanceUnknown => {
                "register it: run once with a secret from `machine-id authority token add` in MACHINE_ID_REGISTRATION_SECRET"
            }
            Self::RegistrationRefused => {
                "a secret registers one worker, once, for a limited time: ask for another (`machine-id authority token add`)"
            }
            Self::GenerationAhead => {
                "the authority was put back from a backup, as it looks: tell its operator; to register anew, run once with a new secret (`machine-id authority token add`) in MACHINE_ID_REGISTRATION_SECRET and the same --storage"
            }
            // Why it came to this, `docs/join-methods.md` tells.
            Self::InstanceLocked => {
                "to register anew, run once with a new secret (`machine-id authority token add`) in MACHINE_ID_REGISTRATION_SECRET and the same --storage; other workers are not touched"
            }
            Self::ClusterDisabled | Self::RoleNotMapped => {
                "ask the operator of this authority: a trusted_cluster of its policy says which clusters it believes, and what their roles are here"
            }
            Self::GrantOver => "join your own cluster anew, or ask it for more with --ttl",
            Self::BotNameLong => "give the bot a shorter name in its own cluster",
            Self::Locked => {
                "ask the authority's operator about the denial id; until the lock is lifted no other try gets further"
            }
            Self::LeafNeedsBinding => {
                "where the platform lets jobs choose the audience of their token, `machine-id once` binds it; others cannot go to leaf clusters"
            }
            rule if rule.row().told == NOT_ALLOWED => {
                "check --token and --join-method, and ask the authority's operator about the denial id"
            }
            _ => "",
        }
    }
}

/// A refusal: what is recorded, and what of it is told.
#[derive(Clone, Debug)]
pub struct Denial {
    /// Its row in the table of reasons.
    pub reason: Reason,
    /// The whole story, for the audit trail and `authority explain` alone.
    pub detail: String,
    /// What the caller is told beyond the reason's own words; it is about the
    /// caller's own request and never about the rules.
    pub told: Option<String>,
    /// The caller's claims as far as they could be read, verified or not.
    pub claims: Option<Map<String, Value>>,
    /// Whether the claims were verified.
    pub verified: bool,
}

impl Denial {
    /// A denial with its story for the audit trail.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into(), told: None, claims: None, verified: false }
    }

    /// A denial of which the caller is told all.
    pub fn open(reason: Reason, told: String) -> Self {
        Self::new(reason, told.clone()).tell(told)
    }

    /// Tells the caller more than the reason's words.
    #[must_use]
    pub fn tell(mut self, told: impl Into<String>) -> Self {
        self.told = Some(told.into());
        self
    }

    /// With the claims as read.
    #[must_use]
    pub fn with_claims(mut self, claims: &Map<String, Value>, verified: bool) -> Self {
        self.claims = Some(claims.clone());
        self.verified = verified;
        self
    }

    /// Whether it is of somebody whom no rule has let in.
    pub fn is_of_stranger(&self) -> bool {
        !(self.verified && self.reason.is_of_admitted())
    }

    /// What the caller is told of it: `id` names its record, and `now` is the authority's time.
    pub fn problem(&self, id: String, now: i64) -> Problem {
        let row = self.reason.row();
        Problem {
            detail: self.told.clone().unwrap_or_default(),
            hint: self.reason.hint().to_owned(),
            denial_id: Some(id),
            claims: self.claims.clone(),
            authority_time: self.reason.is_of_time().then(|| rfc3339(now)),
            ..Problem::new(&row.problem_kind(), row.status, row.told)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_rules_stay_untold() {
        for (index, row) in REASONS.iter().enumerate() {
            assert!(
                REASONS
                    .iter()
                    .skip(index + 1)
                    .all(|other| other.code != row.code && other.reason != row.reason)
            );
            assert_eq!(row.reason.row().code, row.code);
        }
    }

    #[test]
    fn a_problem_names_its_reason_unless_that_is_a_rule() {
        for row in REASONS {
            let problem = Denial::new(row.reason, "the whole story").problem("d-1".into(), 0);
            let shared = REASONS.iter().filter(|other| other.told == row.told).count() > 1;
            assert_eq!(row.told == NOT_ALLOWED, shared);
            assert_eq!(Reason::of_problem(&problem), (!shared).then_some(row.reason));
            let wanted = if shared { "not-allowed".to_owned() } else { row.code.replace('_', "-") };
            assert_eq!(problem.kind, format!("urn:machine-id:{wanted}"));
            assert!(!serde_json::to_string(&problem).unwrap().contains("the whole story"));
        }
        for other in ["token_expired", "too-many", "", "x-token-expired"] {
            assert_eq!(Reason::of_problem(&Problem::new(other, 400, "the token has expired")), None);
        }
        let bare = Problem { kind: "token-expired".into(), ..Problem::new("x", 401, "") };
        assert_eq!(Reason::of_problem(&bare), None);
    }
}
