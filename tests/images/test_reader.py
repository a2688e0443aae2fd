"""The one reader of image files: what it makes of every format, and what it refuses, by name and with a reason."""

import os
import struct
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo
from sklearn.datasets import load_sample_image

from imgcls.errors import ImageError
from imgcls.images import Pixels, check_header, load_image, pillow_decoder, reader
from imgcls.images.exif_orientation import make_upright
from imgcls.images.fast_decoders import decode_fast
from imgcls.images.pillow_decoder import decode_with_pillow
from imgcls.images.pillow_formats import open_image
from imgcls.images.pillow_settings import while_reading
from tests.helpers.encoders import STORED, encoded, exif, png, quarters, stored


def read(folder: Path, content: bytes, name: str = "image") -> Pixels:
    (folder / name).write_bytes(content)
    return load_image(folder / name)


def refusal(path: Path, **options: int) -> str:
    """The reason that stands behind the path in the error's text."""
    with pytest.raises(ImageError) as caught:
        load_image(path, **options)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    return text.removeprefix(f"{path}: ")


def assert_upright(pixels: Pixels, tolerance: int = 0) -> None:
    assert pixels.shape == (16, 32, 3)
    assert pixels.dtype == np.uint8
    difference = np.abs(pixels[4::8, 8::16].astype(int) - quarters()[4::8, 8::16])
    assert difference.max() <= tolerance


# -- formats

LOSSLESS: dict[str, dict[str, Any]] = {
    "png": {"format": "PNG"},
    "bmp": {"format": "BMP"},
    "tiff": {"format": "TIFF"},
    "tiff-lzw": {"format": "TIFF", "compression": "tiff_lzw"},
    "tiff-deflate": {"format": "TIFF", "compression": "tiff_deflate"},
    "webp-lossless": {"format": "WEBP", "lossless": True},
    "jpeg2000": {"format": "JPEG2000"},
    "ppm": {"format": "PPM"},
    "tga": {"format": "TGA"},
}
LOSSY: dict[str, dict[str, Any]] = {
    "jpeg": {"format": "JPEG"},
    "jpeg-progressive": {"format": "JPEG", "progressive": True},
    "webp": {"format": "WEBP"},
    "avif": {"format": "AVIF"},
    "tiff-jpeg": {"format": "TIFF", "compression": "jpeg"},
    "mpo": {"format": "MPO"},
}


@pytest.mark.parametrize("kind", LOSSLESS)
def test_load_image_reads_lossless_formats_exactly(kind: str, tmp_path: Path) -> None:
    Image.fromarray(quarters()).save(tmp_path / "image", **LOSSLESS[kind])
    pixels = load_image(tmp_path / "image")
    np.testing.assert_array_equal(pixels, quarters())
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable


@pytest.mark.parametrize("kind", LOSSY)
def test_load_image_reads_lossy_formats(kind: str, tmp_path: Path) -> None:
    Image.fromarray(quarters()).save(tmp_path / "image", **LOSSY[kind])
    assert_upright(load_image(tmp_path / "image"), tolerance=25)


@pytest.mark.parametrize("name", ["photo.jpg", "photo.txt", "photo"])
def test_load_image_goes_by_content_not_by_extension(name: str, tmp_path: Path) -> None:
    assert_upright(read(tmp_path, encoded(Image.fromarray(quarters()), "PNG"), name))


