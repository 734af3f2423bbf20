//! Who may call, shown by real TLS clients; and what each role may do.

use std::net::SocketAddr;
use std::sync::Arc;

use latchkey::api::{Options, pb};
use latchkey::domain::caller::CallerRole;
use latchkey::domain::event::EventKind;
use latchkey::domain::ids::CallerName;
use latchkey::identity::{self, CertificateRule, Registry, Reload, Rule, Tls, TlsPaths};
use latchkey::ports::ledger::{EventFilter, Ledger as _};
use pb::access_service_client::AccessServiceClient;
use pb::connector_service_client::ConnectorServiceClient;
use pb::operations_service_client::OperationsServiceClient;
use tonic::Code;
use tonic::transport::Channel;
use tonic_types::StatusExt as _;

use super::pki::{Authority, Files, Identity, channel};
use super::support::*;

pub(crate) const PLANE: &str = "spiffe://acme/plane";
pub(crate) const OTHER_PLANE: &str = "spiffe://acme/other-plane";
pub(crate) const OPS: &str = "spiffe://acme/ops";
const OTHER_OPS: &str = "spiffe://acme/other-ops";
pub(crate) const GLASS: &str = "spiffe://acme/glass";
const AUDITOR: &str = "spiffe://acme/auditor";

/// A connector behind TLS.
pub(crate) struct Secured {
    pub(crate) bed: Bed,
    address: SocketAddr,
    tls: Arc<Tls>,
    files: Files,
    server: Authority,
    clients: Authority,
}

fn rule(name: &str, role: CallerRole, certificate: CertificateRule) -> Rule {
    Rule {
        name: CallerName::parse(name).expect("valid"),
        role,
        certificate: Some(certificate),
        token: None,
    }
}

impl Secured {
    async fn start() -> Self {
        Self::with(Setup::default()).await
    }

    pub(crate) async fn with(setup: Setup) -> Self {
        let mut bed = Bed::with(setup).await;
        let (server, clients) = (Authority::new("server"), Authority::new("clients"));
        let files = Files::new();
        let own = server.server();
        let paths = TlsPaths {
            certificate: files.put("tls.crt", &own.certificate),
            key: files.put("tls.key", &own.key),
            client_ca: Some(files.put("ca.crt", &clients.pem())),
            revocation_list: Some(files.put("ca.crl", &clients.revoking(&[]))),
            is_client_certificate_required: true,
        };
        let tls = Arc::new(Tls::open(paths, bed.clock()).expect("usable files"));
        let spiffe =
            |name, role, id: &str| rule(name, role, CertificateRule::Spiffe(id.to_owned()));
        let registry = Registry::new(vec![
            spiffe("plane", CallerRole::ControlPlane, PLANE),
            spiffe("other-plane", CallerRole::ControlPlane, OTHER_PLANE),
            spiffe("ops", CallerRole::Operator, OPS),
            spiffe("other-ops", CallerRole::Operator, OTHER_OPS),
            spiffe("audit", CallerRole::Auditor, AUDITOR),
            spiffe("glass", CallerRole::BreakGlass, GLASS),
            rule(
                "by-dns",
                CallerRole::Auditor,
                CertificateRule::Dns("plane.acme.example".to_owned()),
            ),
            rule(
                "by-name",
                CallerRole::Auditor,
                CertificateRule::CommonName("old plane".to_owned()),
            ),
        ])
        .expect("no clash");
        let identity =
            identity::Identity::new(bed.clock(), Some(Arc::clone(&tls)), Vec::new(), registry);
        let address = bed
            .listen(Options {
                identity: Some(Arc::new(identity)),
                ..Options::default()
            })
            .await;
        Self {
            bed,
            address,
            tls,
            files,
            server,
            clients,
        }
    }

    fn showing(&self, identity: &Identity) -> Channel {
        channel(self.address, &self.server, Some(identity))
    }

