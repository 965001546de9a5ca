"""Progress on a terminal: a line for each stage, a bar for each piece of work."""

from __future__ import annotations

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from jernih.pipeline import Progress as ProgressCallback
from jernih.pipeline import Reporter


class TerminalReporter(Reporter):
    """Draws the progress of a run; on a console that is no terminal, plain lines only.

    Args:
        console: where to draw.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.show_training_progress = console.is_terminal
        self._bars: list[Progress] = []

    def stage(self, name: str, state: str) -> None:
        """Print a line for the stage."""
        mark = {"running": "…", "complete": "✓", "complete before": "✓ (before)"}[state]
        self.console.print(f"{mark} {name}", highlight=False)

    def progress(self, label: str) -> ProgressCallback:
        """Draw a bar that ends when all is done."""
        if not self.console.is_terminal:
            return lambda done, total: None
        bar = Progress(
            TextColumn("  {task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
        )
        self._bars.append(bar)
        task = bar.add_task(label, total=None)

        def advance(done: int, total: int) -> None:
            if done and not bar.live.is_started:
                bar.start()
            bar.update(task, completed=done, total=total)
            if done >= total:
                bar.stop()

        return advance

    def close(self) -> None:
        """End all bars, also those of work that was broken off, and show the cursor again."""
        for bar in self._bars:
            bar.stop()
        self._bars.clear()
