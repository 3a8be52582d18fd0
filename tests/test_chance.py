import math

import pytest
import torch

from augforge import chance

KEYS = chance.row_keys(0, "test", torch.arange(4096))
MASK = (1 << 64) - 1


def _signed(value):
    return value - (1 << 64) if value >> 63 else value


def _splitmix_output(z):
    """Steele, Lea and Flood (2014), figure 17, in Python's own integers."""
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def _chi_square(counts, expected):
    return float(((counts.double() - expected) ** 2 / expected).sum())


def test_the_known_sequence_of_splitmix64():
    # the first outputs of SplitMix64 from state 1234567, as its public test vectors give them
    known = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
    gamma = 0x9E3779B97F4A7C15
    states = torch.tensor([_signed((1234567 + i * gamma) & MASK) for i in range(1, 6)])
    assert [value & MASK for value in chance.mix(states).tolist()] == known


def test_integers_are_what_the_docstring_says():
    gamma, keys = 0x9E3779B97F4A7C15, [0, 1, -1, 123456789, -(1 << 63), (1 << 63) - 1]
    expected = [
        [_signed(_splitmix_output((_splitmix_output((key + gamma) & MASK) + (j + 1) * gamma) & MASK)) for j in range(5)]
        for key in keys
    ]
    assert chance.integers(torch.tensor(keys), 5).tolist() == expected


def test_mix_is_undone():
    inverse_1, inverse_2 = pow(0xBF58476D1CE4E5B9, -1, 1 << 64), pow(0x94D049BB133111EB, -1, 1 << 64)
    for z in [0, 1, -1, 42, 1 << 62, -(1 << 63), *KEYS[:20].tolist()]:
        m = int(chance.mix(torch.tensor([z]))) & MASK
        m = ((m ^ (m >> 31) ^ (m >> 62)) * inverse_2) & MASK
        m = ((m ^ (m >> 27) ^ (m >> 54)) * inverse_1) & MASK
        assert _signed(m ^ (m >> 30) ^ (m >> 60)) == z


def test_values_are_frozen():
    # a change of any of these changes every made picture of every run
    keys = chance.row_keys(7, "cat", torch.arange(3))
    assert keys.tolist() == FROZEN["row_keys"]
    assert chance.fork(keys, "parent").tolist() == FROZEN["fork"]
    assert chance.name_key("cat") == FROZEN["name_key"]
    assert chance.choice(keys, 1000).tolist() == FROZEN["choice"]
    assert chance.uniform(keys, (2,)).tolist() == FROZEN["uniform"]
    assert torch.allclose(chance.normal(keys, (2,)), torch.tensor(FROZEN["normal"]), atol=1e-6)


FROZEN = {
    "row_keys": [-7144575952024420056, 4827370547371522021, 5589081350871274322],
    "fork": [-7148439217063691990, -6738267941718807311, 5619458943578622506],
    "name_key": 8624243251692164259,
    "choice": [209, 864, 383],
    "uniform": [
        [0.20903128385543823, 0.9472781419754028],
        [0.8642987608909607, 0.4096633791923523],
        [0.3838932514190674, 0.47341614961624146],
    ],
    "normal": [[1.3772597, -1.1107196], [-0.0205685, 0.5396762], [0.5668686, -1.2623159]],
}


def test_every_input_bit_moves_half_of_the_output_bits():
    moved = torch.stack([chance.mix(KEYS) ^ chance.mix(KEYS ^ _signed(1 << bit)) for bit in range(64)])  # [64, n]
    share = torch.stack([(moved >> bit & 1).double().mean(1) for bit in range(64)], 1)  # [input bit, output bit]
    assert (share - 0.5).abs().max() < 0.05  # 4,096 tosses have a standard deviation of 0.008


