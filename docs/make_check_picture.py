"""Photograph the page of ``imgcls check --html``: docs/images/check.png.

python docs/make_check_picture.py, from the repository's root; needs Chromium. The photos are parts of the two that
scikit-learn ships; copies, a leak and a damaged file are planted among them.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from sklearn.datasets import load_sample_images

PICTURE = Path("docs/images/check.png")
WIDTH, HEIGHT = 760, 738


def write_photos(root: Path) -> None:
    """Write train and test folders of two classes.

    Args:
        root: The folder to make.
    """
    for name, pixels in zip(("temple", "flower"), load_sample_images().images, strict=True):
        photo = Image.fromarray(pixels)
        for split, top in (("train", 0), ("test", 210)):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(4):
                left = 130 * number
                photo.crop((left, top, left + 240, top + 215)).save(folder / f"{number:03d}.jpg", quality=92)
    train, test = root / "train", root / "test"
    shutil.copy(train / "temple/001.jpg", test / "temple/again.jpg")
    Image.open(train / "flower/000.jpg").save(test / "flower/recompressed.jpg", quality=60)
    shutil.copy(train / "flower/002.jpg", train / "temple/wrong_label.jpg")
    (train / "flower/damaged.jpg").write_bytes((train / "flower/003.jpg").read_bytes()[:4000])


def main() -> None:
    """Check the photos, and photograph the page."""
    browser = shutil.which("chromium") or shutil.which("google-chrome") or sys.exit("needs Chromium")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_photos(root / "photos")
        check = [sys.executable, "-m", "imgcls", "check", "--images", "photos", "--html", "look.html"]
        subprocess.run(check, cwd=root, check=False)  # exit code 2: there are faults
        page = root / "look.html"
        page.write_text(page.read_text(encoding="utf-8").replace(f"{root}/", ""), encoding="utf-8")  # short paths
        shot = root / "shot.png"
        options = ["--headless", "--no-sandbox", "--hide-scrollbars", f"--window-size={WIDTH},{HEIGHT}"]
        subprocess.run([browser, *options, f"--screenshot={shot}", page.as_uri()], check=True)
        PICTURE.parent.mkdir(exist_ok=True)
        Image.open(shot).convert("RGB").quantize(200).save(PICTURE, optimize=True)
    print(PICTURE, PICTURE.stat().st_size // 1000, "kB")


if __name__ == "__main__":
    main()
