"""``zmesh key``: make a node's key, and have an account sign that the key speaks for it.

Rules
 1. The secret of an account comes from a prompt, a file or MESH_ACCOUNT_SECRET, never from the command line, which
    every process on the machine can read; and it is never printed. It need not be on this machine at all: ``--print``
    gives the text to sign elsewhere, and ``--text`` and ``--signature`` take the result back.
 2. Both signatures of a delegation are checked before it is written, as every other node checks them.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zmesh.core.errors import ConfigError
from zmesh.core.sentence import shown

if TYPE_CHECKING:
    from zmesh.account import AccountKey
    from zmesh.delegation import Delegation, Scheme, Statement
    from zmesh.identity import Identity

SECRET_VARIABLE = "MESH_ACCOUNT_SECRET"  # noqa: S105 - the name of a variable
BACKDATED = 600
"""Seconds by which the start of a delegation is backdated: nodes' clocks differ, and it should hold everywhere at
once."""
keys = typer.Typer(help="Make Ed25519 keys, and have accounts sign for them.", no_args_is_help=True)


class SchemeName(StrEnum):
    """How an account signs."""

    sr25519 = "sr25519"
    ed25519 = "ed25519"
    ecdsa = "ecdsa"


KeyFile = Annotated[Path | None, typer.Option("--key", help="The node's key file.  [MESH_PRIVATE_KEY]")]


@keys.command("new")
def key_new(path: Annotated[Path, typer.Argument(help="The file to create; never overwritten.")]) -> None:
    """Make a key in a new file that only you can read, and print its public key."""
    from zmesh.identity import create_key_file

    typer.echo(create_key_file(path).public.hex())


@keys.command("show")
def key_show(
    path: Annotated[Path | None, typer.Argument(help="The key file; by default that of MESH_PRIVATE_KEY.")] = None,
) -> None:
    """Print the public key of a key file."""
    typer.echo(_identity(path, os.environ).public.hex())


@keys.command("delegate")
def key_delegate(  # noqa: PLR0913, PLR0917 - the options of a command
    account: Annotated[
        str | None, typer.Option(metavar="SS58", help="The account that signs; by default the one of the secret.")
    ] = None,
    key: KeyFile = None,
    network: Annotated[str | None, typer.Option(help="The mesh's name.  [MESH_NETWORK, zmesh]")] = None,
    genesis: Annotated[str | None, typer.Option(metavar="HEX", help="The chain's genesis hash.")] = None,
    rpc: Annotated[
        str | None, typer.Option(metavar="URL", help="A node of the chain to ask for the hash instead.")
    ] = None,
    days: Annotated[int, typer.Option(help="How many days the delegation is valid.")] = 30,
    sequence: Annotated[
        int | None, typer.Option(help="Replaces the account's delegations with a lower one; by default Unix time.")
    ] = None,
    scheme: Annotated[SchemeName, typer.Option(help="How the account signs.")] = SchemeName.sr25519,
    secret_file: Annotated[
        Path | None,
        typer.Option(help="Read the account's secret from this file instead of a prompt.  [MESH_ACCOUNT_SECRET]"),
    ] = None,
    print_text: Annotated[bool, typer.Option("--print", help="Print the text to sign elsewhere, and exit.")] = False,
    text: Annotated[Path | None, typer.Option(help="File of the printed text that was signed elsewhere ...")] = None,
    signature: Annotated[str | None, typer.Option(metavar="HEX", help="... and the signature.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the delegation to this file, for MESH_DELEGATION.")] = None,
) -> None:
    """Have an account sign that a node's key speaks for it, and print the delegation in hexadecimal.

    The account's secret is prompted for, or read from a file or MESH_ACCOUNT_SECRET: words, a 0x seed, or //Alice.
    """
    from zmesh.delegation import Scheme

    chosen, identity = Scheme[scheme.name.upper()], _identity(key, os.environ)
    if (text is None) != (signature is None):
        raise ConfigError("--text and --signature must be given together: the text from --print, and its signature")
    if text is not None and signature is not None:
        _hand_over(_join(_read_text(text), signature, chosen, identity), out)
        return
    terms = _Terms(network or os.environ.get("MESH_NETWORK") or "zmesh", _genesis(genesis, rpc), days, sequence)
    if print_text:
        if account is None:
            raise ConfigError("--print needs --account, because the text names the account that is to sign it")
        from zmesh.ss58 import parse_account

        # A program gets exactly the bytes to sign; a terminal also gets a newline.
        typer.echo(terms.statement(parse_account(account), identity).text, nl=sys.stdout.isatty())
        return
    _hand_over(_sign(terms, account, _account_key(secret_file, chosen), identity), out)


@keys.command("verify")
def key_verify(
    delegation: Annotated[str, typer.Argument(metavar="FILE", help="A delegation file, or its content.")],
) -> None:
    """Show what a delegation says, and whether it is valid now. Exit status 1 if it is not.

    Only the chain can tell whether the account is registered.
    """
    from zmesh.delegation import load_delegation
    from zmesh.ss58 import to_ss58

    found = load_delegation(delegation)
    said = found.statement
    problem = _problem(found, time.time())
    for label, value in (
        ("account", f"{to_ss58(said.account)} (0x{said.account.hex()}, {found.scheme.name.lower()})"),
        ("mesh key", said.key.hex()),
        ("network", said.network),
        ("genesis", f"0x{said.genesis.hex()}" if said.genesis else "none"),
        ("from", _date(said.not_before)),
        ("until", _date(said.not_after)),
        ("sequence", str(said.sequence)),
        ("holds", "yes" if problem is None else f"no: {problem}"),
    ):
        typer.echo(f"{label + ':':<10}{value}")
    raise typer.Exit(0 if problem is None else 1)


# ---------------------------------------------------------------- within


@dataclass(frozen=True)
class _Terms:
    """The terms of a delegation, apart from the account and the key."""

    network: str
    genesis: bytes
    days: int
    sequence: int | None

    def statement(self, account: bytes, identity: Identity) -> Statement:
        """The statement as of now. Raises ``ConfigError`` for terms that are out of bounds."""
        from zmesh.delegation import DAY, MAX_DAYS, Statement, check_statement

        if not self.network.isprintable() or self.network != self.network.strip():
            raise ConfigError(f"--network must be a printable name without blanks around it, not {shown(self.network)}")
        if not 1 <= self.days <= MAX_DAYS:
            raise ConfigError(f"--days must be from 1 to {MAX_DAYS}, not {self.days}")
        now = int(time.time())
        begin, sequence = now - BACKDATED, now if self.sequence is None else self.sequence
        end = begin + self.days * DAY
        made = Statement(self.network, self.genesis, account, identity.public, begin, end, sequence)
        problem = check_statement(made)
        if problem is not None:
            raise ConfigError(f"such a delegation is not possible: {problem}")
        return made


def _identity(path: Path | None, environ: Mapping[str, str]) -> Identity:
    from zmesh.identity import load_key

    source = path or environ.get("MESH_PRIVATE_KEY")
    if not source:
        raise ConfigError("no key was given: name a key file, or set MESH_PRIVATE_KEY")
    return load_key(source)


def _sign(terms: _Terms, address: str | None, by: AccountKey, identity: Identity) -> Delegation:
    """The account and the node both sign here."""
    from zmesh.delegation import encode_delegation
    from zmesh.ss58 import parse_account, to_ss58

    if address is not None and parse_account(address) != by.account:
        named = f"{by.scheme.name.lower()} account of this secret is {to_ss58(by.account)}"
        raise ConfigError(f"the {named}, not {address}: check --scheme, the secret and --account")
    statement = terms.statement(by.account, identity)
    return encode_delegation(statement, by.scheme, by.sign(statement.text), identity.sign, public=by.public)


def _join(statement: Statement, signature: str, scheme: Scheme, identity: Identity) -> Delegation:
    """The account signed elsewhere, the plain text or a wallet's wrapped form of it; the node signs here."""
    from zmesh.core.wire import SIGNATURE_SIZE
    from zmesh.delegation import Scheme, encode_delegation, recover_public, wrap
    from zmesh.identity import unhex

    if statement.key != identity.public:
        raise ConfigError(
            f"the text is for the key {statement.key.hex()}, not for --key, which is {identity.public.hex()}"
        )
    size = SIGNATURE_SIZE + (scheme is Scheme.ECDSA)
    raw = unhex(signature, size)
    if raw is None:
        wanted = f"{2 * size} hexadecimal digits for {scheme.name.lower()}"
        raise ConfigError(f"--signature must be {wanted}, not these {len(signature.strip())} characters")
    # The last byte of an ECDSA signature helps to recover the public key; the account's id identifies the key just as
    # well.
    raw = raw[:SIGNATURE_SIZE]
    for wrapped in (False, True):
        message = wrap(statement.text) if wrapped else statement.text
        public = recover_public(statement.account, message, raw) if scheme is Scheme.ECDSA else b""
        if public is not None:
            made = encode_delegation(statement, scheme, raw, identity.sign, wrapped=wrapped, public=public)
            if made.signed_by_account():
                return made
    raise ConfigError(
        f"--signature is not this account's {scheme.name.lower()} signature of this text: check --scheme, and sign "
        "exactly what --print gave"
    )


