"""Takes channel names apart: metal tags, markers, names that name nothing."""

import dataclasses
import functools
import re
from collections.abc import Sequence

# Chemical symbols of the isotopes met in IMC, with their mean mass in dalton:
# what tells a metal tag (Nd143) from a marker's name (CD14, P53).
_ISOTOPES = """
  Ar80 Ni59 Cu64 Zn65 Ga70 Ge73 Y89 Zr91 Mo96 Ru101 Rh103 Pd106 Ag108 Cd112
  In115 Sn119 Sb122 Te128 I127 Xe131 Cs133 Ba137 La139 Ce140 Pr141 Nd144 Sm150
  Eu152 Gd157 Tb159 Dy163 Ho165 Er167 Tm169 Yb173 Lu175 Hf178 Ta181 W184 Re186
  Os190 Ir192 Pt195 Au197 Hg201 Tl204 Pb207 Bi209 ArAr80
"""
_MASSES = {
  symbol.lower(): (symbol, int(mass))
  for symbol, mass in re.findall(r"([A-Za-z]+)(\d+)", _ISOTOPES)
}
_MASS_SPAN = 12  # Dalton; isotopes of one element lie within it.
_HEAVIEST_CADMIUM = 116  # Cd117 and above are markers of mouse panels.
_METAL = (
  r"(?:(?P<symbol>{0})[\s\-(]?(?P<mass>\d{{2,3}})|(?P<m2>\d{{2,3}})(?P<s2>{0}))"
)
_METAL = _METAL.format(r"[A-Z][a-z]?|ArAr") + r"(?:Di)?"
_WHOLE = re.compile(rf"^\(?{_METAL}\)?$", re.IGNORECASE)
_LAST = re.compile(rf"^(?P<rest>.*?[\s_\-.:()/|])\(?{_METAL}\)?$")
_FIRST = re.compile(rf"^\(?{_METAL}\)?(?P<rest>[\s_\-.:(/|].*)$")
_GENERIC = re.compile(
  r"^(?:(?:channel|ch|c|image|plane|page|slice|band|na|none|null|nan|unnamed"
  r"|undefined)?(?:[\s_:\-#.]*\d)*)$",
  re.IGNORECASE,
)
_MASS_BEHIND = re.compile(r"\s*\((\d{2,3})\)$")  # MIBI: CD3 (140).
MASSES = range(75, 211)  # Dalton, of the isotopes that tag antibodies.
_CLONE_BEHIND = re.compile(r"_\d+\(\(\d+\)\).*$")  # CyTOF: CD3_1841((2345)).
_NUMBERED = re.compile(r"(?:channel|ch|c)?[\s_:\-#.]*(\d{1,9})", re.IGNORECASE)
_MAX_LENGTH = 500  # Of a name that is taken apart; longer ones are text.


@dataclasses.dataclass(frozen=True)
class Name:
  """A channel's name, taken apart.

  Attributes:
    metal: as Nd143; None where there is none.
    markers: ways to write the marker, squeezed.
    loose: these, and without a mass in brackets behind, as MIBI files have it.
    mass: of the metal, or the one in brackets; None where there is neither.
    label: the marker alone, as it is written; empty where there is none.
  """

  metal: str | None
  markers: frozenset[str]
  loose: frozenset[str]
  mass: int | None = None
  label: str = ""


def make_unique(names: Sequence[str]) -> tuple[str, ...]:
  """Appends _2, _3 and so on to names that came before."""
  taken = set(names)
  seen: set[str] = set()
  counts: dict[str, int] = {}
  unique = []
  for name in names:
    candidate, count = name, counts.get(name, 1)
    while candidate in seen or (count > 1 and candidate in taken):
      count += 1
      candidate = f"{name}_{count}"
    counts[name] = count
    seen.add(candidate)
    unique.append(candidate)
  return tuple(unique)


