"""Tiny random checkpoints of every family and task, made and saved with diffusers' own pipelines where it has one."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers as d
import numpy as np
import torch
import transformers as t
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from torch import Tensor, nn

from regdpo.models import mugv_files
from regdpo.models.codec import BlockPCACodec
from regdpo.models.mugv_autoencoder import AutoencoderMugV
from regdpo.models.mugv_transformer import MugVTransformer3DModel
from regdpo.models.video_unet import VideoUNet
from regdpo.models.videocrafter_files import write_index

WORDS = "a square number 0 1 2 moves over the ground . , ; : <|start_header_id|> <|end_header_id|> <|eot_id|>"
CAPTION, NEGATIVE = "a square moves over the ground", "number 1"


@dataclass(frozen=True)
class Case:
    """A checkpoint and how its pipeline is spoken to."""

    family: str
    task: str
    make: Callable[[], Any]  # what has ``save_pretrained``, as a pipeline has
    expert: str | None = None
    text_length: int = 16
    size: tuple[int, int, int] = (9, 32, 32)
    both_tasks: bool = False  # one transformer does both; for image-to-video it is given the first frame clean
    fixed_text: bool = False  # it takes no other text length
    piped: bool = True  # diffusers has a pipeline of it
    options: tuple[tuple[str, Any], ...] = ()
    """Of the pipeline's call."""

    def lay(self, latents: Tensor) -> Tensor:
        """(B, C, F, H, W) -> the layout that the pipeline takes and returns."""
        if self.family == "cogvideox":
            return latents.transpose(1, 2)
        return latents.flatten(2).transpose(1, 2) if self.family == "ltx_video" else latents

    def unlay(self, latents: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Back to (B, C, F, H, W); channels of a condition are dropped."""
        if self.family == "cogvideox":
            latents = latents.transpose(1, 2)
        if self.family == "ltx_video":
            latents = latents.transpose(1, 2).unflatten(2, shape[1:])
        return latents[:, : shape[0]]


def tokenizer(length: int | None = None) -> t.PreTrainedTokenizerFast:
    inner = Tokenizer(models.WordLevel(unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.train_from_iterator([WORDS], trainers.WordLevelTrainer(special_tokens=["<pad>", "</s>", "<unk>"]))
    inner.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    options = {"model_max_length": length} if length else {}
    return t.PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", **options
    )


def umt5() -> t.UMT5EncoderModel:
    return t.UMT5EncoderModel(t.UMT5Config(d_model=32, d_kv=8, d_ff=37, num_layers=2, num_heads=4, vocab_size=64))


def t5() -> t.T5EncoderModel:
    return t.T5EncoderModel(t.T5Config(d_model=32, d_kv=8, d_ff=37, num_layers=2, num_heads=4, vocab_size=64))


def narrow(convolution: nn.Module, first: int) -> None:
    """Give an autoencoder's posterior no width: its variances are the output channels from ``first`` on."""
    with torch.no_grad():
        convolution.weight[first:] = 0
        convolution.bias[first:] = -60


def wan_transformer(**config: Any) -> d.WanTransformer3DModel:
    return d.WanTransformer3DModel(
        **{"num_attention_heads": 4, "attention_head_dim": 12, "in_channels": 16, "out_channels": 16, "text_dim": 32,
           "freq_dim": 32, "ffn_dim": 64, "num_layers": 2, "rope_max_seq_len": 64, **config}
    )  # fmt: skip


def wan_vae(**config: Any) -> d.AutoencoderKLWan:
    return d.AutoencoderKLWan(
        base_dim=4, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True], **config
    )


def wan(kind: Any, vae: dict[str, Any] | None = None, **parts: Any) -> d.DiffusionPipeline:
    return kind(
        tokenizer=tokenizer(), text_encoder=umt5(), vae=wan_vae(**(vae or {})),
        scheduler=d.UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0),
        **parts,
    )  # fmt: skip


