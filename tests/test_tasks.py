"""Tasks of machine learning: data, classifier, statistics of the scores, and the answers."""

from __future__ import annotations

import gzip
import json
import re
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from bilevel_problems import normal, seeded
from click.testing import CliRunner
from torch.nn.functional import cross_entropy

import nhgd_pde as nhgd
from nhgd_pde.cli import main
from nhgd_pde.engine.curvature.dense import Dense
from nhgd_pde.engine.hypergradient import hypergradient
from nhgd_pde.engine.minimise import minimise
from nhgd_pde.problem_file.errors import ProblemError
from nhgd_pde.problem_file.loading import read_problem
from nhgd_pde.tasks.classification import Classification, Examples
from nhgd_pde.tasks.classifier import Classifier
from nhgd_pde.tasks.data_sets import DataError, arrays, checked, idx_files
from nhgd_pde.tasks.loss_problem import LossProblem
from nhgd_pde.tasks.measures import auroc
from nhgd_pde.tasks.splitting import Split
from nhgd_pde.tasks.training_sets import TunedImages, WeightedExamples

FEATURES, CLASSES = 5, 3


def _examples(count: int, seed: int) -> Examples:
    generator = seeded(seed)
    images = torch.rand(count, FEATURES, generator=generator, dtype=torch.float64)
    return Examples(images, torch.randint(0, CLASSES, (count,), generator=generator))


def _small(kind: str = "cleaning", **options: object) -> Classification:
    classifier, training = Classifier(FEATURES, CLASSES), _examples(12, 0)
    made = WeightedExamples(training) if kind == "cleaning" else TunedImages(training)
    return Classification.of(classifier, made, _examples(20, 1), 0.05, **options)  # type: ignore[arg-type]


BOTH = pytest.mark.parametrize("kind", ["cleaning", "distillation"])


def _point(problem: Classification) -> tuple[torch.Tensor, torch.Tensor]:
    """Parameters and outer variables away from the start."""
    u = 0.5 * normal(seeded(3), *problem.inner_shape)
    return u, problem.start()[1] + 0.3 * normal(seeded(4), problem.outer_size)


def test_the_gradients_of_examples_are_those_of_their_losses() -> None:
    classifier, examples = Classifier(FEATURES, CLASSES), _examples(4, 2)
    u = normal(seeded(2), classifier.size)
    p = classifier.logits(u, examples.images).softmax(1)
    found = classifier.example_gradients(examples.images, p - torch.eye(CLASSES, dtype=p.dtype)[examples.labels])
    for k in range(4):
        at = u.clone().requires_grad_()
        loss = cross_entropy(classifier.logits(at, examples.images[k : k + 1]), examples.labels[k : k + 1])
        torch.testing.assert_close(found[k], torch.autograd.grad(loss, at)[0])


@BOTH
def test_the_second_moment_of_scores_is_the_fisher_information(kind: str) -> None:
    """By the law of large numbers, at its rate."""
    problem = _small(kind)
    u, v = _point(problem)
    fisher = problem.hessian_product(u, v, torch.eye(u.shape[1], dtype=u.dtype))
    errors = []
    for count in (2_000, 32_000):
        scores = problem.batch(u, v, problem.sample(count, seeded(5))).scores
        errors.append(float((scores @ scores.T / count - fisher).norm() / fisher.norm()))
    # Sixteen times as many scores: a quarter of the error.
    assert errors[1] < 0.05 and errors[1] < 0.5 * errors[0]
    torch.testing.assert_close(problem.fisher_factors(u, v).solve(fisher), torch.eye(u.shape[1], dtype=u.dtype))


@BOTH
def test_the_fisher_information_is_the_hessian(kind: str) -> None:
    problem = _small(kind)
    u, v = _point(problem)
    identity = torch.eye(u.shape[1], dtype=u.dtype)
    differentiated = LossProblem.state_product(problem, u, v, identity)
    torch.testing.assert_close(problem.hessian_product(u, v, identity), differentiated, rtol=1e-10, atol=1e-12)


@BOTH
def test_gradients_and_cross_derivatives_of_drawn_examples_are_unbiased(kind: str) -> None:
    problem = _small(kind, drawn=True, scores="observed")
    u, v = _point(problem)
    q, found = normal(seeded(8), *problem.inner_shape), []
    for seed in range(200):
        batch = problem.batch(u, v, problem.sample(20, seeded(seed)))
        found.append(torch.cat([batch.gradient[0], batch.cross(q)]))
    expected = torch.cat([problem.residual(u, v)[0], problem.cross_product(u, v, q)])
    each = torch.stack(found)
    standard_error = each.std(0) / 200**0.5
    assert ((each.mean(0) - expected).abs() <= 4.5 * standard_error).all()
    # The scores are the stochastic gradients themselves, as in the paper.
    torch.testing.assert_close(batch.scores.mean(1), batch.gradient[0])


