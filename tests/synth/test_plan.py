from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from augforge.synth.plan import ClassPlan, Plan, Quota, make_plan
from augforge.types import InputError

plans = st.lists(st.tuples(st.integers(1, 7), st.integers(0, 40), st.booleans()), min_size=1, max_size=5)


def _plan(parts, unit=1) -> Plan:
    classes = [
        ClassPlan(f"c{i}", i, np.arange(parents), make, parents if real else 0)
        for i, (parents, make, real) in enumerate(parts)
    ]
    return Plan(tuple(classes), unit)


def _items(plan: ClassPlan, start: int, stop: int) -> list[tuple[int, int]]:
    places, indices = plan.items(start, stop)
    return list(zip(places.tolist(), indices.tolist(), strict=True))


@settings(deadline=None)
@given(st.integers(1, 30), st.integers(0, 300))
def test_every_index_is_made_once_of_parent_index_modulo_n(parents, make):
    items = _items(ClassPlan("c", 0, np.arange(parents), make, 0), 0, make)
    assert sorted(index for _, index in items) == list(range(make))
    assert all(place == index % parents for place, index in items)
    assert [place for place, _ in items] == sorted(place for place, _ in items)


@settings(deadline=None)
@given(st.integers(1, 30), st.integers(0, 300))
def test_parents_are_used_alike(parents, make):
    used = np.bincount(ClassPlan("c", 0, np.arange(parents), make, 0).items(0, make)[0], minlength=parents)
    assert used.max() - used.min() <= 1


@settings(deadline=None)
@given(st.integers(1, 30), st.integers(0, 300), st.data())
def test_slices_agree_with_the_whole(parents, make, data):
    start = data.draw(st.integers(0, make))
    stop = data.draw(st.integers(start, make))
    plan = ClassPlan("c", 0, np.arange(parents), make, 0)
    assert _items(plan, start, stop) == _items(plan, 0, make)[start:stop]


@settings(deadline=None)
@given(st.integers(1, 20), st.integers(0, 100), st.integers(0, 100))
def test_a_larger_quota_keeps_the_pairs_of_a_smaller_one(parents, few, more):
    small, large = (ClassPlan("c", 0, np.arange(parents), make, 0) for make in (few, few + more))
    assert set(_items(small, 0, few)) <= set(_items(large, 0, few + more))


@settings(deadline=None)
@given(plans, st.integers(1, 50))
def test_units_cover_all_rows_once_and_in_order(parts, unit):
    plan = _plan(parts, unit)
    expected = []
    for c in plan.classes:
        expected += [(c.name, True, i) for i in range(c.real)] + [(c.name, False, i) for i in range(c.make)]
    found = []
    for number in range(plan.units):
        in_unit = 0
        for part in plan.segments(number):
            assert part.first == len(found)
            assert part.start < part.stop
            found += [(part.plan.name, part.real, i) for i in range(part.start, part.stop)]
            in_unit += part.stop - part.start
        assert in_unit == plan.rows_in(number) > 0
    assert found == expected
    assert len(found) == plan.total == sum(map(plan.rows_in, range(plan.units)))


@settings(deadline=None)
@given(plans, st.integers(1, 50), st.integers(1, 9))
def test_units_of_blocks_cover_all_rows_once(parts, unit, block):
    plan = replace(_plan(parts, unit), block=min(block, unit))
    numbers, found = [], []
    for number in range(plan.units):
        before = len(numbers)
        for part in plan.segments(number):
            numbers += range(part.first, part.first + part.stop - part.start)
            found += [(part.plan.name, part.real, i) for i in range(part.start, part.stop)]
        assert len(numbers) - before == plan.rows_in(number)
    whole = replace(plan, block=0, unit=max(1, plan.total))
    expected = [(p.plan.name, p.real, i) for p in whole.segments(0) for i in range(p.start, p.stop)]
    assert sorted(numbers) == list(range(plan.total))
    assert [row for _, row in sorted(zip(numbers, found, strict=True))] == expected


def test_no_rows_have_no_units():
    assert _plan([(3, 0, False)], 64).units == 0
    assert list(_plan([(3, 0, False)], 64).segments(0)) == []


def _rows(**counts) -> dict[str, np.ndarray]:
    return {name: np.arange(count) for name, count in counts.items()}


@pytest.mark.parametrize(
    ("quota", "made"),
    [
        (Quota(per_class=5), {"ant": 5, "bee": 5}),
        (Quota(to=5), {"ant": 2, "bee": 0}),
        (Quota(counts={"bee": 4}), {"ant": 0, "bee": 4}),
        (Quota(per_class=0), {"ant": 0, "bee": 0}),
    ],
)
def test_quotas(quota, made):
    plan = make_plan(_rows(ant=3, bee=9), quota, 1, False, 64)
    assert {c.name: c.make for c in plan.classes} == made
    assert [c.label for c in plan.classes] == [0, 1]


def test_real_rows_go_out_when_included():
    plan = make_plan(_rows(ant=3, bee=9), Quota(to=5), 1, True, 64)
    assert [(c.real, c.make) for c in plan.classes] == [(3, 2), (9, 0)]


@pytest.mark.parametrize(
    "given_", [{}, {"per_class": 1, "to": 1}, {"to": 1, "counts": {}}, {"per_class": 1, "to": 1, "counts": {}}]
)
def test_not_exactly_one_quota_is_an_error(given_):
    with pytest.raises(InputError, match="expected exactly one of"):
        Quota(**given_)


@pytest.mark.parametrize("number", [-1, 1.0, True, "3", float("nan")])
def test_a_quota_is_a_whole_number(number):
    for quota in ({"per_class": number}, {"to": number}, {"counts": {"a": number}}):
        with pytest.raises(InputError, match="expected a whole number of at least 0"):
            Quota(**quota)


def test_a_class_with_too_few_rows_is_named_with_what_is_needed():
    with pytest.raises(InputError, match="class 'bee' has 1 readable pictures; the method needs at least 2"):
        make_plan(_rows(ant=3, bee=1), Quota(per_class=1), 2, False, 64)
    with pytest.raises(InputError, match="class 'bee' has no picture that can be read; the method needs at least 1"):
        make_plan(_rows(ant=3, bee=0), Quota(per_class=1), 1, False, 64)
    assert make_plan(_rows(ant=3, bee=0), Quota(counts={"ant": 1}), 1, False, 64).total == 1
    assert make_plan(_rows(ant=3, bee=0), Quota(per_class=1), 0, False, 64).total == 2


def test_an_unknown_class_is_named_with_the_nearest():
    with pytest.raises(InputError, match="'beee', which is not in the source; the nearest is 'bee'"):
        make_plan(_rows(ant=3, bee=1), Quota(counts={"beee": 1}), 1, False, 64)
