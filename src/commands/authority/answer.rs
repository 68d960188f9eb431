//! "Would this job get in?", from claims that nobody verified: each rule's
//! conditions with what was got and wanted, then what the job would have.

use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::authority::policy::{
    JoinToken, MapTrial, OutputGrant, Policy, PolicyRequest, Preview, RuleTrial, Trial,
};
use crate::cli::authority::Check;
use crate::denial::{Denial, Reason};
use crate::document::parse_duration;
use crate::error::{Error, Kind, Result};
use crate::folder::read::{self, Limit};
use crate::join::jwt::{self, Jwt};
use crate::once::settings::output::{RawOutput, parse_output};
use crate::output::{self, UsedBy};
use crate::text::{did_you_mean, shown, shown_exactly, shown_long};
use crate::wire::{MAX_TOKEN, OutputRequest, PASSPORT, SshRequest, TlsRequest};

/// What an answer from claims alone leaves out.
const NOT_JUDGED: &str =
    "not judged: the proof's signature, audience, key binding and time, and whether it was used before";

/// And where workers register.
const NOT_JUDGED_EITHER: &str = "nor whether such a worker is registered, and not locked";

/// And where another cluster vouches for a job.
const NOT_JUDGED_OF_GRANT: &str = "nor for how long its own cluster grants it anything";

pub(super) struct Answer {
    token: String,
    noun: &'static str,
    registers: bool,
    is_remote: bool,
    rules: Vec<RuleTrial>,
    denials: Vec<RuleTrial>,
    map: Vec<MapTrial>,
    /// The leaf clusters that it may go to, and the roles that go there.
    leaves: Vec<(String, Vec<String>)>,
    result: Result<Preview, Denial>,
}

/// Asks the policy of the authority at that URL about the claims in `file`, for the join token and outputs of `args`.
pub(super) fn ask(policy: &Policy, file: &Path, args: &Check, public_url: Option<&str>) -> Result<Answer> {
    let (option, noun, name) = match &args.from {
        Some(name) => ("--from", "trusted cluster", name.as_str()),
        None => ("--token", "join token", args.token.as_deref().unwrap_or_default()),
    };
    let token = policy.token(name).filter(|token| token.noun() == noun).ok_or_else(|| {
        let all = policy.tokens().chain(policy.clusters()).filter(|token| token.noun() == noun);
        let mut names: Vec<&str> = all.map(|token| token.name.as_str()).collect();
        names.sort_unstable();
        let error = Error::usage(format!("`{option}`: the policy has no {noun} `{}`", shown_exactly(name)));
        did_you_mean(name, &names).into_iter().fold(error, Error::hint)
    })?;
    let claims = read_claims(file, args.from.is_some().then_some(PASSPORT))?;
    let outputs: Vec<OutputRequest> =
        args.outputs.iter().map(|text| output(text, &args.roles)).collect::<Result<_>>()?;
    let ttl = parse_duration(&args.ttl).map_err(|why| Error::usage(format!("`--ttl`: {why}")))?;
    let ttl_seconds = i64::try_from(ttl).unwrap_or(i64::MAX);
    let mut answer = judge(
        policy,
        token,
        claims,
        &PolicyRequest { outputs: &outputs, leaves: &[], ttl_seconds, public_url },
    );
    let method = token.method.name;
    if let Some(other) = args.join_method.as_deref().filter(|other| *other != method) {
        let detail = format!("the {noun} is for {method}, not for {}", shown_exactly(other));
        answer.rules.clear();
        answer.map.clear();
        answer.result = Err(Denial::new(Reason::MethodMismatch, detail));
    }
    Ok(answer)
}

/// What a policy makes of claims now.
pub(super) fn judge(
    policy: &Policy,
    token: &JoinToken,
    claims: Map<String, Value>,
    asked: &PolicyRequest<'_>,
) -> Answer {
    let (rules, denials) = (Policy::trial(token, &claims), Policy::denials(token, &claims));
    let map = token.map_trial(&claims);
    let result = token.verifier.assume(claims).and_then(|assumed| policy.preview(token, &assumed, asked));
    let names = |roles: Vec<&str>| roles.into_iter().map(str::to_owned).collect();
    let leaves = if token.method.of_cluster { Vec::new() } else { policy.leaves_of(&token.bot) };
    let leaves = leaves.into_iter().map(|(leaf, roles)| (leaf.name.clone(), names(roles))).collect();
    Answer {
        token: token.name.clone(),
        noun: token.noun(),
        registers: token.method.registers,
        is_remote: token.method.of_cluster,
        rules,
        denials,
        map,
        leaves,
        result,
    }
}

