"""Teaching and recovery on tasks that a tiny encoder can learn in a second."""

from __future__ import annotations

import copy
import json
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import CONFIG, DENSE
from transformers import ElectraConfig

from edgeprune.encoder import Classifier, Encoder
from edgeprune.errors import Diverged, ResourceError
from edgeprune.latency import LatencyTable
from edgeprune.learn import snapshots
from edgeprune.learn.answers import (
    TEMPERATURE,
    Judge,
    Sample,
    accelerator,
    gold_loss,
    imitation_loss,
    judge_on,
    predict,
    row_losses,
)
from edgeprune.learn.coupling import TARGET_ONLY_FROM, auxiliary_weight
from edgeprune.learn.fit import Draws, Schedule, Taught, Training
from edgeprune.learn.gates import learn_gates
from edgeprune.learn.masking import TOLD, Blanks, filling_loss
from edgeprune.learn.memory import within_memory
from edgeprune.learn.snapshots import STATE, TENSORS, Snapshot, Snapshots
from edgeprune.learn.train import recover, teach
from edgeprune.progress import SILENT, Progress, Silent
from edgeprune.prune.curves import Curves, error_curves
from edgeprune.prune.moments import collect_moments
from edgeprune.prune.obs import obs
from edgeprune.prune.surgery import operate
from edgeprune.shape import LayerShape
from edgeprune.task import Rows, Task
from edgeprune.tokens import Tokens

BLANKS = Blanks(mask=4, special=(0, 2, 3, 4))
SHORT = Schedule(steps=60, batch=16, learning_rate=1e-2, head_learning_rate=1e-2, seed=0)


def encoder(seed: int = 0) -> Encoder:
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        return Encoder(CONFIG, DENSE)


def tokens_of(words: list[list[int]]) -> Tokens:
    ids = tuple(np.array([2, *row, 3], dtype=np.int64) for row in words)
    return Tokens(ids, tuple(np.zeros_like(row) for row in ids), 0, BLANKS.special)


def classes(rows: int, head: str = "target", seed: int = 0, kinds: int = 2) -> Sample:
    """Rows of words from one of several lists; which list is the label."""
    random = np.random.default_rng(seed)
    labels = np.arange(rows) % kinds
    size = 30 // kinds
    words = [
        (5 + label * size + random.integers(0, size, random.integers(2, 9))).tolist()
        for label in labels
    ]
    return Sample(head, tokens_of(words), torch.from_numpy(labels), regression=False)


def text(rows: int, seed: int = 0) -> Sample:
    """Rows of one word said again and again, so that a hidden one can be told from the others."""
    random = np.random.default_rng(seed)
    words = [[int(word)] * 8 for word in random.integers(5, 40, rows)]
    return Sample("auxiliary", tokens_of(words), torch.zeros(rows), False, blanks=BLANKS)


def scores(rows: int, seed: int = 0) -> Sample:
    """Rows of words of two lists; 3 plus the share of the second is the score."""
    random = np.random.default_rng(seed)
    shares = random.uniform(size=rows)
    words = [
        (5 + random.integers(0, 15, 6) + 15 * (random.uniform(size=6) < share)).tolist()
        for share in shares
    ]
    found = [3 + np.mean([word >= 20 for word in row]) for row in words]
    return Sample("target", tokens_of(words), torch.tensor(found).float(), regression=True)


def loss_of(model: Classifier, sample: Sample) -> float:
    logits = predict(model.to(accelerator().device), sample)
    model.to("cpu")
    return float(gold_loss(logits, sample.targets, sample.regression))


def judge_by_loss(sample: Sample) -> Judge:
    """By the loss on some of its rows."""
    sample = sample.take(np.arange(min(60, len(sample))))

    def judge(model: Classifier) -> tuple[float, float]:
        loss = float(gold_loss(predict(model, sample), sample.targets, sample.regression))
        return -loss, loss

    return judge


def taught(
    train: Sample,
    auxiliary: Sample | None = None,
    how: str = "none",
    schedule: Schedule = SHORT,
    judge: Judge | None = None,
    outputs: int = 2,
) -> Taught:
    widths = {"target": outputs} | ({"auxiliary": 3} if auxiliary else {})
    chosen = judge or judge_by_loss(train)
    return teach(encoder(), train, auxiliary, widths, how, schedule, chosen, SILENT)


# --- teaching ----------------------------------------------------------------------------------


def test_a_task_that_can_be_learned_is_learned() -> None:
    held_out = classes(60, seed=1)
    model = taught(classes(1_200), schedule=replace(SHORT, steps=100)).model
    assert loss_of(model, held_out) < 0.35  # at chance it is 0.69
    assert right(model.to(accelerator().device), held_out) > 0.8


