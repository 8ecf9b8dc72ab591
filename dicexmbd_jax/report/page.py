"""What the pages share: one HTML file that needs nothing but itself."""

import functools
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import jinja2

NO_VALUE = "–"
# Not allowed in HTML, whatever a file name or an error message holds.
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


def fill_template(
  name: str, filters: Mapping[str, Callable[..., str]], **values: Any
) -> str:
  """Fills a template of this folder.

  Args:
    name: of its file.
    filters: what the template calls, by name.
    **values: what it shows.

  Returns:
    HTML that encodes as UTF-8 without errors.
  """
  environment = _load_environment()
  environment.filters.update(filters)
  page = environment.get_template(name).render(values)
  clean = _CONTROLS.sub("\ufffd", page)
  # File names that are no UTF-8 reach us as lone surrogates.
  return clean.encode("utf-8", "replace").decode("utf-8")


def format_score(value: float | None) -> str:
  """Writes a score with three decimals, a dash where there is none."""
  is_missing = value is None or not math.isfinite(value)
  return NO_VALUE if is_missing else f"{value:.3f}"


@functools.cache
def _load_environment() -> jinja2.Environment:
  return jinja2.Environment(
    loader=jinja2.PackageLoader("dicexmbd_jax", "report"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
