"""The rim of a window, where the plane goes on outside; compiled."""

from dicexmbd_jax.masks.compiler import compile_kernel


@compile_kernel
def is_outer(y, x, shape, is_open):
  """Tells whether a pixel lies on an open side of a window.

  Args:
    y: row in the window.
    x: column.
    shape: of the window.
    is_open: bool (4,), whether the plane goes on above, below, left, right.

  Returns:
    bool.
  """
  return (
    (is_open[0] and y == 0)
    or (is_open[1] and y == shape[0] - 1)
    or (is_open[2] and x == 0)
    or (is_open[3] and x == shape[1] - 1)
  )
