//! `--agent`: the SSH keys stay in this process and sign for COMMAND through a
//! socket in the private destination, as `ssh-agent` does. It lists and signs,
//! and nothing else: nobody can add a key, remove one or take one out.
//!
//! The folder keeps other users away; that whoever connects is this user is
//! checked all the same. Sizes, connections and times are bounded.

use std::borrow::Borrow;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use signature::Signer as _;
use ssh_key::certificate::CertType;
use ssh_key::private::{KeypairData, PrivateKey};
use ssh_key::{Certificate, Signature};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

use crate::error::{Context as _, Kind, Result};
use crate::once::exchange::keys::{JobKeys, SshKey};
use crate::wire::OutputResponse;

mod ecdsa;
mod protocol;

use protocol::Request;

/// The longest message that is read, in bytes; what SSH signs is a few hundred.
const MAX_MESSAGE: usize = 64 << 10;
/// The most connections at a time; each login has one while it lasts.
const MAX_CONNECTIONS: usize = 64;
/// How long a connection may say nothing: a login may wait for a person.
const IDLE: Duration = Duration::from_secs(600);
/// How long a message may take, once begun.
const MESSAGE_TIME: Duration = Duration::from_secs(10);

/// How long a certificate is offered beside the one that replaced it: `ssh` has read it from its file, and asks for it
/// once it has exchanged keys with the server.
const LOGIN: Duration = Duration::from_secs(10);

/// A key and its certificate.
struct AgentKey {
    key: PrivateKey,
    blob: Vec<u8>,
    certificate: Vec<u8>,
    /// The one before, and when it was replaced.
    before: Option<(Vec<u8>, Instant)>,
    comment: String,
}

impl AgentKey {
    /// None for a certificate that logs nobody in: a host's, or one without a principal.
    fn new(key: &SshKey, answer: &OutputResponse) -> Option<Self> {
        let certificate = Certificate::from_openssh(answer.ssh_certificate.as_deref()?.trim_end()).ok()?;
        if certificate.cert_type() != CertType::User || certificate.valid_principals().is_empty() {
            return None;
        }
        Some(Self {
            key: key.private.clone()?,
            blob: key.blob.clone(),
            certificate: certificate.to_bytes().ok()?,
            before: None,
            comment: format!("machine-id {}", answer.name),
        })
    }

    /// Whether a blob is this key, or a certificate of it: perhaps the one
    /// that a renewal has just replaced.
    fn is(&self, blob: &[u8]) -> bool {
        if blob == self.blob || blob == self.certificate {
            return true;
        }
        let Ok(certificate) = Certificate::from_bytes(blob) else { return false };
        let key = ssh_key::PublicKey::from(certificate.public_key().clone());
        key.to_bytes().is_ok_and(|key| key == self.blob)
    }

    fn sign(&self, data: &[u8]) -> Option<Vec<u8>> {
        let signature: Signature = match self.key.key_data() {
            KeypairData::Ecdsa(pair) => ecdsa::sign(pair, data)?,
            // Wiped by its type, unlike ring's.
            _ => self.key.try_sign(data).ok()?,
        };
        signature.try_into().ok()
    }
}

/// The keys that are served; none once the agent is closed.
#[derive(Default)]
struct AgentKeys(Mutex<Vec<AgentKey>>);

impl AgentKeys {
    fn identities(&self) -> MutexGuard<'_, Vec<AgentKey>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, message: &[u8]) -> Vec<u8> {
        let identities = self.identities();
        match Request::parse(message) {
            // Certificates alone: a bare key opens nothing, and a server counts each that it refuses.
            Request::List => {
                let now = identities.iter().map(|one| (one.certificate.as_slice(), one.comment.as_str()));
                let before = identities.iter().filter_map(|one| {
                    let (certificate, replaced) = one.before.as_ref()?;
                    (replaced.elapsed() < LOGIN).then_some((certificate.as_slice(), one.comment.as_str()))
                });
                protocol::identities(&now.chain(before).collect::<Vec<_>>())
            }
            Request::Sign { key, data } => identities
                .iter()
                .find(|one| one.is(key))
                .and_then(|one| one.sign(data))
                .map_or_else(protocol::failure, |signature| protocol::signed(&signature)),
            Request::Other => protocol::failure(),
        }
    }
}

/// An agent at work; it ends, and forgets its keys, with this value.
pub(super) struct Agent {
    served: Arc<AgentKeys>,
    task: JoinHandle<()>,
}

impl Agent {
    /// Listens at this path, in a folder that is ours alone.
    pub(super) fn listen(path: &Path) -> Result<Self> {
        let listener = socket(path)
            .context(Kind::Destination, format!("cannot make the agent's socket {}", path.display()))?;
        let served = Arc::new(AgentKeys::default());
        let task = tokio::spawn(serve(listener, Arc::clone(&served)));
        Ok(Self { served, task })
    }

