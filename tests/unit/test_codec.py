"""The block-PCA codec against numpy's singular value decomposition."""

import itertools

import numpy as np
import pytest
import torch

from regdpo.models.codec import BlockPCACodec


def videos() -> torch.Tensor:
    return torch.rand((6, 3, 5, 16, 16), generator=torch.Generator().manual_seed(0)) * 2 - 1


def blocks_of(videos: torch.Tensor) -> np.ndarray:
    """Written with loops: every 4x8x8 block of the videos whose first frame was repeated to four."""
    x = np.concatenate([np.repeat(videos[:, :, :1].numpy(), 3, axis=2), videos.numpy()], axis=2)
    return np.stack(
        [
            x[b, :, t : t + 4, i : i + 8, j : j + 8].ravel()
            for b in range(6)
            for t in (0, 4)
            for i in (0, 8)
            for j in (0, 8)
        ]
    ).astype(np.float64)


def test_error_is_that_of_the_best_projection_over_all_orders_of_colours():
    codec = BlockPCACodec.fit([videos()], z_dim=5, spatial=8, temporal=4)
    orders = [videos()[:, list(order)] for order in itertools.permutations(range(3))]
    blocks = np.concatenate([blocks_of(x) for x in orders])
    center = blocks.mean(0)
    basis = np.linalg.svd(blocks - center, full_matrices=False)[2][:5]
    for x in orders:
        restored = codec.decode(codec.encode(x).latent_dist.mode()).sample
        whole = blocks_of(x) - center
        wanted = (whole @ basis.T @ basis - whole).reshape(6, 2, 2, 2, 3, 4, 8, 8)
        found = (restored - x)[:, :, 1:].unflatten(4, (2, 8)).unflatten(3, (2, 8)).permute(0, 3, 5, 1, 2, 4, 6).numpy()
        # The error of a projection does not depend on which basis of the subspace was found, so sums are compared.
        assert (found**2).sum() == pytest.approx((wanted[:, 1] ** 2).sum(), rel=1e-4)


def test_shapes_and_first_frame():
    codec = BlockPCACodec.fit([videos()], z_dim=5, spatial=8, temporal=4)
    latents = codec.encode(videos()).latent_dist.mode()
    assert latents.shape == (6, 5, 2, 2, 2)
    only_first = codec.encode(videos()[:, :, :1]).latent_dist.mode()
    torch.testing.assert_close(only_first[:, :, 0], latents[:, :, 0])


def test_fit_is_deterministic_and_survives_saving(tmp_path):
    codec = BlockPCACodec.fit([videos()], z_dim=5, spatial=8, temporal=4)
    again = BlockPCACodec.fit([videos()], z_dim=5, spatial=8, temporal=4)
    assert torch.equal(codec.basis, again.basis)
    codec.save_pretrained(tmp_path)
    loaded = BlockPCACodec.from_pretrained(tmp_path)
    assert torch.equal(loaded.basis, codec.basis)
    assert tuple(loaded.config.latents_std) == codec.config.latents_std
