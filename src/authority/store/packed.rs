//! The bodies of events, as small as they may be: LZ4 against a dictionary of
//! what events have in common. They are kept for ever, and mostly the same.
//!
//! A packed body is a byte that names format and dictionary, and what that
//! format has. [`PLAIN`]: the text. [`LZ4`]: the length of the text in four
//! bytes, little end first, and one block of LZ4 against `packed/1.dict`. A
//! dictionary that was released never changes: what it was used for cannot be
//! read without it. A better one is another format; `DICTIONARY=FILE cargo test
//! --lib packed::` makes one of the claims of all join methods.
//!
//! LZ4, since an exchange waits for it: zlib makes bodies a third smaller, takes
//! eight times as long, and five times the room in the binary.

use lz4_flex::block::{compress_prepend_size_with_dict, decompress_with_dict, uncompressed_size};

use crate::error::{Context as _, Error, Kind, Result};

const PLAIN: u8 = 0;
const LZ4: u8 = 1;

const DICTIONARY: &[u8] = include_bytes!("packed/1.dict");

/// The longest text that is compressed: nothing makes one as long, and what
/// somebody else wrote there costs no more than this to read.
const MAX: usize = 1 << 20;

/// Packs any text.
pub(super) fn pack(text: &str) -> Vec<u8> {
    let (format, packed) = match text.len() {
        0..=MAX => (LZ4, compress_prepend_size_with_dict(text.as_bytes(), DICTIONARY)),
        _ => (PLAIN, text.as_bytes().to_vec()),
    };
    [&[format], packed.as_slice()].concat()
}

/// The text of what [`pack`] made.
///
/// # Errors
/// `Kind::Internal` for anything else.
pub(super) fn unpack(packed: &[u8]) -> Result<String> {
    let text = match packed.split_first() {
        Some((&PLAIN, text)) => text.to_vec(),
        Some((&LZ4, block)) => {
            let (length, block) = uncompressed_size(block).context(Kind::Internal, DAMAGED)?;
            if length > MAX {
                return Err(Error::internal(DAMAGED));
            }
            decompress_with_dict(block, length, DICTIONARY).context(Kind::Internal, DAMAGED)?
        }
        Some((format, _)) => {
            return Err(Error::internal(format!(
                "an event is packed as a newer machine-id does it (format {format})"
            )));
        }
        None => return Err(Error::internal(DAMAGED)),
    };
    String::from_utf8(text).context(Kind::Internal, DAMAGED)
}

