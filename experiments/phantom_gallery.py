"""A gallery of the synthetic chest radiographs, and the scores of simple classifiers on them.

    python experiments/phantom_gallery.py            # figures/phantom_gallery.png next to this file
    python experiments/phantom_gallery.py --check    # also scores of three classifiers on held-out sites, and the speed

The scores answer three questions about the phantom, not about medicine. Is the task learnable on unseen machines (a
small CNN, compared with a logistic regression on pixels)? Is it easy (the same scores, compared with 1)? Does anything
but the lung carry the label within a site (a logistic regression on the four-pixel border minus each site's mean, whose
accuracy should be the majority rate and whose AUC should be one half)? Nothing is tuned: epochs, rates and penalties
are those below.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure
from PIL import Image
from scipy.optimize import minimize

from fedjax_poisson import data
from fedjax_poisson.data.phantom.acquisition import SCANNERS
from fedjax_poisson.data.phantom.lesions import CLASSES
from fedjax_poisson.data.phantom.phantom import render
from fedjax_poisson.federated.evaluation import auc

HERE = Path(__file__).parent
EXAMPLES = 3


def gallery(sites: data.Sites, path: Path) -> None:
    """Rows of sites, columns of classes, the first pictures of each."""
    columns = EXAMPLES * len(CLASSES)
    rows = len(sites.site_names)
    figure = Figure(figsize=(1.3 * columns, 1.3 * rows + 0.5), dpi=120, facecolor="white")
    margins = {
        "left": 0.025,
        "right": 0.995,
        "bottom": 0.005,
        "top": 1 - 0.5 / (1.3 * rows + 0.5),
        "wspace": 0.04,
        "hspace": 0.04,
    }
    axes = figure.subplots(rows, columns, squeeze=False, gridspec_kw=margins)
    for s, name in enumerate(sites.site_names):
        for label, class_name in enumerate(CLASSES):
            own = np.flatnonzero((sites.site == s) & (sites.labels == label))
            _, firsts = np.unique(sites.group[own], return_index=True)
            for k in range(EXAMPLES):
                panel = axes[s, label * EXAMPLES + k]
                panel.set_xticks([])
                panel.set_yticks([])
                panel.spines[:].set_visible(False)
                if k < len(firsts):
                    panel.imshow(sites.features[own[np.sort(firsts)[k]], ..., 0], cmap="gray", vmin=0, vmax=1)
                if s == 0 and k == EXAMPLES // 2:
                    panel.set_title(class_name, fontsize=11)
            if label == 0:
                axes[s, 0].set_ylabel(name, fontsize=10)
    figure.suptitle("SYNTHETIC: a physical phantom, no patient, no diagnostic claim", fontsize=11, y=0.998)
    figure.savefig(path)
    Image.open(path).convert("L").save(path, optimize=True)  # gray is a third of the bytes


def check(sites: data.Sites) -> dict[str, object]:
    """Accuracy on each site of classifiers trained on the others, and of the border alone inside the sites."""
    pixels, labels = flatten(sites.features[:, 4:-4, 4:-4]), sites.labels
    held_out: dict[str, dict[str, float]] = {}
    for s, name in enumerate(sites.site_names):
        here = sites.site == s
        held_out[name] = {
            "majority class": float(np.mean(labels[here] == np.bincount(labels[~here]).argmax())),
            "logistic regression on pixels": accuracy(linear(pixels, labels, ~here)[here], labels[here]),
            "small CNN": accuracy(convolutional(sites.features, labels, ~here)[here], labels[here]),
        }
        print(name, held_out[name], flush=True)
    mean = {score: float(np.mean([own[score] for own in held_out.values()])) for score in held_out[name]}
    return {"trained on the other sites": held_out | {"mean": mean}, "border inside the sites": border(sites)}


def border(sites: data.Sites) -> dict[str, float]:
    """Test scores of the border, from which each site's mean is taken so that prevalence cannot be read off the machine."""
    features, labels, test = data.border_only(sites).features.astype(np.float64), sites.labels, ~sites.train
    for s in range(len(sites.site_names)):
        own = sites.site == s
        features[own] -= features[own & sites.train].mean(axis=0)
    logits = linear(features, labels, sites.train, penalty=3.0)
    return {
        "majority class": float(np.mean(labels[test] == np.bincount(labels[sites.train]).argmax())),
        "accuracy": accuracy(logits[test], labels[test]),
        "AUC of normal against diseased": float(auc(labels[test] > 0, -logits[test, 0])),
        "test pictures": int(test.sum()),
    }


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    return float(np.mean(logits.argmax(axis=1) == labels))


