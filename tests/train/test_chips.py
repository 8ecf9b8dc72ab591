"""Peaks of devices."""

import pytest

from dicexmbd_jax.train import chips


@pytest.mark.parametrize(
  ("device_kind", "dtype", "tflops"),
  [
    ("NVIDIA H200", "bfloat16", 989.0),
    ("NVIDIA H100 80GB HBM3", "bfloat16", 989.0),
    ("NVIDIA H100 PCIe", "bfloat16", 756.0),
    ("NVIDIA L40S", "bfloat16", 362.0),
    ("NVIDIA L40", "bfloat16", 181.0),
    ("NVIDIA L4", "float32", 60.0),
    ("NVIDIA A100-SXM4-80GB", "bfloat16", 312.0),
    ("NVIDIA GH200 480GB", "bfloat16", 989.0),
    ("TPU v5", "bfloat16", 459.0),
    ("TPU v5 lite", "bfloat16", 197.0),
    ("TPU v4", "float32", None),
    ("cpu", "float32", None),
  ],
)
def test_peak_of_known_devices(device_kind, dtype, tflops):
  expected = None if tflops is None else tflops * 1e12
  assert chips.peak_flops(device_kind, dtype) == expected


def test_every_name_is_found_as_itself():
  for chip in chips.CHIPS:
    found = chips.find_chip(chip.name)
    assert found.tflops == chip.tflops
    assert found.memory_gb == chip.memory_gb
