import json
from dataclasses import replace
from typing import ClassVar

import pytest
import torch
from safetensors.torch import save_file

from augforge.classifiers.logistic import Logistic
from augforge.classifiers.matching import Matching
from augforge.classifiers.pool import PoolOptions
from augforge.classifiers.prototype import Prototype
from augforge.data.banks import ArrayPictures, FeatureBank
from augforge.predict import Predictor, load_predictor, make_predictor, save_predictor
from augforge.types import Examples, InputError

CLASSES = ("cat", "dog", "car", "bus", "oak")
SUPERCLASSES = ("animal", "animal", "vehicle", "vehicle", "plant")
D = 12


def features(shot=3, seed=0):
    rng = torch.Generator().manual_seed(seed)
    y = torch.arange(len(CLASSES)).repeat_interleave(shot)
    near = torch.tensor([0, 0, 1, 1, 2])  # classes of one superclass lie side by side
    centres = 8 * torch.randn(3, D, generator=rng)[near] + torch.randn(len(CLASSES), D, generator=rng)
    x = centres[y] + torch.randn(len(y), D, generator=rng) / 3
    groups = {"superclass": tuple(SUPERCLASSES[k] for k in y.tolist())}
    return FeatureBank(x, y, CLASSES, "memory", groups=groups)


def pictures(count=2):
    rng = torch.Generator().manual_seed(1)
    y = torch.arange(len(CLASSES)).repeat_interleave(count)
    shade = 40 + 40 * y[:, None, None, None]
    pixels = (shade + torch.randint(0, 20, (len(y), 6, 6, 3), generator=rng)).to(torch.uint8)
    return ArrayPictures(y, CLASSES, pixels.numpy(), "memory")


class Counting(Prototype):
    """Prototypes that say how many classes they were asked about."""

    asked: ClassVar[list] = []

    def scores(self, support, query):
        self.asked.append((int(support.y.max()) + 1, len(query)))
        return super().scores(support, query)


def test_pictures_are_embedded_scored_and_ranked(means):
    bank = pictures()
    predictor = make_predictor(bank, Prototype(temperature=1e4), means())
    rows = torch.tensor([0, 5, 9])
    found = predictor.predict(bank.examples(rows).x)
    assert [ranking[0][0] for ranking in found] == ["cat", "car", "oak"]
    for ranking in found:
        assert sorted(name for name, _ in ranking) == sorted(CLASSES)
        chances = [p for _, p in ranking]
        assert chances == sorted(chances, reverse=True)
        assert sum(chances) == pytest.approx(1)
    alone = predictor.predict([bank.examples(rows).x[1]])
    assert alone[0] == [(name, pytest.approx(p)) for name, p in found[1]]


def test_probabilities_are_the_softmax_of_the_scores():
    bank = features()
    query = torch.randn(4, D, generator=torch.Generator().manual_seed(2))
    predictor = make_predictor(bank, Logistic())
    found = predictor.predict_features(query)
    scores = Logistic().scores(Examples(bank.x, bank.y), query)
    expected = torch.softmax(scores / predictor.temperature, -1)
    for ranking, row in zip(found, expected, strict=True):
        assert dict(ranking) == pytest.approx(dict(zip(CLASSES, row.tolist(), strict=True)), abs=1e-6)


@pytest.mark.parametrize("classifier", [Prototype(temperature=50.0), Logistic(C=0.01)])
def test_all_superclasses_are_the_flat_answer(classifier):
    query = torch.randn(20, D, generator=torch.Generator().manual_seed(3)) * 5
    flat = make_predictor(features(), classifier).predict_features(query)
    for shortlist in (3, 10):
        coarse = make_predictor(features(), classifier, shortlist=shortlist).predict_features(query)
        for a, b in zip(flat, coarse, strict=True):
            assert [name for name, _ in a] == [name for name, _ in b]
            assert dict(a) == pytest.approx(dict(b))


def test_only_the_classes_of_the_shortlist_are_scored():
    bank = features()
    predictor = make_predictor(bank, Counting(), shortlist=1)
    Counting.asked.clear()
    found = predictor.predict_features(bank.x)
    assert sorted(Counting.asked) == [(1, 3), (2, 6), (2, 6)]
    for ranking, y in zip(found, bank.y.tolist(), strict=True):
        assert {name for name, _ in ranking} == {c for c, s in zip(CLASSES, SUPERCLASSES, strict=True)
                                                 if s == SUPERCLASSES[y]}  # fmt: skip
        assert sum(p for _, p in ranking) == pytest.approx(1)
    assert [ranking[0][0] for ranking in found] == [CLASSES[k] for k in bank.y.tolist()]


def test_a_shortlist_needs_superclasses(means):
    with pytest.raises(InputError, match="no column 'superclass'"):
        make_predictor(pictures(), Prototype(), means(), shortlist=1)
    bank = features()
    bank.groups["superclass"] = ("animal", "plant", *bank.groups["superclass"][2:])
    with pytest.raises(InputError, match="class 'cat' has rows of the superclasses 'animal' and 'plant'"):
        make_predictor(bank, Prototype(), shortlist=1)