@BOTH
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
        (np.array([["a"]] * 3), np.array([0, 1, 2]), "expected real numbers"),
        (np.full((3, 4), 1j), np.array([0, 1, 2]), "expected real numbers, found complex128"),
        (np.zeros((3, 4)), np.array([0, 1, np.nan]), "found nan"),
        (np.zeros((3, 4)), np.array([0, 1, np.inf]), "found inf"),
        (np.zeros((3, 4)), np.array([0, 0, 0]), "at least two classes, found 0 alone"),
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
    np.savez(tmp_path / "whole.npz", images=np.random.default_rng(0).random((50, 16)), labels=np.arange(50) % 3)
    content = bytearray((tmp_path / "whole.npz").read_bytes())
    (tmp_path / "cut.npz").write_bytes(content[: len(content) // 2])
    content[len(content) // 3] ^= 255
    (tmp_path / "flipped.npz").write_bytes(content)
    for name in ("text", "cut", "flipped"):
        with pytest.raises(DataError, match=r"not a \.npz file"):
            arrays(tmp_path / f"{name}.npz")
    np.save(tmp_path / "single.npy", np.zeros((3, 4)))
    with pytest.raises(DataError, match="found a single array"):
        arrays(tmp_path / "single.npy")


@pytest.mark.parametrize(
    ("images", "scale"),
    [(np.array([[0, 51]] * 3, np.uint8), 255.0), (np.array([[0.0, 1.02]] * 3), 1.02), (np.array([[0, 16]] * 3), 16.0)],
)
def test_bytes_are_divided_by_255_and_other_pixels_by_the_largest(images: np.ndarray, scale: float) -> None:
    pixels, _ = checked(images, np.array([0, 1, 0]))
    assert pixels == pytest.approx(images / scale)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"task.data": "nothing.npz"}, "nothing is downloaded: put it beside the problem file"),
        (
            {"task.data": {"images": "a", "labels": "b"}},
            r"data\.images: expected an IDX file, found nothing at 'a'",
        ),
        ({"task.training": 1600}, r"expected at most 1,797 with task\.validation, found 1,600 \+ 400 = 2,000"),
        ({"task.data": 5}, "data: expected digits, mnist, a .npz file, or a mapping with images and labels, found 5"),
        ({"task.data": {"images": "a"}}, r"task\.data\.labels: missing"),
        ({"inner.model": "residual"}, "inner.model: expected none beside task"),
        ({"inner.noise": 0.1}, "inner.noise: expected none beside task"),
        ({"devices.inner": "cuda:0"}, "expected auto or cpu, where tasks run; found 'cuda:0'"),
        ({"devices.memory": 1e6}, "650 parameters and 1,000 training images take about"),
        ({"task.kind": "cleaning"}, "expected one of data_cleaning, data_distillation"),
        ({"mesh": {"kind": "interval"}}, "a file has an equation or a task"),
    ],
)
def test_mistakes_in_a_file_are_named(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ProblemError, match=words):
        nhgd.load("problems/digits_cleaning.yaml", changes)


# Runs


