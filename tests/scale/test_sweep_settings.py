"""The section `sweep` of a settings file: what it may hold, and what is said about mistakes."""

from __future__ import annotations

import pytest

from ptune.errors import ConfigError
from ptune.scale.sweep_settings import Dimension, configs, read_settings

BASE = {"backbone": "bert", "data": "reviews", "epochs": 3}


def section(space: object, **others: object) -> dict[str, object]:
    return {"space": space, **others}


def test_every_form_of_a_dimension_is_read() -> None:
    space = {
        "lr": {"log-uniform": [1e-4, 1e-1]},
        "focal": {"uniform": [0, 2]},
        "virtual-tokens": {"int": [2, 8]},
        "schedule": {"choice": ["linear", "cosine"]},
        "verbalizer": [{"good": ["fine"]}, None],
    }
    settings = read_settings(section(space), BASE)
    assert list(settings.space) == ["lr", "focal", "virtual_tokens", "schedule", "verbalizer"]
    assert settings.space["lr"].distribution().log
    assert settings.space["virtual_tokens"].grid == range(2, 9)
    assert settings.space["verbalizer"].value(0) == {"good": ["fine"]}
    assert settings.space["verbalizer"].drawn(None) == 1


def test_a_mistyped_setting_is_named_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"'vitual_tokens' is not a setting .*; did you mean 'virtual_tokens'"):
        read_settings(section({"vitual_tokens": [2, 4], "lr": [1e-3]}), BASE)


@pytest.mark.parametrize("name", ["backbone", "data", "dtype", "checkpoint_steps", "text"])
def test_settings_that_trials_share_cannot_be_searched(name) -> None:
    with pytest.raises(ConfigError, match=f"'{name}' is not a setting that can be searched"):
        read_settings(section({name: ["a"]}), BASE)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"lr": {"log-uniform": [0, 1]}}, "above 0"),
        ({"lr": {"uniform": [1, 1]}}, "less than the second"),
        ({"lr": {"uniform": [0.1, 0.2], "choice": [1]}}, "give one of choice"),
        ({"lr": {"loguniform": [0.1, 0.2]}}, "space.lr.loguniform"),
        ({"lr": [0.1, -1]}, r"lr: expected more than 0 \(given: -1\)"),
        ({"lr": {"uniform": [0.1, 5000]}}, r"lr: expected 1000 or less \(given: 5000"),
        ({"lr": {"log-uniform": [0.1, 1], "log_uniform": [0.1, 2]}}, "'log-uniform' is there with underscores too"),
        ({"method": ["deep", "deeep"]}, "method: .*'deeep'"),
        ({"max_length": [2]}, "max_length: expected whole numbers from 3, got 2"),
        ({"batch-size": [8], "batch_size": [16]}, "'batch-size' is there with underscores too; keep one"),
        ({}, "space"),
    ],
)
def test_wrong_values_are_named(space, message) -> None:
    with pytest.raises(ConfigError, match=message):
        read_settings(section(space), BASE)


def test_a_value_is_tried_together_with_the_settings_that_all_share() -> None:
    with pytest.raises(ConfigError, match="`ensemble` needs several prompts"):
        read_settings(section({"ensemble": [False, True]}), BASE)
    read_settings(section({"ensemble": [False, True]}), {**BASE, "seeds": 2})


def test_values_that_go_only_with_those_of_another_setting_are_taken() -> None:
    read_settings(section({"ensemble": [False, True], "seeds": [2, 3]}), BASE)
    with pytest.raises(ConfigError, match="`ensemble` needs several prompts"):
        read_settings(section({"ensemble": [False, True], "seeds": [1]}), BASE)


def test_numbers_that_yaml_takes_for_text_are_numbers() -> None:
    settings = read_settings(section({"lr": ["1e-3", 0.01], "method": ["deep"]}, search="grid"), BASE)
    assert settings.space["lr"].choice == [0.001, 0.01]
    assert settings.space["method"].choice == ["deep"]