def test_a_score_that_can_be_learned_is_learned() -> None:
    held_out = scores(60, seed=1)
    model = taught(scores(1_200), schedule=replace(SHORT, steps=150), outputs=1).model
    assert loss_of(model, held_out) < 0.5 * float(held_out.targets.var())


def test_text_that_can_be_filled_in_is_learned() -> None:
    def loss(model: Classifier) -> float:
        drawn = Draws(text(60, seed=1), SHORT, model.encoder)
        with torch.no_grad():
            losses = [filling_loss(model, *next(drawn)[1:], "auxiliary") for _ in range(4)]
        return float(torch.stack(losses).mean())

    judge, widths = judge_by_loss(classes(60)), {"target": 2, "auxiliary": 16}
    schedule = replace(SHORT, steps=200)
    arguments = (encoder(), classes(60), text(600), widths)
    before = teach(*arguments, "none", replace(SHORT, steps=1), judge, SILENT).model
    after = teach(*arguments, "sequential", schedule, judge, SILENT).model
    assert loss(after) < 0.9 * loss(before)  # which guesses: log 40


def test_tokens_are_hidden_and_special_ones_never() -> None:
    ids = np.tile(np.array([2, *range(5, 35), 3, 0, 0]), (100, 1))
    hidden, wanted = BLANKS.hide(ids, np.random.default_rng(0))
    gone = hidden == BLANKS.mask
    assert 0.13 < gone[:, 1:31].mean() < 0.17
    assert not gone[:, [0, 31, 32, 33]].any()
    assert (wanted[gone] == ids[gone]).all()
    assert (wanted[~gone] == TOLD).all()
    assert (hidden[~gone] == ids[~gone]).all()


def test_rows_in_which_nothing_is_hidden_cost_nothing() -> None:
    model = Classifier(encoder(), {"auxiliary": 16})
    inputs = {"input_ids": torch.tensor([[2, 3]]), "attention_mask": torch.ones(1, 2).long()}
    loss = filling_loss(model, inputs, torch.full((1, 2), TOLD), "auxiliary")
    loss.backward()
    assert float(loss.detach()) == 0


def test_recovery_reads_text_as_it_is_and_asks_the_target_head(prune: Pruned) -> None:
    """What the teacher would fill in is not what the student is to imitate."""
    widths, judge = {"target": 2, "auxiliary": 16}, judge_by_loss(classes(20))
    teacher = teach(encoder(), classes(60), text(60), widths, "joint", SHORT, judge, SILENT).model
    student = Classifier(prune(THIN).encoder, {"target": 2})
    short = replace(SHORT, steps=10)
    told = [
        recover(student, teacher, classes(60), one, "joint", short, judge, SILENT).history.steps
        for one in (text(60), replace(text(60), blanks=None, head="unlabelled"))
    ]
    ours = [[step.get("auxiliary", step.get("unlabelled")) for step in steps] for steps in told]
    assert ours[0] == ours[1]


def test_scores_start_at_their_mean() -> None:
    still = Schedule(steps=1, batch=8, learning_rate=0.0, head_learning_rate=0.0, seed=0)
    model = taught(scores(50), schedule=still, outputs=1).model
    start = model.heads["target"].get_parameter("bias").item()
    assert start == pytest.approx(float(scores(50).targets.mean()))


def test_the_encoder_that_was_lent_is_left_as_it_was() -> None:
    lent = encoder()
    before = copy.deepcopy(lent.state_dict())
    widths = {"target": 2}
    judge = judge_by_loss(classes(20))
    teach(lent, classes(60), None, widths, "none", SHORT, judge, SILENT)
    assert all(torch.equal(before[name], tensor) for name, tensor in lent.state_dict().items())
    assert all(parameter.requires_grad for parameter in lent.parameters())


def test_embeddings_are_not_trained_and_all_else_is() -> None:
    before = encoder().state_dict()
    after = taught(classes(60)).model.encoder.state_dict()
    same = {name for name, tensor in before.items() if torch.equal(tensor, after[name])}
    # A key's bias moves all scores of a query alike, which the softmax does not see.
    assert {name for name in same if not name.endswith("key.bias")} == {
        name for name in before if name.startswith("embeddings.")
    }


