"""The napari plugin: its reader and its widgets, as napari.yaml lists them.

What needs no Qt (which layers an image has, how cells are merged and split)
lies in modules of its own, and is tested without a screen.
"""


class CancelledError(Exception):
  """Ends the work of a thread whose result nobody waits for any more."""
