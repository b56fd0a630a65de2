"""Certificates for the one port of a consortium, and keys by which Flower knows its nodes.

They protect the way only: who may see sizes and times, and who may connect. What a site says is signed by its own identity and its counts are encrypted, so
nothing private rests on these files. Needs `cryptography`.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fedjax_poisson.deployment.transport.link import check_site_names

__all__ = [
    "Certificates",
    "create_authority",
    "create_certificates",
    "create_node_key",
    "create_server_certificate",
    "create_site_certificate",
]

AUTHORITY_DAYS = 3 * 365
SERVER_DAYS = 397  # what browsers and libraries still take for one server
_BACKDATED = datetime.timedelta(hours=1)  # clocks of sites differ


class Certificates(NamedTuple):
    """Where the files are.

    Attributes:
      authority: certificate of the consortium's own authority; every site pins it (`--root-certificates`, `--ssl-ca-certfile`).
      authority_key: its key; kept by the organiser, away from the server. Whoever has it can stand in for the server's port.
      server: certificate of the server.
      server_key: its key.
      sites: by site, its certificate and its key for the coordinator's port.
      node_keys: by site, the private key of its SuperNode; the public key lies beside it, with `.pub`.
    """

    authority: Path
    authority_key: Path
    server: Path
    server_key: Path
    sites: dict[str, tuple[Path, Path]]
    node_keys: dict[str, Path]


def create_certificates(folder: Path, *, hosts: Sequence[str] = (), sites: Sequence[str] = ()) -> Certificates:
    """An authority, a server's certificate, and for each site a certificate and a node key, in one folder: for a trial on one machine.

    Between real sites each makes its own node key (`create_node_key`) and sends the public half; the organiser makes the certificates and hands each site its
    own by a way that keeps its key secret.

    Args:
      folder: made with mode 0700 if it is missing.
      hosts: names and addresses of the server beside `localhost` and `127.0.0.1`.
      sites: their names.

    Raises:
      FileExistsError: one of the files is there; nothing is overwritten.
      ValueError: a host or a name that is none.
    """
    check_site_names(tuple(sites))
    authority, authority_key = create_authority(folder)
    server, server_key = create_server_certificate(folder, authority, authority_key, hosts=hosts)
    certificates = {site: create_site_certificate(folder, authority, authority_key, site) for site in sites}
    node_keys = {site: create_node_key(folder, site) for site in sites}
    return Certificates(authority, authority_key, server, server_key, certificates, node_keys)


def create_authority(folder: Path, *, name: str = "consortium", days: int = AUTHORITY_DAYS) -> tuple[Path, Path]:
    """A certificate authority of the consortium's own: `ca.crt`, `ca.key` (mode 0600).

    Args:
      folder: made with mode 0700 if it is missing.
      name: of the authority, as people see it.
      days: until it expires.

    Raises:
      FileExistsError: it is there already.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP384R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"{name} authority")])
    certificate = (
        _dated(x509.CertificateBuilder(), days)
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA384())
    )
    return _write_pair(folder, "ca", certificate, key)


def create_server_certificate(
    folder: Path, authority: Path, authority_key: Path, *, hosts: Sequence[str] = (), days: int = SERVER_DAYS
) -> tuple[Path, Path]:
    """A server's certificate, signed by the authority: `server.crt`, `server.key` (mode 0600).

    Args:
      folder: made with mode 0700 if it is missing.
      authority: its certificate.
      authority_key: its key.
      hosts: names and addresses by which sites reach the server, beside `localhost` and `127.0.0.1`.
      days: until it expires; never later than the authority.

    Raises:
      FileExistsError: it is there already.
      ValueError: a host that is none, or the key is another authority's.
    """
    names = [_general_name(host) for host in dict.fromkeys(("localhost", "127.0.0.1", *hosts))]
    name = hosts[0][:64] if hosts else "localhost"
    return _create_signed(folder, "server", name, authority, authority_key, names=names, days=days)


