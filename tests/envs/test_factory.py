"""FactoryWorld: machines against closed forms, who sees and who acts, and what scripts earn."""

from __future__ import annotations

import copy
import math
import pickle
import runpy
import sys
from typing import Any

import numpy as np
import pytest
import torch
from pettingzoo.test import api_test, parallel_api_test
from PIL import Image
from torch import Tensor

from popcomm import envs
from popcomm.envs import WORLDS, factory_v0
from popcomm.envs.factory_machines import REPAIR, ROUTE, RUN, SLOW, STOP, Machines, heated, routed, switched, worn
from popcomm.envs.factory_references import Alone, Told, cures, dealt
from popcomm.envs.factory_v0 import FactoryWorld
from popcomm.envs.scripted import Randomly
from popcomm.envs.testing import world_api_test
from popcomm.envs.world import WorldStep
from popcomm.errors import UserError
from tests.envs.worlds_in_play import earned, future

QUIET: dict[str, Any] = {"defect_rate": 0.0, "cooling_rate": 0.0, "shake_rate": 0.0, "noise": 0.0, "orders": 0.0}


def act(world: FactoryWorld, *actions: int, orders: int = 0) -> WorldStep:
    return world.step(
        {
            "sensor": torch.zeros(1, world.machines, dtype=torch.int64),
            "processor": torch.full((1, world.processors), orders),
            "actuator": torch.tensor([actions]),
        }
    )


def made(peak: bool = False, delicate: bool = False, options: dict[str, Any] | None = None, **of: Any) -> FactoryWorld:
    """One factory in which nothing happens by chance, but tariff and product, and machines are as the test wants."""
    world = FactoryWorld(1, **QUIET | (options or {}))
    world.reset(0)
    state = world.get_state()
    given = {key: torch.tensor([value]) for key, value in of.items()}
    state["machines"] = state["machines"]._replace(**given)
    state["peak"], state["delicate"] = torch.tensor([peak]), torch.tensor([delicate])
    world.set_state(state)
    return world


def machines(**of: Any) -> Machines:
    """Three machines without a symptom, but what is given."""
    ok = {
        "temperature": [0.0] * 3,
        "cooled": [True] * 3,
        "shaking": [False] * 3,
        "wear": [0.0] * 3,
        "down": [0] * 3,
        "queue": [2.0] * 3,
    }
    return Machines(**{key: torch.tensor([value]) for key, value in (ok | of).items()})


class TestContract:
    @pytest.mark.parametrize("options", [{}, {"machines": 1}, {"machines": 4, "processors": 2, "break_steps": 0}])
    def test_it_keeps_the_contract_of_worlds(self, options: dict[str, Any]) -> None:
        world_api_test(FactoryWorld(3, max_steps=9, **options), num_steps=30)

    def test_pettingzoo_accepts_it(self) -> None:
        parallel_api_test(factory_v0.parallel_env(max_steps=5), num_cycles=20)
        api_test(factory_v0.env(machines=2, max_steps=5), num_cycles=20)

    def test_it_is_known_by_name(self) -> None:
        assert WORLDS["factory_v0"] is FactoryWorld
        assert envs.factory_v0 is factory_v0
        assert "factory_v0" in dir(envs)

    def test_a_pickled_copied_or_restored_world_has_the_same_future(self) -> None:
        world = FactoryWorld(4, max_steps=5)
        world.reset(3)
        future(world, 3)
        restored = FactoryWorld(4, max_steps=5)
        restored.set_state(world.get_state())
        twins = [pickle.loads(pickle.dumps(world)), copy.deepcopy(world), restored]
        expected = torch.stack(future(world))
        assert all(torch.equal(torch.stack(future(twin)), expected) for twin in twins)

    def test_species_see_and_do_different_things(self) -> None:
        species = FactoryWorld(machines=4, processors=2).species
        told = {name: (s.num_seats, s.obs_size, int(s.action_space.n)) for name, s in species.items()}
        assert told == {"sensor": (4, 12, 1), "processor": (2, 6, 4), "actuator": (4, 10, 5)}


