"""Makes every fixture and golden array of this folder from inputs/*.jpg, with Pillow and OpenCV as the references.

    python -m pip install -r requirements.txt
    python make.py

The output is deterministic: running it again changes no file. Fixtures that Pillow cannot write (interlaced PNG, 16-bit
RGB, run-length BMP, a GIF frame smaller than its canvas) are assembled byte by byte below.
"""

import hashlib
import io
import json
import pathlib
import shutil
import struct
import zlib

import cv2
import numpy as np
import simplejpeg
from PIL import Image, ImageOps

HERE = pathlib.Path(__file__).parent
FIXTURES = HERE / "fixtures"
DECODE = HERE / "decode"
PREPROCESS = HERE / "preprocess"

# Odd sizes, so that no block, byte or chroma boundary falls on the edge by luck.
WIDTH, HEIGHT = 37, 29
CAT = Image.open(HERE / "inputs/cat.jpg").convert("RGB").crop((160, 60, 160 + 4 * WIDTH, 60 + 4 * HEIGHT))
PHOTO = CAT.resize((WIDTH, HEIGHT), Image.Resampling.BOX)
RGB = np.asarray(PHOTO)
GRAY = np.asarray(PHOTO.convert("L"))
ALPHA = np.add.outer(np.arange(HEIGHT) * 5, np.arange(WIDTH) * 3).astype(np.uint8)

fixtures: dict[str, bytes] = {}


def saved(image: Image.Image, kind: str, **options) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def exif_with_orientation(value: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif.tobytes()


def xmp_with_orientation(value: int) -> bytes:
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="{value}"/>'
        "</rdf:RDF></x:xmpmeta>"
    ).encode()


# --- JPEG -------------------------------------------------------------------------------------------------------------


def jpeg_with_adobe_transform(jpeg: bytes, transform: int) -> bytes:
    at = jpeg.index(b"Adobe")
    return jpeg[: at + 11] + bytes([transform]) + jpeg[at + 12 :]


def jpeg_segment(marker: int, payload: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload


def jpeg_with_segment(jpeg: bytes, marker: int, payload: bytes) -> bytes:
    return jpeg[:2] + jpeg_segment(marker, payload) + jpeg[2:]


def make_jpegs() -> None:
    for name, subsampling in [("444", 0), ("422", 1), ("420", 2)]:
        fixtures[f"jpeg-{name}.jpg"] = saved(PHOTO, "JPEG", quality=85, subsampling=subsampling)
        fixtures[f"jpeg-{name}-progressive.jpg"] = saved(
            PHOTO, "JPEG", quality=85, subsampling=subsampling, progressive=True
        )
    fixtures["jpeg-low-quality.jpg"] = saved(PHOTO, "JPEG", quality=10)
    fixtures["jpeg-optimized-huffman.jpg"] = saved(PHOTO, "JPEG", quality=85, optimize=True)
    fixtures["jpeg-restart.jpg"] = saved(PHOTO, "JPEG", quality=85, restart_marker_blocks=2)
    fixtures["jpeg-rgb-components.jpg"] = saved(PHOTO, "JPEG", quality=85, keep_rgb=True)
    fixtures["jpeg-gray.jpg"] = saved(PHOTO.convert("L"), "JPEG", quality=85)
    fixtures["jpeg-gray-progressive.jpg"] = saved(PHOTO.convert("L"), "JPEG", quality=85, progressive=True)
    cmyk = saved(PHOTO.convert("CMYK"), "JPEG", quality=90)
    fixtures["jpeg-cmyk.jpg"] = cmyk
    fixtures["jpeg-cmyk-progressive.jpg"] = saved(PHOTO.convert("CMYK"), "JPEG", quality=90, progressive=True)
    # The same four planes, now declared as YCCK: the colours are odd, the arithmetic is the one to check.
    fixtures["jpeg-ycck.jpg"] = jpeg_with_adobe_transform(cmyk, 2)
    fixtures["jpeg-1x1.jpg"] = saved(PHOTO.crop((5, 5, 6, 6)), "JPEG")
    upright = PHOTO.crop((0, 0, 19, 11))
    for value in range(1, 9):
        fixtures[f"jpeg-orientation-{value}.jpg"] = saved(upright, "JPEG", exif=exif_with_orientation(value))
    plain = saved(upright, "JPEG")
    fixtures["jpeg-orientation-9.jpg"] = saved(upright, "JPEG", exif=exif_with_orientation(9))
    big_endian = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    fixtures["jpeg-orientation-big-endian.jpg"] = jpeg_with_segment(plain, 0xE1, big_endian)
    fixtures["jpeg-orientation-xmp.jpg"] = jpeg_with_segment(
        plain, 0xE1, b"http://ns.adobe.com/xap/1.0/\0" + xmp_with_orientation(6)
    )
    # The photo must still load when its EXIF is cut short, points behind itself or is noise.
    exif = exif_with_orientation(6)
    fixtures["jpeg-exif-cut.jpg"] = jpeg_with_segment(plain, 0xE1, exif[:12])
    fixtures["jpeg-exif-far-offset.jpg"] = jpeg_with_segment(plain, 0xE1, b"Exif\0\0II*\0\xff\xff\xff\x7f")


# --- PNG --------------------------------------------------------------------------------------------------------------


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, depth, colour, rows: bytes, before=b"", after=b"", interlace=0) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + before
        + png_chunk(b"IDAT", zlib.compress(rows, 9))
        + after
        + png_chunk(b"IEND", b"")
    )


