//! Where the partitions of a lossy frame end, before the decoder takes memory for as many bytes as they claim. How many there
//! are stands behind the settings of segments and filters, in arithmetic code (RFC 6386, 7.3, 9.2 to 9.5 and 19.2).

/// The frame tag, the start code, width and height.
const HEAD_BYTES: usize = 10;
/// Each size in the table of partitions.
const SIZE_BYTES: usize = 3;

/// Why a frame cannot be decoded, in words.
pub(super) type Refusal = &'static str;

/// Holds a frame's first partition, and all others but the last, which ends with the frame, against its length.
pub(super) fn check(frame: &[u8]) -> Result<(), Refusal> {
    let Some((head, rest)) = frame.split_at_checked(HEAD_BYTES) else { return Err("a frame has no valid header") };
    // Of a frame that builds on another, which WebP does not have, the decoder would take the size for the first partition.
    if head[0] & 1 == 1 {
        return Err("a frame is no key frame");
    }
    let first_len = (u32::from_le_bytes([head[0], head[1], head[2], 0]) >> 5) as usize;
    let (first, rest) = rest.split_at_checked(first_len).ok_or("the first partition is longer than its frame")?;
    let count = partitions(&mut Literals::new(first));
    let (table, mut rest) =
        rest.split_at_checked(SIZE_BYTES * (count - 1)).ok_or("the frame ends in its table of partitions")?;
    for &[a, b, c] in table.as_chunks::<SIZE_BYTES>().0 {
        let len = u32::from_le_bytes([a, b, c, 0]) as usize;
        rest = rest.get(len..).ok_or("a partition is longer than its frame")?;
    }
    Ok(())
}

/// The number of partitions of coefficients, 1, 2, 4 or 8: the first that matters in a frame's header.
fn partitions(header: &mut Literals<'_>) -> usize {
    // Colour space and clamping.
    header.skip(2);
    if header.flag() {
        let (updates_map, updates_features) = (header.flag(), header.flag());
        if updates_features {
            header.skip(1);
            (0..4).for_each(|_| header.optional(7 + 1));
            (0..4).for_each(|_| header.optional(6 + 1));
        }
        if updates_map {
            (0..3).for_each(|_| header.optional(8));
        }
    }
    // The filter's kind, level and sharpness.
    header.skip(1 + 6 + 3);
    if header.flag() && header.flag() {
        (0..8).for_each(|_| header.optional(6 + 1));
    }
    let log2 = usize::from(header.flag()) << 1 | usize::from(header.flag());
    1 << log2
}

/// Bits that are one or zero as likely as not, in the arithmetic code of VP8 (RFC 6386, 7.3). Behind the end stand zeros.
struct Literals<'a> {
    rest: std::slice::Iter<'a, u8>,
    value: u32,
    range: u32,
    shifted: u32,
}

impl<'a> Literals<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        let mut literals = Self { rest: bytes.iter(), value: 0, range: 255, shifted: 0 };
        literals.value = literals.byte() << 8 | literals.byte();
        literals
    }

    fn byte(&mut self) -> u32 {
        self.rest.next().copied().unwrap_or(0).into()
    }

    fn flag(&mut self) -> bool {
        let split = 1 + (((self.range - 1) * 128) >> 8);
        let is_one = self.value >= split << 8;
        if is_one {
            self.range -= split;
            self.value -= split << 8;
        } else {
            self.range = split;
        }
        while self.range < 128 {
            self.value <<= 1;
            self.range <<= 1;
            self.shifted += 1;
            if self.shifted == 8 {
                self.shifted = 0;
                self.value |= self.byte();
            }
        }
        is_one
    }

    fn skip(&mut self, bits: usize) {
        for _ in 0..bits {
            self.flag();
        }
    }

    /// A flag, and behind it the bits that it says are there.
    fn optional(&mut self, bits: usize) {
        if self.flag() {
            self.skip(bits);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The encoder of RFC 6386, 7.3, for even chances.
    fn encoded(bits: &[bool]) -> Vec<u8> {
        let (mut out, mut range, mut bottom, mut left) = (Vec::<u8>::new(), 255_u32, 0_u32, 24);
        // Behind what is told, bits until the last has left the register.
        for &bit in bits.iter().chain(&[false; 40]) {
            let split = 1 + (((range - 1) * 128) >> 8);
            if bit {
                let (sum, carries) = bottom.overflowing_add(split);
                bottom = sum;
                range -= split;
                if carries {
                    carry(&mut out);
                }
            } else {
                range = split;
            }
            while range < 128 {
                range <<= 1;
                if bottom >> 31 == 1 {
                    carry(&mut out);
                }
                bottom <<= 1;
                left -= 1;
                if left == 0 {
                    out.push((bottom >> 24) as u8);
                    bottom &= 0x00FF_FFFF;
                    left = 8;
                }
            }
        }
        out
    }

    fn carry(out: &mut [u8]) {
        for byte in out.iter_mut().rev() {
            let (sum, carries) = byte.overflowing_add(1);
            *byte = sum;
            if !carries {
                break;
            }
        }
    }

    fn bits(text: &str) -> Vec<bool> {
        text.bytes().filter(|byte| *byte != b' ').map(|byte| byte == b'1').collect()
    }

    #[test]
    fn the_number_of_partitions_is_read_behind_whatever_stands_before_it() {
        let count = |text: &str| partitions(&mut Literals::new(&encoded(&bits(text))));
        let plain = "00 0 0000000000 0";
        for (log2, partitions) in [("00", 1), ("01", 2), ("10", 4), ("11", 8)] {
            assert_eq!(count(&format!("{plain} {log2}")), partitions);
        }
        let segments = format!("10 1 11 1 {} {} {}", "1 10101011".repeat(4), "0 1 1010101 0 0", "0 1 11111111 0");
        let filters = format!("1 111111 101 1 1 {}", "1 1010101 0".repeat(4));
        assert_eq!(count(&format!("{segments} {filters} 10")), 4);
        assert_eq!(count(&format!("{segments} 0 000000 000 1 0 11")), 8);
    }

    #[test]
    fn a_partition_that_claims_more_than_its_frame_is_refused() {
        let first = encoded(&bits("00 0 0000000000 0 01"));
        let frame = |second_len: usize, more: usize| {
            let mut frame = ((first.len() as u32) << 5).to_le_bytes()[..3].to_vec();
            frame.extend([0; HEAD_BYTES - 3]);
            frame.extend(&first);
            frame.extend(&(second_len as u32).to_le_bytes()[..SIZE_BYTES]);
            frame.resize(frame.len() + more, 0);
            frame
        };
        assert_eq!(check(&frame(7, 7)), Ok(()));
        assert_eq!(check(&frame(8, 7)), Err("a partition is longer than its frame"));
        assert_eq!(check(&frame(0xFF_FFFF, 7)), Err("a partition is longer than its frame"));
        let whole = frame(0, 0);
        assert_eq!(check(&whole[..whole.len() - 1]), Err("the frame ends in its table of partitions"));
        assert_eq!(check(&whole[..HEAD_BYTES + first.len() - 1]), Err("the first partition is longer than its frame"));
        assert_eq!(check(&whole[..9]), Err("a frame has no valid header"));
        let mut other = whole;
        other[0] |= 1;
        assert_eq!(check(&other), Err("a frame is no key frame"));
    }
}
