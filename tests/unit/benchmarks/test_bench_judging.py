"""The parts that decide what a figure means."""

from collections import Counter

import pytest

from benchmarks.goals import GOALS, Goal, Line
from benchmarks.load.job import Sample
from benchmarks.measurement import Measurement, percentile
from benchmarks.region import Counters, read_counters
from benchmarks.report import Report, number, to_markdown
from benchmarks.rows.urgent import behind_backlog
from benchmarks.settlement import judge_counts, judge_statuses, spread

ZERO = Counters(0, 0, {})


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([], 0.5, None),
        ([7.0], 0.99, 7.0),
        ([3.0, 1.0, 2.0], 0.5, 2.0),
        (list(range(1, 101)), 0.99, 99),
        (list(range(1, 101)), 0.5, 50),
        (list(range(1, 201)), 0.99, 198),
    ],
)
def test_a_percentile_is_the_smallest_value_that_enough_do_not_exceed(values, share, expected):
    assert percentile(values, share) == expected


@pytest.mark.parametrize(
    ("submitted", "completed", "ids", "unknown", "wrong"),
    [
        (2, 2, ["a", "b"], 0, []),
        (3, 2, ["a", "b"], 1, []),  # a request without an answer may have been accepted
        (2, 1, ["a", "b"], 0, ["completed"]),
        (2, 3, ["a", "b"], 0, ["completed"]),
        (1, 2, ["a", "b"], 0, ["submitted"]),
        (4, 2, ["a", "b"], 1, ["submitted"]),
        (2, 2, ["a", "a"], 0, ["given twice"]),
    ],
)
def test_counts_must_match_what_was_accepted(submitted, completed, ids, unknown, wrong):
    violations = judge_counts(ZERO, Counters(submitted, completed, {}), ids, unknown)

    assert len(violations) == len(wrong)
    assert all(word in violation for word, violation in zip(wrong, violations, strict=True))


def test_counts_from_before_the_load_do_not_matter():
    assert judge_counts(Counters(10, 9, {}), Counters(11, 10, {}), ["a"], 0) == []


def test_every_status_but_completed_is_named():
    assert judge_statuses(Counter(COMPLETED=3)) == []
    assert judge_statuses(Counter({"COMPLETED": 3, "QUEUED": 2})) == ["2 accepted tasks are QUEUED"]


@pytest.mark.parametrize(("ids", "count", "taken"), [(0, 5, 0), (3, 5, 3), (100, 5, 5), (101, 50, 34)])
def test_the_sample_is_bounded_and_spread_and_holds_the_last_id(ids, count, taken):
    names = [str(number) for number in range(ids)]
    sample = spread(names, count)

    assert len(sample) == taken == len(set(sample))
    assert list(sample[:1]) == names[-1:]


def test_counters_sum_over_task_types_and_ignore_other_families():
    page = (
        "# HELP python_info x\n# TYPE python_info gauge\npython_info 1.0\n"
        "# HELP flik_tasks_submitted_total Tasks\n# TYPE flik_tasks_submitted_total counter\n"
        'flik_tasks_submitted_total{task_type="TEXT"} 3.0\nflik_tasks_submitted_total{task_type="IMAGE"} 4.0\n'
        '# TYPE flik_tasks_completed_total counter\nflik_tasks_completed_total{task_type="TEXT"} 2.0\n'
        '# TYPE flik_queue_depth gauge\nflik_queue_depth{task_type="TEXT",priority="2"} 5.0\n'
        'flik_queue_depth{task_type="IMAGE",priority="2"} 1.0\n'
    )

    assert read_counters(page) == Counters(7, 2, {"2": 6})
    assert read_counters("") == ZERO


def test_only_urgent_tasks_that_settled_before_the_backlog_was_gone_count():
    samples = [Sample(10.0, 1.0, 500.0), Sample(11.0, 1.0, 900.0), Sample(10.1, 1.0, None)]

    assert behind_backlog(samples, [(10.2, 400), (11.0, 1), (11.5, 0)]) == [500.0]
    assert behind_backlog(samples, []) == []


PEER = Line("peer", {"p": 1})
MORE = Goal("m", "m", 100, 200, higher_is_better=True, beside=(PEER,), must_ratio=2, bold_ratio=4)
LESS = Goal("m", "m", 20, 5, higher_is_better=False)


@pytest.mark.parametrize(
    ("goal", "measured", "reached"),
    [
        (MORE, {}, "-"),
        (MORE, {"m": 99}, "below"),
        (MORE, {"m": 100}, "must"),
        (MORE, {"m": 200}, "bold"),
        (MORE, {"m": 200, "p": 51}, "must"),
        (MORE, {"m": 200, "p": 101}, "below"),
        (LESS, {"m": 21}, "below"),
        (LESS, {"m": 20}, "must"),
        (LESS, {"m": 5}, "bold"),
    ],
)
def test_a_goal_is_judged_by_its_bound_and_by_the_peer_where_it_was_measured(goal, measured, reached):
    assert goal.reached(measured) == reached


def test_a_line_adds_its_parts_and_is_missing_when_one_is():
    line = Line("two flushes", {"fsync": 2, "serve": 1})

    assert line.value({"fsync": 0.5, "serve": 1.0}) == 2.0
    assert line.value({"fsync": 0.5}) is None


def test_bold_is_never_easier_than_must():
    assert all((goal.bold > goal.must) == goal.higher_is_better for goal in GOALS)


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), (0.1234, "0.123"), (2.5, "2.5"), (99.94, "99.9"), (1234.5, "1,234"), (100, "100")]
)
def test_numbers_keep_the_digits_that_count(value, text):
    assert number(value) == text


def test_markdown_shows_the_goal_its_ratio_and_what_was_wrong():
    machine = dict.fromkeys(
        ("date", "cores", "processor", "memory_gb", "kernel", "data_file_system", "python", "load_average_before"), "?"
    )
    measurements = [
        Measurement("single_tasks_per_s", 3000.0, "tasks/s", "a|b"),
        Measurement("celery_tasks_per_s", 600.0, "tasks/s"),
    ]
    text = to_markdown(Report(machine, "full", measurements, ["single: lost one"], {"serve": "no Ray"}))

    assert "| 3,000 | bold | 5.00x FastAPI + Celery + Redis (600) |" in text
    assert "| single_tasks_per_s | 3,000 | tasks/s | a\\|b |" in text
    assert "**wrong:** single: lost one" in text
    assert "not measured: serve: no Ray" in text


def test_a_bound_is_also_judged_scaled_to_the_machine():
    goal = Goal(
        "rows", "rows", 1_000, 2_000, True, limit=Line("the disk", {"disk": 1}), limit_there=10_000, must_ratio=None
    )
    slow = {"rows": 600, "disk": 5_000}
    assert goal.reached(slow) == "below"
    scaled = goal.scaled(slow)
    assert scaled is not None
    assert (scaled.must, scaled.bold, scaled.reached(slow)) == (500, 1_000, "must")
    assert goal.scaled({"rows": 600}) is None
    assert Goal("rows", "rows", 1, 2, True).scaled(slow) is None


def test_the_table_says_what_the_scaled_bound_is():
    measured = [
        Measurement("batch_tasks_per_s", 8_000, "tasks/s", ""),
        Measurement("unnest_rows_per_s", 46_000, "", ""),
    ]
    (row,) = Report({}, "full", measured, [], {}).goal_rows()
    assert row[4] == "below; bold with 4,000 here"
