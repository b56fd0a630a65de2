"""The attacks at full size, printed as JSON lines: `python -m tests.attacks.measure inversion|membership|audit|canaries|property [options]`.

Not a test: the suites run small. `inversion` reads images from a MedMNIST file (`--images pneumoniamnist.npz`), or renders phantoms of blobs.
"""

from __future__ import annotations

import argparse
import functools
import json
import time
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import fedjax_poisson as fp
from fedjax_poisson import accounting, attacks, trees
from fedjax_poisson.data import padded
from fedjax_poisson.federated import Records
from fedjax_poisson.randomness import fold_in, stream
from tests.attacks.helpers import images

DELTA, ORDERS = 1e-5, accounting.integer_orders(512)


def show(name: str, **facts: Any) -> None:
    print(json.dumps({"what": name} | attacks.to_json(facts)), flush=True)


def embedding(epsilon: float, senders: int, dimension: int, kappa: float = 0.1, rounds: int = 1, **facts: float):
    modulation = 0.05 * min(1.0, senders / 10)
    bound = facts.pop("total_bound", None)
    step = 1.0 if bound is None else kappa / bound
    dark = accounting.calibrate_dark_count(
        epsilon=epsilon,
        delta=DELTA,
        rounds=rounds,
        modulation=modulation,
        honest_senders=senders,
        norm_ratio=1 / kappa,
        dimension=dimension,
        step_ratio=step,
        **facts,
    )
    return fp.poisson_embedding(
        clip_norm=1.0, coordinate_bound=kappa, dark_count=dark, modulation=modulation, total_bound=bound
    )


def inversion(options: argparse.Namespace) -> None:
    targets, senders = options.targets, 4
    if options.images:
        file = np.load(options.images)
        everything = file["train_images"].astype(np.float32)[..., None] / 255
        truth = file["train_labels"][:, 0]
    else:
        everything, truth = images(targets + 500, 28), np.arange(targets + 500) % 2
    x, y, pool = everything[:targets], truth[:targets].astype(np.float32), everything[targets:]
    models = {"mlp": fp.models.mlp((64, 32)), "cnn": fp.models.cnn(2, widths=(16, 32), dense=64, binary=True)}
    for name, model in models.items():
        flat = name == "mlp"
        records = x.reshape(targets, -1) if flat else x
        params = model.init(jax.random.key(0), jnp.asarray(records[:1]))
        size = trees.layout(params).size
        own = attacks.gradients_of(model, params, jnp.asarray(records)[:, None], jnp.asarray(y)[:, None])
        where = attacks.output_bias(model, params, jnp.asarray(records[:1]))
        show("labels", model=name, parameters=size, recovered=np.mean(attacks.recover_labels(own, where) == y))
        config = attacks.InversionConfig(steps=options.steps)
        for epsilon in (None, 8.0, 1.0):
            mechanism = embedding(epsilon or 8.0, senders, size)
            groups = own.reshape(-1, senders, size)
            views = [attacks.four_views(mechanism, g, fold_in(stream(), i)) for i, g in enumerate(groups)]
            seen = {
                "clear": np.concatenate([v.clear for v in views]),
                "summed": np.stack([v.summed for v in views]),
                "noisy": np.concatenate([v.noisy for v in views]),
                "noisy_sum": np.stack([v.noisy_sum for v in views]),
            }
            for view in ("clear", "summed") if epsilon is None else ("noisy", "noisy_sum"):
                started, batch = time.perf_counter(), senders if "sum" in view else 1
                observed, labels = jnp.asarray(seen[view]), jnp.asarray(y.reshape(-1, batch))
                done: dict[str, Any] = {}
                if flat:
                    layers = [attacks.dense_gradients(trees.layout(params).unflatten(g), 784) for g in observed]
                    read = attacks.read_single if batch == 1 else functools.partial(attacks.read_neurons, count=64)
                    done["first layer"] = np.stack([read(*layer).records for layer in layers])
                if flat and batch > 1:
                    done["planted first layer"] = planted(model, params, mechanism, records, y, senders, view, pool)
                if not flat or batch > 1:
                    done["gradient inversion"] = attacks.invert(
                        model, params, observed, labels, records.shape[1:], jax.random.key(1), config
                    ).images
                for attack, found in done.items():
                    found = np.clip(found.reshape(len(observed), -1, 28, 28, 1), 0, 1)
                    originals = x.reshape(-1, batch, 28, 28, 1)
                    pairs = zip(found, originals, strict=True)
                    matched = np.concatenate([f[attacks.best_match(f, o)] for f, o in pairs])
                    scores = attacks.score_images(matched, x)
                    _, chance = attacks.random_baseline(x, pool, found.shape[1], jax.random.key(2))
                    show(
                        "inversion",
                        model=name,
                        attack=attack,
                        view=view,
                        epsilon=epsilon,
                        targets=targets,
                        psnr_median=np.median(scores.psnr),
                        share_above_20_db=np.mean(scores.psnr >= 20),
                        ssim_median=np.median(scores.ssim),
                        edge_distance_median=np.median(scores.edge_distance),
                        chance_images=found.shape[1],
                        chance_ssim_median=np.median(chance.ssim),
                        chance_psnr_median=np.median(chance.psnr),
                        seconds=time.perf_counter() - started,
                    )
                    if options.save:
                        name_of = f"{options.save}-{name}-{view}-{epsilon}-{attack.replace(' ', '-')}.npz"
                        np.savez(name_of, originals=x, found=matched)


