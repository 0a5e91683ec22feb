"""A search over k, width and more, from a `SearchConfig` to a folder of trials."""

import dataclasses
import datetime
import functools
import importlib.metadata
import importlib.util
import logging
import os
import shutil
import time
from pathlib import Path
from typing import Any

from keras_popup import __version__, tickets
from keras_popup._files import write_atomically
from keras_popup.records import RunFolder, SearchFolder, best_trial
from keras_popup.search import ranges
from keras_popup.search.config import BRANCH, EXTENSIBLE, SearchConfig
from keras_popup.search.progress import Display
from keras_popup.search.proposals import OBJECTIVE, Proposal, Proposals
from keras_popup.search.runner import Runner
from keras_popup.search.workers import ChildProcess, RayWorkers, Workers
from keras_popup.training import RunConfig, defaults

__all__ = ["search"]

_logger = logging.getLogger("keras_popup")

_LONGEST_LOOK = 3600.0  # seconds, at the data and networks before the first trial


def search(
    config: SearchConfig,
    out: str | os.PathLike[str],
    *,
    resume: bool = False,
    overwrite: bool = False,
    refit: bool = False,
    workers: int | None = None,
    ray_address: str | None = None,
    gpus_per_worker: float | None = None,
    tensorboard: bool = False,
    stall_minutes: float = 30.0,
) -> dict[str, Any]:
    """Searches for the best network and leaves a search folder.

    Trials are chosen by their validation accuracy after the last epoch, the mean over executions. Killed at any
    moment and called again with `resume`, a search goes on where it was: no trial that has ended is lost or run
    again, and one that was running goes on after its last epoch. With one worker, the same seed gives the same
    trials.

    Args:
        config: the search's arguments.
        out: path of the search folder; `keras_popup.records` says what it holds.
        resume: whether to go on with the search in `out`; one that has not begun is begun.
        overwrite: whether to remove the search in `out` first.
        refit: whether to train the winner again on all training images, and then to test it, once.
        workers: int, how many trials run at once. One, in a child process, if not given; more on Ray. With
            `ray_address`, as many as there is room for.
        ray_address: of a Ray cluster whose machines see `out` under the same path; "auto" for the one that this
            machine belongs to.
        gpus_per_worker: float, GPUs of each trial on Ray, on which it is trained by `MirroredStrategy` if they
            are several. By default an equal part of this machine's, one at most.
        tensorboard: whether to write logs for TensorBoard, with hyperparameters, to `out`/tensorboard.
        stall_minutes: float, after how many minutes without progress a trial's process is taken for lost.

    Returns:
        The content of best.json: the record of the winner, with its "test" metrics after `refit`.

    Raises:
        ValueError, FileNotFoundError, FileExistsError, ImportError, ConnectionError: for arguments, data, a
            folder, an installation or a cluster that cannot be used, before the first trial.
        RuntimeError: if no trial has succeeded.
    """
    on_ray = ray_address is not None or (workers or 1) > 1
    if workers is not None and (type(workers) is not int or workers < 1):
        raise ValueError(f"`workers` must be 1 or more. Received: {workers=}.")
    if gpus_per_worker is not None and (not on_ray or gpus_per_worker < 0):
        raise ValueError(
            f"`gpus_per_worker` must be 0 or more, for several workers. Received: {gpus_per_worker=}, {workers=}. "
            "For one worker see `devices`."
        )
    if gpus_per_worker is not None and gpus_per_worker > 1 and gpus_per_worker % 1:
        raise ValueError(f"`gpus_per_worker` above 1 must be a whole number. Received: {gpus_per_worker=}.")
    if not stall_minutes > 0:
        raise ValueError(f"`stall_minutes` must be more than 0. Received: {stall_minutes=}.")
    folder = SearchFolder(os.path.abspath(out))
    if config.run.data_dir and os.path.exists(config.run.data_dir):  # workers, or who resumes, may be elsewhere
        data_dir = os.path.abspath(config.run.data_dir)
        config = dataclasses.replace(config, run=dataclasses.replace(config.run, data_dir=data_dir))
    folder.check(config.arguments(), resume=resume, overwrite=overwrite, but=EXTENSIBLE, defaults=defaults())
    if resume and not folder.path.exists():
        _logger.info("There is no search in '%s' yet: it begins.", folder.path)
    child = ChildProcess()
    pool: Workers = child
    try:
        proposals = Proposals(config, _checked_space(config, child, here=not on_ray))
        if on_ray:
            child.close()
            pool = RayWorkers(workers, ray_address, gpus_per_worker)
        with folder.locked():
            # Another search may have come and gone meanwhile.
            folder.check(config.arguments(), resume=resume, overwrite=overwrite, but=EXTENSIBLE, defaults=defaults())
            folder.start(config.arguments(), _versions(), overwrite=overwrite)
            if (recorded := folder.read("search.json"))["config"] != config.arguments():
                folder.write("search.json", {**recorded, "config": config.arguments()})
            runner = Runner(pool, config.retries, stall_minutes * 60)
            return _Search(config, folder, runner, proposals, tensorboard).run(refit)
    finally:
        child.close()
        pool.close()


