"""A picture of a report's first screen, as a browser draws it.

Usage: python benchmarks/report_picture.py runs/quickstart/report.html --out docs/quickstart.png [--width 1280] [--dark]

Needs Chromium or Chrome on the PATH; loads nothing from the network.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path

from PIL import Image

from warplca.configs.atomic import file_written_whole
from warplca.configs.errors import InputError

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


def photograph(page: Path, out: Path, *, width: int, height: int, dark: bool) -> None:
    """Write a PNG of 256 colours of a page."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise InputError(f"found none of {', '.join(BROWSERS)}; install Chromium.")
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "shot.png"
        options = ["--no-sandbox", "--headless", "--hide-scrollbars", f"--window-size={width},{height}"]
        options += ["--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={folder}/profile"]
        options += ["--blink-settings=preferredColorScheme=0"] if dark else []
        command = [browser, *options, f"--screenshot={shot}", page.resolve().as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        with file_written_whole(out) as target:
            Image.open(shot).convert("RGB").quantize(256).save(target, format="PNG", optimize=True)


def main() -> None:
    """Run from the command line."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("page", type=Path, help="the report, or another HTML file")
    options.add_argument(
        "--out", type=Path, default=Path("docs/quickstart.png"), help="(default: %(default)s)"
    )
    options.add_argument("--width", type=int, default=1280, help="pixels (default: %(default)s)")
    options.add_argument("--height", type=int, default=800, help="pixels (default: %(default)s)")
    options.add_argument("--dark", action="store_true", help="as those see it who prefer dark pages")
    arguments = options.parse_args()
    photograph(
        arguments.page, arguments.out, width=arguments.width, height=arguments.height, dark=arguments.dark
    )


if __name__ == "__main__":
    main()