    pub(crate) fn caller(&self, id: &str) -> Channel {
        self.showing(&self.clients.spiffe(id, 7))
    }
}

/// What a call comes to: its code, the reason where the connector gave one, or that no call came about.
async fn ask(channel: &Channel) -> String {
    let answer = ConnectorServiceClient::new(channel.clone())
        .get_version(pb::GetVersionRequest {})
        .await;
    match answer {
        Ok(_) => "ok".to_owned(),
        Err(status) => match status.get_error_details().error_info() {
            Some(info) => format!("{:?} {}", status.code(), info.reason),
            None => "no connection".to_owned(),
        },
    }
}

#[tokio::test]
async fn only_a_valid_certificate_of_the_right_authority_with_a_configured_name_gets_in() {
    let secured = Secured::start().await;
    let clients = &secured.clients;
    let two = clients.named(&[PLANE, OPS], &[], "x");
    let both = clients.named(&[PLANE], &["plane.acme.example"], "x");
    let rows = [
        ("a configured SPIFFE id", clients.spiffe(PLANE, 1), "ok"),
        (
            "a configured DNS name",
            clients.named(&[], &["Plane.Acme.example"], "x"),
            "ok",
        ),
        (
            "a configured common name",
            clients.named(&[], &[], "old plane"),
            "ok",
        ),
        (
            "the right authority, another name",
            clients.spiffe("spiffe://acme/stranger", 2),
            "Unauthenticated CALLER_UNMAPPED",
        ),
        (
            "two URIs, so that nobody can tell which is meant",
            two,
            "Unauthenticated CALLER_UNMAPPED",
        ),
        (
            "names of two configured callers",
            both,
            "Unauthenticated CALLER_AMBIGUOUS",
        ),
        (
            "the right name of a foreign authority",
            Authority::new("clients").spiffe(PLANE, 3),
            "no connection",
        ),
        (
            "a certificate that has expired",
            clients.until(PLANE, 2025, 12, 31),
            "no connection",
        ),
        (
            "a server's certificate",
            secured.server.server(),
            "no connection",
        ),
    ];
    for (what, identity, expected) in rows {
        assert_eq!(ask(&secured.showing(&identity)).await, expected, "{what}");
    }
    let nothing = channel(secured.address, &secured.server, None);
    assert_eq!(ask(&nothing).await, "no connection", "no certificate");
}

#[tokio::test]
async fn a_revocation_reaches_connections_that_stand_and_spares_the_others() {
    let secured = Secured::start().await;
    let (good, bad) = (
        secured.showing(&secured.clients.spiffe(PLANE, 1)),
        secured.showing(&secured.clients.spiffe(OPS, 2)),
    );
    assert_eq!(ask(&good).await, "ok");
    assert_eq!(ask(&bad).await, "ok");
    secured.files.put("ca.crl", &secured.clients.revoking(&[2]));
    assert!(matches!(secured.tls.reload(), Reload::Changed));
    assert_eq!(ask(&good).await, "ok");
    assert_eq!(ask(&bad).await, "Unauthenticated CERTIFICATE_UNTRUSTED");
    let again = secured.showing(&secured.clients.spiffe(OPS, 2));
    assert_eq!(ask(&again).await, "no connection");
}

#[tokio::test]
async fn a_certificate_that_expires_while_its_connection_stands_is_refused() {
    let secured = Secured::start().await;
    let channel = secured.showing(&secured.clients.until(PLANE, 2026, 1, 2));
    assert_eq!(ask(&channel).await, "ok");
    secured
        .bed
        .clock
        .advance(std::time::Duration::from_secs(86_400));
    assert_eq!(ask(&channel).await, "Unauthenticated CERTIFICATE_EXPIRED");
}

