"""`Network`: a multilayer perceptron that trains on whichever backend it is told to use."""

# Legend: N samples, D features, C outputs.

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastnet import persistence, reference
from fastnet.backends.array_backend import NumpyNamespace
from fastnet.backends.registry import Choice, choose_backend
from fastnet.backends.work import Work
from fastnet.callbacks import Callback, as_callbacks
from fastnet.data import Dataset, make_dataset, split_validation, validate_samples
from fastnet.errors import SpecError, require_count
from fastnet.history import History
from fastnet.initializers import RandomSource, draw_seed, initialize, random_source
from fastnet.optimizers import SGD, Optimizer
from fastnet.parameters import ParameterLayout, Parameters
from fastnet.run_settings import RunSettings
from fastnet.spec import NetworkSpec, TrainingSpec, describe_network
from fastnet.targets import TargetCoding
from fastnet.training import TrainingRun

__all__ = ["Network"]

CallbackLike = Callback | Callable[[TrainingRun], "bool | None"]


class Network:
    """A multilayer perceptron.

    Parameters
    ----------
    layer_sizes : sequence of int
        Features, hidden widths, outputs.
    activation : str or sequence of str
        "identity", "relu", "sigmoid", "tanh", "leaky_relu", "elu", "gelu" or "silu": one for all hidden layers, or one
        for each.
    output : {"softmax", "sigmoid", "identity", "exp"}
        Softmax for one class per sample, sigmoid for binary and multilabel problems, identity for regression, exp for
        counts and for positive amounts.
    loss : {"cross_entropy", "squared_error", "absolute_error", "poisson", "gamma"}, optional
        By default the one that belongs to the output. The absolute error goes with identity, half the Poisson deviance
        (of counts) and half the gamma deviance (of amounts above zero) go with exp.
    bias : bool
        Whether layers have a bias.
    reduction : {"mean", "sum"}
        Over samples. Within a sample losses are summed over outputs; the squared error is half the squared difference.
    l2 : float
        Adds ``l2 / 2`` times the sum of squared weights to the loss.
    l2_averaged : bool
        Divide that penalty by the number of samples of the step, or the sum of their weights: scikit-learn's ``alpha``.
    input_scale : float
        Multiplies every feature; ``1/255`` lets ``uint8`` pixels be used as they are.
    dtype : {"float32", "float64"}
    precision : {"fp32", "tf32"}
        "tf32" permits a GPU to round the factors of float32 matrix products to 10 bits after the leading one, which its
        tensor cores then multiply sooner. "fp32" is exact to float32's rounding on every device.
    init, bias_init : str or sequence of arrays
        "glorot_uniform", "he_normal", "normal" (variance one over fan-in), "uniform(-0.5, 0.5)", "normal(0, 1)",
        "zeros"; or one array per layer, (fan_in, fan_out) for weights and (fan_out,) for biases.
    backend : {"auto", "numpy", "numba", "cupy"} or the name of a plug-in
        "auto" reads ``FASTNET_BACKEND``, and without it takes the first of cupy, numba and numpy that can run here. A
        fit or prediction that a CPU is sooner done with than a GPU is not for cupy then, unless `device` asks for it.
    device : {"auto", "cpu", "cuda", "cuda:1", ...}
    n_threads : int, optional
        CPU threads; by default ``FASTNET_NUM_THREADS``, or what the backend thinks best. Results of numba do not depend
        on it; NumPy's do in the last bits, as its BLAS shares sums out among threads.
    seed : int, Generator or RandomState, optional
        Draws initial weights, the order of samples, and what is split off for validation. None draws a seed.

    Attributes
    ----------
    spec : NetworkSpec
    weights : list of ndarray (fan_in, fan_out)
        Views: writing to them changes the network.
    biases : list of ndarray (fan_out,)
        Likewise; empty with ``bias=False``.
    history : History or None
        Of the latest fit.
    feature_names : tuple of str
        Of the columns that it is trained on, where they have names; saved with the network. `fastnet predict` finds the
        columns of a file by them.

    Raises
    ------
    SpecError
        An argument has no meaning, or two of them do not go together.
    DataError
        Explicit initial arrays do not fit.
    BackendUnavailableError
        A backend asked for by name cannot run here.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    >>> net = Network([2, 8, 1], activation="tanh", output="sigmoid", backend="numpy", seed=0)
    >>> history = net.fit(X, [0, 1, 1, 0], optimizer=SGD(learning_rate=1.0), n_steps=500)
    >>> net.predict(X)
    array([0, 1, 1, 0])
    """

    def __init__(
        self,
        layer_sizes: Sequence[int],
        *,
        activation: str | Sequence[str] = "relu",
        output: str = "softmax",
        loss: str | None = None,
        bias: bool = True,
        reduction: str = "mean",
        l2: float = 0.0,
        l2_averaged: bool = False,
        input_scale: float = 1.0,
        dtype: str = "float32",
        precision: str = "fp32",
        init: str | Sequence[ArrayLike] = "glorot_uniform",
        bias_init: str | Sequence[ArrayLike] = "zeros",
        backend: str | None = "auto",
        device: str = "auto",
        n_threads: int | None = None,
        seed: int | RandomSource | None = None,
    ) -> None:
        self.spec = describe_network(
            layer_sizes, activation, output, loss, bias, reduction, l2, l2_averaged, input_scale, dtype, precision
        )
        random, later_seed = random_source(seed)
        layout = ParameterLayout.of(self.spec)
        self._parameters = initialize(layout, init, bias_init, random, self.spec.dtype)
        self._seed = draw_seed(random) if later_seed is None else later_seed
        self._coding: TargetCoding | None = None
        self._n_epochs_seen = 0
        self.history: History | None = None
        self.feature_names: tuple[str, ...] = ()
        self._bind(backend, device, n_threads)

    def _bind(self, backend: str | None, device: str, n_threads: int | None) -> None:
        self._request = (backend, device, n_threads)
        self._choice: Choice | None = None
        if backend not in (None, "auto"):
            self._choice = choose_backend(*self._request)  # what is missing is told here, not at the first fit

    def _choose_for_training(self, work: Work) -> Choice:
        """The backend for a fit, and for the predictions that follow it."""
        if self._choice is None or self._request[0] in (None, "auto"):
            self._choice = choose_backend(*self._request, work)
        return self._choice

    def _choose_for_prediction(self, spec: NetworkSpec, n_samples: int) -> Choice:
        return self._choice or choose_backend(*self._request, Work.of_prediction(spec.layer_sizes, n_samples))

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_choice": None}  # backends hold devices and locks, and are found again

    def __repr__(self) -> str:
        sizes = "-".join(map(str, self.spec.layer_sizes))
        return f"Network({sizes}, {self.spec.output}, {self.spec.loss}, {self.spec.dtype})"

    @property
    def weights(self) -> list[NDArray]:
        """Weights (fan_in, fan_out), views."""
        return self._parameters.weights

    @property
    def biases(self) -> list[NDArray]:
        """Biases (fan_out,), views; empty with ``bias=False``."""
        return self._parameters.biases

    @property
    def classes(self) -> NDArray | None:
        """Labels in the order of the outputs; None for regression, multilabel problems, and before the first fit."""
        return None if self._coding is None else self._coding.classes

    def fit(
        self,
        X: Any,
        y: ArrayLike,
        *,
        optimizer: Optimizer | None = None,
        n_steps: int | None = None,
        n_epochs: int | None = None,
        batch_size: int | None = None,
        sample_weight: ArrayLike | None = None,
        X_val: Any = None,
        y_val: ArrayLike | None = None,
        validation_fraction: float | None = None,
        validate_every: int | None = None,
        shuffle: bool = True,
        callbacks: Iterable[CallbackLike] = (),
        resume_from: str | os.PathLike[str] | None = None,
    ) -> History:
        """Train, starting from the weights as they are.

        Ctrl-C ends the fit early and keeps the last weights: ``history.stop_reason`` is then "interrupted".

        Parameters
        ----------
        X : array-like, DataFrame, sparse matrix or DLPack array (N, D)
            ``uint8`` and the network's dtype are used without a copy.
        y : array-like (N,) or (N, C)
            Labels (whole numbers from 0, or strings), indicators, or values.
        optimizer : SGD, Adam or AdamW, optional
            By default ``SGD()``.
        n_steps, n_epochs : int
            How long to train: one of the two. With the full batch an epoch is a step.
        batch_size : int, optional
            Samples per step; without it every step sees all samples.
        sample_weight : array-like (N,), optional
            Not negative. The mean is then over weights: ``sum(w * loss) / sum(w)``.
        X_val, y_val : optional
            Held-out data to evaluate as training goes on.
        validation_fraction : float, optional
            Split them off instead; labels keep their shares.
        validate_every : int, optional
            Epochs (with the full batch, steps) between validations and calls of callbacks. By default 1 epoch, or one
            hundredth of the steps.
        shuffle : bool
            Whether each epoch of mini-batches has a new order.
        callbacks : iterable of Callback or function
            See `fastnet.callbacks`.
        resume_from : path-like, optional
            A checkpoint of the same fit to go on from.

        Returns
        -------
        History

        Raises
        ------
        SpecError
            The length of training is not given once, or an option is out of range.
        DataError
            The data cannot be used.
        UnsupportedSpecError
            The backend cannot train this network.
        BackendUnavailableError
            There is no backend for the device asked for.
        DeviceMemoryError
            The data do not fit into the device's memory.
        DivergenceError
            Loss or weights stopped being finite; the network keeps the last finite weights.
        FileFormatError
            The checkpoint is damaged or belongs to another fit.
        OSError
            The checkpoint cannot be read, or a callback's cannot be written.
        """
        coding = self._coding or TargetCoding.infer(self.spec, y)
        if validation_fraction is not None:
            if X_val is not None or y_val is not None:
                raise SpecError("pass X_val and y_val, or validation_fraction, not both")
            whole = make_dataset(self.spec, coding, X, y, sample_weight)  # messages count samples as the user does
            X, y, sample_weight, X_val, y_val = split_validation(
                whole.x,
                y,
                whole.sample_weight,
                validation_fraction,
                self._seed,
                stratify=self.spec.output in ("softmax", "sigmoid"),
            )
        dataset = make_dataset(self.spec, coding, X, y, sample_weight)
        held_out = self._held_out(coding, X_val, y_val)
        if batch_size is not None:
            require_count("batch_size", batch_size)
            batch_size = min(int(batch_size), dataset.n_samples)
        spec = TrainingSpec(self.spec, SGD() if optimizer is None else optimizer, batch_size, coding.task)
        settings = RunSettings.of(
            spec.n_steps(dataset.n_samples) if batch_size else None,
            n_steps=n_steps,
            n_epochs=n_epochs,
            validate_every=validate_every,
            shuffle=shuffle,
            seed=self._seed,
            first_epoch=self._n_epochs_seen,
        )

        choice = self._choose_for_training(Work.of_training(spec, dataset, settings.n_steps))
        choice.backend.check_support(spec)
        device = next(iter(choice.backend.availability().devices), "")
        evaluate = None if held_out is None else lambda parameters: self._evaluate(coding, parameters, held_out)
        plan = choice.backend.plan_training(spec, self._parameters, dataset)
        self.history = History(backend_name=choice.backend.name, backend_reason=choice.reason, device_name=device)
        try:
            run = TrainingRun(spec, plan, dataset, settings, self.history, evaluate, as_callbacks(callbacks))
            if resume_from is not None:
                run.load_checkpoint(resume_from)
            try:
                run.execute()
            finally:
                self._parameters.flat[:] = run.parameters.flat
                self._coding = coding
                self._n_epochs_seen = run.n_epochs_seen
        finally:
            plan.close()
        return self.history

    def _held_out(self, coding: TargetCoding, X_val: Any, y_val: ArrayLike | None) -> Dataset | None:
        if (X_val is None) != (y_val is None):
            raise SpecError("X_val and y_val belong together: pass both or neither")
        if X_val is None or y_val is None:
            return None
        return make_dataset(self.spec, coding, X_val, y_val, names=("X_val", "y_val"))

    def predict(self, X: Any) -> NDArray:
        """Labels (N,), indicators (N, C), or values (N,) or (N, C), for samples X (N, D).

        Raises
        ------
        DataError
            X cannot be used.
        """
        outputs = self._outputs(self.spec, self._parameters, validate_samples(self.spec, X))
        return (self._coding or TargetCoding.default(self.spec)).decode(outputs)

    def predict_proba(self, X: Any) -> NDArray:
        """Probabilities (N, C) of the classes, for samples X (N, D); two columns for a binary problem.

        Raises
        ------
        DataError
            X cannot be used.
        SpecError
            The outputs of this network are not probabilities.
        """
        if self.spec.output not in ("softmax", "sigmoid"):
            raise SpecError(f"output {self.spec.output!r} gives values, not probabilities: use predict")
        outputs = self._outputs(self.spec, self._parameters, validate_samples(self.spec, X))
        return np.hstack([1 - outputs, outputs]) if outputs.shape[1] == 1 else outputs

    def evaluate(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None) -> dict[str, float]:
        """Figures on labelled data (N, D).

        Returns
        -------
        dict
            "loss", reduced as in training but without penalty, in nats (the squared error, half the squared difference,
            and the absolute error have the unit of the targets, squared or as it is), and "accuracy" (share of samples,
            whatever their weights, that have all their labels right), or for regression "r2" (mean over outputs; NaN
            for one sample).

        Raises
        ------
        DataError
            The data cannot be used.
        """
        coding = self._coding or TargetCoding.infer(self.spec, y)
        return self._evaluate(coding, self._parameters, make_dataset(self.spec, coding, X, y, sample_weight))

    def _evaluate(self, coding: TargetCoding, parameters: Parameters, dataset: Dataset) -> dict[str, float]:
        xp = NumpyNamespace()
        logits = self._outputs(self.spec.with_identity_output(), parameters, dataset.x)
        exact = logits.astype(np.float64)
        weight = dataset.sample_weight
        with np.errstate(all="ignore"):
            losses, _ = reference.HEAD_FUNCTIONS[self.spec.output, self.spec.loss](exact, dataset.targets, xp=xp)
        figures = {"loss": float(np.average(losses, weights=weight))}
        if self.spec.reduction == "sum":
            figures["loss"] *= dataset.n_samples if weight is None else float(weight.sum())
        if coding.task == "regression":
            return figures | {"r2": self._r2(exact, dataset)}
        # In the network's dtype, as `predict` judges: a probability of one half may be a little more in float64.
        n_correct = reference.count_correct(coding.task, self.spec.output, logits, dataset.targets, xp=xp)
        return figures | {"accuracy": float(n_correct) / dataset.n_samples}

    def _r2(self, logits: NDArray, dataset: Dataset) -> float:
        from sklearn.metrics import r2_score

        with np.errstate(all="ignore"):
            values = reference.OUTPUT_FUNCTIONS[self.spec.output](logits, xp=NumpyNamespace())
        if dataset.n_samples < 2 or not np.isfinite(values).all():
            return float("nan")
        return float(r2_score(dataset.targets, values, sample_weight=dataset.sample_weight))

    def _outputs(self, spec: NetworkSpec, parameters: Parameters, x: Any) -> NDArray:
        return self._choose_for_prediction(spec, x.shape[0]).backend.predict(spec, parameters, x)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the network to a safetensors file, atomically.

        Raises
        ------
        OSError
            The file cannot be written.
        """
        saved = persistence.SavedNetwork(self.spec, self._parameters, self._coding, self.feature_names)
        persistence.save_network(path, saved)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        backend: str | None = "auto",
        device: str = "auto",
        n_threads: int | None = None,
        seed: int | RandomSource | None = None,
    ) -> Network:
        """Read a network that :meth:`save` wrote, to run on any backend.

        Raises
        ------
        FileFormatError
            The file is damaged, truncated, or not a fastnet network.
        OSError
            The file cannot be read.
        BackendUnavailableError
            A backend asked for by name cannot run here.
        """
        network = cls.__new__(cls)
        network.spec, network._parameters, network._coding, network.feature_names = persistence.load_network(path)
        random, later_seed = random_source(seed)
        network._seed = draw_seed(random) if later_seed is None else later_seed
        network._n_epochs_seen = 0
        network.history = None
        network._bind(backend, device, n_threads)
        return network
