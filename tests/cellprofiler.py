"""CellProfiler's mask pipeline from its own library: the oracle of the tests.

Plain NumPy, SciPy, scikit-image and centrosome, as CellProfiler 3.1.9 calls
them; nothing of the package under test. Whole planes at scale 2.
"""

import itertools

import numpy as np
import skimage.segmentation
import skimage.transform
from centrosome import cpmorphology, propagate
from scipy import ndimage

EIGHT = np.ones((3, 3), bool)


def segment(probabilities, keeps_border=False):
  """Returns nuclei and cells at scale 2 from float maps (y, x, 2 or 3)."""
  maps = enlarge(probabilities)
  smooth = np.clip(smooth_gaussian(maps[..., 0], 4 / 2.35), 0, 1)
  foreground = np.clip(maps[..., 0] + maps[..., 1], 0, 1)
  found = find_nuclei(smooth)
  nuclei, seeds = select_nuclei(found, keeps_border)
  cells = grow_cells(foreground, seeds)
  return nuclei, filter_cells(cells, nuclei)


def enlarge(probabilities):
  height, width, depth = probabilities.shape
  return skimage.transform.resize(
    probabilities.astype(float),
    (2 * height, 2 * width, depth),
    order=1,
    mode="symmetric",
    anti_aliasing=False,
  )


def smooth_gaussian(plane, sigma):
  def smooth(values):
    return ndimage.gaussian_filter(values, sigma, mode="constant", cval=0)

  return smooth(plane) / (smooth(np.ones(plane.shape)) + np.finfo(float).eps)


def smooth_for_maxima(plane, size):
  sigma = size / 2.35
  steps = np.arange(-max(int(size / 2), 1), max(int(size / 2), 1) + 1)
  curve = np.exp(-0.5 * steps**2 / sigma**2)
  taps = 1 / np.sqrt(2.0 * np.pi) / sigma * curve

  def smooth(values):
    rows = ndimage.convolve1d(values, taps, axis=0, mode="constant")
    return ndimage.convolve1d(rows, taps, axis=1, mode="constant")

  return smooth(plane) / smooth(np.ones(plane.shape))


def threshold_li(values):
  """Minimum cross entropy of scikit-image 0.14."""
  low = values.min()
  values = values - low
  tolerance = values.max() / 512
  following = values.mean()
  previous = following + 2 * tolerance
  while abs(following - previous) > tolerance:
    previous = following
    cut = previous + tolerance
    below = values[values <= cut].mean()
    above = values[values > cut].mean()
    step = (below - above) / (np.log(below) - np.log(above))
    following = step - tolerance if step < 0 else step + tolerance
  return cut + low


def find_nuclei(smooth):
  mask = smooth >= np.clip(1.2 * threshold_li(smooth), 0, 1)
  mask = cpmorphology.fill_labeled_holes(
    mask, size_fn=lambda size, is_foreground: size < 144
  )
  groups, _ = ndimage.label(mask, EIGHT)
  blurred = smooth_for_maxima(smooth, 2.35 * 8 / 3.5)
  disk = cpmorphology.strel_disk(8 / 1.5 - 0.5)
  peaks = cpmorphology.is_local_maximum(blurred, groups, disk)
  peaks[blurred <= 0] = False
  if peaks.any():
    peaks = cpmorphology.binary_shrink(peaks)
  markers, _ = ndimage.label(peaks, EIGHT)
  return -skimage.segmentation.watershed(
    1 - smooth, -markers, connectivity=EIGHT, mask=groups > 0
  )


def select_nuclei(found, keeps_border):
  """Returns the nuclei and, as IdentifySecondaryObjects takes them, seeds."""
  rims = np.concatenate([found[0], found[-1], found[:, 0], found[:, -1]])
  at_border = np.isin(found, rims[rims > 0])
  discarded = at_border & (not keeps_border)
  nuclei = cpmorphology.fill_labeled_holes(np.where(discarded, 0, found))
  nuclei = renumber(nuclei)
  areas = np.bincount(nuclei.ravel())
  nuclei = renumber(np.where(areas[nuclei] < 5, 0, nuclei))
  return nuclei, np.where(~at_border & (nuclei == 0), 0, found)


def filter_cells(cells, nuclei):
  """Numbers each cell as the nucleus in it; one without is dropped."""
  numbers = ndimage.maximum(nuclei, cells, np.arange(cells.max() + 1))
  numbers = np.asarray(numbers, int)
  numbers[0] = 0
  return numbers[cells]


