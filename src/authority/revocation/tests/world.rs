//! A real store, in which certificates are revoked.

use std::sync::Arc;

use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::super::ListCache;
use super::NOW;
use crate::authority::keys::CaKeys;
use crate::authority::keys::tests::new_keys;
use crate::authority::store::seal::StoreKey;
use crate::authority::store::sqlite::Sqlite;
use crate::authority::store::{CertificateKind, NewCertificate, NewRevocation, NewSigned, Store as _};
use crate::clock::Held;

pub(in crate::authority) struct World {
    pub(in crate::authority) folder: TempDir,
    pub(in crate::authority) runtime: Runtime,
    pub(in crate::authority) store: Sqlite,
    pub(in crate::authority) keys: Arc<CaKeys>,
    pub(in crate::authority) lists: ListCache,
}

impl World {
    pub(in crate::authority) fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("authority.db");
        Sqlite::create(&path, &StoreKey::beside(&path)).unwrap();
        Self {
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap(),
            store: Sqlite::open(&path, &StoreKey::beside(&path), NOW).unwrap(),
            keys: new_keys(folder.path(), NOW),
            lists: ListCache::default(),
            folder,
        }
    }

    pub(in crate::authority) fn issue(&self, serial: u64, kind: CertificateKind, expires: i64) {
        let certificate = NewCertificate {
            serial,
            kind,
            output: "identity".into(),
            output_type: None,
            options: Default::default(),
            principals: vec!["deploy".into()],
            groups: Vec::new(),
            expires,
            key_hash: [7; 32],
            is_host: false,
            ca: None,
        };
        let entry = NewSigned { id: format!("i-{serial}"), time: NOW, by: "sign-host", certificate, cas: 0 };
        self.runtime.block_on(self.store.record_signed(entry)).unwrap();
    }

    /// As its job does.
    pub(in crate::authority) fn give_back(&self, serial: u64) {
        let entry = NewRevocation {
            issuance_id: format!("i-{serial}"),
            time: NOW,
            assertion_id: serial.to_string(),
            held: Held { until: NOW + 60, lasts: 60 },
            peer: "192.0.2.1".into(),
        };
        self.runtime.block_on(self.store.revoke(entry)).unwrap();
    }
}
