//! Destinations: private directories with the files of each output.
//!
//! A type of output is one file here and one line in [`OUTPUTS`]: which files
//! it becomes. `directory` does the writing, `wipe` takes everything away
//! again, `manifest` says what is there.

mod application;
pub(crate) mod clusters;
mod database;
pub(crate) mod directory;
pub mod hosts;
mod identity;
pub mod jwt;
mod kubernetes;
pub(crate) mod manifest;
pub mod material;
mod mux;
pub mod output_files;
pub mod ssh;
pub(crate) mod ssh_host;
pub(crate) mod wipe;

use output_files::OutputFiles;

/// The files of every type of output, in the order of [`crate::output::TYPES`].
pub static OUTPUTS: &[&OutputFiles] = &[
    &identity::FILES,
    &ssh::FILES,
    &application::FILES,
    &database::FILES,
    &kubernetes::FILES,
    &ssh_host::FILES,
    &jwt::FILES,
];

/// The files of the type of that name.
pub fn output_files(name: &str) -> Option<&'static OutputFiles> {
    OUTPUTS.iter().copied().find(|files| files.declaration.name == name)
}

/// A file of no output: what a wrapped run's shells read in place of the `$BASH_ENV` that there was.
pub const BASH_ENV: &str = "bash_env";

/// The agent's socket in a destination (`--agent`).
pub const AGENT_SOCKET: &str = "agent.sock";

/// Whether some output type writes a file of that name, or every destination may have it.
pub fn is_file_of_ours(name: &str) -> bool {
    [BASH_ENV, AGENT_SOCKET].contains(&name) || OUTPUTS.iter().any(|output| output.writes(name))
}

#[cfg(test)]
mod tests {
    use super::hosts::EVERYWHERE;
    use super::material::{Material, OptionValues, SshMaterial, TlsMaterial};
    use super::*;
    use crate::wire::TrustAnchors;

    #[test]
    fn file_names_stay_in_their_folder() {
        for file in OUTPUTS.iter().flat_map(|output| output.file_names) {
            assert!(!file.contains('/') && !file.starts_with('.') && *file != manifest::FILE_NAME, "{file}");
        }
    }

    #[test]
    fn a_type_writes_only_the_files_that_it_names() {
        let trust = TrustAnchors {
            ssh_host_cas: vec!["ssh-ed25519 AAAA".into()],
            tls_cas: vec!["CA".into()],
            ..TrustAnchors::default()
        };
        let material = Material {
            folder: "/d",
            ssh: Some(SshMaterial { private_key: Some("PRIVATE"), public_key: "PUB", certificate: "CERT" }),
            tls: Some(TlsMaterial { private_key: "TLSKEY", chain: "CHAIN" }),
            jwt: Some("TOKEN"),
            options: &OptionValues::from([("cluster".into(), "c".into())]),
            files: &OptionValues::new(),
            subject: Some("deploy"),
            trust: &trust,
            hosts: &EVERYWHERE,
            leaf: None,
            revoked_hosts: None,
            agent: None,
        };
        for kind in OUTPUTS {
            let files = (kind.files)(&material).unwrap();
            for file in &files {
                assert!(kind.writes(&file.name) && is_file_of_ours(&file.name), "{}", file.name);
            }
            let names: Vec<&str> = files.iter().map(|file| file.name.as_ref()).collect();
            assert_eq!(names, &kind.file_names[..names.len()], "{}", kind.declaration.name);
            assert!(!format!("{files:?}").contains("PRIVATE"));
        }
    }

    #[test]
    fn with_an_agent_no_file_holds_the_ssh_key() {
        let trust = TrustAnchors::default();
        let material = Material {
            folder: "/d",
            ssh: Some(SshMaterial { private_key: Some("PRIVATE"), public_key: "PUB", certificate: "CERT" }),
            tls: Some(TlsMaterial { private_key: "TLSKEY", chain: "CHAIN" }),
            jwt: Some("TOKEN"),
            trust: &trust,
            hosts: &EVERYWHERE,
            leaf: None,
            revoked_hosts: None,
            options: &OptionValues::new(),
            files: &OptionValues::new(),
            subject: None,
            agent: Some("/d/agent.sock"),
        };
        for kind in OUTPUTS.iter().filter(|kind| kind.file_names.contains(&"ssh_config")) {
            for file in (kind.files)(&material).unwrap() {
                let text = String::from_utf8(file.content.to_vec()).unwrap();
                assert!(!text.contains("PRIVATE") && file.name != "key", "{}: {text}", file.name);
                assert!(
                    file.name != "ssh_config" || text.contains("IdentityAgent \"/d/agent.sock\"\n"),
                    "{text}"
                );
            }
        }
    }
}
