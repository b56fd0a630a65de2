"""Three workloads that any federated simulator can run: data, cohorts and first weights, in numpy alone.

Whoever is compared gets the same arrays: the same records, the same cohorts in the same order, the same first weights and the same number of
local steps, so that only the time differs. Nothing is downloaded; the arrays follow from the seed, and a test holds their hashes, because
figures of different days are comparable only while they stay the same.

* W1: tabular records of many sites, a small network, private.
* W2: images, a convolutional network, not private.
* W3: as W1 with a cohort of 2,000 clients.

A timing counts only with the accuracy reached after all rounds: `Workload.accuracy` is where a right run ends.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np

Array = np.ndarray

_FEATURES = 30
_CLASSES = 10
_SIDE = 28


@dataclasses.dataclass(frozen=True, kw_only=True)
class Workload:
    """What is trained, on how much, and how; the same for every library.

    Attributes:
      name: W1, W2 or W3.
      model: "mlp": 30-64-32-1 with ReLU and a logit; "cnn": twice (3x3 SAME convolution of 32 and 64 channels, ReLU, 2x2 max pooling), dense
        128, ReLU, dense 10. Losses are means over a batch of binary cross entropy or softmax cross entropy.
      clients: clients of the population.
      per_client: records of each.
      cohort: clients of one round, without replacement.
      rounds: rounds after which the accuracy is taken.
      batch: records of a local step; one pass over the client's records in their order.
      local_lr: learning rate of a client's plain SGD.
      server_lr: factor of the mean update (weights after minus weights before) at the server.
      clip: largest L2 norm of a client's whole update, or None without privacy.
      noise: standard deviation of the Gaussian noise on the sum of the updates, in units of `clip`.
      test: records of the test set.
      accuracy: (lowest, highest) test accuracy of a right run after all rounds, rounded to two digits.
      accuracy_off: the same without clip and noise.
      seed: seed of all arrays.
    """

    name: str
    model: Literal["mlp", "cnn"]
    clients: int
    per_client: int
    cohort: int
    rounds: int
    batch: int
    local_lr: float
    server_lr: float = 1.0
    clip: float | None = None
    noise: float = 0.0
    test: int
    accuracy: tuple[float, float]
    accuracy_off: tuple[float, float]
    seed: int = 0

    @property
    def steps(self) -> int:
        """Local steps of a client in a round."""
        return -(-self.per_client // self.batch)


CONFIGS = {
    "W1": Workload(
        name="W1",
        model="mlp",
        clients=1000,
        per_client=64,
        cohort=100,
        rounds=50,
        batch=32,
        local_lr=0.5,
        clip=1.0,
        noise=1.0,
        test=4096,
        accuracy=(0.93, 0.94),
        accuracy_off=(0.93, 0.94),
    ),
    "W2": Workload(
        name="W2",
        model="cnn",
        clients=500,
        per_client=100,
        cohort=50,
        rounds=10,
        batch=20,
        local_lr=0.02,
        test=2000,
        accuracy=(0.92, 0.93),
        accuracy_off=(0.92, 0.93),
    ),
    "W3": Workload(
        name="W3",
        model="mlp",
        clients=20_000,
        per_client=16,
        cohort=2000,
        rounds=5,
        batch=16,
        local_lr=0.5,
        clip=1.0,
        noise=1.0,
        test=4096,
        accuracy=(0.61, 0.62),
        accuracy_off=(0.71, 0.72),
    ),
}


def make(name: str) -> tuple[Workload, Array, Array, Array, Array]:
    """A workload's data.

    Args:
      name: W1, W2 or W3.

    Returns:
      (config, x, y, x_test, y_test). W1 and W3: x float32 `[clients, per_client, 30]`, y float32 of 0 and 1. W2: x float32
      `[clients, per_client, 28, 28, 1]`, y int32 of 0 to 9. The test set has no axis of clients.

    Raises:
      ValueError: there is no workload of this name.
    """
    config = find(name)
    return (config, *data(config))


def data(config: Workload) -> tuple[Array, Array, Array, Array]:
    """(x, y, x_test, y_test) as in `make`, also for a workload of other numbers: `dataclasses.replace(CONFIGS["W2"], clients=10)`."""
    return _tables(config) if config.model == "mlp" else _images(config)


def find(name: str) -> Workload:
    """The workload of a name.

    Raises:
      ValueError: there is none.
    """
    if name not in CONFIGS:
        raise ValueError(f"there is no workload {name!r}; the workloads are {', '.join(CONFIGS)}.")
    return CONFIGS[name]


def cohorts(config: Workload) -> Array:
    """Who takes part when: int64 `[rounds + 1, cohort]` of client numbers, nobody twice in one round.

    Row 0 is a round to compile and warm up with; rounds 1 to `rounds` start again from the first weights and are timed and scored.
    """
    generator = np.random.default_rng(99 + config.seed)
    rounds = [generator.choice(config.clients, config.cohort, replace=False) for _ in range(config.rounds + 1)]
    return np.stack(rounds)


def init_params(config: Workload) -> dict[str, Array]:
    """The first weights, float32: matrices `[in, out]`, kernels `[height, width, in, out]`; He-normal, biases zero.

    Returns:
      mlp: w0 `[30, 64]`, b0, w1 `[64, 32]`, b1, w2 `[32, 1]`, b2. cnn: kernels c0, c1 with biases d0, d1, then w0 `[7 * 7 * 64, 128]` (images
      flattened in the order height, width, channel), b0, w1 `[128, 10]`, b1.
    """
    generator = np.random.default_rng(7 + config.seed)
    dense = [("w0", "b0", (_FEATURES, 64)), ("w1", "b1", (64, 32)), ("w2", "b2", (32, 1))]
    convolutional = [
        ("c0", "d0", (3, 3, 1, 32)),
        ("c1", "d1", (3, 3, 32, 64)),
        ("w0", "b0", ((_SIDE // 4) ** 2 * 64, 128)),
        ("w1", "b1", (128, _CLASSES)),
    ]
    params = {}
    for weight, bias, shape in dense if config.model == "mlp" else convolutional:
        scale = np.sqrt(2.0 / np.prod(shape[:-1]))
        params[weight] = (generator.normal(size=shape) * scale).astype(np.float32)
        params[bias] = np.zeros(shape[-1], np.float32)
    return params


def n_params(config: Workload) -> int:
    """Number of weights: 4,097 for the mlp, 421,642 for the cnn."""
    return sum(leaf.size for leaf in init_params(config).values())


def _tables(config: Workload) -> tuple[Array, Array, Array, Array]:
    """Records of 30 features whose mean differs from client to client, and a label that is partly linear in them.

    The float64 and float32 of each step, and the order of the draws, are part of the definition.
    """
    generator = np.random.default_rng(1234 + config.seed)
    inner = generator.normal(size=(_FEATURES, 8)).astype(np.float32) / np.sqrt(_FEATURES)
    outer = generator.normal(size=8).astype(np.float32)
    straight = generator.normal(size=_FEATURES).astype(np.float32) / np.sqrt(_FEATURES)

    def draw(clients: int, records: int) -> tuple[Array, Array]:
        shift = 0.3 * generator.normal(size=(clients, 1, _FEATURES)).astype(np.float32)
        x = (generator.normal(size=(clients, records, _FEATURES)).astype(np.float32) + shift).astype(np.float32)
        score = 3.0 * (np.tanh(2.0 * x @ inner) @ outer) / np.sqrt(8) + 4.0 * (x @ straight)
        return x, (score + 0.3 * generator.normal(size=score.shape) > 0).astype(np.float32)

    x, y = draw(config.clients, config.per_client)
    x_test, y_test = draw(config.test // 16, 16)  # clients of its own, 16 records each
    return x, y, x_test.reshape(-1, _FEATURES), y_test.reshape(-1)


def _images(config: Workload) -> tuple[Array, Array, Array, Array]:
    """A smooth pattern per class, moved by up to two pixels, weaker or stronger, in much noise; each client has its own mix of classes."""
    generator = np.random.default_rng(4321 + config.seed)
    blocks = generator.normal(size=(_CLASSES, 7, 7)).astype(np.float32)
    patterns = np.kron(blocks, np.ones((1, 4, 4), np.float32))
    for axis in (1, 2):
        patterns = (np.roll(patterns, 1, axis) + 2 * patterns + np.roll(patterns, -1, axis)) / 4
    patterns /= patterns.std(axis=(1, 2), keepdims=True)
    moves = [(down, right) for down in range(-2, 3) for right in range(-2, 3)]
    moved = np.stack([np.roll(patterns, move, (1, 2)) for move in moves], 1)

    def draw(labels: Array) -> Array:
        which = generator.integers(0, len(moves), size=labels.shape)
        strength = (0.6 + 0.8 * generator.random(size=labels.shape)).astype(np.float32)
        x = np.empty((*labels.shape, _SIDE, _SIDE, 1), np.float32)
        for i in range(
            len(labels)
        ):  # a part at a time: whole arrays of noise would take three times the memory of the pictures
            part = moved[labels[i], which[i]] * strength[i, ..., None, None]
            part += 3.0 * generator.standard_normal(size=part.shape, dtype=np.float32)
            x[i, ..., 0] = part / np.float32(np.sqrt(10.0))
        return x

    mixes = generator.dirichlet(np.ones(_CLASSES), size=config.clients)
    y = np.stack([generator.choice(_CLASSES, size=config.per_client, p=mix) for mix in mixes])
    y_test = generator.integers(0, _CLASSES, size=config.test)
    x, x_test = draw(y), draw(y_test)
    return x, y.astype(np.int32), x_test, y_test.astype(np.int32)