def _checked_space(config: SearchConfig, child: ChildProcess, *, here: bool) -> dict[str, ranges.Space]:
    """Returns the hyperparameters, without widths that cannot be in the budget.

    Raises:
        ValueError: if a width or k leaves a layer empty, or if nothing fits.
        TimeoutError: if reading the data takes too long.
    """
    space = config.hyperparameters()
    widths = list(ranges.ends(space.get("width", config.run.width)))
    initializers = ranges.ends(config.space.get("kernel_initializer", config.run.kernel_initializer))
    values = {name: min(ranges.ends(each)) for name, each in config.space.items()}
    values["kernel_initializer"] = initializers[0]
    if config.budget is None:
        widths = [min(widths)]
    else:
        values["k"] = config.k_limits()[1]
    task = {
        "kind": "measure",
        "config": dataclasses.asdict(config.with_values(values)),
        "widths": widths,
        "initializers": initializers,
        "tickets": config.budget is not None,
        "here": here,
    }
    answer = child.ask(task, _LONGEST_LOOK)
    if "error" in answer:
        kinds = {"FileNotFoundError": FileNotFoundError, "ImportError": ImportError}
        raise kinds.get(answer["type"], ValueError)(answer["error"])
    if config.budget is None:
        return space
    fits: dict[str, list[float]] = {branch: [] for branch in _branches(config)}
    smallest = []
    for width, layout in zip(widths, answer["layouts"], strict=True):
        for branch, of_branch in fits.items():
            try:
                tickets.TicketSize(**layout).fitting_k(config.budget, branch, *config.k_limits())
                of_branch.append(width)
            except tickets.BudgetError as error:
                smallest.append((error.smallest, width, branch))
    fitting = [width for width in widths if any(width in of_branch for of_branch in fits.values())]
    if not fitting or (len(fitting) < len(widths) and isinstance(space.get("width"), ranges.Range)):
        least, width, branch = min(smallest)
        low, high = config.k_limits()
        raise ValueError(
            f"`budget` is too small: {config.budget:,} bytes, for widths {ranges.written(tuple(widths))} and k from "
            f"{low:g} to {high:g}. The smallest possible ticket of width {width:g} takes {least:,} bytes, with a "
            f"{branch} mask. " + (f"Search widths nearer to {fitting[0]:g}, which fits." if fitting else "Raise it.")
        )
    if left_out := [width for width in widths if width not in fitting]:
        _logger.warning("Left out, as no ticket fits into the budget: width %s.", ranges.written(tuple(left_out)))
        space["width"] = ranges.several(fitting)
    # A branch on which not all fit would be tried in vain, where there is one on which they do.
    for_all = tuple(branch for branch, of_branch in fits.items() if of_branch == fitting)
    if BRANCH in space and for_all:
        space[BRANCH] = ranges.several(for_all)
    return space


def _branches(config: SearchConfig) -> list[str]:
    low, high = config.k_limits()
    return ([tickets.SPARSE] if low < 0.5 else []) + ([tickets.DENSE] if high > 0.5 else [])


