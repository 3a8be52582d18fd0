"""Views: crops at the picture's own size, mirrored half of the time."""

import pytest
import torch

from augforge import chance
from augforge.generators.views import Views
from augforge.imagine import enlarge
from augforge.parts import catalog
from augforge.types import Examples, InputError


def ramp(height, width, channels=3) -> torch.Tensor:
    """A picture whose channel 0 tells the column and channel 1 the row, in [0, 1]."""
    columns = torch.linspace(0, 1, width).expand(height, width)
    rows = torch.linspace(0, 1, height)[:, None].expand(height, width)
    return torch.stack([columns, rows, columns][:channels]).double()


def views(picture, count, **settings):
    support = Examples(picture[None], torch.zeros(1, dtype=torch.int64))
    want = torch.zeros(count, dtype=torch.int64)
    return torch.as_tensor(Views(**settings).synthesize(support, want, chance.row_keys(0, "a", torch.arange(count))).x)


def test_a_view_is_a_part_of_the_picture_with_its_proportions():
    made = views(ramp(80, 120), 300, flip=0)
    low, high = made.flatten(2).amin(2), made.flatten(2).amax(2)
    seen = high - low  # what part of each axis a crop shows
    assert (seen[:, 0] - seen[:, 1]).abs().max() < 0.03
    area = seen[:, 0] * seen[:, 1]
    assert area.min() > 0.46
    assert area.max() <= 1.0
    assert area.mean() == pytest.approx(0.75, abs=0.04)
    room = low[:, :2] / (1 - seen[:, :2]).clamp(min=1e-9)  # where the crop lies, 0 to 1
    assert room[seen[:, 0] < 0.9].mean(0).tolist() == pytest.approx([0.5, 0.5], abs=0.08)
    assert (made.diff(dim=3)[:, 0] >= 0).all()  # not mirrored


def test_half_of_the_views_are_mirrored_and_letters_are_not():
    def share(picture, **settings):
        return float((views(picture, 400, **settings)[:, 0].diff(dim=2).sum((1, 2)) < 0).double().mean())

    assert share(ramp(40, 40)) == pytest.approx(0.5, abs=0.08)
    assert share(ramp(40, 40, 1)) == pytest.approx(0.5, abs=0.08)
    assert share(ramp(28, 28, 1)) == 0
    assert share(ramp(28, 28, 1), flip=1) == 1
    assert share(ramp(28, 28)) == pytest.approx(0.5, abs=0.08)


def test_the_whole_picture_is_itself():
    picture = torch.randint(0, 256, (3, 20, 30), dtype=torch.uint8)
    assert (views(picture, 5, area=(1, 1), flip=0) == picture).all()
    assert (views(picture, 5, area=(1, 1), flip=1) == picture.flip(2)).all()


def test_levels_and_floats_agree():
    picture = torch.randint(0, 256, (3, 33, 21), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert (views(picture, 20).float() / 255 - views(picture.float() / 255, 20)).abs().max() <= 0.51 / 255


def test_pictures_of_several_sizes_keep_theirs():
    x = [ramp(20, 30).float(), ramp(50, 10).float()]
    made = enlarge(Examples(x, torch.arange(2)), Views(), torch.tensor([1, 0, 1]), torch.arange(3))
    assert [tuple(picture.shape) for picture in made.x[2:]] == [(3, 50, 10), (3, 20, 30), (3, 50, 10)]
    assert made.weight.tolist() == pytest.approx([1, 1, 0.5, 1, 0.5])  # one real row together


def test_settings_out_of_range_are_refused():
    for given in ({"area": (0, 1)}, {"area": (0.8, 0.5)}, {"area": (0.5, 1.2)}, {"flip": 2}):
        with pytest.raises(InputError, match="was given; expected"):
            Views(**given)
    assert catalog.make("views", {"area": "0.3,0.6", "flip": "0"}) == Views((0.3, 0.6), 0)
