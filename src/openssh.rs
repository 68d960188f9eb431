//! Private keys in OpenSSH's format (its `PROTOCOL.key`).

use ssh_key::PrivateKey;
use zeroize::Zeroizing;

use crate::pem;
use crate::rfc4251::{Decoder, put_string};

const MAGIC: &[u8] = b"openssh-key-v1\0";

/// The key in a file that `ssh-keygen` or we have made.
///
/// `ssh-key` 0.6 reads the private number of ECDSA at its curve's whole length
/// alone; OpenSSH writes an `mpint`, without the zeros that it begins with: one
/// key in 256 of P-256. (0.7, not released yet, reads them.)
///
/// # Errors
///
/// What `ssh-key` says of it; the words are about its format, never its bytes.
pub fn private(text: &str) -> ssh_key::Result<PrivateKey> {
    // Lines of any length, as OpenSSH reads them.
    let blocks = pem::decode_all(text, "OPENSSH PRIVATE KEY");
    let Some([bytes]) = blocks.as_deref() else {
        return PrivateKey::from_openssh(text);
    };
    match filled(bytes) {
        Some(filled) => PrivateKey::from_bytes(&filled),
        None => PrivateKey::from_bytes(bytes),
    }
}

/// The same key with the zeros, if it is one without a passphrase that lacks them.
fn filled(bytes: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut file = Decoder::new(bytes.strip_prefix(MAGIC)?);
    if [file.string().ok()?, file.string().ok()?] != [b"none", b"none"] {
        return None;
    }
    let (_options, keys, public) = (file.string().ok()?, file.u32().ok()?, file.string().ok()?);
    let inner = file.string().ok()?;
    let head = bytes.get(..bytes.len().checked_sub(4 + inner.len())?)?;
    let mut key = Decoder::new(inner);
    let check = key.u64().ok()?;
    let (kind, curve, point) = (key.string().ok()?, key.string().ok()?, key.string().ok()?);
    let length: usize = match curve {
        b"nistp256" => 32,
        b"nistp384" => 48,
        b"nistp521" => 66,
        _ => return None,
    };
    let (short, comment) = (key.string().ok()?, key.string().ok()?);
    let zeros =
        length.checked_sub(short.len()).filter(|zeros| *zeros > 0 && keys == 1 && !public.is_empty())?;
    let number = Zeroizing::new([&vec![0; zeros], short].concat());
    // No larger than its room at first: what grows leaves copies behind.
    let mut inner = Zeroizing::new(Vec::with_capacity(bytes.len() + length));
    inner.extend(check.to_be_bytes());
    [kind, curve, point, &number, comment].iter().for_each(|part| put_string(&mut inner, part));
    (1..).take(inner.len().next_multiple_of(8) - inner.len()).for_each(|byte| inner.push(byte));
    let mut whole = Zeroizing::new(Vec::with_capacity(bytes.len() + inner.len()));
    whole.extend(head);
    put_string(&mut whole, &inner);
    Some(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key of P-256 whose private number begins with so many zeros, as OpenSSH writes it.
    fn written(curve: &str, length: usize, zeros: usize) -> String {
        let number: Vec<u8> = [vec![0x2a; 1], vec![7; length - zeros - 1]].concat();
        let point = [vec![4], vec![9; 2 * length]].concat();
        let kind = format!("ecdsa-sha2-{curve}");
        let mut public = Vec::new();
        [kind.as_bytes(), curve.as_bytes(), &point].iter().for_each(|part| put_string(&mut public, part));
        let mut inner = [5; 8].to_vec();
        [kind.as_bytes(), curve.as_bytes(), &point, &number, b"a comment"]
            .iter()
            .for_each(|part| put_string(&mut inner, part));
        (1..).take((8 - inner.len() % 8) % 8).for_each(|byte| inner.push(byte));
        let mut all = MAGIC.to_vec();
        [&b"none"[..], b"none", b""].iter().for_each(|part| put_string(&mut all, part));
        all.extend([0, 0, 0, 1]);
        [&public, &inner].iter().for_each(|part| put_string(&mut all, part));
        pem::encode("OPENSSH PRIVATE KEY", &all).to_string()
    }

    #[test]
    fn a_number_that_begins_with_zeros_is_read() {
        for (curve, length) in [("nistp256", 32), ("nistp384", 48), ("nistp521", 66)] {
            for zeros in 0..6 {
                let key = private(&written(curve, length, zeros)).unwrap();
                let of = key.key_data().ecdsa().unwrap().private_key_bytes().to_vec();
                assert_eq!(of.len(), length);
                assert!(of.starts_with(&vec![0; zeros]) && of[zeros] == 0x2a);
                assert_eq!(key.comment(), "a comment");
            }
        }
        assert!(private(&written("nistp999", 32, 1)).is_err());
        assert!(private("no key").is_err());
    }

    /// Among so many keys there are some that do, of P-521 a fourth.
    #[test]
    fn whatever_ssh_keygen_makes_is_read() {
        let folder = tempfile::tempdir().unwrap();
        for (number, bits) in (0..24).map(|number| (number, ["256", "384", "521"][number % 3])) {
            let path = folder.path().join(number.to_string());
            let mut keygen = std::process::Command::new("ssh-keygen");
            keygen.args(["-q", "-N", "", "-t", "ecdsa", "-b", bits, "-f"]).arg(&path);
            assert!(keygen.status().unwrap().success());
            let key = private(&std::fs::read_to_string(&path).unwrap()).unwrap();
            let public = std::fs::read_to_string(path.with_extension("pub")).unwrap();
            let public = ssh_key::PublicKey::from_openssh(&public).unwrap();
            assert_eq!(key.public_key().key_data(), public.key_data());
        }
    }
}
