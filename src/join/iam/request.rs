//! The signed request of a proof: read more strictly than AWS reads it, so
//! that what is forwarded is one request to one host and nothing else.

use serde_json::{Map, Value};

use super::super::jwt::{self, AudienceRules, strict_object};
use super::super::verify::VerifyContext;
use super::proof::{ACTION, ACTION_HASH, AUDIENCE_HEADER, FIELD, MAX_AGE, hex_hash};
use crate::aws::region::Partition;
use crate::clock::{Held, LEEWAY, parse_rfc3339, rfc3339};
use crate::denial::{Denial, Reason};
use crate::secret::Secret;
use crate::text::shown;
use crate::wire::Proof;

/// The longest proof, in bytes. Session tokens are one to four KiB long.
const MAX_PROOF: usize = 16 << 10;

/// A header that a request may have.
struct Header {
    name: &'static str,
    required: bool,
    /// Whether it may have that value; some are checked where they are used.
    takes: fn(&str) -> bool,
}

/// All of them, by name: what is forwarded is these and no others.
static HEADERS: &[Header] = &[
    Header { name: "accept", required: true, takes: |value| value == "application/json" },
    Header { name: "authorization", required: true, takes: |_| true },
    Header {
        name: "content-type",
        required: true,
        takes: |value| {
            value.strip_suffix("; charset=utf-8").unwrap_or(value) == "application/x-www-form-urlencoded"
        },
    },
    Header { name: "host", required: true, takes: |_| true },
    Header { name: "x-amz-content-sha256", required: false, takes: |value| value == ACTION_HASH },
    Header { name: "x-amz-date", required: true, takes: |_| true },
    Header {
        name: "x-amz-security-token",
        required: false,
        takes: |value| value.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/=_-".contains(&b)),
    },
    Header { name: AUDIENCE_HEADER, required: true, takes: |_| true },
];

/// A request that may be forwarded, but for what a join token asks of it.
pub(super) struct StsRequest {
    /// The STS that it is for.
    pub(super) host: String,
    /// Every header, the signature too.
    pub(super) headers: Vec<(&'static str, Secret)>,
    /// The region that it is signed for.
    region: String,
    /// When it was signed, in seconds since 1970.
    signed_at: i64,
    /// Whom it is for.
    audience: String,
    /// The id of the access key that signed it.
    access_key: String,
    /// Names it: what was signed, with which key.
    pub(super) id: String,
}

fn malformed(detail: impl Into<String>) -> Denial {
    Denial::open(Reason::ProofMalformed, detail.into())
}

impl StsRequest {
    /// Reads a proof: `POST https://HOST/` with the body of `GetCallerIdentity`
    /// and the headers that we know, all of them signed.
    pub(super) fn read(proof: &Proof) -> Result<Self, Denial> {
        let text = match proof.field(FIELD) {
            Some(text) if proof.0.len() == 1 => text.expose(),
            _ => return Err(malformed(format!("the proof has not the one field `{FIELD}`"))),
        };
        if text.len() > MAX_PROOF {
            return Err(malformed("the signed request is longer than 16 KiB"));
        }
        // The parser's words may repeat what is secret.
        let request = strict_object(text.as_bytes())
            .map_err(|_| malformed("the signed request is not a JSON object without duplicate members"))?;
        if let Some(name) = request.keys().find(|name| !MEMBERS.contains(&name.as_str())) {
            return Err(malformed(format!("the signed request has `{}`", shown(name))));
        }
        let member = |name: &str| {
            let missing = || malformed(format!("the signed request has no text `{name}`"));
            request.get(name).and_then(Value::as_str).ok_or_else(missing)
        };
        if member("method")? != "POST" {
            return Err(malformed("the signed request's method is not POST"));
        }
        if member("body")? != ACTION {
            return Err(malformed(format!("the signed request's body is not `{ACTION}`")));
        }
        // Not parsed as a URL: there is one way to write the right one.
        let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-".contains(&b);
        let host = member("url")?.strip_prefix("https://").and_then(|rest| rest.strip_suffix('/'));
        let host = host.filter(|host| (1..=64).contains(&host.len()) && host.bytes().all(letter));
        let host = host.ok_or_else(|| malformed("the signed request's URL is not `https://HOST/`"))?;
        let headers = request.get("headers").and_then(Value::as_object);
        let headers = headers.ok_or_else(|| malformed("the signed request has no object `headers`"))?;
        Self::of_headers(host, &read_headers(headers)?)
    }