def _hand_over(made: Delegation, out: Path | None) -> None:
    from zmesh.files import replace_private
    from zmesh.ss58 import to_ss58

    problem = _problem(made, time.time())
    if problem is not None:
        raise ConfigError(f"this delegation would not be valid: {problem}")
    if out is None:
        typer.echo(made.encoded.hex())
        return
    replace_private(out, made.encoded.hex().encode() + b"\n")
    said = made.statement
    until = f"until {_date(said.not_after)}"
    typer.echo(f"{out}: the key {said.key.hex()} speaks for {to_ss58(said.account)} {until}")


def _problem(made: Delegation, wall: float) -> str | None:
    """Why it is not valid now, as far as can be told without a registry; None if it is."""
    said = made.statement
    if not made.held_by_key():
        return "the mesh key did not sign it"
    if not made.signed_by_account():
        return "the account did not sign it"
    if wall < said.not_before:
        return f"it begins at {_date(said.not_before)}"
    return f"it ended at {_date(said.not_after)}" if wall >= said.not_after + 1 else None


def _read_text(path: Path) -> Statement:
    from zmesh.delegation import MAX_TEXT, parse_text
    from zmesh.files import read_regular

    return parse_text(read_regular(path, f"the text {path}", MAX_TEXT + 1)[0])


