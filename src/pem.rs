//! PEM (RFC 7468): made from DER, and taken apart in the order of a file.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

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
    let mut rest = text;
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
