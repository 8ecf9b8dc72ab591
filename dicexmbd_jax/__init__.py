"""Finds the cells in imaging mass cytometry: the public Python API.

    import dicexmbd_jax as dx

    cells = dx.segment(stack, nuclear=["DNA1"], membrane=["CD45"], names=names)

Everything else in this package may change without notice. Importing it loads
neither JAX nor NumPy: that waits for the first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from dicexmbd_jax.api import (
    Cells,
    Segmenter,
    evaluate,
    finetune,
    read_image,
    segment,
    segment_probabilities,
  )

__version__ = "0.1.0"
__all__ = [
  "Cells",
  "Segmenter",
  "evaluate",
  "finetune",
  "read_image",
  "segment",
  "segment_probabilities",
]


def __getattr__(name: str) -> Any:
  if name not in __all__:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
  return getattr(importlib.import_module("dicexmbd_jax.api"), name)


def __dir__() -> list[str]:
  return sorted([*globals(), *__all__])