def wan_i2v() -> d.DiffusionPipeline:
    vision = {
        "hidden_size": 8,
        "intermediate_size": 16,
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
        "image_size": 32,
    }
    return wan(
        d.WanImageToVideoPipeline,
        transformer=wan_transformer(in_channels=36, image_dim=8, added_kv_proj_dim=48),
        image_encoder=t.CLIPVisionModel(t.CLIPVisionConfig(**vision, patch_size=16)),
        image_processor=t.CLIPImageProcessor(crop_size=32, size=32),
    )


def wan_codec(kind: Any) -> d.DiffusionPipeline:
    """As models made here are: a block-PCA codec in the place of the autoencoder."""
    clips = np.stack([video((9, 32, 32), seed) for seed in range(4)])
    codec = BlockPCACodec.fit([torch.from_numpy(clips).permute(0, 4, 1, 2, 3) / 127.5 - 1], 16, 8, 4)
    channels = 36 if kind is d.WanImageToVideoPipeline else 16
    pipeline = wan(kind, transformer=wan_transformer(in_channels=channels))
    pipeline.register_modules(vae=codec)
    return pipeline


def wan22_5b(kind: Any) -> d.DiffusionPipeline:
    vae = {"patch_size": 2, "is_residual": True, "in_channels": 12, "out_channels": 12, "scale_factor_spatial": 16}
    return wan(kind, vae, transformer=wan_transformer(), expand_timesteps=True)


def wan22_14b(kind: Any) -> d.DiffusionPipeline:
    channels = 36 if kind is d.WanImageToVideoPipeline else 16
    experts = {name: wan_transformer(in_channels=channels) for name in ("transformer", "transformer_2")}
    return wan(kind, **experts, boundary_ratio=0.7)


def cogvideox(kind: Any, vae: dict[str, Any] | None = None, **config: Any) -> d.DiffusionPipeline:
    i2v = kind is d.CogVideoXImageToVideoPipeline
    codec = d.AutoencoderKLCogVideoX(
        block_out_channels=(8, 8, 8, 8), latent_channels=4, layers_per_block=1, norm_num_groups=2, **(vae or {})
    )
    narrow(codec.encoder.conv_out.conv, 4)
    transformer = d.CogVideoXTransformer3DModel(
        **{"num_attention_heads": 4, "attention_head_dim": 16, "in_channels": 8 if i2v else 4, "out_channels": 4,
           "time_embed_dim": 8, "text_embed_dim": 32, "num_layers": 2, "sample_width": 6, "sample_height": 4,
           "sample_frames": 9, "max_text_seq_length": 16, **config}
    )  # fmt: skip
    scheduler = d.CogVideoXDDIMScheduler(
        prediction_type="v_prediction", rescale_betas_zero_snr=True, snr_shift_scale=3.0, timestep_spacing="trailing",
        clip_sample=False, beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012,
    )  # fmt: skip
    return kind(tokenizer=tokenizer(), text_encoder=t5(), vae=codec, transformer=transformer, scheduler=scheduler)


def hunyuan_video() -> d.DiffusionPipeline:
    text = {"intermediate_size": 37, "num_attention_heads": 4, "vocab_size": 64, "pad_token_id": 0}
    codec = d.AutoencoderKLHunyuanVideo(
        latent_channels=4, block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=4
    )
    transformer = d.HunyuanVideoTransformer3DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=10, num_layers=1, num_single_layers=2,
        num_refiner_layers=1, text_embed_dim=16, pooled_projection_dim=8, rope_axes_dim=(2, 4, 4),
    )  # fmt: skip
    return d.HunyuanVideoPipeline(
        text_encoder=t.LlamaModel(t.LlamaConfig(hidden_size=16, num_hidden_layers=3, **text)),
        tokenizer=tokenizer(),
        text_encoder_2=t.CLIPTextModel(t.CLIPTextConfig(hidden_size=8, num_hidden_layers=2, eos_token_id=1, **text)),
        tokenizer_2=tokenizer(77),
        vae=codec,
        transformer=transformer,
        scheduler=d.FlowMatchEulerDiscreteScheduler(shift=7.0),
    )