@pytest.fixture
def small(tmp_path: Path) -> dict[str, object]:
    """A task on data of its own, of a few seconds."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 120)
    images = 0.3 * generator.random((120, 16)) + 0.7 * (np.arange(16) % 3 == labels[:, None])
    np.savez(tmp_path / "data.npz", images=images, labels=labels)
    task = {"data": str(tmp_path / "data.npz"), "training": 60, "ridge": 0.02}
    return {"name": "small", "task": task, "outer": {"iterations": 6}}


KINDS = pytest.mark.parametrize("kind", ["data_cleaning", "data_distillation"])


def _of(small: dict[str, object], kind: str, **more: object) -> dict[str, object]:
    own = {"validation": 30} if kind == "data_cleaning" else {"images_per_class": 2}
    return {**small, "task": {**small["task"], "kind": kind, **own}, **more}  # type: ignore[dict-item]


@KINDS
def test_a_task_leaves_a_run_folder(small: dict[str, object], kind: str, tmp_path: Path) -> None:
    solution = nhgd.solve(nhgd.load(_of(small, kind)), output=tmp_path / "run")
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["measures"]["test_accuracy"] > 0.5
    assert summary["objective"] == solution.objective < summary["objective_initial"]
    with np.load(tmp_path / "run/result.npz") as arrays:
        assert arrays["v"] == pytest.approx(solution.control)
        assert {"weights", "wrong"} <= {*arrays} if kind == "data_cleaning" else arrays["images"].shape == (6, 4, 4)
    assert (tmp_path / "run/images.png").exists() == (kind == "data_distillation")
    assert not (tmp_path / "run/final.vtu").exists()
    assert len(solution.history) == 7
    again = solution.save(tmp_path / "saved")
    assert (again / "result.npz").exists()


@KINDS
@pytest.mark.parametrize("curvature", ["factored", "dense"])
def test_a_resumed_task_has_the_numbers_of_one_that_went_through(
    small: dict[str, object], kind: str, curvature: str, tmp_path: Path
) -> None:
    options = {"curvature": {"kind": curvature}, "output": {"checkpoint": 1}}
    whole = nhgd.solve(nhgd.load(_of(small, kind, **options)))
    asked = iter([False] * 3 + [True] * 9)
    nhgd.solve(nhgd.load(_of(small, kind, **options)), output=tmp_path / "run", interrupted=lambda: next(asked))
    resumed = nhgd.solve(nhgd.load(_of(small, kind, **options)), output=tmp_path / "run", resume=True)
    assert (resumed.control == whole.control).all() and resumed.objective == whole.objective


@pytest.mark.parametrize("curvature", ["factored", "dense"])
def test_two_roles_find_the_numbers_of_one(small: dict[str, object], curvature: str) -> None:
    file = _of(small, "data_cleaning", curvature={"kind": curvature})
    one, two = (nhgd.solve(nhgd.load(file), roles=roles) for roles in (1, 2))
    assert two.control == pytest.approx(one.control, rel=1e-9)
    assert two.stats["roles"]["count"] == 2


def test_the_compared_methods_take_tasks(small: dict[str, object]) -> None:
    values = {
        method: nhgd.solve(nhgd.load(_of(small, "data_cleaning", method=method))).objective
        for method in ("nhgd", "adjoint", "truncated_cg", "nbo_cg", "broyden")
    }
    assert values["adjoint"] == pytest.approx(values["nhgd"], rel=1e-4)
    assert values["truncated_cg"] == pytest.approx(values["nhgd"], rel=1e-3)
    # One step of the inner variables, and one of the adjoint, for each outer step.
    assert values["nbo_cg"] == pytest.approx(values["nhgd"], rel=0.1)
    assert values["broyden"] == pytest.approx(values["nhgd"], rel=0.1)


def test_verify_refuses_a_task(small: dict[str, object]) -> None:
    with pytest.raises(ProblemError, match="problems with an equation"):
        nhgd.verify(nhgd.load(_of(small, "data_cleaning")))


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["check"], 0, "1,000 training, 400 validation, 397 test examples of 64 pixels in 10 classes"),
        (["check", "--no-code"], 0, "650 parameters of softmax regression"),
        (["check", "--set", "task.data=train.npz"], 2, "nothing is downloaded"),
        (["solve", "--set", "task.wrong_labels=2"], 2, "expected a number of at least 0 and below 1, found 2"),
        (["solve", "--ranks", "2"], 2, "expected random inputs in a run of 2 ranks"),
        (
            ["solve", "-q", "--set", "outer.iterations=2", "--output", "FOLDER"],
            0,
            "stopped: 2 outer iterations ended, all that were asked for,",
        ),
        (["verify"], 2, "verify tests the derivatives of problems with an equation"),
    ],
)
def test_the_commands_take_tasks_or_say_why_not(arguments: list[str], code: int, words: str, tmp_path: Path) -> None:
    name, *more = (str(tmp_path / "run") if each == "FOLDER" else each for each in arguments)
    done = CliRunner().invoke(main, [name, "problems/digits_cleaning.yaml", *more])
    assert (done.exit_code, words in done.output) == (code, True), done.output


def test_a_ridge_of_rounding_size_is_no_crash(small: dict[str, object]) -> None:
    """The pixels of the corners may be zero everywhere: then the ridge alone makes the problem definite."""
    file = _of(small, "data_cleaning")
    file["task"]["ridge"] = 1e-300  # type: ignore[index]
    solution = nhgd.solve(nhgd.load(file))
    assert solution.status in ("stopped", "failed") and solution.message


@pytest.mark.parametrize("kind", ["block", "low_rank"])
def test_every_inverse_takes_tasks(small: dict[str, object], kind: str) -> None:
    found, exact = (
        nhgd.solve(nhgd.load(_of(small, "data_cleaning", curvature={"kind": each}))) for each in (kind, "factored")
    )
    assert found.objective == pytest.approx(exact.objective, rel=1e-3)


def test_the_preset_of_the_paper_draws_examples(small: dict[str, object]) -> None:
    file = _of(small, "data_cleaning", preset="paper", inner={"tests": 8, "steps": 5})
    problem = nhgd.load(file)
    assert problem.bilevel.drawn and problem.bilevel.scores == "observed"  # type: ignore[attr-defined]
    assert not nhgd.load(_of(small, "data_cleaning")).bilevel.drawn  # type: ignore[attr-defined]
    # A few plain stochastic steps leave a state that is not known: the run is not complete.
    solution = nhgd.solve(problem)
    assert solution.status == "stopped" and not solution.complete


def test_the_example_of_the_page_finds_its_optimum(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[1] / "docs/tasks.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(compile(example, "docs/tasks.md", "exec"), {})
    assert capsys.readouterr().out.startswith("converged")
