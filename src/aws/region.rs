//! AWS's partitions and regions, and what the hosts of its services are called.

/// A part of AWS with accounts, ARNs and names of its own: an account number
/// in one says nothing about the same number in another.
#[derive(Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its name in ARNs.
    pub name: &'static str,
    /// What its hosts end in.
    pub suffix: &'static str,
    /// What its regions begin with; nothing where they begin like no other's.
    pub prefix: &'static str,
}

/// Every partition that is accepted. The first is AWS itself.
pub static PARTITIONS: [Partition; 4] = [
    Partition { name: "aws", suffix: ".amazonaws.com", prefix: "" },
    Partition { name: "aws-cn", suffix: ".amazonaws.com.cn", prefix: "cn-" },
    Partition { name: "aws-us-gov", suffix: ".amazonaws.com", prefix: "us-gov-" },
    Partition { name: "aws-eusc", suffix: ".amazonaws.eu", prefix: "eusc-" },
];

impl Partition {
    /// The one that a region is of; the first has those that begin like no other's.
    pub fn of_region(region: &str) -> Option<&'static Self> {
        // Isolated partitions, whose hosts end otherwise.
        let isolated = ["us-iso", "eu-iso"].iter().any(|prefix| region.starts_with(prefix));
        let partition = PARTITIONS.iter().rev().find(|partition| region.starts_with(partition.prefix));
        partition.filter(|_| is_region(region) && !isolated)
    }
}

/// The host of a service in a region, as the SDKs call it.
pub fn host_of(service: &str, region: &str) -> Option<String> {
    Partition::of_region(region).map(|partition| format!("{service}.{region}{}", partition.suffix))
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
