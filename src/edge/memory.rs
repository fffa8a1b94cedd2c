//! The memory of what clients send: every byte of an upload is charged to one bound before it is kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The bytes of all uploads in memory, under one bound. Cheap to clone.
#[derive(Debug, Clone)]
pub struct UploadMemory {
    held: Arc<AtomicU64>,
    max: u64,
}

/// One upload's share of the memory. Dropping it gives the share back.
#[derive(Debug)]
pub struct UploadShare {
    memory: UploadMemory,
    bytes: u64,
}

/// No room for an upload now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("all uploads together may hold {max} bytes of memory, and this one does not fit now; try again later")]
pub struct UploadsFull {
    max: u64,
}

impl UploadMemory {
    /// Room for `max` bytes.
    #[must_use]
    pub fn new(max: u64) -> Self {
        Self { held: Arc::default(), max }
    }

    /// Bytes held now.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// An empty share that grows with its upload.
    #[must_use]
    pub fn share(&self) -> UploadShare {
        UploadShare { memory: self.clone(), bytes: 0 }
    }
}

impl UploadShare {
    /// Bytes it holds.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Charges `bytes` more.
    ///
    /// # Errors
    /// If they do not fit; the share is as large as before then.
    pub fn grow(&mut self, bytes: u64) -> Result<(), UploadsFull> {
        let memory = &self.memory;
        let fits = |held: u64| held.checked_add(bytes).filter(|&sum| sum <= memory.max);
        memory
            .held
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits)
            .map_err(|_| UploadsFull { max: memory.max })?;
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for UploadShare {
    fn drop(&mut self) {
        self.memory.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upload_memory_is_never_above_its_bound_and_comes_back() {
        let memory = UploadMemory::new(10);
        let (mut a, mut b) = (memory.share(), memory.share());
        a.grow(6).unwrap();
        b.grow(4).unwrap();
        assert_eq!(b.grow(1), Err(UploadsFull { max: 10 }));
        drop(a);
        b.grow(6).unwrap();
        drop(b);
        assert_eq!(memory.held_bytes(), 0);
    }
}
