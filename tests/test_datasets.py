"""Bundled and generated data, MNIST's files, and users' own: what is read, and what is said about what cannot be."""

from __future__ import annotations

import csv
import gzip
import json
import os
import struct
import sys
import types
import urllib.error
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits, make_moons
from sklearn.model_selection import train_test_split

from fastnet.datasets import Table, hold_out, load, read_samples, read_table
from fastnet.datasets.bundled import digits, moons, or_gate, sum_of_two
from fastnet.datasets.idx import read_idx
from fastnet.datasets.mnist import mnist
from fastnet.errors import DataError, FileFormatError, MissingPackageError, SpecError

REAL_MNIST = os.environ.get("FASTNET_DATA")  # read now: the tests below take it away


def idx_bytes(array):
    """The IDX file of a uint8 array, put together by hand."""
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture(autouse=True)
def no_mnist_by_default(monkeypatch):
    monkeypatch.delenv("FASTNET_DATA", raising=False)


# What is bundled and generated


def test_digits_are_all_there_and_small():
    table = digits(held_out=0.2, random_state=3)
    assert table.X.dtype == table.X_test.dtype == np.uint8
    assert table.X_test.shape == (360, 64)
    assert table.image_shape == (8, 8)
    # Every sample is in one of the parts, with its own label.
    expected = load_digits()
    found = np.concatenate([np.column_stack([table.X, table.y]), np.column_stack([table.X_test, table.y_test])])
    wanted = np.column_stack([expected.data, expected.target])
    assert np.array_equal(found[np.lexsort(found.T)], wanted[np.lexsort(wanted.T)])


def test_moons_are_those_of_scikit_learn():
    x, y = make_moons(300, noise=0.2, random_state=0)
    expected = train_test_split(x, y, test_size=0.2, random_state=0)
    table = moons()
    for found, wanted in zip((table.X, table.X_test, table.y, table.y_test), expected, strict=True):
        assert np.array_equal(found, wanted)


def test_or_gate_is_a_truth_table():
    table = or_gate()
    assert {(int(a), int(b)): int(c) for (a, b), c in zip(table.X, table.y, strict=True)} == {
        (0, 0): 0, (0, 1): 1, (1, 0): 1, (1, 1): 1,
    }  # fmt: skip


def test_sum_leaves_its_generator_where_the_data_end():
    table = sum_of_two(n_samples=50, random_state=4)
    random = np.random.RandomState(4)
    assert np.array_equal(table.X, random.rand(50, 2))
    assert np.array_equal(table.y, table.X[:, 0] + table.X[:, 1])
    assert np.array_equal(table.random.randn(2, 3), random.randn(2, 3))


@pytest.mark.parametrize("size", [0, 1.5, 10, 11, "half"])
def test_hold_out_says_what_it_cannot_hold_out(size):
    table = Table("ten samples", np.zeros((10, 2)), np.arange(10))
    with pytest.raises(DataError, match=f"ten samples: cannot hold out {size!r} of 10 samples"):
        hold_out(table, size, 0)


@pytest.mark.parametrize("options", [{"noise": "much"}, {"n_samples": -1}, {"random_state": -1}])
def test_moons_refuses_meaningless_options(options):
    with pytest.raises(DataError, match=r"^moons: "):
        moons(**options)


# IDX


@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize("shape", [(7,), (3, 4, 5), (2, 0, 3)])
def test_idx_round_trip(tmp_path, shape, compress):
    array = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    path = tmp_path / "file"
    path.write_bytes(compress(idx_bytes(array)))
    assert np.array_equal(read_idx(path), array)
    assert read_idx(path).shape == shape


