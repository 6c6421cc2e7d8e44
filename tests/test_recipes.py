"""Recipe files: what they say, what is said about mistakes in them, and the figures that the shipped ones reach."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest

from fastnet import SGD, Adam
from fastnet.errors import DataError, FileFormatError, SpecError
from fastnet.history import History
from fastnet.network import Network
from fastnet.recipes import Expectation, Finding, check_expectations, load_recipe, prepare, recipe_names

# Shipped recipes, as they were agreed on: (sizes, hidden activation, output, loss, reduction, has biases).
SPECS = {
    "deep-sigmoid": ((64, 32, 32, 32, 10), "sigmoid", "sigmoid", "cross_entropy", "mean", True),
    "digits": ((64, 32, 10), "relu", "softmax", "cross_entropy", "mean", True),
    "mnist-10": ((784, 10, 10), "relu", "softmax", "cross_entropy", "mean", True),
    "mnist-16": ((784, 16, 10), "relu", "softmax", "cross_entropy", "mean", True),
    "moons": ((2, 5, 1), "relu", "sigmoid", "cross_entropy", "mean", True),
    "or-gate": ((2, 3, 1), "sigmoid", "sigmoid", "squared_error", "sum", False),
    "sum": ((2, 3, 1), "sigmoid", "sigmoid", "squared_error", "sum", False),
}
# (learning rate, steps) of those that train on the full batch with plain gradient descent.
SCHEDULES = {
    "mnist-10": (0.10, 500),
    "mnist-16": (0.20, 350),
    "moons": (0.003, 20_000),
    "sum": (0.01, 10_000),
}
MINIMAL = {
    "data": 'source = "or-gate"',
    "network": 'layer_sizes = ["auto", 3, "auto"]',
    "training": "n_steps = 2",
}


def minimal(**tables):
    """The smallest recipe, with some of its tables replaced, and without those that are None."""
    bodies = {name: body for name, body in (MINIMAL | tables).items() if body is not None}
    return "".join(f"[{name}]\n{body}\n" for name, body in bodies.items())


def with_network(more):
    return minimal(network=MINIMAL["network"] + "\n" + more)


@pytest.fixture
def recipe_file(tmp_path):
    def write(text, name="own.toml"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def test_what_is_shipped():
    assert recipe_names() == sorted(SPECS)


@pytest.mark.parametrize("name", SPECS)
def test_shipped_networks(name):
    sizes, activation, output, loss, reduction, bias = SPECS[name]
    recipe = load_recipe(name)
    spec = Network(**{**recipe.network, "init": "zeros"}, backend="numpy").spec
    assert spec.layer_sizes == sizes
    assert set(spec.activations) == {activation}
    assert (spec.output, spec.loss, spec.reduction, spec.bias, spec.l2) == (output, loss, reduction, bias, 0)
    assert recipe.title
    assert recipe.text
    assert recipe.expectations


@pytest.mark.parametrize("name", SCHEDULES)
def test_shipped_schedules(name):
    recipe = load_recipe(name)
    learning_rate, n_steps = SCHEDULES[name]
    assert recipe.optimizer == SGD(learning_rate)
    assert recipe.training == {"n_steps": n_steps}


@pytest.mark.parametrize(("name", "bias_low", "bias_high"), [("mnist-16", 0, 0), ("mnist-10", -0.5, 0.5)])
def test_mnist_recipes(tmp_path, name, bias_low, bias_high):
    """On stand-ins for MNIST's files: which images are used, and how weights are drawn."""
    images = np.zeros((42_005, 784), np.uint8)
    images[:, 0] = np.arange(42_005) % 251
    labels = (np.arange(42_005) % 10).astype(np.uint8)
    header = np.array([0, 0, 8, 3], np.uint8).tobytes() + np.array([42_005, 28, 28], ">u4").tobytes()
    (tmp_path / "train-images-idx3-ubyte").write_bytes(header + images.tobytes())
    header = np.array([0, 0, 8, 1], np.uint8).tobytes() + np.array([42_005], ">u4").tobytes()
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(header + labels.tobytes())
    run = prepare(load_recipe(name), data=tmp_path, backend="numpy")

    if name == "mnist-16":
        assert np.array_equal(run.table.X, images[:42_000])
        assert run.table.X_test is None
    else:
        assert run.table.X.shape == (41_000, 784)
        assert run.table.X_test.shape == (1_000, 784)
        assert not np.array_equal(run.table.y, labels[:41_000])  # shuffled
        pairs = [*zip(run.table.X[:, 0], run.table.y, strict=True)]
        pairs += zip(run.table.X_test[:, 0], run.table.y_test, strict=True)
        assert sorted(pairs) == sorted(zip(images[:42_000, 0], labels[:42_000], strict=True))
    assert run.network.spec.input_scale == pytest.approx(1 / 255, rel=1e-15)
    weights = np.concatenate([weight.ravel() for weight in run.network.weights])
    assert -0.5 <= weights.min() < -0.49
    assert 0.49 < weights.max() <= 0.5
    biases = np.concatenate(run.network.biases)
    assert bias_low <= biases.min() <= biases.max() <= bias_high
    assert len(np.unique(biases)) == (1 if bias_low == bias_high else len(biases))


