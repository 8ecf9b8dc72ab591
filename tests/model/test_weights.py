"""Model folders: what is written comes back, and damage is named."""

import json
import os
import pathlib

import jax
import numpy as np
import pytest
from flax import nnx

from configs import default
from dicexmbd_jax import config as config_lib
from dicexmbd_jax.model import unet, weights


@pytest.fixture
def config():
  config = default.get_config()
  config.model.update({"width": 2, "depth": 1})
  return config


@pytest.fixture
def folder(tmp_path, config):
  weights.write_model(tmp_path, unet.build_model(config.model, 5), config)
  return tmp_path


def test_a_model_comes_back(folder, config):
  written = unet.build_model(config.model, 5)
  read, found = weights.read_model(folder)
  assert json.loads(found.to_json()) == json.loads(config.to_json())
  for before, after in zip(
    jax.tree.leaves(nnx.state(written)),
    jax.tree.leaves(nnx.state(read)),
    strict=True,
  ):
    assert after.dtype == before.dtype
    np.testing.assert_array_equal(after, before.astype("float16"))


def test_the_type_of_the_computation_can_be_chosen(folder):
  model, config = weights.read_model(folder, dtype="bfloat16")
  assert config.model.dtype == "bfloat16"
  assert model.encoders[0].conv1.dtype == jax.numpy.bfloat16
  assert model.encoders[0].conv1.kernel[...].dtype == jax.numpy.float32


def test_the_hash_follows_the_parameters(folder, config, tmp_path):
  other = tmp_path / "other"
  weights.write_model(other, unet.build_model(config.model, 6), config)
  assert config_lib.hash_model(folder) != config_lib.hash_model(other)


def test_weights_of_another_network_are_refused(folder, config):
  config.model.width = 4
  (folder / "config.json").write_text(config.to_json())
  with pytest.raises(ValueError, match=r"params.npz.*found \(.*expected \("):
    weights.read_model(folder)


def test_a_deeper_network_misses_parameters(folder, config):
  config.model.depth = 2
  (folder / "config.json").write_text(config.to_json())
  with pytest.raises(ValueError, match=r"found nothing|found \("):
    weights.read_model(folder)


@pytest.mark.parametrize("spoil", ["missing", "no JSON"])
def test_a_folder_without_model_is_refused(tmp_path, spoil):
  if spoil == "no JSON":
    (tmp_path / "config.json").write_text("{")
  with pytest.raises(ValueError, match="expected a model folder"):
    weights.read_model(tmp_path)


@pytest.mark.parametrize("content", [None, b"", b"no zip file at all"])
def test_broken_parameters_are_refused(folder, content):
  path = folder / "params.npz"
  path.unlink()
  if content is not None:
    path.write_bytes(content)
  with pytest.raises(ValueError, match=r"params.npz: found .*expected param"):
    weights.read_model(folder)


@pytest.mark.parametrize("changes", [{}, {"width": 4}])
@pytest.mark.parametrize("killed_at", range(4))
def test_a_write_that_was_killed_leaves_no_mixed_model(
  folder, config, monkeypatch, changes, killed_at
):
  """Killed before the nth change of a file: the old, the new, or no model."""

  class KilledError(BaseException):
    pass

  old = unet.build_model(config.model, 5)
  weights.write_model(folder, old, config, numbers={"step": 5})
  config.model.update(changes)
  config.seed = 6 if changes else config.seed
  new = unet.build_model(config.model, 6)
  left = [killed_at]

  def stop_at(change):
    def changed(*arguments, **options):
      if not left[0]:
        raise KilledError
      left[0] -= 1
      return change(*arguments, **options)

    return changed

  with monkeypatch.context() as patch:
    patch.setattr(os, "replace", stop_at(os.replace))
    patch.setattr(pathlib.Path, "unlink", stop_at(pathlib.Path.unlink))
    with pytest.raises(KilledError):
      weights.write_model(folder, new, config, numbers={"step": 6})
  try:
    found, its_config = weights.read_model(folder)
  except ValueError as error:
    assert changes
    assert "expected a model folder" in str(error)
    return
  kernel = np.asarray(found.head.kernel[...])
  matches = {
    step: kernel.shape == wanted.head.kernel.shape
    and np.allclose(kernel, wanted.head.kernel[...], atol=1e-3)
    for step, wanted in ((5, old), (6, new))
  }
  assert sum(matches.values()) == 1
  [step] = [step for step, is_it in matches.items() if is_it]
  if changes:
    assert (its_config.seed == 6) == (step == 6)
  assert weights.read_numbers(folder) in ({}, {"step": step})
