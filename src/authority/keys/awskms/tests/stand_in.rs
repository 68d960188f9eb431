//! A KMS on loopback, which does what a test says.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair as _,
};
use serde_json::Value;

use super::*;

pub(super) const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
pub(super) const KEY_ID: &str = "AKIDEXAMPLE";
pub(super) const TOKEN: &str = "session-token-that-nobody-may-see";
pub(super) const ALIAS: &str = "alias/ca-tls";

/// A request, as it came.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    headers: Vec<(String, String)>,
    pub(super) body: String,
}

impl Asked {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(found, _)| found == name).map_or("", |(_, value)| value)
    }

    pub(super) fn action(&self) -> &str {
        self.header("x-amz-target").strip_prefix("TrentService.").unwrap()
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// What is answered: bytes as they are, or nothing for as long as anybody waits.
pub(super) enum Reply {
    Bytes(Vec<u8>),
    Drip(Vec<u8>),
    Hang,
    Drop,
}

pub(super) fn reply(status: u16, body: &Value) -> Reply {
    head(status, "", &body.to_string())
}

pub(super) fn head(status: u16, header: &str, body: &str) -> Reply {
    let length = body.len();
    Reply::Bytes(
        format!("HTTP/1.1 {status} Told\r\n{header}Content-Length: {length}\r\n\r\n{body}").into_bytes(),
    )
}

pub(super) fn refused(code: &str) -> Reply {
    reply(
        400,
        &json!({"__type": format!("com.amazonaws.kms#{code}"), "message": format!("{code}, says AWS")}),
    )
}

/// What a stand-in makes of a request, which is the how manieth of its kind.
pub(super) type Part = dyn Fn(&Asked, usize) -> Option<Reply> + Send + Sync;

/// A key that KMS has.
pub(super) enum Pair {
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

pub(super) struct Shared {
    pairs: Vec<(&'static Spec, Pair)>,
    pub(super) part: Box<Part>,
    asked: Mutex<Vec<Asked>>,
    pub(super) connections: AtomicUsize,
}

/// A KMS of one key under [`ALIAS`], and another.
pub(super) struct StandIn {
    pub(super) shared: Arc<Shared>,
    pub(super) url: String,
}

impl StandIn {
    pub(super) fn new(
        algorithm: Algorithm,
        part: impl Fn(&Asked, usize) -> Option<Reply> + Send + Sync + 'static,
    ) -> Self {
        let pairs = [new_pair(algorithm), new_pair(algorithm)].into();
        let shared = Arc::new(Shared {
            pairs,
            part: Box::new(part),
            asked: Mutex::default(),
            connections: AtomicUsize::new(0),
        });
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&serving);
                std::thread::spawn(move || shared.serve(stream));
            }
        });
        Self { shared, url }
    }

    pub(super) fn good(algorithm: Algorithm) -> Self {
        Self::new(algorithm, |_, _| None)
    }

    pub(super) fn store(&self) -> AwsKms {
        self.store_with(&[("AWS_REGION", "us-east-1")])
    }

    pub(super) fn store_with(&self, others: &[(&str, &str)]) -> AwsKms {
        let pairs = [
            ("AWS_ENDPOINT_URL_KMS", self.url.as_str()),
            ("AWS_ACCESS_KEY_ID", KEY_ID),
            ("AWS_SECRET_ACCESS_KEY", SECRET),
            ("AWS_SESSION_TOKEN", TOKEN),
        ];
        AwsKms::new("ca", Environment::from_pairs(pairs.into_iter().chain(others.iter().copied()))).unwrap()
    }

    pub(super) fn key(&self) -> Arc<dyn PrivateKey> {
        self.store().open("tls").unwrap().unwrap()
    }

    pub(super) fn asked(&self, action: &str) -> Vec<Asked> {
        let asked = self.shared.asked.lock().unwrap();
        asked.iter().filter(|asked| asked.action() == action).cloned().collect()
    }
}

