//! What the prefix codes of a lossless picture will hold as tables. A picture may have 65,536 groups of five codes, whatever its
//! size, and a code of 12 bytes becomes a table of 4 KiB: a megabyte that was uploaded would become three hundred.
//!
//! A walk over the stream as far as the last code, after WebP's lossless specification (RFC 9649, 3). No pixel is kept.

/// Bits of the decoder's first table; longer codes go through a tree behind it.
const TABLE_BITS: usize = 10;
/// The decoder's structure for one code, and its share of the list of groups while that is moved to twice the room.
const CODE_BYTES: u64 = 64 * 3;
/// One node of its trees, and one entry of its tables.
const NODE_BYTES: u64 = 16;
const ENTRY_BYTES: u64 = 4;

/// Longest code.
const LENGTH_MAX: usize = 15;
/// Symbols of literals, behind which stand those of lengths and then those of the colour cache.
const LITERALS: usize = 256;
const LENGTHS: usize = 24;
/// Symbols of the five codes of a group, without the colour cache.
const ALPHABETS: [usize; 5] = [LITERALS + LENGTHS, 256, 256, 256, 40];
const GREEN: usize = 0;
const RED: usize = 1;
const DISTANCE: usize = 4;
/// In which order the lengths of the code of code lengths stand.
const ORDER: [usize; 19] = [17, 18, 0, 1, 2, 3, 4, 5, 16, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

/// Bytes that the decoder will hold for the prefix codes of `stream`, the transforms of a picture of this size and all that
/// follows them. What stands behind an error is not counted: the decoder will not get there either.
pub(super) fn bytes(stream: &[u8], width: u32, height: u32) -> u64 {
    let mut walk = Walk { bits: Bits { bytes: stream, at: 0 }, held: 0 };
    let _ended_early = walk.picture(width, height);
    walk.held
}

struct Walk<'a> {
    bits: Bits<'a>,
    held: u64,
}

impl Walk<'_> {
    fn picture(&mut self, mut width: u32, height: u32) -> Option<()> {
        let mut seen = [false; 4];
        while self.bits.flag()? {
            let kind = self.bits.read(2)? as usize;
            if std::mem::replace(&mut seen[kind], true) {
                return None;
            }
            match kind {
                // A predictor or a colour for each block of pixels.
                0 | 1 => {
                    let block_bits = self.bits.read(3)? + 2;
                    self.small_picture(blocks(width, block_bits) * blocks(height, block_bits))?;
                }
                // Green is subtracted, which says nothing more.
                2 => {}
                // A palette. Of a small one several pixels share one.
                _ => {
                    let colours = self.bits.read(8)? + 1;
                    self.small_picture(colours.into())?;
                    width = blocks(width, [3, 2, 1, 0][[3, 5, 17].partition_point(|&from| from <= colours)]) as u32;
                }
            }
        }
        let cache = self.cache()?;
        let mut groups = 1;
        if self.bits.flag()? {
            let block_bits = self.bits.read(3)? + 2;
            groups = 1 + u64::from(self.small_picture(blocks(width, block_bits) * blocks(height, block_bits))?);
        }
        for _ in 0..groups {
            for alphabet in
                ALPHABETS.map(|alphabet| if alphabet == ALPHABETS[GREEN] { alphabet + cache } else { alphabet })
            {
                let code = self.code(alphabet)?;
                self.held += code.bytes() + CODE_BYTES;
            }
        }
        Some(())
    }

    /// Walks over a picture of one group, and returns the largest number that the red and green of a pixel are together. Copies
    /// of pixels have no new ones.
    fn small_picture(&mut self, pixels: u64) -> Option<u16> {
        let cache = self.cache()?;
        let mut codes = Vec::with_capacity(ALPHABETS.len());
        for alphabet in ALPHABETS {
            codes.push(self.code(if codes.is_empty() { alphabet + cache } else { alphabet })?);
        }
        let (mut largest, mut seen) = (0, 0);
        while seen < pixels {
            let before = self.bits.at;
            let symbol = usize::from(self.bits.symbol(&codes[GREEN])?);
            if symbol < LITERALS {
                let red = self.bits.symbol(&codes[RED])?;
                for code in &codes[RED + 1..DISTANCE] {
                    self.bits.symbol(code)?;
                }
                largest = largest.max(red << 8 | symbol as u16);
                seen += 1;
            } else if symbol < LITERALS + LENGTHS {
                seen += self.number(symbol - LITERALS)?;
                let distance = self.bits.symbol(&codes[DISTANCE])?;
                self.number(distance.into())?;
            } else {
                seen += 1;
            }
            // What took no bit goes on so to the last pixel.
            if self.bits.at == before {
                break;
            }
        }
        Some(largest)
    }

    /// Entries of the colour cache.
    fn cache(&mut self) -> Option<usize> {
        if !self.bits.flag()? {
            return Some(0);
        }
        let bits = self.bits.read(4)?;
        (1..=11).contains(&bits).then_some(1 << bits)
    }

    /// A length or a distance: its prefix and the bits behind it.
    fn number(&mut self, prefix: usize) -> Option<u64> {
        if prefix < 4 {
            return Some(prefix as u64 + 1);
        }
        let bits = (prefix - 2) >> 1;
        let offset = (2 + (prefix as u64 & 1)) << bits;
        Some(offset + u64::from(self.bits.read(bits)?) + 1)
    }

    fn code(&mut self, alphabet: usize) -> Option<Code> {
        if self.bits.flag()? {
            let is_two = self.bits.flag()?;
            let first_bits = if self.bits.flag()? { 8 } else { 1 };
            let first = self.bits.read(first_bits)?;
            let second = if is_two { Some(self.bits.read(8)?) } else { None };
            if first as usize >= alphabet || second.is_some_and(|second| second as usize >= alphabet) {
                return None;
            }
            let first = first as u16;
            return Some(second.map_or(Code::One(first), |second| Code::Two(first, second as u16)));
        }
        let mut lengths = [0; ORDER.len()];
        let count = 4 + self.bits.read(4)? as usize;
        for &symbol in ORDER.get(..count)? {
            lengths[symbol] = self.bits.read(3)? as u8;
        }
        let of_lengths = Code::of(&lengths)?;
        let mut told = alphabet;
        if self.bits.flag()? {
            let bits = 2 + 2 * self.bits.read(3)? as usize;
            told = 2 + self.bits.read(bits)? as usize;
            if told > alphabet {
                return None;
            }
        }
        let (mut lengths, mut before) = (Vec::with_capacity(alphabet), 8);
        while lengths.len() < alphabet && told > 0 {
            told -= 1;
            let (length, repeat) = match self.bits.symbol(&of_lengths)? as u8 {
                16 => (before, 3 + self.bits.read(2)?),
                17 => (0, 3 + self.bits.read(3)?),
                18 => (0, 11 + self.bits.read(7)?),
                length => (length, 1),
            };
            if length != 0 {
                before = length;
            }
            lengths.resize(lengths.len() + repeat as usize, length);
        }
        if lengths.len() > alphabet { None } else { Code::of(&lengths) }
    }
}

