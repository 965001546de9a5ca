"""The container's files say what is there: paths, options, health check, user."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import typer
import yaml

from jernih.cli import app

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))


def options_of(command: str) -> set[str]:
    """The options that a command of ours takes."""
    group = typer.main.get_command(app)
    parameters = group.commands[command].params  # type: ignore[attr-defined]
    return {name for parameter in parameters for name in parameter.opts}


def test_what_the_image_is_built_of_is_there_and_not_ignored() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    copied = re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE)
    sources = [path for line in copied for path in line.split()[:-1]]
    assert sources == [
        "deploy/requirements.lock", "pyproject.toml", "README.md", "LICENSE", "src",
    ]  # fmt: skip
    for path in sources:
        assert (ROOT / path).exists()
        assert f"!{path}" in ignored
    assert ignored[0] == "*"


def test_it_runs_without_rights_and_says_how_it_is() -> None:
    last = DOCKERFILE.rsplit("FROM ", 1)[1]
    user = re.search(r"^USER (\w+)$", last, re.MULTILINE)
    assert user is not None
    assert user.group(1) != "root"
    assert "HEALTHCHECK" in last
    assert "/health" in last
    assert "gcc" not in last


def test_its_command_is_one_of_ours() -> None:
    entry = re.search(r"^ENTRYPOINT (.+)$", DOCKERFILE, re.MULTILINE)
    command = re.search(r"^CMD (\[\"serve.+)$", DOCKERFILE, re.MULTILINE)
    assert entry is not None
    assert command is not None
    assert yaml.safe_load(entry.group(1)) == ["jernih"]
    words = yaml.safe_load(command.group(1))
    known = options_of(words[0])
    assert {word for word in words if word.startswith("--")} <= known


def test_the_services_belong_together() -> None:
    services = COMPOSE["services"]
    assert {"jernih", "prometheus"} <= set(services)
    for service in services.values():
        for port in service.get("ports", []):
            assert str(port).startswith("127.0.0.1:")
        for volume in service.get("volumes", []):
            source = str(volume).split(":")[0]
            if source.startswith("./"):
                assert (ROOT / source).exists(), source
        command = service.get("command")
        if service.get("image") == "jernih" and command:
            words = shlex.split(command) if isinstance(command, str) else command
            assert {word for word in words if word.startswith("--")} <= options_of(words[0])
    scraped = yaml.safe_load((ROOT / "deploy" / "prometheus.yml").read_text(encoding="utf-8"))
    (target,) = scraped["scrape_configs"][0]["static_configs"][0]["targets"]
    assert target.partition(":")[0] in services
