"""The command line: parse, call, print.

Exit status 0: done; 1: some runs failed; 2: bad usage, told in one line with the nearest names.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated, Any

import tyro
from tyro.conf import subcommand

from m3po_bench.commands import List, References, Report, Theory, Verify, complain
from m3po_bench.film import FilmError
from m3po_bench.leaderboard.grid import SuiteError
from m3po_bench.model_commands import Eval, Export, Play, Train
from m3po_bench.registry import UnknownNameError, unknown_name
from m3po_bench.run_command import Run
from m3po_bench.zoo import ZooError

_INTERRUPTED, _READER_GONE = 130, 141
_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)
_NO_NUMBER = re.compile(
    r"Error parsing (--[\w-]+): .*?(?:literal for (int)\(|could not convert string to float)"
    r".*?: ?('.*?')$"
)
"""What tyro says where Python could not read a number."""
_DESCRIPTION = """Non-stationary meta-reinforcement learning, measured.

Try:
  m3po-bench run quick                 train, evaluate and report, in minutes
  m3po-bench list                      what there is
  m3po-bench run lite --agents M3PO,SAC --envs HalfCheetahFwdBwd --seeds 3
  m3po-bench COMMAND --help            more of these
"""

Command = (
    Annotated[Run, subcommand("run")]
    | Annotated[Report, subcommand("report")]
    | Annotated[List, subcommand("list")]
    | Annotated[Train, subcommand("train")]
    | Annotated[Eval, subcommand("eval")]
    | Annotated[Play, subcommand("play")]
    | Annotated[Export, subcommand("export")]
    | Annotated[References, subcommand("references")]
    | Annotated[Verify, subcommand("verify")]
    | Annotated[Theory, subcommand("theory")]
)
_COMMANDS = (
    "run", "report", "list", "train", "eval", "play", "export", "references", "verify", "theory",
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its status."""
    # Before torch is imported: small networks gain nothing from more threads and lose much where
    # others use the cores; and runs are made with one, whose sums differ from those of two.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    command: Any = None
    try:
        command = _parse(list(sys.argv[1:] if arguments is None else arguments))
        status = command.execute()
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read us has gone, as ``head`` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = _READER_GONE
    except (SuiteError, UnknownNameError, ZooError, FilmError) as error:
        complain(str(error))
        status = 2
    except OSError as error:  # of the disk, which is no bug of ours
        if error.errno not in _OF_THE_DISK:
            raise
        complain(f"{error}{_what_is_kept(command)}")
        status = 1
    except KeyboardInterrupt:
        complain(f"interrupted{_what_is_kept(command)}")
        status = _INTERRUPTED
    sys.exit(status)


def _what_is_kept(command: Any) -> str:
    if not isinstance(command, Run):
        return ""
    return "; finished runs are kept, the same command goes on from here"


def _parse(arguments: list[str]) -> Any:
    if arguments == ["--version"]:
        print(f"m3po-bench {version('m3po-bench')}")
        sys.exit()
    if arguments and not arguments[0].startswith("-") and arguments[0] not in _COMMANDS:
        raise unknown_name("command", arguments[0], _COMMANDS)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(
                Command,
                prog="m3po-bench",
                description=_DESCRIPTION,
                args=arguments,
                config=(tyro.conf.FlagCreatePairsOff,),
            )
    except SystemExit as exit_:
        if exit_.code:
            raise SuiteError(_one_line(said.getvalue())) from None
        raise


def _one_line(panel: str) -> str:
    """The message in one of tyro's framed panels, with the nearest option if it names one."""
    sections: list[list[str]] = [[]]
    for line in panel.splitlines()[1:]:  # the first one is a title
        text = line.strip("│╰╯| ")
        if text and set(text) <= {"─", "-"}:  # a rule; ASCII on terminals without UTF-8
            sections.append([])
        elif text:
            sections[-1].append(text)
    said = [section for section in sections if section] or [["bad usage; see m3po-bench --help"]]
    if wrong := _NO_NUMBER.match(" ".join(said[0])):
        option, whole, value = wrong.groups()
        return f"{option} {value}: expected a {'whole ' if whole else ''}number"
    message = " ".join(said[0])
    near = [hint[1] for hint in said[1:] if hint[0].startswith("Perhaps you meant")]
    # Another command's option of the same name is no help.
    return "; nearest: ".join([message, *(name for name in near if name not in message.split())])
