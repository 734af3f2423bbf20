//! Bearer tokens: a real server of keys, tokens signed here, time by hand.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use latchkey::api::{Options, pb};
use latchkey::domain::caller::CallerRole;
use latchkey::domain::ids::CallerName;
use latchkey::identity::{Identity, Issuer, IssuerOptions, Registry, Rule, TokenRule};
use latchkey::ports::Clock as _;
use pb::connector_service_client::ConnectorServiceClient;
use rcgen::KeyPair;
use serde_json::{Value, json};
use tonic::Request;
use tonic::transport::{Channel, Endpoint};
use tonic_types::StatusExt as _;

use super::support::*;

/// A key of the issuer.
struct Key {
    kid: String,
    pair: KeyPair,
}

impl Key {
    fn new(kid: &str) -> Self {
        Self {
            kid: kid.to_owned(),
            pair: KeyPair::generate().expect("a key"),
        }
    }

    fn private(&self) -> EncodingKey {
        EncodingKey::from_ec_pem(self.pair.serialize_pem().as_bytes()).expect("a key")
    }

    fn public(&self) -> Value {
        let mut jwk = Jwk::from_encoding_key(&self.private(), Algorithm::ES256).expect("a key");
        jwk.common.key_id = Some(self.kid.clone());
        serde_json::to_value(jwk).expect("JSON")
    }

    fn sign(&self, claims: &Value) -> String {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(self.kid.clone());
        jsonwebtoken::encode(&header, claims, &self.private()).expect("signed")
    }
}

/// What the issuer publishes now, and how often it was asked.
#[derive(Debug, Default)]
struct Published {
    keys: Mutex<Vec<Value>>,
    is_down: Mutex<bool>,
    asked: AtomicUsize,
}

struct World {
    bed: Bed,
    channel: Channel,
    issuer: String,
    published: Arc<Published>,
}

impl World {
    async fn start(keys: &[&Key]) -> Self {
        let mut bed = Bed::start().await;
        let published = Arc::new(Published::default());
        *published.keys.lock().expect("not poisoned") =
            keys.iter().map(|key| key.public()).collect();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a free port");
        let issuer = format!("http://{}/realm", listener.local_addr().expect("bound"));
        let (named, shared) = (issuer.clone(), Arc::clone(&published));
        let routes = axum::Router::new()
            .route(
                "/realm/.well-known/openid-configuration",
                axum::routing::get(move || {
                    let document = json!({"issuer": named, "jwks_uri": format!("{named}/keys")});
                    async move { axum::Json(document) }
                }),
            )
            .route(
                "/realm/keys",
                axum::routing::get(move || {
                    shared.asked.fetch_add(1, Ordering::SeqCst);
                    let down = *shared.is_down.lock().expect("not poisoned");
                    let keys = shared.keys.lock().expect("not poisoned").clone();
                    async move {
                        if down {
                            Err(http::StatusCode::BAD_GATEWAY)
                        } else {
                            Ok(axum::Json(json!({ "keys": keys })))
                        }
                    }
                }),
            );
        bed.serving.spawn(async move {
            axum::serve(listener, routes).await.expect("served");
        });
        let options = IssuerOptions {
            issuer: issuer.clone(),
            audience: "latchkey".to_owned(),
            jwks_url: None,
            clock_skew: Duration::from_secs(30),
            ca_file: None,
        };
        let rule = |name: &str, role, claim: &str, value: &str| Rule {
            name: CallerName::parse(name).expect("valid"),
            role,
            certificate: None,
            token: Some(TokenRule {
                issuer: issuer.clone(),
                claim: claim.to_owned(),
                value: value.to_owned(),
            }),
        };
        let registry = Registry::new(vec![
            rule("plane", CallerRole::ControlPlane, "sub", "plane-1"),
            rule("ops", CallerRole::Operator, "groups", "latchkey-ops"),
        ])
        .expect("no clash");
        let known = Issuer::new(options, bed.clock()).expect("an issuer");
        let identity = Identity::new(bed.clock(), None, vec![known], registry);
        let address = bed
            .listen(Options {
                identity: Some(Arc::new(identity)),
                ..Options::default()
            })
            .await;
        let channel = Endpoint::from_shared(format!("http://{address}"))
            .expect("valid")
            .connect_lazy();
        Self {
            bed,
            channel,
            issuer,
            published,
        }
    }