class _Search:
    def __init__(
        self,
        config: SearchConfig,
        folder: SearchFolder,
        runner: Runner,
        proposals: Proposals,
        tensorboard: bool,
    ) -> None:
        self._config = config
        self._folder = folder
        self._runner = runner
        self._proposals = proposals
        self._tensorboard = tensorboard
        self._ended = folder.lines("trials.jsonl", repair=True)
        self._waiting: list[Proposal] = []
        self._running: dict[int, Proposal] = {}
        self._times: dict[int, tuple[str, float]] = {}

    def run(self, refit: bool) -> dict[str, Any]:
        self._trials()
        if self._config.baseline and self._config.run.method != "dense":
            self._baselines()
        best = self._winner()
        if refit and not best["refit"]:
            self._report()  # should the refit fail, all else is there
            self._refit(best)
            best = self._winner()
        for checkpoint in self._folder.path.glob("trials/*/*/checkpoint*"):  # of rounds that nothing follows
            checkpoint.unlink()
        self._report()
        return best

    def _trials(self) -> None:
        display = Display(self._proposals.total, self._runner.size)
        for record in self._ended:
            display.found(record)
        count = f"{self._proposals.total} trials" if self._proposals.total else "Trials"
        epochs = self._config.run.with_protocol().epochs
        log = self._folder.trial(len(self._ended) + 1) / "log.txt"
        _logger.info("%s of %s epochs. How far one is: %s", count, epochs, os.path.relpath(log))
        self._waiting = self._proposals.replay(self._folder.lines("started.jsonl", repair=True), self._ended)
        if self._ended:
            _logger.info("Going on after %d trials.", len(self._ended))
            self._write_views()  # which a kill may have been in time to prevent
        with display.shown():
            while True:
                while self._runner.free and (proposal := self._next()):
                    if same := self._same(proposal):
                        self._end(proposal, same, display)
                        continue
                    self._running[proposal.number] = proposal
                    self._times[proposal.number] = (_now(), time.monotonic())
                    display.started(proposal.number)
                    self._runner.start(proposal.number, self._trial_task(proposal))
                if not self._runner.busy:
                    break
                for number, result in self._runner.ended(display.going_on):
                    self._end(self._running.pop(number), result, display)
        if not self._proposals.exhausted:
            raise RuntimeError("Keras Tuner proposes nothing, and nothing runs. Go on with --resume.")

    def _next(self) -> Proposal | None:
        if self._waiting:
            return self._waiting.pop(0)
        if self._proposals.exhausted:
            return None
        proposal = self._proposals.propose()
        if proposal:
            self._folder.append("started.jsonl", self._proposals.record(proposal, len(self._ended)))
        return proposal

    def _task(self, run: RunConfig, folder: Path, **more: Any) -> dict[str, Any]:
        task = {"config": dataclasses.asdict(run), "folder": str(folder), "executions": self._config.executions}
        return {**task, "until": None, "budget": None, "test": False, **more}

    def _trial_task(self, proposal: Proposal) -> dict[str, Any]:
        values = dict(proposal.values)
        branch = values.pop(BRANCH, None)
        budget = None
        if self._config.budget is not None:
            low, high = self._config.k_limits()
            branch = branch or _branches(self._config)[0]
            budget = {"budget": self._config.budget, "branch": branch, "low": low, "high": high}
        run = self._config.with_values(values)
        return self._task(run, self._folder.trial(proposal.root), until=proposal.until, budget=budget)

    def _same(self, proposal: Proposal) -> dict[str, Any] | None:
        """Returns the result of a trial that was the same: another run of it would only give it again."""
        for record in self._ended:
            same = record["hyperparameters"] == proposal.values and record["until"] == proposal.until
            if same and record["score"] is not None:
                kept = ("folder", "executions", "error", "traceback", "peak_memory_mb", "retries")
                return {**{name: record[name] for name in kept}, "same_as": record["trial"]}
        return None

    def _end(self, proposal: Proposal, result: dict[str, Any], display: Display) -> None:
        score = _score(result)
        started, since = self._times.pop(proposal.number, (_now(), time.monotonic()))
        record = {
            "trial": proposal.number,
            "status": "failed" if score is None else "completed",
            "hyperparameters": proposal.values,
            "until": proposal.until,
            "score": score,
            "folder": self._folder_of(proposal),
            "started": started,
            "seconds": round(time.monotonic() - since, 1),
            **result,
        }
        self._folder.append("trials.jsonl", record)
        self._ended.append(record)
        self._proposals.tell(proposal.number, score, result["error"])
        self._write_views()
        display.ended(record)

    def _write_views(self) -> None:
        """Writes what follows from the records."""
        self._folder.write_table("trials.csv", [_row(record) for record in self._ended])
        self._drop_models()
        if self._tensorboard:
            from keras_popup.search import tensorboard

            for record in self._ended:
                tensorboard.write(self._folder.path / "tensorboard", record)

    def _folder_of(self, proposal: Proposal) -> str:
        return str(self._folder.trial(proposal.root).relative_to(self._folder.path))

    def _drop_models(self) -> None:
        """Keeps the models of the best trial only. The others have their tickets."""
        best = best_trial(self._ended)
        # One of Hyperband's that goes on with an earlier run may have saved its model already.
        going_on = [*self._running.values(), *self._waiting]
        kept = {best["folder"] if best else None, *map(self._folder_of, going_on)}
        for record in self._ended:
            if best and record["folder"] not in kept:
                for model in (self._folder.path / record["folder"]).glob("*/model.keras"):
                    model.unlink()

    def _baselines(self) -> None:
        """Trains the same networks with learned weights, by the protocol of that."""
        widths = self._proposals.space.get("width", self._config.run.width)
        several = sorted(ranges.ends(widths))
        best = best_trial(self._ended)
        if isinstance(widths, ranges.Range) and best:
            several = sorted({*several, best["hyperparameters"]["width"]})
        known = self._folder.lines("baselines.jsonl", repair=True)
        done = {record["width"] for record in known if record["score"] is not None}
        learned = self._config.learned_weights()
        epochs = learned.with_protocol().epochs
        waiting = [(number, width) for number, width in enumerate(several, 1) if width not in done]
        by_number = dict(waiting)
        while waiting or self._runner.busy:
            while waiting and self._runner.free:
                number, width = waiting.pop(0)
                _logger.info("Learned weights, for comparison: width %g, %d epochs.", width, epochs)
                folder = self._folder.path / "baselines" / f"width-{ranges.written(width)}"
                self._runner.start(number, self._task(dataclasses.replace(learned, width=width), folder))
            for number, result in self._runner.ended():
                score = _score(result)
                self._folder.append("baselines.jsonl", {"width": by_number[number], "score": score, **result})
                told = f"{score:.2%}" if score is not None else f"failed: {result['error']}"
                _logger.info("Learned weights at width %g: %s.", by_number[number], told)

    def _winner(self) -> dict[str, Any]:
        """Writes the winner: its record, its ticket and model, or those of its refit if there was one."""
        best = best_trial(self._ended)
        if best is None:
            self._report()
            errors = sorted({str(record["error"]) for record in self._ended})
            raise RuntimeError(f"No trial has succeeded. Their errors: {'; '.join(errors)}")
        execution = max(range(len(best["executions"])), key=lambda n: best["executions"][n]["validation"]["accuracy"])
        source = self._folder.path / best["folder"] / str(execution)
        content = {**best, "execution": execution, "test": None, "refit": None}
        run = RunFolder(self._refit_folder(best["trial"]) / "0")
        if summary := run.summary():
            content |= {"test": summary["test"], "refit": summary}
            source = run.path
        for suffix in (".keras", ".ticket"):
            model = source / f"model{suffix}"
            if model.exists():
                write_atomically(self._folder.path / f"best{suffix}", functools.partial(shutil.copyfile, model))
        self._folder.write("best.json", content)
        return content

    def _refit_folder(self, trial: int) -> Path:
        return self._folder.path / "refit" / f"{trial:04d}"

    def _refit(self, best: dict[str, Any]) -> None:
        """Trains the winner on all training images, and tests it."""
        config = RunConfig(**{**best["executions"][best["execution"]]["config"], "validation": 0.0})
        folder = self._refit_folder(best["trial"])
        _logger.info("Training the winner again, on all training images.")
        self._runner.start(0, self._task(config, folder, executions=1, test=True))
        while True:
            for _, result in self._runner.ended():
                if result["error"]:
                    raise RuntimeError(
                        f"Training the winner again has failed: {result['error']} It is kept as it was before, in "
                        f"'{self._folder.path}'; --resume --refit tries again."
                    )
                return

    def _report(self) -> None:
        if not importlib.util.find_spec("plotly"):
            _logger.warning("No report was written: plotly is missing. Install the extra, 'keras-popup[tuning]'.")
            return
        from keras_popup.search.report import write_report

        write_report(self._folder.path)


