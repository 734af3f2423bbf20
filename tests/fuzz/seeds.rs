//! Samples that have to be made: signed texts, sealed exports, messages of the wire.
//!
//! Owns fixed keys, so that every run begins with the same bytes. They prove nothing to anybody: they stand here.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::TimeDelta;
use jsonwebtoken::{Algorithm, EncodingKey, Header as TokenHeader};
use latchkey::api::{self, pb};
use latchkey::audit::pack::{Facts, PackWriter};
use latchkey::audit::tree::Hash;
use latchkey::audit::verify::Head;
use latchkey::audit::{Block, Header, SigningKey, export};
use latchkey::domain::Timestamp;
use latchkey::domain::asked::Asked;
use latchkey::identity::seal::{
    ApprovalDraft, ApproverOptions, EmergencyKeyOptions, Keyring, KeyringOptions, SealKey,
    TokenDraft,
};
use latchkey::ports::Seals as _;
use latchkey::ports::audit::{AuditBlock, AuditRecord};
use latchkey::witness::record::Record;
use prost::Message as _;
use secrecy::SecretString;
use serde_json::Value;

/// The present, in seconds since 1970.
pub(crate) const NOW: i64 = 1_800_000_000;

pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_timestamp(seconds, 0).expect("in range")
}

/// Ed25519 in PKCS#8, of a seed that everybody knows.
fn der(seed: u8) -> Vec<u8> {
    let head = [
        0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04,
        0x20,
    ];
    head.into_iter().chain([seed; 32]).collect()
}

fn seal_key(seed: u8) -> SealKey {
    // Put together here, so that no search for keys finds one.
    let label = ["PRIVATE", "KEY"].join(" ");
    let text = format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        STANDARD.encode(der(seed))
    );
    SealKey::parse(&SecretString::from(text)).expect("a key")
}

/// The keyring of a connector, and what was signed for it.
pub(crate) struct Ring {
    pub(crate) ring: Keyring,
    pub(crate) texts: Vec<String>,
    pub(crate) tokens: BTreeSet<String>,
}

const ASKED: &str = r#"{"kind":"create","request_id":"r-1","integration":"main","beneficiary":"ada@example.com",
"role":"deployment-viewer","targets":["deployment/a"],"duration_s":3600}"#;

pub(crate) static RING: LazyLock<Ring> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str, seed| {
        let path = folder.path().join(name);
        std::fs::write(&path, seal_key(seed).public_pem()).expect("written");
        path
    };
    let ring = Keyring::open(KeyringOptions {
        approvers: vec![ApproverOptions {
            name: "bob".to_owned(),
            names: vec!["bob@example.com".to_owned()],
            key_file: path("bob", 1),
        }],
        max_age: TimeDelta::days(1),
        emergency: vec![EmergencyKeyOptions {
            name: "safe".to_owned(),
            key_file: path("safe", 2),
        }],
    })
    .expect("usable keys");
    let asked: Asked = serde_json::from_str(ASKED).expect("a request");
    let approval = seal_key(1).approve(&ApprovalDraft {
        approver: "bob".to_owned(),
        id: "approval-1".to_owned(),
        now: at(NOW - 60),
        lasts: TimeDelta::hours(1),
        asked: asked.normalised().expect("a good request"),
    });
    let token = seal_key(2).seal(TokenDraft {
        key: "safe".to_owned(),
        id: "token-1".to_owned(),
        now: at(NOW - 60),
        not_before: at(NOW - 60),
        not_after: at(NOW + 86_400),
        integration: "main".to_owned(),
        beneficiaries: ["ada@example.com".to_owned()].into(),
        role: "deployment-viewer".to_owned(),
        targets: ["deployment/a".to_owned()].into(),
        application_roles: None,
        max_duration_s: 3600,
        reason: "drill".to_owned(),
    });
    let texts = vec![approval.expect("signed"), token.expect("sealed")];
    let mut tokens = BTreeSet::new();
    tokens.insert(ring.approval(&texts[0], at(NOW)).expect("our own").token);
    tokens.insert(ring.emergency(&texts[1], at(NOW)).expect("our own").token);
    Ring {
        ring,
        texts,
        tokens,
    }
});

/// Any claims, signed by the configured key of that kind.
pub(crate) fn signed(kind: &str, claims: &Value) -> String {
    let mut header = TokenHeader::new(Algorithm::EdDSA);
    header.typ = Some(kind.to_owned());
    let seed = if kind.contains("approval") { 1 } else { 2 };
    jsonwebtoken::encode(&header, claims, &EncodingKey::from_ed_der(&der(seed))).unwrap_or_default()
}

/// Seals the audit.
pub(crate) static SIGNER: LazyLock<SigningKey> = LazyLock::new(|| {
    SigningKey::parse(&SecretString::from(STANDARD.encode(der(3)))).expect("a key")
});

