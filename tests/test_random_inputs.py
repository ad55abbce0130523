"""Scenarios of random inputs: exactness of quadratures, distributions of samples, and streams."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import scipy.sparse as sp
import skfem

from nhgd_pde.uncertainty.covariance import Matern
from nhgd_pde.uncertainty.distributions import Distribution, Normal, Uniform
from nhgd_pde.uncertainty.inputs import Field, RandomInputs, Scalar
from nhgd_pde.uncertainty.karhunen_loeve import karhunen_loeve
from nhgd_pde.uncertainty.quadrature import sparse_count, sparse_quadrature, tensor_count, tensor_quadrature
from nhgd_pde.uncertainty.sampling import Samples, Stream, monte_carlo, quasi
from problems import space_of


def scalars(*distributions: Distribution) -> RandomInputs:
    return RandomInputs({f"a{k}": Scalar(one) for k, one in enumerate(distributions)})


def mixed(dimension: int) -> RandomInputs:
    """Alternating normal and uniform numbers."""
    return scalars(*[Uniform(0.5, 2.0) if k % 2 else Normal(0.3, 0.7) for k in range(dimension)])


def with_field() -> RandomInputs:
    """A number before a field of four modes and one after it."""
    functions = space_of(2, 8, "P1")
    mass = sp.csr_matrix(skfem.BilinearForm(lambda u, v, w: u * v).assemble(functions.basis))
    field = Field(karhunen_loeve(Matern(0.5, 0.4, 1.5), functions.nodes, mass, modes=4))
    return RandomInputs({"load": Scalar(Uniform(1.0, 2.0)), "k": field, "angle": Scalar(Normal(0.1, 0.2))})


def moment(distribution: Distribution, degree: int) -> float:
    """The mean of z^degree of the standard variable."""
    if degree % 2:
        return 0.0
    if isinstance(distribution, Normal):
        return float(math.prod(range(1, degree, 2)))
    return 1.0 / (degree + 1)


def mean_and_std(distribution: Normal | Uniform) -> tuple[float, float]:
    if isinstance(distribution, Normal):
        return distribution.mean, distribution.std
    return 0.5 * (distribution.low + distribution.high), (distribution.high - distribution.low) / math.sqrt(12.0)


def mean(samples: Samples, values: np.ndarray) -> np.ndarray:
    """The mean over the scenarios, the first axis of (S, ...)."""
    return np.tensordot(samples.weights, values, axes=1)


def monomial_error(inputs: RandomInputs, samples: Samples, degrees: tuple[int, ...]) -> float:
    """Error of the mean of a monomial, relative to the sum of its absolute terms."""
    exact = math.prod(moment(one, degree) for one, degree in zip(inputs.distributions, degrees, strict=True))
    values = np.prod(samples.z ** np.array(degrees), axis=1)
    scale = float(np.abs(samples.weights) @ np.abs(values)) + abs(exact)
    return abs(float(mean(samples, values)) - exact) / max(scale, 1e-300)


@pytest.mark.parametrize("distribution", [Normal(2.0, 0.5), Uniform(-1.0, 4.0)])
@pytest.mark.parametrize("count", [1, 2, 5, 12])
def test_gauss_rules_are_exact_exactly_up_to_their_degree(distribution: Normal | Uniform, count: int) -> None:
    z, weights = distribution.gauss(count)
    assert weights.sum() == pytest.approx(1.0, rel=1e-15)
    for degree in range(2 * count):
        size = weights @ np.abs(z) ** degree
        assert abs(weights @ z**degree - moment(distribution, degree)) <= 1e-13 * size
    assert abs(weights @ z ** (2 * count) / moment(distribution, 2 * count) - 1) > 1e-7
    if count > 1:
        values, (middle, std) = distribution.at(z), mean_and_std(distribution)
        assert weights @ values == pytest.approx(middle, rel=1e-13)
        assert math.sqrt(weights @ (values - middle) ** 2) == pytest.approx(std, rel=1e-13)


def test_quantiles_are_the_inverses_of_the_distribution_functions() -> None:
    p = np.linspace(0.01, 0.99, 99)
    normal = 0.5 * (1.0 + np.array([math.erf(z / math.sqrt(2.0)) for z in Normal(5.0, 2.0).quantile(p)]))
    assert np.abs(normal - p).max() < 1e-14
    values = Uniform(3.0, 7.0).at(Uniform(3.0, 7.0).quantile(p))
    assert np.abs((values - 3.0) / 4.0 - p).max() < 1e-15


@pytest.mark.parametrize("points", [1, 2, 3, 4])
def test_tensor_quadrature_is_exact_in_every_variable(points: int) -> None:
    inputs = mixed(3)
    samples = tensor_quadrature(inputs, points)
    assert samples.count == tensor_count(inputs, points) == points**3
    for degrees in itertools.product(range(2 * points), repeat=3):
        assert monomial_error(inputs, samples, degrees) < 1e-13
    assert monomial_error(inputs, samples, (2 * points, 0, 0)) > 1e-4


@pytest.mark.parametrize(("dimension", "level"), [(1, 6), (2, 7), (3, 4), (5, 3), (8, 2)])
def test_sparse_quadrature_is_exact_in_the_total_degree(dimension: int, level: int) -> None:
    inputs = mixed(dimension)
    samples = sparse_quadrature(inputs, level)
    for degrees in itertools.product(range(2 * level + 2), repeat=dimension):
        if sum(degrees) <= 2 * level + 1:
            assert monomial_error(inputs, samples, degrees) < 1e-13


@pytest.mark.parametrize("level", [1, 2, 3])
def test_sparse_quadrature_is_not_exact_beyond_its_degree(level: int) -> None:
    inputs = mixed(level + 1)
    samples = sparse_quadrature(inputs, level)
    assert monomial_error(inputs, samples, (2,) * (level + 1)) > 1e-2


@pytest.mark.parametrize("dimension", [1, 2, 3, 4, 7])
def test_the_count_of_a_sparse_quadrature_is_its_number_of_distinct_points(dimension: int) -> None:
    inputs = mixed(dimension)
    for level in range(9 if dimension < 4 else 5):
        samples = sparse_quadrature(inputs, level)
        assert samples.count == sparse_count(inputs, level)
        assert len(np.unique(samples.z.round(12), axis=0)) == samples.count
        assert samples.weights.sum() == pytest.approx(1.0, abs=1e-12)


def test_sparse_quadrature_is_cheaper_than_tensor_quadrature_at_equal_accuracy() -> None:
    """The mean of the exponential of a sum of six normal variables is known."""
    inputs = scalars(*[Normal(0.0, 0.3)] * 6)
    exact = math.exp(6 * 0.3**2 / 2)

    def error(samples: Samples) -> float:
        return abs(float(mean(samples, np.exp(0.3 * samples.z.sum(axis=1)))) - exact) / exact

    errors = [error(sparse_quadrature(inputs, level)) for level in range(5)]
    assert all(after < 0.5 * before for before, after in itertools.pairwise(errors))
    sparse, tensor = sparse_quadrature(inputs, 3), tensor_quadrature(inputs, 3)
    assert sparse.count < 0.6 * tensor.count
    assert error(sparse) < 2 * error(tensor)


def test_quasi_random_points_converge_faster_than_random_ones() -> None:
    """The root mean square error of a smooth mean over 64 seeds has order 1/2, and at least 1 with Sobol points."""
    inputs = mixed(4)
    exact = math.prod(float(np.exp(0.2 * one.gauss(30)[0]) @ one.gauss(30)[1]) for one in inputs.distributions)
    counts = [64, 256, 1024, 4096]

    def errors(sample: Callable[[RandomInputs, int, int], Samples]) -> np.ndarray:
        draws = [[sample(inputs, count, seed) for seed in range(64)] for count in counts]
        means = np.array([[mean(one, np.exp(0.2 * one.z.sum(axis=1))) for one in row] for row in draws])
        return np.sqrt(np.mean((means - exact) ** 2, axis=1))

    random, better = errors(monte_carlo), errors(quasi)
    orders = [-np.polyfit(np.log(counts), np.log(e), 1)[0] for e in (random, better)]
    assert 0.4 < orders[0] < 0.6
    assert orders[1] > 1.0
    assert better[-1] < 0.05 * random[-1]


@pytest.mark.parametrize("count", [1, 2, 3, 100, 128, 1000])
def test_quasi_random_points_of_any_count_begin_the_same_sequence(count: int) -> None:
    inputs = mixed(3)
    samples = quasi(inputs, count, 5)
    assert samples.z.shape == (count, 3)
    assert np.array_equal(samples.z, quasi(inputs, 1024, 5).z[:count])
    assert np.isfinite(samples.z).all()
    assert not np.array_equal(samples.z, quasi(inputs, count, 6).z)


def test_every_scrambled_point_is_unbiased() -> None:
    """The means over many scramblings of few points are compared in standard errors."""
    inputs = mixed(2)
    means = np.array([mean(quasi(inputs, 3, seed), quasi(inputs, 3, seed).z) for seed in range(1000)])
    assert (np.abs(means.mean(axis=0)) < 4 * means.std(axis=0) / math.sqrt(1000)).all()


@pytest.mark.parametrize("dimension", [1, 3, 4, 5, 13])
def test_a_stream_does_not_depend_on_its_parts(dimension: int) -> None:
    stream = Stream(mixed(dimension), 7)
    whole = stream.draw(100).z
    for cuts in ([0, 100], [0, 1, 2, 50, 100], [0, 33, 66, 99, 100]):
        pieces = [stream.draw(last - first, first).z for first, last in itertools.pairwise(cuts)]
        assert np.array_equal(np.concatenate(pieces), whole)
    # Another object gives the same scenarios, in any order and far from the beginning.
    again = Stream(mixed(dimension), 7)
    assert np.array_equal(again.draw(10, 90).z, whole[90:])
    assert np.array_equal(again.draw(10, 20).z, whole[20:30])
    far = 10**18
    assert np.array_equal(again.draw(3, far).z[1:], stream.draw(2, far + 1).z)


def test_the_numbers_of_a_stream_are_fixed() -> None:
    """A run that resumes with another version of a library must see the same scenarios."""
    found = Stream(scalars(Uniform(0.0, 1.0), Normal()), 42).draw(2, 1000).z
    expected = np.array([[-0.08752361946373122, -1.3362490810843748], [0.44309778937719746, -0.8005987103577332]])
    assert np.abs(found - expected).max() < 1e-14


def test_monte_carlo_samples_are_the_beginning_of_the_stream() -> None:
    inputs = with_field()
    samples = monte_carlo(inputs, 20, 3)
    assert np.array_equal(samples.z, Stream(inputs, 3).draw(1000).z[:20])
    assert np.array_equal(samples.weights, np.full(20, 0.05))


def test_fresh_streams_are_uncorrelated() -> None:
    stream = Stream(scalars(Normal()), 0)
    count = 20_000
    others = [stream.fresh, stream.fresh.fresh, Stream(stream.inputs, 1), Stream(stream.inputs, 1).fresh]
    z = np.stack([one.draw(count).z[:, 0] for one in [stream, *others]])
    correlation = np.corrcoef(z)[np.triu_indices(5, 1)]
    assert np.abs(correlation).max() < 4 / math.sqrt(count)
    # Neighbouring scenarios are uncorrelated as well.
    assert abs(np.corrcoef(z[0, :-1], z[0, 1:])[0, 1]) < 4 / math.sqrt(count)


@pytest.mark.parametrize("sample", [monte_carlo, quasi])
def test_samples_have_the_distribution_of_the_inputs(sample: Callable[[RandomInputs, int, int], Samples]) -> None:
    inputs = with_field()
    count = 8_192
    points = np.random.default_rng(2).uniform(size=(2, 5))
    samples = sample(inputs, count, 11)
    values = inputs.on(points).at(samples.z)
    for name, distribution in (("load", Uniform(1.0, 2.0)), ("angle", Normal(0.1, 0.2))):
        found, (middle, std) = values[name][:, 0], mean_and_std(distribution)
        assert abs(found.mean() - middle) < 3.5 * std / math.sqrt(count)
        assert found.std() == pytest.approx(std, rel=3.5 / math.sqrt(2 * count))
    field = values["k"]
    modes = inputs.on(points).parts["k"].at(np.eye(4))
    covariance = modes.T @ modes
    std = np.sqrt(np.diag(covariance))
    assert (np.abs(field.mean(axis=0)) < 3.5 * std / math.sqrt(count)).all()
    # The variance of a product of normal variables is C_ii C_jj + C_ij^2.
    errors = np.sqrt((np.multiply.outer(std, std) ** 2 + covariance**2) / count)
    assert (np.abs(field.T @ field / count - covariance) < 4 * errors).all()
    # Inputs of different names are independent.
    together = np.concatenate([values["load"], field, values["angle"]], axis=1)
    correlation = np.corrcoef(together.T)
    assert np.abs(np.r_[correlation[0, 1:], correlation[-1, :-1]]).max() < 4 / math.sqrt(count)


def test_tensor_quadrature_gives_the_covariance_of_a_field_exactly() -> None:
    inputs = with_field()
    points = np.random.default_rng(2).uniform(size=(2, 6))
    samples = tensor_quadrature(inputs, 2)
    field = inputs.on(points).at(samples.z)["k"]
    modes = inputs.on(points).parts["k"].at(np.eye(4))
    found = mean(samples, field[:, :, None] * field[:, None, :])
    assert np.abs(found - modes.T @ modes).max() < 1e-14
    assert np.abs(mean(samples, field)).max() < 1e-15


def test_inputs_take_their_own_variables() -> None:
    inputs = with_field()
    assert inputs.dimension == 6
    assert inputs.slices == {"load": slice(0, 1), "k": slice(1, 5), "angle": slice(5, 6)}
    points = np.array([[0.2, 0.9, 0.5], [0.3, 0.1, 0.5]])
    z = np.random.default_rng(0).standard_normal((7, 6))
    values = inputs.on(points).at(z)
    assert {name: value.shape for name, value in values.items()} == {"load": (7, 1), "k": (7, 3), "angle": (7, 1)}
    expansion = inputs.inputs["k"].expansion
    assert np.abs(values["k"] - z[:, 1:5] @ expansion.at(points)).max() < 1e-15
    assert np.array_equal(values["angle"], 0.1 + 0.2 * z[:, 5:])
    assert np.array_equal(values["load"], 1.5 + 0.5 * z[:, :1])


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: tensor_quadrature(mixed(20), 3), "3 points in each of 20 random variables would take 3,486,784,401"),
        (lambda: sparse_quadrature(mixed(40), 6), "level 6 of 40 random variables would take [0-9,]+ points"),
        (lambda: sparse_quadrature(mixed(3), 4, limit=86), "would take 87 points, more than the limit of 86"),
        (lambda: tensor_quadrature(mixed(2), 0), "at least 1 point in every variable, found 0"),
        (lambda: sparse_quadrature(mixed(2), -1), "level of at least 0, found -1"),
        (lambda: monte_carlo(mixed(2), 0, 1), "at least 1 scenario, found 0"),
        (lambda: quasi(mixed(2), 0, 1), "at least 1 scenario, found 0"),
        (lambda: quasi(mixed(21_202), 2, 1), "21,202 random variables, but Sobol points have at most 21,201"),
        (lambda: Stream(mixed(2), 1).draw(3, -1), "first scenario of a stream: expected at least 0, found -1"),
        (lambda: Stream(mixed(2), -4), "seed of a stream: expected at least 0, found -4"),
        (lambda: mixed(2).on(np.zeros((1, 1))).at(np.zeros((4, 3))), r"\(S, 2\), found \(4, 3\)"),
        (lambda: RandomInputs({}), "at least one random input"),
        (lambda: Normal(0.0, 0.0), "positive std, found mean 0.0, std 0.0"),
        (lambda: Uniform(2.0, 1.0), "low < high, found low 2.0, high 1.0"),
    ],
)
def test_mistakes_in_arguments_are_named(call: Callable[[], object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        call()