# Figures


@pytest.mark.parametrize("name", ["deep-sigmoid", "digits", "moons", "or-gate"])
def test_shipped_recipes_reach_their_figures(name):
    run = prepare(load_recipe(name), backend="numpy", n_threads=1)
    history = run.fit()
    findings = check_expectations(run.expectations, history, run.evaluate())
    assert len(findings) == len(run.expectations) > 0
    assert all(finding.met for finding in findings), [str(finding) for finding in findings]
    if name == "moons":
        assert (run.network.predict(run.table.X) == run.table.y).sum() == 205
        assert len(run.table.y) == 240
    if name == "digits":
        assert run.network.evaluate(run.table.X_test, run.table.y_test)["accuracy"] >= 0.95


def test_cost_of_the_sum_after_the_first_step():
    run = prepare(load_recipe("sum"), backend="numpy", n_steps=2)
    assert run.fit().loss[1] == pytest.approx(955.62804742, abs=5e-9)


@pytest.mark.skipif("FASTNET_DATA" not in os.environ, reason="FASTNET_DATA does not say where MNIST is")
@pytest.mark.parametrize("name", ["mnist-16", "mnist-10"])
def test_mnist_recipes_reach_their_figures(name):
    run = prepare(load_recipe(name))
    history = run.fit()
    (finding,) = check_expectations(run.expectations, history, run.evaluate())
    assert finding.met, str(finding)
    if name == "mnist-16":
        assert 0.878 <= finding.value <= 0.885


@pytest.mark.parametrize("n_hidden_layers", [1, 2, 5])
def test_gradients_of_deep_sigmoid_networks(n_hidden_layers):
    """Against finite differences of the loss, along random directions, in float64."""
    recipe = load_recipe("deep-sigmoid")
    recipe = replace(recipe, network={**recipe.network, "layer_sizes": [64, *[12] * n_hidden_layers, 10]})
    run = prepare(recipe, backend="numpy", dtype="float64", n_steps=1, learning_rate=1.0)
    net, x, y = run.network, run.table.X[:40], run.table.y[:40]
    arrays = [*net.weights, *net.biases]
    before = [array.copy() for array in arrays]
    net.fit(x, y, optimizer=SGD(1.0), n_steps=1)
    gradients = [old - new for old, new in zip(before, arrays, strict=True)]

    def loss_at(shift, directions):
        for array, old, direction in zip(arrays, before, directions, strict=True):
            array[...] = old + shift * direction
        return net.evaluate(x, y)["loss"]

    random = np.random.default_rng(0)
    for _ in range(5):
        directions = [random.standard_normal(array.shape) for array in arrays]
        slope = (loss_at(1e-5, directions) - loss_at(-1e-5, directions)) / 2e-5
        expected = sum((gradient * direction).sum() for gradient, direction in zip(gradients, directions, strict=True))
        assert slope == pytest.approx(expected, rel=1e-6, abs=1e-8)


