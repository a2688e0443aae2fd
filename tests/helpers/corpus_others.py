"""Odd files of the other formats, good and bad."""

import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from imgcls.images import Pixels
from tests.helpers.cases import BLUE, GREY_QUARTERS, LOSSY, NOISE, RED, WHITE, File, Probes, bad, good, grey
from tests.helpers.encoders import bmp, encoded, exif, ico, quarters, stored, tiff

PICTURE = quarters()
TWO: dict[str, Any] = {"size": (2, 1)}
COLOURS = bytes([0, 0, 255, 0, 255, 0, 0, 0, 0, 255, 0, 0, 0, 0, 0, 0])  # red, blue, green, black; blue first
INDEX = np.repeat(np.repeat(np.array([[0, 1], [2, 3]], np.uint8), 8, 0), 16, 1)  # of the picture's colours


def others() -> Iterator[File]:
    yield from _by_pillow()
    yield from _bmps()
    yield from _tiffs()
    yield from _deep_tiffs()
    yield from _transparent()
    yield from _moving()
    yield from _orientations()
    yield from _netpbm()
    yield from _cut()


def _by_pillow() -> Iterator[File]:
    lossless: dict[str, dict[str, Any]] = {
        "webp": {"kind": "WEBP", "lossless": True},
        "jp2": {"kind": "JPEG2000"},
        "tga": {"kind": "TGA"},
        "rle.tga": {"kind": "TGA", "compression": "tga_rle"},
        "pcx": {"kind": "PCX"},
        "sgi": {"kind": "SGI"},
        "ico": {"kind": "ICO", "sizes": [(32, 16)]},
        "bmp.ico": {"kind": "ICO", "sizes": [(32, 16)], "bitmap_format": "bmp"},
        "gif": {"kind": "GIF"},
    }
    for name, options in lossless.items():
        yield good(f"by-pillow.{name}", encoded(PICTURE, **options))
    for kind in ("WEBP", "AVIF"):
        yield good(f"lossy.{kind.lower()}", encoded(PICTURE, kind, quality=95), tolerance=LOSSY + 20)
    for kind in ("WEBP", "AVIF", "JPEG2000", "GIF", "TIFF", "BMP", "PPM", "TGA"):
        content = encoded(Image.new("RGB", (1, 1), (100, 100, 100)), kind)
        yield good(f"one.{kind.lower()}", content, grey(100), 2, size=(1, 1))
    yield good("claims-less.ico", ico(encoded(PICTURE, "PNG"), 8, 8))


def _padded(rows: Pixels) -> bytes:
    return b"".join(row.tobytes() + bytes(-row.nbytes % 4) for row in rows)


def _bmps() -> Iterator[File]:
    upwards = np.ascontiguousarray(PICTURE[::-1, :, ::-1])
    yield good("24.bmp", bmp(24, _padded(upwards)))
    yield good("top-down.bmp", bmp(24, _padded(np.ascontiguousarray(PICTURE[:, :, ::-1])), (32, -16)))
    yield good("32.bmp", bmp(32, _padded(np.dstack([upwards, np.zeros((16, 32), np.uint8)]))))
    yield good("8.bmp", bmp(8, _padded(INDEX[::-1]), palette=COLOURS))
    yield good("4.bmp", bmp(4, _padded(INDEX[::-1, ::2] * 17), palette=COLOURS))
    yield good(
        "1.bmp", bmp(1, bytes([0x40, 0, 0, 0]), (2, 1), palette=bytes(4) + b"\xff\xff\xff\0"), grey(0, 255), **TWO
    )
    fives = np.array([[31 << 10, 31], [31 << 5, 0]], "<u2").repeat(8, 0).repeat(16, 1)
    yield good("16.bmp", bmp(16, _padded(fives[::-1].view(np.uint8))))
    sixes = np.array([[31 << 11, 31], [63 << 5, 0]], "<u2").repeat(8, 0).repeat(16, 1)
    masks = struct.pack("<III", 31 << 11, 63 << 5, 31)
    yield good("565.bmp", bmp(16, _padded(sixes[::-1].view(np.uint8)), compression=3, masks=masks))
    runs = b"".join(bytes([16, row[0], 16, row[-1], 0, 0]) for row in INDEX[::-1])
    yield good("rle8.bmp", bmp(8, runs + b"\0\1", compression=1, palette=COLOURS))
    runs = b"".join(bytes([16, row[0] * 17, 16, row[-1] * 17, 0, 0]) for row in INDEX[::-1])
    yield good("rle4.bmp", bmp(4, runs + b"\0\1", compression=2, palette=COLOURS))
    yield bad("5.bmp", bmp(5, b"", palette=COLOURS), "is BMP, but its header")


