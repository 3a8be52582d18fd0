"""Train a classifier with made rows in the loop: every support is filled up before the classifier sees it.

    python docs/examples/hallucinate_in_loop.py

Features of the built-in letters, by the shipped `conv4-glyphs`. In each step a synthesizer fills the support of an
episode of base classes up to `FILL` rows; the loss is that of held-out queries, and its gradient goes through the
classifier into a linear map of the features, and through the made rows into the synthesizer, where that has weights to
learn. Then both are tested on scripts that neither saw. One seed and few steps: an example and not a result. These
features were trained for class means, to which the published hallucinator adds nothing: docs/imagine_results.md has
what does.

`SYNTHESIZER` can be any feature synthesizer of `augforge list`, with settings of its own or none. For the published
hallucinator the loop is all the training: its own `fit` takes one step, as its settings say.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from augforge.chance import draw_keys
from augforge.classifiers.prototype import Prototype
from augforge.data.banks import FeatureBank
from augforge.data.glyphs import open_glyphs
from augforge.episodes import draw_episodes
from augforge.imagine import fill_to
from augforge.parts.catalog import make
from augforge.parts.learning import learn
from augforge.parts.saving import open_part
from augforge.representations.bank import embed_bank
from augforge.types import Episode, Examples, Synthesizer

SYNTHESIZER, SETTINGS = "wang-hallucinator", {"steps": 1, "embedding": False}  # the map below is the embedding
WAY, SHOT, QUERIES, FILL = 20, 1, 5, 10
STEPS, TRIALS = 150, 100


def features() -> dict[str, FeatureBank]:
    """Every second base class ("train"), and validation and novel ones ("val", "test"), each picture embedded once."""
    glyphs, representation = open_glyphs(), open_part("conv4-glyphs", kind="representation")
    glyphs["train"] = glyphs["train"].only(glyphs["train"].classes[::2])
    return {part: embed_bank(representation, bank) for part, bank in glyphs.items()}


def rows_of(bank: FeatureBank, episode: Episode) -> tuple[Examples, Examples]:
    """The support [way * shot, d] and the queries [way * n, d] of an episode, labelled 0..way-1."""
    return tuple(bank.examples(rows.flatten(), episode.classes) for rows in (episode.support, episode.query))


def fill(synthesizer: Synthesizer, support: Examples, rng: torch.Generator) -> Examples:
    """The support and made rows, `FILL` of each class together."""
    want = fill_to(support.y, FILL)
    return support + synthesizer.synthesize(support, want, draw_keys(len(want), rng))


def scores(net: nn.Module, support: Examples, query: Tensor) -> Tensor:
    """Scores [q, way] of queries [q, d] by the nearest class mean, after the map `net`."""
    return Prototype().scores(replace(support, x=net(support.x)), net(query))


def weights_of(part: object) -> list[Tensor]:
    """The weights of a part that can be learnt: those of its networks. Noise and copies have none."""
    return [p for net in vars(part).values() if isinstance(net, nn.Module) for p in net.parameters()]


def train(base: FeatureBank, synthesizer: Synthesizer | None) -> nn.Module:
    """A linear map of features [n, d] -> [n, d], trained on episodes of base classes.

    With a synthesizer the episodes are filled up, and its weights are trained along.
    """
    rng = torch.Generator().manual_seed(0)
    net = nn.Linear(base.x.shape[1], base.x.shape[1], bias=False)
    nn.init.eye_(net.weight)
    learnt = [*net.parameters(), *(weights_of(synthesizer) if synthesizer else [])]
    optimiser = torch.optim.Adam(learnt, lr=3e-4)
    for episode in draw_episodes(base.y, way=WAY, shot=SHOT, n_query=QUERIES, trials=STEPS):
        support, query = rows_of(base, episode)
        if synthesizer:
            support = fill(synthesizer, support, rng)
        loss = nn.functional.cross_entropy(scores(net, support, query.x), query.y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return net


@torch.no_grad()
def accuracy(bank: FeatureBank, net: nn.Module, synthesizer: Synthesizer | None) -> float:
    """The share of queries that is classified correctly, over the same episodes whatever is tested."""
    rng, right = torch.Generator().manual_seed(1), []
    for episode in draw_episodes(bank.y, way=WAY, shot=SHOT, n_query=QUERIES, trials=TRIALS, seed=1):
        support, query = rows_of(bank, episode)
        if synthesizer:
            support = fill(synthesizer, support, rng)
        right.append((scores(net, support, query.x).argmax(1) == query.y).float().mean())
    return float(torch.stack(right).mean())


def main() -> tuple[float, float, float]:
    """The accuracies on novel scripts with nothing trained, with no made rows, and with made rows; printed."""
    banks = features()
    base, novel = banks["train"], banks["test"]
    synthesizer = learn(make(SYNTHESIZER, SETTINGS), base, torch.Generator().manual_seed(0), banks["val"])
    untrained = accuracy(novel, nn.Identity(), None)
    plain = accuracy(novel, train(base, None), None)
    filled = accuracy(novel, train(base, synthesizer), synthesizer)
    print(f"novel scripts, {WAY}-way {SHOT}-shot: {untrained:.1%} untrained, {plain:.1%} trained on real rows, "
          f"{filled:.1%} with {SYNTHESIZER} in the loop")  # fmt: skip
    return untrained, plain, filled


if __name__ == "__main__":
    main()
