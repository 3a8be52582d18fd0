"""The laws of classifiers. Each takes a case and raises AssertionError with what was found."""

from __future__ import annotations

import numpy as np
import torch

from augforge.data.banks import ArrayPictures
from augforge.parts.contracts.cases import (
    EPISODES,
    FLOATS,
    QUERIES,
    SHOT,
    WAY,
    ClassifierCase,
    random_state,
    require,
    require_close,
    require_description,
    require_same,
    saved_and_packed,
)
from augforge.parts.saving import fitted_tensors, part_digest
from augforge.types import Examples, InputError, capabilities

KIND = "classifier"
_SAME = 1e-5  # the most that rounding may change in float64
_OF_FLOAT32, _OF_BFLOAT16 = 2e-3, 5e-2


def scores_have_the_shape_and_type_of_queries(case: ClassifierCase) -> None:
    """Scores [b, q, way] are finite, of the queries' type, and near those of float64."""
    for dtype in FLOATS:
        support, query = case.episodes(dtype)
        found = case.scores(support, query)
        shape = (EPISODES, QUERIES, WAY)
        require(found.shape == shape, f"scores are {list(found.shape)}; expected {list(shape)}")
        require(found.dtype == dtype, f"scores of {dtype} queries are {found.dtype}")
        require(bool(torch.isfinite(found).all()), f"a score of {dtype} queries is not finite")
        exact = case.scores(Examples(support.x.double(), support.y), query.double())  # type: ignore[union-attr]
        most = _OF_BFLOAT16 if dtype == torch.bfloat16 else _OF_FLOAT32
        require_close(found.double(), exact, f"{dtype} beside float64", most)


def it_knows_what_it_was_shown(case: ClassifierCase) -> None:
    """Queries beside the support rows of well separated classes get the class of those rows."""
    if case.width < WAY:
        return  # classes are put along the axes
    rng = torch.Generator().manual_seed(1)
    y = torch.arange(WAY).repeat_interleave(5)
    x = 4 * torch.eye(WAY, case.width)[y] + torch.randn(WAY * 5, case.width, generator=rng) / 20
    found = case.scores(Examples(x, y), x + 0.01).argmax(-1)
    require(torch.equal(found, y), f"rows of the classes {y.tolist()} were called {found.tolist()}")


def a_batch_is_its_episodes(case: ClassifierCase) -> None:
    """The scores of episodes [b, ...] are those of each alone."""
    support, query = case.episodes()
    batch = case.scores(support, query)
    for e in range(EPISODES):
        require_close(
            case.scores(Examples(support.x[e], support.y[e]), query[e]), batch[e], f"episode {e} alone", _SAME
        )


def queries_do_not_see_each_other(case: ClassifierCase) -> None:
    """The scores of a query are the same in any order and any company; no query has no score."""
    support, query = case.episodes()
    whole = case.scores(support, query)
    order = torch.randperm(QUERIES, generator=torch.Generator().manual_seed(2))
    require_close(case.scores(support, query[:, order]), whole[:, order], "queries in another order", _SAME)
    for q in range(QUERIES):
        require_close(case.scores(support, query[:, q : q + 1]), whole[:, q : q + 1], f"query {q} alone", _SAME)
    none = case.scores(support, query[:, :0])
    require(none.shape == (EPISODES, 0, WAY), f"no query has scores {list(none.shape)}")


def the_order_of_the_support_does_not_matter(case: ClassifierCase) -> None:
    """The support's rows, with their labels and weights, can come in any order."""
    support, query = case.episodes()
    order = torch.randperm(WAY * SHOT, generator=torch.Generator().manual_seed(2))
    weight = torch.linspace(0.5, 2, WAY * SHOT, dtype=torch.float64).expand(EPISODES, -1)
    shuffled = Examples(support.x[:, order], support.y[:, order], weight=weight[:, order])  # type: ignore[call-overload]
    found = case.scores(shuffled, query)
    require_close(found, case.scores(Examples(support.x, support.y, weight=weight), query), "another order", _SAME)


def class_numbers_are_only_names(case: ClassifierCase) -> None:
    """Classes that are numbered otherwise have the same scores, in the other order."""
    support, query = case.episodes()
    rename = torch.tensor([2, 0, 1])
    found = case.scores(Examples(support.x, rename[support.y]), query)
    require_close(found[..., rename], case.scores(support, query), "other class numbers", _SAME)


def a_weight_is_that_many_copies(case: ClassifierCase) -> None:
    """A row of weight 2 is as good as two rows, unless `counts_weights` is declared False."""
    if not capabilities(case.fitted).counts_weights:
        return
    support, query = case.episodes()
    weight = torch.tensor([1, 2, 3, 1, 1, 2, 1, 1, 2])
    copies = torch.arange(WAY * SHOT).repeat_interleave(weight)
    found = case.scores(Examples(support.x, support.y, weight=weight.expand(EPISODES, -1).double()), query)
    copied = Examples(support.x[:, copies], support.y[:, copies])  # type: ignore[call-overload]
    require_close(found, case.scores(copied, query), "weights beside copies", _SAME)


