import re
import xml.etree.ElementTree as ElementTree

import numpy as np

from dicexmbd_jax.report import image_report, run_figures


def find_texts(svg):
  return ["".join(node.itertext()) for node in svg.iter("text")]


def find_path(svg, name):
  return next(n for n in svg.iter("path") if n.get("class") == name).get("d")


def test_draw_areas_has_a_bar_per_bin_and_the_tallest_is_full():
  area = image_report.Distribution("area", (1, 2, 15, 4, 5), (5, 0, 10))
  svg = ElementTree.fromstring(run_figures.draw_areas(area))
  heights = [float(h) for h in re.findall(r"v-([\d.]+)", find_path(svg, "bar"))]
  assert heights == [55.0, 110.0]
  assert find_path(svg, "median").startswith("M7.5 ")
  assert "500+" in find_texts(svg)


def test_draw_areas_without_cells_has_an_axis_only():
  svg = ElementTree.fromstring(
    run_figures.draw_areas(image_report.Distribution("area"))
  )
  assert find_path(svg, "bar") == ""
  assert not [n for n in svg.iter("path") if n.get("class") == "median"]
  assert (
    "nan"
    not in run_figures.draw_areas(image_report.Distribution("area")).lower()
  )


def test_draw_areas_keeps_a_huge_median_inside():
  area = image_report.describe_areas(np.array([9e9]))
  svg = ElementTree.fromstring(run_figures.draw_areas(area))
  x = float(re.match(r"M([\d.]+)", find_path(svg, "median"))[1])
  assert x <= image_report.NUM_AREA_BINS * 5


def test_draw_markers_writes_names_medians_and_one_axis():
  markers = [
    image_report.describe_intensities("CD3", np.array([0.5, 1.0, 250.0])),
    image_report.describe_intensities("no cells", np.zeros(0)),
  ]
  num_bins = run_figures.choose_num_bins(markers)
  assert num_bins == len(markers[0].histogram) + 1
  svg = ElementTree.fromstring(run_figures.draw_markers(markers, num_bins))
  texts = find_texts(svg)
  assert texts[:4] == ["0", "1", "10", "100"]
  assert "CD3" in texts
  assert "no cells" in texts
  assert "1.00" in texts
  assert find_path(svg, "median").count("M") == 1
  assert find_path(svg, "ridge").count("M") == 1


def test_draw_markers_places_the_median_between_its_ticks():
  markers = [image_report.describe_intensities("a", np.full(3, 10.0))]
  svg = ElementTree.fromstring(run_figures.draw_markers(markers, 31))
  ticks = {
    "".join(n.itertext()): float(n.get("x"))
    for n in svg.iter("text")
    if n.get("class") == "tick"
  }
  x = float(re.match(r"M([\d.]+)", find_path(svg, "median"))[1])
  assert x == ticks["10"]


def test_draw_markers_escapes_and_shortens_names():
  name = '<b>"CD&3"</b>' * 40
  svg = ElementTree.fromstring(
    run_figures.draw_markers([image_report.Distribution(name)], 31)
  )
  label = next(n for n in svg.iter("text") if n.get("class") == "name")
  assert label.text == name[:15] + "…"
  assert label.find("title").text == name


def test_draw_markers_of_none_is_well_formed():
  ElementTree.fromstring(
    run_figures.draw_markers([], run_figures.choose_num_bins([]))
  )


def test_format_counts():
  written = [
    run_figures.format_counts(v) for v in (0, 0.123, 12.34, 1234.5, -0.5)
  ]
  assert written == ["0.00", "0.12", "12.3", "1,234", "-0.50"]
