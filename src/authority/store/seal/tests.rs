//! Seals: what they tell apart, and where their key lies.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use proptest::prelude::*;

use super::*;

impl StoreKey {
    /// For a store of tests, in its folder.
    pub(crate) fn beside(store: &Path) -> Self {
        Self::new(store.parent().unwrap(), Owner::me(), "id.test")
    }
}

/// A column of few and short values, so that two rows often nearly are the same.
fn column() -> impl Strategy<Value = Column<'static>> {
    static TEXTS: [&str; 5] = ["", "a", "ab", "b", "\0"];
    prop_oneof![
        Just(Column::Null),
        (-1_i64..=98).prop_map(Column::Integer),
        proptest::sample::select(TEXTS.as_slice()).prop_map(Column::Text),
        proptest::sample::select(TEXTS.as_slice()).prop_map(|text| Column::Bytes(text.as_bytes())),
    ]
}

fn columns() -> impl Strategy<Value = Vec<Column<'static>>> {
    proptest::collection::vec(column(), 0..4)
}

proptest! {
    /// Cluster, table, key and columns are told apart, wherever one ends and the next begins.
    #[test]
    fn a_seal_is_of_one_row(
        (one, other) in (columns(), columns()),
        (key, other_key) in (0_usize..3, 0_usize..3),
        (table, other_table) in (0_usize..2, 0_usize..2),
        (cluster, other_cluster) in (0_usize..2, 0_usize..2),
    ) {
        let (keys, tables, clusters) = ([b"k".as_slice(), b"", b"ka"], ["t", "ta"], ["c", "ct"]);
        let mac = |cluster: usize, table: usize, key: usize, columns: &[Column<'_>]| {
            Seal::new(&[7; LENGTH], clusters[cluster]).mac(tables[table], keys[key], columns)
        };
        let same = (cluster, table, key, format!("{one:?}"))
            == (other_cluster, other_table, other_key, format!("{other:?}"));
        let macs = (mac(cluster, table, key, &one), mac(other_cluster, other_table, other_key, &other));
        prop_assert_eq!(macs.0 == macs.1, same);
    }
}

/// A row of one column.
struct One(&'static str);

impl Granting for One {
    const TABLE: &'static str = "ones";

    fn key(&self) -> &[u8] {
        b"k-1"
    }

    fn columns(&self) -> Vec<Column<'_>> {
        vec![self.0.into()]
    }
}

#[test]
fn a_seal_that_is_none_does_not_hold_and_is_told() {
    let seal = Seal::new(&[7; LENGTH], "id.test");
    let mac = seal.of(&One("a"));
    assert!(seal.holds(&One("a"), Some(&mac)));
    assert_eq!(seal.warning(), None);
    for mac in [None, Some(&[][..]), Some(&mac[..31]), Some(&[mac.as_slice(), &[0]].concat()), Some(&[0; 32])]
    {
        assert!(!seal.holds(&One("a"), mac), "{mac:?}");
    }
    assert!(!seal.holds(&One("b"), Some(&mac)));
    assert!(matches!(seal.judge(Some((One("b"), Some(mac.to_vec())))), Kept::Broken));
    let warning = seal.warning().unwrap();
    assert!(warning.contains("(1 seen, ones k-1 among them)"), "{warning}");
    for other in [Seal::new(&[8; LENGTH], "id.test"), Seal::new(&[7; LENGTH], "id.other")] {
        assert!(!other.holds(&One("a"), Some(&mac)));
        assert!(!other.is_known_by("s", &seal.check("s")));
    }
    assert!(seal.is_known_by("s", &seal.check("s")) && !seal.is_known_by("t", &seal.check("s")));
    // What its `Debug` would say of the key, in any form.
    assert_eq!(format!("{seal:?}"), "Seal { .. }");
}

#[test]
fn the_key_is_the_authority_s_alone() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join(STORE_KEY);
    let key = StoreKey::new(dir.path(), Owner::me(), "id.test");
    assert!(key.find().unwrap().is_none());
    let error = key.load().unwrap_err();
    assert!(error.to_string().ends_with("store.key, and the store's rows are sealed with it"), "{error}");
    assert!(error.hints()[0].contains("copy it from another authority"), "{error:?}");
    let seal = key.create().unwrap();
    assert_eq!(fs::metadata(&place).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(key.load().unwrap().is_known_by("s", &seal.check("s")));
    assert!(key.create().unwrap_err().to_string().contains("exists already"));
    let text = fs::read_to_string(&place).unwrap();
    assert!(!format!("{key:?}").contains(text.trim_end()));

    for wrong in ["", "x\n", &text[4..], &format!("{text}{text}"), &text.replace('=', "")] {
        fs::write(&place, wrong).unwrap();
        let error = key.find().unwrap_err();
        assert!(error.to_string().ends_with("it is not 32 bytes in base64"), "{error}");
        assert!(!error.to_string().contains(&text[..8]));
    }
    fs::write(&place, &text).unwrap();
    fs::set_permissions(&place, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(key.find().unwrap_err().to_string().contains("others than its owner"));
}
