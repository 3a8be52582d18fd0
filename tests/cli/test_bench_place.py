"""Where a benchmark computes: the same results by items of work, resumed, and what is refused."""

import pickle

import pytest

from augforge.bench.place import HERE, Place, place_of
from augforge.types import InputError


def test_items_come_in_order_here_and_by_what_shares_them():
    def shared(function, job, items, workers):
        yield from (function(job, pickle.loads(pickle.dumps(item))) for item in items)

    for place in (HERE, Place(shared=shared)):
        assert list(place.each(lambda job, item: job + item, 10, range(4))) == [10, 11, 12, 13]


def test_workers_have_no_device():
    with pytest.raises(InputError, match="--device cuda:0 was given with --engine, whose workers compute on CPUs"):
        Place("cuda:0", lambda *given: iter(()))
    with place_of("cuda:0", "processes") as place:
        assert (place.device, place.shared) == ("cuda:0", None)


def test_workers_without_an_engine_and_an_engine_without_a_use_are_refused(augforge):
    said = augforge("bench", "glyphs", "--protocol", "verification", "--engine", "ray").error()
    assert said.startswith("--engine was given with --protocol verification, which has no use for it")
    with pytest.raises(InputError, match="--workers 2 was given without --engine; expected --engine ray beside it"):
        place_of("cpu", "processes", 2).__enter__()
    with pytest.raises(InputError, match="expected processes, ray, ray:auto"):
        place_of("cpu", "sparc").__enter__()


@pytest.mark.parametrize("seeds", ["9" * 24, "1," + "9" * 19, "1,²", "1,1"])
def test_numbers_of_many_digits_are_refused(augforge, seeds):
    assert "expected different whole numbers" in augforge("bench", "glyphs", "--seeds", seeds).error()