def squeeze(text: str) -> str:
  """Keeps letters and digits, in lower case; a number in front goes last."""
  squeezed = re.sub(r"[\W_]", "", text).lower() or text.strip().lower()
  return re.sub(r"^(\d+)([^\W\d]+)$", r"\2\1", squeezed)


@functools.cache
def parse_name(text: str) -> Name:
  """Takes the metal tag out of a name, in whatever place it stands.

  A name beyond 500 characters is a marker's as a whole.
  """
  text = re.sub(r"\.tiff?$", "", text.strip(), flags=re.IGNORECASE)
  if len(text) > _MAX_LENGTH:
    whole = frozenset({squeeze(text)})
    return Name(None, whole, whole, None, text)
  if _GENERIC.match(text):
    return Name(None, frozenset(), frozenset())
  markers = {squeeze(text)}
  metal, label = None, text
  for pattern in (_WHOLE, _LAST, _FIRST):
    match = pattern.match(text)
    found = match and _format_metal(match)
    if match and found:
      rest = match.groupdict().get("rest") or ""
      if metal is None:
        metal, label = found, rest
      markers.add(squeeze(rest))
  loose = markers | {squeeze(_MASS_BEHIND.sub("", text))}
  return Name(
    metal,
    frozenset(markers - {""}),
    frozenset(loose - {""}),
    _find_mass(metal, text),
    _clean_label(label),
  )


def parse_row(channel: str | None, name: str) -> Name:
  """Joins what a panel's row says in two columns of one channel.

  Args:
    channel: the column of metals, masses or the file's own names, if any.
    name: the column of markers.

  Raises:
    ValueError: two metals, or a metal of another mass; says which.
  """
  left, right = parse_name(channel or ""), parse_name(name)
  if left.metal and right.metal not in (None, left.metal):
    if not _is_cluster(name, right.metal):
      raise ValueError(f"{left.metal} and {right.metal}")
    right = dataclasses.replace(right, label=name)
  number = parse_number(channel or "")
  mass = left.mass or (number if number in MASSES else None)
  if mass and right.metal and not left.metal and mass != right.mass:
    raise ValueError(f"{mass} and {right.metal}")
  return Name(
    left.metal or right.metal,
    left.markers | right.markers,
    left.loose | right.loose,
    mass or right.mass,
    right.label,
  )


def _is_cluster(name: str, metal: str | None) -> bool:
  """Whether a name is all of a CD number that reads as cadmium: Cd106."""
  return bool(metal and metal.startswith("Cd") and name.strip() == metal)


def parse_number(text: str) -> int | None:
  """Returns the number of a channel that is called by it (2, Channel 2)."""
  match = _NUMBERED.fullmatch(text.strip())
  return int(match[1]) if match else None


def _find_mass(metal: str | None, text: str) -> int | None:
  behind = _MASS_BEHIND.search(text)
  if metal is None and behind and int(behind[1]) in MASSES:
    return int(behind[1])
  return int(re.sub(r"\D", "", metal)) if metal else None


def _clean_label(label: str) -> str:
  """Takes off what is no marker: clone, mass, and a metal once more."""
  label = _CLONE_BEHIND.sub("", _MASS_BEHIND.sub("", label)).strip("_-.:()/| ")
  match = _WHOLE.match(label)
  return "" if match and _format_metal(match) else label


def _format_metal(match: re.Match[str]) -> str | None:
  """Writes a metal tag as symbol and mass, None where no such isotope is."""
  symbol = match["symbol"] or match["s2"]
  mass = match["mass"] or match["m2"]
  if symbol.isupper() and len(symbol) == 2:
    return None  # CD107 is a marker, Cd107 would be a metal.
  if symbol.lower() not in _MASSES:
    return None  # K10 is keratin 10, C12 a place on a plate.
  spelled, mean = _MASSES[symbol.lower()]
  if spelled == "Cd" and int(mass) > _HEAVIEST_CADMIUM:
    return None
  return f"{spelled}{mass}" if abs(int(mass) - mean) <= _MASS_SPAN else None
