"""Preference training of video diffusion models from real clips."""

import os

__version__ = "0.1.0"

# The libraries' notices and bars drown our own lines; what is an error to them is one to us.
for _variable in ("TRANSFORMERS_VERBOSITY", "DIFFUSERS_VERBOSITY"):
    os.environ.setdefault(_variable, "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
# What models take and give back in pieces of many sizes would else leave a GPU's memory in shreds.
if "PYTORCH_CUDA_ALLOC_CONF" not in os.environ:  # the older name, which torch still reads
    os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
