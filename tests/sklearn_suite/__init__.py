"""scikit-learn's own tests, run on fastnet's estimators: see :mod:`sklearn_suite.plugin`."""
