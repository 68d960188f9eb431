//! A small TLS server that judges clients as kube-apiserver does: the common
//! name is the user, the organizations are the groups, and the binding of
//! `docs/resources/kubernetes.md` says who may read pods.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use super::authority::Authority;
use super::page;
use super::process::read;
use super::servers::Folder;

/// Who a client is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The common name.
    pub name: String,
    /// The organizations.
    pub groups: Vec<String>,
}

/// The server; it ends with the value.
pub struct Kube {
    address: SocketAddr,
    users: Arc<Mutex<Vec<User>>>,
    closing: Arc<AtomicBool>,
    folder: Folder,
}

impl Kube {
    /// One that believes this authority.
    #[track_caller]
    pub fn start(authority: &Authority) -> Self {
        let folder = Folder::new(authority, "root");
        let files = folder.tls();
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let (users, closing) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let kube = Self { address, users: Arc::clone(&users), closing: Arc::clone(&closing), folder };
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                if closing.load(Ordering::SeqCst) {
                    return;
                }
                // As kube-apiserver follows its files.
                let (files, users) = (files.clone(), Arc::clone(&users));
                std::thread::spawn(move || serve(socket, server_config(&files), &users));
            }
        });
        kube
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Its files.
    pub fn tls(&self) -> std::path::PathBuf {
        self.folder.tls()
    }

    /// Its CA.
    pub fn ca(&self) -> std::path::PathBuf {
        self.folder.tls().join("ca.crt")
    }

    /// Who has asked it anything.
    pub fn users(&self) -> Vec<User> {
        self.users.lock().unwrap().clone()
    }
}

impl Drop for Kube {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

fn server_config(tls: &Path) -> Arc<ServerConfig> {
    let certificates = |name: &str| -> Vec<CertificateDer<'static>> {
        let pem = read(tls.join(name));
        CertificateDer::pem_slice_iter(pem.as_bytes()).map(|der| der.unwrap()).collect()
    };
    let mut roots = RootCertStore::empty();
    certificates("ca.crt").into_iter().for_each(|ca| roots.add(ca).unwrap());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().unwrap();
    let key = PrivateKeyDer::from_pem_slice(read(tls.join("server.key")).as_bytes()).unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates("server.crt"), key)
        .unwrap();
    Arc::new(config)
}

fn serve(socket: TcpStream, tls: Arc<ServerConfig>, users: &Mutex<Vec<User>>) {
    let _ = socket.set_read_timeout(Some(Duration::from_secs(10)));
    let mut stream = StreamOwned::new(ServerConnection::new(tls).unwrap(), socket);
    let Some((method, path)) = request(&mut stream) else { return };
    let Some(user) = stream.conn.peer_certificates().and_then(|chain| user_of(&chain[0])) else { return };
    users.lock().unwrap().push(user.clone());
    let (status, body) = answer(&method, &path, &user);
    let body = body.to_string();
    let head = format!(
        "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
    stream.conn.send_close_notify();
    let _ = stream.flush();
}

/// Method and path; the body is read and left alone.
fn request(stream: &mut StreamOwned<ServerConnection, TcpStream>) -> Option<(String, String)> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
            });
            if bytes.len() >= end + 4 + length.unwrap_or(0) {
                let mut words = head.split(' ').map(str::to_owned);
                return Some((words.next()?, words.next()?));
            }
        }
        match stream.read(&mut chunk) {
            Ok(read @ 1..) => bytes.extend_from_slice(&chunk[..read]),
            _ => return None,
        }
    }
}

/// As kube-apiserver's x509 request authenticator reads them.
fn user_of(der: &CertificateDer<'_>) -> Option<User> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    let text =
        |attribute: &x509_parser::x509::AttributeTypeAndValue<'_>| attribute.as_str().ok().map(str::to_owned);
    let name = certificate.subject().iter_common_name().find_map(text)?;
    Some(User { name, groups: certificate.subject().iter_organization().filter_map(text).collect() })
}

/// Whether the page's binding names the user or one of the groups.
fn may_read_pods(user: &User) -> bool {
    let binding: Value = serde_saphyr::from_str(&page::file("kubernetes.md", "binding.yaml")).unwrap();
    assert_eq!(
        (&binding["kind"], &binding["metadata"]["namespace"]),
        (&json!("RoleBinding"), &json!("orders"))
    );
    binding["subjects"].as_array().unwrap().iter().any(|subject| {
        let name = subject["name"].as_str().unwrap();
        match subject["kind"].as_str().unwrap() {
            "User" => user.name == name,
            "Group" => user.groups.iter().any(|group| group == name),
            other => panic!("{other}"),
        }
    })
}

fn answer(method: &str, path: &str, user: &User) -> (u16, Value) {
    let path = path.split('?').next().unwrap_or_default();
    let pods = "/api/v1/namespaces/orders/pods";
    let resource = json!({"name": "pods", "singularName": "pod", "namespaced": true, "kind": "Pod", "verbs": ["get", "list"]});
    let group = |name: &str| {
        let version = json!({"groupVersion": format!("{name}/v1"), "version": "v1"});
        json!({"name": name, "versions": [version.clone()], "preferredVersion": version})
    };
    match (method, path) {
        ("GET", "/version") => (200, json!({"major": "1", "minor": "32", "gitVersion": "v1.32.0"})),
        ("GET", "/api") => (200, json!({"kind": "APIVersions", "versions": ["v1"]})),
        ("GET", "/apis") => {
            let groups = json!([group("authorization.k8s.io")]);
            (200, json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}))
        }
        ("GET", "/api/v1") => {
            (200, json!({"kind": "APIResourceList", "groupVersion": "v1", "resources": [resource]}))
        }
        ("GET", "/apis/authorization.k8s.io/v1") => (
            200,
            json!({"kind": "APIResourceList", "groupVersion": "authorization.k8s.io/v1", "resources": [
                {"name": "selfsubjectaccessreviews", "singularName": "", "namespaced": false, "kind": "SelfSubjectAccessReview", "verbs": ["create"]}]}),
        ),
        ("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews") => (
            201,
            json!({"kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1", "spec": {},
                   "status": {"allowed": may_read_pods(user)}}),
        ),
        ("GET", path) if path == pods && may_read_pods(user) => {
            let pod = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "orders-1", "namespace": "orders"}});
            (200, json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": [pod]}))
        }
        ("GET", path) if path == pods => {
            let message = format!("pods is forbidden: User \"{}\" cannot list resource \"pods\"", user.name);
            (
                403,
                json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Forbidden", "code": 403, "message": message}),
            )
        }
        _ => (
            404,
            json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404, "message": path}),
        ),
    }
}
