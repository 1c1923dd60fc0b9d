"""Runs inside VBench's environment, where of regdpo's requirements only torch's are sure to be: VBench on one folder.

    python -m regdpo.evaluate.vbench_worker VIDEOS RESULTS DEVICE DIMENSION...

VIDEOS is a folder of .mp4 files; DEVICE is as ``launch.device``; RESULTS becomes VBench's JSON, ``{dimension:
[aggregate, [{video_path, video_results}, ...]]}``. ``VBENCH_CACHE_DIR`` is where VBench keeps weights.
"""

import sys
from pathlib import Path

from regdpo.core import errors
from regdpo.core.temporaries import scratch
from regdpo.runtime.torchvision_stub import torchvision_operators


def main(videos: str, results: str, asked: str, *dimensions: str) -> None:
    torchvision_operators()
    import vbench

    from regdpo.models import device

    full = Path(vbench.__file__).with_name("VBench_full_info.json")
    with scratch() as folder:
        suite = vbench.VBench(device.pick(asked), str(full), str(folder))
        suite.evaluate(
            videos, name="regdpo", dimension_list=list(dimensions), mode="custom_input", local=True, read_frame=False
        )
        Path(results).write_bytes((folder / "regdpo_eval_results.json").read_bytes())


if __name__ == "__main__":
    errors.run(lambda: main(*sys.argv[1:]))
