"""The schema of training records: what builders write and readers get.

A record is one patch: the two-channel image as the network sees it, the
teacher's three maps, which pixels are real and which of their classes the
teacher knows. Everything that is stored is
named here, and nowhere else.

Versions: fields may be added without a new number, since readers ignore what
they do not know and fill in what older records lack. `SCHEMA_VERSION` rises
only where a field's meaning changes; then older readers refuse in one line.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

SCHEMA_VERSION = 1
FULL = 65535  # Stands for a probability of 1 in the stored target.
_TEXTS = (
  "record_id",  # "stem:y:x" or "stem:y:x+panel", unique in a dataset.
  "source",  # Name of the image's file, with zip member and acquisition.
  "group",  # What is never split: slide, patient or image.
  "image_sha256",  # Of the image's file.
  "target_sha256",  # Of the teacher's file or files.
  "config_sha256",  # Of all settings that decide pixels.
  "pixels_sha256",  # Of this record's own arrays; see hash_pixels.
)
# Mean over pixels of |nucleus + membrane + background - 1|. Ilastik's maps sum
# to 1; a network's, each from its own sigmoid, were seen to miss it by 0.015.
MAX_SUM_ERROR = 0.05
_MAX_LEVEL = 255.0


def make_features(patch_px: int) -> tfds.features.FeaturesDict:
  """Returns the stored features of patches of p = `patch_px`.

  image float32 (p, p, 2) in 0..255; target uint16 (p, p, 3), 65535 = 1:
  nucleus, membrane/cytoplasm, background; valid uint8 (p, p, 1), 1 = pixel of
  the image, 0 = padding, whose target is background; known uint8 (p, p, 3), 0
  = the teacher does not tell whether the pixel is of this class, and the loss
  leaves it out (as where only nuclei were drawn); origin int32 (y, x) in
  px of the network's grid; scale float32, um of a source pixel per um of a
  network pixel; schema int32; and the texts.
  """

  def tensor(channels: int, dtype: Any) -> tfds.features.Tensor:
    # Bytes, not zlib: array_record compresses by itself.
    shape = (patch_px, patch_px, channels)
    return tfds.features.Tensor(shape=shape, dtype=dtype, encoding="bytes")

  return tfds.features.FeaturesDict(
    {
      "image": tensor(2, np.float32),
      "target": tensor(3, np.uint16),
      "valid": tensor(1, np.uint8),
      "known": tensor(3, np.uint8),
      "origin": tfds.features.Tensor(shape=(2,), dtype=np.int32),
      "scale": np.float32,
      "schema": np.int32,
      **{name: tfds.features.Text() for name in _TEXTS},
    }
  )


def encode_record(record: Mapping[str, Any]) -> dict[str, Any]:
  """Turns a patch into what is stored.

  Args:
    record: what `decode_record` gives; `schema` and `pixels_sha256` are set
      here. Without `known` all is known.

  Returns:
    The features of `make_features`; targets are rounded to 1 / 65535.

  Raises:
    ValueError: an image or a target that is out of range or not finite.
  """
  image = np.ascontiguousarray(record["image"], np.float32)
  target = np.asarray(record["target"], np.float32)
  _check_range(record["record_id"], "image", image, _MAX_LEVEL)
  _check_range(record["record_id"], "target", target, 1.0)
  stored = {
    "image": image,
    "target": np.rint(target * np.float32(FULL)).astype(np.uint16),
    "valid": np.ascontiguousarray(record["valid"], np.uint8),
    "known": _get_known(record),
    "origin": np.asarray(record["origin"], np.int32),
    "scale": np.float32(record["scale"]),
    "schema": np.int32(SCHEMA_VERSION),
  }
  texts = {name: str(record.get(name, "")) for name in _TEXTS}
  return stored | texts | {"pixels_sha256": hash_pixels(stored)}


def decode_record(raw: Mapping[str, Any]) -> dict[str, Any]:
  """Turns what is stored into what the network takes.

  Args:
    raw: as `complete_record` takes it.

  Returns:
    As `complete_record`, but image, target (0..1), valid and known float32.

  Raises:
    ValueError: a record of a newer schema.
  """
  return decode_arrays(complete_record(raw))


def decode_arrays(stored: Mapping[str, Any]) -> dict[str, Any]:
  """Returns a record or a batch whose arrays are as the network takes them.

  For arrays of NumPy and of JAX, which give the same bits: batches travel to
  the devices as they are stored, in half of the bytes.

  Args:
    stored: image, target, valid and known; a target of floats is 0..1 already.
      All else stays as it is.
  """
  target = stored["target"]
  if target.dtype == np.uint16:
    # Not divided, which compilers round in other ways than NumPy.
    target = target.astype(np.float32) * np.float32(1 / FULL)
  masks = {name: stored[name].astype(np.float32) for name in ("valid", "known")}
  return {**stored, **masks, "target": target}


def complete_record(raw: Mapping[str, Any]) -> dict[str, Any]:
  """Returns a record as it is stored, with what it lacks.

  Args:
    raw: one example as TFDS reads it, of this schema or an older one.

  Returns:
    image float32 (p, p, 2), target uint16 (p, p, 3), 65535 = 1, valid uint8
    (p, p, 1), known uint8 (p, p, 3), origin (y, x) as a tuple, scale float,
    schema int, texts as str; a text that the record lacks is "".

  Raises:
    ValueError: a record of a newer schema.
  """
  schema = int(raw.get("schema", 1))
  if schema > SCHEMA_VERSION:
    raise ValueError(
      f"record {_read_text(raw, 'record_id')!r}: found schema {schema}, "
      f"expected up to {SCHEMA_VERSION}; a newer version of this program reads "
      "it"
    )
  texts = {name: _read_text(raw, name) for name in _TEXTS}
  return texts | {
    "image": np.asarray(raw["image"], np.float32),
    "target": np.asarray(raw["target"], np.uint16),
    "valid": np.asarray(raw["valid"], np.uint8),
    "known": _get_known(raw),
    "origin": tuple(int(value) for value in raw.get("origin", (0, 0))),
    "scale": float(raw.get("scale", 1.0)),
    "schema": schema,
  }


def hash_pixels(raw: Mapping[str, Any]) -> str:
  """Returns a SHA-256 of the stored image, target, valid and known masks.

  What is known counts only where something is not: older records, which have
  no such mask, keep their checksum.
  """
  digest = hashlib.sha256()
  for name in ("image", "target", "valid"):
    digest.update(np.ascontiguousarray(raw[name]).tobytes())
  known = _get_known(raw)
  if (known != 1).any():
    digest.update(known.tobytes())
  return digest.hexdigest()


def check_record(raw: Mapping[str, Any]) -> list[str]:
  """Says what is wrong with a stored record, one line each; [] if nothing.

  Checked are the checksum, ranges, numbers that are not finite, a target
  whose maps are far from summing to 1, a mask other than 0 and 1, and padding
  that is not empty.
  """
  lines = []
  image, target, valid = raw["image"], raw["target"], raw["valid"]
  if not np.isfinite(image).all():
    lines.append("image has values that are not finite")
  elif image.min() < 0 or image.max() > _MAX_LEVEL:
    lines.append(f"image has values {image.min()} to {image.max()}, not 0..255")
  known = _get_known(raw)
  for name, mask in (("valid", valid), ("known", known)):
    if not np.isin(mask, (0, 1)).all():
      lines.append(f"{name} has values other than 0 and 1")
  off = np.abs(target.sum(axis=-1, dtype=np.int64) - FULL).mean() / FULL
  if off > MAX_SUM_ERROR:
    lines.append(f"target's maps miss a sum of 1 by {off:.3f} on average")
  padding = valid[..., 0] == 0
  if image[padding].any() or (target[padding] != (0, 0, FULL)).any():
    lines.append("padding is not zero with background as its target")
  if not (valid * known).any():
    lines.append("no valid pixel of which a class is known")
  stored = _read_text(raw, "pixels_sha256")
  if stored and stored != hash_pixels(raw):
    lines.append("pixels do not have their checksum")
  return lines


def _get_known(record: Mapping[str, Any]) -> np.ndarray:
  """Returns the mask, uint8; all 1 where the record has none."""
  if "known" not in record:
    return np.ones(np.shape(record["target"]), np.uint8)
  return np.ascontiguousarray(record["known"], np.uint8)


def _check_range(
  name: str, field: str, values: np.ndarray, highest: float
) -> None:
  low, high = values.min(initial=0), values.max(initial=0)
  # Written so that NaN fails, too.
  if not (low >= 0 and high <= highest):
    raise ValueError(
      f"record {name}: found {field} from {low} to {high}, expected 0 to "
      f"{highest:g}"
    )


def _read_text(raw: Mapping[str, Any], name: str) -> str:
  value = raw.get(name, "")
  return value.decode() if isinstance(value, bytes) else str(value)