@pytest.mark.parametrize("how", ["none", "joint", "meta", "decompose"])
@pytest.mark.parametrize("rows", [60, 1_200])
def test_the_lowest_layers_are_not_trained_where_they_are_frozen(how: str, rows: int) -> None:
    short, judge = replace(SHORT, steps=12), judge_by_loss(classes(20))
    before = encoder().state_dict()
    taught = teach(
        *(encoder(), classes(rows), AUXILIARY, {"target": 2, "auxiliary": 3}, how, short, judge),
        SILENT,
        frozen_layers=1,
    )
    after = taught.model.encoder.state_dict()
    moved = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert moved
    assert all(name.startswith("layers.1.") for name in moved)
    # A recovery from here on may move them.
    assert all(parameter.requires_grad for parameter in taught.model.parameters())


def test_no_gradient_is_taken_of_what_is_frozen_or_below_it() -> None:
    config = ElectraConfig(
        vocab_size=40,
        embedding_size=8,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=16,
    )
    model = Classifier(Encoder(config, DENSE), {"target": 2}).to(accelerator().device)
    rows = classes(8)
    draws = Draws(rows, SHORT, model.encoder)
    Training(model, {"target": draws}, SHORT, frozen_layers=1)
    _, states = model(next(draws)[1])
    assert [state.requires_grad for state in states] == [False, False, True]
    with_all = Classifier(Encoder(config, DENSE), {"target": 2})
    Training(with_all, {"target": draws}, SHORT)
    assert with_all.encoder.embeddings_project is not None
    assert all(p.requires_grad for p in with_all.encoder.embeddings_project.parameters())


def test_the_same_seed_gives_the_same_weights_and_another_others() -> None:
    short = replace(SHORT, steps=12)
    first, again, other = (
        taught(classes(60), classes(60, "auxiliary", kinds=3), "joint", schedule).model.state_dict()
        for schedule in (short, short, replace(short, seed=1))
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["heads.target.weight"], other["heads.target.weight"])


def test_what_was_drawn_before_makes_no_difference() -> None:
    short = replace(SHORT, steps=6)
    first = taught(classes(60), schedule=short).model.state_dict()
    torch.rand(7)
    again = taught(classes(60), schedule=short).model.state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_the_best_checkpoint_by_validation_is_kept() -> None:
    said = [(0.1, 1.0), (0.9, 0.5), (0.9, 0.2), (0.9, 0.4), (0.3, 0.0)]
    seen: list[dict[str, torch.Tensor]] = []

    def judge(model: Classifier) -> tuple[float, float]:
        seen.append(copy.deepcopy(model.state_dict()))
        return said[len(seen) - 1]

    best = taught(classes(60), judge=judge)
    assert len(seen) == len(said)
    assert (best.score, best.loss) == (0.9, 0.2)
    kept = best.model.state_dict()
    assert all(torch.equal(kept[name], tensor.cpu()) for name, tensor in seen[2].items())


def test_the_last_step_is_always_judged() -> None:
    judged = []

    def judge(model: Classifier) -> tuple[float, float]:
        judged.append(model)
        return 0.0, 0.0

    for steps in (1, 2, 7):
        taught(classes(20), schedule=replace(SHORT, steps=steps), judge=judge)
        assert judged
        judged.clear()


def test_what_comes_back_answers_without_dropout() -> None:
    model = taught(classes(60), schedule=replace(SHORT, steps=5)).model
    assert not model.training
    model.to(accelerator().device)
    sample = classes(8)
    assert torch.equal(predict(model, sample), predict(model, sample))
    assert {m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)} == {0.0}


def test_every_step_is_told() -> None:
    told: list[tuple[int, int]] = []

    class Listening(Silent):
        def step(self, done: int, total: int, note: str = "") -> None:
            told.append((done, total))

    short = replace(SHORT, steps=4)
    judge = judge_by_loss(classes(20))
    teach(encoder(), classes(20), None, {"target": 2}, "none", short, judge, Listening())
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_loss_that_is_no_number_ends_the_training() -> None:
    rows = scores(50)
    rows.targets[7] = float("nan")
    short = replace(SHORT, batch=50)
    with pytest.raises(Diverged, match=r"training at step 0 — the loss is nan — .*seed") as caught:
        taught(rows, schedule=short, outputs=1)
    assert caught.value.exit_code == 1


def test_weights_that_run_away_end_the_training() -> None:
    wild = Schedule(steps=60, batch=8, learning_rate=1e30, head_learning_rate=1e30, seed=0)
    with pytest.raises(Diverged, match="the loss is"):
        taught(classes(40), schedule=wild)


# --- coupling ----------------------------------------------------------------------------------


def right(model: Classifier, sample: Sample) -> float:
    return float((predict(model, sample).argmax(1) == sample.targets).float().mean())


