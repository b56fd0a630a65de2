"""Closed forms against direct mpmath sums; every accounting mistake of the field as a twin that must be seen."""

from __future__ import annotations

import math

import mpmath as mp
import numpy as np
import pytest
from dp_accounting import rdp as dp_rdp

from fedjax_poisson import accounting as acc
from fedjax_poisson.accounting.renyi import DEFAULT_ORDERS
from tests.accounting import reference

TOLERANCE = 1e-7


def _close(value: float, wanted, tolerance: float = TOLERANCE) -> None:
    assert abs(value - float(wanted)) <= tolerance * float(wanted), (value, float(wanted))


# (order, dark count, r, senders, colluders, norm ratio, dimension, step ratio); dropouts: honest = senders - colluders.
EMBEDDINGS = [
    (2, 8.0, 0.05, 1, 0, 1.0, 1, 1.0),
    (3, 8.0, 0.05, 10, 1, 1.0, 1, 1.0),
    (7, 3.0, 0.1, 10, 3, 2.0, 4, 1.0),
    (16, 0.5, 0.3, 4, 1, 3.0, 100, 1.0),
    (32, 1.0, 0.1, 3, 0, 1.0, 7, 1.0),
    (64, 0.1, 0.05, 5, 2, 5.0, 25, 0.2),
    (128, 20.0, 0.01, 8, 0, 1.0, 1, 0.1),
    (512, 2.0, 0.02, 6, 1, 1.0, 1, 0.05),
    (2, 5.0, 0.9, 2, 1, 1.0, 3, 1.0),
    (5, 0.01, 0.7, 2, 0, 2.0, 2, 0.5),
    (2.5, 4.0, 0.2, 3, 1, 2.0, 9, 1.0),
    (3.75, 4.0, 0.2, 3, 0, 1.0, 1, 1.0),
]


@pytest.mark.parametrize("adjacency", ["zero_out", "replace_one"])
@pytest.mark.parametrize("case", EMBEDDINGS)
def test_embedding_equals_direct_sum(case, adjacency):
    order, dark, r, senders, colluders, ratio, dimension, step_ratio = case
    facts = {"dark_count": dark, "modulation": r, "honest_senders": senders - colluders, "adjacency": adjacency}
    value = acc.poisson_embedding_rdp([order], norm_ratio=ratio, dimension=dimension, step_ratio=step_ratio, **facts)[0]
    wanted = reference.embedding_rdp(order, coordinates=min(dimension, ratio**2), step_ratio=step_ratio, **facts)
    _close(value, wanted)


@pytest.mark.parametrize("adjacency", ["zero_out", "replace_one"])
@pytest.mark.parametrize("case", EMBEDDINGS[:8])
def test_single_channel_equals_direct_sum(case, adjacency):
    order, dark, r, senders, colluders, ratio, dimension, step_ratio = case
    facts = {"dark_count": dark, "modulation": r, "honest_senders": senders - colluders, "adjacency": adjacency}
    value = acc.single_channel_rdp([order], norm_ratio=ratio, dimension=dimension, step_ratio=step_ratio, **facts)[0]
    wanted = reference.embedding_rdp(
        order, coordinates=min(dimension, ratio**2), step_ratio=step_ratio, channels=1, **facts
    )
    _close(value, wanted)


@pytest.mark.parametrize("order", [2.0, 2.1, 2.5, 2.99, 3.5])
@pytest.mark.parametrize("honest", [1, 3])
def test_single_channel_between_integers(order, honest):
    """The bound for a < 2 must not leak above 2, where it is below the exact value."""
    facts = {"dark_count": 3.0, "modulation": 0.7, "honest_senders": honest}
    value = acc.single_channel_rdp([order], norm_ratio=1.0, dimension=1, **facts)[0]
    _close(value, reference.embedding_rdp(order, channels=1, **facts))


