"""Tasks of machine learning: data, classifier, statistics of the scores, and the answers."""

from __future__ import annotations

import gzip
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from bilevel_problems import normal, seeded
from torch.nn.functional import cross_entropy

from nhgd_pde.engine.curvature.dense import Dense
from nhgd_pde.engine.hypergradient import hypergradient
from nhgd_pde.engine.minimise import minimise
from nhgd_pde.problem_file.errors import ProblemError
from nhgd_pde.problem_file.loading import read_problem
from nhgd_pde.tasks.classification import Classification, Examples
from nhgd_pde.tasks.classifier import Classifier
from nhgd_pde.tasks.data_sets import DataError, arrays, idx_files
from nhgd_pde.tasks.measures import auroc
from nhgd_pde.tasks.splitting import Split
from nhgd_pde.tasks.training_sets import TunedImages, WeightedExamples

FEATURES, CLASSES = 5, 3


def _examples(count: int, seed: int) -> Examples:
    generator = seeded(seed)
    images = torch.rand(count, FEATURES, generator=generator, dtype=torch.float64)
    return Examples(images, torch.randint(0, CLASSES, (count,), generator=generator))


def _small(hidden: tuple[int, ...] = (), kind: str = "cleaning", **options: object) -> Classification:
    classifier, training = Classifier(FEATURES, CLASSES, hidden), _examples(12, 0)
    made = WeightedExamples(training) if kind == "cleaning" else TunedImages(training)
    return Classification.of(classifier, made, _examples(20, 1), 0.05, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("hidden", [(), (4,), (4, 3)])
def test_the_gradients_of_examples_are_those_of_their_losses(hidden: tuple[int, ...]) -> None:
    classifier, examples = Classifier(FEATURES, CLASSES, hidden), _examples(4, 2)
    u = classifier.start(seeded(1)) + 0.3 * normal(seeded(2), classifier.size)
    p = classifier.logits(u, examples.images).softmax(1)
    found = classifier.example_gradients(u, examples.images, p - torch.eye(CLASSES, dtype=p.dtype)[examples.labels])
    for k in range(4):
        at = u.clone().requires_grad_()
        loss = cross_entropy(classifier.logits(at, examples.images[k : k + 1]), examples.labels[k : k + 1])
        torch.testing.assert_close(found[k], torch.autograd.grad(loss, at)[0])


@pytest.mark.parametrize("kind", ["cleaning", "distillation"])
@pytest.mark.parametrize("hidden", [(), (4,)])
def test_the_second_moment_of_scores_is_the_fisher_information(hidden: tuple[int, ...], kind: str) -> None:
    """By the law of large numbers, at its rate; scores with observed labels have another limit."""
    problem = _small(hidden, kind)
    u = 0.5 * normal(seeded(3), *problem.inner_shape)
    v = problem.start()[1] + 0.3 * normal(seeded(4), problem.outer_size)
    fisher = problem.hessian_product(u, v, torch.eye(u.shape[1], dtype=u.dtype))
    errors = []
    for count in (2_000, 32_000):
        scores = problem.batch(u, v, problem.sample(count, seeded(5))).scores
        errors.append(float((scores @ scores.T / count - fisher).norm() / fisher.norm()))
    # Sixteen times as many scores: a quarter of the error.
    assert errors[1] < 0.05 and errors[1] < 0.5 * errors[0]
    torch.testing.assert_close(problem.fisher_factors(u, v).solve(fisher), torch.eye(u.shape[1], dtype=u.dtype))


@pytest.mark.parametrize("hidden", [(), (4,)])
def test_the_hessian_is_the_fisher_information_of_linear_logits_alone(hidden: tuple[int, ...]) -> None:
    problem = _small(hidden)
    u, v = 0.5 * normal(seeded(3), *problem.inner_shape), problem.start()[1]
    identity = torch.eye(u.shape[1], dtype=u.dtype)
    hessian = super(Classification, problem).state_product(u, v, identity)
    same = torch.allclose(hessian, problem.hessian_product(u, v, identity), rtol=1e-10, atol=1e-12)
    assert same == (not hidden)
    torch.testing.assert_close(problem.state_product(u, v, identity), hessian)


@pytest.mark.parametrize("kind", ["cleaning", "distillation"])
def test_the_hypergradient_is_the_derivative_of_the_trained_loss(kind: str) -> None:
    problem = _small(kind=kind)
    v, d = problem.start()[1] + 0.2 * normal(seeded(6), problem.outer_size), normal(seeded(7), problem.outer_size)

    def reduced(v: torch.Tensor) -> float:
        return problem.outer_value(problem.trained(v), v)

    u = problem.trained(v)
    inverse = problem.fisher_factors(u, v)
    found = problem.outer_derivatives(u, v)[1] - problem.cross_product(
        u, v, inverse.solve(problem.outer_derivatives(u, v)[0])
    )
    # Order 2 of centred differences.
    errors = [abs((reduced(v + t * d) - reduced(v - t * d)) / (2 * t) - float(found @ d)) for t in (0.1, 0.05)]
    assert errors[1] < 0.3 * errors[0] and errors[1] < 1e-2 * abs(float(found @ d))


def _digits(seed: int) -> tuple[Classification, Split]:
    file = read_problem("problems/digits_cleaning.yaml", {"seed": seed})
    return file.spec.task.build(file)  # type: ignore[attr-defined]


def test_scores_from_the_model_give_the_hypergradient_and_observed_ones_do_not() -> None:
    """With half of the labels wrong: ten scores per unknown, the estimator A grad_u f without refinement."""
    problem, split = _digits(0)
    v = torch.where(split.wrong, -0.5, 0.5).double()
    u = problem.trained(v)
    exact = -problem.cross_product(u, v, problem.fisher_factors(u, v).solve(problem.outer_derivatives(u, v)[0]))
    found = {}
    for scores in ("model", "observed"):
        sampled = replace(problem, scores=scores)  # type: ignore[arg-type]
        backend = Dense("identity", prior_weight=1.0)
        state, generator = backend.init(sampled, u, v), seeded(1)
        for _ in range(130):
            state = backend.absorb(state, sampled.batch(u, v, sampled.sample(50, generator)).scores)
        h = hypergradient(sampled, u, v, state, None, None).derivative
        cosine = float(h @ exact / (h.norm() * exact.norm()))
        found[scores] = cosine, float((h - exact).norm() / exact.norm())
    assert found["model"][0] >= 0.98 and found["model"][1] < 0.2, found
    assert found["observed"][0] < 0.95 and found["observed"][1] > 0.9, found


@pytest.mark.slow
def test_wrong_labels_are_found() -> None:
    """The median over five seeds of the probability that a right label has a larger weight than a wrong one."""
    from nhgd_pde.choice.method import build_method
    from nhgd_pde.engine.search import outer_space

    areas = []
    for seed in range(5):
        problem, split = _digits(seed)
        file = read_problem("problems/digits_cleaning.yaml", {"seed": seed})
        method = build_method(file, problem.inner_shape, torch.device("cpu"), outer_space(problem))
        found = minimise(problem, method.oracle, method.outer, method.stopping).last
        areas.append(auroc(found.evaluation.v, ~split.wrong))
    assert float(np.median(areas)) >= 0.94, areas


@pytest.mark.slow
def test_distilled_images_teach_more_than_real_ones() -> None:
    from nhgd_pde.choice.method import build_method
    from nhgd_pde.engine.search import outer_space

    file = read_problem("problems/digits_distillation.yaml")
    problem, split = file.spec.task.build(file)  # type: ignore[attr-defined]
    method = build_method(file, problem.inner_shape, torch.device("cpu"), outer_space(problem))
    found = minimise(problem, method.oracle, method.outer, method.stopping).last
    before, after = (problem.accuracy(problem.trained(v), split.test) for v in (problem.start()[1], found.evaluation.v))
    assert after - before >= 0.09, (before, after)


def test_auroc_counts_pairs() -> None:
    scores = torch.tensor([0.1, 0.4, 0.4, 0.9])
    assert auroc(scores, torch.tensor([False, True, False, True])) == pytest.approx(3.5 / 4)


# Data


def _idx(path: Path, array: np.ndarray, kind: int = 8) -> Path:
    data = struct.pack(f">BBBB{array.ndim}I", 0, 0, kind, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def test_idx_files_are_read(tmp_path: Path) -> None:
    images, labels = np.arange(3 * 2 * 2).reshape(3, 2, 2) * 20, np.array([0, 2, 1])
    for suffix in ("", ".gz"):
        pixels, classes = idx_files(
            _idx(tmp_path / f"images{suffix}", images), _idx(tmp_path / f"labels{suffix}", labels)
        )
        assert pixels == pytest.approx(images.reshape(3, 4) / 255.0)
        assert (classes == labels).all()


def test_npz_files_are_read(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, images=np.full((4, 2, 2), 0.25), labels=np.array([0, 1, 1, 0]))
    pixels, classes = arrays(path)
    assert pixels.shape == (4, 4) and (pixels == 0.25).all() and classes.tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        (np.zeros((3, 4)), np.array([0, 1]), "found shapes"),
        (np.zeros((3, 4)), np.array([0, 1, 0.5]), r"labels 0, 1, \.\.\., found 0.5"),
        (np.zeros((3, 4)), np.array([0, 1, -1]), "found -1"),
        (np.zeros((3, 4)), np.array([0, 1, 9]), "below the number of images, 3; found 9"),
        (np.full((3, 4), np.nan), np.array([0, 1, 2]), "finite pixels"),
        (np.array([["a"]] * 3), np.array([0, 1, 2]), "expected numbers"),
    ],
)
def test_wrong_arrays_are_named(tmp_path: Path, images: np.ndarray, labels: np.ndarray, words: str) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, images=images, labels=labels)
    with pytest.raises(DataError, match=words):
        arrays(path)


