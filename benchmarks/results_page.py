"""Makes docs/results.md and its pictures from the files in benchmarks/results.

The words of the page are in benchmarks/results_page.md and benchmarks/results_tables.md.

python benchmarks/results_page.py
"""

import argparse
import dataclasses
import json
import shlex
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

import jinja2
import trained_masks
from reproduction import figures, rows, store
from reproduction.claims import Claims
from reproduction.results import Rates, Results, average, gap
from reproduction.rows import GROUPS, Row
from reproduction.verdicts import Verdict

from keras_popup.criteria import CRITERIA, TREATMENTS

DOCS = Path(__file__).parent.parent / "docs"
PICTURES = "img/results"

WORDS = {
    Verdict.YES: "yes",
    Verdict.NO: "**no**",
    Verdict.NOT_TOLD_APART: "not told apart",
    Verdict.NO_RESULT: "no result",
}


def points(value: float | None, sign: str = "", missing: str = "no result") -> str:
    return missing if value is None else f"{value:{sign}.2f}"


def put_refuted_first(rows: str) -> str:
    """Sorts the rows of a table: those with a "no" come first."""
    return "".join(sorted(rows.splitlines(keepends=True), key=lambda row: WORDS[Verdict.NO] not in row))


def spread(values: Sequence[float]) -> str:
    """Returns the mean and, of several values, the standard deviation."""
    deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return points(average(values)) + deviation


def title(row: Row) -> str:
    """Returns the model of a row and what is special about the run."""
    config = row.config.with_protocol()
    masked = config.method != "dense"
    parts = [
        ("learned weights" if not masked else config.method) + (" rescaled" if config.rescale else ""),
        f"k = {config.k:g}" if config.method == "edge-popup" else "",
        f"{config.kernel_initializer}" if masked else "",
        f"width {config.width:g}" if config.width != 1 else "",
        "" if config.optimizer == "sgd" else f"{config.optimizer}".capitalize(),
        f"warmup_epochs = {config.warmup_epochs:g}" if row.config.warmup_epochs else "",
        row.config.schedule or "",
    ]
    return f"{config.model}: {', '.join(filter(None, parts))}"


class Words:
    """What the templates call to put results into words."""

    def __init__(self, results: Results) -> None:
        self.results = results

    def state(self, row: Row) -> str:
        """Returns why a row has no accuracy."""
        return "diverged" if self.results.ended(row) else "not run"

    def accuracy(self, rows: Sequence[Row], of: str = "test") -> str:
        """Returns the accuracies of the same row with several seeds. It says so if not all of them have one."""
        values = self.results.accuracies(rows, of)
        if not values:
            return self.state(rows[0])
        return spread(values) + (f" ({len(values)} of {len(rows)})" if len(values) < len(rows) else "")

    def top(self, row: Row) -> str:
        """Returns the best validation accuracy of all epochs, and the number of that epoch."""
        record = self.results.record(row)
        if record is None:
            return self.state(row)
        curve = record["history"]["val_accuracy"]
        return f"{points(100 * max(curve))} (epoch {curve.index(max(curve)) + 1})"

    def share_kept(self, rows: Iterable[Row]) -> str:
        shares = [100 * record["kept"] / record["weights"] for record in self.results.found(rows)]
        return f"{statistics.mean(shares):.1f}" if shares else ""

    def weights_kept(self, rows: Iterable[Row]) -> str:
        return next((f"{each['kept']:,} of {each['weights']:,}" for each in self.results.found(rows)), "")

    def mixed_precision_gap(self, row: Row) -> float | None:
        """Returns how many points the row gains if it differs only in mixed_bfloat16."""
        mixed = Row(dataclasses.replace(row.config, precision="mixed_bfloat16"))
        return gap(self.results.complete([row]), self.results.complete([mixed]))

    def tried_rates(self, model: str) -> dict[str, Rates]:
        """Returns, by the method, the learning rates that were tried for a model."""
        return {method: Rates(self.results, model, method, by_rate) for method, by_rate in rows.tried(model).items()}

    def where(self, rows: Iterable[Row]) -> str:
        """Returns the data, the precision and the machine of rows."""
        found = self.results.found(rows)
        if not found:
            return "None of these rows was run."
        held = {
            f"{data['train']:,} images trained on, {data['validation']:,} for validation, {data['test']:,} tested; "
            f"augmentation {data['augment']}"
            for data in (record["data"] for record in found)
        }
        seeds = sorted({record["config"]["seed"] for record in found})
        versions = [record["versions"] for record in found]
        parts = [
            {f"{record['config']['dataset']} from {record['source']}" for record in found},
            held,
            [f"seed {', '.join(map(str, seeds))}"],
            {record["config"]["precision"] for record in found},
            {f"{record['machine']}, on {', '.join(record['devices']['names'])}" for record in found},
            {f"TensorFlow {version['tensorflow']}, Keras {version['keras']}" for version in versions},
            [f"up to {max(record['seconds'] for record in found) / 60:.0f} minutes a run, beside other work"],
        ]
        return "*" + "; ".join(", ".join(sorted(part)) for part in parts) + "*"


def environment(results: Results) -> jinja2.Environment:
    """Returns the templates, with the functions and tables that they use."""
    words = Words(results)
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters |= {
        "accuracy": words.accuracy,
        "g": lambda value: f"{value:g}",
        "percent": lambda tested: points(100 * tested["accuracy"]),
        "points": points,
        "refuted_first": put_refuted_first,
        "share_kept": words.share_kept,
        "shell": shlex.join,
        "spread": spread,
        "state": words.state,
        "top": words.top,
        "weights_kept": words.weights_kept,
        "words": WORDS.__getitem__,
    }
    made.tests["ended"] = results.ended
    made.globals |= {
        "average": average,
        "claims": Claims(results),
        "fashion_of_kept": rows.fashion_of_kept,
        "fashion_seeds": rows.fashion_seeds,
        "gap": gap,
        "methods": {
            **{name: rows.fashion_seeds(name) for name in rows.METHODS},
            "random mask, untrained, k = 0.5": rows.RANDOM,
        },
        "mixed_precision_gap": words.mixed_precision_gap,
        "of_groups": lambda *names: [row for name in names for row in GROUPS[name]],
        "narrow_conv4_seeds": rows.narrow_conv4_seeds,
        "pictures": PICTURES,
        "results": results,
        "title": title,
        "tried_rates": words.tried_rates,
        "where": words.where,
        "CRITERIA": CRITERIA,
        "FRACTIONS": rows.FRACTIONS,
        "FRACTIONS_ON_CIFAR": rows.FRACTIONS_ON_CIFAR,
        "GROUPS": GROUPS,
        "INITIALIZERS": rows.INITIALIZERS,
        "RATES_OF_EDGE_POPUP": rows.RATES_OF_EDGE_POPUP,
        "TREATMENTS": TREATMENTS,
        "WIDTHS": rows.WIDTHS,
        "WIDTHS_OF_KEPT": rows.WIDTHS_OF_KEPT,
    }
    return made


def stored() -> Results:
    masked = json.loads(trained_masks.RESULT.read_text())["rows"] if trained_masks.RESULT.exists() else []
    return Results(store.read_all(), masked)


def page(results: Results) -> str:
    return environment(results).get_template("results_page.md").render()


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    results = stored()
    (DOCS / "results.md").write_text(page(results))
    figures.draw_all(results, DOCS / PICTURES)


if __name__ == "__main__":
    main()
