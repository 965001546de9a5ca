from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage import metrics as sk

from jernih.assess.measure import BINS, all_examples, measure_batch
from jernih.assess.observations import ATTACK_FIELDS, CASES, FIELDS, IMAGE_FIELDS, Array
from jernih.attacks import FGSM
from jernih.purifiers import Identity
from tests.assess.examples import SIZE, Scenes, defended_model, plan


def batch(n: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    scenes = [Scenes(n)[i] for i in range(n)]
    return torch.stack([s[0] for s in scenes]), torch.tensor([s[1] for s in scenes])


@pytest.fixture(scope="module")
def measured() -> dict[str, Array]:
    images, labels = batch()
    made = plan()
    return measure_batch(defended_model().frozen(), images, labels, made, 0, 0, all_examples(made))


def test_every_field_is_there_with_its_shape(measured: dict[str, Array]) -> None:
    assert set(measured) == set(FIELDS)
    assert all(measured[name].shape == (6,) for name in IMAGE_FIELDS)
    assert all(measured[name].shape == (2, 2, 6) for name in ATTACK_FIELDS)


def test_distances_agree_with_scikit_image(measured: dict[str, Array]) -> None:
    images, labels = batch()
    model = defended_model().frozen()
    result = FGSM("4/255")(model.classifier, images, labels)
    restored = model.purifier(result.images)
    luminance = np.array([0.299, 0.587, 0.114], dtype=np.float32)[:, None, None]
    for kind, others in (("attacked", result.images), ("restored", restored)):
        for i in range(6):
            clean, other = images[i].numpy(), others[i].detach().numpy()
            at = (0, 1, i)
            assert measured[f"{kind}_mse"][at] == pytest.approx(
                sk.mean_squared_error(clean, other), rel=1e-4
            )
            assert measured[f"{kind}_psnr"][at] == pytest.approx(
                sk.peak_signal_noise_ratio(clean, other, data_range=1),  # type: ignore[no-untyped-call]
                rel=1e-4,
            )
            ssim = sk.structural_similarity(  # type: ignore[no-untyped-call]
                (clean * luminance).sum(0),
                (other * luminance).sum(0),
                data_range=1.0,
                gaussian_weights=True,
                sigma=1.5,
                use_sample_covariance=False,
            )
            assert measured[f"{kind}_ssim"][at] == pytest.approx(ssim, abs=1e-4)
    assert measured["linf"][0, 1] == pytest.approx(result.distances.numpy(), rel=1e-5)
    flat = (result.images - images).flatten(1)
    assert measured["l2"][0, 1] == pytest.approx(flat.norm(dim=1).numpy(), rel=1e-5)


def test_the_histogram_holds_every_pixel_value_once(measured: dict[str, Array]) -> None:
    assert measured["histogram"].shape == (2, 2, BINS)
    assert (measured["histogram"].sum(-1) == 6 * 3 * SIZE * SIZE).all()
    # One step of FGSM takes every pixel of these images, none near black or white, to the bound.
    ends = measured["histogram"][..., 0] + measured["histogram"][..., -1]
    assert (ends == 6 * 3 * SIZE * SIZE).all()


def test_an_identity_purifier_changes_no_pixel_and_no_answer() -> None:
    images, labels = batch()
    made = plan()
    model = defended_model(Identity(), detector=False).frozen()
    found = measure_batch(model, images, labels, made, 0, 0, set())
    assert np.isinf(found["purified_psnr"]).all()
    assert (found["purified_ssim"] == 1).all()
    for quantity in ("pred", "conf", "mse", "psnr", "ssim"):
        assert (found[f"restored_{quantity}"] == found[f"attacked_{quantity}"]).all()
    assert np.isnan(found["clean_score"]).all()
    assert found["example_key"].shape == (0, 4)
    assert found["example_images"].shape == (0, 3, 3, SIZE, SIZE)


def test_examples_are_the_first_image_and_the_first_of_each_case(
    measured: dict[str, Array],
) -> None:
    images, labels = batch()
    right = measured["clean_pred"] == labels.numpy()
    for (k, e, case, position), stored in zip(
        measured["example_key"], measured["example_images"], strict=True
    ):
        assert np.abs(stored[0] - images[position].numpy()).max() < 1e-3
        if CASES[case] == "first image":
            assert position == 0
            continue
        fooled = measured["attacked_pred"][k, e] != labels.numpy()
        cured = measured["restored_pred"][k, e] == labels.numpy()
        wanted = {
            "attack succeeded, restored": fooled & cured,
            "attack succeeded, not restored": fooled & ~cured,
            "attack failed, still correct": ~fooled & cured,
            "attack failed, wrong after restoration": ~fooled & ~cured,
        }[CASES[case]]
        members = np.flatnonzero(right & wanted)
        assert position == members[members > 0][0]
    cases = {CASES[case] for case in measured["example_key"][:, 2]}
    assert {"first image", "attack succeeded, restored"} <= cases


def test_outputs_that_are_probabilities_are_noticed() -> None:
    images, labels = batch()
    model = defended_model(Identity(), detector=False)
    assert not measure_batch(model, images, labels, plan(), 0, 0, set())["clean_softmax"].any()
    model.classifier.network = torch.nn.Sequential(model.classifier.network, torch.nn.Softmax(1))
    assert measure_batch(model.eval(), images, labels, plan(), 0, 0, set())["clean_softmax"].all()
