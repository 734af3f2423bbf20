//! Paths of the API.
//!
//! Owns that an id is one path segment and stays one. Never builds a path that begins elsewhere than expected.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use url::Url;

/// Unreserved characters stay as they are.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// Where every path begins.
pub(super) const PREFIX: &str = "/api/v1";

/// A path that begins with the prefix, its ids encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Path(String);

impl Path {
    /// A path of fixed words, for example `/organizations`.
    pub(super) fn new(words: &'static str) -> Self {
        Self(format!("{PREFIX}{words}"))
    }

    /// Adds an id as one segment. `None` when it could not stay one: empty, or a dot segment.
    pub(super) fn id(mut self, id: &str) -> Option<Self> {
        if matches!(id, "" | "." | "..") {
            return None;
        }
        self.0.push('/');
        self.0.extend(utf8_percent_encode(id, ENCODED));
        Some(self)
    }

    /// Adds fixed words.
    pub(super) fn then(mut self, words: &'static str) -> Self {
        self.0.push_str(words);
        self
    }

    /// The path as text.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// The address below a base; `None` unless what came out is exactly what was put in.
    pub(super) fn below(&self, base: &Url) -> Option<Url> {
        let wanted = format!("{}{}", base.path().trim_end_matches('/'), self.0);
        let mut url = base.clone();
        url.set_path(&wanted);
        (url.path() == wanted && url.origin() == base.origin() && url.query().is_none())
            .then_some(url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_cannot_leave_its_segment() {
        let base = Url::parse("https://api.example.com/proxy/").expect("valid URL");
        for hostile in [
            "../../organizations/1",
            "a/b",
            "a?b=c",
            "a#b",
            "a%2fb",
            "a%2e%2e",
            "a\\b",
            "a;b",
            "a b\n",
            "é",
            "@evil.example",
            "...",
        ] {
            let url = Path::new("/users")
                .id(hostile)
                .expect("not a dot segment")
                .then("/role_assignments")
                .below(&base)
                .expect("unchanged by URL rules");
            let segments: Vec<_> = url.path_segments().expect("a base").collect();
            assert_eq!(segments.len(), 6, "{url}");
            assert_eq!(&segments[..4], ["proxy", "api", "v1", "users"]);
            assert_eq!(url.host_str(), Some("api.example.com"));
        }
        for hostile in ["", ".", ".."] {
            assert_eq!(Path::new("/users").id(hostile), None);
        }
    }
}
