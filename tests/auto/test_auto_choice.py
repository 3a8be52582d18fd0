"""How `auto` chooses: folds of the support, the prior of our benchmark, and what weighs more."""

import math
from dataclasses import replace

import pytest
import torch

from augforge.auto.candidates import (
    ERRORS,
    LETTERS,
    MADE,
    PRIOR,
    Candidate,
    candidates,
    networks_of,
    prior,
    with_means,
)
from augforge.auto.choice import FOLDS, Shown, beside, choose, folds, held_out, shorter
from augforge.auto.recipe_file import RecipeFile, is_recipe, read_recipe
from augforge.auto.run import embedded_networks
from augforge.types import InputError

NETWORKS = ("photos", "photos-lite2")


def shown(first: float, second: float, each: tuple[int, ...] = (6,) * 6) -> Shown:
    """Features by two networks whose classes are so far apart, in units of the noise, with so many rows of each."""
    rng = torch.Generator().manual_seed(0)
    y = torch.arange(len(each)).repeat_interleave(torch.tensor(each))
    means, noise = torch.randn(len(each), 40, generator=rng), torch.randn(2, len(y), 40, generator=rng)
    x = [size * means[y] + noise[i] for i, size in enumerate((first, second))]
    return Shown({name: torch.nn.functional.normalize(one, dim=1) for name, one in zip(NETWORKS, x, strict=True)}, y)


def test_at_one_shot_the_prior_alone_decides():
    options = candidates("photographs", NETWORKS)
    choice = choose(shown(1.0, 0.0, (1,) * 5), options)
    assert choice.rows == 0
    assert choice.error == ERRORS["photographs"][0]
    assert [one.mean for one in choice.rated] == [
        prior(one.name, 1)[0] * ERRORS["photographs"][0] / 100 for one in options
    ]
    assert choice.candidate.name == "two networks"
    assert "No class has a second picture" in choice.says()


def test_folds_that_say_otherwise_weigh_more_than_the_prior():
    options = candidates("photographs", NETWORKS)
    worse = choose(shown(0.4, 0.0, (100,) * 6), options)
    assert worse.rated[1].accuracy < worse.rated[0].accuracy
    assert worse.plain
    assert worse.says().startswith("auto: nothing beside the plain classifier (photos, logistic")
    better = choose(shown(0.3, 0.9, (20,) * 6), options)
    assert better.candidate == options[1]
    assert better.best.mean > prior("two networks", 20)[0] * better.error / 100
    low, high = better.best.interval
    assert low < better.best.mean < high
    assert better.worth(low) < better.worth(better.best.mean) < better.worth(high)
    assert better.worth(0.0) == pytest.approx(20)


def test_the_gain_is_the_posterior_mean_of_a_normal():
    options = candidates("photographs", NETWORKS)
    choice = choose(shown(0.5, 0.5, (3, 5, 8, 2)), options)
    m, s = (share * choice.error / 100 for share in prior("two networks", choice.shots))
    n, found = choice.rows, choice.rated[1].accuracy - choice.rated[0].accuracy
    # Of the rows on which they differ only the difference is seen here: the variance is between its two extremes.
    precise = [1 / s**2 + n**2 / 1e4 / (count + 2) for count in (abs(found) * n / 100, n)]
    assert choice.rated[1].sd == pytest.approx(choice.rated[1].sd)
    assert precise[1] <= 1 / choice.rated[1].sd ** 2 <= precise[0] + 1e-9
    pull = 1 - choice.rated[1].sd ** 2 / s**2
    assert choice.rated[1].mean == pytest.approx(m + pull * (found - m))
    assert choice.shots == pytest.approx(math.exp(sum(map(math.log, (3, 5, 8, 2))) / 4))