def ltx_video(kind: Any) -> d.DiffusionPipeline:
    four, five = (8,) * 4, (1,) * 5
    scaling = (True, False, False, False)
    codec = d.AutoencoderKLLTXVideo(
        latent_channels=8, block_out_channels=four, decoder_block_out_channels=four, layers_per_block=five,
        decoder_layers_per_block=five, spatio_temporal_scaling=scaling, decoder_spatio_temporal_scaling=scaling,
    )  # fmt: skip
    narrow(codec.encoder.conv_out.conv, -1)
    codec.latents_mean.copy_(torch.linspace(-0.1, 0.2, 8))
    codec.latents_std.copy_(torch.linspace(0.5, 1.5, 8))
    transformer = d.LTXVideoTransformer3DModel(
        in_channels=8, out_channels=8, num_attention_heads=4, attention_head_dim=8, cross_attention_dim=32,
        num_layers=2, caption_channels=32,
    )  # fmt: skip
    scheduler = d.FlowMatchEulerDiscreteScheduler(
        shift=1.0, use_dynamic_shifting=True, base_shift=0.95, max_shift=2.05, base_image_seq_len=1024,
        max_image_seq_len=4096, shift_terminal=0.1,
    )  # fmt: skip
    return kind(tokenizer=tokenizer(), text_encoder=t5(), vae=codec, transformer=transformer, scheduler=scheduler)


class Own:
    """A checkpoint of which diffusers has no pipeline."""

    def __init__(self, family: str, name: str, scheduler: dict[str, Any], **unet: Any):
        self.index = (family, name, scheduler)
        self.transformer = VideoUNet(
            model_channels=32, channel_mult=(1, 2), num_res_blocks=1, attention_resolutions=(1,), num_head_channels=16,
            context_dim=16, **unet,
        )  # fmt: skip
        vae = d.AutoencoderKL(
            block_out_channels=(8,) * 4, latent_channels=4, norm_num_groups=4, scaling_factor=0.18215,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        )  # fmt: skip
        text = t.CLIPTextConfig(
            hidden_size=16, intermediate_size=37, num_attention_heads=2, num_hidden_layers=2, vocab_size=64,
            max_position_embeddings=16, pad_token_id=0, bos_token_id=1, eos_token_id=1, hidden_act="gelu",
        )  # fmt: skip
        self.parts = {"vae": vae, "text_encoder": t.CLIPTextModel(text), "tokenizer": tokenizer(16)}

    def save_pretrained(self, folder: Path, **options: Any) -> None:
        for name, part in {"transformer": self.transformer, **self.parts}.items():
            part.save_pretrained(folder / name)
        write_index(folder, *self.index)


def videocrafter2() -> Own:
    return Own("videocrafter2", "VideoCrafter2", {"_class_name": "ScaledDDIM", "eta": 1.0})


def t2v_turbo() -> Own:
    motion = {"motion_guidance": 0.05, "motion_share": 0.5}
    scheduler = {"_class_name": "Consistency", "origin_steps": 200, **motion}
    return Own("t2v_turbo", "T2VTurbo", scheduler, time_cond_proj_dim=16, motion_cond_proj_dim=16)


class MugV:
    """A checkpoint of MUG-V, of which diffusers has no pipeline."""

    def __init__(self) -> None:
        self.transformer = MugVTransformer3DModel(
            in_channels=4, num_attention_heads=4, attention_head_dim=12, num_layers=2, mlp_ratio=2.0, text_dim=32
        )
        vae = AutoencoderMugV(
            latent_channels=4, block_out_channels=(8,) * 4, layers_per_block=1, norm_num_groups=4, temporal_filters=8,
            temporal_multipliers=(1,) * 4, temporal_layers=1, temporal_norm_num_groups=4, micro_frames=16,
            latents_mean=(-0.1, 0.0, 0.1, 0.2), latents_std=(0.5, 0.8, 1.2, 1.5),
        )  # fmt: skip
        self.parts = {"vae": vae, "text_encoder": t5(), "tokenizer": tokenizer()}

    def save_pretrained(self, folder: Path, **options: Any) -> None:
        for name, part in {"transformer": self.transformer, **self.parts}.items():
            part.save_pretrained(folder / name)
        mugv_files.write_index(folder)


