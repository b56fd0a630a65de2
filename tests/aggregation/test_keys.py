"""Threshold keys: exact sums by all or by any t, one answer for each ciphertext, nobody with the joint secret."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_poisson.aggregation import messages, opening, threshold_keys
from fedjax_poisson.aggregation.aggregator import aggregator
from fedjax_poisson.aggregation.answer_guard import answer_guard
from fedjax_poisson.benchmarks import threshold
from fedjax_poisson.ckks import encryption, modular, ntt, slots
from fedjax_poisson.ckks.encryption import SecretKey
from fedjax_poisson.ckks.errors import RoundRefused, WireError
from fedjax_poisson.ckks.parameters import choose_parameters
from fedjax_poisson.randomness.chacha import fold_in, stream
from tests.helpers.reach import reachable

PARTIES, SENDERS, BOUND, SIZE = 3, 4, 2000, 300


@functools.cache
def ring():
    return choose_parameters(count_bound=BOUND, senders=SENDERS, mode="threshold", values=4000, parties=PARTIES)


class Consortium:
    """Parties, their messages and a sum under the joint key."""

    def __init__(self, threshold: int) -> None:
        self.root = stream()
        self.session = threshold_keys.announce(ring(), minimum_senders=2, threshold=threshold)
        made = [
            threshold_keys.make_party_key(self.session, i, fold_in(self.root, "party", i))
            for i in range(1, PARTIES + 1)
        ]
        self.own = [secret for secret, _, _ in made]
        self.commitments, self.shares = [m[1] for m in made], [m[2] for m in made]
        self.public = threshold_keys.joint_public_key(self.session, self.commitments, self.shares)
        self.secrets = self.own
        if threshold < PARTIES:
            dealt = [threshold_keys.deal(self.session, s, fold_in(self.root, "deal", s.party)) for s in self.own]
            self.secrets = [
                threshold_keys.combine_shares(self.session, i, [row[i - 1] for row in dealt])
                for i in range(1, PARTIES + 1)
            ]
        self.counts = (
            np.random.default_rng(0).integers(-BOUND // SENDERS, BOUND // SENDERS + 1, (SENDERS, SIZE)).astype(np.int32)
        )
        self.label = itertools.count()

    def joint_secret(self) -> SecretKey:
        """For tests only: what no object of the package computes."""
        q = modular.constants(ring().moduli).q
        return SecretKey(functools.reduce(lambda a, b: modular.add(a, b, q), [s.data for s in self.own]))

    def sealed(self, senders: int = SENDERS):
        ciphertexts = [
            _encrypt(ring(), self.public, jnp.asarray(row), fold_in(self.root, "sender", next(self.label)))
            for row in self.counts[:senders]
        ]
        return functools.reduce(functools.partial(_add, ring()), ciphertexts)

    def party(self, number: int, guard=None) -> opening.Party:
        smudging = fold_in(self.root, "smudging", number)
        return opening.make_party(self.session, self.secrets[number - 1], smudging, guard or answer_guard(None))

    def answers(self, ciphertext, team):
        return [self.party(number).answer(ciphertext, team, ()) for number in team]


_encrypt = jax.jit(encryption.encrypt, static_argnums=0)
_add = jax.jit(encryption.add, static_argnums=0)
_inverse = jax.jit(ntt.inverse, static_argnums=1)
_phase = jax.jit(encryption.phase, static_argnums=0)
_decrypt = jax.jit(encryption.decrypt, static_argnums=(0, 3))


@pytest.fixture(scope="module", params=[3, 2], ids=["3-of-3", "2-of-3"])
def group(request) -> Consortium:
    return Consortium(request.param)


@pytest.fixture(scope="module")
def all_of_them() -> Consortium:
    return Consortium(PARTIES)


def test_every_subset_opens_the_exact_sum(group):
    total = group.sealed()
    for team in itertools.combinations(range(1, PARTIES + 1), group.session.threshold):
        counts, exact = opening.fuse(group.session, total, group.answers(total, team), SIZE)
        np.testing.assert_array_equal(np.asarray(counts), group.counts.sum(axis=0))
        assert bool(exact)


def test_order_of_answers_does_not_matter(group):
    total = group.sealed()
    team = tuple(range(1, group.session.threshold + 1))
    answers = group.answers(total, tuple(reversed(team)))
    counts, _ = opening.fuse(group.session, total, answers, SIZE)
    np.testing.assert_array_equal(np.asarray(counts), group.counts.sum(axis=0))


def test_joint_key_is_the_sum_of_the_secrets(all_of_them):
    """The public key's error is a sum of three centred binomials, and the sum of the secrets decrypts."""
    pair = encryption.Ciphertext(all_of_them.public.data[None], None, jnp.uint32(1))
    noise = slots.centred_float(np.asarray(_phase(ring(), all_of_them.joint_secret(), pair)), ring().moduli)
    assert np.max(np.abs(noise)) <= 21 * PARTIES
    assert abs(np.var(noise) / (10.5 * PARTIES) - 1) < 0.12
    found = _decrypt(ring(), all_of_them.joint_secret(), all_of_them.sealed(), SIZE)
    np.testing.assert_array_equal(np.asarray(found), all_of_them.counts.sum(axis=0))


