//! Settings of the client.
//!
//! Owns every number with its reason, and the check of the base address. Never holds the key.

use std::time::Duration;

use url::Url;

use super::limiter::LimiterOptions;
use crate::domain::host::is_loopback;
use crate::domain::ids::OrganizationId;

/// How to reach one Elastic Cloud organization.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the API is, without `/api/v1`. HTTPS, except on a loopback host.
    pub base_url: Url,
    /// The organization that the key must see; without it, the only one that it sees.
    pub organization: Option<OrganizationId>,
    /// Proxy for every call. Proxies of the environment are never used, so that nobody redirects the key by
    /// setting a variable.
    pub proxy: Option<Url>,
    /// Whole time of a mutation from its first byte, repetitions included. Half of an ownership claim of 5 s: an
    /// owner that was replaced cannot still have a call on its way.
    pub mutation_budget: Duration,
    /// How long a mutation may wait for its turn before anything is sent. Longer, and the plan that asked for it
    /// would be stale.
    pub mutation_wait: Duration,
    /// Whole time of a read, waiting and repetitions included: within the patience of a person at a console.
    pub read_budget: Duration,
    /// Time of one attempt of a read. A third of the budget leaves room for repetition.
    pub read_attempt: Duration,
    /// Whole time of reading the members: 50,000 of them are some 50 MB, which a slow line carries in this time. Each
    /// attempt has a quarter of it to begin to be answered.
    pub members_budget: Duration,
    /// Whole time of a read of the members that a removal waits for. Longer, and the removal goes without: late
    /// access is worse than a neighbour that has to be put back from memory.
    pub urgent_read: Duration,
    /// Longest silence within a streamed body. A line that says nothing for so long is broken.
    pub idle: Duration,
    /// Time to connect, TLS included. Well below the mutation budget, so that a dead address is known for certain
    /// to have taken nothing and can be tried again.
    pub connect: Duration,
    /// How long an unused connection is kept. Shorter than the idle time of usual load balancers, so that calls do
    /// not meet connections that the other side has closed.
    pub pool_idle: Duration,
    /// No read is repeated later than this after it was asked for. Its asker decides on what is known then: a person
    /// is told, and a removal goes without the read.
    pub repeat_for: Duration,
    /// First pause before a repetition.
    pub backoff_min: Duration,
    /// Longest pause before a repetition.
    pub backoff_max: Duration,
    /// Longest `Retry-After` that is believed: a garbled one must not stop removals for a day.
    pub retry_after_max: Duration,
    /// Removals and verifying reads at a time. Elastic serves one organization from few nodes.
    pub urgent_concurrency: usize,
    /// Additions and discovery at a time, counted apart so that they cannot hold the places of removals.
    pub routine_concurrency: usize,
    /// Largest body of a plain answer, after decompression. Known answers are a few KiB.
    pub max_body: usize,
    /// Largest page of a listing, after decompression: a page of deployments carries all their resources.
    pub max_list_body: usize,
    /// Largest list of members, after decompression; it is streamed and never held.
    pub max_members_body: u64,
    /// Largest single member in that list. One with thousands of assignments stays far below.
    pub max_member: u64,
    /// Pages of one listing, so that a cursor that never ends does.
    pub max_pages: usize,
    /// Least time between two fetches of the secret that a 401 causes, so that a revoked key does not hammer the
    /// secret store.
    pub key_fetch_every: Duration,
    /// Longest wait for the secret store.
    pub key_fetch_timeout: Duration,
    /// The rate budget.
    pub limiter: LimiterOptions,
}

impl Options {
    /// Defaults for the API at `base_url`.
    #[must_use]
    pub fn new(base_url: Url) -> Self {
        Self {
            base_url,
            organization: None,
            proxy: None,
            mutation_budget: Duration::from_millis(2_500),
            mutation_wait: Duration::from_secs(10),
            read_budget: Duration::from_secs(30),
            read_attempt: Duration::from_secs(10),
            members_budget: Duration::from_secs(120),
            urgent_read: Duration::from_secs(5),
            idle: Duration::from_secs(15),
            connect: Duration::from_secs(1),
            pool_idle: Duration::from_secs(15),
            repeat_for: Duration::from_secs(10),
            backoff_min: Duration::from_millis(200),
            backoff_max: Duration::from_secs(5),
            retry_after_max: Duration::from_secs(60),
            urgent_concurrency: 12,
            routine_concurrency: 4,
            max_body: 4 << 20,
            max_list_body: 32 << 20,
            max_members_body: 256 << 20,
            max_member: 4 << 20,
            max_pages: 200,
            key_fetch_every: Duration::from_secs(10),
            key_fetch_timeout: Duration::from_secs(5),
            limiter: LimiterOptions::default(),
        }
    }

    /// Checks what cannot be checked by types.
    pub(super) fn check(&self) -> Result<(), Error> {
        let url = &self.base_url;
        let unusable = |problem| Err(Error::BaseUrl { problem });
        if url.cannot_be_a_base() || url.host().is_none() {
            return unusable("has no host; expected for example https://api.elastic-cloud.com");
        }
        if !url.username().is_empty() || url.password().is_some() {
            return unusable(
                "carries a user name or password; the key comes from the secret store",
            );
        }
        if url.query().is_some() || url.fragment().is_some() {
            return unusable("carries a query or fragment; give scheme, host and port only");
        }
        match url.scheme() {
            "https" => Ok(()),
            "http" if is_loopback(url.host_str()) => Ok(()),
            "http" => unusable("is plain HTTP, which would show the key; use https"),
            _ => unusable("has an unknown scheme; use https"),
        }
    }
}

/// Why a client cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The base address is not usable.
    #[error("the Elastic Cloud base URL {problem}")]
    BaseUrl {
        /// What is wrong and what would be right.
        problem: &'static str,
    },
    /// The proxy is not usable.
    #[error("setting up the proxy for Elastic Cloud")]
    Proxy {
        /// The cause.
        #[source]
        source: reqwest::Error,
    },
    /// The TLS set-up of this machine is not usable.
    #[error("setting up the HTTP client for Elastic Cloud")]
    Client {
        /// The cause.
        #[source]
        source: reqwest::Error,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str) -> bool {
        Options::new(Url::parse(url).expect("valid URL"))
            .check()
            .is_ok()
    }

    #[test]
    fn plain_http_is_for_loopback_only() {
        for url in [
            "https://api.elastic-cloud.com",
            "http://127.0.0.1:1",
            "http://[::1]:1/prefix",
            "http://localhost:8080",
        ] {
            assert!(check(url), "{url}");
        }
        for url in [
            "http://api.elastic-cloud.com",
            "http://localhost.example.com",
            "http://169.254.169.254",
            "https://a:b@api.elastic-cloud.com",
            "https://api.elastic-cloud.com/?x=1",
            "ftp://127.0.0.1",
            "data:text/plain,x",
        ] {
            assert!(!check(url), "{url}");
        }
    }
}
