"""Model families: everything that is particular to one architecture."""

FAMILIES = {
    "wan": "regdpo.models.wan:Wan",
    "wan22": "regdpo.models.wan22:Wan22",
    "cogvideox": "regdpo.models.cogvideox:CogVideoX",
    "hunyuan_video": "regdpo.models.hunyuan_video:HunyuanVideo",
    "ltx_video": "regdpo.models.ltx_video:LTXVideo",
}
"""Name in the configuration -> ``module:class``. A new family is one file and one line here."""