def test_folds_never_hold_out_the_last_row_or_group_of_a_class():
    y = torch.tensor([0, 1, 1, 2, 2, 2, 2, 2, 2, 2])
    fold = folds(y, 3)
    assert int(fold[0]) == -1
    assert sorted(fold[1:3].tolist()) == [0, 1]
    assert torch.bincount(fold[3:], minlength=FOLDS).tolist() == [2, 2, 1, 1, 1]
    assert torch.equal(fold, folds(y, 3))
    group = torch.tensor([0, 7, 7, 1, 1, 1, 2, 2, 3, 3])
    grouped = folds(y, 0, group)
    assert grouped[:3].tolist() == [-1, -1, -1]
    for number in (1, 2, 3):
        assert len(grouped[group == number].unique()) == 1


def test_the_choice_is_the_same_for_one_seed_and_whatever_the_order_of_classes():
    options = candidates("photographs", NETWORKS)
    rows = shown(0.5, 0.6)
    one, other = choose(rows, options, 4), choose(rows, options, 4)
    assert one == other


def test_a_pool_adds_as_much_as_it_is_believed():
    options, rows = candidates("photographs", NETWORKS), shown(3.0, 3.0, (1,) * 4)
    more = shown(3.0, 3.0, (10,) * 4)
    pooled = choose(Shown(rows.x, rows.y, more.x), options)
    alone = choose(rows, options)
    assert alone.trust is None
    assert 0 < pooled.trust <= 1
    assert pooled.candidate == replace(alone.candidate, pool=True)
    assert pooled.best.mean == pytest.approx(alone.best.mean + pooled.trust * 0.33 * PRIOR["pool"][0][0])
    assert len(pooled.support) == 4 + 40
    assert "The pool weighs" in pooled.says()
    assert prior("two networks", 100) == (PRIOR["two networks"][0][-1], PRIOR["two networks"][1])
    assert prior("plain", 3) == (0.0, 0.0)


def test_fewer_coordinates_change_no_answer():
    rows = shown(0.3, 0.0, (5,) * 4)
    wide = torch.cat([rows.x["photos"], torch.zeros(20, 100)], 1)
    wide = wide @ torch.linalg.qr(torch.randn(140, 140, generator=torch.Generator().manual_seed(1))).Q
    plain, fold = candidates("photographs", NETWORKS)[0], folds(rows.y)
    narrow = held_out(rows, plain, fold)
    assert torch.equal(held_out(Shown({"photos": wide}, rows.y), plain, fold), narrow)
    assert 0.3 < narrow.double().mean() < 1


def test_shorter_rows_have_the_same_angles_and_lengths():
    x = torch.randn(7, 300, generator=torch.Generator().manual_seed(0))
    assert shorter(x).shape == (7, 7)
    assert torch.allclose(shorter(x) @ shorter(x).T, x @ x.T, atol=1e-3)
    assert shorter(x.T) is x.T or torch.equal(shorter(x.T), x.T)


def test_parts_hold_the_features_of_their_network():
    options = candidates("photographs", ("photos-parts", "photos-lite2-parts"))
    assert [one.representation for one in options] == [
        "photos", "photos-parts", "photos+photos-lite2", "photos-parts+photos-lite2-parts",
    ]  # fmt: skip
    assert embedded_networks(options) == ("photos-parts", "photos-lite2-parts")
    parts = torch.nn.functional.normalize(torch.randn(4, 2, 5, generator=torch.Generator().manual_seed(0)), dim=2)
    rows = torch.cat([parts[:, 0], parts[:, 1].repeat(1, 4) / 2], 1) / math.sqrt(2)
    found = with_means({"photos-parts": rows})
    assert torch.allclose(found["photos"], parts[:, 0])
    assert found["photos-parts"] is rows


def letters(each: tuple[int, ...], useful: bool) -> Shown:
    """Letters whose made rows lie about the class means, or about those of the next class."""
    rng = torch.Generator().manual_seed(0)
    y = torch.arange(len(each)).repeat_interleave(torch.tensor(each))
    means = torch.randn(len(each), 20, generator=rng)
    x = means[y] + 1.5 * torch.randn(len(y), 20, generator=rng)
    of = y if useful else (y + 1) % len(each)
    made = means[of][:, None] + 0.3 * torch.randn(len(y), MADE, 20, generator=rng)
    return Shown({LETTERS: x}, y, made={("classical", LETTERS): made})