GOOD = idx_bytes(np.arange(60, dtype=np.uint8).reshape(3, 4, 5))
DAMAGED = {
    "empty": (b"", "not an IDX file"),
    "something else": (b"<html>", "not an IDX file: it starts with 3c 68 74 6d"),
    "without dimensions": (bytes([0, 0, 8, 0, 1]), "not an IDX file"),
    "of floats": (bytes([0, 0, 0x0D, 1]) + struct.pack(">I", 1) + bytes(4), "IDX type 0x0d; only bytes"),
    "cut in the header": (GOOD[:9], "truncated: 9 bytes, and the header alone takes 16"),
    "cut in the values": (GOOD[:-1], "promises 3 x 4 x 5 values, 60 in all, and 59 follow"),
    "too long": (GOOD + b"x", "60 in all, and 61 follow"),
    "cut gzip": (gzip.compress(GOOD)[:-9], "damaged: .*download it again"),
    "damaged gzip": (gzip.compress(GOOD)[:12] + b"\xff\xff" + gzip.compress(GOOD)[14:], "damaged: "),
    "overflowing": (bytes([0, 0, 8, 3]) + struct.pack(">III", 2**31, 2**31, 2**31), "and 0 follow"),
}


@pytest.mark.parametrize(("content", "message"), DAMAGED.values(), ids=DAMAGED.keys())
def test_damaged_idx_is_refused(tmp_path, content, message):
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match=message) as caught:
        read_idx(path)
    assert str(path) in str(caught.value)


# MNIST

IMAGES = np.random.default_rng(1).integers(0, 256, (12, 28, 28), np.uint8)
LABELS = np.arange(12, dtype=np.uint8) % 10


def write_mnist(directory, spelling="-idx", suffix="", parts=("train", "t10k")):
    directory.mkdir(exist_ok=True)
    compress = gzip.compress if suffix else bytes
    for part, rows in (("train", slice(0, 8)), ("t10k", slice(8, 12))):
        if part in parts:
            (directory / f"{part}-images{spelling}3-ubyte{suffix}").write_bytes(compress(idx_bytes(IMAGES[rows])))
            (directory / f"{part}-labels{spelling}1-ubyte{suffix}").write_bytes(compress(idx_bytes(LABELS[rows])))
    return directory


def write_kaggle(path):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["label", *(f"pixel{index}" for index in range(784))])
        writer.writerows([label, *image.ravel()] for label, image in zip(LABELS, IMAGES, strict=True))
    return path


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("spelling", ["-idx", ".idx"])
def test_mnist_from_a_directory(tmp_path, monkeypatch, spelling, suffix):
    write_mnist(tmp_path, spelling, suffix)
    monkeypatch.setenv("FASTNET_DATA", str(tmp_path))
    for table in (mnist(tmp_path), load("mnist"), load("mnist", data=tmp_path)):
        assert table.X.dtype == np.uint8
        assert np.array_equal(table.X, IMAGES[:8].reshape(8, 784))
        assert np.array_equal(table.X_test, IMAGES[8:].reshape(4, 784))
        assert table.y.tolist() == LABELS[:8].tolist()
        assert table.y_test.tolist() == LABELS[8:].tolist()
        assert table.image_shape == (28, 28)


def test_mnist_takes_the_first_images_and_holds_some_of_them_out(tmp_path):
    write_mnist(tmp_path)
    table = mnist(tmp_path, n_samples=5, held_out=2, random_state=0)
    assert len(table.y) == 3
    assert len(table.y_test) == 2
    assert sorted([*table.y, *table.y_test]) == LABELS[:5].tolist()
    for image, label in zip([*table.X, *table.X_test], [*table.y, *table.y_test], strict=True):
        assert np.array_equal(image, IMAGES[label].ravel())
    with pytest.raises(DataError, match="n_samples must be between 1 and 8, got 9"):
        mnist(tmp_path, n_samples=9)


def test_mnist_without_test_files_holds_nothing_out(tmp_path):
    table = mnist(write_mnist(tmp_path, parts=["train"]))
    assert table.X_test is None
    assert table.judged_on[0] == "training"


