"""Takes channel names apart: metal tags, markers, names that name nothing."""

import dataclasses
import functools
import re
from collections.abc import Sequence

# Isotopes met in IMC, from the lightest to the heaviest stable one: what tells
# a metal tag (Nd143, Cd114) from a marker's name (P53, Cd117).
_ISOTOPES = """
  Ar36-40 Ni58-64 Cu63-65 Zn64-70 Ga69-71 Ge70-76 Y89 Zr90-96 Mo92-100 Ru96-104
  Rh103 Pd102-110 Ag107-109 Cd106-116 In113-115 Sn112-124 Sb121-123 Te120-130
  I127 Xe124-136 Cs133 Ba130-138 La138-139 Ce136-142 Pr141 Nd142-150 Sm144-154
  Eu151-153 Gd152-160 Tb159 Dy156-164 Ho165 Er162-170 Tm169 Yb168-176 Lu175-176
  Hf174-180 Ta180-181 W180-186 Re185-187 Os184-192 Ir191-193 Pt190-198 Au197
  Hg196-204 Tl203-205 Pb204-208 Bi209 ArAr80
"""
_MASSES = {
  symbol.lower(): (symbol, range(int(first), int(last or first) + 1))
  for symbol, first, last in re.findall(
    r"([A-Za-z]+)(\d+)(?:-(\d+))?", _ISOTOPES
  )
}
_METAL = (
  r"(?:(?P<symbol>{0})[\s\-(]?(?P<mass>\d{{2,3}})|(?P<m2>\d{{2,3}})(?P<s2>{0}))"
)
_METAL = _METAL.format(r"[A-Z][a-z]?|ArAr") + r"(?:Di)?"
_WHOLE = re.compile(rf"^\(?{_METAL}\)?$", re.IGNORECASE)
_LAST = re.compile(rf"^(?P<rest>.*?[\s_\-.:()/|])\(?{_METAL}\)?$")
_FIRST = re.compile(rf"^\(?{_METAL}\)?(?P<rest>[\s_\-.:(/|].*)$")
_GENERIC = re.compile(
  r"^(?:(?:channel|ch|c|image|plane|page|slice|band|na|none|null|nan|unnamed"
  r"|undefined)?(?:[\s_:\-#.]*\d+)*)$",
  re.IGNORECASE,
)


_MASS_BEHIND = re.compile(r"\s*\(\d{2,3}\)$")  # MIBI: CD3 (140).
_NUMBERED = re.compile(r"(?:channel|ch|c)?[\s_:\-#.]*(\d+)", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Name:
  """A channel's name, taken apart."""

  metal: str | None
  markers: frozenset[str]


def make_unique(names: Sequence[str]) -> tuple[str, ...]:
  """Appends _2, _3 and so on to names that came before."""
  taken = set(names)
  seen: set[str] = set()
  unique = []
  for name in names:
    candidate, count = name, 1
    while candidate in seen or (count > 1 and candidate in taken):
      count += 1
      candidate = f"{name}_{count}"
    seen.add(candidate)
    unique.append(candidate)
  return tuple(unique)


def squeeze(text: str) -> str:
  """Keeps letters and digits, in lower case; a number in front goes last."""
  squeezed = re.sub(r"[\W_]", "", text).lower() or text.strip().lower()
  return re.sub(r"^(\d+)([^\W\d]+)$", r"\2\1", squeezed)


@functools.cache
def parse_name(text: str) -> Name:
  """Takes the metal tag out of a name, in whatever place it stands."""
  text = re.sub(r"\.tiff?$", "", text.strip(), flags=re.IGNORECASE)
  if _GENERIC.match(text):
    return Name(None, frozenset())
  markers = {squeeze(text), squeeze(_MASS_BEHIND.sub("", text))}
  metal = None
  for pattern in (_WHOLE, _LAST, _FIRST):
    match = pattern.match(text)
    found = match and _format_metal(match)
    if match and found:
      metal = metal or found
      rest = squeeze(match.groupdict().get("rest") or "")
      markers.add(rest)
  return Name(metal, frozenset(markers - {""}))


def parse_number(text: str) -> int | None:
  """Returns the number of a channel that is called by it (2, Channel 2)."""
  match = _NUMBERED.fullmatch(text.strip())
  return int(match[1]) if match else None


def _format_metal(match: re.Match[str]) -> str | None:
  """Writes a metal tag as symbol and mass, None where no such isotope is."""
  symbol = match["symbol"] or match["s2"]
  mass = match["mass"] or match["m2"]
  if symbol.isupper() and len(symbol) == 2:
    return None  # CD107 is a marker, Cd107 would be a metal.
  spelled, masses = _MASSES.get(symbol.lower(), (symbol, range(0)))
  return f"{spelled}{mass}" if int(mass) in masses else None
