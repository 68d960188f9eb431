//! The profile of AWS's shared files. One that is named, or that says whose
//! role to take, is used or ends the run: whoever set it up does not mean the
//! role of the machine under it.

use std::path::Path;

use ini::{Ini, Properties};
use reqsign_aws_v4::Credential;
use reqsign_core::Context;
use zeroize::Zeroizing;

use super::seeker::Seeker;
use crate::error::{Error, Kind, Result};
use crate::folder::Unfit;
use crate::folder::read::{self as file, Limit, Trust};
use crate::text::shown;

/// The largest file that is read, in bytes.
const MAX_FILE: usize = 1 << 20;

/// A profile, as far as it is there.
#[derive(Debug)]
pub(super) struct Profile {
    name: String,
    /// The variable that names it.
    named_by: Option<&'static str>,
    /// What it has in the file of credentials, and in that of configuration.
    sections: Vec<Properties>,
}

const CONFIG: &str = "AWS_CONFIG_FILE";
/// What makes a profile one that only an SDK can use, in the order of the SDKs.
const ROLE: &str = "role_arn";
const SSO: [&str; 2] = ["sso_session", "sso_start_url"];

/// The profile that is meant. `Kind::Proof` where its files cannot be read.
pub(super) async fn read(seeker: &Seeker<'_>, context: &Context) -> Result<Profile> {
    let named_by =
        ["AWS_PROFILE", "AWS_DEFAULT_PROFILE"].into_iter().find(|name| seeker.env.get(name).is_some());
    let name = named_by.and_then(|variable| seeker.env.get(variable)).unwrap_or("default").to_owned();
    let mut profile = Profile { name, named_by, sections: Vec::new() };
    for (variable, usual) in
        [("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"), (CONFIG, "~/.aws/config")]
    {
        let said = seeker.env.get(variable);
        // A service has no home, and is on an instance all the same.
        let Some(path) = context.expand_home_dir(said.unwrap_or(usual)) else { continue };
        let text = match contents(&path).await {
            Ok(text) => text,
            Err(unfit) if unfit.is_missing() => continue,
            Err(unfit) => {
                let error = unfit.error(Kind::Proof, format!("cannot read {}", shown(&path)));
                if named_by.or(said).is_some() {
                    return Err(profile.useless(error));
                }
                // Perhaps the home of somebody else, whom nobody means.
                (seeker.warn)(&format!("AWS's shared files are passed over: {error}"));
                continue;
            }
        };
        // The parser's words may repeat a secret.
        let ini = Ini::load_from_str(&String::from_utf8_lossy(&text)).map_err(|error| {
            let place = format!("{} is no AWS file: line {}", shown(&path), error.line + 1);
            profile.useless(Error::new(Kind::Proof, place))
        })?;
        // Only the default one may lack the word in the file of configuration.
        let with_word = ini.section(Some(format!("profile {}", profile.name)));
        let without =
            (variable != CONFIG || profile.name == "default").then(|| ini.section(Some(&profile.name)));
        profile.sections.extend(without.flatten().or(with_word).cloned());
    }
    Ok(profile)
}

/// What a file holds. A thread that nobody waits for reads it: a pipe without a writer, or a file system that hangs,
/// must hold up neither `--timeout` nor the end of the process.
pub(super) async fn contents(path: &str) -> Result<Zeroizing<Vec<u8>>, Unfit> {
    let path = path.to_owned();
    let (done, read) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || done.send(file::raw(Path::new(&path), Trust::Anyone, Limit::bytes(MAX_FILE))));
    read.await.unwrap_or_else(|error| Err(Unfit::new(error.to_string())))
}

impl Profile {
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.sections.iter().find_map(|section| section.get(key)).filter(|value| !value.is_empty())
    }

    /// Its keys.
    pub(super) fn keys(&self) -> Option<Credential> {
        self.sections.iter().find_map(|section| {
            let key = |name| section.get(name).filter(|value| !value.is_empty()).map(str::to_owned);
            Some(Credential {
                access_key_id: key("aws_access_key_id")?,
                secret_access_key: key("aws_secret_access_key")?,
                session_token: key("aws_session_token"),
                expires_in: None,
            })
        })
    }

    /// Why it must not be passed over.
    pub(super) fn check(&self) -> Result<()> {
        let wrong = |why: String, hint: String| Err(self.useless(Error::new(Kind::Proof, why).hint(hint)));
        let name = shown(&self.name);
        let by_command = format!(
            "give another profile the line `credential_process = aws configure export-credentials --profile {name}`, and name that one in AWS_PROFILE"
        );
        if self.get(ROLE).is_some() && self.get("web_identity_token_file").is_some() {
            let hint = "set AWS_ROLE_ARN and AWS_WEB_IDENTITY_TOKEN_FILE in its place";
            return wrong(
                "it has a `web_identity_token_file`, which is not looked at here".to_owned(),
                hint.to_owned(),
            );
        }
        if self.get(ROLE).is_some() {
            return wrong(format!("it has a `{ROLE}`, and no role is assumed here"), by_command);
        }
        if self.keys().is_some() || self.get("credential_process").is_some() {
            return Ok(());
        }
        if let Some(key) =
            ["aws_access_key_id", "aws_secret_access_key"].into_iter().find(|key| self.get(key).is_some())
        {
            let hint = "the key and its secret stand together, in one file";
            return wrong(format!("it has `{key}` without the other half"), hint.to_owned());
        }
        if let Some(key) = SSO.into_iter().find(|key| self.get(key).is_some()) {
            return wrong(format!("it has `{key}`, and nobody logs in here"), by_command);
        }
        match self.named_by {
            None => Ok(()),
            Some(variable) => {
                let why = match self.sections.as_slice() {
                    [] => {
                        "there is no such profile in AWS_SHARED_CREDENTIALS_FILE (~/.aws/credentials) or AWS_CONFIG_FILE (~/.aws/config)"
                    }
                    _ => "it has neither keys nor a `credential_process`",
                };
                let hint = format!(
                    "name another, or unset {variable} for the credentials of the web identity, container or machine"
                );
                wrong(why.to_owned(), hint)
            }
        }
    }

    fn useless(&self, error: Error) -> Error {
        let by = self.named_by.map_or_else(String::new, |variable| format!(" ({variable})"));
        error.context(format!("the profile `{}`{by} gave no AWS credentials", shown(&self.name)))
    }
}
