"""Fails when a built wheel lacks a file of the package, or holds what is not ours to ship."""

import sys
import zipfile
from pathlib import Path

LARGEST = 30 * 1024 * 1024
NEEDED = ("py.typed", "report.html", "models/refusal-v1/encoder.onnx", "models/refusal-v1/config.json", "models/refusal-v1/README.md")


def problems(wheel: Path) -> list[str]:
    names = zipfile.ZipFile(wheel).namelist()
    found = [f"lacks {name}" for name in NEEDED if f"refusal_guard/{name}" not in names]
    found += [
        f"holds {name}" for name in names if name.endswith((".jsonl", ".gz", ".pt", ".pkl")) or name.startswith(("tests/", "training/"))
    ]
    if wheel.stat().st_size > LARGEST:
        found.append(f"has {wheel.stat().st_size:,} bytes")
    return found


if __name__ == "__main__":
    wheel = next(Path(sys.argv[1]).glob("refusal_guard-*.whl"))
    print(wheel.name, f"{wheel.stat().st_size / 1024**2:.1f} MiB")
    sys.exit("\n".join(problems(wheel)) or 0)
