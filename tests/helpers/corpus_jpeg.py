"""Odd JPEGs, good and bad."""

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import simplejpeg
from PIL import Image

from tests.helpers.cases import GREY_QUARTERS, LOSSY, NOISE, File, bad, good
from tests.helpers.encoders import claiming, encoded, exif, quarters, segment, stored, with_segments, without_segments

PICTURE = quarters()
JPEG = encoded(PICTURE, "JPEG", quality=95, subsampling=0)
PROGRESSIVE = encoded(NOISE, "JPEG", progressive=True)
XMP = b'http://ns.adobe.com/xap/1.0/\0<rdf:Description tiff:Orientation="%d"/>'


def jpegs() -> Iterator[File]:
    yield from _kinds()
    yield from _four_channels()
    yield from _odd_but_good()
    yield from _bad()
    yield from _orientations()


def _kinds() -> Iterator[File]:
    for sampling in ("444", "422", "420", "440", "411"):
        yield good(f"{sampling}.jpg", simplejpeg.encode_jpeg(PICTURE, 95, "RGB", sampling), tolerance=LOSSY)
    kinds: dict[str, dict[str, Any]] = {
        "progressive": {"progressive": True},
        "optimized": {"optimize": True},
        "restarts": {"restart_marker_blocks": 1},
        "rgb": {"keep_rgb": True},
    }
    shades = Image.fromarray(PICTURE).convert("L")
    for name, options in kinds.items():
        yield good(f"{name}.jpg", encoded(PICTURE, "JPEG", quality=95, **options), tolerance=LOSSY)
    for name in ("progressive", "optimized"):
        yield good(f"grey-{name}.jpg", encoded(shades, "JPEG", quality=95, **kinds[name]), GREY_QUARTERS, LOSSY)
    yield good("odd.jpg", encoded(PICTURE[:15, :31], "JPEG", quality=95), tolerance=LOSSY, size=(31, 15))
    other = Image.fromarray(255 - PICTURE)
    two = encoded(PICTURE, "MPO", save_all=True, append_images=[other], quality=95)
    yield good("two-views.mpo", two, tolerance=LOSSY)
    for name, width, height in (("one", 1, 1), ("row", 65_500, 1), ("column", 1, 40_000)):
        line = np.full((height, width, 3), 200, np.uint8)
        yield good(f"{name}.jpg", encoded(line, "JPEG"), {(width - 1, height - 1): (200,) * 3}, 2, size=(width, height))


def _four_channels() -> Iterator[File]:
    ink = np.dstack([255 - PICTURE, np.zeros((16, 32), np.uint8)])  # cyan, magenta, yellow, no black
    cmyk = encoded(Image.fromarray(ink, "CMYK"), "JPEG", quality=95)
    yield good("cmyk.jpg", cmyk, tolerance=LOSSY)
    yield good("cmyk-without-adobe.jpg", without_segments(cmyk, 0xEE), tolerance=LOSSY)  # read as if with it
    yield good("ycck.jpg", simplejpeg.encode_jpeg(255 - ink, 95, "CMYK", "444"), tolerance=LOSSY)


def _odd_but_good() -> Iterator[File]:
    changed = {
        "padded": JPEG + bytes(5000),
        "second-image": JPEG + encoded(NOISE, "JPEG"),
        "fill-bytes": with_segments(JPEG, b"\xff\xff\xff\xff"),
        "extraneous-bytes": JPEG[:-2] + b"12345678" + JPEG[-2:],
        "no-jfif": without_segments(JPEG, 0xE0),
        "long-comment": with_segments(JPEG, segment(0xFE, b"x" * 65_000)),
        "thumbnail": with_segments(JPEG, segment(0xE1, b"Exif\0\0" + exif(1).tobytes()[6:] + bytes(60_000))),
        "long-profile": with_segments(JPEG, *_profile(6)),
        "broken-profile": with_segments(JPEG, segment(0xE2, b"ICC_PROFILE\0\7\1broken")),
        "broken-photoshop": with_segments(JPEG, segment(0xED, b"Photoshop 3.0\x008BIM\x03\xed")),
        "broken-views": with_segments(JPEG, segment(0xE2, b"MPF\0II*\0\x08\0\0\0\xff\xff")),
        "short-jfif": with_segments(without_segments(JPEG, 0xE0), segment(0xE0, b"JFIF\0")),
    }
    for name, content in changed.items():
        yield good(f"{name}.jpg", content, tolerance=LOSSY)


def _profile(parts: int) -> list[bytes]:
    return [segment(0xE2, b"ICC_PROFILE\0" + bytes([part + 1, parts]) + bytes(65_000)) for part in range(parts)]