/// Blocks of `1 << bits` pixels along a side.
fn blocks(side: u32, bits: u32) -> u64 {
    u64::from(side).div_ceil(1 << bits)
}

/// A prefix code.
#[derive(Debug, PartialEq)]
enum Code {
    /// Every pixel has this symbol, which takes no bit.
    One(u16),
    /// A bit chooses.
    Two(u16, u16),
    /// Symbols in the order of their codes, and how many have each length.
    Many { symbols: Vec<u16>, counts: [u16; LENGTH_MAX + 1] },
}

impl Code {
    /// Made of the length of each symbol's code; none if they leave codes without a symbol, or want more than there are.
    fn of(lengths: &[u8]) -> Option<Self> {
        let mut counts = [0; LENGTH_MAX + 1];
        let mut symbols: Vec<u16> = (0..).zip(lengths).filter(|(_, length)| **length != 0).map(|(at, _)| at).collect();
        if let [only] = symbols[..] {
            return Some(Self::One(only));
        }
        symbols.sort_by_key(|&symbol| lengths[usize::from(symbol)]);
        for &symbol in &symbols {
            counts[usize::from(lengths[usize::from(symbol)])] += 1;
        }
        let used: u32 = (1..=LENGTH_MAX).map(|length| u32::from(counts[length]) << (LENGTH_MAX - length)).sum();
        (used == 1 << LENGTH_MAX).then_some(Self::Many { symbols, counts })
    }

    /// Bytes that the decoder holds for it beside its structure.
    fn bytes(&self) -> u64 {
        match self {
            Self::One(_) => 0,
            Self::Two(..) => 3 * NODE_BYTES + 2 * ENTRY_BYTES,
            Self::Many { counts, .. } => {
                let longest = counts.iter().rposition(|&count| count > 0).unwrap_or(0);
                let behind: u64 = counts[TABLE_BITS + 1..].iter().map(|&count| u64::from(count)).sum();
                (ENTRY_BYTES << longest.min(TABLE_BITS)) + 2 * NODE_BYTES * behind
            }
        }
    }
}

/// Bits from the lowest of each byte on.
struct Bits<'a> {
    bytes: &'a [u8],
    /// In bits.
    at: usize,
}