# Files


def test_a_file_with_everything(recipe_file):
    recipe = load_recipe(
        recipe_file("""
        [recipe]
        title = "Mine"
        text = "One line\\nand another."
        [data]
        source = "file"
        path = "sub/my.csv"
        target = "price"
        held_out = 10
        [network]
        layer_sizes = ["auto", 8, 4, "auto"]
        activation = ["tanh", "relu"]
        output = "identity"
        loss = "squared_error"
        bias = false
        reduction = "sum"
        l2 = 1
        input_scale = "1/16"
        dtype = "float64"
        precision = "fp32"
        init = "he_normal"
        [optimizer]
        name = "adam"
        learning_rate = { schedule = "cosine", initial = 0.1 }
        [training]
        n_epochs = 3
        batch_size = 32
        shuffle = false
        validation_fraction = 0.1
        validate_every = 2
        seed = 7
        [[expect]]
        metric = "r2"
        on = "held-out"
        at_least = 0.5
        [[expect]]
        metric = "loss"
        after_steps = 3
        within = [1, 2]
        """)
    )
    assert recipe.title == "Mine"
    assert recipe.text == "One line and another."
    directory = recipe.name.removesuffix("own.toml")
    assert recipe.data == {"path": f"{directory}sub/my.csv", "target": "price", "held_out": 10}
    assert recipe.network["input_scale"] == 0.0625
    assert isinstance(recipe.optimizer, Adam)
    assert recipe.optimizer.learning_rate.initial == 0.1
    assert recipe.seed == 7
    assert recipe.training == {
        "n_epochs": 3, "batch_size": 32, "shuffle": False, "validation_fraction": 0.1, "validate_every": 2,
    }  # fmt: skip
    assert recipe.expectations == (
        Expectation("r2", "held-out", low=0.5),
        Expectation("loss", "training", 1.0, 2.0, after_steps=3),
    )


def test_what_a_file_may_leave_out(recipe_file):
    recipe = load_recipe(recipe_file(minimal()))
    assert recipe.title == recipe.name
    assert recipe.optimizer == SGD()
    assert recipe.seed == 0  # the same in every process, or a killed run could not be resumed
    assert recipe.expectations == ()
    assert prepare(recipe, backend="numpy").fit().n_steps == 2


