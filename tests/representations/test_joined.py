import pytest
import torch
import torch.nn.functional as F

from augforge.parts import catalog
from augforge.parts.saving import load_part, made_by, open_part, save_part
from augforge.types import InputError

PICTURES = torch.randint(0, 256, (2, 1, 28, 28), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
NAME = "conv4-glyphs+photos"


def test_features_stand_side_by_side_at_unit_length(tmp_path):
    joined = open_part(NAME, None, "representation")
    found = joined.embed(PICTURES)
    parts = [F.normalize(open_part(name, None, "representation").embed(PICTURES), dim=1) for name in NAME.split("+")]
    assert torch.equal(found, torch.cat(parts, 1))
    assert joined.short_side == 0  # conv4-glyphs looks at every pixel
    assert catalog.describe(joined, "representation") == {"name": NAME, "settings": {"name": NAME}}
    save_part(joined, tmp_path, "representation")
    again = load_part(tmp_path, "representation")
    assert torch.equal(again.embed(PICTURES), found)
    assert made_by(again) == made_by(joined) != made_by(open_part("photos", None, "representation"))


def test_what_cannot_be_joined_is_refused():
    with pytest.raises(InputError, match="'conv4' of 'photos\\+conv4' is not fitted"):
        open_part("photos+conv4", None, "representation")
    with pytest.raises(InputError, match="expected two or more different ones"):
        open_part("photos+photos", None, "representation")
    with pytest.raises(InputError, match="there is no representation 'phots'; the nearest is 'photos'"):
        open_part("photos+phots", None, "representation")
