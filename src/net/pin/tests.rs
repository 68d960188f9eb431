use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, date_time_ymd,
};

use super::*;

#[test]
fn pins_are_exact() {
    let (pin, other) = (format!("sha256:{}", "0f".repeat(32)), format!("sha256:{}", "a1".repeat(32)));
    assert_eq!(ca_pins(&pin).unwrap(), std::slice::from_ref(&pin));
    assert_eq!(ca_pins(&format!("sha256:{}", "0F".repeat(32))).unwrap(), std::slice::from_ref(&pin));
    assert_eq!(ca_pins(&format!("{pin}, {other}\n")).unwrap(), [pin.clone(), other.clone()]);
    for bad in [
        "",
        "sha256:",
        "0f",
        &format!("sha256:{}", "+f".repeat(32)),
        &format!("sha1:{}", "0f".repeat(32)),
        &format!("{pin},"),
        &format!("{pin},,{other}"),
        &format!("{pin};{other}"),
        &format!("{pin} {other}"),
    ] {
        assert_eq!(ca_pins(bad).unwrap_err().kind(), Kind::Usage, "{bad}");
    }
    let which = ca_pins(&format!("{pin},sha256:x")).unwrap_err();
    assert!(which.to_string().starts_with("the CA pin `sha256:x` is not"), "{which}");
}

/// A CA: what its certificates say, and its key.
struct Ca(CertificateParams, KeyPair);

impl Ca {
    fn new(name: &str, length: BasicConstraints) -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(length);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Self(params, KeyPair::generate().unwrap())
    }

    fn own(&self) -> CertificateDer<'static> {
        self.0.self_signed(&self.1).unwrap().der().clone()
    }

    /// What another says of it.
    fn by(&self, other: &Self) -> CertificateDer<'static> {
        self.0.signed_by(&self.1, &other.issuer()).unwrap().der().clone()
    }

    fn issuer(&self) -> Issuer<'_, &KeyPair> {
        Issuer::from_params(&self.0, &self.1)
    }

    fn leaf(&self) -> CertificateDer<'static> {
        let params = CertificateParams::new(vec!["id.example.com".to_owned()]).unwrap();
        params.signed_by(&KeyPair::generate().unwrap(), &self.issuer()).unwrap().der().clone()
    }

    fn pin(&self) -> String {
        pin_of(&self.own()).unwrap()
    }
}

fn judge(pins: &[String], chain: &[CertificateDer<'static>]) -> Result<(), rustls::Error> {
    crate::net::install_crypto();
    let (leaf, chain) = chain.split_first().unwrap();
    let name = ServerName::try_from("id.example.com").unwrap();
    Pinned::new(pins.to_vec()).verify_server_cert(leaf, chain, &name, &[], UnixTime::now()).map(drop)
}

const UNKNOWN: rustls::Error = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);

/// The chain while two CAs are trusted.
#[test]
fn whoever_pins_the_old_ca_the_new_one_or_both_believes_the_new_one() {
    let (old, new) =
        (Ca::new("old", BasicConstraints::Constrained(1)), Ca::new("new", BasicConstraints::Constrained(1)));
    let other = Ca::new("other", BasicConstraints::Unconstrained);
    let chain = [new.leaf(), new.by(&old), old.own()];
    for pins in [vec![old.pin()], vec![new.pin()], vec![old.pin(), new.pin()], vec![other.pin(), old.pin()]] {
        assert_eq!(judge(&pins, &chain), Ok(()), "{pins:?}");
    }
    for pins in [vec![], vec![other.pin()], vec![String::new()], vec![pin_of(&chain[0]).unwrap()]] {
        assert_eq!(judge(&pins, &chain), Err(UNKNOWN), "{pins:?}");
    }
    // Before, and after.
    assert_eq!(judge(&[new.pin(), old.pin()], &[old.leaf(), old.own()]), Ok(()));
    assert_eq!(judge(&[old.pin()], &[new.leaf(), new.own()]), Err(UNKNOWN));
}

#[test]
fn a_pinned_ca_that_did_not_sign_makes_nobody_believed() {
    let (old, new) =
        (Ca::new("old", BasicConstraints::Constrained(1)), Ca::new("new", BasicConstraints::Constrained(1)));
    let thief = Ca::new("new", BasicConstraints::Unconstrained);
    let pins = [old.pin(), new.pin()];
    for chain in [
        // It stands in the chain of another.
        vec![thief.leaf(), thief.own(), old.own()],
        vec![thief.leaf(), thief.own(), new.by(&old), old.own()],
        // The cross-certificate is by another than it says.
        vec![thief.leaf(), thief.by(&thief), old.own()],
        // With the pinned key, under the thief's name, and the other way round.
        vec![thief.leaf(), Ca(thief.0.clone(), KeyPair::from_pem(&new.1.serialize_pem()).unwrap()).own()],
        vec![
            thief.leaf(),
            Ca(old.0.clone(), KeyPair::from_pem(&thief.1.serialize_pem()).unwrap()).own(),
            old.own(),
        ],
        // The leaf itself is one.
        vec![old.own(), new.own()],
    ] {
        assert!(judge(&pins, &chain).is_err(), "{chain:?}");
    }
    // By another than the one that is known.
    let other = Ca::new("other", BasicConstraints::Unconstrained);
    assert_eq!(judge(&[old.pin()], &[new.leaf(), new.by(&other), other.own(), old.own()]), Err(UNKNOWN));
    assert_eq!(judge(&[old.pin(), new.pin()], &[new.leaf(), new.by(&other), other.own(), old.own()]), Ok(()));
}

#[test]
fn a_cross_certificate_must_be_of_now_and_may_lead_as_far_as_it_says() {
    let old = Ca::new("old", BasicConstraints::Unconstrained);
    let mut new = Ca::new("new", BasicConstraints::Constrained(0));
    let below = Ca::new("below", BasicConstraints::Constrained(0));
    let longer = [below.leaf(), below.by(&new), new.by(&old), old.own()];
    assert!(judge(&[old.pin()], &longer).is_err(), "the path is too long");
    assert_eq!(judge(&[old.pin()], &[new.leaf(), new.by(&old), old.own()]), Ok(()));
    new.0.not_after = date_time_ymd(2020, 1, 1);
    let chain = [new.leaf(), new.by(&old), old.own()];
    let expired = judge(&[old.pin()], &chain).unwrap_err();
    assert!(
        matches!(
            expired,
            rustls::Error::InvalidCertificate(
                CertificateError::Expired | CertificateError::ExpiredContext { .. }
            )
        ),
        "{expired:?}"
    );
    // Who knows the new one needs nobody's word for it.
    assert_eq!(judge(&[old.pin(), new.pin()], &chain), Ok(()));
    let mut no_ca = Ca::new("new", BasicConstraints::Unconstrained);
    no_ca.0.is_ca = IsCa::ExplicitNoCa;
    assert!(judge(&[old.pin()], &[no_ca.leaf(), no_ca.by(&old), old.own()]).is_err());
}
