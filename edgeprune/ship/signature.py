"""Who made a bundle: a detached OpenSSF model signature by a local key pair, beside the files.

The signature is of every other file of the bundle, the manifest included, and needs no network.
Made and checked by the model-signing package, whose own command reads it too.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from edgeprune.errors import InputError, RefusedError, TargetError
from edgeprune.ship.bundle import verify_bundle
from edgeprune.ship.prove import SIGNATURE

KEYS = (
    "openssl ecparam -name prime256v1 -genkey -noout -out key.pem; openssl ec -in key.pem -pubout"
)


def sign(bundle: Path, private_key: Path) -> Path:
    """Write the signature of a whole bundle into it; an older one is replaced.

    `private_key` is a PEM file with an elliptic curve key. Raises InputError for another,
    OnnxError, RefusedError for a bundle that is not as it was written, TargetError without the
    `sign` extra.
    """
    library = _library()
    verify_bundle(bundle)
    try:
        signer = library.signing.Config().use_elliptic_key_signer(private_key=private_key)
    except Exception as error:  # cryptography and model-signing raise what they like for a bad key
        raise _unlike_a_key(private_key, "private", error) from error
    # Written elsewhere first: a half signature in the bundle would refuse it until it is removed.
    with tempfile.TemporaryDirectory(dir=bundle.resolve().parent, prefix=".sign.") as temporary:
        made = Path(temporary) / SIGNATURE
        signer.set_hashing_config(_hashed(library)).sign(bundle, made)
        return made.replace(bundle / SIGNATURE)


def check_signature(bundle: Path, public_key: Path) -> None:
    """Raises RefusedError unless the bundle bears a signature by this key's owner.

    Raises InputError for a file that is no public key, TargetError without the `sign` extra.
    """
    library = _library()
    try:
        verifier = library.verifying.Config().use_elliptic_key_verifier(public_key=public_key)
    except Exception as error:  # as in `sign`
        raise _unlike_a_key(public_key, "public", error) from error
    path = bundle / SIGNATURE
    if path.is_symlink() or not path.is_file():
        raise RefusedError(f"bundle {bundle}", why="is not signed")
    try:
        verifier.set_hashing_config(_hashed(library)).verify(bundle, path)
    except Exception as error:  # as in `sign`; whatever it is, the signature does not hold
        raise RefusedError(
            f"bundle {bundle}: {SIGNATURE}",
            why=f"not a signature of it by the owner of {public_key}",
            remedy="ask for the bundle, or for the key, at its source",
        ) from error


def _hashed(library: ModuleType) -> Any:
    """All files but the signature itself; `.git` and its kin are nothing that a bundle holds."""
    return library.hashing.Config().set_ignored_paths(paths=[SIGNATURE], ignore_git_paths=False)


def _library() -> ModuleType:
    try:
        import model_signing
    except ImportError as error:
        why, remedy = f"needs {error.name}, not installed", "pip install 'edgeprune[sign]'"
        raise TargetError("a signature", why=why, remedy=remedy) from error
    return model_signing


def _unlike_a_key(path: Path, kind: str, error: Exception) -> InputError:
    why = error.strerror if isinstance(error, OSError) else f"not a {kind} elliptic curve key, PEM"
    return InputError(f"key {path}", why=why or str(error), remedy=f"make a pair: {KEYS}")
