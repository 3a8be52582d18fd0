"""A scikit-learn pipeline in which rows are made of the classes that have few, while fitting and never while testing.

    python docs/examples/sklearn_pipeline.py

Features of the built-in letters, by the shipped `conv4-glyphs`: the synthesizer is fitted on base scripts. Of the novel
classes most have two rows to learn from and a few have fifteen. Needs the extras `sklearn` and imbalanced-learn, whose
pipeline knows steps with `fit_resample`. An example and not a result.
"""

from __future__ import annotations

import numpy as np
from imblearn.pipeline import Pipeline
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import GridSearchCV
from sklearn.preprocessing import StandardScaler

from augforge.adapters.sklearn import Resampler
from augforge.data.banks import FeatureBank
from augforge.data.glyphs import open_glyphs
from augforge.parts.saving import open_part
from augforge.representations.bank import embed_bank

SYNTHESIZER = "noise"
CLASSES, MANY, FEW, TESTED = 20, 15, 2, 5


def features() -> tuple[FeatureBank, FeatureBank]:
    """Base classes and novel ones, each picture embedded once."""
    glyphs, representation = open_glyphs(), open_part("conv4-glyphs", kind="representation")
    base, novel = glyphs["train"], glyphs["test"]
    return embed_bank(representation, base.only(base.classes[::5])), embed_bank(representation, novel)


def unbalanced(bank: FeatureBank) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rows and labels to learn from - `MANY` of every fifth class, `FEW` of the others - and to be tested on."""
    rows = [bank.rows_of(label) for label in range(CLASSES)]
    learnt = np.concatenate([r[: FEW if label % 5 else MANY] for label, r in enumerate(rows)])
    tested = np.concatenate([r[-TESTED:] for r in rows])
    x, y = bank.x.numpy(), np.array(bank.classes)[bank.y.numpy()]
    return x[learnt], y[learnt], x[tested], y[tested]


def main() -> tuple[float, float]:
    """The balanced accuracies without and with made rows, printed."""
    base, novel = features()
    x, y, x_test, y_test = unbalanced(novel)
    steps = [("scale", StandardScaler()), ("classifier", LogisticRegression(max_iter=2000))]
    plain = Pipeline(steps).fit(x, y).predict(x_test)
    # The sampler comes first: it learns from base rows as they are, and the scaler then sees what it made.
    resampler = Resampler(SYNTHESIZER, base=base, sampling_strategy=MANY)
    pipeline = Pipeline([("more", resampler), *steps])
    search = GridSearchCV(pipeline, {"more__settings": [{"scale": 0.5}, {"scale": 1.0}]}, cv=2).fit(x, y)

    scores = [balanced_accuracy_score(y_test, predicted) for predicted in (plain, search.predict(x_test))]
    print(f"{CLASSES} classes, {FEW} rows of most: {scores[0]:.1%} without, {scores[1]:.1%} with {SYNTHESIZER} "
          f"{search.best_params_['more__settings']}")  # fmt: skip
    return scores[0], scores[1]


if __name__ == "__main__":
    main()
