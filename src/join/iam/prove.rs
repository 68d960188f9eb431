//! The client's half: a request to STS, signed with credentials from where the AWS SDKs find them.

use std::collections::HashMap;
use std::time::Duration;

use http::{Request, header};

use super::super::prove::{Job, Presented};
use super::endpoint;
use super::proof::{ACTION, ACTION_HASH, AUDIENCE_HEADER, FIELD, MAX_AGE};
use crate::aws::{self, Seeker};
use crate::error::{Context as _, Error, Kind, Result};
use crate::secret::Secret;
use crate::text::shown;
use crate::wire::Proof;

/// What a job without credentials can do outside AWS.
const OUTSIDE: &str = "outside AWS, choose another --join-method, or give the job credentials as for the `aws` command: `aws sts get-caller-identity` must work";

/// Signs `GetCallerIdentity` for the authority and the job's keys.
pub(super) async fn sign(job: &Job<'_>) -> Result<Presented> {
    let Job { env, platform, say, warn, .. } = *job;
    let seeker = Seeker { who: "this job", outside: OUTSIDE, env, platform, say, warn };
    let credentials = aws::find(&seeker).await?;
    let (host, region) = sts(credentials.region.clone(), env.is_true("AWS_USE_FIPS_ENDPOINT"))?;
    say(&format!("signing a request to {host} with the AWS credentials of {}", credentials.place));
    let url = format!("https://{host}/");
    let request = Request::post(&url)
        .header(header::ACCEPT, "application/json")
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header("x-amz-content-sha256", ACTION_HASH)
        .header(AUDIENCE_HEADER, job.audience)
        .body(())
        .context(Kind::Internal, "cannot make the request to sign")?;
    let (mut parts, ()) = request.into_parts();
    credentials.sign("sts", &region, &mut parts).await?;
    let headers: HashMap<&str, &str> = parts
        .headers
        .iter()
        .filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)))
        .collect();
    // Not through `serde_json::Value`, which would leave copies of the session token behind.
    #[derive(serde::Serialize)]
    struct SignedRequest<'s> {
        method: &'s str,
        url: &'s str,
        headers: HashMap<&'s str, &'s str>,
        body: &'s str,
    }
    let signed = SignedRequest { method: "POST", url: &url, headers, body: ACTION };
    let text = serde_json::to_string(&signed).context(Kind::Internal, "cannot write the signed request")?;
    let lasts = u64::try_from(MAX_AGE).ok().map(Duration::from_secs);
    Ok(Presented { lasts, ..Proof([(FIELD.to_owned(), Secret::new(text))].into()).into() })
}

/// The STS that is to be asked, and the region that it signs for.
fn sts(region: Option<String>, fips: bool) -> Result<(String, String)> {
    let wrong = |what: String, hint: &str| Error::new(Kind::Proof, what).hint(hint);
    match region {
        None if fips => Err(wrong(
            "AWS_USE_FIPS_ENDPOINT is set, and no region, which FIPS endpoints have".to_owned(),
            &format!("set AWS_REGION to one that has such an STS: {}", endpoint::WITH_FIPS.join(", ")),
        )),
        None => Ok(endpoint::GLOBAL.map(str::to_owned).into()),
        Some(region) => {
            let Some(usual) = endpoint::host_of(&region) else {
                let what = format!("`{}` is no AWS region that has a known STS", shown(&region));
                return Err(wrong(what, "set AWS_REGION, for example to eu-west-1"));
            };
            let host = if fips { endpoint::fips_host_of(&region) } else { Some(usual) };
            let host = host.ok_or_else(|| {
                let hint = "unset AWS_USE_FIPS_ENDPOINT for `machine-id`, or set AWS_REGION for it to a region that has one";
                let what = format!("AWS_USE_FIPS_ENDPOINT is set, and AWS has no FIPS endpoint of STS in {region}");
                wrong(what, &format!("{hint}: {}", endpoint::WITH_FIPS.join(", ")))
            })?;
            Ok((host, region))
        }
    }
}
