"""What every representation of the catalog promises. A new entry is tested without a line here."""

import dataclasses
import functools

import pytest

from augforge.parts import catalog, contracts

BRIEF = {"epochs": 1, "batch_size": 48, "steps": 2}


@functools.cache
def _cases(name):
    """The cases of an entry by their names; each is fitted once for all laws."""
    known = {field.name for field in dataclasses.fields(catalog.part_class(name, "representation"))}
    part = catalog.make(name, {key: value for key, value in BRIEF.items() if key in known}, "representation")
    return {str(case): case for case in contracts.cases(part, "representation")}


@pytest.mark.parametrize("name", catalog.REPRESENTATIONS)
@pytest.mark.parametrize("rows", ["3-uint8-16", "3-float32-16"])
@pytest.mark.parametrize("law", contracts.LAWS["representation"])
def test_it_keeps_the_law(law, rows, name):
    contracts.LAWS["representation"][law](_cases(name)[rows])
