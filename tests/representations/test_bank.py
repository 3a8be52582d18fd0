from dataclasses import dataclass, field, replace

import pytest
import torch

from augforge.data.banks import ArrayPictures, FeatureBank
from augforge.representations.bank import (
    BankOptions,
    check_made_by,
    data_digest,
    embed_bank,
    embed_sides,
    full_float32,
    normalised,
)
from augforge.types import InputError


@dataclass
class Projection:
    """Pictures to the sums that a matrix takes of them, and a note of every call."""

    scale: float = 1.0
    matrix_: torch.Tensor | None = field(default=None, init=False)
    calls: list = field(default_factory=list, init=False)

    def embed(self, x):
        """Pictures [n, c, h, w] or a list to [n, 3]."""
        self.calls.append(len(x))
        if isinstance(x, list):
            return torch.cat([self.embed(picture[None]) for picture in x])
        weights = torch.arange(x[0].numel()).float().view(x.shape[1:]).sin() if self.matrix_ is None else self.matrix_
        return self.scale * torch.stack([(x.float() / 255 * weights**k).sum((1, 2, 3)) for k in range(3)], 1)


@pytest.fixture
def bank():
    pixels = torch.randint(0, 256, (30, 16, 16, 1), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    names = tuple(f"p/{i}" for i in range(30))
    return ArrayPictures(
        torch.arange(30) % 3, ("a", "b", "c"), pixels.numpy(), "here", names, groups={"face": (*names,)}
    )


PLAIN = BankOptions(precision="float32")


def test_every_row_is_embedded_once(bank):
    part = Projection()
    made = embed_bank(part, bank, PLAIN)
    assert part.calls == [30]
    assert torch.equal(made.x, part.embed(bank.examples(torch.arange(30)).x))
    assert made.classes == bank.classes
    assert torch.equal(made.y, bank.y)
    assert made.names == bank.names
    assert made.groups["face"] == bank.groups["face"]


def test_full_float32_holds_inside_alone():
    backends = (torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.cudnn.rnn)
    before = [backend.fp32_precision for backend in backends]
    with full_float32("cpu"):
        assert [backend.fp32_precision for backend in backends] == before
    with full_float32("cuda"):
        assert {backend.fp32_precision for backend in backends} == {"ieee"}
    assert [backend.fp32_precision for backend in backends] == before


def test_the_cache_is_read_back_only_for_the_same_weights_options_and_data(bank, tmp_path):
    part = Projection()
    first = embed_bank(part, bank, PLAIN, tmp_path)
    again = embed_bank(part, bank, PLAIN, tmp_path)
    assert part.calls == [30]
    assert torch.equal(again.x, first.x)
    assert again.groups == first.groups
    changed = bank.pixels.copy()
    changed[7, 3, 3, 0] ^= 1
    other = replace(bank, pixels=changed)
    for part, bank_, options in (
        (Projection(scale=2.0), bank, PLAIN),
        (Projection(), other, PLAIN),
        (Projection(), bank, replace(PLAIN, views="flip")),
        (Projection(), bank, replace(PLAIN, precision="bfloat16")),
    ):
        embed_bank(part, bank_, options, tmp_path)
        assert part.calls
    assert len(list(tmp_path.iterdir())) == 5
    assert data_digest(other) != data_digest(bank)


def test_normalising_is_not_part_of_the_cache(bank, tmp_path):
    part = Projection()
    embed_bank(part, bank, PLAIN, tmp_path)
    embed_bank(part, bank, replace(PLAIN, normalise="l2"), tmp_path)
    assert part.calls == [30]


def test_a_damaged_cache_is_made_anew(bank, tmp_path):
    part = Projection()
    first = embed_bank(part, bank, PLAIN, tmp_path)
    path = next(tmp_path.iterdir())
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    for damaged in (bytes(data), b"", b"nonsense"):
        path.write_bytes(damaged)
        assert torch.equal(embed_bank(part, bank, PLAIN, tmp_path).x, first.x)
    assert part.calls == [30] * 4


def test_views_are_averaged(bank):
    part = Projection()
    x = bank.examples(torch.arange(30)).x
    flipped = embed_bank(part, bank, replace(PLAIN, views="flip"))
    assert torch.allclose(flipped.x, (part.embed(x) + part.embed(x.flip(3))) / 2, atol=1e-4)
    part = Projection()
    embed_bank(part, bank, replace(PLAIN, views="flip-shift"))
    assert part.calls == [30] * 10
    part = Projection()
    seen = []

    def darker(x, keys):
        seen.append(keys)
        return x // 2

    options = replace(PLAIN, views="darker", n_views=3)
    assert embed_bank(part, bank, options, views=darker).x.shape == (30, 3)
    assert part.calls == [30] * 4
    assert len(torch.cat(seen).unique()) == 90
    with pytest.raises(InputError, match="views='darker' is unknown"):
        embed_bank(part, bank, options)


def test_a_shift_repeats_the_border(bank):
    part = Projection()
    x = bank.examples(torch.arange(30)).x
    right = torch.cat([x[:, :, :, :1], x[:, :, :, :-1]], 3)
    down = torch.cat([x[:, :, :1], x[:, :, :-1]], 2)
    up, left = (torch.cat([x[:, :, 1:], x[:, :, -1:]], 2), torch.cat([x[..., 1:], x[..., -1:]], 3))
    expected = torch.stack([part.embed(v) + part.embed(v.flip(3)) for v in (x, right, left, up, down)]).sum(0) / 10
    assert torch.allclose(embed_bank(part, bank, replace(PLAIN, views="flip-shift")).x, expected, atol=1e-4)


def test_a_wide_shift_mirrors_at_the_border(bank):
    part = Projection()
    x = bank.examples(torch.arange(30)).x
    far = torch.nn.functional.pad(x.float(), (2, 2, 2, 2), mode="reflect")
    places = [(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1), (2, 2), (2, -2), (-2, 2), (-2, -2)]
    height, width = x.shape[2:]
    moved = [far[:, :, 2 - down : 2 - down + height, 2 - right : 2 - right + width] for down, right in places]
    expected = torch.stack([part.embed(v) + part.embed(v.flip(3)) for v in moved]).sum(0) / 18
    assert torch.allclose(embed_bank(part, bank, replace(PLAIN, views="flip-shift-wide")).x, expected, atol=1e-4)


def test_pictures_of_several_sizes(bank):
    uneven = [torch.zeros(1, 8 + i, 9, dtype=torch.uint8) for i in range(4)]
    arrays = [picture.permute(1, 2, 0).numpy() for picture in uneven]
    made = embed_bank(
        Projection(), ArrayPictures(torch.zeros(4, dtype=torch.int64), ("a",), arrays.__getitem__, "x"),
        replace(PLAIN, views="flip-shift"),
    )  # fmt: skip
    assert made.x.shape == (4, 3)


def test_sides(bank):
    part = Projection()
    both = embed_sides(part, bank, replace(PLAIN, views="flip"))
    assert both[0] is both[1]
    support, query = embed_sides(part, bank, replace(PLAIN, views="flip", sides="support"))
    assert torch.equal(support.x, both[0].x)
    assert torch.equal(query.x, embed_bank(part, bank, PLAIN).x)


def _features(x, by="w"):
    return FeatureBank(
        x, torch.zeros(len(x), dtype=torch.int64), ("a",), f"bank {by}", groups={"made_by": (by,) * len(x)}
    )


def test_normalisations():
    x = torch.randn(20, 5, generator=torch.Generator().manual_seed(0))
    base = _features(torch.randn(50, 5, generator=torch.Generator().manual_seed(1)) + 1)
    assert normalised(_features(x), "none").x is x
    assert torch.allclose(normalised(_features(x), "l2").x, x / x.norm(dim=1, keepdim=True))
    c = x - base.x.mean(0)
    assert torch.allclose(normalised(_features(x), "centred-l2", base).x, c / c.norm(dim=1, keepdim=True), atol=1e-6)
    r = x.clamp(min=0).sqrt()
    assert torch.allclose(normalised(_features(x), "power").x, r / r.norm(dim=1, keepdim=True).clamp(min=1e-12))
    with pytest.raises(InputError, match="needs the base features"):
        normalised(_features(x), "centred-l2")
    with pytest.raises(InputError, match="normalise='l3' was given; expected one of none, l2"):
        normalised(_features(x), "l3")
    with pytest.raises(InputError, match="made with other weights"):
        normalised(_features(x, "v"), "centred-l2", base)
    with pytest.raises(InputError, match="normalise='l3'"):
        BankOptions(normalise="l3")


def test_features_of_other_weights_are_refused(bank):
    part = Projection()
    made = embed_bank(part, bank, PLAIN)
    check_made_by(made, part)
    part.matrix_ = torch.ones(1, 16, 16)
    with pytest.raises(InputError, match=r"were made with the weights .*; expected"):
        check_made_by(made, part)
    with pytest.raises(InputError, match="holds features already"):
        embed_bank(part, made)