impl Bits<'_> {
    fn flag(&mut self) -> Option<bool> {
        let bit = self.bytes.get(self.at / 8)? >> (self.at % 8) & 1;
        self.at += 1;
        Some(bit == 1)
    }

    /// A number of at most 18 bits.
    fn read(&mut self, bits: usize) -> Option<u32> {
        (0..bits).try_fold(0, |number, at| Some(number | u32::from(self.flag()?) << at))
    }

    fn symbol(&mut self, code: &Code) -> Option<u16> {
        match code {
            &Code::One(symbol) => Some(symbol),
            &Code::Two(first, second) => Some(if self.flag()? { second } else { first }),
            // Codes of one length follow each other, and the next length begins where they end, at twice the number.
            Code::Many { symbols, counts } => {
                let (mut code, mut first, mut index) = (0, 0, 0);
                for &count in &counts[1..] {
                    code |= usize::from(self.flag()?);
                    let count = usize::from(count);
                    if code < first + count {
                        return symbols.get(index + code - first).copied();
                    }
                    index += count;
                    (first, code) = ((first + count) << 1, code << 1);
                }
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes bits as [`Bits`] reads them.
    #[derive(Default)]
    struct Writer {
        bits: Vec<bool>,
    }

    impl Writer {
        fn number(&mut self, number: u32, bits: usize) -> &mut Self {
            self.bits.extend((0..bits).map(|at| number >> at & 1 == 1));
            self
        }

        /// A code with one symbol.
        fn one(&mut self, symbol: u32) -> &mut Self {
            self.number(0b101, 3).number(symbol, 8)
        }

        /// The code of eleven symbols with the lengths 1, 2 ... 9, 10 and 10.
        fn steep(&mut self) -> &mut Self {
            // Of the code of code lengths the symbols 1 to 6 have 3 bits, 7 to 10 have 4; fourteen lengths are told.
            self.number(0, 1).number(10, 4);
            for symbol in &ORDER[..14] {
                self.number(
                    match symbol {
                        1..=6 => 3,
                        7..=10 => 4,
                        _ => 0,
                    },
                    3,
                );
            }
            self.number(1, 1).number(1, 3).number(11 - 2, 4);
            for length in [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 10_u32] {
                let (code, bits) = if length <= 6 { (length - 1, 3) } else { (12 + length - 7, 4) };
                for at in (0..bits).rev() {
                    self.number(code >> at & 1, 1);
                }
            }
            self
        }

        /// Transforms, cache and the head of a picture whose only block names the last of so many groups.
        fn groups(groups: u32) -> Self {
            let mut writer = Self::default();
            writer.number(0, 1).number(0, 1).number(1, 1).number(0, 3).number(0, 1);
            writer.one((groups - 1) & 255).one((groups - 1) >> 8).one(0).one(0).one(0);
            writer
        }

        fn bytes(&self) -> Vec<u8> {
            self.bits.chunks(8).map(|bits| bits.iter().rev().fold(0, |byte, &bit| byte << 1 | u8::from(bit))).collect()
        }
    }

    #[test]
    fn every_table_of_every_group_is_counted() {
        let mut writer = Writer::groups(300);
        for _ in 0..300 {
            writer.steep().steep().one(3).steep().one(0);
        }
        let stream = writer.bytes();
        assert_eq!(bytes(&stream, 4, 4), 300 * (3 * 4096 + 5 * CODE_BYTES));
        let half = bytes(&stream[..stream.len() / 2], 4, 4);
        assert!((140 * 3 * 4096..160 * 3 * 4096 + 800 * CODE_BYTES).contains(&half), "{half}");
        assert_eq!(bytes(&[], 4, 4), 0);
    }

    #[test]
    fn codes_without_a_symbol_are_refused_and_symbols_come_in_the_order_of_their_codes() {
        assert_eq!(Code::of(&[0, 0]), None);
        assert_eq!(Code::of(&[1, 2]), None);
        assert_eq!(Code::of(&[1, 1, 1]), None);
        assert_eq!(Code::of(&[0, 5]), Some(Code::One(1)));
        let code = Code::of(&[2, 1, 0, 2]).unwrap();
        // 0, 10 and 11, from the front.
        let mut bits = Bits { bytes: &[0b0001_1010], at: 0 };
        let symbols: Vec<_> = (0..4).map(|_| bits.symbol(&code).unwrap()).collect();
        assert_eq!(symbols, [1, 0, 3, 1]);
        assert_eq!((code.bytes(), Code::Two(0, 1).bytes()), (16, 56));
    }

    #[test]
    fn photos_hold_tables_of_kilobytes() {
        let fixture = |name: &str| {
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/fixtures").join(name);
            std::fs::read(path).unwrap()
        };
        for name in ["webp-lossless.webp", "webp-lossless-alpha.webp"] {
            let file = fixture(name);
            let at = file.windows(4).position(|kind| kind == b"VP8L").unwrap() + 8;
            let head = u32::from_le_bytes(file[at + 1..at + 5].try_into().unwrap());
            let held = bytes(&file[at + 5..], (head & 0x3FFF) + 1, (head >> 14 & 0x3FFF) + 1);
            assert!((1_000..200_000).contains(&held), "{name}: {held}");
        }
    }
}