@pytest.mark.parametrize("order", [1.05, 1.5, 1.95])
@pytest.mark.parametrize("adjacency", ["zero_out", "replace_one"])
def test_single_channel_below_two_covers_every_spread(order, adjacency):
    """Exact divergences of the same L2 over m equal coordinates: rising to the bound as they spread."""
    r, honest, mu, ratio = 0.6, 2, 1.5, 2.0
    h = r / honest * (2 if adjacency == "replace_one" else 1)
    facts = {"dark_count": mu, "modulation": r, "honest_senders": honest, "adjacency": adjacency}
    bound = acc.single_channel_rdp([order], norm_ratio=ratio, dimension=10**6, **facts)[0]
    spreads = []
    for m in (1, 2, 10, 10**5):
        step = h / math.sqrt(m)
        with mp.workdps(60):
            x, y, a = mp.mpf(1 - r) + mp.mpf(step), mp.mpf(1 - r), mp.mpf(order)
            one = (x**a * y ** (1 - a) - a * x - (1 - a) * y) / (a - 1)
        spreads.append(float(ratio**2 * m * honest * mu * one))
    assert spreads == sorted(spreads) and 0.998 * bound < spreads[-1] <= bound * (1 + 1e-9)


@pytest.mark.parametrize("order", [2, 3, 8, 33, 64])
@pytest.mark.parametrize(("variance", "shift"), [(4.0, 1), (30.0, 3), (200.0, 1)])
def test_skellam_exact_equals_direct_sum_and_stays_below_published_bound(order, variance, shift):
    value = acc.skellam_exact_rdp([order], variance=variance, shift=shift)[0]
    _close(value, reference.skellam_rdp(order, variance, shift))
    assert value <= acc.skellam_rdp([order], variance=variance, l1=shift, l2=shift)[0]


def test_skellam_takes_the_variance_not_the_rate():
    # Taking the rate mu for the variance 2 mu doubles the bound; taking half of it falls below the exact value.
    exact = acc.skellam_exact_rdp([4], variance=64.0)[0]
    assert acc.skellam_rdp([4], variance=128.0, l1=1, l2=1)[0] < exact


@pytest.mark.parametrize(("order", "z"), [(2, 1.0), (1.5, 0.7), (20, 4.0)])
def test_gaussian_equals_quadrature(order, z):
    with mp.workdps(30):
        a, sigma = mp.mpf(order), mp.mpf(z)

        def log_density(x, mean):
            return -((x - mean) ** 2) / (2 * sigma**2) - mp.log(sigma * mp.sqrt(2 * mp.pi))

        total = mp.quad(
            lambda x: mp.exp(a * log_density(x, 1) + (1 - a) * log_density(x, 0)),
            mp.linspace(a - 14 * sigma, a + 14 * sigma, 9),
        )
        _close(acc.gaussian_rdp([order], noise_multiplier=z)[0], mp.log(total) / (a - 1))
        _close(acc.gaussian_rdp([order], noise_multiplier=2 * z, adjacency="replace_one")[0], mp.log(total) / (a - 1))


def test_composition_equals_the_joint_sum():
    one = {"dark_count": 2.0, "modulation": 0.2, "honest_senders": 2}
    other = {"dark_count": 0.5, "modulation": 0.4, "honest_senders": 3}
    total = acc.compose(
        acc.poisson_embedding_rdp([5], norm_ratio=1, dimension=1, **one),
        acc.poisson_embedding_rdp([5], norm_ratio=1, dimension=1, **other),
        acc.gaussian_rdp([5], noise_multiplier=3.0),
    )
    wanted = reference.embedding_rdp(5, **one) + reference.embedding_rdp(5, **other) + mp.mpf(5) / 18
    _close(total[0], wanted)


@pytest.mark.parametrize("order", [2, 3, 17, 128, 1024])
@pytest.mark.parametrize("h", [1e-9, 1e-6, 1e-3, 0.03])
def test_tiny_steps_keep_their_digits(order, h):
    r = 0.05
    value = acc.embedding_divergence([order], r, h)[0]
    with mp.workdps(80):
        a, rr, hh = mp.mpf(order), mp.mpf(r), mp.mpf(h)
        wanted = ((1 - rr) * ((1 + hh / (1 - rr)) ** a - 1) + (1 + rr) * ((1 - hh / (1 + rr)) ** a - 1)) / (a - 1)
        _close(value, wanted, 1e-11)
        # The finite sum of the theorem, all terms non-negative, is the same number.
        terms = [
            mp.binomial(order, k) * hh**k * ((1 - rr) ** (1 - k) + (-1) ** k * (1 + rr) ** (1 - k))
            for k in range(2, order + 1)
        ]
        assert min(terms) >= 0
        _close(value, mp.fsum(terms) / (a - 1), 1e-11)