def test_too_few_shares_show_nothing():
    """With one answer missing, coefficients are nowhere near integers."""
    group = Consortium(PARTIES)
    total = group.sealed()
    answers = group.answers(total, (1, 2, 3))
    blank = answers[2]._replace(data=jnp.zeros_like(answers[2].data))
    _, exact = opening.fuse(group.session, total, [*answers[:2], blank], SIZE)
    assert not bool(exact)


def test_t_minus_one_points_determine_nothing():
    """For t = 2 two points give the secret, and the slope that hides it behind one point is uniform."""
    group = Consortium(2)
    q = modular.constants(ring().moduli).q
    dealt = threshold_keys.deal(group.session, group.own[0], fold_in(group.root, "again"))
    point = np.asarray(dealt[0].data, np.uint64)
    slope = (np.asarray(dealt[1].data, np.uint64) + q - point) % q
    np.testing.assert_array_equal(
        (point + q - slope) % q, np.asarray(group.own[0].data, np.uint64)
    )  # f(0) from two points
    share = slope / q  # uniform slopes hide it: mean and variance of U[0, 1)
    assert abs(share.mean() - 0.5) < 6 * np.sqrt(1 / 12 / share.size)
    assert abs(share.var() - 1 / 12) < 6 * np.sqrt(1 / 180 / share.size)


def test_nobody_reaches_the_joint_secret():
    """Walk everything that a party or a public message can reach, and compare arrays with the joint secret."""
    group = Consortium(PARTIES)
    joint = np.asarray(group.joint_secret().data)
    single = np.asarray(group.own[0].data)

    def reaches(root, target) -> bool:
        arrays = (
            obj for obj in reachable(root) if isinstance(obj, (np.ndarray, jax.Array)) and obj.shape == target.shape
        )
        return any(np.array_equal(np.asarray(array), target) for array in arrays)

    party = group.party(1)
    assert reaches(party, single), "the walk must find the party's own share"
    for root in (party, group.party(2), group.session, group.public, *group.shares, *group.commitments):
        assert not reaches(root, joint)
    for root in (group.party(2), group.session, group.public, *group.shares, *group.commitments):
        assert not reaches(root, single)


def test_the_aggregator_keeps_parties_apart():
    agg = aggregator("device", ring(), minimum_senders=2, stream=stream())
    secrets = [obj for obj in reachable(agg.holder) if isinstance(obj, threshold_keys.PartySecret)]
    assert sorted(s.party for s in secrets) == [1, 2, 3], "the walk must find the simulated parties"
    q = modular.constants(ring().moduli).q
    joint = np.asarray(functools.reduce(lambda a, b: modular.add(a, b, q), [s.data for s in secrets]))
    for obj in reachable(agg):
        if isinstance(obj, (np.ndarray, jax.Array)) and obj.shape == joint.shape:
            assert not np.array_equal(np.asarray(obj), joint)
    for role in (agg.server, agg.sender, agg.add, agg.encrypt):
        assert not any(isinstance(obj, (threshold_keys.PartySecret, SecretKey)) for obj in reachable(role))


