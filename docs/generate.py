"""Write the pages that come from the code: docs/cli.md and docs/families.md. `make docs` runs it.

A test compares the files with what this writes, so they cannot fall behind.
"""

from __future__ import annotations

import io
from pathlib import Path

DOCS = Path(__file__).parent
COMMANDS = ("train", "evaluate", "predict", "inspect", "demo")
WIDTH = 100


def cli_page() -> str:
    """The help of every command, as it is printed."""
    from ptune.cli import make_app

    parts = ["# Command line", "", "Made from the code by `make docs`.", ""]
    for command in ((), *((name,) for name in COMMANDS)):
        parts += [f"## {' '.join(('ptune', *command))}", "", "```text", _help(make_app(), list(command)), "```", ""]
    return "\n".join(parts)


def families_page() -> str:
    """The table of families, with what each column says."""
    from ptune.model.families import FAMILIES

    rows = [
        "| family | `model_type` | kind | head of the `peft` layout | deep prompts | PEFT reads deep | positions | "
        "segments | language-model head | default pooling |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    routes = {"attention": "attention function", "cache": "past keys and values", None: "no"}
    for family in FAMILIES.values():
        cells = (
            family.name,
            f"`{family.model_type}`",
            "decoder" if family.decoder else "encoder",
            family.head,
            routes[family.deep],
            "yes" if family.peft_prefix else "no",
            family.positions.replace("_", " "),
            "yes" if family.token_types else "no",
            ", ".join(f"`{name}`" for name in family.language_transform) or "linear",
            family.default_pooling,
        )
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join([_FAMILIES_TEXT, *rows, ""])


def _help(app, tokens: list[str]) -> str:
    from rich.console import Console

    console = Console(file=io.StringIO(), width=WIDTH, force_terminal=False, no_color=True)
    app.help_print(tokens, console=console)
    return "\n".join(line.rstrip() for line in console.file.getvalue().strip().splitlines())


_FAMILIES_TEXT = """# Families of backbones

Made from `ptune/model/families.py` by `make docs`. A backbone works if its configuration's `model_type` is here.

- **head of the `peft` layout**: which of transformers' classification heads the family has. `pooler`: the pretrained
  pooler over position 0, then a linear layer. `first_token`: dense and output layer over position 0.
  `pre_classifier`, `context_pooler`, `prediction_head`: the family's own. `score`: one linear layer without bias over
  the last text token. The other poolings have one linear layer, whatever the family.
- **deep prompts**: how keys and values reach the layers. Where it says no, use `--method p-tuning`; that is then the
  default.
- **PEFT reads deep**: whether PEFT's `PREFIX_TUNING` runs on the family (peft 0.21). `p-tuning` and `prompt-tuning`
  adapters in the `peft` layout it reads wherever the embeddings are as wide as the hidden states, so not for ALBERT
  and ELECTRA-small, and not for OPT-350m.
- **positions**: `zero`: text counts from 0. `after padding`: from one after the embedding's padding position.
  `none`: the model takes no positions; BLOOM's attention counts distances.
- **segments**: whether the two texts of a pair get segment ids.
- **language-model head**: what a verbalizer reads words with. `linear`: a decoder's one layer. Else the modules of
  transformers' masked language model in front of the words' weights. Checkpoints of sentence encoders, classifiers and
  ELECTRA's discriminator lack it, and those of DeBERTa-v3 keep it in a form that is not read.

Rows are padded on the right in every family. A tokenizer without a padding token pads with its end token, which is
masked. Tokenizers that set the two texts of a pair side by side with nothing between them (GPT-2, Llama) get a line
break in between; the adapter records it.
"""


if __name__ == "__main__":
    (DOCS / "cli.md").write_text(cli_page(), encoding="utf-8")
    (DOCS / "families.md").write_text(families_page(), encoding="utf-8")
