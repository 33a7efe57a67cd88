"""Writes ``docs/tutorial.ipynb`` from ``docs/tutorial.py``: ``python docs/notebook.py``."""

from __future__ import annotations

import json
from pathlib import Path

SCRIPT = Path(__file__).with_name("tutorial.py")
_MARKER, _TEXT = "# %%", " [markdown]"


def notebook(script: str) -> str:
    """A script in percent format as a notebook (format 4.5) without outputs."""
    cells = []
    for number, part in enumerate(script.split(f"{_MARKER}")[1:]):
        head, _, body = part.partition("\n")
        source = body.strip("\n")
        if head == _TEXT:
            lines = (line.removeprefix("#").removeprefix(" ") for line in source.splitlines())
            source = "\n".join(lines)
        cells.append(_cell(number, source, "markdown" if head == _TEXT else "code"))
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    content = {
        "cells": cells,
        "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(content, indent=1) + "\n"


def _cell(number: int, source: str, kind: str) -> dict[str, object]:
    code: dict[str, object] = {"execution_count": None, "outputs": []} if kind == "code" else {}
    lines = source.splitlines(keepends=True)
    return {"cell_type": kind, "id": f"cell-{number}", "metadata": {}, "source": lines, **code}


if __name__ == "__main__":
    SCRIPT.with_suffix(".ipynb").write_text(notebook(SCRIPT.read_text("utf-8")), "utf-8")
