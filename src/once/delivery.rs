//! From an answer to files: the destinations of a run, their manifests and contents.

use std::path::Path;

use crate::destination::clusters::{self, Cluster};
use crate::destination::directory::Directory;
use crate::destination::manifest::{self, Manifest, ManifestOutput};
use crate::destination::material::{File, Material, SshMaterial, TlsMaterial, WrittenOutput};
use crate::destination::ssh::REVOKED_HOSTS;
use crate::destination::{self, AGENT_SOCKET, wipe};
use crate::error::{Error, Result};
use crate::once::delivery::agent::Agent;
use crate::once::delivery::bash_env::BashEnv;
use crate::once::delivery::ci::JobReport;
use crate::once::exchange::keys::{JobKeys, SshKey, TlsKey};
use crate::once::exchange::{Granted, Obtained};
use crate::once::revoke::Stored;
use crate::once::run::Run;
use crate::once::settings::Settings;
use crate::once::settings::destinations::{self, Destination};
use crate::once::settings::output::Output;
use crate::secret::Secret;
use crate::text::shown;
use crate::wire::OutputResponse;

mod agent;
pub(crate) mod bash_env;
pub(crate) mod ci;

/// The destinations, open; wiped when this value goes, unless they are kept.
pub(crate) struct OpenDestinations {
    /// Ends first, so that nothing is signed while the rest is wiped.
    agent: Option<Agent>,
    directories: Vec<Directory>,
    /// What the first one has for COMMAND's shells.
    bash_env: Option<BashEnv>,
}

/// The files of a destination, by folder.
type Folders = Vec<(String, Vec<File>)>;

impl OpenDestinations {
    /// Opens or creates each; where one cannot be, those that were created are removed again.
    pub(crate) fn prepare(destinations: &[Destination]) -> Result<Self> {
        let prepared = destinations.iter().map(|destination| Directory::prepare(&destination.path));
        Ok(Self { agent: None, directories: prepared.collect::<Result<_>>()?, bash_env: None })
    }

    /// The issuances that stand where something is about to be written, each
    /// once; not one that another destination still holds.
    pub(crate) fn replaced(&self) -> Vec<(Manifest, Stored)> {
        let mut all: Vec<(Manifest, Stored)> = Vec::new();
        for found in self.directories.iter().filter_map(|directory| directory.earlier.as_ref()) {
            let id = &found.manifest.issuance_id;
            let is_ours = |path: &Path| self.directories.iter().any(|directory| directory.path() == path);
            let is_held = |path: &Path| {
                wipe::find(path)
                    .is_ok_and(|other| other.is_some_and(|other| other.manifest.issuance_id == *id))
            };
            let mut elsewhere = found.manifest.also.iter().map(Path::new).filter(|path| path.is_absolute());
            if elsewhere.any(|path| !is_ours(path) && is_held(path)) {
                continue;
            }
            match all.iter_mut().find(|(manifest, _)| manifest.issuance_id == *id) {
                Some((_, stored)) => stored.add(found),
                None => all.push((found.manifest.clone(), Stored::of(found))),
            }
        }
        all.retain(|(_, stored)| !stored.is_empty());
        all
    }

    /// Writes an issuance, starts the agent where one is wanted, and returns
    /// the manifests. To be called inside a runtime.
    pub(crate) fn write(&mut self, run: Run<'_>, obtained: &Obtained) -> Result<Vec<Manifest>> {
        let (manifests, mut folders) = self.contents(run, obtained)?;
        unlisted(&manifests).iter().for_each(|warning| run.progress.warning(warning));
        let first = run.settings.destinations.first().zip(folders.first_mut());
        if let Some((destination, folders)) = first.filter(|_| has_bash_env(run)) {
            let variables = report(run.settings, &manifests).variables;
            self.bash_env = BashEnv::new(run.env, &destination.path, &variables)?;
            folders.extend(self.bash_env.iter().map(|bash_env| (String::new(), vec![bash_env.file()])));
        }
        for (directory, (manifest, folders)) in
            self.directories.iter_mut().zip(manifests.iter().zip(&folders))
        {
            directory.write(manifest, folders)?;
        }
        // Behind the manifest, by which `cleanup` finds the socket.
        if let Some(socket) = &run.settings.agent {
            let agent = self.agent.insert(Agent::listen(Path::new(socket))?);
            let (keys, answers) = obtained.issued(run.keys);
            agent.hold(&keys, &answers);
        }
        Ok(manifests)
    }

