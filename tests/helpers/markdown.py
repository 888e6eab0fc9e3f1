"""Fenced blocks of Markdown pages, with what stands before them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(
    r"(?:^<!-- (?:not run: |(?=needs ))(?P<why>[^\n]+?) -->\n)?^```(?P<language>[^\n]*)\n(?P<text>.*?)^```$"
    r"(?:\n\n```text\n(?P<output>.*?)^```$)?",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """One block of code.

    Parameters
    ----------
    page : Path
    line : int
        Of its opening fence or its comment.
    language : str
    text : str
    why_not_run : str or None
        The reason that the page gives.
    output : str or None
        What the page says that it prints: the block of language ``text`` that follows.
    """

    page: Path
    line: int
    language: str
    text: str
    why_not_run: str | None
    output: str | None


def blocks(page: Path) -> list[Block]:
    """Return the blocks of a page, in order."""
    written = page.read_text()
    found = [
        Block(
            page,
            written.count("\n", 0, match.start()) + 1,
            match["language"],
            match["text"],
            match["why"],
            match["output"],
        )
        for match in FENCE.finditer(written)
    ]
    fences = len(re.findall(r"^ *```", written, re.MULTILINE))
    assert fences == 2 * len(found) + 2 * sum(block.output is not None for block in found), (
        f"{page}: a fence is open or indented"
    )
    return found