    fn claims(&self) -> Value {
        let now = self.bed.clock.now().timestamp();
        json!({
            "iss": self.issuer, "aud": ["other", "latchkey"], "sub": "plane-1",
            "iat": now, "exp": now + 600,
        })
    }

    async fn ask(&self, authorization: &str) -> String {
        let mut request = Request::new(pb::GetVersionRequest {});
        if !authorization.is_empty() {
            request.metadata_mut().insert(
                "authorization",
                authorization.parse().expect("a header value"),
            );
        }
        let answer = ConnectorServiceClient::new(self.channel.clone())
            .get_version(request)
            .await;
        match answer {
            Ok(_) => "ok".to_owned(),
            Err(status) => status
                .get_error_details()
                .error_info()
                .map_or_else(|| status.to_string(), |info| info.reason.clone()),
        }
    }

    async fn bearer(&self, token: &str) -> String {
        self.ask(&format!("Bearer {token}")).await
    }

    fn publish(&self, keys: &[&Key]) {
        *self.published.keys.lock().expect("not poisoned") =
            keys.iter().map(|key| key.public()).collect();
    }

    fn asked(&self) -> usize {
        self.published.asked.load(Ordering::SeqCst)
    }
}

fn encode(part: &Value) -> String {
    URL_SAFE_NO_PAD.encode(part.to_string())
}

#[tokio::test]
async fn only_a_token_of_the_issuer_for_us_and_now_gets_in() {
    let key = Key::new("k1");
    let world = World::start(&[&key]).await;
    let now = world.bed.clock.now().timestamp();
    let with = |name: &str, value: Value| {
        let mut claims = world.claims();
        claims[name] = value;
        key.sign(&claims)
    };
    let without = |name: &str| {
        let mut claims = world.claims();
        claims.as_object_mut().expect("an object").remove(name);
        key.sign(&claims)
    };
    let good = key.sign(&world.claims());
    assert_eq!(world.bearer(&good).await, "ok");
    let rows = [
        ("one audience", with("aud", json!("latchkey")), "ok"),
        ("within the skew", with("exp", json!(now - 29)), "ok"),
        (
            "another audience",
            with("aud", json!("elsewhere")),
            "TOKEN_AUDIENCE",
        ),
        ("no audience", without("aud"), "TOKEN_CLAIMS"),
        ("expired", with("exp", json!(now - 30)), "TOKEN_EXPIRED"),
        ("never expires", without("exp"), "TOKEN_CLAIMS"),
        (
            "expires in words",
            with("exp", json!("tomorrow")),
            "TOKEN_CLAIMS",
        ),
        ("not yet", with("nbf", json!(now + 31)), "TOKEN_EARLY"),
        (
            "from the future",
            with("iat", json!(now + 31)),
            "TOKEN_EARLY",
        ),
        (
            "another issuer",
            with("iss", json!("https://idp.example")),
            "TOKEN_ISSUER",
        ),
        ("nobody", without("sub"), "TOKEN_CLAIMS"),
        (
            "somebody else",
            with("sub", json!("plane-2")),
            "CALLER_UNMAPPED",
        ),
        ("not a token", "x.y".to_owned(), "TOKEN_MALFORMED"),
    ];
    for (what, token, expected) in rows {
        assert_eq!(world.bearer(&token).await, expected, "{what}");
    }
    assert_eq!(world.ask("").await, "CREDENTIALS_MISSING");
    assert_eq!(world.ask(&format!("Basic {good}")).await, "TOKEN_MALFORMED");
    assert_eq!(world.asked(), 1, "the keys are kept");
}

