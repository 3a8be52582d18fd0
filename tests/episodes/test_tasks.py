from dataclasses import replace

import numpy as np
import pytest
import torch

from augforge.data.banks import ArrayPictures, FeatureBank
from augforge.data.features import write_features
from augforge.episodes import check_episode
from augforge.episodes.batch import gather
from augforge.episodes.files import class_digest
from augforge.episodes.named_tasks import ORL_PEOPLE, TASK_NAMES, VAL_ALPHABETS, lake_episodes, open_task, rotated
from augforge.episodes.tasks import Task, task_episodes
from augforge.types import Episode, InputError

FORM = {"way": 3, "shot": 2, "n_query": 2, "trials": 20}


def _bank(prefix, n_classes=8, each=6, groups=None):
    y = torch.arange(n_classes).repeat_interleave(each)
    x = torch.arange(float(len(y)))[:, None] + torch.tensor([0.0, 0.5])
    names = tuple(f"{prefix}{i}" for i in range(n_classes))
    return FeatureBank(x, y, names, groups={} if groups is None else {"script": tuple(groups(c) for c in y.tolist())})


def _task(**changes):
    parts = {"base": _bank("b"), "val": _bank("v"), "novel": _bank("n")} | changes
    return Task("toy", **parts)


def test_glyphs_are_a_task_with_no_data_at_all():
    task = open_task("glyphs")
    assert [len(bank.classes) for bank in (task.base, task.val, task.novel)] == [344, 59, 82]
    for episode in task_episodes(task, **FORM, part="val"):
        check_episode(episode, task.val.y)


def test_any_source_with_splits_is_a_task(tmp_path):
    path = tmp_path / "features.safetensors"
    write_features(path, {"train": _bank("a"), "test": _bank("b")})
    task = open_task(path)
    assert task.name == str(path)
    assert task.val is None
    assert task.novel.classes == _bank("b").classes
    with pytest.raises(InputError, match="no validation classes"):
        task_episodes(task, **FORM, part="val")


def test_a_source_without_splits_is_a_task_without_base_classes(tmp_path):
    path = tmp_path / "features.safetensors"
    write_features(path, _bank("a"))
    task = open_task(path)
    assert task.base is None
    assert task.val is None
    assert task.novel.classes == _bank("a").classes
    for episode in task_episodes(task, **FORM):
        check_episode(episode, task.novel.y)
    with pytest.raises(InputError, match="has no base classes"):
        task_episodes(task, **FORM, part="base")


def test_the_same_classes_in_train_and_test_are_the_support_and_the_queries(tmp_path):
    path = tmp_path / "features.safetensors"
    write_features(path, {"train": _bank("a"), "test": _bank("a", each=4)})
    task = open_task(path)
    assert task.base is None
    assert len(task.novel) == 8 * 10
    for episode in task_episodes(task, **FORM):
        check_episode(episode, task.novel.y)
        assert bool((episode.support < 48).all())
        assert bool((episode.query >= 48).all())


def test_some_classes_alone_in_two_splits_are_refused(tmp_path):
    path = tmp_path / "features.safetensors"
    write_features(path, {"train": _bank("a"), "test": _bank("a", n_classes=5)})
    with pytest.raises(InputError, match=r"'a0'.*is among its base classes and its novel classes"):
        open_task(path)


def test_rows_of_a_group_stay_on_one_side_of_an_episode():
    novel = replace(_bank("n", each=12), groups={"group": tuple(f"track {i // 4}" for i in range(96))})
    for episode in task_episodes(_task(novel=novel), **FORM):
        check_episode(episode, novel.y)
        support, query = (
            {novel.groups["group"][i] for i in rows.flatten()} for rows in (episode.support, episode.query)
        )
        assert not support & query