    /// Replaces the certificates by those of another issuance for the same keys.
    pub(crate) fn renew(&mut self, run: Run<'_>, obtained: &Obtained) -> Result<()> {
        if let Some(agent) = &self.agent {
            let (keys, answers) = obtained.issued(run.keys);
            agent.hold(&keys, &answers);
        }
        let (manifests, folders) = self.contents(run, obtained)?;
        for (directory, (manifest, folders)) in
            self.directories.iter_mut().zip(manifests.iter().zip(&folders))
        {
            directory.renew(manifest, folders)?;
        }
        Ok(())
    }

    fn contents(&self, run: Run<'_>, obtained: &Obtained) -> Result<(Vec<Manifest>, Vec<Folders>)> {
        let Run { settings, keys, .. } = run;
        let mut all = Vec::new();
        for (destination, directory) in settings.destinations.iter().zip(&self.directories) {
            let mut manifest = empty_manifest(settings, destination, obtained);
            manifest.keep_directory = directory.stays;
            let mut folders = Vec::new();
            let at_top = top_files(settings, destination, obtained);
            for output in &destination.outputs {
                let Some((granted, answer)) = obtained.of(&output.name) else {
                    continue;
                };
                let keys = keys.iter().find(|keys| keys.output == output.name);
                let keys = keys.ok_or_else(|| Error::internal("an output without keys"))?;
                let (folder, path) = (destination.folder(output), destination.folder_path(output));
                let mut files = files(settings, &path, output, keys, answer, granted)?;
                // One that is alone stands where those for all clusters do.
                files.retain(|file| !folder.is_empty() || at_top.iter().all(|top| top.name != file.name));
                manifest.outputs.push(output_entry(output, answer, granted, &folder, &files));
                folders.push((folder, files));
            }
            manifest.files.extend(at_top.iter().map(|file| file.name.clone().into_owned()));
            folders.extend((!at_top.is_empty()).then(|| (String::new(), at_top)));
            all.push((manifest, folders));
        }
        // What is wiped is what a manifest names.
        if let Some((first, _)) = all.first_mut() {
            first.files.extend(has_bash_env(run).then(|| destination::BASH_ENV.to_owned()));
            let of_agent = settings.agent.as_ref().map(|_| AGENT_SOCKET.to_owned());
            first.outputs.first_mut().map_or(&mut first.files, |output| &mut output.files).extend(of_agent);
        }
        Ok(all.into_iter().unzip())
    }

    /// `$BASH_ENV` for COMMAND, where there was one.
    pub(crate) fn bash_env(&self) -> Option<&Path> {
        self.bash_env.as_ref().map(BashEnv::path)
    }

    /// Leaves everything where it is.
    pub(crate) fn keep(self) {
        self.directories.into_iter().for_each(Directory::keep);
    }

    /// Wipes everything now; says what could not be removed or carried over.
    pub(crate) fn wipe(self) -> Result<(), String> {
        drop(self.agent);
        let carried = self.bash_env.map_or(Ok(()), |bash_env| {
            bash_env.carry_over().map_err(|why| format!("what was added to $BASH_ENV is lost: {why}"))
        });
        let wipe = |directory: Directory| {
            let path = directory.path().to_owned();
            directory.wipe().map_err(|left| format!("{}: {left}", path.display()))
        };
        let all = self.directories.into_iter().map(wipe).chain([carried]);
        let left: Vec<String> = all.filter_map(Result::err).collect();
        if left.is_empty() { Ok(()) } else { Err(left.join("; ")) }
    }
}

/// Whether COMMAND has a `$BASH_ENV` that ours is to stand for.
fn has_bash_env(Run { settings, env, .. }: Run<'_>) -> bool {
    let name = bash_env::VARIABLE;
    !settings.command.is_empty() && env.get(name).is_some() && settings.inherited.has(name.as_ref())
}

