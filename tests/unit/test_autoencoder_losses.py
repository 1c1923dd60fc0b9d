"""Losses of a video autoencoder, against scipy's Laplacian, torch's distributions and formulas in numpy."""

import numpy as np
import pytest
import torch
from scipy.ndimage import laplace
from torch.distributions import Normal, kl_divergence

from regdpo.objectives import autoencoder

RNG = np.random.default_rng(0)


def video(frames: int = 4) -> np.ndarray:
    return RNG.uniform(-1, 1, (2, 3, frames, 6, 5))


def test_l1_counts_most_where_detail_changes():
    real, made, strength = video(), video(), 3.0
    laplacians = np.array([[[laplace(frame, mode="nearest") for frame in plane] for plane in one] for one in real])
    wanted = []
    for one, back, curved in zip(real, made, laplacians, strict=True):
        change = np.abs(curved[:, 1:] - curved[:, :-1]).mean(0)
        change = np.stack([change[0], *change])
        weight = (1 + strength * change / change.mean()) / (1 + strength)
        assert weight.mean() == pytest.approx(1)
        wanted.append((weight * np.abs(back - one)).mean())
    found = autoencoder.weighted_l1(torch.from_numpy(made), torch.from_numpy(real), strength)
    assert found.numpy() == pytest.approx(wanted)


def test_its_gradient_is_that_of_the_formula():
    """``w sign(made - real) / n``, with the Laplacian as the convolution that it is."""
    real, strength = video(), 3.0
    made = torch.from_numpy(video()).requires_grad_()
    autoencoder.weighted_l1(made, torch.from_numpy(real), strength).sum().backward()
    edged = np.pad(real, [(0, 0)] * 3 + [(1, 1)] * 2, mode="edge")
    kernel = np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]])
    curved = np.einsum("bcfhwij,ij->bcfhw", np.lib.stride_tricks.sliding_window_view(edged, (3, 3), (3, 4)), kernel)
    change = np.abs(curved - np.roll(curved, 1, 2)).mean(1, keepdims=True)
    change[:, :, 0] = change[:, :, 1]
    weight = (1 + strength * change / change.mean((1, 2, 3, 4), keepdims=True)) / (1 + strength)
    wanted = weight * np.sign(made.detach().numpy() - real) / real[0].size
    assert made.grad is not None
    assert made.grad.numpy() == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("frames", [1, 4])
def test_of_a_still_it_is_l1(frames):
    still, made = video(1).repeat(frames, 2), video(frames)
    l1 = np.abs(made - still).mean((1, 2, 3, 4))
    assert autoencoder.weighted_l1(*map(torch.from_numpy, (made, still)), 3.0).numpy() == pytest.approx(l1)
    real = video(frames)
    plain = autoencoder.weighted_l1(*map(torch.from_numpy, (made, real)), 0.0)
    assert plain.numpy() == pytest.approx(np.abs(made - real).mean((1, 2, 3, 4)))


def test_weights_are_of_the_real_video_and_carry_no_gradient():
    real, made = (torch.from_numpy(video()).requires_grad_() for _ in range(2))
    autoencoder.weighted_l1(made, real, 3.0).sum().backward()
    assert made.grad is not None
    assert real.grad is not None
    assert torch.equal(made.grad, -real.grad)


def test_kl_is_that_of_two_normals():
    mean, log_variance = (torch.from_numpy(RNG.normal(size=(2, 4, 3, 2, 2))) for _ in range(2))
    wanted = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0)).mean((1, 2, 3, 4))
    torch.testing.assert_close(autoencoder.kl(mean, log_variance), wanted)


def test_the_adversarial_term_is_a_hinge_that_begins_late():
    real, made = torch.tensor([[0.5, 2.0], [-1.0, 1.0]]), torch.tensor([[-2.0, 0.25], [0.0, -0.5]])
    assert autoencoder.critic(real, made).tolist() == [(0.5 / 2 + 1.25 / 2) / 2, (2 / 2 + 1.5 / 2) / 2]
    assert autoencoder.adversarial(made).tolist() == [0.875, 0.25]
    assert [autoencoder.adversarial_weight(step, 100, 0.5) for step in (0, 99, 100, 101)] == [0, 0, 0.5, 0.5]
