"""P-tuning for sequence classification, step by step: does the second sentence say what the first one says?

The steps are those of Hugging Face's guide of that name, on the same model and data (roberta-large, GLUE's MRPC):

    python examples/guide.py
    python examples/guide.py --backbone ./my-bert --data path/to/MRPC --epochs 3 --output my-mrpc
    python examples/guide.py --push my-name/mrpc

`--method p-tuning` learns virtual tokens at the input alone, as the guide does; the default learns keys and values for
every layer, which comes close to full fine-tuning.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import ptune

PAIR = (
    "Coast redwoods grow taller than any other tree; many of them stand more than 300 feet high.",
    "No tree reaches the height of the coast redwood, which can exceed 300 feet.",
)


def options() -> argparse.Namespace:
    """What can be changed from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="roberta-large", help="folder, .gguf file, python:PACKAGE or Hub id")
    parser.add_argument("--data", default="glue/mrpc", help="a folder, a file or a Hub id with pairs and two labels")
    parser.add_argument("--method", choices=("deep", "p-tuning", "prompt-tuning"), help="default: by the backbone")
    parser.add_argument("--virtual-tokens", type=int, default=20)
    parser.add_argument("--epochs", type=int, help="default: by the number of rows")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--lr", type=float, help="peak learning rate of the prompt; default: by method")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps")
    parser.add_argument("--output", default="mrpc-adapter", help="folder of the adapter")
    parser.add_argument("--push", metavar="REPO", help="publish the adapter on the Hub as owner/name")
    return parser.parse_args()


def say_epoch(line: dict[str, Any]) -> None:
    print(f"epoch {line['epoch']}: accuracy {line['accuracy']:.4f}, F1 {line['f1']:.4f}, loss {line['loss']:.4f}")


def main() -> None:
    chosen = options()

    # The data: pairs with a label each. The task's own figures, accuracy and F1, come with its name.
    data = ptune.load_data(chosen.data, seed=chosen.seed)
    if data.train.pairs is None or len(data.labels) != 2:
        raise ptune.PtuneError(f"data '{chosen.data}': pairs of texts with two labels are expected")

    # The frozen model, with a prompt to be learned beside it. Its tokenizer pads and cuts by itself: to the longest
    # text of a batch, and to what the model holds beside the virtual tokens.
    backbone = ptune.load_backbone(chosen.backbone, device=chosen.device)
    prompt = ptune.PromptConfig(method=chosen.method, virtual_tokens=chosen.virtual_tokens, encoder_hidden_size=128)
    model = ptune.PromptClassifier.from_backbone(backbone, prompt, labels=data.labels, seed=chosen.seed)
    print(model.describe_parameters())

    # Training: an evaluation each epoch. The best epoch is what `model` holds and the folder has in the end.
    settings = {"epochs": chosen.epochs, "batch_size": chosen.batch_size, "lr": chosen.lr, "seed": chosen.seed}
    result = ptune.train(model, data, ptune.TrainConfig(**settings), output=chosen.output, on_epoch=say_epoch)
    print(f"best epoch: {result.best_epoch}, always giving the commonest answer: accuracy {result.majority:.4f}")

    if chosen.push:
        from ptune.adapter.push import push

        print(f"published: {push(chosen.output, chosen.push)}")

    # Loading it again, over the backbone that is in memory, and asking it.
    classifier = ptune.load(chosen.push or chosen.output, backbone)
    (answer,) = classifier.predict([PAIR])
    for label, probability in answer["scores"].items():
        print(f"{label}: {100 * probability:.1f} %")


if __name__ == "__main__":
    try:
        main()
    except (ptune.PtuneError, ValueError) as err:  # ValueError: a setting out of its range
        print(f"guide.py: error: {err}", file=sys.stderr)
        sys.exit(2)