fn empty_manifest(settings: &Settings, destination: &Destination, obtained: &Obtained) -> Manifest {
    let response = &obtained.root.issuance.response;
    let is_here = |name: &String| destination.outputs.iter().any(|output| output.name == *name);
    let others = settings.destinations.iter().filter(|other| other.path != destination.path);
    Manifest {
        format: manifest::FORMAT.to_owned(),
        destination: text(&destination.path),
        authority: settings.authority.clone(),
        ca_file: settings.trust.ca_file.as_deref().map(text),
        ca_pin: settings.trust.ca_pin.clone(),
        cluster: response.cluster.clone(),
        bot: response.bot.clone(),
        join_method: settings.method.name.to_owned(),
        token: settings.token.clone(),
        issuance_id: response.issuance_id.clone(),
        expires_at: obtained.expires_at().1.to_owned(),
        outputs: Vec::new(),
        missing: obtained.missing.iter().filter(|missing| is_here(&missing.name)).cloned().collect(),
        files: Vec::new(),
        also: others.map(|other| text(&other.path)).collect(),
        earlier: settings.earlier.clone(),
        keep_directory: false,
    }
}

/// `ssh_config` and `known_hosts` for all clusters, where some of the SSH certificates are a leaf cluster's.
fn top_files(settings: &Settings, destination: &Destination, obtained: &Obtained) -> Vec<File> {
    let of = |output: &Output| {
        let (granted, answer) = obtained.of(&output.name).filter(|_| output.kind.declaration.keys.ssh)?;
        answer.ssh_certificate.is_some().then(|| (granted, destination.folder_path(output)))
    };
    let with_ssh: Vec<(&Granted, String)> = destination.outputs.iter().filter_map(of).collect();
    if !destination.outputs.iter().any(|output| output.at.is_some() && output.kind.declaration.keys.ssh) {
        return Vec::new();
    }
    let cluster = |granted: &'_ Granted| {
        let folders = with_ssh.iter().filter(|(it, _)| it.place.leaf == granted.place.leaf);
        folders.map(|(_, folder)| folder.clone()).collect::<Vec<_>>()
    };
    let clusters = obtained.all().map(|granted| Cluster {
        folders: cluster(granted),
        hosts: &granted.hosts,
        trust: &granted.issuance.response.trust,
        has_list: granted.issuance.revoked_hosts.is_some(),
    });
    let clusters: Vec<_> = clusters.filter(|cluster| !cluster.folders.is_empty()).collect();
    clusters::ssh_files(&text(&destination.path), &clusters, settings.agent.as_deref())
}

fn output_entry(
    output: &Output,
    answer: &OutputResponse,
    granted: &Granted,
    folder: &str,
    files: &[File],
) -> ManifestOutput {
    let response = &granted.issuance.response;
    let path = |file: &File| {
        if folder.is_empty() { file.name.clone().into_owned() } else { format!("{folder}/{}", file.name) }
    };
    ManifestOutput {
        name: output.name.clone(),
        kind: output.kind.declaration.name.to_owned(),
        files: files.iter().map(path).collect(),
        cluster: response.cluster.clone(),
        issuance_id: response.issuance_id.clone(),
        authority: granted.place.url.clone(),
        ca_pin: granted.place.leaf.as_ref().and(granted.place.trust.ca_pin.clone()),
        options: output.options.clone(),
        serial: answer.serial.clone(),
        tls_serial: answer.tls_serial.clone(),
        principals: answer.principals.clone(),
        roles: answer.roles.clone(),
    }
}

fn files(
    settings: &Settings,
    folder: &str,
    output: &Output,
    keys: &JobKeys,
    answer: &OutputResponse,
    granted: &Granted,
) -> Result<Vec<File>> {
    let issuance = &granted.issuance;
    let private = keys.ssh.as_ref().map_or(Ok(None), SshKey::openssh)?;
    let tls_key = keys.tls.as_ref().map(TlsKey::pem);
    let ssh = keys.ssh.as_ref().zip(answer.ssh_certificate.as_deref());
    (output.kind.files)(&Material {
        folder,
        ssh: ssh.map(|(key, certificate)| SshMaterial {
            private_key: private.as_ref().map(|key| key.as_str()),
            public_key: &key.public_line,
            certificate,
        }),
        tls: tls_key
            .as_ref()
            .zip(answer.tls_certificate_chain.as_deref())
            .map(|(key, chain)| TlsMaterial { private_key: key, chain }),
        jwt: answer.jwt.as_ref().map(Secret::expose),
        options: &output.options,
        files: &output.files,
        subject: answer.principals.first().map(String::as_str),
        trust: &issuance.response.trust,
        hosts: &granted.hosts,
        leaf: granted.place.leaf.as_deref(),
        revoked_hosts: issuance.revoked_hosts.as_deref(),
        agent: settings.agent.as_deref(),
    })
}

