"""The list of scikit-learn's tests that are known to fail with fastnet's estimators."""

from __future__ import annotations

import tomllib
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.specifiers import InvalidSpecifier, SpecifierSet

__all__ = ["KnownFailure", "read_failures", "stale"]

KEYS = {"id", "reason", "scikit-learn"}


@dataclass(frozen=True, slots=True)
class KnownFailure:
    """A test that fails.

    Attributes
    ----------
    test : str
        "package.module::test[parameters]".
    reason : str
        Why it fails.
    """

    test: str
    reason: str

    @property
    def module(self) -> str:
        """Name of the module that the test belongs to."""
        return self.test.partition("::")[0]


def read_failures(path: Path, version: str) -> dict[str, KnownFailure]:
    """Return the entries of a file that are true of a version of scikit-learn, by test.

    Raises
    ------
    ValueError
        The file is not what its own comment says, or lists a test twice.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path}: {error}") from None
    entries = content.pop("test", [])
    if content or not isinstance(entries, list):
        raise ValueError(f"{path}: there must be nothing but [[test]] tables")
    failures: dict[str, KnownFailure] = {}
    for number, entry in enumerate(entries, 1):
        place = f"{path}: [[test]] number {number}"
        failure, versions = _read_entry(place, entry)
        if versions.contains(version, prereleases=True):
            if failure.test in failures:
                raise ValueError(f"{place}: {failure.test} is listed before")
            failures[failure.test] = failure
    return failures


def _read_entry(place: str, entry: dict[str, Any]) -> tuple[KnownFailure, SpecifierSet]:
    unknown = entry.keys() - KEYS
    if unknown:
        raise ValueError(f"{place}: {min(unknown)!r} is none of {', '.join(sorted(KEYS))}")
    for key in ("id", "reason"):
        if not isinstance(entry.get(key), str) or not entry[key].strip():
            raise ValueError(f"{place}: {key} must be given")
    if "::" not in entry["id"]:
        raise ValueError(f"{place}: id must be like 'package.module::test', not {entry['id']!r}")
    try:
        versions = SpecifierSet(entry.get("scikit-learn", ""))
    except (InvalidSpecifier, TypeError):
        raise ValueError(f"{place}: scikit-learn must be like '>=1.7,<1.9', not {entry['scikit-learn']!r}") from None
    return KnownFailure(entry["id"], entry["reason"]), versions


def stale(failures: dict[str, KnownFailure], tests: AbstractSet[str]) -> list[str]:
    """Entries that none of the collected tests belongs to, of those whose modules were collected."""
    modules = {test.partition("::")[0] for test in tests}
    return [test for test, failure in failures.items() if failure.module in modules and test not in tests]