@pytest.mark.parametrize(
    ("how", "remembered"),
    [("joint", 0.7), ("sequential", 0.4), ("meta", 0.7), ("decompose", 0.6)],
)
def test_a_coupled_training_teaches_both_heads(how: str, remembered: float) -> None:
    """One after the other, the first of three classes is partly forgotten again."""
    auxiliary = classes(1_200, "auxiliary", kinds=3)
    model = taught(classes(1_200), auxiliary, how, replace(SHORT, steps=120)).model
    model.to(accelerator().device)
    assert right(model, classes(40, seed=1)) > 0.75
    assert right(model, classes(60, "auxiliary", seed=1, kinds=3)) > remembered


def test_uncoupled_the_auxiliary_rows_are_never_looked_at() -> None:
    auxiliary = classes(60, "auxiliary", kinds=3)
    alone = taught(classes(60), auxiliary, "none", replace(SHORT, steps=8)).model.state_dict()
    spoiled = replace(auxiliary, targets=auxiliary.targets.flip(0))
    other = taught(classes(60), spoiled, "none", replace(SHORT, steps=8)).model.state_dict()
    assert all(torch.equal(alone[name], other[name]) for name in alone)


shares = st.floats(0, 1, exclude_max=True)


@given(progress=shares, how=st.sampled_from(["none", "joint", "sequential"]))
def test_the_auxiliary_share_of_a_loss_is_a_share(progress: float, how: str) -> None:
    assert 0 <= auxiliary_weight(how, progress) <= 1
    assert auxiliary_weight("none", progress) == 0


@given(pair=st.tuples(shares, shares), how=st.sampled_from(["joint", "sequential"]))
def test_the_auxiliary_share_never_grows_and_ends_at_nothing(
    pair: tuple[float, float], how: str
) -> None:
    earlier, later = sorted(pair)
    assert auxiliary_weight(how, later) <= auxiliary_weight(how, earlier)
    assert later < TARGET_ONLY_FROM or auxiliary_weight(how, later) == 0


@given(start=st.floats(0, 1))
def test_a_joint_training_starts_at_the_given_share(start: float) -> None:
    assert auxiliary_weight("joint", 0.0, start=start) == start
    assert auxiliary_weight("joint", 0.5, start=start) == start / 2


def test_a_sequential_training_has_one_task_at_a_time() -> None:
    assert [auxiliary_weight("sequential", x) for x in (0.0, 0.49, 0.5, 0.99)] == [1, 1, 0, 0]


# --- losses and answers ------------------------------------------------------------------------


def test_imitation_is_the_divergence_of_softened_answers() -> None:
    random = np.random.default_rng(0)
    ours, theirs = random.normal(size=(2, 5, 4)) * 3
    soft = [
        np.exp(x / TEMPERATURE) / np.exp(x / TEMPERATURE).sum(1)[:, None] for x in (ours, theirs)
    ]
    wanted = TEMPERATURE**2 * (soft[1] * np.log(soft[1] / soft[0])).sum(1).mean()
    found = imitation_loss(torch.from_numpy(ours), torch.from_numpy(theirs), False)
    assert float(found) == pytest.approx(wanted)
    assert float(imitation_loss(torch.from_numpy(ours), torch.from_numpy(ours), False)) == 0
    squares = np.square(ours - theirs).mean()
    found = imitation_loss(torch.from_numpy(ours), torch.from_numpy(theirs), True)
    assert float(found) == pytest.approx(squares)


@pytest.mark.parametrize("regression", [False, True])
def test_the_losses_of_rows_are_those_whose_mean_is_the_loss(regression: bool) -> None:
    sample = scores(30) if regression else classes(30)
    model = Classifier(encoder(), {"target": 1 if regression else 2}).to(accelerator().device)
    losses = row_losses(model, sample)
    assert losses.shape == (30,)
    assert losses.mean() == pytest.approx(loss_of(model, sample), rel=1e-5)
    alone = [loss_of(model, sample.take(np.array([row]))) for row in (3, 17)]
    assert losses[[3, 17]] == pytest.approx(alone, rel=0.02)  # bf16, where the processor has it


def test_rows_that_are_taken_keep_their_difficulty() -> None:
    sample = replace(classes(9), difficulty=np.arange(9, dtype=np.float64))
    assert sample.take(np.array([5, 2])).difficulty == pytest.approx([5, 2])


