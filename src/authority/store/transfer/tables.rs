//! What is carried from one store to another: the tables and columns that
//! engines have in common, and their rows as values of no engine.

use ring::digest::{Context, SHA256};

/// A value of a column.
#[derive(Clone, Debug, PartialEq)]
pub(in super::super) enum Cell {
    Null,
    Integer(i64),
    Real(f64),
    Text(String),
    Bytes(Vec<u8>),
}

impl Cell {
    /// The number, if it is one.
    pub(in super::super) fn integer(&self) -> Option<i64> {
        match self {
            Self::Integer(number) => Some(*number),
            _ => None,
        }
    }

    /// The same, of the other kind.
    pub(in super::super) fn real(&self) -> Option<f64> {
        match self {
            Self::Real(number) => Some(*number),
            _ => None,
        }
    }

    /// The text.
    pub(in super::super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The bytes.
    pub(in super::super) fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }
}

/// A row, in the order of [`Table::columns`].
pub(in super::super) type Row = Vec<Cell>;

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Type {
    Integer,
    Real,
    Text,
    Bytes,
}

/// A table.
#[derive(Debug)]
pub(in super::super) struct Table {
    pub(in super::super) name: &'static str,
    /// How many of the columns, from the first on, a row is known by.
    pub(in super::super) key: usize,
    pub(in super::super) columns: &'static [(&'static str, Type)],
}

use Type::{Bytes, Integer, Real, Text};

/// The audit trail. A body is packed; one that is not yet is packed on its way, here and in `strangers`.
pub(in super::super) const EVENTS: Table = Table {
    name: "events",
    key: 1,
    columns: &[
        ("sequence", Integer),
        ("time", Integer),
        ("event", Text),
        ("id", Text),
        ("bot", Text),
        ("token", Text),
        ("body", Bytes),
    ],
};

/// Every serial.
pub(in super::super) const CERTIFICATES: Table = Table {
    name: "certificates",
    key: 1,
    columns: &[
        ("serial", Integer),
        ("issuance", Integer),
        ("kind", Integer),
        ("expires", Integer),
        ("revoked", Integer),
        ("key_hash", Bytes),
        ("instance", Integer),
        ("host", Integer),
        ("ca", Integer),
    ],
};

/// Where [`CERTIFICATES`] has the event of its issuance.
pub(super) const ISSUANCE: usize = 1;

/// Where [`CERTIFICATES`] has the time of a revocation: the one thing in it that changes.
pub(super) const REVOKED: usize = 4;

