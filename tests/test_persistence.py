from __future__ import annotations

import json
import os
import pickle
import stat
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from fastnet import FileFormatError, Network, persistence
from fastnet.parameters import ParameterLayout, Parameters
from fastnet.persistence import SavedNetwork, check_writable, load_arrays, load_network, save_arrays, save_network
from fastnet.spec import ACTIVATIONS, HEADS, REDUCTIONS, NetworkSpec
from fastnet.targets import TargetCoding

X = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
WORDS = np.array(["ant", "bee", "cicada"])[np.arange(30) % 3]

CLOSED = Path("/sys/kernel")  # where Linux lets nobody make a file, not even root


@pytest.fixture
def trained():
    net = Network([4, 5, 3], backend="numpy", seed=0)
    net.fit(X, WORDS, n_steps=5)
    return net


@pytest.fixture
def saved(trained, tmp_path):
    path = tmp_path / "net.safetensors"
    trained.save(path)
    return path


@st.composite
def specs(draw):
    sizes = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    output = draw(st.sampled_from(list(HEADS)))
    sizes.append(draw(st.integers(2 if output == "softmax" else 1, 5)))
    dtype, precision = draw(st.sampled_from([("float32", "fp32"), ("float32", "tf32"), ("float64", "fp32")]))
    return NetworkSpec(
        tuple(sizes),
        tuple(draw(st.sampled_from(ACTIVATIONS)) for _ in sizes[1:-1]),
        output,
        draw(st.sampled_from(HEADS[output])),
        bias=draw(st.booleans()),
        reduction=draw(st.sampled_from(REDUCTIONS)),
        l2=draw(st.floats(0, 1e3)),
        input_scale=draw(st.floats(1e-3, 1e3)),
        dtype=dtype,
        precision=precision,
    )


codings = st.one_of(
    st.none(),
    st.just(TargetCoding("regression")),
    st.builds(TargetCoding, st.just("multiclass"), st.integers(2, 9).map(np.arange)),
    st.builds(TargetCoding, st.just("multilabel"), st.lists(st.text(max_size=5), min_size=2, max_size=2).map(np.array)),
)


@given(specs(), codings, st.lists(st.text(max_size=5)).map(tuple), st.data())
def test_what_is_saved_comes_back_bit_for_bit(tmp_path_factory, spec, coding, feature_names, data):
    layout = ParameterLayout.of(spec)
    width = 32 if spec.dtype == "float32" else 64
    finite = st.floats(allow_nan=False, allow_infinity=False, width=width)  # with -0.0 and subnormal numbers
    numbers = data.draw(st.lists(finite, min_size=1, max_size=20))
    parameters = Parameters(layout, np.resize(np.array(numbers, spec.dtype), layout.size))
    path = tmp_path_factory.getbasetemp() / "round-trip.safetensors"
    save_network(path, SavedNetwork(spec, parameters, coding, feature_names))
    spec_again, parameters_again, coding_again, names_again = load_network(path)
    assert names_again == feature_names
    assert spec_again == spec
    assert parameters_again.flat.dtype == spec.dtype
    assert parameters_again.flat.tobytes() == parameters.flat.tobytes()
    assert (coding_again is None) == (coding is None)
    if coding is not None:
        assert coding_again.task == coding.task
        assert np.array_equal(coding_again.classes, coding.classes)


def test_a_file_from_before_networks_had_a_precision_and_names_is_read(trained, saved):
    header, tensors = load_arrays(saved, "fastnet.network/1")
    del header["network"]["precision"], header["feature_names"]
    save_arrays(saved, "fastnet.network/1", header, tensors)
    assert load_network(saved).network == trained.spec
    assert load_network(saved).feature_names == ()


@pytest.mark.parametrize("backend", [None, "auto", "numpy"])
def test_a_loaded_network_is_the_saved_one(trained, saved, backend, monkeypatch):
    monkeypatch.setenv("FASTNET_BACKEND", "numpy")
    loaded = Network.load(saved, backend=backend)
    assert loaded.spec == trained.spec
    assert loaded.classes.tolist() == ["ant", "bee", "cicada"]
    np.testing.assert_array_equal(loaded.predict_proba(X), trained.predict_proba(X))
    np.testing.assert_array_equal(loaded.predict(X), trained.predict(X))
    assert loaded.evaluate(X, WORDS) == trained.evaluate(X, WORDS)
    loaded.fit(X, WORDS, n_steps=3)
    trained.fit(X, WORDS, n_steps=3)
    np.testing.assert_array_equal(loaded.weights[0], trained.weights[0])


