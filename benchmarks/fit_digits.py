"""What a user's script does: ``python fit_digits.py LIBRARY PARAMETERS`` prints what a fit on the digits reached.

LIBRARY is the module that `MLPClassifier` is imported from, PARAMETERS are those of its constructor, in JSON.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module

from sklearn.datasets import load_digits

library, parameters = sys.argv[1:]
X, y = load_digits(return_X_y=True)
model = import_module(library).MLPClassifier(**json.loads(parameters)).fit(X, y)
reached = {
    "n_iter": model.n_iter_,
    "loss_curve": list(map(float, model.loss_curve_)),
    "scores": model.score(X, y),
    "backend": getattr(model, "backend_", None),
}
print(json.dumps(reached))
