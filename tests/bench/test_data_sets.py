"""Which classes of a benchmark's data set are for what, and the grid of the rivals' table."""

import importlib.util
import sys
from pathlib import Path

import pytest

from augforge.data.glyphs.classes import TABLE, glyph_classes
from augforge.parts import catalog

ROOT = Path(__file__).parents[2]


def _script(name):
    """A module of benchmarks/, which is no installed package."""
    spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", ROOT / "benchmarks" / f"{name}.py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(str(ROOT / "benchmarks"))  # where a script finds the others beside it
        spec.loader.exec_module(module)
    return module


data_sets, arms = _script("data_sets"), _script("rival_arms")


@pytest.mark.parametrize(("name", "role"), [("accordion", "train"), ("anchor", "choose"), ("sign-00", "report")])
def test_a_class_has_its_role_by_its_name_alone(name, role):
    assert data_sets.role_by_hash(name) == role


def test_two_fifths_are_reported_on_and_a_fifth_chooses():
    roles = [data_sets.role_by_hash(f"class {i}") for i in range(4000)]
    for role, share in (("report", 0.4), ("choose", 0.2), ("train", 0.4)):
        assert abs(roles.count(role) / 4000 - share) < 0.03


def test_fresh_letters_are_in_no_split_of_glyphs():
    bank = data_sets.fresh_letters(2)
    known = {c.name for split in TABLE for c in glyph_classes(split)}
    assert len(bank.classes) == len(set(bank.classes)) == 166
    assert not known & set(bank.classes)
    assert bank.examples(bank.rows_of(3)).x.shape == (2, 1, 28, 28)


def test_every_set_says_what_its_classes_are_for_and_the_page_names_it():
    page = (ROOT / "docs" / "imagine_results.md").read_text()
    for name, classes in data_sets.CLASSES.items():
        assert all(classes[:3])
        assert f"`{name}`" in page


def test_every_arm_has_as_many_trials_on_validation_classes():
    assert len({arm.name for arm in arms.ARMS}) == len(arms.ARMS)
    for arm in arms.ARMS:
        for setting in arm.settings:
            catalog.make(arm.method, setting)
        if not (arm.ours or arm.long or arm.classifier == "own" or arm.method == "nothing"):
            assert arm.trials == 2 * len(arms.WEIGHTS) * len(arms.COUNTS)
            assert arm.settings[0] != arm.settings[1]
