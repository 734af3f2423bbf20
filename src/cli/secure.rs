//! The connection to a connector that asks who calls.
//!
//! Owns reading certificate, key and token, and the TLS of the client. Never prints what it read, and never goes on
//! without checking whom it talks to.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::body::Body;
use tonic::transport::{Channel, Endpoint};
use tower::Service;

use super::args::Global;
use super::exit::Failure;

const EXAMPLE: &str = "see `latchkey help`: --tls-ca, --tls-cert, --tls-key and --token-file";

fn read(what: &str, path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|error| {
        Failure::usage(
            format!("{what} {} cannot be read: {}", path.display(), error.kind()),
            EXAMPLE,
        )
    })
}

fn certificates(what: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let text = read(what, path)?;
    let found: Option<Vec<_>> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .ok();
    found.filter(|all| !all.is_empty()).ok_or_else(|| {
        Failure::usage(
            format!("{what} {} holds no PEM certificate", path.display()),
            EXAMPLE,
        )
    })
}

/// The token of the caller, where one is given. Read once for each command.
pub(super) fn token(global: &Global) -> Result<Option<http::HeaderValue>, Failure> {
    let Some(path) = &global.credentials.token_file else {
        return Ok(None);
    };
    let text = String::from_utf8(read("--token-file", path)?).unwrap_or_default();
    let mut value = http::HeaderValue::try_from(format!("Bearer {}", text.trim()))
        .ok()
        .filter(|_| !text.trim().is_empty())
        .ok_or_else(|| {
            Failure::usage(
                format!("--token-file {} holds no token", path.display()),
                EXAMPLE,
            )
        })?;
    value.set_sensitive(true);
    Ok(Some(value))
}

/// A channel over TLS, made by the first call.
pub(super) fn channel(
    global: &Global,
    url: &url::Url,
    endpoint: Endpoint,
) -> Result<Channel, Failure> {
    let wrong = |what: String| Failure::usage(what, EXAMPLE);
    let Some(authority) = &global.credentials.tls_ca else {
        return Err(wrong(
            "--server begins with https, and nothing says whose certificate it may have".to_owned(),
        ));
    };
    let mut roots = RootCertStore::empty();
    for one in certificates("--tls-ca", authority)? {
        roots
            .add(one)
            .map_err(|error| wrong(format!("--tls-ca: {error}")))?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(
        rustls::crypto::aws_lc_rs::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .map_err(|error| wrong(error.to_string()))?
    .with_root_certificates(roots);
    let mut config = match (&global.credentials.tls_cert, &global.credentials.tls_key) {
        (None, None) => builder.with_no_client_auth(),
        (Some(certificate), Some(key)) => {
            let chain = certificates("--tls-cert", certificate)?;
            let key = PrivateKeyDer::from_pem_slice(&read("--tls-key", key)?)
                .map_err(|_| wrong(format!("--tls-key {} holds no PEM key", key.display())))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| wrong(format!("--tls-cert and --tls-key: {error}")))?
        }
        (_, _) => {
            return Err(wrong(
                "--tls-cert and --tls-key belong together, and one is missing".to_owned(),
            ));
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let host = url.host_str().unwrap_or_default();
    // A URL has brackets around these addresses, a certificate has none.
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| wrong(format!("--server: {host} cannot stand in a certificate")))?;
    let dial = Dial {
        host: host.to_owned(),
        port: url.port().unwrap_or(443),
        name,
        tls: TlsConnector::from(Arc::new(config)),
    };
    Ok(endpoint.connect_with_connector_lazy(dial))
}

/// Connects by TLS.
#[derive(Clone)]
struct Dial {
    host: String,
    port: u16,
    name: ServerName<'static>,
    tls: TlsConnector,
}

type Dialled = Result<TokioIo<TlsStream<TcpStream>>, std::io::Error>;

impl Service<http::Uri> for Dial {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Dialled> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), std::io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        let Self {
            host,
            port,
            name,
            tls,
        } = self.clone();
        Box::pin(async move {
            let stream = TcpStream::connect((host.as_str(), port)).await?;
            stream.set_nodelay(true)?;
            Ok(TokioIo::new(tls.connect(name, stream).await?))
        })
    }
}

/// A channel that shows the token with every call.
#[derive(Debug, Clone)]
pub(super) struct Shown {
    channel: Channel,
    token: Option<http::HeaderValue>,
}

impl Shown {
    pub(super) fn new(channel: Channel, token: Option<http::HeaderValue>) -> Self {
        Self { channel, token }
    }
}

impl Service<http::Request<Body>> for Shown {
    type Response = <Channel as Service<http::Request<Body>>>::Response;
    type Error = <Channel as Service<http::Request<Body>>>::Error;
    type Future = <Channel as Service<http::Request<Body>>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.channel.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        if let Some(token) = &self.token {
            request
                .headers_mut()
                .insert(http::header::AUTHORIZATION, token.clone());
        }
        self.channel.call(request)
    }
}

/// Where the credentials of the command line are, for arguments.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Global options")]
pub struct Credentials {
    /// Authority of the connector's certificate, in PEM; needed with https
    #[arg(
        long,
        global = true,
        env = "LATCHKEY_TLS_CA",
        hide_env_values = true,
        value_name = "FILE"
    )]
    pub tls_ca: Option<PathBuf>,
    /// Certificate to show to the connector, in PEM
    #[arg(
        long,
        global = true,
        env = "LATCHKEY_TLS_CERT",
        hide_env_values = true,
        value_name = "FILE"
    )]
    pub tls_cert: Option<PathBuf>,
    /// Private key of that certificate, in PEM
    #[arg(
        long,
        global = true,
        env = "LATCHKEY_TLS_KEY",
        hide_env_values = true,
        value_name = "FILE"
    )]
    pub tls_key: Option<PathBuf>,
    /// File with a bearer token to show to the connector
    #[arg(
        long,
        global = true,
        env = "LATCHKEY_TOKEN_FILE",
        hide_env_values = true,
        value_name = "FILE"
    )]
    pub token_file: Option<PathBuf>,
}