# -- one answer for each ciphertext -----------------------------------------------------------------------------------


def test_a_second_answer_is_refused(all_of_them):
    total, party = all_of_them.sealed(), all_of_them.party(1)
    party.answer(total, (1, 2, 3), ())
    with pytest.raises(RoundRefused, match="answered for this ciphertext"):
        party.answer(total, (1, 2, 3), ())
    shifted = total._replace(data=total.data.at[:, 0].set(jnp.uint32(0)))  # another c0, the same c1: the same leak
    with pytest.raises(RoundRefused, match="answered for this ciphertext"):
        party.answer(shifted, (1, 2, 3), ())
    party.answer(all_of_them.sealed(), (1, 2, 3), ())


def test_a_contribution_is_opened_once(all_of_them):
    party = all_of_them.party(1)
    party.answer(all_of_them.sealed(), (1, 2, 3), [b"x" * 16, b"y" * 16])
    with pytest.raises(RoundRefused, match="contribution"):
        party.answer(all_of_them.sealed(), (1, 2, 3), [b"z" * 16, b"y" * 16])
    party.answer(all_of_them.sealed(), (1, 2, 3), [b"z" * 16])  # the refusal claimed nothing


def test_the_guard_survives_a_restart(all_of_them, tmp_path):
    path = tmp_path / "party1.sqlite"
    total = all_of_them.sealed()
    all_of_them.party(1, answer_guard(path)).answer(total, (1, 2, 3), ())
    restarted = all_of_them.party(1, answer_guard(path))
    with pytest.raises(RoundRefused, match="answered for this ciphertext"):
        restarted.answer(total, (1, 2, 3), ())


