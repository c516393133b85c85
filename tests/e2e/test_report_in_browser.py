from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

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


def visit(browser: str, page: Path, *options: str, profile: str = "browser") -> str:
    """Open a page in a browser without window; returns what the browser prints.

    An error or a warning in its console fails.
    """
    command = [
        browser,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--enable-logging=stderr",
        "--virtual-time-budget=2000",
        f"--user-data-dir={page.parent / profile}",
        *options,
        page.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in done.stderr, done.stderr
    return done.stdout


def run_script(browser: str, report: Path, script: str, profile: str = "browser") -> Any:
    """What a script returns in the page: it leaves its answer in the title."""
    page = report.with_name("scripted.html")
    made = f"<script>document.title = JSON.stringify((() => {{ {script} }})());</script>"
    page.write_text(report.read_text().replace("</body>", f"{made}</body>"))
    found = re.search(
        r"<title>(.*?)</title>", visit(browser, page, "--dump-dom", profile=profile), re.S
    )
    assert found
    return json.loads(found.group(1).replace("&amp;", "&").replace("&lt;", "<"))


TABLE = """
    const root = document.getElementById("explorer-trials"), form = root.querySelector("form");
    const headings = [...root.querySelectorAll("thead th")];
    const place = (name) => headings.findIndex((cell) => cell.textContent === name);
    const rows = () => [...root.querySelectorAll("tbody tr:not(.detail)")];
    const read = (name) => rows().map((row) => row.cells[place(name)].textContent);
    const lines = () => root.querySelector(".parallel svg").ariaLabel;
    const set = (name, value) => {
        form.elements[name].value = value;
        form.dispatchEvent(new Event("input"));
    };
"""


def test_the_verdict_is_the_first_thing_to_read(browser: str, report: Path) -> None:
    script = """
        const verdict = document.querySelector("#verdict h2");
        const box = verdict.getBoundingClientRect();
        return [verdict.textContent, box.top > 0 && box.bottom < 300];
    """
    assert run_script(browser, report, script) == [
        "kerzoo_paper leads, but nothing is decided yet.",
        True,
    ]


def test_a_heading_sorts_the_trials_both_ways(browser: str, report: Path) -> None:
    script = f"""{TABLE}
        const button = headings[place("Dev loss")].querySelector("button");
        button.focus();
        const reached = document.activeElement === button;
        button.click(); const up = read("Dev loss");
        button.click(); const down = read("Dev loss");
        return [reached, up, down, headings[place("Dev loss")].ariaSort];
    """
    reached, up, down, state = run_script(browser, report, script)
    losses = [float(text) for text in up]
    assert reached
    assert len(losses) == 8
    assert losses == sorted(losses)
    assert losses[0] < losses[-1]
    assert [float(text) for text in down] == losses[::-1]
    assert state == "descending"


def test_trials_are_filtered_by_text_arm_and_status_and_so_are_the_lines(
    browser: str, report: Path
) -> None:
    script = f"""{TABLE}
        const found = [rows().length];
        set("query", "mezo 0.01"); found.push(rows().length, lines());
        form.reset();
        set("query", ""); set("arm", "mezo"); found.push([...new Set(read("Arm"))], lines());
        set("status", "finished"); found.push(rows().length, form.querySelector("output").value);
        return found;
    """
    total, by_text, text_lines, arms, arm_lines, finished, told = run_script(
        browser, report, script
    )
    assert (total, by_text, arms, finished, told) == (8, 3, ["mezo"], 1, "1 of 8")
    assert "3 trials" in text_lines
    assert "4 trials" in arm_lines


def test_stopped_trials_can_be_hidden(browser: str, report: Path) -> None:
    script = f"""{TABLE}
        const found = [rows().length];
        for (let i = 0; i < 2; i++) {{
            form.elements.hide_stopped.click();
            found.push(rows().length);
        }}
        return found;
    """
    assert run_script(browser, report, script) == [8, 2, 8]


def test_a_trials_name_opens_the_command_that_reruns_it(browser: str, report: Path) -> None:
    script = """
        const button = document.querySelector("#table-trials .opener");
        button.click();
        const shown = document.querySelector("#table-trials .detail code").textContent;
        const expanded = button.ariaExpanded;
        button.click();
        return [shown, expanded, document.querySelectorAll("#table-trials .detail").length];
    """
    assert run_script(browser, report, script) == ["python -m sweeps.trial arm=mezo", "true", 0]


def test_colours_can_be_switched_and_the_choice_is_kept(browser: str, report: Path) -> None:
    script = """
        const paper = () => getComputedStyle(document.body).backgroundColor;
        const seen = JSON.parse(sessionStorage.getItem("seen") ?? "[]");
        seen.push(paper());
        document.getElementById("theme").click();
        seen.push(paper());
        sessionStorage.setItem("seen", JSON.stringify(seen));
        if (seen.length < 4) location.reload();
        return seen;
    """
    light, dark = "rgb(255, 255, 255)", "rgb(21, 24, 28)"
    assert run_script(browser, report, script, profile="themed") == [light, dark, dark, light]


def test_of_many_methods_the_first_are_shown_and_the_others_on_demand(
    browser: str, tmp_path: Path
) -> None:
    arms = ("mezo", *(f"kernel_{letter}" for letter in "abcdef"))
    sweep = SimulatedSweep(arms=arms, epsilons=(0.01,), learning_rates=(0.01,))
    script = """
        const rows = () => [...document.querySelectorAll(".standings tbody tr")]
            .filter((row) => row.getBoundingClientRect().height > 0).length;
        const button = document.querySelector(".standings + .tools button");
        const before = [rows(), button.textContent];
        button.click();
        return [...before, rows(), button.getAttribute("aria-expanded")];
    """
    found = run_script(browser, build_report([sweep.write(tmp_path)]), script)
    assert found == [4, "Show the other 3 methods", 7, "true"]


@pytest.mark.parametrize("width", [1200, 390])
def test_the_page_is_never_wider_than_the_screen(browser: str, report: Path, width: int) -> None:
    page = report.with_name("frame.html")
    script = """
        addEventListener("load", () => {
            const root = document.documentElement;
            parent.postMessage([root.scrollWidth, root.clientWidth], "*");
        });
    """
    inner = report.with_name("inner.html")
    inner.write_text(report.read_text().replace("</body>", f"<script>{script}</script></body>"))
    listener = "addEventListener('message', (event) => { document.title = event.data.join(' '); });"
    page.write_text(
        f"<!DOCTYPE html><title></title><script>{listener}</script><body>"
        f"<iframe src='{inner.name}' width={width} height=800 style='border: 0'></iframe>"
    )
    found = re.search(r"<title>(\d+) (\d+)</title>", visit(browser, page, "--dump-dom"))
    assert found
    assert int(found.group(1)) <= int(found.group(2)) <= width


def test_the_page_renders_as_a_picture_that_is_not_blank(browser: str, report: Path) -> None:
    picture = report.with_name("page.png")
    visit(browser, report, f"--screenshot={picture}", "--window-size=1200,1600")
    pixels = imread(picture)
    assert pixels.shape[:2] == (1600, 1200)
    assert 0.01 < float((pixels[..., :3].mean(axis=-1) < 0.5).mean()) < 0.5
