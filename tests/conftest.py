"""Tiny backbones with random weights, one a family, and tiny data. No test needs a network."""

from __future__ import annotations

import gc
import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["PTUNE_TRACEBACK"] = "1"  # a test that meets an error nobody expects should show where it comes from

import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

from ptune.model import loading
from ptune.model.backbone import Backbone
from ptune.model.families import FAMILIES
from ptune.model.loading import load_backbone
from tests.hub_server import HubServer
from tests.tiny_families import tiny_settings

torch.set_num_threads(1)  # the tests run side by side, and tiny products gain nothing from threads

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
}
SPECIAL = ["<pad>", "<unk>", "<s>", "</s>"]
WORDS = (
    "a good bad fine poor film book plot cast the was is not very and it ends starts slow quick warm cold red blue "
    "one two three four five six seven eight nine ten left right up down here there who what why when"
).split()
VOCABULARY = len(SPECIAL) + len(WORDS)
# What each family's configuration has beyond the common sizes; None takes one of them away.
FAMILY_CONFIGS: dict[str, dict[str, object]] = {
    "bert": {},
    "roberta": {"max_position_embeddings": 65},
    "xlm-roberta": {"max_position_embeddings": 65},
    "camembert": {"max_position_embeddings": 65},
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48},
    "electra": {"embedding_size": 16},
    "albert": {"embedding_size": 16},
    "deberta": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "max_relative_positions": 16},
    "deberta-v2": {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "max_relative_positions": 16},
    "mpnet": {"max_position_embeddings": 66},
    "modernbert": {"local_attention": 8, "global_attn_every_n_layers": 2},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "n_inner": 48},
    "gpt_neox": {},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "bloom": {"n_layer": 2, "n_head": 4},
    "llama": {"num_key_value_heads": 2},
    "smollm3": {"num_key_value_heads": 2},
    "qwen2": {"num_key_value_heads": 2},
    "qwen3": {"num_key_value_heads": 2, "head_dim": 8},
    "mistral": {"num_key_value_heads": 2, "sliding_window": None},
    "gemma": {"num_key_value_heads": 2, "head_dim": 16},
    "gemma3_text": {"num_key_value_heads": 2, "head_dim": 8, "sliding_window": 6, "query_pre_attn_scalar": 8},
}
IDS = {"pad_token_id": 0, "unk_token_id": 1, "bos_token_id": 2, "cls_token_id": 2, "eos_token_id": 3, "sep_token_id": 3}


def tiny_config(family: str, **extra: object) -> object:
    """A configuration of a family at the sizes above."""
    from transformers import AutoConfig

    if family not in FAMILY_CONFIGS:
        return AutoConfig.for_model(family, **{**tiny_settings(family), **extra})
    settings = {**SIZES, "vocab_size": VOCABULARY, **IDS, **FAMILY_CONFIGS[family], **extra}
    return AutoConfig.for_model(family, **settings)


def save_tokenizer(folder: Path, decoder: bool, mask: bool = False) -> None:
    """A word tokenizer; encoders get <s> text </s> pair </s>, decoders the bare words.

    mask: with a token <mask> behind all others.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    tokens = {word: index for index, word in enumerate([*SPECIAL, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(tokens, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    names = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    if not decoder:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", pair="<s> $A </s> $B:1 </s>:1", special_tokens=[("<s>", 2), ("</s>", 3)]
        )
        names |= {"pad_token": "<pad>", "cls_token": "<s>", "sep_token": "</s>"}
    if mask:
        names |= {"mask_token": "<mask>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)


def spread_weights(model: torch.nn.Module, std: float = 0.3) -> None:
    """Weights of a pretrained model's scale: at 0.02 two tiny layers hardly tell inputs apart."""
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1 and "norm" not in name.lower():
            torch.nn.init.normal_(parameter, std=std)