/// The tables that are small and change: each is carried whole, once nothing changes any more. Not among them are
/// `replicas`, which says who is alive, and `probes`.
pub(in super::super) const OTHERS: &[Table] = &[
    Table {
        name: "instances",
        key: 1,
        columns: &[
            ("number", Integer),
            ("id", Text),
            ("token", Text),
            ("bot", Text),
            ("key", Bytes),
            ("generation", Integer),
            ("base", Integer),
            ("attempt", Text),
            ("tries", Integer),
            ("last", Text),
            ("replaces", Text),
            ("registered", Integer),
            ("seen", Integer),
            ("locked", Integer),
            ("reason", Text),
            ("mac", Bytes),
        ],
    },
    Table {
        name: "locks",
        key: 1,
        columns: &[
            ("number", Integer),
            ("id", Text),
            ("kind", Text),
            ("value", Text),
            ("until", Integer),
            ("held_to_run", Integer),
            ("message", Text),
            ("put_by", Text),
            ("put_at", Integer),
            ("met", Text),
            ("lifted", Integer),
            ("lifted_by", Text),
            ("mac", Bytes),
        ],
    },
    Table {
        name: "proofs",
        key: 1,
        columns: &[
            ("key", Bytes),
            ("fingerprint", Bytes),
            ("certificate", Integer),
            ("held_until", Integer),
            ("held_to_run", Integer),
            ("generation", Integer),
            ("mac", Bytes),
        ],
    },
    Table {
        name: "assertions",
        key: 2,
        columns: &[("issuance", Integer), ("id", Text), ("held_until", Integer), ("held_to_run", Integer)],
    },
    Table {
        name: "secrets",
        key: 1,
        columns: &[
            ("hash", Bytes),
            ("id", Text),
            ("token", Text),
            ("expires", Integer),
            ("made", Integer),
            ("held_to_run", Integer),
            ("instance", Text),
            ("mac", Bytes),
        ],
    },
    Table {
        name: "strangers",
        key: 1,
        columns: &[
            ("number", Integer),
            ("ring", Integer),
            ("nth", Integer),
            ("ends", Integer),
            ("behind", Integer),
            ("time", Integer),
            ("event", Text),
            ("id", Text),
            ("bot", Text),
            ("token", Text),
            ("body", Bytes),
        ],
    },
    Table {
        name: "hosts",
        key: 1,
        columns: &[("name", Text), ("seen", Integer), ("list", Text), ("cas", Text), ("serial", Integer)],
    },
    Table {
        name: "ca_keys",
        key: 1,
        columns: &[
            ("number", Integer),
            ("kind", Text),
            ("name", Text),
            ("id", Text),
            ("is_first", Integer),
            ("state", Text),
            ("public", Text),
            ("endorsements", Text),
            ("crossed", Text),
            ("sealed", Bytes),
            ("since", Integer),
            ("mac", Bytes),
        ],
    },
    Table { name: "cas", key: 1, columns: &[("key", Text), ("since", Integer)] },
    Table { name: "usage", key: 1, columns: &[("key", Bytes), ("level", Real), ("at", Integer)] },
];

impl Table {
    /// The names of its columns, with commas, each as `name` puts it.
    pub(in super::super) fn list(&self, name: impl Fn(&'static str) -> String) -> String {
        self.columns.iter().map(|(column, _)| name(column)).collect::<Vec<_>>().join(", ")
    }

    /// What a row is known by.
    pub(in super::super) fn key_of(&self, row: &Row) -> Row {
        row.iter().take(self.key).cloned().collect()
    }

    /// The columns that a row is known by, with commas.
    pub(in super::super) fn key_list(&self) -> String {
        self.columns.iter().take(self.key).map(|(column, _)| *column).collect::<Vec<_>>().join(", ")
    }

    /// What an INSERT ends with: a row that is there becomes as it is now. One of the trail never does.
    pub(in super::super) fn or_else(&self) -> String {
        if self.name == EVENTS.name {
            return String::new();
        }
        let others =
            self.columns.iter().skip(self.key).map(|(column, _)| format!("{column} = excluded.{column}"));
        format!("ON CONFLICT ({}) DO UPDATE SET {}", self.key_list(), others.collect::<Vec<_>>().join(", "))
    }
}

/// How many rows there were, and what was in them.
pub(super) struct Digest {
    rows: u64,
    all: Context,
}

impl Default for Digest {
    fn default() -> Self {
        Self { rows: 0, all: Context::new(&SHA256) }
    }
}

impl Digest {
    /// Takes a row in, each value with its type and length before it.
    pub(super) fn add(&mut self, row: &Row) {
        self.rows = self.rows.saturating_add(1);
        for cell in row {
            let (kind, bytes): (u8, &[u8]) = match cell {
                Cell::Null => (0, &[]),
                Cell::Integer(number) => (1, &number.to_be_bytes()),
                Cell::Real(number) => (2, &number.to_bits().to_be_bytes()),
                Cell::Text(text) => (3, text.as_bytes()),
                Cell::Bytes(bytes) => (4, bytes),
            };
            self.all.update(&[kind]);
            self.all.update(&u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_be_bytes());
            self.all.update(bytes);
        }
    }

    /// What it comes to.
    pub(super) fn finish(self) -> (u64, Vec<u8>) {
        (self.rows, self.all.finish().as_ref().to_vec())
    }
}