def test_shapes_and_dtypes_of_arrays_come_back(tmp_path):
    tensors = {
        "scalar": np.array(3, np.int64),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "strided": np.arange(6, dtype=np.float32)[::2],
        "empty": np.empty((0, 4), np.float32),
    }
    save_arrays(tmp_path / "file", "fastnet.test/1", {"a": [1, None]}, tensors)
    header, again = load_arrays(tmp_path / "file", "fastnet.test/1")
    assert header == {"a": [1, None]}
    assert again.keys() == tensors.keys()
    for name, array in tensors.items():
        assert (again[name].shape, again[name].dtype) == (array.shape, array.dtype)
        np.testing.assert_array_equal(again[name], array)


# --- damage


def test_a_file_cut_off_anywhere_is_refused(saved):
    body = saved.read_bytes()
    for length in [*range(0, len(body), 13), len(body) - 1]:
        saved.write_bytes(body[:length])
        with pytest.raises(FileFormatError, match=r"net\.safetensors: damaged, truncated, or not a safetensors file"):
            Network.load(saved)


@pytest.mark.parametrize("mask", [0x01, 0x80, 0xFF])
def test_a_changed_byte_anywhere_is_refused_or_harmless(saved, trained, mask):
    body = saved.read_bytes()
    n_refused = 0
    for position in range(len(body)):
        changed = bytearray(body)
        changed[position] ^= mask
        saved.write_bytes(changed)
        try:
            loaded = Network.load(saved, backend="numpy")
        except FileFormatError:
            n_refused += 1
        else:  # a space in the padding has become another
            assert loaded.spec == trained.spec
            np.testing.assert_array_equal(loaded.predict_proba(X), trained.predict_proba(X))
    assert n_refused >= 0.99 * len(body)


def test_added_bytes_are_refused(saved):
    saved.write_bytes(saved.read_bytes() + b"\0" * 8)
    with pytest.raises(FileFormatError):
        Network.load(saved)


FOREIGN = {
    "empty": b"",
    "text": b"weights: 1 2 3\n" * 50,
    "json": json.dumps({"weights": [[1.0]]}).encode(),
    "pickle": pickle.dumps({"weights": np.ones(100)}),
    "npy": b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }" + b" " * 60,
    "zip": b"PK\x03\x04" + bytes(200),
    "noise": np.random.default_rng(0).bytes(1000),
    "zeros": bytes(1000),
    "ones": b"\xff" * 1000,
}


@pytest.mark.parametrize("case", FOREIGN)
def test_a_foreign_file_is_refused(case, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(FOREIGN[case])
    with pytest.raises(FileFormatError, match=f"{path}: damaged, truncated, or not a safetensors file"):
        Network.load(path)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"kind": "other.thing"}])
def test_a_safetensors_file_of_someone_else_is_refused(metadata, tmp_path):
    save_file({"weight_0": np.ones((4, 3), np.float32)}, tmp_path / "file", metadata=metadata)
    with pytest.raises(FileFormatError, match="a safetensors file, but not written by fastnet"):
        Network.load(tmp_path / "file")


def test_a_file_of_another_kind_is_refused(tmp_path):
    save_arrays(tmp_path / "file", "fastnet.checkpoint/1", {}, {"a": np.ones(3)})
    with pytest.raises(
        FileFormatError, match=r"this is a 'fastnet\.checkpoint/1' file, and a 'fastnet\.network/1' file is"
    ):
        Network.load(tmp_path / "file")


NETWORK = {"layer_sizes": [2, 1], "activations": [], "output": "identity", "loss": "squared_error"}
TENSORS = {"weight_0": np.ones((2, 1), np.float32), "bias_0": np.ones(1, np.float32)}


@pytest.mark.parametrize(
    ("header", "tensors"),
    [
        ({}, TENSORS),
        ([], TENSORS),
        ({"network": NETWORK}, TENSORS),
        ({"network": [], "coding": None}, TENSORS),
        ({"network": NETWORK | {"dropout": 0.5}, "coding": None}, TENSORS),
        ({"network": NETWORK | {"output": "maxout"}, "coding": None}, TENSORS),
        ({"network": NETWORK | {"layer_sizes": 3}, "coding": None}, TENSORS),
        ({"network": NETWORK | {"layer_sizes": [3, 1]}, "coding": None}, TENSORS),
        ({"network": NETWORK | {"layer_sizes": [10**30, 1]}, "coding": None}, TENSORS),
        ({"network": NETWORK | {"layer_sizes": [10**16, 1]}, "coding": None}, TENSORS),
        ({"network": NETWORK | {"l2": "much"}, "coding": None}, TENSORS),
        pytest.param({"network": NETWORK | {"l2": 10**400}, "coding": None}, TENSORS, id="l2-beyond-floats"),
        ({"network": NETWORK, "coding": {"task": "regression"}}, TENSORS),
        ({"network": NETWORK, "coding": 3}, TENSORS),
        ({"network": NETWORK, "coding": None}, {"weight_0": TENSORS["weight_0"]}),
        ({"network": NETWORK, "coding": None}, TENSORS | {"weight_0": np.full((2, 1), np.nan, np.float32)}),
    ],
    ids=str,
)  # fmt: skip
def test_what_another_version_may_write_is_refused(header, tensors, tmp_path):
    path = tmp_path / "file"
    save_arrays(path, "fastnet.network/1", {"network": NETWORK, "coding": None}, TENSORS)
    assert load_network(path)[1].flat.tolist() == [1, 1, 1]
    save_arrays(path, "fastnet.network/1", header, tensors)
    with pytest.raises(FileFormatError, match="written by another version of fastnet, or by hand"):
        load_network(path)