class TestMachines:
    @pytest.mark.parametrize(("cooled", "speed", "goal"), [(True, 1.0, 40.0), (False, 0.5, 60.0), (False, 1.0, 120.0)])
    def test_temperature_follows_newtons_law_of_cooling(self, cooled: bool, speed: float, goal: float) -> None:
        now = torch.tensor(10.0)
        for _ in range(5):
            now = heated(now, torch.tensor(cooled), torch.tensor(speed))
        assert now.item() == pytest.approx(goal + (10.0 - goal) * math.exp(-5 / 3))

    def test_a_defect_breaks_a_machine_after_three_more_steps_of_full_speed_or_six_of_half(self) -> None:
        for speed, steps in ((1.0, 3), (0.5, 6)):
            wear = worn(torch.tensor(0.0), torch.tensor(speed), torch.tensor(True))
            for step in range(steps):
                assert (wear < 1).item(), step
                wear = worn(wear, torch.tensor(speed), torch.tensor(False))
            assert wear.item() == 1.0

    def test_routing_keeps_all_jobs_and_the_room_of_the_next_machine(self) -> None:
        queue = torch.tensor([[8.0, 11.0, 2.0], [1.0, 0.0, 12.0]])
        after = routed(queue, torch.tensor([[True, True, False], [True, False, True]]))
        # 1 to the second machine, which has room for one; 3 from it; then 1, and 3 of 12 to the first.
        assert after.tolist() == [[7.0, 9.0, 5.0], [3.0, 1.0, 9.0]]

    def test_chance_switches_are_a_markov_chain_with_the_share_of_its_rates(self) -> None:
        generator, state, rows = torch.Generator().manual_seed(0), torch.zeros(2000, dtype=torch.bool), []
        for _ in range(150):
            state = switched(state, 0.1, 0.2, torch.rand(2000, generator=generator))
            rows.append(state)
        late = torch.stack(rows[30:]).float()
        # Neighbours in time are correlated by 0.7: the variance of a mean is 1.7 / 0.3 times that of independent ones.
        error = (2 / 9 / late.numel() * 1.7 / 0.3) ** 0.5
        assert late.mean().item() == pytest.approx(1 / 3, abs=4 * error)


