"""The commands `ticket pack`, `unpack`, `info` and `verify`."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from keras_popup._files import is_pack, write_atomically
from keras_popup.cli.flags import UsageError, parse
from keras_popup.cli.models import check_new, find_base, find_model_file, load_model
from keras_popup.cli.quiet import import_quietly
from keras_popup.records import RunFolder, find_model, read_origin, write_origin

_TICKET_HELP = """\
keras-popup ticket: a network as its seeds and its masks, in about one bit per weight or less

usage:
  keras-popup ticket pack MODEL [flags]       MODEL is the folder of a run or search, or a .keras file
  keras-popup ticket pack [NAME=]MODEL... --base FILE --out FILE.tickets    several tasks over one base, in one file
  keras-popup ticket unpack TICKET [flags]    writes the plain model, as a .keras file
  keras-popup ticket info TICKET              shows the bytes of each part, and where the ticket comes from
  keras-popup ticket verify TICKET            unpacks all weights and checks them

TICKET is a .ticket or .tickets file, or the folder of a run or search with a ticket.
A ticket may come from a stranger: no code in it is run, and a damaged ticket is an error.
keras-popup ticket COMMAND --help prints the flags of a command.

examples:
  keras-popup ticket pack runs/first            writes runs/first/model.ticket
  keras-popup ticket unpack runs/first/model.ticket   writes runs/first/model_plain.keras
  keras-popup ticket pack birds=runs/a fish=runs/b --base base.keras --out all.tickets
  keras-popup ticket unpack all.tickets --task birds --base base.keras   writes all_birds.keras