/// That somewhere no `ssh` hears of hosts that were thrown out.
fn unlisted(manifests: &[Manifest]) -> Option<String> {
    let has_list = |manifest: &&Manifest| {
        let mut files = manifest.outputs.iter().flat_map(|output| &output.files);
        manifest.destination.contains('%') && files.any(|file| file.ends_with(REVOKED_HOSTS))
    };
    let destination = shown(&manifests.iter().find(has_list)?.destination);
    Some(format!(
        "no ssh_config can name the list of revoked hosts in {destination}: there `ssh` believes hosts that were thrown \
         out; choose a destination without % in its path"
    ))
}

/// Settings take UTF-8 paths alone.
fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// What COMMAND, later steps and the CI system are told.
pub(crate) fn report(settings: &Settings, manifests: &[Manifest]) -> JobReport {
    let Some(first) = manifests.first() else {
        return JobReport::default();
    };
    let paths: Vec<String> = manifests
        .iter()
        .flat_map(|manifest| {
            // The one for all clusters is before that of an output.
            let files = manifest.files.iter().chain(manifest.outputs.iter().flat_map(|output| &output.files));
            files.map(|file| format!("{}/{file}", manifest.destination))
        })
        .collect();
    let path_of = |name| paths.iter().find(|path| path.rsplit('/').next() == Some(name)).cloned();
    // Without an output `identity`, the SSH key is what a client is pointed at;
    // its public half, where an agent has the other.
    let identity = ["identity", "key", "key.pub"].into_iter().find_map(path_of).unwrap_or_default();
    let mut outputs = vec![("destination", first.destination.clone()), ("identity-file", identity.clone())];
    outputs.extend(path_of("ssh_config").map(|path| ("ssh-config", path)));
    outputs.push(("expires-at", first.expires_at.clone()));
    outputs.push(("issuance-id", first.issuance_id.clone()));
    let mut variables = vec![
        (destinations::VARIABLE, first.destination.clone()),
        ("MACHINE_ID_IDENTITY_FILE", identity),
        (destinations::EXPIRES_AT, first.expires_at.clone()),
    ];
    for (destination, manifest) in settings.destinations.iter().zip(manifests) {
        for written in &manifest.outputs {
            let Some(output) = destination.outputs.iter().find(|output| output.name == written.name) else {
                continue;
            };
            let own = (output.kind.variables)(&WrittenOutput {
                folder: &destination.folder_path(output),
                options: &output.options,
                subject: written.principals.first().map(String::as_str),
            });
            // All of an output's or none: the user of one with the database of
            // another would be neither's. The first one has them.
            if !own.iter().any(|(name, _)| variables.iter().any(|(taken, _)| taken == name)) {
                variables.extend(own);
            }
        }
    }
    variables.extend(settings.agent.iter().map(|socket| ("SSH_AUTH_SOCK", socket.clone())));
    JobReport { outputs, variables, summary: summary(manifests, first) }
}

fn summary(manifests: &[Manifest], first: &Manifest) -> Vec<(&'static str, String)> {
    let name = |output: &ManifestOutput| match output.principals.is_empty() {
        true => output.name.clone(),
        false => format!("{} ({})", output.name, output.principals.join(", ")),
    };
    let outputs: Vec<String> = manifests.iter().flat_map(|manifest| &manifest.outputs).map(name).collect();
    let missing = manifests.iter().flat_map(|manifest| &manifest.missing);
    let missing: Vec<String> = missing.map(|it| format!("{}: {}", it.name, it.reason)).collect();
    let missing = Some(("missing", missing.join("; "))).filter(|(_, missing)| !missing.is_empty());
    let mut rows = vec![("bot", first.bot.clone()), ("outputs", outputs.join("; "))];
    rows.extend(missing);
    rows.extend([
        ("valid until", first.expires_at.clone()),
        ("issuance", first.issuance_id.clone()),
        ("authority", first.authority.clone()),
    ]);
    rows
}

/// The result in one line, for people.
pub(crate) fn summary_line(manifest: &Manifest) -> String {
    let principals = manifest.outputs.iter().flat_map(|output| &output.principals);
    let mut principals: Vec<&str> = principals.map(String::as_str).collect();
    principals.dedup();
    let logins = Some(shown(&principals.join(", "))).filter(|logins| !logins.is_empty());
    let logins = logins.map_or_else(String::new, |logins| format!(" for {logins}"));
    let (bot, end) = (shown(&manifest.bot), shown(&manifest.expires_at));
    format!("certificates of bot {bot}{logins}, valid until {end}")
}
