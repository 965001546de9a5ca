"""Shell blocks of the documentation: run where they can be, else checked against what exists."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer
from rich.console import Console

from jernih import cli
from jernih.attack_files import read_options
from jernih.attacks import ATTACKS
from jernih.config import load_config
from tests.docs.pages import ROOT, Block

RUNS = ("run", "certify")
SMALLER = {"--samples": 20, "--limit": 4}
"""Numbers that are as good a test when they are small."""


def commands(text: str) -> list[list[str]]:
    """The words of each command of a shell block."""
    found: list[list[str]] = []
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.wordchars += "[]{},:@^+!%"
        words = list(lexer)
        while "&&" in words:
            found.append(words[: words.index("&&")])
            words = words[words.index("&&") + 1 :]
        found.append(words)
    return [words for words in found if words]


def check_syntax(block: Block) -> None:
    """Let the shell read a block without running it."""
    subprocess.run(["bash", "-n"], input=block.text, text=True, check=True)  # noqa: S607


def run(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a command in the current folder; one that installs or builds is checked instead."""
    program, *arguments = words
    name = Path(program).name
    if name == "jernih":
        check(words)
        _jernih(_smaller(arguments), monkeypatch)
    elif name == "python" and arguments[0].endswith(".py"):
        subprocess.run([sys.executable, *arguments], check=True, timeout=120)  # noqa: S603
    elif name in ("make", "pip"):
        check(words)
    else:
        raise AssertionError(f"{shlex.join(words)!r}: neither run nor marked as not run")


def check(words: list[str]) -> None:
    """Check that a command, its options, settings and targets exist, without running it."""
    program, *arguments = words
    name = Path(program).name
    if name == "make":
        targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert set(arguments) <= set(targets), f"no such target: {arguments}"
    if name == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        named = [extra for word in arguments for extra in re.findall(r"\w+", _brackets(word))]
        assert set(named) <= set(extras["optional-dependencies"]), f"no such extra: {named}"
    if name != "jernih":
        return
    app = typer.main.get_command(cli.app)
    found = getattr(app, "commands", {})
    assert arguments[:1] != [], "jernih without a command"
    assert arguments[0] in found, f"no such command: {shlex.join(words)}"
    given = found[arguments[0]].make_context(arguments[0], arguments[1:]).params
    if "config" in given:
        config = given["config"]
        # A page may show a config of its own, which lies in the current folder then.
        here = config if config is None or Path(config).exists() else ROOT / config
        load_config(here, given["settings"] or [])
    elif "attack" in given:
        ATTACKS.check(given["attack"], read_options(given["settings"] or []))


def _brackets(word: str) -> str:
    return word.partition("[")[2].partition("]")[0] if word.startswith((".[", "jernih[")) else ""


def _smaller(arguments: list[str]) -> list[str]:
    changed = list(arguments)
    # Without a config it is the embedded default, which the current folder has small.
    if changed[0] in RUNS and (len(changed) == 1 or changed[1].startswith("-")):
        changed.insert(1, "configs/phantom.yaml")
    for place, word in enumerate(changed[:-1]):
        if word in SMALLER:
            changed[place + 1] = str(min(int(changed[place + 1]), SMALLER[word]))
    return changed


def _jernih(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(sys, "argv", ["jernih", *arguments])
        patched.setattr(cli, "out", Console(width=200))
        patched.setattr(cli, "err", Console(width=400, stderr=True))
        with pytest.raises(SystemExit) as stopped:
            cli.main()
    assert not stopped.value.code, f"jernih {shlex.join(arguments)} ended with {stopped.value.code}"
