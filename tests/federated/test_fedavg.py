"""Rounds of many clients: the same bits at every level of encryption, layout, backend and number of devices; what is refused, what is named."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fedjax_poisson import accounting, federated, models
from fedjax_poisson.aggregation import RoundRefused, aggregator
from fedjax_poisson.federated import round_programs
from fedjax_poisson.federated.fused import largest_count
from fedjax_poisson.mechanisms import gaussian, single_channel
from fedjax_poisson.randomness import fold_in
from tests.federated.helpers import light, seeded
from tests.federated.small_population import CLIENTS, EVERYBODY, IDS, MECHANISM, SENDERS, SIZE, X, Y

ROOT = seeded(11)
LIGHT = light(MECHANISM)


@functools.cache
def _aggregator(backend: str, minimum: int = SENDERS):
    bound = MECHANISM.count_bound(SENDERS, SIZE)
    return aggregator(backend, count_bound=bound, senders=SENDERS, minimum_senders=minimum, size=SIZE)


@functools.cache
def _population(on_device: bool = True):
    return federated.make_population(X, Y, EVERYBODY, on_device=on_device)


def _algorithm(agg=None, *, population=None, mechanism=LIGHT, client=None, **more):
    if agg is None:
        more.setdefault("encryption", "off")
    more.setdefault("fidelity", "messages")  # these tests compare bits of messages; `test_fidelity` has the other
    return federated.fedavg(
        models.logistic(),
        client=client or federated.local_sgd(0.5, batch_size=3),
        population=population or _population(),
        senders=more.pop("senders", SENDERS),
        server_optimizer=more.pop("server_optimizer", optax.sgd(1.0)),
        mechanism=mechanism,
        aggregator=agg,
        **more,
    )


def _vector(algorithm, state):
    leaves = jax.tree.leaves(jax.tree.map(np.asarray, algorithm.parameters(state)))
    return np.concatenate([np.ravel(leaf) for leaf in leaves])


def _after(algorithm, cohorts=(IDS,), stream=ROOT, **more):
    state = algorithm.init(jax.random.key(0))
    info = None
    for cohort in cohorts:
        state, info = algorithm.apply(state, cohort, stream, **more)
    return _vector(algorithm, state), info


@functools.cache
def _encrypted():
    """The algorithm that most tests share: every client encrypted, ten of twelve are enough."""
    return _algorithm(_aggregator("round", minimum=10))


@functools.cache
def _reference(mechanism=LIGHT):
    return _after(_algorithm(mechanism=mechanism))


def test_without_privacy_it_is_the_mean_of_the_clients_updates():
    algorithm = _algorithm(mechanism=None)
    got, info = _after(algorithm)
    client = federated.local_sgd(0.5, batch_size=3)(models.logistic())
    from fedjax_poisson.federated.client import Examples, run_client

    start = models.logistic().init(jax.random.key(0), jnp.asarray(X[0, :1]))
    updates = [run_client(client, start, (), (), Examples(jnp.asarray(X[i]), jnp.asarray(Y[i])), ROOT)[0] for i in IDS]
    np.testing.assert_allclose(got, np.mean(np.asarray(updates), axis=0), atol=1e-6)
    assert "NO ENCRYPTION" in info.encryption and info.bytes_up_per_sender == 4 * SIZE
    assert np.isinf(algorithm.rdp(np.asarray([2.0, 3.0]))).all()


@pytest.mark.as_shipped
@pytest.mark.parametrize(
    ("backend", "level", "transforms", "mechanism"),
    [
        ("round", "on", "summed", LIGHT),
        ("round", "on", "each", LIGHT),
        ("tenseal", "on", "summed", LIGHT),
        ("plain", "on", "summed", LIGHT),
        ("plain", "on", "summed", MECHANISM),
        # `aggregation/test_round_exact` has the sums of each mechanism under the same encryption.
        pytest.param("round", "on", "summed", MECHANISM, marks=pytest.mark.long),
        pytest.param("round", "on", "each", MECHANISM, marks=pytest.mark.long),
        pytest.param("tenseal", "on", "summed", MECHANISM, marks=pytest.mark.long),
    ],
    ids=lambda value: value if isinstance(value, str) else "light" if value is LIGHT else "sampled",
)
def test_encryption_changes_no_bit_of_the_model(backend, level, transforms, mechanism):
    agg = _aggregator(backend)
    usual = (backend, level, transforms, mechanism) == ("round", "on", "summed", LIGHT)
    layout = federated.Chunking(transforms=transforms)
    own = functools.partial(_algorithm, agg, encryption=level, layout=layout, mechanism=mechanism)
    got, info = _after(_encrypted() if usual else own())
    np.testing.assert_array_equal(got, _reference(mechanism)[0])
    assert info.senders == SENDERS and info.bytes_up_per_sender >= agg.message_bytes(SIZE)
    assert info.fidelity.startswith("MESSAGES") and ("NO ENCRYPTION" in info.encryption) == (backend == "plain")


@pytest.mark.as_shipped
def test_the_sum_of_secrets_gives_the_bits_of_the_rows_of_each_client():
    """The levels agree in the opened counts by exactness; here the rows themselves agree, absent clients included."""
    from fedjax_poisson.aggregation import sharing
    from fedjax_poisson.federated.chunks import Chunking
    from fedjax_poisson.federated.cohort import cohort_sum
    from fedjax_poisson.federated.sharing_programs import Numbers
    from fedjax_poisson.mechanisms.types import functions_of

    device = _aggregator("round").device
    client = federated.local_sgd(0.5, batch_size=3)(models.logistic())
    cohort = federated.make_cohort(_population(), IDS, present=np.arange(SENDERS) != 4)._replace(numbers=())
    params = models.logistic().init(jax.random.key(0), jnp.asarray(X[0, :1]))
    numbers = Numbers(device.key, functions_of(LIGHT, SIZE))
    found = []
    for transforms in ("summed", "each"):
        programs = cohort_sum(
            client, params, "counts", clients=SENDERS, device=device, encryption_level="on",
            chunking=Chunking(chunk=5, transforms=transforms),
        )  # fmt: skip

        @jax.jit
        def run(cohort, stream, programs=programs):
            carry, _, report = programs.add(programs.start(), params, (), (), cohort, stream, numbers)
            return programs.close(carry, numbers, stream), report

        found.append(run(cohort, ROOT))
    (summed, report), (each, _) = found
    np.testing.assert_array_equal(np.asarray(summed.sealed.rows), np.asarray(each.sealed.rows))
    mine, theirs = (
        sharing.weighted_sum(device.key.opening, one.sealed.shares, device.params.ring.moduli) for one in (summed, each)
    )  # shares are drawn for the sum, or by each client: the secret that they hold is the same
    np.testing.assert_array_equal(np.asarray(mine), np.asarray(theirs))
    assert int(summed.senders) == int(each.sealed.senders) == SENDERS - 1
    assert int(summed.largest) == int(each.largest) > 0
    assert np.asarray(report).tolist() == [8 if i == 4 else 0 for i in range(SENDERS)]


@pytest.mark.as_shipped
def test_chunks_and_streamed_blocks_give_the_same_bits():
    host = _population(on_device=False)
    algorithm = _algorithm(_aggregator("round"), layout=federated.Chunking(chunk=2), population=host)
    got, info = _after(algorithm, [federated.cohort_blocks(host, IDS, 5)])
    np.testing.assert_array_equal(got, _reference()[0])
    assert info.senders == SENDERS and info.absent == ()
    with pytest.raises(ValueError, match="there are no clients to sum over"):
        _after(algorithm, [iter(())])


@pytest.mark.parametrize("paced", [True, False])
def test_a_streamed_cohort_is_not_read_far_ahead_of_the_device(paced, monkeypatch):
    unfinished, keep_pace = [], round_programs._keep_pace

    def watched(seen):
        if paced:  # the twin: without the wait the whole cohort is read while the first clients learn
            keep_pace(seen)
        unfinished.append(sum(not report.is_ready() for _, report in seen))

    monkeypatch.setattr(round_programs, "_keep_pace", watched)
    host = _population(on_device=False)

    def slow(model):
        inner = federated.local_sgd(0.5)(model)

        def finish(*given):
            update, kept = inner.finish(*given)
            square = jnp.full((500, 500), jax.tree.leaves(update)[0].ravel()[0])
            for _ in range(6):
                square = jnp.float32(1e-3) * (square @ square)
            return jax.tree.map(lambda leaf: leaf + jnp.float32(0) * square[0, 0], update), kept

        return inner._replace(finish=finish)

    algorithm = _algorithm(client=slow, population=host, fidelity=None, mechanism=None)
    state = algorithm.init(jax.random.key(0))
    for _ in range(2):  # the first compiles
        unfinished.clear()
        state, _ = algorithm.apply(state, federated.cohort_blocks(host, IDS, 1), ROOT)
    assert len(unfinished) == SENDERS
    assert (max(unfinished) <= 1) == paced, unfinished


@pytest.mark.as_shipped
def test_one_device_and_many_give_the_same_bits():
    mesh = federated.client_mesh()
    assert mesh.devices.size == 8, "tests run with eight forced host devices (conftest)"
    host = _population(on_device=False)
    layout = federated.Chunking(chunk=1)
    algorithm = _algorithm(_aggregator("round"), population=host, layout=layout, mesh=mesh)
    got, info = _after(algorithm, [federated.cohort_blocks(host, IDS, 8, multiple=8, mesh=mesh)])
    np.testing.assert_array_equal(got, _reference()[0])
    assert info.senders == SENDERS and info.absent == ()
    spread = federated.make_cohort(federated.make_population(X, Y, EVERYBODY, mesh=mesh), IDS, multiple=8, mesh=mesh)
    got, _ = _after(algorithm, [iter([spread])])
    np.testing.assert_array_equal(got, _reference()[0])
    assert algorithm.apply_rounds is None
    with pytest.raises(ValueError, match="one by one"):
        _algorithm(_aggregator("round"), mesh=mesh, layout=federated.Chunking(transforms="each"))


def test_a_sum_in_the_clear_over_several_devices_can_be_stepped_with():
    got, _ = _after(_algorithm(mesh=federated.client_mesh()))
    np.testing.assert_array_equal(got, _reference()[0])


@pytest.mark.as_shipped
def test_rounds_in_one_program_equal_rounds_one_by_one_and_are_paid_for_first():
    cohorts = [np.roll(IDS, number) for number in range(3)]
    algorithm = _encrypted()
    one_by_one, _ = _after(algorithm, cohorts)
    paid: list[int] = []
    gates = [functools.partial(paid.append, number) for number in range(3)]
    state, info = algorithm.apply_rounds(algorithm.init(jax.random.key(0)), np.stack(cohorts), ROOT, gates)
    np.testing.assert_allclose(_vector(algorithm, state), one_by_one, atol=1e-6)
    assert paid == [0, 1, 2] and int(state.server.round) == 3 and info.exact and info.epsilon is None

    def refuse() -> None:
        raise accounting.BudgetExhausted("no more")

    with pytest.raises(accounting.BudgetExhausted):
        algorithm.apply_rounds(state, cohorts, ROOT, [gates[0], refuse, gates[2]])
    with pytest.raises(ValueError, match=r"ids has shape \(12,\)"):
        algorithm.apply_rounds(state, IDS, ROOT)
    on_host = _algorithm(_aggregator("tenseal"))
    with pytest.raises(ValueError, match="which only rounds can"):
        on_host.apply_rounds(state, np.stack(cohorts), ROOT)


@pytest.mark.parametrize("fidelity", ["messages", "release"])
def test_a_round_in_one_program_has_the_bits_of_one_that_is_opened_apart(fidelity):
    drawn = functools.partial(_algorithm, _aggregator("round"), fidelity=fidelity, mechanism=MECHANISM)
    algorithm = _encrypted() if fidelity == "messages" else drawn()
    federation, programs, numbers, *rest = algorithm.apply.args
    apart = functools.partial(algorithm.apply.func, federation, programs._replace(straight=None), numbers, *rest)
    start, paid = algorithm.init(jax.random.key(0)), []
    (state, told), (other, known) = (
        each(start, IDS, ROOT, lambda: paid.append(1)) for each in (algorithm.apply, apart)
    )
    np.testing.assert_array_equal(_vector(algorithm, state), _vector(algorithm, other))
    assert told._replace(seconds={}) == known._replace(seconds={}) and paid == [1, 1]

    def in_one(federation, numbers):
        blocks = round_programs.blocks_of(federation, IDS)
        return round_programs.straight_round(federation, programs, numbers, start, blocks, fold_in(ROOT, 1))

    agg = federation.aggregator
    told_less = federation._replace(aggregator=agg._replace(info=dataclasses.replace(agg.info, count_bound=1)))
    told_more = federation._replace(aggregator=agg._replace(device=agg.device._replace(states_rms=True)))
    wrong = numbers()._replace(key=agg.device.key._replace(opening=agg.device.key.opening ^ jnp.uint32(1)))
    assert in_one(federation, numbers()) is not None
    assert in_one(told_less, numbers()) is None  # a count beyond the bound
    assert in_one(told_more, numbers()) is None  # an opening that checks what the program does not
    assert in_one(federation, wrong) is None  # an opening whose residue is not small
    assert in_one(federation, numbers()._replace(insiders=())) is None  # corrupt clients, who may make openings fail


@pytest.mark.parametrize("careful", [True, False])
@pytest.mark.parametrize("reason", ["unpaid", "few"])
def test_a_round_in_one_program_is_kept_from_whoever_does_not_pay(reason, careful, monkeypatch):
    def refuse() -> None:
        raise accounting.BudgetExhausted("no more")

    seen = []
    optimizer = optax.sgd(1.0)

    def update(gradients, state, params=None):  # code of a user, which may look at what it gets
        jax.debug.callback(lambda x: seen.append(np.asarray(x)), jax.tree.leaves(gradients)[0])
        return optimizer.update(gradients, state, params)

    if not careful:  # the twin: then a refused round's update is seen
        monkeypatch.setattr(round_programs, "calls_host", lambda *_: False)
    looking = optax.GradientTransformation(optimizer.init, update)
    algorithm = _algorithm(server_optimizer=looking, minimum_senders=10, fidelity=None, mechanism=MECHANISM)
    present = np.ones(SENDERS, bool) if reason == "unpaid" else np.arange(SENDERS) < 9
    cohort = federated.make_cohort(_population(), IDS, present=present)
    with pytest.raises(accounting.BudgetExhausted if reason == "unpaid" else RoundRefused):
        algorithm.apply(algorithm.init(jax.random.key(0)), cohort, fold_in(ROOT, reason), refuse)
    jax.effects_barrier()
    assert bool(seen) == (not careful and reason == "unpaid")  # too few never get so far
    algorithm.apply(algorithm.init(jax.random.key(0)), IDS, fold_in(ROOT, "paid"), lambda: None)
    jax.effects_barrier()
    assert seen


def test_the_largest_count_of_a_program_has_an_absolute_value():
    values = jnp.int32([5, -(2**31), 7])
    assert int(largest_count(jnp.int32(3), values)) == 2**31
    assert int(jnp.maximum(jnp.int32(3), jnp.max(jnp.abs(values)))) == 7  # the twin


def test_one_compilation_serves_all_rounds():
    traces = []
    model = models.logistic()

    def loss(params, x, y):
        traces.append(1)
        return model.loss(params, x, y)

    algorithm = federated.fedavg(
        model._replace(loss=loss), client=federated.local_sgd(0.5, batch_size=3), population=_population(), senders=SENDERS,
        server_optimizer=optax.sgd(0.1, momentum=0.9), mechanism=MECHANISM,
    )  # fmt: skip
    state, counts = algorithm.init(jax.random.key(0)), []
    for number in range(4):
        state, _ = algorithm.apply(state, np.roll(IDS, number), ROOT)
        counts.append(len(traces))
    assert counts[0] == counts[-1] > 0


def test_lost_clients_cost_their_share_only_and_below_the_minimum_nothing_is_opened():
    algorithm = _encrypted()
    asked: list[str] = []
    gate, own = functools.partial(asked.append, "asked"), fold_in(ROOT, "lost")
    lost = federated.make_cohort(_population(), IDS, present=~np.isin(IDS, [0, 5]))
    got, info = _after(algorithm, [lost], own, gate=gate)
    assert info.senders == 10 and sorted(info.absent) == [0, 5] and asked == ["asked"]
    kept, _ = _after(algorithm, [IDS[~np.isin(IDS, [0, 5])]], own)
    np.testing.assert_array_equal(got, kept)
    few = federated.make_cohort(_population(), IDS, present=~np.isin(IDS, [0, 5, 2]))
    with pytest.raises(RoundRefused, match=r"9 of 12 clients sent, at least 10.*no release was charged"):
        _after(algorithm, [few], own, gate=gate)
    assert asked == ["asked"], "a refused round is not charged"


def test_broken_and_empty_clients_are_named_and_send_noise_only():
    x, mask, own = X.copy(), EVERYBODY.copy(), fold_in(ROOT, "broken")
    x[7, 2, 1], x[3, 0, 0] = np.nan, np.inf
    mask[11] = False
    got, info = _after(_encrypted(), [federated.make_cohort(federated.make_population(x, Y, mask), IDS)], own)
    assert sorted(info.not_finite) == [3, 7] and info.empty == (11,) and info.senders == SENDERS
    assert np.isfinite(got).all()
    # The same as if these three had had an update of zero: the noise shares are all there.
    zeros = x.copy()
    zeros[[3, 7]] = 0
    mask[[3, 7]] = False
    same, named = _after(_encrypted(), [federated.make_cohort(federated.make_population(zeros, Y, mask), IDS)], own)
    np.testing.assert_array_equal(got, same)
    assert sorted(named.empty) == [3, 7, 11]
    assert np.abs(got - _after(_algorithm(), stream=own)[0]).max() > 0


def test_a_broken_client_does_not_spoil_a_plain_average():
    x = X.copy()
    x[7, 2, 1] = np.nan
    algorithm = _algorithm(mechanism=None, minimum_senders=11)
    got, info = _after(algorithm, [federated.make_cohort(federated.make_population(x, Y, EVERYBODY), IDS)])
    assert info.not_finite == (7,) and np.isfinite(got).all()
    others, _ = _after(algorithm, [IDS[IDS != 7]])
    np.testing.assert_allclose(got, others * 11 / 12, atol=1e-6)


@pytest.mark.as_shipped
@pytest.mark.parametrize("mechanism", [None, LIGHT], ids=["plain", "private"])
def test_records_taken_inside_the_program_give_the_bits_of_a_gathered_cohort(mechanism):
    def made():
        return _algorithm(mechanism=mechanism, layout=federated.Chunking(chunk=5))  # a last chunk that is padded

    algorithm = made()
    inside, info = _after(algorithm)
    gathered, same = _after(algorithm, [federated.make_cohort(_population(), IDS)])
    np.testing.assert_array_equal(inside, gathered)
    assert (info.senders, info.update_norm) == (same.senders, same.update_norm)
    assert np.abs(inside - _after(made(), [np.arange(SENDERS)])[0]).max() > 0  # the twin: other clients


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_a_broken_client_is_found_where_records_are_taken_inside_the_program(broken):
    x = X.copy()
    x[7, 2, 1] = broken
    algorithm = _algorithm(mechanism=None, population=federated.make_population(x, Y, EVERYBODY))
    got, info = _after(algorithm)
    assert info.not_finite == (7,) and np.isfinite(got).all() and np.isfinite(info.update_norm)


def _starting_at(offset: int) -> np.ndarray:
    """A copy of X that starts `offset` bytes after a multiple of 64."""
    room = np.zeros(X.nbytes + 128, np.uint8)
    start = -room.ctypes.data % 64 + offset
    found = room[start : start + X.nbytes].view(X.dtype).reshape(X.shape)
    found[:] = X
    return found


@pytest.mark.parametrize("offset", [0, 4, 16, 32])
def test_on_a_cpu_a_population_is_held_once(offset):
    x = _starting_at(offset)  # at a multiple of 64 bytes jax takes a NumPy array over without a copy
    held = federated.make_population(x, Y)
    if jax.default_backend() == "cpu":
        assert np.shares_memory(held.host.x, np.asarray(held.device.x))
    x[:] = 0  # the caller's array stays the caller's
    np.testing.assert_array_equal(held.host.x, X)
    np.testing.assert_array_equal(held.device.x, X)


def test_with_sampling_everybody_sends_and_the_curve_is_amplified():
    orders, everyone = accounting.integer_orders(32), _algorithm(senders=CLIENTS)
    expected = accounting.subsampled_rdp(orders, everyone.rdp(orders), 0.25)
    np.testing.assert_array_equal(_algorithm(senders=CLIENTS, sampling_rate=0.25).rdp(orders), expected)
    rarely = _algorithm(senders=CLIENTS, sampling_rate=2.0**-32)
    nobody, info = _after(rarely, [np.arange(CLIENTS)])
    assert info.senders == CLIENTS
    empty = federated.make_population(X, Y, ~EVERYBODY)
    only_noise, _ = _after(everyone, [federated.make_cohort(empty, np.arange(CLIENTS))])
    # The mean is over the share that trains, so the same sum is larger by 1 / rate.
    np.testing.assert_array_equal(nobody * 2.0**-32, only_noise)
    assert np.abs(_after(_algorithm(senders=CLIENTS), [np.arange(CLIENTS)])[0] - only_noise).max() > 0
    with pytest.raises(ValueError, match="every client must send"):
        _after(rarely, [IDS])


def test_the_accountant_gets_the_honest_senders_of_the_smallest_release():
    orders = np.asarray([2.0, 8.0])
    curve = _encrypted().rdp(orders)
    np.testing.assert_array_equal(curve, MECHANISM.rdp(orders, 9, SIZE))
    assert (curve > MECHANISM.rdp(orders, SENDERS, SIZE)).all()


def test_scaffold_keeps_states_at_clients_that_took_part():
    algorithm = _algorithm(mechanism=None, client=federated.scaffold(0.5, batch_size=3), minimum_senders=11)
    state = algorithm.init(jax.random.key(0))
    lost = federated.make_cohort(_population(), IDS, present=IDS != 5)
    state, _ = algorithm.apply(state, lost, ROOT)
    moved = np.abs(np.asarray(state.client_state["weight"])).max(axis=1) > 0
    assert moved.tolist() == [i in IDS and i != 5 for i in range(CLIENTS)]
    c = np.asarray(state.shared[0]["weight"])
    # Eleven of fourteen took part, and c moves by their share: it is the mean of the clients' own variates.
    np.testing.assert_allclose(c, np.asarray(state.client_state["weight"]).sum(axis=0) / CLIENTS, atol=1e-6)


def _share_keeper(model):
    """A client whose broadcast state is the share of clients that trained in the last round."""
    work = federated.local_sgd(0.5, batch_size=3)(model)
    return work._replace(
        shared=federated.Shared(lambda params, steps: jnp.float32(0), lambda shared, update, share: share)
    )


@pytest.mark.parametrize(("rate", "present", "share"), [(1.0, 12, 12 / 14), (1.0, 11, 11 / 14), (0.25, 14, 0.25)])
def test_scaffold_is_told_the_share_that_trained(rate, present, share):
    everyone = rate < 1
    ids = np.arange(CLIENTS) if everyone else IDS
    algorithm = _algorithm(
        client=_share_keeper, senders=len(ids), sampling_rate=rate, **({} if everyone else {"minimum_senders": 10})
    )
    start = algorithm.init(jax.random.key(0))
    cohort = federated.make_cohort(_population(), ids, present=np.arange(len(ids)) < present)
    state, _ = algorithm.apply(start, cohort, ROOT)
    assert float(state.shared) == pytest.approx(share)
    if present == len(ids):
        state, _ = algorithm.apply_rounds(start, ids[None], ROOT)
        assert float(state.shared) == pytest.approx(share)


def test_the_mean_update_is_of_the_clients_that_were_present():
    """A channel with a mean: with six of eight present, the mean of eight was subtracted and the update was off by 1.67."""
    mechanism = single_channel(clip_norm=1.0, coordinate_bound=0.5, dark_count=4e6, modulation=0.3)
    still = federated.make_population(X[:8], Y[:8], EVERYBODY[:8] & False)  # nobody has records: every update is zero
    algorithm = _algorithm(mechanism=mechanism, population=still, senders=8, minimum_senders=5)
    for present, noise in ((8, 0.01), (6, 0.01)):
        lost = federated.make_cohort(still, np.arange(8), present=np.arange(8) < present)
        _, info = algorithm.apply(algorithm.init(jax.random.key(0)), lost, fold_in(ROOT, present))
        assert info.senders == present and info.update_norm < noise


@pytest.mark.parametrize("optimizer", [optax.adam(0.1), optax.yogi(0.1), optax.adagrad(0.1)])
def test_server_optimisers_see_minus_the_mean_update(optimizer):
    plain, _ = _after(_algorithm(mechanism=None))
    with jax.numpy_dtype_promotion("standard"):  # optax's own code is not written for the strict rules
        got, _ = _after(_algorithm(mechanism=None, server_optimizer=optimizer))
        expected = optimizer.update(jnp.asarray(-plain), optimizer.init(jnp.zeros(SIZE)), jnp.zeros(SIZE))[0]
    np.testing.assert_allclose(got, np.asarray(expected), rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: federated.make_population([X[0], X[1, :2]], [Y[0], Y[1, :2]], records=5), "client 0 has 6 records, clients are padded to 5"),
        (lambda: federated.make_population([X[0]], [Y[0, :3]]), "client 0 has 6 records and 3 labels"),
        (lambda: federated.make_population(X, Y[:, :3]), "both start with"),
        (lambda: federated.make_cohort(_population(), range(15)), "15 clients, the population 14"),
        (lambda: federated.make_cohort(_population(), [1, 2, 1]), "names client 1 twice"),
        (lambda: federated.make_cohort(_population(), [1, 20]), r"names client 20; clients are 0\.\.13"),
        (lambda: federated.make_cohort(_population(), [1, 2], present=[True]), "present has shape"),
        (lambda: _algorithm(senders=20), "senders=20, but the population has 14"),
        (lambda: _algorithm(sampling_rate=0.5), "senders must be 14"),
        (lambda: _algorithm(minimum_senders=1), "hides nothing"),
        (lambda: _algorithm(honest_senders=13), "honest_senders=13"),
        (lambda: _algorithm(adjacency="add_remove"), "noise"),
        (lambda: _algorithm(_aggregator("round"), senders=13), "the aggregator is for 12 to 12 senders"),
        (lambda: _algorithm(_aggregator("plain"), mesh=federated.client_mesh()), "encrypts every client's counts on the host"),
        (lambda: _algorithm(encryption="each"), "there are on, off"),
        (lambda: _algorithm(_aggregator("round"), mechanism=gaussian(clip_norm=1.0, noise_std=1.0)), "does not send integers"),
        (lambda: _algorithm(mechanism=gaussian(clip_norm=1.0, noise_std=1.0), encryption="on"), "needs a mechanism that sends integers"),
        (lambda: federated.Chunking(chunk=0), "chunk=0"),
        (lambda: federated.client_mesh(99), "devices=99"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_a_reason(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_count_beyond_the_bound_is_refused_before_it_is_charged():
    from fedjax_poisson.federated.cohort import Total
    from fedjax_poisson.federated.release import open_total

    agg = _aggregator("round")
    total = Total(None, None, jnp.uint32(SENDERS), jnp.int32(agg.info.count_bound + 1))
    with pytest.raises(RoundRefused, match="nothing was charged"):
        open_total(agg, total, SIZE, "on", lambda: pytest.fail("charged"), 0)
