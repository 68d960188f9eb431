//! The output `kubernetes`: a kubeconfig with the certificate inside.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::database::check_server_ca;
use super::material::{File, Material, OptionValues, WrittenOutput, lines};
use super::output_files::{OutputFiles, ReadFile};
use crate::error::{Context as _, Error, Kind, Result};
use crate::output::KUBERNETES;

const FILE: &str = "kubeconfig.yaml";
const CERTIFICATE: &str = "client-certificate-data: ";
const KEY: &str = "client-key-data: ";

pub(super) static FILES: OutputFiles =
    OutputFiles { check, variables, tls_pem, ..OutputFiles::new(&KUBERNETES, &[FILE], files) };

fn check(options: &OptionValues, files: &OptionValues) -> Result<(), String> {
    if let Some(server) = options.get("server") {
        let plain = reqwest::Url::parse(server).is_ok_and(|url| {
            url.scheme() == "https" && url.username().is_empty() && url.password().is_none()
        });
        if !plain || server.chars().any(char::is_control) {
            return Err("`server` must be an https URL without a user or password".to_owned());
        }
    }
    check_server_ca(files)
}

fn files(material: &Material<'_>) -> Result<Vec<File>> {
    let tls = material.tls()?;
    let cluster = material.options.get("cluster").ok_or_else(|| Error::internal("no `cluster`"))?;
    let user = material.subject.ok_or_else(|| Error::internal("the certificate names no user"))?;
    // Files of several clusters are read together, and then each entry's name counts once.
    let named =
        |name: &str| quoted(&material.leaf.map_or_else(|| name.to_owned(), |leaf| format!("{name}@{leaf}")));
    let (cluster, user) = (named(cluster), named(user));
    let (cas, chain) = (STANDARD.encode(material.server_cas()), STANDARD.encode(lines(&[tls.chain])));
    let key = Zeroizing::new(STANDARD.encode(tls.private_key));
    let server = material.options.get("server");
    let server = server.map_or_else(String::new, |server| format!("    server: {}\n", quoted(server)));
    // Of its whole length at once, so that no copy of the key is left behind by growing.
    let mut text = String::with_capacity(cas.len() + chain.len() + key.len() + 4096);
    let written = write!(
        text,
        "apiVersion: v1\nkind: Config\nclusters:\n- name: {cluster}\n  cluster:\n{server}    \
         certificate-authority-data: {cas}\ncontexts:\n- name: {cluster}\n  context:\n    cluster: {cluster}\n    \
         user: {user}\ncurrent-context: {cluster}\nusers:\n- name: {user}\n  user:\n    \
         {CERTIFICATE}{chain}\n    {KEY}{}\n",
        &*key
    );
    written.context(Kind::Internal, "kubeconfig")?;
    Ok(vec![File::new(FILE, text)])
}

fn variables(written: &WrittenOutput<'_>) -> Vec<(&'static str, String)> {
    vec![("KUBECONFIG", format!("{}/{FILE}", written.folder))]
}

fn tls_pem(_names: &[String], read: ReadFile<'_>) -> Option<Zeroizing<String>> {
    let text = read(FILE)?;
    let mut both = Zeroizing::new(String::with_capacity(text.len()));
    for field in [KEY, CERTIFICATE] {
        let data = text.lines().find_map(|line| line.trim_start().strip_prefix(field))?;
        let pem = Zeroizing::new(STANDARD.decode(data).ok()?);
        both.push_str(std::str::from_utf8(&pem).ok()?);
        both.push('\n');
    }
    Some(both)
}

/// A JSON text is one of YAML's, whatever is in it.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_https_and_hold_no_secret() {
        let check = |server: &str| {
            super::check(&OptionValues::from([("server".into(), server.into())]), &OptionValues::new())
        };
        check("https://k8s.example.com:6443").unwrap();
        check("https://k8s.example.com/clusters/a").unwrap();
        for bad in
            ["", "k8s.example.com", "http://k8s.example.com", "https://u:p@k8s.example.com", "https://a\nb"]
        {
            assert!(check(bad).is_err(), "{bad:?}");
        }
    }
}