def test_answers_come_in_the_order_of_the_rows() -> None:
    sample = classes(30)
    model = Classifier(encoder(), {"target": 2}).eval().to(accelerator().device)
    together = predict(model, sample, batch=7)
    alone = torch.cat([predict(model, sample.take(np.array([row]))) for row in range(30)])
    assert torch.allclose(together, alone, atol=0.02)  # bf16, where the processor has it


def test_a_judge_scores_by_the_metric_of_the_task() -> None:
    sample = classes(20)
    rows = Rows(("",) * 20, None, sample.targets.numpy())
    task = Task("t", "classification", rows, rows, rows, ("a", "b"), "accuracy", (), "")
    model = taught(sample).model
    score, loss = judge_on(task, rows, sample)(model.to(accelerator().device))
    assert score == pytest.approx(right(model, sample))
    assert loss == pytest.approx(loss_of(model, sample))


@pytest.mark.parametrize(
    ("ours", "theirs", "better"),
    [
        ((0.9, 9.0), (0.8, 0.1), True),
        ((0.8, 0.1), (0.8, 0.2), True),
        ((0.8, 0.2), (0.8, 0.2), False),
    ],
)
def test_the_score_decides_and_the_loss_between_equals(
    ours: tuple[float, float], theirs: tuple[float, float], better: bool
) -> None:
    model = Classifier(encoder(), {"target": 2})
    assert Taught(model, *ours).beats(Taught(model, *theirs)) is better


# --- history -----------------------------------------------------------------------------------


def test_a_training_tells_each_task_s_loss_and_every_checkpoint() -> None:
    train, auxiliary = classes(60), classes(60, "auxiliary", kinds=3)
    found = taught(train, auxiliary, "sequential", replace(SHORT, steps=10))
    steps = found.history.steps
    assert [list(row) for row in steps] == [["auxiliary"]] * 5 + [["target"]] * 5
    assert steps[5]["target"] == pytest.approx(0.69, abs=0.3)  # of two classes, not yet learned
    checkpoints = found.history.checkpoints
    assert checkpoints[-1].step == 10
    assert max((one.score, -one.loss) for one in checkpoints) == (found.score, -found.loss)
    assert json.loads(json.dumps(found.history.to_dict()))["steps"] == list(steps)


def test_tasks_taught_together_are_told_apart() -> None:
    train, auxiliary = classes(60), classes(60, "auxiliary", kinds=3)
    steps = taught(train, auxiliary, "joint", replace(SHORT, steps=4)).history.steps
    assert all(list(row) == ["target", "auxiliary"] for row in steps)
    assert all(row["target"] != row["auxiliary"] for row in steps)


# --- recovery ----------------------------------------------------------------------------------

Pruned = Callable[[list[LayerShape]], Classifier]


@pytest.fixture(scope="module")
def teacher() -> Classifier:
    """A model that knows both tasks."""
    auxiliary = classes(1_200, "auxiliary", kinds=3)
    return taught(classes(1_200), auxiliary, "joint", replace(SHORT, steps=100)).model


@pytest.fixture(scope="module")
def prune(teacher: Classifier) -> Pruned:
    sample = classes(60)
    inputs = sample.tokens.batch(range(60), teacher.encoder.input_names)
    batch = {name: torch.from_numpy(ids) for name, ids in inputs.items()}
    curves: Curves = error_curves(teacher, collect_moments(teacher, [batch]), obs)
    return lambda layers: operate(teacher, DENSE.with_layers(layers), curves)


def gap(student: Classifier, teacher: Classifier, sample: Sample) -> float:
    answers = [predict(m.to(accelerator().device), sample) for m in (student, teacher)]
    return float(imitation_loss(answers[0], answers[1], sample.regression))


THIN = [LayerShape(1, 1), LayerShape(0, 1)]
GONE = [LayerShape(0, 0), LayerShape(0, 0)]


@pytest.mark.parametrize(("layers", "left"), [(THIN, 0.5), (GONE, 0.95)])
@pytest.mark.parametrize("coupled", [False, True])
def test_recovery_moves_the_student_towards_the_teacher(
    teacher: Classifier, prune: Pruned, layers: list[LayerShape], left: float, coupled: bool
) -> None:
    student = prune(layers)
    with torch.no_grad():  # farther away than a task so easy would leave it
        student.heads["target"].get_parameter("weight").mul_(0.3)
    auxiliary = classes(60, "auxiliary", kinds=3) if coupled else None
    train, held_out = classes(1_200), classes(60, seed=1)
    how, judge = "joint" if coupled else "none", judge_by_loss(train)
    found = recover(student, teacher, train, auxiliary, how, SHORT, judge, SILENT)
    assert gap(found.model, teacher, held_out) < left * gap(student, teacher, held_out)
    assert found.model.encoder.shape == student.encoder.shape