MISTAKES = {
    "not TOML": ("[data]\nsource = or-gate", r"not TOML: .*line 2"),
    "unknown table": (minimal(newtork=""), "unknown table 'newtork': did you mean 'network'"),
    "missing table": (minimal(network=None), r"\[network\] is missing"),
    "not a table": ("training = 3\n" + minimal(training=None), r"training must be a table, \[training\], got 3"),
    "unknown source": (minimal(data="source = 'mnits'"), "unknown source.*did you mean 'mnist'"),
    "no source": (minimal(data="held_out = 3"), "needs a source: one of digits, file, mnist"),
    "another source's option": (minimal(data="source = 'digits'\nnoise = 3"), r"key of \[data\] 'noise'"),
    "type of an option": (minimal(data="source = 'moons'\nn_samples = '3'"), "n_samples .*must be a whole number"),
    "unknown key": (minimal(network="layer_size = [1]"), "'layer_size': did you mean 'layer_sizes'"),
    "no sizes": (minimal(network="output = 'softmax'"), "needs layer_sizes"),
    "one size": (minimal(network="layer_sizes = [3]"), "needs features and outputs"),
    "auto in the middle": (minimal(network="layer_sizes = [3, 'auto', 1]"), 'only these two may be "auto"'),
    "scale": (with_network("input_scale = '1/0'"), 'fraction like "1/255", got'),
    "init without scheme": (with_network("init = {random_state = 0}"), "needs scheme and random_state"),
    "init from nowhere": (with_network("init = {scheme = 'normal', random_state = 'x'}"), 'or "data", got'),
    "init before zero": (with_network("init = {scheme = 'normal', random_state = -1}"), "from 0 to .*got -1"),
    "a list for a source": (minimal(data="source = ['digits']"), "unknown source"),
    "init key": (with_network("init = {schema = 'normal'}"), "did you mean 'scheme'"),
    "unknown optimizer": (minimal(optimizer="name = 'adma'"), "did you mean 'adam'"),
    "no first rate": (minimal(optimizer="learning_rate = {schedule = 'cosine'}"), "CosineDecay needs initial"),
    "a word for a switch": (minimal(optimizer="momentum = 0.9\nnesterov = 'no'"), "nesterov must be True or False"),
    "true for a number": (minimal(training="n_steps = true"), "n_steps .*must be a whole number, got True"),
    "no length": (minimal(training="seed = 1"), "says how long: n_steps or n_epochs"),
    "two lengths": (minimal(training="n_steps = 1\nn_epochs = 1"), "says how long: n_steps or n_epochs"),
    "metric": (minimal(expect="metric = 'acuracy'\nat_least = 1"), "did you mean 'accuracy'"),
    "part": (minimal(expect="metric = 'loss'\non = 'test'\nat_least = 1"), "'test': Choose from training, held-out"),
    "no range": (minimal(expect="metric = 'loss'"), "needs at_least, at_most, or within"),
    "two ranges": (minimal(expect="metric = 'loss'\nat_least = 1\nwithin = [1, 2]"), "not both"),
    "empty range": (minimal(expect="metric = 'loss'\nwithin = [2, 1]"), "the smaller one first"),
    "after steps": (minimal(expect="metric = 'r2'\nafter_steps = 1\nat_least = 1"), "after_steps"),
    "not tables": ("expect = [3]\n" + minimal(), "expect must be a table"),
}


