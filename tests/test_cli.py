"""The command line as a user meets it: help, results, and one clear line for every failure."""

from __future__ import annotations

import errno
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from rich.console import Console

import jernih.pipeline.data
from jernih import cli
from jernih.attacks import ATTACKS
from jernih.classifiers import save_classifier
from jernih.data.images import read_image
from jernih.data.sources import SOURCES
from jernih.harmless import HARMLESS
from jernih.purifiers import restore_purifier
from jernih.terminal import TerminalReporter
from tests.attack_files.conftest import stripes_classifier
from tests.helpers import small_run, striped_folder

COMMANDS = [
    "run", "sample", "explore", "modify", "model", "assess", "attack", "list", "publish",
    "purify", "certify", "leaderboard", "version", "package", "export", "serve", "doctor",
    "dicom-node",
]  # fmt: skip


def call(
    *arguments: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str, str]:
    """Run the command line in this process; returns exit code, output and errors."""
    monkeypatch.setattr(sys, "argv", ["jernih", *arguments])
    monkeypatch.setattr(cli, "out", Console(width=200))
    monkeypatch.setattr(cli, "err", Console(width=400, stderr=True))
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    shown = capsys.readouterr()
    return int(str(stopped.value.code or 0)), shown.out, shown.err


@pytest.fixture
def jernih_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*arguments: str) -> tuple[int, str, str]:
        return call(*arguments, monkeypatch=monkeypatch, capsys=capsys)

    return run


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A small run's config as a file."""
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(small_run(tmp_path).model_dump(mode="json")))
    return path


def error_of(result: tuple[int, str, str]) -> str:
    """The one line of a failed command."""
    code, _, err = result
    assert code != 0
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, err
    assert "Traceback" not in err
    return lines[0]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example(command: str, jernih_command: Any) -> None:
    code, out, _ = jernih_command(command, "--help")
    assert code == 0
    assert f"Example: jernih {command}" in out


def test_every_command_is_tested() -> None:
    names = {c.name or c.callback.__name__ for c in cli.app.registered_commands if c.callback}
    assert names == set(COMMANDS)


def test_stages_and_run(config: Path, tmp_path: Path, jernih_command: Any) -> None:
    for command, told in (
        ("sample", "Manifest:"),
        ("explore", "Defects"),
        ("modify", "Figure:"),
        ("model", "eps 0.2 fools"),
        ("assess", "Report:"),
    ):
        code, out, _ = jernih_command(command, str(config))
        assert code == 0
        assert told in out
    code, out, err = jernih_command("run", str(config))
    assert code == 0
    assert "oblivious fgsm" in out
    assert "adaptive fgsm" in out
    assert str(tmp_path / "run/assess/report.html") in out
    assert err.count("✓ (before)") == 8
    run = tmp_path / "run"
    asked = (str(run), str(run / "sample"), "--split", "test", "--out", str(tmp_path / "attacked"))
    code, out, _ = jernih_command("attack", *asked, "--eps", "51/255")
    assert code == 0
    assert "16 images, pgd (oblivious, linf, eps 0.2)" in out


def test_publish(config: Path, tmp_path: Path, jernih_command: Any) -> None:
    assert jernih_command("run", str(config))[0] == 0
    run, weights = str(tmp_path / "run"), tmp_path / "weights"
    code, out, _ = jernih_command("publish", run, "purifier", "mine", "--folder", str(weights))
    assert code == 0
    assert "mine.json" in out
    assert sorted(path.name for path in weights.iterdir()) == ["mine.json", "mine.safetensors"]
    page = tmp_path / "page.md"
    assert jernih_command("leaderboard", str(weights), "--out", str(page))[0] == 0
    assert "### mine" in page.read_text(encoding="utf-8")
    wrong = jernih_command("publish", run, "purifyer", "mine")
    assert "one of 'classifier', 'purifier'" in error_of(wrong)
    nowhere = jernih_command("publish", str(tmp_path / "none"), "classifier", "mine")
    assert "a folder with a trained classifier" in error_of(nowhere)


