"""Seeds that depend on all they are made of."""

from __future__ import annotations

import torch

from jernih.randomness import derive_seed, generator, seeded


def test_seeds_differ_by_every_part() -> None:
    seeds = {
        derive_seed(*p) for p in [(0, "a", 1), (0, "a", 2), (0, "b", 1), (1, "a", 1), (0, "a1")]
    }
    assert len(seeds) == 5
    assert derive_seed(1, 12) != derive_seed(11, 2)
    assert derive_seed("1") != derive_seed(1)
    assert all(0 <= s < 2**63 for s in seeds)


def test_seeded_block_leaves_the_global_state() -> None:
    state = torch.get_rng_state()
    with seeded(3, "x"):
        first = torch.rand(4)
    with seeded(3, "x"):
        assert torch.equal(first, torch.rand(4))
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(torch.rand(3, generator=generator(1)), torch.rand(3, generator=generator(1)))
