//! What a file is that was given in place of an ONNX model, by its first bytes.

use super::GraphError;

/// Longest head that is looked at.
const HEAD_BYTES: usize = 1024;
/// First line of every Git LFS pointer (github.com/git-lfs/git-lfs, docs/spec.md); the file stays below this size.
const LFS_VERSION: &[u8] = b"version https://git-lfs";
const LFS_BYTES_MAX: usize = 1024;

const PICKLE: &str = "a Python pickle (as older PyTorch .pth files are)";
const FROM_TORCH: &str =
    "export the model with torch.onnx.export, or save its weights as .safetensors and run `residual convert`";

/// Kinds of files that people take for ONNX models: first bytes, name, what to do.
const KINDS: [(&[u8], &str, &str); 15] = [
    (b"PK\x03\x04", "a zip archive (as PyTorch's .pt and .pth and Keras's .keras files are)", FROM_TORCH),
    (b"PK\x05\x06", "an empty zip archive", "download it again"),
    (b"\x80\x02", PICKLE, FROM_TORCH),
    (b"\x80\x03", PICKLE, FROM_TORCH),
    (b"\x80\x04", PICKLE, FROM_TORCH),
    (b"\x80\x05", PICKLE, FROM_TORCH),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file (as Keras's .h5 is)", "convert the model with tf2onnx"),
    (b"\x1f\x8b", "gzip-compressed", "unpack it first"),
    (b"BZh", "bzip2-compressed", "unpack it first"),
    (b"\xfd7zXZ\x00", "xz-compressed", "unpack it first"),
    (b"\x28\xb5\x2f\xfd", "zstd-compressed", "unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it first"),
    (b"GGUF", "a GGUF file", "image classifiers come as .onnx or .safetensors"),
    (b"\x93NUMPY", "a NumPy array", "give the model's .onnx file"),
    (b"%PDF-", "a PDF", "give the model's .onnx file"),
];

/// Says what `bytes` are where their first bytes belong to another kind of file.
///
/// # Errors
/// [`GraphError::Empty`], [`GraphError::LfsPointer`] or [`GraphError::OtherFormat`].
pub(super) fn sniff(bytes: &[u8]) -> Result<(), GraphError> {
    if bytes.is_empty() {
        return Err(GraphError::Empty);
    }
    let head = &bytes[..bytes.len().min(HEAD_BYTES)];
    if head.starts_with(LFS_VERSION) && bytes.len() <= LFS_BYTES_MAX {
        return Err(lfs_pointer(head));
    }
    if let Some((_, kind, advice)) = KINDS.iter().find(|(magic, ..)| head.starts_with(magic)) {
        return Err(GraphError::OtherFormat { kind, advice });
    }
    let other = |kind, advice| Err(GraphError::OtherFormat { kind, advice });
    if is_safetensors(head) {
        return other("a safetensors file", "run `residual convert` on it");
    }
    // The identifier of a flatbuffer stands behind the offset of its root.
    match head.get(4..8) {
        Some(b"TFL3") => return other("a TensorFlow Lite model", "convert the model with tf2onnx"),
        Some(b"ORTM") => {
            return other("a model in ONNX Runtime's own .ort format", "give the .onnx file it was made of");
        }
        _ => {}
    }
    if head.get(257..262) == Some(b"ustar".as_slice()) {
        return other("a tar archive", "unpack it first");
    }
    match text(head) {
        Some(text) if text.starts_with('<') => {
            let html = "an HTML or XML page (a login, an error or a download page, most likely)";
            other(html, "download the file itself: in a browser the link may read \"raw\" or \"resolve\"")
        }
        Some(text) if text.starts_with(['{', '[']) => other("a JSON file", "give the model's .onnx file"),
        Some(_) => other("a text file", "give the model's .onnx file"),
        None if is_tensorflow(head) => other("a TensorFlow model (.pb)", "convert the model with tf2onnx"),
        None => Ok(()),
    }
}

fn lfs_pointer(head: &[u8]) -> GraphError {
    let size = String::from_utf8_lossy(head)
        .lines()
        .find_map(|line| line.strip_prefix("size ")?.trim().parse::<u64>().ok())
        .map(|bytes| format!(" of {bytes} bytes"));
    GraphError::LfsPointer { found: head.len(), size: size.unwrap_or_default() }
}

/// A safetensors file begins with the length of its JSON header, a little-endian u64, and that header.
fn is_safetensors(head: &[u8]) -> bool {
    head.get(8) == Some(&b'{') && head.get(9).is_some_and(|byte| matches!(byte, b'"' | b'}' | b' ' | b'\n'))
}

/// A frozen `GraphDef` begins with field 1 as a message, its first node; a `SavedModel` with field 1 as a varint 1 and
/// field 2 as a message that begins with its own field 1, where ONNX has the name of the producer.
fn is_tensorflow(head: &[u8]) -> bool {
    let behind_length =
        |rest: &[u8]| rest.iter().position(|byte| *byte < 0x80).and_then(|at| rest.get(at + 1).copied());
    head.first() == Some(&0x0a) || head.strip_prefix(b"\x08\x01\x12").and_then(behind_length) == Some(0x0a)
}

/// The head as text, less white space and byte order mark at its front, if it is nothing but text.
fn text(head: &[u8]) -> Option<&str> {
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        // The head may end inside a character.
        Err(error) if error.error_len().is_none() => std::str::from_utf8(&head[..error.valid_up_to()]).ok()?,
        Err(_) => return None,
    };
    let is_text = |character: char| !character.is_control() || matches!(character, '\n' | '\r' | '\t');
    // A short text of printable characters only; an ONNX model begins with the byte 8, or another tag below a space.
    text.chars().all(is_text).then(|| text.trim_start_matches('\u{feff}').trim_start())
}