def test_kaggles_file_in_a_directory_or_by_itself(tmp_path):
    path = write_kaggle(tmp_path / "train.csv")
    for table in (load("mnist", data=tmp_path), load("mnist", data=path)):
        assert table.X.dtype == np.uint8
        assert np.array_equal(table.X, IMAGES.reshape(12, 784))
        assert table.y.tolist() == LABELS.tolist()
        assert table.image_shape == (28, 28)
    # A file in place of the data is used whole: the number of images to keep is MNIST's.
    assert len(load("mnist", {"n_samples": 3}, data=path).y) == 12
    assert len(load("mnist", {"n_samples": 3}, data=tmp_path).y) == 3


def test_incomplete_mnist_is_told(tmp_path):
    with pytest.raises(DataError, match=r"holds neither MNIST's training files nor train\.csv.*FASTNET_DATA"):
        mnist(tmp_path)
    with pytest.raises(DataError, match=r"nowhere: no such directory.*train-images-idx3-ubyte\.gz"):
        load("mnist", data=tmp_path / "nowhere")
    write_mnist(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match="t10k-labels-idx1-ubyte is missing"):
        mnist(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx_bytes(LABELS[:3]))
    with pytest.raises(DataError, match=r"has shape \(4, 28, 28\) and t10k-labels-idx1-ubyte \(3,\)"):
        mnist(tmp_path)


