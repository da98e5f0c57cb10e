"""Count the tokens of a data set's training rows, for benchmarks that draw rows of such lengths.

    python benchmarks/lengths.py --data DATA [--backbone B]

Writes benchmarks/lengths.json: how many rows have how many tokens, special ones included. Numbers only, no text.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter

from common import LENGTHS, MINILM, encode

import ptune


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="labelled text")
    parser.add_argument("--name", required=True, help="of the data set, for the file")
    parser.add_argument("--backbone", default=MINILM, help="whose tokenizer counts")
    options = parser.parse_args()
    rows, _ = encode(options.data, ptune.load_backbone(options.backbone))
    counts = Counter(len(row) for row in rows)
    content = {
        "of": f"{options.name}, training rows, tokenizer of {options.backbone.split(':')[-1]}",
        "rows": len(rows),
        "rows_by_tokens": {str(tokens): counts[tokens] for tokens in sorted(counts)},
    }
    LENGTHS.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
