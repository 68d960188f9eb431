//! Which hosts are AWS's STS, and of which region and partition.

use crate::aws::region::{self, Partition};

/// AWS's own host without a region, and the region that it signs for.
pub(super) const GLOBAL: [&str; 2] = ["sts.amazonaws.com", "us-east-1"];

/// Of an STS.
impl Partition {
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
    region::host_of("sts", region)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::region::PARTITIONS;

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