    fn of_headers(host: &str, headers: &[(&'static str, &str)]) -> Result<Self, Denial> {
        let of =
            |wanted: &str| headers.iter().find(|(name, _)| *name == wanted).map_or("", |(_, value)| *value);
        if of("host") != host {
            return Err(malformed("the header `host` is not the host of the URL"));
        }
        let date = of("x-amz-date");
        let signed_at = parse_date(date)
            .ok_or_else(|| malformed("the header `x-amz-date` is not a time such as 20261122T120000Z"))?;
        let authorization = Authorization::parse(of("authorization")).ok_or_else(|| {
            malformed("the header `authorization` is not one of AWS4-HMAC-SHA256 for the service `sts`")
        })?;
        if !date.starts_with(authorization.day) {
            return Err(malformed("the credential scope is of another day than `x-amz-date`"));
        }
        // The table is sorted, as SigV4 wants the names.
        let all: Vec<&str> =
            headers.iter().map(|(name, _)| *name).filter(|name| *name != "authorization").collect();
        if authorization.signed_headers != all.join(";") {
            return Err(malformed("not every header of the request is signed, each once and in order"));
        }
        let named = [authorization.access_key, authorization.scope, date, authorization.signature].join("\n");
        Ok(Self {
            host: host.to_owned(),
            headers: headers.iter().map(|(name, value)| (*name, Secret::new((*value).to_owned()))).collect(),
            region: authorization.region.to_owned(),
            signed_at,
            audience: of(AUDIENCE_HEADER).to_owned(),
            access_key: authorization.access_key.to_owned(),
            id: format!("sigv4:{}", hex_hash(&named)),
        })
    }

    /// What it says of its job.
    pub(super) fn claims(&self) -> Map<String, Value> {
        let claims = [
            ("aud", self.audience.clone()),
            ("aws_access_key_id", self.access_key.clone()),
            ("aws_sts_host", self.host.clone()),
            ("signed_at", rfc3339(self.signed_at)),
        ];
        claims.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect()
    }

    /// All that can be judged before AWS is asked; until when it is taken.
    pub(super) fn check(&self, partition: &Partition, context: &VerifyContext<'_>) -> Result<Held, Denial> {
        let Some(region) = partition.region_of(&self.host) else {
            // Which partition is the rules' affair, and told to nobody.
            let detail = format!("{} is no STS of the partition {}", self.host, partition.name);
            return Err(Denial::new(Reason::ProofMalformed, detail));
        };
        if self.region != region {
            let signed = &self.region;
            return Err(malformed(format!("it is signed for the region {signed}, its host is of {region}")));
        }
        let (now, named) = (context.clock.now(), ("it was signed at", self.signed_at));
        jwt::check_start(named, now)?;
        let until = jwt::check_end(self.signed_at.saturating_add(MAX_AGE), named, now)?;
        jwt::check_audience(&self.audience, &AudienceRules::bound(context.public_url, context.binding))?;
        Ok(Held { until, lasts: MAX_AGE + 2 * LEEWAY })
    }
}

/// What a signed request consists of.
const MEMBERS: [&str; 4] = ["method", "url", "headers", "body"];

/// The headers, in the order of the table.
fn read_headers(given: &Map<String, Value>) -> Result<Vec<(&'static str, &str)>, Denial> {
    if let Some(name) = given.keys().find(|name| !HEADERS.iter().any(|header| header.name == *name)) {
        return Err(malformed(format!("the signed request has the header `{}`", shown(name))));
    }
    let mut headers = Vec::new();
    for header in HEADERS {
        let value = match given.get(header.name) {
            None if !header.required => continue,
            None => return Err(malformed(format!("the signed request lacks the header `{}`", header.name))),
            Some(value) => value.as_str().filter(|value| is_plain(value) && (header.takes)(value)),
        };
        let wrong = || malformed(format!("the header `{}` is not one that is accepted", header.name));
        headers.push((header.name, value.ok_or_else(wrong)?));
    }
    Ok(headers)
}

/// Visible ASCII with single spaces inside: SigV4 takes others away before it signs.
fn is_plain(value: &str) -> bool {
    !value.is_empty()
        && value.bytes().all(|b| b == b' ' || b.is_ascii_graphic())
        && value.trim() == value
        && !value.contains("  ")
}

/// The parts of `AWS4-HMAC-SHA256 Credential=KEY/DAY/REGION/sts/aws4_request,
/// SignedHeaders=A;B, Signature=HEX`.
struct Authorization<'a> {
    access_key: &'a str,
    scope: &'a str,
    day: &'a str,
    region: &'a str,
    signed_headers: &'a str,
    signature: &'a str,
}

impl<'a> Authorization<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let text = text.strip_prefix("AWS4-HMAC-SHA256 Credential=")?;
        let (credential, text) = text.split_once(", SignedHeaders=")?;
        let (signed_headers, signature) = text.split_once(", Signature=")?;
        let (access_key, scope) = credential.split_once('/')?;
        let mut parts = scope.split('/');
        let (Some(day), Some(region), Some("sts"), Some("aws4_request"), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return None;
        };
        let sound = (16..=128).contains(&access_key.len())
            && access_key.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
            && day.len() == 8
            && signature.len() == 64
            && signature.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        sound.then_some(Self { access_key, scope, day, region, signed_headers, signature })
    }
}

