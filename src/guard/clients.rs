//! What is remembered of clients, in a fixed space: how much each has asked.
//!
//! The table is cut into sets, as the cache of a processor is; a client belongs to one of them by a hash with a secret of
//! this process, so that nobody can aim at somebody else's set. Where a set is full, whoever owes least is forgotten: that
//! client gets back what waiting would soon have given it. So a flood of addresses locks nobody out, and whoever is over
//! its rate is the last to be forgotten.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::rate::RateLimit;

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Client {
    /// Whoever has this key: the first bytes of its digest.
    Keyed([u8; 16]),
    /// Whoever comes from this address, or network.
    Stranger(IpAddr),
}

/// Clients of one set.
const SET_LEN: usize = 16;
/// Sets for clients without a key: 65,536 of them are remembered, in less than 4 MiB.
const STRANGER_SETS: usize = 4096;
/// Clients without a key that are remembered.
pub const STRANGERS_MAX: usize = STRANGER_SETS * SET_LEN;
/// Sets for clients with one. Keys are counted when their file is read; that a set is too small for them is as good as
/// impossible, and would cost no more than a forgotten debt.
const KEYED_SETS: usize = 256;

/// The clients, and what they may ask.
pub(super) struct Clients {
    limit: RateLimit,
    began: Instant,
    hasher: RandomState,
    sets: Box<[Mutex<Set>]>,
}

#[derive(Debug, Default)]
struct Set {
    /// `SET_LEN` of them, at most.
    debtors: Vec<Debtor>,
}

#[derive(Debug)]
struct Debtor {
    client: Client,
    /// Nanoseconds from the table's beginning.
    debt: u64,
}

impl Clients {
    pub(super) fn strangers(limit: RateLimit) -> Self {
        Self::with_sets(limit, STRANGER_SETS)
    }

    pub(super) fn keyed(limit: RateLimit) -> Self {
        Self::with_sets(limit, KEYED_SETS)
    }

    fn with_sets(limit: RateLimit, sets: usize) -> Self {
        let sets = (0..sets).map(|_| Mutex::default()).collect();
        Self { limit, began: Instant::now(), hasher: RandomState::new(), sets }
    }

    pub(super) fn limit(&self) -> RateLimit {
        self.limit
    }

    /// Counts a request, or says how long until one is within the limit.
    pub(super) fn count(&self, client: &Client, now: Instant) -> Result<(), Duration> {
        let now = u64::try_from(now.saturating_duration_since(self.began).as_nanos()).unwrap_or(u64::MAX);
        let index = self.hasher.hash_one(client) % self.sets.len() as u64;
        let set = &self.sets[usize::try_from(index).expect("the remainder is below a length")];
        let mut set = set.lock().unwrap_or_else(PoisonError::into_inner);
        let debt = self.limit.count(set.debt(client), now)?;
        set.remember(*client, debt, now);
        Ok(())
    }
}

impl Set {
    fn debt(&self, client: &Client) -> u64 {
        self.debtors.iter().find(|known| known.client == *client).map_or(0, |known| known.debt)
    }

    fn remember(&mut self, client: Client, debt: u64, now: u64) {
        if let Some(known) = self.debtors.iter_mut().find(|known| known.client == client) {
            known.debt = debt;
            return;
        }
        if self.debtors.len() == SET_LEN {
            // Whoever owes nothing any more is the same as unknown.
            self.debtors.retain(|known| known.debt > now);
        }
        let newcomer = Debtor { client, debt };
        if self.debtors.len() < SET_LEN {
            self.debtors.push(newcomer);
        } else if let Some(least) = self.debtors.iter_mut().min_by_key(|known| known.debt) {
            *least = newcomer;
        }
    }
}

impl std::fmt::Debug for Clients {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Clients").field("limit", &self.limit).field("sets", &self.sets.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    fn clients(rate: &str, burst: u32, sets: usize) -> Clients {
        Clients::with_sets(RateLimit::new(rate.parse().unwrap(), NonZeroU32::new(burst)), sets)
    }

    fn stranger(n: u32) -> Client {
        Client::Stranger(IpAddr::from(n.to_be_bytes()))
    }

    fn remembered(clients: &Clients) -> usize {
        clients.sets.iter().map(|set| set.lock().unwrap().debtors.len()).sum()
    }

    #[test]
    fn each_client_has_its_own_rate() {
        let clients = clients("1/s", 2, 8);
        let now = Instant::now();
        for client in [stranger(1), stranger(2), Client::Keyed([1; 16]), Client::Keyed([2; 16])] {
            assert!(clients.count(&client, now).is_ok());
            assert!(clients.count(&client, now).is_ok());
            assert!(clients.count(&client, now).is_err());
        }
        assert!(clients.count(&stranger(1), now + Duration::from_secs(1)).is_ok());
    }

    #[test]
    fn a_flood_of_addresses_neither_grows_the_table_nor_locks_anybody_out() {
        let clients = clients("1/h", 1, 4);
        let now = Instant::now();
        // All of the table owes an hour, and still every newcomer gets its first request.
        for n in 0..10_000 {
            assert!(clients.count(&stranger(n), now).is_ok(), "newcomer {n}");
        }
        assert_eq!(remembered(&clients), 4 * SET_LEN);
    }

    #[test]
    fn who_owes_most_is_remembered_through_a_flood() {
        let clients = clients("1/s", 5, 1);
        let now = Instant::now();
        let greedy = stranger(0);
        while clients.count(&greedy, now).is_ok() {}
        for n in 1..1000 {
            assert!(clients.count(&stranger(n), now).is_ok());
        }
        assert!(clients.count(&greedy, now).is_err(), "other addresses do not pay the debt");
    }

    #[test]
    fn who_owes_nothing_any_more_makes_room() {
        let clients = clients("1/s", 1, 1);
        let now = Instant::now();
        for n in 0..SET_LEN as u32 {
            clients.count(&stranger(n), now).unwrap();
        }
        clients.count(&stranger(1000), now + Duration::from_secs(2)).unwrap();
        assert_eq!(remembered(&clients), 1);
    }
}
