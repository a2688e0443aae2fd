"""Photograph the first page of a report: docs/images/report.png.

python docs/make_report_picture.py [RUN], from the repository's root; needs Chromium. Without a run, that of the
quickstart is trained first, in about a minute.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

PICTURE = Path("docs/images/report.png")
WIDTH, HEIGHT = 1180, 1060


def main() -> None:
    """Write the report, and photograph it."""
    browser = shutil.which("chromium") or shutil.which("google-chrome") or sys.exit("needs Chromium")
    imgcls = [sys.executable, "-m", "imgcls"]
    with tempfile.TemporaryDirectory() as folder:
        run = f"{folder}/digits/version_0"
        if len(sys.argv) > 1:
            run = sys.argv[1]
        else:
            fit = [*imgcls, "fit", "--config", "configs/quickstart.yaml", "--experiment.output_dir", folder]
            subprocess.run(fit, check=True)
        page, shot = Path(folder, "page.html"), Path(folder, "shot.png")
        subprocess.run([*imgcls, "report", run, "--output", str(page)], check=True)
        text = page.read_text(encoding="utf-8")
        page.write_text(text.replace(f"{Path('configs').absolute()}/", ""), encoding="utf-8")  # short paths
        options = ["--headless", "--no-sandbox", "--hide-scrollbars", f"--window-size={WIDTH},{HEIGHT}"]
        subprocess.run([browser, *options, f"--screenshot={shot}", page.as_uri()], check=True)
        PICTURE.parent.mkdir(exist_ok=True)
        Image.open(shot).convert("RGB").quantize(128).save(PICTURE, optimize=True)
    print(PICTURE, PICTURE.stat().st_size // 1000, "kB")


if __name__ == "__main__":
    main()
