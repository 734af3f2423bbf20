//! What is taken, and everything that is not.

use std::path::Path;

use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::domain::asked::{Asked, ExtendAsked};

struct Stage {
    folder: TempDir,
    ada: SealKey,
    safe: SealKey,
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_timestamp(1_800_000_000 + seconds, 0).expect("in range")
}

fn put(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).expect("written");
    path
}

fn asked() -> Asked {
    Asked::Extend(ExtendAsked {
        request_id: "r-1".to_owned(),
        grant_id: "0190a6d8-1b2c-7def-8123-456789abcdef".to_owned(),
        duration_s: 60,
        requester: String::new(),
        reason: String::new(),
    })
}

impl Stage {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a folder"),
            ada: SealKey::generate().expect("randomness").0,
            safe: SealKey::generate().expect("randomness").0,
        }
    }

    fn options(&self) -> KeyringOptions {
        KeyringOptions {
            approvers: vec![ApproverOptions {
                name: "ada".to_owned(),
                names: vec!["ada@example.com".to_owned()],
                key_file: put(self.folder.path(), "ada.pem", &self.ada.public_pem()),
            }],
            max_age: TimeDelta::hours(1),
            emergency: vec![EmergencyKeyOptions {
                name: "safe".to_owned(),
                key_file: put(self.folder.path(), "safe.pem", &self.safe.public_pem()),
            }],
        }
    }

    fn keyring(&self) -> Keyring {
        Keyring::open(self.options()).expect("usable keys")
    }

    fn approval(&self) -> String {
        self.approval_of("ada", at(0), TimeDelta::minutes(30))
    }

    fn approval_of(&self, approver: &str, now: Timestamp, lasts: TimeDelta) -> String {
        let draft = ApprovalDraft {
            approver: approver.to_owned(),
            id: "a-1".to_owned(),
            now,
            lasts,
            asked: asked(),
        };
        self.ada.approve(&draft).expect("a good draft")
    }

    fn draft(&self) -> TokenDraft {
        TokenDraft {
            key: "safe".to_owned(),
            id: "t-1".to_owned(),
            now: at(0),
            not_before: at(100),
            not_after: at(200),
            integration: "main".to_owned(),
            beneficiaries: ["ada@example.com".to_owned()].into(),
            role: "deployment-admin".to_owned(),
            targets: ["deployment/a".to_owned()].into(),
            application_roles: None,
            max_duration_s: 3600,
            reason: "the control plane is gone".to_owned(),
        }
    }

    fn token(&self) -> String {
        self.safe.seal(self.draft()).expect("a good draft")
    }
}

/// A text with other claims under the signature of the first one.
fn altered(text: &str, change: impl Fn(&mut Map<String, Value>)) -> String {
    let parts: Vec<&str> = text.split('.').collect();
    let mut claims = object(parts[1]).expect("our own");
    change(&mut claims);
    let claims = URL_SAFE_NO_PAD.encode(Value::Object(claims).to_string());
    format!("{}.{claims}.{}", parts[0], parts[2])
}

fn with_header(text: &str, header: &Value) -> String {
    let rest = text.split_once('.').expect("our own").1;
    format!("{}.{rest}", URL_SAFE_NO_PAD.encode(header.to_string()))
}

#[test]
fn what_a_configured_approver_signed_is_taken_and_says_of_which_request_it_is() {
    let stage = Stage::new();
    let approval = stage
        .keyring()
        .approval(&stage.approval(), at(10))
        .expect("in time");
    assert_eq!(approval.approver, "ada");
    assert_eq!(approval.names, ["ada@example.com"]);
    assert_eq!(approval.request, asked().digest());
    assert_eq!(approval.until, at(1800));
}

#[test]
fn what_a_configured_key_sealed_is_taken_within_its_time() {
    let stage = Stage::new();
    let token = stage
        .keyring()
        .emergency(&stage.token(), at(100))
        .expect("in time");
    assert_eq!((token.key.as_str(), token.id.as_str()), ("safe", "t-1"));
    assert_eq!(token.until, at(200));
    assert_eq!(token.max_duration_s, 3600);
}

