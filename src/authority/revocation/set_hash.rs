//! What lists say, in a few bytes.

use ring::digest::{SHA256, digest};

use crate::authority::store::{CertificateKind, RevokedCertificate};

/// A hash of a set: the sum of the hashes of its members, so that one more costs no more than its own. It names what lists say
/// among authorities of one store, which choose the serials: nobody who could look for sets with one sum has his way with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SetHash(pub(super) [u64; 4]);

impl SetHash {
    /// With that one, or without it.
    pub(super) fn change(&mut self, one: &RevokedCertificate, change: fn(u64, u64) -> u64) {
        let [a, b, c, d, e, f, g, h] = one.serial.to_be_bytes();
        let hash = digest(&SHA256, &[a, b, c, d, e, f, g, h, u8::from(one.kind == CertificateKind::Tls)]);
        for (sum, part) in self.0.iter_mut().zip(hash.as_ref().chunks_exact(8)) {
            *sum = change(*sum, part.try_into().map_or(0, u64::from_be_bytes));
        }
    }
}
