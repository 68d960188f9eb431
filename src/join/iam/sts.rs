//! Asking AWS whose signature it is.

use std::collections::{HashMap, HashSet};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value};

use super::super::issuers::Unavailable;
use super::super::jwt::strict_object;
use super::super::verify::Failure;
use super::proof::ACTION;
use super::request::StsRequest;
use crate::aws::region::Partition;
use crate::denial::{Denial, Reason};
use crate::net;

/// How long AWS may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// After how many seconds a job tries again where AWS cannot be asked.
const RETRY_AFTER: u64 = 2;
/// The longest answer that is read, in bytes; they are a few hundred long.
const MAX_ANSWER: usize = 16 << 10;
/// Questions that wait for one host at a time. Anybody can make us ask: a host
/// that does not answer, or a flood of made-up signatures, ends here.
const MOST_OF_A_HOST: usize = 16;
/// The same for all hosts that have vouched for nobody yet: a region is easily
/// made up, or one that the network swallows, and such hosts must not take the
/// places of those that answer.
const MOST_OF_ALL: usize = 64;

/// How many questions wait, by host; of all authorities in this process.
static WAITING: LazyLock<Waiting> = LazyLock::new(Waiting::default);

#[derive(Debug, Default)]
struct Waiting(Mutex<Hosts>);

#[derive(Debug, Default)]
struct Hosts {
    /// How many wait.
    places: HashMap<String, usize>,
    /// Those that have vouched for somebody: AWS's real ones, which are few.
    answering: HashSet<String>,
}

/// One place among those that wait.
struct HostSlot<'w> {
    waiting: &'w Waiting,
    host: &'w str,
}

impl Waiting {
    fn hosts(&self) -> MutexGuard<'_, Hosts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter<'w>(&'w self, host: &'w str) -> Option<HostSlot<'w>> {
        let mut hosts = self.hosts();
        let here = hosts.places.get(host).copied().unwrap_or(0);
        let unknown = || hosts.places.iter().filter(|(name, _)| !hosts.answering.contains(*name));
        let crowded = !hosts.answering.contains(host)
            && unknown().map(|(_, count)| count).sum::<usize>() >= MOST_OF_ALL;
        if crowded || here >= MOST_OF_A_HOST {
            return None;
        }
        hosts.places.insert(host.to_owned(), here + 1);
        Some(HostSlot { waiting: self, host })
    }

    /// The host is one that answers.
    fn answers(&self, host: &str) {
        self.hosts().answering.insert(host.to_owned());
    }
}

impl Drop for HostSlot<'_> {
    fn drop(&mut self) {
        let mut hosts = self.waiting.hosts();
        match hosts.places.get_mut(self.host) {
            Some(here) if *here > 1 => *here -= 1,
            _ => drop(hosts.places.remove(self.host)),
        }
    }
}

/// Asks the STS that the request is for, over TLS, with the parts that were
/// checked: what it says of the caller, as claims.
pub(super) async fn ask(
    client: &reqwest::Client,
    request: &StsRequest,
    partition: &Partition,
) -> Result<Map<String, Value>, Failure> {
    let unavailable = |why: String| {
        let why = format!("AWS cannot be asked at {}: {why}", request.host);
        Failure::Unavailable(Unavailable { why, retry_after: RETRY_AFTER })
    };
    let Some(_place) = WAITING.enter(&request.host) else {
        return Err(unavailable("too many wait for it already".to_owned()));
    };
    let answer = tokio::time::timeout(TIMEOUT, send(client, request)).await;
    let answer = answer.unwrap_or_else(|_| Err("no answer in time".to_owned()));
    let (status, body) = answer.map_err(unavailable)?;
    if status == 200 {
        let caller = read(&body, partition)
            .map_err(|why| unavailable(format!("its answer is not one of STS: {why}")))?;
        WAITING.answers(&request.host);
        return Ok(caller);
    }
    let code = error_code(&body);
    // AWS tells with 400 as well that it has no time.
    let busy = ["Throttl", "RequestLimit", "TooMany", "ServiceUnavailable", "Internal"];
    if !matches!(status, 400 | 401 | 403) || busy.iter().any(|word| code.starts_with(word)) {
        // A redirect too: nobody else speaks for AWS.
        return Err(unavailable(format!("status {status} {code}").trim_end().to_owned()));
    }
    let said = format!("AWS does not take it: {status} {code}").trim_end().to_owned();
    Err(Denial::open(Reason::SignatureInvalid, said).with_claims(&request.claims(), false).into())
}

