"""`python docs/picture.py results/quickstart`: the README's picture of a report's first page.

Needs Chromium (or Chrome) on the PATH. With another file's name a picture goes there instead, and
with --width and --height it has another size, such as a phone's.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def take_picture(page: Path, out: Path, width: int, height: int) -> None:
    """Open a page in a browser without window and save what is on its first screen.

    Raises:
        SystemExit: If there is no browser.
    """
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        raise SystemExit(f"no browser found; looked for {', '.join(BROWSERS)}")
    with tempfile.TemporaryDirectory() as profile:
        command = [
            browser,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--hide-scrollbars",
            "--virtual-time-budget=3000",
            f"--user-data-dir={profile}",
            f"--window-size={width},{height}",
            f"--screenshot={out.absolute()}",
            page.absolute().as_uri(),
        ]
        subprocess.run(command, check=True, capture_output=True, timeout=120)


def main() -> None:
    """Take the picture of a results folder's report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, metavar="results/NAME")
    parser.add_argument("out", type=Path, nargs="?", default=Path(__file__).with_name("report.png"))
    parser.add_argument("--width", type=int, default=1200)
    parser.add_argument("--height", type=int, default=1000)
    options = parser.parse_args()
    page = options.folder / "report" / "report.html"
    if not page.is_file():
        raise SystemExit(f"no report there: {page}; python -m analysis {options.folder} writes it")
    take_picture(page, options.out, options.width, options.height)
    print(options.out)


if __name__ == "__main__":
    main()