def packed_rows(samples: np.ndarray, depth: int) -> bytes:
    """[H, W * channels] samples as filter-0 PNG rows."""
    rows = b""
    for row in samples:
        if depth == 16:
            data = row.astype(">u2").tobytes()
        else:
            bits = "".join(format(int(v), f"0{depth}b") for v in row)
            bits += "0" * (-len(bits) % 8)
            data = bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))
        rows += b"\0" + data
    return rows


def adam7_rows(pixels: np.ndarray) -> bytes:
    out = b""
    for x0, y0, dx, dy in [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]:
        part = pixels[y0::dy, x0::dx]
        if part.size:
            out += packed_rows(part.reshape(part.shape[0], -1), 8)
    return out


def make_pngs() -> None:
    gray16 = GRAY.astype(np.uint16) * 257 + np.arange(WIDTH, dtype=np.uint16) * 3
    # A third of the rows stays below 256, where a clip and a shift differ.
    gray16[::3] //= 200
    rgb16 = RGB.astype(np.uint16) * 256 + 200
    flat = lambda a: a.reshape(a.shape[0], -1)
    stack = lambda *a: np.dstack(a)
    fixtures["png-rgb8.png"] = saved(PHOTO, "PNG", optimize=True)
    fixtures["png-rgba8.png"] = saved(Image.fromarray(stack(RGB, ALPHA)), "PNG")
    fixtures["png-gray8.png"] = saved(Image.fromarray(GRAY), "PNG")
    fixtures["png-la8.png"] = saved(Image.fromarray(stack(GRAY, ALPHA)), "PNG")
    fixtures["png-gray1.png"] = png(WIDTH, HEIGHT, 1, 0, packed_rows(GRAY >> 7, 1))
    fixtures["png-gray2.png"] = png(WIDTH, HEIGHT, 2, 0, packed_rows(GRAY >> 6, 2))
    fixtures["png-gray4.png"] = png(WIDTH, HEIGHT, 4, 0, packed_rows(GRAY >> 4, 4))
    fixtures["png-gray16.png"] = png(WIDTH, HEIGHT, 16, 0, packed_rows(gray16, 16))
    fixtures["png-gray16-trns.png"] = png(
        WIDTH, HEIGHT, 16, 0, packed_rows(gray16, 16), before=png_chunk(b"tRNS", b"\0\x05")
    )
    fixtures["png-la16.png"] = png(
        WIDTH, HEIGHT, 16, 4, packed_rows(flat(stack(gray16, ALPHA.astype(np.uint16) * 257)), 16)
    )
    fixtures["png-rgb16.png"] = png(WIDTH, HEIGHT, 16, 2, packed_rows(flat(rgb16), 16))
    fixtures["png-rgba16.png"] = png(
        WIDTH, HEIGHT, 16, 6, packed_rows(flat(stack(rgb16, ALPHA.astype(np.uint16) * 257)), 16)
    )
    fixtures["png-gray8-trns.png"] = png(
        WIDTH, HEIGHT, 8, 0, packed_rows(GRAY, 8), before=png_chunk(b"tRNS", b"\0\x80")
    )
    fixtures["png-gray1-trns.png"] = png(
        WIDTH, HEIGHT, 1, 0, packed_rows(GRAY >> 7, 1), before=png_chunk(b"tRNS", b"\0\x01")
    )
    fixtures["png-rgb8-trns.png"] = png(
        WIDTH, HEIGHT, 8, 2, packed_rows(flat(RGB), 8), before=png_chunk(b"tRNS", b"\0\x10\0\x20\0\x30")
    )
    for depth, colours in [(1, 2), (2, 4), (4, 16), (8, 200)]:
        small = PHOTO.quantize(colours)
        palette = bytes(small.getpalette())[: colours * 3]
        indices = np.asarray(small)
        before = png_chunk(b"PLTE", palette)
        fixtures[f"png-palette{depth}.png"] = png(WIDTH, HEIGHT, depth, 3, packed_rows(indices, depth), before=before)
        before += png_chunk(b"tRNS", bytes(range(0, 2 * min(colours, 100), 2)))
        fixtures[f"png-palette{depth}-alpha.png"] = png(
            WIDTH, HEIGHT, depth, 3, packed_rows(indices, depth), before=before
        )
    fixtures["png-interlaced.png"] = png(WIDTH, HEIGHT, 8, 2, adam7_rows(RGB), interlace=1)
    exif = exif_with_orientation(8)[6:]
    fixtures["png-orientation.png"] = png(WIDTH, HEIGHT, 8, 2, packed_rows(flat(RGB), 8), before=png_chunk(b"eXIf", exif))
    fixtures["png-orientation-after-data.png"] = png(
        WIDTH, HEIGHT, 8, 2, packed_rows(flat(RGB), 8), after=png_chunk(b"eXIf", exif)
    )
    xmp = b"XML:com.adobe.xmp\0\0\0\0\0" + xmp_with_orientation(3)
    fixtures["png-orientation-xmp.png"] = png(
        WIDTH, HEIGHT, 8, 2, packed_rows(flat(RGB), 8), before=png_chunk(b"iTXt", xmp)
    )
    fixtures["png-1x1.png"] = saved(PHOTO.crop((5, 5, 6, 6)), "PNG")
    mirrored = ImageOps.mirror(PHOTO)
    fixtures["apng-first-in-data.png"] = saved(PHOTO, "PNG", save_all=True, append_images=[mirrored])
    fixtures["apng-default-image.png"] = saved(
        PHOTO, "PNG", save_all=True, append_images=[mirrored, PHOTO], default_image=True
    )