def test_without_network_the_error_says_what_to_put_where(monkeypatch):
    def offline(*args, **kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("sklearn.datasets.fetch_openml", offline)
    with pytest.raises(DataError) as caught:
        load("mnist")
    for part in ("no network", "t10k-labels-idx1-ubyte.gz", "train.csv", "--data DIR", "FASTNET_DATA"):
        assert part in str(caught.value)


def test_openml_keeps_the_test_images_last(monkeypatch):
    labels = np.arange(60_004) % 10
    bunch = types.SimpleNamespace(data=np.tile(labels[:, None], (1, 4)), target=labels.astype(str))
    monkeypatch.setattr("sklearn.datasets.fetch_openml", lambda *args, **kwargs: bunch)
    table = load("mnist")
    assert table.X.dtype == np.uint8
    assert np.array_equal(table.X[:, 0], table.y)
    assert len(table.y) == 60_000
    assert table.y_test.tolist() == labels[60_000:].tolist()


@pytest.mark.skipif(REAL_MNIST is None, reason="FASTNET_DATA does not say where MNIST is")
def test_the_real_mnist():
    table = mnist(REAL_MNIST)
    assert table.y[:5].tolist() == [5, 0, 4, 1, 9]
    assert table.X.shape == (60_000, 784)
    assert np.count_nonzero(table.X) / table.X.size == pytest.approx(0.191, abs=5e-4)


# Text


@st.composite
def text_tables(draw):
    """(x, y, delimiter, has a header): y strings or whole numbers."""
    n_rows, n_features = draw(st.integers(2, 6)), draw(st.integers(1, 4))
    numbers = draw(st.sampled_from([st.integers(0, 255), st.floats(allow_nan=False, allow_infinity=False)]))
    x = draw(st.lists(st.lists(numbers, min_size=n_features, max_size=n_features), min_size=n_rows, max_size=n_rows))
    labels = draw(st.sampled_from([st.sampled_from(["a", "b c", "d;e,f"]), st.integers(0, 9)]))
    y = draw(st.lists(labels, min_size=n_rows, max_size=n_rows))
    return np.array(x), np.array(y), draw(st.sampled_from(",;\t")), draw(st.booleans())


@given(text_tables())
def test_text_is_read_as_it_was_written(tmp_path_factory, table):
    x, y, delimiter, has_header = table
    path = tmp_path_factory.mktemp("text") / "table.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        if has_header:
            writer.writerow([*(f"f{index}" for index in range(x.shape[1])), "label"])
        writer.writerows([*map(repr, row), label] for row, label in zip(x.tolist(), y.tolist(), strict=True))
    found = read_table(path, None if has_header else "-1")
    assert np.array_equal(found.X, x)
    assert np.array_equal(found.y, y)
    assert found.y.dtype.kind == y.dtype.kind
    is_small = np.all(x == np.floor(x)) and x.min() >= 0 and x.max() <= 255
    assert found.X.dtype == (np.uint8 if is_small else np.float64)
    assert found.feature_names == (tuple(f"f{index}" for index in range(x.shape[1])) if has_header else ())


def written(directory, text, name="data.csv", encoding="utf-8"):
    path = directory / name
    path.write_bytes(text.encode(encoding))
    return path


READABLE = {
    "a spreadsheet's mark": ("\ufeffa,label\r\n1.5,0\r\n2,1\r\n", None, [[1.5], [2]], [0, 1]),
    "blank lines": ("\na,y\n\n1.5,0\n\n2,1\n", None, [[1.5], [2]], [0, 1]),
    "spaces": ("a, y\n1.5, 0\n2, 1\n", None, [[1.5], [2]], [0, 1]),
    "quotes": ('"a b","y"\n"1.5","yes"\n"2","no, never"\n', None, [[1.5], [2]], ["yes", "no, never"]),
    "pandas' row index": (",a,y\n0,1.5,0\n1,2,1\n", None, [[1.5], [2]], [0, 1]),
    "labels with a number first": ("a,y\n1.5,1\n2,x\n", None, [[1.5], [2]], ["1", "x"]),
    "values": ("a,y\n1,0.5\n2,1\n", None, [[1], [2]], [0.5, 1]),
    "two names that stand for targets": ("y,Label\n1,0\n2,1\n", None, [[1], [2]], [0, 1]),
    "a target by name": ("a,b\n1,7\n2,8\n", "a", [[7], [8]], [1, 2]),
    "a target by index": ("a,b\n1,7\n2,8\n", "0", [[7], [8]], [1, 2]),
    "no header, strings last": ("5.1,3,setosa\n4.9,2,virginica\n", "-1", [[5.1, 3], [4.9, 2]], ["setosa", "virginica"]),
    "no header, yes and no": ("1.0,2.0,y\n1.2,3.4,n\n", "2", [[1, 2], [1.2, 3.4]], ["y", "n"]),
    "years as names": ("id,2019,2020\n3,1,7\n4,2,8\n", "2020", [[3, 1], [4, 2]], [7, 8]),
    "beyond 64 bits": ("a,y\n99999999999999999999,0\n1,1\n", None, [[1e20], [1]], [0, 1]),
}  # fmt: skip


@pytest.mark.parametrize(("text", "target", "x", "y"), READABLE.values(), ids=READABLE.keys())
def test_text_in_many_guises(tmp_path, text, target, x, y):
    table = read_table(written(tmp_path, text), target)
    assert table.X.tolist() == x
    assert table.y.tolist() == y


UNREADABLE = {
    "a word": ("a,b,y\n1,2,0\n3,four,1\n", "line 3: column 'b' holds 'four', which is not a number"),
    "a gap": ("a,b,y\n1,2,0\n\n3,,1\n", "line 4: column 'b' holds ''"),
    "a decimal comma": ("a;b;y\n1,5;2;0\n", "line 2: column 'a' holds '1,5'"),
    "a word without a header": ("1,2,0\n3,four,1\n", "line 2: column 1 holds 'four'"),
    "a word after string labels": ("a,y\n1,x\nb,z\n", "line 3: column 'a' holds 'b'"),
    "a short line": ("a,b,y\n1,2,0\n3,1\n", "line 3: 2 fields, and 3 columns above"),
    "a quotation over two lines": ('a,b,y\n1,2,0\n"3\n4",1\n', "line 3: 2 fields, and 3 columns above"),
    "a long line": ("a,b,y\n1,2,0\n3,1,2,4\n", "line 3: 4 fields, and 3 columns above"),
    "a long line after string labels": ("a,b,y\n1,2,x\n3,1,z,4\n", "line 3: 4 fields, and 3 columns above"),
    "a label missing": ("a,y\n1,x\n2,NA\n", "line 3: column 'y' holds 'NA': no target"),
    "a number missing": ("a,y\n1,nan\n2,1\n", "y, the target, holds nan in sample 0"),
    "not finite": ("a,y\n1,0\ninf,1\n", "column a holds inf in sample 1"),
    "no target": ("a,b\n1,2\n3,4\n", "which column is the target.*--target.*Columns are a, b$"),
    "no target but an index": (",a,b\n0,1,2\n", "Columns are a, b$"),
    "only names": ("a,y\n", "line of column names and no rows"),
    "nothing": ("\n \n", "is empty"),
    "one column": ("y\n1\n2\n", "single column"),
}


@pytest.mark.parametrize(("text", "message"), UNREADABLE.values(), ids=UNREADABLE.keys())
def test_bad_text_is_told_with_line_and_column(tmp_path, text, message):
    path = written(tmp_path, text)
    target = "-1" if text[0].isdigit() else None
    with pytest.raises(DataError, match=message) as caught:
        read_table(path, target)
    assert str(path) in str(caught.value)


WIDE = ",".join(["1.5"] * 40_000)  # a line of 160,000 characters, which none of its fields has
LONG = "1,2,x\n" * 30_000
NOT_ROWS = {
    "one word": ("x" * 200_000, "its first lines are no rows of a table.*another format, such as JSON"),
    "a line of JSON": (json.dumps({"text": "x" * 200_000}), "its first lines are no rows of a table"),
    "open among the first": (f'a,b,y\n1,"2,x\n{LONG}', "line 2: field larger .*is a quotation mark left open"),
    "open": (f'a,b,y\n{LONG[:180]}\n1,"2,x\n{LONG}', "line 33: field larger .*quotation mark left open"),
    "open to the end": (f'a,b,y\n{LONG}1,2,"x\n1,2,x\n', "line 30002: column 'y' holds several lines: is a quotation"),
}


@pytest.mark.parametrize(("text", "message"), NOT_ROWS.values(), ids=NOT_ROWS.keys())
def test_text_that_is_no_rows_of_a_table_is_told(tmp_path, text, message):
    """The csv module refuses fields of 131,072 characters, and lets a quotation swallow all lines below it."""
    path = written(tmp_path, text)
    for read in (read_table, lambda path: read_samples(path, 2)):
        with pytest.raises(FileFormatError, match=message) as caught:
            read(path)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("label", ["7", "seven"])
def test_long_lines_of_short_fields_are_read(tmp_path, label):
    table = read_table(written(tmp_path, f"{WIDE},{label}\n" * 3), "-1")
    assert table.X.shape == (3, 40_000)
    assert (table.X == 1.5).all()
    assert table.y.astype(str).tolist() == [label] * 3


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("qualty", "no column 'qualty': did you mean 'quality'"),
        ("3", "no column '3'"),
        ("-4", "no column '-4'"),
        ("twice", "more than one column 'twice': Columns are"),
    ],
)
def test_unknown_target_is_told(tmp_path, target, message):
    with pytest.raises(DataError, match=message):
        read_table(written(tmp_path, "twice,quality,twice\n1,2,3\n4,5,6\n"), target)


