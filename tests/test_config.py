"""Configs: defaults, overrides, and errors that name the nearest key."""

from __future__ import annotations

from pathlib import Path

import pytest

from jernih.config import RunConfig, Training, load_config
from jernih.detectors import DETECTORS
from jernih.purifiers import PURIFIERS
from jernih.validate import InputError

CONFIGS = Path(__file__).parents[1] / "configs"


def test_the_phantom_config_is_the_embedded_default() -> None:
    assert load_config(CONFIGS / "phantom.yaml") == RunConfig(
        sample=load_config(CONFIGS / "phantom.yaml").sample
    )
    source = load_config(CONFIGS / "phantom.yaml").sample.source
    assert (source.name, source.options) == ("phantom", {"images": 600, "size": 224})


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_config_loads(path: Path) -> None:
    assert load_config(path).out == f"runs/{path.stem}"


def test_magnet_is_taught_by_no_attack() -> None:
    """Its autoencoder sees clean images and noise alone, and none of its detectors is fitted."""
    config = load_config(CONFIGS / "magnet-phantom.yaml")
    purifier = PURIFIERS.create(config.model.purifier.name, **config.model.purifier.options)
    assert (purifier.learns, purifier.trains_on) == ("by gradient", "clean")
    assert config.model.guidance is None
    (survey,) = config.assess.detection
    names = {unit.name for unit in survey.detectors.values()}
    assert names == {"reconstruction-error", "jensen-shannon"}
    assert config.model.detector in survey.detectors.values()
    assert not any(DETECTORS.get(name).learns for name in names)


def test_overrides(tmp_path: Path) -> None:
    config = load_config(
        None,
        [
            "model.epsilons=[4/255, 0.1]",
            "sample.source={name: folder, path: /data}",
            "sample.split.limit.train=10",
            "model.classifier_training=null",
            "model.detector.norm=l1",
        ],
    )
    assert config.model.epsilons == (4 / 255, 0.1)
    assert config.sample.source.options == {"path": "/data"}
    assert config.sample.split.limit == {"train": 10}
    assert config.model.classifier_training is None
    assert config.model.detector is not None
    assert config.model.detector.options == {"norm": "l1"}
    assert config.model.purifier == RunConfig().model.purifier


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.epsilon=[0.1]", r"model\.epsilon: expected a key that exists .*'epsilons'"),
        ("modle.fpr=0.1", r"nearest: 'model'"),
        ("assess.surveys=[{title: t, epsilons: [1], limits: 1}]", r"surveys\.0\.limits.*'limit'"),
        ("model.others={x: {purifier: {name: jpeg}, weight: w}}", r"others\.x\.weight.*'weights'"),
        ("model.classifier_training.learning_rate=1", "a key that exists"),
        ("model.epsilons=[-0.1]", r"model\.epsilons\.0: expected a number in \[0, .*\]; got -0\.1"),
        ("model.epsilons=[1.5]", r"model\.epsilons\.0: expected a number in \[0, 1\]; got 1\.5"),
        ("model.epsilons=[x]", "a number or a fraction such as 4/255"),
        ("model.epsilons=[]", r"model\.epsilons: expected"),
        ("model.attack.name=fgms", r"nearest: 'fgsm'"),
        ("model.attack.stepsize=1", "option of attack 'fgsm'"),
        ("model.attack.targeted=true", "runs train and measure untargeted"),
        ("model.purifier.name=conv-autoencode", r"nearest: 'conv-autoencoder'"),
        ("model.detector.name=reconstruction", r"nearest: 'reconstruction-error'"),
        ("sample.source.name=folders", r"nearest: 'folder'"),
        ("sample.source={name: folder, paht: x}", r"nearest: 'path'"),
        ("sample.source={name: folder}", r"the option 'path'"),
        ("modify.size=big", r"modify\.size: expected"),
        ("model.classifier_training.epochs=0", "greater than or equal to 1"),
        ("assess.knowledge=[omniscient]", "'oblivious' or 'adaptive'"),
        ("device=tpu", r"device: expected"),
        ("seed", "--set: expected key=value; got 'seed'"),
        ("seed.x=1", "a key that has keys below it"),
        ("seed=[", "a YAML value"),
    ],
)
def test_errors_are_one_clear_line(override: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_config(None, [override])
    assert "\n" not in str(caught.value)


def test_files_that_are_no_configs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="existing YAML file"):
        load_config(tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(InputError, match="mapping of keys; got list"):
        load_config(tmp_path / "list.yaml")
    (tmp_path / "broken.yaml").write_text("a: [1\n")
    with pytest.raises(InputError, match="valid YAML"):
        load_config(tmp_path / "broken.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="valid YAML"):
        load_config(tmp_path / "binary.yaml")
    (tmp_path / "empty.yaml").write_text("")
    assert load_config(tmp_path / "empty.yaml") == RunConfig()


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_a_config_may_extend_another(tmp_path: Path) -> None:
    write(
        tmp_path / "base.yaml",
        "seed: 3\nmodify: {size: 64, flip: 0}\nmodel:\n  purifier: {name: skip-vae, latent: 4}\n"
        "  attack: {name: pgd, steps: 7}\n  classifier_training: {lr: 0.5}\n",
    )
    over = write(
        tmp_path / "over.yaml",
        "extends: base.yaml\nmodify: {size: 32}\nmodel:\n  purifier: {name: identity}\n"
        "  attack: {restarts: 2}\n  purifier_training: null\n"
        "model.classifier_training: {epochs: 2}\n",
    )
    config = load_config(over, ["modify.flip=0.25"])
    assert (config.seed, config.modify.size, config.modify.flip) == (3, 32, 0.25)
    assert (config.model.purifier.name, config.model.purifier.options) == ("identity", {})
    assert config.model.attack.options == {"steps": 7, "restarts": 2}
    assert config.model.purifier_training is None
    assert config.model.classifier_training == Training(epochs=2)


def test_configs_that_extend_each_other_or_nothing(tmp_path: Path) -> None:
    first = write(tmp_path / "first.yaml", "extends: second.yaml\n")
    write(tmp_path / "second.yaml", "extends: first.yaml\n")
    with pytest.raises(InputError, match="do not extend each other"):
        load_config(first)
    with pytest.raises(InputError, match="existing YAML file"):
        load_config(write(tmp_path / "lost.yaml", "extends: nowhere.yaml\n"))


def test_units_of_every_section_are_checked() -> None:
    for override, message in (
        ("model.others={x: {purifier: {name: jpg}}}", "nearest: 'jpeg'"),
        ("model.adversarial_training={attack: {name: pdg}}", "nearest: 'pgd'"),
        ("assess.surveys=[{title: t, epsilons: [0.1], attack: {name: fgsm, step: 1}}]", "'fgsm'"),
        ("published={study: s, figures: []}", "published.figures"),
    ):
        with pytest.raises(InputError, match=message):
            load_config(None, [override])
