"""The residual U-Net: any size, nothing lost on the way, the sizes promised."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from jernih.purifiers import JernihM, JernihS, UNet, restore_purifier, save_purifier
from jernih.randomness import generator, seeded
from jernih.validate import InputError


def trained(**options: object) -> UNet:
    """A U-Net whose weights are no longer those that give the input back."""
    with seeded("unet"):
        purifier = UNet(widths=(8, 16), blocks=(1, 2), **options).eval()  # type: ignore[arg-type]
        for parameter in purifier.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
    return purifier


def images(height: int, width: int) -> Tensor:
    return torch.rand(2, 3, height, width, generator=generator("unet", height, width))


def test_untrained_gives_its_input_back() -> None:
    shown = images(33, 50)
    assert torch.equal(JernihS().eval()(shown), shown)


@pytest.mark.parametrize("size", [(32, 32), (30, 45), (1, 1), (7, 224), (8, 8)])
def test_any_size(size: tuple[int, int]) -> None:
    shown = images(*size)
    restored = trained()(shown)
    assert restored.shape == shown.shape
    assert not torch.equal(restored, shown)


def test_shifts_by_whole_squares_do_not_matter() -> None:
    purifier, shown = trained(), images(192, 192)
    moved = shown.roll((16, 16), dims=(2, 3))
    middle = purifier(shown)[..., 88:96, 88:96]  # out of the padding's reach
    torch.testing.assert_close(purifier(moved)[..., 104:112, 104:112], middle)


def test_conditioning_changes_nothing_at_first() -> None:
    plain, shown = trained(), images(32, 48)
    conditioned = UNet(widths=(8, 16), blocks=(1, 2), condition=True).eval()
    absent = conditioned.load_state_dict(plain.state_dict(), strict=False)
    assert absent.unexpected_keys == []
    assert {name.split(".")[0] for name in absent.missing_keys} == {"level"}
    torch.testing.assert_close(conditioned(shown), plain(shown))


def test_conditioning_follows_the_strength_of_the_disturbance(tmp_path: Path) -> None:
    """What an image of its own strength is restored by is not what another's is."""
    purifier = trained(condition=True)
    levels: list[Tensor] = []
    assert purifier.level is not None
    purifier.level.register_forward_hook(lambda _, __, made: levels.append(made[0][0]))
    shown = images(32, 32)
    noise = torch.randn(shown.shape, generator=generator("noise"))
    for std in (0.0, 0.05, 0.2):
        purifier((shown + std * noise).clamp(0, 1))
    assert levels[0].shape == (2, 8, 1, 1)
    assert not torch.allclose(levels[0], levels[1], atol=1e-4)
    assert not torch.allclose(levels[1], levels[2], atol=1e-4)
    purifier(shown).square().sum().backward()
    assert all(bool(p.grad.any()) for p in purifier.level.parameters() if p.grad is not None)
    assert purifier.level.estimate.weight.grad is not None
    again = restore_purifier(save_purifier(purifier, tmp_path / "p.safetensors"))
    assert torch.equal(again(shown), purifier(shown))


def test_strength_scales_what_is_taken_away_but_not_in_training(tmp_path: Path) -> None:
    plain, strong, shown = trained(), trained(strength=1.5), images(32, 48)
    taken = plain.restore(shown) - shown
    torch.testing.assert_close(strong.restore(shown), shown + 1.5 * taken)
    assert torch.equal(strong.train().restore(shown), plain.restore(shown))
    weights = save_purifier(strong, tmp_path / "strong.safetensors")
    torch.testing.assert_close(restore_purifier(weights).restore(shown), shown + 1.5 * taken)
    weaker = restore_purifier(weights, strength=0.5)
    torch.testing.assert_close(weaker.restore(shown), shown + 0.5 * taken)
    assert weaker.options["strength"] == 0.5
    with pytest.raises(InputError, match="weights"):
        restore_purifier(weights, widths=(8, 24))
    with pytest.raises(InputError, match="option"):
        restore_purifier(weights, power=2)


def test_bfloat16_changes_a_hundredth_of_what_is_taken_away_and_no_training() -> None:
    plain, shown = trained(), images(32, 48)
    reduced = UNet((8, 16), (1, 2), precision="bfloat16").eval()
    reduced.load_state_dict(plain.state_dict())
    inside: list[torch.dtype] = []
    for layer in (reduced.enter, reduced.leave):
        layer.register_forward_hook(lambda _, __, made: inside.append(made.dtype))
    with torch.no_grad():
        taken = float((plain.restore(shown) - shown).abs().mean())
        restored = reduced.restore(shown)
        off = float((restored - plain.restore(shown)).abs().mean())
    assert inside == [torch.float32, torch.bfloat16]
    assert restored.dtype == torch.float32
    assert 0 < off < 0.01 * taken
    asked = shown.clone().requires_grad_()
    reduced(asked).square().sum().backward()
    assert asked.grad is not None
    assert bool(asked.grad.any())
    assert torch.equal(reduced.train().restore(shown), plain.restore(shown))


def test_sizes() -> None:
    for purifier, most in ((JernihS(), 0.5e6), (JernihM(), 4e6)):
        assert most / 2 < sum(p.numel() for p in purifier.parameters()) <= most


@pytest.mark.parametrize(
    "options",
    [
        {"widths": ()},
        {"widths": (8, 0)},
        {"blocks": (1,)},
        {"shuffle": 0},
        {"strength": -1.0},
        {"precision": "float16"},
        {"condition": True, "widths": (8,), "blocks": (1,)},
    ],
)
def test_refuses(options: dict[str, object]) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        UNet(**options)  # type: ignore[arg-type]
