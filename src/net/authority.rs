//! Reaching an authority: its URL, whom to trust for it, and what to say where
//! it is not reached.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use rustls::client::danger::ServerCertVerifier;

use super::behind::Behind;
use super::client::{client, client_of};
use super::error::{RequestError, Untrusted};
use super::pin::{self, Pinned};
use super::proxy::{self, Proxy};
use super::roots::{read_roots, system_roots, verifier};
use crate::clock::rfc3339;
use crate::environment::Environment;
use crate::error::{Error, Kind, Result};
use crate::folder::read::{Limit, Trust};
use crate::text::shown;
use crate::wire::TRUSTS_HEADER;

/// More CAs are not the authority's own, but a bundle of the system's: the longest head that servers take is of 8 KB.
const MAX_TRUSTS: usize = 16;

/// How the authority's certificate is judged.
#[derive(Clone, Debug, Default)]
pub struct AuthorityTrust {
    /// Roots in PEM, in place of the system's.
    pub ca_file: Option<PathBuf>,
    /// `sha256:HEX` of the SubjectPublicKeyInfo of a CA in the authority's chain; of several, with commas.
    pub ca_pin: Option<String>,
}

impl AuthorityTrust {
    /// By what was said, if anything.
    pub fn new(ca_file: Option<&str>, ca_pin: Option<&str>) -> Self {
        Self { ca_file: ca_file.map(PathBuf::from), ca_pin: ca_pin.map(str::to_owned) }
    }

    /// As the environment says.
    pub fn of_environment(env: &Environment) -> Self {
        Self::new(env.get("MACHINE_ID_CA_FILE"), env.get("MACHINE_ID_CA_PIN"))
    }

    /// This where it says anything, or else the other: a CA file and a pin say
    /// the same thing, so whichever is said nearest counts alone.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        if self.ca_file.is_some() || self.ca_pin.is_some() { self } else { other }
    }
}

/// A client for the authority of that URL. `patience` is for a CA file that is a pipe.
///
/// # Errors
/// `Kind::Usage` for a CA file that cannot be read or holds no certificate,
/// and for a malformed pin.
pub fn authority_client(
    trust: &AuthorityTrust,
    authority: &str,
    patience: Duration,
) -> Result<reqwest::Client> {
    Ok(believing(trust, authority, patience)?.0)
}

/// The same, and the pins of the CAs that it believes; none with the system's.
///
/// # Errors
/// As above.
pub fn believing(
    trust: &AuthorityTrust,
    authority: &str,
    patience: Duration,
) -> Result<(reqwest::Client, Vec<String>)> {
    let (server, pins) = match (&trust.ca_file, &trust.ca_pin) {
        (Some(_), Some(_)) => {
            return Err(Error::usage("both a CA file and a CA pin are given").hint("give one of them"));
        }
        (Some(path), None) if path.to_string_lossy().contains("-----BEGIN") => {
            return Err(Error::usage(
                "--ca-file (MACHINE_ID_CA_FILE) holds PEM itself, and takes the path of a file with it",
            )
            .hint("write it into a file first, or give the CA by its hash: --ca-pin (MACHINE_ID_CA_PIN)"));
        }
        (Some(path), None) => {
            let (roots, pins) = read_roots(path, Trust::Anyone, Limit::FILE.within(patience))?;
            (verifier(roots)?, pins)
        }
        (None, Some(pins)) => {
            let pins = pin::ca_pins(pins)?;
            let pinned: Arc<dyn ServerCertVerifier> = Arc::new(Pinned::new(pins.clone()));
            (pinned, pins)
        }
        (None, None) => return Ok((client(system_roots()?)?, Vec::new())),
    };
    let headers: HeaderMap =
        trusts(&pins).map(|said| (HeaderName::from_static(TRUSTS_HEADER), said)).into_iter().collect();
    let url = reqwest::Url::parse(authority).ok();
    let host = url.as_ref().and_then(reqwest::Url::host_str).unwrap_or_default();
    let client = match proxy::of_process()?.and_then(Proxy::tls_name) {
        Some(name) if name.to_str() != host.trim_matches(['[', ']']) => {
            client_of(Arc::new(Behind { proxy: (name, verifier(system_roots()?)?), server }), headers)
        }
        _ => client_of(server, headers),
    };
    Ok((client?, pins))
}

/// What [`TRUSTS_HEADER`] says of CAs with these pins, if anything.
pub fn trusts(pins: &[String]) -> Option<HeaderValue> {
    let hashes: Vec<&str> = pins.iter().map(|pin| pin.trim_start_matches("sha256:")).collect();
    HeaderValue::try_from(hashes.join(",")).ok().filter(|_| (1..=MAX_TRUSTS).contains(&hashes.len()))
}

