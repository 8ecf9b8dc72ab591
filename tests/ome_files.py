"""Writes OME-TIFFs of several files, as converters do."""

import tifffile


def write_xml(blocks, sizes, uuid="", binary="", names=(), size_px=(4, 5)):
  """Writes a description: each image's blocks of (file, uuid, page, place)."""
  root = f' UUID="{uuid}"' if uuid else ""
  space = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
  body = f'<BinaryOnly MetadataFile="{binary}" UUID="x"/>' if binary else ""
  height, width = size_px
  for number, one in enumerate(blocks):
    counts = {"C": 1, "Z": 1, "T": 1, **sizes}
    body += f'<Image ID="Image:{number}"><Pixels ID="Pixels:{number}" '
    body += 'DimensionOrder="XYZCT" Type="uint16" '
    body += f'SizeX="{width}" SizeY="{height}" PhysicalSizeX="0.5" '
    body += " ".join(f'Size{axis}="{n}"' for axis, n in counts.items()) + ">"
    for k, name in enumerate(names):
      body += f'<Channel ID="Channel:{number}:{k}" Name="{name}"/>'
    for file, file_uuid, page, place in one:
      places = " ".join(f'First{a}="{n}"' for a, n in place.items())
      body += f'<TiffData IFD="{page}" PlaneCount="1" {places}>'
      body += f'<UUID FileName="{file}">{file_uuid}</UUID></TiffData>'
    body += "</Pixels></Image>"
  return f'<?xml version="1.0"?><OME xmlns="{space}"{root}>{body}</OME>'


def write_pages(path, planes, xml):
  """Writes planes as pages of one file with a description."""
  with tifffile.TiffWriter(path) as file:
    for k, plane in enumerate(planes):
      text = xml if k == 0 else None
      file.write(
        plane, description=text, metadata=None, photometric="minisblack"
      )


def write_set(folder, stem, planes, suffix="ome.tiff", **options):
  """Writes one file per plane, each with the whole description."""
  names = [f"{stem}_C{k}.{suffix}" for k in range(len(planes))]
  uuids = [f"urn:uuid:{stem}-{k}" for k in range(len(planes))]
  blocks = [
    (n, u, 0, {"C": k})
    for k, (n, u) in enumerate(zip(names, uuids, strict=True))
  ]
  for name, uuid, plane in zip(names, uuids, planes, strict=True):
    xml = write_xml(
      [blocks], {"C": len(planes)}, uuid, size_px=plane.shape, **options
    )
    write_pages(folder / name, [plane], xml)
  return [folder / name for name in names]
