"""A script as people have them: nothing in it knows of fastnet. Prints one score a line."""

import warnings

from sklearn.datasets import load_diabetes, load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

warnings.simplefilter("ignore", ConvergenceWarning)

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X[:600], y[:600], random_state=0)

pipeline = make_pipeline(StandardScaler(), MLPClassifier((20,), max_iter=20, learning_rate_init=0.01, random_state=0))
search = GridSearchCV(pipeline, {"mlpclassifier__alpha": [1e-4, 1.0]}, cv=3, n_jobs=2).fit(X_train, y_train)
print("searched", search.best_score_)
print("held out", search.score(X_test, y_test))
for score in cross_val_score(search.best_estimator_, X_train, y_train, cv=3):
    print("fold", score)

X, y = load_diabetes(return_X_y=True)
regressor = MLPRegressor(hidden_layer_sizes=(20,), solver="lbfgs", max_iter=40, random_state=0)
print("r2", cross_val_score(regressor, X, y / 100, cv=2).mean())
