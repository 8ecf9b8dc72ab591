"""The sections of a configuration, and what their values may be.

A section is a frozen dataclass. Its construction checks types and ranges, and a
ValueError names the value, what was found and what was expected. The segmenter,
the trainer and the record builder have theirs beside their code.
"""

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Self

from ml_collections import ConfigDict

# Beyond these a size is a printer's resolution, or a mistake.
MIN_PIXEL_UM, MAX_PIXEL_UM = 0.05, 20.0
AUTO = "auto"  # A magnification that is chosen for each image.


@dataclasses.dataclass(frozen=True)
class Kind:
  """What a value may be.

  Attributes:
    text: in words, for messages.
    accepts: whether a value is of the kind.
  """

  text: str
  accepts: Callable[[Any], bool]


def whole(low: int, high: int | None = None) -> Kind:
  """Whole numbers between two bounds, both included."""
  text, is_inside = _bound("a whole number", low, high)
  return Kind(text, lambda value: _is_whole(value) and is_inside(value))


def number(
  low: float | None = None,
  high: float | None = None,
  above: float | None = None,
  below: float | None = None,
  unit: str = "",
) -> Kind:
  """Finite numbers from `low` or above `above`, to `high` or below `below`."""
  text, is_inside = _bound("a number", low, high, above, below)

  def accepts(value: Any) -> bool:
    is_number = _is_whole(value) or isinstance(value, float)
    return is_number and math.isfinite(value) and is_inside(value)

  return Kind(text + unit, accepts)


def choice(*values: Any) -> Kind:
  """One of some values."""
  *most, last = map(repr, values)
  found = {(type(value), value) for value in values}
  return Kind(
    f"{', '.join(most)} or {last}",
    lambda value: (
      isinstance(value, str | int) and (type(value), value) in found
    ),
  )


def word_or(word: str, other: Kind) -> Kind:
  """One word, or what another kind accepts."""
  return Kind(
    f"{word!r} or {other.text}",
    lambda value: (
      value == word if isinstance(value, str) else other.accepts(value)
    ),
  )


SWITCH = Kind("true or false", lambda value: isinstance(value, bool))
TEXT = Kind("a text", lambda value: isinstance(value, str))
# Its own values are checked by who reads them.
NESTED = Kind(
  "a section", lambda value: isinstance(value, Mapping | ConfigDict)
)


def _is_whole(value: Any) -> bool:
  return isinstance(value, int) and not isinstance(value, bool)


def _bound(kind, low=None, high=None, above=None, below=None):
  """Returns the words for bounds, and the function that tests them."""
  text = f"{kind} from {low} to {high}"
  if low is None or high is None:
    words = {"of {} or more": low, "above {}": above}
    words |= {"up to {}": high, "below {}": below}
    told = [word.format(x) for word, x in words.items() if x is not None]
    text = f"{kind} {', '.join(told)}"

  def is_inside(value: float) -> bool:
    return (
      (low is None or value >= low)
      and (high is None or value <= high)
      and (above is None or value > above)
      and (below is None or value < below)
    )

  return text, is_inside


class Section:
  """What all sections have in common: construction checks each value.

  A field's type is Annotated[type, Kind]; where None will do, the type says so.
  Whole numbers become floats where the type is float.
  """

  NAME: ClassVar[str]

  def __post_init__(self):
    """Raises a ValueError, one line, for a value of another kind."""
    check_values(type(self), vars(self), self.NAME)
    for name, (_, base) in list_kinds(type(self)).items():
      value = getattr(self, name)
      if _is_whole(value) and float in (base, *typing.get_args(base)):
        object.__setattr__(self, name, float(value))

  @classmethod
  def read(cls, values: Mapping[str, Any], name: str | None = None) -> Self:
    """Returns the section of these values.

    Args:
      values: by their names; those with a default may be left out.
      name: of the section, where there are several of its kind.

    Raises:
      ValueError: an unknown name, a value that is missing or of another kind.
    """
    name = name or cls.NAME
    check_names(cls, values, name)
    check_values(cls, values, name)
    return cls(**values)


