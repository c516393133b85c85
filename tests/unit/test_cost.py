"""What a plan says it will cost, and what it can detect."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import analysis.statistics.power
from kerzoo.options import TrialOptions
from sweeps import cost
from sweeps.compose import compose
from sweeps.halving import HalvingRule
from sweeps.power import equivalence_power, smallest_detectable_effect

PUBLISHED_EFFECTS = {
    2: 11.5499,
    3: 3.2640,
    4: 2.1279,
    5: 1.6820,
    10: 0.9960,
    20: 0.6604,
    34: 0.4950,
}
"""Pairs → d of a paired t-test, two-sided 5 %, power .80 (statsmodels TTestPower, G*Power)."""


def options_of(*overrides: str) -> TrialOptions:
    composed = compose(["model=opt-tiny", *overrides])
    return TrialOptions.from_config(composed.trial_config({"training.device": "cpu"}))


@pytest.mark.parametrize(("num_seeds", "effect"), PUBLISHED_EFFECTS.items())
def test_the_smallest_detectable_effect_is_the_published_one(num_seeds: int, effect: float) -> None:
    assert smallest_detectable_effect(num_seeds, sd=1.0) == pytest.approx(effect, abs=1e-4)


@pytest.mark.parametrize("num_seeds", [3, 5, 10, 50, 200])
@pytest.mark.parametrize("power", [0.5, 0.8, 0.9])
def test_the_smallest_detectable_effect_is_that_of_statsmodels(
    num_seeds: int, power: float
) -> None:
    statsmodels_power = pytest.importorskip("statsmodels.stats.power")
    expected = statsmodels_power.TTestPower().solve_power(nobs=num_seeds, power=power, alpha=0.05)
    found = smallest_detectable_effect(num_seeds, 1.0, power)
    assert found == pytest.approx(float(expected), rel=1e-4)


def test_a_simulated_study_finds_the_smallest_detectable_effect_with_the_stated_power() -> None:
    """20 000 studies of 5 pairs: the share found is within 5 standard errors (|z| < 5) of .80."""
    effect = smallest_detectable_effect(5, sd=2.0)
    generator = np.random.Generator(np.random.PCG64(7))
    differences = generator.normal(effect, 2.0, size=(20_000, 5))
    found = float((stats.ttest_1samp(differences, 0.0, axis=1).pvalue < 0.05).mean())
    assert abs(found - 0.8) < 5 * math.sqrt(0.8 * 0.2 / 20_000)


@pytest.mark.parametrize("num_seeds", [0, 1])
def test_less_than_two_seeds_detect_nothing(num_seeds: int) -> None:
    assert smallest_detectable_effect(num_seeds, sd=2.0) is None


def test_every_further_seed_makes_a_smaller_effect_detectable() -> None:
    effects = [smallest_detectable_effect(n, sd=2.0) for n in range(2, 60)]
    assert all(a is not None and b is not None and a > b for a, b in itertools.pairwise(effects))


@settings(deadline=None)
@given(sd=st.floats(0.01, 100), num_seeds=st.integers(2, 30))
def test_the_effect_is_proportional_to_the_standard_deviation(sd: float, num_seeds: int) -> None:
    unit = smallest_detectable_effect(num_seeds, 1.0)
    assert unit is not None
    assert smallest_detectable_effect(num_seeds, sd) == pytest.approx(unit * sd)


def test_more_power_needs_a_larger_effect() -> None:
    effects = [smallest_detectable_effect(5, 1.0, power) for power in (0.5, 0.8, 0.95)]
    assert effects == sorted(effects)


def test_a_measured_forward_pass_decides_the_duration() -> None:
    options = options_of("training.forward_passes=144")
    assert cost.estimate_trial(options, forward_pass_s=0.5).device_s == pytest.approx(144 * 0.5)
    assert cost.estimate_trial(options).forward_passes == 144


def test_cached_layers_cost_less_and_full_tuning_needs_more_memory() -> None:
    whole, last = options_of("tuning=lora"), options_of("tuning=lora_last6")
    full = options_of("tuning=full")
    assert cost.estimate_trial(last).device_s < cost.estimate_trial(whole).device_s
    assert cost.estimate_trial(full).memory_gib > cost.estimate_trial(whole).memory_gib


ADAPTERS = {  # of OPT-13B (40 layers, hidden size 5120) and Llama 3.2 (16, 2048, keys 512)
    ("opt-13b", "full"): 12_853_473_280,
    ("opt-13b", "full_last6"): 6 * (12 * 5120**2 + 13 * 5120),
    ("opt-13b", "lora"): 40 * 2 * 8 * (5120 + 5120),
    ("opt-13b", "lora_last6"): 6 * 2 * 8 * (5120 + 5120),
    ("opt-13b", "prefix"): 5 * 40 * 2 * 5120,
    ("opt-13b", "prompt"): 5 * 5120,
    ("opt-13b", "ia3"): 40 * (5120 + 5120 + 4 * 5120),
    ("opt-13b", "head"): 50272 * 5120,
    ("opt-350m", "prompt"): 5 * 512,
    ("opt-350m", "head"): 50272 * 512,
    ("llama-3.2-1b", "full_last6"): 6 * 60_821_504,
    ("llama-3.2-1b", "lora"): 16 * 8 * ((2048 + 2048) + (2048 + 512)),
    ("llama-3.2-1b", "prefix"): 5 * 16 * 2 * 512,
    ("llama-3.2-1b", "ia3"): 16 * (512 + 512 + 8192),
    ("llama-3.2-1b", "head"): 128_256 * 2048,
}


@pytest.mark.parametrize(("chosen", "count"), ADAPTERS.items())
def test_a_plan_states_exactly_how_many_parameters_a_mode_trains(
    chosen: tuple[str, str], count: int
) -> None:
    options = options_of(f"model={chosen[0]}", f"tuning={chosen[1]}")
    assert options.tuning.count_parameters(options.model.sizes) == count


def test_memory_counts_what_a_mode_adds_to_the_model() -> None:
    """In fp16 with an fp32 master copy, beside the activations of one batch."""
    memory, options = {}, {}
    for mode in ("prefix", "prompt", "ia3", "lora", "head", "full"):
        overrides = (f"tuning={mode}", "training.precision=master")
        options[mode] = options_of("model=opt-13b", *overrides)
        memory[mode] = cost.estimate_trial(options[mode]).memory_gib * cost.GIB
    assert memory["ia3"] < memory["prompt"] < memory["lora"] < memory["prefix"] < memory["head"]
    assert memory["head"] < memory["full"]
    count = {m: o.tuning.count_parameters(o.model.sizes) for m, o in options.items()}
    batch = options["prefix"].training.batch_size
    base = memory["ia3"] - 8 * count["ia3"]  # an adapter in fp32, and its master copy
    assert memory["lora"] - base == pytest.approx(8 * count["lora"])
    assert memory["prefix"] - base == pytest.approx((8 + 2 * batch) * count["prefix"])
    assert memory["head"] - base == pytest.approx((2 + 4) * count["head"])
    assert memory["full"] - base == pytest.approx(4 * count["full"])
    prompt = batch * 5 * 5120 * 16 * 2  # activations of five more tokens a sequence
    assert memory["prompt"] - base == pytest.approx(8 * count["prompt"] + prompt)


def test_points_that_share_a_forward_pass_need_activations_and_adapters_for_each() -> None:
    options = [options_of("tuning=lora", f"training.points_per_forward={n}") for n in (1, 4)]
    one, four = (cost.estimate_trial(o).memory_gib * cost.GIB for o in options)
    tokens = options[0].training.batch_size * options[0].task.max_length
    adapters = options[0].tuning.count_parameters(options[0].model.sizes)
    assert four - one == pytest.approx(3 * tokens * 32 * 16 * 4 + 4 * 4 * adapters)


def test_only_what_is_computed_takes_time() -> None:
    durations = {
        mode: cost.estimate_trial(options_of("model=opt-13b", f"tuning={mode}")).device_s
        for mode in ("head", "lora_last6", "prefix", "prompt")
    }
    assert durations["head"] < durations["lora_last6"] < durations["prefix"] < durations["prompt"]


BILLION = 1e9 / cost.GIB


@pytest.mark.parametrize(
    ("overrides", "billions_of_bytes"),
    [
        (("model=llama-3.1-8b", "tuning=lora"), 8.03 * 2),
        (("model=llama-3.1-8b", "tuning=full"), 8.03 * (2 + 4)),  # and θ in fp32
        (("model=opt-30b", "tuning=full", "training.precision=inplace_half"), 29.97 * (2 + 2)),
        (("model=roberta-large", "tuning=full", "training.precision=inplace"), 0.355 * (4 + 4)),
        (("model=roberta-large", "tuning=full"), 0.355 * (4 + 4)),
    ],
)
def test_memory_is_that_of_the_weights_and_of_their_copies(
    overrides: tuple[str, ...], billions_of_bytes: float
) -> None:
    """In place there is a second copy while the weights become one vector; later there is none."""
    options = options_of(*overrides)
    memory = cost.estimate_trial(options).memory_gib - cost.PROCESS_GIB["cpu"]
    tokens = options.training.batch_size * options.task.max_length
    activations = tokens * options.model.hidden_size * 16 * 4 / cost.GIB
    adapters = 0.1
    expected = billions_of_bytes * BILLION
    assert expected * 0.999 <= memory <= expected * 1.001 + activations + adapters


def test_a_plans_cost_adds_up_its_trials() -> None:
    trials = [options_of("training.forward_passes=144"), options_of("training.forward_passes=288")]
    summary = cost.summarise(trials, HalvingRule(2.0), num_arms=1, num_seeds=1, forward_pass_s=0.25)
    assert summary["trials"] == 2
    assert summary["forward_passes"] == 432
    assert summary["forward_passes_per_trial"] == 288
    assert 432 * 0.4 < summary["forward_passes_expected"] < 432
    assert summary["device_hours"] == pytest.approx(432 * 0.25 / 3600)
    share = summary["forward_passes_expected"] / 432
    assert summary["device_hours_expected"] == pytest.approx(432 * 0.25 / 3600 * share, rel=1e-2)
    assert summary["device"] == "cpu"


def test_one_seed_is_called_a_screen_and_several_name_their_effect() -> None:
    trials = [options_of()]
    one, five = (cost.summarise(trials, HalvingRule(None), 1, seeds) for seeds in (1, 5))
    assert one["smallest_detectable_effect"] is None
    assert "at least two seeds" in one["smallest_detectable_effect_note"]
    assert five["smallest_detectable_effect"] == pytest.approx(1.6820 * cost.PAIRED_SD_POINTS, 1e-3)
    assert "5 paired seeds" in five["smallest_detectable_effect_note"]


@pytest.mark.parametrize(("num_seeds", "power"), [(5, 0.0203), (10, 0.0655), (20, 0.3935)])
def test_the_power_of_equivalence_is_that_of_a_simulation(num_seeds: int, power: float) -> None:
    """A false alarm in 6e-5 of the seeds of the simulation."""
    assert equivalence_power(1.0, 2.0, num_seeds) == pytest.approx(power, abs=1e-4)
    differences = np.random.default_rng(0).normal(0, 2, (20_000, num_seeds))
    reach = stats.t.ppf(0.95, num_seeds - 1) * differences.std(axis=1, ddof=1) / num_seeds**0.5
    found = (np.abs(differences.mean(axis=1)) + reach < 1).mean()
    assert found == pytest.approx(power, abs=4 * (power * (1 - power) / 20_000) ** 0.5)


def test_the_note_says_what_the_seeds_can_call_equivalent() -> None:
    trials = [TrialOptions.from_config(compose([]).trial_config({}))]
    found = cost.summarise(trials, HalvingRule(None), 1, 10, margin=0.01)
    assert found["equivalence_power"] == pytest.approx(0.0655, abs=1e-4)
    assert "equivalent within ±1 points with power 0.07" in found["smallest_detectable_effect_note"]
    assert equivalence_power(1.0, 2.0, 1) == 0.0


@pytest.mark.parametrize("num_seeds", [2, 3, 5, 12, 40, 200])
def test_the_plan_and_the_report_have_the_same_power_of_equivalence(num_seeds: int) -> None:
    for sd, margin in ((2.0, 1.0), (0.5, 1.0), (1.0, 0.2)):
        reported = analysis.statistics.power.equivalence_power(margin, sd, num_seeds)
        assert equivalence_power(margin, sd, num_seeds) == pytest.approx(reported, abs=1e-6)


def test_a_plan_takes_its_share_of_each_slot_and_no_less_than_its_longest_trial() -> None:
    told = {"device_hours_expected": 8.0, "device_hours_per_trial": 1.0, "trials": 12}
    on_cpu, on_two_gpus = ({**told, "gpus_per_trial": number} for number in (0, 2))
    assert [cost.wall_time_s(on_cpu, slots) / 3600 for slots in (1, 4, 64)] == [8.0, 2.0, 1.0]
    assert cost.wall_time_s(on_two_gpus, 4) / 3600 == 1.0
