"""Records of runs as version 0.1.0 wrote them, which tests may change: they have no SHA-256."""

from __future__ import annotations

import json


def write_old_record(directory, record):
    """Write a run.json of format 1."""
    content = {name: value for name, value in record.items() if name not in ("sha256", "items_sha256")}
    (directory / "run.json").write_text(json.dumps({**content, "format_version": 1}))
