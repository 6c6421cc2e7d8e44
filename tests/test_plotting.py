"""Pictures hold the data they should, say what they should, and touch nothing of pyplot's."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.markers import MarkerStyle

from fastnet import SGD
from fastnet.datasets import Table
from fastnet.errors import DataError, MissingPackageError
from fastnet.history import History
from fastnet.network import Network
from fastnet.plotting import (
    history_figure,
    plot_boundary,
    plot_confusion,
    plot_history,
    plot_images,
    plot_predictions,
    save_pictures,
)


def curves_of(ax):
    return {line.get_label(): (line.get_xdata().tolist(), line.get_ydata().tolist()) for line in ax.lines}


# Curves


def test_curves_of_a_full_batch_start_before_the_first_step():
    history = History(
        loss=[1.0, 0.9, 0.8, 0.7],
        accuracy=[0.1, 0.2, 0.3, 0.4],
        validation_loss=[0.85, 0.75],
        validation_accuracy=[0.25, 0.45],
        validation_steps=[2, 4],
    )
    loss, accuracy = history.plot()
    assert curves_of(loss) == {"training": ([0, 1, 2, 3], history.loss), "held out": ([2, 4], [0.85, 0.75])}
    assert curves_of(accuracy)["held out"] == ([2, 4], [0.25, 0.45])
    assert loss.get_xlabel() == "step"
    assert loss.get_ylabel() == "loss (nats)"
    assert loss.get_yscale() == "linear"
    assert loss.get_title(loc="left") == "Loss: from 1 to 0.7"
    assert accuracy.get_title(loc="left") == "Accuracy: 45.0% of held-out data right"
    assert loss.get_legend() is not None


def test_curves_of_mini_batches_count_epochs():
    history = History(
        loss=[1.0, 0.5, 0.05], steps_per_entry=8, n_steps=24, validation_loss=[0.9, 0.4], validation_steps=[8, 24]
    )
    (ax,) = history_figure(history).axes  # nothing to count: one panel
    assert curves_of(ax) == {"training": ([1, 2, 3], history.loss), "held out": ([1, 3], [0.9, 0.4])}
    assert ax.get_xlabel() == "epoch"
    assert ax.get_yscale() == "log"  # down to a tenth and below


@pytest.mark.parametrize("loss", [[1.0, 0.0], [1.0, -0.5]])
def test_no_logarithm_of_what_is_not_positive(loss):
    assert history_figure(History(loss=loss)).axes[0].get_yscale() == "linear"


def test_curves_on_axes_that_are_given():
    loss, accuracy = Figure().subplots(1, 2)
    history = History(loss=[1.0, 0.5], accuracy=[0.5, 0.6])
    assert plot_history(history, [loss, accuracy]) == [loss, accuracy]
    assert curves_of(accuracy)["training"][1] == [0.5, 0.6]
    single = Figure().subplots()
    assert plot_history(history, single) == [single]
    assert curves_of(single)["training"][1] == [1.0, 0.5]


def test_an_empty_history_is_told():
    with pytest.raises(DataError, match="nothing to draw before the first step"):
        plot_history(History())


# Labels


def test_confusion_counts_every_pair():
    random = np.random.default_rng(0)
    true, predicted = random.choice(["ant", "bee", "cow"], 200), random.choice(["ant", "bee", "cow"], 200)
    ax = plot_confusion(true, predicted, described_as="animals")
    ax.figure.draw_without_rendering()
    names = [label.get_text() for label in ax.get_xticklabels()]
    assert names == [label.get_text() for label in ax.get_yticklabels()] == ["ant", "bee", "cow"]
    found = {
        (names[round(y)], names[round(x)]): int(text.get_text()) for text in ax.texts for x, y in [text.get_position()]
    }
    expected = {(t, p): int(((true == t) & (predicted == p)).sum()) for t in names for p in names}
    assert found == expected
    assert ax.get_ylabel() == "true class"
    assert ax.get_title(loc="left") == f"{(true == predicted).sum()} of 200 animals right"


def test_confusion_shades_mistakes_apart():
    true = np.array([0] * 100 + [1] * 100)
    predicted = np.array([0] * 98 + [1] * 2 + [1] * 99 + [0])
    right, wrong = plot_confusion(true, predicted).images
    assert np.array_equal(np.ma.filled(right.get_array(), -1), [[0.98, -1], [-1, 0.99]])
    assert np.array_equal(np.ma.filled(wrong.get_array(), -1), [[-1, 0.02], [0.01, -1]])
    assert wrong.get_clim() == (0, 0.02)  # two of a hundred are as dark as can be
    assert right.get_clim() == (0, 1)


def test_confusion_of_many_classes_leaves_numbers_out():
    labels = np.arange(50)
    ax = plot_confusion(labels, labels)
    assert not ax.texts
    assert len(ax.get_xticks()) <= 20
    assert ax.images[0].get_array().shape == (50, 50)


def test_images_show_mistakes_first():
    random = np.random.default_rng(0)
    x = random.integers(0, 256, (20, 6), np.uint8)
    true = np.arange(20) % 3
    predicted = true.copy()
    wrong = [4, 9, 15, 17, 19]
    predicted[wrong] = (true[wrong] + 1) % 3
    figure = plot_images(x, true, predicted, (2, 3), n_rows=2, n_columns=4, described_as="things")
    shown = [4, 9, 15, 17, 0, 1, 2, 3]  # mistakes on half of the grid, in their order, then the first that are right
    for ax, sample in zip(figure.axes, shown, strict=True):
        assert np.array_equal(ax.images[0].get_array(), x[sample].reshape(2, 3))
        edge = to_hex(ax.spines["left"].get_edgecolor())
        if sample in wrong:
            assert ax.get_title() == f"\N{BALLOT X} {predicted[sample]}, is {true[sample]}"
            assert edge.upper() == "#D55E00"
        else:
            assert ax.get_title() == f"\N{CHECK MARK} {true[sample]}"
            assert edge.upper() != "#D55E00"
    assert figure.get_suptitle() == "15 of 20 things right; 4 of the 5 mistakes come first"


@pytest.mark.parametrize(("n_wrong", "heading"), [(0, "3 of 3 images right"), (3, "0 of 3 images right; 3 of the 3")])
def test_images_fill_no_more_cells_than_there_are(n_wrong, heading):
    true = np.zeros(3, int)
    predicted = np.where(np.arange(3) < n_wrong, 1, 0)
    figure = plot_images(np.zeros((3, 4)), true, predicted, (2, 2), n_rows=1, n_columns=5)
    assert sum(bool(ax.images) for ax in figure.axes) == 3
    assert figure.get_suptitle().startswith(heading)


# Points


class Halves:
    """Takes the right half-plane for class "r", the other for "l": the border is x1 = 0.5."""

    classes = np.array(["l", "r"])

    def predict_proba(self, X):
        right = 1 / (1 + np.exp(-4 * (X[:, 0] - 0.5)))
        return np.column_stack([1 - right, right])

    def predict(self, X):
        return self.classes[self.predict_proba(X).argmax(axis=1)]


PLANE = Table(
    "plane",
    X=np.array([[0.0, 0.0], [1.0, 1.0], [0.9, 0.2], [0.1, 0.8]]),
    y=np.array(["l", "r", "l", "l"]),
    X_test=np.array([[0.2, 0.3], [0.3, 0.9]]),
    y_test=np.array(["l", "r"]),
    feature_names=("width", "height"),
)


def borders_of(ax):
    """Vertices (n, 2) of the lines between classes; they are the contours at a single height."""
    lines = [c for c in ax.collections if len(getattr(c, "levels", [])) == 1]
    return np.concatenate([path.vertices for line in lines for path in line.get_paths()] or [np.empty((0, 2))])


def points_of(ax):
    return {
        dots.get_label(): np.asarray(dots.get_offsets()).tolist() for dots in ax.collections if len(dots.get_offsets())
    }


def test_boundary_lies_where_the_network_changes_its_mind():
    ax = plot_boundary(Halves(), PLANE)
    vertices = borders_of(ax)
    assert vertices[:, 0] == pytest.approx(0.5, abs=1e-3)
    low, high = ax.get_ylim()
    assert vertices[:, 1].min() == pytest.approx(low)
    assert vertices[:, 1].max() == pytest.approx(high)
    assert low < 0
    assert high > 1


def test_boundary_shows_all_points_and_rings_the_wrong_ones():
    ax = plot_boundary(Halves(), PLANE)
    points = points_of(ax)
    assert points["class l, training"] == [[0, 0], [0.9, 0.2], [0.1, 0.8]]
    assert points["class r, training"] == [[1, 1]]
    assert points["class l, held-out"] == [[0.2, 0.3]]
    assert points["class r, held-out"] == [[0.3, 0.9]]
    assert points["wrong, training"] == [[0.9, 0.2]]
    assert points["wrong, held-out"] == [[0.3, 0.9]]
    assert ax.get_title(loc="left") == "3 of 4 training points right, 1 of 2 held-out points right"
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("width", "height")
    markers = {
        dots.get_label(): len(dots.get_paths()[0].vertices) for dots in ax.collections if len(dots.get_offsets())
    }
    square = len(MarkerStyle("D").get_path().vertices)
    assert markers["class l, held-out"] == square != markers["class l, training"]


def test_boundary_of_three_classes():
    class Thirds(Halves):
        classes = np.array([0, 1, 2])

        def predict_proba(self, X):
            third = np.clip((3 * X[:, 0]).astype(int), 0, 2)
            return np.eye(3)[third]

    x = np.random.default_rng(0).uniform(size=(30, 2))
    ax = plot_boundary(Thirds(), Table("thirds", x, np.clip((3 * x[:, 0]).astype(int), 0, 2)))
    assert np.unique(borders_of(ax)[:, 0].round(2)) == pytest.approx([0.33, 0.67], abs=0.01)


def test_a_network_of_one_opinion_has_no_boundary():
    class Sure(Halves):
        def predict_proba(self, X):
            return np.tile([0.9, 0.1], (len(X), 1))

    ax = plot_boundary(Sure(), PLANE)
    assert "class l, training" in points_of(ax)
    assert len(borders_of(ax)) == 0


@pytest.mark.parametrize(
    ("network", "table"),
    [
        (Halves(), Table("flat", np.zeros((2, 3)), np.array(["l", "r"]))),
        (SimpleNamespace(classes=None), PLANE),
    ],
)
def test_boundary_needs_two_features_and_classes(network, table):
    with pytest.raises(DataError, match="classifiers of two features"):
        plot_boundary(network, table)


def test_predictions_few_and_many():
    true = np.linspace(0, 1, 50)
    ax = plot_predictions(true, true**2, described_as="prices")
    assert np.asarray(ax.collections[0].get_offsets()).tolist() == np.column_stack([true, true**2]).tolist()
    r2 = 1 - ((true - true**2) ** 2).sum() / ((true - true.mean()) ** 2).sum()
    assert ax.get_title(loc="left") == f"50 prices, R² = {r2:.3f}"
    line = ax.lines[0]
    assert line.get_slope() == 1
    assert line.get_xy1()[0] == line.get_xy1()[1]

    many = np.random.default_rng(0).uniform(size=(6000, 2))
    counted = plot_predictions(many[:, 0], many[:, 1]).collections[0]
    assert counted.get_array().sum() == 6000


# All together


def train(layer_sizes, table, **options):
    net = Network(layer_sizes, backend="numpy", seed=0, **options)
    return net, net.fit(table.X, table.y, optimizer=SGD(0.1), n_steps=3)


RANDOM = np.random.default_rng(0)
PROBLEMS = {
    "pictures": (
        [6, 4, 3],
        Table("pictures", RANDOM.uniform(size=(30, 6)), np.arange(30) % 3, image_shape=(2, 3)),
        {},
        ["curves", "confusion", "images"],
    ),
    "one-hot, two features": (
        [2, 4, 3],
        Table("plane", RANDOM.uniform(size=(30, 2)), np.eye(3)[np.arange(30) % 3]),
        {},
        ["curves", "confusion", "boundary"],
    ),
    "strings, two features": ([2, 1], PLANE, {"output": "sigmoid"}, ["curves", "confusion", "boundary"]),
    "values": (
        [3, 4, 1],
        Table("values", RANDOM.uniform(size=(30, 3)), np.linspace(0, 1, 30)),
        {"output": "identity"},
        ["curves", "predictions"],
    ),
    "several labels at once": (
        [3, 4, 2],
        Table("labels", RANDOM.uniform(size=(30, 3)), np.ones((30, 2))),
        {"output": "sigmoid"},
        ["curves"],
    ),
}


@pytest.mark.parametrize(("layer_sizes", "table", "options", "names"), PROBLEMS.values(), ids=PROBLEMS.keys())
def test_pictures_suit_the_problem(tmp_path, layer_sizes, table, options, names):
    net, history = train(layer_sizes, table, **options)
    directory = tmp_path / "new" / "folder"
    paths = save_pictures(directory, net, history, table)
    assert paths == [directory / f"{name}.png" for name in names]
    for path in paths:
        picture = imread(path)
        assert min(picture.shape[:2]) > 300
        assert picture.std() > 0.01  # not blank


def test_pictures_go_nowhere_they_cannot(tmp_path):
    net, history = train([2, 1], PLANE, output="sigmoid")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="file/sub: pictures cannot be written there"):
        save_pictures(tmp_path / "file" / "sub", net, history, PLANE)


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch):
    for name, draw in (("matplotlib.pyplot", plot_history), ("matplotlib.figure", history_figure)):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(MissingPackageError, match=r"pip install 'fastnet\[plot\]'"):
            draw(History(loss=[1.0]))


def test_a_history_plots_where_pyplot_shows_it():
    script = """
import matplotlib
matplotlib.use("Agg")
import matplotlib.pyplot as plt
from fastnet.history import History
axes = History(loss=[1.0, 0.5], accuracy=[0.1, 0.9]).plot()
assert plt.get_fignums() == [1] and list(plt.gcf().axes) == axes and len(axes) == 2
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


def test_pictures_leave_pyplot_alone():
    script = """
import sys
from fastnet.history import History
import fastnet.plotting
assert "matplotlib" not in sys.modules, "loaded before it is needed"
fastnet.plotting.history_figure(History(loss=[1.0, 0.5])).savefig(sys.stdout.buffer, format="png")
assert "matplotlib.pyplot" not in sys.modules, "pyplot"
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.startswith(b"\x89PNG")