def test_package(config: Path, tmp_path: Path, jernih_command: Any) -> None:
    assert jernih_command("run", str(config))[0] == 0
    target = tmp_path / "packaged"
    code, out, _ = jernih_command("package", str(tmp_path / "run"), "--out", str(target))
    assert code == 0
    assert "packaged" in out
    names = sorted(path.name for path in target.iterdir())
    assert names == ["README.md", "config.json", "model.safetensors"]
    assert "| clean | no attack |" in (target / "README.md").read_text(encoding="utf-8")
    untrusted = jernih_command("package", str(target), "--out", str(tmp_path / "again"))
    assert "--trust-code" in error_of(untrusted)


def test_own_module_in_the_current_folder(
    config: Path, tmp_path: Path, jernih_command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A name that no other test's module has: an imported module stays while the process lasts.
    (tmp_path / "in_this_folder.py").write_text(
        "from tests.helpers import edge_network as network\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", str(tmp_path))])
    code, _, err = jernih_command(
        "model", str(config), "--set", "model.classifier.name=in_this_folder:network"
    )
    assert code == 0, err


@pytest.fixture
def stripes(tmp_path: Path) -> tuple[str, ...]:
    """What to attack, and where to."""
    weights = save_classifier(stripes_classifier(), tmp_path / "stripes.safetensors")
    data = striped_folder(tmp_path / "data", each=4)
    out = ("--out", str(tmp_path / "out"))
    return str(weights), str(data), *out, "--size", "32", "--batch", "3", "--trust-code"


def test_attack(stripes: tuple[str, ...], tmp_path: Path, jernih_command: Any) -> None:
    asked = (*stripes, "--attack", "pgd", "--eps", "51/255", "--norm", "linf", "--set", "steps=4")
    code, out, _ = jernih_command("attack", *asked)
    assert code == 0
    assert "8 images, pgd (oblivious, linf, eps 0.2); right when clean: 8 of 8" in out
    assert "successes that survived writing: 8 of 8" in out
    assert f"Manifest: {tmp_path / 'out' / 'manifest.csv'}" in out
    again = jernih_command("attack", *asked)
    assert again[:2] == (0, out)
    told = error_of(jernih_command("attack", *asked, "--seed", "1"))
    assert "seed 0 (now 1)" in told


def test_attack_with_a_target_and_numbers(
    stripes: tuple[str, ...], tmp_path: Path, jernih_command: Any
) -> None:
    asked = (*stripes, "--attack", "fgsm", "--eps", "0.2", "--target", "b", "--format", "png16")
    code, out, _ = jernih_command("attack", *asked)
    assert code == 0
    assert "of these fooled as 16-bit PNG: 4 of 4" in out
    factory = ("tests.helpers:edge_network", *stripes[1:3], str(tmp_path / "factory"))
    numbers = ("--mean", "0.5,0.5,0.5", "--std", "1, 1, 1", "--classes", "b,a", "--size", "32")
    code, out, _ = jernih_command("attack", *factory, *numbers, "--attack", "blur")
    assert code == 0
    told = error_of(jernih_command("attack", *factory, "--mean", "half"))
    assert "mean: expected numbers such as 0.5,0.5,0.5" in told


def test_attack_interrupted(
    stripes: tuple[str, ...], tmp_path: Path, jernih_command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = (*stripes, "--attack", "fgsm")
    with monkeypatch.context() as patch:

        def stop(done: int, total: int) -> None:
            raise KeyboardInterrupt

        patch.setattr(TerminalReporter, "progress", lambda *_: stop)
        code, _, err = jernih_command("attack", *asked)
    assert code == 130
    assert "the same command goes on from here" in err
    assert len(list((tmp_path / "out").rglob("*.png"))) == 3
    assert jernih_command("attack", *asked)[0] == 0
    assert len(list((tmp_path / "out").rglob("*.png"))) == 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--attack", "pdg"], "nearest: 'pgd'"),
        (["--norm", "l22"], "nearest: 'l2'"),
        (["--eps", "4/256/3"], "a fraction such as 4/255"),
        (["--set", "stpes=3"], "nearest: 'steps'"),
        (["--set", "steps"], "--set: expected option=value"),
        (["--data-set", "suffixs=[png]"], "nearest: 'suffixes'"),
        (["--target", "bb"], "nearest: 'b'"),
    ],
)
def test_attack_refuses(
    options: list[str], message: str, stripes: tuple[str, ...], jernih_command: Any
) -> None:
    assert message in error_of(jernih_command("attack", *stripes, *options))


