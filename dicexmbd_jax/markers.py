"""What the names of markers tell."""

import re

# Stains of DNA and of histones, as panels name them.
_NUCLEAR_STAIN = re.compile(
  "dna(?!m|se)|ir[-_ ]?19[13]|19[13][-_ ]?ir|iridium|intercalator|dapi|"
  "hoechst|draq5|histone|hh3|h3k",
  re.IGNORECASE,
)
# Membrane and cytoplasm; ICSK is the kit that is sold for segmentation.
_MEMBRANE_STAIN = re.compile(
  r"membrane|cytoplasm|icsk|(?<![a-z])cd ?-?\d+|cadherin|catenin|atpase|"
  r"keratin|(?<![a-z])(pan)?-?ck\d*(?![a-z])|epcam|vimentin|egfr|her2|erbb2|b2m|"
  r"(?<![a-z])hla|(?<![a-z])wga(?![a-z])",
  re.IGNORECASE,
)


def is_nuclear_stain(name: str) -> bool:
  """Returns whether a marker's name is that of a stain of DNA or histones."""
  return _NUCLEAR_STAIN.search(name) is not None


def is_membrane_stain(name: str) -> bool:
  """Returns whether a marker's name is one of membrane or cytoplasm.

  A guess to be shown and changed: any CD number counts.
  """
  return _MEMBRANE_STAIN.search(name) is not None
