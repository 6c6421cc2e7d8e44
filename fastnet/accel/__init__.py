"""Existing scikit-learn scripts, several times faster, with no change to them.

``MLPClassifier`` and ``MLPRegressor`` of ``sklearn.neural_network`` are replaced by classes that train on fastnet's
backends. There are four ways to have that done:

- ``python -m fastnet.accel script.py`` runs a script, ``python -m fastnet.accel -m module`` a module;
- ``FASTNET_ACCEL=1`` in the environment does it in every Python process;
- ``%load_ext fastnet.accel`` does it in a notebook;
- :func:`install` does it in a program. Call it before anything imports the names from scikit-learn.

The classes derive from scikit-learn's, and keep their names. Pickles are scikit-learn's own: they load where fastnet is
not installed. What fastnet cannot do, scikit-learn's own code does; a warning of the logger ``fastnet`` tells why, once
for each reason. ``FASTNET_ACCEL_STRICT=1``, or ``--strict``, makes that an error.
"""

from fastnet.accel.installation import (
    install,
    is_installed,
    load_ipython_extension,
    uninstall,
    unload_ipython_extension,
)

__all__ = ["install", "is_installed", "load_ipython_extension", "uninstall", "unload_ipython_extension"]
