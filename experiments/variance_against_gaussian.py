"""How much noise the Poisson embedding needs compared with a Gaussian at the same (epsilon, delta).

Three comparisons, all as the variance of the estimated sum divided by a Gaussian's:

* both accounted by Renyi divergence: the cost of embedding data in rates instead of adding real-valued noise;
* the embedding by Renyi divergence, the Gaussian by its privacy loss distribution: the additional cost of the conversion;
* the embedding by domination (`fedjax_poisson.accounting.tight`), the Gaussian by its privacy loss distribution: the
  remaining cost.

Run: ``python experiments/variance_against_gaussian.py`` (two minutes on one core). Writes
results/variance_against_gaussian.json and figures/variance_against_gaussian.png beside this file.
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from fedjax_poisson import accounting as acc
from fedjax_poisson.federated.checkpoints import write_atomic

HERE = Path(__file__).parent
DELTA = 1e-5
NORM_RATIO, DIMENSION = 20.0, 10**6
EPSILONS = (1.0, 3.0, 8.0)
REGIMES = {"one round": (1, 1.0), "100 rounds": (100, 1.0), "2000 rounds, sampling 0.01": (2000, 0.01)}
SENDERS = ((2, 0.01), (10, 0.05), (100, 0.05), (1000, 0.05), (10**5, 0.05), (100, 0.1))
SWEEP = (0.005, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.14, 0.2, 0.3)


def variance(mu: float, n: int, r: float) -> float:
    """Variance of the estimated sum in units of the squared clip norm."""
    return n / (2 * mu * r * r * NORM_RATIO**2)


def facts(n: int, r: float) -> dict:
    return {"modulation": r, "honest_senders": n, "norm_ratio": NORM_RATIO, "dimension": DIMENSION}


def measure() -> dict:
    rows = []
    for regime, (rounds, rate) in REGIMES.items():
        for epsilon in EPSILONS:
            target = {"epsilon": epsilon, "delta": DELTA, "rounds": rounds, "sampling_rate": rate}
            z_rdp = acc.calibrate_noise_multiplier(**target)
            z_pld = acc.calibrate_gaussian_pld(**target)
            for n, r in SENDERS:
                mu = acc.calibrate_dark_count(**target, **facts(n, r))
                row = {"regime": regime, "rounds": rounds, "sampling_rate": rate, "epsilon": epsilon, "delta": DELTA}
                row |= {
                    "senders": n,
                    "modulation": r,
                    "dark_count": mu,
                    "gaussian_rdp_z": z_rdp,
                    "gaussian_pld_z": z_pld,
                }
                row["rdp_over_gaussian_rdp"] = variance(mu, n, r) / z_rdp**2
                row["rdp_over_gaussian_pld"] = variance(mu, n, r) / z_pld**2
                if rate == 1.0 or (n, r) == (100, 0.05):
                    tight = acc.calibrate_dark_count_tight(**target, **facts(n, r))
                    row["domination_over_gaussian_pld"] = variance(tight, n, r) / z_pld**2
                rows.append(row)
                print(
                    {
                        k: round(v, 5) if isinstance(v, float) else v
                        for k, v in row.items()
                        if "over" in k or k in ("regime", "epsilon", "senders", "modulation")
                    }
                )
    sweep = []
    for n in (10, 100):
        for epsilon in EPSILONS:
            z = acc.calibrate_noise_multiplier(epsilon=epsilon, delta=DELTA, rounds=100)
            for r in SWEEP:
                mu = acc.calibrate_dark_count(epsilon=epsilon, delta=DELTA, rounds=100, **facts(n, r))
                sweep.append(
                    {
                        "senders": n,
                        "epsilon": epsilon,
                        "modulation": r,
                        "rdp_over_gaussian_rdp": variance(mu, n, r) / z**2,
                    }
                )
    return {
        "norm_ratio": NORM_RATIO,
        "dimension": DIMENSION,
        "python": platform.python_version(),
        "table": rows,
        "modulation_sweep": sweep,
    }


def draw(result: dict, path: Path) -> None:
    """Left: overhead against modulation. Right: overhead under each accountant at the default modulation."""
    plt.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False})
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.3), gridspec_kw={"width_ratios": [1, 1.15]})
    colours = {1.0: "#1b6ca8", 3.0: "#d1495b", 8.0: "#3f7d20"}

    def curve(n: int, epsilon: float) -> list[float]:
        points = [s for s in result["modulation_sweep"] if s["senders"] == n and s["epsilon"] == epsilon]
        return [100 * (p["rdp_over_gaussian_rdp"] - 1) for p in points]

    for epsilon in EPSILONS:
        left.plot(SWEEP, curve(10, epsilon), color=colours[epsilon], label=f"10 senders, epsilon {epsilon:g}", lw=1.5)
    low = [min(curve(100, e)[i] for e in EPSILONS) for i in range(len(SWEEP))]
    high = [max(curve(100, e)[i] for e in EPSILONS) for i in range(len(SWEEP))]
    left.fill_between(SWEEP, low, high, color="#7a5195", alpha=0.8, lw=1.5, label="100 senders, epsilon 1 to 8")
    left.plot(
        SWEEP, [100 * (1 / (1 - r * r) - 1) for r in SWEEP], ":", color="black", label="$1/(1-r^2)$", linewidth=1.2
    )
    left.axhline(0.3, color="grey", linewidth=0.8)
    left.text(0.0052, 0.33, "0.3 %", color="grey", fontsize=9)
    left.axvline(0.05, color="grey", linewidth=0.8)
    left.text(0.051, 0.0035, "default r", color="grey", fontsize=9)
    left.set(xscale="log", yscale="log", xlabel="modulation depth r", ylabel="extra variance over the Gaussian, %")
    left.set_title("Both accounted by Renyi divergence (100 rounds)", fontsize=10.5, loc="left")
    left.legend(fontsize=8.5, frameon=False, loc="upper left")

    kinds = (
        ("rdp_over_gaussian_pld", "#b8c4ce", "embedding, accounted by Renyi divergence"),
        ("domination_over_gaussian_pld", "#1b6ca8", "embedding, accounted by domination"),
    )
    rows = [r for r in result["table"] if r["senders"] == 100 and r["modulation"] == 0.05 and r["rounds"] > 1]
    labels = []
    for i, row in enumerate(rows):
        for j, (key, colour, label) in enumerate(kinds):
            value = 100 * (row[key] - 1)
            right.bar(i + 0.38 * (j - 0.5), value, 0.36, color=colour, label=label if i == 0 else None)
            right.text(i + 0.38 * (j - 0.5), value + 0.25, f"{value:.1f}", ha="center", fontsize=8.5)
        labels.append(f"{row['epsilon']:g}")
    right.set_xticks(range(len(rows)), labels)
    for g, regime in enumerate(result_regimes(rows)):
        right.text(3 * g + 1, -2.7, regime, ha="center", fontsize=9.5)
        if g:
            right.axvline(3 * g - 0.5, color="lightgrey", linewidth=0.8)
    right.set(ylabel="extra variance over the Gaussian, %", ylim=(0, 22))
    right.text(-0.62, -1.28, "epsilon", ha="right", fontsize=9)
    right.set_title("Against the PLD-accounted Gaussian (100 senders, r = 0.05)", fontsize=10.5, loc="left")
    right.legend(fontsize=8.5, frameon=False, loc="upper right")
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    plt.close(figure)


def result_regimes(rows: list[dict]) -> list[str]:
    return list(dict.fromkeys(row["regime"] for row in rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--figure-only", action="store_true", help="redraw from the stored results")
    arguments = parser.parse_args()
    stored = HERE / "results" / "variance_against_gaussian.json"
    if not arguments.figure_only:
        stored.parent.mkdir(exist_ok=True)
        write_atomic(stored, (json.dumps(measure(), indent=1) + "\n").encode())
    (HERE / "figures").mkdir(exist_ok=True)
    draw(json.loads(stored.read_text()), HERE / "figures" / "variance_against_gaussian.png")


if __name__ == "__main__":
    main()