def renumber(labels):
  present = np.unique(labels[labels > 0])
  table = np.zeros(labels.max() + 1, int)
  table[present] = np.arange(1, present.size + 1)
  return table[labels]


def grow_cells(foreground, seeds):
  threshold = np.clip(threshold_li(foreground), 0, 1)
  mask = smooth_gaussian(foreground, 1.3488 / 0.6744 / 2) >= threshold
  cells, _ = propagate.propagate(foreground, seeds, mask, 0.05)
  return cpmorphology.fill_labeled_holes(cells)


def vote(labels, shape):
  """Each pixel's label by votes, as grid.vote_labels has it; slow."""
  voted = np.zeros(shape, int)
  for place in np.ndindex(*shape):
    votes = {}
    axes = map(_list_voters, labels.shape, shape, place)
    for (y, first), (x, second) in itertools.product(*axes):
      label = int(labels[y, x])
      votes[label] = votes.get(label, 0) + first * second
    most = max(votes.values())
    winners = [label for label, share in votes.items() if share > most - 1e-9]
    voted[place] = winners[0]
  return voted


def _list_voters(size, wanted, i):
  """Places and weights along an axis, from the centre outwards."""
  centre, reach = (i + 0.5) * size / wanted - 0.5, max(size / wanted, 1)
  near = range(int(centre - reach) - 1, int(centre + reach) + 2)
  voters = [(round(1 - abs(j - centre) / reach, 9), j) for j in near]
  return [
    (min(max(j, 0), size - 1), weight)
    for weight, j in sorted(voters, reverse=True)
    if weight > 0
  ]


def vote_masks(nuclei, cells, shape):
  """Nuclei and cells on the masks' grid; a nucleus lies inside of its cell."""
  inner, outer = vote(nuclei, shape), vote(cells, shape)
  return inner, np.where(inner > 0, inner, outer)


def halve(labels):
  """The pipeline's RescaleObjects: bilinear, only whole labels, then lines."""
  halved = skimage.transform.resize(
    labels + 1.0,
    (labels.shape[0] // 2, labels.shape[1] // 2),
    order=1,
    mode="symmetric",
    anti_aliasing=False,
    preserve_range=True,
  )
  halved = np.where(halved == np.rint(halved), halved, 1).astype(int) - 1
  is_edge = ndimage.maximum_filter(halved, 2) != ndimage.minimum_filter(
    halved, 2
  )
  return np.where(is_edge, 0, halved)


def make_maps(shape, seed, num_cells=None):
  """Draws smooth, crowded maps: nuclei, membranes, background; float32."""
  rng = np.random.default_rng(seed)
  height, width = shape
  num_cells = num_cells or max(height * width // 120, 1)
  y, x = np.mgrid[:height, :width]
  nucleus = np.zeros(shape)
  membrane = np.zeros(shape)
  for _ in range(num_cells):
    cy, cx = rng.uniform(0, height), rng.uniform(0, width)
    radius = rng.uniform(2.5, 5)
    distance = np.hypot(y - cy, (x - cx) * rng.uniform(0.7, 1.4)) / radius
    nucleus = np.maximum(nucleus, np.clip(1.6 - distance, 0, 1))
    membrane = np.maximum(membrane, np.clip(2.4 - distance, 0, 1))
  nucleus = np.clip(nucleus + 0.08 * rng.normal(size=shape), 0, 1)
  membrane = np.clip(membrane - nucleus, 0, 1) * 0.9
  background = np.clip(1 - nucleus - membrane, 0, 1)
  maps = np.stack([nucleus, membrane, background], -1)
  return ndimage.gaussian_filter(maps, (0.7, 0.7, 0)).astype(np.float32)


def match_pixels(labels, reference):
  """Returns the share of equal pixels once ids are matched by overlap."""
  size = int(reference.max()) + 1
  pairs, counts = np.unique(
    labels.astype(np.int64) * size + reference, return_counts=True
  )
  table = np.full(int(labels.max()) + 1, -1)
  for index in np.argsort(counts):  # The largest overlap comes last.
    label, other = divmod(int(pairs[index]), size)
    if label and other:
      table[label] = other
  table[0] = 0
  return float((table[labels] == reference).mean())


def draw_rings(size_px=120, step_px=12):
  """Nuclei in rings of membrane on a background that is one piece."""
  y, x = np.mgrid[:size_px, :size_px]
  radius = np.hypot(y % step_px - 5, x % step_px - 5)
  is_tissue = (y > 24) & (x > 24)
  label = np.select([~is_tissue, radius < 3, radius < 5], [2, 0, 1], 2)
  return (np.eye(3)[label] * 0.8 + 0.1).astype(np.float32)
