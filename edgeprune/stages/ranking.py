"""The stage that picks one of several auxiliary tasks, before anything is trained."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune.encoder import Classifier
from edgeprune.learn.answers import Sample, accelerator, features
from edgeprune.run import Run, write_json
from edgeprune.stages.materials import Materials, learnt_how
from edgeprune.task import Rows, Task
from edgeprune.tokens import tokenize

ROWS = 1_000  # of each task, at most
NEIGHBOURS = 5

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Promise:
    """How much a candidate promises: the target's score from its answers alone."""

    task: str
    score: float


def pick_auxiliary(run: Run, materials: Materials) -> tuple[Materials, tuple[str, ...]]:
    """The materials with the most promising candidate alone, and what to say of the others.

    A cheap proxy for training on each (after Puigcerver et al. 2020, arXiv 2009.13239): on the
    features of the encoder as it is, a linear model learns a candidate's labels. What that model
    answers on the target's rows becomes their only features, and the score is that of a row's
    label by its nearest neighbours, itself left out.
    """
    inputs, tokenizer = materials.inputs, materials.tokenizer
    if not (inputs.candidates and inputs.recipe.ranks_auxiliary):
        return materials, ()
    encoder = copy.deepcopy(materials.encoder)  # it is moved to where it works

    def build(folder: Path) -> None:
        seed, length = inputs.recipe.seed, inputs.recipe.sequence
        model = Classifier(encoder, {"target": 1}).to(accelerator().device)
        rows = _some(inputs.task.train, seed)
        target = _features(model, tokenizer, inputs.task, rows, length)
        found = []
        for number, task in enumerate(inputs.candidates):
            run.progress.step(number, len(inputs.candidates), task.name)
            some = _some(task.train, seed)
            known = _features(model, tokenizer, task, some, length)
            answers = answers_of(task, known, some, target)
            found.append(Promise(task.name, neighbours_score(inputs.task, answers, rows)))
        write_json(folder / "ranking.json", [asdict(one) for one in found])

    made_from: dict[str, Any] = {
        "encoder": materials.encoder_digest,
        "task": inputs.task.digest,
        "candidates": [task.digest for task in inputs.candidates],
        "sequence": inputs.recipe.sequence,
        "seed": inputs.recipe.seed,
        "learnt": learnt_how(),
    }
    stage = run.stage("ranking", made_from, build)
    found = [Promise(**one) for one in stage.read("ranking.json")]
    order = sorted(range(len(found)), key=lambda i: -found[i].score)
    told = ", ".join(f"{found[i].task} {found[i].score:.3f}" for i in order)
    note = f"auxiliary: {found[order[0]].task} taken; by the proxy: {told}"
    run.progress.note(note)
    return materials.with_auxiliary(inputs.candidates[order[0]]), (note,)


def _features(model: Classifier, tokenizer: Any, task: Task, rows: Rows, length: int) -> Floats:
    tokens = tokenize(tokenizer, rows.texts, rows.pairs, length)
    found: Floats = features(model, Sample.of("target", task, rows, tokens)).double().numpy()
    return found


def answers_of(task: Task, known: Floats, rows: Rows, asked: Floats) -> Floats:
    """What a linear model of a candidate's labels says of other features, standardised."""
    from sklearn.linear_model import LogisticRegression, Ridge  # type: ignore[import-untyped]

    centre, spread = known.mean(0), known.std(0) + 1e-9
    known, asked = (known - centre) / spread, (asked - centre) / spread
    targets = np.asarray(rows.targets)
    if task.kind == "regression":
        answers = Ridge(alpha=len(known)).fit(known, targets).predict(asked)[:, None]
    else:
        model = LogisticRegression(C=0.01, max_iter=200).fit(known, targets)
        answers = model.decision_function(asked)
        answers = answers[:, None] if answers.ndim == 1 else answers
    scaled: Floats = (answers - answers.mean(0)) / (answers.std(0) + 1e-9)
    return scaled


def neighbours_score(task: Task, answers: Floats, rows: Rows) -> float:
    """The task's metric where each row is answered by its nearest others."""
    squares = (answers**2).sum(1)
    apart = squares[:, None] + squares[None, :] - 2 * answers @ answers.T
    np.fill_diagonal(apart, np.inf)
    nearest = np.argsort(apart, axis=1, kind="stable")[:, :NEIGHBOURS]
    targets = np.asarray(rows.targets)
    if task.kind == "regression":
        said = targets[nearest].mean(1)[:, None]
    else:
        said = np.stack([(targets[nearest] == i).sum(1) for i in range(len(task.labels))], 1)
    return task.score(said.astype(np.float64), rows)


def _some(rows: Rows, seed: int) -> Rows:
    if len(rows) <= ROWS:
        return rows
    drawn: Sequence[int] = np.random.default_rng(seed).permutation(len(rows))[:ROWS].tolist()
    return rows.take(drawn)