class TestSteps:
    def test_actions_make_jobs_and_use_energy_with_the_square_of_the_speed(self) -> None:
        world = made(options={"reward_share": 0.0})
        step = act(world, RUN, SLOW, STOP)
        own = [1.0 - 0.2 - 0.04 * 1.0, 0.5 - 0.2 / 4 - 0.04 * 1.5, -0.04 * 2.0]
        assert step.rewards[0].tolist() == pytest.approx([*own, sum(own) / 3, *own])
        assert world.metrics() == pytest.approx(
            {"throughput": 0.5, "damage": 0, "breakdowns": 0, "backlog": 1.5, "energy": 0.25 / 3, "lost": 0}
        )

    def test_in_a_peak_full_speed_costs_more_than_it_makes_and_half_speed_does_not(self) -> None:
        rewards = act(made(peak=True, options={"reward_share": 0.0}), RUN, SLOW, STOP).rewards[0, :3] + 0.04 * 2
        assert rewards.tolist() == pytest.approx([1 - 1.2 + 0.04, 0.5 - 0.3 + 0.02, 0.0])

    def test_vibration_harms_with_the_speed(self) -> None:
        well, shaken = made(), made(shaking=[True] * 3)
        lost = act(well, RUN, SLOW, STOP).rewards - act(shaken, RUN, SLOW, STOP).rewards
        assert lost[0, 3].item() == pytest.approx(2.0 * 1.5 / 3)

    @pytest.mark.parametrize(("delicate", "harm"), [(True, 1.5), (False, 0.0)])
    def test_heat_harms_a_delicate_product_alone_by_what_is_above_the_limit(self, delicate: bool, harm: float) -> None:
        hot = made(delicate=delicate, temperature=[90.0 * math.exp(1 / 3), 0.0, 0.0])
        act(hot, STOP, STOP, STOP)
        assert hot.metrics()["damage"] == pytest.approx(harm / 3, abs=1e-5)

    def test_a_failed_cooling_at_half_speed_stays_at_the_limit(self) -> None:
        world = made(delicate=True, cooled=[False] * 3, options={"cooling_rate": 1.0, "max_steps": 100})
        for _ in range(40):
            act(world, SLOW, SLOW, SLOW)
        assert world.metrics()["damage"] == 0.0

    def test_a_breakdown_takes_its_steps_and_its_damage(self) -> None:
        world = made(wear=[0.75, 0.0, 0.0], queue=[9.0] * 3, options={"break_steps": 3, "reward_share": 0.0})
        act(world, RUN, STOP, STOP)
        assert world.metrics()["breakdowns"] == pytest.approx(1 / 3)
        works = []
        for _ in range(4):
            works.append(bool(world.here()[0].works[0, 0]))
            act(world, RUN, STOP, STOP)
        assert works == [False, False, False, True]
        assert world.here()[0].wear[0, 0].item() == 0.0
        assert world.metrics()["throughput"] == pytest.approx(1 / 12)  # the last of four steps

    def test_a_repair_takes_its_steps_and_ends_the_defect(self) -> None:
        world = made(wear=[0.5, 0.0, 0.0], options={"repair_steps": 2})
        step = act(world, REPAIR, STOP, STOP)
        state = slice(7, 10)  # works, under repair, broken
        assert step.observations["sensor"][0, 0, state].tolist() == [0, 1, 0]
        step = act(world, RUN, STOP, STOP)
        assert step.observations["sensor"][0, 0, state].tolist() == [1, 0, 0]
        assert world.here()[0].wear[0, 0].item() == 0.0
        assert world.here()[0].queue[0].tolist() == [2.0] * 3

    def test_orders_go_where_processors_send_them_and_what_finds_no_room_is_lost(self) -> None:
        world = made(queue=[0.0, 8.0, 0.0], options={"orders": 2.0, "processors": 2})
        step = world.step(
            {
                "sensor": torch.zeros(1, 3, dtype=torch.int64),
                "processor": torch.tensor([[1, 0]]),
                "actuator": torch.full((1, 3), STOP),
            }
        )
        # With orders = 2 all 6 chances come true, and each processor has half of them.
        assert world.here()[0].queue.tolist() == [[3.0, 11.0, 0.0]]
        act(world, STOP, STOP, STOP, orders=1)
        assert world.here()[0].queue.tolist() == [[3.0, 12.0, 0.0]]
        assert step.observations["processor"][0, 0, 4].item() == 0.0
        assert world.metrics()["lost"] == pytest.approx(5 / 6)

    def test_no_job_is_made_from_nothing_or_forgotten(self) -> None:
        world = FactoryWorld(20, max_steps=1000)
        world.reset(1)
        before = world.here()[0].queue.sum()
        policy, steps = Randomly(), 200
        for _ in range(steps):
            world.step(policy(world))
        told = world.metrics()
        came = (told["throughput"] + told["lost"]) * 20 * 3 * steps + float(world.here()[0].queue.sum() - before)
        assert came == pytest.approx(0.5 * 3 * 20 * steps, abs=4 * (6 * 0.25 * 0.75 * 20 * steps) ** 0.5)

    @pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
    def test_rewards_mix_own_and_mean(self, share: float) -> None:
        own = act(made(options={"reward_share": 0.0}), RUN, SLOW, STOP).rewards[0, :3]
        mixed = act(made(options={"reward_share": share}), RUN, SLOW, STOP).rewards[0]
        expected = (1 - share) * own + share * own.mean()
        torch.testing.assert_close(mixed, torch.cat((expected, own.mean().view(1), expected)))


