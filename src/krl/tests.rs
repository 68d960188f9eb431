use proptest::prelude::*;
use ssh_key::private::{Ed25519Keypair, PrivateKey};

use super::*;

fn number(list: &[u8]) -> Result<u64, &'static str> {
    read(list).map(|list| list.number)
}

fn string(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

fn head(number: u64, date: u64) -> Vec<u8> {
    let mut list = [MAGIC, &1_u32.to_be_bytes(), &number.to_be_bytes(), &date.to_be_bytes()].concat();
    list.extend([0; 8]);
    list.extend([string(b""), string(b"comment")].concat());
    list
}

fn with(kind: u8, section: &[u8]) -> Vec<u8> {
    [head(7, 1), vec![kind], string(section)].concat()
}

fn revoking(kind: u8, part: &[u8]) -> Vec<u8> {
    let key = PrivateKey::from(Ed25519Keypair::from_seed(&[7; 32]));
    let ca = string(&key.public_key().to_bytes().unwrap());
    with(SECTION_CERTIFICATES, &[ca, string(b""), vec![kind], string(part)].concat())
}

#[test]
fn what_openssh_reads_is_read() {
    assert_eq!(number(&head(7, 1)), Ok(7));
    let serials = [1_u64.to_be_bytes(), u64::MAX.to_be_bytes()].concat();
    let bitmap = [1_u64.to_be_bytes().to_vec(), string(b"\x03")].concat();
    for list in [
        revoking(CERT_SERIAL_LIST, &serials),
        revoking(CERT_SERIAL_RANGE, &serials),
        revoking(CERT_SERIAL_BITMAP, &bitmap),
        revoking(CERT_KEY_ID, &string(b"some id")),
        with(SECTION_EXPLICIT_KEY, &string(b"blob")),
        with(SECTION_FINGERPRINT_SHA1, &string(&[0; 20])),
        with(SECTION_FINGERPRINT_SHA256, &string(&[0; 32])),
    ] {
        assert_eq!(number(&list), Ok(7));
        for length in 0..list.len() {
            let cut = &list[..length];
            assert!(cut.len() == head(7, 1).len() || number(cut).is_err(), "{length}");
        }
    }
}

#[test]
fn what_is_written_is_read() {
    let ca = PrivateKey::from(Ed25519Keypair::from_seed(&[7; 32])).public_key().to_bytes().unwrap();
    let list = write(7, 1, vec![(ca, vec![u64::MAX, 0, 1, 1])]);
    let serials = [1_u64.to_be_bytes(), u64::MAX.to_be_bytes()].concat();
    let expected = [write(7, 1, vec![]), revoking(CERT_SERIAL_LIST, &serials)[head(7, 1).len()..].to_vec()];
    assert_eq!(list, expected.concat());
    assert_eq!(read(&list), Ok(Krl { number: 7, date: 1, serials: vec![1, u64::MAX], keys: vec![] }));
}

#[test]
fn what_is_added_is_read_and_nothing_is_lost() {
    let known = revoking(CERT_SERIAL_LIST, &[4_u64.to_be_bytes(), 2_u64.to_be_bytes()].concat());
    let more = adding(known.clone(), [0, 1, 2, 9].into_iter()).unwrap();
    assert!(more.starts_with(&known));
    assert_eq!(read(&more).unwrap().serials, [1, 2, 4, 9]);
    assert_eq!(adding(more.clone(), [1, 4].into_iter()), Ok(more));
    let hashes = with(SECTION_FINGERPRINT_SHA256, &string(&[0; 32]));
    assert!(adding(hashes.clone(), [1].into_iter()).unwrap().starts_with(&hashes));
    assert!(adding(b"no list".to_vec(), [1].into_iter()).is_err());
}

#[test]
fn a_list_goes_on_and_is_closed_and_opened() {
    let known = revoking(CERT_SERIAL_LIST, &2_u64.to_be_bytes());
    let next = advanced(known.clone(), 9, 8, [3, 2].into_iter()).unwrap();
    assert_eq!(read(&next), Ok(Krl { number: 9, date: 8, serials: vec![2, 3], keys: vec![] }));
    assert!(advanced(known[..20].to_vec(), 9, 8, [].into_iter()).is_err());
    let blobs = [b"one".to_vec(), b"two".to_vec()];
    let revoked = [b"three".to_vec()];
    let keys = revoking_keys(next.clone(), &revoked).unwrap();
    for list in [head(7, 1), known, next, keys] {
        let shut = closed(list.clone(), &blobs);
        // Those by which it is closed do not count: they go again.
        assert_eq!(read(&shut), read(&list));
        assert!(
            closed(shut.clone(), &blobs) == shut
                && closed(shut.clone(), &revoked) == closed(list.clone(), &revoked)
        );
        assert_eq!((opened(&shut), opened(&list)), (Some(list.as_slice()), None));
    }
    assert_eq!((opened(b""), opened(&[0; 40])), (None, None));
}

#[test]
fn keys_are_added_once_and_stay() {
    let key =
        |seed| PrivateKey::from(Ed25519Keypair::from_seed(&[seed; 32])).public_key().to_bytes().unwrap();
    let [one, other] = [key(1), key(2)];
    let list = write(7, 1, vec![(vec![], vec![5])]);
    assert_eq!(revoking_keys(list.clone(), &[]), Ok(list.clone()));
    let both = revoking_keys(list.clone(), [&other, &one, &other]).unwrap();
    assert!(both.starts_with(&list));
    let mut sorted = [one.clone(), other];
    sorted.sort();
    assert_eq!(read(&both), Ok(Krl { number: 7, date: 1, serials: vec![5], keys: sorted.to_vec() }));
    assert_eq!(revoking_keys(both.clone(), [&one]), Ok(both.clone()));
    // What comes behind them loses none.
    let next = advanced(both, 8, 2, [9].into_iter()).unwrap();
    assert_eq!(read(&next).unwrap().keys.len(), 2);
    assert!(revoking_keys(b"no list".to_vec(), [&one]).is_err());
}

#[test]
fn what_openssh_does_not_read_is_refused() {
    let mut version = head(7, 1);
    version[11] = 2;
    let backwards = [2_u64.to_be_bytes(), 1_u64.to_be_bytes()].concat();
    let not_a_key = [string(b"not a key"), string(b"")].concat();
    for list in [
        b"".to_vec(),
        b"<html>not a list at all, but long enough to be one</html>".to_vec(),
        version,
        with(4, b"signature"),
        with(9, b""),
        with(SECTION_CERTIFICATES, &not_a_key),
        with(SECTION_FINGERPRINT_SHA256, &string(&[0; 20])),
        revoking(CERT_SERIAL_LIST, &[0; 8]),
        revoking(CERT_SERIAL_LIST, &[1; 9]),
        revoking(CERT_SERIAL_RANGE, &backwards),
        revoking(0x40, b""),
    ] {
        assert!(number(&list).is_err(), "{list:?}");
    }
}

#[test]
fn bitmaps_and_ranges_are_serials() {
    let refused = |kind, part: &[u8]| {
        let all = Refusals::read(&revoking(kind, part)).unwrap();
        let (_, certificates) = all.of_cas.iter().next().unwrap();
        (0..30).chain(u64::MAX - 3..=u64::MAX).filter(|serial| certificates.has(*serial)).collect::<Vec<_>>()
    };
    let bitmap = |offset: u64, bits: &[u8]| [offset.to_be_bytes().to_vec(), string(bits)].concat();
    let range = |first: u64, last: u64| [first.to_be_bytes(), last.to_be_bytes()].concat();
    assert_eq!(refused(CERT_SERIAL_BITMAP, &bitmap(7, &[0, 1, 0x81])), [7, 14, 15]);
    assert_eq!(refused(CERT_SERIAL_RANGE, &range(2, 4)), [2, 3, 4]);
    assert_eq!(refused(CERT_SERIAL_RANGE, &range(u64::MAX - 1, u64::MAX)), [u64::MAX - 1, u64::MAX]);
    for broken in [bitmap(0, &[1]), bitmap(u64::MAX, &[2])] {
        assert!(read(&revoking(CERT_SERIAL_BITMAP, &broken)).is_err());
    }
}

#[test]
fn number_and_date_may_differ() {
    assert!(same(&head(7, 1), &head(8, 2)) && !same(&head(7, 1), &revoking(CERT_SERIAL_LIST, &[1; 8])));
    assert!(!same(&head(7, 1), b"") && same(b"", b""));
}

proptest! {
    /// Ranges that overlap, touch and hold one another are what they are together.
    #[test]
    fn serials_are_in_their_ranges(ranges in proptest::collection::vec((1_u64..60, 0_u64..9), 0..9), more in proptest::collection::vec(1_u64..60, 0..9)) {
        let part = |(first, length): &(u64, u64)| {
            [vec![CERT_SERIAL_RANGE], string(&[first.to_be_bytes(), (first + length).to_be_bytes()].concat())].concat()
        };
        let parts: Vec<u8> = ranges.iter().flat_map(part).collect();
        let listed: Vec<u8> = more.iter().flat_map(|serial| serial.to_be_bytes()).collect();
        let list = [vec![CERT_SERIAL_LIST], string(&listed)].concat();
        let section = [string(b""), string(b""), parts, list].concat();
        let all = Refusals::read(&with(SECTION_CERTIFICATES, &section)).unwrap();
        for serial in 0..80 {
            let expected = more.contains(&serial)
                || ranges.iter().any(|(first, length)| (*first..=first + length).contains(&serial));
            prop_assert_eq!(all.of_cas.values().any(|certificates| certificates.has(serial)), expected);
        }
    }

    #[test]
    fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..100), at in any::<prop::sample::Index>(), byte: u8) {
        let _ = (number(&bytes), opened(&bytes));
        let _ = number(&[head(1, 1), bytes].concat());
        let mut damaged = revoking(CERT_SERIAL_LIST, &[1; 16]);
        let place = at.index(damaged.len());
        damaged[place] = byte;
        let _ = (number(&damaged), opened(&damaged));
    }
}
