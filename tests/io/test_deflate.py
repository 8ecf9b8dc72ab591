"""Streams that every reader of zlib's knows, and strips of a TIFF."""

import zlib

import numpy as np
import pytest
import tifffile

from dicexmbd_jax.io import deflate


def draw(shape, dtype):
  highest = np.iinfo(dtype).max
  values = np.random.default_rng(0).integers(0, highest, shape, endpoint=True)
  return values.astype(dtype)


@pytest.mark.parametrize("shape", [(0,), (7,), (300, 400), (3, 0, 2)])
def test_a_stream_is_zlibs(shape):
  values = draw(shape, np.uint16)
  assert zlib.decompress(deflate.pack(values)) == values.tobytes()
  assert zlib.decompress(deflate.pack(values.T)) == values.T.tobytes()
  assert zlib.decompress(deflate.pack(values.tobytes())) == values.tobytes()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32])
@pytest.mark.parametrize(
  "shape", [(1, 1), (5, 1, 3), (700, 500), (400, 300, 3), (2, 2**18)]
)
def test_strips_are_those_of_a_tiff(dtype, shape, tmp_path):
  pixels = draw(shape, dtype)
  before = pixels.copy()
  strips = [*deflate.pack_strips(pixels)]
  assert len(strips) == -(-len(pixels) // deflate.count_rows(pixels))
  tifffile.imwrite(
    tmp_path / "a.tiff",
    iter(strips),
    shape=shape,
    dtype=dtype,
    photometric="rgb" if len(shape) == 3 else "minisblack",
    compression="zlib",
    rowsperstrip=deflate.count_rows(pixels),
    predictor=True,
  )
  np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.tiff"), before)
  np.testing.assert_array_equal(pixels, before)
