"""The stage that picks one of several auxiliary tasks, or orders them, before any training."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Sequence
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


def settle_auxiliary(run: Run, materials: Materials) -> tuple[Materials, tuple[str, ...]]:
    """The materials with one of several auxiliary tasks beside the target, and what to say of it.

    It is the most promising one; or, in the order of least interference, the last of all. What
    they promise is a cheap proxy for training on each (after Puigcerver et al. 2020, arXiv
    2009.13239): on the features of the encoder as it is, a linear model learns a candidate's
    labels. What that model answers on another task's rows becomes their only features, and the
    score is that of a row's label by its nearest neighbours, itself left out.
    """
    inputs, tokenizer = materials.inputs, materials.tokenizer
    if not (inputs.candidates and inputs.recipe.ranks_auxiliary):
        return materials, ()
    in_order = inputs.recipe.order == "interference"
    encoder = copy.deepcopy(materials.encoder)  # it is moved to where it works
    tasks = (*inputs.candidates, inputs.task)

    def build(folder: Path) -> None:
        seed, length = inputs.recipe.seed, inputs.recipe.sequence
        model = Classifier(encoder, {"target": 1}).to(accelerator().device)
        some = [_some(task.train, seed) for task in tasks]
        known = []
        for number, (task, rows) in enumerate(zip(tasks, some, strict=True)):
            run.progress.step(number, len(tasks), task.name)
            known.append(_features(model, tokenizer, task, rows, length))
        asked = range(len(tasks)) if in_order else [len(tasks) - 1]
        found = []
        for i, task in enumerate(inputs.candidates):
            answers = answers_of(task, known[i], some[i], [known[j] for j in asked])
            scores = (
                neighbours_score(tasks[j], own, some[j])
                for j, own in zip(asked, answers, strict=True)
            )
            found.append(list(scores))
        write_json(folder / "promises.json", found)

    made_from: dict[str, Any] = {
        "encoder": materials.encoder_digest,
        "task": inputs.task.digest,
        "candidates": [task.digest for task in inputs.candidates],
        "in order": in_order,
        "sequence": inputs.recipe.sequence,
        "seed": inputs.recipe.seed,
        "learnt": learnt_how(),
    }
    stage = run.stage("ranking", made_from, build)
    promises = np.array(stage.read("promises.json"))  # of each candidate, for each task asked
    best = np.argsort(-promises[:, -1], kind="stable")
    told = ", ".join(f"{tasks[i].name} {promises[i, -1]:.3f}" for i in best)
    order = least_interference(promises) if in_order else best[:1]
    chosen = [inputs.candidates[i] for i in order]
    taken = ", then ".join(task.name for task in chosen)
    note = f"auxiliary: {taken} taken; by the proxy: {told}"
    run.progress.note(note)
    return materials.with_auxiliary(chosen[-1], chosen[:-1]), (note,)


def least_interference(promises: Floats) -> tuple[int, ...]:
    """The order in which each task promises most for the next, and the last for the target.

    `promises` [tasks, tasks + 1], the last column the target's. All orders are tried: the shortest
    path of Data-CUBE (Min et al. 2024, arXiv 2401.03563), whose end is given.
    """
    tasks, target = range(len(promises)), len(promises)

    def promise(order: tuple[int, ...]) -> float:
        return float(promises[order, (*order[1:], target)].sum())

    return max(itertools.permutations(tasks), key=promise)


def _features(model: Classifier, tokenizer: Any, task: Task, rows: Rows, length: int) -> Floats:
    tokens = tokenize(tokenizer, rows.texts, rows.pairs, length)
    found: Floats = features(model, Sample.of("target", task, rows, tokens)).double().numpy()
    return found


def answers_of(task: Task, known: Floats, rows: Rows, asked: Sequence[Floats]) -> Iterator[Floats]:
    """What a linear model of a candidate's labels says of others' features, standardised."""
    from sklearn.linear_model import LogisticRegression, Ridge  # type: ignore[import-untyped]

    centre, spread = known.mean(0), known.std(0) + 1e-9
    known, others = (known - centre) / spread, [(one - centre) / spread for one in asked]
    targets = np.asarray(rows.targets)
    if task.kind == "regression":
        said = Ridge(alpha=len(known)).fit(known, targets).predict
    else:
        said = LogisticRegression(C=0.01, max_iter=200).fit(known, targets).decision_function
    for one in others:
        answers = said(one).reshape(len(one), -1)
        yield (answers - answers.mean(0)) / (answers.std(0) + 1e-9)


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
