"""What a sweep searches, and how: the section `sweep` of a settings file."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import islice, product
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from ptune.errors import ConfigError, describe_problems, short
from ptune.model.config import PromptConfig
from ptune.settings_file import spelled_twice
from ptune.training.config import TrainConfig

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

# Settings of training that change nothing that a sweep could compare.
_NOT_SEARCHED = {"checkpoint_steps", "gradient_checkpointing", "time_limit"}
MAX_LENGTH = "max_length"
SEARCHED = tuple(
    name for name in (*PromptConfig.model_fields, *TrainConfig.model_fields, MAX_LENGTH) if name not in _NOT_SEARCHED
)
DEFAULT_TRIALS, MOST_TRIALS = 20, 100_000
_MOST_TRIED = 500  # combinations with other settings that are tried with a value that does not go alone


class _Section(BaseModel):
    """A section of the file. Keys may be written with dashes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _underscores(cls, content: Any) -> Any:
        if not _is_dict(content):
            return content
        for problem in spelled_twice(content):
            raise ValueError(problem)
        return {str(key).replace("-", "_"): value for key, value in content.items()}


class Dimension(_Section):
    """The values that a setting may have. Exactly one of the fields is given; a list alone is a choice."""

    choice: list[Any] | None = Field(None, min_length=1, description="One of these values.")
    uniform: tuple[float, float] | None = Field(None, description="A number between two others.")
    log_uniform: tuple[float, float] | None = Field(
        None, description="A number between two others, of which each order of magnitude is as likely as the next."
    )
    whole: tuple[int, int] | None = Field(
        None, alias="int", description="A whole number from the first to the second, both included."
    )

    @model_validator(mode="before")
    @classmethod
    def _from_list(cls, content: Any) -> Any:
        if not isinstance(content, (list, dict)):
            raise ValueError(
                f"expected values to choose from, such as [{content!r}, ...]; one value for all trials stands outside "
                "of the section `sweep`"
            )
        return {"choice": content} if isinstance(content, list) else content

    @model_validator(mode="after")
    def _check(self) -> Dimension:
        given = {name: value for name in type(self).model_fields if (value := getattr(self, name)) is not None}
        if len(given) != 1:
            raise ValueError("give one of choice: [a, b], uniform: [low, high], log-uniform: [low, high], int: [1, 5]")
        (kind, values), *_ = given.items()
        if twice := _repeated(self.choice or ()):
            raise ValueError(twice)
        if kind != "choice" and not values[0] < values[1]:
            raise ValueError(f"the first number has to be less than the second, got {list(values)}")
        if kind == "log_uniform" and values[0] <= 0:
            raise ValueError(f"log-uniform needs numbers above 0, got {list(values)}")
        return self

    @property
    def examples(self) -> list[Any]:
        """All values of a choice, and the two ends of a range; of one without steps also a fraction between them."""
        ends = self.uniform or self.log_uniform
        between = [ends[0] + (ends[1] - ends[0]) / math.sqrt(2)] if ends else []
        return [*(self.choice or ends or self.whole or ()), *between]

    @property
    def grid(self) -> range | None:
        """All values, as Optuna knows them; None if there are too many to count."""
        if self.choice is not None:
            return range(len(self.choice))
        return None if self.whole is None else range(self.whole[0], self.whole[1] + 1)

    def distribution(self) -> BaseDistribution:
        """Return what Optuna draws from. It draws the place of a choice, because choices may be of any type."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.choice is not None:
            return CategoricalDistribution(range(len(self.choice)))
        if self.whole is not None:
            return IntDistribution(*self.whole)
        low, high = self.uniform or self.log_uniform or (0.0, 1.0)
        return FloatDistribution(low, high, log=self.log_uniform is not None)

    def value(self, drawn: Any) -> Any:
        """Return the setting's value for what Optuna drew."""
        return drawn if self.choice is None else self.choice[drawn]

    def drawn(self, value: Any) -> Any:
        """Return what Optuna would have drawn for a value."""
        return value if self.choice is None else self.choice.index(value)


