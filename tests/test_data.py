from __future__ import annotations

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from sklearn.utils import check_array

from fastnet import DataError
from fastnet.data import make_dataset, split_validation, validate_samples
from fastnet.spec import NetworkSpec
from fastnet.targets import TargetCoding

N_SAMPLES = 12


def network(n_outputs=3, output="softmax", loss="cross_entropy", **options):
    return NetworkSpec((4, n_outputs), (), output, loss, **options)


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(N_SAMPLES, 4)).astype(np.float32)


class OnlyDLPack:
    """An array of another library, as far as fastnet may know it."""

    def __init__(self, array, device=(1, 0)):
        self._array, self._device = array, device

    def __dlpack_device__(self):
        return self._device

    def __dlpack__(self, **options):
        return self._array.__dlpack__(**options)


class OnDevice(OnlyDLPack):
    """Likewise, on a GPU; CuPy and PyTorch each have their own way down."""

    def __init__(self, array, way=None):
        super().__init__(array, device=(2, 0))
        if way == "get":
            self.get = lambda: array
        if way == "to":
            self.to = {"cpu": array}.__getitem__


def read_only(x):
    x.flags.writeable = False
    return x


@pytest.mark.parametrize(
    "form",
    [
        np.asfortranarray,
        read_only,
        lambda x: x.astype(np.float64),
        lambda x: np.repeat(x, 3, axis=0)[::3],
        lambda x: x[::-1][::-1],
        lambda x: x.tolist(),
        lambda x: pd.DataFrame(x, columns=list("abcd")),
        lambda x: pd.DataFrame(dict(zip("abcd", x.T, strict=True))),
        lambda x: x.astype(">f4"),
        OnlyDLPack,
        lambda x: OnDevice(x, "get"),
        lambda x: OnDevice(x, "to"),
    ],
    ids=[
        "fortran",
        "read-only",
        "float64",
        "strided",
        "reversed-twice",
        "lists",
        "DataFrame",
        "DataFrame-by-column",
        "big-endian",
        "DLPack",
        "CuPy-like",
        "PyTorch-like",
    ],
)
def test_every_form_of_x_gives_the_same_numbers(form, x):
    expected = x.copy()
    samples = validate_samples(network(), form(x))
    assert type(samples) is np.ndarray
    assert samples.dtype == np.dtype(np.float32)
    assert samples.dtype.isnative
    assert samples.flags.c_contiguous
    np.testing.assert_array_equal(samples, expected)


@pytest.mark.parametrize("dtype", ["float16", "int8", "uint16", "int64", "bool"])
def test_other_dtypes_are_converted(dtype):
    x = np.array([[0, 1, 1, 0], [1, 0, 1, 1]], dtype)
    samples = validate_samples(network(dtype="float64"), x)
    assert samples.dtype == np.float64
    np.testing.assert_array_equal(samples, x.astype(np.float64))


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_bytes_and_the_networks_dtype_are_not_copied(dtype):
    x = np.arange(8, dtype=dtype).reshape(2, 4)
    assert np.shares_memory(validate_samples(network(), x), x)
    assert np.shares_memory(validate_samples(network(), OnlyDLPack(x)), x)


def test_a_memory_map_is_not_read_into_memory(tmp_path, x):
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    samples = validate_samples(network(), mapped)
    assert np.shares_memory(samples, mapped)
    np.testing.assert_array_equal(samples, x)


@pytest.mark.parametrize("form", ["csr", "csc", "coo", "bsr", "lil"])
@pytest.mark.parametrize("make", [sparse.csr_array, sparse.csr_matrix], ids=["array", "matrix"])
def test_every_sparse_form_becomes_csr(form, make, x):
    x[x < 0.5] = 0
    samples = validate_samples(network(), make(x.astype(np.float64)).asformat(form))
    assert isinstance(samples, sparse.csr_array)
    assert samples.dtype == np.float32
    np.testing.assert_array_equal(samples.toarray(), x)


def test_what_lies_on_a_device_and_offers_no_way_down_is_told(x):
    with pytest.raises(DataError, match=r"X lies on a device \(DLPack 2:0\) and OnDevice offers no way"):
        validate_samples(network(), OnDevice(x))


def test_what_dlpack_cannot_export_is_told(x):
    class WithGradient(OnlyDLPack):
        def __dlpack__(self, **options):
            raise BufferError("use tensor.detach()")

    with pytest.raises(DataError, match=r"X cannot be read through DLPack: use tensor\.detach"):
        validate_samples(network(), WithGradient(x))


