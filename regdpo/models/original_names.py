"""What a model's original code, and ComfyUI with it, calls the layers that diffusers renamed.

Sources: diffusers' conversion of original checkpoints (``loaders/single_file_utils.py``), and the rule by which ComfyUI
reads adapters: ``diffusion_model.`` and the layer's original name (``comfy/lora.py``).
"""

from collections.abc import Mapping

WAN = {
    "attn1": "self_attn",
    "attn2": "cross_attn",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "o",
    "add_k_proj": "k_img",
    "add_v_proj": "v_img",
    "ffn.net.0.proj": "ffn.0",
    "ffn.net.2": "ffn.2",
    "condition_embedder.time_embedder.linear_1": "time_embedding.0",
    "condition_embedder.time_embedder.linear_2": "time_embedding.2",
    "condition_embedder.text_embedder.linear_1": "text_embedding.0",
    "condition_embedder.text_embedder.linear_2": "text_embedding.2",
    "condition_embedder.time_proj": "time_projection.1",
    "condition_embedder.image_embedder.ff.net.0.proj": "img_emb.proj.1",
    "condition_embedder.image_embedder.ff.net.2": "img_emb.proj.3",
    "proj_out": "head.head",
}
LTX_VIDEO = {"proj_in": "patchify_proj", "time_embed": "adaln_single"}
"""Parts of diffusers' names -> the original ones, whole between dots. Families that have no table here are known to
ComfyUI by layers that diffusers split, or not at all."""


def original(names: Mapping[str, str], layer: str) -> str:
    """The original name of a layer of the denoiser.

    Args:
        names: a table of this module.
    """
    name = f".{layer}."
    for ours, theirs in names.items():
        name = name.replace(f".{ours}.", f".{theirs}.")
    return name.strip(".")