def _account_key(path: Path | None, scheme: Scheme) -> AccountKey:
    """The account whose secret the operator gives, in any of the three ways."""
    from zmesh.account import MAX_SECRET, AccountKey
    from zmesh.files import read_regular, refuse_exposed

    if path is not None:
        content, status = read_regular(path, f"the secret's file {path}", MAX_SECRET + 1)
        refuse_exposed(status, f"the secret's file {path}", str(path))
        return AccountKey(content.decode("utf-8", "replace"), scheme)
    secret = os.environ.get(SECRET_VARIABLE)
    if not secret:
        if not sys.stdin.isatty():
            raise ConfigError(
                f"the account's secret is missing: use --secret-file or {SECRET_VARIABLE} where there is no terminal"
            )
        secret = str(typer.prompt("The account's secret (not shown)", hide_input=True, err=True))
    return AccountKey(secret, scheme)


def _genesis(digits: str | None, url: str | None) -> bytes:
    """32 bytes, from the operator or from a node of the chain."""
    from zmesh.identity import unhex
    from zmesh.registry.port import HASH_SIZE

    if (digits is None) == (url is None):
        raise ConfigError("either --genesis or --rpc must be given: a delegation is valid on one chain only")
    source = "--genesis"
    if url is not None:
        from zmesh.genesis import ask_genesis

        source, digits = "the genesis hash from the chain", ask_genesis(url)
    found = unhex(digits, HASH_SIZE)
    if found is None:
        raise ConfigError(f"{source} must be 0x and 64 hexadecimal digits")
    return found


def _date(seconds: int) -> str:
    """A human-readable date; the bare number for years beyond the calendar."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, OSError, ValueError):
        return f"second {seconds}"