@pytest.mark.parametrize("draw", [chance.uniform, chance.uniform64])
def test_uniform_is_uniform(draw):
    u = draw(KEYS, (64,))
    assert (u.min() >= 0) & (u.max() < 1)
    counts = torch.histc(u.double(), 256, 0, 1)
    assert _chi_square(counts, u.numel() / 256) < 340  # 255 degrees of freedom, p = 3e-4
    assert u.shape == (4096, 64)
    assert draw(KEYS).shape == (4096,)


def test_neighbouring_keys_and_numbers_are_independent():
    u = chance.uniform64(chance.row_keys(0, "a", torch.arange(20000)), (2,)) * 16
    for a, b in ((u[:-1, 0], u[1:, 0]), (u[:, 0], u[:, 1]), (u[:-1, 1], u[1:, 0])):
        counts = torch.bincount(a.long() * 16 + b.long(), minlength=256)
        assert _chi_square(counts, len(a) / 256) < 340


def test_seeds_names_and_purposes_are_independent():
    index = torch.arange(20000)
    first = chance.row_keys(0, "a", index)
    others = [chance.row_keys(1, "a", index), chance.row_keys(0, "b", index), chance.fork(first, "x")]
    others += [chance.fork(chance.fork(first, "x"), "x"), chance.row_keys(-1, "a", index)]
    draws = [(chance.uniform64(keys) * 16).long() for keys in (first, *others)]
    for i, a in enumerate(draws):
        for b in draws[:i]:
            assert _chi_square(torch.bincount(a * 16 + b, minlength=256), len(a) / 256) < 340
    assert len(torch.unique(torch.cat([first, *others]))) == 6 * len(index)


def test_normal_is_normal():
    z = chance.normal(KEYS, (128,)).double().flatten()
    n = len(z)
    assert abs(z.mean()) < 4 / math.sqrt(n)
    assert abs(z.var() - 1) < 4 * math.sqrt(2 / n)
    assert abs((z**3).mean()) < 4 * math.sqrt(15 / n)
    assert abs((z**4).mean() - 3) < 4 * math.sqrt(96 / n)
    distribution = 0.5 * (1 + torch.erf(z.sort().values / math.sqrt(2)))
    gap = (distribution - (torch.arange(n) + 0.5) / n).abs().max()
    assert gap < 2.1 / math.sqrt(n)  # Kolmogorov and Smirnov, p = 3e-4
    beyond = int((z.abs() > 4).sum())  # 6.33e-5 of them: 33 expected
    assert 12 < beyond < 60
    assert z.abs().max() < 6.77


def test_the_two_normals_of_one_integer_are_independent():
    z = chance.normal(KEYS, (128,)).double()
    a, b = z[:, :64].flatten(), z[:, 64:].flatten()
    for left, right in ((a, b), (a**2, b**2), (a, b**2)):
        correlation = torch.corrcoef(torch.stack([left, right]))[0, 1]
        assert abs(correlation) < 4 / math.sqrt(len(a))


@pytest.mark.parametrize("count", [1, 2, 7, 8])
@pytest.mark.parametrize("draw", [chance.uniform, chance.uniform64, chance.normal])
def test_a_row_is_a_function_of_its_key_alone(draw, count):
    keys = KEYS[:600]  # more than the rows that are drawn at a time
    whole = draw(keys, (count,))
    order = torch.randperm(600, generator=torch.Generator().manual_seed(0))
    assert torch.equal(draw(keys[order], (count,)), whole[order])
    for i in (0, 255, 256, 599):
        assert torch.equal(draw(keys[i : i + 1], (count,))[0], whole[i])
    assert draw(keys[:0], (count,)).shape == (0, count)


def test_shapes_are_filled_in_order():
    assert torch.equal(chance.normal(KEYS[:5], (2, 3)).flatten(1), chance.normal(KEYS[:5], (6,)))
    assert torch.equal(chance.uniform(KEYS[:5], (4,))[:, :2], chance.uniform(KEYS[:5], (2,)))


