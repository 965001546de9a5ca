"""``jernih export``: a defended model for other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jernih.validate import check_choice

HELP = (
    "Write a defended model as one ONNX file (purifier, classifier, detector), which is verified "
    "against the model in ONNX Runtime before it takes its place. With --precision int8 it is "
    "smaller and faster, and what that costs is measured and told."
    "\n\nExample: [bold]jernih export runs/phantom --format onnx --out model.onnx[/bold]"
)


def export(
    model: Annotated[
        str, typer.Argument(help="A run's folder, a packaged model, or OWNER/NAME on the hub.")
    ],
    target: Annotated[Path, typer.Option("--out", help="The file, which ends in .onnx.")],
    file_format: Annotated[str, typer.Option("--format", help="onnx.")] = "onnx",
    precision: Annotated[str, typer.Option("--precision", help="float32 or int8.")] = "float32",
    calibrate: Annotated[
        Path | None,
        typer.Option(
            "--calibrate",
            help="For int8: a folder of images like those that the model will meet.",
        ),
    ] = None,
    size: Annotated[
        int | None, typer.Option("--size", help="Width and height; left out: the model's.")
    ] = None,
    one: Annotated[
        bool, typer.Option("--one-image", help="One image at a time, not any number of them.")
    ] = False,
    opset: Annotated[int, typer.Option("--opset", help="Version of ONNX's operators.")] = 18,
    trust_code: Annotated[
        bool, typer.Option("--trust-code", help="Let the model's own Python code or program run.")
    ] = False,
) -> None:
    """Write a defended model as one ONNX file."""
    from jernih import cli
    from jernih.export.packages import need

    check_choice("format", file_format, ["onnx"])
    check_choice("precision", precision, ["float32", "int8"])
    need("onnx", "onnxruntime", "onnxscript")  # said before the model is read
    cli._begin(False)
    from jernih.export import export_onnx
    from jernih.pipeline import find_defended

    made = export_onnx(
        find_defended(model, trust_code=trust_code),
        target,
        size=size,
        dynamic_batch=not one,
        opset=opset,
        precision="int8" if precision == "int8" else "float32",
        calibrate=calibrate,
    )
    for line in made.lines():
        cli.out.print(line, highlight=False, soft_wrap=True)
