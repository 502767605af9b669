"""Signatures of bundles: by a local key pair, without a network, and only by that key."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeprune.delivery import verify
from edgeprune.errors import InputError, RefusedError, TargetError
from edgeprune.ship.bundle import verify_bundle
from edgeprune.ship.prove import SIGNATURE
from edgeprune.ship.signature import check_signature, sign
from edgeprune_cli.app import main

pytest.importorskip("model_signing")

Captured = pytest.CaptureFixture[str]


def key_pair(folder: Path, name: str) -> tuple[Path, Path]:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    private, public = folder / f"{name}.key", folder / f"{name}.pub"
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    public.write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    return private, public


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    return key_pair(tmp_path, "ours")


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*_: object) -> None:
        raise AssertionError("asked the network")

    monkeypatch.setattr(socket.socket, "connect", connect)


def test_a_signed_bundle_is_verified_by_its_makers_key(
    small_bundle: Path, keys: tuple[Path, Path], capsys: Captured
) -> None:
    assert main(["sign", str(small_bundle), "--key", str(keys[0])]) == 0
    assert main(["verify", str(small_bundle), "--key", str(keys[1])]) == 0
    assert "signature valid" in capsys.readouterr().err
    assert verify(small_bundle).signature == "not checked"


def test_a_copy_by_another_name_is_as_good(small_bundle: Path, keys: tuple[Path, Path]) -> None:
    sign(small_bundle, keys[0])
    copy = shutil.copytree(small_bundle, small_bundle.parent / "elsewhere")
    check_signature(Path(copy), keys[1])


def test_a_bundle_is_signed_anew_in_place(small_bundle: Path, keys: tuple[Path, Path]) -> None:
    other = key_pair(small_bundle.parent, "theirs")
    sign(small_bundle, other[0])
    sign(small_bundle, keys[0])
    check_signature(small_bundle, keys[1])
    verify_bundle(small_bundle)
    assert sorted(path.name for path in small_bundle.parent.iterdir()) == [
        "bundle",
        "theirs.key",
        "theirs.pub",
    ]


def test_another_key_is_refused(
    small_bundle: Path, keys: tuple[Path, Path], capsys: Captured
) -> None:
    sign(small_bundle, keys[0])
    _, public = key_pair(small_bundle.parent, "theirs")
    assert main(["verify", str(small_bundle), "--key", str(public)]) == 6
    assert "not a signature of it by the owner of" in capsys.readouterr().err


def test_a_bundle_without_a_signature_is_refused_where_a_key_is_given(
    small_bundle: Path, keys: tuple[Path, Path]
) -> None:
    with pytest.raises(RefusedError, match="is not signed"):
        verify(small_bundle, key=keys[1])


def test_a_manifest_that_was_forged_whole_is_found_by_the_signature(
    small_bundle: Path, keys: tuple[Path, Path]
) -> None:
    from edgeprune.ship import prove

    sign(small_bundle, keys[0])
    manifest = json.loads((small_bundle / prove.MANIFEST).read_text())
    del manifest["sha256"]
    manifest["score"] = 1.0
    manifest["sha256"] = prove.digest(manifest)
    (small_bundle / prove.MANIFEST).write_bytes(prove.written(manifest))
    verify_bundle(small_bundle)  # the hashes alone find nothing
    with pytest.raises(RefusedError, match="not a signature of it"):
        check_signature(small_bundle, keys[1])


def emptied(path: Path) -> None:
    path.write_text("")


def text(path: Path) -> None:
    path.write_text("signed: yes")


def other_payload(path: Path) -> None:
    told = json.loads(path.read_text())
    payload = base64.b64decode(told["dsseEnvelope"]["payload"])
    changed = base64.b64encode(payload.replace(b"config.json", b"config.jsom")).decode()
    path.write_text(
        json.dumps(told | {"dsseEnvelope": told["dsseEnvelope"] | {"payload": changed}})
    )


def behind_a_link(path: Path) -> None:
    path.rename(path.parent.parent / path.name)
    path.symlink_to(path.parent.parent / path.name)


@pytest.mark.parametrize("spoil", [emptied, text, other_payload, behind_a_link])
def test_a_signature_that_was_changed_is_refused(
    small_bundle: Path, keys: tuple[Path, Path], spoil: Callable[[Path], None]
) -> None:
    sign(small_bundle, keys[0])
    spoil(small_bundle / SIGNATURE)
    with pytest.raises(RefusedError):
        check_signature(small_bundle, keys[1])


def test_a_spoiled_bundle_is_not_signed(small_bundle: Path, keys: tuple[Path, Path]) -> None:
    (small_bundle / "config.json").write_text("{}")
    with pytest.raises(RefusedError, match="its hash differs"):
        sign(small_bundle, keys[0])
    assert not (small_bundle / SIGNATURE).exists()


@pytest.mark.parametrize("kind", ["missing", "text", "public", "rsa"])
def test_what_is_no_private_key_is_told(
    small_bundle: Path, keys: tuple[Path, Path], tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "key.pem"
    if kind == "text":
        path.write_text("secret")
    elif kind == "public":
        path = keys[1]
    elif kind == "rsa":
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import rsa

        made = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        path.write_bytes(made.private_bytes(pem, pkcs8, serialization.NoEncryption()))
    with pytest.raises(InputError, match="make a pair: openssl"):
        sign(small_bundle, path)


def test_without_the_extra_it_is_told_what_to_install(
    small_bundle: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "model_signing", None)
    with pytest.raises(TargetError, match=r"pip install 'edgeprune\[sign\]'"):
        sign(small_bundle, keys[0])


def test_what_is_no_public_key_is_told(small_bundle: Path, keys: tuple[Path, Path]) -> None:
    sign(small_bundle, keys[0])
    with pytest.raises(InputError, match="not a public elliptic curve key"):
        check_signature(small_bundle, keys[0])