#[tokio::test]
async fn another_authority_takes_over_without_a_restart() {
    let secured = Secured::start().await;
    let old = secured.caller(PLANE);
    assert_eq!(ask(&old).await, "ok");
    let next = Authority::new("next clients");
    secured.files.put("ca.crt", &next.pem());
    secured.files.put("ca.crl", &next.revoking(&[]));
    assert!(matches!(secured.tls.reload(), Reload::Changed));
    assert_eq!(ask(&old).await, "Unauthenticated CERTIFICATE_UNTRUSTED");
    assert_eq!(ask(&secured.caller(PLANE)).await, "no connection");
    assert_eq!(ask(&secured.showing(&next.spiffe(PLANE, 1))).await, "ok");
}

#[tokio::test]
async fn a_new_server_certificate_is_shown_to_the_next_connection() {
    let secured = Secured::start().await;
    let next = Authority::new("next server");
    let own = next.server();
    secured.files.put("tls.crt", &own.certificate);
    // Half of a change: certificate and key do not belong together yet.
    assert!(matches!(secured.tls.reload(), Reload::Kept(Some(_))));
    assert!(
        matches!(secured.tls.reload(), Reload::Kept(None)),
        "said once"
    );
    assert_eq!(
        ask(&secured.caller(PLANE)).await,
        "ok",
        "the old one serves on"
    );
    secured.files.put("tls.key", &own.key);
    assert!(matches!(secured.tls.reload(), Reload::Changed));
    let identity = secured.clients.spiffe(PLANE, 1);
    assert_eq!(
        ask(&channel(secured.address, &next, Some(&identity))).await,
        "ok"
    );
    assert_eq!(ask(&secured.showing(&identity)).await, "no connection");
}

#[tokio::test]
async fn files_that_cannot_be_used_leave_the_old_ones_in_force() {
    let secured = Secured::start().await;
    for (name, text) in [
        ("ca.crt", "not a certificate"),
        ("ca.crl", ""),
        (
            "tls.key",
            "-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n",
        ),
    ] {
        let before = std::fs::read_to_string(secured.files.path(name)).expect("there");
        secured.files.put(name, text);
        assert!(
            matches!(secured.tls.reload(), Reload::Kept(Some(_))),
            "{name}"
        );
        assert_eq!(ask(&secured.caller(PLANE)).await, "ok", "{name}");
        secured.files.put(name, &before);
        assert!(matches!(secured.tls.reload(), Reload::Unchanged), "{name}");
    }
    std::fs::remove_file(secured.files.path("tls.crt")).expect("removed");
    assert!(matches!(secured.tls.reload(), Reload::Kept(Some(_))));
    assert_eq!(ask(&secured.caller(PLANE)).await, "ok");
}

#[tokio::test]
async fn a_peer_that_never_ends_its_handshake_is_closed_at_the_deadline() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let secured = Secured::start().await;
    let mut bed = secured.bed;
    let registry = Registry::new(Vec::new()).expect("empty");
    let identity = identity::Identity::new(bed.clock(), Some(secured.tls), Vec::new(), registry);
    let address = bed
        .listen(Options {
            identity: Some(Arc::new(identity)),
            handshake_timeout: std::time::Duration::from_millis(50),
            ..Options::default()
        })
        .await;
    let mut stream = tokio::net::TcpStream::connect(address)
        .await
        .expect("connected");
    // The head of a record that promises more than ever comes.
    stream
        .write_all(&[0x16, 0x03, 0x01, 0x01, 0x00])
        .await
        .expect("written");
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(
        std::time::Duration::from_secs(20),
        stream.read_to_end(&mut rest),
    );
    assert!(ended.await.is_ok(), "the connector closed it");
}

fn get(id: &str) -> pb::GetGrantRequest {
    pb::GetGrantRequest {
        grant_id: id.to_owned(),
    }
}