# --- writing


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["full", "interrupt"]
)
@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_no_other(saved, error, moment, monkeypatch):
    def fail(*arguments):
        raise error

    before = saved.read_bytes()
    monkeypatch.setattr(persistence.os if moment == "fsync" else Path, moment, fail)
    with pytest.raises(type(error)) as caught:
        Network([4, 3], seed=1).save(saved)
    if isinstance(error, OSError):
        assert caught.value.filename == str(saved)
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


def test_a_new_file_takes_the_place_of_the_old_one_at_once(saved, monkeypatch):
    """At the moment of the replacement, the new file is complete and the old one untouched."""
    before, replace, seen = saved.read_bytes(), Path.replace, []

    def look_and_replace(temporary, path):
        seen.append((path.read_bytes() == before, load_network(temporary)[0].layer_sizes))
        return replace(temporary, path)

    monkeypatch.setattr(Path, "replace", look_and_replace)
    Network([4, 2, 3]).save(saved)
    assert seen == [(True, (4, 2, 3))]
    assert Network.load(saved).spec.layer_sizes == (4, 2, 3)
    assert list(saved.parent.iterdir()) == [saved]


@pytest.mark.skipif(os.name != "posix", reason="permissions are another matter there")
def test_a_file_has_the_permissions_that_any_new_file_has(saved):
    saved.with_name("plain").write_text("")
    assert stat.S_IMODE(saved.stat().st_mode) == stat.S_IMODE(saved.with_name("plain").stat().st_mode)


@pytest.mark.parametrize(
    "write", [lambda path: Network([4, 3], seed=1).save(path), check_writable], ids=["save", "check"]
)
def test_places_where_nothing_can_be_written_are_told_as_they_were_named(write, tmp_path):
    """In the words of the user, who knows nothing of temporary files."""
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    (tmp_path / "nowhere").symlink_to(tmp_path / "missing" / "net")
    for path, error in (
        (tmp_path / "missing" / "net", FileNotFoundError),
        (tmp_path / "nowhere", FileNotFoundError),
        (tmp_path / "file" / "net", NotADirectoryError),
        (tmp_path / "folder", IsADirectoryError),
    ):
        with pytest.raises(error) as caught:
            write(path)
        assert caught.value.filename == str(path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder", "nowhere"], "nothing is left behind"


def test_places_where_nothing_can_be_read_are_told(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileNotFoundError, match="missing"):
        Network.load(tmp_path / "missing")
    with pytest.raises(IsADirectoryError, match="folder"):
        Network.load(tmp_path / "folder")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_must_not_be_written_to_is_told(trained, tmp_path):
    tmp_path.chmod(0o500)
    for write in (trained.save, check_writable):
        with pytest.raises(PermissionError) as caught:
            write(tmp_path / "net")
        assert caught.value.filename == str(tmp_path / "net")


@pytest.mark.skipif(not CLOSED.is_dir(), reason="there is no folder that is closed to root")
def test_a_folder_that_nobody_can_write_to_is_told(trained):
    for write in (trained.save, check_writable):
        with pytest.raises(OSError, match="net") as caught:
            write(CLOSED / "net")
        assert caught.value.filename == str(CLOSED / "net")


def test_what_can_be_written_is_not_touched_by_the_question(saved):
    before = saved.read_bytes()
    check_writable(saved)
    check_writable(saved.with_name("new"))
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


@pytest.mark.skipif(os.name != "posix", reason="links need privileges elsewhere")
@pytest.mark.parametrize("exists", [True, False])
def test_a_link_stays_a_link_and_what_it_points_to_is_written(trained, tmp_path, exists):
    (tmp_path / "elsewhere").mkdir()
    target, link = tmp_path / "elsewhere" / "net", tmp_path / "link"
    if exists:
        target.write_text("an older file")
    link.symlink_to(Path("elsewhere") / "net")
    check_writable(link)
    trained.save(link)
    assert link.is_symlink()
    assert not target.is_symlink()
    np.testing.assert_array_equal(Network.load(target).predict(X), trained.predict(X))
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.skipif(os.name != "posix", reason="pipes are no files there")
def test_a_pipe_is_not_replaced(trained, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for write in (trained.save, check_writable):
        with pytest.raises(FileExistsError, match=r"no regular file.*pipe"):
            write(tmp_path / "pipe")
    assert (tmp_path / "pipe").is_fifo()
