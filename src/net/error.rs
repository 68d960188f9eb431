//! Why a request got no answer, as a value that decisions are made by.

use std::fmt;

use rustls::CertificateError;

use crate::text::shown;

/// Why a request did not get an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestError {
    /// The server's certificate is not trusted.
    Untrusted(Untrusted),
    /// It took too long.
    Timeout,
    /// No connection.
    Connect(String),
    /// No connection, because of the proxy.
    Proxy {
        /// `HOST:PORT`.
        proxy: String,
        /// What it did.
        why: ByProxy,
    },
    /// Anything else, such as an answer that broke off.
    Other(String),
}

/// What a proxy did in place of opening the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ByProxy {
    /// It answered with this status.
    Answered(u16),
    /// Its own certificate is not trusted.
    Untrusted(Untrusted),
    /// It is not reached.
    NoConnection(String),
}

impl ByProxy {
    /// What to do.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Answered(407) => {
                "HTTPS_PROXY must hold the name and password that it asks for, as in http://USER:PASSWORD@HOST:PORT; Basic is all that is spoken"
            }
            Self::Answered(_) => {
                "have its operator let the host through, or name the host in NO_PROXY where it is reached without the proxy"
            }
            Self::Untrusted(_) => {
                "a proxy is trusted by the system's CAs: point SSL_CERT_FILE at a bundle that holds its own; --ca-file is for the authority alone"
            }
            Self::NoConnection(_) => {
                "check HTTPS_PROXY (or ALL_PROXY), and name the host in NO_PROXY where it is reached without the proxy"
            }
        }
    }
}

/// Why a server's certificate is not trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Untrusted {
    /// No CA that we trust signed it.
    UnknownIssuer,
    /// It has expired, by our clock.
    Expired,
    /// It is not valid yet, by our clock.
    NotValidYet,
    /// It is for another name than that of the URL.
    OtherName,
    /// Anything else, in the words of the TLS library.
    Other(String),
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Untrusted(why) => write!(f, "its certificate is not trusted: {why}"),
            Self::Timeout => f.write_str("no answer in time"),
            Self::Proxy { proxy, why } => match why {
                ByProxy::Answered(status) => {
                    write!(f, "the proxy {} answered with status {status}", shown(proxy))
                }
                ByProxy::Untrusted(why) => {
                    write!(f, "the certificate of the proxy {} is not trusted: {why}", shown(proxy))
                }
                ByProxy::NoConnection(why) => {
                    write!(f, "no connection to the proxy {}: {}", shown(proxy), shown(why))
                }
            },
            Self::Connect(why) | Self::Other(why) => f.write_str(&shown(why)),
        }
    }
}

impl fmt::Display for Untrusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownIssuer => "it is signed by an unknown authority",
            Self::Expired => "it has expired",
            Self::NotValidYet => "it is not valid yet by this machine's clock",
            Self::OtherName => "it is for another name",
            Self::Other(why) => return f.write_str(&shown(why)),
        })
    }
}

impl From<&CertificateError> for Untrusted {
    fn from(error: &CertificateError) -> Self {
        use CertificateError as E;
        match error {
            E::UnknownIssuer => Self::UnknownIssuer,
            E::Expired | E::ExpiredContext { .. } => Self::Expired,
            E::NotValidYet | E::NotValidYetContext { .. } => Self::NotValidYet,
            E::NotValidForName | E::NotValidForNameContext { .. } => Self::OtherName,
            other => Self::Other(other.to_string()),
        }
    }
}

impl From<reqwest::Error> for RequestError {
    fn from(error: reqwest::Error) -> Self {
        type Cause<'e> = &'e (dyn std::error::Error + 'static);
        let mut next: Option<Cause<'_>> = Some(&error);
        let mut deepest = String::new();
        while let Some(current) = next {
            if let Some(rustls::Error::InvalidCertificate(why)) = current.downcast_ref() {
                return Self::Untrusted(why.into());
            }
            deepest = current.to_string();
            // An `io::Error` hides what it wraps from `source`.
            next = match current.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
                Some(inner) => Some(inner),
                None => current.source(),
            };
        }
        if error.is_timeout() {
            Self::Timeout
        } else if error.is_connect() {
            Self::Connect(deepest)
        } else {
            Self::Other(deepest)
        }
    }
}

/// Reads an answer's body, at most `limit` bytes of it.
pub async fn body(mut response: reqwest::Response, limit: usize) -> Result<Vec<u8>, RequestError> {
    let broke_off =
        |error| RequestError::Other(format!("the answer broke off: {}", RequestError::from(error)));
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(broke_off)? {
        if body.len() + chunk.len() > limit {
            return Err(RequestError::Other(format!("the answer is longer than {limit} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_certificate_is_not_trusted_for_is_told_apart() {
        for (error, untrusted) in [
            (CertificateError::UnknownIssuer, Untrusted::UnknownIssuer),
            (CertificateError::Expired, Untrusted::Expired),
            (CertificateError::NotValidYet, Untrusted::NotValidYet),
            (CertificateError::NotValidForName, Untrusted::OtherName),
            (CertificateError::Revoked, Untrusted::Other(CertificateError::Revoked.to_string())),
        ] {
            assert_eq!(Untrusted::from(&error), untrusted);
        }
    }
}
