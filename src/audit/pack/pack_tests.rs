//! A pack that is whole verifies, and whatever is done to one is named.

use std::fs;
use std::path::{Path, PathBuf};

use chrono::TimeDelta;
use serde_json::{Value, json};

use super::*;
use crate::audit::block::Block;
use crate::audit::key::SigningKey;
use crate::audit::tree::Hash;
use crate::audit::verify::Head;
use crate::domain::assignment::{ApplicationRoles, Assignment, Target};
use crate::domain::grant::EndCause;
use crate::domain::ids::{CallerName, GrantId, IntegrationName, RequestId, UserId};
use crate::domain::member::Subject;
use crate::domain::receipt::{Fate, Gone, Line, Look, Receipt, Trail};
use crate::domain::ttl::Ttl;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_timestamp(1_800_000_000 + seconds, 0).expect("in range")
}

fn record(sequence: u64, seconds: i64, kind: &str) -> AuditRecord {
    let event = json!({"at": at(seconds), "integration": "a", "subject": "user:1", "kind": {"event": kind, "n": sequence}});
    AuditRecord {
        sequence,
        body: event.to_string(),
    }
}

/// A receipt that was due at `due` and seen gone so many seconds later; never, when it was given up.
fn receipt(number: u8, due: i64, took: Option<i64>) -> Receipt {
    let mut trail = Trail::new(Assignment {
        role: "organization-admin".to_owned(),
        target: Target::Organization,
        application_roles: ApplicationRoles::default(),
    });
    trail.look = Look::Done { at: at(due + 600) };
    trail.gone = took.map(|took| Gone {
        at: at(due + took),
        read_started_at: at(due + took),
    });
    Receipt {
        grant_id: GrantId::new(at(0), [number; 10]),
        integration: IntegrationName::parse("a").expect("a name"),
        subject: Subject::Member(UserId::parse("1").expect("an id")),
        caller: CallerName::parse("local").expect("a name"),
        request_id: RequestId::parse("r").expect("an id"),
        beneficiary: "1".to_owned(),
        requester: "ann".to_owned(),
        justification: "INC-7".to_owned(),
        duration: Ttl::from_seconds(60).expect("a minute"),
        starts_at: None,
        not_after: None,
        created_at: at(0),
        verified_at: Some(at(1)),
        extensions: 0,
        due_at: Some(at(due)),
        ended_at: at(due + took.unwrap_or(0)),
        cause: EndCause::Expired,
        before: None,
        after: None,
        lines: vec![Line {
            fate: if took.is_some() {
                Fate::Removed
            } else {
                Fate::Forgotten
            },
            trail,
        }],
        membership_outlives: false,
        externally_modified: false,
    }
}

struct Made {
    folder: tempfile::TempDir,
    key: SigningKey,
    heads: Vec<Head>,
    manifest: Manifest,
    level: ServiceLevel,
}

