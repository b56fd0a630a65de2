"""Shell completion: tyro's scripts, of the whole command line with the commands of its groups."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Union

import tyro

__all__ = ["HELP", "asked_for", "write_completion"]

_SHELLS = ("bash", "zsh", "tcsh")
_PRINT, _WRITE = "--tyro-print-completion", "--tyro-write-completion"

HELP = (
    f"Completion by the tab key: fedjax-poisson {_WRITE} bash ~/.local/share/bash-completion/completions/fedjax-poisson; {_PRINT} SHELL prints the script. "
    f"SHELL is one of {', '.join(_SHELLS)}."
)


def asked_for(arguments: list[str]) -> bool:
    """Whether the command line asks for a completion script."""
    return bool(arguments) and arguments[0] in (_PRINT, _WRITE)


def write_completion(
    commands: Mapping[str, Callable[..., Any]],
    groups: Mapping[str, Mapping[str, Callable[..., Any]]],
    arguments: list[str],
) -> int:
    """Print the script, or write it to a file.

    Args:
      commands: of the command line, name to function; those of groups are replaced.
      groups: name to the group's own commands.
      arguments: `--tyro-print-completion SHELL` or `--tyro-write-completion SHELL FILE`.

    Returns:
      Exit code 0.

    Raises:
      ValueError: no shell, another shell, or no file.
    """
    needed = 2 if arguments[0] == _PRINT else 3
    if len(arguments) != needed or arguments[1] not in _SHELLS:
        raise ValueError(f"{' '.join(arguments)}: give {_PRINT} SHELL or {_WRITE} SHELL FILE, SHELL one of {_SHELLS}.")
    nested = {name: _nested(name, own) for name, own in groups.items()}
    try:
        tyro.extras.subcommand_cli_from_dict(
            {**commands, **nested},
            prog="fedjax-poisson",
            args=arguments,
            config=(tyro.conf.OmitSubcommandPrefixes, tyro.conf.OmitArgPrefixes),
        )
    except SystemExit as ended:  # tyro's way to end after the script
        return int(ended.code or 0)
    return 0


def _nested(name: str, commands: Mapping[str, Callable[..., Any]]) -> Callable[..., Any]:
    """A group as one command whose argument is a choice among its own."""

    def group(command: Any) -> Any:
        return command

    one_of = tuple(Annotated[Any, tyro.conf.subcommand(each, constructor=made)] for each, made in commands.items())
    group.__annotations__ = {"command": Union[one_of], "return": Any}  # noqa: UP007
    group.__doc__ = f"Commands of {name}."
    return group
