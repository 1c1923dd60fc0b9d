"""The section of the configuration for the training of a video autoencoder."""

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from regdpo.core.section import BelowOne, Count, Name, NonNegative, Positive, Section, Share

TRAINED = "trained"
"""What is measured under this name beside ``base`` and the generators."""

LEAST = 31
"""Pixels of a side, below which LPIPS has nothing left to pool."""


class AutoencoderLoss(Section):
    """Factors of the terms of its loss (docs/concepts/methods.md); 0 leaves a term out."""

    mse: NonNegative = Field(0.0, description="Mean squared error of pixels in [-1, 1].")
    l1: NonNegative = Field(1.0, description="Mean absolute error, weighted by `detail`.")
    detail: NonNegative = Field(
        1.0,
        description="How much more a pixel counts in `l1` where the image's Laplacian changes from frame to frame; 0: "
        "all alike.",
    )
    perceptual: NonNegative = Field(0.0, description="LPIPS, mean over frames; needs the weights of `vae.lpips`.")
    kl: NonNegative = Field(1e-6, description="Divergence of the posterior from a standard normal, mean over latents.")
    gan: NonNegative = Field(0.0, description="What a critic of small patches makes of it, once that begins.")
    gan_begins: BelowOne = Field(
        0.8,
        description="Share of the steps before it: against blurred pictures a critic wins at once and says little.",
    )

    @model_validator(mode="after")
    def _something_is_reconstructed(self) -> Self:
        if not self.mse + self.l1 + self.perceptual:
            raise ValueError("`mse`, `l1` and `perceptual` are all 0, so nothing is reconstructed; give one of them")
        return self


class AutoencoderTraining(Section):
    """Training of an autoencoder on the clips of the training split. What comes of it is measured beside the others as
    `trained`, and is used for nothing else."""

    of: Name = Field("base", description="Whose: `base`, or a generator with a model of its own.")
    start: Literal["weights", "random"] = Field("weights", description="Its weights, or new ones of its architecture.")
    part: Literal["all", "decoder"] = Field(
        "all", description="`decoder`: the encoder stays as it is, so that a denoiser of its latents still fits."
    )
    steps: Count = Field(10000, description="Optimiser steps.")
    batch: Count = Field(8, description="Windows of clips per optimiser step, over all ranks.")
    windows: list[Count] = Field(
        [1, 4, 8],
        min_length=1,
        description="Latent frames of a window; each step draws one of these. Clips shorter than the longest window "
        "are left out.",
    )
    crop: Count | None = Field(
        256, description="Pixels of a window each way, at most; empty: whole frames. The place is drawn anew each step."
    )
    loss: AutoencoderLoss = AutoencoderLoss()
    lr: Positive = Field(1e-5, description="AdamW's learning rate, without weight decay.")
    critic_lr: Positive = Field(1e-4, description="The critic's.")
    betas: tuple[BelowOne, BelowOne] = (0.9, 0.999)
    warmup: int = Field(0, ge=0, description="Steps of linear warm-up, of the critic too.")
    clip_norm: Positive = Field(1.0, description="Greatest global gradient norm, of the critic apart.")
    ema: Share | None = Field(
        None, description="Decay of an average of the weights, which is evaluated and exported, as in `train.settings`."
    )
    precision: Literal["fp32", "bf16"] = Field("bf16", description="Of the forward pass; weights stay fp32.")
    seed: int = Field(0, description="Of order, windows, draws from posteriors, and weights that are new.")
    checkpoint_every: Count = Field(500, description="Steps between checkpoints.")
    keep: Count = Field(2, description="Last checkpoints kept.")
    eval_every: Count = Field(500, description="Steps between evaluations on the validation split.")

    @model_validator(mode="after")
    def _an_encoder_is_trained_once(self) -> Self:
        if self.start == "random" and self.part == "decoder":
            raise ValueError("`part: decoder` of `start: random` leaves the encoder untrained; take `part: all`")
        return self

    @property
    def critic_begins(self) -> int:
        """The step, from 0, that the critic begins at: the last one at the latest."""
        return math.floor(self.loss.gan_begins * self.steps)