    /// Serves the keys of this issuance in place of what it served before.
    pub(super) fn hold<K: Borrow<JobKeys>, A: Borrow<OutputResponse>>(&self, keys: &[K], answers: &[A]) {
        let mut served = self.served.identities();
        let new = keys.iter().zip(answers).filter_map(|(keys, answer)| {
            let (keys, answer): (&JobKeys, &OutputResponse) = (keys.borrow(), answer.borrow());
            let new = AgentKey::new(keys.ssh.as_ref()?, answer)?;
            let replaced = served.iter().find(|served| served.blob == new.blob);
            let before = replaced.map(|served| (served.certificate.clone(), Instant::now()));
            Some(AgentKey { before, ..new })
        });
        *served = new.collect();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // At once; the task ends when it is next looked at.
        self.served.identities().clear();
        self.task.abort();
    }
}

fn socket(path: &Path) -> io::Result<UnixListener> {
    // A run that was killed left it there.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Accepts connections until it is aborted; they end with it.
async fn serve(listener: UnixListener, served: Arc<AgentKeys>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) if is_ours(&stream) && connections.len() < MAX_CONNECTIONS => {
                    let served = Arc::clone(&served);
                    connections.spawn(async move {
                        // A client that misbehaves or goes away is no news.
                        let _ = converse(stream, &served).await;
                    });
                }
                Ok(_) => {}
                // Out of descriptors, say: some will be free again.
                Err(_) => sleep(Duration::from_millis(100)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Whether the same user is at the other end.
fn is_ours(stream: &UnixStream) -> bool {
    stream.peer_cred().is_ok_and(|peer| peer.uid() == rustix::process::geteuid().as_raw())
}

async fn converse(mut stream: UnixStream, served: &AgentKeys) -> io::Result<()> {
    loop {
        let first = timeout(IDLE, stream.read_u8()).await??;
        let message = timeout(MESSAGE_TIME, read_message(first, &mut stream)).await??;
        let answer = served.answer(&message);
        timeout(MESSAGE_TIME, stream.write_all(&answer)).await??;
    }
}

/// A message whose length begins with `first`.
async fn read_message(first: u8, stream: &mut UnixStream) -> io::Result<Vec<u8>> {
    let mut rest = [0; 3];
    stream.read_exact(&mut rest).await?;
    let [second, third, fourth] = rest;
    let length = usize::try_from(u32::from_be_bytes([first, second, third, fourth])).unwrap_or(usize::MAX);
    if length > MAX_MESSAGE {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut message = vec![0; length];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::KeyKinds;
    use crate::suite::KeyType;
    use ssh_key::certificate::Builder;
    use ssh_key::private::Ed25519Keypair;

    fn ssh_keys(key_type: KeyType) -> JobKeys {
        let wanted = KeyKinds { ssh: true, tls: false, host: false };
        JobKeys::generate("ssh", wanted, key_type, None).unwrap()
    }

    fn issued(key: &SshKey, kind: CertType, serial: u64) -> OutputResponse {
        let public = ssh_key::PublicKey::from_openssh(&key.public_line).unwrap();
        let mut builder = Builder::new([1; 32], public.key_data().clone(), 0, 1 << 40).unwrap();
        builder.serial(serial).unwrap().cert_type(kind).unwrap().valid_principal("x").unwrap();
        let ca = PrivateKey::from(Ed25519Keypair::from_seed(&[7; 32]));
        OutputResponse {
            name: "ssh".into(),
            ssh_certificate: Some(builder.sign(&ca).unwrap().to_openssh().unwrap()),
            tls_certificate_chain: None,
            jwt: None,
            serial: serial.to_string(),
            tls_serial: None,
            principals: vec![],
            roles: vec![],
        }
    }

    async fn ask(stream: &mut UnixStream, message: &[u8]) -> io::Result<Vec<u8>> {
        stream.write_u32(u32::try_from(message.len()).unwrap()).await?;
        stream.write_all(message).await?;
        let first = stream.read_u8().await?;
        read_message(first, stream).await
    }

    fn sign_request(key: &[u8], data: &[u8]) -> Vec<u8> {
        let mut message = vec![13];
        crate::rfc4251::put_string(&mut message, key);
        crate::rfc4251::put_string(&mut message, data);
        message.extend([0; 4]);
        message
    }

    fn framed(blob: &[u8]) -> Vec<u8> {
        let mut framed = Vec::new();
        crate::rfc4251::put_string(&mut framed, blob);
        framed
    }

    #[tokio::test]
    async fn it_lists_signs_and_forgets() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.sock");
        std::fs::write(&path, "left by a dead run").unwrap();
        let keys = [ssh_keys(KeyType::Ed25519)];
        let key = keys[0].ssh.as_ref().unwrap();
        let agent = Agent::listen(&path).unwrap();
        let first = issued(key, CertType::User, 1);
        agent.hold(&keys, std::slice::from_ref(&first));
        let old = agent.served.identities()[0].certificate.clone();
        agent.hold(&keys, &[issued(key, CertType::User, 2)]);
        let mut stream = UnixStream::connect(&path).await.unwrap();
        let listed = ask(&mut stream, &[11]).await.unwrap();
        assert_eq!(listed[..5], [12, 0, 0, 0, 2], "the new one, and for logins under way the old one");
        assert!(listed.ends_with(b"machine-id ssh") && listed.windows(old.len()).any(|part| part == old));
        let of_before = Instant::now().checked_sub(LOGIN).unwrap();
        agent.served.identities()[0].before = Some((old.clone(), of_before));
        let listed = ask(&mut stream, &[11]).await.unwrap();
        assert_eq!(listed[..5], [12, 0, 0, 0, 1]);
        let seed = key.private.as_ref().unwrap().key_data().ed25519().unwrap().private.to_bytes();
        let holds = |part: &[u8]| listed.windows(part.len()).any(|window| window == part);
        assert!(holds(&agent.served.identities()[0].certificate) && !holds(&old) && !holds(seed.as_ref()));
        // The blob of a certificate holds the key, but not as a string of its own.
        assert!(!holds(&framed(&key.blob)), "the bare key opens nothing");
        // The replaced certificate still names our key.
        for blob in [&key.blob, &old] {
            let answer = ask(&mut stream, &sign_request(blob, b"data")).await.unwrap();
            let public = ring::signature::UnparsedPublicKey::new(
                &ring::signature::ED25519,
                &key.blob[key.blob.len() - 32..],
            );
            public.verify(b"data", &answer[answer.len() - 64..]).unwrap();
        }
        let other = ssh_keys(KeyType::Ed25519).ssh.unwrap();
        for refused in
            [sign_request(&other.blob, b"data"), sign_request(b"", b""), vec![19], vec![17, 1], vec![]]
        {
            assert_eq!(ask(&mut stream, &refused).await.unwrap(), [5], "{refused:?}");
        }
        drop(agent);
        assert!(ask(&mut stream, &[11]).await.is_err());
        assert!(UnixStream::connect(&path).await.is_err());
    }

    #[test]
    fn keys_of_each_type_sign_as_openssh_has_it() {
        use ring::signature::{ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, UnparsedPublicKey};
        for (key_type, width, algorithm) in [
            (KeyType::EcdsaP256, 32, &ECDSA_P256_SHA256_FIXED),
            (KeyType::EcdsaP384, 48, &ECDSA_P384_SHA384_FIXED),
        ] {
            let key = ssh_keys(key_type).ssh.unwrap();
            let agent = AgentKey::new(&key, &issued(&key, CertType::User, 1)).unwrap();
            let public = key.blob[key.blob.len() - 2 * width - 1..].to_vec();
            // Numbers that begin with zeros are shorter, and those with a bit in front longer.
            for round in 0..300_u16 {
                let data = round.to_be_bytes();
                let signed = agent.sign(&data).unwrap();
                let mut signed = crate::rfc4251::Decoder::new(&signed);
                assert!(key.blob[4..].starts_with(signed.string().unwrap()));
                let mut numbers = crate::rfc4251::Decoder::new(signed.string().unwrap());
                let fixed = [numbers.string().unwrap(), numbers.string().unwrap()].map(|number| {
                    assert!(number[0] != 0 || number[1] >= 0x80, "minimal, and positive: {number:?}");
                    let bare = number.strip_prefix(&[0]).unwrap_or(number);
                    [vec![0; width - bare.len()], bare.to_vec()].concat()
                });
                assert!(numbers.is_empty() && signed.is_empty());
                UnparsedPublicKey::new(algorithm, &public).verify(&data, &fixed.concat()).unwrap();
            }
        }
    }

    #[tokio::test]
    async fn keys_of_hosts_are_not_served_and_long_messages_end_the_connection() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.sock");
        let keys = [ssh_keys(KeyType::Ed25519)];
        let agent = Agent::listen(&path).unwrap();
        agent.hold(&keys, &[issued(keys[0].ssh.as_ref().unwrap(), CertType::Host, 1)]);
        let mut stream = UnixStream::connect(&path).await.unwrap();
        assert_eq!(ask(&mut stream, &[11]).await.unwrap(), [12, 0, 0, 0, 0]);
        stream.write_u32(u32::MAX).await.unwrap();
        assert!(stream.read_u8().await.is_err());
    }

    #[tokio::test]
    async fn connections_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.sock");
        let _agent = Agent::listen(&path).unwrap();
        let mut open = Vec::new();
        for _ in 0..MAX_CONNECTIONS {
            let mut stream = UnixStream::connect(&path).await.unwrap();
            ask(&mut stream, &[11]).await.unwrap();
            open.push(stream);
        }
        let mut surplus = UnixStream::connect(&path).await.unwrap();
        assert!(ask(&mut surplus, &[11]).await.is_err());
        drop(open);
        let mut answered = false;
        for _ in 0..100 {
            let mut stream = UnixStream::connect(&path).await.unwrap();
            answered = ask(&mut stream, &[11]).await.is_ok();
            if answered {
                break;
            }
            sleep(Duration::from_millis(10)).await;
        }
        assert!(answered);
    }
}
