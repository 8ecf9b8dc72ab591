"""import_weights: the published layout on our network, read without torch."""

import io
import os
import pathlib
import pickle
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest

from dicexmbd_jax import __main__ as program
from dicexmbd_jax.model import reference_weights, torch_file, weights

DATA = pathlib.Path(__file__).parent.parent / "data"
STATE_DICT = DATA / "torch_unet.pth"


def import_weights(path, output):
  return program.main(
    ["import_weights", f"--state_dict={path}", f"--output={output}"]
  )


def test_the_network_answers_as_in_pytorch(tmp_path):
  assert import_weights(STATE_DICT, tmp_path / "model") == 0
  model, config = weights.read_model(tmp_path / "model")
  assert config.model.width == 2
  assert config.model.in_channels == 3
  assert config.image.preset == "reference"
  assert config.segment.preset == "dice_xmbd"
  assert config.predict.magnification == 1
  with np.load(DATA / "torch_unet.npz") as stored:
    found = model(jnp.asarray(stored["image"]))
    np.testing.assert_allclose(found, stored["logits"], atol=1e-4)
    assert np.ptp(stored["logits"]) > 0.1


def test_another_model_is_not_written_over(tmp_path, caplog):
  folder = tmp_path / "model"
  for _ in range(2):  # Its own may be written anew.
    assert import_weights(STATE_DICT, folder) == 0
  path = folder / "params.npz"
  with np.load(path) as stored:
    arrays = dict(stored)
  arrays["head/bias"] += 1
  np.savez(path, **arrays)
  before = path.read_bytes()
  assert import_weights(STATE_DICT, folder) == 2
  assert f"{folder}: found another config.json or its" in caplog.text
  assert path.read_bytes() == before


@pytest.mark.parametrize("seed", range(3))
def test_live_against_pytorch(seed, tmp_path):
  torch = pytest.importorskip("torch")
  import make_torch_reference

  network = make_torch_reference.make_network(8, seed)
  torch.save({"state_dict": network.state_dict()}, tmp_path / "net.pth")
  image = np.random.default_rng(seed).uniform(0, 1, (1, 64, 48, 3))
  image = image.astype(np.float32)
  with torch.no_grad():
    wanted = network(torch.from_numpy(image).permute(0, 3, 1, 2))
  assert import_weights(tmp_path / "net.pth", tmp_path / "model") == 0
  found = weights.read_model(tmp_path / "model")[0](jnp.asarray(image))
  np.testing.assert_allclose(
    found, wanted.permute(0, 2, 3, 1).numpy(), atol=1e-4
  )


def write_archive(path, pickled):
  with zipfile.ZipFile(path, "w") as archive:
    archive.writestr("net/data.pkl", pickled)


class Evil:
  """What a file could make a careless reader do."""

  def __init__(self, command):
    self.command = command

  def __reduce__(self):
    return os.system, (self.command,)


def test_a_pickle_that_calls_something_is_refused(tmp_path, caplog):
  marker, path = tmp_path / "was_here", tmp_path / "evil.pth"
  evil = Evil(f"touch {marker}")
  write_archive(path, pickle.dumps({"conv1": evil}, protocol=2))
  assert import_weights(path, tmp_path / "model") == 2
  assert "system" in caplog.text
  assert not marker.exists()
  assert not (tmp_path / "model").exists()


def rebuild(kind, values, offset, shape, strides):
  """Reads one tensor as the file reader does."""
  reader = torch_file._TensorUnpickler(io.BytesIO(), make_zip(values), "net/")
  storage = reader.persistent_load(("storage", kind, "0", "cpu", len(values)))
  return torch_file._rebuild_tensor(storage, offset, shape, strides, False)


def make_zip(values):
  file = io.BytesIO()
  with zipfile.ZipFile(file, "w") as archive:
    archive.writestr("net/data/0", values.tobytes())
  return zipfile.ZipFile(file)


def test_strides_offsets_and_types():
  values = np.arange(8, dtype="<f2")
  found = rebuild("HalfStorage", values, 1, (2, 3), (1, 2))
  np.testing.assert_array_equal(found, [[1, 3, 5], [2, 4, 6]])
  upper = (np.array([1.5, -2], "<f4").view("<u4") >> 16).astype("<u2")
  found = rebuild("BFloat16Storage", upper, 0, (2,), (1,))
  np.testing.assert_array_equal(found, np.array([1.5, -2], np.float32))
  scalar = rebuild("LongStorage", np.array([7], "<i8"), 0, (), ())
  assert scalar == 7
  empty = rebuild("HalfStorage", values, 8, (0, 4), (4, 1))
  assert empty.shape == (0, 4)


@pytest.mark.parametrize(
  ("offset", "shape", "strides", "message"),
  [
    (1, (2, 4), (1, 2), "outside its storage"),
    (0, (9,), (1,), "outside its storage"),
    (0, (2,), (-1,), "overlap"),
    (-1, (1,), (1,), "outside its storage"),
    (0, (1 << 40,), (0,), "overlap"),
    (0, (2, 1 << 30), (1, 0), "overlap"),
    (0, (4, 4), (1, 1), "overlap"),
    (0, (2.0, 2), (2, 1), "whole numbers"),
  ],
)
def test_tensors_that_their_storage_does_not_hold(
  offset, shape, strides, message
):
  values = np.arange(8, dtype="<f2")
  with pytest.raises(ValueError, match=message):
    rebuild("HalfStorage", values, offset, shape, strides)


