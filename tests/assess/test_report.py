from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from jernih.assess import Assessment, Background, console_table, write_report
from jernih.assess.report import render
from jernih.purifiers import Identity
from jernih.validate import InputError
from tests.assess.examples import assessment, defended_model, made_to_order, run
from tests.assess.test_checks import SOUND

VOID = {"meta", "img", "link", "br"}


class Page(HTMLParser):
    """What a page loads, says and how it nests."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.tags.append((tag, named))
        self.loads += [named[name] or "" for name in ("src", "srcset", "data") if name in named]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("report")
    history = root / "history.csv"
    history.write_text("epoch,train_loss,val_loss\n0,1.0,1.1\n1,0.5,0.7\n")
    defects = [
        {"path": "/x/a.png", "split": "train", "reason": "dark", "detail": "0.01", "dropped": True}
    ]
    background = Background(
        title="<b>Scenes</b>",
        data={"balance": {"train": {"dark": 3, "bright": 4}}, "defects": defects},
        histories={"classifier": history},
        config="seed: 0 # <script>alert(1)</script>\n",
        notes=["Drawn by a program."],
    )
    write_report(assessment(), root, background)
    return root


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def test_everything_is_written(folder: Path) -> None:
    assert Assessment.load(folder / "assessment.json") == assessment()
    tables = {path.name for path in (folder / "tables").iterdir()}
    assert tables == {
        f"{name}.csv"
        for name in ("summary", "per_class", "confusion", "tests", "detection", "per_image")
    }
    assert len(list((folder / "figures").glob("*.png"))) == 2 + 5 * 4 + 1


def test_the_page_loads_nothing_from_outside(page: Page, folder: Path) -> None:
    assert len(page.loads) == 2 + 5 * 4 + 1
    assert all(load.startswith("data:image/png;base64,") for load in page.loads)
    assert not {"script", "link", "iframe", "object", "base"} & {tag for tag, _ in page.tags}
    style = re.search(r"<style>(.*?)</style>", (folder / "report.html").read_text(), re.DOTALL)
    assert style is not None
    assert "url(" not in style[1]
    assert "@import" not in style[1]
    anchors = [named["href"] or "" for tag, named in page.tags if tag == "a"]
    ids = {named["id"] for _, named in page.tags if "id" in named}
    assert anchors
    assert {anchor.removeprefix("#") for anchor in anchors} <= ids


def test_the_page_is_well_formed_and_says_what_its_pictures_show(page: Page) -> None:
    assert page.open == []
    pictures = [named for tag, named in page.tags if tag == "img"]
    assert all(named.get("alt") for named in pictures)
    assert sum("n = 20" in (named["alt"] or "") for named in pictures) == 2 + 5 * 4
    assert ("html", {"lang": "en"}) in page.tags
    headings = [tag for tag, _ in page.tags if tag in ("h1", "h2")]
    assert headings[0] == "h1"
    assert headings.count("h1") == 1
    ids = [named["id"] for _, named in page.tags if "id" in named]
    assert len(ids) == len(set(ids))


def test_text_from_outside_is_shown_and_not_run(folder: Path, page: Page) -> None:
    assert "<b>Scenes</b>" in page.words
    assert any("<script>alert(1)</script>" in text for text in page.words)
    assert "<script" not in (folder / "report.html").read_text()


def test_every_accuracy_stands_with_threat_model_count_and_interval(page: Page) -> None:
    results = page.rows[1:6]
    assert results[0][0] == "no attack"
    assert [row[0] for row in results[1:]] == [
        f"{knowledge} fgsm, L∞ ≤ {eps}/255"
        for knowledge in ("oblivious", "adaptive")
        for eps in (2, 4)
    ]
    for row in results:
        assert row[1] == "20"
        for cell in row[2:]:
            assert "%" not in cell or re.search(r"\[\d+\.\d, \d+\.\d\]", cell), cell
    text = "".join(page.words)
    for found in re.finditer(r"accura\w+ [^.]*?\d+\.\d\N{NO-BREAK SPACE}%", text):
        assert "[" in text[found.end() : found.end() + 3], found[0]


def test_all_warnings_and_the_verdict_are_told(page: Page) -> None:
    text = " ".join("".join(page.words).replace("\N{NO-BREAK SPACE}", " ").split())
    for finding in assessment().warnings:
        assert finding.text in text
    assert "Against an attacker who knows the purifier (adaptive fgsm, L∞ ≤ 4/255)" in text
    assert "Drawn by a program." in text


def test_a_page_can_be_made_of_the_json_alone(tmp_path: Path) -> None:
    bare = dataclasses.replace(assessment(), observations=None)
    page = Page(render(bare, {}, {}, Background()))
    assert page.loads == []
    assert page.open == []
    assert any("Nothing was trained" in text for text in page.words)
    with pytest.raises(InputError, match="observations"):
        write_report(bare, tmp_path)


def test_without_a_detector_the_page_says_so() -> None:
    found = run(defended_model(Identity(), detector=False))
    page = Page(render(found, {}, {}, Background()))
    assert any("no detector" in text for text in page.words)


def test_without_a_matrix_the_commonest_confusions_are_listed() -> None:
    found = made_to_order(SOUND)
    page = Page(render(found, {}, {}, Background()))
    confusions = [row for row in page.rows if row[:1] in (["attacked"], ["restored"])]
    counts = {tuple(row[1:3]): row[3] for row in confusions if len(row) == 4}
    assert set(counts) == {("dark", "bright"), ("bright", "dark")}


def test_the_console_table_fits_a_narrow_terminal() -> None:
    console = Console(width=80)
    with console.capture() as capture:
        console.print(console_table(assessment()))
    text = capture.get()
    assert "n = 20" in text
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("adaptive fgsm") == 2
