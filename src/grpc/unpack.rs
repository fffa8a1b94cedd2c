//! gzip or deflate -> message, under a bound. A kilobyte may unpack to a megabyte.

use std::io::Read;

use flate2::read::{MultiGzDecoder, ZlibDecoder};

use super::status::MessageError;
use crate::edge::UploadShare;

/// Unpacked at once.
const PIECE_BYTES: usize = 16 * 1024;

/// How a message is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    Gzip,
    /// Which in HTTP and gRPC means the format of zlib.
    Deflate,
}

impl Packing {
    /// What is understood, as clients are told.
    pub(super) const ALL: &str = "gzip,deflate,identity";

    /// What the head of a call says; none where messages come as they are.
    pub(super) fn named(name: Option<&[u8]>) -> Result<Option<Self>, MessageError> {
        match name {
            None | Some(b"identity") => Ok(None),
            Some(b"gzip") => Ok(Some(Self::Gzip)),
            Some(b"deflate") => Ok(Some(Self::Deflate)),
            Some(other) => Err(MessageError::Encoding(String::from_utf8_lossy(other).into_owned())),
        }
    }
}

/// Unpacks a message of at most `bytes_max` bytes behind `head`, and charges what it takes to `share`.
pub(super) fn unpack(
    packing: Packing,
    packed: &[u8],
    head: &[u8],
    bytes_max: u64,
    share: &mut UploadShare,
) -> Result<Vec<u8>, MessageError> {
    let mut unpacked = Vec::new();
    let mut decoder: Box<dyn Read + '_> = match packing {
        Packing::Gzip => Box::new(MultiGzDecoder::new(packed)),
        Packing::Deflate => Box::new(ZlibDecoder::new(packed)),
    };
    let mut piece = [0; PIECE_BYTES];
    push(&mut unpacked, head, share)?;
    loop {
        let len = decoder.read(&mut piece).map_err(|error| MessageError::BadPacking(error.to_string()))?;
        if len == 0 {
            return Ok(unpacked);
        }
        if (unpacked.len() - head.len() + len) as u64 > bytes_max {
            return Err(MessageError::UnpackedTooLarge { max: bytes_max });
        }
        push(&mut unpacked, &piece[..len], share)?;
    }
}

/// Appends, and charges the room for it: by doubling, so that few bytes are copied twice.
fn push(target: &mut Vec<u8>, bytes: &[u8], share: &mut UploadShare) -> Result<(), MessageError> {
    let len = target.len() + bytes.len();
    if len > target.capacity() {
        let capacity = len.max(target.capacity() * 2).max(PIECE_BYTES);
        share.grow((capacity - target.capacity()) as u64)?;
        target.reserve_exact(capacity - target.len());
    }
    target.extend_from_slice(bytes);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::{GzEncoder, ZlibEncoder};

    use super::*;
    use crate::edge::UploadMemory;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn a_message_comes_out_behind_its_head_and_is_charged_for() {
        let memory = UploadMemory::new(1 << 20);
        let message: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::fast());
        zlib.write_all(&message).unwrap();
        for (packing, packed) in [(Packing::Gzip, gzip(&message)), (Packing::Deflate, zlib.finish().unwrap())] {
            let mut share = memory.share();
            let unpacked = unpack(packing, &packed, b"head:", 400_000, &mut share).unwrap();
            assert_eq!(unpacked[..5], *b"head:");
            assert_eq!(unpacked[5..], message);
            assert!(memory.held_bytes() >= unpacked.len() as u64);
        }
        assert_eq!(memory.held_bytes(), 0);
    }

    #[test]
    fn a_bomb_stops_at_the_bound_or_at_the_memory() {
        let memory = UploadMemory::new(1 << 20);
        let bomb = gzip(&vec![0; 3 << 20]);
        assert!(bomb.len() < 32 * 1024);
        let at = |max| unpack(Packing::Gzip, &bomb, &[], max, &mut memory.share());
        assert_eq!(at(1 << 18), Err(MessageError::UnpackedTooLarge { max: 1 << 18 }));
        assert!(matches!(at(4 << 20), Err(MessageError::UploadsFull(_))));
        assert_eq!(memory.held_bytes(), 0);
        let exact = gzip(&[7; 1000]);
        let at = |max| unpack(Packing::Gzip, &exact, &[], max, &mut memory.share());
        assert_eq!(at(1000).unwrap().len(), 1000);
        assert!(at(999).is_err());
    }

    #[test]
    fn what_is_not_packed_so_or_cut_is_refused() {
        let memory = UploadMemory::new(1 << 20);
        let whole = gzip(&[1; 1000]);
        for bytes in [&b"no gzip"[..], &whole[..whole.len() - 1], &whole[..5], &[]] {
            for packing in [Packing::Gzip, Packing::Deflate] {
                let refused = unpack(packing, bytes, &[], 1 << 20, &mut memory.share());
                assert!(matches!(refused, Err(MessageError::BadPacking(_))), "{packing:?} {bytes:?}");
            }
        }
    }

    #[test]
    fn packings_have_names() {
        assert_eq!(Packing::named(None), Ok(None));
        for (name, packing) in [("identity", None), ("gzip", Some(Packing::Gzip)), ("deflate", Some(Packing::Deflate))]
        {
            assert_eq!(Packing::named(Some(name.as_bytes())), Ok(packing));
            assert!(Packing::ALL.contains(name));
        }
        assert_eq!(Packing::named(Some(b"zstd")), Err(MessageError::Encoding("zstd".to_owned())));
    }
}