def test_many_columns_are_not_all_listed(tmp_path):
    header = ",".join(f"c{index}" for index in range(100))
    with pytest.raises(DataError, match=r"c19, \.\.\. \(100 in all\)$"):
        read_table(written(tmp_path, f"{header}\n{','.join('1' * 100)}\n"))


def test_text_in_another_encoding_is_refused(tmp_path):
    with pytest.raises(FileFormatError, match="not text in UTF-8"):
        read_table(written(tmp_path, "größe,y\n1,2\n", encoding="latin-1"))
    late = "a,y\n" + "1,2\n" * 40 + "1,ü\n"  # beyond the lines that tell the delimiter
    with pytest.raises(FileFormatError, match="not text in UTF-8"):
        read_table(written(tmp_path, late, encoding="latin-1"))


def test_files_that_are_not_there_or_of_no_known_kind(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_table(tmp_path / "missing.csv")
    with pytest.raises(DataError, match="is a directory"):
        load("digits", data=tmp_path)
    with pytest.raises(FileFormatError, match=r"cannot tell its format: call it \.csv"):
        read_table(written(tmp_path, "a,y\n1,2\n", "data.xlsx"))


# NumPy's files and Parquet

X = np.array([[1.5, 2], [3, 4], [5, 6]])
Y = np.array([0, 1, 1])


@pytest.mark.parametrize(("x_name", "y_name"), [("X", "y"), ("x", "y"), ("x_train", "y_train")])
def test_named_arrays(tmp_path, x_name, y_name):
    np.savez(tmp_path / "data.npz", **{x_name: X, y_name: Y})
    table = read_table(tmp_path / "data.npz")
    assert np.array_equal(table.X, X)
    assert np.array_equal(table.y, Y)
    assert table.X_test is None


def test_named_arrays_bring_their_held_out_part(tmp_path):
    images = np.arange(48, dtype=np.uint8).reshape(4, 3, 4)
    labels = np.array(["a", "b", "a", "b"])
    np.savez(tmp_path / "data.npz", X=images, y=labels, X_test=images[:2], y_test=labels[:2])
    table = read_table(tmp_path / "data.npz", held_out=0.5)
    assert table.image_shape == (3, 4)
    assert np.array_equal(table.X, images.reshape(4, 12))
    assert np.array_equal(table.X_test, images[:2].reshape(2, 12))
    assert table.y_test.tolist() == ["a", "b"]


def test_targets_of_an_array_called_otherwise(tmp_path):
    np.savez(tmp_path / "data.npz", X=X, price=np.array([[1.5], [2], [3]]))
    assert read_table(tmp_path / "data.npz", "price").y.tolist() == [1.5, 2, 3]


BAD_ARRAYS = {
    "other names": ({"features": X, "labels": Y}, r"no array called X. Arrays are: features \(3, 2\), labels \(3,\)"),
    "no targets": ({"X": X}, "no array called y"),
    "half a test part": ({"X": X, "y": Y, "X_test": X}, "no array called y_test"),
    "lengths": ({"X": X, "y": Y[:2]}, "X has 3 samples and y has 2"),
    "two forms of targets": (
        {"X": X, "y": Y, "X_test": X, "y_test": np.eye(3)},
        r"y has shape \(3,\) and y_test \(3, 3\): save both in one form",
    ),
    "one dimension": ({"X": Y, "y": Y}, r"X must hold numbers of shape \(N, D\)"),
    "strings": ({"X": X.astype(str), "y": Y}, "X must hold numbers"),
    "not a number": ({"X": np.where(X == 4, np.nan, X), "y": Y}, "column 1 holds nan in sample 1"),
    "empty": ({"X": X[:0], "y": Y[:0]}, "holds no samples"),
}


@pytest.mark.parametrize(("arrays", "message"), BAD_ARRAYS.values(), ids=BAD_ARRAYS.keys())
def test_bad_named_arrays_are_told(tmp_path, arrays, message):
    np.savez(tmp_path / "data.npz", **arrays)
    with pytest.raises(DataError, match=message):
        read_table(tmp_path / "data.npz")


class Trap:
    def __reduce__(self):
        return (Path.touch, (Path(os.environ["FASTNET_TEST_TRAP"]),))


def test_nothing_is_unpickled(tmp_path, monkeypatch):
    trap = tmp_path / "sprung"
    monkeypatch.setenv("FASTNET_TEST_TRAP", str(trap))
    pickled = np.array([Trap(), Trap()], dtype=object)
    np.save(tmp_path / "data.npy", pickled, allow_pickle=True)
    np.savez(tmp_path / "data.npz", X=pickled, y=Y)
    for name in ("data.npy", "data.npz"):
        with pytest.raises(FileFormatError, match="Python objects, which are not read"):
            read_table(tmp_path / name)
    assert not trap.exists()


@pytest.mark.parametrize("name", ["data.npy", "data.npz", "data.parquet"])
@pytest.mark.parametrize("content", [b"", b"nothing of the kind", b"PK\x03\x04 and then nothing", b"\x93NUMPY\x01"])
def test_damaged_files_are_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FileFormatError, match=name):
        read_table(tmp_path / name)


