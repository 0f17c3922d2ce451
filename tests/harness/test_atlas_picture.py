"""The numbers of the talk's picture: every instruction once, every injection once."""

import pytest

from harness.atlas import outcome_names, picture

ORDER = ("kmalloc", "slab_alloc_node", "rmqueue_pcplist")
LEVELS = {0x10: "kmalloc", 0x14: "slab_alloc_node", 0x18: "slab_alloc_node", 0x1C: "below", 0x20: "kmalloc"}
FIRST = {0x10: {"ok": 1}, 0x14: {"ok": 5, "null:zone_busy": 2}, 0x18: {"deadlock": 3}, 0x1C: {"ok": 7}}
SECOND = {0x10: {"deadlock": 1}, 0x20: {"deferred": 11}}


def scenario(handler: str, task: str = "kmalloc") -> dict[str, str]:
    return {"task_design": task, "handler_design": "try_kmalloc", "kind": "nmi", "handler": handler}


def test_levels_are_in_the_stacks_order_and_unknown_ones_at_the_end() -> None:
    rows = picture.by_level(FIRST, LEVELS.__getitem__, ORDER)
    assert [row["level"] for row in rows] == ["kmalloc", "slab_alloc_node", "below"]
    assert rows[1] == {
        "level": "slab_alloc_node",
        "instructions": 2,
        "points": 10,
        "deadlock_points": 1,
        "outcomes": {"ok": 5, "null:zone_busy": 2, "deadlock": 3},
        "worst": {"null:zone_busy": 1, "deadlock": 1},
    }


def test_an_instruction_counts_once_over_many_scenarios_an_injection_each_time() -> None:
    made = picture.pictures(
        [
            (scenario("alloc_same"), FIRST),
            (scenario("free_own"), SECOND),
            (scenario("pages", "sheaves"), FIRST),
        ],
        LEVELS.__getitem__,
        ORDER,
    )
    assert [(each["task_design"], each["handler"], each["scenarios"]) for each in made] == [
        ("kmalloc", "*", 2),
        ("kmalloc", "alloc_same", 1),
        ("kmalloc", "free_own", 1),
        ("sheaves", "*", 1),
        ("sheaves", "pages", 1),
    ]
    everything = made[0]
    assert (everything["instructions"], everything["points"], everything["deadlock_points"]) == (5, 30, 2)
    assert everything["outcomes"] == {"ok": 13, "deferred": 11, "null:zone_busy": 2, "deadlock": 4}
    for each in made:
        for key in ("instructions", "points", "deadlock_points"):
            assert each[key] == sum(level[key] for level in each["levels"])
        assert sum(each["worst"].values()) == each["instructions"]
        assert sum(each["outcomes"].values()) == each["points"]


def test_an_instruction_on_two_levels_counts_on_each_and_once_in_total() -> None:
    first, second = 0x18, 0x18 | 1 << 48
    counts = {first: {"ok": 3}, second: {"deadlock": 2}}
    (made, _) = picture.pictures([(scenario("pages"), counts)], lambda key: ORDER[key >> 48], ORDER)
    assert [level["instructions"] for level in made["levels"]] == [1, 1]
    assert (made["instructions"], made["points"], made["deadlock_points"]) == (1, 5, 1)
    assert made["worst"] == {"deadlock": 1}
    assert picture.by_address(counts) == {0x18: {"ok": 3, "deadlock": 2}}


def test_outcomes_are_sorted_from_best_to_worst() -> None:
    mixed = ["corruption", "null:order_limit", "deadlock", "ok", "error:ENOMEM", "deferred", "null:pcp_busy"]
    assert outcome_names.sort(mixed) == [
        "ok",
        "deferred",
        "null:order_limit",
        "null:pcp_busy",
        "error:ENOMEM",
        "deadlock",
        "corruption",
    ]
    assert outcome_names.worst({"deadlock": 0, "ok": 3, "other_bucket": 1}) == "other_bucket"
    assert outcome_names.worst({}) == "none"


@pytest.mark.parametrize(
    ("outcome", "said", "letter", "is_verdict"),
    [
        ("ok", "success", "s", False),
        ("null:zone_busy", "NULL (zone_busy)", "n", False),
        ("null:below_watermark", "NULL (below_watermark)", "m", False),
        ("error:EEXIST", "EEXIST", "e", False),
        ("lost_memory", "lost memory", "L", True),
        ("deadlock", "deadlock", "D", True),
        ("nobody knows", "nobody knows", "?", False),
    ],
)
def test_each_outcome_has_a_name_and_a_letter(outcome: str, said: str, letter: str, is_verdict: bool) -> None:
    assert (outcome_names.said(outcome), outcome_names.look(outcome).letter) == (said, letter)
    assert outcome_names.is_verdict(outcome) is is_verdict


def test_what_is_wrong_has_a_letter_of_its_own() -> None:
    from harness import vocabulary

    verdicts = vocabulary.load().verdicts
    letters = [outcome_names.look(verdict).letter for verdict in verdicts]
    assert len(set(letters)) == len(verdicts) and "?" not in letters
