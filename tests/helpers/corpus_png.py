"""Odd PNGs, good and bad."""

import struct
import zlib
from collections.abc import Iterator
from typing import Any

from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from tests.helpers.cases import NOISE, WHITE, File, Probes, bad, good, grey
from tests.helpers.encoders import SIGNATURE, chunk, encoded, exif, png, quarters, stored

PICTURE = quarters()
TWO: dict[str, Any] = {"size": (2, 1)}
HEADER = chunk(b"IHDR", struct.pack(">IIBBBBB", 80, 60, 8, 0, 0, 0, 0))
END = chunk(b"IEND", b"")


def pngs() -> Iterator[File]:
    yield from _kinds()
    yield from _transparent()
    yield from _deep()
    yield from _odd_but_good()
    yield from _orientations()
    yield from _wrong_checksums()
    yield from _bad()


def _kinds() -> Iterator[File]:
    yield good("rgb.png", encoded(PICTURE, "PNG"))
    yield good("palette.png", encoded(Image.fromarray(PICTURE).quantize(4), "PNG"))
    for bits, row, shades in ((1, 0b01000000, grey(0, 255)), (2, 0b01100000, grey(85, 170)), (4, 0x1F, grey(17, 255))):
        yield good(f"grey-{bits}.png", png((2, 1), bits, 0, [bytes([row])]), shades, **TWO)
        colours = bytes([9, 9, 9]) * (2**bits - 1) + bytes([1, 2, 3])
        last = (2**bits - 1) << (8 - bits)
        content = png((2, 1), bits, 3, [bytes([last])], chunk(b"PLTE", colours))
        yield good(f"palette-{bits}.png", content, {(0, 0): (1, 2, 3), (1, 0): (9, 9, 9)}, **TWO)
    passes = [bytes([1]), bytes([5]), bytes([3]), bytes([2, 4])]  # of Adam7
    yield good("interlaced.png", png((5, 1), 8, 0, passes, interlaced=True), grey(1, 2, 3, 4, 5), size=(5, 1))
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    moving = encoded(frames[0], "PNG", save_all=True, append_images=frames[1:])
    yield good("moving.png", moving, {(4, 4): (255, 0, 0)}, size=(8, 8))
    yield good("black.png", encoded(Image.new("RGB", (8, 8)), "PNG"), {(4, 7): (0, 0, 0)}, size=(8, 8))
    for name, size in (("one", (1, 1)), ("row", (50_000, 1)), ("column", (1, 50_000))):
        yield good(f"{name}.png", encoded(Image.new("RGB", size, (1, 2, 3)), "PNG"), {(0, 0): (1, 2, 3)}, size=size)


def _transparent() -> Iterator[File]:
    clear: Probes = {(0, 0): WHITE, (1, 0): (10, 20, 30)}
    colours = chunk(b"PLTE", bytes([1, 2, 3, 10, 20, 30]))
    yield good("palette-trns.png", png((2, 1), 8, 3, [b"\0\1"], colours + chunk(b"tRNS", b"\0")), clear, **TWO)
    half = png((2, 1), 8, 3, [b"\0\1"], colours + chunk(b"tRNS", b"\x80"))
    yield good("palette-half.png", half, {(0, 0): (127, 128, 128), (1, 0): (10, 20, 30)}, 1, **TWO)
    yield good("rgba.png", png((2, 1), 8, 6, [bytes([1, 2, 3, 0, 10, 20, 30, 255])]), clear, **TWO)
    yield good("grey-alpha.png", png((2, 1), 8, 4, [bytes([1, 0, 9, 255])]), grey(255, 9), **TWO)
    yield good("grey-key.png", png((2, 1), 8, 0, [b"\1\x09"], chunk(b"tRNS", b"\0\1")), grey(255, 9), **TWO)
    key = chunk(b"tRNS", struct.pack(">3H", 1, 2, 3))
    yield good("rgb-key.png", png((2, 1), 8, 2, [bytes([1, 2, 3, 10, 20, 30])], key), clear, **TWO)
    yield good("bit-key.png", png((2, 1), 1, 0, [b"\x40"], chunk(b"tRNS", b"\0\0")), grey(255, 255), **TWO)


