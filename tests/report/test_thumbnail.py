import base64
import io

import numpy as np
import pytest
import tifffile
from PIL import Image as pillow

from dicexmbd_jax.report import overlay, thumbnail


def open_picture(picture):
  return pillow.open(io.BytesIO(base64.b64decode(picture.jpeg)))


def test_make_pictures_stay_below_their_bounds_on_pure_noise():
  rng = np.random.default_rng(0)
  noise = rng.integers(0, 256, (1000, 1500, 3), np.uint8)
  pictures = thumbnail.make_pictures(
    pillow.fromarray(noise), np.array([[10.0, 10.0]]), 0.25
  )
  bounds = {
    "small": (thumbnail.SMALL_PX, thumbnail.SMALL_BYTES),
    "overview": (thumbnail.OVERVIEW_PX, thumbnail.OVERVIEW_BYTES),
    "detail": (thumbnail.DETAIL_PX, thumbnail.DETAIL_BYTES),
  }
  assert set(pictures) == set(bounds)
  for name, (edge_px, max_bytes) in bounds.items():
    picture = pictures[name]
    assert len(base64.b64decode(picture.jpeg)) <= max_bytes
    opened = open_picture(picture)
    assert opened.format == "JPEG"
    assert opened.size == (picture.width_px, picture.height_px)
    assert max(opened.size) <= edge_px


def test_make_pictures_state_the_width_of_the_tissue():
  overlay = pillow.new("RGB", (1500, 1000))
  pictures = thumbnail.make_pictures(overlay, np.array([[10.0, 10.0]]), 0.25)
  assert pictures["overview"].width_um == 375.0
  assert pictures["detail"].width_um == 120.0
  assert (pictures["overview"].width_px, pictures["overview"].height_px) == (
    720,
    480,
  )


def test_make_pictures_keep_colours():
  overlay = pillow.new("RGB", (60, 50), (64, 112, 255))
  picture = thumbnail.make_pictures(overlay, np.zeros((0, 2)), 1.0)["overview"]
  pixels = np.asarray(open_picture(picture)).astype(int)
  assert pixels.shape == (50, 60, 3)
  assert np.abs(pixels - (64, 112, 255)).max() <= 3


@pytest.mark.parametrize(
  ("shape", "num_cells", "names"),
  [
    ((0, 0), 0, set()),
    ((0, 9), 0, set()),
    ((1, 1), 1, {"small", "overview"}),
    ((720, 720), 5, {"small", "overview"}),
    ((721, 10), 0, {"small", "overview"}),
    ((721, 10), 5, {"small", "overview", "detail"}),
    ((1, 5000), 5, {"small", "overview", "detail"}),
  ],
)
def test_make_pictures_has_what_is_worth_showing(shape, num_cells, names):
  overlay = pillow.new("P", shape[::-1])
  centroids = np.zeros((num_cells, 2))
  assert set(thumbnail.make_pictures(overlay, centroids, 1.0)) == names


def test_find_crowd_finds_the_window_with_most_cells():
  centroids = np.array([[10.0, 10.0], [1990.0, 1500.0], [1999.0, 1510.0]])
  rows, columns = thumbnail.find_crowd((2000, 1600), centroids)
  assert (rows.stop, columns.stop) == (2000, 1600)
  assert (rows.start, columns.start) == (1520, 1120)


def test_find_crowd_takes_the_first_of_equals_and_fits_small_images():
  window = thumbnail.find_crowd((700, 30), np.array([[300.0, 3.0]]))
  assert window == (slice(0, 480), slice(0, 30))


@pytest.mark.real
def test_pictures_of_real_tissue_keep_outlines_and_bounds(real_data):
  counts = tifffile.imread(real_data / "spleen_imc/img/ROI028.ome.tiff")
  # DNA and CD45 of the panel's rows.
  image = np.stack([counts[20], counts[15]], axis=2).astype(np.float32)
  cells = tifffile.imread(real_data / "spleen_imc/masks/ROI028.tiff")
  cells = cells.astype(np.int32)
  picture = overlay.draw_overlay(image, cells, np.zeros_like(cells))
  rgb = np.asarray(picture.convert("RGB"))
  assert rgb.shape == (4 * cells.shape[0], 4 * cells.shape[1], 3)
  is_line = overlay.find_outlines(overlay.enlarge_labels(cells, 4))
  assert 0.05 < is_line.mean() < 0.2  # Outlines do not hide the cells.
  assert rgb[is_line].mean() > 2 * rgb[~is_line].mean()
  ids = np.unique(cells[cells > 0])
  centroids = np.array([np.argwhere(cells == i).mean(0) for i in ids[:50]])
  pictures = thumbnail.make_pictures(picture, 4 * centroids, 0.25)
  assert set(pictures) == {"small", "overview", "detail"}
  assert sum(len(picture.jpeg) for picture in pictures.values()) < 255_000
  # Means of three by three pixels, and no smaller for the sake of bytes.
  assert pictures["overview"].height_px == 4 * cells.shape[0] // 3