def test_archives_and_arrays_under_each_others_suffix(tmp_path):
    np.savez(tmp_path / "data.npz", X=X, y=Y)
    (tmp_path / "data.npz").rename(tmp_path / "data.npy")
    with pytest.raises(FileFormatError, match=r"call it \.npz"):
        read_table(tmp_path / "data.npy")
    np.save(tmp_path / "other.npy", X)
    (tmp_path / "other.npy").rename(tmp_path / "other.npz")
    with pytest.raises(FileFormatError, match=r"call it \.npy"):
        read_table(tmp_path / "other.npz")


def test_one_array_takes_its_last_column_for_the_target(tmp_path):
    np.save(tmp_path / "data.npy", np.column_stack([X, Y]))
    table = read_table(tmp_path / "data.npy")
    assert np.array_equal(table.X, X)
    assert np.array_equal(table.y, Y)
    table = read_table(tmp_path / "data.npy", "0")
    assert np.array_equal(table.X, np.column_stack([X[:, 1], Y]))
    assert np.array_equal(table.y, X[:, 0])
    np.save(tmp_path / "data.npy", X[:, 0])
    with pytest.raises(DataError, match=r"two-dimensional array of numbers, got float64 of shape \(3,\)"):
        read_table(tmp_path / "data.npy")


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["a", "b", "a"], ["a", "b", "a"]),
        (pd.Categorical(["a", "b", "a"]), ["a", "b", "a"]),
        ([True, False, True], [1, 0, 1]),
        ([2, 3, 4], [2, 3, 4]),
        ([0.5, 1, 2], [0.5, 1, 2]),
    ],
)
def test_parquet(tmp_path, labels, expected):
    frame = pd.DataFrame({"a": [1.5, 2, 3], "label": labels, "b": [1, 2, 3], "c": [True, False, True]}, index=[7, 8, 9])
    frame.to_parquet(tmp_path / "data.parquet")
    table = read_table(tmp_path / "data.parquet")
    assert table.feature_names == ("a", "b", "c")
    assert table.X.tolist() == [[1.5, 1, 1], [2, 2, 0], [3, 3, 1]]
    assert table.y.tolist() == expected


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"a": ["x", "y"], "y": [0, 1]}, "column 'a' holds (large_)?string, not numbers"),
        ({"a": pd.array([1, None], "Int64"), "y": [0, 1]}, "column a holds nan in sample 1"),
        ({"a": [1, 2], "y": ["x", None]}, "column 'y', the target, is empty in 1 rows"),
    ],
)
def test_bad_parquet_is_told(tmp_path, columns, message):
    pd.DataFrame(columns).to_parquet(tmp_path / "data.parquet")
    with pytest.raises(DataError, match=message):
        read_table(tmp_path / "data.parquet")


