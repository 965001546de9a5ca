"""What docstrings say in reStructuredText, for mkdocstrings, which reads Markdown.

Roles such as ``:class:`~jernih.attacks.FGSM` `` become links; formulas become MathML, which
browsers draw by themselves, without a script from elsewhere.
"""

from __future__ import annotations

import re
from typing import Any

import griffe
from latex2mathml.converter import convert

_ROLE = re.compile(r":(?:class|func|meth|data|mod|attr|exc):`([^`]+)`")
_INLINE = re.compile(r":math:`([^`]+)`")
_BLOCK = re.compile(r"^([ ]*)\.\. math::(.*(?:\n\1[ ]+\S.*)*)", re.MULTILINE)


def to_markdown(text: str, package: str = "jernih") -> str:
    """A docstring's roles and formulas as Markdown and MathML."""
    text = _BLOCK.sub(lambda found: found[1] + _displayed(found[2]), text)
    text = _INLINE.sub(lambda found: convert(found[1]), text)
    return _ROLE.sub(lambda found: _link(found[1], package), text)


def _displayed(formula: str) -> str:
    """A formula on lines of its own."""
    lines = " ".join(formula.split())
    aligned = rf"\begin{{align*}}{lines}\end{{align*}}" if "&=" in lines else lines
    made: str = convert(aligned, display="block")
    return made


def _link(target: str, package: str) -> str:
    """A link to a documented name; to one that is not, and to another package's, its name alone."""
    short = target.startswith("~")
    path = target.removeprefix("~")
    shown = path.rpartition(".")[2] if short else path
    if not path.startswith(f"{package}."):
        return f"`{shown}`"
    return f'<autoref identifier="{path}" optional><code>{shown}</code></autoref>'


class Roles(griffe.Extension):
    """Rewrites every docstring of a package when it has been read."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Walk the package."""
        self._rewrite(pkg)

    def _rewrite(self, thing: griffe.Object) -> None:
        if thing.docstring is not None:
            thing.docstring.value = to_markdown(thing.docstring.value)
        for member in thing.members.values():
            if isinstance(member, griffe.Object):
                self._rewrite(member)