def write_tensors(path, pickled, name="data/0", method=zipfile.ZIP_STORED):
  with zipfile.ZipFile(path, "w", method) as archive:
    archive.writestr("net/data.pkl", pickled)
    archive.writestr(f"net/{name}", np.arange(4, dtype="<f4").tobytes())


# {"a": tensor}: four numbers, each as it lies in the storage.
TENSOR = (
  b"\x80\x02}X\x01\0\0\0actorch._utils\n_rebuild_tensor_v2\n"
  b"((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\0"
  b"0X\x03\0\0\0cpuK\x04tQK\0K\x04\x85K\x01\x85\x89)tRs."
)


def test_a_tensor_by_hand(tmp_path):
  write_tensors(tmp_path / "a.pth", TENSOR)
  found = torch_file.read_state_dict(tmp_path / "a.pth")
  np.testing.assert_array_equal(found["a"], [0, 1, 2, 3])


@pytest.mark.parametrize(
  ("pickled", "message"),
  [
    (TENSOR[:-1] + b"r\xf0\xf0\xf0\xf0.", "the memo index 4042322160"),
    (TENSOR[:-1] + b"2.", "a pickle with DUP"),
    (TENSOR[:-1] + b"\x8e" + bytes(8) + b"0.", "BINBYTES8"),
    (TENSOR.replace(b"K\x01\x85", b"K\0\x85"), "overlap"),
    (TENSOR.replace(b"K\x04tQ", b"K\x05tQ"), "4 of 5 numbers in data/0"),
    (TENSOR[:-1], "pickle exhausted before seeing STOP"),
  ],
)
def test_pickles_that_ask_for_more_than_there_is(tmp_path, pickled, message):
  write_tensors(tmp_path / "a.pth", pickled)
  with pytest.raises(ValueError, match=message) as caught:
    torch_file.read_state_dict(tmp_path / "a.pth")
  assert str(caught.value).startswith(f"{tmp_path / 'a.pth'}: found ")


def test_archives_that_torch_does_not_write(tmp_path):
  path = tmp_path / "a.pth"
  write_tensors(path, TENSOR, method=zipfile.ZIP_DEFLATED)
  with pytest.raises(ValueError, match="found compressed members"):
    torch_file.read_state_dict(path)
  write_tensors(path, TENSOR, "byteorder")
  with pytest.raises(ValueError, match="found another byte order"):
    torch_file.read_state_dict(path)
  write_tensors(path, TENSOR)
  data = bytearray(path.read_bytes())
  at = data.rindex(b"PK\1\2") + 20  # Of data/0: both sizes.
  data[at : at + 8] = b"\xff\xff\xff\x7f" * 2
  path.write_bytes(data)
  with pytest.raises(ValueError, match="found members of more than"):
    torch_file.read_state_dict(path)


@pytest.mark.parametrize("length", [0, 100, 4000, -30])
def test_cut_files_are_one_line(tmp_path, caplog, length):
  path = tmp_path / "cut.pth"
  path.write_bytes(STATE_DICT.read_bytes()[:length])
  assert import_weights(path, tmp_path / "model") == 2
  [line] = caplog.messages
  assert str(path) in line and "expected" in line


def test_other_networks_are_refused():
  tensors = torch_file.read_state_dict(STATE_DICT)
  with pytest.raises(ValueError, match="found no up7.bias"):
    reference_weights.build_model(
      {name: one for name, one in tensors.items() if name != "up7.bias"}
    )
  with pytest.raises(ValueError, match="found conv11.bias"):
    reference_weights.build_model({**tensors, "conv11.bias": np.zeros(3)})
  with pytest.raises(ValueError, match="ups/2/bias: found"):
    reference_weights.build_model({**tensors, "up7.bias": np.zeros(3)})
  with pytest.raises(ValueError, match="published U-Net"):
    reference_weights.build_model({"weight": np.zeros(3)})


@pytest.mark.parametrize(
  ("name", "change", "message"),
  [
    ("conv3.conv.0.weight", lambda one: one * np.nan, "found NaN"),
    ("conv3.conv.1.running_mean", lambda one: one + np.inf, "found NaN"),
    ("conv3.conv.1.running_var", lambda one: -one, "expected 0 or more"),
    ("conv2.conv.0.bias", lambda one: one[:1], r"found \(1,\), expected"),
    ("conv1.conv.0.weight", lambda one: one[:, :1], "found 1 input channel"),
    ("up6.weight", lambda one: one[0], "expected 4 axes"),
  ],
)
def test_weights_that_nobody_can_predict_with(name, change, message):
  tensors = torch_file.read_state_dict(STATE_DICT)
  with pytest.raises(ValueError, match=message) as caught:
    reference_weights.build_model({**tensors, name: change(tensors[name])})
  assert str(caught.value).startswith(name)


def test_damaged_files_are_one_line(tmp_path):
  data = STATE_DICT.read_bytes()
  rng = np.random.default_rng(0)
  path, refused = tmp_path / "damaged.pth", 0
  for _ in range(300):
    damaged = bytearray(data)
    if rng.random() < 0.2:
      damaged = damaged[: rng.integers(len(data))]
    for _ in range(rng.integers(1, 30)):
      if damaged:
        damaged[rng.integers(len(damaged))] = rng.integers(256)
    path.write_bytes(damaged)
    try:
      torch_file.read_state_dict(path)
    except ValueError as error:
      refused += 1
      assert str(error).startswith(str(path))
      assert "\n" not in str(error)
  assert refused > 200