pub(crate) fn record(sequence: u64) -> AuditRecord {
    let kind = ["observed", "grant_accepted", "drift", "request_refused"]
        [usize::try_from(sequence % 4).expect("small")];
    let at = at(NOW + i64::try_from(sequence).expect("small")).to_rfc3339();
    AuditRecord {
        sequence,
        body: format!(
            r#"{{"at":"{at}","integration":"main","subject":"user:1","kind":{{"event":"{kind}"}}}}"#
        ),
    }
}

/// Two blocks and their records.
static BLOCKS: LazyLock<Vec<(Vec<AuditRecord>, Block)>> = LazyLock::new(|| {
    let mut previous = Hash::NONE;
    let mut blocks = Vec::new();
    for (number, sequences) in [(1, vec![1, 2, 3]), (2, vec![5, 6, 8])] {
        let records: Vec<AuditRecord> = sequences.into_iter().map(record).collect();
        let block = Block::seal("0199", number, previous, &records, at(NOW + 100), &SIGNER);
        previous = block.hash();
        blocks.push((records, block));
    }
    blocks
});

/// The heads that were sealed.
pub(crate) static HEADS: LazyLock<Vec<Head>> = LazyLock::new(|| {
    let head = |block: &Block| Head {
        number: block.header.number,
        hash: block.hash(),
    };
    BLOCKS.iter().map(|(_, block)| head(block)).collect()
});

/// The lines that were sealed.
pub(crate) static LINES: LazyLock<BTreeSet<Vec<u8>>> = LazyLock::new(|| {
    let records = BLOCKS.iter().flat_map(|(records, _)| records);
    records
        .map(|one| export::record(one).into_bytes())
        .collect()
});

fn exported(blocks: &[(Vec<AuditRecord>, Block)]) -> Vec<u8> {
    let mut text = String::new();
    for (records, block) in blocks {
        for record in records {
            text.push_str(&export::record(record));
            text.push('\n');
        }
        text.push_str(&export::block(&block.stored()));
        text.push('\n');
    }
    text.into_bytes()
}

/// A block with this header over record 1, properly signed.
pub(crate) fn block_of(header: &Header) -> AuditBlock {
    let leaves = latchkey::audit::tree::leaf(1, record(1).body.as_bytes())
        .0
        .to_vec();
    AuditBlock {
        number: header.number,
        last: header.last(),
        header: header.text(),
        leaves,
        signature: SIGNER.sign(header.text().as_bytes()),
    }
}

/// Every file of a pack that verifies.
pub(crate) static PACK: LazyLock<Vec<(String, Vec<u8>)>> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path().join("pack");
    let facts = Facts {
        ledger: "0199".to_owned(),
        from: at(NOW),
        to: at(NOW + 50),
        made_at: at(NOW + 200),
        version: "1".to_owned(),
        within_ms: 60_000,
    };
    let mut pack = PackWriter::create(&place, facts).expect("writable");
    for (records, block) in BLOCKS.iter() {
        for record in records {
            pack.record(record).expect("written");
        }
        pack.block(&block.stored()).expect("written");
    }
    pack.end(Some(&SIGNER)).expect("written");
    let mut files: Vec<(String, Vec<u8>)> = std::fs::read_dir(&place)
        .expect("readable")
        .map(|entry| {
            let entry = entry.expect("readable");
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, std::fs::read(entry.path()).expect("readable"))
        })
        .collect();
    files.sort();
    files
});

fn tagged(at: usize, bytes: Vec<u8>) -> Vec<u8> {
    let tag = u8::try_from(at).expect("few");
    [tag].into_iter().chain(bytes).collect()
}

