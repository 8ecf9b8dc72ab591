"""Sphinx's configuration: `bash launch/docs.sh` builds the site."""

import dicexmbd_jax

project = "dicexmbd_jax"
copyright = "The dicexmbd_jax authors"
release = version = dicexmbd_jax.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
default_role = "py:obj"  # A name in backticks is a link where there is one.

html_theme = "furo"
html_title = f"dicexmbd_jax {release}"
html_copy_source = False
html_show_sphinx = False

# Headings are linked to as GitHub does it: page.md#some-words.
myst_heading_anchors = 3
# A test runs the notebook; the site shows the outputs that it holds.
nb_execution_mode = "off"

autodoc_typehints = "none"  # The docstrings tell shapes and units.
napoleon_use_ivar = True

# Pages beside the code, as GitHub links them; the site has them in project/.
_OUTSIDE = {
  "../dicexmbd_jax/weights/base/README.md": "project/model_card.md",
  "../data_builders/imc_patches/README.md": "project/records.md",
}


def setup(app):
  """Is called by Sphinx."""
  app.connect("source-read", link_outside)


def link_outside(app, page, source):
  """Leads links out of docs/ to the page of the site that has the text."""
  for path, inside in _OUTSIDE.items():
    source[0] = source[0].replace(f"]({path})", f"]({inside})")