def test_saving_and_loading_go_on(tmp_path, means):
    bank = pictures()
    predictor = make_predictor(bank, Logistic(C=0.5), means(gain=0.01))
    save_predictor(predictor, tmp_path / "deep" / "saved")
    loaded = load_predictor(tmp_path / "deep" / "saved")
    x = bank.examples(torch.arange(4)).x
    assert loaded.predict(x) == predictor.predict(x)
    assert (loaded.classes, loaded.classifier, loaded.representation) == (CLASSES, Logistic(C=0.5), means(gain=0.01))


def test_features_weights_and_superclasses_are_saved_too(tmp_path):
    bank = features()
    support = Examples(bank.x, bank.y, weight=torch.linspace(1, 2, len(bank)))
    predictor = Predictor(None, Prototype(), support, CLASSES, SUPERCLASSES, 2)
    save_predictor(predictor, tmp_path)
    loaded = load_predictor(tmp_path)
    assert loaded.predict_features(bank.x) == predictor.predict_features(bank.x)
    assert (loaded.superclasses, loaded.shortlist) == (SUPERCLASSES, 2)
    with pytest.raises(InputError, match="knows features only"):
        loaded.predict(torch.zeros(1, 3, 4, 4))


@pytest.fixture
def folder(tmp_path):
    save_predictor(make_predictor(features(), Prototype()), tmp_path / "saved")
    return tmp_path / "saved"


@pytest.mark.parametrize(
    "changes",
    [{"classes": 3}, {"classes": [1]}, {"shortlist": True}, {"superclasses": "x"}, {"representation": "yes"}],
)
def test_a_damaged_record_is_refused(folder, changes):
    record = json.loads((folder / "predictor.json").read_text())
    (folder / "predictor.json").write_text(json.dumps(record | changes))
    with pytest.raises(InputError, match=r"predictor\.json' is damaged"):
        load_predictor(folder)


def test_what_is_missing_or_damaged_is_refused(folder, tmp_path):
    with pytest.raises(InputError, match=r"has no predictor\.json"):
        load_predictor(tmp_path)
    save_file(
        {"features": torch.zeros(2, 3), "labels": torch.zeros(3, dtype=torch.int64)}, folder / "support.safetensors"
    )
    with pytest.raises(InputError, match="cannot be read as a support set"):
        load_predictor(folder)
    (folder / "support.safetensors").write_bytes(b"nonsense")
    with pytest.raises(InputError, match="cannot be read as a support set"):
        load_predictor(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": (*CLASSES, "elm")}, "class 'elm' has no support row"),
        ({"classes": CLASSES[:-1]}, "labels up to 4; classes are 4"),
        ({"superclasses": ("a",)}, "1 superclasses for 5 classes"),
        ({"shortlist": 1}, "superclasses to choose from"),
        ({"shortlist": -1}, "shortlist=-1"),
    ],
)
def test_what_does_not_go_together_is_refused(changes, message):
    given = {"classes": CLASSES, "superclasses": None, "shortlist": 0} | changes
    with pytest.raises(InputError, match=message):
        Predictor(None, Prototype(), Examples(features().x, features().y), **given)


def test_a_pool_joins_the_support_with_weights_and_is_saved(tmp_path, means):
    bank, pool = pictures(1), pictures(3)
    predictor = make_predictor(bank, Logistic(), means(), pool=pool)
    unlabelled = make_predictor(bank, Logistic(), means(), pool=replace(pool, y=torch.zeros_like(pool.y)))
    alone = make_predictor(bank, Logistic(), means())
    assert (predictor.pool, alone.pool) == (len(pool), 0)
    assert predictor.temperature == alone.temperature  # of real rows
    assert torch.equal(predictor.support.x[: len(bank)], alone.support.x)
    assert torch.equal(predictor.support.y, unlabelled.support.y)  # found, not read
    assert torch.equal(predictor.support.weight, unlabelled.support.weight)
    wide = make_predictor(bank, Logistic(), means(), pool=pool, options=PoolOptions(share=1.0, checked=False))
    assert float(wide.support.weight[len(bank) :].sum()) == pytest.approx(len(CLASSES), rel=1e-5)
    save_predictor(predictor, tmp_path)
    again = load_predictor(tmp_path)
    assert again.pool == len(pool)
    assert again.predict(bank.examples(torch.tensor([0])).x) == predictor.predict(bank.examples(torch.tensor([0])).x)


def test_a_pool_that_does_not_go_with_the_support_is_refused(means):
    with pytest.raises(InputError, match="the pool 'memory' holds pictures, and the support features"):
        make_predictor(features(), Logistic(), pool=pictures())
    with pytest.raises(InputError, match="same network"):
        make_predictor(pictures(), Logistic(), means(), pool=replace(features(), x=features().x[:, 1:]))
    with pytest.raises(InputError, match="counts no weights"):
        make_predictor(features(), Matching(full_context=True), pool=features())


def test_pictures_need_a_representation():
    with pytest.raises(InputError, match="expected a representation"):
        make_predictor(pictures(), Prototype())