/// An output as `once` reads it, `TYPE[,KEY=VALUE…]`, and asks for it: without
/// what the job does with it there. Its keys are never looked at.
pub(super) fn output(text: &str, roles: &[String]) -> Result<OutputRequest> {
    let RawOutput { kind, name, roles: own, mut options, .. } = parse_output(text)?;
    let declared = output::find(&kind);
    let option = |name: &String| declared.and_then(|declared| declared.option(name));
    options.retain(|name, _| option(name).is_none_or(|option| option.used_by == UsedBy::Authority));
    Ok(OutputRequest {
        name: name.unwrap_or_else(|| kind.clone()),
        roles: if own.is_empty() { roles.to_vec() } else { own },
        ssh: declared.filter(|declared| declared.has_ssh()).map(|_| SshRequest { public_key: String::new() }),
        tls: declared.filter(|declared| declared.keys.tls).map(|_| TlsRequest { csr: String::new() }),
        kind,
        options,
    })
}

/// Claims as JSON, or a token whose claims are read, one of that type.
fn read_claims(file: &Path, typ: Option<&str>) -> Result<Map<String, Value>> {
    let text = read::input(file, Limit::bytes(2 * MAX_TOKEN))
        .map_err(|unfit| unfit.error(Kind::Usage, format!("cannot read the claims in {}", file.display())))?;
    let text = text.trim();
    let wrong = |why: String| {
        Error::usage(format!("{} holds neither claims nor a token: {why}", file.display()))
            .hint("give a JSON object of claims, or the token itself")
    };
    if text.starts_with('{') {
        return jwt::strict_object(text.as_bytes()).map_err(|error| wrong(error.to_string()));
    }
    Jwt::parse_as(text, typ).map(|jwt| jwt.claims).map_err(|denial| wrong(denial.detail))
}

impl Answer {
    pub(super) fn is_allowed(&self) -> bool {
        self.result.is_ok()
    }

    /// One line: allowed, or why not.
    pub(super) fn line(&self) -> String {
        match &self.result {
            Ok(preview) => format!("allowed: the job would be bot `{}`", preview.bot),
            Err(denial) => {
                let why = denial.detail.lines().next().unwrap_or_default();
                format!("denied: {}: {}", denial.reason.row().code, shown_long(why))
            }
        }
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let mut page = vec![format!("{} `{}`", self.noun, self.token)];
        let rules = self.rules.iter().map(|rule| (rule, ["lets the job in", "does not"]));
        let denials = self.denials.iter().map(|rule| (rule, ["keeps the job out", "does not"]));
        for (RuleTrial { origin, admits, trials }, [yes, no]) in rules.chain(denials) {
            let verdict = if *admits { yes } else { no };
            page.push(format!("  rule at {origin}: {verdict}"));
            page.extend(trials.iter().map(|Trial { field, got, wanted, met, form }| {
                let mark = if *met { "yes" } else { "no " };
                let form = form.iter().map(|form| format!("\n        {form}")).collect::<String>();
                format!("    {mark} `{field}`: got {got}, wanted {wanted}{form}")
            }));
        }
        page.extend(self.map.iter().map(|MapTrial { origin, remote, local, taken }| {
            let local = local.join(", ");
            match taken.as_slice() {
                [] => format!("  line at {origin}: no role is `{remote}`, which gives {local}"),
                taken => {
                    format!("  line at {origin}: {} is `{remote}`, which gives {local}", taken.join(", "))
                }
            }
        }));
        page.push(self.line());
        for preview in self.result.iter() {
            preview.outputs.iter().for_each(|output| granted(output, &mut page));
            page.extend(self.leaves.iter().map(|(leaf, roles)| {
                format!("  leaf cluster `{leaf}`: vouched for with roles {}", roles.join(", "))
            }));
            page.extend(preview.warnings.iter().map(|warning| format!("  warning: {}", shown_long(warning))));
        }
        page.push(NOT_JUDGED.to_owned());
        page.extend(self.registers.then(|| NOT_JUDGED_EITHER.to_owned()));
        page.extend(self.is_remote.then(|| NOT_JUDGED_OF_GRANT.to_owned()));
        page.join("\n") + "\n"
    }

