"""Pictures show what they were given; no warning, no global state."""

from __future__ import annotations

import sys
import warnings

import numpy as np
import pytest
from matplotlib.patches import FancyArrowPatch

from popcomm.language import basics, pictures
from popcomm.language.topology_picture import MOST_LINKS


@pytest.fixture(autouse=True)
def _warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def texts(figure) -> str:
    return "\n".join(t.get_text() for t in figure.findobj(lambda a: hasattr(a, "get_text")))


def arrows(figure):
    return [a for a in figure.axes[0].patches if isinstance(a, FancyArrowPatch)]


def test_pixels_and_png_are_the_same_picture():
    figure = pictures.symbol_use(np.array([[3, 1, 0, 0]]))
    array = pictures.pixels(figure)
    assert array.dtype == np.uint8
    assert array.ndim == 3
    assert array.shape[2] == 3
    assert pictures.png(figure)[16:24] == array.shape[1].to_bytes(4) + array.shape[0].to_bytes(4)


def test_no_picture_touches_pyplot():
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()


def test_the_background_is_opaque_and_light_so_that_both_pages_can_carry_it():
    corner = pictures.pixels(pictures.symbol_use(np.ones((1, 2), int)))[0, 0]
    assert corner.min() > 240


def test_every_link_is_an_arrow_and_one_across_the_border_is_two_halves():
    places = np.array([[0.5, 5.0], [2.0, 5.0], [9.5, 5.0]])
    links = np.array([[0, 1], [0, 2]])
    assert len(arrows(pictures.topology(links, 3, positions=places))) == 2
    figure = pictures.topology(links, 3, positions=places, torus=(10.0, 10.0))
    assert len(arrows(figure)) == 3
    assert "across the border" in texts(figure)
    ends = sorted(float(a.get_path().vertices[:, 0].max()) for a in arrows(figure))
    assert ends[-1] > 9.5  # one half leaves on the right


def test_heavier_links_are_thicker():
    widths = [a.get_linewidth() for a in arrows(pictures.topology(np.array([[0, 1], [1, 2]]), 3, np.array([0.2, 0.8])))]
    assert widths == sorted(widths)
    assert widths[1] > 2 * widths[0]


def test_too_many_links_are_cut_to_the_heaviest_and_it_is_said():
    rng = np.random.default_rng(0)
    links = rng.integers(0, 50, (MOST_LINKS + 100, 2))
    figure = pictures.topology(links, 50, rng.random(len(links)))
    assert len(arrows(figure)) == MOST_LINKS
    assert f"{MOST_LINKS} of {MOST_LINKS + 100}" in texts(figure)


def test_hubs_and_roles_are_named():
    figure = pictures.topology(
        np.array([[0, 1]]), 3, np.ones(1), roles=["sensor", "actuator", "sensor"], hubs=np.array([True, False, False])
    )
    legend = [t.get_text() for t in figure.axes[0].get_legend().get_texts()]
    assert legend[:3] == ["actuator", "sensor", "hub"]


@pytest.mark.parametrize("size", [1, 3])
def test_positions_on_a_line_and_in_space_can_be_drawn(size):
    places = np.random.default_rng(0).random((4, size))
    assert pictures.pixels(pictures.topology(np.array([[0, 1]]), 4, positions=places, torus=(1.0,) * size)).size


def test_agents_without_links_can_be_drawn():
    assert pictures.pixels(pictures.topology(np.zeros((0, 2), int), 1, np.zeros(0))).size


def test_training_shows_only_what_was_measured():
    nothing = np.full(3, np.nan)
    figure = pictures.training_progress(
        {"env_steps": [1, 2, 3], "losses/entropy": [3.0, 2.0, 1.5], "losses/value_loss": nothing}
    )
    titles = [axes.get_title(loc="left") for axes in figure.axes if axes.get_visible()]
    assert titles == ["Entropy of actions"]
    assert "last: 1.5" in texts(figure)


def test_training_without_any_measurement_is_an_empty_picture():
    assert pictures.pixels(pictures.training_progress({})).size


def test_long_training_is_smoothed_without_shifting_it():
    x = np.arange(1000.0)
    figure = pictures.training_progress({"env_steps": x, "losses/entropy": x})
    _, smooth = figure.axes[0].lines
    assert smooth.get_ydata()[100:900] == pytest.approx(x[100:900])


def test_symbol_use_states_the_vocabulary_used():
    counts = np.zeros((2, 64), int)
    counts[0, :32] = 5
    assert "32 of 64 symbols are used (50%); 5.00 of 6.00 bits" in texts(pictures.symbol_use(counts))


@pytest.mark.parametrize("counts", [np.zeros((1, 4), int), np.eye(1, 5, dtype=int), np.ones((40, 1000), int)])
def test_empty_constant_and_large_vocabularies_can_be_drawn(counts):
    assert pictures.pixels(pictures.symbol_use(counts)).size


def test_hub_bars_are_orange_and_sorted():
    received = np.array([0.2, 0.5, np.nan, 0.25])
    relay, hubs = np.array([0, 0.4, 0, 0.1]), basics.hubs(received, 4.0)
    figure = pictures.attention_hubs(received, relay, list("abcd"), 4.0, is_hub=hubs)
    left = figure.axes[0]
    assert [t.get_text() for t in left.get_xticklabels()] == ["b", "d", "a", "c"]
    colours = [bar.get_facecolor() for bar in left.patches[:4]]
    assert colours[0] != colours[1] == colours[2]
    assert "uniform, 1/4 = 0.25" in texts(figure)
    assert "least of a hub, 0.30" in texts(figure)
    unsaid = pictures.attention_hubs(received, relay, list("abcd"), 4.0)
    assert "least of a hub" not in texts(unsaid)


def test_a_code_is_drawn_as_a_diagonal():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 6, 600)
    code = rng.permutation(6)
    found = basics.specialisation(code[labels][:, None], labels, 6, 6)
    figure = pictures.symbol_specialisation({"by label": (found, [str(i) for i in range(6)])})
    shown = figure.axes[0].images[0].get_array()
    assert np.asarray(shown).tolist() == np.eye(6).tolist()


def test_temporal_patterns_show_the_transitions_of_used_symbols_only():
    symbols, streams, steps = np.tile([3, 7], 20)[:, None], np.zeros(40, int), np.arange(40)
    info = [basics.sequential_information(symbols, streams, steps, lag) for lag in (1, 2)]
    figure = pictures.temporal_patterns([1, 2], info, basics.transitions(symbols, streams, steps, 10))
    assert np.asarray(figure.axes[1].images[0].get_array()).tolist() == [[0, 1], [1, 0]]
