"""A search over k, width and more, from a `SearchConfig` to a folder of trials."""

import dataclasses
import logging
import os

from keras_popup import __version__, _keras
from keras_popup._versions import package_versions
from keras_popup.records import BestRecord, SearchFolder, best_trial
from keras_popup.search.baselines import baseline_widths, train_baselines
from keras_popup.search.config import EXTENSIBLE, SearchConfig
from keras_popup.search.proposals import Proposals
from keras_popup.search.ray_workers import RayWorkers
from keras_popup.search.runner import Runner
from keras_popup.search.space import check_space
from keras_popup.search.trials import Trials
from keras_popup.search.views import Views
from keras_popup.search.winner import refit as refit_winner
from keras_popup.search.winner import write_winner
from keras_popup.search.workers import ChildProcess, Workers
from keras_popup.training import read_arguments

__all__ = ["search"]

_logger = logging.getLogger("keras_popup")

_PACKAGES = ("keras-tuner", "tensorflow", "keras", "numpy", "scikit-learn", "scipy")


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
    child: ChildProcess | None = None,
) -> BestRecord:
    """Searches for the best network and leaves a search folder.

    Trials are compared by their validation accuracy after the last epoch, the mean over executions. A search that was
    killed at any moment continues where it was when it is called again with `resume`: no trial that has ended is lost
    or run again, and a trial that was running continues after its last epoch. With one worker, the same seed gives
    the same trials.

    Args:
        config: the search's arguments.
        out: path of the search folder; `keras_popup.records` lists its files.
        resume: whether to continue the search in `out`. A search that has not begun is begun.
        overwrite: whether to remove the search in `out` first.
        refit: whether to train the winner again on all training images, and then to test it, once.
        workers: int, how many trials run at once. If left out, one, in a child process; more than one run on Ray.
            With `ray_address`, as many as the cluster has room for.
        ray_address: the address of a Ray cluster; "auto" for the cluster of this machine. All its machines must see
            `out` under the same path.
        gpus_per_worker: float, GPUs of each trial on Ray. With several, the trial is trained by `MirroredStrategy`.
            By default an equal part of this machine's, one at most.
        tensorboard: whether to write logs for TensorBoard, with hyperparameters, to `out`/tensorboard.
        stall_minutes: float, after this time without progress the process of a trial counts as hung, and is killed.
        child: the `ChildProcess` to use, if one has begun already: it loads TensorFlow while this process does. It
            is closed at the end.

    Returns:
        The `BestRecord` of the winner, which best.json holds. It has "test" metrics after `refit`.

    Raises:
        ValueError, FileNotFoundError, FileExistsError, ImportError, ConnectionError: for arguments, data, a folder, an
            installation or a cluster that cannot be used, before the first trial.
        DamagedError: a ValueError, if a file of the search in `out` is not what was written.
        RuntimeError: if no trial has succeeded.
    """
    _keras.require_tensorflow("A search")
    on_ray = ray_address is not None or (workers or 1) > 1
    _check_workers(workers, on_ray, gpus_per_worker, stall_minutes)
    folder = SearchFolder(os.path.abspath(out))
    if config.run.data_dir and os.path.exists(config.run.data_dir):  # workers may have another working directory
        data_dir = os.path.abspath(config.run.data_dir)
        config = dataclasses.replace(config, run=dataclasses.replace(config.run, data_dir=data_dir))
    if config.run.base:
        base = os.path.abspath(config.run.base)
        config = dataclasses.replace(config, run=dataclasses.replace(config.run, base=base))
    _check_folder(config, folder, resume, overwrite)
    if resume and not folder.path.exists():
        _logger.info("There is no search in '%s' yet: it begins.", folder.path)
    child = child or ChildProcess()
    pool: Workers = child
    try:
        _logger.info("Reading the data and measuring the networks, in a process of its own.")
        space, measurement = check_space(config, child, here=not on_ray)
        proposals = Proposals(config, space)
        if on_ray:
            child.close()
            pool = RayWorkers(workers, ray_address, gpus_per_worker)
        with folder.locked():
            _check_folder(config, folder, resume, overwrite)  # another search may have used it meanwhile
            folder.start(config.arguments(), _versions(), overwrite=overwrite)
            folder.change_config(config.arguments())
            runner = Runner(pool, config.retries, stall_minutes * 60)
            views = Views(folder, tensorboard)
            trials = Trials(config, folder, runner, proposals, measurement, views)
            trials.run()
            if config.baseline and config.run.method != "dense":
                widths = baseline_widths(space.get("width", config.run.width), best_trial(trials.ended))
                train_baselines(config, folder, runner, widths)
            return _finish(folder, runner, trials, views, refit)
    finally:
        child.close()
        pool.close()


def _finish(folder: SearchFolder, runner: Runner, trials: Trials, views: Views, refit: bool) -> BestRecord:
    """Writes the winner and the page. With `refit`, the winner is trained again before."""
    if best_trial(trials.ended) is None:
        views.write_page()
    best = write_winner(folder, trials.ended)
    if refit and not best.refit:
        views.write_page()  # if the refit fails, the page is there
        refit_winner(folder, runner, best)
        best = write_winner(folder, trials.ended)
    views.remove_checkpoints()
    views.write_page()
    return best


def _check_workers(workers: int | None, on_ray: bool, gpus_per_worker: float | None, stall_minutes: float) -> None:
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


def _check_folder(config: SearchConfig, folder: SearchFolder, resume: bool, overwrite: bool) -> None:
    folder.check(config.arguments(), resume=resume, overwrite=overwrite, but=EXTENSIBLE, read=read_arguments)


def _versions() -> dict[str, str]:
    return {"keras_popup": __version__, **package_versions(_PACKAGES)}
