"""Write config/config.schema.json and the tables of config/README.md from the pydantic models of regdpo/config."""

import argparse
import json
from pathlib import Path

from regdpo.config import documents
from regdpo.core import errors

FOLDER = Path(__file__).resolve().parents[1] / "config"
MARK = "<!-- below: written by scripts/config_docs.py -->\n"


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    (FOLDER / "config.schema.json").write_text(json.dumps(documents.json_schema(), indent=2) + "\n")
    readme = FOLDER / "README.md"
    readme.write_text(readme.read_text().split(MARK)[0] + MARK + "\n" + documents.markdown())


if __name__ == "__main__":
    errors.run(main)
