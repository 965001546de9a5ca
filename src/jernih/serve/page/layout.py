"""The page's layout: three tabs, and how it stands on a FastAPI application."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jernih.answer import Answerer
from jernih.data.untrusted import UntrustedImages
from jernih.serve.page.defences import Defences
from jernih.serve.page.runs import REPORT, find_run
from jernih.validate import InputError

if TYPE_CHECKING:
    import gradio as gr
    from fastapi import FastAPI

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # nothing is told to anybody

CSS = """
.jernih-gauge {position:relative;height:1.2rem;border:1px solid var(--border-color-primary);
  border-radius:.3rem;overflow:hidden;background:var(--background-fill-secondary)}
.jernih-gauge-bar {height:100%}
.jernih-gauge-mark {position:absolute;left:50%;top:0;height:100%;width:2px;
  background:var(--body-text-color)}
.jernih-status {min-height:1.5rem}
.jernih-table {overflow-x:auto}
.jernih-table td, .jernih-table th {padding:.2rem .6rem;text-align:left;white-space:nowrap}
iframe.jernih-report {width:100%;height:75vh;border:1px solid var(--border-color-primary)}
"""


@dataclass(frozen=True)
class PageSettings:
    """What the page shows beside the model.

    Attributes:
        examples: image files to pick from.
        runs: a folder of runs whose reports can be read; None for none.
        leaderboard: the leaderboard in Markdown.
        max_bytes: largest file that is taken.
        title: the page's title.
    """

    examples: Sequence[Path] = ()
    runs: Path | None = None
    leaderboard: str = ""
    max_bytes: int = 32 * 2**20
    title: str = "Jernih"


def mount_page(
    app: FastAPI,
    answerer: Answerer,
    settings: PageSettings,
    path: str = "/",
    images: UntrustedImages | None = None,
) -> FastAPI:
    """Put the page on a FastAPI application, under ``path``; reports under ``/reports``.

    Args:
        app: the application.
        answerer: who is asked.
        settings: what is shown beside the model.
        path: where the page lies.
        images: who reads images; left out: one with the usual bounds.
    """
    import gradio
    from fastapi.responses import FileResponse, JSONResponse, Response
    from gradio.themes import Base

    @app.get("/reports/{name}", include_in_schema=False)
    def report(name: str) -> Response:
        try:
            file = find_run(settings.runs or "", name) / REPORT
        except InputError as error:
            return JSONResponse({"error": {"code": "not_found", "message": str(error)}}, 404)
        if not file.is_file():
            message = "this run has no report"
            return JSONResponse({"error": {"code": "not_found", "message": message}}, 404)
        return FileResponse(file, media_type="text/html")

    fonts = ["system-ui", "sans-serif"]
    mono = ["ui-monospace", "monospace"]
    mounted: FastAPI = gradio.mount_gradio_app(
        app,
        build_page(answerer, settings, images),
        path=path,
        theme=Base(font=fonts, font_mono=mono),  # fonts of the machine: none is fetched
        css=CSS,
        show_error=False,
        max_file_size=settings.max_bytes,
        ssr_mode=False,
        footer_links=[],
    )
    return mounted


def build_page(
    answerer: Answerer, settings: PageSettings, images: UntrustedImages | None = None
) -> gr.Blocks:
    """The page as Gradio blocks: Try it, Reports, Leaderboard."""
    import gradio as gr

    from jernih.serve.page.reports_tab import reports_tab
    from jernih.serve.page.try_tab import try_tab

    defences = Defences(answerer)
    page: gr.Blocks
    images = UntrustedImages() if images is None else images
    # What was uploaded is not kept: looked at every ten minutes, gone after an hour.
    with gr.Blocks(analytics_enabled=False, title=settings.title, delete_cache=(600, 3600)) as page:
        gr.Markdown(
            f"# {settings.title}\n"
            "Attack an image, restore it, and see what the classifier makes of each. One image "
            "says nothing of how well a defence holds: the reports do."
        )
        with gr.Tab("Try it"):
            try_tab(defences, settings.examples, images.read)
        with gr.Tab("Reports"):
            reports_tab(settings.runs)
        with gr.Tab("Leaderboard"):
            gr.Markdown(settings.leaderboard or "No leaderboard is at hand.")
    return page
