"""The strip of validation pictures: its panels and their order."""

import numpy as np

from dicexmbd_jax.report import overlay, strip


def make_row(size=8):
  image = np.zeros((size, size, 2), np.float32)
  image[2:5, 2:5, 0] = 200
  target = np.zeros((size, size, 3), np.float32)
  target[..., 2] = 1
  target[3, 3] = (1, 0, 0)
  probabilities = np.zeros_like(target)
  probabilities[3, 3] = (0, 1, 0)
  cells = np.zeros((size, size), np.int32)
  cells[2:6, 2:6] = 1
  return image, target, probabilities, cells


def test_four_panels_a_row():
  drawn = strip.draw_strip([make_row(), make_row()])
  step = 8 + strip.GAP_PX
  assert drawn.shape == (2 * step - strip.GAP_PX, 4 * step - strip.GAP_PX, 3)
  assert tuple(drawn[3, step + 3]) == overlay.NUCLEAR_RGB
  assert tuple(drawn[3, 2 * step + 3]) == overlay.MEMBRANE_RGB
  assert (drawn[0, step] == 0).all()  # Background of the target.
  lit = (drawn[:8, 3 * step :] == overlay.CELL_RGB).all(-1)
  assert lit.any()
  assert not (drawn[:8, :8] == overlay.CELL_RGB).all(-1).any()
  assert (drawn[:, 8] == 255).all()


def test_large_records_are_cut_and_none_give_a_picture():
  drawn = strip.draw_strip([make_row(600)])
  assert drawn.shape[0] == strip.LARGEST_PX
  assert strip.draw_strip([]).shape == (1, 1, 3)