async fn send(client: &reqwest::Client, signed: &StsRequest) -> Result<(u16, Vec<u8>), String> {
    let mut request = client.post(format!("https://{}/", signed.host)).body(ACTION);
    // reqwest writes `host` itself, from the URL of the same host.
    for (name, value) in signed.headers.iter().filter(|(name, _)| *name != "host") {
        let mut value =
            reqwest::header::HeaderValue::from_str(value.expose()).map_err(|error| error.to_string())?;
        value.set_sensitive(true);
        request = request.header(*name, value);
    }
    let response = net::send(request).await.map_err(|error| error.to_string())?;
    let status = response.status().as_u16();
    let body = net::body(response, MAX_ANSWER).await.map_err(|error| error.to_string())?;
    Ok((status, body))
}

/// `Code` of an error, where it is a word.
fn error_code(body: &[u8]) -> String {
    let error = strict_object(body).ok();
    let code = error.as_ref().and_then(|object| object.get("Error")?.get("Code")?.as_str());
    let word = |code: &&str| code.len() <= 64 && code.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.');
    code.filter(word).unwrap_or_default().to_owned()
}

fn read(body: &[u8], partition: &Partition) -> Result<Map<String, Value>, String> {
    // The parser's words stay out of logs that others read.
    let answer = strict_object(body).map_err(|_| "not a JSON object without duplicate members")?;
    let result = answer
        .get("GetCallerIdentityResponse")
        .and_then(|response| response.get("GetCallerIdentityResult")?.as_object())
        .ok_or("no GetCallerIdentityResult")?;
    let text = |name: &str| result.get(name).and_then(Value::as_str);
    let (Some(account), Some(arn), Some(user_id)) = (text("Account"), text("Arn"), text("UserId")) else {
        return Err("Account, Arn and UserId are not all there".to_owned());
    };
    check_arn(arn, account, partition)?;
    if user_id.is_empty() || user_id.len() > 256 || !user_id.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("the UserId is not one".to_owned());
    }
    let claims = [("aws_account", account), ("aws_arn", arn), ("aws_user_id", user_id)];
    Ok(claims.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect())
}

/// An account's number.
pub(super) fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit())
}

/// The ARN of a caller, `arn:PARTITION:sts::ACCOUNT:assumed-role/ROLE/SESSION`
/// or a user's, must be of that account.
pub(super) fn check_arn(arn: &str, account: &str, partition: &Partition) -> Result<(), String> {
    if !is_account(account) {
        return Err("the account is not twelve digits".to_owned());
    }
    let Some((service, _, resource)) = split_arn(arn, partition).filter(|(_, of, _)| *of == account) else {
        return Err(format!("the ARN is not one of the account in the partition {}", partition.name));
    };
    let named = match (service, resource.split_once('/')) {
        ("sts", Some(("assumed-role" | "federated-user", name))) | ("iam", Some(("user", name))) => name,
        ("iam", None) if resource == "root" => resource,
        _ => "",
    };
    if named.is_empty() || arn.len() > 2048 || !named.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("the ARN is neither a user's nor a session's".to_owned());
    }
    Ok(())
}

