"""What a BioImage.IO model folder says of the network (format 0.5).

Programs that read the format (ilastik, QuPath, deepImageJ, bioimageio.core)
learn from `rdf.yaml` how to prepare an image, how large it may be, and how to
cut it; `README.md` says the same to people, with lines of Python to run.
"""

import hashlib
import pathlib
from collections.abc import Mapping
from typing import Any

from dicexmbd_jax.model import onnx_graph

GRAPH, CARD, COVER = "model.onnx", "README.md", "cover.png"
TEST_INPUT, TEST_OUTPUT = "test_input.npy", "test_output.npy"
FILES = (GRAPH, CARD, COVER)
CHANNELS = ("nuclear", "membrane")
CLASSES = ("nucleus", "membrane", "background")

# How the markers of a group become one channel, by the preset of `image`.
_RECIPES = {
  "paper": """\
import numpy as np
from scipy import ndimage


def remove_hot(counts):  # of one marker, float32 (y, x)
    mean = ndimage.uniform_filter(counts, size=5, mode="mirror")
    return np.where(counts - mean > {hot_pixel_counts}, mean, counts)


def normalise(counts):
    top = np.float32(np.percentile(counts, {clip_percentile}))
    counts = np.minimum(counts, top) - counts.min()
    return counts / (counts.max() or 1) * np.float32(255)


def merge(markers):  # of one group: a list of float32 (y, x)
    return np.mean([normalise(remove_hot(one)) for one in markers], axis=0)
""",
  "reference": """\
import numpy as np
from scipy import ndimage

AROUND = [[1, 1, 1], [1, 0, 1], [1, 1, 1]]


def remove_hot(counts):  # float32 (y, x)
    largest = ndimage.maximum_filter(counts, footprint=AROUND, mode="reflect")
    return np.where(counts - largest > {hot_pixel_counts}, largest, counts)


def merge(markers):  # of one group: a list of float32 (y, x)
    counts = remove_hot(np.sum(markers, axis=0))
    top = np.float32(np.percentile(counts, {clip_percentile}))
    counts = np.minimum(counts, top) - counts.min()
    return np.floor(counts / (counts.max() or 1) * np.float32(255))
""",
}


def describe_use(
  image: Any, num_views: int, halo_px: int, depth: int, is_auto: bool
) -> str:
  """Returns Markdown: what the graph takes and gives, with code that runs it.

  Args:
    image: the configuration's section `image`; its pixel size is what the
      network sees.
    num_views: mirrored views that the graph averages.
    halo_px: context that a pixel's answer needs.
    depth: number of poolings.
    is_auto: whether `predict` chooses a magnification for each image.
  """
  shown = (
    " `predict` moreover shows each\nimage at the magnification that suits its "
    "nuclei; this is what it does with\n`--config.predict.magnification=1`."
  )
  recipe = _RECIPES[image.preset].format(**image.to_dict())
  return f"""\
## Input

`{onnx_graph.IMAGE}`: float32 (batch, 2, y, x) in 0..255, of any size, at
{image.pixel_size_um:g} um per pixel; nuclear, then membrane/cytoplasm. Each is
made of all its markers, over the whole image (never over a tile of it):

```python
{recipe}```

A group without markers is a channel of zeros.{shown * is_auto}

## Output

`{onnx_graph.PROBABILITIES}`: float32 (batch, 3, y, x) in 0..1:
{", ".join(CLASSES)}; the mean of {num_views} mirrored views.

```python
import onnxruntime

session = onnxruntime.InferenceSession("{GRAPH}")
image = np.stack([merge(nuclear), merge(membrane)])[None]
(probabilities,) = session.run(None, {{"{onnx_graph.IMAGE}": image}})
```

A large image may be cut into tiles that begin at multiples of {2**depth} px and
overlap by two halos of {halo_px} px: the answer stays the same. Cells are found
in the probabilities by `dicexmbd segment`.
"""


def describe_preprocessing(halo_px: int, stride_px: int, preset: str) -> str:
  """Returns Markdown: what programs do by themselves, and what they do not.

  Args:
    halo_px: context that a pixel's answer needs.
    stride_px: of the pooling grid.
    preset: of the configuration's section `image`.
  """
  equal = (
    "both channels are\nup to 1 higher than those of `predict`, which rounds "
    "them down (`np.floor` above)"
    if preset == "reference"
    else "the numbers are\nthose of `predict` with these two markers"
  )
  return f"""\

## In ilastik, QuPath, deepImageJ

These programs follow `rdf.yaml`: they cut each channel at the percentile,
stretch it to 0..255, and fill images up to {find_smallest(halo_px, stride_px)}
px or a multiple of {stride_px} px more. Give them counts of one nuclear and one
membrane/cytoplasm marker, both without hot pixels (`remove_hot` above; these
programs have no such step): {equal}.
Within {halo_px} px of the image's edge the numbers may differ: `predict`
shows the network zeros beyond it, these programs the mirrored image
(bioimageio.core does not with `skip_input_padding=True,
skip_output_cropping=True`). For several markers of a group make the two
channels as above and leave the preprocessing out (`skip_preprocessing=True`).

## Validation

Compare masks of your images with reference masks, by `dicexmbd evaluate`: it
prints the F1 that the project's own tables have.
"""


