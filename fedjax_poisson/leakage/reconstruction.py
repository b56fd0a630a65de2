"""Reconstruction of single records of a run, from the four views of one step (`attacks.views`), with the run's own mechanism.

The step is the best case for an attacker: every site's secret sample holds one record, and the parameters are the initial, public ones. Sites with
larger samples hide a record among others in addition to what is shown here.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from fedjax_poisson import attacks, trees
from fedjax_poisson.attacks.first_layer import NEEDS_CURIOUS
from fedjax_poisson.leakage.finished_run import Attacked, OnProgress, Sizes, Unattackable, box
from fedjax_poisson.randomness import fold_in, stream
from fedjax_poisson.runs.training import initial_parameters

ORIGINALS = "leakage_inversion.npz"
"""Originals and reconstructions, beside leakage.json: training records, so the file stays with the run."""

_SHOWN = 8
_ONE_RECORD = "; every site's sample holds one record (better for the attacker than any real sample)"
_TRUE_LABELS = "; the labels of the records in the sum, given to it from the truth"


def inversion(
    run: Attacked, sizes: Sizes, report: OnProgress, views: tuple[str, ...] = attacks.VIEWS
) -> dict[str, Any]:
    """Records from updates: closed form where the first layer is dense and the update is of one record, else by optimisation.

    Returns:
      By view: the median score of the reconstructions and of `chance`, the best of as many random training records as the attack made
      reconstructions (1 for a single update, S for a sum). Pictures: ssim, psnr (dB) and the share of at least 20 dB; tables: error, the root
      mean square over features in standard deviations, and the share below 0.1.
    """
    setting, mechanism = run.setting, run.setting.plan.train.mechanism
    mask = np.asarray(run.pictured.mask)
    x, y = np.asarray(run.pictured.features)[mask], np.asarray(run.pictured.labels)[mask]
    if setting.sites.features.ndim == 4 and min(x.shape[1:3]) < 11:
        raise Unattackable(
            f"pictures of {x.shape[1]} x {x.shape[2]} pixels are too small for SSIM's window of 11 x 11."
        )
    senders = setting.plan.senders
    groups = max(round(sizes.targets / senders), 1)
    order = np.random.default_rng(0).permutation(len(x))
    chosen, others = order[: groups * senders], order[groups * senders :]
    truth, labels, pool = x[chosen], jnp.asarray(y[chosen]), x[others]
    params = initial_parameters(setting)
    own = attacks.gradients_of(setting.model, params, jnp.asarray(truth)[:, None], labels[:, None])
    seen = _observed(mechanism, own.reshape(groups, senders, -1))
    bias = attacks.output_bias(setting.model, params, jnp.asarray(truth[:1]))
    low, high = box(run)
    reach = high - low  # the method's own step and weight are for values in 0..1
    config = attacks.InversionConfig(
        steps=sizes.steps, low=low, high=high, learning_rate=0.1 * reach, total_variation=1e-2 / reach
    )
    result: dict[str, Any] = {"targets": len(truth), "picture": x.ndim == 4}
    kept: dict[str, Any] = {"originals": truth[:_SHOWN]}
    for done, view in enumerate(views):
        report("inversion", done, len(views))
        batch = senders if view in ("summed", "noisy_sum") else 1
        found, needs, how = _reconstruct(run, params, seen[view], labels.reshape(-1, batch), config)
        matched = _matched(found, truth.reshape(-1, batch, *truth.shape[1:]))
        scores = _scores(matched, truth, pool, batch, (low, high))
        if batch == 1:
            guessed = np.asarray(attacks.recover_labels(seen[view], bias))
            scores["labels_recovered"] = float((guessed == np.asarray(labels).astype(guessed.dtype)).mean())
        result[view] = {"attack": how, "chance_records": batch, **scores, "needs": needs + _ONE_RECORD}
        result[view]["try_next"] = attacks.inversion.TRY_NEXT
        kept[view] = matched[:_SHOWN]
    if x.ndim == 4:
        arrays: dict[str, Any] = {name: _unit(each, low, high) for name, each in kept.items()}
        np.savez_compressed(run.folder.path / ORIGINALS, **arrays)
    return result


def _observed(mechanism: Any, updates: Array) -> dict[str, Array]:
    """What each adversary sees of some steps `[groups, S, D]`: single updates `[groups * S, D]` or sums `[groups, D]`."""
    root, clip = stream(), jax.jit(jax.vmap(mechanism.clip))
    steps = [attacks.four_views(mechanism, each, fold_in(root, i), clip(each)) for i, each in enumerate(updates)]
    return {
        "clear": jnp.concatenate([step.clear for step in steps]),
        "summed": jnp.stack([step.summed for step in steps]),
        "noisy": jnp.concatenate([step.noisy for step in steps]),
        "noisy_sum": jnp.stack([step.noisy_sum for step in steps]),
    }


def _reconstruct(
    run: Attacked, params: Any, observed: Array, labels: Array, config: attacks.InversionConfig
) -> tuple[np.ndarray, str, str]:
    """Reconstructions `[T, B, ...]` within the box, what they need, and how they were made."""
    shape, layout = run.setting.sites.features.shape[1:], trees.layout(params)
    if len(shape) == 1 and labels.shape[1] == 1:
        layers = [attacks.dense_gradients(layout.unflatten(each), shape[0]) for each in observed]
        found = np.stack([attacks.read_single(*layer).records for layer in layers])
        return np.clip(found, config.low, config.high), NEEDS_CURIOUS, "closed form of the first layer"
    got = attacks.invert(run.setting.model, params, observed, labels, shape, jax.random.key(1), config)
    return got.images, got.needs + (_TRUE_LABELS if labels.shape[1] > 1 else ""), "gradient inversion"


def _matched(found: np.ndarray, originals: np.ndarray) -> np.ndarray:
    return np.concatenate([own[attacks.best_match(own, true)] for own, true in zip(found, originals, strict=True)])


def _scores(
    found: np.ndarray, truth: np.ndarray, pool: np.ndarray, count: int, edges: tuple[float, float]
) -> dict[str, float]:
    if truth.ndim == 4:
        own, original, rest = (_unit(each, *edges) for each in (found, truth, pool))
        scores = attacks.score_images(jnp.asarray(own), jnp.asarray(original))
        _, chance = attacks.random_baseline(original, rest, min(count, len(rest)), jax.random.key(2))
        return {
            "ssim": float(np.median(scores.ssim)),
            "chance_ssim": float(np.median(chance.ssim)),
            "psnr": float(np.median(scores.psnr)),
            "chance_psnr": float(np.median(chance.psnr)),
            "recognisable": float((scores.psnr >= 20).mean()),
        }
    error = np.sqrt(((found - truth) ** 2).mean(axis=1))
    drawn = np.random.default_rng(2).integers(len(pool), size=(len(truth), count))
    chance_error = np.sqrt(((pool[drawn] - truth[:, None]) ** 2).mean(axis=2)).min(axis=1)
    return {
        "error": float(np.median(error)),
        "chance_error": float(np.median(chance_error)),
        "recognisable": float((error < 0.1).mean()),
    }


def _unit(pictures: np.ndarray, low: float, high: float) -> np.ndarray:
    return ((pictures - low) / (high - low)).astype(np.float32)
