"""What a load test asks: which adapter, which text, by which route.

Everything is drawn from a seed, so the same settings ask the same questions in the same order.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal
from urllib.parse import quote

from pydantic import Field

from ptune.data.columns import choose_columns, text_of
from ptune.data.files import as_file
from ptune.data.readers import read_rows
from ptune.data.texts import Text
from ptune.errors import ConfigError, DataError
from ptune.settings_model import SettingsModel

Route = Literal["predict", "classify", "predict-many"]
Distribution = Literal["uniform", "zipf"]
ALL, DEFAULT = "all", "default"
# Most texts of a file that are used: a load test needs variety, not completeness.
MOST_TEXTS = 100_000
_MADE_UP_TEXTS = 1000
# Frequent words, of one token each in most vocabularies, so that a made-up text of 20 words has about 22 tokens.
_WORDS = """
    the of and to in is that it was for on are as with they at be this from have or by one had not but what all
    were when we there can an your which their said if will each about how up out them then she many some so
    these would other into has more her two like him see time could no make than first been its who now people
    my made over did down only way find use may water long little very after words called just where most know
"""


class LoadConfig(SettingsModel):
    """Settings of a load test."""

    rate: float | None = Field(
        None,
        gt=0,
        le=1_000_000,
        allow_inf_nan=False,
        description="Requests per second, sent at random times whether or not earlier ones have been answered. "
        "Default: as many as the connections allow, each of which sends its next request when it has an answer, "
        "and a quarter of a second after a refusal.",
    )
    connections: int | None = Field(
        None,
        ge=1,
        le=50_000,
        description="Connections, each with one request at a time. If a rate is given, a request that finds none free "
        "is counted and not sent. Default: 8, or 1,000 if a rate is given.",
    )
    duration: float = Field(
        10.0, gt=0, le=1_000_000, allow_inf_nan=False, description="Length of the measurement in seconds."
    )
    warmup: float = Field(
        1.0,
        ge=0,
        le=1_000_000,
        allow_inf_nan=False,
        description="Seconds of load before the measurement begins.",
    )
    timeout: float = Field(
        30.0, gt=0, le=100_000, allow_inf_nan=False, description="Seconds to wait for an answer before giving up."
    )
    distribution: Distribution = Field(
        "uniform",
        description="How often each adapter is asked: all equally often (uniform), or a few often and most rarely "
        "(zipf).",
    )
    zipf_exponent: float = Field(
        1.0,
        gt=0,
        le=10,
        allow_inf_nan=False,
        description="With zipf, the adapter of rank k is asked in proportion to 1/k to this power.",
    )
    route: Route = Field(
        "predict",
        description="What to call: predict (that of Text Embeddings Inference), classify (that of vLLM), or "
        "predict-many (one text through several adapters).",
    )
    adapters_per_request: int = Field(10, ge=1, le=100_000, description="Adapters that each call of predict-many asks.")
    texts_per_request: int = Field(1, ge=1, le=100_000, description="Texts in each request.")
    words: int = Field(20, ge=1, le=100_000, description="Number of words of a made-up text.")
    seed: int = Field(0, ge=0, description="Seed of everything that is random.")

    @property
    def most_connections(self) -> int:
        """Connections to use."""
        return self.connections or (8 if self.rate is None else 1000)


@dataclass(frozen=True)
class Question:
    """One request.

    Attributes:
        path: where it goes, such as /adapters/reviews/predict.
        body: JSON.
        adapters: names of the adapters that it asks; "" is the default adapter.
        texts: indices of its texts.
    """

    path: str
    body: bytes
    adapters: tuple[str, ...]
    texts: tuple[int, ...]

    @property
    def rows(self) -> int:
        """Pairs of a text and an adapter."""
        return len(self.adapters) * len(self.texts)


def made_up_texts(words: int, seed: int = 0, count: int = _MADE_UP_TEXTS) -> list[Text]:
    """Return texts of random words."""
    draw, known = random.Random(seed), _WORDS.split()
    return [" ".join(draw.choices(known, k=words)) for _ in range(count)]


def read_texts(place: str, text: str | None = None, text_pair: str | None = None) -> list[Text]:
    """Return the first texts, or pairs of texts, of a data file. Rows without text are left out.

    Args:
        place: a file that `ptune predict` reads, such as CSV, or .txt with one text per line.
        text, text_pair: columns. None: guessed.

    Raises:
        DataError: the file cannot be read, has no such column, or has no texts.
    """
    file = as_file(place)
    texts: list[Text] = []
    columns = None
    for row in read_rows(file):
        columns = columns or choose_columns(list(row), text, text_pair, where=file.where, need_label=False)
        fields = [name for name in (columns.text, columns.text_pair) if name is not None]
        try:
            values = [text_of(row, name, file.where) for name in fields]
        except DataError:
            continue
        texts.append(values[0] if len(values) == 1 else (values[0], values[1]))
        if len(texts) == MOST_TEXTS:
            break
    if not texts:
        raise DataError(f"{file.where} has no texts; give a file with one text in each row")
    return texts


def choose_adapters(wanted: Sequence[str], served: Sequence[str]) -> list[str]:
    """Return the adapters to ask: all, the default one as "", or those that are named.

    Args:
        wanted: names, or one of `ALL` and `DEFAULT` alone.
        served: names of the adapters that the server has.

    Raises:
        ConfigError: the server has no such adapter, or none at all.
    """
    if list(wanted) == [DEFAULT] and DEFAULT not in served:
        return [""]
    if list(wanted) == [ALL] and ALL not in served:
        if not served:
            raise ConfigError("the server has no adapters yet; add one, or use `adapters='default'`")
        return list(served)
    for name in wanted:
        if name not in served:
            import difflib

            close = difflib.get_close_matches(name, served, n=1)
            more = f" and {len(served) - 5} more" if len(served) > 5 else ""
            hint = f"did you mean '{close[0]}'?" if close else f"it has {', '.join(served[:5]) or 'none'}{more}"
            raise ConfigError(
                f"the server has no adapter '{name}'; {hint}", field="adapters", value=name, expected="a served adapter"
            )
    return list(dict.fromkeys(wanted))


def questions(config: LoadConfig, adapters: Sequence[str], texts: Sequence[Text]) -> Iterator[Question]:
    """Yield requests without end.

    Args:
        config: the mix of adapters, the route and the texts of each request.
        adapters: names, "" for the default adapter.
        texts: single texts or pairs.

    Raises:
        ConfigError: the route needs names of adapters, or more adapters than there are.
    """
    many = config.adapters_per_request if config.route == "predict-many" else 1
    if many > len(adapters):
        raise ConfigError(
            f"`adapters_per_request={many}` is more than the {len(adapters)} adapters that are asked; use a smaller one"
        )
    if config.route != "predict" and adapters[0] == "":
        raise ConfigError(f"`route='{config.route}'` names its adapters; use `adapters='all'` or their names")
    draw = random.Random(config.seed)
    choose = _chooser(config, adapters, draw)
    make = _MAKERS[config.route]
    while True:
        names = choose(many)
        rows = tuple(draw.randrange(len(texts)) for _ in range(config.texts_per_request))
        path, content = make(names, [texts[row] for row in rows])
        yield Question(path, json.dumps(content).encode(), names, rows)


def _chooser(config: LoadConfig, adapters: Sequence[str], draw: random.Random) -> Callable[[int], tuple[str, ...]]:
    """Return a function that draws different adapters."""
    if config.distribution == "uniform":
        return lambda count: tuple(draw.sample(adapters, count))
    ranked = draw.sample(adapters, len(adapters))  # rank has nothing to do with the order of names
    weights = [*accumulate((rank + 1) ** -config.zipf_exponent for rank in range(len(ranked)))]

    def choose(count: int) -> tuple[str, ...]:
        names: dict[str, None] = {}
        while len(names) < count:
            left = count - len(names)
            names.update(dict.fromkeys(draw.choices(ranked, cum_weights=weights, k=left)))
            if left == count - len(names) and count > len(ranked) // 2:  # the rest is too rare to wait for
                names.update(dict.fromkeys(name for name in ranked if name not in names))
        return tuple(names)[:count]

    return choose


def _predict(names: tuple[str, ...], texts: Sequence[Text]) -> tuple[str, object]:
    path = f"/adapters/{quote(names[0], safe='')}/predict" if names[0] else "/predict"
    rows = [[text] if isinstance(text, str) else list(text) for text in texts]
    # A flat list of two would be a pair, so a single text goes as it is and several go as lists.
    single = rows[0][0] if len(rows[0]) == 1 else rows[0]
    return path, {"inputs": single if len(rows) == 1 else rows}


def _classify(names: tuple[str, ...], texts: Sequence[Text]) -> tuple[str, object]:
    if any(not isinstance(text, str) for text in texts):
        raise ConfigError("`route='classify'` takes single texts and no pairs; use `route='predict'`")
    return "/classify", {"model": names[0], "input": texts[0] if len(texts) == 1 else list(texts)}


def _predict_many(names: tuple[str, ...], texts: Sequence[Text]) -> tuple[str, object]:
    rows = [text if isinstance(text, str) else {"text": text[0], "text_pair": text[1]} for text in texts]
    return "/predict-many", {"inputs": rows[0] if len(rows) == 1 else rows, "adapters": list(names)}


_MAKERS: dict[str, Callable[[tuple[str, ...], Sequence[Text]], tuple[str, object]]] = {
    "predict": _predict,
    "classify": _classify,
    "predict-many": _predict_many,
}