def test_a_large_grid_is_counted_and_not_listed() -> None:
    space = {"seed": {"int": [0, 10**9 - 1]}, "virtual_tokens": {"int": [1, 64]}}
    with pytest.raises(ConfigError, match=r"the grid has 64,000,000,000 combinations; give `trials`"):
        read_settings(section(space, search="grid"), BASE)
    settings = read_settings({**section(space, search="grid"), "trials": 2}, BASE)
    assert settings.count == 2
    assert settings.combination(64 * 7 + 3) == {"seed": 7, "virtual_tokens": 4}


def test_a_grid_needs_values_that_can_be_counted() -> None:
    with pytest.raises(ConfigError, match="a grid needs choice or int for every setting, but 'lr' is a range"):
        read_settings(section({"lr": {"uniform": [0.1, 0.2]}}, search="grid"), BASE)
    grid = read_settings(section({"seed": {"int": [3, 4]}, "lr": [0.1, 0.2, 0.3]}, search="grid"), BASE)
    assert grid.count == 6
    assert [grid.combination(number) for number in (0, 1)] == [{"seed": 3, "lr": 0}, {"seed": 3, "lr": 1}]
    assert grid.model_copy(update={"trials": 4}).count == 4


@pytest.mark.parametrize(("asha", "reduction"), [(True, 3), ({"reduction": 2, "min-epochs": 2}, 2), (False, None)])
def test_early_stopping_is_a_switch_or_a_section(asha, reduction) -> None:
    settings = read_settings(section({"lr": [0.1]}, asha=asha), BASE)
    assert (settings.asha and settings.asha.reduction) == reduction


def test_a_section_that_is_no_mapping_is_shown_with_an_example() -> None:
    with pytest.raises(ConfigError, match=r"`sweep` should hold the search.*got 20"):
        read_settings(20, BASE)


def test_a_trial_has_the_shared_settings_and_over_them_its_own() -> None:
    prompt, training, max_length = configs({**BASE, "max_length": 20}, {"virtual_tokens": 2, "epochs": 5})
    assert (prompt.virtual_tokens, training.epochs, max_length) == (2, 5, 20)
    with pytest.raises(ConfigError, match="patience"):
        configs({**BASE, "best": "last"}, {"patience": 2})


def test_a_dimension_gives_the_ends_of_a_range_to_be_tried() -> None:
    low, high, between = Dimension(uniform=(0.5, 2)).examples
    assert (low, high) == (0.5, 2)
    assert low < between < high
    assert Dimension(int=(1, 9)).examples == [1, 9]


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"lr": [0.1, 0.2, 0.1]}, "0.1 is among the choices twice"),
        ({"lr": 0.1}, r"expected values to choose from, such as \[0.1, ...\]"),
        ({}, "space is {}; name the settings to try"),
    ],
)
def test_a_space_has_different_values_to_choose_from(space: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_settings(section(space), BASE)


def test_true_and_1_are_different_choices() -> None:
    assert Dimension(choice=[True, 1]).choice == [True, 1]


@pytest.mark.parametrize("kind", ["uniform", "log-uniform"])
def test_a_range_of_fractions_for_a_whole_number_is_refused_with_what_to_write(kind) -> None:
    with pytest.raises(ConfigError, match=r"virtual_tokens: expected a whole number.*int: \[4, 8\]"):
        read_settings(section({"virtual-tokens": {kind: [4, 8]}}), BASE)


def test_values_that_are_read_as_the_same_number_are_named() -> None:
    with pytest.raises(ConfigError, match=r"lr: 0\.001 is among the choices twice"):
        read_settings(section({"lr": ["1e-3", 0.001]}), BASE)


def test_a_range_with_a_wrong_end_is_not_taken_for_one_of_whole_numbers() -> None:
    with pytest.raises(ConfigError, match="focal") as caught:
        read_settings(section({"focal": {"uniform": [-1, 2]}}), BASE)
    assert "int:" not in str(caught.value)
