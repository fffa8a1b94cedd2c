//! Which format the bytes are. File names and content types are not asked: clients get them wrong, or send none.

use std::fmt::Write as _;

use super::DecodeError;
use crate::pipeline::types::ImageFormat;

/// The format that the first bytes name.
pub(super) fn sniff(bytes: &[u8]) -> Result<ImageFormat, DecodeError> {
    match bytes {
        [] => Err(DecodeError::Empty),
        [0xFF, 0xD8, 0xFF, ..] => Ok(ImageFormat::Jpeg),
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1A, b'\n', ..] => Ok(ImageFormat::Png),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Ok(ImageFormat::Webp),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Ok(ImageFormat::Gif),
        [b'B', b'M', ..] => Ok(ImageFormat::Bmp),
        [b'I', b'I', 42 | 43, 0, ..] | [b'M', b'M', 0, 42 | 43, ..] => Ok(ImageFormat::Tiff),
        _ => {
            Err(unsupported(bytes).map_or_else(|| not_an_image(bytes), |name| DecodeError::UnsupportedFormat { name }))
        }
    }
}

/// Formats that people do upload; naming them tells the client more than a row of bytes.
fn unsupported(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [_, _, _, _, b'f', b't', b'y', b'p', b'a', b'v', b'i', b'f' | b's', ..] => Some("AVIF"),
        [_, _, _, _, b'f', b't', b'y', b'p', b'h', b'e', ..] | [_, _, _, _, b'f', b't', b'y', b'p', b'm', b'i', ..] => {
            Some("HEIC")
        }
        [0xFF, 0x0A, ..] | [0, 0, 0, 0x0C, b'J', b'X', b'L', b' ', ..] => Some("JPEG XL"),
        [0, 0, 0, 0x0C, b'j', b'P', b' ', b' ', ..] | [0xFF, 0x4F, 0xFF, 0x51, ..] => Some("JPEG 2000"),
        [0, 0, 1, 0, ..] => Some("ICO"),
        [b'8', b'B', b'P', b'S', ..] => Some("Photoshop"),
        [b'%', b'P', b'D', b'F', ..] => Some("PDF"),
        [b'P', b'1'..=b'7', b'\n' | b' ', ..] => Some("PNM"),
        [b'<', b's', b'v', b'g', ..] => Some("SVG"),
        _ => None,
    }
}

fn not_an_image(bytes: &[u8]) -> DecodeError {
    let first_bytes = bytes.iter().take(8).fold(String::new(), |mut text, byte| {
        let space = if text.is_empty() { "" } else { " " };
        let _infallible = write!(text, "{space}{byte:02x}");
        text
    });
    DecodeError::NotAnImage { first_bytes }
}
