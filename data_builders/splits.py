"""Which images train, which choose the weights, which are kept for the test.

Patches of one group, a slide or a patient, never part: a network that has seen
one of them would look better on the others than it is.
"""

import dataclasses
import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from absl import logging

from dicexmbd_jax.sections import TEXT, Kind, number, show, whole

SPLITS = ("train", "validation", "test")


def _is_names(value: Any) -> bool:
  return isinstance(value, list | tuple) and all(map(TEXT.accepts, value))


# What each split gets, in each way to deal.
_KINDS = {
  "shares": number(0, 1),
  "counts": whole(0),
  "lists": Kind("a list of names", _is_names),
}


@dataclasses.dataclass(frozen=True)
class Rule:
  """How groups are told, and how they are dealt out.

  Attributes:
    pattern: regular expression on an image's name; its first group, or else
      the whole match, is the group's name. None: each image is a group.
    table: group by image name, from a CSV; goes before the pattern.
    salt: decides who falls where.
    shares: split -> share of the groups; they sum to 1.
    counts: split -> number of images, or empty. Needs all images at once.
    lists: split -> names of groups or images; go before all else.
  """

  pattern: str | None
  table: Mapping[str, str] | None
  salt: str
  shares: Mapping[str, float]
  counts: Mapping[str, int]
  lists: Mapping[str, Sequence[str]]


def make_rule(config: Any, table: Mapping[str, str] | None = None) -> Rule:
  """Reads and checks the rule of the config's section `records`.

  Raises:
    ValueError: unknown splits, values that cannot be meant, shares that do not
      sum to 1, a name in two lists, or an expression that is none.
  """
  shares, counts, lists = (
    _read_splits(config, name) for name in ("shares", "counts", "lists")
  )
  if abs(sum(shares.values()) - 1) > 1e-6:
    raise ValueError(
      f"config.records.shares: found a sum of {sum(shares.values())}, "
      "expected 1"
    )
  names = [name for listed in lists.values() for name in listed]
  if twice := sorted({name for name in names if names.count(name) > 1}):
    raise ValueError(
      f"config.records.lists: found {twice[0]} twice, expected it once"
    )
  try:
    re.compile(config.group_pattern or "")
  except re.error as error:
    raise ValueError(
      f"config.records.group_pattern: found {config.group_pattern!r} ({error}),"
      " expected a regular expression"
    ) from error
  return Rule(config.group_pattern, table, config.salt, shares, counts, lists)


def find_group(stem: str, rule: Rule) -> str:
  """Returns the group of an image.

  Raises:
    ValueError: neither table nor pattern knows the image.
  """
  if rule.table is not None:
    if stem not in rule.table:
      raise ValueError(
        f"{stem}: found no group of it in --groups, expected a row"
      )
    return rule.table[stem]
  if rule.pattern is None:
    return stem
  match = re.search(rule.pattern, stem)
  group = match and (match[1] if match.re.groups else match[0])
  if not group:
    raise ValueError(
      f"{stem}: found no group in its name, expected a match of "
      f"config.records.group_pattern {rule.pattern!r}"
    )
  return group


def split_images(groups: Mapping[str, str], rule: Rule) -> dict[str, str]:
  """Returns the split of each image.

  Args:
    groups: group by image.
    rule: how they are dealt out. By shares, a group's split hangs on its name
      and the salt alone: images that come later move none.

  Raises:
    ValueError: lists that part a group, or counts that do not come out.
  """
  listed = _split_listed(groups, rule.lists)
  rest = {stem: group for stem, group in groups.items() if group not in listed}
  if rule.counts:
    dealt = _deal_counts(rest, rule)
  else:
    dealt = {
      group: choose_split(group, rule.salt, rule.shares)
      for group in rest.values()
    }
  splits = listed | dealt
  return {stem: splits[group] for stem, group in groups.items()}


def choose_split(group: str, salt: str, shares: Mapping[str, float]) -> str:
  """Returns the split of a group: where its hash falls among the shares."""
  place, end = hash_group(group, salt), 0.0
  for split in SPLITS:
    end += shares.get(split, 0.0)
    if place < end:
      return split
  return max(shares, key=lambda split: shares[split])  # Sum is 1 to rounding.


def hash_group(group: str, salt: str) -> float:
  """Returns a number in [0, 1) that hangs on group and salt alone."""
  digest = hashlib.sha256(f"{salt}:{group}".encode()).digest()
  # 53 bits are what a float holds: more would round up to 1.
  return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


def _split_listed(
  groups: Mapping[str, str], lists: Mapping[str, Sequence[str]]
) -> dict[str, str]:
  """Returns split by group, of groups that are listed or hold listed images."""
  found: dict[str, str] = {}
  names = {name: split for split, listed in lists.items() for name in listed}
  for stem, group in groups.items():
    for name in (group, stem):
      split = names.get(name)
      if split is None:
        continue
      if found.setdefault(group, split) != split:
        raise ValueError(
          f"config.records.lists: found group {group} in {found[group]} and "
          f"{split}, expected a group in one split"
        )
  if odd := sorted({*names} - {*groups, *groups.values()}):
    logging.warning(
      "config.records.lists: found %s, which no image and no group is named",
      ", ".join(odd),
    )
  return found


def _deal_counts(groups: Mapping[str, str], rule: Rule) -> dict[str, str]:
  """Deals groups out in the order of their hashes until the splits are full."""
  sizes: dict[str, int] = {}
  for group in groups.values():
    sizes[group] = sizes.get(group, 0) + 1
  left = {split: rule.counts.get(split, 0) for split in SPLITS}
  if sum(left.values()) != len(groups):
    raise ValueError(
      f"config.records.counts: found {dict(rule.counts)}, expected a sum of "
      f"{len(groups)}, the number of images"
    )
  dealt = {}
  order = sorted(sizes, key=lambda group: hash_group(group, rule.salt))
  # Large groups first: what is left then fits in somewhere.
  for group in sorted(order, key=lambda group: -sizes[group]):
    split = next((s for s in SPLITS if left[s] >= sizes[group]), None)
    if split is None:
      raise ValueError(
        f"config.records.counts: found no split with room for the "
        f"{sizes[group]} images of group {group}, expected other counts"
      )
    left[split] -= sizes[group]
    dealt[group] = split
  return dealt


def _read_splits(config: Any, name: str) -> dict[str, Any]:
  """Returns what each split gets, checked."""
  kind, found = _KINDS[name], config[name].to_dict()
  for split, value in found.items():
    if split not in SPLITS:
      raise ValueError(
        f"config.records.{name}: found {split!r}, expected {SPLITS}"
      )
    if not kind.accepts(value):
      raise ValueError(
        f"config.records.{name}.{split}: found {show(value)}, expected "
        f"{kind.text}"
      )
  return found