def test_lists(jernih_command: Any) -> None:
    for kind, registry in (("attacks", ATTACKS), ("sources", SOURCES), ("harmless", HARMLESS)):
        code, out, _ = jernih_command("list", kind)
        assert code == 0
        assert all(name in out for name in registry.names())
    assert "nearest: 'attacks'" in error_of(jernih_command("list", "attack"))


def test_list_of_attacks_says_what_each_needs(jernih_command: Any) -> None:
    _, out, _ = jernih_command("list", "attacks")
    rows = {
        cells[0]: cells[1:]
        for line in out.splitlines()
        if line.startswith("│") and (cells := [cell.strip() for cell in line.strip("│").split("│")])
    }
    assert rows["pgd"] == ["linf, l2, l1", "white-box", "yes", "arXiv:1706.06083"]
    assert rows["deepfool"][:3] == ["linf, l2", "white-box", "no"]
    assert rows["uniform-noise"][:3] == ["linf", "none", "no"]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("model.epsilon=[0.1]", "nearest: 'epsilons'"),
        ("model.epsilons=[-1]", "model.epsilons.0: expected a number in [0, 1e+06]; got -1"),
        ("model.attack.name=fgms", "nearest: 'fgsm'"),
        ("model.classifier.name=mobilenetv2_10", "nearest: 'mobilenetv2_140'"),
        ("model.classifier.weights=/no/such.safetensors", "/no/such.safetensors"),
        ("sample.source.path=/no/such/folder", "/no/such/folder"),
        ("sample.split.test=0.001", ""),
        ("modify.size=33", "multiples of 2"),
    ],
)
def test_wrong_settings(config: Path, setting: str, message: str, jernih_command: Any) -> None:
    if setting == "sample.split.test=0.001":
        assert jernih_command("sample", str(config), "--set", setting)[0] == 0
        return
    assert message in error_of(jernih_command("run", str(config), "--set", setting))


def test_wrong_usage(jernih_command: Any, tmp_path: Path) -> None:
    assert "No such command" in error_of(jernih_command("runn"))
    assert "No such option" in error_of(jernih_command("run", "--outt", "x"))
    assert "existing YAML file" in error_of(jernih_command("run", str(tmp_path / "no.yaml")))


def test_bad_images_do_not_stop_a_run(config: Path, tmp_path: Path, jernih_command: Any) -> None:
    folder = tmp_path / "images" / "a"
    whole = (folder / "p0-a.png").read_bytes()
    (folder / "truncated.png").write_bytes(whole[: len(whole) // 2])
    (folder / "text.png").write_text("no image")
    noise = Image.effect_noise((32, 32), 60)
    frames = [noise, noise.rotate(90)]
    noise.save(folder / "moving.gif", save_all=True, append_images=frames)
    for name, mode in (("cmyk.tif", "CMYK"), ("grey.png", "L"), ("opaque.png", "RGBA")):
        Image.effect_noise((32, 32), 60).convert("RGB").convert(mode).save(folder / name)
    code, out, _ = jernih_command("explore", str(config))
    assert code == 0
    unreadable = [line for line in out.splitlines() if "unreadable" in line]
    assert len(unreadable) == 3
    assert any("moving.gif" in line and "frames" in line for line in unreadable)
    assert jernih_command("modify", str(config))[0] == 0
    assert (folder / "text.png").read_text() == "no image"


def test_empty_folder_and_class_with_one_image(
    config: Path, tmp_path: Path, jernih_command: Any
) -> None:
    (tmp_path / "empty").mkdir()
    told = error_of(
        jernih_command("run", str(config), "--set", f"sample.source.path={tmp_path}/empty")
    )
    assert "a folder for each class" in told
    (tmp_path / "images" / "lonely").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "images" / "lonely" / "one.png")
    assert "'lonely'" in error_of(jernih_command("run", str(config)))


def test_folder_that_cannot_be_written(config: Path, tmp_path: Path, jernih_command: Any) -> None:
    (tmp_path / "file").write_text("mine")
    told = error_of(jernih_command("run", str(config), "--out", str(tmp_path / "file")))
    assert "a folder that can be written" in told
    assert (tmp_path / "file").read_text() == "mine"


def test_disk_full_loses_nothing(
    config: Path, tmp_path: Path, jernih_command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert jernih_command("sample", str(config))[0] == 0
    before = (tmp_path / "run/sample/manifest.csv").read_bytes()

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "run/x"))

    with monkeypatch.context() as patch:
        patch.setattr(jernih.pipeline.data, "explore", full)
        told = error_of(jernih_command("run", str(config)))
    assert "No space left on device" in told
    assert (tmp_path / "run/sample/manifest.csv").read_bytes() == before
    assert jernih_command("explore", str(config))[0] == 0


