//! How much line and disk an install takes, and whether the disk has it.

use super::bundle::Bundle;
use super::cache::Cache;
use super::install::{Refresh, present};
use super::wheel::Wheel;
use super::{Flavour, RuntimeError, Search};

/// What an install takes: of the line, of the disk when it is done, and of the disk at the worst moment on the way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// Files to fetch.
    pub wheels: usize,
    /// Bytes to fetch.
    pub fetched_bytes: u64,
    /// Bytes that stay.
    pub installed_bytes: u64,
    /// Bytes on the disk while it is going on, at most. Never less than what stays.
    pub peak_bytes: u64,
}

impl Room {
    /// What these wheels take, fetched in this order, each removed once it is unpacked.
    pub(crate) fn of<'a>(wheels: impl IntoIterator<Item = &'a Wheel>) -> Self {
        wheels.into_iter().fold(Self::default(), |before, wheel| {
            // pip keeps its download while it copies it to where it was asked to put it.
            let while_fetched = before.installed_bytes + 2 * wheel.bytes;
            let while_unpacked = before.installed_bytes + wheel.bytes + wheel.unpacked_bytes;
            Self {
                wheels: before.wheels + 1,
                fetched_bytes: before.fetched_bytes + wheel.bytes,
                installed_bytes: before.installed_bytes + wheel.unpacked_bytes,
                peak_bytes: before.peak_bytes.max(while_fetched).max(while_unpacked),
            }
        })
    }
}

/// What it takes to install these flavours, in this order; those that are there take nothing. Asked before the first of
/// several, so that a disk that holds one and not the next is told at once.
///
/// # Errors
/// [`RuntimeError::DiskFull`] if there is no room for it; a flavour that was not published for this machine.
pub fn room(search: &Search, flavours: &[Flavour], refresh: Refresh) -> Result<Room, RuntimeError> {
    let cache = search.cache()?;
    let mut wheels = Vec::new();
    for &flavour in flavours {
        if present(&cache, flavour, refresh).is_none() {
            wheels.extend(Bundle::for_host(flavour)?.wheels);
        }
    }
    let room = Room::of(wheels);
    check_room(&cache, room)?;
    Ok(room)
}

/// Whether the disk has the room, before any of it is filled.
pub(crate) fn check_room(cache: &Cache, room: Room) -> Result<(), RuntimeError> {
    // What is to be created lies on the disk of the folder that it will be created in.
    let folder = cache.root().ancestors().find(|folder| folder.exists()).unwrap_or(cache.root());
    // A file system that does not answer is not held against it: writing will tell.
    let Ok(space) = rustix::fs::statvfs(folder) else { return Ok(()) };
    let free_bytes = space.f_bavail.saturating_mul(space.f_frsize);
    if room.peak_bytes > free_bytes {
        return Err(RuntimeError::DiskFull {
            folder: cache.root().to_path_buf(),
            needed_bytes: room.peak_bytes,
            free_bytes,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::bundle::Platform;
    use super::super::fakes;
    use super::super::install::install;
    use super::*;

    #[test]
    fn peak_counts_what_is_there_beside_the_wheel_at_hand() {
        let some = Bundle::of(Flavour::Cpu, Platform::LinuxX86).unwrap().main();
        let wheel = |bytes, unpacked_bytes| Wheel { bytes, unpacked_bytes, ..*some };
        let room = Room::of(&[wheel(10, 15)]);
        assert_eq!(room, Room { wheels: 1, fetched_bytes: 10, installed_bytes: 15, peak_bytes: 25 });
        let packed_well = Room::of(&[wheel(10, 5)]);
        assert_eq!(packed_well.peak_bytes, 20, "pip has the file twice");
        let room = Room::of(&[wheel(10, 15), wheel(4, 6)]);
        assert_eq!(room, Room { wheels: 2, fetched_bytes: 14, installed_bytes: 21, peak_bytes: 25 });
        assert_eq!(Room::of(&[]), Room::default());
    }

    #[test]
    fn room_counts_what_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let (search, _python) = fakes::search(folder.path());
        let wheels = |refresh| room(&search, &[Flavour::CudaLibraries, Flavour::Cpu], refresh).unwrap().wheels;
        assert_eq!(wheels(Refresh::IfNeeded), 6);
        install(&search, Flavour::Cpu, Refresh::IfNeeded, &|_| {}).unwrap();
        assert_eq!(wheels(Refresh::IfNeeded), 5);
        assert_eq!(wheels(Refresh::Always), 6);
    }

    #[test]
    fn full_disk_is_told_before_anything_is_fetched() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::below(&folder.path().join("not/yet/there"));
        assert!(check_room(&cache, Room { peak_bytes: 1, ..Room::default() }).is_ok());
        let error = check_room(&cache, Room { peak_bytes: u64::MAX, ..Room::default() }).unwrap_err().to_string();
        assert!(error.contains("RESIDUAL_CACHE_DIR") && error.contains("18446744073710 MB needed"), "{error}");
    }
}