def test_the_teacher_is_believed_where_the_labels_say_nothing(
    teacher: Classifier, prune: Pruned
) -> None:
    train = classes(1_200)
    balanced = torch.arange(1_200) // 2 % 2  # each class half and half
    student = prune(THIN)
    torch.nn.init.zeros_(student.heads["target"].get_parameter("weight"))
    found = recover(
        student,
        teacher,
        replace(train, targets=balanced),
        None,
        "none",
        SHORT,
        judge_by_loss(train),
        SILENT,
    )
    assert found.loss < 0.5  # of the true labels; 0.69 says nothing of them


def test_the_teacher_is_asked_about_rows_that_nobody_wrote(
    teacher: Classifier, prune: Pruned
) -> None:
    few, judge = classes(16), judge_by_loss(classes(20))
    heard: list[torch.Tensor] = []
    hook = teacher.register_forward_pre_hook(
        lambda _, inputs: heard.append(inputs[0]["input_ids"].cpu())
    )
    recover(prune(THIN), teacher, few, None, "none", replace(SHORT, steps=8), judge, SILENT)
    hook.remove()
    written = {tuple(row) for row in few.tokens.ids}
    asked = [tuple(row[row != 0].tolist()) for ids in heard for row in ids]
    made_up = [row for row in asked if row not in written]
    assert len(asked) == 16 + 8 * 16  # of what is written each row once
    assert 0.5 < len(made_up) / (8 * 16) <= 1
    assert {row[0] for row in asked} == {2}
    assert {row[-1] for row in asked} == {3}


def test_recovery_leaves_student_and_teacher_as_they_were(
    teacher: Classifier, prune: Pruned
) -> None:
    student = prune(THIN)
    before = [copy.deepcopy(model.to("cpu").state_dict()) for model in (student, teacher)]
    judge = judge_by_loss(classes(20))
    recover(student, teacher, classes(60), None, "none", replace(SHORT, steps=5), judge, SILENT)
    for model, weights in zip((student, teacher), before, strict=True):
        after = model.to("cpu").state_dict()
        assert all(torch.equal(after[name], tensor) for name, tensor in weights.items())


def test_recovery_is_the_same_for_the_same_seed(teacher: Classifier, prune: Pruned) -> None:
    student, judge = prune(THIN), judge_by_loss(classes(20))
    short = replace(SHORT, steps=8)
    auxiliary = classes(60, "auxiliary", kinds=3)
    first, again = (
        recover(student, teacher, classes(60), auxiliary, "joint", short, judge, SILENT)
        for _ in range(2)
    )
    weights = again.model.state_dict()
    assert all(torch.equal(tensor, weights[n]) for n, tensor in first.model.state_dict().items())


def test_a_teacher_without_an_auxiliary_head_can_still_be_imitated_on_auxiliary_text(
    prune: Pruned, teacher: Classifier
) -> None:
    alone = Classifier(copy.deepcopy(teacher.encoder), {"target": 2}).eval()
    alone.heads["target"] = copy.deepcopy(teacher.heads["target"])
    student = prune(THIN)
    del student.heads["auxiliary"]
    auxiliary = classes(60, "auxiliary", kinds=3)
    judge = judge_by_loss(classes(20))
    short = replace(SHORT, steps=10)
    found = recover(student, alone, classes(60), auxiliary, "joint", short, judge, SILENT)
    assert list(found.model.heads) == ["target"]


def test_scores_are_recovered_too(prune: Pruned) -> None:
    teacher = taught(scores(1_200), outputs=1).model
    student = Classifier(prune(THIN).encoder, {"target": 1})
    train, held_out = scores(1_200), scores(60, seed=1)
    judge = judge_by_loss(train)
    found = recover(student, teacher, train, None, "none", SHORT, judge, SILENT)
    assert gap(found.model, teacher, held_out) < 0.3 * gap(student, teacher, held_out)


# --- stopped, and gone on with ------------------------------------------------------------------

STEPS = 30
AUXILIARY = classes(60, "auxiliary", kinds=3)
Train = Callable[[Progress, Snapshots | None], Taught]


def teaching(
    train: Sample, how: str = "joint", frozen_layers: int = 0, auxiliary: Sample = AUXILIARY
) -> Train:
    def run(progress: Progress, snapshots: Snapshots | None) -> Taught:
        schedule = replace(SHORT, steps=STEPS)
        widths = {"target": 2, "auxiliary": 16 if auxiliary.blanks else 3}
        judge = judge_by_loss(train)
        return teach(
            *(encoder(), train, auxiliary, widths, how, schedule, judge, progress, snapshots),
            frozen_layers=frozen_layers,
        )

    return run


