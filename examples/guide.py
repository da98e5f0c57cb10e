"""P-tuning for sequence classification, step by step: do two sentences mean the same?

This follows Hugging Face's guide "P-tuning for sequence classification", with the same model and data (roberta-large
and MRPC of GLUE):

    python examples/guide.py
    python examples/guide.py --backbone ./my-bert --data path/to/MRPC --epochs 3 --output my-mrpc
    python examples/guide.py --push my-name/mrpc

With `--method p-tuning` it learns virtual tokens at the input only, as the guide does. By default it learns keys and
values for every layer, which comes close to full fine-tuning.
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
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="roberta-large", help="folder, .gguf file, python:PACKAGE or Hub id")
    parser.add_argument("--data", default="glue/mrpc", help="a folder, a file or a Hub id with pairs and two labels")
    parser.add_argument(
        "--method", choices=("deep", "p-tuning", "prompt-tuning"), help="default: depends on the backbone"
    )
    parser.add_argument("--virtual-tokens", type=int, default=20)
    parser.add_argument("--epochs", type=int, help="default: depends on the number of rows")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--lr", type=float, help="peak learning rate of the prompt; default: depends on the method")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--output", default="mrpc-adapter", help="folder of the adapter")
    parser.add_argument("--push", metavar="REPO", help="publish the adapter on the Hub as owner/name")
    return parser.parse_args()


def print_epoch(line: dict[str, Any]) -> None:
    """Print the metrics of an epoch."""
    print(f"epoch {line['epoch']}: accuracy {line['accuracy']:.4f}, F1 {line['f1']:.4f}, loss {line['loss']:.4f}")


def main() -> None:
    args = options()

    # Load pairs of sentences with one of two labels. For a GLUE task, this also sets the task's metrics.
    data = ptune.load_data(args.data, seed=args.seed)
    if data.train.pairs is None or len(data.labels) != 2:
        raise ptune.PtuneError(f"data '{args.data}': pairs of texts with two labels are expected")

    # Put a new prompt on the frozen model. The texts are padded to the longest of a batch, and cut to the room that
    # the virtual tokens leave.
    backbone = ptune.load_backbone(args.backbone, device=args.device)
    prompt = ptune.PromptConfig(method=args.method, virtual_tokens=args.virtual_tokens, encoder_hidden_size=128)
    model = ptune.PromptClassifier.for_data(backbone, data, prompt, seed=args.seed)
    print(model.describe_parameters())

    # Train, and evaluate after each epoch. At the end, `model` and the output folder hold the best epoch.
    settings = {"epochs": args.epochs, "batch_size": args.batch_size, "lr": args.lr, "seed": args.seed}
    result = ptune.train(model, data, ptune.TrainConfig(**settings), output=args.output, on_epoch=print_epoch)
    print(f"best epoch: {result.best_epoch}; always predicting the most common label: accuracy {result.majority:.4f}")

    if args.push:
        from ptune.adapter.push import push

        print(f"published: {push(args.output, args.push)}")

    # Load the adapter over the same backbone, and predict.
    classifier = ptune.load(args.push or args.output, backbone)
    (prediction,) = classifier.predict([PAIR])
    for label, probability in prediction["scores"].items():
        print(f"{label}: {100 * probability:.1f} %")


if __name__ == "__main__":
    try:
        main()
    except (ptune.PtuneError, ValueError) as err:  # ValueError: a setting is out of range
        print(f"guide.py: error: {err}", file=sys.stderr)
        sys.exit(2)