/// The one form of an authority's URL, which is the audience of its tokens:
/// https, a host in small letters and without the dot that DNS ends it with, perhaps a port.
pub fn authority_origin(text: &str) -> Result<String, String> {
    let wrong = |why: &str| Err(why.to_owned());
    // Quotes that a shell or a file's reader left, say, which a URL's parser takes for a path.
    if !text.trim().split("://").next().is_some_and(|scheme| scheme.bytes().all(|b| b.is_ascii_alphabetic()))
        || !text.contains("://")
    {
        return wrong("it does not begin with https://");
    }
    let mut url = reqwest::Url::parse(text).map_err(|error| error.to_string())?;
    if url.scheme() != "https" {
        return wrong("it is not https");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return wrong("it holds a user or a password");
    }
    if url.query().is_some() || url.fragment().is_some() || url.path().chars().any(|c| c != '/') {
        return wrong("something follows the host and port");
    }
    let host = url.host_str().unwrap_or_default().to_owned();
    let host = host.strip_suffix('.').unwrap_or(&host);
    if host.split('.').any(str::is_empty) {
        return wrong("a name between the dots of its host is missing");
    }
    // No certificate names a host with a dot at its end (RFC 6066, section 3).
    url.set_host(Some(host)).map_err(|error| error.to_string())?;
    Ok(url.origin().ascii_serialization())
}

/// Whether the audience of a token is the authority at `url`, or anything under it, whichever way it is spelled: without its
/// scheme or by another, in capitals, with a port that goes without saying, a dot at the end of the host, a path, a query or
/// a fragment.
pub fn lies_under(audience: &str, url: &str) -> bool {
    let read = |text: &str| reqwest::Url::parse(text).ok().filter(|url| WEB.contains(&url.scheme()));
    let host = |url: &reqwest::Url| url.host_str().map(|host| host.trim_end_matches('.').to_owned());
    let Some((url, own)) = read(url).and_then(|url| Some((host(&url)?, url.port_or_known_default()))) else {
        return true;
    };
    // A scheme that is none of these may be a host with its port.
    let bare = format!("https://{}", audience.trim_start_matches(['/', '\\', ':']));
    [audience, &bare].into_iter().filter_map(read).any(|other| {
        let ports = [other.port_or_known_default(), other.port().or(Some(443))];
        host(&other).as_ref() == Some(&url) && ports.contains(&own)
    })
}

/// The schemes of URLs whose hosts are read as those of https.
const WEB: [&str; 4] = ["https", "http", "wss", "ws"];

/// An authority's URL as typed, in its one form.
pub fn authority_url(text: &str) -> Result<String> {
    authority_origin(text).map_err(|why| {
        // What stands before an `@` may be a password.
        let named =
            if text.contains('@') { "what is given".to_owned() } else { format!("`{}`", shown(text)) };
        Error::usage(format!("{named} is not an authority's URL: {why}"))
            .hint("it is the `public_url` of its authority.yaml, such as https://id.example.com")
    })
}

/// The error of a request to an authority that got no answer.
pub fn unreachable(authority: &str, why: &RequestError, trust: &AuthorityTrust, now: i64) -> Error {
    let error = Error::new(Kind::Unreachable, why.to_string());
    let error = match why {
        RequestError::Untrusted(why) => untrusted(error, why, trust, now),
        RequestError::Timeout => Error::new(Kind::Unreachable, "it did not answer in time")
            .hint("check --authority, and that this job's network lets it through (HTTPS_PROXY, NO_PROXY); --timeout waits longer"),
        RequestError::Connect(_) => error
            .hint("check --authority, and that this job's network lets it through (HTTPS_PROXY, NO_PROXY)"),
        RequestError::Proxy { why, .. } => error.hint(why.hint()),
        RequestError::Other(_) => error.hint("check that --authority is an authority, and see its log"),
    };
    error.context(format!("cannot reach the authority {authority}"))
}