def _repeated(values: Sequence[Any]) -> str | None:
    """Return what to say about a choice that names a value twice. True and 1 are different values."""
    seen = [(type(value), value) for value in values]
    twice = [value for number, (_, value) in enumerate(seen) if seen[number] in seen[:number]]
    return f"{twice[0]!r} is among the choices twice; name each value once" if twice else None


class Asha(_Section):
    """Early stopping by asynchronous successive halving."""

    min_epochs: int = Field(1, ge=1, description="Epochs that every trial may run.")
    reduction: int = Field(
        3,
        ge=2,
        description="After min_epochs, and each time the number of epochs has grown by this factor, the best of so "
        "many trials goes on.",
    )


class SweepSettings(_Section):
    """How a sweep searches."""

    space: dict[str, Dimension] = Field(min_length=1, description="The values that settings may have, by setting.")
    trials: int | None = Field(None, ge=1, le=MOST_TRIALS, description="Number of trials. Default: 20; in a grid all.")
    search: Literal["tpe", "random", "grid"] = Field("tpe", description="How the values of a trial are chosen.")
    metric: str | None = Field(None, description="What is compared. Default: the main metric of the task.")
    seed: int = Field(0, ge=0, lt=2**31, description="Random seed of the search.")
    asha: Asha | None = Field(None, description="Stop trials early that fall behind. Default: none are stopped.")

    @model_validator(mode="before")
    @classmethod
    def _plain_asha(cls, content: Any) -> Any:
        if _is_dict(content) and content.get("asha") in (True, False):
            return {**content, "asha": {} if content["asha"] else None}
        return content

    @model_validator(mode="after")
    def _check(self) -> SweepSettings:
        if self.search == "grid":
            for name, dimension in self.space.items():
                if dimension.grid is None:
                    raise ValueError(f"a grid needs choice or int for every setting, but '{name}' is a range")
            if self.trials is None and self._combinations > MOST_TRIALS:
                raise ValueError(
                    f"the grid has {self._combinations:,} combinations; give `trials` to try the first of them, or "
                    "another search"
                )
        return self

    @property
    def count(self) -> int:
        """Number of trials."""
        if self.search != "grid":
            return self.trials or DEFAULT_TRIALS
        return min(self._combinations, self.trials or self._combinations)

    @property
    def _combinations(self) -> int:
        return math.prod(len(dimension.grid or ()) for dimension in self.space.values())

    def combination(self, number: int) -> dict[str, Any]:
        """Return a combination of a grid, as Optuna knows its values. The last setting changes fastest."""
        drawn: dict[str, Any] = {}
        for name, dimension in reversed(self.space.items()):
            values = dimension.grid or range(1)
            number, place = divmod(number, len(values))
            drawn[name] = values[place]
        return {name: drawn[name] for name in self.space}


def read_settings(section: Any, base: Mapping[str, Any]) -> SweepSettings:
    """Return the settings of a sweep, after every value at the edge of its space has been tried on its setting.

    Args:
        section: the content of the section `sweep`.
        base: the other settings of the file, which every trial shares, by name with underscores.

    Raises:
        ConfigError: a key or setting is unknown, or a value is wrong; the message lists all problems.
    """
    if not _is_dict(section):
        raise ConfigError(
            "`sweep` should hold the search: trials, search and space, such as space: {lr: {log-uniform: [1e-3, 0.1]}}"
            f"; got {short(section)}",
            field="sweep",
        )
    written = _mapping(section.get("space"))
    if not written:
        raise ConfigError(
            f"sweep: space is {short(section.get('space'))}; name the settings to try and their values, such as "
            "lr: {log-uniform: [1e-3, 0.1]}",
            field="space",
        )
    names = {str(name).replace("-", "_"): values for name, values in written.items()}
    problems = [_unknown(name) for name in names if name not in SEARCHED]
    problems += [f"sweep: space: {problem}" for problem in spelled_twice(written)]
    if problems:
        raise ConfigError("; ".join(problems), field="space")
    try:
        settings = SweepSettings.model_validate({**section, **({"space": names} if names else {})})
    except ValidationError as err:
        raise ConfigError(f"sweep: {describe_problems(err)}", field="sweep") from err
    problems = [
        problem
        for name, dimension in settings.space.items()
        if (problem := _wrong_value(name, dimension, base, settings.space)) is not None
    ]
    if problems:
        raise ConfigError("; ".join(problems), field="space")
    space = {name: _as_read(name, dimension) for name, dimension in settings.space.items()}
    for name, dimension in space.items():
        if twice := _repeated(dimension.choice or ()):
            raise ConfigError(f"sweep: space: {name}: {twice}", field="space")
    return settings.model_copy(update={"space": space})