# --- WebP -------------------------------------------------------------------------------------------------------------


def make_webps() -> None:
    # Smooth alpha: what lossy WebP does to pixels under full transparency is the encoder's own business.
    rgba = Image.fromarray(np.dstack([RGB, np.maximum(ALPHA, 1)]))
    mirrored = ImageOps.mirror(PHOTO)
    fixtures["webp-lossy.webp"] = saved(PHOTO, "WEBP", quality=80)
    fixtures["webp-lossy-low-quality.webp"] = saved(PHOTO, "WEBP", quality=5)
    fixtures["webp-lossless.webp"] = saved(PHOTO, "WEBP", lossless=True)
    fixtures["webp-lossy-alpha.webp"] = saved(rgba, "WEBP", quality=80)
    fixtures["webp-lossless-alpha.webp"] = saved(rgba, "WEBP", lossless=True, exact=True)
    fixtures["webp-animated.webp"] = saved(PHOTO, "WEBP", save_all=True, append_images=[mirrored], lossless=True)
    fixtures["webp-animated-alpha.webp"] = saved(rgba, "WEBP", save_all=True, append_images=[mirrored], lossless=True, exact=True)
    fixtures["webp-orientation.webp"] = saved(PHOTO, "WEBP", lossless=True, exif=exif_with_orientation(6))
    fixtures["webp-1x1.webp"] = saved(PHOTO.crop((5, 5, 6, 6)), "WEBP", lossless=True)


