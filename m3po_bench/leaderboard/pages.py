"""The leaderboard's tables as a Markdown, a LaTeX and one self-contained HTML page."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd

UNFINISHED = " *"
"""Behind the name of an agent that has fewer seeds than its suite asks for."""

_FIGURE = re.compile(
    r'\n<h2>[^<\n]*</h2>\n<img alt="[^"\n]*" src="data:image/png;base64,[\w+/=]*">'
)


class Part(NamedTuple):
    """A table and the lines that explain it.

    Attributes:
        text: What the table shows; may be empty.
        table: All cells are text.
    """

    text: str
    table: pd.DataFrame


class Section(NamedTuple):
    """What belongs to one env and schedule.

    Attributes:
        title: Its heading.
        parts: Tables, the most important first.
    """

    title: str
    parts: tuple[Part, ...]


class Page(NamedTuple):
    """A whole leaderboard.

    Attributes:
        title: Its heading.
        text: How to read it.
        sections: By env and schedule.
    """

    title: str
    text: str
    sections: tuple[Section, ...]


def to_markdown(page: Page) -> str:
    """The page as Markdown."""
    blocks = [f"# {page.title}", page.text]
    for section in page.sections:
        blocks.append(f"## {section.title}")
        for text, table in section.parts:
            blocks += [text] * bool(text)
            blocks.append(table.to_markdown(index=False, disable_numparse=True))
    return "\n\n".join(blocks) + "\n"


def to_latex(page: Page) -> str:
    """The tables for a paper; they need the package ``booktabs``."""
    blocks = [f"% {page.title}", *(f"% {line}" for line in page.text.split(". "))]
    for section in page.sections:
        for text, table in section.parts:
            styled = table.style.hide(axis="index").format(escape="latex")
            styled = styled.format_index(escape="latex", axis="columns")
            aligned = "l" + "r" * (table.shape[1] - 1)
            blocks.append("\n".join(f"% {line}" for line in (section.title, text) if line))
            blocks.append(styled.to_latex(hrules=True, column_format=aligned).strip())
    return "\n\n".join(blocks) + "\n"


def to_html(page: Page, figures: Mapping[str, bytes]) -> str:
    """One file that needs no other and no network; a click on a heading sorts by its column.

    Args:
        page: The tables.
        figures: PNG images by name.
    """
    body = [f"<h1>{html.escape(page.title)}</h1>", f"<p>{html.escape(page.text)}</p>"]
    for section in page.sections:
        body.append(f"<h2>{html.escape(section.title)}</h2>")
        for text, table in section.parts:
            body += [f"<p>{html.escape(text)}</p>"] * bool(text)
            body.append(_html_table(table))
    for name, image in figures.items():
        source = base64.b64encode(image).decode()
        shown = html.escape(name.replace("_", " ").capitalize())
        body.append(f'<h2>{shown}</h2>\n<img alt="{shown}" src="data:image/png;base64,{source}">')
    return _HTML.format(title=html.escape(page.title), body="\n".join(body))


def without_figures(text: str) -> str:
    """What ``to_html`` makes of the same tables and no figures."""
    return _FIGURE.sub("", text)


def _html_table(table: pd.DataFrame) -> str:
    heads = "".join(
        f'<th scope="col"><button type="button">{html.escape(str(name))}</button></th>'
        for name in table.columns
    )
    rows = []
    for cells in table.itertuples(index=False):
        faded = ' class="unfinished"' if str(cells[0]).endswith(UNFINISHED) else ""
        shown = "".join(f"<td>{html.escape(str(cell))}</td>" for cell in cells)
        rows.append(f"<tr{faded}>{shown}</tr>")
    body = "\n".join(rows)
    return f"<table>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"


_HTML = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto;
  padding: 0 1rem; }}
table {{ border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto; }}
th, td {{ padding: .3rem .7rem; border-bottom: 1px solid #8884; text-align: right;
  white-space: nowrap; font-variant-numeric: tabular-nums; }}
th:first-child, td:first-child {{ text-align: left; }}
th button {{ font: inherit; font-weight: 600; border: 0; padding: 0; background: none;
  color: inherit; cursor: pointer; }}
th[aria-sort=ascending] button::after {{ content: " \\25b2"; }}
th[aria-sort=descending] button::after {{ content: " \\25bc"; }}
.unfinished {{ opacity: .5; }}
img {{ max-width: 100%; background: white; }}
</style>
</head>
<body>
{body}
<script>
const value = (row, column) => {{
  const text = row.cells[column].textContent.trim();
  const number = Number(text.replace(/,(?=\\d{{3}}\\b)/g, "").replace(/%$/, ""));
  return text === "" ? null : Number.isNaN(number) ? text : number;
}};
const compare = (a, b) => typeof a === "number" && typeof b === "number"
  ? a - b : String(a).localeCompare(String(b));
for (const head of document.querySelectorAll("th")) {{
  head.querySelector("button").addEventListener("click", () => {{
    const table = head.closest("table"), body = table.tBodies[0], column = head.cellIndex;
    const falling = head.getAttribute("aria-sort") !== "descending";
    const rows = [...body.rows].map(row => [row, value(row, column)]);
    rows.sort(([, a], [, b]) => {{
      if (a === null || b === null) return (a === null) - (b === null);  // last in either order
      return falling ? compare(b, a) : compare(a, b);
    }});
    for (const other of table.querySelectorAll("th")) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", falling ? "descending" : "ascending");
    body.append(...rows.map(([row]) => row));
  }});
}}
</script>
</body>
</html>
"""
