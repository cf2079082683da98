"""JSON on disk that a crash cannot leave half written."""

import json
import os
from pathlib import Path
from typing import Any


def write_json(path: Path, value: Any) -> None:
    """Writes `value`, indented, so that `path` holds all of it or what it held before; missing folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    draft.write_text(json.dumps(value, indent=2) + "\n")
    draft.replace(path)


def read_json(path: Path) -> Any:
    """The value in the file; None when there is no file, or no JSON in it."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