#[test]
fn a_text_that_was_altered_is_refused() {
    let stage = Stage::new();
    let keyring = stage.keyring();
    let approval = altered(&stage.approval(), |claims| {
        claims.insert("exp".to_owned(), json!(4_000_000_000_i64));
    });
    assert_eq!(
        keyring.approval(&approval, at(0)),
        Err(SealRefused::Signature)
    );
    let token = altered(&stage.token(), |claims| {
        claims.insert("role".to_owned(), json!("organization-admin"));
    });
    assert_eq!(
        keyring.emergency(&token, at(150)),
        Err(SealRefused::Signature)
    );
    let mut cut = stage.token();
    cut.pop();
    assert!(keyring.emergency(&cut, at(150)).is_err());
}

#[test]
fn a_text_is_refused_before_and_after_its_time_and_when_it_is_old() {
    let stage = Stage::new();
    let keyring = stage.keyring();
    let token = stage.token();
    assert_eq!(keyring.emergency(&token, at(99)), Err(SealRefused::Early));
    assert!(keyring.emergency(&token, at(199)).is_ok());
    assert_eq!(
        keyring.emergency(&token, at(200)),
        Err(SealRefused::Expired)
    );
    let approval = stage.approval();
    assert_eq!(
        keyring.approval(&approval, at(-61)),
        Err(SealRefused::Early)
    );
    assert!(
        keyring.approval(&approval, at(-60)).is_ok(),
        "clocks differ"
    );
    assert_eq!(
        keyring.approval(&approval, at(1800)),
        Err(SealRefused::Expired)
    );
    let long = stage.approval_of("ada", at(0), TimeDelta::days(365));
    assert!(keyring.approval(&long, at(3600)).is_ok());
    assert_eq!(keyring.approval(&long, at(3601)), Err(SealRefused::TooOld));
}

#[test]
fn a_text_of_somebody_else_is_refused_whatever_name_it_gives() {
    let stage = Stage::new();
    let keyring = stage.keyring();
    let unknown = stage.approval_of("eve", at(0), TimeDelta::minutes(30));
    assert_eq!(
        keyring.approval(&unknown, at(0)),
        Err(SealRefused::UnknownKey)
    );
    // The key of the safe, under the name of an approver.
    let draft = ApprovalDraft {
        approver: "ada".to_owned(),
        id: "a-1".to_owned(),
        now: at(0),
        lasts: TimeDelta::minutes(30),
        asked: asked(),
    };
    let forged = stage.safe.approve(&draft).expect("a good draft");
    assert_eq!(
        keyring.approval(&forged, at(0)),
        Err(SealRefused::Signature)
    );
}

#[test]
fn one_kind_of_text_is_never_taken_for_the_other() {
    let stage = Stage::new();
    let keyring = stage.keyring();
    assert_eq!(
        keyring.emergency(&stage.approval(), at(0)),
        Err(SealRefused::Type)
    );
    assert_eq!(
        keyring.approval(&stage.token(), at(150)),
        Err(SealRefused::Type)
    );
}

