"""Some stages of a UNet, each as often as wanted: what a plan measures of one stage."""

from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn

from regdpo.models.video_unet import Stage, VideoUNet


class VideoUNetParts(VideoUNet):
    """A ``VideoUNet`` without its skips, of which each stage is there so many times. A stage is given frames of its own
    shape, one number of those before it over and over: its answer says nothing, but it computes and keeps what it does
    in the UNet.

    Args:
        times: of each of ``VideoUNet.stages``. whole: the UNet, on the meta device.
    """

    def __init__(self, times: Sequence[int], whole: VideoUNet):
        small = {"channel_mult": whole.config["channel_mult"][:1], "num_res_blocks": 1, "attention_resolutions": ()}
        super().__init__(**{**{k: v for k, v in whole.config.items() if not k.startswith("_")}, **small})
        del self.input_blocks, self.init_attn, self.middle_block, self.output_blocks
        chosen = [deepcopy(stage) for stage, many in zip(whole.stages(), times, strict=True) for _ in range(many)]
        self.repeated = nn.ModuleList(chosen)

    def stages(self) -> list[Stage]:
        return list(self.repeated)  # type: ignore[arg-type]

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        text: Tensor,
        fps: Tensor,
        guidance: Tensor | None = None,
        motion: Tensor | None = None,
    ) -> Tensor:
        _, _, frames, height, width = x.shape
        embedding = self.embedding(timesteps, fps, guidance, motion)
        h = x.flatten()[:1].detach().requires_grad_(torch.is_grad_enabled())  # as behind trained stages

        def fitting(channels: int, scale: int) -> Tensor:
            return h.flatten()[:1].view(1, 1, 1, 1).expand(len(x) * frames, channels, height // scale, width // scale)

        for stage in self.stages():
            h = self._run(stage, fitting(stage.channels, stage.scale), embedding, text, frames)
        return self.ended(fitting(self.config["model_channels"] * self.config["channel_mult"][0], 1), frames)