"""


def ticket(arguments: Sequence[str]) -> int:
    """`keras-popup ticket`: runs one of its own commands and returns the exit status."""
    commands = {"pack": _pack, "unpack": _unpack, "info": _inspect, "verify": _inspect}
    command = arguments[0] if arguments else "--help"
    if command in ("--help", "-h", "help"):
        print(_TICKET_HELP, end="")
        return 0
    if command not in commands:
        raise UsageError(
            f"Unknown command 'ticket {command}'. Expected: {', '.join(commands)}. See keras-popup ticket --help."
        )
    return commands[command](command, arguments[1:])


def _pack(command: str, arguments: Sequence[str]) -> int:
    values = flags.FlagValues()
    flags.DEFINE_string("out", None, "The file. The default is beside the model.", flag_values=values)
    flags.DEFINE_string(
        "dataset", None, "The data that the model was trained on. The default is the run's.", flag_values=values
    )
    flags.DEFINE_string("notes", None, "Text for whoever reads the ticket.", flag_values=values)
    flags.DEFINE_enum(
        "values_dtype",
        None,
        ["float16", "bfloat16", "float32", "float64"],
        "The type in which kept weights are stored where no seed gives them. The default loses nothing.",
        flag_values=values,
    )
    flags.DEFINE_boolean(
        "fold_norms",
        False,
        "Store two numbers per channel of a BatchNormalization with gamma and beta instead of four. Outputs are equal "
        "up to rounding.",
        flag_values=values,
    )
    _define_base(values)
    flags.DEFINE_boolean("overwrite", False, "Replace the file if it exists.", flag_values=values)
    text = "Put the base into the file too. Of several tasks in one file."
    flags.DEFINE_boolean("include_base", False, text, flag_values=values)
    if (given := parse(values, f"ticket {command}", arguments, _TICKET_HELP, "MODEL...")) is None:
        return 0
    base = _find_base_file(values)
    if values.out and values.out.endswith(".tickets"):
        return _pack_tasks(given, base, values)
    if len(given) > 1 or values.include_base:
        raise UsageError("Several models, or a base, go into one file with --base FILE --out FILE.tickets.")
    (path,) = given
    file = find_model_file(path, (".keras",))
    out = Path(values.out or Path(file).with_suffix(".ticket"))
    if out.suffix != ".ticket":
        raise UsageError(f"--out must end in .ticket. Received: '{out}'.")
    check_new(out, values.overwrite)
    origin = _find_origin(path, file)
    if values.dataset:
        origin["dataset"] = values.dataset
    with import_quietly():
        from keras_popup.tickets import save_ticket
    ticket = save_ticket(
        load_model(file),
        out,
        values_dtype=values.values_dtype,
        fold_norms=values.fold_norms,
        base=base,
        notes=values.notes,
        **origin,
    )
    print(ticket)
    if base is None and (own := _find_base_of_run(path)):
        print(f" --base {own} leaves out what the base has")
    print(f" Written: {out}")
    with_base = f", base={os.fspath(base)!r}" if base is not None else ""
    print(f" Next: keras_popup.load_ticket({os.fspath(out)!r}{with_base}) in Python gives a plain Keras model")
    return 0


def _find_origin(path: str, file: str) -> dict[str, Any]:
    """Returns what is known of a model, as arguments of `save_ticket`: what its file says, and what its run does."""
    origin: dict[str, Any] = read_origin(file)
    if not os.path.isdir(path):
        return origin
    run = RunFolder(path)
    summary = run.summary()
    return {"dataset": run.config().get("dataset"), **origin, "metrics": summary["test"] if summary else None}


def _find_base_of_run(path: str) -> str | None:
    """Returns the .keras file of the base of a run, or None if it has none."""
    base = RunFolder(path).config().get("base") if os.path.isdir(path) else None
    return find_model(base) if base else None


def _pack_tasks(given: list[str], base_file: str | None, values: flags.FlagValues) -> int:
    """Packs several tasks over one base into one file."""
    if base_file is None:
        raise UsageError("--base is required for .tickets: the .keras file of the model whose weights all tasks use.")
    if ignored := [name for name in ("dataset", "notes", "values_dtype", "fold_norms") if values[name].present]:
        raise UsageError(f"--{ignored[0]} is for one ticket. Leave it out, or pack the tickets first, one by one.")
    check_new(values.out, values.overwrite)
    files: dict[str, str] = {}
    path_of: dict[str, str] = {}
    for entry in given:
        name, _, path = ("", "", entry) if os.path.exists(entry) else entry.rpartition("=")
        path = os.path.normpath(path)
        name = name or Path(path).stem
        if name in files:
            raise UsageError(f"Two tasks have the name '{name}'. Give names: birds={path}.")
        path_of[name], files[name] = path, find_model_file(path, (".ticket", ".keras"))
    with import_quietly():
        from keras_popup.tickets import TaskMasks, load_base, pack_info, save_ticket
    base = load_base(base_file)
    tasks = TaskMasks(base)
    with tempfile.TemporaryDirectory() as folder:
        for name, file in files.items():
            ticket = file
            if not file.endswith(".ticket"):
                ticket = os.path.join(folder, "task.ticket")
                save_ticket(load_model(file), ticket, base=base, **_find_origin(path_of[name], file))
            tasks.add(name, ticket)
    tasks.save(values.out, include_base=values.include_base)
    print(pack_info(values.out))
    print(f" Written: {values.out}")
    print(f" Next: keras_popup.TaskMasks.load({values.out!r}) in Python, or keras-popup ticket unpack --task NAME")
    return 0


def _unpack(command: str, arguments: Sequence[str]) -> int:
    values = flags.FlagValues()
    flags.DEFINE_string(
        "out", None, "The .keras file. The default is beside the ticket, such as model_plain.keras.", flag_values=values
    )
    flags.DEFINE_boolean(
        "masked", False, "Keep the masks, for further training. The scores are new.", flag_values=values
    )
    flags.DEFINE_boolean("overwrite", False, "Replace the file if it exists.", flag_values=values)
    _define_trust(values)
    flags.DEFINE_string("task", None, "The name of the task, of a file with several.", flag_values=values)
    _define_max_bytes(values)
    _define_base(values)
    if (given := parse(values, f"ticket {command}", arguments, _TICKET_HELP, "TICKET")) is None:
        return 0
    path = _find_ticket(given[0])
    base = _find_base_file(values)
    several = is_pack(path)
    if values.task and not several:
        raise UsageError("--task is for a file with several tasks.")
    if several and values.masked:
        raise UsageError("--masked is for .ticket files. Train the ticket that was packed.")
    kind = (values.task or "").replace("/", "_") if several else "masked" if values.masked else "plain"
    out = Path(values.out or Path(path).with_name(f"{Path(path).stem}_{kind}.keras"))
    if out.suffix != ".keras":
        raise UsageError(f"--out must end in .keras. Received: '{out}'.")
    check_new(out, values.overwrite)
    with import_quietly():
        from keras_popup.tickets import TaskMasks, load_ticket, pack_info, ticket_info
    options = {"base": base, "trust": values.trust, "max_bytes": values.max_bytes}
    if several:
        pack = pack_info(path, max_bytes=values.max_bytes)
        found = pack.tasks
        if values.task not in found:
            missing = f"There is no task '{values.task}' in '{path}'." if values.task else "--task is missing."
            raise UsageError(f"{missing} Tasks: {', '.join(found)}.")
        _check_pack(pack, base)
        origin = found[values.task].made
        model = TaskMasks.load(path, **options).unpack(values.task)
    else:
        origin = ticket_info(path, max_bytes=values.max_bytes).made
        model = load_ticket(path, masked=values.masked, **options)

    def write(file: Path) -> None:
        model.save(file)
        write_origin(file, origin)

    write_atomically(out, write)
    print(f"{out}: {out.stat().st_size:,} bytes, from a ticket of {os.path.getsize(path):,}")
    print(f"next: keras.models.load_model({os.fspath(out)!r}){', after import keras_popup' if values.masked else ''}")
    return 0


def _inspect(command: str, arguments: Sequence[str]) -> int:
    values = flags.FlagValues()
    _define_trust(values)
    _define_max_bytes(values)
    _define_base(values)
    if (given := parse(values, f"ticket {command}", arguments, _TICKET_HELP, "TICKET")) is None:
        return 0
    path = _find_ticket(given[0])
    base = _find_base_file(values)
    with import_quietly():
        from keras_popup.tickets import TaskMasks, pack_info, ticket_info, verify_ticket
    several = is_pack(path)
    if command == "info":
        print((pack_info if several else ticket_info)(path, max_bytes=values.max_bytes))
    else:
        if several:
            pack = pack_info(path, max_bytes=values.max_bytes)
            _check_pack(pack, base)
            TaskMasks.load(path, base, trust=values.trust, max_bytes=values.max_bytes)
            print(pack)
        else:
            print(verify_ticket(path, base=base, max_bytes=values.max_bytes))
        print(" Verified: all masks, kernels and other weights are those that were saved")
    return 0


def _find_ticket(path: str) -> str:
    """Returns the path of a ticket: in the folder of a run or search, or the path itself, whatever its ending."""
    if os.path.isfile(path):
        return path
    if not os.path.isdir(path):
        raise UsageError(f"There is no ticket at '{path}'.")
    for name in ("model.ticket", "best.ticket"):
        if os.path.isfile(file := os.path.join(path, name)):
            return file
    raise UsageError(f"There is no ticket in '{path}'. Write it with keras-popup ticket pack {path}.")


def _define_trust(values: flags.FlagValues) -> None:
    text = "Installed packages whose layers the ticket may use, such as keras_hub."
    flags.DEFINE_list("trust", [], text, flag_values=values)


def _define_base(values: flags.FlagValues) -> None:
    text = "The plain model whose weights are not in the ticket: a .keras file, or the folder of a run."
    flags.DEFINE_string("base", None, text, flag_values=values)


def _check_pack(pack: Any, base: str | None) -> None:
    """Raises UsageError if a pack needs its base and there is no --base."""
    if base is None and not pack.base_bytes:
        raise UsageError(f"'{pack.path}' does not hold its base, '{pack.base}'. Pass that model: --base FILE.")


def _find_base_file(values: flags.FlagValues) -> str | None:
    """Returns the file of --base, or None if it is not given."""
    return find_base(values.base) if values.base else None


def _define_max_bytes(values: flags.FlagValues) -> None:
    text = "The most bytes that unpacking may take at its peak. Raise it for large models that you trust."
    flags.DEFINE_integer("max_bytes", 4 << 30, text, lower_bound=0, upper_bound=1 << 50, flag_values=values)
