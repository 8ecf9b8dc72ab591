"""Damages bytes: one seed, one damage."""

import io
import re
import struct
import zipfile
import zlib

import numpy as np

_NUMBER = re.compile(rb"\d+")
_WIDE_NUMBER = re.compile(rb"(?:\d\0)+")
_WORDS = (
  *(b"0", b"-1", b"1", b"2", b"255", b"65536", b"2147483648", b"4294967295"),
  *(b"18446744073709551615", b"9" * 30, b"9" * 5000, b"1e300", b"0.5"),
  *(b"nan", b"inf", b"-7.25", b"", b" ", b"x"),
)
_FIELDS = (0, 1, 2, 7, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)
_JUNK = (
  *(b"\n", b"\r", b"\t", b",", b";", b'"', b"'", b"<", b">", b"&", b"[", b"{"),
  *(b"]", b"}", b"\0", b"\xff", b"\xc3", b"../", b"\\u0000", b'""', b"NaN"),
)


def damage(data: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
  """Returns the kind of a damage, and the damaged bytes."""
  kinds = list(_KINDS)
  if data[:2] == b"PK" and rng.random() < 0.4:
    return _damage_member(data, rng)
  if data[:4] == b"\x89PNG" and rng.random() < 0.4:
    return _damage_chunk(data, rng)
  kind = kinds[rng.integers(len(kinds))]
  damaged = _KINDS[kind](data, rng)
  if rng.random() < 0.1:  # Some suffer twice.
    other = kinds[rng.integers(len(kinds))]
    return f"{kind} and {other}", _KINDS[other](damaged, rng)
  return kind, damaged


def _choose_range(data, rng, longest=1 << 16):
  """Returns start and end; short ones are as frequent as long ones."""
  length = int(2 ** rng.uniform(0, np.log2(min(len(data), longest) + 1)))
  start = int(rng.integers(max(len(data) - length, 0) + 1))
  return start, start + length


def _flip_bits(data, rng):
  damaged = bytearray(data)
  for place in rng.integers(len(data), size=rng.integers(1, 9)) if data else ():
    damaged[place] ^= 1 << int(rng.integers(8))
  return bytes(damaged)


def _change_bytes(data, rng):
  damaged = bytearray(data)
  for place in rng.integers(len(data), size=rng.integers(1, 9)) if data else ():
    damaged[place] = int(rng.integers(256))
  return bytes(damaged)


def _cut(data, rng):
  return data[: rng.integers(len(data) + 1)]


def _cut_start(data, rng):
  return data[_choose_range(data, rng)[1] :]


def _zero(data, rng):
  start, end = _choose_range(data, rng)
  return data[:start] + bytes(end - start) + data[end:]


def _swap(data, rng):
  start, end = _choose_range(data, rng, max(len(data) // 2, 1))
  other = int(rng.integers(len(data) + 1))
  if start <= other < end:
    return data[:start] + data[other:end] + data[start:other] + data[end:]
  length = end - start
  damaged = bytearray(data)
  if other + length <= len(data):
    damaged[start:end] = data[other : other + length]
    damaged[other : other + length] = data[start:end]
  return bytes(damaged)


def _double(data, rng):
  start, end = _choose_range(data, rng)
  return data[:end] + data[start:]


def _remove(data, rng):
  start, end = _choose_range(data, rng)
  return data[:start] + data[end:]


def _insert(data, rng):
  place = int(rng.integers(len(data) + 1))
  count = 1 if rng.random() < 0.9 else 70_000
  junk = _JUNK[rng.integers(len(_JUNK))] * count
  return data[:place] + junk + data[place:]


def _change_field(data, rng):
  """Sets a number of 1 to 8 bytes, mostly near the file's ends."""
  width = int(2 ** rng.integers(4))
  near = min(len(data), 600)
  at = int(rng.integers(near)) if near else 0
  at = (at, len(data) - near + at, int(rng.integers(len(data) or 1)))[
    rng.integers(3)
  ]
  at -= at % (width if rng.random() < 0.7 else 1)
  value = _FIELDS[rng.integers(len(_FIELDS))]
  if rng.random() < 0.2:
    value = int(rng.integers(1 << 16)) << int(rng.integers(48))
  order = "little" if rng.random() < 0.7 else "big"
  field = (value % (1 << 8 * width)).to_bytes(width, order)
  return data[:at] + field + data[at + width :]


def _edit_number(data, rng):
  """Writes another number where digits stand, in text of any width."""
  is_wide = rng.random() < 0.5
  found = list((_WIDE_NUMBER if is_wide else _NUMBER).finditer(data))
  if not found:
    return _change_field(data, rng)
  place = found[rng.integers(len(found))]
  word = _WORDS[rng.integers(len(_WORDS))]
  if rng.random() < 0.4:
    old = place[0].replace(b"\0", b"")[:18] or b"0"
    word = str(int(old) + int(rng.integers(-2, 3))).encode()
  if is_wide:
    word = b"".join(bytes([one, 0]) for one in word)
  return data[: place.start()] + word + data[place.end() :]


_KINDS = {
  "bits": _flip_bits,
  "bytes": _change_bytes,
  "cut": _cut,
  "start cut": _cut_start,
  "zeros": _zero,
  "swap": _swap,
  "doubled": _double,
  "removed": _remove,
  "inserted": _insert,
  "field": _change_field,
  "number": _edit_number,
}


def _damage_member(data, rng):
  """Damages one member of an archive whose checksums are then right again."""
  with zipfile.ZipFile(io.BytesIO(data)) as archive:
    members = [(one, archive.read(one)) for one in archive.infolist()]
  chosen = int(rng.integers(len(members)))
  if rng.random() < 0.3:  # The one that describes the others, mostly.
    chosen = 0
  out = io.BytesIO()
  kind = ""
  with zipfile.ZipFile(out, "w") as archive:
    for number, (info, content) in enumerate(members):
      if number == chosen:
        kinds = list(_KINDS)
        kind = kinds[rng.integers(len(kinds))]
        content = _KINDS[kind](content, rng)
      archive.writestr(info.filename, content, info.compress_type)
  return f"member's {kind}", out.getvalue()


def _damage_chunk(data, rng):
  """Damages one chunk of a PNG whose checksums are then right again."""
  chunks, at = [], 8
  while at + 8 <= len(data):
    (length,) = struct.unpack(">I", data[at : at + 4])
    chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
    at += 12 + length
  chosen = int(rng.integers(len(chunks)))
  kinds = list(_KINDS)
  kind = kinds[rng.integers(len(kinds))]
  parts = [data[:8]]
  for number, (name, content) in enumerate(chunks):
    if number == chosen:
      content = _KINDS[kind](content, rng)
    check = zlib.crc32(name + content)
    parts += [struct.pack(">I", len(content)), name, content]
    parts.append(struct.pack(">I", check))
  return f"chunk's {kind}", b"".join(parts)
