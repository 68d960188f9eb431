//! Keys that are made, named and destroyed, and what is left of one where that stops halfway.

use super::*;

const NEW: &str = "arn:key/0";

/// A KMS in which the key has its name from the start, or gets it.
struct Named(Mutex<bool>);

impl Named {
    /// What it answers; where a test has nothing else to say.
    fn answer(&self, asked: &Asked) -> Option<Reply> {
        let mut is_named = self.0.lock().unwrap();
        match asked.action() {
            "CreateKey" => Some(reply(200, &described("Enabled"))),
            "CreateAlias" => {
                assert_eq!(asked.json(), json!({"AliasName": ALIAS, "TargetKeyId": NEW}));
                *is_named = true;
                Some(head(200, "", ""))
            }
            "DescribeKey" if *is_named => Some(reply(200, &described("Enabled"))),
            "ScheduleKeyDeletion" => {
                assert_eq!(asked.json(), json!({"KeyId": NEW, "PendingWindowInDays": 7}));
                Some(reply(200, &json!({"KeyId": NEW, "DeletionDate": 1.8e9})))
            }
            "DeleteAlias" => {
                *is_named = false;
                Some(head(200, "", ""))
            }
            "GetPublicKey" | "Sign" if *is_named => None,
            _ => Some(refused("NotFoundException")),
        }
    }
}

fn described(state: &str) -> Value {
    json!({"KeyMetadata": {"Arn": NEW, "KeyState": state, "Enabled": true}})
}

/// One that does something else about requests, by their number among those of their kind.
fn kms(is_named: bool, part: impl Fn(&Asked, usize) -> Option<Reply> + Send + Sync + 'static) -> StandIn {
    let named = Named(Mutex::new(is_named));
    StandIn::new(Algorithm::EcdsaP256, move |asked, before| {
        part(asked, before).or_else(|| named.answer(asked))
    })
}

fn is(action: &'static str, code: &'static str) -> impl Fn(&Asked, usize) -> Option<Reply> {
    move |asked, _| (asked.action() == action).then(|| refused(code))
}

fn create(kms: &StandIn) -> Result<Arc<dyn PrivateKey>> {
    kms.store().create("tls", Algorithm::EcdsaP256)
}

#[test]
fn a_key_is_made_and_named() {
    let kms = kms(false, |_, _| None);
    let key = create(&kms).unwrap();
    key.sign(b"message").unwrap();
    let asked = kms.asked("CreateKey")[0].json();
    assert_eq!(
        asked,
        json!({"KeySpec": "ECC_NIST_P256", "KeyUsage": "SIGN_VERIFY", "Description": "machine-id alias/ca-tls"})
    );
    let error = create(&kms).unwrap_err();
    assert!(error.kind() == Kind::Usage && told(&error).contains("there is the key alias/ca-tls"), "{error}");
    assert_eq!(kms.asked("CreateKey").len(), 1);
    assert!(kms.asked("ScheduleKeyDeletion").is_empty());
}

#[test]
fn a_name_that_not_all_of_kms_knows_yet_is_waited_for() {
    let kms = kms(false, |asked, before| {
        (asked.action() == "GetPublicKey" && (1..4).contains(&before)).then(|| refused("NotFoundException"))
    });
    create(&kms).unwrap();
    assert_eq!(kms.asked("GetPublicKey").len(), 5);
}

#[test]
fn a_key_is_not_made_twice() {
    // What asked for more time has made none; what was lost may have.
    let kms1 = kms(false, |asked, before| {
        (asked.action() == "CreateKey" && before == 0).then(|| refused("ThrottlingException"))
    });
    create(&kms1).unwrap();
    let lost: [fn() -> Reply; 4] =
        [|| Reply::Drop, || Reply::Hang, || refused("KMSInternalException"), || head(200, "", "what?")];
    for lost in lost {
        let kms = kms(false, move |asked, _| (asked.action() == "CreateKey").then(lost));
        let error = create(&kms).unwrap_err();
        assert!(told(&error).contains("perhaps a key was made all the same"), "{error:?}");
        assert_eq!(kms.asked("CreateKey").len(), 1);
    }
    // A name whose answer was lost is there when it is asked for again.
    let kms = kms(false, |asked, before| match (asked.action(), before) {
        ("CreateAlias", 1) => Some(refused("AlreadyExistsException")),
        _ => None,
    });
    let lossy = StandIn::new(Algorithm::EcdsaP256, {
        let shared = Arc::clone(&kms.shared);
        move |asked, before| {
            let told = (shared.part)(asked, before);
            if asked.action() == "CreateAlias" && before == 0 { Some(Reply::Drop) } else { told }
        }
    });
    create(&lossy).unwrap();
    assert!(lossy.asked("ScheduleKeyDeletion").is_empty());
}

