"""The schema of records: round trip, versions, and what check_record finds."""

import numpy as np
import pytest

from dicexmbd_jax.train import records

PATCH_PX = 4


def make_record():
  rng = np.random.default_rng(0)
  target = rng.random((PATCH_PX, PATCH_PX, 3)).astype(np.float32)
  target /= target.sum(axis=-1, keepdims=True)
  valid = np.ones((PATCH_PX, PATCH_PX, 1), np.float32)
  image = rng.uniform(0, 255, (PATCH_PX, PATCH_PX, 2)).astype(np.float32)
  valid[-1], image[-1], target[-1] = 0, 0, (0, 0, 1)
  return {
    "image": image,
    "target": target,
    "valid": valid,
    "record_id": "a:4:8",
    "source": "a.tiff",
    "group": "slide1",
    "origin": (4, 8),
    "scale": 0.5,
    "image_sha256": "i",
    "target_sha256": "t",
    "config_sha256": "c",
  }


def test_a_record_survives_storage():
  record = make_record()
  features = records.make_features(PATCH_PX)
  stored = records.encode_record(record)
  back = records.decode_record(
    features.deserialize_example_np(features.serialize_example(stored))
  )
  for name, value in record.items():
    if name != "target":
      np.testing.assert_array_equal(back[name], value)
  np.testing.assert_allclose(
    back["target"], record["target"], atol=0.51 / 65535
  )
  assert back["schema"] == records.SCHEMA_VERSION
  assert {name: back[name].dtype for name in ("image", "target", "valid")} == {
    "image": np.float32,
    "target": np.float32,
    "valid": np.float32,
  }


def test_background_and_full_probability_are_exact():
  record = make_record()
  back = records.decode_record(records.encode_record(record))
  np.testing.assert_array_equal(back["target"][-1], record["target"][-1])


def test_records_of_other_versions_are_read():
  stored = records.encode_record(make_record())
  newer = stored | {"depth_um": np.float32(7)}  # A field nobody knew before.
  older = {k: v for k, v in stored.items() if k != "pixels_sha256"}
  assert records.decode_record(newer)["record_id"] == "a:4:8"
  assert records.decode_record(older)["pixels_sha256"] == ""
  assert records.check_record(older) == []


def test_what_is_known_is_kept_and_guarded():
  record = make_record()
  known = np.ones((PATCH_PX, PATCH_PX, 3), np.float32)
  known[0, 1, 2] = 0
  stored = records.encode_record(record | {"known": known})
  np.testing.assert_array_equal(records.decode_record(stored)["known"], known)
  assert records.check_record(stored) == []
  stored["known"][0, 1, 2] = 1
  assert any("checksum" in line for line in records.check_record(stored))


def test_records_without_a_known_mask_are_known_all_over():
  stored = records.encode_record(make_record())
  older = {name: value for name, value in stored.items() if name != "known"}
  assert records.check_record(older) == []
  assert records.decode_record(older)["known"].all()
  assert older["pixels_sha256"] == stored["pixels_sha256"]


def test_a_newer_schema_is_refused():
  stored = records.encode_record(make_record())
  stored["schema"] = np.int32(records.SCHEMA_VERSION + 1)
  with pytest.raises(ValueError, match="a:4:8.*schema 2, expected up to 1"):
    records.decode_record(stored)


@pytest.mark.parametrize(
  ("field", "value"),
  [("image", np.nan), ("image", -1), ("image", 256), ("target", 1.01)],
)
def test_values_out_of_range_are_not_stored(field, value):
  record = make_record()
  record[field][0, 0, 0] = value
  with pytest.raises(ValueError, match=f"a:4:8: found {field} from"):
    records.encode_record(record)


def test_a_sound_record_passes():
  assert records.check_record(records.encode_record(make_record())) == []


@pytest.mark.parametrize(
  ("field", "place", "value", "words"),
  [
    ("image", (0, 0, 0), np.nan, "not finite"),
    ("image", (0, 0, 0), 300, "not 0..255"),
    ("image", (-1, 0, 0), 1, "padding"),
    ("target", 0, 0, "sum of 1"),
    ("target", (-1, 0), (65535, 0, 0), "padding"),
    ("valid", (0, 0, 0), 2, "other than 0 and 1"),
    ("valid", ..., 0, "no valid pixel"),
    ("known", (0, 0, 0), 2, "known has values other than 0 and 1"),
    ("known", ..., 0, "no valid pixel"),
  ],
)
def test_damage_is_found(field, place, value, words):
  stored = records.encode_record(make_record())
  stored[field][place] = value
  lines = records.check_record(stored)
  assert any(words in line for line in lines)
  assert any("checksum" in line for line in lines)