class TestWhoSeesWhat:
    def test_a_sensor_sees_its_machine_a_processor_the_plan_and_an_actuator_what_it_did(self) -> None:
        world = made(peak=True, delicate=True, temperature=[50.0, 0, 0], wear=[0.5, 0, 0], queue=[6.0, 2, 2])
        world.set_state(world.get_state() | {"last": world._look(*_nobody(world))})
        seen = world._last.observations  # type: ignore[union-attr]
        assert seen["sensor"][0, 0].tolist() == [1, 0, 0, 0.5, 0, 0.5, 0.5, 1, 0, 0, 1]
        assert seen["processor"][0].tolist() == [[1, 1, 1, 0, 1]]
        assert seen["actuator"][0].tolist() == [[*row, 0, 0, 0, 0, 0, 1] for row in torch.eye(3).tolist()]
        step = act(world, SLOW, RUN, ROUTE)
        assert step.observations["actuator"][0, :, 3:].tolist() == [
            [0, 1, 0, 0, 0, 1],
            [1, 0, 0, 0, 0, 1],
            [0, 0, 0, 0, 1, 1],
        ]

    def test_actuators_and_processors_see_nothing_of_machines(self) -> None:
        well, ill = made(), made(temperature=[99.0] * 3, shaking=[True] * 3, wear=[0.5] * 3, down=[3, 3, 3])
        for world in (well, ill):
            act(world, STOP, STOP, STOP)
        seen = [world._last.observations for world in (well, ill)]  # type: ignore[union-attr]
        assert all(torch.equal(seen[0][name], seen[1][name]) for name in ("processor", "actuator"))
        assert not torch.equal(seen[0]["sensor"], seen[1]["sensor"])

    def test_noise_has_the_deviation_that_is_asked_for(self) -> None:
        world = FactoryWorld(4000, **QUIET | {"noise": 0.2})
        measured = world.reset(0).observations["sensor"][..., 3:6]
        assert measured[..., 0].std().item() == pytest.approx(0.2, rel=0.03)

    def test_labels_are_what_seats_perceive(self) -> None:
        world = made(peak=True, shaking=[True, False, False], wear=[0.0, 0.5, 0.0], queue=[0.0, 0.0, 9.0])
        assert world._labels().tolist() == [[2, 1, 4, 8, -1, -1, -1]]


def _nobody(world: FactoryWorld) -> tuple[Tensor, ...]:
    nobody = torch.zeros(1, world.num_agents, dtype=torch.bool)
    return nobody.float(), nobody, nobody, nobody


class TestReferences:
    def test_each_symptom_has_its_cure(self) -> None:
        now = machines(
            wear=[0.25, 0.0, 0.0], shaking=[True, True, False], cooled=[True, True, False], queue=[2.0, 9.0, 2.0]
        )
        no, yes = torch.tensor([False]), torch.tensor([True])
        assert cures(now, no, yes).tolist() == [[REPAIR, ROUTE, SLOW]]
        assert cures(now, no, no).tolist() == [[REPAIR, ROUTE, RUN]]
        assert cures(machines(shaking=[True, False, False]), yes, no).tolist() == [[STOP, SLOW, SLOW]]

    def test_orders_are_dealt_to_those_with_the_least_to_do(self) -> None:
        assert dealt(machines(queue=[1.0, 2.0, 3.0], down=[4, 0, 0]), 2).tolist() == [[1, 2]]

    def test_late_scripts_act_on_what_was_a_step_before(self) -> None:
        world, late = made(), Told(1)
        act(world, 0, 0, RUN)  # no first view any more
        assert late(world)["actuator"].tolist() == [[RUN] * 3]
        state = world.get_state()
        state["machines"] = state["machines"]._replace(shaking=torch.tensor([[True] * 3]))
        world.set_state(state)
        assert late(world)["actuator"].tolist() == [[RUN] * 3]
        assert late(world)["actuator"].tolist() == [[STOP] * 3]

    @pytest.mark.parametrize(
        ("script", "up", "cycle"),
        [
            # Defects come after 1 / 0.1 steps of work in the mean. Nobody looks: three more, then eight of being down.
            (Alone(RUN), 10 + 3, 8),
            # All is known: repair at once, two steps.
            (Told(0, processors=False), 10, 2),
            # All is known a step late.
            (Told(1, processors=False), 10 + 1, 2),
        ],
    )
    def test_throughput_is_that_of_the_renewal_theorem_where_machines_only_wear_out(
        self, script: Any, up: float, cycle: float
    ) -> None:
        options: dict[str, Any] = {"orders": 2.0, "defect_rate": 0.1}
        world = FactoryWorld(60, max_steps=1001, **QUIET | options)
        world.reset(0)
        for t in range(1000):
            actions = script(world)
            # Orders go to all machines in turn, so that jobs wait everywhere.
            world.step(actions | {"processor": torch.full((60, 1), t % 3)})
            if t == 100:
                world.metrics()
        works = up / (up + cycle)
        assert world.metrics()["throughput"] == pytest.approx(works, abs=0.01)

    def test_scripts_earn_what_the_page_says(self) -> None:
        table = {Randomly(): -16.7, Alone(SLOW, 8): -5.7, Told(1): 4.6, Told(0): 9.4, Told(1, processors=False): 3.0}
        for script, told in table.items():
            mean, error = earned(FactoryWorld(300), script)
            assert mean == pytest.approx(told, abs=4 * error + 0.05)