def test_range_from_1e_minus_12_to_1e6_is_smooth_and_monotone():
    base = {"modulation": 0.05, "norm_ratio": 20.0, "dimension": 10**6}
    orders = acc.integer_orders(1024)
    small = acc.poisson_embedding_rdp(orders, dark_count=1e-7, honest_senders=10**3, **base)
    large = acc.poisson_embedding_rdp(orders, dark_count=1e8, honest_senders=1, **base)
    assert small[0] < 1e-9 and np.all(np.diff(small) > 0)
    assert large[0] > 1e6 and np.all(np.diff(large[np.isfinite(large)]) > 0)
    twice = acc.poisson_embedding_rdp(orders, dark_count=2e-7, honest_senders=10**3, **base)
    np.testing.assert_allclose(twice, 2 * small, rtol=1e-14)


@pytest.mark.parametrize("order", [1.05, 1.3, 1.5, 1.9])
@pytest.mark.parametrize("adjacency", ["zero_out", "replace_one"])
@pytest.mark.parametrize("honest", [1, 2, 10])
def test_orders_below_two_cover_every_spread(order, adjacency, honest):
    """Below order 2 spreading the same L2 over more coordinates costs MORE; the bound must cover all spreads."""
    r, ratio = 0.4, 2.0
    h = r / honest * (2 if adjacency == "replace_one" else 1)
    bound = acc.poisson_embedding_rdp(
        [order],
        dark_count=1.0,
        modulation=r,
        honest_senders=honest,
        norm_ratio=ratio,
        dimension=10**6,
        adjacency=adjacency,
    )[0]
    spreads = [
        (ratio**2 * m) * honest * acc.embedding_divergence([order], r, h / math.sqrt(m))[0] for m in (1, 2, 10, 10**5)
    ]
    assert all(value <= bound * (1 + 1e-12) for value in spreads)
    if h <= r:
        assert spreads == sorted(spreads)
        assert spreads[-1] > 0.999 * bound  # and no looser than the limit


def test_worst_vector_changes_with_the_order_so_no_single_pair_dominates():
    """The reason why the PLD of one 'worst vector' is no accountant in d > 1."""
    r, h = 0.5, 0.5
    concentrated = acc.embedding_divergence([1.2, 6.0], r, h)
    spread = 100 * acc.embedding_divergence([1.2, 6.0], r, h / 10)
    assert spread[0] > concentrated[0] and spread[1] < concentrated[1]


@pytest.mark.parametrize("order", [2, 2.2, 2.7, 3, 5, 20])
def test_random_vectors_never_exceed_the_bound(order):
    """Any feasible vector, any position of the others, both directions: below K M g."""
    rng = np.random.default_rng(5)
    r, honest, ratio, d, mu = 0.6, 2, 1.7, 6, 0.8
    for adjacency, factor in (("zero_out", 1.0), ("replace_one", 2.0)):
        bound = acc.poisson_embedding_rdp(
            [order],
            dark_count=mu,
            modulation=r,
            honest_senders=honest,
            norm_ratio=ratio,
            dimension=d,
            adjacency=adjacency,
        )[0]
        m, worst = honest * mu, 0.0
        for _ in range(300):
            v = rng.uniform(-1, 1, d) * (rng.random(d) < rng.random())
            v /= max(1.0, np.linalg.norm(v) / ratio)
            rest = rng.choice([-1.0, 1.0, rng.uniform(-1, 1)], d)
            other = -v if factor == 2 else np.zeros(d)
            s, t = r * (rest + v) / honest, r * (rest + other) / honest
            for one, two in ((s, t), (t, s)):
                cost = 0.0
                for x, y in zip(np.r_[1 + one, 1 - one], np.r_[1 + two, 1 - two], strict=True):
                    cost += m * (x**order * y ** (1 - order) - order * x - (1 - order) * y) / (order - 1)
                worst = max(worst, cost)
        assert worst <= bound * (1 + 1e-9)
        assert worst > 0.2 * bound


ATTAINABLE = [(1, 1), (2, 1), (9, 1), (9, 6), (50, 3)]


