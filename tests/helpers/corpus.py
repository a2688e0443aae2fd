"""Some 400 odd image files, good and bad, with what a reader must make of each."""

import os
import stat
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from tests.helpers.cases import NOISE, Case, Expected, File, bad, good
from tests.helpers.corpus_jpeg import JPEG, cut_jpegs, hollow_jpegs, jpegs
from tests.helpers.corpus_others import others
from tests.helpers.corpus_png import END, pngs
from tests.helpers.encoders import SIGNATURE, bmp, bomb, chunk, claiming, encoded, ico, png, quarters, tiff

NOT_REGULAR = "is not a regular file (a pipe, socket or device)"
PNG = encoded(quarters(), "PNG")


def write_corpus(folder: Path) -> list[Case]:
    """Write all cases: a folder of files each for kinds and names, and one for what is no file."""
    cases = []
    kinds = {"jpeg": [*jpegs(), *cut_jpegs(), *hollow_jpegs()], "png": pngs(), "others": others()}
    kinds |= {"no-image": _no_images(), "bombs": _bombs(), "names": _names()}
    for kind, files in kinds.items():
        (folder / kind).mkdir(parents=True)
        for file in files:
            path = folder / kind / file.name
            if path.exists():
                raise FileExistsError(path)
            path.write_bytes(file.content)
            cases.append(Case(path, file.expected))
    return [*cases, *_special(folder / "special")]


def _no_images() -> Iterator[File]:
    html = b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head></html>"
    contents = {
        "empty.jpg": (b"", "is empty"),
        "one-byte.jpg": (b"\xff", "is not an image"),
        "zeros.jpg": (bytes(70_000), "holds zeros where an image begins"),
        "text.jpg": (b"hello, world\n" * 50, "is a text file"),
        "utf-8.png": ("grüße aus köln\n".encode() * 200, "is a text file"),
        "python.jpg": (b"Python = 'P1'\n", "is a text file"),
        "annotation.json": (b'{"label": 3}', "is a text file"),
        "page.jpg": (html, "is an HTML page"),
        "page-with-mark.png": (b"\xef\xbb\xbf\r\n" + html.lower(), "is an HTML page"),
        "drawing.svg": (b'<svg xmlns="http://www.w3.org/2000/svg"></svg>', "is an SVG drawing"),
        "drawing.jpg": (b'<?xml version="1.0"?>\n<!-- x -->\n<svg></svg>', "is an SVG drawing"),
        "pointer.jpg": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "is a pointer of Git LFS"),
        "phone.heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99), "is a HEIC photo"),
        "film.jpg": (b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41" + bytes(99), "is a video"),
        "paper.jpg": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj", "is a PDF document"),
        "drawing.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is a PostScript document"),
        "archive.jpg": (b"PK\x03\x04\x14\0\0\0\x08\0" + bytes(99), "is an archive"),
        "layers.psd": (b"8BPS\0\1" + bytes(6) + b"\0\3" + bytes(99), "is a Photoshop document"),
        "noise.jpg": (bytes(range(255, -1, -1)) * 40, "is not an image"),
        "start-alone.jpg": (b"\xff\xd8\xff", "is JPEG, but its header"),
        "blank-before.jpg": (b"\n" + JPEG, "is not an image"),
        "cursor.cur": (
            encoded(quarters(), "ICO", sizes=[(32, 16)]).replace(b"\0\0\1", b"\0\0\2", 1),
            "is not an image",
        ),
    }
    for name, (content, reason) in contents.items():
        yield bad(name, content, reason)