#[tokio::test]
async fn a_control_plane_never_reaches_a_grant_of_another_and_an_operator_does() {
    let secured = Secured::start().await;
    let mut plane = AccessServiceClient::new(secured.caller(PLANE));
    let mut other = AccessServiceClient::new(secured.caller(OTHER_PLANE));
    let mut ops = AccessServiceClient::new(secured.caller(OPS));
    let mut auditor = AccessServiceClient::new(secured.caller(AUDITOR));
    let created = plane.create_grant(create("r1")).await.expect("accepted");
    let grant = created.into_inner().grant.expect("a grant");
    assert_eq!(grant.caller, "plane", "the proven name, whatever was told");
    let id = grant.id;

    let unknown = "grt_00000000000000000000000000000000";
    let seen = |status: tonic::Status| (status.code(), status.message().to_owned());
    let foreign = other.get_grant(get(&id)).await.expect_err("foreign");
    assert_eq!(foreign.code(), Code::NotFound);
    if let Err(status) = other.get_grant(get(unknown)).await
        && status.code() == Code::NotFound
    {
        assert_eq!(seen(foreign), seen(status));
    }
    let foreign = other.revoke_grant(revoke(&id)).await.expect_err("foreign");
    assert_eq!(foreign.code(), Code::NotFound);
    // The kill switch of one control plane leaves the grants of the other alone.
    let bulk = pb::RevokeAccessRequest {
        request_id: "off-1".to_owned(),
        integration: "main".to_owned(),
        reason: "leaving".to_owned(),
        selector: Some(pb::revoke_access_request::Selector::Member(
            email("ada@example.com").expect("some"),
        )),
        ..pb::RevokeAccessRequest::default()
    };
    let ended = other.revoke_access(bulk).await.expect("done").into_inner();
    assert_eq!(ended.revoked, 0);

    for reader in [&mut ops, &mut auditor] {
        assert!(reader.get_grant(get(&id)).await.is_ok());
        let listed = reader
            .list_grants(pb::ListGrantsRequest::default())
            .await
            .expect("listed");
        assert_eq!(listed.into_inner().grants.len(), 1);
    }
    let revoked = ops
        .revoke_grant(revoke(&id))
        .await
        .expect("an operator ends every grant")
        .into_inner();
    let state = revoked.grant.expect("a grant").state();
    assert_eq!(state, pb::GrantState::Revoking);
}

#[tokio::test]
async fn a_call_that_is_not_for_the_role_is_refused_and_audited() {
    let secured = Secured::start().await;
    let refused = |status: tonic::Status| {
        let reason = status
            .get_error_details()
            .error_info()
            .map(|info| info.reason.clone());
        (status.code(), reason)
    };
    let expected = (Code::PermissionDenied, Some("ROLE_NOT_ALLOWED".to_owned()));
    for id in [OPS, AUDITOR] {
        let status = AccessServiceClient::new(secured.caller(id))
            .create_grant(create("r1"))
            .await
            .expect_err("not for this role");
        assert_eq!(refused(status), expected, "{id}");
    }
    let status = AccessServiceClient::new(secured.caller(AUDITOR))
        .revoke_grant(revoke("x"))
        .await
        .expect_err("an auditor changes nothing");
    assert_eq!(refused(status), expected);
    let status = OperationsServiceClient::new(secured.caller(PLANE))
        .forget_access(pb::ForgetAccessRequest::default())
        .await
        .expect_err("not a control plane's");
    assert_eq!(refused(status), expected);
    let events = secured
        .bed
        .ledger
        .events(&EventFilter::default(), 0, 100)
        .await
        .expect("readable");
    let audited: Vec<(String, String)> = events
        .into_iter()
        .filter_map(|stored| {
            let EventKind::RequestRefused {
                operation,
                policies,
                ..
            } = stored.event.kind
            else {
                return None;
            };
            let asked = format!("{} {operation}", stored.event.caller?);
            Some((asked, policies.join(",")))
        })
        .collect();
    let row = |text: &str| (text.to_owned(), "latchkey.roles-of-callers".to_owned());
    assert_eq!(
        audited,
        [
            row("ops CreateGrant"),
            row("audit CreateGrant"),
            row("audit RevokeGrant"),
            row("plane ForgetAccess"),
        ]
    );
}