#[test]
fn a_key_that_gets_no_name_is_taken_back() {
    let denied = kms(false, is("CreateAlias", "AccessDeniedException"));
    let error = create(&denied).unwrap_err();
    assert!(error.kind() == Kind::Usage && told(&error).contains("access is denied"), "{error}");
    assert!(told(&error).contains("the key arn:key/0 that was made for it is deleted in 7 days"));
    assert_eq!(denied.asked("ScheduleKeyDeletion").len(), 1);
    // Nor may it be taken back.
    let stuck = kms(false, |asked, _| {
        ["CreateAlias", "ScheduleKeyDeletion"]
            .contains(&asked.action())
            .then(|| refused("AccessDeniedException"))
    });
    let said = told(&create(&stuck).unwrap_err());
    assert!(said.contains("aws kms schedule-key-deletion --key-id arn:key/0"), "{said}");
    // Somebody else was faster.
    let other = kms(false, |asked, _| match asked.action() {
        "CreateAlias" => Some(refused("AlreadyExistsException")),
        "DescribeKey" => {
            Some(reply(200, &json!({"KeyMetadata": {"Arn": "arn:key/9", "KeyState": "Enabled"}})))
        }
        _ => None,
    });
    let error = create(&other).unwrap_err();
    assert!(error.to_string().contains("somebody else has just made"), "{error}");
    assert_eq!(other.asked("ScheduleKeyDeletion").len(), 1);
    // None of this kind is made.
    let none = kms(false, is("CreateKey", "ValidationException"));
    let error = none.store().create("tls", Algorithm::Ed25519).unwrap_err();
    assert!(told(&error).contains("`--suite compatible`") && error.kind() == Kind::Usage, "{error}");
    assert_eq!(none.asked("CreateKey")[0].json()["KeySpec"], "ECC_NIST_EDWARDS25519");
}

#[test]
fn a_key_that_is_destroyed_signs_no_more_and_gives_its_name_back() {
    let good = kms(true, |_, _| None);
    let store = good.store();
    store.destroy("tls").unwrap();
    assert!(store.open("tls").unwrap().is_none());
    // Once more, and where there never was one.
    store.destroy("tls").unwrap();
    assert_eq!(["ScheduleKeyDeletion", "DeleteAlias"].map(|action| good.asked(action).len()), [1, 1]);
    // Interrupted between the two.
    let half = kms(true, |asked, _| {
        (asked.action() == "DescribeKey").then(|| reply(200, &described("PendingDeletion")))
    });
    half.store().destroy("tls").unwrap();
    assert_eq!(["ScheduleKeyDeletion", "DeleteAlias"].map(|action| half.asked(action).len()), [0, 1]);
    for (action, says) in [
        ("DescribeKey", "access is denied"),
        ("ScheduleKeyDeletion", "the key alias/ca-tls in AWS KMS, region us-east-1 is not destroyed"),
        ("DeleteAlias", "is destroyed, and its alias is left"),
    ] {
        let error = kms(true, is(action, "AccessDeniedException")).store().destroy("tls").unwrap_err();
        assert!(error.to_string().contains(says), "{action}: {error}");
    }
    let error =
        kms(true, is("ScheduleKeyDeletion", "AccessDeniedException")).store().destroy("tls").unwrap_err();
    assert!(told(&error).contains("`aws kms schedule-key-deletion --key-id arn:key/0` destroys it"));
}
