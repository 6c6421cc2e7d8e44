"""Backends, each behind the seam of :mod:`fastnet.backends.interface`.

The unit of work behind the seam is a run of training steps, not an array operation: a backend owns data, parameters
and workspace from the first step of a run to the last, and may fuse, tile, reorder and capture inside it as it likes.
What crosses the seam is small: a frozen specification, one canonical parameter layout, validated data, and per step the
loss and the number of correct predictions. Backends are found by name in :mod:`fastnet.backends.registry`, and are
imported only when they are asked for.
"""
