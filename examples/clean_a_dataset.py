"""Keep only the answered rows of a data set; the same as `refusal-guard scan IN --keep compliance --out OUT`."""

import sys
from pathlib import Path

from refusal_guard import Guard
from refusal_guard.bulk import Scan

source = sys.argv[1] if len(sys.argv) > 1 else str(Path(__file__).with_name("transcripts.jsonl"))
target = Path(sys.argv[2]) if len(sys.argv) > 2 else Path("clean.jsonl")

tally = Scan(Guard(on_error="pass"), [source], target, keep="compliance").run()
print(f"kept {tally.written} of {tally.rows} rows; {tally.total.refused} refused, {tally.broken} broken")
