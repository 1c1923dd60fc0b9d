"""A small Wan checkpoint made here, in diffusers' layout: codec, tokenizer, text encoder and a random transformer.

Only the transformer is trained afterwards. The text encoder keeps its random weights: each caption gets an
embedding of its own, which is what the small transformer can use; it has not learned language.
"""

from pathlib import Path
from typing import Any

import torch
from diffusers import UniPCMultistepScheduler, WanImageToVideoPipeline, WanPipeline, WanTransformer3DModel
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from regdpo.config.schema import Base
from regdpo.models.codec import BlockPCACodec

PATCH = (1, 2)
"""Latents a token, in time and each way in space."""
WORDS = 4096
"""That the tokenizer knows at most."""


def outline(base: Base) -> dict[str, dict[str, Any]]:
    """What the JSON files say of the checkpoint that ``make`` would write, as far as its family asks."""
    assert base.pretrain is not None
    codec = base.pretrain.codec
    return {
        "model_index.json": {
            "vae": ["diffusers", BlockPCACodec.__name__],
            "text_encoder": ["transformers", UMT5EncoderModel.__name__],
        },
        "transformer/config.json": {"_class_name": WanTransformer3DModel.__name__, **_transformer(base)},
        "vae/config.json": {
            "z_dim": codec.channels,
            "scale_factor_temporal": codec.temporal,
            "scale_factor_spatial": codec.spatial,
        },
        "text_encoder/config.json": _text(base, WORDS),
    }


def make(base: Base, seed: int, videos: list[Tensor], captions: list[str], shift: float, folder: Path) -> float:
    """Write the checkpoint to a folder.

    Args:
        seed: of the weights of transformer and text encoder. videos: uint8 (B, F, H, W, 3) of each size, the footage
            the codec is fitted to. captions: what the tokenizer learns from.
        shift: of the scheduler that the pipeline carries.

    Returns:
        PSNR in dB of the videos through the codec.
    """
    assert base.pretrain is not None
    codec, psnr = _codec(base, videos)
    torch.manual_seed(seed)
    transformer = WanTransformer3DModel(**_transformer(base))
    tokenizer = _tokenizer(captions)
    text_encoder = UMT5EncoderModel(UMT5Config(**_text(base, len(tokenizer))))
    kind: Any = WanImageToVideoPipeline if base.task == "i2v" else WanPipeline
    pipeline = kind(
        tokenizer=tokenizer,
        text_encoder=text_encoder.eval(),
        vae=codec,
        scheduler=UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift),
        transformer=transformer,
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
    return psnr


def _text(base: Base, words: int) -> dict[str, Any]:
    """Configuration of the text encoder."""
    assert base.pretrain is not None
    width = base.pretrain.transformer.text_dim
    return {"vocab_size": words, "d_model": width, "d_kv": 8, "d_ff": 2 * width, "num_layers": 2, "num_heads": 4}


def _transformer(base: Base) -> dict[str, Any]:
    """Its configuration."""
    assert base.pretrain is not None
    spec, codec = base.pretrain.transformer, base.pretrain.codec
    condition = codec.channels + codec.temporal if base.task == "i2v" else 0
    return {
        "patch_size": (PATCH[0], PATCH[1], PATCH[1]),
        "num_attention_heads": spec.heads,
        "attention_head_dim": spec.head_dim,
        "in_channels": codec.channels + condition,
        "out_channels": codec.channels,
        "text_dim": spec.text_dim,
        "freq_dim": spec.freq_dim,
        "ffn_dim": spec.ffn_dim,
        "num_layers": spec.layers,
    }


def _codec(base: Base, videos: list[Tensor]) -> tuple[BlockPCACodec, float]:
    assert base.pretrain is not None
    pixels = [alike.permute(0, 4, 1, 2, 3).float() / 127.5 - 1 for alike in videos]
    spec = base.pretrain.codec
    codec = BlockPCACodec.fit(pixels, spec.channels, spec.spatial, spec.temporal)
    restored = [codec.decode(codec.encode(alike).latent_dist.mode()).sample.clamp(-1, 1) for alike in pixels]
    errors = [((after - before) ** 2).flatten() for after, before in zip(restored, pixels, strict=True)]
    return codec, float(-10 * torch.log10(torch.cat(errors).mean() / 4))  # in units of the range [0, 1]


def _tokenizer(captions: list[str]) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(special_tokens=["<pad>", "</s>", "<unk>"], vocab_size=WORDS)
    tokenizer.train_from_iterator(sorted(set(captions)), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")  # noqa: S106
