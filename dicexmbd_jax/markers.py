"""What the names of markers tell."""

import re

# Stains of DNA and of histones, as panels name them.
_NUCLEAR_STAIN = re.compile(
  "dna(?!m|se)|ir[-_ ]?19[13]|19[13][-_ ]?ir|iridium|intercalator|dapi|"
  "hoechst|draq5|histone|hh3|h3k",
  re.IGNORECASE,
)


def is_nuclear_stain(name: str) -> bool:
  """Returns whether a marker's name is that of a stain of DNA or histones."""
  return _NUCLEAR_STAIN.search(name) is not None
