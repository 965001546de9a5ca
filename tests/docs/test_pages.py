"""Every code block of README and documentation runs, or says why not and is checked instead."""

from __future__ import annotations

import ast
import importlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import jernih.assess.report
import jernih.pipeline.semma
from jernih.config import load_config
from tests.docs import commands, stand_ins
from tests.docs.pages import LANGUAGES, MARK, PAGES, ROOT, Block, blocks

PEERS = ("art", "foolbox", "torchattacks")


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder that the pages' code runs in, whose reports are without figures.

    Figures take most of a small run's time and have tests of their own.
    """
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(jernih.assess.report, "write_figures", lambda *_: {})
        patched.setattr(jernih.pipeline.semma, "draw_areas", lambda *_: {})
        yield stand_ins.prepare(tmp_path_factory.mktemp("docs"))


@pytest.fixture
def there(desk: Path, own_units: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The same as the current folder, whose modules can be imported while a test lasts."""
    monkeypatch.chdir(desk)
    monkeypatch.syspath_prepend(desk)
    yield desk
    for name, module in list(sys.modules.items()):
        if (getattr(module, "__file__", None) or "").startswith(f"{desk}{os.sep}"):
            del sys.modules[name]


def with_code(page: Path) -> bool:
    return any(block.language in ("python", "sh", "yaml") for block in blocks(page))


@pytest.mark.parametrize(
    "page", [p for p in PAGES if with_code(p)], ids=lambda p: str(p.relative_to(ROOT))
)
def test_code_of_a_page(page: Path, there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names: dict[str, Any] = {"__name__": "__page__"}
    for block in blocks(page):
        try:
            if block.reason is not None:
                check(block)
            elif block.file is not None:
                keep(block, there)
            elif block.language == "python":
                run_python(block, names)
            elif block.language == "sh":
                commands.check_syntax(block)
                for words in commands.commands(block.text):
                    commands.run(words, monkeypatch)
            elif block.language == "yaml":
                check_settings(block)
        except pytest.skip.Exception:
            raise
        except BaseException as error:
            error.add_note(f"in the block at {block}")
            raise


def run_python(block: Block, names: dict[str, Any]) -> None:
    wanted = {name.partition(".")[0] for name in imported(ast.parse(block.text))}
    for peer in wanted.intersection(PEERS):
        pytest.importorskip(peer, reason=f"{block} needs it: make peers")
    # Lines are counted from the page's first, so that a traceback points into the page.
    code = compile("\n" * (block.line - 1) + block.text, str(block.page), "exec")
    exec(code, names)  # noqa: S102 - the documentation is ours


def keep(block: Block, folder: Path) -> None:
    """Write a file that a page shows, and check a config."""
    path = folder / str(block.file)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(block.text, encoding="utf-8")
    if path.suffix == ".yaml":
        commands.check(["jernih", "run", str(path)])
    elif path.suffix == ".py":
        ast.parse(block.text)


def check(block: Block) -> None:
    """Check a block that says why it is not run."""
    assert block.reason, f"{block} does not say why"
    if block.language == "sh":
        commands.check_syntax(block)
        for words in commands.commands(block.text):
            commands.check(words)
    elif block.language == "python":
        for name in imported(ast.parse(block.text)):
            if name.partition(".")[0] == "jernih":
                exists(name)
    else:
        check_settings(block)


def check_settings(block: Block) -> None:
    """Check that a part of a config fits the embedded default."""
    part = yaml.safe_load(block.text)
    load_config(None, [f"{key}={json.dumps(value)}" for key, value in leaves(part)])


def leaves(part: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """The settings of a config as dotted keys; a unit, which has a name, is one setting."""
    for key, value in part.items():
        if isinstance(value, dict) and "name" not in value:
            yield from leaves(value, f"{above}{key}.")
        else:
            yield above + key, value


def imported(tree: ast.AST) -> Iterator[str]:
    """All names that code imports, with their modules."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def exists(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        assert hasattr(importlib.import_module(module), attribute), f"no such name: {name}"


def test_every_block_says_its_language() -> None:
    for page in PAGES:
        fences = page.read_text(encoding="utf-8").count("\n```")
        found = list(blocks(page))
        assert fences == 2 * len(found), f"{page}: a fence that is not closed"
        unknown = [str(block) for block in found if block.language not in LANGUAGES]
        assert not unknown, f"a language among {LANGUAGES}: {unknown}"


@pytest.mark.parametrize(
    ("language", "text", "told"),
    [
        ("sh", "jernih purify photos --owt restored\n", "--owt"),
        ("sh", "jernih prufiy photos\n", "no such command"),
        ("sh", "make dmeo\n", "no such target"),
        ("sh", "pip install 'jernih[onxn]' && jernih version\n", "no such extra"),
        ("sh", "jernih version && jernih vresion\n", "no such command"),
        ("sh", f"{MARK} needs data\njernih run configs/phantom.yaml --set model.fprr=1\n", "fprr"),
        ("sh", "curl localhost\n", "neither run nor marked"),
        ("sh", "jernih attack a b --out c --set stesp=3\n", "stesp"),
        ("python", "import jernih\njernih.nothing\n", "nothing"),
        ("python", f"{MARK} needs a GPU\nfrom jernih import Nothing\n", "Nothing"),
        ("python", f"{MARK}\nimport torch\n", "does not say why"),
        ("yaml", "model: {purifer: {name: jpeg}}\n", "purifer"),
        ("yaml", "model: {purifier: {name: jpge}}\n", "jpge"),
    ],
)
def test_what_is_wrong_is_found(
    language: str, text: str, told: str, there: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    page = tmp_path / "page.md"
    page.write_text(f"# A page\n\n```{language}\n{text}```\n")
    monkeypatch.setattr(Block, "__str__", lambda block: f"the block {block.line}")
    with pytest.raises(BaseException, match=told):
        test_code_of_a_page(page, there, monkeypatch)
