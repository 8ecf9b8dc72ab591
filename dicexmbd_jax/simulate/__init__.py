"""Synthetic imaging mass cytometry tissue with known truth.

From a random generator to a raw stack of ion counts and the labels behind it:

    layout   compartments, vessels, fibre directions
    cells    where the cells lie, their type, size and outline
    outline  labels and sub-pixel coverage of every cell and nucleus
    markers  which channels there are and which cell type shows what
    optics   expected signal -> point spread, spill-over, counts, artefacts
    image    all of these in turn, one image
    study    a folder of images, panel and truth
"""

from dicexmbd_jax.simulate.image import SimulatedImage, simulate_image

__all__ = ["SimulatedImage", "simulate_image"]