# --- GIF --------------------------------------------------------------------------------------------------------------


def gif_codes(indices: bytes, code_bits: int) -> bytes:
    """LZW that never compresses: a clear code before the table could widen the codes."""
    clear, end, width = 1 << code_bits, (1 << code_bits) + 1, code_bits + 1
    codes = []
    for i, index in enumerate(indices):
        if i % ((1 << code_bits) - 2) == 0:
            codes.append(clear)
        codes.append(index)
    codes.append(end)
    value = sum(code << (i * width) for i, code in enumerate(codes))
    data = value.to_bytes((len(codes) * width + 7) // 8, "little")
    blocks = b"".join(bytes([len(data[i : i + 255])]) + data[i : i + 255] for i in range(0, len(data), 255))
    return bytes([code_bits]) + blocks + b"\0"


def gif(canvas, frame, left, top, palette=None, local=None, transparent=None, background=0, interlace=False) -> bytes:
    table = lambda p: 0x80 | (len(p) // 3).bit_length() - 2
    out = b"GIF89a" + struct.pack("<HHBBB", *canvas, table(palette) if palette else 0, background, 0) + (palette or b"")
    if transparent is not None:
        out += b"!\xf9\x04\x01\0\0" + bytes([transparent]) + b"\0"
    flags = (table(local) if local else 0) | (0x40 if interlace else 0)
    out += b"," + struct.pack("<HHHHB", left, top, frame.shape[1], frame.shape[0], flags) + (local or b"")
    if interlace:
        frame = np.concatenate([frame[0::8], frame[4::8], frame[2::4], frame[1::2]])
    return out + gif_codes(frame.tobytes(), 4) + b";"


def make_gifs() -> None:
    small = PHOTO.quantize(16)
    palette = bytes(small.getpalette()[:48])
    other = bytes(255 - v for v in palette)
    indices = np.asarray(small)
    size = (WIDTH, HEIGHT)
    mirrored = ImageOps.mirror(PHOTO)
    fixtures["gif-plain.gif"] = saved(PHOTO.quantize(200), "GIF")
    fixtures["gif-animated.gif"] = saved(PHOTO, "GIF", save_all=True, append_images=[mirrored])
    fixtures["gif-interlaced.gif"] = gif(size, indices, 0, 0, palette, interlace=True)
    fixtures["gif-local-palette.gif"] = gif(size, indices, 0, 0, palette, local=other)
    fixtures["gif-transparent.gif"] = gif(size, indices, 0, 0, palette, transparent=3)
    part = indices[4:20, 6:30]
    fixtures["gif-small-frame.gif"] = gif(size, part, 6, 4, palette, background=5)
    fixtures["gif-small-frame-transparent.gif"] = gif(size, part, 6, 4, palette, transparent=3, background=5)
    fixtures["gif-small-frame-local-palette.gif"] = gif(size, part, 6, 4, palette, local=other, transparent=7)
    fixtures["gif-frame-beyond-canvas.gif"] = gif((20, 15), part, 10, 8, palette)
    # Indices beyond the palette: Pillow shows them as black.
    fixtures["gif-short-palette.gif"] = gif(size, indices, 0, 0, palette[:24])


# --- BMP --------------------------------------------------------------------------------------------------------------


def bmp(width, height, bits, data: bytes, compression=0, palette=b"", masks=b"") -> bytes:
    offset = 14 + 40 + len(masks) + len(palette)
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(data), 0, 0, len(palette) // 4, 0)
    return b"BM" + struct.pack("<IHHI", offset + len(data), 0, 0, offset) + info + masks + palette + data


def bmp_rows(rows: np.ndarray) -> bytes:
    out = b""
    for row in rows[::-1]:
        data = row.tobytes()
        out += data + b"\0" * (-len(data) % 4)
    return out


def make_bmps() -> None:
    fixtures["bmp-rgb24.bmp"] = saved(PHOTO, "BMP")
    fixtures["bmp-gray8.bmp"] = saved(PHOTO.convert("L"), "BMP")
    fixtures["bmp-bits1.bmp"] = saved(PHOTO.convert("1"), "BMP")
    fixtures["bmp-palette8.bmp"] = saved(PHOTO.quantize(200), "BMP")
    bgr = RGB[:, :, ::-1]
    fixtures["bmp-top-down.bmp"] = bmp(WIDTH, -HEIGHT, 24, bmp_rows(np.ascontiguousarray(bgr[::-1]).reshape(HEIGHT, -1)))
    bgrx = np.dstack([bgr, ALPHA])
    fixtures["bmp-bgrx32.bmp"] = bmp(WIDTH, HEIGHT, 32, bmp_rows(bgrx.reshape(HEIGHT, -1)))
    wide = RGB.astype(np.uint16)
    rgb555 = (wide[:, :, 0] >> 3) << 10 | (wide[:, :, 1] >> 3) << 5 | wide[:, :, 2] >> 3
    fixtures["bmp-rgb555.bmp"] = bmp(WIDTH, HEIGHT, 16, bmp_rows(rgb555.astype("<u2")))
    rgb565 = (wide[:, :, 0] >> 3) << 11 | (wide[:, :, 1] >> 2) << 5 | wide[:, :, 2] >> 3
    fixtures["bmp-rgb565.bmp"] = bmp(
        WIDTH, HEIGHT, 16, bmp_rows(rgb565.astype("<u2")), 3, masks=struct.pack("<III", 0xF800, 0x07E0, 0x001F)
    )
    small = PHOTO.quantize(16)
    palette = b"".join(bytes([b, g, r, 0]) for r, g, b in np.array(small.getpalette()[:48]).reshape(16, 3).tolist())
    indices = np.asarray(small)
    even = np.pad(indices, ((0, 0), (0, 1)))
    fixtures["bmp-palette4.bmp"] = bmp(WIDTH, HEIGHT, 4, bmp_rows(even[:, 0::2] << 4 | even[:, 1::2]), palette=palette)
    runs = b""
    for row in indices[::-1]:
        start = 0
        for x in range(1, WIDTH + 1):
            if x == WIDTH or row[x] != row[start]:
                runs += bytes([x - start, int(row[start])])
                start = x
        runs += b"\0\0"
    fixtures["bmp-rle8.bmp"] = bmp(WIDTH, HEIGHT, 8, runs + b"\0\x01", 1, palette=palette)


# --- TIFF -------------------------------------------------------------------------------------------------------------


def tiff(width, height, bits: list, photometric, data: bytes, order="<", extra=()) -> bytes:
    """One uncompressed strip; `extra` are (tag, [u16]) pairs."""
    entries = [(256, [width]), (257, [height]), (258, bits), (259, [1]), (262, [photometric]), (277, [len(bits)])]
    entries += [(278, [height]), *extra]
    count = len(entries) + 2
    blob_at = 8 + 2 + count * 12 + 4
    blob, ifd = b"", []
    for tag, values in sorted(entries):
        packed = struct.pack(f"{order}{len(values)}H", *values)
        if len(packed) > 4:
            field = struct.pack(order + "I", blob_at + len(blob))
            blob += packed
        else:
            field = packed.ljust(4, b"\0")
        ifd.append((tag, struct.pack(order + "HHI", tag, 3, len(values)) + field))
    at = blob_at + len(blob)
    ifd.append((273, struct.pack(order + "HHII", 273, 4, 1, at)))
    ifd.append((279, struct.pack(order + "HHII", 279, 4, 1, len(data))))
    body = b"".join(entry for _, entry in sorted(ifd))
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    return head + struct.pack(order + "H", count) + body + b"\0\0\0\0" + blob + data


def make_tiffs() -> None:
    for name, compression in [("raw", None), ("lzw", "tiff_lzw"), ("deflate", "tiff_adobe_deflate"), ("packbits", "packbits")]:
        fixtures[f"tiff-rgb8-{name}.tif"] = saved(PHOTO, "TIFF", compression=compression)
    fixtures["tiff-gray8.tif"] = saved(PHOTO.convert("L"), "TIFF")
    fixtures["tiff-bits1.tif"] = saved(PHOTO.convert("1"), "TIFF")
    fixtures["tiff-palette8.tif"] = saved(PHOTO.quantize(200), "TIFF")
    fixtures["tiff-palette8-lzw.tif"] = saved(PHOTO.quantize(200), "TIFF", compression="tiff_lzw")
    fixtures["tiff-rgba8.tif"] = saved(Image.fromarray(np.dstack([RGB, ALPHA])), "TIFF")
    fixtures["tiff-la8.tif"] = saved(Image.fromarray(np.dstack([GRAY, ALPHA])), "TIFF")
    fixtures["tiff-cmyk8.tif"] = saved(PHOTO.convert("CMYK"), "TIFF")
    fixtures["tiff-white-is-zero.tif"] = tiff(WIDTH, HEIGHT, [8], 0, GRAY.tobytes())
    gray16 = GRAY.astype(np.uint16) * 257 + 3
    gray16[::3] //= 200
    rgb16 = RGB.astype(np.uint16) * 256 + 200
    for name, order in [("le", "<"), ("be", ">")]:
        fixtures[f"tiff-gray16-{name}.tif"] = tiff(WIDTH, HEIGHT, [16], 1, gray16.astype(order + "u2").tobytes(), order)
        fixtures[f"tiff-rgb16-{name}.tif"] = tiff(WIDTH, HEIGHT, [16] * 3, 2, rgb16.astype(order + "u2").tobytes(), order)
    fixtures["tiff-orientation.tif"] = tiff(WIDTH, HEIGHT, [8] * 3, 2, RGB.tobytes(), extra=[(274, [6])])


# --- golden arrays ----------------------------------------------------------------------------------------------------


def describe(array: np.ndarray) -> dict:
    return {
        "width": array.shape[1],
        "height": array.shape[0],
        "sha256": hashlib.sha256(array.tobytes()).hexdigest(),
    }


def write_decode_goldens() -> None:
    manifest = []
    for name, data in sorted(fixtures.items()):
        (FIXTURES / name).write_bytes(data)
        as_stored = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
        upright.tofile(DECODE / f"{name}.rgb")
        manifest.append({"file": name, **describe(upright)})
        # Pillow turns a TIFF upright while it loads, so its stored pixels are known only for the others.
        if not name.endswith(".tif") and not np.array_equal(as_stored, upright):
            manifest[-1]["stored"] = describe(as_stored)
    for name in ["cat.jpg", "coffee.jpg"]:
        manifest.append({"file": f"../inputs/{name}", **describe(np.asarray(Image.open(HERE / "inputs" / name).convert("RGB")))})
    (DECODE / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


def scaled_decode(data: bytes, eighths: int) -> np.ndarray:
    """What libjpeg-turbo gives where it is asked for a picture of so many eighths."""
    image = Image.open(io.BytesIO(data))
    size = tuple(-(-side * eighths // 8) for side in image.size)
    if eighths == 3:
        # Pillow asks only for halves, quarters and eighths. simplejpeg links the same library.
        array = simplejpeg.decode_jpeg(data, "RGB", min_width=size[0], min_height=size[1])
    else:
        image.draft(None, tuple(side * eighths // 8 for side in image.size))
        array = np.asarray(image.convert("RGB"))
    assert array.shape == (size[1], size[0], 3), (array.shape, size)
    return array


def write_scaled_goldens() -> None:
    cases = []
    small = {
        name: data
        for name, data in sorted(fixtures.items())
        if name.startswith("jpeg-") and "orientation" not in name and "exif" not in name and "1x1" not in name
    }
    photos = {f"../inputs/{name}": (HERE / "inputs" / name).read_bytes() for name in ["cat.jpg", "coffee.jpg"]}
    for name, data in (small | photos).items():
        for eighths in [1, 3, 4]:
            # simplejpeg gives no CMYK as RGB.
            if eighths != 3 or Image.open(io.BytesIO(data)).mode != "CMYK":
                cases.append({"file": name, "eighths": eighths, **describe(scaled_decode(data, eighths))})
    (DECODE / "scaled.json").write_text(json.dumps(cases, indent=1) + "\n")


FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "hamming": Image.Resampling.HAMMING,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def centre_crop_start(size: int, crop: int, rounding: str) -> int:
    """Where the crop begins in the picture; negative where zeros stand before it."""
    if rounding == "floor":
        # transformers.image_transforms.center_crop: (size - crop) // 2, and ceil((crop - size) / 2) zeros before.
        return (size - crop) // 2
    if rounding == "floor-pad-after":
        # transformers.image_processing_backends.TorchvisionBackend.center_crop: (crop - size) // 2 before, then int(... / 2.0).
        return -((crop - size) // 2) if crop > size else int((size - crop) / 2.0)
    # torchvision.transforms.functional.center_crop: pads (crop - size) // 2 before, then int(round(... / 2.0)).
    return -((crop - size) // 2) if crop > size else int(round((size - crop) / 2.0))


def centre_crop(image: np.ndarray, width: int, height: int, rounding: str, fill=(0, 0, 0)) -> np.ndarray:
    out = np.full((height, width, 3), fill, np.uint8)
    top = centre_crop_start(image.shape[0], height, rounding)
    left = centre_crop_start(image.shape[1], width, rounding)
    for y in range(height):
        for x in range(width):
            if 0 <= y + top < image.shape[0] and 0 <= x + left < image.shape[1]:
                out[y, x] = image[y + top, x + left]
    return out


def write_preprocess_goldens() -> None:
    source = CAT.crop((0, 0, 101, 67))
    np.asarray(source).tofile(PREPROCESS / "source.rgb")
    cases = []

    def add(name: str, array: np.ndarray, **recipe) -> None:
        array.tofile(PREPROCESS / f"{name}.{'f32' if array.dtype == np.float32 else 'rgb'}")
        cases.append({"name": name, **recipe})

    for name, filter in FILTERS.items():
        for width, height in [(32, 32), (50, 33), (101, 40), (60, 67), (131, 90), (1, 1), (7, 130)]:
            resized = np.asarray(source.resize((width, height), filter))
            add(f"exact-{name}-{width}x{height}", resized, filter=name, resize={"exact": [width, height]})
    for rounding in ["floor", "round-half-even"]:
        for edge, width, height in [(40, 32, 32), (45, 32, 32), (36, 31, 36), (41, 41, 24), (24, 35, 33), (23, 64, 40)]:
            for name in ["bilinear", "bicubic"]:
                short, long = sorted(source.size)
                other = int(edge * long / short)
                size = (edge, other) if source.size[0] < source.size[1] else (other, edge)
                resized = np.asarray(source.resize(size, FILTERS[name]))
                add(
                    f"crop-{rounding}-{name}-{edge}-{width}x{height}",
                    centre_crop(resized, width, height, rounding),
                    filter=name,
                    resize={"shortest_edge": edge},
                    crop={"width": width, "height": height, "rounding": rounding},
                )
    for edge, width, height in [(24, 35, 33), (41, 32, 24)]:
        size = (int(edge * source.size[0] / source.size[1]), edge)
        add(
            f"crop-floor-pad-after-bilinear-{edge}-{width}x{height}",
            centre_crop(np.asarray(source.resize(size, FILTERS["bilinear"])), width, height, "floor-pad-after"),
            filter="bilinear",
            resize={"shortest_edge": edge},
            crop={"width": width, "height": height, "rounding": "floor-pad-after"},
        )
    # A picture of 269x178 that was decoded at 3/8: of the last of its 101x67 pixels only a part is the picture's. Mirrored, that
    # part is the first one's. Pillow's `thumbnail` passes such a box after `draft`.
    for place, left, top in [("upright", 0.0, 0.0), ("mirrored", 0.125, 0.25)]:
        box = (left, top, left + 100.875, top + 66.75)
        scaled = {"uploaded": [269, 178], "view": [left, top, 100.875, 66.75]}
        for name in ["box", "bilinear", "hamming", "bicubic", "lanczos"]:
            resized = np.asarray(source.resize((32, 32), FILTERS[name], box=box))
            add(f"scaled-{place}-{name}-32x32", resized, filter=name, resize={"exact": [32, 32]}, **scaled)
        resized = np.asarray(source.resize((int(22 * 269 / 178), 22), FILTERS["bilinear"], box=box))
        add(
            f"scaled-{place}-crop",
            centre_crop(resized, 20, 20, "floor"),
            filter="bilinear",
            resize={"shortest_edge": 22},
            crop={"width": 20, "height": 20, "rounding": "floor"},
            **scaled,
        )
    # timm's ResizeKeepRatio: both sides over one ratio, rounded half to even; its border mode pads with the mean colour.
    fill = [124, 116, 104]
    for mode, pick in [("cover", min), ("contain", max)]:
        for width, height in [(40, 40), (48, 31), (31, 48)]:
            ratio = pick(source.size[0] / width, source.size[1] / height)
            size = tuple(round(side / ratio) for side in source.size)
            add(
                f"{mode}-bicubic-{width}x{height}",
                centre_crop(np.asarray(source.resize(size, FILTERS["bicubic"])), width, height, "round-half-even", fill),
                filter="bicubic",
                resize={mode: [width, height]},
                crop={"width": width, "height": height, "rounding": "round-half-even", "fill": fill},
            )
    # OpenCV: whole blocks, parts of pixels, one side or both sides growing. 101 and 67 are primes, 96 and 64 are not.
    even = source.crop((2, 1, 98, 65))
    np.asarray(even).tofile(PREPROCESS / "source-even.rgb")
    for name, method in [("opencv_area", cv2.INTER_AREA), ("opencv_linear", cv2.INTER_LINEAR)]:
        for which, picture, sizes in [
            ({}, source, [(32, 32), (50, 33), (101, 40), (60, 67), (131, 90), (60, 90), (131, 40), (1, 1), (7, 130)]),
            ({"source": "even"}, even, [(48, 32), (32, 16), (96, 64), (48, 64), (24, 31), (192, 128), (192, 32)]),
        ]:
            for width, height in sizes:
                resized = cv2.resize(np.asarray(picture), (width, height), interpolation=method)
                label = f"exact-{name}-{width}x{height}" + ("-even" if which else "")
                add(label, resized, filter=name, resize={"exact": [width, height]}, **which)
        # The shorter side, as MLPerf computes the longer one, and its centre crop.
        resized = cv2.resize(np.asarray(source), (int(40 * 101 / 67), 40), interpolation=method)
        add(
            f"crop-floor-{name}-40-31x36",
            centre_crop(resized, 31, 36, "floor"),
            filter=name,
            resize={"shortest_edge": 40},
            crop={"width": 31, "height": 36, "rounding": "floor"},
        )
    mean = np.array([0.485, 0.456, 0.406], np.float32)
    std = np.array([0.229, 0.224, 0.225], np.float32)
    small = centre_crop(np.asarray(source.resize((60, 40), FILTERS["bilinear"])), 32, 32, "floor")
    for order in ["rgb", "bgr"]:
        channels = small if order == "rgb" else small[:, :, ::-1]
        # As transformers does: rescale in float64, round to float32, then normalise in float32.
        rescaled = (channels.astype(np.float64) * (1 / 255)).astype(np.float32)
        values = np.ascontiguousarray(((rescaled - mean) / std).transpose(2, 0, 1))
        add(
            f"values-{order}",
            values,
            filter="bilinear",
            resize={"exact": [60, 40]},
            crop={"width": 32, "height": 32, "rounding": "floor"},
            order=order,
        )
    (PREPROCESS / "manifest.json").write_text(json.dumps(cases, indent=1) + "\n")


def main() -> None:
    for folder in [FIXTURES, DECODE, PREPROCESS]:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    make_jpegs()
    make_pngs()
    make_webps()
    make_gifs()
    make_bmps()
    make_tiffs()
    write_decode_goldens()
    write_scaled_goldens()
    write_preprocess_goldens()


if __name__ == "__main__":
    main()