def planted(model, params, mechanism, records, y, senders, view, pool):
    """What a malicious server reads from sums when it plants the first layer, thresholds from other images."""
    brightness = pool[:2000].reshape(len(pool[:2000]), -1).mean(axis=1)
    width = params["layers"][0]["bias"].size
    sent = attacks.plant_imprint(params, np.quantile(brightness, (np.arange(width) + 0.5) / width))
    own = attacks.gradients_of(model, sent, jnp.asarray(records)[:, None], jnp.asarray(y)[:, None])
    found = []
    for i, group in enumerate(own.reshape(-1, senders, own.shape[1])):
        views = attacks.four_views(mechanism, group, fold_in(stream(), i))
        layer = attacks.dense_gradients(trees.layout(sent).unflatten(getattr(views, view)), records.shape[1])
        found.append(attacks.read_imprint(*layer).records)
    return np.stack(found)


def heart() -> tuple[Records, np.ndarray, np.ndarray]:
    """Standardised training records of the four hospitals, padded, and flat features and labels of the real ones."""
    sites = fp.data.load("heart")
    box = padded(sites)
    mean, deviation = (f(sites.features[sites.train], axis=0) for f in (np.mean, np.std))
    x = ((box.features - mean) / deviation * box.mask[..., None]).astype(np.float32)
    unit = np.where(box.mask, np.arange(box.mask.shape[1], dtype=np.int32), np.int32(-1))
    cohort = Records(jnp.asarray(x), jnp.asarray(box.labels, jnp.float32), jnp.asarray(box.mask), jnp.asarray(unit))
    return cohort, x[box.mask], box.labels[box.mask].astype(np.float32)


def membership(options: argparse.Namespace) -> None:
    cohort, x, y = heart()
    model, member = fp.models.mlp((64, 32)), attacks.balanced_memberships(options.shadows, len(x), 0)
    started = time.perf_counter()
    trainer = attacks.plain_trainer(model, jnp.asarray(x), jnp.asarray(y), steps=2000)
    params = jax.block_until_ready(attacks.train_shadows(trainer, member, jax.random.key(0)))
    confidence = attacks.confidences(model, params, jnp.asarray(x), jnp.asarray(y))
    accuracy = ((confidence > 0)[member].mean(), (confidence > 0)[~member].mean())
    show("shadows", shadows=options.shadows, seconds=time.perf_counter() - started, accuracy_in_out=accuracy)
    for result in (
        attacks.loss_threshold(confidence, member),
        attacks.lira(confidence, member),
        attacks.lira(confidence, member, mode="offline"),
    ):
        show("membership, undefended", result=result)
    mask = np.asarray(cohort.mask).ravel()
    everybody = np.zeros((options.shadows, mask.size), bool)
    everybody[:, mask] = member
    size, rounds, rate = trees.layout(model.init(jax.random.key(0), jnp.zeros((1, 13)))).size, 40, 0.5
    for epsilon in (8.0, 1.0):
        mechanism = embedding(epsilon, 3, size, rounds=rounds, sampling_rate=rate, total_bound=10.0)
        started = time.perf_counter()
        trainer = attacks.private_trainer(
            model,
            cohort,
            mechanism,
            rounds=rounds,
            sampling_rate=rate,
            server_optimizer=optax.sgd(2.0, momentum=0.8),
            records=243.0,
            stream=stream(),
        )
        params = jax.block_until_ready(attacks.train_shadows(trainer, everybody, jax.random.key(0), at_once=16))
        confidence = attacks.confidences(model, params, jnp.asarray(x), jnp.asarray(y))
        accuracy = ((confidence > 0)[member].mean(), (confidence > 0)[~member].mean())
        show("private shadows", epsilon=epsilon, seconds=time.perf_counter() - started, accuracy_in_out=accuracy)
        for result in (attacks.loss_threshold(confidence, member), attacks.lira(confidence, member)):
            show("membership, defended", epsilon=epsilon, result=result)