def test_targets_come_from_other_libraries_too(x):
    labels = np.arange(N_SAMPLES) % 3
    for form in (
        list,
        pd.Series,
        OnlyDLPack,
        lambda y: OnDevice(y, "get"),
        lambda y: y[:, None],
        lambda y: y.astype(float),
    ):
        dataset = make_dataset(network(), TargetCoding.infer(network(), form(labels)), x, form(labels))
        assert dataset.targets.dtype == np.int32
        np.testing.assert_array_equal(dataset.targets, labels)


@pytest.mark.parametrize(
    ("spec", "y", "task", "classes", "targets"),
    [
        (network(), [2, 0, 1], "multiclass", [0, 1, 2], [2, 0, 1]),
        (network(), np.array([2, 0, 1], np.uint8), "multiclass", [0, 1, 2], [2, 0, 1]),
        (network(), [0, 0, 1], "multiclass", [0, 1, 2], [0, 0, 1]),
        (network(), ["c", "a", "b"], "multiclass", ["a", "b", "c"], [2, 0, 1]),
        (network(), np.array(["c", "a", "b"], object), "multiclass", ["a", "b", "c"], [2, 0, 1]),
        (network(), [[0, 0, 1], [1, 0, 0], [0, 1, 0]], "multiclass", [0, 1, 2], [2, 0, 1]),
        (network(loss="squared_error"), [2, 0], "multiclass", [0, 1, 2], [[0, 0, 1], [1, 0, 0]]),
        (network(output="sigmoid"), [2, 0], "multiclass", [0, 1, 2], [[0, 0, 1], [1, 0, 0]]),
        (network(output="sigmoid"), [[1, 0, 1], [0, 0, 0]], "multilabel", None, [[1, 0, 1], [0, 0, 0]]),
        (network(1, "sigmoid"), [1, 0], "multilabel", [0, 1], [[1], [0]]),
        (network(1, "sigmoid"), [True, False], "multilabel", [0, 1], [[1], [0]]),
        (network(1, "sigmoid"), ["yes", "no"], "multilabel", ["no", "yes"], [[1], [0]]),
        (network(1, "sigmoid", "squared_error"), [1, 0], "multilabel", [0, 1], [[1], [0]]),
        (network(1, "sigmoid", "squared_error"), [0.25, 3.5], "regression", None, [[0.25], [3.5]]),
        (network(1, "identity", "squared_error"), [7, -8], "regression", None, [[7], [-8]]),
        (network(2, "identity", "squared_error"), [[7, -8]], "regression", None, [[7, -8]]),
        (network(2, "identity", "absolute_error"), [[7, -8]], "regression", None, [[7, -8]]),
        (network(1, "exp", "poisson"), [0, 3], "regression", None, [[0], [3]]),
        (network(1, "exp", "gamma"), [0.5, 3], "regression", None, [[0.5], [3]]),
    ],
)  # fmt: skip
def test_targets_are_coded_by_what_they_are_and_by_the_output(spec, y, task, classes, targets):
    coding = TargetCoding.infer(spec, y)
    assert coding.task == task
    assert (coding.classes is None) == (classes is None)
    if classes is not None:
        assert coding.classes.tolist() == classes
    encoded = coding.encode(spec, y)
    assert encoded.dtype == (np.int32 if spec.takes_labels else np.float32)
    assert encoded.tolist() == targets


labels_of_words = st.lists(st.text("abcde", min_size=1, max_size=4), min_size=2, max_size=6, unique=True)


@given(labels_of_words, st.randoms(use_true_random=False))
def test_words_come_back_as_they_went_in(words, random):
    y = np.array(words + random.choices(words, k=10))
    spec = network(n_outputs=len(words))
    coding = TargetCoding.infer(spec, y)
    outputs = np.eye(len(words))[coding.encode(spec, y)]
    np.testing.assert_array_equal(coding.decode(outputs), y)


def test_a_coding_learned_once_holds_for_what_comes_later():
    coding = TargetCoding.infer(network(), ["b", "a", "c"])
    assert coding.encode(network(), ["c", "c"]).tolist() == [2, 2]
    with pytest.raises(DataError, match=r"y: unknown label 'dd' at sample 1; known are \['a', 'b', 'c'\]"):
        coding.encode(network(), ["a", "dd"])
    with pytest.raises(DataError, match="y: unknown label 0 at sample 0"):
        coding.encode(network(), [0, 1])