def test_load_image_takes_text_paths_and_one_pixel(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1), (7, 8, 9)).save(tmp_path / "one.png")
    assert load_image(str(tmp_path / "one.png")).tolist() == [[[7, 8, 9]]]


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_load_image_takes_the_first_frame(kind: str, tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    with Image.open(BytesIO(content)) as image:
        assert getattr(image, "n_frames", 1) == 2
    np.testing.assert_allclose(read(tmp_path, content)[4, 4], [255, 0, 0], atol=4)


def test_load_image_ignores_the_colour_profile(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    assert_upright(read(tmp_path, encoded(Image.fromarray(quarters()), "PNG", icc_profile=profile)))


# -- the fast way

PHOTO = np.ascontiguousarray(load_sample_image("china.jpg")[:301, :405])  # odd sizes
EVERYDAY: dict[str, Callable[[], bytes]] = {
    "baseline": lambda: encoded(PHOTO, "JPEG"),
    "progressive": lambda: encoded(PHOTO, "JPEG", progressive=True, quality=90),
    "optimized": lambda: encoded(PHOTO, "JPEG", optimize=True, quality=20),
    "restarts": lambda: encoded(PHOTO, "JPEG", restart_marker_rows=1),
    "rgb": lambda: encoded(PHOTO, "JPEG", keep_rgb=True),
    "grey": lambda: encoded(Image.fromarray(PHOTO).convert("L"), "JPEG"),
    "grey-progressive": lambda: encoded(Image.fromarray(PHOTO).convert("L"), "JPEG", progressive=True),
    "webp": lambda: encoded(PHOTO, "WEBP"),
    "webp-best": lambda: encoded(PHOTO[:7, :16], "WEBP", quality=100),
    "two-views": lambda: encoded(PHOTO, "MPO", save_all=True, append_images=[Image.fromarray(PHOTO[::-1])]),
    **{f"exif-{n}": lambda n=n: encoded(PHOTO, "JPEG", exif=exif(n)) for n in STORED},  # type: ignore[misc]
    **{
        f"{sampling}-{quality}": lambda s=sampling, q=quality: simplejpeg.encode_jpeg(PHOTO, q, "RGB", s)  # type: ignore[misc]
        for sampling in ("444", "422", "420", "440", "411")
        for quality in (30, 95)
    },
    **{
        f"{height}x{width}": lambda h=height, w=width: encoded(PHOTO[:h, :w], "JPEG")  # type: ignore[misc]
        for height, width in [(1, 1), (1, 9), (9, 1), (7, 15), (16, 17), (33, 31)]
    },
}


@pytest.mark.parametrize("kind", EVERYDAY)
def test_the_fast_way_gives_pillows_very_pixels(kind: str) -> None:
    content = EVERYDAY[kind]()
    stored = decode_fast(content, reader.MAX_PIXELS)
    assert stored is not None
    fast = make_upright(*stored)
    assert (fast.dtype.name, fast.flags.c_contiguous, fast.flags.writeable) == ("uint8", True, True)
    np.testing.assert_array_equal(fast, decode_with_pillow(BytesIO(content), reader.MAX_PIXELS))


def test_the_fast_way_leaves_to_pillow_what_it_finds_fault_with() -> None:
    content = encoded(PHOTO, "JPEG")
    assert decode_fast(content[:-2] + b"12345678" + content[-2:], reader.MAX_PIXELS) is None
    assert decode_fast(content[:-2], reader.MAX_PIXELS) is None
    assert decode_fast(encoded(PHOTO, "WEBP")[:-1], reader.MAX_PIXELS) is None


def test_warnings_are_back_when_the_last_thread_has_read(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(encoded(PHOTO, "PNG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff"))
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        sizes = {pixels.shape for pixels in pool.map(load_image, [tmp_path / "broken.png"] * 64)}
    assert sizes == {PHOTO.shape}
    assert list(warnings.filters) == before


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "GIF"])
def test_load_image_reads_large_files_piece_by_piece(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = encoded(PHOTO, kind, exif=exif(6)) if kind != "GIF" else encoded(PHOTO, kind)
    expected = read(tmp_path, content)
    monkeypatch.setattr(reader, "_WHOLE", 0)
    np.testing.assert_array_equal(read(tmp_path, content), expected)


def test_check_header_decodes_nothing(tmp_path: Path) -> None:
    (tmp_path / "claims.png").write_bytes(png((300, 200), 8, 0, []))  # holds no pixels
    assert check_header(tmp_path / "claims.png") == (300, 200)
    (tmp_path / "cut.jpg").write_bytes(encoded(PHOTO, "JPEG", exif=exif(6))[:5000])
    assert check_header(tmp_path / "cut.jpg") == (301, 405)
    with pytest.raises(ImageError, match=r"cut\.jpg: has 405 x 301 pixels, more than max_pixels 121904"):
        check_header(tmp_path / "cut.jpg", max_pixels=405 * 301 - 1)


# -- orientation


def oriented(orientation: int, kind: str) -> bytes:
    return encoded(stored(orientation), kind, exif=exif(orientation))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF"])
@pytest.mark.parametrize("orientation", STORED)
def test_load_image_applies_the_exif_orientation(orientation: int, kind: str, tmp_path: Path) -> None:
    assert_upright(read(tmp_path, oriented(orientation, kind)), tolerance=25)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "I;16"])
