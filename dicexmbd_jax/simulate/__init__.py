"""Synthetic imaging mass cytometry tissue with known truth.

From a random generator to a raw stack of ion counts and the labels behind it:

    noise     smooth fields, fibres
    layout    compartments, vessels, glands, directions
    cells     where the cells lie, their type and size
    outline   whose each sub-pixel is, and what part of the cell
    truth     the labels of cells and nuclei
    markers   which cell type shows which marker
    panel     which channels a study has
    levels    how strongly each cell shows each marker
    staining  the expected signal of cells, fibres and background
    optics    point spread, spill-over, counts, artefacts
    image     all of these in turn, one image
    study     a folder of images, panel and truth

`drawn_nuclei` stands apart: images around nuclei that people drew.
"""

from dicexmbd_jax.simulate.image import SimulatedImage, simulate_image

__all__ = ["SimulatedImage", "simulate_image"]
