"""The gate: demands on the file, verdicts in looks, comparisons, and what programs are told."""

from __future__ import annotations

import functools
import gzip
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest
from bundles import other_answers
from onnx import TensorProto, helper, numpy_helper

from edgeprune.errors import BudgetError, EdgepruneError, InputError, RecipeError, RefusedError
from edgeprune.gate import outputs
from edgeprune.gate.check import Checked, check, prove
from edgeprune.gate.compare import compare, judge_ratio
from edgeprune.gate.demands import Demands
from edgeprune.gate.replay import replay
from edgeprune.gate.static import Anatomy, target_gates
from edgeprune.latency import Budget, Latency
from edgeprune.measure.looks import look
from edgeprune.measure.profile import Profile, Settings, profile
from edgeprune.measure.samples import Question, Sampled, read_samples, write_samples
from edgeprune.measure.target import Target
from edgeprune.ship.bundle import write_bundle
from edgeprune_targets.local import Local
from edgeprune_targets.null import Null

Save = Callable[..., Path]
TOKENS = 128
SCHEMAS = Path(__file__).parent / "schemas"
NULL = Target("null", Null(), Local())


def saved(folder: Path, name: str = "model", width: int = 64, gelu: bool = False) -> Path:
    """A model of an embedding and two matrices of this width."""
    random = np.random.default_rng(0)
    weights = {"words": (32, 8), "up": (8, width), "down": (width, 8)}
    nodes = [
        helper.make_node("Gather", ["words", "input_ids"], ["h"]),
        helper.make_node("MatMul", ["h", "up"], ["a"]),
        helper.make_node("Tanh" if gelu else "Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "down"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "sequence"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)],
        [
            numpy_helper.from_array(random.normal(size=shape).astype(np.float32), name)
            for name, shape in weights.items()
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path = folder / f"{name}.onnx"
    onnx.save(model, path)
    return path


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Saves such a model for this test."""
    return functools.partial(saved, tmp_path)


def checked(path: Path, budget: str | None = "5ms", **options: Any) -> Checked:
    return check(path, budget, **{"target": "null", "runs": "rapid", **options})


# --- demands on the file -----------------------------------------------------------------------


def test_the_multiply_adds_of_an_inference_are_counted(save: Save) -> None:
    found = checked(save(width=64), sequence=16)
    assert found.model.multiply_adds == 2 * 16 * 8 * 64
    assert found.model.parameters == 32 * 8 + 2 * 8 * 64


@pytest.mark.parametrize(
    ("demand", "passes"),
    [
        ({"size": "1MB"}, True),
        ({"size": "1kB"}, False),
        ({"parameters": 1280}, True),
        ({"parameters": 1279}, False),
        ({"multiply_adds": 131_072}, True),
        ({"multiply_adds": 131_071}, False),
        ({"score_floor": 0.5}, False),  # no score lies with a plain file
    ],
)
def test_a_demand_on_the_file_is_held_before_anything_is_measured(
    save: Save, demand: dict[str, Any], passes: bool
) -> None:
    found = checked(save(), **demand)
    assert [g.passed for g in found.gates if g.name != "file on null"] == [passes]
    assert bool(found.targets) == passes
    assert found.exit_code == (0 if passes else 1)


def test_a_bundle_brings_its_budget_its_conditions_and_its_score(
    save: Save, tmp_path: Path
) -> None:
    (tmp_path / "tokenizer").mkdir()
    facts: dict[str, object] = {"budget": {"ms": 5.0, "percentile": 95.0}, "target": "null"}
    facts |= {"runs": "rapid", "score": 0.9, "sequence": 32, "threads": 1, "batch": 1}
    write_bundle(tmp_path / "bundle", save(), tmp_path / "tokenizer", {}, facts)
    found = check(tmp_path / "bundle", score_floor=0.85)
    assert [gate.name for gate in found.gates] == ["hash", "score", "file on null"]
    [one] = found.targets
    assert (one.verdict["budget_ms"], one.verdict["percentile"]) == (5.0, 95.0)
    assert check(tmp_path / "bundle", score_floor=0.95).outcome == "missed"
    assert check(tmp_path / "bundle", percentile=50).targets[0].verdict["percentile"] == 50


def test_a_bundle_must_answer_as_it_did_before_it_is_measured(
    small_bundle: Path,
) -> None:
    gates = {gate.name: gate for gate in checked(small_bundle).gates}
    assert gates["golden answers"].passed
    assert gates["golden answers"].text.startswith("8 golden answers agree")
    other_answers(small_bundle)
    found = checked(small_bundle)
    assert [gate.name for gate in found.gates if not gate.passed] == ["golden answers"]
    assert (found.outcome, found.targets) == ("missed", ())


def test_what_ran_on_a_target_is_the_file_that_is_shipped_where_it_was_asked_for() -> None:
    def failed(profile: Profile, shipped: str = "x") -> list[str]:
        anatomy = Anatomy(shipped, 1, 1, None, {}, {}, None)
        return [gate.name for gate in target_gates(anatomy, profile) if not gate.passed]

    assert failed(quiet()) == []
    assert failed(quiet(), shipped="y") == ["file on ort"]
    assert failed(SPOILT["another_file"]) == ["file on ort"]
    assert failed(SPOILT["placement"]) == ["placement on ort"]
    assert failed(placed({"X": 208})) == []
    assert failed(placed({"X": 200, "CPU": 8})) == ["placement on ort"]


def test_a_measurement_on_another_provider_fails_the_gate(
    save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "edgeprune.gate.check.look",
        lambda *_, **__: {
            "model": Sampled(
                elsewhere(), Question(12.0), Question(12.0).answer(elsewhere()).to_dict()
            )
        },
    )
    found = checked(save(), target="ort")
    assert "placement on ort" in [gate.name for gate in found.gates if not gate.passed]
    assert found.targets[0].verdict["outcome"] == "inconclusive"
    assert (found.outcome, found.exit_code) == ("missed", 1)


def test_nothing_countable_may_grow_over_a_baseline(save: Save, tmp_path: Path) -> None:
    baseline = tmp_path / "baseline.json"
    baseline.write_text(json.dumps(checked(save("old")).to_dict()))
    assert checked(save("same"), baseline=baseline).outcome == "met"
    wider = checked(save("wider", width=65), baseline=baseline)
    assert [gate.name for gate in wider.gates if not gate.passed] == [
        "size against the baseline",
        "parameters against the baseline",
        "multiply-adds against the baseline",
    ]
    other = checked(save("other", gelu=True), baseline=baseline)
    assert [gate.text for gate in other.gates if not gate.passed] == ["new: Tanh"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"model": {"sha256": "x"}}',
        '{"model": 5}',
        "[" * 100_000,
        "\xff",
        "\xff\xfe",
    ],
)
def test_a_baseline_that_is_none_is_one_line(save: Save, tmp_path: Path, text: str) -> None:
    baseline = tmp_path / "baseline.json"
    baseline.write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match="not the JSON of an edgeprune check"):
        checked(save(), baseline=baseline)


# --- demands in a file -------------------------------------------------------------------------


def test_demands_stand_in_a_file_and_an_option_overrides_them(
    save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = '[check]\nbudget = "1 us"\ntarget = "null"\nruns = "rapid"\nscore-floor = 0.5\n'
    (tmp_path / "edgeprune.toml").write_text(text)
    monkeypatch.chdir(tmp_path)
    assert Demands.read(None, {}).score_floor == 0.5
    assert check(save(), score_floor=None, budget="5ms").outcome == "missed"  # no score
    (tmp_path / "edgeprune.toml").write_text(text.replace("score-floor = 0.5", ""))
    assert check(save()).outcome == "missed"
    assert check(save(), "5ms").outcome == "met"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[check]\nbudgett = 1", "did you mean 'budget'"),
        ("[checks]\n", r"its one table is \[check\]"),
        ("check = 1", "no table"),
        ("[check\n", "edgeprune.toml"),
        ('[check]\nsize = "30"', 'no unit, write it as "8MB"'),
        ("[check]\nconfidence = 100", "less than 100"),
        ("[check]\nlooks = 4", "less than or equal to 3"),
        ('[check]\ninconclusive = "maybe"', "'fail', 'warn' or 'pass'"),
        ("\xff", "edgeprune.toml"),
    ],
)
def test_a_bad_file_of_demands_is_one_line(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "edgeprune.toml"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(RecipeError, match=says) as caught:
        Demands.read(path, {})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"budget": "5ms@p95", "percentile": 90}, "give one of the two"),
        ({"percentile": 100}, "from 50 to under 100"),
        ({"percentile": 0.9}, "in percent"),
        ({"attempt": 0}, "counts from 1"),
        ({"attempt": 4}, "only 3 looks"),
        ({"budget": None}, "missing"),
    ],
)
def test_bad_questions_are_one_line(save: Save, options: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        checked(save(), **{"budget": "5ms", **options})


# --- looks -------------------------------------------------------------------------------------


def test_a_second_look_is_taken_only_where_the_first_did_not_decide(save: Save) -> None:
    few = Settings(launches=5, iterations=100, least_s=10.0, sequence=TOKENS)
    models = {"a": save("a"), "b": save("b", width=640)}
    typical_ms = {"a": 0.02 + 2.5 * 4 * 1024 / 1e6, "b": 0.02 + 2.5 * 4 * 10240 / 1e6}
    budgets = {"a": Budget(ms=2 * typical_ms["a"]), "b": Budget(ms=1.0064 * typical_ms["b"])}
    taken = look(models, NULL, few, budgets)
    assert taken["a"].verdict["outcome"] == "met"
    assert (taken["a"].verdict["look"], taken["a"].verdict["looks"]) == (1, 3)
    assert len(taken["a"].profile.latency.launches_ms) == 5
    assert taken["b"].verdict["look"] > 1
    assert len(taken["b"].profile.latency.launches_ms) == 5 * 2 ** (taken["b"].verdict["look"] - 1)


def first_look(models: Mapping[str, Path], settings: Settings) -> dict[str, float]:
    """The p90 in ms that each model will have in the first look."""
    taken = profile(models, NULL, replace(settings, seed=settings.seed + 1000))
    return {name: one.latency.p90_ms for name, one in taken.items()}


def test_a_model_without_a_budget_is_measured_in_the_first_look_only(save: Save) -> None:
    few = Settings(launches=5, iterations=100, least_s=10.0, sequence=TOKENS)
    models = {"dense": save("dense", width=640), "pruned": save("pruned")}
    budgets = {"pruned": Budget(ms=first_look(models, few)["pruned"])}
    taken = look(models, NULL, few, budgets, dense="dense")
    assert taken["pruned"].verdict["look"] > 1
    assert len(taken["dense"].profile.latency.launches_ms) == 5


def test_a_share_is_of_the_dense_latency_of_the_same_looks(save: Save) -> None:
    few = Settings(launches=5, iterations=100, least_s=10.0, sequence=TOKENS)
    models = {"dense": save("dense", width=640), "pruned": save("pruned"), "small": save("small")}
    first = first_look(models, few)
    share = first["pruned"] / first["dense"]
    budgets = {"pruned": Budget(share=share), "small": Budget(share=2 * share)}
    taken = look(models, NULL, few, budgets, dense="dense")
    pruned, dense = taken["pruned"], taken["dense"].profile.latency
    assert pruned.verdict["look"] > 1
    assert len(dense.launches_ms) == len(pruned.profile.latency.launches_ms)
    assert pruned.verdict["budget_ms"] == share * dense.p90_ms
    assert len(taken["small"].profile.latency.launches_ms) == 5


def test_a_retry_of_the_job_is_the_next_look(save: Save) -> None:
    [one] = checked(save(), attempt=2).targets
    assert (one.verdict["look"], one.verdict["launches"]) == (2, 14)


def test_several_targets_are_judged_together(save: Save) -> None:
    found = checked(save(), target=["null", "null@local"])
    assert [one.verdict["targets"] for one in found.targets] == [2, 2]
    assert found.outcome == "met"


def test_inconclusive_may_be_let_through_and_that_is_stated(save: Save) -> None:
    # One look at a budget that lies on the percentile decides nothing.
    path = save()
    ms = checked(path).targets[0].profile.latency.p90_ms
    open_ = checked(path, f"{ms}ms")
    assert (open_.outcome, open_.exit_code) == ("inconclusive", 3)
    through = checked(path, f"{ms}ms", inconclusive="warn")
    assert (through.outcome, through.exit_code) == ("inconclusive", 0)
    assert through.to_dict()["demands"]["inconclusive"] == "warn"


def test_the_gate_proves_that_it_can_say_both(save: Save) -> None:
    proof = prove(save(), target="null")
    assert (proof.outcome, proof.exit_code) == ("met", 0)
    assert "wanted missed: missed" in proof.text
    assert "wanted met: met" in proof.text


# --- a verdict again ---------------------------------------------------------------------------


def test_a_verdict_is_recomputed_to_the_letter(save: Save, tmp_path: Path) -> None:
    found = checked(save(), target=["null", "null@local"])
    path = tmp_path / "samples.jsonl.gz"
    write_samples(path, found.targets)
    assert [again.to_dict() for again in replay(path)] == [one.verdict for one in found.targets]
    assert {again.outcome for again in replay(path, "1us")} == {"missed"}
    assert replay(path, confidence=95)[0].confidence == 0.95


def test_a_verdict_that_its_samples_do_not_give_is_refused(save: Save, tmp_path: Path) -> None:
    [one] = checked(save()).targets
    path = tmp_path / "samples.jsonl.gz"
    write_samples(path, [replace(one, verdict={**one.verdict, "outcome": "missed"})])
    with pytest.raises(RefusedError, match="its samples give"):
        replay(path)


def test_samples_that_were_asked_nothing_need_a_budget(save: Save, tmp_path: Path) -> None:
    [one] = checked(save()).targets
    path = tmp_path / "samples.jsonl.gz"
    write_samples(path, [Sampled(one.profile)])
    with pytest.raises(BudgetError, match="was not asked"):
        replay(path)
    with pytest.raises(BudgetError, match="a share"):
        replay(path, "50%")
    assert replay(path, "5ms")[0].outcome == "met"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"text",
        gzip.compress(b"", mtime=0),
        gzip.compress(b"text", mtime=0),
        gzip.compress(b"{}", mtime=0),
        gzip.compress(b"[" * 100_000, mtime=0),
        gzip.compress(b'{"format": "edgeprune-samples/9"}', mtime=0),
        gzip.compress(b'{"format": "edgeprune-samples/1", "launches": 3}', mtime=0),
        gzip.compress(b'{"format": "edgeprune-samples/1"}' * 100, mtime=0)[:-9],
    ],
)
def test_a_file_that_holds_no_samples_is_one_line(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "samples.jsonl.gz"
    path.write_bytes(raw)
    with pytest.raises(InputError) as caught:
        read_samples(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="No such file"):
        read_samples(tmp_path / "nothing")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda head, launch: head["profile"].update(target=5),
        lambda head, launch: head["profile"].pop("size_mb"),
        lambda head, launch: head["profile"].update(more=1),
        lambda head, launch: head["facts"].update(runtime="ort"),
        lambda head, launch: head["facts"].update(device=None),
        lambda head, launch: head["facts"]["runtime"].update(requested_providers=7),
        lambda head, launch: head["asked"].update(budget_ms="soon"),
        lambda head, launch: head["asked"].update(hurry=True),
        lambda head, launch: head.update(launches=-1),
        lambda head, launch: head.update(launches=99),
        lambda head, launch: head.update(verdict=None),
        lambda head, launch: launch.update(samples_ms=["fast"]),
        lambda head, launch: launch.pop("sha256"),
        lambda head, launch: launch.update(before=[]),
        lambda head, launch: launch["after"].update(load="much"),
    ],
)
def test_samples_with_a_part_of_another_kind_are_one_line(
    tmp_path: Path, spoil: Callable[[dict[str, Any], dict[str, Any]], object]
) -> None:
    path = tmp_path / "samples.jsonl.gz"
    write_samples(path, [Sampled(quiet(), Question(12.0))])
    head, *launches = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    spoil(head, launches[0])
    lines = [json.dumps(row).encode() for row in (head, *launches)]
    path.write_bytes(gzip.compress(b"\n".join(lines)))
    with pytest.raises(InputError, match=r"not in the format") as caught:
        read_samples(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"percentile": 1.5}, "percentile 1.5"),
        ({"percentile": 100}, "percentile 100"),
        ({"budget_ms": 0}, "above zero"),
        ({"budget_ms": float("nan")}, "above zero"),
        ({"confidence": 1}, "under 100 percent"),
        ({"confidence": 0.5}, "above 50"),
        ({"look": 0}, "look 0 of 1"),
        ({"look": 2}, "look 2 of 1"),
        ({"targets": 0}, "0 targets"),
    ],
)
def test_what_cannot_be_asked_of_samples_is_one_line(asked: dict[str, Any], says: str) -> None:
    with pytest.raises(BudgetError, match=says):
        Question(**{"budget_ms": 12.0, **asked})


# --- what may have spoilt a measurement --------------------------------------------------------


def quiet(samples_ms: np.ndarray[tuple[int, ...], np.dtype[np.float64]] | None = None) -> Profile:
    """A profile as a real, quiet machine gives it."""
    if samples_ms is None:
        samples_ms = 10 + np.random.default_rng(0).normal(0, 0.1, (20, 60))
    moment = {"kernel_ms": 0.05, "affinity": [0, 1], "governor": ["p"], "boot": "b", "load": [0.5]}
    launch = {"outputs_finite": True, "sha256": "x", "resolution_ns": 50, "wall_s": 1.0}
    launches = [launch | {"before": moment, "after": moment} for _ in samples_ms]
    facts = {"launches": launches, "runtime": {"name": "ort"}, "device": {"cores": 2}}
    facts["onnx_sha256"] = "x"
    latency = Latency.of(samples_ms.tolist())
    return Profile("ort", latency, 10.0, 1.0, 50.0, 20.0, "x", facts)


def spoilt(*, last: dict[str, object] | None = None, count: int = 1, **launch: object) -> Profile:
    """The quiet one, but `count` of its 20 launches differ, or the moment after them does."""
    profile = quiet()
    launches = list(profile.facts["launches"])
    for i in range(count):
        moment = {**launches[i]["after"], **(last or {})}
        launches[i] = {**launches[i], "after": moment, **launch}
    return replace(profile, facts={**profile.facts, "launches": launches})


def waves(period: int) -> Profile:
    return quiet(np.tile(10 + 5 * np.sin(np.arange(600) / period), (5, 1)))


def loaded() -> Profile:
    profile = quiet()
    moment = {**profile.facts["launches"][0]["before"], "load": [3.5]}
    launches = [{**row, "before": moment, "after": moment} for row in profile.facts["launches"]]
    return replace(profile, facts={**profile.facts, "launches": launches})


def elsewhere() -> Profile:
    profile = quiet()
    runtime = {"requested_providers": ["XnnpackExecutionProvider"], "providers": ["CPU"]}
    return replace(profile, facts={**profile.facts, "runtime": runtime})


def placed(nodes: dict[str, int]) -> Profile:
    runtime = {"requested_providers": ["X"], "providers": ["X"], "placement": nodes}
    return replace(quiet(), facts={**quiet().facts, "runtime": runtime})


def emulated() -> Profile:
    return replace(quiet(), facts={**quiet().facts, "device": {"cores": 2, "emulated": True}})


SPOILT = {
    "short_timing": quiet(np.full((20, 49), 10.0)),
    "outputs_not_finite": spoilt(outputs_finite=False),
    "another_file": spoilt(sha256="y"),
    "placement": elsewhere(),
    "coarse_clock": spoilt(resolution_ns=200_000),
    "drift": quiet(np.tile(np.linspace(10, 11, 60), (20, 1))),
    "autocorrelated": waves(period=20),
    "throttled": spoilt(last={"kernel_ms": 0.056}, count=3),
    "affinity_changed": spoilt(last={"affinity": [0]}),
    "governor_changed": spoilt(last={"governor": ["q"]}),
    "rebooted": spoilt(last={"boot": "c"}),
    "overloaded": loaded(),
    "emulated": emulated(),
}


def test_too_short_a_timing_says_how_much_it_takes() -> None:
    (found,) = SPOILT["short_timing"].doubts
    assert (found.code, found.text) == ("short_timing", "9.8 s of timing, it takes 10 s")


def test_nothing_spoils_a_quiet_measurement() -> None:
    assert quiet().doubts == ()
    assert Question(12.0).answer(quiet()).outcome == "met"


@pytest.mark.parametrize("code", SPOILT)
def test_what_spoils_a_measurement_is_named_and_allows_only_inconclusive(code: str) -> None:
    profile = SPOILT[code]
    assert code in [reason.code for reason in profile.doubts]
    verdict = Question(1000.0).answer(profile)
    assert (verdict.outcome, verdict.is_open) == ("inconclusive", False)


def test_a_disturbance_of_one_launch_is_no_drift() -> None:
    samples = 10 + np.random.default_rng(0).normal(0, 0.1, (20, 60))
    samples[3, 40:] += 4
    assert quiet(samples).doubts == ()


def test_a_neighbour_in_two_launches_of_twenty_is_no_throttling() -> None:
    assert spoilt(last={"kernel_ms": 0.056}, count=2).doubts == ()


def test_a_synthetic_runtime_has_no_machine_that_could_spoil_it() -> None:
    facts = {**SPOILT["throttled"].facts, "runtime": {"synthetic": True}}
    assert replace(SPOILT["throttled"], facts=facts).doubts == ()


# --- one against another -----------------------------------------------------------------------


def slower(by: float, profile: Profile) -> Profile:
    launches = [[by * x for x in launch] for launch in profile.latency.launches_ms]
    return replace(profile, latency=Latency.of(launches))


@pytest.mark.parametrize(
    ("by", "finding"), [(1.0, "fine"), (0.5, "fine"), (1.2, "slower"), (1.03, "inconclusive")]
)
def test_a_model_is_slower_if_the_whole_interval_lies_above(by: float, finding: str) -> None:
    random = np.random.default_rng(1)
    other = quiet(10 + random.normal(0, 0.1, (20, 60)))
    found = judge_ratio(quiet(), slower(by, other), 0.03)
    assert found.finding == finding
    assert found.interval[0] <= found.ratio <= found.interval[1]
    assert found.ratio == pytest.approx(by, rel=0.01)


def test_a_ratio_of_spoilt_measurements_is_inconclusive() -> None:
    found = judge_ratio(quiet(), SPOILT["another_file"], 0.03)
    assert (found.finding, found.exit_code) == ("inconclusive", 3)
    assert "not the one that was sent" in found.line()


def test_a_model_is_no_slower_than_itself(save: Save) -> None:
    found = compare(save("a"), save("b"), target="null")
    assert (found.finding, found.blocks) == ("fine", 20)
    json.dumps(found.to_dict(), allow_nan=False)
    assert compare(save("a"), save("wide", width=640), target="null").finding == "slower"


@pytest.mark.parametrize(("options", "says"), [({"blocks": 19}, "20"), ({"delta": 3}, "share")])
def test_bad_comparisons_are_one_line(save: Save, options: dict[str, float], says: str) -> None:
    with pytest.raises(InputError, match=says):
        compare(save("a"), save("b"), target="null", **options)  # type: ignore[arg-type]


# --- in the words of others --------------------------------------------------------------------


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Checked]:
    path = saved(tmp_path_factory.mktemp("results"))
    ms = checked(path).targets[0].profile.latency.p90_ms
    return {
        "met": checked(path, size="1MB"),
        "missed": checked(path, "1us"),
        "inconclusive": checked(path, f"{ms}ms"),
        "gate": checked(path, size="1kB"),
    }


def test_junit_tells_a_case_for_each_gate_and_target(results: dict[str, Checked]) -> None:
    found = {}
    for name, one in results.items():
        suite = ElementTree.fromstring(outputs.to_junit(one)).find("testsuite")
        assert suite is not None
        assert int(suite.attrib["tests"]) == len(suite.findall("testcase"))
        found[name] = (int(suite.attrib["failures"]), int(suite.attrib["errors"]))
    assert found == {"met": (0, 0), "missed": (1, 0), "inconclusive": (0, 1), "gate": (1, 0)}


def test_junit_is_valid_by_the_schema_that_jenkins_reads_it_with(
    results: dict[str, Checked],
) -> None:
    # Of the xUnit plugin, under the MIT licence that stands at its top.
    schema = pytest.importorskip("xmlschema").XMLSchema(SCHEMAS / "junit-10.xsd")
    for one in results.values():
        text = outputs.to_junit(one)
        schema.validate(text)
        assert not schema.is_valid(text.replace(' errors="', ' mistakes="'))


def test_junit_survives_what_no_xml_can_hold(results: dict[str, Checked]) -> None:
    hostile = replace(results["missed"], command="\x00]]><script>&\ud800")
    ElementTree.fromstring(outputs.to_junit(hostile).encode("utf-8"))


def test_the_summary_tells_the_verdict_first(results: dict[str, Checked]) -> None:
    for one in results.values():
        text = outputs.to_summary(one)
        assert text.startswith(f"### edgeprune check: {one.outcome}\n")
        assert one.command in text
    assert "Nothing was measured." in outputs.to_summary(results["gate"])


def test_annotations_are_workflow_commands_of_what_is_not_fine(
    results: dict[str, Checked],
) -> None:
    assert outputs.to_annotations(results["met"]) == []
    [missed] = outputs.to_annotations(results["missed"])
    assert missed.startswith("::error title=edgeprune%3A latency on null::missed")
    [gate] = outputs.to_annotations(results["gate"])
    assert gate.startswith("::error title=edgeprune%3A size::")
    warned = replace(results["inconclusive"], exit_code=0)
    assert outputs.to_annotations(warned)[0].startswith("::warning")
    assert not any("\n" in line for line in (missed, gate))


def test_openmetrics_are_read_by_prometheus(results: dict[str, Checked]) -> None:
    parser = pytest.importorskip("prometheus_client.openmetrics.parser")
    families = {
        family.name: family
        for family in parser.text_string_to_metric_families(outputs.to_openmetrics(results["met"]))
    }
    latency = families["edgeprune_latency_seconds"].samples
    assert {sample.labels["quantile"] for sample in latency} == {"0.5", "0.9"}
    states = families["edgeprune_outcome"].samples
    assert {s.labels["edgeprune_outcome"]: s.value for s in states} == {
        "met": 1,
        "missed": 0,
        "inconclusive": 0,
    }
    assert families["edgeprune_model_parameters"].samples[0].value == 1280


def test_a_home_folder_does_not_stand_in_the_result(
    save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save()
    monkeypatch.setenv("HOME", str(path.parent))
    told = json.dumps(checked(path).to_dict())
    assert str(path.parent) not in told
    assert "~/model.onnx" in told


def test_an_output_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(EdgepruneError, match="choose another file"):
        outputs.write(tmp_path / "no" / "file", "")


def test_the_anatomy_of_a_file_reads_back_as_a_baseline(save: Save, tmp_path: Path) -> None:
    found = checked(save())
    path = tmp_path / "b.json"
    path.write_text(json.dumps(found.to_dict()))
    assert Anatomy.of_baseline(path) == found.model
