"""A healthy table of three clinics, to be spoilt in one place at a time."""

from __future__ import annotations

import numpy as np

from fedjax_poisson import data

N = 120


OWN = {"label": "ill", "site": "clinic"}


def columns(**changes):
    """A healthy table: three clinics, a number, a flag and a category that say something about the label and do not give it away."""
    generator = np.random.default_rng(0)
    ill = generator.integers(0, 2, N)
    found = {
        "clinic": [("North", "South", "East")[i % 3] for i in range(N)],
        "age": [f"{20 + 50 * generator.random() + 5 * y:.1f}" for y in ill],
        "smoker": [("yes", "no")[int(generator.random() < 0.4 + 0.2 * y)] for y in ill],
        "stage": [("I", "II", "III")[generator.integers(0, 3)] for _ in range(N)],
        "ill": [str(y) for y in ill],
    }
    for name, values in changes.items():
        if values is None:
            del found[name]
        else:
            found[name] = [str(values(i)) for i in range(N)] if callable(values) else values
    return found


def write(folder, table=None, *, delimiter=",", name="table.csv", encoding="utf-8", rows=N):
    table = columns() if table is None else table
    quote = [f'"{each}"' for each in table]
    lines = [delimiter.join(quote)]
    lines += [delimiter.join(f'"{values[i]}"' for values in table.values()) for i in range(min(rows, N))]
    path = folder / name
    path.write_bytes(("\n".join(lines) + "\n").encode(encoding))
    return path


def load(path, **options):
    return data.from_csv(path, **({"categorical": "from_data"} | OWN | options))
