from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from matplotlib.image import imread
from records_factory import SimulatedSweep

from analysis import build_report

pytestmark = pytest.mark.slow
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def browser() -> str:
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser found; looked for {', '.join(BROWSERS)}")
    return found


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_report([SimulatedSweep(halving=2).write(tmp_path_factory.mktemp("results"))])


def visit(browser: str, page: Path, *options: str) -> str:
    """Open a page in a browser without window; returns what the browser prints."""
    command = [
        browser,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--virtual-time-budget=2000",
        f"--user-data-dir={page.parent / 'browser'}",
        *options,
        page.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


def run_script(browser: str, report: Path, script: str) -> str:
    """What a script finds in the page: it leaves its answer in the title."""
    page = report.with_name("scripted.html")
    page.write_text(report.read_text().replace("</body>", f"<script>{script}</script></body>"))
    found = re.search(r"<title>(.*?)</title>", visit(browser, page, "--dump-dom"), re.DOTALL)
    assert found
    return found.group(1)


def test_clicking_a_heading_sorts_the_cells_both_ways(browser: str, report: Path) -> None:
    script = """
        const table = document.getElementById("table-cells");
        const headings = [...table.tHead.rows[0].cells];
        const column = headings.findIndex((cell) => cell.textContent === "Dev loss");
        const button = headings[column].querySelector("button");
        const read = () => [...table.tBodies[0].rows].map((row) => row.cells[column].textContent);
        button.click(); const up = read(); button.click(); const down = read();
        document.title = [up.join(" "), down.join(" "), headings[column].ariaSort].join("|");
    """
    up, down, state = run_script(browser, report, script).split("|")
    losses = [float(text) for text in up.split()]
    assert losses == sorted(losses)
    assert losses[0] < losses[-1]
    assert [float(text) for text in down.split()] == losses[::-1]
    assert state == "descending"


def test_stopped_cells_can_be_hidden(browser: str, report: Path) -> None:
    script = """
        const rows = [...document.querySelectorAll("#table-cells tbody tr")];
        const count = () => rows.filter((row) => row.offsetHeight > 0).length;
        const before = count(); document.querySelector("input[data-hides]").click();
        document.title = before + " " + count();
    """
    assert run_script(browser, report, script) == "8 2"


def test_headings_can_be_reached_with_the_keyboard(browser: str, report: Path) -> None:
    script = """
        const button = document.querySelector("#table-cells th button");
        button.focus();
        document.title = document.activeElement === button ? button.type : "lost";
    """
    assert run_script(browser, report, script) == "button"


@pytest.mark.parametrize("width", [1200, 390])
def test_the_page_is_never_wider_than_the_screen(browser: str, report: Path, width: int) -> None:
    script = f"""
        const frame = document.createElement("iframe");
        frame.style.width = "{width}px"; frame.style.height = "800px"; frame.style.border = "0";
        frame.onload = () => {{
            const root = frame.contentDocument.documentElement;
            document.title = root.scrollWidth + " " + root.clientWidth;
        }};
        frame.srcdoc = {report.read_text()!r}.replaceAll("<script>", "<script type='text/x'>");
        document.body.append(frame);
    """
    page = report.with_name("frame.html")
    source = script.replace("</script>", "<\\/script>")
    page.write_text(f"<!DOCTYPE html><title></title><body><script>{source}</script></body>")
    found = re.search(r"<title>(\d+) (\d+)</title>", visit(browser, page, "--dump-dom"))
    assert found
    assert int(found.group(1)) <= int(found.group(2)) <= width


def test_the_page_renders_as_a_picture_that_is_not_blank(browser: str, report: Path) -> None:
    picture = report.with_name("page.png")
    visit(browser, report, f"--screenshot={picture}", "--window-size=1200,1600")
    pixels = imread(picture)
    assert pixels.shape[:2] == (1600, 1200)
    assert 0.01 < float((pixels[..., :3].mean(axis=-1) < 0.5).mean()) < 0.5