def is_decoder(family: str) -> bool:
    """Whether a family is one; of those outside of the table, whether transformers has no masked language model."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    from ptune.model.families import FAMILIES

    return FAMILIES[family].decoder if family in FAMILIES else family not in MODEL_FOR_MASKED_LM_MAPPING_NAMES


def save_backbone(folder: Path, family: str, **extra: object) -> None:
    """A tiny backbone: config.json, model.safetensors, tokenizer."""
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(7)
    model = AutoModelForSequenceClassification.from_config(tiny_config(family, **extra))
    spread_weights(model)
    model.base_model.save_pretrained(folder)
    save_tokenizer(folder, is_decoder(family))


def save_language_model(folder: Path, family: str, **extra: object) -> None:
    """A tiny model with its language-model head; encoders know a mask token."""
    import transformers

    decoder = is_decoder(family)
    kind = transformers.AutoModelForCausalLM if decoder else transformers.AutoModelForMaskedLM
    torch.manual_seed(8)
    model = kind.from_config(tiny_config(family, vocab_size=VOCABULARY + 1, **extra))
    spread_weights(model)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.3)  # biases of zero would hide that they are forgotten
    model.save_pretrained(folder)
    save_tokenizer(folder, decoder, mask=not decoder)


def once(make: Callable[..., Any]) -> Callable[..., Any]:
    """Keep what is made of a family, for each of its settings."""
    made: dict[str, Any] = {}

    def get(family: str = "bert", **extra: object) -> Any:
        key = json.dumps([family, extra], sort_keys=True)
        if key not in made:
            made[key] = make(family, **extra)
        return made[key]

    return get


def folders(factory: pytest.TempPathFactory, save: Callable[..., None]) -> Callable[..., Path]:
    """Save models into folders of their own."""

    def make(family: str, **extra: object) -> Path:
        folder = factory.mktemp(family)
        with torch.random.fork_rng():
            save(folder, family, **extra)
        return folder

    return once(make)


def loaded(folder: Callable[..., Path]) -> Callable[..., Backbone]:
    """Load backbones out of their folders."""
    return once(lambda family, **extra: load_backbone(str(folder(family, **extra)), device="cpu"))


@pytest.fixture(scope="session", autouse=True)
def float32_by_default() -> Iterator[Callable[[], bool]]:
    """Load backbones in float32 wherever tests leave the number type to `auto`, so that results are comparable.

    Returns:
        The function that tells what the CPU can do.
    """
    original = loading.multiplies_bfloat16
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "multiplies_bfloat16", lambda: False)
        yield original


@pytest.fixture
def auto_dtype(float32_by_default: Callable[[], bool], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `auto` choose the number type that suits the CPU."""
    monkeypatch.setattr(loading, "multiplies_bfloat16", float32_by_default)


