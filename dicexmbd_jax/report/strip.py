"""A picture of validation records."""


def draw_strip(rows):
  """Returns rgb."""
  return