def _bombs() -> Iterator[File]:
    zeros = zlib.compress(bytes(200_000_000), 9)
    yield bad("real-30000x30000.png", bomb(30_000), "has 30000 x 30000 pixels, more than max_pixels")
    yield bad(
        "claims-65500x65500.jpg", claiming(JPEG, 65_500, 65_500), "has 65500 x 65500 pixels, more than max_pixels"
    )
    gif = encoded(NOISE, "GIF")
    yield bad("claims-65535.gif", gif[:6] + b"\xff" * 4 + gif[10:], "has 65535 x 65535 pixels, more than max_pixels")
    tags = {256: (60_000,), 257: (60_000,), 258: (8,), 259: (1,), 262: (1,), 277: (1,), 278: (60_000,)}
    yield bad("claims-60000.tiff", tiff(tags, [bytes(99)]), "has 60000 x 60000 pixels, more than max_pixels")
    yield bad("packed-60000.tiff", tiff(tags | {259: (8,)}, [zeros]), "has 60000 x 60000 pixels, more than max_pixels")
    small = tags | {256: (60,), 257: (60,), 259: (8,), 278: (60,)}
    yield good("packed-strip.tiff", tiff(small, [zeros]), {(59, 59): (0, 0, 0)}, size=(60, 60))
    for kind, start in ((b"zTXt", b"Comment\0\0"), (b"iTXt", b"Comment\0\1\0\0\0"), (b"iCCP", b"name\0\0")):
        content = png((1, 1), 8, 0, [b"\7"], chunk(kind, start + zeros))
        yield bad(f"{kind.decode()}.png", content, "Decompressed data too large")
        behind = png((1, 1), 8, 0, [b"\7"], b"", chunk(kind, start + zeros))
        yield bad(f"{kind.decode()}-behind.png", behind, "Decompressed data too large", late=True)
    rows = SIGNATURE + chunk(b"IHDR", struct.pack(">IIBBBBB", 60, 60, 8, 0, 0, 0, 0)) + chunk(b"IDAT", zeros) + END
    yield good("packed-rows.png", rows, {(59, 59): (0, 0, 0)}, size=(60, 60))
    yield bad("claims-60000.bmp", bmp(24, b"", (60_000, 60_000)), "has 60000 x 60000 pixels, more than max_pixels")
    yield bad("claims-60000.ppm", b"P6 60000 60000 255\n", "has 60000 x 60000 pixels, more than max_pixels")
    tga = encoded(NOISE, "TGA")
    yield bad("claims-65535.tga", tga[:12] + b"\xff" * 4 + tga[16:], "has 65535 x 65535 pixels, more than max_pixels")
    canvas = b"\x10\0\0\0" + (16_382).to_bytes(3, "little") * 2
    webp = b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X\x0a\0\0\0" + canvas
    yield bad("claims-16383.webp", webp, "has 268402689 pixels, more than max_pixels")
    yield bad("in-an-icon.ico", ico(bomb(30_000), 16, 16), "pixels", late=True)
    jp2 = encoded(NOISE, "JPEG2000").replace(struct.pack(">II", 60, 80), struct.pack(">II", 60_000, 60_000))
    yield bad("claims-60000.jp2", jp2, "has 60000 x 60000 pixels, more than max_pixels")


def _names() -> Iterator[File]:
    names = ["a b.jpg", "a,b.jpg", "it's.jpg", 'say "x".jpg', "two\nlines.jpg", "tab\there.jpg", "-rf.jpg", "--help"]
    names += ["=1+1.jpg", "@x.jpg", "%s%d.jpg", "{x}.jpg", "$HOME.jpg", "back\\slash.jpg", "*?[a].jpg", "a;b&c|d.jpg"]
    names += ["caf\u00e9.jpg", "cafe\u0301.jpg", "\U0001f600.jpg", "\u65e5\u672c.jpg", "\u202egpj.x", " blank .jpg "]
    names += [os.fsdecode(b"latin-\xe9.jpg"), os.fsdecode(b"\xff\xfe.jpg"), "x" * 251 + ".jpg", "a:b#c?.jpg"]
    for name in names:
        yield good(name, JPEG, tolerance=30)
    for name in ("png-named.jpg", "photo", "photo.", "photo.tar.gz", "photo.txt", "PHOTO.JPG", "photo.unknown"):
        yield good(name, PNG)
    yield good("jpeg-named.png", JPEG, tolerance=30)
    yield good("webp-named.jpg", encoded(quarters(), "WEBP", lossless=True))


def _special(folder: Path) -> Iterator[Case]:
    folder.mkdir()
    (folder / "target.png").write_bytes(PNG)
    upright = good("", b"").expected
    links = {"link.png": "target.png", "link-to-link.png": "link.png", "link\nbreak.png": "./target.png"}
    for name, target in links.items():
        (folder / name).symlink_to(target)
        yield Case(folder / name, upright)
    (folder / "hard.png").hardlink_to(folder / "target.png")
    yield Case(folder / "hard.png", upright)
    bad_links = {
        "dangling.png": ("nothing.png", "No such file or directory"),
        "loop.png": ("loop.png", "Too many levels of symbolic links"),
        "link-to-folder.png": (".", "is a folder, not an image file"),
        "link-to-device.png": ("/dev/zero", NOT_REGULAR),
        "link-to-null.png": ("/dev/null", NOT_REGULAR),
        "through-a-file.png": ("target.png/x.png", "Not a directory"),
    }
    for name, (target, reason) in bad_links.items():
        (folder / name).symlink_to(target)
        yield Case(folder / name, Expected(False, reason=reason))
    os.mkfifo(folder / "pipe.png")
    os.mknod(folder / "socket.png", stat.S_IFSOCK | 0o600)
    (folder / "folder.png").mkdir()
    (folder / "locked.png").write_bytes(PNG)
    (folder / "locked.png").chmod(0)
    others = {"pipe.png": NOT_REGULAR, "socket.png": NOT_REGULAR, "folder.png": "is a folder, not an image file"}
    others |= {"missing.png": "No such file or directory", "locked.png": "Permission denied"}
    for name, reason in others.items():
        yield Case(folder / name, Expected(False, reason=reason))
    yield _sparse(folder / "sparse.jpg")


def _sparse(path: Path) -> Case:
    with path.open("wb") as file:
        file.truncate(2**30)  # takes no room on the disk
    return Case(path, Expected(False, reason="holds zeros where an image begins"))
