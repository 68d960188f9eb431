//! What other programs say of a chain and of lists: OpenSSL, GnuTLS and Java, none of which shares a line with this one.

use std::path::{Path, PathBuf};

use super::process::{command, run, succeed};

/// Somebody who verifies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verifier {
    OpenSsl,
    GnuTls,
    Java,
}

/// All of them.
pub const ALL: [Verifier; 3] = [Verifier::OpenSsl, Verifier::GnuTls, Verifier::Java];

/// What Java's own TLS would say of a chain as a server or a client sends it: `TRUST LISTS CHAIN server|client`.
const JAVA: &str = r#"
import java.io.*; import java.nio.file.*; import java.security.*; import java.security.cert.*; import java.util.*;
import javax.net.ssl.*;
class Verify {
    static Collection<? extends java.security.cert.Certificate> certificates(String file) throws Exception {
        return CertificateFactory.getInstance("X.509").generateCertificates(new FileInputStream(file));
    }
    public static void main(String[] a) throws Exception {
        KeyStore trust = KeyStore.getInstance(KeyStore.getDefaultType());
        trust.load(null, null);
        int n = 0;
        for (java.security.cert.Certificate one : certificates(a[0])) trust.setCertificateEntry("ca" + n++, one);
        PKIXBuilderParameters params = new PKIXBuilderParameters(trust, new X509CertSelector());
        params.setRevocationEnabled(true);
        Collection<CRL> lists = new ArrayList<>(CertificateFactory.getInstance("X.509").generateCRLs(new FileInputStream(a[1])));
        params.addCertStore(CertStore.getInstance("Collection", new CollectionCertStoreParameters(lists)));
        TrustManagerFactory factory = TrustManagerFactory.getInstance("PKIX");
        factory.init(new CertPathTrustManagerParameters(params));
        X509TrustManager manager = (X509TrustManager) factory.getTrustManagers()[0];
        X509Certificate[] chain = certificates(a[2]).toArray(new X509Certificate[0]);
        try {
            if (a[3].equals("server")) manager.checkServerTrusted(chain, "UNKNOWN");
            else manager.checkClientTrusted(chain, "UNKNOWN");
            System.out.println("good");
        } catch (CertificateException error) {
            Throwable cause = error;
            while (cause.getCause() != null) cause = cause.getCause();
            System.out.println(error.getMessage() + ": " + cause);
        }
    }
}
"#;

/// Whether it takes a chain, as it is sent, of a server or a client, by what it trusts, with lists of every CA in it; and what it says.
#[track_caller]
pub fn verify(by: Verifier, trust: &Path, lists: &Path, chain: &Path, is_server: bool) -> (bool, String) {
    let output = match by {
        Verifier::OpenSsl => {
            let purpose = if is_server { "sslserver" } else { "sslclient" };
            let mut openssl = command("openssl");
            openssl.args([
                "verify",
                "-no-CApath",
                "-x509_strict",
                "-crl_check_all",
                "-purpose",
                purpose,
                "-CAfile",
            ]);
            run(openssl.arg(trust).arg("-CRLfile").arg(lists).arg("-untrusted").arg(chain).arg(chain))
        }
        Verifier::GnuTls => {
            let purpose = if is_server { "1.3.6.1.5.5.7.3.1" } else { "1.3.6.1.5.5.7.3.2" };
            let mut certtool = command("certtool");
            certtool.args(["--verify", "--verify-profile", "medium", "--verify-purpose", purpose]);
            certtool.arg("--load-ca-certificate").arg(trust).arg("--load-crl").arg(lists);
            run(certtool.arg("--infile").arg(chain))
        }
        Verifier::Java => {
            let program = java(chain.parent().unwrap());
            let side = if is_server { "server" } else { "client" };
            run(command("java")
                .arg("-cp")
                .arg(program)
                .arg("Verify")
                .arg(trust)
                .arg(lists)
                .arg(chain)
                .arg(side))
        }
    };
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.success() && (by != Verifier::Java || said == "good\n"), said)
}

/// The program, compiled once in a folder.
fn java(folder: &Path) -> PathBuf {
    let classes = folder.join("classes");
    if !classes.exists() {
        let source = folder.join("Verify.java");
        std::fs::write(&source, JAVA).unwrap();
        succeed(command("javac").arg("-d").arg(&classes).arg(source));
    }
    classes
}
