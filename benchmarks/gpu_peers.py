"""PyTorch and JAX on a CUDA device, as `fastnet.benchmarking.Trial`: what ``gpu.py`` compares fastnet with.

All of them get X as float32 before the clock starts, keep it on the device, and compute in true float32 except where
their name says otherwise.
"""

# Legend: N samples, D features, B batch size.

from __future__ import annotations

import os
from functools import partial

from fastnet.benchmarking import n_usable_cpus
from fastnet.benchmarking.peers import AbsentError, Peer
from fastnet.optimizers import Adam
from fastnet.parameters import Parameters


class TorchOnDevice(Peer):
    """PyTorch, its steps made eagerly, compiled, or by replaying a captured CUDA graph.

    Parameters
    ----------
    loaded : LoadedWorkload
    mode : {"eager", "compiled", "graph"}
    device : str
        "cuda"; on "cpu", where nothing can be captured, the arithmetic can be tested.
    """

    def __init__(self, loaded, mode, device="cuda"):
        super().__init__(loaded)
        import torch

        if device == "cuda" and not torch.cuda.is_available():
            raise AbsentError(f"PyTorch {torch.__version__} finds no CUDA device")
        self.torch, self.device, self.n_threads = torch, device, torch.get_num_threads()
        self.detail = f"{mode} steps; the loop over them is Python's"
        self.X = torch.from_numpy(loaded.features(self.dtype)).to(device)
        targets = torch.from_numpy(loaded.dataset.targets.copy()).to(device)
        self.y = targets.long() if self.network.takes_labels else targets
        self.batch = torch.arange(self.batch_size or 0, device=device)
        self.model = self._make_model()
        self.optimizer = self._make_optimizer()
        self.loss, self.update = self._compute_loss, self.optimizer.step
        if mode == "compiled":
            torch.compiler.reset()
            # Else they are copied at each call. Batches are at other addresses each time.
            for whole in (self.X, self.y) if self.batch_size is None else ():
                torch._dynamo.mark_static_address(whole)
            compile_ = partial(torch.compile, dynamic=False, mode="reduce-overhead")
            self.loss, self.update = compile_(self.loss), compile_(self.update)
        self._step = self._capture() if mode == "graph" else self._make_step
        self._mark = torch.compiler.cudagraph_mark_step_begin if mode == "compiled" else lambda: None
        self.reset()

    def _make_model(self):
        nn, network = self.torch.nn, self.network
        activations = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid}
        layers = []
        for layer, (fan_in, fan_out) in enumerate(self.loaded.start.layout.weight_shapes):
            layers.append(nn.Linear(fan_in, fan_out, bias=network.bias))
            layers += [activations[name]() for name in network.activations[layer : layer + 1]]
        return nn.Sequential(*layers).to(self.device)

    def _make_optimizer(self):
        described, optimizers = self.loaded.spec.optimizer, self.torch.optim
        if isinstance(described, Adam):
            return optimizers.Adam(
                self.model.parameters(),
                lr=described.learning_rate,
                betas=(described.beta_1, described.beta_2),
                eps=described.epsilon,
                capturable=self.device == "cuda",  # its count of steps lies on the device, where a graph can advance it
            )
        return optimizers.SGD(self.model.parameters(), lr=described.learning_rate)

    def _compute_loss(self, X, y):
        functional, network = self.torch.nn.functional, self.network
        z = self.model(X)
        if network.loss == "cross_entropy":
            mean = (
                functional.cross_entropy if network.output == "softmax" else functional.binary_cross_entropy_with_logits
            )
            return mean(z, y, reduction=network.reduction)
        values = z.sigmoid() if network.output == "sigmoid" else z
        losses = 0.5 * (values - y).square().sum(dim=1)
        return losses.mean() if network.reduction == "mean" else losses.sum()

    def _make_step(self):
        X, y = (self.X, self.y) if self.batch_size is None else (self.X[self.batch], self.y[self.batch])
        self.optimizer.zero_grad(set_to_none=True)
        self.loss(X, y).backward()
        self.update()

    def _capture(self):
        """Warm up on a stream of its own, as PyTorch asks for, and record one step."""
        cuda = self.torch.cuda
        stream = cuda.Stream()
        stream.wait_stream(cuda.current_stream())
        with cuda.stream(stream):
            for _ in range(3):
                self._make_step()
        cuda.current_stream().wait_stream(stream)
        graph = cuda.CUDAGraph()
        with cuda.graph(graph):
            self._make_step()
        return graph.replay

    @property
    def _linear(self):
        return [module for module in self.model if isinstance(module, self.torch.nn.Linear)]

    def reset(self):
        """See `fastnet.benchmarking.Trial.reset`; in place, as captured steps hold on to tensors."""
        from_numpy, start = self.torch.from_numpy, self.loaded.start
        with self.torch.no_grad():
            for layer, weight in zip(self._linear, start.weights, strict=True):
                layer.weight.copy_(from_numpy(weight.T.copy()))
            for layer, bias in zip(self._linear, start.biases, strict=False):
                layer.bias.copy_(from_numpy(bias.copy()))
            for state in self.optimizer.state.values():
                for tensor in state.values():
                    if tensor is not None:
                        tensor.zero_()
        self._synchronize()

    def run(self):
        """See `fastnet.benchmarking.Trial.run`."""
        if self.batch_size is None:
            for _ in range(self.loaded.n_steps):
                self._mark()
                self._step()
        else:
            for order in self.loaded.epoch_orders():
                for batch in self.torch.from_numpy(order).to(self.device).split(self.batch_size):
                    self.batch.copy_(batch)
                    self._mark()
                    self._step()
        self._synchronize()

    def _synchronize(self):
        if self.device == "cuda":
            self.torch.cuda.synchronize()

    def parameters(self):
        """See `fastnet.benchmarking.Trial.parameters`."""
        weights = [layer.weight.detach().cpu().numpy().T for layer in self._linear]
        biases = [layer.bias.detach().cpu().numpy() for layer in self._linear] if self.network.bias else None
        return Parameters.from_arrays(self.loaded.start.layout, weights, biases, self.dtype)


