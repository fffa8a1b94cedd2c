//! Places for connections: so many of a port, and of these so many of one client.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::peer::{Networks, Peer};

/// How many connections one client may have on a port. Proxies carry those of many, and are not counted.
#[derive(Debug, Clone)]
pub struct ClientConnections {
    /// Connections of one client.
    pub max: usize,
    /// Who is not counted.
    pub exempt: Networks,
}

/// The connections of each client. As many clients as there are connections, at most.
#[derive(Debug, Clone)]
pub(super) struct Places {
    bound: ClientConnections,
    held: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// One connection's place among those of its client. Dropping it gives the place back.
#[derive(Debug)]
pub(super) struct Place {
    places: Places,
    client: IpAddr,
}

/// The client has as many connections as it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoPlace;

impl Places {
    pub(super) fn new(bound: ClientConnections) -> Self {
        Self { bound, held: Arc::default() }
    }

    /// A place for one more connection; none is needed for whoever is not counted.
    pub(super) fn take(&self, peer: Peer) -> Result<Option<Place>, NoPlace> {
        if self.bound.exempt.contains(peer.address()) {
            return Ok(None);
        }
        let client = peer.network();
        let mut held = self.lock();
        let count = held.entry(client).or_default();
        if *count >= self.bound.max {
            return Err(NoPlace);
        }
        *count += 1;
        drop(held);
        Ok(Some(Place { places: self.clone(), client }))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.places.lock();
        if let Some(count) = held.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(text: &str) -> Peer {
        Peer::of(text.parse().unwrap())
    }

    #[test]
    fn a_client_has_so_many_places_and_gets_them_back() {
        let exempt = Networks::new(vec!["10.0.0.0/8".parse().unwrap()]);
        let places = Places::new(ClientConnections { max: 2, exempt });
        let held = [places.take(peer("192.0.2.1")).unwrap(), places.take(peer("::ffff:192.0.2.1")).unwrap()];
        assert_eq!(places.take(peer("192.0.2.1")).unwrap_err(), NoPlace);
        assert!(places.take(peer("192.0.2.2")).is_ok(), "another client");
        for _ in 0..3 {
            assert!(places.take(peer("10.0.0.1")).unwrap().is_none(), "a proxy is not counted");
        }
        drop(held);
        assert!(places.take(peer("192.0.2.1")).is_ok());
        assert!(places.lock().is_empty(), "nobody is remembered who has none");
    }
}
