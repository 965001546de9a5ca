"""Writes that happen wholly or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from jernih.config import load_config
from jernih.storage import (
    atomic_path,
    fingerprint,
    parse_yaml,
    read_json,
    sha256_file,
    write_json,
    write_text,
)
from jernih.validate import InputError


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    target = write_text(tmp_path / "a.txt", "old")

    def fail() -> None:
        with atomic_path(target) as temporary:
            temporary.write_text("half of the n")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        fail()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_what_a_killed_process_left_is_overwritten(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    with atomic_path(target) as first:
        first.write_text("x")
        name = first
    name.write_text("half of a file, and longer than the new one")
    write_text(target, "new")
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]
    other = tmp_path / "b.txt"
    with atomic_path(other) as second:
        second.write_text("y")
        assert second != name


def test_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    texts = [str(number) * 5000 for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(30):
            list(pool.map(lambda text: write_text(target, text), texts))
            assert target.read_text() in texts
    assert list(tmp_path.iterdir()) == [target]


def test_two_writers_at_once_write_two_files(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    with atomic_path(target) as first, atomic_path(target) as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert target.read_text() == "first"  # the outer block ends last
    assert list(tmp_path.iterdir()) == [target]


def test_parents_are_made_and_the_suffix_is_kept(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "new" / "a.png") as temporary:
        assert temporary.suffix == ".png"
        temporary.write_bytes(b"x")
    assert (tmp_path / "new" / "a.png").read_bytes() == b"x"
    assert (tmp_path / "new" / "a.png").stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    import os

    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_json_is_strict(tmp_path: Path) -> None:
    path = write_json(
        tmp_path / "a.json", {"x": float("nan"), "y": [1, float("inf")], 3: Path("p")}
    )
    assert json.loads(path.read_text()) == {"x": None, "y": [1, None], "3": "p"}
    assert read_json(path)["y"] == [1, None]
    path.write_text("{")
    with pytest.raises(InputError, match="valid JSON"):
        read_json(path)
    with pytest.raises(InputError, match="existing file"):
        read_json(tmp_path / "none.json")


def test_hashes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_file(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})


def test_yaml_is_what_it_says() -> None:
    text = "a: &x [1, 2.5, yes, null]\nb: *x\nc: {<<: {d: e}}\n"
    assert parse_yaml(text) == yaml.safe_load(text)
    assert parse_yaml("") is None


LAUGHS = "".join(f"a{k}: &a{k} [{f'*a{k - 1}, *a{k - 1}' if k else 'x'}]\n" for k in range(40))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (LAUGHS, "stand for more"),
        ("a: &a [*a]", "stand for more"),
        ("a: &a {b: *a}", "stand for more"),
        ("[" * 20_000, "nested too deep"),
        ("a: [", "expected"),
    ],
)
def test_yaml_that_stands_for_too_much(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(yaml.YAMLError, match=said):
        parse_yaml(text)
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(InputError, match="valid YAML"):
        load_config(tmp_path / "c.yaml")
