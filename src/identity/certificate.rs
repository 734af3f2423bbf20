//! What a client certificate says of its holder.
//!
//! Owns reading names out of it. Never checks its signature: that was done before, or the names mean nothing.

use chrono::DateTime;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::domain::Timestamp;

/// The names in a certificate, and until when they hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// The SPIFFE id, where exactly one URI stands in it and is one.
    pub spiffe_id: Option<String>,
    /// DNS names, in lower case.
    pub dns: Vec<String>,
    /// The common name, where there is exactly one.
    pub common_name: Option<String>,
    /// Not valid from this instant on.
    pub not_after: Timestamp,
}

impl Leaf {
    /// Reads a certificate in DER; `None` when it cannot be read.
    #[must_use]
    pub fn parse(der: &[u8]) -> Option<Self> {
        let (rest, certificate) = X509Certificate::from_der(der).ok()?;
        if !rest.is_empty() {
            return None;
        }
        let mut uris = Vec::new();
        let mut dns = Vec::new();
        if let Some(names) = certificate.subject_alternative_name().ok()? {
            for name in &names.value.general_names {
                if let GeneralName::URI(uri) = name {
                    uris.push((*uri).to_owned());
                } else if let GeneralName::DNSName(name) = name {
                    dns.push(name.to_ascii_lowercase());
                }
            }
        }
        // An SVID has exactly one URI (SPIFFE X.509-SVID, section 2); with several nobody can say who it is.
        let spiffe_id = match uris.as_slice() {
            [only] if only.starts_with("spiffe://") => Some(only.clone()),
            _ => None,
        };
        let mut common = certificate
            .subject()
            .iter_common_name()
            .map(|name| name.as_str().ok().map(str::to_owned));
        let common_name = match (common.next(), common.next()) {
            (Some(name), None) => name,
            _ => None,
        };
        let not_after = certificate.validity().not_after.timestamp();
        Some(Self {
            spiffe_id,
            dns,
            common_name,
            not_after: DateTime::from_timestamp(not_after, 0)?,
        })
    }
}
