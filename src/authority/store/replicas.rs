//! Who shares a store, as each says itself: for operators. Nothing is granted for what stands here.

/// For how many seconds an authority that has not been heard of counts as there.
pub const LIVE: i64 = 30;

/// An authority that runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replica {
    /// Random, another each time it starts.
    pub id: String,
    /// Its machine and where it listens.
    pub name: String,
    /// Its first CA keys, sorted: `ssh-user SHA256:…`.
    pub keys: Vec<String>,
    /// What else it has, each a line: [`CAS`] with the number of its CAs, [`LACKS`] with the name of a key.
    pub has: Vec<String>,
    /// A hash of its policy, and of what else must be the same.
    pub policy: String,
    /// Its version.
    pub version: String,
    /// When it last said so, in seconds since 1970, by the store's clock.
    pub seen: i64,
}

/// Before the number of the CAs that an authority has.
pub const CAS: &str = "cas ";
/// Before the name of a private key that it ought to have, and has not.
pub const LACKS: &str = "lacks ";
/// Behind that, before the name of a key: what lacks is its certificate under another's root.
pub const ROOT_OF: &str = "root of ";
/// Before how many jobs of a day know the old TLS CA alone.
pub const OLD_TRUST: &str = "old-trust ";
/// Before what it has, among the lines of its keys: of a version from before, nothing has it.
const ALSO: &str = "+ ";

impl Replica {
    /// As a row says: id, name, the column `keys`, policy, version, when it was seen.
    pub(super) fn of_row(row: (String, String, String, String, String, i64)) -> Self {
        let (id, name, lines, policy, version, seen) = row;
        let (keys, has) = Self::read_lines(&lines);
        Self { id, name, keys, has, policy, version, seen }
    }

    /// The column `keys`.
    pub(super) fn lines(&self) -> String {
        let also = self.has.iter().map(|line| format!("{ALSO}{line}"));
        self.keys.iter().cloned().chain(also).collect::<Vec<_>>().join("\n")
    }

    /// What that column says: the keys, and what else it has.
    fn read_lines(text: &str) -> (Vec<String>, Vec<String>) {
        let (has, keys): (Vec<_>, Vec<_>) = text.split('\n').partition(|line| line.starts_with(ALSO));
        let owned = |line: &str| line.to_owned();
        (
            keys.into_iter().map(owned).collect(),
            has.iter().filter_map(|line| line.strip_prefix(ALSO)).map(owned).collect(),
        )
    }

    /// The number of the CAs that it has; none of a version that knows of no rotation.
    pub fn cas(&self) -> Option<i64> {
        self.has.iter().find_map(|line| line.strip_prefix(CAS)?.parse().ok())
    }

    /// How many jobs came to it in the last day that know the old TLS CA alone.
    pub fn of_old_trust(&self) -> u64 {
        self.has.iter().find_map(|line| line.strip_prefix(OLD_TRUST)?.parse().ok()).unwrap_or(0)
    }

    /// Whether it lacks the private key of that name.
    pub fn lacks(&self, name: &str) -> bool {
        self.has.iter().any(|line| line.strip_prefix(LACKS) == Some(name))
    }
}

/// Who is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Announced {
    /// The CA keys that the store was first used with, of each kind, sorted.
    pub keys: Vec<String>,
    /// The others that were heard of within [`LIVE`], by their names.
    pub others: Vec<Replica>,
}