@pytest.mark.parametrize("adjacency", ["zero_out", "replace_one"])
@pytest.mark.parametrize(("honest", "rounds"), ATTAINABLE)
@pytest.mark.parametrize("dark", [0.5, 40.0])
def test_epsilon_is_never_below_the_exact_hockey_stick(honest, rounds, dark, adjacency):
    r, ratio, delta = 0.3, 2.0, 1e-5
    curve = acc.poisson_embedding_rdp(
        DEFAULT_ORDERS,
        dark_count=dark,
        modulation=r,
        honest_senders=honest,
        norm_ratio=ratio,
        dimension=50,
        adjacency=adjacency,
    )
    eps = acc.epsilon(DEFAULT_ORDERS, rounds * curve, delta)
    step = r / honest * (2 if adjacency == "replace_one" else 1)
    exact = reference.exact_delta(eps, events=rounds * 4 * honest * dark, modulation=r, step=step)
    assert exact <= delta
    assert reference.exact_delta(0.6 * eps, events=rounds * 4 * honest * dark, modulation=r, step=step) > delta


def _claims(delta: float, **changes):
    """Epsilon claimed with one fact changed, and the exact delta there of the honest attainable pair."""
    facts = {
        "dark_count": 2.0,
        "modulation": 0.4,
        "honest_senders": 2,
        "norm_ratio": 2.0,
        "dimension": 10,
        "adjacency": "zero_out",
    }
    step = facts["modulation"] / facts["honest_senders"] * (2 if changes.pop("truth", "") == "replace_one" else 1)
    curve = acc.poisson_embedding_rdp(DEFAULT_ORDERS, **{**facts, **changes})
    claimed = acc.epsilon(DEFAULT_ORDERS, curve, delta)
    return reference.exact_delta(claimed, events=4 * 2 * 2.0, modulation=0.4, step=step)


def test_honest_claim_holds_and_each_mistake_is_caught():
    delta = 1e-5
    assert _claims(delta) <= delta
    assert _claims(delta, norm_ratio=1.0) > delta, "the coordinate bound used as the L2 bound (K = 1)"
    assert _claims(delta, honest_senders=6) > delta, "all senders counted instead of the honest ones"
    assert _claims(delta, truth="replace_one") > delta, "a zero-out curve sold as replace-one"
    assert _claims(delta, truth="replace_one", adjacency="replace_one") <= delta
    assert _claims(delta, modulation=0.2) > delta, "the modulation ignored"


def test_gaussian_accountant_on_poisson_noise_under_reports():
    """One channel, typical rate, Gaussian formula with the typical variance: claims far less than the exact loss."""
    base, orders, delta = 1.2, DEFAULT_ORDERS, 1e-5  # b = 1.2 c_inf, one honest sender, target at -c_inf or 0
    lam = 4.0
    typical_variance = lam * base
    claimed = acc.epsilon(orders, acc.gaussian_rdp(orders, noise_multiplier=math.sqrt(typical_variance) / lam), delta)
    low, high = lam * (base - 1), lam * base
    k = np.arange(0, 400)
    from scipy import stats

    p, q = stats.poisson.pmf(k, high), stats.poisson.pmf(k, low)
    assert reference.hockey_stick(p, q, claimed) > delta
    honest = acc.single_channel_rdp(
        orders, dark_count=lam * base, modulation=1 / base, honest_senders=1, norm_ratio=1, dimension=1
    )
    assert reference.hockey_stick(p, q, acc.epsilon(orders, honest, delta)) <= delta
    assert acc.epsilon(orders, honest, delta) > 1.3 * claimed


def test_single_channel_uses_the_lowest_rate_of_the_rest():
    """The typical rate n lam b under-reports; the client's own rate over-reports."""
    n, mu, r = 5, 3.0, 0.5
    value = acc.single_channel_rdp([8], dark_count=mu, modulation=r, honest_senders=n, norm_ratio=1, dimension=1)[0]

    def divergence(base: float, step: float) -> float:
        return float(reference.renyi_of_moment(reference.poisson_moment(base + step, base, 8), 8))

    assert divergence(n * mu, mu * r) < 0.9 * value  # everybody at zero: typical
    _close(value, divergence(n * mu * (1 - r), mu * r))
    assert divergence(mu * (1 - r), mu * r) > 1.5 * value  # only the target's own noise


def test_both_directions_are_covered():
    """The outward direction is smaller: using it alone under-reports the inward one."""
    r, m, a = 0.5, 4.0, 6
    (px, py), (qx, qy) = reference.embedding_worlds(m, r, r)
    inward = reference.poisson_moment(px, qx, a) * reference.poisson_moment(py, qy, a)
    outward = reference.poisson_moment(qx, px, a) * reference.poisson_moment(qy, py, a)
    value = acc.poisson_embedding_rdp([a], dark_count=m, modulation=r, honest_senders=1, norm_ratio=1, dimension=1)[0]
    assert float(reference.renyi_of_moment(outward, a)) < 0.8 * value
    _close(value, reference.renyi_of_moment(inward, a))


