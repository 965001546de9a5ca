"""The tab on which reports are read and two runs compared."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gradio as gr

from jernih.assess import Assessment
from jernih.serve.page.runs import COLUMNS, compare_runs, find_run, list_runs, remarks, summary
from jernih.validate import InputError


def reports_tab(runs: Path | None) -> None:
    """Lay out the tab.

    Args:
        runs: a folder of runs; None for none.
    """
    names = list_runs(runs) if runs else []
    if runs is None or not names:
        gr.Markdown("No assessed runs are at hand. Start the server with a folder of runs.")
        return
    with gr.Row():
        first = gr.Dropdown(names, value=names[0], label="Run", elem_id="run")
        second = gr.Dropdown(["", *names], value="", label="Compare with", elem_id="other-run")
    said = gr.Markdown()
    shown = gr.HTML()

    def look(one: str, other: str) -> tuple[Any, ...]:
        try:
            ours = _assessment(runs, one)
            if not other:
                return summary(ours), _report(one)
            theirs = _assessment(runs, other)
        except InputError as error:
            return f"**That run cannot be read:** {error}.", ""
        words = [f"First: {one}: {summary(ours)}", f"Second: {other}: {summary(theirs)}"]
        words += [f"**Take care:** {remark}" for remark in remarks(ours, theirs)]
        return "\n\n".join(words), _table(compare_runs(ours, theirs))

    for box in (first, second):
        box.input(look, [first, second], [said, shown])
    gr.Button("Show").click(look, [first, second], [said, shown])


def _assessment(runs: Path, name: str) -> Assessment:
    return Assessment.load(find_run(runs, name) / "assess" / "assessment.json")


def _report(name: str) -> str:
    """A run's report within the page, and a link to it."""
    address, title = f"/reports/{quote(name, safe='')}", html.escape(f"Report of {name}")
    return (
        f'<p><a href="{address}" target="_blank">{title}, by itself</a></p>'
        f'<iframe class="jernih-report" title="{title}" src="{address}"></iframe>'
    )


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Rows under the comparison's headings, as HTML."""
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in COLUMNS)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return (
        '<div class="jernih-table" tabindex="0"><table><caption>Accuracies with their intervals; '
        f"difference in points</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        "</div>"
    )
