"""The leaderboard as pages: complete, escaped, sortable in a real browser."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from m3po_bench.leaderboard.pages import Page, Part, Section, to_html, to_latex, to_markdown

TABLE = pd.DataFrame(
    {
        "Agent": ["SAC", "M3PO *", "A<b> & c_d"],
        "Env steps": ["3,000", "20,000", "900"],
        "Return": ["-5.0", "12.5", ""],
        "Never recovered": ["7%", "100%", "35%"],
    }
)
PAGE = Page("Leaderboard: x", "How to read. It.", (Section("Env, hazard", (Part("Why", TABLE),)),))
VOID = {"meta", "img"}


class Balanced(HTMLParser):
    """Collects text and what is referred to; every tag must be closed in its turn."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.cells: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [str(value) for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "td":
            self.cells.append(data)


def test_html_is_whole_and_needs_nothing_else() -> None:
    text = to_html(PAGE, {"learning_curves": b"image"})
    parser = Balanced()
    parser.feed(text)
    assert parser.open == []
    assert parser.sources == ["data:image/png;base64,aW1hZ2U="]
    assert [cell for cell in parser.cells if cell] == [c for c in TABLE.to_numpy().ravel() if c]
    assert "http" not in text
    assert text.count('class="unfinished"') == 1
    assert "<h2>Learning curves</h2>" in text


def test_markdown_and_latex_hold_every_cell() -> None:
    markdown, latex = to_markdown(PAGE), to_latex(PAGE)
    assert markdown.startswith("# Leaderboard: x\n\nHow to read. It.\n\n## Env, hazard\n\nWhy\n")
    for cell in TABLE.to_numpy().ravel():
        assert cell in markdown
    assert r"A<b> \& c\_d & 900 &  & 35\% \\" in latex
    assert latex.count(r"\toprule") == latex.count(r"\bottomrule") == 1


CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


def in_browser(text: str, clicks: list[int], folder: Path) -> list[str]:
    """The agents from top to bottom after clicks on these columns' headings."""
    script = "".join(f"document.querySelectorAll('th button')[{i}].click();" for i in clicks)
    page = folder / "page.html"
    page.write_text(text.replace("</body>", f"<script>{script}</script></body>"))
    assert CHROMIUM is not None
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
         f"--user-data-dir={folder / 'profile'}", "--dump-dom", page.as_uri()],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    return re.findall(r"<tr[^>]*><td>(.*?)</td>", done.stdout)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.parametrize(
    ("clicks", "order"),
    [
        ([], ["SAC", "M3PO *", "A&lt;b&gt; &amp; c_d"]),
        ([1], ["M3PO *", "SAC", "A&lt;b&gt; &amp; c_d"]),  # as numbers, the largest first
        ([1, 1], ["A&lt;b&gt; &amp; c_d", "SAC", "M3PO *"]),
        ([2, 2], ["SAC", "M3PO *", "A&lt;b&gt; &amp; c_d"]),  # what is empty stays last
        ([3], ["M3PO *", "A&lt;b&gt; &amp; c_d", "SAC"]),
        ([0, 0], ["A&lt;b&gt; &amp; c_d", "M3PO *", "SAC"]),
    ],
)
def test_a_click_sorts(clicks: list[int], order: list[str], tmp_path: Path) -> None:
    assert in_browser(to_html(PAGE, {}), clicks, tmp_path) == order