@pytest.mark.parametrize("n_outputs", [3, 300])
def test_numbers_and_words_that_look_like_them_are_not_the_same(n_outputs):
    spec = network(n_outputs)
    with pytest.raises(DataError, match=r"y: unknown label '0' at sample 0; known are \[0, 1, 2"):
        TargetCoding.infer(spec, [0, 1]).encode(spec, ["0", "1"])
    with pytest.raises(
        DataError, match=r"y: unknown label 0 at sample 0; known are \['0', '1', '10'|\['0', '1', '2'\]"
    ):
        TargetCoding.infer(spec, [str(label) for label in range(n_outputs)]).encode(spec, [0, 1])


@pytest.mark.parametrize("words", [["a", "b"], ["a", "b", "c", "d"]], ids=len)
def test_words_must_be_as_many_as_the_network_tells_apart(words):
    with pytest.raises(DataError, match=f"y holds {len(words)} classes and the network tells 3 apart"):
        TargetCoding.infer(network(), words)


def test_decode_gives_what_a_caller_expects():
    outputs = np.array([[0.2, 0.7], [0.9, 0.4]])
    assert TargetCoding("multiclass", np.array(["no", "yes"])).decode(outputs).tolist() == ["yes", "no"]
    assert TargetCoding("multilabel").decode(outputs).tolist() == [[0, 1], [1, 0]]
    assert TargetCoding("multilabel", np.array(["no", "yes"])).decode(outputs[:, 1:]).tolist() == ["yes", "no"]
    assert TargetCoding("regression").decode(outputs).tolist() == outputs.tolist()
    assert TargetCoding("regression").decode(outputs[:, :1]).tolist() == [0.2, 0.9]


def test_the_split_loses_nothing_and_keeps_rows_together():
    x = np.arange(100.0)[:, None]
    y, weight = np.arange(100) % 4, np.arange(100.0) + 0.5
    x_train, y_train, w_train, x_val, y_val = split_validation(x, y, weight, 0.25, 7, stratify=True)
    assert sorted([*x_train[:, 0], *x_val[:, 0]]) == x[:, 0].tolist()
    assert len(x_val) == 25
    np.testing.assert_array_equal(y_train, x_train[:, 0] % 4)
    np.testing.assert_array_equal(y_val, x_val[:, 0] % 4)
    np.testing.assert_array_equal(w_train, x_train[:, 0] + 0.5)


def test_the_split_keeps_the_shares_of_labels_where_it_can():
    y = np.repeat(["rare", "common"], [10, 90])
    x = np.zeros((100, 1))
    for seed in range(5):
        *_, y_val = split_validation(x, y, None, 0.2, seed, stratify=True)
        assert (y_val == "rare").sum() == 2
    *_, y_val = split_validation(x, np.arange(100), None, 0.2, 0, stratify=True)  # one of each: no shares to keep
    assert len(y_val) == 20


def test_the_split_is_drawn_from_the_seed():
    x, y = np.arange(50.0)[:, None], np.zeros(50)
    first, again, other, large = (
        split_validation(x, y, None, 0.2, seed, stratify=False)[3] for seed in (1, 1, 2, 2**40)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert len(large) == 10


def test_usual_arrays_are_validated_without_scikit_learn():
    """Importing it takes longer than many a fit."""
    script = """
import sys
import numpy as np
from fastnet import Network
x = np.random.default_rng(0).normal(size=(20, 3))
for samples in (x, x.astype("f4"), np.asfortranarray(x), x[:, ::-1], (10 * x).astype(int), x.astype("u1")):
    network = Network([3, 4, 2], backend="numpy", seed=0)
    network.fit(samples, x[:, 0] > 0, n_steps=2, validate_every=1)
    network.predict(samples)
try:
    network.predict(np.full((2, 3), np.nan))
except ValueError as error:
    print(error)
print("sklearn" in sys.modules)
"""
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    message = "X holds nan at sample 0, feature 0: remove or replace it"
    assert finished.stdout.splitlines() == [message, "False"], finished.stderr


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i1", "i8", "u1", "u2"])
@pytest.mark.parametrize("form", [lambda x: x, np.asfortranarray, lambda x: x[::-1, ::2]], ids=["C", "F", "strided"])
def test_usual_arrays_become_what_scikit_learn_makes_of_them(dtype, form):
    x = form(np.random.default_rng(0).integers(0, 100, (9, 8)).astype(dtype))[:, :4]
    samples = validate_samples(network(), x)
    expected = check_array(x, dtype=[np.float32, np.uint8], order="C")
    assert samples.dtype == expected.dtype
    assert samples.flags.c_contiguous
    np.testing.assert_array_equal(samples, expected)


def test_sums_that_overflow_are_no_reason_to_refuse_samples():
    x = np.full((3, 4), 3e38, np.float32)
    np.testing.assert_array_equal(validate_samples(network(), x), x)