def create_site_certificate(
    folder: Path, authority: Path, authority_key: Path, site: str, *, days: int = SERVER_DAYS
) -> tuple[Path, Path]:
    """A site's certificate for the coordinator's port (`transport.dial`), its name as common name: `SITE.crt`, `SITE.key` (mode 0600).

    Args:
      folder: made with mode 0700 if it is missing.
      authority: its certificate.
      authority_key: its key.
      site: its name.
      days: until it expires; never later than the authority.

    Raises:
      FileExistsError: it is there already.
      ValueError: a name that is none ("ca" and "server" are taken), or the key is another authority's.
    """
    check_site_names((site,))
    if site in ("ca", "server"):
        raise ValueError(f"a site named {site!r} would have the files of another certificate; name it otherwise.")
    return _create_signed(folder, site, site, authority, authority_key, names=[], days=days)


def _create_signed(
    folder: Path, file: str, name: str, authority: Path, authority_key: Path, *, names: list[Any], days: int
) -> tuple[Path, Path]:
    """A certificate of a server, which has names, or of a client, which has none."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID

    issuer = x509.load_pem_x509_certificate(authority.read_bytes())
    issuer_key: Any = serialization.load_pem_private_key(authority_key.read_bytes(), None)
    if issuer.public_key() != issuer_key.public_key():
        raise ValueError(f"{authority_key} is not the key of {authority}; take the pair that was made together.")
    if not issuer.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
        raise ValueError(f"{authority} is no authority, so nobody would take what it signs; take ca.crt.")
    key = ec.generate_private_key(ec.SECP384R1())
    identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    use = ExtendedKeyUsageOID.SERVER_AUTH if names else ExtendedKeyUsageOID.CLIENT_AUTH
    builder = (
        _dated(x509.CertificateBuilder(), days, issuer.not_valid_after_utc)
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([use]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return _write_pair(folder, file, builder.sign(issuer_key, hashes.SHA384()), key)


def create_node_key(folder: Path, site: str) -> Path:
    """An EC key (P-384) by which a SuperNode signs in: `SITE.node` (OpenSSH, mode 0600) and `SITE.node.pub`, which the server registers.

    Raises:
      FileExistsError: it is there already.
      ValueError: a name that is none.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    check_site_names((site,))
    key = ec.generate_private_key(ec.SECP384R1())
    path = folder / f"{site}.node"
    _folder(folder)
    _refuse_existing(path, path.with_suffix(".node.pub"))
    _write(
        path,
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        ),
        0o600,
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    _write(path.with_suffix(".node.pub"), public + b"\n", 0o644)
    return path


def _dated(builder: Any, days: int, latest: datetime.datetime | None = None) -> Any:
    now = datetime.datetime.now(datetime.UTC)
    end = now + datetime.timedelta(days=days)
    return builder.not_valid_before(now - _BACKDATED).not_valid_after(end if latest is None else min(end, latest))


def _usage(**named: bool) -> Any:
    from cryptography import x509

    every = dict.fromkeys(
        (
            "digital_signature",
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "key_cert_sign",
            "crl_sign",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    return x509.KeyUsage(**{**every, **named})


def _general_name(host: str) -> Any:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        if not host or any(sign in host for sign in " /:@"):
            raise ValueError
        return x509.DNSName(host)
    except ValueError:
        raise ValueError(
            f"{host!r} is neither an address nor a host's name; give it without port and scheme."
        ) from None


def _write_pair(folder: Path, name: str, certificate: Any, key: Any) -> tuple[Path, Path]:
    from cryptography.hazmat.primitives import serialization

    public, private = folder / f"{name}.crt", folder / f"{name}.key"
    _folder(folder)
    _refuse_existing(public, private)
    _write(
        private,
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
        0o600,
    )
    _write(public, certificate.public_bytes(serialization.Encoding.PEM), 0o644)
    return public, private


def _folder(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def _refuse_existing(*paths: Path) -> None:
    for path in paths:
        if path.exists():
            raise FileExistsError(
                f"{path} is there already, and nothing is overwritten; move it away, or choose another folder."
            )


def _write(path: Path, blob: bytes, mode: int) -> None:
    """Never readable by others, not even before its mode is set."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with open(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)  # whatever the umask is
        file.write(blob)
        file.flush()
        os.fsync(descriptor)