def _bad() -> Iterator[File]:
    at = JPEG.index(b"\xff\xc0") + 9
    scan = PROGRESSIVE.rindex(b"\xff\xda")
    scans = PROGRESSIVE[:-2] + PROGRESSIVE[scan:-2] * 600 + PROGRESSIVE[-2:]
    yield bad("12-bit.jpg", claiming(JPEG, 32, 16, bits=12), "12-bit")
    yield bad("lossless.jpg", JPEG.replace(b"\xff\xc0", b"\xff\xc3", 1), "is damaged or not supported", late=True)
    yield bad("two-channels.jpg", JPEG[:at] + b"\2" + JPEG[at + 1 :], "2-layer images")
    yield bad("no-height.jpg", claiming(JPEG, 32, 0), "is JPEG, but its header")
    yield bad("many-scans.jpg", scans, "has more than 500 scans", late=True)
    yield bad("no-tables.jpg", without_segments(JPEG, 0xDB), "is damaged or not supported", late=True)
    yield bad("no-frame.jpg", without_segments(JPEG, 0xC0), "is JPEG, but its header")


def cut_jpegs() -> Iterator[File]:
    baseline = encoded(NOISE, "JPEG")
    for kind, content in (("baseline", baseline), ("progressive", PROGRESSIVE)):
        for start in (1, 2, 3, 4, 20, 163):
            yield bad(f"{kind}-head-{start}.jpg", content[:start], "is ")
        # also where the end marker alone is missing: Pillow, OpenCV 5 and TurboJPEG (its warnings taken as errors) all
        # refuse it, for nobody knows what else is missing
        yield bad(f"{kind}-scan.jpg", content[: content.index(b"\xff\xda") + 4], "is ", late=True)
        for share in (0.3, 0.5, 0.7, 0.9):
            yield bad(f"{kind}-{share}.jpg", content[: int(share * len(content))], "is truncated", late=True)
        for end in (-100, -10, -3, -2, -1):
            yield bad(f"{kind}{end}.jpg", content[:end], "is truncated", late=True)


def hollow_jpegs() -> Iterator[File]:
    """Whole by their markers, but with scans that end early; every decoder makes up the rest."""
    for mode in ("RGB", "L", "CMYK"):
        for options in ({}, {"progressive": True}, {"restart_marker_rows": 1}):
            content = encoded(Image.fromarray(NOISE).convert(mode), "JPEG", **options)
            name = "-".join([mode, *options])
            yield bad(f"hollow-{name}.jpg", content[: len(content) // 2] + content[-2:], "is damaged", late=True)


def _orientations() -> Iterator[File]:
    for number in range(1, 9):
        sideways = stored(number)
        plain = encoded(sideways, "JPEG", quality=95)
        yield good(f"exif-{number}.jpg", encoded(sideways, "JPEG", quality=95, exif=exif(number)), tolerance=LOSSY)
        yield good(f"xmp-{number}.jpg", with_segments(plain, segment(0xE1, XMP % number)), tolerance=LOSSY)
        big = encoded(stored(number).convert("L"), "JPEG", quality=95, progressive=True, exif=_big_endian(number))
        yield good(f"exif-grey-big-endian-{number}.jpg", big, GREY_QUARTERS, LOSSY)
    for order, name in (("<", "little"), (">", "big")):
        block = segment(0xE1, _long_orientation(order, 6))
        photo = with_segments(encoded(stored(6), "JPEG", quality=95), block)
        yield good(f"exif-long-{name}-endian.jpg", photo, tolerance=LOSSY)
    six = exif(6).tobytes()
    both = [segment(0xE1, six), segment(0xE1, XMP % 3)]
    yield good("exif-before-xmp.jpg", with_segments(encoded(stored(6), "JPEG", quality=95), *both), tolerance=LOSSY)
    blocks = {
        "empty": b"Exif\0\0",
        "noise": b"Exif\0\0" + NOISE.tobytes()[:500],
        "unknown-order": six.replace(b"MM", b"XX").replace(b"II", b"XX"),
        "cut": six[:20],
        "far-directory": six[:10] + b"\xff\xff\xff\xff" + six[14:],
        "orientation-0": exif(0).tobytes(),
        "orientation-9": exif(9).tobytes(),
        "orientation-text": six.replace(b"\x12\x01\x03\0", b"\x12\x01\2\0").replace(b"\x01\x12\0\x03", b"\x01\x12\0\2"),
    }
    for name, block in blocks.items():
        yield good(f"broken-exif-{name}.jpg", with_segments(JPEG, segment(0xE1, block)), tolerance=LOSSY)


def _long_orientation(order: str, orientation: int) -> bytes:
    # the type LONG in place of SHORT, in a directory of one entry
    mark = b"II*\0" if order == "<" else b"MM\0*"
    return b"Exif\0\0" + mark + struct.pack(f"{order}IHHHIII", 8, 1, 0x0112, 4, 1, orientation, 0)


def _big_endian(orientation: int) -> Image.Exif:
    tags = exif(orientation)
    tags.endian = ">"
    return tags
