"""What ``jernih doctor`` finds, and that it notices what is wrong."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
import torch

from jernih.commands import doctor
from jernih.shipped import shipped_names
from tests.test_cli import call

ROOT = Path(__file__).parents[2]


def test_it_finds_what_is_here(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = call("doctor", "--json", monkeypatch=monkeypatch, capsys=capsys)
    assert code == 0
    found = json.loads(out)
    assert found["packages"]["torch"] == str(torch.__version__).partition("+")[0]
    assert found["weights"] == dict.fromkeys(shipped_names(), "whole")
    assert found["faults"] == []
    code, out, _ = call("doctor", monkeypatch=monkeypatch, capsys=capsys)
    assert code == 0
    assert "jernih-s-imagenet" in out


def test_it_notices_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("jernih.storage.sha256_file", lambda _: "0")
    monkeypatch.setattr(doctor, "NEEDED", ("torch", "no-such-package"))
    monkeypatch.setitem(doctor.EXTRAS, "serve", ("no-such-server",))
    code, out, _ = call("doctor", monkeypatch=monkeypatch, capsys=capsys)
    assert code == 1
    assert "no-such-package is missing" in out
    assert "are damaged" in out
    assert "no-such-server" in out
    assert "[serve]" in out


@pytest.mark.parametrize(
    ("told", "row"),
    [
        ({"amx_bf16": False, "avx512_bf16": True}, "in hardware"),
        ({"amx_bf16": False, "avx512_bf16": False}, "not in hardware"),
        ({"neon": True, "bf16": True}, "in hardware"),
        ({"neon": True}, "not known"),
        (None, "not known"),
    ],
)
def test_whether_bfloat16_pays(
    told: dict[str, bool] | None,
    row: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if told is None:
        monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    else:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: told, raising=False)
    _, out, _ = call("doctor", monkeypatch=monkeypatch, capsys=capsys)
    (line,) = (line for line in out.splitlines() if "bfloat16" in line)
    assert [cell.strip() for cell in line.split("│")[1:3]] == ["bfloat16 on the CPU", row]


def test_extras_are_those_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    known = project["optional-dependencies"]
    for extra, packages in doctor.EXTRAS.items():
        if extra in known:
            listed = " ".join(known[extra])
            assert all(package in listed for package in packages), extra
