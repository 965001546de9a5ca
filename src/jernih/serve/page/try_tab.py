"""The tab on which a person tries the defence on an image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from torch import Tensor

from jernih.assess.words import format_threat
from jernih.data.images import UnreadableImage, write_png
from jernih.serve.page.defences import Defences
from jernih.serve.page.downloads import new_folder
from jernih.serve.page.pictures import difference, gauge, overlay, pixels, verdict
from jernih.storage import write_json
from jernih.trial import Trial, attempt
from jernih.types import Knowledge
from jernih.validate import InputError

ATTACKS: dict[str, tuple[str, dict[str, Any]]] = {
    "FGSM: one step": ("fgsm", {}),
    "PGD: ten steps": ("pgd", {"steps": 10, "stop_early": False}),
    "MI-FGSM: ten steps with momentum": ("mi-fgsm", {"steps": 10}),
    "Auto-PGD: twenty steps": ("apgd", {"steps": 20}),
    "Gaussian noise (harmless)": ("gaussian-noise", {}),
}
"""Attacks offered, all bounded in L∞, by what the page calls them."""
NOTHING = "None: leave the image as it is"
KNOWS = {
    "oblivious: sees only the classifier": "oblivious",
    "adaptive: sees the purifier too": "adaptive",
}
SUFFIXES = [".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".dcm", ".dicom"]


def try_tab(defences: Defences, images: Sequence[Path], read: Callable[[str], Tensor]) -> None:
    """Lay out the tab: choose an image and an attack, see what becomes of it.

    Args:
        defences: the model, and its classifier behind other purifiers.
        images: files to pick from.
        read: reads a file as an image (3, H, W).
    """
    examples = [str(path) for path in images]

    def picture(label: str, **options: Any) -> Any:
        # The third button would send the image to a site.
        buttons: list[Any] = ["fullscreen", "download"]
        return gr.Image(label=label, format="png", interactive=False, buttons=buttons, **options)

    with gr.Row():
        with gr.Column(min_width=300):
            chosen = gr.File(
                label="Image: JPEG, PNG, TIFF, DICOM …", file_types=SUFFIXES, type="filepath",
                elem_id="image",
            )  # fmt: skip
            example = None
            if examples:
                example = gr.Dropdown(
                    ["", *(Path(path).stem for path in examples)], value="",
                    label="… or one of the examples", elem_id="example",
                )  # fmt: skip
        with gr.Column(min_width=300):
            attack = gr.Dropdown(
                [*ATTACKS, NOTHING], value=next(iter(ATTACKS)), label="Attack", elem_id="attack"
            )
            eps = gr.Slider(
                0, 0.1, value=0.01, step=0.001, elem_id="eps",
                label="Bound ε: the most that a pixel changes (1 is the whole range)",
            )  # fmt: skip
            knows = gr.Radio(list(KNOWS), value=next(iter(KNOWS)), label="The attacker is")
            purifier = gr.Dropdown(
                defences.names(), value=defences.names()[0], label="Purifier", elem_id="purifier"
            )
            go = gr.Button("Attack and restore", variant="primary", elem_id="go")
    status = gr.Markdown(elem_classes="jernih-status", elem_id="status")
    with gr.Row():
        shown = [
            picture(label, min_width=200, elem_id=name)
            for label, name in (
                ("Clean", "clean"), ("Attacked", "attacked"), ("Restored", "restored"),
            )
        ]  # fmt: skip
    with gr.Row():
        says = [
            gr.Label(label=label, num_top_classes=5, min_width=200)
            for label in (
                "Classifier alone, clean",
                "Classifier alone, attacked",
                "Defended, attacked",
            )
        ]
    with gr.Row():
        with gr.Column(min_width=300):
            gr.Markdown("### Is it suspicious?")
            meter = gr.HTML(elem_id="gauge")
            told = gr.Markdown(elem_id="verdict")
        with gr.Column(min_width=300):
            slider = gr.ImageSlider(
                label="Attacked | restored: drag to compare", format="png", interactive=False,
                elem_id="slider",
            )  # fmt: skip
    with gr.Row():
        with gr.Column(min_width=300):
            times = gr.Slider(1, 50, value=10, step=1, label="Differences enlarged × k")
            apart = picture("What the attack added (grey: nothing)")
            left = picture("What of it is left after restoring")
        with gr.Column(min_width=300):
            heat = [
                picture(label)
                for label in (
                    "Grad-CAM, clean restored: where the class was found",
                    "Grad-CAM, attacked restored",
                )
            ]
    with gr.Row():
        restored = gr.DownloadButton("Download the restored image (PNG)", elem_id="download-image")
        record = gr.DownloadButton("Download the result (JSON)", elem_id="download-json")
    kept = gr.State(None)
    outputs = [
        kept, status, *shown, *says, meter, told, slider, apart, left, *heat, restored, record,
    ]  # fmt: skip

    def show(
        file: str | None, attack: str, eps: float, knows: str, purifier: str, times: float
    ) -> list[Any]:
        empty: list[Any] = [None] * len(outputs)
        if not file:
            empty[1] = "Choose an image first."
            return empty
        try:
            trial = _attempt(defences, read(file), attack, eps, knows, purifier)
        except UnreadableImage as error:
            empty[1] = f"**This file cannot be read as an image:** {error.reason}."
            return empty
        except InputError as error:
            empty[1] = f"**That did not work:** {error}."
            return empty
        return [trial, *_shown(trial, times)]

    inputs = [chosen, attack, eps, knows, purifier, times]
    go.click(show, inputs, outputs, concurrency_limit=1, concurrency_id="model")
    if example is not None:
        by_name = {Path(path).stem: path for path in examples}
        example.input(lambda name: by_name.get(name), example, chosen)

    def enlarge(trial: Trial | None, times: float) -> tuple[Any, Any]:
        return (None, None) if trial is None else _differences(trial, times)

    times.release(enlarge, [kept, times], [apart, left])


def _attempt(
    defences: Defences, image: Tensor, attack: str, eps: float, knows: str, purifier: str
) -> Trial:
    name, options = ATTACKS.get(attack, (None, {}))
    answerer = defences.get(purifier)
    knowledge: Knowledge = "adaptive" if KNOWS.get(knows) == "adaptive" else "oblivious"
    if not eps:  # nothing within a bound of 0 differs
        name = None
    areas = defences.has_maps(image)
    return attempt(answerer, image, name, eps, knowledge, options=options, areas=areas)


def _differences(trial: Trial, times: float) -> tuple[Any, Any]:
    clean, attacked = trial.clean.seen, trial.attacked
    return difference(clean, attacked.seen, times), difference(clean, attacked.restored, times)


def _shown(trial: Trial, times: float) -> list[Any]:
    """What the page shows of a trial, in the order of its outputs."""
    clean, attacked = trial.clean, trial.attacked
    restored = pixels(attacked.restored)
    heat = [
        None if answer.areas is None else overlay(answer.restored, answer.areas)
        for answer in (clean, attacked)
    ]
    folder = new_folder()
    picture = write_png(folder / "restored.png", attacked.restored)
    record = write_json(folder / "result.json", trial.to_dict())
    return [
        _status(trial),
        pixels(clean.seen), pixels(attacked.seen), restored,
        trial.clean_alone, trial.attacked_alone, attacked.probabilities,
        gauge(attacked),
        f"Clean image: {verdict(clean)}\n\nAttacked image: {verdict(attacked)}",
        (pixels(attacked.seen), restored),
        *_differences(trial, times),
        *heat,
        str(picture), str(record),
    ]  # fmt: skip


def _status(trial: Trial) -> str:
    if trial.attack is None or trial.threat is None:
        return "Nothing was attacked: the image is shown as it is and restored."
    threat = format_threat(trial.threat, str(trial.attack["name"]))
    alone = max(trial.attacked_alone, key=lambda name: trial.attacked_alone[name])
    first = max(trial.clean_alone, key=lambda name: trial.clean_alone[name])
    fooled = (
        f"turns the classifier alone from **{first}** to **{alone}**"
        if alone != first
        else f"does not turn the classifier alone (**{first}**)"
    )
    same = trial.attacked.label == trial.clean.label
    held = "as for the clean image" if same else f"while it says {trial.clean.label} when clean"
    quality = ""
    if trial.psnr_attacked is not None and trial.psnr_restored is not None:
        quality = (
            f" PSNR: attacked {trial.psnr_attacked:.1f} dB, restored {trial.psnr_restored:.1f} dB."
        )
    return f"*{threat}* {fooled}; defended it says **{trial.attacked.label}**, {held}.{quality}"