#[tokio::test]
async fn a_token_that_chooses_how_it_is_checked_is_refused() {
    let key = Key::new("k1");
    let world = World::start(&[&key]).await;
    let claims = world.claims();
    let unsigned = |algorithm: &str| {
        let header = json!({"alg": algorithm, "typ": "JWT", "kid": "k1"});
        format!("{}.{}.", encode(&header), encode(&claims))
    };
    for algorithm in ["none", "None", "NONE", "HS256", "HS512", "dir"] {
        assert_eq!(
            world.bearer(&unsigned(algorithm)).await,
            "TOKEN_ALGORITHM",
            "{algorithm}"
        );
    }
    // The public key taken for a shared secret: everybody knows it.
    let mut header = Header::new(Algorithm::HS256);
    header.kid = Some("k1".to_owned());
    let secret = EncodingKey::from_secret(key.pair.public_key_pem().as_bytes());
    let forged = jsonwebtoken::encode(&header, &claims, &secret).expect("signed");
    assert_eq!(world.bearer(&forged).await, "TOKEN_ALGORITHM");
    // The right algorithm by somebody else's key, under the name of the issuer's.
    let forged = Key::new("k1").sign(&claims);
    assert_eq!(world.bearer(&forged).await, "TOKEN_SIGNATURE");
    // A key that comes along with the token.
    let own = Key::new("own");
    let mut header = Header::new(Algorithm::ES256);
    header.jwk = serde_json::from_value(own.public()).ok();
    header.kid = Some("own".to_owned());
    let forged = jsonwebtoken::encode(&header, &claims, &own.private()).expect("signed");
    assert_eq!(world.bearer(&forged).await, "TOKEN_KEY");
    // A claim changed after it was signed.
    let good = key.sign(&claims);
    let parts: Vec<&str> = good.split('.').collect();
    let mut altered = claims.clone();
    altered["sub"] = json!("ops");
    let forged = format!("{}.{}.{}", parts[0], encode(&altered), parts[2]);
    assert_eq!(world.bearer(&forged).await, "TOKEN_SIGNATURE");
    // Extensions that must be understood.
    let header = json!({"alg": "ES256", "kid": "k1", "crit": ["b64"], "b64": false});
    let forged = format!("{}.{}.{}", encode(&header), parts[1], parts[2]);
    assert_eq!(world.bearer(&forged).await, "TOKEN_MALFORMED");
}

#[tokio::test]
async fn a_key_that_is_new_at_the_issuer_is_taken_and_one_that_is_gone_is_not() {
    let (old, new) = (Key::new("old"), Key::new("new"));
    let world = World::start(&[&old]).await;
    assert_eq!(world.bearer(&old.sign(&world.claims())).await, "ok");
    world.publish(&[&new]);
    world.bed.clock.advance(Duration::from_secs(6));
    assert_eq!(world.bearer(&new.sign(&world.claims())).await, "ok");
    assert_eq!(world.bearer(&old.sign(&world.claims())).await, "TOKEN_KEY");
    assert_eq!(world.asked(), 2);
}

#[tokio::test]
async fn a_rotation_is_noticed_also_where_tokens_do_not_name_their_key() {
    let (old, new) = (Key::new("old"), Key::new("new"));
    let world = World::start(&[&old]).await;
    let nameless = |key: &Key| {
        let header = Header::new(Algorithm::ES256);
        jsonwebtoken::encode(&header, &world.claims(), &key.private()).expect("signed")
    };
    assert_eq!(world.bearer(&nameless(&old)).await, "ok");
    world.publish(&[&new]);
    world.bed.clock.advance(Duration::from_secs(6));
    assert_eq!(world.bearer(&nameless(&new)).await, "ok");
    assert_eq!(world.bearer(&nameless(&old)).await, "TOKEN_SIGNATURE");
}

#[tokio::test]
async fn made_up_keys_do_not_make_us_ask_again_and_again() {
    let key = Key::new("k1");
    let world = World::start(&[&key]).await;
    assert_eq!(world.bearer(&key.sign(&world.claims())).await, "ok");
    world.bed.clock.advance(Duration::from_secs(6));
    for number in 0..20 {
        let forged = Key::new(&format!("made-up-{number}")).sign(&world.claims());
        assert_eq!(world.bearer(&forged).await, "TOKEN_KEY");
    }
    assert_eq!(world.asked(), 2, "once at first, once for all of them");
}

#[tokio::test]
async fn known_keys_outlive_the_issuer_for_a_day() {
    let key = Key::new("k1");
    let world = World::start(&[&key]).await;
    assert_eq!(world.bearer(&key.sign(&world.claims())).await, "ok");
    *world.published.is_down.lock().expect("not poisoned") = true;
    world.bed.clock.advance(Duration::from_secs(3_600));
    assert_eq!(world.bearer(&key.sign(&world.claims())).await, "ok");
    let unknown = Key::new("k2").sign(&world.claims());
    world.bed.clock.advance(Duration::from_secs(6));
    assert_eq!(world.bearer(&unknown).await, "ISSUER_UNAVAILABLE");
    world.bed.clock.advance(Duration::from_secs(86_400));
    let late = key.sign(&world.claims());
    assert_eq!(world.bearer(&late).await, "ISSUER_UNAVAILABLE");
}