def test_the_claim_is_on_disk_before_the_answer(all_of_them, tmp_path, monkeypatch):
    """The process dies while the answer is computed: after the restart the ciphertext counts as answered."""
    path = tmp_path / "party1.sqlite"
    total = all_of_them.sealed()

    def dies(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(opening, "_answer", dies)
        with pytest.raises(KeyboardInterrupt):
            all_of_them.party(1, answer_guard(path)).answer(total, (1, 2, 3), ())
    with pytest.raises(RoundRefused, match="answered"):
        all_of_them.party(1, answer_guard(path)).answer(total, (1, 2, 3), ())


def test_two_processes_share_one_guard(tmp_path):
    first, second = (answer_guard(tmp_path / "guard.sqlite") for _ in range(2))
    first.claim([b"a"])
    with pytest.raises(RoundRefused):
        second.claim([b"b", b"a"])
    first.claim([b"b"])  # a refused claim leaves nothing behind


def test_a_file_that_is_no_guard_is_named(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("this is not a database, and long enough to be read as a broken one " * 20)
    with pytest.raises(ValueError, match="cannot serve"):
        answer_guard(path)


# -- refusals ---------------------------------------------------------------------------------------------------------


def test_sums_of_too_few_or_too_many_are_not_opened(all_of_them):
    with pytest.raises(RoundRefused, match="holds 1 contributions"):
        all_of_them.party(1).answer(all_of_them.sealed(1), (1, 2, 3), ())
    total = all_of_them.sealed()
    with pytest.raises(RoundRefused, match="holds 9 contributions"):
        all_of_them.party(1).answer(total._replace(senders=jnp.uint32(9)), (1, 2, 3), ())


@pytest.mark.parametrize("team", [(1, 2), (2, 3), (1, 2, 2), (1, 2, 4), (0, 1, 2), ()])
def test_a_wrong_subset_is_refused(all_of_them, team):
    with pytest.raises(RoundRefused, match="are needed"):
        all_of_them.party(1).answer(all_of_them.sealed(), team, ())


def test_fusion_checks_the_answers(all_of_them):
    session, total = all_of_them.session, all_of_them.sealed()
    answers = all_of_them.answers(total, (1, 2, 3))
    for wrong in (answers[:2], [answers[0], *answers[:2]], [*answers, answers[0]], []):
        with pytest.raises(RoundRefused, match="must answer once"):
            opening.fuse(session, total, wrong, SIZE)
    with pytest.raises(RoundRefused, match="another ciphertext"):
        opening.fuse(session, all_of_them.sealed(), answers, SIZE)
    with pytest.raises(WireError, match="instead of"):
        opening.fuse(session, total, [answers[0]._replace(data=answers[0].data[:, :1]), *answers[1:]], SIZE)
    bad = answers[1]._replace(data=answers[1].data.at[0, 0, 0].set(jnp.uint32(ring().moduli[0])))
    with pytest.raises(WireError, match="party 2 has a residue"):
        opening.fuse(session, total, [answers[0], bad, answers[2]], SIZE)


def test_a_tampered_answer_is_noticed(all_of_them):
    total = all_of_them.sealed()
    answers = all_of_them.answers(total, (1, 2, 3))
    moved = answers[0].data.at[0, 0, 0].set((answers[0].data[0, 0, 0] + jnp.uint32(1)) % jnp.uint32(ring().moduli[0]))
    full = ring().values_per_row
    _, exact = opening.fuse(all_of_them.session, total, [answers[0]._replace(data=moved), *answers[1:]], full)
    assert not bool(exact)  # one residue moves every coefficient of its row
    _, exact = opening.fuse(all_of_them.session, total, answers, full)
    assert bool(exact)


def test_key_messages_are_checked(all_of_them):
    session, commitments, shares = all_of_them.session, all_of_them.commitments, all_of_them.shares
    with pytest.raises(WireError, match="key share from parties"):
        threshold_keys.joint_public_key(session, commitments, shares[:2])
    with pytest.raises(WireError, match="key commitment from parties"):
        threshold_keys.joint_public_key(session, [*commitments[:2], commitments[0]], shares)
    q = np.asarray(ring().moduli, np.uint32)[:, None]
    rogue = shares[2]._replace(first=np.asarray((shares[2].first + np.uint32(1)) % q, np.uint32))
    with pytest.raises(WireError, match="not what it committed to"):  # a share chosen after seeing the others
        threshold_keys.joint_public_key(session, commitments, [*shares[:2], rogue])
    large = shares[2]._replace(first=np.full_like(shares[2].first, 2**32 - 1))
    with pytest.raises(WireError, match="below the primes"):
        threshold_keys.joint_public_key(session, commitments, [*shares[:2], large])
    other = threshold_keys.announce(ring(), minimum_senders=2)
    with pytest.raises(WireError, match="not what it committed to"):
        threshold_keys.joint_public_key(other, commitments, shares)


def test_shares_must_be_complete_and_for_this_party():
    group = Consortium(2)
    dealt = [threshold_keys.deal(group.session, s, fold_in(group.root, "d", s.party)) for s in group.own]
    with pytest.raises(WireError, match="one from each"):
        threshold_keys.combine_shares(group.session, 1, [dealt[0][0], dealt[1][0]])
    with pytest.raises(WireError, match="a party other than"):
        threshold_keys.combine_shares(group.session, 1, [dealt[0][0], dealt[1][0], dealt[2][1]])
    with pytest.raises(ValueError, match="already a share"):
        threshold_keys.deal(group.session, group.secrets[0], fold_in(group.root, "e"))
    with pytest.raises(ValueError, match="needs the secret from combine_shares"):
        opening.make_party(group.session, group.own[0], group.root, answer_guard(None))
    with pytest.raises(ValueError, match="another key"):
        opening.make_party(
            threshold_keys.announce(ring(), minimum_senders=2), group.own[0], group.root, answer_guard(None)
        )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"threshold": 4}, "threshold = 4"),
        ({"threshold": 0}, "threshold = 0"),
        ({"minimum_senders": 0}, "minimum_senders"),
        ({"label": b"x"}, "label"),
    ],
)
def test_announcements_are_checked(changes, words):
    with pytest.raises(ValueError, match=words):
        threshold_keys.announce(ring(), **{"minimum_senders": 2, **changes})
    with pytest.raises(ValueError, match='mode="threshold"'):
        threshold_keys.announce(choose_parameters(count_bound=5, senders=2, values=10), minimum_senders=2)


