"""Writes .mcd files, as short as the parser will take them."""

import dataclasses

import numpy as np

CHANNELS = (("Pr(141)", "CD45"), ("Ir(191)", "DNA1"))


@dataclasses.dataclass
class Block:
  """One acquisition: its pixels, where they lie and what is said of them."""

  pixels: np.ndarray  # (pixel, X Y Z and channels)
  shape: tuple[int, int]
  slide: int = 1
  start: int | None = None  # None for behind the blocks before.
  end: int | None = None
  step_um: float = 1.0


def list_pixels(counts):
  """Lists the pixels of a (y, x, channel) image, row by row."""
  height, width, _ = counts.shape
  y, x = np.divmod(np.arange(height * width), width)
  axes = np.stack([x, y, np.arange(height * width)], axis=1)
  flat = counts.reshape(height * width, -1)
  return np.hstack([axes, flat]).astype(np.float32)


def make_block(counts, **fields):
  return Block(list_pixels(counts), counts.shape[:2], **fields)


def write_mcd(path, blocks):
  """Writes acquisitions 1, 2 and so on; returns where each begins and ends."""
  data = b""
  spans = []
  for block in blocks:
    start = len(data) if block.start is None else block.start
    data += block.pixels.astype("<f4").tobytes()
    spans.append((start, len(data) if block.end is None else block.end))
  path.write_bytes(data + _write_schema(blocks, spans).encode("utf-16-le"))
  return spans


def _write_schema(blocks, spans):
  slides = sorted({block.slide for block in blocks})
  parts = ['<MCDSchema xmlns="http://www.fluidigm.com/IMC/MCDSchema.xsd">']
  for slide in slides:
    parts.append(_write("Slide", ID=slide))
    parts.append(_write("Panorama", ID=slide, SlideID=slide))
  for number, (block, span) in enumerate(zip(blocks, spans, strict=True), 1):
    parts.append(_write("AcquisitionROI", ID=number, PanoramaID=block.slide))
    parts.append(_write_acquisition(number, block, span))
    axes = (("X", "X"), ("Y", "Y"), ("Z", "Z"))
    for order, (name, label) in enumerate((*axes, *CHANNELS)):
      parts.append(
        _write(
          "AcquisitionChannel",
          AcquisitionID=number,
          OrderNumber=order,
          ChannelName=name,
          ChannelLabel=label,
        )
      )
  return "".join([*parts, "</MCDSchema>"])


def _write_acquisition(number, block, span):
  return _write(
    "Acquisition",
    ID=number,
    AcquisitionROIID=number,
    Description=f"ROI_{number:03d}",
    MaxX=block.shape[1],
    MaxY=block.shape[0],
    DataStartOffset=span[0],
    DataEndOffset=span[1],
    ValueBytes=4,
    AblationDistanceBetweenShotsX=block.step_um,
    AblationDistanceBetweenShotsY=block.step_um,
  )


def _write(element, **texts):
  inner = "".join(f"<{name}>{text}</{name}>" for name, text in texts.items())
  return f"<{element}>{inner}</{element}>"
