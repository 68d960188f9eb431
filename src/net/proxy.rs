//! The proxy that the environment names. One that cannot be understood ends
//! the run: requests would go out directly, where that is not meant or does
//! not get through. Only https is sent beyond this machine, so `HTTP_PROXY` is not read.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use reqwest::Url;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::error::{ByProxy, RequestError, Untrusted};
use super::roots::{USER_AGENT, config, system_roots, verifier};
use crate::environment::Environment;
use crate::error::{Error, Result};

/// Where the proxy may stand, the first that is set counting.
const VARIABLES: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
/// And who is reached without it.
const EXCEPTIONS: [&str; 2] = ["NO_PROXY", "no_proxy"];

/// How long a proxy may take to say why it does not let a request through.
const PATIENCE: Duration = Duration::from_secs(3);

/// The way through a proxy. Its URL may hold a password.
#[derive(Clone)]
pub(super) struct Proxy {
    url: Url,
    /// The same as it is dialled.
    dialled: Intercept,
    /// Hosts, domains and networks that are reached without it, some on one port alone.
    exceptions: Vec<(String, Option<u16>)>,
}

/// The process's own, which stays what it is.
pub(super) fn of_process() -> Result<Option<&'static Proxy>> {
    static PROXY: OnceLock<Option<Proxy>> = OnceLock::new();
    if PROXY.get().is_none() {
        let proxy = Proxy::of(&Environment::of_process())?;
        return Ok(PROXY.get_or_init(|| proxy).as_ref());
    }
    Ok(PROXY.get().and_then(Option::as_ref))
}

/// What is known of a request that got no connection: where the proxy is to blame, that.
pub(super) async fn blamed(error: RequestError, url: &Url) -> RequestError {
    let untrusted = matches!(error, RequestError::Untrusted(_));
    let may_be = untrusted || matches!(error, RequestError::Connect(_));
    match of_process().ok().flatten().filter(|proxy| may_be && proxy.takes(url)) {
        // The client may trust more than the system does.
        Some(proxy) => match proxy.trouble(url).await {
            Some(RequestError::Proxy { why: ByProxy::Untrusted(_), .. }) if !untrusted => error,
            found => found.unwrap_or(error),
        },
        None => error,
    }
}

impl Proxy {
    /// `Kind::Usage` for a variable that is not understood.
    fn of(env: &Environment) -> Result<Option<Self>> {
        let Some(variable) = VARIABLES.into_iter().find(|name| env.is_set(name)) else { return Ok(None) };
        let mut exceptions = Vec::new();
        if let Some(name) = EXCEPTIONS.into_iter().find(|name| env.is_set(name)) {
            let text = env.get(name).ok_or_else(|| Error::usage(format!("{name} is not UTF-8")))?;
            let words = text.split(|c: char| c == ',' || c.is_whitespace());
            exceptions = words.map(exception).filter(|(host, _)| !host.is_empty()).collect();
        }
        if exceptions.iter().any(|(host, _)| host == "*") {
            return Ok(None);
        }
        // Neither the words of a parser nor ours repeat it: there may be a password in it.
        let wrong = |why: String| {
            Error::usage(format!("{variable} is not a proxy that can be used: {why}"))
                .hint("it is http://HOST:PORT or https://HOST:PORT, with USER:PASSWORD@ before HOST where the proxy asks for them, and what is special in these as %XX")
                .hint(format!("to go without a proxy, unset {variable}; to leave hosts out, name them in NO_PROXY"))
        };
        let url =
            env.get(variable).ok_or_else(|| "it is not UTF-8".to_owned()).and_then(read).map_err(wrong)?;
        let any = http::Uri::from_static("https://host.invalid/");
        let dialled = Matcher::builder().https(url.as_str()).build().intercept(&any);
        let dialled = dialled.ok_or_else(|| wrong("it holds what no URL may".to_owned()))?;
        Ok(Some(Self { url, dialled, exceptions }))
    }

    /// For the HTTP client.
    pub(super) fn route(&'static self) -> reqwest::Proxy {
        reqwest::Proxy::custom(|url| self.takes(url).then(|| self.url.clone()))
    }

