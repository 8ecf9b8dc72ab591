import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from dicexmbd_jax.teach import features
from dicexmbd_jax.teach.features import Feature


def compute(plane, name, scale_px):
  planes = np.asarray(plane, np.float32)[..., None]
  result = features.compute_features(planes, [Feature(name, scale_px)])
  assert result.dtype == np.float32
  return result


def make_planes(shape, seed=0):
  noise = np.random.default_rng(seed).gamma(1.0, 10.0, shape)
  return noise.astype(np.float32)


def test_ilastik_offers_37_columns_per_channel_and_more_scales():
  selection = features.list_features()
  assert len(selection) == 7 + 5 * 6
  assert selection[:2] == (
    Feature("GaussianSmoothing", 0.3),
    Feature("GaussianSmoothing", 0.7),
  )
  assert features.count_columns(selection, 2) == 2 * (7 + 3 * 6 + 2 * 2 * 6)


@pytest.mark.parametrize("sigma", [0.5, 0.7, 1.0, 3.3])
@pytest.mark.parametrize("window", [2.0, 3.5])
def test_kernels_are_exact_on_polynomials(sigma, window):
  bell, slope, curve = (
    features.make_kernel(sigma, order, window) for order in range(3)
  )
  x = np.arange(bell.size) - bell.size // 2
  assert bell.size == 2 * int(window * sigma + 0.5) + 1
  ones = np.ones(bell.size)
  expected = [[1, 0], [0, 1], [0, 0]]
  for kernel, (constant, ramp) in zip(
    (bell, slope, curve), expected, strict=True
  ):
    assert kernel @ ones == pytest.approx(constant, abs=1e-12)
    assert kernel @ x == pytest.approx(ramp, abs=1e-12)
  assert curve @ (x**2 / 2) == pytest.approx(1)


def test_a_scale_is_reached_in_two_steps():
  plane = np.zeros((81, 81), np.float32)
  plane[40, 40] = 1000
  for scale_px in (1.6, 3.5, 10.0):
    found = compute(plane, "GaussianSmoothing", scale_px)[..., 0]
    expected = ndimage.gaussian_filter(plane, scale_px, truncate=8)
    assert abs(found - expected).max() < 0.02 * expected.max()


def test_a_parabola_has_its_own_curvatures():
  y, x = np.mgrid[-30:31, -30:31].astype(np.float32)
  plane = 2 * x**2 - y**2 / 2  # Second derivatives 4 and -1.
  middle = (30, 30)
  hessian = compute(plane, "HessianOfGaussianEigenvalues", 1.6)[middle]
  np.testing.assert_allclose(hessian, [4, -1], rtol=1e-4)
  laplacian = compute(plane, "LaplacianOfGaussian", 1.6)[middle]
  np.testing.assert_allclose(laplacian, 3, rtol=1e-4)


def test_a_ramp_has_its_own_slope():
  y, x = np.mgrid[-30:31, -30:31].astype(np.float32)
  plane = 3 * x + 4 * y
  middle = (30, 30)
  for scale_px in (1.0, 3.5):
    slope = compute(plane, "GaussianGradientMagnitude", scale_px)[middle]
    np.testing.assert_allclose(slope, 5, rtol=1e-4)
    tensor = compute(plane, "StructureTensorEigenvalues", scale_px)[middle]
    np.testing.assert_allclose(tensor, [25, 0], atol=1e-2)
    # Its two Gaussians leave a ramp alone.
    step = compute(plane, "DifferenceOfGaussians", scale_px)[middle]
    np.testing.assert_allclose(step, 0, atol=1e-3)


def test_columns_go_feature_channel_eigenvalue():
  planes = make_planes((20, 21, 2))
  names = ("GaussianSmoothing", "HessianOfGaussianEigenvalues")
  selection = [Feature(name, s) for name in names for s in (1.0, 1.6)]
  together = features.compute_features(planes, selection)
  alone = [
    features.compute_features(planes[..., k : k + 1], [one])
    for one in selection
    for k in range(2)
  ]
  np.testing.assert_array_equal(together, np.concatenate(alone, axis=2))
  assert (together[..., 4::2] >= together[..., 5::2]).all()


@given(
  st.integers(1, 12), st.integers(1, 12), st.floats(0, 1e6, allow_nan=False)
)
def test_constant_images_of_any_size(height, width, value):
  planes = np.full((height, width, 1), value, np.float32)
  result = features.compute_features(planes, features.list_features())
  assert np.isfinite(result).all()
  np.testing.assert_allclose(result[..., :7], value, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(result[..., 7:], 0, atol=1e-4 * (1 + value))


def test_turned_images_give_turned_features():
  planes = make_planes((30, 41, 1))
  selection = features.list_features()
  turned = features.compute_features(planes.swapaxes(0, 1), selection)
  straight = features.compute_features(planes, selection)
  np.testing.assert_allclose(turned.swapaxes(0, 1), straight, atol=1e-3)


@pytest.mark.parametrize(
  ("selection", "message"),
  [
    ([], "no feature"),
    ([Feature("Sobel", 1.0)], "'Sobel', expected one of Gaussian"),
    ([Feature("LaplacianOfGaussian", 0.3)], "0.3 px, expected a scale of 0.7"),
  ],
)
def test_wrong_selections(selection, message):
  with pytest.raises(ValueError, match=message):
    features.compute_features(make_planes((5, 5, 1)), selection)


@pytest.mark.parametrize("shape", [(5, 5), (0, 5, 1), (5, 5, 0)])
def test_wrong_planes(shape):
  with pytest.raises(ValueError, match="expected \\(y, x, channels\\)"):
    features.compute_features(
      np.zeros(shape, np.float32), features.list_features()
    )