def test_parquet_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "data.parquet").touch()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingPackageError, match="pip install pyarrow"):
        read_table(tmp_path / "data.parquet")


# In place of a source's data, and for predictions


def test_a_file_in_place_of_a_sources_data(tmp_path):
    path = written(tmp_path, "a,b,y\n" + "".join(f"{i},{i / 2},{i % 2}\n" for i in range(10)))
    table = load("moons", {"n_samples": 4, "held_out": 3, "random_state": 0}, data=path)
    assert len(table.y) == 7
    assert len(table.y_test) == 3
    assert load("file", {"path": str(path), "target": "b"}).feature_names == ("a", "y")
    assert load("file", {"path": str(path), "target": "b"}, target="a").feature_names == ("b", "y")
    with pytest.raises(DataError, match="needs a file"):
        load("file")
    with pytest.raises(DataError, match="goes with a file of your own"):
        load("digits", target="a")
    with pytest.raises(SpecError, match="did you mean 'moons'"):
        load("moon")


def test_digits_in_a_file_are_pictures_too(tmp_path):
    np.savez(tmp_path / "own.npz", X=np.zeros((5, 64), np.uint8), y=np.arange(5))
    assert load("digits", data=tmp_path / "own.npz").image_shape == (8, 8)
    assert load("moons", data=tmp_path / "own.npz").image_shape is None


