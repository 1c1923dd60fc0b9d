"""Write what is generated from models: config/config.schema.json, the tables of config/README.md, and the schema of
the report's content, docs/reference/report.schema.json."""

import argparse
import json
from pathlib import Path

from regdpo.config import documents
from regdpo.core import errors
from regdpo.report import document

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "config"
REPORT = ROOT / "docs/reference/report.schema.json"
MARK = "<!-- below: written by scripts/config_docs.py -->\n"


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    (FOLDER / "config.schema.json").write_text(json.dumps(documents.json_schema(), indent=2) + "\n")
    REPORT.write_text(json.dumps(document.json_schema(), indent=2) + "\n")
    readme = FOLDER / "README.md"
    readme.write_text(readme.read_text().split(MARK)[0] + MARK + "\n" + documents.markdown())


if __name__ == "__main__":
    errors.run(main)
