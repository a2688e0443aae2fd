"""DCT-scaled decoding: which size, the same pixels by both decoders, and the reader's other rules unchanged."""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from imgcls.images import decode_image, load_image
from imgcls.images.headers import jpeg_scale

PHOTO = Image.fromarray(load_sample_images().images[0])  # 640 x 427


def jpeg(image: Image.Image = PHOTO, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("min_side", "shape"),
    [(None, (427, 640)), (1, (54, 80)), (54, (54, 80)), (55, (107, 160)), (108, (214, 320)), (215, (427, 640))],
)
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}], ids=["plain", "scans", "4:4:4"])
def test_the_smallest_power_of_two_that_suffices(
    min_side: int | None, shape: tuple[int, int], options: dict[str, Any]
) -> None:
    content = jpeg(**options)
    pixels = decode_image(content, "photo", min_side=min_side)
    assert pixels.shape == (*shape, 3)
    drafted = Image.open(BytesIO(content))
    scale = jpeg_scale(640, 427, min_side)
    drafted.draft(None, (640 // scale, 427 // scale))
    np.testing.assert_array_equal(pixels, np.asarray(drafted))


def test_a_scaled_photo_looks_like_the_photo() -> None:
    content = jpeg(PHOTO.crop((0, 0, 640, 424)), quality=92)
    exact = Image.fromarray(decode_image(content, "photo")).resize((150, 100), Image.Resampling.BICUBIC)
    scaled = Image.fromarray(decode_image(content, "photo", min_side=200)).resize((150, 100), Image.Resampling.BICUBIC)
    difference = np.abs(np.asarray(exact).astype(int) - np.asarray(scaled))
    assert scaled.size == exact.size
    assert 0 < difference.mean() < 1
    assert difference.max() <= 13


def test_what_pillow_decodes_is_scaled_alike() -> None:
    small = decode_image(jpeg(PHOTO.convert("CMYK")), "ink", min_side=100)
    assert small.shape == (107, 160, 3)
    whole = np.asarray(Image.fromarray(decode_image(jpeg(PHOTO.convert("CMYK")), "ink")).resize((160, 107)))
    assert np.abs(small.astype(int) - whole).mean() < 4


def test_orientation_grey_and_large_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exif = Image.Exif()
    exif[0x112] = 6
    path = tmp_path / "turned.jpg"
    PHOTO.save(path, exif=exif)
    turned = load_image(path, min_side=100)
    np.testing.assert_array_equal(turned, np.rot90(decode_image(jpeg(), "photo", min_side=100), -1))
    grey = decode_image(jpeg(PHOTO.convert("L")), "grey", min_side=200)
    assert grey.shape == (214, 320, 3)
    assert (grey[..., 0] == grey[..., 2]).all()
    monkeypatch.setattr("imgcls.images.reader._WHOLE", 0)  # every file is decoded in blocks, by Pillow
    np.testing.assert_array_equal(load_image(path, min_side=100), turned)


@pytest.mark.parametrize("kind", ["png", "webp", "bmp"])
def test_other_formats_are_decoded_whole(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"photo.{kind}"
    PHOTO.save(path)
    np.testing.assert_array_equal(load_image(path, min_side=8), load_image(path))


@pytest.mark.parametrize("kept", [0.3, 0.8])
def test_damage_is_found_at_any_scale(kept: float) -> None:
    content = jpeg()
    with pytest.raises(ValueError, match=r"^photo: (is damaged|.*truncated)"):
        decode_image(content[: int(kept * len(content))], "photo", min_side=8)
