"""The Sphinx directive `command-help`: every command of `fedjax-poisson` with what its `--help` says, asked of the program itself while the site is built."""

from __future__ import annotations

import contextlib
import io
import os
import re
import textwrap
from collections.abc import Iterator
from unittest import mock

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from fedjax_poisson.cli import main

_WIDTH = "92"  # characters, about what fits beside the menu


def help_of(command: tuple[str, ...]) -> str:
    """What `fedjax-poisson COMMAND --help` prints, without colours and frames."""
    printed = io.StringIO()
    surroundings = {"COLUMNS": _WIDTH, "NO_COLOR": "1", "TERM": "dumb"}
    with mock.patch.dict(os.environ, surroundings), contextlib.redirect_stdout(printed):
        with contextlib.suppress(SystemExit):
            main([*command, "--help"])
    unframed = (line.rstrip() for line in printed.getvalue().splitlines() if not re.fullmatch(r"\s*-+\s*", line))
    lines = (line[1:] if line.startswith(" ") else line for line in unframed)
    return "\n".join(
        part for line in lines for part in (textwrap.wrap(line, int(_WIDTH)) if line[:1].isalpha() else [line])
    ).strip()


def commands_below(command: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every command that does something, in the program's own order, with its help."""
    text = help_of(command)
    below = re.search(r"usage: [^{]*\{([\w,\-\s]+)\}", text.partition("\n\n")[0])
    if not below or "\nsubcommands\n" not in text:
        yield command, text
        return
    for name in re.sub(r"\s", "", below[1]).split(","):
        yield from commands_below((*command, name))


class CommandHelp(SphinxDirective):
    """A section a command."""

    def run(self) -> list[nodes.Node]:
        """The sections."""
        made: list[nodes.Node] = []
        for command, text in commands_below():
            name = " ".join(command)
            section = nodes.section("", nodes.title("", name), ids=["-".join(command)], names=[name])
            section += nodes.literal_block(text, text, language="text")
            self.state.document.note_explicit_target(section)
            made.append(section)
        return made


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers the directive."""
    app.add_directive("command-help", CommandHelp)
    return {"parallel_read_safe": True}