FPS = 8.0
RATE = (("frame_rate", FPS),)
WAN, WAN_I2V = d.WanPipeline, d.WanImageToVideoPipeline
COG, COG_I2V = d.CogVideoXPipeline, d.CogVideoXImageToVideoPipeline
LTX, LTX_I2V = d.LTXPipeline, d.LTXImageToVideoPipeline
ROPE = {"use_rotary_positional_embeddings": True}
COG15 = {**ROPE, "patch_size_t": 2, "ofs_embed_dim": 8, "patch_bias": False}
CASES = {
    "wan-t2v": Case("wan", "t2v", lambda: wan(WAN, transformer=wan_transformer())),
    "wan-i2v": Case("wan", "i2v", wan_i2v, text_length=512, fixed_text=True),
    "wan-codec-t2v": Case("wan", "t2v", lambda: wan_codec(WAN)),
    "wan-codec-i2v": Case("wan", "i2v", lambda: wan_codec(WAN_I2V)),
    "wan22-5b-t2v": Case("wan22", "t2v", lambda: wan22_5b(WAN), size=(9, 64, 32), both_tasks=True),
    "wan22-5b-i2v": Case("wan22", "i2v", lambda: wan22_5b(WAN_I2V), size=(9, 64, 32), both_tasks=True),
    "wan22-14b-t2v-low": Case("wan22", "t2v", lambda: wan22_14b(WAN), expert="low"),
    "wan22-14b-i2v-high": Case("wan22", "i2v", lambda: wan22_14b(WAN_I2V), expert="high"),
    "cogvideox-2b-t2v": Case("cogvideox", "t2v", lambda: cogvideox(COG), size=(9, 32, 48), fixed_text=True),
    "cogvideox-5b-t2v": Case("cogvideox", "t2v", lambda: cogvideox(COG, **ROPE), size=(9, 48, 32)),
    "cogvideox-5b-i2v": Case(
        "cogvideox",
        "i2v",
        lambda: cogvideox(COG_I2V, **ROPE, use_learned_positional_embeddings=True),
        size=(9, 32, 48),
        fixed_text=True,
    ),
    "cogvideox15-i2v": Case(
        "cogvideox", "i2v", lambda: cogvideox(COG_I2V, {"invert_scale_latents": True}, **COG15), size=(13, 32, 32)
    ),
    "hunyuan_video-t2v": Case("hunyuan_video", "t2v", hunyuan_video),
    "ltx_video-t2v": Case("ltx_video", "t2v", lambda: ltx_video(LTX), options=RATE, both_tasks=True),
    "ltx_video-i2v": Case("ltx_video", "i2v", lambda: ltx_video(LTX_I2V), options=RATE, both_tasks=True),
    "videocrafter2-t2v": Case("videocrafter2", "t2v", videocrafter2, size=(3, 32, 48), fixed_text=True, piped=False),
    "t2v_turbo-t2v": Case("t2v_turbo", "t2v", t2v_turbo, size=(3, 32, 48), fixed_text=True, piped=False),
    "mugv-t2v": Case("mugv", "t2v", MugV, size=(17, 16, 48), both_tasks=True, piped=False),
    "mugv-i2v": Case("mugv", "i2v", MugV, size=(17, 16, 48), both_tasks=True, piped=False),
}


def save(case: Case, folder: Path) -> None:
    """Make the checkpoint; random weights are wide enough that every input matters."""
    torch.manual_seed(0)
    pipeline = case.make()
    for name in ("transformer", "transformer_2"):
        part = getattr(pipeline, name, None)
        for parameter in part.parameters() if part is not None else ():
            with torch.no_grad():
                parameter.add_(0.02 * torch.randn_like(parameter))
    pipeline.save_pretrained(folder, safe_serialization=True)


def video(size: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    """uint8 (F, H, W, 3): a bright square that moves over a gradient."""
    frames, height, width = size
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    clip = np.repeat((np.stack([x, y, x + y], -1) * 3 + rng.integers(0, 60, 3))[None], frames, 0).astype(np.uint8)
    for number, frame in enumerate(clip):
        frame[2 + number : 12 + number, 4:14] = rng.integers(120, 255, 3)
    return clip