def make_description(
  folder: pathlib.Path,
  name: str,
  image: Any,
  halo_px: int,
  stride_px: int,
  about: Mapping[str, Any],
) -> dict[str, Any]:
  """Returns what `rdf.yaml` holds.

  Args:
    folder: where the files lie that it names; their hashes go into it.
    name: of the model.
    image: the configuration's section `image`.
    halo_px: context that a pixel's answer needs.
    stride_px: of the pooling grid.
    about: authors, license and so on.

  Raises:
    OSError: a file is missing.
  """
  smallest = {"min": find_smallest(halo_px, stride_px), "step": stride_px}
  return {
    "format_version": "0.5.4",
    "type": "model",
    "name": name,
    "description": "Probabilities of nucleus, membrane/cytoplasm and "
    "background in imaging mass cytometry, from one nuclear and one "
    "membrane/cytoplasm channel.",
    "documentation": CARD,
    "covers": [COVER],
    "cite": [
      {
        "text": "Xiao et al. (2021): Dice-XMBD: Deep Learning-Based Cell "
        "Segmentation for Imaging Mass Cytometry. Frontiers in Genetics 12.",
        "doi": "10.3389/fgene.2021.721229",
      }
    ],
    "tags": [
      *("imaging-mass-cytometry", "multiplexed-imaging", "cell", "nucleus"),
      *("semantic-segmentation", "unet", "2d", "onnx"),
    ],
    **about,
    "inputs": [
      {
        "id": onnx_graph.IMAGE,
        "description": "Counts of a nuclear and a membrane/cytoplasm marker.",
        "axes": [
          *_describe_channels(CHANNELS),
          *(_describe_axis(a, image, size=dict(smallest)) for a in "yx"),
        ],
        "data": {"type": "float32"},
        "test_tensor": _describe_file(folder, TEST_INPUT),
        "preprocessing": _list_steps(image.clip_percentile),
      }
    ],
    "outputs": [
      {
        "id": onnx_graph.PROBABILITIES,
        "description": f"Probabilities of {', '.join(CLASSES)}.",
        "axes": [
          *_describe_channels(CLASSES),
          *(
            _describe_axis(
              axis,
              image,
              halo=halo_px,
              size={"tensor_id": onnx_graph.IMAGE, "axis_id": axis},
            )
            for axis in "yx"
          ),
        ],
        "data": {"type": "float32", "range": [0.0, 1.0]},
        "test_tensor": _describe_file(folder, TEST_OUTPUT),
      }
    ],
    "weights": {
      "onnx": {
        **_describe_file(folder, GRAPH),
        "opset_version": onnx_graph.OPSET,
      }
    },
  }


def find_smallest(halo_px: int, stride_px: int) -> int:
  """Returns the smallest edge of a tile: it must be more than its halos."""
  return 2 * halo_px + stride_px


def _describe_channels(names: tuple[str, ...]) -> list[dict[str, Any]]:
  return [
    {"type": "batch"},
    {"type": "channel", "channel_names": list(names)},
  ]


def _describe_axis(axis: str, image: Any, **more: Any) -> dict[str, Any]:
  scale = float(image.pixel_size_um)
  unit = {"unit": "micrometer", "scale": scale}
  return {"type": "space", "id": axis, **unit, **more}


def _list_steps(percentile: float) -> list[dict[str, Any]]:
  """Returns the steps from counts of one marker per channel to 0..255."""
  limits = {"min_percentile": 0.0, "max_percentile": float(percentile)}
  return [
    {"id": "scale_range", "kwargs": {"axes": ["y", "x"], **limits}},
    {"id": "clip", "kwargs": {"min": 0.0, "max": 1.0}},
    {"id": "scale_linear", "kwargs": {"gain": 255.0, "offset": 0.0}},
  ]


def _describe_file(folder: pathlib.Path, name: str) -> dict[str, str]:
  digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
  return {"source": name, "sha256": digest}