def test_no_secret_in_repr_or_pickle(all_of_them):
    group = Consortium(2)
    share = threshold_keys.deal(group.session, group.own[0], group.root)[0]
    for record in (group.own[0], group.secrets[0], share):
        assert "hidden" in repr(record) and "Array" not in repr(record) and len(repr(record)) < 120
        with pytest.raises(TypeError, match="cannot be pickled"):
            pickle.dumps(record)
    assert repr(group.party(2)) == "Party(2)"


# -- records as bytes -------------------------------------------------------------------------------------------------


def test_records_come_back_from_bytes(all_of_them):
    group, params = Consortium(2), ring()
    total = all_of_them.sealed()
    records = [
        group.public,
        group.joint_secret(),
        group.own[0],
        group.secrets[1],
        group.shares[2],
        threshold_keys.deal(group.session, group.own[0], group.root)[2],
        all_of_them.party(2).answer(total, (1, 2, 3), ()),
    ]
    blobs = [messages.record_to_bytes(params, record) for record in records]
    for record, blob in zip(records, blobs, strict=True):
        again = messages.record_from_bytes(params, blob, type(record))
        for a, b in zip(again, record, strict=True):
            np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
            assert type(a) is type(b) or isinstance(b, jax.Array)
        other = next(type(r) for r in records if type(r) is not type(record))
        with pytest.raises(WireError, match="of kind"):
            messages.record_from_bytes(params, blob, other)
    residues = params.rows(SIZE) * params.degree * sum(params.residue_bits) // 8
    assert residues < len(blobs[-1]) < residues + 200  # half a ciphertext and a head


def test_a_party_opens_again_after_a_restart():
    group = Consortium(2)
    total = group.sealed()
    blobs = [messages.record_to_bytes(ring(), secret) for secret in group.secrets[1:]]
    restarted = [messages.record_from_bytes(ring(), blob, threshold_keys.PartySecret) for blob in blobs]
    answers = [
        opening.make_party(group.session, secret, stream(), answer_guard(None)).answer(total, (2, 3), ())
        for secret in restarted
    ]
    counts, _ = opening.fuse(group.session, total, answers, SIZE)
    np.testing.assert_array_equal(np.asarray(counts), group.counts.sum(axis=0))


def test_unsound_records_are_refused(group):
    params = ring()
    blob = messages.record_to_bytes(params, group.own[0])
    rng = np.random.default_rng(0)
    for length in [*range(0, 150), *rng.integers(0, len(blob), 30).tolist()]:
        with pytest.raises(WireError):
            messages.record_from_bytes(params, blob[:length], threshold_keys.PartySecret)
    for bit in [*range(8 * 100), *rng.integers(0, 8 * len(blob), 50).tolist()]:
        changed = bytearray(blob)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(WireError):
            messages.record_from_bytes(params, bytes(changed), threshold_keys.PartySecret)
    with pytest.raises(WireError, match="other parameters"):
        messages.record_from_bytes(dataclasses.replace(params, senders=SENDERS - 1), blob, threshold_keys.PartySecret)
    with pytest.raises(TypeError, match="no bytes for a Session"):
        messages.record_to_bytes(params, group.session)
    with pytest.raises(ValueError, match="shape"):
        messages.record_to_bytes(params, encryption.PublicKey(jnp.zeros((2, 1, 8), jnp.uint32)))


@pytest.mark.parametrize(
    ("at", "width", "value"), [(6, 2, 2), (16, 4, 2), (16, 4, 2**20 + 1), (16, 4, 0), (20, 4, 3), (20, 4, 2**31)]
)
def test_heads_that_lie_under_a_right_checksum_are_refused(group, at, width, value):
    params = ring()
    changed = bytearray(messages.record_to_bytes(params, group.own[0])[:-32])
    changed[at : at + width] = value.to_bytes(width, "little")
    with pytest.raises(WireError):
        messages.record_from_bytes(params, bytes(changed) + messages._check(bytes(changed)), threshold_keys.PartySecret)


# -- smudging ---------------------------------------------------------------------------------------------------------


def smudging_values(params, rows: int) -> np.ndarray:
    residues = jax.jit(opening.smudging, static_argnums=(0, 2))(params, stream(), rows)
    return slots.centred_float(np.asarray(residues), params.moduli).reshape(-1)


