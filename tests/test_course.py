"""How far a run has come: rows of stages with what is done and what is left."""

from __future__ import annotations

import pytest

from edgeprune.course import Course, Note, StageRow


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("time.monotonic", clock)
    return clock


@pytest.fixture
def course(clock: Clock) -> Course:
    course = Course()
    course.outline(["table", "teacher", "curves"])
    return course


def test_stages_are_to_come_then_run_then_are_done(course: Course) -> None:
    course.stage("table", cached=True)
    course.done("table", 41.0)
    course.stage("teacher", cached=False)
    assert course.rows == (
        StageRow("table", "done", cached=True, seconds=41.0),
        StageRow("teacher", "running"),
        StageRow("curves", "to come"),
    )
    course.done("teacher", 3.0)
    assert course.rows[1] == StageRow("teacher", "done", seconds=3.0)
    assert course.running is None


def test_what_is_left_follows_the_pace_and_melts(course: Course, clock: Clock) -> None:
    course.stage("teacher", cached=False)
    clock.now_s += 20
    course.step(10, 60, "loss 0.3")
    row = StageRow("teacher", "running", False, 20.0, 10, 60, "loss 0.3", left_s=100.0)
    assert course.running == row
    clock.now_s += 30
    assert course.running == row.later(30)
    assert (row.later(30).seconds, row.later(30).left_s) == (50.0, 70.0)
    assert row.later(1000).left_s == 0
    clock.now_s += 10
    course.step(30, 60)
    assert course.running == StageRow("teacher", "running", False, 60.0, 30, 60, "", left_s=60.0)


def test_nothing_is_said_of_what_is_left_before_the_first_part_is_done(
    course: Course, clock: Clock
) -> None:
    course.stage("teacher", cached=False)
    clock.now_s += 20
    course.step(0, 60)
    assert course.rows[1].left_s is None


@pytest.mark.parametrize("second", [(0, 40), (0, 30)])
def test_a_second_loop_in_a_stage_has_a_pace_of_its_own(
    course: Course, clock: Clock, second: tuple[int, int]
) -> None:
    course.stage("teacher", cached=False)
    clock.now_s += 300
    course.step(30, 30)
    course.step(*second)
    assert course.rows[1].left_s is None
    clock.now_s += 10
    course.step(10, second[1])
    assert course.rows[1].left_s == second[1] - 10
    assert course.rows[1].seconds == 310


def test_notes_are_kept_with_their_stage(course: Course) -> None:
    course.stage("table", cached=False)
    course.note("the machine was busy")
    assert course.notes == [Note("table", "the machine was busy")]


def test_what_belongs_to_no_stage_changes_nothing(course: Course) -> None:
    before = course.rows
    course.step(1, 2)
    assert course.rows == before


def test_a_stage_that_was_not_foreseen_is_a_row_too(course: Course) -> None:
    course.stage("measuring on ort", cached=False)
    assert [row.name for row in course.rows][-1] == "measuring on ort"