    /// Its host, where its certificate is to be verified.
    pub(super) fn tls_name(&self) -> Option<ServerName<'static>> {
        let host = self.dialled.uri().host().filter(|_| self.url.scheme() == "https")?;
        ServerName::try_from(host.trim_matches(['[', ']']).to_owned()).ok()
    }

    /// Whether requests to that URL go through it.
    fn takes(&self, url: &Url) -> bool {
        let port = url.port_or_known_default();
        let but: Vec<&str> = self
            .exceptions
            .iter()
            .filter(|(_, only)| only.is_none() || *only == port)
            .map(|(host, _)| host.as_str())
            .collect();
        let matcher = Matcher::builder().https(self.url.as_str()).no(but.join(",")).build();
        let spared = url.as_str().parse().is_ok_and(|uri| matcher.intercept(&uri).is_none());
        url.scheme() == "https" && !spared
    }

    fn address(&self) -> (&str, u16) {
        let host = self.dialled.uri().host().unwrap_or_default();
        (host, self.url.port_or_known_default().unwrap_or_default())
    }

    /// Asks it the way to that URL, and says why it gives none. The HTTP client only knows that it did not.
    async fn trouble(&self, url: &Url) -> Option<RequestError> {
        let (host, port) = self.address();
        let why = match timeout(PATIENCE, self.ask(url)).await {
            Ok(Ok(200)) | Err(_) => return None,
            Ok(Ok(status)) => ByProxy::Answered(status),
            Ok(Err(why)) => why,
        };
        Some(RequestError::Proxy { proxy: format!("{host}:{port}"), why })
    }

    async fn ask(&self, url: &Url) -> Result<u16, ByProxy> {
        let broken = |error: std::io::Error| ByProxy::NoConnection(error.to_string());
        let (host, port) = self.address();
        let stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).await.map_err(broken)?;
        let Some(name) = self.tls_name() else { return self.status(stream, url).await.map_err(broken) };
        let config = system_roots().and_then(verifier).map(config);
        let config = config.map_err(|error| ByProxy::NoConnection(error.to_string()))?;
        let connecting = TlsConnector::from(Arc::new(config)).connect(name, stream);
        let stream = connecting.await.map_err(|error| {
            let why = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
            match why {
                Some(rustls::Error::InvalidCertificate(why)) => ByProxy::Untrusted(Untrusted::from(why)),
                _ => broken(error),
            }
        })?;
        self.status(stream, url).await.map_err(broken)
    }

    /// RFC 9110, section 9.3.6.
    async fn status(
        &self,
        mut stream: impl AsyncRead + AsyncWrite + Unpin,
        url: &Url,
    ) -> std::io::Result<u16> {
        let to =
            format!("{}:{}", url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or(443));
        let mut head =
            format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\nUser-Agent: {USER_AGENT}\r\n").into_bytes();
        if let Some(credentials) = self.dialled.basic_auth() {
            head.extend([b"Proxy-Authorization: ", credentials.as_bytes(), b"\r\n"].concat());
        }
        head.extend(b"\r\n");
        stream.write_all(&head).await?;
        stream.flush().await?;
        let mut line = [0; "HTTP/1.1 200".len()];
        stream.read_exact(&mut line).await?;
        let code =
            line.strip_prefix(b"HTTP/1.").and_then(|rest| str::from_utf8(rest.get(2..)?).ok()?.parse().ok());
        code.ok_or_else(|| std::io::Error::other("its answer is not HTTP"))
    }
}

/// A proxy's URL, as people write it: blanks, line ends and quotes around it go.
fn read(text: &str) -> Result<Url, String> {
    let text = unquoted(text.trim());
    let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
    let scheme = scheme.to_ascii_lowercase();
    if text.is_empty() {
        return Err("it is blank".to_owned());
    }
    // A URL's parser would pass over some of these.
    if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err("there is a space or a line end in it".to_owned());
    }
    if scheme.starts_with("socks") {
        return Err("SOCKS is not supported, HTTP proxies are".to_owned());
    }
    if !matches!(scheme.as_str(), "http" | "https") {
        return Err("it begins with neither http:// nor https://".to_owned());
    }
    let url = Url::parse(&format!("{scheme}://{rest}")).map_err(|error| error.to_string())?;
    // What stands behind a `/`, `?` or `#` of a password would be taken for a path, and what is before for the host.
    if [Some(url.path()), url.query(), url.fragment()].iter().flatten().any(|part| part.contains('@')) {
        return Err("its name or password holds a `/`, `\\`, `?` or `#`".to_owned());
    }
    Ok(url)
}

fn unquoted(text: &str) -> &str {
    let quoted = |quote| text.strip_prefix(quote).and_then(|text: &str| text.strip_suffix(quote));
    quoted('"').or_else(|| quoted('\'')).map_or(text, str::trim)
}