def _tiffs() -> Iterator[File]:
    shades = Image.fromarray(PICTURE).convert("L")
    for name in ("raw", "tiff_lzw", "tiff_deflate", "tiff_adobe_deflate", "packbits", "zstd", "lzma"):
        yield good(f"{name}.tiff", encoded(PICTURE, "TIFF", compression=name))
    yield good("jpeg.tiff", encoded(PICTURE, "TIFF", compression="jpeg", quality=95), tolerance=LOSSY)
    yield good("grey.tiff", encoded(shades, "TIFF"), GREY_QUARTERS, 1)
    bits = Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1")
    for name in ("raw", "group3", "group4"):
        yield good(f"bits-{name}.tiff", encoded(bits, "TIFF", compression=name), grey(0, 255), **TWO)
    ink = Image.fromarray(np.dstack([255 - PICTURE, np.zeros((16, 32), np.uint8)]), "CMYK")
    yield good("cmyk.tiff", encoded(ink, "TIFF"))
    yield good("palette.tiff", encoded(Image.fromarray(PICTURE).quantize(4), "TIFF"))
    pages = [Image.fromarray(NOISE)]
    yield good("pages.tiff", encoded(PICTURE, "TIFF", save_all=True, append_images=pages))
    size = {256: (32,), 257: (16,), 258: (8, 8, 8), 259: (1,), 262: (2,), 277: (3,)}
    halves = [PICTURE[:, :16].tobytes(), PICTURE[:, 16:].tobytes()]
    planes = [np.ascontiguousarray(PICTURE[:, :, channel]).tobytes() for channel in range(3)]
    for order, name in (("<", "little"), (">", "big")):
        yield good(
            f"strips-{name}.tiff", tiff(size | {278: (8,)}, [PICTURE[:8].tobytes(), PICTURE[8:].tobytes()], order)
        )
        yield good(f"tiles-{name}.tiff", tiff(size | {322: (16,), 323: (16,)}, halves, order, 324))
        packed = [zlib.compress(half) for half in halves]
        yield good(f"packed-tiles-{name}.tiff", tiff(size | {259: (8,), 322: (16,), 323: (16,)}, packed, order, 324))
        yield good(f"planes-{name}.tiff", tiff(size | {278: (16,), 284: (2,)}, planes, order))
    white_is_zero = {256: (2,), 257: (1,), 258: (8,), 259: (1,), 262: (0,), 277: (1,), 278: (1,)}
    yield good("white-is-zero.tiff", tiff(white_is_zero, [b"\1\xff"]), grey(254, 0), **TWO)


def _deep_tiffs() -> Iterator[File]:
    def made(order: str, photometric: int, channels: int, values: tuple[int, ...], **more: tuple[int, ...]) -> bytes:
        tags = {
            256: (2,),
            257: (1,),
            258: (16,) * channels,
            259: (1,),
            262: (photometric,),
            277: (channels,),
            278: (1,),
        }
        tags |= {int(tag[1:]): value for tag, value in more.items()}
        return tiff(tags, [struct.pack(f"{order}{len(values)}H", *values)], order)

    colours: Probes = {(0, 0): (0x12, 0x34, 0x56), (1, 0): WHITE}
    rgb = (0x12FF, 0x34FF, 0x56FF, 0xFF00, 0xFF00, 0xFF00)
    rgba = (*rgb[:3], 0xFFFF, 1, 1, 1, 0)
    for order, name in (("<", "little"), (">", "big")):
        yield good(f"grey-16-{name}.tiff", made(order, 1, 1, (0x12FF, 0xFF00)), grey(0x12, 0xFF), **TWO)
        yield good(f"rgb-16-{name}.tiff", made(order, 2, 3, rgb), colours, **TWO)
        yield good(f"rgba-16-{name}.tiff", made(order, 2, 4, rgba, t338=(2,)), colours, **TWO)
    yield good("white-is-zero-16.tiff", made("<", 0, 1, (0, 0xEDFF)), grey(0xFF, 0x12), **TWO)
    twelve = {256: (2,), 257: (1,), 258: (12,), 259: (1,), 262: (1,), 277: (1,), 278: (1,)}
    yield good("grey-12.tiff", tiff(twelve, [bytes([0x12, 0xFF, 0xF0])]), grey(0x12, 0xFF), **TWO)
    for kind in ("tiff_lzw", "tiff_deflate"):
        deep = Image.fromarray(np.array([[0x12FF, 0xFF00]], np.uint16))
        yield good(f"grey-16-{kind}.tiff", encoded(deep, "TIFF", compression=kind), grey(0x12, 0xFF), **TWO)
    yield bad("grey-alpha-16.tiff", made("<", 1, 2, (1, 2, 3, 4), t338=(2,)), "is TIFF, but its header")
    floats = Image.fromarray(np.ones((3, 4), np.float32))
    yield bad("float.tiff", encoded(floats, "TIFF"), "has floating-point pixels; 8 or 16 bits are supported")
    long = Image.fromarray(np.full((3, 4), 70_000, np.int32))
    yield bad("long.tiff", encoded(long, "TIFF"), "has 32-bit pixels; 8 or 16 bits are supported")
    small = Image.fromarray(np.linspace(0, 255, 600).reshape(20, 30).astype(np.int32))  # which 16 bits would hold
    yield bad("long-small-values.tiff", encoded(small, "TIFF"), "has 32-bit pixels; 8 or 16 bits are supported")


