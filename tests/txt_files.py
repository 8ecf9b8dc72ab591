"""Writes Fluidigm's .txt files."""

import numpy as np

HEADER = ("Start_push", "End_push", "Pushes_duration", "X", "Y", "Z")
CHANNELS = ("CD45(Pr141Di)", "DNA1(Ir191Di)")


def format_lines(counts, channels=CHANNELS):
  """Writes a (y, x, channel) image: the header's line, then one per pixel."""
  lines = ["\t".join([*HEADER, *channels])]
  for y, x in np.ndindex(counts.shape[:2]):
    values = [1, 2, 1, x, y, x, *(f"{count:.3f}" for count in counts[y, x])]
    lines.append("\t".join(map(str, values)))
  return lines


def write_txt(path, counts, channels=CHANNELS):
  path.write_text("\n".join(format_lines(counts, channels)) + "\n")
  return path
