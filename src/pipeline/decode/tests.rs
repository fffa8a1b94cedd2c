//! Golden pictures from Pillow (`tests/golden/make.py`), refusals, and mutated files.

use std::path::PathBuf;

use proptest::prelude::*;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::*;

fn golden(name: &str) -> Vec<u8> {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden")).join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn fixture(name: &str) -> Vec<u8> {
    golden(&format!("fixtures/{name}"))
}

fn manifest() -> Vec<Value> {
    serde_json::from_slice(&golden("decode/manifest.json")).unwrap()
}

fn decode(bytes: &[u8]) -> Result<Image, DecodeError> {
    open(bytes, &DecodeOptions::default())?.decode()
}

fn as_stored() -> DecodeOptions {
    DecodeOptions { exif_orientation: ExifOrientation::Ignore, ..DecodeOptions::default() }
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The tolerance is zero for every format, also the lossy ones: `libjpeg-turbo-rs` and `image-webp` repeat the integer
/// arithmetic of the C libraries that Pillow links. The 32 photos and 1000 CIFAR-10 images at hand were equal too.
#[test]
fn every_fixture_equals_pillow() {
    let mut failures = Vec::new();
    for case in manifest() {
        let name = case["file"].as_str().unwrap();
        let image = match decode(&golden(&format!("fixtures/{name}"))) {
            Ok(image) => image,
            Err(error) => {
                failures.push(format!("{name}: {error}"));
                continue;
            }
        };
        let size = (u64::from(image.width()), u64::from(image.height()));
        if size != (case["width"].as_u64().unwrap(), case["height"].as_u64().unwrap()) {
            failures.push(format!("{name}: {size:?}"));
        } else if name.starts_with("..") {
            // The photos are too large to keep their pixels; their digest is enough, since they are exact.
            if sha256(image.rgb()) != case["sha256"] {
                failures.push(format!("{name}: pixels differ"));
            }
        } else {
            let expected = golden(&format!("decode/{name}.rgb"));
            let off = image.rgb().iter().zip(&expected).filter(|(a, b)| a != b).count();
            if off > 0 {
                failures.push(format!("{name}: {off} of {} samples differ", expected.len()));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn orientation_can_be_ignored() {
    let mut compared = 0;
    for case in manifest() {
        let (Some(stored), name) = (case.get("stored"), case["file"].as_str().unwrap()) else { continue };
        let bytes = fixture(name);
        let image = open(&bytes, &as_stored()).unwrap().decode().unwrap();
        assert_eq!(u64::from(image.width()), stored["width"].as_u64().unwrap(), "{name}");
        assert_eq!(sha256(image.rgb()), stored["sha256"], "{name}");
        compared += 1;
    }
    assert!(compared >= 10, "only {compared} fixtures carry an orientation");
}

#[test]
fn header_tells_the_stored_and_the_upright_size() {
    let bytes = fixture("jpeg-orientation-6.jpg");
    let pending = open(&bytes, &DecodeOptions::default()).unwrap();
    let header = pending.header();
    assert_eq!((header.width, header.height, header.orientation), (19, 11, Orientation::Rotate90));
    assert_eq!(pending.info(), ImageInfo { width: 11, height: 19, format: ImageFormat::Jpeg });
    assert!(pending.memory_bytes() >= 2 * 19 * 11 * 3);
    assert_eq!(open(&bytes, &as_stored()).unwrap().header().orientation, Orientation::Upright);
}

#[test]
fn memory_estimate_covers_the_picture_and_its_samples() {
    for case in manifest() {
        let bytes = golden(&format!("fixtures/{}", case["file"].as_str().unwrap()));
        let pending = open(&bytes, &DecodeOptions::default()).unwrap();
        let pixels = u64::from(pending.header().width) * u64::from(pending.header().height);
        assert!(pending.memory_bytes() >= pixels * 4, "{case}");
        assert!(pending.memory_bytes() <= pixels * 64 + (8 << 20), "{case}");
    }
}

#[test]
fn bytes_decide_not_names() {
    assert_eq!(decode(b"").unwrap_err(), DecodeError::Empty);
    assert_eq!(
        decode(b"hello, I am a cat.jpg").unwrap_err().to_string(),
        "not an image: it begins with 68 65 6c 6c 6f 2c 20 49; JPEG, PNG, WebP, GIF, BMP and TIFF are accepted"
    );
    assert_eq!(decode(&[0xFF]).unwrap_err(), DecodeError::NotAnImage { first_bytes: "ff".to_owned() });
    assert_eq!(decode(b"\0\0\0\x20ftypavif\0\0\0\0").unwrap_err(), DecodeError::UnsupportedFormat { name: "AVIF" });
}

fn png_header(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = fixture("png-rgb8.png");
    bytes[16..20].copy_from_slice(&width.to_be_bytes());
    bytes[20..24].copy_from_slice(&height.to_be_bytes());
    bytes
}

#[test]
fn limits_hold_at_the_bound_and_not_one_past_it() {
    let opened = |width, height, limits| {
        let bytes = png_header(width, height);
        open(&bytes, &DecodeOptions { limits, ..DecodeOptions::default() }).map(|pending| pending.header())
    };
    let limits = DecodeLimits { width_max: 100, height_max: 80, pixels_max: 4000 };
    assert!(opened(100, 40, limits).is_ok());
    assert!(opened(50, 80, limits).is_ok());
    assert_eq!(opened(101, 1, limits).unwrap_err(), DecodeError::TooWide { width: 101, max: 100 });
    assert_eq!(opened(1, 81, limits).unwrap_err(), DecodeError::TooTall { height: 81, max: 80 });
    assert_eq!(opened(100, 41, limits).unwrap_err().to_string(), "100x41 has 4100 pixels, at most 4000 allowed");
}

#[test]
fn giant_header_in_a_small_file_is_refused_before_anything_is_allocated() {
    let options = DecodeOptions::default();
    assert_eq!(
        open(&png_header(65_535, 65_535), &options).unwrap_err(),
        DecodeError::TooWide { width: 65_535, max: 32_768 }
    );
    assert_eq!(
        open(&png_header(30_000, 30_000), &options).unwrap_err(),
        DecodeError::TooManyPixels {
            pixels: 900_000_000,
            max: DecodeLimits::DEFAULT.pixels_max,
            width: 30_000,
            height: 30_000
        }
    );
    assert!(matches!(open(&png_header(u32::MAX, u32::MAX), &options), Err(DecodeError::TooWide { .. })));
    let mut jpeg = fixture("jpeg-420.jpg");
    let frame = jpeg.windows(2).position(|pair| pair == [0xFF, 0xC0]).unwrap();
    jpeg[frame + 5..frame + 9].copy_from_slice(&[0xFF; 4]);
    assert!(matches!(open(&jpeg, &options), Err(DecodeError::TooWide { width: 65_535, .. })));
}

#[test]
fn zero_sizes_are_broken() {
    assert_eq!(
        decode(&png_header(0, 5)).unwrap_err(),
        DecodeError::Broken { format: ImageFormat::Png, cause: "its size is 0x5".to_owned() }
    );
}

#[test]
fn long_and_thin_picture_decodes() {
    use image::ImageEncoder as _;
    let rgb: Vec<u8> = (0..60_000).map(|i| (i % 251) as u8).collect();
    let mut png = Vec::new();
    let encoder = image::codecs::png::PngEncoder::new(&mut png);
    encoder.write_image(&rgb, 1, 20_000, image::ExtendedColorType::Rgb8).unwrap();
    let image = decode(&png).unwrap();
    assert_eq!((image.width(), image.height()), (1, 20_000));
    assert_eq!(image.rgb(), rgb);
}

#[test]
fn tiff_tag_that_claims_more_than_the_file_is_refused() {
    let mut bytes = fixture("tiff-rgb16-le.tif");
    // The count of the first tag with three values, bits per sample.
    let at = bytes.windows(4).position(|tag| tag == [2, 1, 3, 0]).unwrap() + 4;
    bytes[at..at + 4].copy_from_slice(&50_000_000_u32.to_le_bytes());
    let error = open(&bytes, &DecodeOptions::default()).unwrap_err();
    assert_eq!(error.to_string(), "TIFF image is broken: a tag has more values than the file, or than allowed");
}

#[test]
fn gif_without_a_frame_is_broken() {
    let mut bytes = fixture("gif-transparent.gif");
    // Header, screen and a palette of 16 colours, then at once the end.
    bytes.truncate(13 + 48);
    bytes.push(b';');
    assert!(matches!(decode(&bytes), Err(DecodeError::Broken { format: ImageFormat::Gif, .. })));
}

#[test]
fn truncated_files_are_broken() {
    // As stored: metadata may stand behind the pixels, and what is cut off may be only that.
    let decode = |bytes: &[u8]| open(bytes, &as_stored())?.decode();
    for case in manifest() {
        let name = case["file"].as_str().unwrap();
        let bytes = golden(&format!("fixtures/{name}"));
        let whole = decode(&bytes).unwrap();
        for percent in [10, 50, 90, 99] {
            let cut = bytes.len() * percent / 100;
            match decode(&bytes[..cut]) {
                Err(DecodeError::Broken { .. } | DecodeError::NotAnImage { .. }) => {}
                Err(other) => panic!("{name} cut at {percent} %: {other}"),
                // Or an end marker, or later frames. A JPEG must have its end marker.
                Ok(image) => assert!(
                    image == whole && !name.ends_with(".jpg"),
                    "{name} cut at {percent} % decodes to another picture"
                ),
            }
        }
    }
}

/// Found by fuzzing: the decoder reads such a chunk as far as it goes, and takes memory for the picture inside it.
#[test]
fn webp_chunk_that_claims_more_than_the_file_is_held_to_the_declared_size() {
    let mut chunks = b"WEBPVP8X\x0a\0\0\0\0\0\0\0\x24\0\0\x1c\0\0VP8 \xff\xff\xff\xff".to_vec();
    // A frame of 8524x3092 in a canvas of 37x29.
    chunks.extend([0x10, 0, 0, 0x9D, 0x01, 0x2A, 0x4C, 0x21, 0x14, 0x0C, 0, 0]);
    let bytes = [b"RIFF", &(chunks.len() as u32).to_le_bytes()[..], &chunks].concat();
    let error = open(&bytes, &DecodeOptions::default()).unwrap_err().to_string();
    assert!(error.contains("a frame is 8524x3092, declared as 37x29"), "{error}");
}

/// Found by fuzzing: a megabyte of such groups became three hundred of tables.
#[test]
fn webp_is_charged_for_the_tables_of_its_prefix_codes() {
    let many =
        std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/hostile/webp-160-groups.webp")).unwrap();
    let pending = open(&many, &DecodeOptions::default()).unwrap();
    // 160 groups of five tables of 4 KiB.
    assert!(pending.memory_bytes() > 160 * 5 * 4096 + (1 << 20), "{}", pending.memory_bytes());
    assert_eq!(pending.decode().unwrap().rgb().len(), 4 * 4 * 3);
}

#[test]
fn jpeg_needs_its_end_marker() {
    for name in ["../inputs/cat.jpg", "jpeg-420.jpg", "jpeg-420-progressive.jpg", "jpeg-restart.jpg"] {
        let bytes = golden(&format!("fixtures/{name}"));
        for missing in 1..40 {
            let error = decode(&bytes[..bytes.len() - missing]).unwrap_err();
            assert!(
                matches!(error, DecodeError::Broken { format: ImageFormat::Jpeg, .. }),
                "{name} -{missing}: {error}"
            );
        }
        let mut trailing = bytes.clone();
        trailing.extend_from_slice(b"whatever a camera appends");
        assert_eq!(decode(&trailing).unwrap(), decode(&bytes).unwrap(), "{name}");
    }
}

#[test]
fn jpeg_with_missing_data_before_the_end_marker_is_broken() {
    let bytes = golden("inputs/cat.jpg");
    let mut cut = bytes[..bytes.len() / 2].to_vec();
    cut.extend_from_slice(&[0xFF, 0xD9]);
    assert!(matches!(decode(&cut), Err(DecodeError::Broken { format: ImageFormat::Jpeg, .. })));
}

fn any_fixture() -> impl Strategy<Value = Vec<u8>> {
    let names: Vec<String> = manifest().iter().map(|case| case["file"].as_str().unwrap().to_owned()).collect();
    let small: Vec<Vec<u8>> = names.iter().filter(|name| !name.starts_with("..")).map(|name| fixture(name)).collect();
    prop::sample::select(small)
}

#[derive(Debug, Clone)]
enum Damage {
    Set(prop::sample::Index, u8),
    Flip(prop::sample::Index, u8),
    Insert(prop::sample::Index, u8),
    Remove(prop::sample::Index),
    Cut(prop::sample::Index),
}

fn any_damage() -> impl Strategy<Value = Damage> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        (index(), any::<u8>()).prop_map(|(at, value)| Damage::Set(at, value)),
        (index(), 0..8_u8).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        (index(), any::<u8>()).prop_map(|(at, value)| Damage::Insert(at, value)),
        index().prop_map(Damage::Remove),
        index().prop_map(Damage::Cut),
    ]
}

fn damaged(mut bytes: Vec<u8>, damages: &[Damage]) -> Vec<u8> {
    for damage in damages {
        if bytes.is_empty() {
            break;
        }
        let len = bytes.len();
        match damage {
            Damage::Set(at, value) => bytes[at.index(len)] = *value,
            Damage::Flip(at, bit) => bytes[at.index(len)] ^= 1 << bit,
            Damage::Insert(at, value) => bytes.insert(at.index(len), *value),
            Damage::Remove(at) => drop(bytes.remove(at.index(len))),
            Damage::Cut(at) => bytes.truncate(at.index(len)),
        }
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn damaged_files_never_panic(
        bytes in any_fixture(), damages in prop::collection::vec(any_damage(), 1..6), ignore: bool,
        scale in prop::sample::select(Scale::EVERY.to_vec()),
    ) {
        // A small bound keeps the run quick: damage to a size field would otherwise fill memory, as a real one may.
        let limits = DecodeLimits { pixels_max: 100_000, ..DecodeLimits::default() };
        let exif_orientation = if ignore { ExifOrientation::Ignore } else { ExifOrientation::Apply };
        let bytes = damaged(bytes, &damages);
        if let Ok(mut pending) = open(&bytes, &DecodeOptions { exif_orientation, limits, ..DecodeOptions::default() }) {
            if let Codec::Jpeg(_) = pending.codec {
                pending.scale = scale;
            }
            let info = pending.info();
            if let Ok(image) = pending.decode() {
                prop_assert_eq!(image.info(), info);
            }
        }
    }

    #[test]
    fn noise_never_panics(start in any_fixture(), keep in 0..64_usize, noise in prop::collection::vec(any::<u8>(), 0..400)) {
        let mut bytes = start[..keep.min(start.len())].to_vec();
        bytes.extend(noise);
        let limits = DecodeLimits { pixels_max: 100_000, ..DecodeLimits::default() };
        let _outcome = open(&bytes, &DecodeOptions { limits, ..DecodeOptions::default() }).map(Pending::decode);
    }
}
