"""`consortium ...`: what the parties do together: a roster that all sign, and a look at everybody's logs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from fedjax_poisson.cli.site import STATE, passphrase_of

if TYPE_CHECKING:
    from fedjax_poisson.deployment.roster import Party

__all__ = ["COMMANDS"]


def init(
    *,
    name: str,
    site: tuple[str, ...],
    operator: tuple[str, ...] = (),
    members: tuple[str, ...] = (),
    threshold: int | None = None,
    malicious: int | None = None,
    corrupt: int = 1,
    minimum: int | None = None,
    out: Path = Path("roster.toml"),
) -> int:
    """Write a roster from the parties' public keys; then everybody compares its hash and signs it.

    Args:
      name: of the consortium.
      site: NAME=KEY of each site; KEY is 64 hexadecimal digits, or the path of its identity.pub.
      operator: NAME=KEY of each member of the committee that has no data.
      members: names of the committee, in order; default: all operators if there are any, else all sites.
      threshold: members that open a sum; default: the least that is safe, more than half of members and malicious together.
      malicious: members that may do anything; default: as many as rounds survive, (members - 1) / 3.
      corrupt: sites that are assumed to work with the server; privacy counts on minimum - corrupt.
      minimum: fewest sites whose sum is opened; default: all. Fewer lets rounds go on without some, at more noise from each.
      out: file to write; one that exists is not replaced.
    """
    from fedjax_poisson.aggregation.parameters import least_threshold
    from fedjax_poisson.deployment.roster import Roster, check, roster_hash
    from fedjax_poisson.deployment.roster_file import roster_text
    from fedjax_poisson.federated.checkpoints import write_atomic

    sites, operators = tuple(map(_party, site)), tuple(map(_party, operator))
    committee = members or tuple(party.name for party in operators or sites)
    f = (len(committee) - 1) // 3 if malicious is None else malicious
    roster = Roster(
        name=name,
        sites=sites,
        operators=operators,
        members=committee,
        threshold=least_threshold(len(committee), f) if threshold is None else threshold,
        malicious=f,
        corrupt=corrupt,
        minimum=len(sites) if minimum is None else minimum,
    )
    check(roster)
    if out.exists():
        raise FileExistsError(f"{out} exists; a roster that was signed is not replaced: give another --out.")
    write_atomic(out, roster_text(roster).encode())
    print(
        f"{out}: {len(sites)} sites, {len(committee)} members, {roster.threshold} of them open a sum, up to {f} may be malicious; "
        f"sums of at least {roster.minimum} sites, {roster.minimum - corrupt} of them counted on as honest"
    )
    print(f"hash: {roster_hash(roster).hex()}")
    print(
        "Send the file to every party; each reads out the hash to the others, then: fedjax-poisson consortium sign-roster FILE"
    )
    return 0


def _party(text: str) -> Party:
    from fedjax_poisson.deployment.roster import Party

    name, _, key = text.partition("=")
    if not name or not key:
        raise ValueError(f"{text!r:.80} is not NAME=KEY, such as north=identity.pub")
    path = Path(key).expanduser()
    digits = path.read_text(encoding="ascii").strip() if path.is_file() else key
    try:
        return Party(name, bytes.fromhex(digits))
    except ValueError:
        raise ValueError(f"the key of {name} is neither a file nor 64 hexadecimal digits: {key!r:.80}") from None


def sign_roster(
    roster: Annotated[Path, tyro.conf.Positional],
    copies: Annotated[tuple[Path, ...], tyro.conf.Positional] = (),
    *,
    state: Path | None = None,
    passphrase_file: Path | None = None,
) -> int:
    """Add this party's signature to a roster's file, and those of other copies of it.

    Sign only after you have compared the hash with every other party by another way than the one that the file came.

    Args:
      roster: file of the roster; it is replaced by itself with more signatures.
      copies: files of the same roster with signatures of others.
      state: folder with this party's key; default: sign with the key in ./state if there is one and no copies are given.
      passphrase_file: file (mode 0600) whose first line opens the key.
    """
    from fedjax_poisson.deployment import identity
    from fedjax_poisson.deployment.roster import named, parties_of, roster_hash
    from fedjax_poisson.deployment.roster import sign_roster as sign
    from fedjax_poisson.deployment.roster_file import gather, read_roster, roster_text
    from fedjax_poisson.federated.checkpoints import write_atomic

    found = gather(*(read_roster(path) for path in (roster, *copies)))
    if state is not None or not copies:
        who = identity.load(STATE if state is None else state, passphrase_of(passphrase_file))
        signature = sign(who, found.roster)
        found.signatures[named(found.roster, who.public)] = signature
        print(f"signed by {named(found.roster, who.public)}")
    write_atomic(roster, roster_text(found.roster, found.signatures).encode())
    lacking = [party.name for party in parties_of(found.roster) if party.name not in found.signatures]
    print(f"hash: {roster_hash(found.roster).hex()}")
    print(f"signatures lacking: {', '.join(lacking)}" if lacking else "signed by all")
    return 0


def verify(
    roster: Annotated[Path, tyro.conf.Positional],
    logs: Annotated[tuple[Path, ...], tyro.conf.Positional],
    *,
    transcripts: Path | None = None,
    rows: tuple[Path, ...] = (),
    json: bool = False,
) -> int:
    """Check sites' logs against each other and against the rounds' transcripts; exit code 1 if something is wrong.

    Args:
      roster: file of the roster, signed by all.
      logs: any number of sites' logs; who gives none is named.
      transcripts: folder of the rounds' transcripts (*.round).
      rows: what every site sent, runs/RUN/client.sqlite of each: shows whether the summed rows of the transcripts are the sum of the sites' own.
      json: for programs.
    """
    from json import dumps

    from fedjax_poisson.deployment.log_check import check_logs
    from fedjax_poisson.deployment.log_findings import as_json, in_words
    from fedjax_poisson.deployment.roster import check_signatures
    from fedjax_poisson.deployment.roster_file import read_roster
    from fedjax_poisson.deployment.row_check import contributions_in, with_rows

    signed = read_roster(roster)
    check_signatures(signed.roster, signed.signatures)
    opened = None
    if transcripts is not None:
        if not transcripts.is_dir():
            raise FileNotFoundError(f"{transcripts}: no such folder of transcripts.")
        opened = {path.name: path.read_bytes() for path in sorted(transcripts.glob("*.round"))}
    findings = check_logs(signed.roster, {str(path): path.read_bytes() for path in logs}, opened)
    if rows:
        findings = with_rows(
            findings, signed.roster, opened or {}, {str(path): contributions_in(path) for path in rows}
        )
    print(dumps(as_json(findings), indent=2) if json else "\n".join(in_words(findings)))
    return 0 if findings.sound else 1


def run(
    config: Annotated[Path, tyro.conf.Positional],
    *,
    out: Path = Path("consortium-run"),
    quiet: bool = False,
) -> int:
    """Propose a run to all sites, hold its rounds, and keep the model; an interrupted run goes on in the same folder.

    Args:
      config: CONFIG.toml with the roster, the transport, and the settings of the run.
      out: folder of the coordinator.
      quiet: show no progress.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from fedjax_poisson.deployment.conduct import Step
    from fedjax_poisson.deployment.consortium_file import link_of, read_consortium
    from fedjax_poisson.deployment.coordinator import MODEL, RESULT, TRANSCRIPTS, coordinate, without_score
    from fedjax_poisson.federated.stopping import stop_requested

    console = Console(quiet=quiet)
    file = read_consortium(config)
    link = link_of(file)

    def say(words: str) -> None:
        console.print(
            words, highlight=False, markup=False, soft_wrap=True
        )  # a terminal breaks lines where it ends; a file has whole ones

    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), TimeElapsedColumn())
    try:
        with (
            stop_requested(say) as stop,
            Progress(*columns, console=console, disable=not console.is_terminal) as bar,
        ):
            task = bar.add_task("waiting for the sites", total=None)
            if file.kind == "tls":
                say(f"sites reach this coordinator at port {file.address[1]}")

            def step(one: Step) -> None:
                epsilon = "" if one.epsilon is None else f", epsilon before it {one.epsilon:.3f}"
                say(
                    f"{one.label}: a sum of {len(one.clients)} sites ({', '.join(one.clients)}), {one.size} values, {one.seconds:.2f} s{epsilon}"
                )
                for each in one.heard:
                    say(f"  {each.phase}: {each.site} {each.what}")

            def wait(words: str) -> None:
                bar.update(task, description=words)

            ended = coordinate(
                link, file.roster, file.config, out, step=step, say=say, wait=wait, stop=stop, **file.options
            )
    finally:
        link.close()
    facts = ended.facts
    say(
        f"{facts.get('rounds')} rounds, epsilon {facts.get('epsilon'):.4g} at delta {facts.get('delta'):g} for one {facts.get('unit')} ({facts.get('verdict')})"
    )
    if facts.get("auc") is not None:
        say(f"released scores: AUC {facts['auc']:.3f}, accuracy {facts['pooled_accuracy']:.3f}")
    if left := without_score(file.roster, facts):
        say(f"no score of its own: {', '.join(left)}, with too few held-out records for the noise")
    say(
        f"{len(ended.agree)} of {len(file.roster.sites)} sites have the same model, bit for bit: {out / MODEL}; facts {out / RESULT}; {out / TRANSCRIPTS}"
    )
    return 0 if len(ended.agree) == len(file.roster.sites) else 1


