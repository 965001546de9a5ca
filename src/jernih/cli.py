"""The command line: thin commands over the functions that Python callers use."""

from __future__ import annotations

import errno
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape
from rich.table import Table

from jernih import __version__
from jernih.commands import export as export_command
from jernih.commands.dicom_node import dicom_node
from jernih.commands.doctor import doctor
from jernih.commands.serve import serve
from jernih.memory import keep_freed_memory
from jernih.validate import InputError, check_choice

if TYPE_CHECKING:
    from jernih.config import RunConfig
    from jernih.pipeline import Pipeline
    from jernih.terminal import TerminalReporter

app = typer.Typer(
    name="jernih",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Attack, detect, restore and honestly assess image classifiers.\n\n"
    "Example: [bold]jernih run configs/phantom.yaml[/bold]",
)
out = Console()
err = Console(stderr=True)
_reporters: list[TerminalReporter] = []

_INTERRUPTED = 130
_FORESEEN = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)

ConfigFile = Annotated[
    Path | None, typer.Argument(help="YAML file of settings; left out: the embedded default.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a setting; may be repeated."),
]
OutFolder = Annotated[
    Path | None, typer.Option("--out", help="Run folder; left out: the config's.")
]
Device = Annotated[str | None, typer.Option("--device", help="auto, cpu or cuda.")]
Model = Annotated[
    str, typer.Argument(help="A run's folder, a packaged model, or OWNER/NAME on the hub.")
]
TrustCode = Annotated[
    bool, typer.Option("--trust-code", help="Let the model's own Python code or program run.")
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Log every step.")]


def _example(command: str, text: str) -> str:
    return f"{text}\n\nExample: [bold]jernih {command}[/bold]"


@app.command(
    help=_example(
        "run configs/chest-xray.yaml --set sample.source.path=/data/chest-xray",
        "Run all five stages (sample, explore, modify, model, assess) and write the report. "
        "Stages that are complete with the same inputs are skipped; an interrupted run goes on.",
    )
)
def run(
    config: ConfigFile = None,
    settings: Settings = None,
    folder: OutFolder = None,
    device: Device = None,
    verbose: Verbose = False,
) -> None:
    pipeline = _pipeline(config, settings, folder, device, verbose)
    assessment = pipeline.run()
    from jernih.assess import console_table

    out.print(console_table(assessment))
    for warning in pipeline.findings():
        out.print(f"[bold]{warning.severity}[/bold]: {warning.text}", highlight=False)
    out.print(f"Report: {pipeline.folder.path / 'assess' / 'report.html'}", soft_wrap=True)


@app.command(
    help=_example(
        "sample configs/phantom.yaml --out runs/mine",
        "Read the data source into a manifest with splits.",
    )
)
def sample(
    config: ConfigFile = None,
    settings: Settings = None,
    folder: OutFolder = None,
    verbose: Verbose = False,
) -> None:
    pipeline = _pipeline(config, settings, folder, None, verbose)
    with pipeline.folder.locked():
        manifest = pipeline.sample()
    table = Table("split", "class", "images", title="Sample")
    counts = manifest.counts()
    for split, classes in counts.items():
        if len(classes) > 20:
            table.add_row(split, f"{len(classes)} classes", str(sum(classes.values())))
            continue
        for label, count in classes.items():
            table.add_row(split, label, str(count))
    out.print(table)
    out.print(f"Manifest: {pipeline.folder.path / 'sample' / 'manifest.csv'}", soft_wrap=True)


@app.command(
    help=_example(
        "explore configs/phantom.yaml --out runs/mine",
        "Look at the images: balance, sizes, intensities and defects.",
    )
)
def explore(
    config: ConfigFile = None,
    settings: Settings = None,
    folder: OutFolder = None,
    verbose: Verbose = False,
) -> None:
    pipeline = _pipeline(config, settings, folder, None, verbose)
    with pipeline.folder.locked():
        exploration = pipeline.explore()
    table = Table("split", "image", "defect", "detail", title="Defects")
    for defect in exploration.defects[:40]:
        table.add_row(defect.split, Path(defect.path).name, defect.reason, defect.detail)
    out.print(table)
    if len(exploration.defects) > 40:
        out.print(f"… and {len(exploration.defects) - 40} more")
    out.print(f"All: {pipeline.folder.path / 'explore' / 'defects.csv'}", soft_wrap=True)


@app.command(
    help=_example(
        "modify configs/phantom.yaml --out runs/mine",
        "Prepare the images and show what augmentation makes of them.",
    )
)
def modify(
    config: ConfigFile = None,
    settings: Settings = None,
    folder: OutFolder = None,
    verbose: Verbose = False,
) -> None:
    pipeline = _pipeline(config, settings, folder, None, verbose)
    with pipeline.folder.locked():
        datasets = pipeline.modify()
    for name, dataset in datasets.items():
        out.print(f"{name}: {len(dataset)} images")
    out.print(f"Figure: {pipeline.folder.path / 'modify' / 'augmented.png'}", soft_wrap=True)


@app.command(
    help=_example(
        "model configs/phantom.yaml --out runs/mine",
        "Train or load the classifier, check the attack, train or load the purifier, "
        "and calibrate the detector.",
    )
)
def model(
    config: ConfigFile = None,
    settings: Settings = None,
    folder: OutFolder = None,
    device: Device = None,
    verbose: Verbose = False,
) -> None:
    pipeline = _pipeline(config, settings, folder, device, verbose)
    with pipeline.folder.locked():
        pipeline.model()
    for check in pipeline.attack_check():
        out.print(f"eps {check.eps:g} fools {check.fooled} of {check.n} validation images")
    out.print(f"Weights: {pipeline.folder.path / 'model'}", soft_wrap=True)


@app.command(
    help=_example(
        "assess configs/phantom.yaml --out runs/mine",
        "Assess the defended model and write the report; runs what is not complete before it.",
    )
)
def assess(
    config: ConfigFile = None,
    settings: Settings = None,
    folder: OutFolder = None,
    device: Device = None,
    verbose: Verbose = False,
) -> None:
    run(config, settings, folder, device, verbose)


@app.command(
    help=_example(
        "attack runs/mine runs/mine/sample --split test --eps 4/255 --set steps=40 --out attacked",
        "Attack images as one who sees only the classifier, write them without loss with a "
        "manifest, read them again, and say how many successes rounding has undone. An interrupted "
        "attack goes on with the same command.",
    )
)
def attack(
    model: Annotated[
        str,
        typer.Argument(
            help="timm model, package.module:factory, .pt/.pt2 program, weights that Jernih wrote "
            "(.safetensors or their .json card), config, or folder of a run."
        ),
    ],
    data: Annotated[
        str,
        typer.Argument(
            help="Folder of class folders, of images with a table of labels, or of a sample stage; "
            "table (.csv, .parquet); or name of a source (jernih list sources)."
        ),
    ],
    folder: Annotated[Path, typer.Option("--out", help="Folder for the attacked images.")],
    attack: Annotated[str, typer.Option("--attack", help="See: jernih list attacks.")] = "pgd",
    eps: Annotated[
        str | None, typer.Option("--eps", help="Bound, such as 4/255; left out: the attack's own.")
    ] = None,
    norm: Annotated[str | None, typer.Option("--norm", help="linf, l2 or l1.")] = None,
    target: Annotated[
        str | None, typer.Option("--target", metavar="CLASS", help="Class to reach.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="OPTION=VALUE", help="Option of the attack; may be repeated."
        ),
    ] = None,
    weights: Annotated[
        str | None, typer.Option("--weights", help="Weights (.safetensors) for a model by name.")
    ] = None,
    pretrained: Annotated[
        bool, typer.Option("--pretrained", help="Fetch timm's weights for a timm model.")
    ] = False,
    one_logit: Annotated[
        bool, typer.Option("--one-logit", help="The timm model has a single sigmoid logit.")
    ] = False,
    mean: Annotated[
        str | None, typer.Option("--mean", help="Normalisation, as in 0.5,0.5,0.5.")
    ] = None,
    std: Annotated[
        str | None, typer.Option("--std", help="Normalisation, as in 0.5,0.5,0.5.")
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option("--classes", help="Classes in the model's order: A,B or a file of names."),
    ] = None,
    labels: Annotated[
        str | None, typer.Option("--labels", help="Table of labels for a folder of images.")
    ] = None,
    data_settings: Annotated[
        list[str] | None,
        typer.Option("--data-set", metavar="OPTION=VALUE", help="Option of the data source."),
    ] = None,
    split: Annotated[
        str | None, typer.Option("--split", help="Only train, val or test of the data.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", help="Draw at most so many images.")
    ] = None,
    size: Annotated[
        int | None, typer.Option("--size", help="Width and height; left out: the model's.")
    ] = None,
    fit: Annotated[
        str | None, typer.Option("--fit", help="stretch, crop or pad; left out: the model's.")
    ] = None,
    file_format: Annotated[
        str, typer.Option("--format", help="png (8 bits), png16 or npy (float32).")
    ] = "png",
    batch: Annotated[int, typer.Option("--batch", help="Images attacked together.")] = 32,
    seed: Annotated[int, typer.Option("--seed", help="Seed of all randomness.")] = 0,
    trust_code: TrustCode = False,
    device: Device = None,
    verbose: Verbose = False,
) -> None:
    _begin(verbose)
    from jernih.attack_files import AttackJob, lines, read_options

    job = AttackJob(
        model=model,
        data=data,
        out=folder,
        attack=attack,
        eps=eps,
        norm=norm,
        options=read_options(settings or []),
        target=target,
        model_options={
            "weights": weights,
            "pretrained": pretrained,
            "one_logit": one_logit,
            "mean": _numbers("mean", mean),
            "std": _numbers("std", std),
        },
        classes=classes,
        labels=labels,
        data_options=read_options(data_settings or [], "--data-set"),
        split=split,
        limit=limit,
        size=size,
        fit=fit,
        file_format=file_format,
        batch_size=batch,
        seed=seed,
        device=device or "auto",
        trust_code=trust_code,
    )
    made = job.run(_reporter().progress("attack"))
    for line in lines(made.results):
        out.print(line, highlight=False, soft_wrap=True)
    for warning in made.results["warnings"]:
        out.print(f"[bold]warning[/bold]: {warning}", highlight=False, soft_wrap=True)
    out.print(f"Manifest: {made.folder / 'manifest.csv'}", soft_wrap=True)
    out.print(f"Record: {made.folder / 'attack.json'}", soft_wrap=True)


@app.command(
    help=_example(
        "purify photo.png --out restored",
        "Restore an image file, or all of a folder, with a purifier; no classifier is needed. "
        "Images keep their size and name and are written as PNG.",
    )
)
def purify(
    source: Annotated[Path, typer.Argument(metavar="IN", help="An image file or a folder.")],
    target: Annotated[Path, typer.Option("--out", help="A folder, or a PNG file for one image.")],
    weights: Annotated[
        str | None,
        typer.Option(
            "--weights",
            help="A trained purifier (.safetensors), or one that comes with Jernih, by its name: "
            "jernih list weights.",
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--purifier", help="Without weights: a purifier that learns nothing."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="OPTION=VALUE", help="Option of the purifier: strength=1.3."),
    ] = None,
    bits: Annotated[int, typer.Option("--bits", help="8 or 16 bits a channel.")] = 8,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Write files again that are there already.")
    ] = False,
    device: Device = None,
    verbose: Verbose = False,
) -> None:
    _begin(verbose)
    from jernih.attack_files import read_options
    from jernih.purifiers import find_purifier
    from jernih.purify_files import purify_files
    from jernih.world import join_world

    join_world()
    made = purify_files(
        source,
        target,
        find_purifier(weights, name, read_options(settings or [])),
        bits=bits,
        overwrite=overwrite,
        device=device or "auto",
        progress=_reporter().progress("purify"),
    )
    for file, reason in made.unreadable.items():
        out.print(f"[bold]left out[/bold]: {file}: {reason}", highlight=False, soft_wrap=True)
    if made.kept:
        out.print(f"{len(made.kept)} there already and kept (--overwrite writes them again)")
    out.print(f"{len(made.written)} written to {target}", soft_wrap=True)


@app.command(
    help=_example(
        "certify configs/phantom.yaml --sigma 0.25 --limit 100",
        "Certify a run's defended model by randomised smoothing: the share of test images that no "
        "attack within an L2 radius can turn, whatever the attacker knows. An interrupted one goes "
        "on with the same command.",
    )
)
def certify(
    config: ConfigFile = None,
    sigma: Annotated[
        float, typer.Option("--sigma", help="Standard deviation of the noise, of values in [0, 1].")
    ] = 0.25,
    samples: Annotated[int, typer.Option("--samples", help="Noisy copies of each image.")] = 10_000,
    alpha: Annotated[
        float, typer.Option("--alpha", help="Chance that the promise about an image is wrong.")
    ] = 0.001,
    radii: Annotated[
        str, typer.Option("--radii", help="L2 radii to report, as in 0,0.25,0.5.")
    ] = "0,0.25,0.5,0.75,1",
    limit: Annotated[
        int | None, typer.Option("--limit", help="Draw at most so many test images.")
    ] = None,
    settings: Settings = None,
    folder: OutFolder = None,
    device: Device = None,
    verbose: Verbose = False,
) -> None:
    from jernih.assess.words import format_rate
    from jernih.certify import CertifyPlan

    pipeline = _pipeline(config, settings, folder, device, verbose)
    plan = CertifyPlan(
        sigma,
        samples=samples,
        alpha=alpha,
        radii=tuple(_numbers("radii", radii) or ()),
        limit=limit,
        seed=pipeline.config.seed,
    )
    with pipeline.folder.locked():
        found, place = pipeline.certify(plan)
    table = Table("L2 radius", f"right, against any attacker (n = {found.n})", title="Certified")
    for radius, share in zip(plan.radii, found.certified, strict=True):
        table.add_row(f"{radius:g}", format_rate(share))
    out.print(table)
    out.print(f"Without an answer: {format_rate(found.abstained)}", highlight=False)
    out.print(f"Record: {place / 'certify.json'}", soft_wrap=True)


@app.command(
    name="list",
    help=_example("list attacks", "List what can be named in a config."),
)
def list_units(
    kind: Annotated[
        str, typer.Argument(help="attacks, purifiers, detectors, harmless, sources or weights.")
    ],
) -> None:
    from jernih.attacks import ATTACKS
    from jernih.data.sources import SOURCES
    from jernih.detectors import DETECTORS
    from jernih.harmless import HARMLESS
    from jernih.purifiers import PURIFIERS

    registries: dict[str, Any] = {
        "attacks": ATTACKS,
        "detectors": DETECTORS,
        "harmless": HARMLESS,
        "purifiers": PURIFIERS,
        "sources": SOURCES,
    }
    check_choice("kind", kind, [*registries, "weights"])
    if kind == "weights":
        out.print(_weights_table())
        return
    if kind == "attacks":
        out.print(_attack_table())
        return
    registry = registries[kind]
    table = Table("name", "what it is", "reference", title=kind.capitalize())
    for name in registry.names():
        unit = registry.get(name)
        summary = (unit.__doc__ or "").strip().splitlines()[0]
        table.add_row(name, summary, getattr(unit, "reference", ""))
    out.print(table)


def _attack_table() -> Table:
    from jernih.attacks import ATTACKS

    seen = {"gradients": "white-box", "nothing": "none"}
    table = Table("name", "norms", "knowledge", "targeted", "reference", title="Attacks")
    for name in ATTACKS:
        attack = ATTACKS.get(name)
        table.add_row(
            name,
            ", ".join(attack.norms),
            seen.get(attack.needs, attack.needs),
            "yes" if attack.targetable else "no",
            attack.reference,
        )
    return table


def _weights_table() -> Table:
    from jernih.shipped import FOLDER, shipped_card, shipped_names

    table = Table("name", "purifier", "parameters", "trained in", title="Weights")
    for name in shipped_names():
        card = shipped_card(name)
        table.add_row(name, card["unit"]["name"], f"{card['parameters']:,}", card["command"])
    table.caption = f"{FOLDER}: a card of figures beside each"
    return table


@app.command(
    help=_example(
        "publish runs/mine classifier my-xception",
        "Write a run's trained weights for others: float16, with a JSON card.",
    )
)
def publish(
    run_folder: Annotated[Path, typer.Argument(help="Folder of the run that trained them.")],
    part: Annotated[str, typer.Argument(help="classifier or purifier.")],
    name: Annotated[str, typer.Argument(help="Name of the files, without suffix.")],
    folder: Annotated[Path, typer.Option("--folder", help="Where to put them.")] = Path("weights"),
    command: Annotated[str, typer.Option("--command", help="What trained them.")] = "",
    assessed: Annotated[
        Path | None, typer.Option("--assessed", help="Run whose assessment gives the figures.")
    ] = None,
    notes: Annotated[str, typer.Option("--notes", help="What else a user should know.")] = "",
) -> None:
    from jernih.cards import publish as write_card

    check_choice("part", part, ["classifier", "purifier"])
    card = write_card(
        run_folder,
        "classifier" if part == "classifier" else "purifier",
        name,
        folder=folder,
        command=command,
        assessed=assessed,
        notes=notes,
    )
    out.print(f"Card: {card}", soft_wrap=True)


@app.command(
    help=_example(
        "package runs/phantom --out my-defended-model",
        "Write a run's defended model as one folder, for serve, export and dicom-node, or for the "
        "Hugging Face hub (--push).",
    )
)
def package(
    model: Model,
    target: Annotated[Path, typer.Option("--out", help="The folder.")],
    push: Annotated[
        str | None, typer.Option("--push", metavar="OWNER/NAME", help="Also send it to the hub.")
    ] = None,
    trust_code: TrustCode = False,
) -> None:
    _begin(False)
    from jernih.pipeline import find_defended

    defended = find_defended(model, trust_code=trust_code)
    defended.save_pretrained(target)
    out.print(f"Folder: {target}", soft_wrap=True)
    if push is not None:
        out.print(f"Hub: {defended.push_to_hub(push)}", soft_wrap=True)


@app.command(
    help=_example(
        "leaderboard weights src/jernih/shipped --out docs/leaderboard.md",
        "Write a page of purifiers beside each other, from the cards in some folders.",
    )
)
def leaderboard(
    folders: Annotated[list[Path], typer.Argument(help="Folders with cards.")],
    target: Annotated[Path, typer.Option("--out", help="The page, in Markdown.")],
) -> None:
    from jernih.leaderboard import write_leaderboard

    out.print(f"Page: {write_leaderboard(folders, target)}", soft_wrap=True)


app.command(
    name="dicom-node",
    help=_example(
        "dicom-node runs/phantom --peer ORTHANC@127.0.0.1:4242 --spool spool",
        "Take radiographs over DICOM, and send a report and the restored image to a peer.",
    ),
)(dicom_node)
app.command(
    name="doctor",
    help=_example("doctor", "Show versions, devices, weights, and what is missing."),
)(doctor)
app.command(
    name="serve",
    help=_example(
        "serve runs/phantom --runs runs",
        "Serve a defended model over HTTP, with a web page: images in, label, probabilities, "
        "suspicion and the restored image out.",
    ),
)(serve)
app.command(name="export", help=export_command.HELP)(export_command.export)


@app.command(help=_example("version", "Print the version."))
def version() -> None:
    out.print(__version__, highlight=False)


def _pipeline(
    config: Path | None,
    settings: list[str] | None,
    folder: Path | None,
    device: str | None,
    verbose: bool,
) -> Pipeline:
    """Read the config and make the pipeline that reports to this terminal."""
    _begin(verbose)
    from jernih.config import load_config
    from jernih.pipeline import Pipeline

    overrides = list(settings or [])
    if device is not None:
        overrides.append(f"device={device}")
    chosen: RunConfig = load_config(config, overrides)
    return Pipeline(chosen, folder, _reporter())


def _numbers(argument: str, text: str | None) -> tuple[float, ...] | None:
    """Numbers between commas."""
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(argument, "numbers such as 0.5,0.5,0.5", repr(text)) from None


def _begin(verbose: bool) -> None:
    """Set up the log, and make the user's own modules importable."""
    # Of several processes that torchrun has started, one speaks.
    out.quiet = os.environ.get("RANK", "0") != "0"
    handler = RichHandler(console=err, show_path=False, show_time=False, markup=False)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler])
    logging.getLogger("jernih").setLevel(logging.DEBUG if verbose else logging.INFO)
    # The user's own modules lie where the command is called, as with `python -m`.
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))


