//! One file of a ZIP archive, still packed, found while the program is compiled: so that the binary holds that file and not
//! the seven hundred others.

/// Where a file lies in an archive, and what its directory says of it (APPNOTE.TXT, section 4.3.12).
#[derive(Debug, Clone, Copy)]
pub(super) struct Packed {
    start: usize,
    /// Bytes, packed.
    pub(super) len: usize,
    /// Bytes, unpacked.
    pub(super) unpacked_len: u32,
    /// Of the unpacked bytes.
    pub(super) crc32: u32,
}

const END: u32 = 0x0605_4b50;
const END_LEN: usize = 22;
const ENTRY: u32 = 0x0201_4b50;
const ENTRY_LEN: usize = 46;
const LOCAL_LEN: usize = 30;
const DEFLATED: usize = 8;

impl Packed {
    /// Finds the file whose path ends so.
    ///
    /// # Panics
    /// If there is none, or if it is packed in another way than by deflate: the program then does not compile.
    pub(super) const fn find(zip: &[u8], path_end: &str) -> Self {
        let mut end = zip.len() - END_LEN;
        while u32_at(zip, end) != END {
            end -= 1;
        }
        let mut at = u32_at(zip, end + 16) as usize;
        while u32_at(zip, at) == ENTRY {
            let name_len = u16_at(zip, at + 28);
            if ends_with(zip, at + ENTRY_LEN + name_len, name_len, path_end.as_bytes()) {
                assert!(u16_at(zip, at + 10) == DEFLATED, "the file is deflated");
                let local = u32_at(zip, at + 42) as usize;
                return Self {
                    start: local + LOCAL_LEN + u16_at(zip, local + 26) + u16_at(zip, local + 28),
                    len: u32_at(zip, at + 20) as usize,
                    unpacked_len: u32_at(zip, at + 24),
                    crc32: u32_at(zip, at + 16),
                };
            }
            at += ENTRY_LEN + name_len + u16_at(zip, at + 30) + u16_at(zip, at + 32);
        }
        panic!("the archive has the file");
    }

    /// The packed bytes, all `N` of them. Copied into a static, they leave the archive behind.
    ///
    /// # Panics
    /// If there are fewer.
    pub(super) const fn bytes<const N: usize>(self, zip: &[u8]) -> [u8; N] {
        *zip.split_at(self.start).1.first_chunk().expect("the archive has all of the file")
    }

    /// What stands before the packed bytes in a gzip file (RFC 1952): deflate, no name, no time, an unknown system.
    pub(super) const GZIP_HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

    /// What stands behind them.
    pub(super) fn gzip_tail(self) -> [u8; 8] {
        (u64::from(self.unpacked_len) << 32 | u64::from(self.crc32)).to_le_bytes()
    }
}

const fn u16_at(bytes: &[u8], at: usize) -> usize {
    bytes[at] as usize | (bytes[at + 1] as usize) << 8
}

const fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Whether the name of `len` bytes that ends before `end` ends with `tail`.
const fn ends_with(bytes: &[u8], end: usize, len: usize, tail: &[u8]) -> bool {
    if tail.len() > len {
        return false;
    }
    let mut back = 1;
    while back <= tail.len() {
        if bytes[end - back] != tail[tail.len() - back] {
            return false;
        }
        back += 1;
    }
    true
}