def audit(options: argparse.Namespace) -> None:
    for senders in (4, 10):
        for epsilon in (1.0, 3.0, 8.0):
            right = embedding(epsilon, senders, 64, kappa=1.0, rounds=2)
            facts = {name: value for name, value in right.facts.parameters if value is not None}
            quiet = fp.poisson_embedding(**facts | {"dark_count": facts["dark_count"] / 0.64})
            far = fp.poisson_embedding(**facts | {"modulation": facts["modulation"] * 1.25})
            known = {"dimension": 64, "senders": senders, "claim": right, "draws": options.draws}
            cases = {
                "right": (right, {}),
                "noise x 0.8": (right._replace(embed=quiet.embed), {}),
                "biased sampler": (right._replace(embed=far.embed), {}),
                "reused stream": (right, {"round_stream": lambda s, number: s}),
                "n instead of honest": (right, {"senders": senders - 1, "claimed_senders": senders}),
            }
            for name, (mechanism, changes) in cases.items():
                started, bounds, violated = time.perf_counter(), [], 0
                for _ in range(options.runs):
                    result = attacks.audit_mechanism(mechanism, stream(), **known | changes)
                    bounds.append(result.epsilon_lower)
                    violated += result.violated
                show(
                    "mechanism audit",
                    case=name,
                    senders=senders,
                    epsilon=epsilon,
                    runs=options.runs,
                    accused=violated,
                    lower_least=min(bounds),
                    lower_median=np.median(bounds),
                    lower_most=max(bounds),
                    draws=options.draws,
                    seconds=time.perf_counter() - started,
                )


def canaries(options: argparse.Namespace) -> None:
    count = options.canaries
    for epsilon in (1.0, 3.0, 8.0):
        mechanism = embedding(epsilon, count, 4 * count, kappa=0.5)
        aggregator = fp.ckks.aggregator(
            "device", count_bound=mechanism.count_bound(count, 4 * count), senders=count, size=4 * count
        )
        claimed = accounting.epsilon(ORDERS, mechanism.rdp(ORDERS, count, 4 * count), DELTA)
        guesses = attacks.choose_guesses(count, 1 / np.sqrt(mechanism.variance(count)), DELTA)
        updates, started, bounds = attacks.canary_updates(mechanism, count, 4 * count), time.perf_counter(), []
        for seed in range(options.runs):
            run = attacks.run_with_canary_clients(mechanism, aggregator, updates, attacks.coins(count, seed), stream())
            bounds.append(_bound(run.white_box, run.included, claimed, guesses))
        _show_bounds("canary clients, white-box", epsilon, claimed, bounds, guesses, count, started)
    cohort, _, _ = heart()
    model, rounds = fp.models.mlp((32,)), 5
    params = model.init(jax.random.key(0), jnp.zeros((1, 13)))
    size = trees.layout(params).size
    x, y = attacks.craft_records(model, params, (13,), count, jax.random.key(5))
    for epsilon in (1.0, 3.0, 8.0):
        mechanism = embedding(epsilon, 3, size, kappa=0.5, rounds=rounds, total_bound=40.0)
        aggregator = fp.ckks.aggregator("device", count_bound=mechanism.count_bound(4, size), senders=4, size=size)
        algorithm = fp.fedsgd(
            model,
            features=13,
            records=486.0,
            sampling_rate=1.0,
            mechanism=mechanism,
            aggregator=aggregator,
            server_optimizer=attacks.recording(optax.sgd(1.0)),
            senders=4,
        )
        claimed = accounting.epsilon(ORDERS, rounds * algorithm.rdp(ORDERS), DELTA)
        guesses = attacks.choose_guesses(count, np.sqrt(rounds / mechanism.variance(4)), DELTA)
        started, white, black = time.perf_counter(), [], []
        for seed in range(options.runs):
            run = attacks.run_with_canary_records(
                algorithm,
                model,
                mechanism,
                cohort,
                x,
                y,
                attacks.coins(count, seed),
                jax.random.key(0),
                stream(),
                rounds=rounds,
                records=486.0,
            )
            white.append(_bound(run.white_box, run.included, claimed, guesses))
            assert run.black_box is not None
            black.append(_bound(run.black_box, run.included, claimed, guesses))
        _show_bounds("canary records, white-box", epsilon, claimed, white, guesses, count, started)
        _show_bounds("canary records, black-box", epsilon, claimed, black, guesses, count, started)