fn messages() -> Vec<Vec<u8>> {
    use pb::target::Kind;
    let text = str::to_owned;
    let member = |kind| Some(pb::Principal { kind: Some(kind) });
    let user = || member(pb::principal::Kind::UserId(text("1014289666")));
    let target = |kind| pb::Target { kind: Some(kind) };
    let spec = pb::GrantSpec {
        integration: text("main"),
        beneficiary: member(pb::principal::Kind::Email(text("ada@example.com"))),
        requester: text("bob"),
        justification: text("INC-7"),
        role: text("deployment-viewer"),
        targets: vec![
            target(Kind::Deployment(pb::DeploymentTarget {
                deployment_id: text("0f1e"),
            })),
            target(Kind::AllDeployments(pb::AllDeploymentsTarget {})),
            target(Kind::Organization(pb::OrganizationTarget {})),
            target(Kind::Project(pb::ProjectTarget {
                project_type: 3,
                project_id: text("a1b2"),
            })),
            target(Kind::AllProjects(pb::AllProjectsTarget { project_type: 1 })),
        ],
        application_roles: Some(pb::ApplicationRoles {
            names: vec![text("viewer"), text("t1_analyst")],
        }),
        duration: Some(prost_types::Duration {
            seconds: 3600,
            nanos: 0,
        }),
        starts_at: Some(prost_types::Timestamp {
            seconds: NOW,
            nanos: 5,
        }),
        not_after: Some(prost_types::Timestamp {
            seconds: NOW + 9000,
            nanos: 0,
        }),
        invite: true,
    };
    let grant_id = || text("0190a6d8-1b2c-7def-8123-456789abcdef");
    let create = pb::CreateGrantRequest {
        request_id: text("r-1"),
        spec: Some(spec.clone()),
        wait: 1,
        approvals: vec![text("a.b.c")],
        ..pb::CreateGrantRequest::default()
    };
    let plan = pb::PlanGrantRequest {
        spec: Some(spec),
        ..pb::PlanGrantRequest::default()
    };
    let extend = pb::ExtendGrantRequest {
        request_id: text("r-2"),
        grant_id: grant_id(),
        duration: Some(prost_types::Duration {
            seconds: 60,
            nanos: 0,
        }),
        requester: text("bob"),
        reason: text("longer"),
        ..pb::ExtendGrantRequest::default()
    };
    let revoke = pb::RevokeGrantRequest {
        which: Some(pb::revoke_grant_request::Which::GrantId(grant_id())),
        requester: text("bob"),
        reason: text("over"),
    };
    let bulk = pb::RevokeAccessRequest {
        request_id: text("r-3"),
        integration: text("main"),
        selector: Some(pb::revoke_access_request::Selector::Member(
            user().expect("somebody"),
        )),
        requester: text("bob"),
        reason: text("left"),
        ..pb::RevokeAccessRequest::default()
    };
    let drain = pb::DrainRequest {
        integration: text("main"),
        requester: text("bob"),
        reason: text("moving"),
        ..pb::DrainRequest::default()
    };
    let list = pb::ListGrantsRequest {
        filter: Some(pb::GrantFilter {
            integration: text("main"),
            states: vec![1, 2, 6],
            beneficiary: user(),
            target: Some(target(Kind::AllDeployments(pb::AllDeploymentsTarget {}))),
        }),
        page_size: 50,
        page_token: text("abc"),
    };
    let explain = pb::ExplainAccessRequest {
        member: user(),
        ..pb::ExplainAccessRequest::default()
    };
    let all = [
        create.encode_to_vec(),
        plan.encode_to_vec(),
        extend.encode_to_vec(),
        revoke.encode_to_vec(),
        bulk.encode_to_vec(),
        drain.encode_to_vec(),
        list.encode_to_vec(),
        explain.encode_to_vec(),
    ];
    assert_eq!(all.len(), api::fuzz::REQUESTS.len());
    all.into_iter()
        .enumerate()
        .map(|(at, bytes)| tagged(at, bytes))
        .collect()
}

/// A connection: preface, settings, a call with a body, pings, a reset.
fn connection() -> Vec<u8> {
    let frame = |kind: u8, flags: u8, stream: u8, body: &[u8]| {
        let length = u8::try_from(body.len()).expect("short");
        [&[0, 0, length, kind, flags, 0, 0, 0, stream], body].concat()
    };
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        frame(4, 0, 0, b""),
        frame(1, 4, 1, b"headers of a call"),
        frame(0, 1, 1, b"\0\0\0\0\0"),
        frame(6, 0, 0, b"12345678"),
        frame(1, 4, 3, b"headers of another"),
        frame(3, 0, 3, &[0, 0, 0, 8]),
    ]
    .concat()
}

/// The samples of a target that are made.
pub(crate) fn of(name: &str) -> Vec<Vec<u8>> {
    match name {
        "requests" => messages(),
        "sealed" => RING
            .texts
            .iter()
            .map(|text| text.clone().into_bytes())
            .collect(),
        "sealed_claims" => RING
            .texts
            .iter()
            .filter_map(|text| latchkey::identity::seal::claims_of(text))
            .map(|(_, claims)| claims.to_string().into_bytes())
            .collect(),
        "page_tokens" => ["", "cursor", "0190a6d8-1b2c-7def-8123-456789abcdef"]
            .map(|cursor| api::fuzz::token("ListGrants", "filter", cursor).into_bytes())
            .to_vec(),
        "exports" => vec![exported(&BLOCKS), exported(&BLOCKS[..1])],
        "headers" => {
            let one = Block::seal("0199", 1, Hash::NONE, &[record(1)], at(NOW), &SIGNER);
            let mut texts: Vec<Vec<u8>> = BLOCKS
                .iter()
                .map(|(_, block)| block.header.text().into_bytes())
                .collect();
            texts.push(one.header.text().into_bytes());
            texts
        }
        "packs" => PACK
            .iter()
            .map(|(name, content)| [name.as_bytes(), b"\n", content].concat())
            .collect(),
        "frames" => vec![connection()],
        "witness" => vec![Record::Tick { mark: 7 }.line()],
        "policy_texts" => vec![latchkey::law::DEFAULT.as_bytes().to_vec()],
        _ => Vec::new(),
    }
}