def test_progress_ends_with_the_command() -> None:
    console = Console(file=io.StringIO(), force_terminal=True)
    reporter = TerminalReporter(console)
    reporter.progress("attack")(1, 3)
    reporter.close()
    told = console.file.getvalue()  # type: ignore[attr-defined]
    assert told.rfind("\x1b[?25h") > told.rfind("\x1b[?25l") >= 0  # the cursor is back
    reporter.close()
    assert console.file.getvalue() == told  # type: ignore[attr-defined]


def test_ctrl_c_in_the_middle_of_training(config: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "jernih", "run", str(config)]
    command += ["--set", "model.classifier_training.epochs=500"]
    command += ["--set", "model.classifier_training.patience=500"]
    # Tests that run in the background are started deaf to Ctrl-C, and so would be their children.
    process = subprocess.Popen(  # noqa: S603 - the command is this test's own
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        cwd=Path(__file__).parents[1], start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    # Written after the epoch's row of the history: Ctrl-C in between has nothing to go on from.
    last = tmp_path / "run/model/classifier/checkpoints/last.ckpt"
    patience = time.monotonic() + 120
    while not last.is_file() and time.monotonic() < patience and process.poll() is None:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    try:
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 130, err
    assert "error: interrupted; the same command goes on from here" in err
    assert "Traceback" not in err
    assert last.is_file()


def test_purify(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (12, 9), (10, 200, 30)).save(tmp_path / "in.png")
    arguments = (
        "purify", str(tmp_path / "in.png"), "--out", str(tmp_path / "out"), "--purifier", "jpeg",
        "--set", "quality=5",
    )  # fmt: skip
    code, text, _ = call(*arguments, monkeypatch=monkeypatch, capsys=capsys)
    assert code == 0
    assert "1 written" in text
    with Image.open(tmp_path / "out" / "in.png") as image:
        assert image.size == (12, 9)
        assert image.getpixel((5, 5)) != (10, 200, 30)
    code, text, _ = call(*arguments, monkeypatch=monkeypatch, capsys=capsys)
    assert code == 0
    assert "1 there already and kept" in text
    both = (*arguments, "--weights", "jernih-s-imagenet")
    code, _, errors = call(*both, monkeypatch=monkeypatch, capsys=capsys)
    assert code == 2
    assert "either weights or a name" in errors


def test_purify_with_what_comes_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (12, 9), (10, 200, 30)).save(tmp_path / "in.png")
    arguments = ("purify", str(tmp_path / "in.png"), "--out", str(tmp_path / "out.png"))
    code, text, _ = call(*arguments, monkeypatch=monkeypatch, capsys=capsys)
    assert code == 0
    assert "1 written" in text
    expected = restore_purifier("jernih-s-imagenet")(read_image(tmp_path / "in.png")[None])[0]
    torch.testing.assert_close(read_image(tmp_path / "out.png"), expected, atol=0.5 / 255, rtol=0)
