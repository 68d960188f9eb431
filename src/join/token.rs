//! Workers that stay, such as a self-hosted Jenkins: a secret that is good
//! once registers the worker's own key pair, and each later join is proved by
//! a short-lived assertion that this key signs (in the way of RFC 7523, with
//! our audience, bound to the request's keys, good once).
//!
//! How a copied storage shows is told in [`super::instance`].

use futures_util::future::FutureExt as _;

use super::jwt::Jwt;
use super::method::Method;

mod example;
mod proof;
mod prove;
mod state;
mod verify;

const REGISTERED: &str = "a worker registers once, with a secret that `machine-id authority token add` prints, and proves \
    itself by a key that it keeps in --storage; the token has no section";

/// The join method `token`.
pub(super) static METHOD: Method = Method {
    elsewhere: &[
        ("bound_keypair", REGISTERED),
        ("tpm", REGISTERED),
        ("oracle", REGISTERED),
        (
            "static",
            "no secret is good twice here: one registers a worker, which has a key of its own from then on",
        ),
    ],
    takes_id_token: false,
    unverified: |proof| Ok(Jwt::of_proof(proof, proof::ASSERTION)?.claims),
    telling: &["generation"],
    can_bind: true,
    registers: true,
    is_ci: false,
    job: &["BUILD_TAG", "NODE_NAME", "EXECUTOR_NUMBER"],
    example: Some(&example::EXAMPLE),
    ..Method::new(
        "token",
        "workers that stay, such as a self-hosted Jenkins: registered once, with a key of their own",
        |job| prove::prove(job).boxed(),
        |section| {
            section.finish()?;
            Ok(Box::new(verify::InstanceVerifier))
        },
    )
};