/// A host that is reached without the proxy, in the forms that other programs
/// take: `HOST`, `.DOMAIN`, `*.DOMAIN`, `HOST:PORT`, `NETWORK/BITS`, `*`.
fn exception(word: &str) -> (String, Option<u16>) {
    let word = word.trim_matches(['"', '\'']);
    let word = word.split_once("://").map_or(word, |(_, rest)| rest).trim_end_matches('/');
    let word = word.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(word);
    let (host, port) = match word.rsplit_once(':') {
        // An IPv6 address has colons of its own.
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, port.parse().ok()),
        _ => (word, None),
    };
    (host.trim_matches(['[', ']']).to_owned(), port)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::Kind;

    fn proxy(pairs: &[(&str, &str)]) -> Result<Option<Proxy>> {
        Proxy::of(&Environment::from_pairs(pairs.iter().copied()))
    }

    fn at(value: &str) -> Proxy {
        proxy(&[("HTTPS_PROXY", value)]).unwrap().unwrap()
    }

    #[test]
    fn what_people_write_is_understood() {
        for (value, address) in [
            ("http://proxy.example.com:3128", ("proxy.example.com", 3128)),
            ("proxy.example.com:3128", ("proxy.example.com", 3128)),
            (" http://proxy:3128/\r\n", ("proxy", 3128)),
            ("\"http://proxy:3128\"", ("proxy", 3128)),
            ("'HTTPS://proxy'\n", ("proxy", 443)),
            ("http://u:p%2Fw@proxy:1/x?y", ("proxy", 1)),
            ("http://[::1]:8080", ("[::1]", 8080)),
        ] {
            assert_eq!(at(value).address(), address, "{value:?}");
        }
        assert_eq!(at("http://u:p%40w@p").dialled.basic_auth().unwrap(), "Basic dTpwQHc=");
        let env = [("HTTPS_PROXY", ""), ("https_proxy", "a"), ("ALL_PROXY", "b")];
        assert_eq!(proxy(&env).unwrap().unwrap().address().0, "a");
        assert_eq!(proxy(&[("all_proxy", "b"), ("HTTP_PROXY", ":")]).unwrap().unwrap().address().0, "b");
        assert!(proxy(&[("HTTP_PROXY", "http://p"), ("NO_PROXY", "x")]).unwrap().is_none());
        assert!(proxy(&[("HTTPS_PROXY", "socks5://p"), ("NO_PROXY", "a, *")]).unwrap().is_none());
    }

    #[test]
    fn what_is_not_understood_ends_the_run_and_is_not_repeated() {
        for (value, why) in [
            (" \n", "it is blank"),
            ("''", "it is blank"),
            ("http://user:hunter2@pro xy:3128", "there is a space or a line end in it"),
            ("http://user:hunter2@pro\nxy:3128", "there is a space or a line end in it"),
            ("http://user:hunter2@proxy:3128\"", "invalid port number"),
            ("socks5h://user:hunter2@proxy:1080", "SOCKS is not supported"),
            ("SOCKS4://proxy", "SOCKS is not supported"),
            ("ftp://user:hunter2@proxy", "it begins with neither http:// nor https://"),
            ("http://", "empty host"),
            ("http://user:hunter2/x@proxy:3128", "invalid port number"),
            ("http://user:1#hunter2@proxy:3128", "its name or password holds"),
            ("http://user:1?hunter2@proxy:3128", "its name or password holds"),
            ("http://DOMAIN\\user:hunter2@proxy:3128", "its name or password holds"),
            ("http://proxy:port", "invalid port number"),
        ] {
            let error = proxy(&[("https_proxy", value)]).err().unwrap_or_else(|| panic!("{value:?}"));
            assert_eq!(error.kind(), Kind::Usage);
            let said = error.to_string();
            assert!(said.starts_with("https_proxy is not a proxy that can be used: "), "{said}");
            assert!(said.contains(why) && !said.contains("hunter2"), "{value:?}: {said}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_set_nothing_goes_out_directly(text in r"([a-z0-9]{0,6}(://)?)?([a-z:#?/@% ]{0,9}@)?\PC{0,20}") {
            prop_assume!(!text.is_empty());
            match proxy(&[("ALL_PROXY", &text)]) {
                Ok(proxy) => prop_assert!(proxy.unwrap().takes(&"https://id.example.com/".parse().unwrap())),
                Err(error) => {
                    prop_assert_eq!(error.kind(), Kind::Usage);
                    prop_assert!(text.len() < 12 || !error.to_string().contains(&text));
                }
            }
        }
    }

    #[test]
    fn exceptions_in_the_forms_that_others_take() {
        let takes = |no: &str, url: &str| {
            let proxy = proxy(&[("HTTPS_PROXY", "http://p"), ("no_proxy", no)]).unwrap().unwrap();
            proxy.takes(&url.parse().unwrap())
        };
        for no in [
            "example.com",
            ".example.com",
            "*.example.com",
            "a b id.example.com",
            "\"id.example.com\"",
            "x,id.example.com:8443\n",
            "https://id.example.com/",
            "ID.Example.COM",
        ] {
            assert!(!takes(no, "https://id.example.com:8443/x"), "{no:?}");
            assert!(takes(no, "https://idexample.com:8443/x"), "{no:?}");
        }
        assert!(takes("id.example.com:8443", "https://id.example.com/"));
        for no in ["10.0.0.0/8", "10.1.2.3", "10.1.2.3:443"] {
            assert!(!takes(no, "https://10.1.2.3/") && takes(no, "https://192.0.2.1/"), "{no:?}");
        }
        for no in ["::1", "[::1]", "[::1]:443"] {
            assert!(!takes(no, "https://[::1]/") && takes(no, "https://[::2]/"), "{no:?}");
        }
        assert!(!takes("x", "http://127.0.0.1/"), "of plain HTTP, nothing leaves the machine");
    }
}