def _bound(scores: np.ndarray, included: np.ndarray, claimed: float, guesses: int) -> float:
    return attacks.one_run_audit(
        scores, included, epsilon_claimed=claimed, delta=DELTA, guesses=guesses, attack="", needs=""
    ).epsilon_lower


def _show_bounds(
    name: str, epsilon: float, claimed: float, bounds: list[float], guesses: int, count: int, started: float
) -> None:
    show(
        name,
        epsilon=epsilon,
        claimed=claimed,
        canaries=count,
        guesses=guesses,
        runs=len(bounds),
        accused=sum(b > claimed for b in bounds),
        lower_median=np.median(bounds),
        lower_most=max(bounds),
        seconds=time.perf_counter() - started,
    )


def site_property(options: argparse.Namespace) -> None:
    """Which hospital: single-site gradients, and sums without one, over rounds of training on the heart data."""
    cohort, _, _ = heart()
    model, rounds = fp.models.logistic(), 40
    params, size = model.init(jax.random.key(0), cohort.features[0, :1]), 14
    rng = np.random.default_rng(0)
    for epsilon in (8.0, 1.0):
        mechanism = embedding(epsilon, 3, size, kappa=0.6, rounds=rounds, sampling_rate=0.5, total_bound=77.0)

        @jax.jit
        def site_sums(params, keep, mechanism=mechanism):
            contribution = fp.federated.records.gradient_contribution(model.loss, params)

            def one(x, y, kept):
                each = jax.vmap(contribution)(x, y)
                grids = jax.vmap(mechanism.clip)(each)
                return jnp.sum(jnp.where(kept[:, None], each, 0.0), 0), jnp.sum(jnp.where(kept[:, None], grids, 0), 0)

            return jax.vmap(one)(cohort.features, cohort.labels, keep)

        seen: dict[str, list[np.ndarray]] = {view: [] for view in attacks.VIEWS}
        for number in range(rounds):
            keep = cohort.mask & jnp.asarray(rng.random(cohort.mask.shape) < 0.5)
            updates, grids = site_sums(params, keep)
            whole = attacks.four_views(mechanism, updates, fold_in(stream(), number), grids)
            seen["clear"].append(np.asarray(whole.clear))
            seen["noisy"].append(np.asarray(whole.noisy))
            seen["summed"].append(attacks.leave_one_out(updates[None])[0])
            without = [attacks.four_views(mechanism, updates, stream(), grids.at[s].set(0)).noisy_sum for s in range(4)]
            seen["noisy_sum"].append(np.stack(without))
        for view in attacks.VIEWS:
            show("site", epsilon=epsilon, view=view, result=attacks.attribute_sites(np.stack(seen[view])))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["inversion", "membership", "audit", "canaries", "property"])
    parser.add_argument("--images")
    parser.add_argument("--save")
    parser.add_argument("--targets", type=int, default=32)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--shadows", type=int, default=64)
    parser.add_argument("--draws", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--canaries", type=int, default=128)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    {
        "inversion": inversion,
        "membership": membership,
        "audit": audit,
        "canaries": canaries,
        "property": site_property,
    }[options.what](options)


if __name__ == "__main__":
    main()