/// Seconds since 1970 of `20261122T120000Z`.
fn parse_date(text: &str) -> Option<i64> {
    let mut written = text.to_owned();
    for (at, mark) in [(4, '-'), (7, '-'), (13, ':'), (16, ':')] {
        written.is_char_boundary(at).then(|| written.insert(at, mark))?;
    }
    // Anything else, and a day that there is not, such as the 31st of February, comes back as another text.
    parse_rfc3339(&written).filter(|unix| rfc3339(*unix) == written)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn dates() {
        assert_eq!(parse_date("20261122T120000Z"), parse_rfc3339("2026-11-22T12:00:00Z"));
        for bad in [
            "",
            "20261122T120000",
            "2026-11-22T12:00:00Z",
            "20260231T000000Z",
            "20261322T000000Z",
            "+0261122T120000Z",
            "20261122T1200 0Z",
            "20261122T250000Z",
            "２0261122T120000Z",
        ] {
            assert_eq!(parse_date(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_hash_is_of_the_body() {
        assert_eq!(hex_hash(ACTION), ACTION_HASH);
    }

    #[test]
    fn the_table_is_sorted_as_signatures_want_it() {
        assert!(HEADERS.is_sorted_by(|a, b| a.name < b.name));
    }

    #[test]
    fn values_are_read_in_one_way() {
        for bad in ["", " a", "a ", "a  b", "a\tb", "a\r\nb: c", "é", "a\u{7f}"] {
            assert!(!is_plain(bad), "{bad:?}");
        }
        assert!(is_plain("AWS4-HMAC-SHA256 Credential=a, b"));
    }

    proptest! {
        #[test]
        fn nothing_panics(text in ".{0,200}") {
            let _ = Authorization::parse(&text);
            let _ = parse_date(&text);
            let proof = Proof([(FIELD.to_owned(), Secret::new(text))].into());
            prop_assert!(StsRequest::read(&proof).is_err());
        }
    }
}