def _score(result: dict[str, Any]) -> float | None:
    """Returns the mean of the executions' validation accuracies, None if one has failed."""
    accuracies = [each["validation"]["accuracy"] for each in result["executions"]]
    return sum(accuracies) / len(accuracies) if accuracies and not result["error"] else None


def _row(record: dict[str, Any]) -> dict[str, Any]:
    """Returns a trial as a row of trials.csv."""
    executions = record["executions"]

    def mean(values: list[Any]) -> Any:
        return sum(values) / len(values) if values and None not in values else ""

    def size(values: list[Any]) -> Any:
        return round(mean(values)) if values and None not in values else ""

    return {
        "trial": record["trial"],
        "status": record["status"],
        **record["hyperparameters"],
        "epochs": len(executions[0]["history"]) if executions else "",
        "seeds": " ".join(str(each["seed"]) for each in executions),
        "k": executions[0]["k"] if executions else record["hyperparameters"].get("k", ""),
        "width": executions[0]["width"] if executions else record["hyperparameters"].get("width", ""),
        "weights": executions[0]["weights"] if executions else "",
        "kept": executions[0]["kept"] if executions else "",
        OBJECTIVE: "" if record["score"] is None else record["score"],
        "val_loss": mean([each["validation"]["loss"] for each in executions]),
        "predicted_bytes": size([each["predicted_bytes"] for each in executions]),
        "ticket_bytes": size([each["ticket_bytes"] for each in executions]),
        "seconds": record["seconds"],
        "same_as": record.get("same_as", ""),
        "error": record["error"] or "",
    }


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _versions() -> dict[str, str]:
    names = ("keras-tuner", "tensorflow", "keras", "numpy", "scikit-learn", "scipy")
    return {"keras_popup": __version__, **{name: importlib.metadata.version(name) for name in names}}
