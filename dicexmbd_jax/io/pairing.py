"""Pairs masks of one image by file name: predictions, references, stacks."""

import re
from collections.abc import Iterable, Mapping

from dicexmbd_jax.io import listing, pictures
from dicexmbd_jax.types import ImageSource, Panel

Sources = dict[str, ImageSource]
Failure = tuple[str, str, str]  # Image (the stem), file, error.


def list_sources(pattern: str) -> tuple[Sources, list[Failure]]:
  """Lists images by stem, in natural order.

  Args:
    pattern: file, folder or glob, as in listing.list_images.

  Returns:
    The files by stem, and what cannot be used.

  Raises:
    ValueError: nothing is there.
  """
  return _index_stems(*listing.list_images(pattern))


def list_stacks(
  pattern: str, panel: Panel | None
) -> tuple[Sources, list[Failure]]:
  """Lists images as list_sources does, those of one file per channel too.

  Args:
    pattern: as of listing.list_stacks.
    panel: what the channels are; None where none was given.
  """
  return _index_stems(*listing.list_stacks(pattern, panel))


def list_masks(pattern: str) -> tuple[Sources, list[Failure]]:
  """Lists masks as list_sources lists images; PNG where nothing else is."""
  return _index_stems(*pictures.list_images_or_png(pattern))


def _index_stems(
  sources: Iterable[ImageSource], lost: Iterable[listing.Failure]
) -> tuple[Sources, list[Failure]]:
  failures = [(listing.get_stem(path), str(path), line) for path, line in lost]
  return {source.stem: source for source in sources}, failures


def match_alone(masks: Sources, references: Sources) -> Sources:
  """Gives the only mask the only reference's stem: two files, both named."""
  if len(masks) == len(references) == 1:
    return dict(zip(references, masks.values(), strict=True))
  return masks


def pair_sources(
  masks: Sources, references: Sources, pattern: str
) -> tuple[Sources, list[Failure]]:
  """Finds the mask of each reference; whoever stays alone is a failure.

  Args:
    masks: by stem.
    references: by stem.
    pattern: where the masks come from, for messages.

  Returns:
    The masks under the references' stems and in their order, and the failures.
  """
  masks = strip_tag(masks, references)
  failures = []
  for stem, source in masks.items():
    if stem not in references:
      line = f"{source.path}: found no reference {stem}, expected one"
      failures.append((stem, str(source.path), line))
  for stem in references:
    if stem not in masks:
      line = f"{pattern}: found no mask {stem}, expected one"
      failures.append((stem, pattern, line))
  pairs = {stem: masks[stem] for stem in references if stem in masks}
  return pairs, failures


def strip_tag(masks: Sources, references: Mapping[str, object]) -> Sources:
  """Takes a tag such as `_cp_masks` off the stems if only then any fits.

  A tag ends every stem, starts with one of "_-. " and holds a letter. Of
  several, the shortest that leaves the stem of a reference is taken: a number
  before it tells images apart.
  """
  if not masks or any(stem in references for stem in masks):
    return masks
  first = next(iter(masks))
  tags = [first[i:] for i in range(1, len(first)) if first[i] in "_-. "]
  for tag in reversed(tags):
    is_common = all(stem.endswith(tag) for stem in masks)
    if is_common and re.search("[a-zA-Z]", tag):
      short = {stem.removesuffix(tag): mask for stem, mask in masks.items()}
      if any(stem in references for stem in short):
        return short
  return masks