def test_made_rows_of_a_class_weigh_one_real_picture_and_follow_their_parents():
    rows, one = letters((1, 2, 5), True), candidates("letters", (LETTERS,))[-1]
    support = rows.support(one)
    assert len(support) == 8 + 8 * (MADE // 5)
    together = torch.zeros(3).index_add(0, support.y[8:], support.weight[8:])
    assert together == pytest.approx(torch.ones(3))
    assert torch.equal(support.weight[:8], torch.ones(8))
    assert torch.equal(support.x[8 : 8 + MADE // 5], rows.made["classical", LETTERS][0, : MADE // 5])
    part = rows.take(torch.tensor([7, 0]), torch.tensor([0, 1]))
    assert torch.equal(part.made["classical", LETTERS][1], rows.made["classical", LETTERS][0])


def test_rows_made_of_a_held_out_picture_are_held_out_with_it():
    # What is made lies on its own parent, in a class of noise: seen, it would name the parent.
    rng = torch.Generator().manual_seed(0)
    x, y = torch.randn(40, 60, generator=rng), torch.arange(4).repeat(10)
    rows = Shown({LETTERS: x}, y, made={("classical", LETTERS): x[:, None].expand(-1, MADE, -1)})
    right = held_out(rows, candidates("letters", (LETTERS,))[-1], folds(y))
    assert right.double().mean() < 0.5


def test_folds_say_what_made_rows_are_worth():
    options = candidates("letters", (LETTERS,))[::3]
    good, bad = (choose(letters((2,) * 40, useful), options) for useful in (True, False))
    assert good.candidate.made == "classical"
    means = [prior("classical", 2)[0] * one.error / 100 for one in (good, bad)]
    assert good.rated[1].mean > means[0] > 0
    assert bad.rated[1].mean < means[1]


def test_features_beside_each_other_have_length_one():
    rows = shown(1.0, 1.0)
    assert beside(rows.x, NETWORKS).norm(dim=1) == pytest.approx(torch.ones(len(rows.y)))
    assert beside({"": rows.y}, ()) is rows.y


def test_a_second_network_is_used_where_it_is_installed(monkeypatch):
    assert networks_of("conv4-glyphs") == ("conv4-glyphs",)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert networks_of("photos") == ("photos-parts",)


def test_a_recipe_file_is_read_back(tmp_path):
    recipe = RecipeFile(candidates("photographs", NETWORKS)[-1], "crops", says="because")
    recipe.write(tmp_path / "new" / "recipe.json")
    assert read_recipe(tmp_path / "new" / "recipe.json") == recipe
    assert is_recipe("auto")
    assert is_recipe("my/recipe.json")
    assert not is_recipe("classical")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "1e999",
        "[" * 100_000,
        '{"kind": "recipe", "candidate": {"networks": 1}}',
        "{}",
        '{"kind": "recipe"}',
        '{"kind": "recipe", "candidate": 3}',
    ],
)
def test_what_is_no_recipe_is_one_sentence(tmp_path, text):
    path = tmp_path / "recipe.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"--with '.*recipe\.json' is no file that `augforge auto` wrote"):
        read_recipe(path)


def test_a_recipe_names_nothing_but_the_catalog(tmp_path):
    path = tmp_path / "recipe.json"
    RecipeFile(Candidate("plain", (), "os:system"), "none").write(path)
    with pytest.raises(InputError, match="is not known"):
        read_recipe(path)
    RecipeFile(Candidate("plain", (), "logistic"), "none", "os:system").write(path)
    with pytest.raises(InputError, match="is not of the catalog"):
        read_recipe(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_recipe(tmp_path / "none.json")