class TestMistakes:
    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"machines": 0}, "machines is 0, and must be a whole number of at least 1"),
            ({"processors": 1.5}, "processors is 1.5, and must be a whole number"),
            ({"repair_steps": 0}, "repair_steps is 0, and must be a whole number of at least 1"),
            ({"orders": 2.5}, "orders is 2.5, and must be between 0 and 2"),
            ({"shake_rate": 1.5}, "shake_rate is 1.5, and must lie in"),
            ({"noise": -1}, "noise is -1, and must be a number that is not negative"),
            ({"max_steps": 0}, "max_steps is 0, and must be at least 1"),
        ],
    )
    def test_values_out_of_range_are_told_in_the_users_words(self, options: dict[str, Any], words: str) -> None:
        with pytest.raises(UserError, match=f"factory_v0: {words}"):
            FactoryWorld(**options)

    def test_it_must_be_reset_first(self) -> None:
        for use in (lambda w: act(w, 0, 0, 0), FactoryWorld.get_state, FactoryWorld.render, Told()):
            with pytest.raises(UserError, match=r"factory_v0 .* reset"):
                use(FactoryWorld())

    def test_actions_of_another_shape_are_refused(self) -> None:
        world = made()
        with pytest.raises(UserError, match=r"actions of 'actuator' have shape \(1, 2\), and must have \(1, 3\)"):
            act(world, RUN, RUN)


class TestPictures:
    def test_a_picture_shows_what_changes(self) -> None:
        before = made().render()
        assert before.shape == (480, 480, 3)
        assert before.dtype == np.uint8
        others = (
            made(temperature=[60.0, 0, 0]),
            made(wear=[0.5, 0, 0]),
            made(shaking=[True, False, False]),
            made(queue=[5.0, 2, 2]),
            made(down=[3, 0, 0]),
            made(peak=True),
            made(delicate=True),
        )
        assert not any(np.array_equal(before, other.render()) for other in others)
        assert not np.array_equal(before, made().render(links=torch.tensor([[0, 4]])))

    @pytest.mark.filterwarnings("ignore:.*found in sys.modules")
    def test_running_the_module_draws_a_moment(self, tmp_path: Any, monkeypatch: Any, capsys: Any) -> None:
        file = tmp_path / "factory.png"
        monkeypatch.setattr(sys, "argv", ["factory_v0", str(file)])
        runpy.run_module("popcomm.envs.factory_v0", run_name="__main__")
        assert Image.open(file).size == (480, 480)
        assert "a factory of 3 machines" in capsys.readouterr().out