def test_wrong_files_are_named(tmp_path: Path) -> None:
    labels = _idx(tmp_path / "labels", np.array([0, 1]))
    cut = tmp_path / "cut"
    cut.write_bytes(_idx(tmp_path / "images", np.zeros((2, 3, 3))).read_bytes()[:-1])
    for images, words in (
        (cut, "18 bytes after the header, found 17"),
        (labels, "IDX file of bytes with 3 dimensions"),
    ):
        with pytest.raises(DataError, match=words):
            idx_files(images, labels)
    (tmp_path / "text.npz").write_text("no arrays")
    with pytest.raises(DataError, match=r"not a \.npz file"):
        arrays(tmp_path / "text.npz")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"task.data": "nothing.npz"}, "nothing is downloaded: put it beside the problem file"),
        (
            {"task.data": {"images": "a", "labels": "b"}},
            r"data\.images: expected an IDX file, found nothing at 'a'",
        ),
        ({"task.training": 1600}, r"expected at most 1,797 with task\.validation, found 1,600 \+ 400 = 2,000"),
        ({"task.kind": "cleaning"}, "expected one of data_cleaning, data_distillation"),
        ({"mesh": {"kind": "interval"}}, "a file has an equation or a task"),
    ],
)
def test_mistakes_in_a_file_are_named(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ProblemError, match=words):
        file = read_problem("problems/digits_cleaning.yaml", changes)
        file.spec.task.build(file)  # type: ignore[attr-defined]
