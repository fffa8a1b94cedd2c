//! Who may come in, and how often: API keys and the rate of each client, for every wire. What a refusal looks like is the
//! wire's own; what a caller may do once it is in, the protocol's.

mod bearer;
mod clients;
mod keys;
mod origin;
mod proxies;
mod rate;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::HeaderMap;

pub use clients::STRANGERS_MAX;
pub use keys::{KEY_LEN_MAX, KEY_LEN_MIN, KEYS_MAX, KeyRing, Keys, KeysError};
pub use origin::{CorsOrigins, Origin};
pub use proxies::{TrustedProxies, network};
pub use rate::{Rate, RateLimit};

use crate::edge::Peer;
use bearer::Bearer;
use clients::{Client, Clients};

/// What is asked for, as far as the door tells requests apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Health: open to everybody, and never too often, or a busy client's probe would take its server away.
    Probe,
    /// What describes the server and not its models: open to everybody, within the rate.
    Description,
    /// Metrics: with a key where there are keys, at any rate.
    Collection,
    /// Everything else: with a key where there are keys, within the rate.
    Use,
}

/// Why a request may not come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No key came with it.
    #[error("the request has no API key; send one as the header \"Authorization: Bearer KEY\"")]
    NoKey,
    /// What came as a key cannot be one.
    #[error("the Authorization header is not understood; send it once, as \"Authorization: Bearer KEY\"")]
    Malformed,
    /// A key came that is none of ours.
    #[error("the API key is none that this server takes; ask its operator for one")]
    WrongKey,
    /// The client has used up its rate.
    #[error("this client may send {limit}; try again in {} ms", retry_after.as_millis().max(1))]
    TooFast {
        /// What it may ask.
        limit: RateLimit,
        /// When the next request would be within the rate.
        retry_after: Duration,
    },
}

/// Decides about each request. Cheap to clone; one that guards nothing costs nothing.
#[derive(Debug, Clone, Default)]
pub struct Guard(Option<Arc<Parts>>);

#[derive(Debug)]
struct Parts {
    keys: Option<Keys>,
    limiter: Option<Limiter>,
}

#[derive(Debug)]
struct Limiter {
    /// Clients with a key.
    keyed: Clients,
    /// And those without, by address: apart, so that strangers never crowd out who is known.
    strangers: Clients,
    proxies: TrustedProxies,
}

/// A request that came in, and whose rate it counts for.
#[derive(Debug, Clone)]
pub struct Admitted {
    parts: Arc<Parts>,
    client: Option<Client>,
}

impl Guard {
    /// A guard that asks for a key where there are `keys`, and holds each client to `limit` where there is one.
    #[must_use]
    pub fn new(keys: Option<Keys>, limit: Option<RateLimit>, proxies: TrustedProxies) -> Self {
        if keys.is_none() && limit.is_none() {
            return Self(None);
        }
        let limiter =
            limit.map(|limit| Limiter { keyed: Clients::keyed(limit), strangers: Clients::strangers(limit), proxies });
        Self(Some(Arc::new(Parts { keys, limiter })))
    }

    /// There is something to ask it.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Clients need a key.
    #[must_use]
    pub fn has_keys(&self) -> bool {
        self.0.as_ref().is_some_and(|parts| parts.keys.is_some())
    }

    /// It tells clients apart by where they connect from.
    #[must_use]
    pub fn asks_for_peers(&self) -> bool {
        self.0.as_ref().is_some_and(|parts| parts.limiter.is_some())
    }

    /// The same keys without the limit: for a port where only operators ask.
    #[must_use]
    pub fn without_limit(&self) -> Self {
        let keys = self.0.as_ref().and_then(|parts| parts.keys.clone());
        Self::new(keys, None, TrustedProxies::default())
    }

    /// Lets a request in, or says why not. `peer` is who is connected.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn admit(&self, headers: &HeaderMap, peer: Option<Peer>, access: Access) -> Result<Option<Admitted>, Refused> {
        let Some(parts) = &self.0 else { return Ok(None) };
        let (needs_key, is_limited) = match access {
            Access::Probe => return Ok(None),
            Access::Description => (false, true),
            Access::Collection => (true, false),
            Access::Use => (true, true),
        };
        let key = match &parts.keys {
            Some(keys) if needs_key => match Bearer::of(headers) {
                Bearer::Missing => Err(Refused::NoKey),
                Bearer::Malformed => Err(Refused::Malformed),
                Bearer::Given(key) => keys.ring().find(key).map(|found| Some(found.told())).ok_or(Refused::WrongKey),
            },
            _ => Ok(None),
        };
        let client = match &parts.limiter {
            Some(limiter) if is_limited || key.is_err() => {
                // Who has no right key is held to its address, so that guessing keys has a rate as well.
                let stranger = || peer.map(|peer| Client::Stranger(limiter.proxies.client(peer, headers).network()));
                key.as_ref().ok().copied().flatten().or_else(stranger)
            }
            _ => None,
        };
        let admitted = Admitted { parts: Arc::clone(parts), client };
        admitted.again()?;
        key.map(|_| Some(admitted))
    }
}

impl Admitted {
    /// Counts one more request of the same client: of a stream, each message is one.
    ///
    /// # Errors
    /// [`Refused::TooFast`].
    pub fn again(&self) -> Result<(), Refused> {
        match (&self.parts.limiter, &self.client) {
            (Some(limiter), Some(client)) => limiter.count(client, Instant::now()),
            _ => Ok(()),
        }
    }
}

impl Limiter {
    fn count(&self, client: &Client, now: Instant) -> Result<(), Refused> {
        let clients = match client {
            Client::Keyed(_) => &self.keyed,
            Client::Stranger(_) => &self.strangers,
        };
        clients.count(client, now).map_err(|retry_after| Refused::TooFast { limit: clients.limit(), retry_after })
    }
}

#[cfg(test)]
mod tests;
