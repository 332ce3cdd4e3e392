"""Run the README's Python example as it is written."""

from __future__ import annotations

import re
import sys
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"


def examples(text: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


if __name__ == "__main__":
    found = examples(README.read_text(encoding="utf-8"))
    if not found:
        sys.exit(f"{README}: found no Python example")
    for example in found:
        exec(compile(example, str(README), "exec"), {"__name__": "__main__"})  # noqa: S102 (our own README)