def test_the_header_of_an_everyday_png_needs_no_pillow(
    mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new(mode, (7, 5)).save(tmp_path / "a.png")
    monkeypatch.setattr(pillow_decoder, "open_image", lambda file: pytest.fail("Pillow was asked"))
    assert check_header(tmp_path / "a.png") == (7, 5)
    with pytest.raises(ImageError, match="has 7 x 5 pixels, more than max_pixels 34"):
        check_header(tmp_path / "a.png", max_pixels=34)


@pytest.mark.parametrize("kind", ["palette", "text", "turned", "width", "bits", "checksum"])
def test_the_header_of_another_png_is_left_to_pillow(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = Image.new("P" if kind == "palette" else "RGB", (7, 5))
    more: dict[str, Any] = {"exif": exif(6)} if kind == "turned" else {}
    image.save(tmp_path / "a.png", pnginfo=_text() if kind == "text" else None, **more)
    content = bytearray((tmp_path / "a.png").read_bytes())
    if kind in {"width", "bits", "checksum"}:
        content[{"width": 19, "bits": 24, "checksum": 30}[kind]] = 0
        if kind != "checksum":
            content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
        (tmp_path / "a.png").write_bytes(content)
    asked: list[Any] = []

    def asking(file: Any) -> Any:
        asked.append(file)
        return open_image(file)

    monkeypatch.setattr(pillow_decoder, "open_image", asking)
    if kind in {"palette", "text", "turned"}:
        assert check_header(tmp_path / "a.png") == ((5, 7) if kind == "turned" else (7, 5))
    else:
        with pytest.raises(ImageError):
            check_header(tmp_path / "a.png")
    assert asked


def _text() -> PngInfo:
    info = PngInfo()
    info.add_text("a", "b")
    return info


def test_load_image_applies_the_orientation_beside_broken_tags(tmp_path: Path) -> None:
    broken = oriented(6, "JPEG").replace(
        b"\x01\x1a\x00\x05", b"\x01\x1a\x00\x02"
    )  # a resolution that claims to be text
    assert broken != oriented(6, "JPEG")
    assert_upright(read(tmp_path, broken), tolerance=25)


@pytest.mark.parametrize("orientation", [0, 9, 300])
def test_load_image_leaves_an_unknown_orientation(orientation: int, tmp_path: Path) -> None:
    assert_upright(read(tmp_path, encoded(quarters(), "PNG", exif=exif(orientation))))


# -- pixel modes


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_load_image_keeps_the_high_byte_of_16_bits(kind: str, tmp_path: Path) -> None:
    grey = Image.fromarray(np.array([[0x1234, 0xFF00, 0x00FF]], dtype=np.uint16))
    assert read(tmp_path, encoded(grey, kind))[0].tolist() == [[0x12] * 3, [0xFF] * 3, [0] * 3]


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_signed_pixels_are_refused_by_the_header(kind: type, tmp_path: Path) -> None:
    stored = Image.fromarray(np.array([[1, 100]], dtype=kind))
    (tmp_path / "signed.tif").write_bytes(encoded(stored, "TIFF", tiffinfo={339: 2}))
    for look in (load_image, check_header):
        with pytest.raises(ImageError, match="has signed pixels; unsigned ones of 8 or 16 bits are supported"):
            look(tmp_path / "signed.tif")


def test_load_image_converts_cmyk(tmp_path: Path) -> None:
    content = encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG")
    assert b"Adobe" in content  # so the values in the file are inverted
    assert read(tmp_path, content)[0, 0].tolist() == [255, 0, 0]
    assert read(tmp_path, encoded(Image.new("CMYK", (8, 8), (255, 0, 0, 0)), "TIFF"))[0, 0].tolist() == [0, 255, 255]


def test_load_image_reads_an_opaque_palette(tmp_path: Path) -> None:
    image = Image.fromarray(quarters()).quantize(4)
    assert_upright(read(tmp_path, encoded(image, "GIF")))


# -- refusals

NOISE = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
ENCODED = {
    "png": encoded(Image.fromarray(NOISE), "PNG"),
    "jpg": encoded(Image.fromarray(NOISE), "JPEG"),
    "progressive.jpg": encoded(Image.fromarray(NOISE), "JPEG", progressive=True),
}


@pytest.mark.parametrize("kind", ENCODED)
@pytest.mark.parametrize("kept", [3, 30, 0.3, 0.6, -40, -12, -6, -4])
def test_load_image_refuses_truncated_files(kept: float, kind: str, tmp_path: Path) -> None:
    content = ENCODED[kind]
    end = int(kept * len(content)) if 0 < kept < 1 else int(kept)
    end = min(end, -5) if kind == "png" and kept < 0 else end  # the last four bytes are a checksum of nothing
    path = tmp_path / f"cut.{kind}"
    path.write_bytes(content[:end])
    name = "PNG" if kind == "png" else "JPEG"
    assert refusal(path).startswith(
        ("is truncated", f"is {name}, but its header is truncated", "is not an image, or of an unknown format")
    )


NO_IMAGE = {
    "is empty": b"",
    "is a text file, not an image": "caf\u00e9, hello, world\n".encode() * 90,
    "is an HTML page, not an image": b"<!DOCTYPE html><html><body>404</body></html>",
    "holds zeros where an image begins": bytes(5000),
    "is a pointer of Git LFS, not an image; type: git lfs pull": b"version https://git-lfs.github.com/spec/v1",
    "is an SVG drawing, not an image of pixels": b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>',
    "is a PDF document, not an image": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3",
    "is a HEIC photo, which is not supported; convert it to JPEG": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    "is a video, not an image": b"\0\0\0\x18ftypisom\0\0\2\0isomiso2",
    "is an archive, not an image": b"PK\x03\x04\x14\0\0\0",
    "is not an image, or of an unknown format": bytes(range(256)) * 9,
}


@pytest.mark.parametrize("reason", NO_IMAGE)
def test_load_image_says_what_is_no_image(reason: str, tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(NO_IMAGE[reason])
    assert refusal(path) == reason
    with pytest.raises(ImageError) as caught:
        check_header(path)
    assert str(caught.value) == f"{path}: {reason}"


@pytest.mark.parametrize("place", ["header", "pixels", "sum"])
def test_load_image_refuses_a_png_with_a_wrong_checksum(place: str, tmp_path: Path) -> None:
    content = bytearray(ENCODED["png"])
    start = content.index(b"IDAT")
    (length,) = struct.unpack(">I", content[start - 4 : start])
    content[{"header": 30, "pixels": start + 100, "sum": start + 4 + length}[place]] ^= 1
    (tmp_path / "bad.png").write_bytes(content)
    reason = refusal(tmp_path / "bad.png")
    expected = "bad header checksum in b'IHDR'" if place == "header" else "a wrong checksum in the chunk 'IDAT'"
    assert expected in reason


def test_load_image_refuses_what_is_not_a_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    assert refusal(tmp_path / "pipe.jpg") == "is not a regular file (a pipe, socket or device)"
    assert refusal(tmp_path) == "is a folder, not an image file"


def test_load_image_refuses_links_to_nowhere_and_missing_files(tmp_path: Path) -> None:
    (tmp_path / "dangling.jpg").symlink_to("nothing.jpg")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    assert refusal(tmp_path / "dangling.jpg") == "No such file or directory"
    assert refusal(tmp_path / "missing.jpg") == "No such file or directory"
    assert refusal(tmp_path / "loop.jpg") == "Too many levels of symbolic links"


def test_load_image_judges_the_size_by_the_header(tmp_path: Path) -> None:
    path = tmp_path / "claims.png"
    path.write_bytes(png((300, 200), 8, 0, []))  # holds no pixels, so that decoding would fail otherwise
    assert refusal(path, max_pixels=59_999) == "has 300 x 200 pixels, more than max_pixels 59999"
    assert "more than max_pixels" not in refusal(path, max_pixels=60_000)
    path.write_bytes(png((65_500, 65_500), 1, 0, []))
    assert refusal(path) == "has 65500 x 65500 pixels, more than max_pixels 89478485"


def test_load_image_goes_beyond_pillows_limit_on_request_and_restores_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    Image.fromarray(quarters()).save(tmp_path / "image.png")
    Image.fromarray(quarters()).save(tmp_path / "image.tiff")  # Pillow asks for its size again while it decodes
    Image.fromarray(quarters()).save(tmp_path / "image.webp", lossless=True)  # and here while it opens
    for name in ("image.png", "image.tiff", "image.webp"):
        assert check_header(tmp_path / name, max_pixels=512) == (32, 16)
        assert refusal(tmp_path / name, max_pixels=511) == "has 32 x 16 pixels, more than max_pixels 511"
        assert load_image(tmp_path / name, max_pixels=512).shape == (16, 32, 3)
        assert Image.MAX_IMAGE_PIXELS == 100


def test_pillows_limit_is_restored_by_the_last_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with while_reading(512):
        with while_reading(200):
            assert Image.MAX_IMAGE_PIXELS == 512
        assert Image.MAX_IMAGE_PIXELS == 512
    assert Image.MAX_IMAGE_PIXELS == 100
    with while_reading(512):
        Image.MAX_IMAGE_PIXELS = 7  # by the user, in another thread
    assert Image.MAX_IMAGE_PIXELS == 7


def test_load_image_refuses_floats_and_32_bits(tmp_path: Path) -> None:
    Image.fromarray(np.ones((3, 4), np.float32)).save(tmp_path / "float.tiff")
    Image.fromarray(np.full((3, 4), 70_000, np.int32)).save(tmp_path / "long.tiff")
    assert refusal(tmp_path / "float.tiff") == "has floating-point pixels; 8 or 16 bits are supported"
    assert refusal(tmp_path / "long.tiff") == "has 32-bit pixels; 8 or 16 bits are supported"


def test_load_image_refuses_a_png_that_claims_a_longer_chunk(tmp_path: Path) -> None:
    content = encoded(NOISE, "PNG")
    start = content.index(b"IDAT") - 4
    (tmp_path / "long.png").write_bytes(content[:start] + struct.pack(">I", 2**31 - 1) + content[start + 4 :])
    assert check_header(tmp_path / "long.png") == (30, 20)
    assert refusal(tmp_path / "long.png") == "is truncated: a PNG without its end"


def outcome(folder: Path, content: bytes) -> str:
    try:
        return read(folder, content).dtype.name
    except ImageError as error:
        return str(error).partition(": ")[0]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "AVIF", "JPEG2000", "TGA", "ICO"])
def test_load_image_reads_or_refuses_whatever_the_damage(kind: str, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    content = encoded(Image.fromarray(NOISE), kind)
    outcomes = set()
    for _ in range(60):
        damaged = bytearray(content)
        for place in generator.integers(0, min(len(content), 400), 4):
            damaged[place] = generator.integers(0, 256)
        outcomes.add(outcome(tmp_path, bytes(damaged)))
    assert str(tmp_path / "image") in outcomes
    assert outcomes <= {"uint8", str(tmp_path / "image")}