def _deep() -> Iterator[File]:
    def row(*values: int) -> list[bytes]:
        return [struct.pack(f">{len(values)}H", *values)]

    first: Probes = {(0, 0): (0x12, 0x34, 0x56), (1, 0): WHITE}
    yield good("rgb-16.png", png((2, 1), 16, 2, row(0x12FF, 0x34FF, 0x56FF, *[0xFF00] * 3)), first, **TWO)
    yield good("rgba-16.png", png((2, 1), 16, 6, row(0x12FF, 0x34FF, 0x56FF, 0xFFFF, 1, 1, 1, 0)), first, **TWO)
    yield good("grey-16.png", png((2, 1), 16, 0, row(0x12FF, 0xFF00)), grey(0x12, 0xFF), **TWO)
    yield good("grey-alpha-16.png", png((2, 1), 16, 4, row(0x12FF, 0xFFFF, 1, 0)), grey(0x12, 0xFF), **TWO)
    key = chunk(b"tRNS", b"\x12\x34")
    yield good("grey-16-key.png", png((2, 1), 16, 0, row(0x1234, 0x1235), key), grey(0xFF, 0x12), **TWO)
    key = chunk(b"tRNS", struct.pack(">3H", 0x1234, 0x1234, 0x1234))
    yield good("rgb-16-key.png", png((2, 1), 16, 2, row(*[0x1234] * 3, *[0x2234] * 3), key), grey(0xFF, 0x22), **TWO)


def _odd_but_good() -> Iterator[File]:
    one: dict[str, Any] = {"probes": grey(7), "size": (1, 1)}
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    yield good("profile.png", encoded(PICTURE, "PNG", icc_profile=profile))
    yield good("broken-profile.png", png((1, 1), 8, 0, [b"\7"], chunk(b"iCCP", b"name\0\0broken")), **one)
    yield good("broken-exif.png", png((1, 1), 8, 0, [b"\7"], chunk(b"eXIf", b"broken")), **one)
    yield good("too-many-rows.png", png((1, 1), 8, 0, [b"\7", b"\7"]), **one)
    yield good("checksum-of-the-end.png", encoded(PICTURE, "PNG")[:-4])  # a checksum of nothing
    yield good("behind-the-end.png", encoded(PICTURE, "PNG") + b"trailing" * 99)


def _orientations() -> Iterator[File]:
    for number in range(1, 9):
        sideways = stored(number)
        block = exif(number).tobytes()[6:]
        plain = encoded(sideways, "PNG")
        yield good(f"exif-{number}.png", encoded(sideways, "PNG", exif=exif(number)))
        yield good(f"exif-behind-{number}.png", plain.replace(END, chunk(b"eXIf", block) + END))
        notes = PngInfo()
        notes.add_itxt("XML:com.adobe.xmp", f'<rdf:Description tiff:Orientation="{number}"/>')
        yield good(f"xmp-{number}.png", encoded(sideways, "PNG", pnginfo=notes))
        raw = PngInfo()
        raw.add_text("Raw profile type exif", f"\nexif\n{len(block)}\n{block.hex()}\n", zip=True)
        yield good(f"raw-exif-{number}.png", encoded(sideways, "PNG", pnginfo=raw))


def _wrong_checksums() -> Iterator[File]:
    text = chunk(b"tEXt", b"Comment\0hello")
    content = png((1, 1), 8, 3, [b"\0"], chunk(b"PLTE", b"\1\2\3") + text, chunk(b"tIME", bytes(7)))
    for kind in (b"IHDR", b"PLTE", b"tEXt", b"IDAT", b"tIME", b"IEND"):
        start = content.index(kind)
        (length,) = struct.unpack_from(">I", content, start - 4)
        wrong = bytearray(content)
        wrong[start + 4 + length] ^= 1
        late = kind in (b"IDAT", b"tIME", b"IEND")
        yield bad(f"checksum-{kind.decode()}.png", bytes(wrong), "checksum", late=late)


def _bad() -> Iterator[File]:
    for bits, kind, row in ((8, 2, bytes([9] * 6)), (1, 0, b"\xc0"), (16, 6, bytes([9] * 16))):
        yield bad(f"few-rows-{kind}.png", png((2, 4), bits, kind, [row] * 3), "is truncated: 3 of 4 rows", late=True)
    rows = [bytes(80)] * 60
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    for name, stream in (("not-deflate", b"broken" * 9), ("cut-deflate", data[: len(data) // 2])):
        yield bad(f"{name}.png", SIGNATURE + HEADER + chunk(b"IDAT", stream) + END, "is ", late=True)
    yield bad("no-pixels.png", SIGNATURE + HEADER + END, "is ", late=True)
    yield bad("depth-3.png", png((1, 1), 3, 0, [b"\0"]), "is PNG, but its header")
    yield bad("no-width.png", png((0, 1), 8, 0, [b""]), "is PNG, but its header")
    content = encoded(NOISE, "PNG")
    for end in (8, 20):
        yield bad(f"cut-{end}.png", content[:end], "is PNG, but its header")
    for end in (len(content) // 2, -20, -12, -5):
        yield bad(f"cut-behind{end}.png", content[:end], "is truncated: a PNG without its end", late=True)
