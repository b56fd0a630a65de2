"""Certificates: what they allow, how long, who may read them, and that a TLS connection takes the right ones only."""

from __future__ import annotations

import datetime
import socket
import ssl
import stat
import threading
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_ssh_private_key, load_ssh_public_key

from fedjax_poisson.deployment.certificates import (
    create_authority,
    create_certificates,
    create_node_key,
    create_server_certificate,
    create_site_certificate,
)


def test_files_and_modes(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    files = create_certificates(folder, hosts=("fl.example.org", "10.0.0.7"), sites=("ulm", "bonn"))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    keys = [key for _, key in files.sites.values()]
    for secret in (files.authority_key, files.server_key, *keys, *files.node_keys.values()):
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600, secret
    names = x509.load_pem_x509_certificate(files.server.read_bytes()).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert set(names.value.get_values_for_type(x509.DNSName)) == {"localhost", "fl.example.org"}
    assert {str(one) for one in names.value.get_values_for_type(x509.IPAddress)} == {"127.0.0.1", "10.0.0.7"}


def test_lifetimes(tmp_path: Path) -> None:
    files = create_certificates(tmp_path)
    now = datetime.datetime.now(datetime.UTC)
    authority, server = (x509.load_pem_x509_certificate(one.read_bytes()) for one in (files.authority, files.server))
    assert server.not_valid_before_utc < now < server.not_valid_after_utc <= authority.not_valid_after_utc
    assert (server.not_valid_after_utc - now).days <= 397
    short, key = create_authority(tmp_path / "short", days=10)
    certificate, _ = create_server_certificate(tmp_path / "short", short, key)
    last = x509.load_pem_x509_certificate(certificate.read_bytes()).not_valid_after_utc
    assert (last - now).days <= 10  # never longer than who signed it


def test_node_keys_are_what_flower_reads(tmp_path: Path) -> None:
    path = create_node_key(tmp_path, "ulm")
    private = load_ssh_private_key(path.read_bytes(), None)
    public = load_ssh_public_key(Path(f"{path}.pub").read_bytes())
    assert private.public_key() == public  # type: ignore[union-attr]
    assert public.curve.name == "secp384r1"  # type: ignore[union-attr]


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    files = create_certificates(tmp_path, sites=("ulm",))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for again in (
        lambda: create_authority(tmp_path),
        lambda: create_server_certificate(tmp_path, files.authority, files.authority_key),
        lambda: create_node_key(tmp_path, "ulm"),
    ):
        with pytest.raises(FileExistsError, match="nothing is overwritten"):
            again()
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("host", ["", "https://fl.example.org", "fl.example.org:8000", "a b"])
def test_hosts_that_are_none(tmp_path: Path, host: str) -> None:
    with pytest.raises(ValueError, match="neither an address nor a host's name"):
        create_certificates(tmp_path, hosts=(host,))


def test_a_key_of_another_authority_is_refused(tmp_path: Path) -> None:
    first, _ = create_authority(tmp_path / "first")
    _, other = create_authority(tmp_path / "second")
    with pytest.raises(ValueError, match="is not the key of"):
        create_server_certificate(tmp_path, first, other)


def _handshake(server: ssl.SSLContext, trusted: Path, name: str) -> str:
    """What the client makes of it: "" or the error."""
    ours, theirs = socket.socketpair()

    def serve() -> None:
        try:
            server.wrap_socket(theirs, server_side=True).close()
        except (ssl.SSLError, OSError):
            theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        ssl.create_default_context(cafile=str(trusted)).wrap_socket(ours, server_hostname=name).close()
        return ""
    except ssl.SSLCertVerificationError as error:
        return error.verify_message
    finally:
        ours.close()
        thread.join(10)


def test_a_connection_takes_this_authority_and_these_hosts_only(tmp_path: Path) -> None:
    files = create_certificates(tmp_path / "ours", hosts=("fl.example.org",))
    others = create_certificates(tmp_path / "others")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.server, files.server_key)
    for name in ("localhost", "127.0.0.1", "fl.example.org"):
        assert _handshake(context, files.authority, name) == ""
    assert "mismatch" in _handshake(context, files.authority, "other.example.org")
    assert _handshake(context, others.authority, "localhost") != ""
    rogue = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    rogue.load_cert_chain(others.server, others.server_key)
    assert _handshake(rogue, files.authority, "localhost") != ""


def test_a_server_is_no_authority(tmp_path: Path) -> None:
    """Whoever holds the server's key cannot make certificates for others with it."""
    files = create_certificates(tmp_path / "ours")
    server = x509.load_pem_x509_certificate(files.server.read_bytes())
    assert server.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    with pytest.raises(ValueError, match="is no authority"):
        create_server_certificate(tmp_path / "forged", files.server, files.server_key)


@pytest.mark.parametrize("site", ["ca", "server", "Ulm", "../ulm"])
def test_a_sites_certificate_takes_no_other_ones_files(tmp_path: Path, site: str) -> None:
    authority, key = create_authority(tmp_path)
    with pytest.raises(ValueError, match="name"):
        create_site_certificate(tmp_path, authority, key, site)