def rows_of_no_weight_are_padding(case: ClassifierCase) -> None:
    """A row of weight 0 has no say, whatever its label."""
    (support, query), ones = case.episodes(), torch.ones(EPISODES, 1)
    pad = torch.full((EPISODES, 2, case.width), 9.0, dtype=case.dtype)
    x = torch.cat([pad[:, :1], support.x, pad[:, 1:]], 1)  # type: ignore[list-item]
    y = torch.cat([ones, support.y, -ones], 1).long()
    weight = torch.cat([0 * ones, torch.ones(EPISODES, WAY * SHOT), 0 * ones], 1)
    require_close(case.scores(Examples(x, y, weight=weight), query), case.scores(support, query), "padding", _SAME)


def shots_may_differ(case: ClassifierCase) -> None:
    """Episodes of a batch with different numbers of shots, padded by weights of 0, score as each alone."""
    support, query = case.episodes()
    for e, kept in enumerate(([0, 1, 1], [2, 1, 3], [3, 3, 1], [1, 1, 1])):
        rows = torch.cat([(support.y[e] == k).nonzero()[: max(1, n), 0] for k, n in enumerate(kept)])
        alone = Examples(support.x[e][rows], support.y[e][rows])
        weight = torch.zeros(WAY * SHOT).index_fill(0, rows, 1)
        padded = Examples(support.x[e], support.y[e], weight=weight)
        require_close(case.scores(padded, query[e]), case.scores(alone, query[e]), f"shots {kept}", _SAME)


def one_row_of_one_class_will_do(case: ClassifierCase) -> None:
    """A support of a single row gives finite scores."""
    support, query = case.episodes()
    found = case.scores(Examples(support.x[0][:1], torch.zeros(1, dtype=torch.int64)), query[0])
    require(bool(torch.isfinite(found).all()), "a support of one row gives a score that is not finite")


def support_and_part_are_untouched(case: ClassifierCase) -> None:
    """Scoring changes neither what it is handed nor the part, which keeps nothing between two calls."""
    support, query = case.episodes()
    weight, before = torch.ones(EPISODES, WAY * SHOT, dtype=torch.float64), part_digest(case.fitted, KIND)
    first = case.scores(Examples(support.x, support.y, weight=weight), query)
    case.scores(Examples(support.x.flip(0) + 1, support.y.flip(0)), query)  # type: ignore[union-attr]
    again = case.episodes()
    require_same(support.x, again[0].x, "the support after scoring")
    require_same(query, again[1], "the queries after scoring")
    require_same(weight, torch.ones_like(weight), "the weights after scoring")
    require(torch.equal(support.y, again[0].y), "the labels changed")
    require(part_digest(case.fitted, KIND) == before, "the part changed")
    require_same(case.scores(support, query), first, "the same query after another one")


def global_random_state_stays(case: ClassifierCase) -> None:
    """Neither fitting nor scoring touches the global random numbers, and fitting again learns the same."""
    support, query = case.episodes()
    before = random_state()
    again = case.fit_again()
    again.scores(support, query)
    require(random_state() == before, "global random state moved; take numbers from `rng` alone")
    require(part_digest(again, KIND) == part_digest(case.fitted, KIND), "fitting again learnt something else")


def saving_and_packing_go_on(case: ClassifierCase) -> None:
    """A part that was saved and loaded, or sent to another process, gives the same scores to the bit."""
    (support, query), digest = case.episodes(), part_digest(case.fitted, KIND)
    for how, other in saved_and_packed(case.fitted, KIND):
        require(part_digest(other, KIND) == digest, f"{how}, its settings or fitted tensors are no longer the same")
        require_same(case.scores(support, query, other), case.scores(support, query), how)


def the_description_makes_the_same_part(case: ClassifierCase) -> None:
    """Name and settings are JSON values, and make the same part again."""
    require_description(case.part, KIND)


def pictures_are_refused(case: ClassifierCase) -> None:
    """InputError for pictures, when scoring, and when fitting where anything is learnt."""
    pictures = Examples(torch.zeros(2, 3, 4, 4), torch.arange(2))
    try:
        case.fitted.scores(pictures, torch.zeros(1, 3, 4, 4))
    except InputError:
        pass
    else:
        raise AssertionError("it scores pictures; expected an InputError")
    if fitted_tensors(case.fitted):
        bank = ArrayPictures(torch.arange(2), tuple("ab"), np.zeros((2, 4, 4, 3), np.uint8), "base")
        try:
            case.part.fit(bank, torch.Generator())
        except InputError:
            return
        raise AssertionError("it learns from pictures; expected an InputError")


LAWS = {law.__name__: law for law in (
    scores_have_the_shape_and_type_of_queries, it_knows_what_it_was_shown, a_batch_is_its_episodes,
    queries_do_not_see_each_other, the_order_of_the_support_does_not_matter, class_numbers_are_only_names,
    a_weight_is_that_many_copies, rows_of_no_weight_are_padding, shots_may_differ, one_row_of_one_class_will_do,
    support_and_part_are_untouched, global_random_state_stays, saving_and_packing_go_on,
    the_description_makes_the_same_part, pictures_are_refused,
)}  # fmt: skip