def test_samples_to_predict_may_come_without_targets(tmp_path):
    text = written(tmp_path, "a,b\n1,2.5\n3,4\n")
    np.save(tmp_path / "data.npy", X)
    np.savez(tmp_path / "data.npz", X=X)
    for path in (text, tmp_path / "data.npy", tmp_path / "data.npz"):
        samples, targets = read_samples(path, 2)
        assert samples.shape[1] == 2
        assert targets is None
    samples, targets = read_samples(written(tmp_path, "a,b,y\n1,2.5,0\n3,4,1\n"), 2)
    assert samples.tolist() == [[1, 2.5], [3, 4]]
    assert targets.tolist() == [0, 1]
    single, targets = read_samples(written(tmp_path, "a\n1\n3\n"), 1)
    assert single.tolist() == [[1], [3]]
    assert targets is None


NAMED = "id,b,label,a\nfirst,2.5,0,1\nsecond,4,1,3\n"


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_samples_to_predict_are_found_by_their_names(tmp_path, ending):
    """In the order of the names, whatever that of the file is, and without what is no feature."""
    path = written(tmp_path, NAMED)
    if ending == "parquet":
        pandas = pytest.importorskip("pandas")
        pandas.read_csv(path).to_parquet(path := tmp_path / "data.parquet")
    samples, targets = read_samples(path, 2, feature_names=("a", "b"))
    assert samples.tolist() == [[1, 2.5], [3, 4]]
    assert targets.tolist() == [0, 1]
    assert read_samples(path, 2, "id", feature_names=("a", "b"))[1].tolist() == ["first", "second"]
    assert read_samples(path, 3, feature_names=("label", "a", "b"))[1].tolist() == ["first", "second"]
    assert read_samples(path, 1, feature_names=("a",))[1].tolist() == [0, 1]  # of two that are left over, the label
    with pytest.raises(DataError, match="has no column called c, d, which the network was"):
        read_samples(path, 3, feature_names=("a", "c", "d"))


def test_columns_that_are_left_over_may_be_anything(tmp_path):
    path = written(tmp_path, "a,note,b,other\n1,x,2,y\n")
    samples, targets = read_samples(path, 2, feature_names=("a", "b"))
    assert samples.tolist() == [[1, 2]]
    assert targets is None


@pytest.mark.parametrize("text", ["1,2\n3,4\n", "a,a\n1,2\n3,4\n"], ids=["no names", "one name for two columns"])
def test_columns_without_names_of_their_own_are_taken_in_order(tmp_path, text):
    assert read_samples(written(tmp_path, text), 2, feature_names=("b", "a"))[0].tolist() == [[1, 2], [3, 4]]


def test_a_wrong_number_of_columns_is_told_as_such(tmp_path):
    np.save(tmp_path / "data.npy", np.ones((5, 4)))
    for path in (tmp_path / "data.npy", written(tmp_path, "1,2,3,4\n5,6,7,8\n")):
        for n_features in (2, 784):
            with pytest.raises(DataError, match=f"has 4 columns, and the network takes {n_features} features"):
                read_samples(path, n_features)
        assert read_samples(path, 4)[1] is None
    assert read_samples(tmp_path / "data.npy", 3)[1].tolist() == [1] * 5
