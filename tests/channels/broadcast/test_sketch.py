"""Count-min sketch: never too low, seldom much too high, worlds apart, decay, the top, and keys of pairs."""

import math
from collections import Counter

import datasketches
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from popcomm.channels.broadcast.sketch import CountMin, pair_key
from popcomm.errors import UserError

streams = st.lists(st.tuples(st.integers(0, 2), st.integers(-(2**63), 2**63 - 1), st.integers(0, 40)), max_size=60)


def stream(worlds: int, size: int, keys: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """World and key of each event; the keys' frequencies fall as 1 / rank."""
    generator = np.random.default_rng(seed)
    law = 1 / np.arange(1, keys + 1)
    names = generator.integers(0, 2**63, keys)
    return generator.integers(0, worlds, size), names[generator.choice(keys, size, p=law / law.sum())]


def true_counts(world: np.ndarray, key: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distinct (world, key) pairs with their counts."""
    pairs, counts = np.unique(np.stack([world, key]), axis=1, return_counts=True)
    return pairs[0], pairs[1], counts


def arrays(events: list[tuple[int, int, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    table = np.array(events, np.int64).reshape(-1, 3)
    return table[:, 0], table[:, 1], table[:, 2]


@given(streams, streams, st.sampled_from([2, 8, 64]), st.integers(1, 3), st.sampled_from(["uint8", "uint16", "uint32"]))
def test_an_estimate_is_never_below_the_true_count(first, second, width: int, depth: int, dtype: str):
    sketch = CountMin(3, width, depth, dtype)
    truth: Counter[tuple[int, int]] = Counter()
    for events in (first, second):
        world, key, count = arrays(events)
        sketch.add(world, key, count)
        for w, k, c in events:
            truth[w, k] += c
    if truth:
        found = sketch.estimate(*np.array(list(truth), np.int64).T)
        top = np.iinfo(dtype).max
        assert all(estimate >= min(true, top) for estimate, true in zip(found, truth.values(), strict=True))
    totals = np.zeros(3, np.int64)
    for (w, _), c in truth.items():
        totals[w] += c
    if totals.max() < np.iinfo(dtype).max:
        # Every row holds every event once, whichever counters the hash gave them.
        assert np.array_equal(sketch.counters.sum(2, dtype=np.int64), np.repeat(totals[:, None], depth, 1))


def test_a_wide_sketch_is_exact():
    world, key = stream(worlds=5, size=5000, keys=40)
    sketch = CountMin(5, width=1 << 14)
    sketch.add(world, key)
    w, k, counts = true_counts(world, key)
    assert np.array_equal(sketch.estimate(w, k), counts)
    assert not sketch.estimate(w, k + 1).any()


def test_the_error_keeps_its_bound():
    # e / width of the total is exceeded by at most e**-depth of the keys, whatever the keys; each seed is one trial.
    width, depth, exceeded, trials = 64, 2, [], 60
    world, key = stream(worlds=1, size=4000, keys=500)
    w, k, counts = true_counts(world, key)
    for seed in range(trials):
        sketch = CountMin(1, width, depth, seed=seed)
        sketch.add(world, key)
        exceeded.append(np.mean(sketch.estimate(w, k) - counts > math.e / width * len(key)))
    assert np.mean(exceeded) + 4 * np.std(exceeded) / math.sqrt(trials) < math.exp(-depth)
    assert max(exceeded) > 0  # the sketch is small enough for the bound to mean something


@pytest.mark.parametrize("keys", [(0, 1), (5, 5 << 32), (1, 1 << 63), (2**64 - 1, 2**32 - 1)])
def test_two_keys_collide_as_seldom_as_the_bound_assumes(keys: tuple[int, int]):
    # Strong universality: probability 1 / width in a row. 4,000 rows, 4 standard errors.
    width, rows = 16, 4000
    sketch = CountMin(1, width, rows, seed=3)
    for value in keys:
        sketch.add(np.zeros(1, np.int64), np.array([value], np.uint64))
    share = (sketch.counters == 2).any(-1).mean()
    assert abs(share - 1 / width) < 4 * math.sqrt((1 / width) * (1 - 1 / width) / rows)


@pytest.mark.parametrize("dtype", ["uint8", "uint32"])
def test_worlds_in_a_batch_are_separate_sketches_bit_for_bit(dtype: str):
    world, key = stream(worlds=4, size=3000, keys=200)
    batch = CountMin(4, 32, 3, dtype, seed=9)
    batch.add(world[:2000], key[:2000])
    batch.decay()
    batch.add(world[2000:], key[2000:], 3)
    found = batch.estimate(world, key)
    for number in range(4):
        alone, mine = CountMin(1, 32, 3, dtype, seed=9), key[:2000][world[:2000] == number]
        alone.add(np.zeros(len(mine), np.int64), mine)
        alone.decay()
        mine = key[2000:][world[2000:] == number]
        alone.add(np.zeros(len(mine), np.int64), mine, 3)
        assert np.array_equal(batch.counters[number], alone.counters[0])
        here = world == number
        assert np.array_equal(found[here], alone.estimate(np.zeros(here.sum(), np.int64), key[here]))


def test_duplicates_in_one_call_count_as_often_as_in_many_calls():
    world, key = stream(worlds=2, size=300, keys=10)
    together, apart = CountMin(2, 16, 2), CountMin(2, 16, 2)
    together.add(world, key)
    for event in range(300):
        apart.add(world[event : event + 1], key[event : event + 1])
    assert np.array_equal(together.counters, apart.counters)


def test_counts_weigh_as_repetitions_do():
    world, key = stream(worlds=2, size=50, keys=10)
    count = np.arange(50)
    weighed, repeated = CountMin(2), CountMin(2)
    weighed.add(world, key, count)
    repeated.add(world.repeat(count), key.repeat(count))
    assert np.array_equal(weighed.counters, repeated.counters)


@pytest.mark.parametrize(("dtype", "top"), [("uint8", 255), ("uint16", 65_535), ("uint32", 2**32 - 1)])
def test_counters_stop_at_the_top(dtype: str, top: int):
    one, key = np.zeros(1, np.int64), np.array([77])
    sketch = CountMin(1, dtype=dtype)
    sketch.add(one, key, top - 2)
    assert sketch.estimate(one, key) == top - 2
    sketch.add(one, key, 1)
    assert sketch.estimate(one, key) == top - 1
    sketch.add(one.repeat(3), key.repeat(3))
    assert sketch.estimate(one, key) == top
    sketch.add(one, key, 2**62)
    sketch.add(one.repeat(2), key.repeat(2), np.array([top, top]))
    assert sketch.estimate(one, key) == top
    sketch.decay()
    assert sketch.estimate(one, key) == top // 2
    sketch.add(one, key, 5)
    assert sketch.estimate(one, key) == top // 2 + 5


def test_many_small_calls_come_to_the_top_too():
    one, key = np.zeros(1, np.int64), np.array([77])
    sketch = CountMin(1, dtype="uint8")
    for call in range(1, 300):
        sketch.add(one, key)
        assert sketch.estimate(one, key) == min(call, 255)


def test_decay_halves_and_rounds_down():
    sketch = CountMin(1, width=1 << 14)
    world, key = np.zeros(4, np.int64), np.arange(4)
    sketch.add(world, key, np.array([0, 1, 6, 7]))
    sketch.decay()
    assert sketch.estimate(world, key).tolist() == [0, 0, 3, 3]
    sketch.decay()
    assert sketch.estimate(world, key).tolist() == [0, 0, 1, 1]


def test_a_steady_key_is_held_between_one_and_two_windows():
    rate, every = 3, 16
    one, key, sketch = np.zeros(1, np.int64), np.array([5]), CountMin(1)
    for _ in range(20):
        for _ in range(every):
            sketch.add(one, key, rate)
        before = int(sketch.estimate(one, key)[0])
        sketch.decay()
        after = int(sketch.estimate(one, key)[0])
    assert 2 * rate * every - 1 <= before <= 2 * rate * every
    assert rate * every - 1 <= after <= rate * every


@given(st.lists(streams, min_size=1, max_size=5))
def test_a_decayed_estimate_is_never_below_the_own_count_halved_alike(calls):
    sketch, truth = CountMin(3, 4, 2), Counter()
    for events in calls:
        sketch.add(*arrays(events))
        for w, k, c in events:
            truth[w, k] += c
        sketch.decay()
        truth = Counter({pair: count >> 1 for pair, count in truth.items()})
    if truth:
        found = sketch.estimate(*np.array(list(truth), np.int64).T)
        assert all(estimate >= own for estimate, own in zip(found, truth.values(), strict=True))


def test_reset_forgets_the_worlds_that_begin_again_and_no_others():
    world, key = stream(worlds=4, size=400, keys=20)
    sketch = CountMin(4)
    sketch.add(world, key)
    before = sketch.estimate(world, key)
    sketch.reset(np.array([True, False, False, True]))
    again = np.isin(world, [0, 3])
    assert np.array_equal(sketch.estimate(world, key), np.where(again, 0, before))


@pytest.mark.parametrize("dtype", ["uint8", "uint32"])
def test_a_restored_sketch_goes_on_as_the_saved_one(dtype: str):
    world, key = stream(worlds=2, size=2000, keys=30)
    saved, restored = CountMin(2, 64, 3, dtype, seed=1), CountMin(2, 64, 3, dtype, seed=2)
    saved.add(world, key)
    state = saved.get_state()
    restored.set_state(state)
    for sketch in (saved, restored):
        sketch.add(world, key, 2)
    assert np.array_equal(saved.counters, restored.counters)
    assert np.array_equal(saved.estimate(world, key), restored.estimate(world, key))
    assert state["counters"].sum() < saved.counters.sum()  # the state is a copy


def test_the_seed_decides_the_hash_functions():
    world, key = stream(worlds=1, size=100, keys=50)
    sketches = [CountMin(1, seed=seed) for seed in (4, 4, 5)]
    for sketch in sketches:
        sketch.add(world, key)
    assert np.array_equal(sketches[0].counters, sketches[1].counters)
    assert not np.array_equal(sketches[0].counters, sketches[2].counters)


def test_signed_and_unsigned_keys_of_the_same_bits_are_the_same_key():
    sketch, one = CountMin(1), np.zeros(1, np.int64)
    sketch.add(one, np.array([-3], np.int64))
    assert sketch.estimate(one, np.array([2**64 - 3], np.uint64)) == 1


def test_datasketches_and_this_sketch_both_bracket_the_true_counts():
    width, depth, seeds = 64, 4, 5
    world, key = stream(worlds=1, size=3000, keys=300, seed=8)
    w, k, counts = true_counts(world, key)
    margin, above = math.e / width * len(key), {"ours": 0, "theirs": 0}
    for seed in range(seeds):
        ours, theirs = CountMin(1, width, depth, seed=seed), datasketches.count_min_sketch(depth, width, seed + 1)
        ours.add(world, key)
        for value in key.tolist():
            theirs.update(value)
        assert theirs.get_relative_error() == pytest.approx(math.e / width)
        found = {"ours": ours.estimate(w, k), "theirs": np.array([theirs.get_estimate(value) for value in k.tolist()])}
        for name, estimates in found.items():
            assert (estimates >= counts).all(), name
            above[name] += int((estimates - margin > counts).sum())
        assert [theirs.get_upper_bound(value) for value in k.tolist()] == pytest.approx(found["theirs"] + margin)
    for name, number in above.items():
        assert number <= math.exp(-depth) * len(k) * seeds, name


def test_nothing_is_added_for_nothing():
    sketch, none = CountMin(2), np.zeros(0, np.int64)
    sketch.add(none, none)
    assert sketch.estimate(none, none).shape == (0,)
    assert not sketch.counters.any()


def test_pairs_with_32_bit_words_have_distinct_keys():
    ends = np.array([0, 1, 2, 2**16, 2**31 - 2, 2**31 - 1])
    words = np.array([1, 2, 3, 2**16, 2**31, 2**32 - 2, 2**32 - 1])
    assert np.unique(pair_key(ends[:, None], words)).size == ends.size * words.size
    generator = np.random.default_rng(0)
    agents, words = np.arange(300)[:, None], np.unique(generator.integers(1, 2**32, 1000))
    assert np.unique(pair_key(agents, words)).size == 300 * words.size
    assert np.unique(pair_key(np.array([-1, 0, 2**31 - 1], np.int32), 7)).size == 3


@given(st.integers(0, 2**31 - 1), st.integers(0, 2**32 - 1))
def test_a_pair_can_be_read_back_from_its_key(agent: int, word: int):
    """Undoing the finaliser step by step gives the two halves again: no two pairs share a key."""
    bits, mask = int(pair_key(agent, word)), (1 << 64) - 1
    bits ^= (bits >> 31) ^ (bits >> 62)
    bits = bits * pow(0x94D049BB133111EB, -1, 1 << 64) & mask
    bits ^= (bits >> 27) ^ (bits >> 54)
    bits = bits * pow(0xBF58476D1CE4E5B9, -1, 1 << 64) & mask
    bits ^= (bits >> 30) ^ (bits >> 60)
    assert (bits >> 32, bits & 0xFFFFFFFF) == (agent, word)


def test_the_finaliser_is_that_of_splitmix64():
    # The first output of splitmix64 seeded with 0 is the finaliser of the golden gamma 0x9E3779B97F4A7C15.
    assert int(pair_key(0x9E3779B9, 0x7F4A7C15)) == 0xE220A8397B1DCDAF


def test_a_word_has_one_key_as_int32_uint32_and_int64():
    words = np.array([1, 2**31, 2**32 - 1], np.uint32)
    expected = pair_key(3, words)
    assert np.array_equal(pair_key(3, words.view(np.int32)), expected)
    assert np.array_equal(pair_key(3, words.astype(np.int64)), expected)


def test_pairs_with_64_bit_words_do_not_meet_in_patterns():
    # Words and agents chosen so that shifting and adding alone would meet: one step of the agent is 2**32 of the word.
    agents, words = np.arange(200)[:, None], (np.arange(500, dtype=np.int64) << 32) + 12345
    assert np.unique(pair_key(agents, words)).size == 200 * 500


def test_each_bit_of_a_pair_turns_half_of_the_key():
    word = np.random.default_rng(1).integers(-(2**63), 2**63 - 1, 500)
    for bit in range(64):
        turned = pair_key(5, word) ^ pair_key(5, word ^ np.int64(np.uint64(1 << bit).view(np.int64)))
        share = np.unpackbits(turned.view(np.uint8)).mean()
        assert 0.45 < share < 0.55, bit


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"worlds": 0}, "sketch.worlds is 0, and must be at least 1"),
        (
            {"worlds": 1, "width": 1000},
            f"sketch.width is 1000, and must be a power of two up to {2**31}; the next is 1024",
        ),
        ({"worlds": 1, "width": 1}, "sketch.width is 1, and must be at least 2"),
        ({"worlds": 1, "depth": 0}, "sketch.depth is 0, and must be at least 1"),
        ({"worlds": 1, "depth": 2.0}, "sketch.depth is 2.0, and must be a whole number"),
        ({"worlds": 1, "seed": -1}, "sketch.seed is -1, and must be at least 0"),
        ({"worlds": 1, "dtype": np.int32}, "sketch.dtype is int32, and must be one of uint8, uint16, uint32"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(arguments, sentence: str):
    with pytest.raises(UserError) as error:
        CountMin(**arguments)
    assert str(error.value) == sentence


def test_the_state_of_another_sketch_is_refused():
    with pytest.raises(UserError, match=r"uint32 \(2, 4, 1024\) .* and this one is uint32 \(3, 4, 1024\)"):
        CountMin(3).set_state(CountMin(2).get_state())
    with pytest.raises(UserError, match=r"uint8 \(2, 4, 1024\) .* and this one is uint32"):
        CountMin(2).set_state(CountMin(2, dtype="uint8").get_state())


@pytest.mark.parametrize("world", [-1, 2])
def test_a_world_that_does_not_exist_is_refused(world: int):
    for method in (CountMin(2).add, CountMin(2).estimate):
        with pytest.raises(IndexError, match=f"world is in {world} ... {world}, and must be in 0 ... 1"):
            method(np.array([world]), np.array([5]))


def test_arrays_of_the_wrong_kind_are_refused():
    sketch, one = CountMin(2), np.zeros(1, np.int64)
    with pytest.raises(ValueError, match="must both have the shape"):
        sketch.add(one, np.zeros(2, np.int64))
    with pytest.raises(ValueError, match="key is float64, and must be integers"):
        sketch.estimate(one, np.zeros(1))
    with pytest.raises(ValueError, match="count is -1, and must not be negative"):
        sketch.add(one, one, -1)
    with pytest.raises(ValueError, match="count is float64"):
        sketch.add(one, one, 0.5)
    for mask in (np.array([0, 1]), np.array([True])):
        with pytest.raises(ValueError, match="must be bool"):
            sketch.reset(mask)