@pytest.mark.parametrize(("part", "other"), [("val", "base"), ("novel", "base"), ("novel", "val")])
def test_a_class_in_two_parts_is_refused_by_name(part, other):
    parts = {"base": _bank("b"), "val": _bank("v"), "novel": _bank("n")}
    leaking = FeatureBank(torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64), (parts[other].classes[3],))
    with pytest.raises(InputError, match=f"class '{parts[other].classes[3]}'.*{other}.*{part}.*in both \\(1 of"):
        Task("toy", **(parts | {part: leaking}))


def test_fixed_episodes_with_a_query_in_the_support_are_refused():
    bad = Episode(torch.arange(2), torch.tensor([[0], [6]]), torch.tensor([[0], [7]]))
    with pytest.raises(InputError, match="query row 0 in its support"):
        _task(fixed=[bad])


def test_episodes_come_from_their_part():
    task = _task(val=_bank("v", n_classes=3), novel=_bank("n", n_classes=5))
    for part, most in (("base", 8), ("val", 3), ("novel", 5)):
        episodes = task_episodes(task, **FORM, part=part)
        assert {int(c) for e in episodes for c in e.classes} == set(range(most))


def test_episodes_stay_within_a_group_and_use_each():
    novel = _bank("n", n_classes=10, groups=lambda c: "abc"[min(c // 4, 2)])  # 4, 4 and 2 classes
    task = _task(novel=novel, groups="script")
    episodes = task_episodes(task, **(FORM | {"trials": 300}))
    for episode in episodes:
        check_episode(episode, novel.y)
    seen = [
        {novel.groups["script"][r] for r in (e.support.flatten().tolist() + e.query.flatten().tolist())}
        for e in episodes
    ]
    assert all(len(groups) == 1 for groups in seen)
    first = sum(groups == {"a"} for groups in seen)
    assert 110 < first < 190  # c has too few classes, so a is in half of them
    again = task_episodes(task, **(FORM | {"trials": 7}))
    assert all(torch.equal(a.support, b.support) for a, b in zip(again, episodes, strict=False))
    with pytest.raises(InputError, match="none of the 3 groups"):
        task_episodes(task, **(FORM | {"way": 5}))
    with pytest.raises(InputError, match="no column 'script'"):
        task_episodes(task, **FORM, part="base")


def test_more_shots_add_rows_to_the_same_classes():
    task = _task()
    one, three = (task_episodes(task, **(FORM | {"shot": shot}), seed=5) for shot in (1, 3))
    assert all(torch.equal(a.classes, b.classes) for a, b in zip(one, three, strict=True))
    assert all(torch.equal(a.support, b.support[:, :1]) for a, b in zip(one, three, strict=True))


def test_unequal_shots_are_the_equal_ones_with_padding():
    task = _task()
    equal = task_episodes(task, **(FORM | {"shot": 3}))
    for some, all_of_it in zip(task_episodes(task, **(FORM | {"shot": (1, 3, 2)})), equal, strict=True):
        check_episode(some, task.novel.y)
        used = some.support >= 0
        assert used.sum(1).tolist() == [1, 3, 2]
        assert torch.equal(some.support[used], all_of_it.support[used])
        assert torch.equal(some.query, all_of_it.query)


@pytest.mark.parametrize("shot", [0, (1, 2), (1, 0, 2)])
def test_impossible_shots_are_refused(shot):
    with pytest.raises(InputError, match="3-way episodes; expected 1 or more"):
        task_episodes(_task(), **(FORM | {"shot": shot}))


GOOD = Episode(torch.tensor([1, 4]), torch.tensor([[6, 7], [24, -1]]), torch.tensor([[8], [25]]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"query": torch.tensor([[8], [24]])}, "the query row 24 in its support"),
        ({"query": torch.tensor([[8, 8], [25, 26]])}, "a query row twice"),
        ({"query": torch.tensor([[8], [99]])}, "not among the 48"),
        ({"query": torch.tensor([[8], [-1]])}, "not among the 48"),
        ({"query": torch.tensor([[25], [8]])}, "not of its class"),
        ({"query": torch.tensor([[0, 8]])}, "not of its class"),
        ({"query": torch.tensor([8, 25])}, "has shapes"),
        ({"support": torch.tensor([[6, 7], [24, -2]])}, "not among the 48"),
        ({"support": torch.tensor([[6, 7], [-1, 24]])}, "-1 before a row"),
        ({"support": torch.tensor([[6, 7], [-1, -1]])}, "without a support row"),
        ({"support": torch.tensor([[6, 6], [24, -1]])}, "support row twice"),
        ({"support": torch.tensor([[6, 12], [24, -1]])}, "not of its class"),
        ({"support": torch.tensor([[6, 7]])}, "has shapes"),
        ({"classes": torch.tensor([1, 1])}, "a class or a support row twice"),
    ],
)
def test_what_is_no_episode_is_refused(changes, message):
    check_episode(GOOD, _bank("n").y)
    with pytest.raises(InputError, match=message):
        check_episode(
            Episode(**{"classes": GOOD.classes, "support": GOOD.support, "query": GOOD.query} | changes), _bank("n").y
        )


def test_gather_puts_rows_where_they_belong():
    bank, task = _bank("n"), _task()
    episodes = task_episodes(task, **FORM)
    support, query, target = gather(bank.x, episodes)
    assert support.x.shape == (20, 6, 2)
    assert support.weight is None
    assert query.shape == (20, 6, 2)
    for i, episode in enumerate(episodes):
        assert torch.equal(support.x[i, :, 0], episode.support.flatten().float())
        assert torch.equal(query[i, :, 0], episode.query.flatten().float())
        assert torch.equal(episode.classes[support.y[i]], bank.y[episode.support.flatten()])
        assert torch.equal(episode.classes[target[i]], bank.y[episode.query.flatten()])
    assert torch.equal(target, gather(bank.x, episodes, bank.y)[2])


def test_padding_has_no_weight_and_no_content():
    bank = _bank("n")
    support, _, _ = gather(bank.x.double() + 1, [GOOD, GOOD])
    assert support.weight.dtype == torch.float64
    assert support.weight.tolist() == [[1, 1, 1, 0]] * 2
    assert support.y.tolist() == [[0, 0, 1, 1]] * 2
    assert bool((support.x[:, 3] == 0).all())


def test_a_single_line_of_queries_needs_labels():
    bank = _bank("n")
    episode = Episode(torch.tensor([1, 4]), torch.tensor([[6], [24]]), torch.tensor([[25, 8, 26]]))
    check_episode(episode, bank.y)
    assert gather(bank.x, [episode], bank.y)[2].tolist() == [[1, 0, 1]]
    with pytest.raises(InputError, match="expected y"):
        gather(bank.x, [episode])


def test_episodes_of_different_forms_do_not_make_a_batch():
    with pytest.raises(InputError, match="2 different forms"):
        gather(_bank("n").x, [GOOD, Episode(GOOD.classes, GOOD.support[:, :1], GOOD.query)])


def test_the_class_digest_is_that_of_the_names_in_their_order():
    bank = _bank("n")
    assert class_digest(bank) == class_digest(_bank("n", each=2))
    assert class_digest(bank) != class_digest(_bank("m"))
    assert class_digest(bank) != class_digest(bank.only(bank.classes[::-1]))


def test_turned_pictures_are_classes_of_their_own():
    pixels = np.arange(5 * 3 * 3, dtype=np.uint8).reshape(5, 3, 3, 1)
    whole = ArrayPictures(torch.tensor([0, 1]), ("a", "b"), pixels, "x.npz", index=torch.tensor([4, 2]))
    bank = rotated(whole)
    assert bank.classes == ("a", "b", "a/rot090", "b/rot090", "a/rot180", "b/rot180", "a/rot270", "b/rot270")
    assert bank.y.tolist() == list(range(8))
    assert len({bank.name(i) for i in range(8)}) == 8
    x = bank.examples(torch.arange(8)).x
    for quarter in range(4):
        assert torch.equal(
            x[2 * quarter : 2 * quarter + 2], torch.rot90(whole.examples(torch.arange(2)).x, quarter, (2, 3))
        )
    assert bank.groups["rotation"].tolist() == [0, 0, 90, 90, 180, 180, 270, 270]


@pytest.mark.data
def test_omniglot_has_four_rotations(data_root):
    task = open_task("omniglot", data_root)
    assert [len(bank.classes) for bank in (task.base, task.val, task.novel)] == [4112, 688, 1692]


@pytest.mark.data
def test_alphabets_are_held_out_whole(data_root):
    task = open_task("omniglot-alphabet", data_root)
    alphabets = [set(bank.groups["alphabet"]) for bank in (task.base, task.val, task.novel)]
    assert [len(names) for names in alphabets] == [25, 5, 20]
    assert alphabets[1] == set(VAL_ALPHABETS)
    for episode in task_episodes(task, way=20, shot=1, n_query=1, trials=30):
        assert len({task.novel.groups["alphabet"][row] for row in episode.support.flatten().tolist()}) == 1


@pytest.mark.data
def test_lakes_trials_are_the_400_fixed_ones(data_root):
    task = open_task("lake-runs", data_root)
    episodes = task_episodes(task, way=20, shot=1, n_query=1, trials=400)
    assert episodes == list(task.fixed)
    support, query, target = gather(torch.arange(float(len(task.novel)))[:, None], episodes, task.novel.y)
    assert support.x.shape == (400, 20, 1)
    assert query.shape == (400, 1, 1)
    assert torch.equal(torch.bincount(target[:, 0], minlength=20), torch.full((20,), 20))
    drawers = task.novel.groups["drawer"]
    runs = [episodes[i : i + 20] for i in range(0, 400, 20)]
    for run in runs:  # one drawer writes all that is learnt from, and another all that is asked
        assert len({int(drawers[row]) for e in run for row in e.support.flatten()}) == 1
        assert len({int(drawers[int(e.query)]) for e in run}) == 1
        assert len({task.novel.groups["alphabet"][row] for row in run[0].support.flatten().tolist()}) == 1
    for wrong in ({"way": 5}, {"shot": 2}, {"n_query": 15}, {"trials": 401}):
        with pytest.raises(InputError, match="is 400 fixed episodes of way 20, shot 1 and query 1"):
            task_episodes(task, **({"way": 20, "shot": 1, "n_query": 1, "trials": 400} | wrong))
    task_episodes(task, way=5, shot=1, n_query=15, trials=5, part="val")


@pytest.mark.data
def test_damaged_runs_are_refused(data_root, tmp_path):
    novel = open_task("omniglot-alphabet", data_root).novel
    (tmp_path / "omniglot_lake_oneshot_runs.json").write_text('{"run01": [[1, 2]]}')
    with pytest.raises(InputError, match="does not hold Lake's runs"):
        lake_episodes(novel, tmp_path)


@pytest.mark.data
def test_people_are_in_one_part(data_root):
    task = open_task("orl-faces", data_root)
    assert [len(bank.classes) for bank in (task.base, task.val, task.novel)] == [20, 8, 12]
    assert sorted(i for numbers in ORL_PEOPLE.values() for i in numbers) == list(range(1, 41))


@pytest.mark.data
@pytest.mark.parametrize("name", [name for name in TASK_NAMES if name != "lake-runs"])
def test_every_named_task_gives_episodes(name, data_root):
    task = open_task(name, data_root)
    for part, bank in (("base", task.base), ("val", task.val), ("novel", task.novel)):
        for episode in task_episodes(task, way=5, shot=5, n_query=5, trials=5, part=part):
            check_episode(episode, bank.y)
