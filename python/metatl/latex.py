"""Text as LaTeX wants it."""

from __future__ import annotations

_SIGNS = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "−": "$-$",
        "–": "--",
        **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    }
)


def escape(text: str) -> str:
    """Write text so that LaTeX prints it as it is."""
    return text.translate(_SIGNS)
