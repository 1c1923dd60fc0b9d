"""What a model's original code, and ComfyUI with it, calls the layers that diffusers renamed.

Sources: diffusers' conversion of original checkpoints (``loaders/single_file_utils.py``), and the rule by which ComfyUI
reads adapters: ``diffusion_model.`` and the layer's original name (``comfy/lora.py``).
"""

COMFYUI: dict[str, dict[str, str]] = {
    "wan": {
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
    },
    "ltx_video": {"proj_in": "patchify_proj", "time_embed": "adaln_single"},
}
"""Family -> parts of diffusers' names -> the original ones, whole between dots. Families that are not here are known to
ComfyUI by layers that diffusers split, or not at all."""
COMFYUI["wan22"] = COMFYUI["wan"]


def original(family: str, layer: str) -> str:
    """The original name of a layer of the denoiser."""
    name = f".{layer}."
    for ours, theirs in COMFYUI[family].items():
        name = name.replace(f".{ours}.", f".{theirs}.")
    return name.strip(".")
