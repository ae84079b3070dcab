"""`hookprobe dsm recipient|unseal`, and how a backup's identity is locked and opened."""

import secrets
from base64 import b64decode, b64encode
from pathlib import Path

import click

from hookprobe.cli.configuration import form_option
from hookprobe.cli.output import emit, message
from hookprobe.crypto.safe import (
    SECRET_BYTES,
    Passphrase,
    Recipient,
    RecipientSecret,
)
from hookprobe.errors import ConfigError, HostError, MalformedError
from hookprobe.runtime import identity_backup
from hookprobe.runtime.identity_backup import SAFE_FILE, SAFE_MAX_BYTES
from hookprobe.runtime.keystore import read_file, read_private, write_atomically

_path = click.Path(path_type=Path)
_LABEL = "hookprobe-recipient-1 "
_KEY_FILE_MAX_BYTES = 4096
passphrase_option = click.option(
    "--passphrase-file",
    type=_path,
    help="Read the passphrase from here instead of asking; readable by its owner only.",
)


def _passphrase(file: Path | None, *, twice: bool) -> Passphrase:
    if file is None:
        return Passphrase(
            click.prompt("Passphrase", hide_input=True, confirmation_prompt=twice, err=True)
        )
    try:
        return Passphrase(read_private(file).decode("utf-8").rstrip("\r\n"))
    except UnicodeDecodeError:
        raise MalformedError(f"{file}: a passphrase is UTF-8 text") from None


def locking_key(passphrase_file: Path | None, recipient: Path | None) -> Passphrase | Recipient:
    """Return who may open what is sealed now.

    Raises:
        ConfigError: Both are named.
        HostError: A file cannot be read, or others may read the passphrase.
        MalformedError: Not a recipient.
    """
    if passphrase_file is not None and recipient is not None:
        raise ConfigError(["--recipient: a safe has one lock; leave --passphrase-file out"])
    if recipient is None:
        return _passphrase(passphrase_file, twice=True)
    text = read_file(recipient, limit=_KEY_FILE_MAX_BYTES).decode("ascii", "replace").strip()
    try:
        return Recipient(b64decode(text.removeprefix(_LABEL), validate=True))
    except ValueError:
        raise MalformedError(f"{recipient}: not a recipient") from None


@click.command()
@click.argument("secret", type=_path)
def recipient(secret: Path) -> None:
    """Make a key to seal backups for: SECRET, to be kept off the nodes, and SECRET.pub for them."""
    if secret.exists():
        raise HostError(f"{secret} exists", hint="name a file that does not exist yet")
    made = RecipientSecret(secrets.token_bytes(SECRET_BYTES))
    write_atomically(secret, made.seeds, mode=0o600)
    public = secret.with_name(secret.name + ".pub")
    write_atomically(public, (_LABEL + b64encode(made.recipient().public).decode() + "\n").encode())
    message(f"next: hookprobe dsm backup --identity --recipient {public} -c FILE FOLDER")


@click.command()
@form_option
@click.option("--check", is_flag=True, help="Only open it and say what is in it.")
@passphrase_option
@click.option("--secret", type=_path, help="The secret that `recipient` made, if it is for one.")
@click.argument("backup", type=_path)
@click.argument("folder", type=_path, required=False)
def unseal(
    form: str | None,
    check: bool,
    passphrase_file: Path | None,
    secret: Path | None,
    backup: Path,
    folder: Path | None,
) -> None:
    """Open the identity in BACKUP and write it into a new FOLDER, for a machine that replaces one.

    The old machine must be gone for good: two that are one node contradict each other, and are
    convicted.
    """
    if (folder is None) is not check:
        raise ConfigError(["FOLDER: name one, or say --check"])
    data = read_file(backup / SAFE_FILE, limit=SAFE_MAX_BYTES)
    key = (
        _passphrase(passphrase_file, twice=False)
        if secret is None
        else RecipientSecret(read_private(secret))
    )
    identity = identity_backup.unseal(data, key)
    if folder is not None:
        identity_backup.put_back(identity, folder)
    emit([{"file": name, "bytes": len(item)} for name, item in identity.files.items()], form)
    message(f"{identity.node} of chain {identity.chain.hex()}")
    if folder is not None:
        message("make sure that the old machine is off for good, and look at the paths in")
        message(f"{folder}/hookprobe.yaml; next: hookprobe dsm restore -c {folder}/hookprobe.yaml")