pub(super) fn new_pair(algorithm: Algorithm) -> (&'static Spec, Pair) {
    let random = SystemRandom::new();
    let spec = SPECS.iter().find(|spec| spec.algorithm == algorithm).unwrap();
    let ecdsa = |curve| {
        let der = EcdsaKeyPair::generate_pkcs8(curve, &random).unwrap();
        Pair::Ecdsa(EcdsaKeyPair::from_pkcs8(curve, der.as_ref(), &random).unwrap())
    };
    let pair = match algorithm {
        Algorithm::EcdsaP256 => ecdsa(&ECDSA_P256_SHA256_ASN1_SIGNING),
        Algorithm::EcdsaP384 => ecdsa(&ECDSA_P384_SHA384_ASN1_SIGNING),
        Algorithm::Ed25519 => {
            let der = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
            Pair::Ed25519(Ed25519KeyPair::from_pkcs8(der.as_ref()).unwrap())
        }
        Algorithm::Rsa3072 => panic!("ring makes no keys of RSA"),
    };
    (spec, pair)
}

impl Shared {
    pub(super) fn spki(&self, number: usize) -> Vec<u8> {
        let (spec, pair) = &self.pairs[number];
        let public = match pair {
            Pair::Ecdsa(pair) => pair.public_key().as_ref(),
            Pair::Ed25519(pair) => pair.public_key().as_ref(),
        };
        [spec.before, public].concat()
    }

    pub(super) fn signature(&self, number: usize, message: &[u8]) -> String {
        STANDARD.encode(match &self.pairs[number].1 {
            Pair::Ecdsa(pair) => pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec(),
            Pair::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
        })
    }

    /// What KMS answers.
    fn answer(&self, asked: &Asked) -> Reply {
        let body = asked.json();
        match asked.action() {
            "GetPublicKey" if body["KeyId"] == ALIAS => reply(200, &self.public(0)),
            "GetPublicKey" => refused("NotFoundException"),
            "Sign" => {
                assert_eq!(body["KeyId"], "arn:key/0");
                let message = STANDARD.decode(body["Message"].as_str().unwrap()).unwrap();
                assert!(body["MessageType"] == "RAW" && message.len() <= 4096, "ring signs no digests");
                assert_eq!(body["SigningAlgorithm"], self.pairs[0].0.signing);
                reply(200, &json!({"KeyId": "arn:key/0", "Signature": self.signature(0, &message)}))
            }
            _ => refused("ValidationException"),
        }
    }

    pub(super) fn public(&self, number: usize) -> Value {
        json!({
            "KeyId": format!("arn:key/{number}"), "PublicKey": STANDARD.encode(self.spki(number)),
            "KeyUsage": "SIGN_VERIFY", "SigningAlgorithms": [self.pairs[number].0.signing, "another"],
            "KeySpec": "whatever", "more": {"a": [1]},
        })
    }

    fn serve(&self, mut stream: TcpStream) {
        self.connections.fetch_add(1, Ordering::SeqCst);
        let mut read = Vec::new();
        loop {
            let end = loop {
                if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
                    break end + 4;
                }
                let mut some = [0; 4096];
                match stream.read(&mut some) {
                    Ok(0) | Err(_) => return,
                    Ok(count) => read.extend(&some[..count]),
                }
            };
            let text = String::from_utf8(read[..end].to_vec()).unwrap();
            let headers = text.lines().filter_map(|line| line.split_once(": "));
            let headers: Vec<_> =
                headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
            let mut asked = Asked { headers, body: String::new() };
            let length: usize = asked.header("content-length").parse().unwrap();
            while read.len() < end + length {
                let mut some = [0; 4096];
                let count = stream.read(&mut some).unwrap();
                read.extend(&some[..count]);
            }
            asked.body = String::from_utf8(read[end..end + length].to_vec()).unwrap();
            read.drain(..end + length);
            let before = {
                let mut all = self.asked.lock().unwrap();
                let before = all.iter().filter(|one| one.action() == asked.action()).count();
                all.push(asked.clone());
                before
            };
            match (self.part)(&asked, before).unwrap_or_else(|| self.answer(&asked)) {
                Reply::Bytes(bytes) => drop(stream.write_all(&bytes)),
                Reply::Drip(bytes) => {
                    for byte in bytes {
                        std::thread::sleep(Duration::from_millis(2));
                        if stream.write_all(&[byte]).is_err() {
                            return;
                        }
                    }
                }
                // Until the other side goes.
                Reply::Hang => return drop(stream.read(&mut [0])),
                Reply::Drop => return,
            }
        }
    }
}