def _transparent() -> Iterator[File]:
    clear = np.array([[[1, 2, 3, 0], [10, 20, 30, 255]]], np.uint8)
    expected: Probes = {(0, 0): WHITE, (1, 0): (10, 20, 30)}
    yield good("alpha.webp", encoded(clear, "WEBP", lossless=True), expected, **TWO)
    for kind in ("TIFF", "TGA", "JPEG2000", "SGI"):
        yield good(f"alpha.{kind.lower()}", encoded(clear, kind), expected, **TWO)
    wide = clear.repeat(16, 0).repeat(16, 1)
    far: Probes = {(4, 8): WHITE, (28, 8): (10, 20, 30)}
    yield good("alpha.avif", encoded(wide, "AVIF", quality=100), far, 12)
    yield good("alpha-lossy.webp", encoded(wide, "WEBP", quality=95), far, 12)
    for name in ("png", "bmp"):
        yield good(f"alpha.{name}.ico", encoded(wide, "ICO", sizes=[(32, 16)], bitmap_format=name), far)
    shades = encoded(Image.fromarray(np.array([[0, 9]], np.uint8)), "GIF", transparency=0)
    yield good("alpha.gif", shades, grey(255, 9), **TWO)
    grey_alpha = Image.fromarray(np.array([[[1, 0], [9, 255]]], np.uint8))
    for kind in ("TGA", "TIFF", "JPEG2000"):
        yield good(f"grey-alpha.{kind.lower()}", encoded(grey_alpha, kind), grey(255, 9), **TWO)


def _moving() -> Iterator[File]:
    frames = [Image.new("RGB", (32, 16), colour) for colour in ("red", "blue", "lime")]
    for kind in ("GIF", "WEBP", "TIFF", "AVIF"):
        content = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        yield good(f"moving.{kind.lower()}", content, {(8, 4): RED, (24, 12): RED}, 4)
    part = encoded(Image.new("RGB", (16, 8), "blue"), "GIF")
    screen = part[:6] + struct.pack("<HH", 32, 16) + part[10:]  # the frame covers a quarter of it
    yield good("part.gif", screen, {(8, 4): BLUE})


def _orientations() -> Iterator[File]:
    kinds: dict[str, dict[str, Any]] = {"TIFF": {}, "WEBP": {"lossless": True}, "AVIF": {"quality": 95}}
    for number in range(1, 9):
        for kind, options in kinds.items():
            content = encoded(stored(number), kind, exif=exif(number), **options)
            yield good(f"exif-{number}.{kind.lower()}", content, tolerance=60 if kind == "AVIF" else 0)
        packed = encoded(stored(number), "TIFF", exif=exif(number), compression="tiff_lzw")
        yield good(f"exif-{number}-lzw.tiff", packed)
        noted = encoded(stored(number), "WEBP", lossless=True, xmp=b'<x tiff:Orientation="%d"/>' % number)
        yield good(f"xmp-{number}.webp", noted)
        noted = encoded(stored(number), "TIFF", tiffinfo={700: b'<x tiff:Orientation="%d"/>' % number})
        yield good(f"xmp-{number}.tiff", noted)
    yield good("broken-exif.webp", encoded(PICTURE, "WEBP", lossless=True, exif=b"Exif\0\0broken"))


def _netpbm() -> Iterator[File]:
    yield good("p1.pbm", b"P1 2 1\n1 0\n", grey(0, 255), **TWO)
    yield good("p2.pgm", b"P2\n# a comment\n2 1 255\n7 255\n", grey(7, 255), **TWO)
    yield good("p3.ppm", b"P3 1 1 255 1 2 3\n", {(0, 0): (1, 2, 3)}, size=(1, 1))
    yield good("p4.pbm", b"P4 2 1\n\x80", grey(0, 255), **TWO)
    yield good("p5.pgm", b"P5 2 1 255\n\7\xff", grey(7, 255), **TWO)
    yield good("p5-deep.pgm", b"P5 2 1 65535\n\x12\xff\xff\0", grey(0x12, 0xFF), **TWO)
    yield good("p6.ppm", b"P6 32 16 255\n" + PICTURE.tobytes())
    yield good("p6-deep.ppm", b"P6 1 1 65535\n\x12\0\x34\0\x56\0", {(0, 0): (0x12, 0x34, 0x56)}, 1, size=(1, 1))
    yield bad("cut.pgm", b"P2\n20 10 255\n7 255\n", "is ", late=True)


def _cut() -> Iterator[File]:
    for kind in ("GIF", "BMP", "TIFF", "WEBP", "JPEG2000", "AVIF", "PPM", "TGA", "ICO", "PCX", "SGI"):
        content = encoded(NOISE, kind, **({"sizes": [(80, 60)]} if kind == "ICO" else {}))
        for part in (0.02, 0.5, 0.9):
            yield bad(f"cut-{part}.{kind.lower()}", content[: int(part * len(content))], "is ", late=True)
