"""The checks that imbalanced-learn and scikit-learn run on their own estimators, on `Resampler`.

All that either yields passes; scikit-learn skips its check of other array libraries where SCIPY_ARRAY_API is not set.
"""

import pytest

pytest.importorskip("sklearn", "1.6")
pytest.importorskip("imblearn")

from imblearn.over_sampling.base import BaseOverSampler
from imblearn.utils import estimator_checks as of_imblearn
from sklearn.utils.estimator_checks import parametrize_with_checks

from augforge.adapters.sklearn import Resampler

BaseOverSampler.register(Resampler)  # the checks ask more of what they know as an over-sampler
SAMPLERS = [Resampler()]


@of_imblearn.parametrize_with_checks(SAMPLERS)
def test_of_imbalanced_learn(estimator, check):
    check(estimator)


@parametrize_with_checks(SAMPLERS)
def test_of_scikit_learn(estimator, check):
    check(estimator)


# What imbalanced-learn runs on its own samplers, and does not hand out to others.
@pytest.mark.parametrize(
    "check",
    [
        of_imblearn.check_dataframe_column_names_consistency,
        pytest.param(
            of_imblearn.check_param_validation,
            marks=pytest.mark.xfail(
                reason="wants scikit-learn's private table of constraints and its wording; ours are InputErrors",
                raises=AttributeError,
                strict=True,
            ),
        ),
    ],
)
def test_of_imbalanced_learn_on_its_own(check):
    check("Resampler", Resampler("noise"))
