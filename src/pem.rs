//! PEM (RFC 7468): made from DER, and taken apart in the order of a file.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use zeroize::Zeroizing;

use crate::error::{Error, Result as Outcome};

/// DER as a PEM block of that label.
pub fn encode(label: &str, der: &[u8]) -> Zeroizing<String> {
    let body = Zeroizing::new(STANDARD.encode(der));
    let mut pem = Zeroizing::new(String::with_capacity(body.len() + body.len() / 64 + 2 * label.len() + 40));
    pem.push_str(&format!("-----BEGIN {label}-----\n"));
    for line in body.as_bytes().chunks(64) {
        pem.push_str(std::str::from_utf8(line).unwrap_or_default());
        pem.push('\n');
    }
    pem.push_str(&format!("-----END {label}-----\n"));
    pem
}

/// A piece of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// A block: its label and its text, from the first dash to the last.
    Block(&'a str, &'a str),
    /// A line outside of any block, not empty.
    Line(&'a str),
    /// The first line of a block that does not end.
    Broken(&'a str),
}

/// A file's blocks and the lines between them.
pub fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    // Windows' editors begin a text with a mark of its byte order.
    let mut rest = text.trim_start_matches('\u{feff}');
    while !rest.is_empty() {
        let (first, tail) = rest.split_once('\n').unwrap_or((rest, ""));
        let label = first.trim_end().strip_prefix("-----BEGIN ").and_then(|l| l.strip_suffix("-----"));
        if let Some(label) = label {
            let end = format!("-----END {label}-----");
            let block = rest.find(&end).and_then(|at| rest.get(..at + end.len()));
            // The end of the next one is not its own.
            if let Some(block) = block.filter(|block| block.rfind("-----BEGIN") == Some(0)) {
                pieces.push(Piece::Block(label, block));
                rest = rest.get(block.len()..).unwrap_or_default();
                continue;
            }
        }
        if first.starts_with("-----BEGIN") {
            pieces.push(Piece::Broken(first.trim()));
        } else if !first.trim().is_empty() {
            pieces.push(Piece::Line(first.trim()));
        }
        rest = tail;
    }
    pieces
}

/// The DER inside a block's text.
pub fn decode(block: &str) -> Option<Zeroizing<Vec<u8>>> {
    let mut body = Zeroizing::new(String::with_capacity(block.len()));
    for line in block.lines().skip(1).take_while(|line| !line.starts_with("-----END ")) {
        body.push_str(line.trim());
    }
    STANDARD.decode(body.as_bytes()).ok().map(Zeroizing::new)
}

/// The DER of every block of that label, in order; none where one of them is broken, or the file breaks off.
pub fn decode_all(text: &str, label: &str) -> Option<Vec<Zeroizing<Vec<u8>>>> {
    let der = |piece| match piece {
        Piece::Block(found, block) if found == label => Some(decode(block)),
        Piece::Broken(_) => Some(None),
        _ => None,
    };
    pieces(text).into_iter().filter_map(der).collect()
}

/// The certificates of a PEM text, at least one and nothing else.
pub fn certificates(text: &str) -> Result<Vec<Vec<u8>>, String> {
    let pieces = pieces(text);
    if pieces.is_empty() || !pieces.iter().all(|piece| matches!(piece, Piece::Block("CERTIFICATE", _))) {
        return Err("it is not certificates in PEM".to_owned());
    }
    let blocks = decode_all(text, "CERTIFICATE").ok_or("its PEM is broken")?;
    for block in &blocks {
        x509_parser::parse_x509_certificate(block).map_err(|error| format!("a certificate: {error}"))?;
    }
    Ok(blocks.into_iter().map(|block| block.to_vec()).collect())
}

/// The private keys of a PEM text, in its order; what else stands there, such as `EC PARAMETERS`, is passed over.
///
/// # Errors
/// `Kind::Usage` where there is none that can be read, with what is there in its place.
pub fn private_keys(text: &str) -> Outcome<Vec<PrivateKeyDer<'static>>> {
    let read = |(_, block): (&str, &str)| PrivateKeyDer::from_pem_slice(block.as_bytes()).ok();
    let keys: Vec<_> = blocks(text).filter_map(read).collect();
    if !keys.is_empty() {
        return Ok(keys);
    }
    let error = lacks(text, "private key");
    // Text that OpenSSL wrote before PKCS#8 (RFC 1421, section 4.6.1.1).
    let is_encrypted = |(label, block): (&str, &str)| {
        label == "ENCRYPTED PRIVATE KEY" || block.contains("Proc-Type: 4,ENCRYPTED")
    };
    Err(if blocks(text).any(is_encrypted) {
        Error::usage("its private key is encrypted, and nobody is asked for a passphrase")
            .hint("decrypt it, for the authority's user alone: `(umask 077; openssl pkey -in FILE -out NEW)`")
    } else if blocks(text).any(|(label, _)| label == "OPENSSH PRIVATE KEY") {
        error.hint("`ssh-keygen -p -m PKCS8 -f COPY` turns a copy of it into PEM")
    } else {
        error
    })
}