def test_choice_is_uniform_and_within():
    keys = chance.row_keys(3, "choice", torch.arange(70000))
    drawn = chance.choice(keys, 7)
    assert _chi_square(torch.bincount(drawn, minlength=7), 10000) < 25.4  # 6 degrees of freedom, p = 3e-4
    several = torch.tensor([1, 2, 3, 2**31 - 1]).repeat(17500)
    drawn = chance.choice(keys, several)
    assert (drawn >= 0).all()
    assert (drawn < several).all()
    assert drawn[::4].sum() == 0
    assert drawn[3::4].max() > 2**31 * 0.99
    for nothing in (0, -1, torch.tensor([1] * 69999 + [0])):
        with pytest.raises(ValueError, match="from nothing"):
            chance.choice(keys, nothing)


def test_row_keys_know_any_seed_and_name():
    keys = [int(chance.row_keys(seed, "a", torch.tensor([5]))) for seed in (0, 1, -1, 1 << 63, (1 << 64) - 1, 1 << 40)]
    assert len(set(keys)) == 5  # -1 and 2^64 - 1 have the same 64 bits
    assert chance.name_key("\udcff") != chance.name_key("�")  # an undecodable file name
    assert chance.row_keys(0, "a", torch.tensor([5], dtype=torch.int32)).dtype == torch.int64


def test_drawn_keys_come_from_the_generator_alone():
    a, b = (chance.draw_keys(100, torch.Generator().manual_seed(4)) for _ in range(2))
    assert torch.equal(a, b)
    assert len(torch.unique(a)) == 100
    assert (a < 0).any()
    state = torch.get_rng_state()
    chance.draw_keys(3, torch.Generator().manual_seed(0))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_integers_are_the_same_on_every_device():
    assert torch.equal(chance.integers(KEYS.to("cuda"), 9).cpu(), chance.integers(KEYS, 9))
    assert torch.equal(chance.uniform(KEYS.to("cuda"), (9,)).cpu(), chance.uniform(KEYS, (9,)))
    assert torch.allclose(chance.normal(KEYS.to("cuda"), (9,)).cpu(), chance.normal(KEYS, (9,)), atol=1e-5)


@pytest.mark.parametrize("step", [1, 3])
def test_partners_have_opposite_noise_and_all_else_alike(step):
    index = torch.arange(8 * step)
    keys = chance.pair_keys(5, "cat", index, step)
    assert len(keys.unique()) == len(keys)
    first, second = keys.view(4, 2, step).unbind(1)  # numbers 2j and 2j + 1 of each of `step` parents
    assert torch.equal(chance.pair_of(first), chance.pair_of(second))
    assert len(chance.pair_of(keys).unique()) == len(keys) // 2
    noise = [chance.paired_noise(some.reshape(-1), "noise", (5, 3)) for some in (first, second)]
    assert torch.equal(noise[0], -noise[1])
    alone = chance.paired_noise(keys[3:4], "noise", (5, 3))
    assert torch.equal(chance.paired_noise(keys, "noise", (5, 3))[3:4], alone)


def test_fewer_paired_keys_are_the_first_of_more():
    more = chance.pair_keys(5, "cat", torch.arange(9))
    assert torch.equal(chance.pair_keys(5, "cat", torch.arange(4, 7)), more[4:7])
    drawn = chance.draw_pairs(5, torch.Generator().manual_seed(0))
    assert torch.equal(chance.pair_of(drawn)[0:4:2], chance.pair_of(drawn)[1:4:2])
    assert len(drawn.unique()) == 5


def test_paired_noise_is_standard_normal_whatever_the_keys():
    noise = chance.paired_noise(KEYS, "noise", (64,)).double()
    assert abs(float(noise.mean())) < 0.01
    assert float(noise.std()) == pytest.approx(1, abs=0.01)
    assert abs(float((noise[::2] * noise[1::2]).mean())) < 0.01  # keys in no pair are independent