/// Service, account and resource of an ARN of the partition, as far as it goes.
pub(super) fn split_arn<'a>(arn: &'a str, partition: &Partition) -> Option<(&'a str, &'a str, &'a str)> {
    let rest = arn.strip_prefix("arn:")?.strip_prefix(partition.name)?.strip_prefix(':')?;
    let (service, rest) = rest.split_once("::")?;
    let (account, resource) = rest.split_once(':')?;
    (matches!(service, "sts" | "iam") && is_account(account)).then_some((service, account, resource))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::region::PARTITIONS;

    fn answer(account: &str, arn: &str) -> String {
        format!(
            r#"{{"GetCallerIdentityResponse":{{"GetCallerIdentityResult":{{"Account":"{account}","Arn":"{arn}","UserId":"AROA:x"}},"ResponseMetadata":{{"RequestId":"1"}}}}}}"#
        )
    }

    #[test]
    fn answers_are_read_strictly() {
        let account = "123456789012";
        for resource in [
            "sts::123456789012:assumed-role/deploy/i-0123",
            "sts::123456789012:federated-user/x",
            "iam::123456789012:user/ci/deployer",
            "iam::123456789012:root",
        ] {
            let arn = format!("arn:aws:{resource}");
            assert_eq!(read(answer(account, &arn).as_bytes(), &PARTITIONS[0]).unwrap()["aws_arn"], arn);
            let elsewhere = format!("arn:aws-cn:{resource}");
            assert!(read(answer(account, &elsewhere).as_bytes(), &PARTITIONS[0]).is_err());
            assert!(read(answer(account, &elsewhere).as_bytes(), &PARTITIONS[1]).is_ok());
        }
        let good = "arn:aws:sts::123456789012:assumed-role/a/b";
        for (account, arn) in [
            ("210987654321", good),
            ("12345678901", good),
            ("12345678901x", "arn:aws:sts::12345678901x:assumed-role/a/b"),
            (account, ""),
            (account, "arn:aws:sts::123456789012:"),
            (account, "arn:aws:sts::123456789012:assumed-role/"),
            (account, "arn:aws:iam::123456789012:role/a"),
            (account, "arn:aws:iam::123456789012:group/a"),
            (account, "arn:aws:sts::123456789012:assumed-role/a b"),
            (account, r"arn:aws:sts::123456789012:assumed-role/a\n/b"),
            (account, "arn:aws:sts:us-east-1:123456789012:assumed-role/a/b"),
            (account, "ARN:aws:sts::123456789012:assumed-role/a/b"),
        ] {
            assert!(read(answer(account, arn).as_bytes(), &PARTITIONS[0]).is_err(), "{account} {arn}");
        }
        for bad in ["", "{}", "[]", "<GetCallerIdentityResponse/>", r#"{"GetCallerIdentityResponse":[]}"#] {
            assert!(read(bad.as_bytes(), &PARTITIONS[0]).is_err(), "{bad}");
        }
        let twice = answer(account, good).replace(r#""Arn""#, r#""Account":"210987654321","Arn""#);
        assert!(read(twice.as_bytes(), &PARTITIONS[0]).is_err());
    }

    #[test]
    fn a_host_that_is_slow_takes_no_more_than_its_places() {
        let waiting = Waiting::default();
        let slow: Vec<_> = (0..MOST_OF_A_HOST).map(|_| waiting.enter("slow").unwrap()).collect();
        assert!(waiting.enter("slow").is_none());
        let others: Vec<String> = (0..MOST_OF_ALL).map(|n| n.to_string()).collect();
        let held: Vec<_> = others.iter().filter_map(|host| waiting.enter(host)).collect();
        assert_eq!(held.len(), MOST_OF_ALL - MOST_OF_A_HOST);
        drop((slow, held));
        assert!(waiting.0.lock().unwrap().places.is_empty());
    }

    #[test]
    fn made_up_regions_take_no_place_of_those_that_answer() {
        let waiting = Waiting::default();
        waiting.answers("sts.eu-west-1.amazonaws.com");
        let hosts: Vec<String> = (0..MOST_OF_ALL).map(|n| n.to_string()).collect();
        let made_up: Vec<_> = hosts.iter().map(|host| waiting.enter(host).unwrap()).collect();
        assert!(waiting.enter("sts.eu-south-9.amazonaws.com").is_none());
        let real: Vec<_> =
            (0..MOST_OF_A_HOST).map(|_| waiting.enter("sts.eu-west-1.amazonaws.com").unwrap()).collect();
        assert!(waiting.enter("sts.eu-west-1.amazonaws.com").is_none());
        drop((made_up, real));
        assert!(waiting.0.lock().unwrap().places.is_empty());
    }

    #[test]
    fn only_words_of_an_error_are_told() {
        assert_eq!(error_code(br#"{"Error":{"Code":"ExpiredToken","Message":"x"}}"#), "ExpiredToken");
        for bad in [r#"{"Error":{"Code":"<b>"}}"#, "<Error/>", r#"{"Error":"x"}"#, ""] {
            assert_eq!(error_code(bad.as_bytes()), "");
        }
    }
}