impl Made {
    /// The period is that of the middle one of three blocks, with an event of it in the last one.
    fn new(signed: bool) -> Self {
        let (key, _) = SigningKey::generate().expect("randomness");
        let folder = tempfile::tempdir().expect("a folder");
        let facts = Facts {
            ledger: "0199".to_owned(),
            from: at(100),
            to: at(200),
            made_at: at(1_000),
            version: "1".to_owned(),
            within_ms: 60_000,
        };
        let blocks = [
            (
                105,
                vec![
                    record(1, 99, "grant_accepted"),
                    record(2, 100, "grant_accepted"),
                ],
            ),
            (
                195,
                vec![
                    record(4, 150, "drift"),
                    record(5, 160, "observed"),
                    record(6, 190, "request_refused"),
                ],
            ),
            (
                205,
                vec![
                    record(7, 199, "drift_ended"),
                    record(8, 200, "grant_accepted"),
                ],
            ),
        ];
        let mut pack = PackWriter::create(folder.path(), facts).expect("writable");
        let (mut previous, mut heads) = (Hash::NONE, Vec::new());
        for (number, (sealed, records)) in (1..).zip(&blocks) {
            for record in records {
                pack.record(record).expect("written");
            }
            let block = Block::seal("0199", number, previous, records, at(*sealed), &key);
            previous = block.hash();
            heads.push(Head {
                number,
                hash: previous,
            });
            pack.block(&block.stored()).expect("written");
        }
        for receipt in [
            receipt(1, 110, Some(2)),
            receipt(2, 120, Some(60)),
            receipt(3, 100, Some(61)),
            receipt(4, 150, None),
        ] {
            pack.receipt(&receipt).expect("written");
        }
        let (manifest, level) = pack.end(signed.then_some(&key)).expect("written");
        Self {
            folder,
            key,
            heads,
            manifest,
            level,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn verified(
        &self,
        head: Option<Head>,
        allow_unsigned: bool,
    ) -> Result<PackReport, PackFinding> {
        verify(
            self.folder.path(),
            &[self.key.public()],
            head,
            allow_unsigned,
        )
    }

    /// What is found after a file was changed, first as it is, then by whoever can also fix the manifest and sign it.
    fn found(name: &str, change: impl Fn(&str) -> String) -> (String, String) {
        let made = Self::new(true);
        let text = fs::read_to_string(made.path(name)).expect("readable");
        fs::write(made.path(name), change(&text)).expect("writable");
        let plain = made.verified(None, false).expect_err(name).to_string();
        let mut manifest: Value =
            serde_json::from_slice(&fs::read(made.path(MANIFEST)).expect("readable"))
                .expect("JSON");
        for entry in manifest["files"].as_array_mut().expect("files") {
            let bytes =
                fs::read(made.path(entry["name"].as_str().expect("a name"))).expect("readable");
            entry["bytes"] = json!(bytes.len());
            entry["sha256"] = json!(crate::audit::tree::of(&bytes).to_string());
        }
        made.sign(&manifest, &made.key);
        let signed = made.verified(None, false).expect_err(name).to_string();
        (plain, signed)
    }

    fn sign(&self, manifest: &Value, key: &SigningKey) {
        use base64::Engine as _;
        let text = manifest.to_string();
        let signature = key.sign(text.as_bytes());
        fs::write(self.path(MANIFEST), text).expect("writable");
        let signature = base64::engine::general_purpose::STANDARD.encode(signature);
        fs::write(self.path(SIGNATURE), signature).expect("writable");
    }
}

fn lines(path: &Path) -> Vec<u64> {
    let text = fs::read_to_string(path).expect("readable");
    let sequence = |line: &str| {
        let line: Value = serde_json::from_str(line).expect("JSON");
        line["sequence"].as_u64().expect("a number")
    };
    text.lines().map(sequence).collect()
}

#[test]
fn a_pack_holds_what_is_of_its_period_and_verifies_by_itself() {
    let made = Made::new(true);
    assert_eq!(lines(&made.path(REQUESTS)), [2, 6]);
    assert_eq!(lines(&made.path(DRIFT)), [4, 7]);
    let report = made
        .verified(made.heads.last().copied(), false)
        .expect("whole");
    assert_eq!(
        (&report.manifest, &report.level),
        (&made.manifest, &made.level)
    );
    assert!(report.is_signed && report.is_head_compared);
    assert_eq!((report.audit.records, report.audit.first_block), (7, 1));
    assert_eq!(report.manifest.sealed_at, at(205));
    // A head of later blocks says nothing about this period.
    let later = Head {
        number: 9,
        hash: Hash::NONE,
    };
    assert!(
        !made
            .verified(Some(later), false)
            .expect("whole")
            .is_head_compared
    );
    let other = Head {
        number: 2,
        hash: Hash::NONE,
    };
    assert!(
        made.verified(Some(other), false).is_err(),
        "history was replaced"
    );
}

#[test]
fn the_service_level_counts_from_due_to_seen_gone() {
    let level = Made::new(true).level;
    assert_eq!(
        (
            level.ended,
            level.measured,
            level.on_time,
            level.late,
            level.given_up
        ),
        (4, 3, 2, 1, 1)
    );
    assert_eq!(
        (level.p50_ms, level.p90_ms, level.max_ms),
        (Some(60_000), Some(61_000), Some(61_000))
    );
    let counted: Vec<(Option<u64>, u64)> = level
        .distribution
        .iter()
        .map(|step| (step.up_to_ms, step.count))
        .filter(|(_, count)| *count > 0)
        .collect();
    assert_eq!(
        counted,
        [(Some(2_500), 1), (Some(60_000), 1), (Some(120_000), 1)]
    );
    let [late] = &level.late_revocations[..] else {
        panic!("one is late");
    };
    assert_eq!((late.took_ms, late.due_at), (61_000, Some(at(100))));
    assert_eq!(late.grant_id, GrantId::new(at(0), [3; 10]).to_string());
}

#[test]
fn every_file_that_was_changed_is_named_even_when_the_manifest_was_made_to_fit() {
    let (plain, signed) = Made::found(AUDIT, |text| {
        text.replacen("grant_accepted", "grant_accepteD", 1)
    });
    assert_eq!(plain, "audit.jsonl was changed after the evidence was made");
    assert_eq!(
        signed,
        "audit.jsonl: record 1 (line 1) was changed after it was sealed"
    );
    let (plain, signed) = Made::found(REQUESTS, |text| {
        text.lines()
            .skip(1)
            .map(|line| format!("{line}\n"))
            .collect()
    });
    assert_eq!(
        plain,
        "requests.jsonl was changed after the evidence was made"
    );
    assert_eq!(
        signed,
        "requests.jsonl: line 1 is not record 2 of the sealed audit"
    );
    let (_, signed) = Made::found(REQUESTS, |text| {
        format!("{text}{{\"sequence\":9,\"event\":{{}}}}\n")
    });
    assert_eq!(
        signed,
        "requests.jsonl: line 3 is no record of the sealed audit"
    );
    let (plain, signed) = Made::found(DRIFT, |text| text.replace("user:1", "user:2"));
    assert_eq!(plain, "drift.jsonl was changed after the evidence was made");
    assert_eq!(
        signed,
        "drift.jsonl: line 1 is not record 4 of the sealed audit"
    );
    let (plain, signed) = Made::found(RECEIPTS, |text| {
        text.lines()
            .take(3)
            .map(|line| format!("{line}\n"))
            .collect()
    });
    assert_eq!(
        plain,
        "receipts.jsonl was changed after the evidence was made"
    );
    assert_eq!(
        signed,
        "service_level.json: it does not follow from receipts.jsonl"
    );
    let (plain, signed) = Made::found(LEVEL, |text| text.replace("\"late\": 1", "\"late\": 0"));
    assert_eq!(
        plain,
        "service_level.json was changed after the evidence was made"
    );
    assert_eq!(
        signed,
        "service_level.json: it does not follow from receipts.jsonl"
    );
}

#[test]
fn what_is_missing_or_was_added_is_named() {
    for name in [AUDIT, REQUESTS, DRIFT, RECEIPTS, LEVEL, MANIFEST, SIGNATURE] {
        let made = Made::new(true);
        fs::remove_file(made.path(name)).expect("removed");
        let told = made.verified(None, false).expect_err(name).to_string();
        assert_eq!(told, format!("{name} is missing"));
    }
    let made = Made::new(true);
    fs::write(made.path("approvals.jsonl"), "").expect("written");
    let told = made
        .verified(None, false)
        .expect_err("one more")
        .to_string();
    assert_eq!(told, "approvals.jsonl is not part of the evidence");
}

#[test]
fn a_manifest_is_believed_only_with_the_signature_of_a_known_key() {
    let made = Made::new(true);
    let text = fs::read_to_string(made.path(MANIFEST)).expect("readable");
    let earlier = serde_json::to_string(&(at(100) - TimeDelta::days(1))).expect("JSON");
    let from = serde_json::to_string(&at(100)).expect("JSON");
    fs::write(made.path(MANIFEST), text.replacen(&from, &earlier, 1)).expect("written");
    assert!(matches!(
        made.verified(None, true),
        Err(PackFinding::Signature)
    ));
    // Signed by somebody else, who also says so.
    let (other, _) = SigningKey::generate().expect("randomness");
    let mut manifest: Value = serde_json::from_str(&text).expect("JSON");
    manifest["key"] = json!(other.id());
    made.sign(&manifest, &other);
    assert!(matches!(
        made.verified(None, true),
        Err(PackFinding::Signature)
    ));
    // Not signed at all: refused, unless that is allowed and said.
    manifest["key"] = Value::Null;
    fs::write(made.path(MANIFEST), manifest.to_string()).expect("written");
    assert!(matches!(
        made.verified(None, false),
        Err(PackFinding::NotSigned)
    ));
    fs::remove_file(made.path(SIGNATURE)).expect("removed");
    assert!(!made.verified(None, true).expect("whole").is_signed);
    assert!(
        !Made::new(false)
            .verified(None, true)
            .expect("whole")
            .is_signed
    );
    fs::write(made.path(MANIFEST), "{}").expect("written");
    assert!(matches!(
        made.verified(None, true),
        Err(PackFinding::Manifest(_))
    ));
}

#[test]
fn evidence_goes_into_an_empty_folder_and_proves_something() {
    let made = Made::new(true);
    let facts = Facts {
        ledger: "0199".to_owned(),
        from: at(0),
        to: at(1),
        made_at: at(2),
        version: "1".to_owned(),
        within_ms: 1,
    };
    let again = PackWriter::create(made.folder.path(), facts.clone());
    assert!(matches!(again, Err(PackError::NotEmpty(_))));
    let folder = tempfile::tempdir().expect("a folder");
    let pack = PackWriter::create(&folder.path().join("new"), facts).expect("writable");
    assert!(matches!(pack.end(None), Err(PackError::NotSealed)));
}