def test_rounding_sensitivity_is_in_the_skellam_curve():
    d = 10**6
    root = math.sqrt(d)
    for ratio, wanted in ((0.5, 2.0), (1.0, 1.25), (2.0, 1.063), (10.0, 1.0026)):
        sensitivity = acc.rounded_sensitivity(scaled_norm=ratio * root, dimension=d)
        assert (sensitivity.l2 / (ratio * root)) ** 2 == pytest.approx(wanted, abs=5e-3)
    double = acc.rounded_sensitivity(scaled_norm=root, dimension=d, adjacency="replace_one")
    assert double.l2 == pytest.approx(2 * acc.rounded_sensitivity(scaled_norm=root, dimension=d).l2)
    small = acc.rounded_sensitivity(scaled_norm=1.0, dimension=1)
    assert small.l1 <= small.l2**2 and small.l1 <= small.l2


def test_conversion_equals_dp_accounting_and_published_constants():
    rng = np.random.default_rng(0)
    for delta in (1e-3, 1e-5, 1e-9):
        for scale in (1e-6, 1e-2, 1.0, 30.0):
            curve = scale * DEFAULT_ORDERS * (1 + 0.1 * rng.random(DEFAULT_ORDERS.size))
            wanted, order = dp_rdp.compute_epsilon(DEFAULT_ORDERS, curve, delta)
            assert acc.epsilon(DEFAULT_ORDERS, curve, delta) == pytest.approx(wanted, rel=1e-12)
            if wanted > 0.02:
                assert acc.best_order(DEFAULT_ORDERS, curve, delta) == order
    # z(T = 1, delta = 1e-5) and the sampled setting of the literature.
    for eps, z in ((1.0, 4.045), (3.0, 1.497), (8.0, 0.638)):
        assert acc.calibrate_noise_multiplier(epsilon=eps, delta=1e-5, rounds=1) == pytest.approx(z, abs=1e-3)
    z = acc.calibrate_noise_multiplier(epsilon=3.0, delta=1e-5, rounds=2000, sampling_rate=0.01)
    assert z == pytest.approx(0.981, abs=1e-3)


def test_gaussian_curve_equals_dp_accounting_with_and_without_sampling():
    import dp_accounting

    orders = list(range(2, 65))
    for rate in (1.0, 0.05, 0.001):
        accountant = dp_rdp.RdpAccountant(orders)
        event = dp_accounting.GaussianDpEvent(1.1)
        accountant.compose(event if rate == 1 else dp_accounting.PoissonSampledDpEvent(rate, event), 50)
        curve = acc.subsampled_rdp(orders, acc.gaussian_rdp(orders, noise_multiplier=1.1), rate)
        assert acc.epsilon(orders, 50 * curve, 1e-6) == pytest.approx(accountant.get_epsilon(1e-6), rel=1e-9)


def test_mistakes_of_conversion_are_caught():
    orders, delta = np.array([2.0, 4.0, 8.0, 16.0, 32.0]), 1e-5
    curve = acc.gaussian_rdp(orders, noise_multiplier=2.0)
    right = acc.epsilon(orders, curve, delta)
    mironov = float(np.min(curve + math.log(1 / delta) / (orders - 1)))
    assert mironov > right, "the looser conversion of 2017 is sound"
    wrong_sign = float(np.min(curve + np.log1p(-1 / orders) + (math.log(delta) + np.log(orders)) / (orders - 1)))
    assert wrong_sign < right / 2
    # Converting per round and adding the epsilons is another, much weaker statement.
    per_round = 50 * acc.epsilon(orders, curve, delta / 50)
    assert acc.epsilon(orders, 50 * curve, delta) < per_round
    with pytest.raises(ValueError, match="compute the curve on these orders"):
        acc.epsilon(orders, curve[:-1], delta)
    with pytest.raises(ValueError, match="same orders"):
        acc.compose(curve, curve[:-1])
    for bad in (0.0, 1.0, -1e-5):
        with pytest.raises(ValueError, match="delta"):
            acc.epsilon(orders, curve, bad)


def test_infinite_stays_infinite():
    assert acc.epsilon([2, 3], [np.inf, np.inf], 1e-5) == np.inf
    assert np.isfinite(acc.epsilon([2, 3], [1.0, np.inf], 1e-5))
    with pytest.raises(ValueError, match="undefined"):
        acc.epsilon([2, 3], [1.0, np.nan], 1e-5)


