"""Pictures hold the data they should, say what they should, and touch nothing of pyplot's."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.markers import MarkerStyle
from matplotlib.text import Text

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


def written_along(axis):
    """The numbers or names that can be seen beside an axis; they must not overlap."""
    axis.figure.draw_without_rendering()
    low, high = sorted(axis.get_view_interval())
    ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
    labels = [tick.label1 for tick in ticks if low <= tick.get_loc() <= high and tick.label1.get_text()]
    for one, other in itertools.combinations(labels, 2):
        assert apart(one, other), (one, other)
    return [label.get_text() for label in labels]


def apart(one, other):
    """Whether two texts of the same slant have room of their own."""
    if one.get_rotation():  # their frames overlap, their lines do not
        return abs(one.get_position()[0] - other.get_position()[0]) > 0.5
    return not one.get_window_extent().overlaps(other.get_window_extent())


def inside(figure, text):
    """Whether a text is not cut off at the edge of its figure."""
    box, page = text.get_window_extent(), figure.bbox
    return page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1


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
    assert loss.get_yscale() == "linear"
    assert loss.get_title(loc="left") == "Loss: from 1.000 to 0.7000"
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


def test_an_epoch_that_is_cut_short_ends_with_its_last_step():
    history = History(
        loss=[1.0, 0.9, 0.8], steps_per_entry=8, n_steps=20, validation_loss=[0.9, 0.7], validation_steps=[8, 20]
    )
    (ax,) = history_figure(history).axes
    assert curves_of(ax)["training"][0] == [1, 2, 2.5]
    assert curves_of(ax)["held out"][0] == [1, 2.5]


@pytest.mark.parametrize(
    ("loss", "label"),
    [
        ("cross_entropy", "loss (nats)"),
        ("poisson", "loss (nats)"),
        ("gamma", "loss (nats)"),
        ("squared_error", "loss"),
        ("absolute_error", "loss"),
        (None, "loss"),
    ],
)
def test_nats_are_the_unit_of_logarithms_only(loss, label):
    history = History(loss=[1.0, 0.5])
    assert history_figure(history, loss=loss).axes[0].get_ylabel() == label
    (ax,) = plot_history(history, Figure().subplots(), loss=loss)
    assert ax.get_ylabel() == label


@pytest.mark.parametrize(
    ("first", "last", "text"),
    [
        (0.844, 0.29934, "from 0.8440 to 0.2993"),
        (3810.2, 832.1, "from 3810 to 832.1"),
        (12.0, 1e-6, "from 12.00 to 1.000e-06"),
    ],
)
def test_both_ends_of_the_loss_have_as_many_digits(first, last, text):
    assert history_figure(History(loss=[first, last])).axes[0].get_title(loc="left") == f"Loss: {text}"


@pytest.mark.parametrize(
    ("first", "last", "numbers"),
    [
        (2.0, 0.15, ["0.2", "0.5", "1", "2"]),
        (2.0, 0.015, ["0.02", "0.05", "0.1", "0.2", "0.5", "1", "2"]),
        (2.0, 2e-4, ["0.001", "0.01", "0.1", "1"]),
    ],
)
def test_a_logarithmic_scale_has_plain_numbers(first, last, numbers):
    figure = history_figure(History(loss=[first, last]))
    assert written_along(figure.axes[0].yaxis) == numbers


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


@pytest.mark.parametrize(
    "names",
    [
        ["no", "yes"],
        ["Iris-setosa", "Iris-versicolor", "Iris-virginica"],
        ["ankle boot", "bag", "coat", "dress", "pullover", "sandal", "shirt", "sneaker", "trouser"],
    ],
)
def test_confusion_has_room_for_names_and_title(names):
    labels = np.repeat(names, 10_000)
    ax = plot_confusion(labels, labels, described_as="held-out samples")
    assert written_along(ax.xaxis) == written_along(ax.yaxis) == names
    assert any(label.get_rotation() for label in ax.get_xticklabels()) == (names[0] != "no")
    assert all(inside(ax.figure, text) for text in ax.findobj(Text))


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


@pytest.mark.parametrize(
    ("n_wrong", "n_columns", "order"),
    [
        (0, 8, ""),
        (1, 8, "; the mistake comes first"),
        (1, 1, ""),  # there is room for one image, and a right one takes it
        (2, 8, "; both mistakes come first"),
        (4, 8, "; all 4 mistakes come first"),
        (5, 8, "; 4 of the 5 mistakes come first"),
        (5, 2, "; 1 of the 5 mistakes comes first"),
        (20, 8, "; 8 of the 20 mistakes come first"),
    ],
)
def test_images_say_how_many_mistakes_come_first(n_wrong, n_columns, order):
    true = np.zeros(20, int)
    predicted = np.where(np.arange(20) < n_wrong, 1, 0)
    figure = plot_images(np.zeros((20, 4)), true, predicted, (2, 2), n_rows=1, n_columns=n_columns)
    assert figure.get_suptitle() == f"{20 - n_wrong} of 20 images right{order}"


def test_images_have_room_for_names():
    true, predicted = np.array(["ankle boot", "T-shirt", "bag"]), np.array(["pullover", "sneaker", "bag"])
    figure = plot_images(np.zeros((3, 4)), true, predicted, (2, 2), n_rows=1, n_columns=3)
    figure.draw_without_rendering()
    titles = [ax.title for ax in figure.axes]
    assert titles[0].get_text().split() == ["\N{BALLOT X}", "pullover,", "is", "ankle", "boot"]
    assert all(apart(one, other) for one, other in itertools.combinations(titles, 2))
    assert all(inside(figure, text) for text in titles)


@pytest.mark.parametrize(("n_wrong", "heading"), [(0, "3 of 3 images right"), (3, "0 of 3 images right; all 3")])
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
    assert points["wrong"] == [[0.9, 0.2], [0.3, 0.9]]
    assert ax.get_title(loc="left") == "3 of 4 training points right, 1 of 2 held-out points right"
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("width", "height")
    markers = {
        dots.get_label(): len(dots.get_paths()[0].vertices) for dots in ax.collections if len(dots.get_offsets())
    }
    square = len(MarkerStyle("D").get_path().vertices)
    assert markers["class l, held-out"] == square != markers["class l, training"]


def test_the_legend_of_a_boundary_names_every_mark_once():
    legend = plot_boundary(Halves(), PLANE).get_legend()
    assert [text.get_text() for text in legend.get_texts()] == [
        "class l, training", "class r, training", "wrong",  # one column
        "class l, held-out", "class r, held-out",
    ]  # fmt: skip


def test_nothing_wrong_is_nothing_to_explain():
    x = np.array([[0.0, 0.0], [1.0, 1.0]])
    legend = plot_boundary(Halves(), Table("right", x, np.array(["l", "r"]))).get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["class l, training", "class r, training"]


@pytest.mark.parametrize("n_classes", [2, 3, 10])
def test_the_legend_of_a_boundary_leaves_the_axis_its_label(n_classes):
    class Slices(Halves):
        classes = np.arange(n_classes)

        def predict_proba(self, X):
            return np.eye(n_classes)[np.clip((n_classes * X[:, 0]).astype(int), 0, n_classes - 1)]

    x = np.random.default_rng(0).uniform(size=(100, 2))
    y = Slices().predict(x)
    ax = plot_boundary(Slices(), Table("slices", x[:70], y[:70], x[70:], y[70:]))
    ax.figure.draw_without_rendering()
    assert apart(ax.xaxis.label, ax.get_legend())
    assert inside(ax.figure, ax.get_legend())
    assert ax.get_window_extent().height > 0.4 * ax.figure.bbox.height


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


def test_predictions_that_are_all_alike_can_be_seen():
    true = np.linspace(0, 2, 5000)
    cells = plot_predictions(true, np.full(5000, 1.0)).collections[0]
    width, height = np.ptp(cells.get_paths()[0].vertices, axis=0)
    assert height == pytest.approx(width, rel=0.5)  # of hexagons, over the same range both ways


def test_predictions_of_a_constant():
    ax = plot_predictions(np.ones(2000), np.linspace(0, 2, 2000))
    assert ax.collections[0].get_array().sum() == 2000


@pytest.mark.parametrize(("n_samples", "largest"), [(100, 800_000), (5000, 600_000)])
def test_large_values_do_not_run_into_each_other(n_samples, largest):
    true = np.linspace(0, largest, n_samples)
    assert len(written_along(plot_predictions(true, true).xaxis)) >= 3


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


@pytest.mark.parametrize(("loss", "label"), [("cross_entropy", "loss (nats)"), ("squared_error", "loss")])
def test_pictures_of_a_network_know_its_loss(tmp_path, monkeypatch, loss, label):
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path: drawn.append(figure))
    net, history = train([2, 1], PLANE, output="sigmoid", loss=loss)
    save_pictures(tmp_path, net, history, PLANE)
    assert drawn[0].axes[0].get_ylabel() == label


def test_pictures_go_nowhere_they_cannot(tmp_path):
    net, history = train([2, 1], PLANE, output="sigmoid")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="file/sub: pictures cannot be written there"):
        save_pictures(tmp_path / "file" / "sub", net, history, PLANE)


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch):
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    (requirement,) = project["optional-dependencies"]["plot"]
    for name, draw in (("matplotlib.pyplot", plot_history), ("matplotlib.figure", history_figure)):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(MissingPackageError, match=re.escape(f"pip install '{requirement}'")):
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