#[test]
fn a_text_does_not_choose_how_it_is_checked() {
    let stage = Stage::new();
    let keyring = stage.keyring();
    for alg in ["none", "HS256", "HS512", "RS256", "ES384", "eddsa"] {
        let text = with_header(
            &stage.approval(),
            &json!({"alg": alg, "typ": APPROVAL_TYPE}),
        );
        assert_eq!(
            keyring.approval(&text, at(0)),
            Err(SealRefused::Algorithm),
            "{alg}"
        );
    }
    let other = with_header(
        &stage.approval(),
        &json!({"alg": "ES256", "typ": APPROVAL_TYPE}),
    );
    assert_eq!(keyring.approval(&other, at(0)), Err(SealRefused::Algorithm));
    // A shared secret that everybody knows: the public key.
    let secret = jsonwebtoken::EncodingKey::from_secret(stage.ada.public_pem().as_bytes());
    let mut header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256);
    header.typ = Some(APPROVAL_TYPE.to_owned());
    let (_, claims) = claims_of(&stage.approval()).expect("our own");
    let text = jsonwebtoken::encode(&header, &claims, &secret).expect("encoded");
    assert_eq!(keyring.approval(&text, at(0)), Err(SealRefused::Algorithm));
    let critical = with_header(
        &stage.approval(),
        &json!({"alg": "EdDSA", "typ": APPROVAL_TYPE, "crit": ["b64"]}),
    );
    assert_eq!(
        keyring.approval(&critical, at(0)),
        Err(SealRefused::Malformed)
    );
    for hostile in ["", ".", "..", "a.b.c", "x".repeat(20_000).as_str()] {
        assert_eq!(
            keyring.approval(hostile, at(0)),
            Err(SealRefused::Malformed)
        );
    }
}

#[test]
fn without_configured_keys_nothing_is_taken() {
    let stage = Stage::new();
    let keyring = Keyring::open(KeyringOptions::default()).expect("nothing to read");
    assert_eq!(
        keyring.approval(&stage.approval(), at(0)),
        Err(SealRefused::NotConfigured)
    );
    assert_eq!(
        keyring.emergency(&stage.token(), at(150)),
        Err(SealRefused::NotConfigured)
    );
}

#[test]
fn one_key_under_two_names_is_refused() {
    let stage = Stage::new();
    let mut options = stage.options();
    let mut second = options.approvers[0].clone();
    second.name = "bob".to_owned();
    options.approvers.push(second);
    assert!(matches!(
        Keyring::open(options),
        Err(KeyFileError::Shared { .. })
    ));
}

#[test]
fn a_changed_key_comes_into_force_and_one_that_cannot_be_used_does_not() {
    let stage = Stage::new();
    let keyring = stage.keyring();
    let approval = stage.approval();
    assert!(matches!(keyring.reread(), Reread::Unchanged));
    put(stage.folder.path(), "ada.pem", "no key");
    assert!(matches!(keyring.reread(), Reread::Kept(Some(_))));
    assert!(matches!(keyring.reread(), Reread::Kept(None)), "no news");
    assert!(keyring.approval(&approval, at(0)).is_ok());
    let (other, _) = SealKey::generate().expect("randomness");
    put(stage.folder.path(), "ada.pem", &other.public_pem());
    assert!(matches!(keyring.reread(), Reread::Changed));
    assert_eq!(
        keyring.approval(&approval, at(0)),
        Err(SealRefused::Signature)
    );
}

#[test]
fn a_signing_key_survives_being_text_and_is_not_taken_for_a_public_one() {
    let (key, text) = SealKey::generate().expect("randomness");
    let read = SealKey::parse(&text).expect("our own text");
    assert_eq!(read.public_pem(), key.public_pem());
    let stage = Stage::new();
    let path = put(
        stage.folder.path(),
        "private.pem",
        secrecy::ExposeSecret::expose_secret(&text),
    );
    assert!(PublicKey::read(&path).is_err());
    assert!(SealKey::parse(&"HUSH".into()).is_err());
}

#[test]
fn a_token_that_could_never_be_used_is_not_sealed() {
    let stage = Stage::new();
    let changes: [fn(&mut TokenDraft); 6] = [
        |draft| draft.not_after = draft.not_before,
        |draft| draft.not_after = draft.now,
        |draft| draft.beneficiaries.clear(),
        |draft| draft.targets.clear(),
        |draft| draft.max_duration_s = 0,
        |draft| draft.reason = " ".to_owned(),
    ];
    for (index, change) in changes.iter().enumerate() {
        let mut draft = stage.draft();
        change(&mut draft);
        assert!(stage.safe.seal(draft).is_err(), "{index}");
    }
}