class JaxOnDevice(Peer):
    """JAX, one compiled function per round of steps or epoch, the loop inside, its buffers donated.

    Parameters
    ----------
    loaded : LoadedWorkload
    precision : {"highest", "default"}
        Of matrix products: true float32, or what JAX does unasked, which is TF32 from Ampere on.
    platform : str
        "gpu"; on "cpu" the arithmetic can be tested.
    """

    def __init__(self, loaded, precision, platform="gpu"):
        super().__init__(loaded)
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the device is shared with the other rows
        import jax

        try:
            target = jax.devices(platform)[0]
        except RuntimeError as error:
            raise AbsentError(f"JAX {jax.__version__} finds no device of platform {platform!r}") from error
        self.jax, self.precision, self.n_threads = jax, precision, n_usable_cpus()
        self.detail = "one compiled function with the loop over steps inside"
        self.device, self.dtype = str(target), "float32" if precision == "highest" else "TF32 products"
        self.put = partial(jax.device_put, device=target)
        self.X, self.y = self.put(loaded.features("float32")), self.put(loaded.dataset.targets)
        self.train = jax.jit(self._train_full_batch if self.batch_size is None else self._train_epoch, donate_argnums=0)
        self.reset()

    def reset(self):
        """See `fastnet.benchmarking.Trial.reset`."""
        start, tree = self.loaded.start, self.jax.tree
        biases = start.biases or [None] * self.network.n_layers
        values = [
            {"weight": weight} | ({} if bias is None else {"bias": bias})
            for weight, bias in zip(start.weights, biases, strict=True)
        ]
        values = tree.map(lambda array: self.put(array.copy()), values)
        zeros = partial(tree.map, self.jax.numpy.zeros_like)
        self.state = self.jax.block_until_ready((values, zeros(values), zeros(values), self.put(0)))

    def _objective(self, values, X, y):
        jnp, nn, network = self.jax.numpy, self.jax.nn, self.network
        functions = [{"relu": nn.relu, "sigmoid": nn.sigmoid}[name] for name in network.activations]
        z = X
        for k, layer in enumerate(values):
            z = z @ layer["weight"] + layer.get("bias", 0.0)
            z = functions[k](z) if k < len(functions) else z
        if network.takes_labels:
            losses = -jnp.take_along_axis(nn.log_softmax(z), y[:, None], axis=1)[:, 0]
        elif network.loss == "cross_entropy":
            losses = -(y * nn.log_sigmoid(z) + (1 - y) * nn.log_sigmoid(-z)).sum(axis=1)
        else:
            losses = 0.5 * jnp.square((nn.sigmoid(z) if network.output == "sigmoid" else z) - y).sum(axis=1)
        return losses.mean() if network.reduction == "mean" else losses.sum()

    def _step(self, state, X, y):
        values, first, second, t = state
        gradients, optimizer = self.jax.grad(self._objective)(values, X, y), self.loaded.spec.optimizer
        jnp, each = self.jax.numpy, self.jax.tree.map
        t = t + 1
        if not isinstance(optimizer, Adam):
            return each(lambda p, g: p - optimizer.learning_rate * g, values, gradients), first, second, t
        b1, b2 = optimizer.beta_1, optimizer.beta_2
        first = each(lambda m, g: b1 * m + (1 - b1) * g, first, gradients)
        second = each(lambda v, g: b2 * v + (1 - b2) * g**2, second, gradients)
        rate = optimizer.learning_rate * jnp.sqrt(1 - b2**t) / (1 - b1**t)
        values = each(lambda p, m, v: p - rate * m / (jnp.sqrt(v) + optimizer.epsilon), values, first, second)
        return values, first, second, t

    def _train_full_batch(self, state, X, y):
        return self.jax.lax.fori_loop(0, self.loaded.n_steps, lambda _, s: self._step(s, X, y), state)

    def _train_epoch(self, state, X, y, order):
        return self.jax.lax.scan(lambda s, batch: (self._step(s, X[batch], y[batch]), None), state, order)[0]

    def run(self):
        """See `fastnet.benchmarking.Trial.run`."""
        with self.jax.default_matmul_precision(self.precision):
            if self.batch_size is None:
                self.state = self.train(self.state, self.X, self.y)
            else:
                for order in self.loaded.epoch_orders():  # of whole batches: workloads have no other
                    batches = self.put(order.astype("int32").reshape(-1, self.batch_size))
                    self.state = self.train(self.state, self.X, self.y, batches)
            self.jax.block_until_ready(self.state)

    def parameters(self):
        """See `fastnet.benchmarking.Trial.parameters`."""
        weights = [layer["weight"] for layer in self.state[0]]
        biases = [layer["bias"] for layer in self.state[0]] if self.network.bias else None
        return Parameters.from_arrays(self.loaded.start.layout, weights, biases, "float32")
