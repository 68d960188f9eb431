//! Which hosts are AWS's STS, and of which region and partition.

/// A part of AWS with accounts, ARNs and names of its own: an account number
/// in one says nothing about the same number in another.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Partition {
    /// Its name in ARNs.
    pub(super) name: &'static str,
    /// What its hosts end in.
    suffix: &'static str,
    /// What its regions begin with; nothing where they begin like no other's.
    prefix: &'static str,
}

/// AWS's own host without a region, and the region that it signs for.
pub(super) const GLOBAL: [&str; 2] = ["sts.amazonaws.com", "us-east-1"];

/// Every partition that is accepted. The first is AWS itself.
pub(super) static PARTITIONS: [Partition; 4] = [
    Partition { name: "aws", suffix: ".amazonaws.com", prefix: "" },
    Partition { name: "aws-cn", suffix: ".amazonaws.com.cn", prefix: "cn-" },
    Partition { name: "aws-us-gov", suffix: ".amazonaws.com", prefix: "us-gov-" },
    Partition { name: "aws-eusc", suffix: ".amazonaws.eu", prefix: "eusc-" },
];

impl Partition {
    /// The one that a region is of; the first has those that begin like no other's.
    fn of_region(region: &str) -> Option<&'static Self> {
        // Isolated partitions, whose hosts end otherwise.
        let isolated = ["us-iso", "eu-iso"].iter().any(|prefix| region.starts_with(prefix));
        let partition = PARTITIONS.iter().rev().find(|partition| region.starts_with(partition.prefix));
        partition.filter(|_| is_region(region) && !isolated)
    }

    /// The region that the STS at `host` signs for, if it is one of this
    /// partition: `sts.REGION.SUFFIX`, `sts-fips.REGION.SUFFIX`, or the one
    /// without a region. Compared as text, so that no two readers of a URL can differ.
    pub(super) fn region_of<'h>(&self, host: &'h str) -> Option<&'h str> {
        let [global, region] = GLOBAL;
        if self.prefix.is_empty() && host == global {
            return Some(region);
        }
        let region = host.strip_prefix("sts.").or_else(|| host.strip_prefix("sts-fips."))?;
        region.strip_suffix(self.suffix).filter(|region| Self::of_region(region) == Some(self))
    }
}

/// The regions of AWS itself whose STS has an endpoint with FIPS 140.
pub(super) const WITH_FIPS: [&str; 4] = ["us-east-1", "us-east-2", "us-west-1", "us-west-2"];

/// The STS of a region, as the SDKs call it.
pub(super) fn host_of(region: &str) -> Option<String> {
    Partition::of_region(region).map(|partition| format!("sts.{region}{}", partition.suffix))
}

/// The same with FIPS 140, where there is one; all of GovCloud is.
pub(super) fn fips_host_of(region: &str) -> Option<String> {
    let usual = host_of(region)?;
    match region {
        _ if WITH_FIPS.contains(&region) => Some(usual.replacen("sts.", "sts-fips.", 1)),
        _ if region.starts_with("us-gov-") => Some(usual),
        _ => None,
    }
}

/// `eu-west-1`, `us-gov-east-1`: words of letters and a number. Not
/// `s3-us-west-2`: hosts below that are anybody's buckets, one of them perhaps `sts`.
fn is_region(text: &str) -> bool {
    let words: Vec<&str> = text.split('-').collect();
    let letters = |word: &&str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase());
    let [first, middle @ .., number] = words.as_slice() else { return false };
    (first.len() == 2 || *first == "eusc")
        && letters(first)
        && (1..=2).contains(&middle.len())
        && middle.iter().all(|word| letters(word) && word.len() <= 16)
        && (1..=2).contains(&number.len())
        && number.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(partition: &str, host: &'static str) -> Option<&'static str> {
        PARTITIONS.iter().find(|one| one.name == partition).unwrap().region_of(host)
    }

    #[test]
    fn hosts_of_sts_and_no_others() {
        for (partition, host, expected) in [
            ("aws", "sts.amazonaws.com", "us-east-1"),
            ("aws", "sts.eu-central-1.amazonaws.com", "eu-central-1"),
            ("aws", "sts-fips.us-east-2.amazonaws.com", "us-east-2"),
            ("aws", "sts.ap-southeast-12.amazonaws.com", "ap-southeast-12"),
            ("aws-cn", "sts.cn-north-1.amazonaws.com.cn", "cn-north-1"),
            ("aws-us-gov", "sts.us-gov-west-1.amazonaws.com", "us-gov-west-1"),
            ("aws-eusc", "sts.eusc-de-east-1.amazonaws.eu", "eusc-de-east-1"),
        ] {
            assert_eq!(region(partition, host), Some(expected), "{host}");
            assert_eq!(
                PARTITIONS.iter().filter(|partition| partition.region_of(host).is_some()).count(),
                1,
                "{host}"
            );
        }
        for host in [
            "",
            "amazonaws.com",
            "sts.amazonaws.com.",
            "sts.amazonaws.com.cn",
            "STS.amazonaws.com",
            "sts.amazonaws.com:443",
            "x@sts.amazonaws.com",
            "sts.amazonaws.com.evil.example",
            "sts.us-east-1.evil.com",
            "sts..amazonaws.com",
            "sts.us-east-1..amazonaws.com",
            "sts.us-east.amazonaws.com",
            "sts.us-east-.amazonaws.com",
            "sts.us-east-1a.amazonaws.com",
            "sts.us-east-123.amazonaws.com",
            "sts.u%73-east-1.amazonaws.com",
            "sts.us-ea\u{17f}t-1.amazonaws.com",
            // Buckets and instances, which anybody can have.
            "sts.s3.amazonaws.com",
            "sts.s3-us-west-2.amazonaws.com",
            "sts.s3-website-us-east-1.amazonaws.com",
            "sts.x.s3.us-east-1.amazonaws.com",
            "sts.compute-1.amazonaws.com",
            "sts.us-iso-east-1.amazonaws.com",
            "xsts.us-east-1.amazonaws.com",
            "iam.amazonaws.com",
        ] {
            assert!(PARTITIONS.iter().all(|partition| partition.region_of(host).is_none()), "{host}");
        }
    }

    #[test]
    fn the_client_signs_for_hosts_that_are_accepted() {
        for (region, made, host) in [
            ("eu-west-1", host_of("eu-west-1"), "sts.eu-west-1.amazonaws.com"),
            ("cn-northwest-1", host_of("cn-northwest-1"), "sts.cn-northwest-1.amazonaws.com.cn"),
            ("us-east-2", fips_host_of("us-east-2"), "sts-fips.us-east-2.amazonaws.com"),
            // As AWS has it: no `sts-fips` there.
            ("us-gov-east-1", fips_host_of("us-gov-east-1"), "sts.us-gov-east-1.amazonaws.com"),
        ] {
            let made = made.unwrap();
            assert_eq!(made, host);
            assert!(PARTITIONS.iter().any(|partition| partition.region_of(&made) == Some(region)));
        }
        for bad in ["", "x", "us-east-1.evil.com/", "aws-global", "us-iso-east-1"] {
            assert_eq!((host_of(bad), fips_host_of(bad)), (None, None), "{bad}");
        }
        for without in ["eu-central-1", "ca-central-1", "cn-north-1", "eusc-de-east-1"] {
            assert_eq!(fips_host_of(without), None, "{without}");
        }
    }
}