def _reporter() -> TerminalReporter:
    """What draws progress on this terminal, until the command ends in whatever way."""
    from jernih.terminal import TerminalReporter

    reporter = TerminalReporter(err)
    _reporters.append(reporter)
    return reporter


def _answer() -> Any:
    """Run the command and end its progress bars, before anything is said of how it ended."""
    try:
        return app(standalone_mode=False)
    finally:
        while _reporters:
            _reporters.pop().close()
        if "torch" in sys.modules:
            from jernih.world import leave_world

            leave_world()


def main() -> None:
    """Run the command line; every foreseen failure is one line and a non-zero exit."""
    keep_freed_memory()
    try:
        code = _answer()
    except InputError as error:
        _fail(str(error), 2)
    except (KeyboardInterrupt, typer.Abort):
        code = _INTERRUPTED
    except OSError as error:
        if error.errno not in _FORESEEN:
            raise
        _fail(f"{error.strerror}: {error.filename or 'while writing'}; nothing was lost", 1)
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        _fail(error.format_message(), getattr(error, "exit_code", 2))
    if code == _INTERRUPTED:  # Typer turns Ctrl-C into this exit code
        _fail("interrupted; the same command goes on from here", code)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, code: int) -> NoReturn:
    if os.environ.get("JERNIH_DEBUG") and sys.exc_info()[0] is not None:
        raise
    err.print(f"[bold red]error[/bold red]: {escape(message)}", highlight=False, soft_wrap=True)
    sys.exit(code)