def status(out: Annotated[Path, tyro.conf.Positional] = Path("consortium-run"), *, json: bool = False) -> int:
    """Show how far a run is, from the coordinator's folder alone.

    Args:
      out: folder of the coordinator.
      json: for programs.
    """
    from json import dumps

    from fedjax_poisson.deployment.coordinator import standing

    found = standing(out)
    if json:
        print(dumps(found))
        return 0
    for name, value in found.items():
        print(f"{name:12s} {value}")
    return 0


def certificates(
    roster: Annotated[Path, tyro.conf.Positional], *, host: tuple[str, ...] = (), out: Path = Path("keys")
) -> int:
    """Make the certificates of the coordinator's port: an authority, the server's, and one for each party.

    Args:
      roster: file of the roster.
      host: names and addresses by which the parties reach the coordinator.
      out: folder to write; nothing in it is overwritten.
    """
    from fedjax_poisson.deployment.certificates import (
        create_authority,
        create_server_certificate,
        create_site_certificate,
    )
    from fedjax_poisson.deployment.roster import parties_of
    from fedjax_poisson.deployment.roster_file import read_roster

    authority, key = create_authority(out)
    create_server_certificate(out, authority, key, hosts=host)
    for party in parties_of(read_roster(roster).roster):
        create_site_certificate(out, authority, key, party.name)
        print(
            f"{party.name}: hand over {out / party.name}.crt and .key with {authority}, by a way that keeps the key secret"
        )
    print("Nothing that is private rests on them: they keep strangers from the port. Keep the authority's key offline.")
    return 0


COMMANDS: dict[str, Callable[..., int]] = {
    "certificates": certificates,
    "init": init,
    "run": run,
    "status": status,
    "sign-roster": sign_roster,
    "verify": verify,
}
"""`fedjax-poisson consortium ...` by name."""
