"""Seconds and memory of `ptune.check_data` for many rows.

    python benchmarks/check_speed.py [--rows 200000] [--words 20] [--report]

The rows are words drawn at random, and one in a hundred is nearly the same as an earlier one.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import time


def main() -> None:
    from common import facts, write_results

    import ptune

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--words", type=int, default=20)
    parser.add_argument("--report", action="store_true", help="write the dated results file")
    options = parser.parse_args()
    rand = random.Random(0)
    words = [f"{rand.choice('bdfgklmnprst')}{rand.choice('aeiou')}{number:x}" for number in range(20_000)]
    rows: list[dict[str, str]] = []
    for number in range(options.rows):
        text = " ".join(rand.choices(words, k=options.words))
        if number % 100 == 99:
            text = f"{rows[rand.randrange(number)]['text']} again"
        rows.append({"text": text, "label": rand.choice("abcd")})
    started, processor = time.perf_counter(), time.process_time()
    check = ptune.check_data(rows)
    line = {
        "rows": options.rows,
        "words": options.words,
        "seconds": round(time.perf_counter() - started, 1),
        "processor_seconds": round(time.process_time() - processor, 1),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "found": {finding.kind: len(finding.rows) for finding in check.findings},
    }
    print(json.dumps(line))
    if options.report:
        write_results("check_speed", {"facts": facts(), "result": line})


if __name__ == "__main__":
    main()