@pytest.mark.statistical
def test_smudging_is_uniform_at_its_stated_width():
    params = ring()
    k = opening.smudging_bits(params)
    assert 2.0 ** (k - 1) <= params.smudging_bound < 2.0**k
    draws = smudging_values(params, 4) / 2.0**k  # uniform on [-1/2, 1/2)
    assert -0.5 <= draws.min() and draws.max() < 0.5

    def fits(values) -> bool:
        n = values.size
        histogram = np.histogram(values, 16, (-0.5, 0.5))[0]
        chi = np.sum((histogram - n / 16) ** 2 / (n / 16))
        return (
            abs(values.mean()) < 6 * np.sqrt(1 / 12 / n)
            and abs(values.var() - 1 / 12) < 6 * np.sqrt(1 / 180 / n)
            and chi < 60
        )

    assert fits(draws)
    assert not fits(draws * 0.9) and not fits(np.clip(draws * 1.1, -0.5, 0.499)) and not fits(draws**3 * 4)


def test_smudging_covers_the_noise_by_the_stated_level():
    """The total variation between the noise with and without the ciphertexts' part is at most 2^-40 a coefficient."""
    from fedjax_poisson.ckks.noise_bound import noise_bound

    params = ring()
    bound = noise_bound(
        degree=params.degree, senders=params.senders, mode="threshold", coefficients=params.rows(params.values) *
        params.degree, failure=params.failure, parties=params.parties,
    )  # fmt: skip
    assert bound / 2.0 ** opening.smudging_bits(params) <= 2.0**-params.smudging_bits
    assert opening.smudging_bits(params) > 40


def test_low_bits_of_smudging_are_fair():
    params = ring()
    residues = np.asarray(jax.jit(opening.smudging, static_argnums=(0, 2))(params, stream(), 2)).astype(object)
    lift, modulus = residues[:, 0], params.moduli[0]
    for limb, q in enumerate(params.moduli[1:], 1):  # the Chinese remainder theorem in big integers
        lift = lift + modulus * ((residues[:, limb] - lift) * pow(modulus, -1, q) % q)
        modulus *= q
    shifted = (lift + (1 << (opening.smudging_bits(params) - 1))) % modulus
    assert max(shifted.reshape(-1)) < 1 << opening.smudging_bits(params)
    odd = np.mean([int(v) & 1 for v in shifted.reshape(-1)])
    assert abs(odd - 0.5) < 6 * 0.5 / np.sqrt(shifted.size)


def test_answers_for_two_ciphertexts_use_different_noise(all_of_them):
    """With c1 zero, what is left is the noise; another c1 gets other noise."""
    party = all_of_them.party(1)
    total = all_of_them.sealed()
    blank = total._replace(data=jnp.zeros_like(total.data))
    other = total._replace(data=jnp.zeros_like(total.data).at[0, 1, 0, 0].set(jnp.uint32(1)))
    a, b = (np.asarray(party.answer(one, (1, 2, 3), ()).data) for one in (blank, other))
    noise = slots.centred_float(np.asarray(_inverse(a, ring().moduli)), ring().moduli)
    assert np.mean(a == b) < 0.01 and np.max(np.abs(noise)) <= ring().smudging_bound


def test_lagrange_interpolates():
    moduli = ntt.primes_below(1 << 30, 64, 2)
    for q, limb in zip(moduli, range(2), strict=True):
        f = [123456, 789, 1011]
        team = (2, 5, 7)
        total = (
            sum(sum(c * x**i for i, c in enumerate(f)) * int(opening.lagrange(team, x, moduli)[limb]) for x in team) % q
        )
        assert total == f[0]


def test_the_benchmark_opens_exactly_and_names_its_numbers():
    rows = threshold.measure(parties=2, values=500, repeats=1)
    assert [row["step"] for row in rows] == ["share", "fusion", "share + fusion"]
    wanted = {
        "setting",
        "backend",
        "mode",
        "values",
        "median_s",
        "p10_s",
        "p90_s",
        "values_per_s",
        "bytes_per_value",
        "device",
    }
    for row in rows:
        assert wanted <= set(row) and row["exact"] and row["p10_s"] <= row["median_s"] <= row["p90_s"]
