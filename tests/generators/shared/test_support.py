import pytest
import torch

from augforge.generators.shared.support import checked_rows
from augforge.types import Examples, InputError


def test_rows_that_do_not_fit_are_refused():
    rows = Examples(torch.zeros(2, 4, dtype=torch.bfloat16), torch.tensor([0, 1]))
    assert checked_rows(rows, 4, "it").dtype == torch.float32
    with pytest.raises(InputError, match="it was fitted on 5 features; these rows have 4"):
        checked_rows(rows, 5, "it")
    with pytest.raises(InputError, match="pictures"):
        checked_rows(Examples(torch.zeros(2, 1, 4, 4), torch.tensor([0, 1])), 4, "it")
