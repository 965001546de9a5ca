"""The code blocks of the documentation, as the tests see them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")],
    key=lambda page: (page.parent != ROOT, str(page)),
)
MARK = "# Not run by the tests:"
LANGUAGES = ("python", "sh", "yaml", "diff", "text")

_FENCE = re.compile(r"^```(.*)\n((?:(?!```).*\n)*)^```[ \t]*$", re.MULTILINE)
_FILE = re.compile(r"# ([\w./-]+\.(?:py|yaml|csv))(?:\s|$)")


@dataclass(frozen=True)
class Block:
    """A block of code of a page.

    Attributes:
        page: the file.
        line: the line of the page that its first line is.
        language: what the fence says.
        text: what it holds.
    """

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def file(self) -> str | None:
        """The name of the file that it shows, where its first line names one."""
        found = _FILE.match(self.text)
        return found[1] if found else None

    @property
    def reason(self) -> str | None:
        """Why it is only checked and not run, where its first line says so."""
        first = self.text.partition("\n")[0]
        return first.removeprefix(MARK).strip() if first.startswith(MARK) else None


def blocks(page: Path) -> Iterator[Block]:
    """The blocks of a page in order."""
    text = page.read_text(encoding="utf-8")
    for found in _FENCE.finditer(text):
        line = text.count("\n", 0, found.start(2)) + 1
        yield Block(page, line, found[1].strip(), found[2])
