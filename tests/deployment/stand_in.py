"""Stands in for the command `fedjax-poisson` where a script's processes are tried, not a run: the workers echo, and the coordinator asks them.

python stand_in.py site|consortium COMMAND ...
"""

from __future__ import annotations

import os
import sys
import threading
import time
import tomllib
from pathlib import Path

from fedjax_poisson.deployment.transport.flower import flower_link
from fedjax_poisson.deployment.transport.link import Link
from fedjax_poisson.deployment.transport.parts import in_parts
from fedjax_poisson.deployment.transport.parts_handler import parts_handler
from fedjax_poisson.deployment.transport.sockets import serve, socket_link


def after(words: list[str], name: str) -> Path:
    return Path(words[words.index(name) + 1])


def init(words: list[str]) -> None:
    state = after(words, "--state")
    state.mkdir(mode=0o700)
    (state / "identity.pub").write_text("00" * 32)


def make_roster(words: list[str]) -> None:
    parties = [one.partition("=") for one in words if "=" in one]
    assert all(Path(path).is_file() for _, _, path in parties)
    after(words, "--out").write_text("sites = [" + ", ".join(f'"{name}"' for name, _, _ in parties) + "]\n")


def work(words: list[str]) -> None:
    policy, state = tomllib.loads(Path(words[0]).read_text()), after(words, "--state")
    assert (Path(words[0]).parent / policy["data"]["csv"]).is_file()
    if os.environ.get("STAND_IN") == "a worker dies" and state.name == "hungary":
        sys.exit("no memory")
    (state / "site.log").write_text("")
    serve(state / "worker.socket", parts_handler(lambda request: state.name.encode() + request), threading.Event())


def coordinate(words: list[str]) -> None:
    settings = tomllib.loads(Path(words[0]).read_text())
    sites = tuple(tomllib.loads(Path(settings["consortium"]["roster"]).read_text())["sites"])
    transport = settings["transport"]
    link: Link
    if transport["kind"] == "flower":
        link = in_parts(flower_link(Path(transport["socket"]), sites))
    else:
        link = in_parts(socket_link({site: Path(path) for site, path in transport["sockets"].items()}))
    for number in range(settings["run"]["rounds"]):
        replies = dict(link.ask({site: b" %d" % number for site in sites}, 300))
        assert replies == {site: f"{site} {number}".encode() for site in sites}, replies
        print(f"round {number}: {len(replies)} replies", flush=True)
    link.close()
    (after(words, "--out") / "transcripts").mkdir(parents=True)
    if os.environ.get("STAND_IN") == "the coordinator fails":
        sys.exit(3)
    if os.environ.get("STAND_IN") == "the coordinator waits":
        time.sleep(600)


def verify(words: list[str]) -> None:
    assert len(words) == 8 and all(Path(one).exists() for one in words if not one.startswith("--")), words
    print("sound")


COMMANDS = {
    ("site", "init"): init,
    ("site", "serve"): work,
    ("consortium", "init"): make_roster,
    ("consortium", "sign-roster"): lambda words: None,
    ("consortium", "run"): coordinate,
    ("consortium", "verify"): verify,
}

if __name__ == "__main__":
    with open(os.environ["STAND_IN_PROCESSES"], "a") as file:
        file.write(f"{os.getpid()}\n")
    COMMANDS[sys.argv[1], sys.argv[2]](sys.argv[3:])