def gating(teacher: Classifier) -> Train:
    """Without what `learn_gates` says of the gates, for what a Taught holds."""

    def run(progress: Progress, snapshots: Snapshots | None) -> Taught:
        schedule, table = replace(SHORT, steps=STEPS), LatencyTable({0: 0, 2: 1}, {0: 0, 24: 1}, 1)
        model, _ = learn_gates(
            teacher, classes(60), AUXILIARY, "joint", table, 2.0, schedule, progress, snapshots
        )
        return Taught(model, 0.0, 0.0)

    return run


@pytest.fixture
def training(request: pytest.FixtureRequest, teacher: Classifier, prune: Pruned) -> Train:
    if request.param in ("meta", "decompose"):
        return teaching(classes(60), request.param)
    if request.param == "gates":
        return gating(teacher)
    if request.param == "easy first":
        return teaching(replace(classes(60), difficulty=np.arange(60, dtype=np.float64)))
    if request.param == "text":
        return teaching(classes(60), auxiliary=text(60))
    if request.param == "frozen layers":
        return teaching(classes(60), "meta", frozen_layers=1)
    if request.param != "recovery":
        return teaching(classes({"few rows": 60, "many rows": 1_200}[request.param]))

    def run(progress: Progress, snapshots: Snapshots | None) -> Taught:
        train, schedule = classes(60), replace(SHORT, steps=STEPS)
        judge = judge_by_loss(train)
        return recover(
            prune(THIN), teacher, train, AUXILIARY, "joint", schedule, judge, progress, snapshots
        )

    return run


