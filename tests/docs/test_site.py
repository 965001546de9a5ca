"""The documentation as a site: whole, strict, and without anything from elsewhere."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote

import pytest
import yaml

import jernih
from jernih.assess.checks import CHECKS
from jernih.assess.masking import MASKING
from tests.docs.pages import PAGES, ROOT

DOCS = ROOT / "docs"
LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src"}
LOADING_LINKS = {"stylesheet", "preload", "icon", "preconnect", "modulepreload", "dns-prefetch"}
PACKAGES = sorted(page.stem for page in (DOCS / "api").glob("*.md") if page.stem != "index")


class Page(HTMLParser):
    """The ids of a page, and the addresses that a browser fetches by itself."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.fetched: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.ids.add(given.get("id", ""))
        if tag in LOADED and LOADED[tag] in given:
            self.fetched.append(given[LOADED[tag]])
        if tag == "link" and LOADING_LINKS.intersection(given.get("rel", "").split()):
            self.fetched.append(given["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(folder)]
    # Any proxy will do that answers nothing: the build asks nobody.
    nobody = {"HTTPS_PROXY": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}
    done = subprocess.run(  # noqa: S603 - the command is this test's own
        command, cwd=ROOT, capture_output=True, text=True, timeout=300,
        env={**os.environ, **nobody, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_it_loads_nothing_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) >= len(list(DOCS.rglob("*.md")))
    for page in pages:
        fetched = Page(page.read_text(encoding="utf-8")).fetched
        assert fetched, page
        assert not [address for address in fetched if "//" in address], page
    styles = "".join(sheet.read_text(encoding="utf-8") for sheet in site.rglob("*.css"))
    assert not re.findall(r"(?:url\(|@import)[\s'\"]*(?:https?:)?//", styles)


@pytest.mark.parametrize("name", PACKAGES)
def test_public_names_are_on_their_page(name: str, site: Path) -> None:
    text = (site / "api" / f"{name}.html").read_text(encoding="utf-8")
    ids = Page(text).ids
    package = importlib.import_module(f"jernih.{name}")
    missing = [public for public in package.__all__ if f"jernih.{name}.{public}" not in ids]
    assert not missing, f"without a docstring, or not exported: {missing}"
    assert not re.findall(r":(?:class|func|meth|data|math):|\.\. math::", text)


def test_every_package_with_public_names_has_a_page() -> None:
    source = Path(jernih.__file__).parent
    public = {
        file.parent.relative_to(source).as_posix()
        for file in source.glob("*/__init__.py")
        if "__all__" in file.read_text(encoding="utf-8")
    }
    assert public <= set(PACKAGES)


def test_names_of_the_package_itself_are_listed() -> None:
    text = (DOCS / "api" / "index.md").read_text(encoding="utf-8")
    assert [name for name in jernih.__all__ if f"`{name}`" not in text] == []


def test_every_page_is_in_the_navigation_and_the_other_way_round() -> None:
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    assert (
        set(_leaves(nav)) ^ {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}
        == set()
    )


def _leaves(nav: object) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    inner = nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else ()
    return [leaf for part in inner for leaf in _leaves(part)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith(("http://", "https://", "#", "mailto:")):
            assert (page.parent / unquote(target.partition("#")[0])).exists(), target


def test_every_check_is_explained() -> None:
    text = (DOCS / "is-my-defence-real.md").read_text(encoding="utf-8")
    names = [*CHECKS, *MASKING, "alarms on harmless changes"]
    assert [name for name in names if f"*{name}*" not in text] == []


@pytest.fixture(scope="module")
def roles() -> ModuleType:
    file = DOCS / "tools" / "roles.py"
    spec = importlib.util.spec_from_file_location("roles", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_roles_become_links_and_formulas_mathml(roles: ModuleType) -> None:
    link = roles.to_markdown("see :class:`~jernih.attacks.FGSM`")
    assert 'identifier="jernih.attacks.FGSM"' in link
    assert link.endswith("<code>FGSM</code></autoref>")
    assert roles.to_markdown(":meth:`run` of :func:`torch.sum`") == "`run` of `torch.sum`"
    assert roles.to_markdown(r":math:`x^2`").startswith("<math")
    shown = roles.to_markdown("a\n\n    .. math:: R = σ\n\nb")
    assert "&" not in roles.to_markdown(r".. math:: a &= b \\ c &= d").replace("&#", "")
    assert '\n    <math xmlns="http://www.w3.org/1998/Math/MathML" display="block">' in shown