const DAMAGED: &str = "an event is damaged";

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::path::Path;

    use proptest::prelude::*;
    use ring::digest::{SHA256, digest};
    use serde_json::{Map, Value};

    use super::*;
    use crate::text::hex;

    /// What a join method's fixture claims, GitHub's last.
    fn fixtures() -> Vec<(String, Map<String, Value>)> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/join");
        let mut found: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .filter_map(|method| {
                let method = method.unwrap();
                let claims = std::fs::read_to_string(method.path().join("claims.json")).ok()?;
                let name = method.file_name().into_string().unwrap();
                Some((name, serde_json::from_str(&claims).unwrap()))
            })
            .collect();
        found.sort_by_key(|(name, _)| (name == "github", name.clone()));
        found
    }

    /// An event of every kind of outputs, with nothing in it that another one would not have.
    fn event(method: &str, claims: &str) -> String {
        let mut text = format!(
            r#"{{"time":"2026-11-27T10:00:00Z","event":"issued","issuance_id":"i-019","bot":"deployer","token":"{method}-deploy","join_method":"{method}","serials":["","#
        );
        write!(
            text,
            r#""],"provenance":"{method}:octo-org/octo-repo@refs/heads/main run 1 attempt 1","outputs":["#
        )
        .unwrap();
        for (kind, signed) in crate::output::TYPES.iter().flat_map(|kind| [(kind, "ssh"), (kind, "tls")]) {
            let kind = kind.name;
            write!(
                text,
                r#"{{"name":"{kind}","type":"{kind}","kind":"{signed}","serial":"","principals":["deploy"],"expires_at":"2026-11-27T11:00:00Z"}},"#
            )
            .unwrap();
        }
        write!(text, r#"],"expires_at":"2026-11-27T11:00:00Z","peer":"10.0.0.1","claims":{claims}}}"#)
            .unwrap();
        text
    }

    /// Words that every event of its kind has, each once, the most frequent last.
    fn dictionary() -> String {
        let mut made = [
            r#"{"time":"2026-11-27T10:00:00Z","event":"signed","issuance_id":"s-019","by":"sign-host""#,
            r#"{"time":"2026-11-27T10:00:00Z","event":"revoked","issuance_id":"i-019","#,
            r#""reason":"given_back","peer":""#,
            r#"{"time":"2026-11-27T10:00:00Z","event":"refused","denial_id":"d-019","bot":"","token":""#,
            r#""reason":"no_rule_matches","detail":"","verified":true,"peer":""#,
        ]
        .concat();
        for (method, claims) in fixtures() {
            let mut left: Vec<String> = Vec::new();
            for (name, value) in &claims {
                // Numbers, hashes and names of this fixture tell nothing of another.
                let value = match value {
                    Value::String(text) if text == "{{issuer}}" && method == "github" => {
                        "\"https://token.actions.githubusercontent.com\"".to_owned()
                    }
                    Value::String(text) if text.contains("{{") => "\"".to_owned(),
                    Value::String(text) if text.bytes().filter(u8::is_ascii_digit).count() > 4 => {
                        "\"".to_owned()
                    }
                    value => value.to_string(),
                };
                let member = format!(r#""{name}":{value}"#);
                if !made.contains(&member) {
                    left.push(member);
                }
            }
            if method == "github" {
                made += &event(&method, &format!("{{{}", left.join(",")));
            } else {
                made += &left.join(",");
            }
        }
        made
    }

    #[test]
    fn a_dictionary_that_was_released_stays() {
        if let Some(place) = std::env::var_os("DICTIONARY") {
            std::fs::write(place, dictionary()).unwrap();
        }
        assert_eq!(
            hex(digest(&SHA256, DICTIONARY).as_ref()),
            "32384befde06be4c162acf0f9c44424450c8611a93f8b9d7e96f691f4e4182e2"
        );
    }

    #[test]
    fn events_of_every_join_method_take_a_third_at_most() {
        for (method, claims) in fixtures() {
            let event = event(&method, &serde_json::to_string(&claims).unwrap());
            let packed = pack(&event);
            assert!(packed.len() * 3 < event.len(), "{method}: {} of {}", packed.len(), event.len());
            assert_eq!(unpack(&packed).unwrap(), event);
        }
    }

    #[test]
    fn what_is_no_packed_body_is_an_error() {
        let of = |length: u32, block: &[u8]| [&[LZ4][..], &length.to_le_bytes(), block].concat();
        let whole = pack("{\"event\":\"issued\"}");
        for bytes in [
            Vec::new(),
            vec![LZ4],
            vec![2, 0],
            of(u32::MAX, &[]),
            // A few bytes that say they were a mebibyte and more, or become it.
            of(1 << 21, &[0x1f; 64]),
            of(1 << 20, &[&[0x1f, b'x', 1, 0][..], &[255; 5000]].concat()),
            // A match before the dictionary's beginning, and a text that ends early.
            of(8, &[0x14, b'x', 0xff, 0xff, 0]),
            whole[..whole.len() - 1].to_vec(),
            vec![PLAIN, 0xff],
            of(2, &[0x20, 0xff, 0xfe]),
        ] {
            assert!(unpack(&bytes).is_err(), "{bytes:?}");
        }
        let long = "x".repeat(MAX + 1);
        assert_eq!(unpack(&pack(&long)).unwrap(), long);
    }

    fn json() -> impl Strategy<Value = Value> {
        let text = prop_oneof![
            "[ -~]{0,40}",
            "\\PC{0,20}",
            Just("https://token.actions.githubusercontent.com".to_owned())
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            text.clone().prop_map(Value::from)
        ];
        leaf.prop_recursive(4, 64, 8, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
                prop::collection::vec((text.clone(), inner), 0..8)
                    .prop_map(|members| members.into_iter().collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_json_comes_out_as_it_went_in(value in json()) {
            let text = value.to_string();
            prop_assert_eq!(unpack(&pack(&text)).unwrap(), text);
        }

        #[test]
        fn any_bytes_are_an_error_or_a_bounded_text(
            mut bytes in prop::collection::vec(any::<u8>(), 0..400), format in 0..3_u8, length in 0..2000_u32,
        ) {
            if let Some(first) = bytes.first_mut() {
                *first = format;
            }
            if bytes.len() > 5 && format == LZ4 {
                bytes[1..5].copy_from_slice(&length.to_le_bytes());
            }
            if let Ok(text) = unpack(&bytes) {
                prop_assert!(text.len() <= MAX.max(bytes.len()));
            }
        }

        #[test]
        fn a_changed_byte_does_no_harm(at in 0..1000_usize, byte in any::<u8>()) {
            let mut packed = pack(&event("github", "{\"ref\":\"refs/heads/main\"}"));
            let at = at % packed.len();
            packed[at] = byte;
            if let Ok(text) = unpack(&packed) {
                prop_assert!(text.len() <= MAX);
            }
        }
    }
}