@pytest.fixture(autouse=True)
def own_logger(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """The package's logger as it is at first: `main`, also that of a module's fixture, sends it to stderr for good.

    The root's level is set too, as some of the libraries in use raise it; and that of pytest's handler, which pytest
    gives to every logger that passes nothing on: NNCF's is one, and NNCF raises the level of all handlers it has.
    """
    caplog.handler.setLevel(logging.NOTSET)
    logging.getLogger().setLevel(logging.WARNING)
    logger = logging.getLogger("ptune")
    logger.handlers, logger.propagate = [], True
    logger.setLevel(logging.NOTSET)
    yield
    logger.handlers, logger.propagate = [], True
    logger.setLevel(logging.NOTSET)


@pytest.fixture(autouse=True)
def order_of_families() -> Iterator[None]:
    """Keep the table of families in its order, also where a test takes a family out for a while."""
    listed = dict(FAMILIES)
    yield
    FAMILIES.clear()
    FAMILIES.update(listed)


@pytest.fixture(scope="session")
def backbone_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Make, once a session, the folder of a tiny backbone."""
    return folders(tmp_path_factory, save_backbone)


@pytest.fixture(scope="session")
def language_model_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Make, once a session, the folder of a tiny model with its language-model head."""
    return folders(tmp_path_factory, save_language_model)


@pytest.fixture(scope="session")
def backbone(backbone_folder: Callable[..., Path]) -> Callable[..., Backbone]:
    """Load, once a session, a tiny backbone."""
    return loaded(backbone_folder)


@pytest.fixture(scope="session")
def language_model(language_model_folder: Callable[..., Path]) -> Callable[..., Backbone]:
    """Load, once a session, a tiny backbone whose checkpoint has a language-model head."""
    return loaded(language_model_folder)


def _drawer(seed: int) -> Callable[[list[str], int], list[str]]:
    generator = torch.Generator().manual_seed(seed)
    return lambda options, size: [options[i] for i in torch.randint(len(options), (size,), generator=generator)]


def review_rows(count: int, seed: int = 0) -> list[dict[str, str]]:
    """Texts whose label shows in one word: 'good' or 'fine' is positive, 'bad' or 'poor' negative."""
    draw = _drawer(seed)
    rows = []
    for number in range(count):
        positive = number % 2 == 0
        words = draw(WORDS[5:], 2 + number % 7)
        words.insert(number % len(words), draw(["good", "fine"] if positive else ["bad", "poor"], 1)[0])
        rows.append({"text": " ".join(words), "label": "positive" if positive else "negative"})
    return rows


TOPICS = {"color": ["red", "blue"], "praise": ["good", "fine"], "number": ["one", "two"]}


def topic_rows(count: int, seed: int = 0) -> list[dict[str, object]]:
    """Texts with none to three labels, each of which shows in a word of its own."""
    draw = _drawer(seed)
    rows: list[dict[str, object]] = []
    for number in range(count):
        labels = [name for place, name in enumerate(TOPICS) if number % 8 >> place & 1]
        words = draw(WORDS[5:20], 3)
        for label in labels:
            words.insert(number % len(words), draw(TOPICS[label], 1)[0])
        rows.append({"text": " ".join(words), "labels": labels})
    return rows


def star_rows(count: int, seed: int = 0) -> list[dict[str, object]]:
    """Texts with a number: 100, and 2.5 more for each 'good' of four words that are 'good' or 'bad'."""
    draw = _drawer(seed)
    texts = [draw(["good", "bad"], 4) for _ in range(count)]
    return [{"text": " ".join(words), "stars": 100 + 2.5 * words.count("good")} for words in texts]


def write_jsonl(path: Path, rows: list[dict[str, object]] | list[dict[str, str]]) -> Path:
    """Rows as JSON Lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train.jsonl (48 rows) and validation.jsonl (16 rows)."""
    folder = tmp_path_factory.mktemp("reviews")
    write_jsonl(folder / "train.jsonl", review_rows(48, seed=1))
    write_jsonl(folder / "validation.jsonl", review_rows(16, seed=2))
    return folder


@pytest.fixture
def nothing_kept() -> None:
    """Let go of the backbones that scikit-learn's estimators keep, which other tests of the process may have used."""
    from ptune.compat import sklearn_base

    sklearn_base._load.cache_clear()
    gc.collect()


@pytest.fixture
def hub(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A fresh Hub, a fresh cache, the owner's token, and a client that knows all three."""
    server, folder = HubServer(), tmp_path_factory.mktemp("hub")
    settings = {
        "ENDPOINT": server.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": server.url + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_OFFLINE": False,
        "HF_HUB_CACHE": str(folder / "cache"),
        "HF_TOKEN_PATH": str(folder / "no-token"),
        "HF_HUB_DISABLE_XET": True,  # the server has LFS
    }
    for name, value in settings.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setenv("HF_TOKEN", "hf_owner")
    disable_progress_bars()  # as the command line does by a variable, which is read at the client's import
    yield server
    enable_progress_bars()
    server.stop()