def linear(x: np.ndarray, labels: np.ndarray, fit: np.ndarray, penalty: float = 0.02) -> np.ndarray:
    """Logits of a multinomial regression trained on `fit`: the mean loss plus half the penalty times the squared weights."""
    one = with_one((x - x[fit].mean(axis=0)) / (x[fit].std(axis=0) + 1e-3))
    y = np.eye(len(CLASSES))[labels[fit]]

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat.reshape(one.shape[1], y.shape[1])
        logits = one[fit] @ weights
        logits -= logits.max(axis=1, keepdims=True)
        normal = np.log(np.exp(logits).sum(axis=1, keepdims=True))
        shrunk = np.concatenate([weights[:-1], np.zeros((1, y.shape[1]))])  # the intercept goes free
        value = -np.mean(((logits - normal) * y).sum(axis=1)) + penalty / 2 * (shrunk**2).sum()
        slope = one[fit].T @ (np.exp(logits - normal) - y) / len(y) + penalty * shrunk
        return float(value), slope.ravel()

    start = np.zeros(one.shape[1] * y.shape[1])
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 150})
    return one @ found.x.reshape(one.shape[1], y.shape[1])


def convolutional(
    images: np.ndarray, labels: np.ndarray, fit: np.ndarray, epochs: int = 30, batch: int = 64
) -> np.ndarray:
    """Logits of a CNN of four strided convolutions and an average, trained by Adam on pictures standardised one by one."""
    x = images - images.mean(axis=(1, 2), keepdims=True)
    x /= x.std(axis=(1, 2), keepdims=True)
    widths = (1, 16, 24, 32, 48)
    keys = jax.random.split(jax.random.key(0), len(widths))
    params = [
        (jax.random.normal(k, (3, 3, a, b)) * np.sqrt(2 / (9 * a)), jnp.zeros(b))
        for k, a, b in zip(keys[1:], widths[:-1], widths[1:], strict=True)
    ] + [(jnp.zeros((widths[-1], len(CLASSES))), jnp.zeros(len(CLASSES)))]

    def apply(params: list, x: jax.Array) -> jax.Array:
        for kernel, shift in params[:-1]:
            x = jax.lax.conv_general_dilated(x, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
            x = jax.nn.relu(x + shift)
        return x.mean(axis=(1, 2)) @ params[-1][0] + params[-1][1]

    steps = epochs * (int(fit.sum()) // batch)
    optimizer = optax.adam(optax.cosine_decay_schedule(3e-3, steps))

    def loss(params: list, x: jax.Array, y: jax.Array) -> jax.Array:
        return optax.softmax_cross_entropy_with_integer_labels(apply(params, x), y).mean()

    @jax.jit
    def step(carry: tuple, x: jax.Array, y: jax.Array) -> tuple:
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params, x, y), state)
        return optax.apply_updates(params, updates), state

    carry, generator = (params, optimizer.init(params)), np.random.default_rng(0)
    for _ in range(epochs):
        order = generator.permutation(np.flatnonzero(fit))
        for start in range(0, len(order) - batch + 1, batch):
            rows = order[start : start + batch]
            carry = step(carry, x[rows, :, :: generator.choice((-1, 1))], labels[rows])
    return np.concatenate([apply(carry[0], x[i : i + 512]) for i in range(0, len(x), 512)])


def with_one(x: np.ndarray) -> np.ndarray:
    return np.concatenate([x, np.ones((len(x), 1))], axis=1).astype(np.float64)


def flatten(images: np.ndarray) -> np.ndarray:
    """Pixels averaged in 2 x 2 squares, `[n, pixels]`."""
    n, height, width, _ = images.shape
    return images.reshape(n, height // 2, 2, width // 2, 2).mean(axis=(2, 4)).reshape(n, -1)


def speed(size: int, count: int = 4096) -> dict[str, float]:
    """Pictures per second, compiled beforehand, the better of three."""
    arguments = (np.arange(count) % 3, np.arange(count), np.arange(count) % 6, list(SCANNERS.values()))
    render(*(a[:64] for a in arguments[:3]), arguments[3], size=size)
    seconds = []
    for seed in range(3):
        started = time.perf_counter()
        render(*arguments, size=size, seed=seed)
        seconds.append(time.perf_counter() - started)
    return {"size": size, "images_per_second": round(count / min(seconds)), "cores": len(os.sched_getaffinity(0))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--patients", type=int, default=400, help="patients per site of the check")
    arguments = parser.parse_args()
    gallery(data.load("xray", patients=40, second_image=0.0), HERE / "figures" / "phantom_gallery.png")
    if arguments.check:
        print(json.dumps(check(data.load("xray", patients=arguments.patients)), indent=2))
        print(json.dumps([speed(32), speed(64), speed(128)]))


if __name__ == "__main__":
    main()