@functools.cache
def list_kinds(section: type) -> dict[str, tuple[Kind, Any]]:
  """Returns kind and type of a section's fields."""
  hints = typing.get_type_hints(section, include_extras=True)
  return {
    field.name: (
      hints[field.name].__metadata__[0],
      hints[field.name].__origin__,
    )
    for field in dataclasses.fields(section)
  }


def check_names(section: type, values: Mapping[str, Any], name: str):
  """Raises a ValueError where a name is unknown, or one is missing."""
  fields = {field.name: field for field in dataclasses.fields(section)}
  for key in values:
    if key not in fields:
      raise ValueError(
        f"config.{name}.{key[:60]}: found no such value, expected one of "
        f"{', '.join(sorted(fields))}"
      )
  for key, field in fields.items():
    if key not in values and field.default is dataclasses.MISSING:
      kind, _ = list_kinds(section)[key]
      raise ValueError(
        f"config.{name}.{key}: found nothing, expected {kind.text}"
      )


def check_values(section: type, values: Mapping[str, Any], name: str):
  """Raises a ValueError where a value is not of its field's kind."""
  kinds = list_kinds(section)
  for key, value in values.items():
    kind, base = kinds[key]
    is_none = value is None and types.NoneType in typing.get_args(base)
    if not is_none and not kind.accepts(value):
      raise ValueError(
        f"config.{name}.{key}: found {show(value)}, expected {kind.text}"
      )


def show(value: Any) -> str:
  """Returns a value as it is written, in one short line."""
  text = " ".join(repr(value).split())
  return text if len(text) <= 60 else f"{text[:60]}..."


@dataclasses.dataclass(frozen=True)
class ImageSection(Section):
  """From counts to the two-channel image.

  Attributes:
    preset: how markers are merged, as the paper or the published code does.
    pixel_size_um: what the network sees.
    hot_pixel_counts: a pixel this far above its neighbourhood is hot.
    clip_percentile: where each image's channels are cut off.
    negative: whether an image with values below zero, as compensation leaves
      them, is refused, or these count as zeros.
  """

  NAME = "image"

  preset: Annotated[str, choice("paper", "reference")]
  pixel_size_um: Annotated[
    float, number(MIN_PIXEL_UM, MAX_PIXEL_UM, unit=" um")
  ]
  hot_pixel_counts: Annotated[float, number(0)]
  clip_percentile: Annotated[float, number(above=0, high=100)]
  negative: Annotated[str, choice("refuse", "clip")] = "refuse"


@dataclasses.dataclass(frozen=True)
class ModelSection(Section):
  """The U-Net.

  Attributes:
    width: channels of the first level.
    depth: number of poolings.
    in_channels: of the image; more than it has are zeros.
    dtype: of the computation.
  """

  NAME = "model"

  width: Annotated[int, whole(1)]
  depth: Annotated[int, whole(0, 10)]
  in_channels: Annotated[int, whole(2)]
  dtype: Annotated[str, choice("float32", "bfloat16", "float16")]


@dataclasses.dataclass(frozen=True)
class PredictSection(Section):
  """How a network is applied.

  Attributes:
    tile_px: edge of the tiles; 0: what computes least.
    views: mirrored views of each tile.
    batch_size: tiles at once on each device; 0: what its memory allows.
    magnification: how many times larger than it is the network sees the
      tissue, see magnification.py.
    nuclear_evidence: share of the brightest nuclear signal around, from which
      on the image bears out what the network says; 0: it is not asked. See
      image/evidence.py.
    membrane_evidence: the same of the membrane/cytoplasm signal.
  """

  NAME = "predict"

  tile_px: Annotated[int, whole(0)]
  views: Annotated[int, choice(1, 4, 8)]
  batch_size: Annotated[int, whole(0)]
  magnification: Annotated[float | str, word_or(AUTO, number(0.1, 10))]
  nuclear_evidence: Annotated[float, number(0, 1)]
  membrane_evidence: Annotated[float, number(0.01, 1)]