fn untrusted(error: Error, why: &Untrusted, trust: &AuthorityTrust, now: i64) -> Error {
    match (why, &trust.ca_file, &trust.ca_pin) {
        (Untrusted::OtherName, ..) => {
            error.hint("spell --authority as in the `public_url` of its authority.yaml")
        }
        (Untrusted::Expired | Untrusted::NotValidYet, ..) => error.hint(format!(
            "this machine's clock says {}: check it, or have the authority's certificate renewed",
            rfc3339(now)
        )),
        (_, Some(file), _) => error.hint(format!(
            "{} does not hold its CA: replace it with the output of `machine-id authority export tls-ca`",
            file.display()
        )),
        (_, _, Some(pins)) => error.hint(format!(
            "no CA with {} {} signed it: `machine-id authority export tls-ca-pin` prints the right one",
            if pins.contains(',') { "one of the pins" } else { "the pin" },
            pin::ca_pins(pins).unwrap_or_default().join(", ")
        )),
        _ => error
            .hint("an authority with its own certificate: give --ca-file with the output of `machine-id authority export tls-ca`")
            .hint("or --ca-pin with that of `machine-id authority export tls-ca-pin`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hints(why: Untrusted, trust: &AuthorityTrust) -> String {
        let error = unreachable("https://a", &RequestError::Untrusted(why), trust, 0);
        assert_eq!(error.kind(), Kind::Unreachable);
        assert!(
            error.to_string().starts_with("cannot reach the authority https://a: its certificate is not")
        );
        error.hints().join("\n")
    }

    #[test]
    fn what_to_do_depends_on_why_a_certificate_is_not_trusted_and_not_on_its_words() {
        let system = AuthorityTrust::default();
        let file = AuthorityTrust { ca_file: Some("/ca.crt".into()), ca_pin: None };
        for (why, trust, wanted) in [
            (Untrusted::UnknownIssuer, &system, "--ca-pin"),
            (Untrusted::UnknownIssuer, &file, "/ca.crt does not hold its CA"),
            (Untrusted::OtherName, &file, "`public_url`"),
            (Untrusted::Expired, &file, "1970-01-01T00:00:00Z: check it"),
            (Untrusted::NotValidYet, &system, "1970-01-01T00:00:00Z: check it"),
            (Untrusted::Other("it has expired for another name".into()), &file, "does not hold its CA"),
        ] {
            let hints = hints(why, trust);
            assert!(hints.contains(wanted), "{hints}");
        }
    }

    #[test]
    fn urls_are_plain_https() {
        assert_eq!(authority_url("https://ID.example.com:443/").unwrap(), "https://id.example.com");
        assert_eq!(authority_url("https://127.0.0.1:8443").unwrap(), "https://127.0.0.1:8443");
        assert_eq!(authority_url("https://[::1]:8443//").unwrap(), "https://[::1]:8443");
        assert_eq!(authority_url("https://id.Example.com.").unwrap(), "https://id.example.com");
        assert_eq!(authority_url("https://id.example.com.:8443/").unwrap(), "https://id.example.com:8443");
        for bad in [
            "",
            "id.example.com",
            "http://x",
            "https://",
            "https://x/api",
            "'https://x'",
            "https:/x",
            "x:8443",
            "https://x..",
            "https://.",
            "https://a..b",
            "https://x?y",
            "https://x#y",
            "https://u:p@x",
            "ftp://x",
        ] {
            assert_eq!(authority_url(bad).unwrap_err().kind(), Kind::Usage, "{bad}");
        }
        assert!(!authority_url("https://user:hunter2@x").unwrap_err().to_string().contains("hunter2"));
    }

    #[test]
    fn what_lies_under_a_url_does_so_in_every_spelling() {
        let (plain, port) = ("https://id.example.com", "https://id.example.com:8443");
        for (audience, url) in [
            ("https://id.example.com/", plain),
            ("https://id.example.com?x", plain),
            ("https://id.example.com/a/../b", plain),
            ("HTTPS://user:p@ID.EXAMPLE.COM.:443/x#y", plain),
            ("wss://id.example.com", plain),
            ("http://id.example.com:80", plain),
            ("http://id.example.com:443", plain),
            ("///id.example.com/x", plain),
            ("://id.example.com/x", plain),
            ("https://id.example.com:8443/x", port),
            ("id.example.com:8443", port),
            ("https://2130706433:8443", "https://127.0.0.1:8443"),
            ("https://[0:0::1]", "https://[::1]"),
            // Nothing is told from what is no URL.
            ("x", "id.example.com"),
        ] {
            assert!(lies_under(audience, url), "{audience} {url}");
        }
        for (audience, url) in [
            ("https://id.example.com.evil.example", plain),
            ("https://xid.example.com", plain),
            ("https://example.com", plain),
            ("https://id.example.com:8443", plain),
            ("https://id.example.com", port),
            ("spiffe://id.example.com/bot/x", plain),
            ("urn:id.example.com", plain),
            ("https://evil.example/https://id.example.com", plain),
            ("https://id.example.com@evil.example", plain),
            ("sts.amazonaws.com", plain),
            ("", plain),
        ] {
            assert!(!lies_under(audience, url), "{audience} {url}");
        }
    }

    #[test]
    fn ca_files_must_hold_a_certificate() {
        crate::net::install_crypto();
        let file = tempfile::NamedTempFile::new().unwrap();
        let trust = |path| AuthorityTrust { ca_file: Some(path), ca_pin: None };
        let error = authority_client(&trust(file.path().into()), "https://a", Duration::ZERO).unwrap_err();
        assert!(error.to_string().ends_with("it holds no certificate"), "{error}");
        assert_eq!(
            authority_client(&trust("/nowhere/ca.pem".into()), "https://a", Duration::ZERO)
                .unwrap_err()
                .kind(),
            Kind::Usage
        );
    }
}
