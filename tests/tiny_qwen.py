"""Tiny random vision-language models with their processors, made offline: Qwen2-VL, Qwen2.5-VL, Qwen3-VL, SmolVLM2.

    python tests/tiny_qwen.py qwen3_vl FOLDER

They have the files and the layout of real ones and say nonsense: they prove the way, not the quality of captions.
"""

import sys
from pathlib import Path

SPECIAL = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>",
    "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>",
    "<fake_token_around_image>", "<image>", "<video>", "<global-img>", "<end_of_utterance>",
]  # fmt: skip
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% for part in message.content %}"
    "{% if part.type == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make(kind: str, folder: Path) -> None:
    """Save a model of ``kind`` (qwen2_vl, qwen2_5_vl, qwen3_vl or smolvlm) and its processor to ``folder``."""
    from regdpo.runtime.torchvision_stub import torchvision_operators

    torchvision_operators()
    import torch
    import transformers as t
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(alphabet)}, merges=[]))
    tokens.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokens.decoder = decoders.ByteLevel()
    tokenizer = t.PreTrainedTokenizerFast(
        tokenizer_object=tokens, eos_token="<|im_end|>", pad_token="<|endoftext|>", extra_special_tokens=SPECIAL
    )
    ids = dict(zip(SPECIAL, tokenizer.convert_tokens_to_ids(SPECIAL), strict=True))
    text = {
        "vocab_size": len(tokenizer), "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 4096,
        "eos_token_id": ids["<|im_end|>"], "pad_token_id": ids["<|endoftext|>"], "bos_token_id": ids["<|endoftext|>"],
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2]},
    }  # fmt: skip
    vision = {"depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 64}
    text["initializer_range"] = vision["initializer_range"] = 0.2  # large, so that the answer depends on the video
    marks = {
        "image_token_id": ids["<|image_pad|>"], "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"], "vision_end_token_id": ids["<|vision_end|>"],
    }  # fmt: skip
    pixels = {"size": {"shortest_edge": 4 * 32 * 32, "longest_edge": 64 * 32 * 32}}
    torch.manual_seed(0)
    if kind == "qwen2_5_vl":
        vision |= {"window_size": 56, "fullatt_block_indexes": [1]}
        model = t.Qwen2_5_VLForConditionalGeneration(
            t.Qwen2_5_VLConfig(text_config=text, vision_config=vision, **marks)
        )
        images = t.Qwen2VLImageProcessor(**pixels)
        processor = t.Qwen2_5_VLProcessor(images, tokenizer, t.Qwen2VLVideoProcessor(**pixels), chat_template=TEMPLATE)
    elif kind == "qwen2_vl":
        vision = {"depth": 1, "embed_dim": 32, "hidden_size": 64, "num_heads": 2, "mlp_ratio": 1}
        model = t.Qwen2VLForConditionalGeneration(t.Qwen2VLConfig(text_config=text, vision_config=vision, **marks))
        images = t.Qwen2VLImageProcessor(**pixels)
        processor = t.Qwen2VLProcessor(images, tokenizer, t.Qwen2VLVideoProcessor(**pixels), chat_template=TEMPLATE)
    elif kind == "smolvlm":
        ids["<|im_end|>"] = ids["<end_of_utterance>"]
        text = {key: value for key, value in text.items() if key != "rope_parameters"} | {"model_type": "llama"}
        vision = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
        vision |= {"image_size": 32, "patch_size": 8, "initializer_range": 0.2}
        model = t.SmolVLMForConditionalGeneration(
            t.SmolVLMConfig(
                text_config=text, vision_config=vision, scale_factor=2, image_token_id=ids["<image>"],
                pad_token_id=ids["<|endoftext|>"], tie_word_embeddings=False,
            )
        )  # fmt: skip
        images = t.SmolVLMImageProcessor(size={"longest_edge": 32}, max_image_size={"longest_edge": 32})
        videos = t.SmolVLMVideoProcessor(size={"longest_edge": 32}, max_image_size={"longest_edge": 32})
        processor = t.SmolVLMProcessor(images, tokenizer, videos, image_seq_len=4)
    else:
        vision |= {"num_position_embeddings": 64, "deepstack_visual_indexes": [0]}
        text |= {"head_dim": 16, "rope_parameters": {**text["rope_parameters"], "mrope_interleaved": True}}
        model = t.Qwen3VLForConditionalGeneration(t.Qwen3VLConfig(text_config=text, vision_config=vision, **marks))
        images = t.Qwen2VLImageProcessor(patch_size=16, **pixels)
        processor = t.Qwen3VLProcessor(images, tokenizer, t.Qwen3VLVideoProcessor(**pixels), chat_template=TEMPLATE)
    model.generation_config.bos_token_id = ids["<|im_start|>"]
    model.generation_config.eos_token_id = ids["<|im_end|>"]
    model.generation_config.pad_token_id = ids["<|endoftext|>"]
    with torch.no_grad():  # no answer ends by chance: of hundreds of others some token is likelier than one of score 0
        model.lm_head.weight[ids["<|im_end|>"]] = 0
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


if __name__ == "__main__":
    make(sys.argv[1], Path(sys.argv[2]))