/// That a PEM text holds no such thing, and what it does hold.
pub fn lacks(text: &str, what: &str) -> Error {
    let is_broken = pieces(text).iter().any(|piece| matches!(piece, Piece::Broken(_)));
    let mut labels: Vec<String> = blocks(text).map(|(label, _)| format!("`{label}`")).collect();
    labels.dedup();
    match labels.as_slice() {
        _ if is_broken => Error::usage("it breaks off within a block of PEM"),
        [] if text.contains("-----BEGIN ") => {
            Error::usage("its PEM does not begin at the beginning of a line")
        }
        [] => Error::usage(format!("it holds no {what} in PEM")),
        labels => Error::usage(format!("it holds {} and no {what}", labels.join(", "))),
    }
}

fn blocks(text: &str) -> impl Iterator<Item = (&str, &str)> {
    pieces(text).into_iter().filter_map(|piece| match piece {
        Piece::Block(label, block) => Some((label, block)),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_read_back_between_lines() {
        let der: Vec<u8> = (0..=255).collect();
        let pem = encode("X", &der);
        let text = format!("first\n{}ssh-ed25519 A\r\n\n{}", &*pem, &*pem);
        let pieces = pieces(&text);
        assert_eq!(pieces.len(), 4, "{pieces:?}");
        assert_eq!(pieces[0], Piece::Line("first"));
        assert_eq!(pieces[2], Piece::Line("ssh-ed25519 A"));
        let all = decode_all(&text, "X").unwrap();
        assert_eq!(all.len(), 2);
        assert_eq!(*all[1], der);
        assert!(pem.lines().all(|line| line.len() <= 64));
        assert_eq!(decode_all("-----BEGIN X-----\n!!\n-----END X-----", "X"), None);
    }

    #[test]
    fn keys_are_found_among_other_things_and_what_is_there_instead_is_told() {
        let block = |label: &str| encode(label, b"x").to_string();
        let text =
            format!("{}text\n{}{}", block("EC PARAMETERS"), block("EC PRIVATE KEY"), block("PRIVATE KEY"));
        assert_eq!(private_keys(&text).unwrap().len(), 2);
        assert_eq!(
            private_keys(&format!("\u{feff}{}", block("PRIVATE KEY")).replace('\n', "\r\n")).unwrap().len(),
            1
        );
        let legacy = block("RSA PRIVATE KEY").replacen(
            '\n',
            "\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\n",
            1,
        );
        let encrypted = "its private key is encrypted, and nobody is asked for a passphrase";
        for (text, message) in [
            (String::new(), "it holds no private key in PEM"),
            ("MIIB".to_owned(), "it holds no private key in PEM"),
            (format!("  {}", block("PRIVATE KEY")), "its PEM does not begin at the beginning of a line"),
            (block("ENCRYPTED PRIVATE KEY"), encrypted),
            (legacy.clone(), encrypted),
            (legacy.replace('\n', "\r\n"), encrypted),
            (block("CERTIFICATE").repeat(2), "it holds `CERTIFICATE` and no private key"),
            (
                block("EC PARAMETERS") + &block("PUBLIC KEY"),
                "it holds `EC PARAMETERS`, `PUBLIC KEY` and no private key",
            ),
            (block("OPENSSH PRIVATE KEY"), "it holds `OPENSSH PRIVATE KEY` and no private key"),
            ("-----BEGIN PRIVATE KEY-----\nMIIB\n".to_owned(), "it breaks off within a block of PEM"),
        ] {
            let error = private_keys(&text).unwrap_err();
            assert_eq!(error.to_string(), message, "{text}");
            assert_eq!(
                error.hints().is_empty(),
                !message.contains("encrypted") && !message.contains("OPENSSH")
            );
        }
    }

    #[test]
    fn a_block_that_breaks_off_is_told_wherever_it_does() {
        let block = encode("CERTIFICATE", &[7; 99]);
        let whole = format!("{}{}", *block, *block);
        for cut in block.len() + "-----BEGIN".len()..whole.trim_end().len() {
            let text = &whole[..cut];
            assert!(pieces(text).iter().any(|piece| matches!(piece, Piece::Broken(_))), "{text}");
            assert_eq!(decode_all(text, "CERTIFICATE"), None, "{text}");
            assert!(certificates(text).is_err(), "{text}");
            // Another's block does not hide it.
            assert_eq!(decode_all(&format!("{text}\n{}", *block), "CERTIFICATE"), None, "{text}");
        }
    }
}