    /// For programs.
    pub(super) fn json(&self) -> Value {
        let condition = |trial: &Trial| json!({"field": trial.field, "got": trial.got, "wanted": trial.wanted, "met": trial.met});
        let rule = |rule: &RuleTrial| {
            let conditions: Vec<Value> = rule.trials.iter().map(condition).collect();
            json!({"at": rule.origin.to_string(), "admits": rule.admits, "conditions": conditions})
        };
        let output = |output: &OutputGrant| {
            let (ssh, tls) = (output.ssh.as_ref(), output.tls.as_ref());
            json!({
                "name": output.name,
                "type": output.kind,
                "roles": output.roles,
                "ttl_seconds": output.ttl,
                "principals": ssh.map(|ssh| &ssh.principals),
                "extensions": ssh.map(|ssh| &ssh.extensions),
                "common_name": tls.map(|tls| &tls.common_name),
                "organizations": tls.map(|tls| &tls.organizations),
                "audience": output.jwt.as_ref().map(|jwt| &jwt.audience),
            })
        };
        let line = |line: &MapTrial| json!({"at": line.origin.to_string(), "remote": line.remote, "local": line.local, "taken": line.taken});
        let asked = json!({
            "token": self.token,
            "allowed": self.is_allowed(),
            "rules": self.rules.iter().map(rule).collect::<Vec<_>>(),
            "not_judged": ["signature", "audience", "key_binding", "time", "single_use"],
        });
        let mapped = self.is_remote.then(|| {
            json!({
                "denials": self.denials.iter().map(rule).collect::<Vec<_>>(),
                "role_map": self.map.iter().map(line).collect::<Vec<_>>(),
            })
        });
        let answer = match &self.result {
            Ok(preview) => {
                let outputs: Vec<Value> = preview.outputs.iter().map(output).collect();
                let leaf = |(name, roles): &(String, Vec<String>)| json!({"name": name, "roles": roles});
                let leaves: Vec<Value> = self.leaves.iter().map(leaf).collect();
                json!({"bot": preview.bot, "outputs": outputs, "leaves": leaves, "warnings": preview.warnings})
            }
            Err(denial) => json!({"reason": denial.reason.row().code, "detail": denial.detail}),
        };
        let parts = [asked, mapped.unwrap_or_default(), answer];
        let members = parts.iter().filter_map(Value::as_object).flatten();
        members.map(|(name, value)| (name.clone(), value.clone())).collect()
    }
}

/// What an output would hold, line by line.
fn granted(output: &OutputGrant, page: &mut Vec<String>) {
    let ttl = humantime::format_duration(Duration::from_secs(output.ttl));
    page.push(format!("  output `{}`: roles {}, for {ttl}", shown(&output.name), output.roles.join(", ")));
    if let Some(ssh) = &output.ssh {
        page.push(format!("    SSH principals: {}", ssh.principals.join(" ")));
        page.push(format!("    SSH extensions: {}", ssh.extensions.join(" ")));
        page.extend(
            ssh.force_command.iter().map(|command| format!("    SSH command: {}", shown_long(command))),
        );
        page.extend(ssh.pin_source_ip.then(|| "    SSH only from the address that asks".to_owned()));
    }
    if let Some(tls) = &output.tls {
        page.push(format!("    TLS common name: {}", shown(&tls.common_name)));
        if !tls.organizations.is_empty() {
            page.push(format!("    TLS organizations: {}", shown_long(&tls.organizations.join(" "))));
        }
    }
    page.extend(output.jwt.iter().map(|jwt| format!("    token for: {}", shown_long(&jwt.audience))));
}