@pytest.fixture
def _interruptible() -> Iterator[None]:
    """Whoever was started in the background of a shell ignores SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Interrupting(Silent):
    """Sends this process a signal after some steps, as a terminal would."""

    def __init__(self, *steps: int) -> None:
        self.steps, self.seen = steps, 0
        self.notes: list[str] = []

    def step(self, done: int, total: int, note: str = "") -> None:
        self.seen = done
        if done in self.steps:
            signal.raise_signal(signal.SIGINT)

    def note(self, text: str) -> None:
        self.notes.append(text)


def kept(folder: Path, progress: Progress = SILENT) -> Snapshots:
    return Snapshots(folder / "alone-16", folder / "aside", progress)


def same(ours: Taught, theirs: Taught) -> bool:
    """To the last bit, and in all that was told."""
    told = [(one.score, one.loss, one.history.to_dict()) for one in (ours, theirs)]
    pairs = zip(ours.model.state_dict().items(), theirs.model.state_dict().items(), strict=True)
    return told[0] == told[1] and all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


@pytest.mark.usefixtures("_interruptible")
@pytest.mark.parametrize(
    "training",
    [
        *("few rows", "many rows", "recovery", "gates"),
        *("meta", "decompose", "frozen layers", "easy first", "text"),
    ],
    indirect=True,
)
def test_a_training_that_was_stopped_ends_as_one_that_was_not(
    training: Train, tmp_path: Path
) -> None:
    unbroken = training(SILENT, None)
    for cut in (1, 2, 14, 15, 16, 27, 29):
        progress = Interrupting(cut)
        with pytest.raises(KeyboardInterrupt):
            training(progress, kept(tmp_path / str(cut)))
        assert progress.seen == cut  # the step was finished, and no other begun
        torch.rand(3)  # another process would not have drawn the same
        again = Interrupting()
        assert same(training(again, kept(tmp_path / str(cut), again)), unbroken)
        assert again.notes == [f"goes on after step {cut} of {STEPS}"]


@pytest.mark.usefixtures("_interruptible")
@pytest.mark.parametrize("training", ["few rows"], indirect=True)
def test_a_training_may_be_stopped_again_and_again(training: Train, tmp_path: Path) -> None:
    for cut in (5, 6, 20):
        with pytest.raises(KeyboardInterrupt):
            training(Interrupting(cut), kept(tmp_path))
    assert [path.name for path in kept(tmp_path)._folders()] == ["6", "20"]  # the last two
    assert same(training(SILENT, kept(tmp_path)), training(SILENT, None))


@pytest.mark.usefixtures("_interruptible")
@pytest.mark.parametrize("training", ["few rows"], indirect=True)
@pytest.mark.parametrize("spoiled", [TENSORS, STATE])
def test_a_damaged_snapshot_gives_way_to_the_one_before(
    training: Train, tmp_path: Path, spoiled: str
) -> None:
    for cut in (5, 20):
        with pytest.raises(KeyboardInterrupt):
            training(Interrupting(cut), kept(tmp_path))
    file = tmp_path / "alone-16" / "20" / spoiled
    bytes_ = bytearray(file.read_bytes())
    bytes_[len(bytes_) // 2] ^= 1
    file.write_bytes(bytes_)
    progress = Interrupting()
    assert same(training(progress, kept(tmp_path, progress)), training(SILENT, None))
    assert "step 20" in progress.notes[0]
    assert spoiled in progress.notes[0]
    assert progress.notes[1] == f"goes on after step 5 of {STEPS}"
    (aside,) = (tmp_path / "aside").iterdir()
    assert (aside / spoiled).read_bytes() == bytes_


@pytest.mark.usefixtures("_interruptible")
@pytest.mark.parametrize("training", ["few rows"], indirect=True)
def test_a_second_signal_does_not_wait_for_the_step(training: Train, tmp_path: Path) -> None:
    class Twice(Interrupting):
        def step(self, done: int, total: int, note: str = "") -> None:
            super().step(done, total, note)
            super().step(done, total, note)

    with pytest.raises(KeyboardInterrupt):
        training(Twice(7), kept(tmp_path))
    assert not (tmp_path / "alone-16").exists()
    assert same(training(SILENT, kept(tmp_path)), training(SILENT, None))


def test_a_snapshot_holds_nothing_of_what_is_frozen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "EVERY_S", 0.0)
    teaching(classes(60), frozen_layers=1)(SILENT, kept(tmp_path))
    snapshot = kept(tmp_path).latest()
    assert snapshot is not None
    layers = {name for name in snapshot.tensors if ".layers." in name}
    assert layers
    assert {name.split(".layers.")[1][0] for name in layers} == {"1"}


@pytest.mark.parametrize("training", ["few rows"], indirect=True)
def test_snapshots_are_kept_by_time(
    training: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "EVERY_S", 0.0)
    unbroken = training(SILENT, kept(tmp_path))
    assert [path.name for path in kept(tmp_path)._folders()] == [str(STEPS - 1), str(STEPS)]
    assert same(training(SILENT, kept(tmp_path)), unbroken)  # of the last one nothing is left to do


def test_the_last_finite_weights_are_kept_when_a_training_diverges(tmp_path: Path) -> None:
    train, schedule = scores(60), replace(SHORT, steps=STEPS)

    class Spoiling(Silent):
        def step(self, done: int, total: int, note: str = "") -> None:
            if done == 9:
                train.targets[:] = float("nan")

    with pytest.raises(Diverged, match="last finite one in") as caught:
        teach(
            *(encoder(), train, None, {"target": 1}, "none", schedule, judge_by_loss(scores(60))),
            *(Spoiling(), kept(tmp_path)),
        )
    assert caught.value.exit_code == 1
    snapshot = kept(tmp_path).latest()
    assert snapshot is not None
    assert (snapshot.step, snapshot.finite) == (9, True)
    assert len(snapshot.state["told"]) == 9


def test_weights_that_are_not_finite_are_not_kept(tmp_path: Path) -> None:
    bad = Snapshot(3, {"model/a": torch.tensor([1.0, float("inf")])}, {})
    assert not kept(tmp_path).keep(bad)
    assert kept(tmp_path).latest() is None


# --- little memory ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory"),
     torch.OutOfMemoryError("CUDA out of memory")],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_a_batch_that_does_not_fit_is_halved(error: Exception) -> None:
    asked: list[int] = []

    def train(schedule: Schedule) -> Taught:
        asked.append(schedule.batch)
        if schedule.batch > 4:
            raise error
        return Taught(Classifier(encoder(), {"target": 2}), 0.5, 1.0)

    _, notes = within_memory(train, SHORT, SILENT)
    assert asked == [16, 8, 4]
    assert [note.rsplit(" ", 1)[1] for note in notes] == ["8", "4"]


def test_a_batch_is_halved_three_times_at_most() -> None:
    asked: list[int] = []

    def train(schedule: Schedule) -> Taught:
        asked.append(schedule.batch)
        raise MemoryError

    with pytest.raises(ResourceError, match="2 rows a step") as caught:
        within_memory(train, SHORT, SILENT)
    assert asked == [16, 8, 4, 2]
    assert caught.value.exit_code == 5


def test_another_error_is_not_taken_for_want_of_memory() -> None:
    def train(schedule: Schedule) -> Taught:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        within_memory(train, SHORT, SILENT)