@pytest.mark.parametrize(("text", "message"), MISTAKES.values(), ids=MISTAKES.keys())
def test_mistakes_are_told_with_the_file(recipe_file, text, message):
    path = recipe_file(text)
    with pytest.raises(FileFormatError if "not TOML" in message else SpecError, match=message) as caught:
        load_recipe(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_recipes_that_do_not_exist(tmp_path):
    with pytest.raises(
        SpecError, match=r"unknown recipe 'mnist16': did you mean 'mnist-16'\?.*\.toml file of your own"
    ):
        load_recipe("mnist16")
    with pytest.raises(DataError, match=r"missing\.toml: no such file; shipped recipes are deep-sigmoid, digits"):
        load_recipe(tmp_path / "missing.toml")
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(DataError, match="cannot be read"):
        load_recipe(tmp_path / "folder.toml")
    (tmp_path / "latin.toml").write_bytes("# ä".encode("latin-1"))
    with pytest.raises(FileFormatError, match="not text in UTF-8"):
        load_recipe(tmp_path / "latin.toml")


def test_what_only_the_data_can_tell(recipe_file):
    wrong = minimal(network='layer_sizes = [5, 3, "auto"]')
    with pytest.raises(DataError, match=r'or-gate has 2 features and the network takes 5.*"auto"'):
        prepare(load_recipe(recipe_file(wrong)), backend="numpy")
    from_data = with_network('init = { scheme = "normal", random_state = "data" }')
    with pytest.raises(SpecError, match=r"own\.toml: .*or-gate are not"):
        prepare(load_recipe(recipe_file(from_data)), backend="numpy")
    unknown = with_network('activation = "rleu"')
    with pytest.raises(SpecError, match=r"own\.toml: unknown activation 'rleu': did you mean 'relu'"):
        prepare(load_recipe(recipe_file(unknown)), backend="numpy")


# Own data, and changes on the command line


def own_data(directory, y, n_features=3):
    x = np.random.default_rng(0).normal(size=(len(y), n_features))
    np.savez(directory / "own.npz", X=x, y=y)
    return directory / "own.npz"


@pytest.mark.parametrize(
    ("output", "y", "n_outputs"),
    [
        ("softmax", np.arange(30) % 4, 4),
        ("softmax", np.array(["b", "a", "c"] * 10), 3),
        ("softmax", 1 + np.arange(30) % 3, 3),  # not numbered from zero
        ("softmax", np.array([-1, 1] * 15), 2),
        ("softmax", np.eye(3)[np.arange(30) % 3], 3),
        ("sigmoid", np.arange(30) % 2, 1),
        ("sigmoid", np.array(["no", "yes"] * 15), 1),
        ("sigmoid", np.arange(30) % 3, 3),
        ("sigmoid", np.ones((30, 5)), 5),
        ("identity", np.linspace(0, 1, 30), 1),
        ("identity", np.ones((30, 2)), 2),
        ("exp", np.arange(30), 1),
    ],
)
def test_sizes_come_from_the_data(tmp_path, recipe_file, output, y, n_outputs):
    path = recipe_file(with_network(f'output = "{output}"'))
    run = prepare(load_recipe(path), data=own_data(tmp_path, y), backend="numpy")
    assert run.network.spec.layer_sizes == (3, 3, n_outputs)
    run.fit()
    if y.ndim == 1 and output in ("softmax", "sigmoid"):
        assert set(run.network.classes.astype(str)) == set(np.unique(y).astype(str))


@pytest.mark.parametrize("output", ["softmax", "sigmoid"])
@pytest.mark.parametrize("y", [np.zeros(30, int), np.full(30, 7), np.array(["ham"] * 30)], ids=["0", "7", "ham"])
def test_a_single_class_is_told(tmp_path, recipe_file, output, y):
    recipe = load_recipe(recipe_file(with_network(f'output = "{output}"')))
    with pytest.raises(DataError, match=rf"own\.npz: the target holds one class only, {y[0].item()!r}, and .* add"):
        prepare(recipe, data=own_data(tmp_path, y), backend="numpy")


def test_values_for_a_softmax_are_told(tmp_path, recipe_file):
    recipe = load_recipe(recipe_file(minimal()))
    with pytest.raises(DataError, match=r"the target holds values, such as 0\.25, and a softmax .*--target.*identity"):
        prepare(recipe, data=own_data(tmp_path, np.array([1, 0.25, 2] * 10)), backend="numpy")


@pytest.mark.parametrize(
    ("y", "y_test", "unknown"),
    [(["a", "b"], ["a", "c"], "'c'"), ([5, 6], [5, 7], "'7'"), (["a", "b"], ["c", "d"], "'c'")],
)
@pytest.mark.parametrize("n_outputs", ['"auto"', 3])
def test_a_class_that_is_held_out_alone_is_told(tmp_path, recipe_file, y, y_test, unknown, n_outputs):
    np.savez(tmp_path / "own.npz", X=np.ones((2, 3)), y=y, X_test=np.ones((2, 3)), y_test=y_test)
    recipe = load_recipe(recipe_file(minimal(network=f'layer_sizes = ["auto", 3, {n_outputs}]')))
    with pytest.raises(DataError, match=rf"own\.npz: the held-out part has samples of class {unknown}, and"):
        prepare(recipe, data=tmp_path / "own.npz", backend="numpy")


def test_a_number_that_is_held_out_alone_has_its_output(tmp_path, recipe_file):
    """Classes that count from zero have their outputs anyway, and what is not learned counts as wrong."""
    np.savez(tmp_path / "own.npz", X=np.ones((2, 3)), y=[0, 1], X_test=np.ones((2, 3)), y_test=[0, 2])
    run = prepare(load_recipe(recipe_file(minimal())), data=tmp_path / "own.npz", backend="numpy")
    run.fit()
    assert run.network.spec.n_outputs == 3
    assert run.evaluate()["held-out"]["accuracy"] <= 0.5


def test_a_recipes_path_is_relative_to_its_file(tmp_path, recipe_file, monkeypatch):
    own_data(tmp_path, np.arange(30) % 2)
    path = recipe_file(minimal(data='source = "file"\npath = "own.npz"'))
    monkeypatch.chdir("/")
    assert len(prepare(load_recipe(path), backend="numpy").table.y) == 30


def test_expectations_belong_to_the_recipe_as_written(tmp_path):
    recipe = load_recipe("moons")
    assert prepare(recipe, backend="numpy", device="cpu", n_threads=1).expectations == recipe.expectations
    for change in ({"n_steps": 5}, {"n_epochs": 5}, {"seed": 3}, {"learning_rate": 0.1}, {"batch_size": 7}):
        assert prepare(recipe, backend="numpy", **change).expectations == ()
    assert prepare(recipe, data=own_data(tmp_path, np.arange(30) % 2, 2), backend="numpy").expectations == ()


def test_changes_reach_the_training():
    run = prepare(
        load_recipe("digits"), backend="numpy", dtype="float64", seed=5, n_steps=3, batch_size=50, learning_rate=0.5
    )
    assert run.network.spec.dtype == "float64"
    assert run.fit_arguments["optimizer"] == Adam(0.5)
    assert "n_epochs" not in run.fit_arguments
    assert (run.fit_arguments["n_steps"], run.fit_arguments["batch_size"]) == (3, 50)
    assert run.fit_arguments["X_val"] is run.table.X_test
    assert run.fit().n_steps == 3
    again = prepare(load_recipe("digits"), backend="numpy", dtype="float64", seed=6)
    assert not np.array_equal(again.network.weights[0], run.network.weights[0])


def test_weights_drawn_transposed_from_the_legacy_generator():
    run = prepare(load_recipe("moons"), backend="numpy")
    random = np.random.RandomState(0)
    for weight, (fan_in, fan_out) in zip(run.network.weights, [(2, 5), (5, 1)], strict=True):
        assert np.array_equal(weight, (random.randn(fan_out, fan_in) / np.sqrt(fan_in)).T)
    assert not any(bias.any() for bias in run.network.biases)


# Expectations


@pytest.mark.parametrize(
    ("expectation", "value", "met"),
    [
        (Expectation("accuracy", "training", 0.9), 0.9, True),
        (Expectation("accuracy", "training", 0.9), 0.89, False),
        (Expectation("loss", "training", high=0.5), 0.51, False),
        (Expectation("loss", "training", 1, 2), 2.0, True),
        (Expectation("loss", "training", high=0.5), float("nan"), False),
    ],
)
def test_ranges(expectation, value, met):
    finding = Finding(expectation, value)
    assert finding.met is met
    assert str(finding).startswith("reached" if met else "MISSED")


def test_figures_are_looked_up_where_they_belong():
    history = History(loss=[3.0, 2.0, 1.0])
    figures = {"training": {"loss": 0.5, "accuracy": 0.7}}
    expectations = (
        Expectation("loss", "training", high=1.0),
        Expectation("loss", "training", high=2.0, after_steps=1),
        Expectation("loss", "training", high=2.0, after_steps=3),  # beyond what was recorded
        Expectation("accuracy", "held-out", low=0.5),  # nothing was held out
    )
    assert [finding.value for finding in check_expectations(expectations, history, figures)] == [0.5, 2.0]
    by_epoch = History(loss=[3.0, 2.0, 1.0], steps_per_entry=10)
    assert len(check_expectations(expectations, by_epoch, figures)) == 1


def test_an_expectation_says_what_it_expects():
    assert str(Expectation("accuracy", "held-out", 0.95)) == "held-out accuracy at least 0.95"
    assert str(Expectation("loss", "training", 955.5, 956, 1)) == "training loss after 1 step between 955.5 and 956"