def _as_read(name: str, dimension: Dimension) -> Dimension:
    """Return a choice with its values as the setting reads them: YAML takes 1e-3 for a text."""
    if dimension.choice is None or name == MAX_LENGTH:
        return dimension
    model = PromptConfig if name in PromptConfig.model_fields else TrainConfig
    field: TypeAdapter[Any] = TypeAdapter(model.model_fields[name].annotation or Any)
    values = []
    for value in dimension.choice:
        read = value
        if isinstance(value, str):
            with suppress(ValidationError):
                read = field.validate_python(value)
        values.append(read if isinstance(read, int | float) else value)
    return dimension.model_copy(update={"choice": values})


def configs(base: Mapping[str, Any], values: Mapping[str, Any]) -> tuple[PromptConfig, TrainConfig, int | None]:
    """Return the settings of a trial: those that all share, and over them its own.

    Args:
        base: settings by name. What belongs to neither prompt nor training is ignored, except `max_length`.
        values: the trial's own.

    Raises:
        ConfigError: the settings do not go with each other.
    """
    chosen = {**base, **values}
    prompt, training = (
        model(**{name: value for name, value in chosen.items() if name in model.model_fields})
        for model in (PromptConfig, TrainConfig)
    )
    return prompt, training, chosen.get(MAX_LENGTH)  # type: ignore[return-value]


def _wrong_value(
    name: str, dimension: Dimension, base: Mapping[str, Any], space: Mapping[str, Dimension]
) -> str | None:
    """Return what is wrong with the first of a setting's values that is wrong, whatever the other settings are."""
    if name == MAX_LENGTH:
        wrong = [value for value in dimension.examples if not isinstance(value, int) or value < 3]
        return f"sweep: space: {name}: expected whole numbers from 3, got {wrong[0]!r}" if wrong else None
    model = PromptConfig if name in PromptConfig.model_fields else TrainConfig
    shared = {key: value for key, value in base.items() if key in model.model_fields}
    others = {key: other.examples for key, other in space.items() if key != name and key in model.model_fields}
    for value in dimension.examples:
        try:
            model.model_validate({**shared, name: value})
        except ValidationError as err:
            together = islice(product(*others.values()), _MOST_TRIED)
            chosen = (dict(zip(others, each, strict=True)) for each in together)
            if not any(_is_valid(model, {**shared, **each, name: value}) for each in chosen):
                return f"sweep: space: {describe_problems(err)}{_hint_at_whole_numbers(name, dimension, value)}"
    return None


def _hint_at_whole_numbers(name: str, dimension: Dimension, wrong: Any) -> str:
    """Return what to write if the ends of a range are right, as whole numbers, and the fractions between them wrong."""
    ends = dimension.uniform or dimension.log_uniform
    if ends is None or wrong in ends or not all(end.is_integer() for end in ends):
        return ""
    return f"; for whole numbers, write {name}: {{int: [{ends[0]:.0f}, {ends[1]:.0f}]}}"


def _is_valid(model: type[BaseModel], settings: Mapping[str, Any]) -> bool:
    try:
        model.model_validate(settings)
    except (ValidationError, ConfigError):
        return False
    return True


def _unknown(name: str) -> str:
    """Return what to say about a setting that cannot be searched."""
    nearest = difflib.get_close_matches(name, SEARCHED, n=1)
    hint = f"did you mean '{nearest[0]}'?" if nearest else "the settings of prompt and training can be searched"
    return f"sweep: space: '{name}' is not a setting that can be searched; {hint}"


def _mapping(content: Any) -> Mapping[Any, Any]:
    return content if _is_dict(content) else {}


def _is_dict(content: Any) -> bool:
    return isinstance(content, dict)