@pytest.mark.parametrize(
    ("change", "remedy"),
    [
        ({"adjacency": "add_remove"}, "zero_out"),
        ({"adjacency": "bounded"}, "replace_one"),
        ({"modulation": 1.0}, "every Renyi divergence is infinite"),
        ({"modulation": 0.0}, "modulation"),
        ({"norm_ratio": 0.5}, "coordinate_bound <= clip_norm"),
        ({"honest_senders": 0}, "at least 1"),
        ({"honest_senders": 2.5}, "integer"),
        ({"dimension": 0}, "dimension"),
        ({"step_ratio": 1.5}, "total_bound"),
        ({"dark_count": 0.0}, "dark_count"),
        ({"dark_count": float("nan")}, "dark_count"),
    ],
)
@pytest.mark.parametrize("curve", [acc.poisson_embedding_rdp, acc.single_channel_rdp])
def test_wrong_requests_are_refused_with_the_remedy(curve, change, remedy):
    facts = {"dark_count": 1.0, "modulation": 0.1, "honest_senders": 3, "norm_ratio": 2.0, "dimension": 5}
    with pytest.raises(ValueError, match=remedy):
        curve(DEFAULT_ORDERS, **{**facts, **change})


@pytest.mark.parametrize("offset", [0.1, 0.3, 0.9, 1.7, 40.0])
def test_the_least_order_keeps_its_digits(offset):
    """Nearer to 1 the difference over a - 1 cancels: at 1 + 2^-52 a divergence of hundreds was reported as 0."""
    from fedjax_poisson.accounting import experimental
    from fedjax_poisson.accounting.checks import LEAST_ORDER

    value = experimental.data_embedding_rdp([LEAST_ORDER], gain=1.0, offset=offset, pixels=1)[0]
    with mp.workdps(60):
        a, x, y = mp.mpf(LEAST_ORDER), mp.mpf(1) + mp.mpf(offset), mp.mpf(offset)
        _close(value, (x**a * y ** (1 - a) - a * x - (1 - a) * y) / (a - 1), 1e-11)
    for order in (1 + 2.0**-52, 1 + 1e-9, 1.00099):
        with pytest.raises(ValueError, match="orders"):
            experimental.data_embedding_rdp([order], gain=1.0, offset=offset, pixels=1)
        with pytest.raises(ValueError, match="orders"):
            acc.epsilon([order], [0.0], 1e-5)


@pytest.mark.parametrize("orders", [[], [1.0, 2.0], [3.0, 2.0], [2.0, 2.0], [[2.0]], [2.0, np.inf]])
def test_bad_orders_are_refused(orders):
    with pytest.raises(ValueError, match="orders"):
        acc.gaussian_rdp(orders, noise_multiplier=1.0)


def test_skellam_refuses_fractional_orders_and_shifts():
    with pytest.raises(ValueError, match="integer orders"):
        acc.skellam_rdp([2.5], variance=1.0, l1=1.0, l2=1.0)
    with pytest.raises(ValueError, match="integer"):
        acc.skellam_exact_rdp([2], variance=1.0, shift=0)


def test_integer_orders_end_at_a_million():
    assert acc.integer_orders(10**6)[-1] == 10**6
    with pytest.raises(ValueError, match="ask for at most 1000000"):
        acc.integer_orders(10**6 + 1)


def test_an_orders_divergence_does_not_depend_on_the_orders_beside_it():
    """At a step of 1e-8 the closed form keeps 8 digits of order 2; an order that leaves the range of the integral must not drag it along."""
    orders = [2.0, 30.0, 1e9]
    alone = [acc.embedding_divergence([order], 0.5, 1e-8)[0] for order in orders]
    np.testing.assert_allclose(acc.embedding_divergence(orders, 0.5, 1e-8), alone, rtol=1e-14)
    assert alone[0] == pytest.approx(1e-16 * (1 / 0.5 + 1 / 1.5), rel=1e-7)


@pytest.mark.parametrize("orders", [[2.0, 5.0, 4.0, 8.0], [2.0, 3.0, 3.0], [1.0005, 2.0], [2.0, math.inf], []])
def test_orders_rise_from_the_first_to_the_last(orders):
    with pytest.raises(ValueError, match="orders must be"):
        acc.gaussian_rdp(orders, noise_multiplier=1.0)
