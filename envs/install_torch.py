"""Install the torch of torch.lock into this Python's environment, from pip's configured index or from TORCH_INDEX_URL.

Builds of one version differ from index to index, so no lock can have the hashes of all. Of PyPI's, cuda.lock has them,
and those of NVIDIA's libraries: where pip finds that build, all of it is held against them. Any other build is held
against TORCH_SHA256 if that is set, and else its hash is told, so that it can be; what it needs is in regdpo.lock,
but for the libraries of another CUDA, whose versions torch pins and nobody hashes. Uses the standard library alone.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from tempfile import NamedTemporaryFile

ENVS = Path(__file__).parent
LOCKED = ("--quiet", "--require-hashes", "--no-deps", "-r")


def pip(*arguments: str) -> str:
    """What pip prints; it ends this process if it fails."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode and arguments[0] != "check":
        sys.exit(done.returncode)
    return done.stdout


def pinned(lock: str) -> tuple[str, set[str]]:
    """torch's requirement and hashes in a lock."""
    block = re.search(r"^(torch==[^\s;\\]+)((?:.*\\\n)*.*)", (ENVS / lock).read_text(), re.M)
    assert block
    return block[1], set(re.findall(r"sha256:(\w+)", block[2]))


def offered(requirement: str, index: list[str]) -> tuple[str, str]:
    """Address and SHA-256 of the build that pip would take."""
    report = pip(
        "install", "--dry-run", "--quiet", "--no-deps", "--ignore-installed", "--report", "-", *index, requirement
    )
    (build,) = json.loads(report)["install"]
    return build["download_info"]["url"], build["download_info"]["archive_info"]["hashes"]["sha256"]


def main() -> None:
    """All of it."""
    url = os.environ.get("TORCH_INDEX_URL")
    index = ["--index-url", url] if url else []
    requirement, _ = pinned("torch.lock")
    address, found = offered(requirement, index)
    if found in pinned("cuda.lock")[1]:
        pip("install", *LOCKED, str(ENVS / "cuda.lock"))
        return
    wanted = os.environ.get("TORCH_SHA256")
    if wanted and wanted != found:
        sys.exit(f"{address} has the SHA-256 {found}, and TORCH_SHA256 is {wanted}")
    with NamedTemporaryFile("w", suffix=".lock") as lock:
        lock.write(f"{requirement} --hash=sha256:{found}\n")
        lock.flush()
        pip("install", *index, *LOCKED, lock.name)
    if not wanted:
        print(f"torch is {address}, whose hash no lock has; TORCH_SHA256={found} demands it the next time")
    if lacking := re.findall(r"^torch \S+ requires ([^\s,]+)", pip("check"), re.M):
        print(f"of this build's libraries no lock has the hashes: {' '.join(lacking)}")
        pip("install", "--quiet", *index, requirement)


if __name__ == "__main__":
    main()
