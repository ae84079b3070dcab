"""What a newcomer's machine may lack, said in one sentence."""

import hashlib
import ssl
import sys
from pathlib import Path
from types import SimpleNamespace

import bootstrap
import pytest

NOTHING = SimpleNamespace(cafile=None, capath=None)


def sentence(caught: pytest.ExceptionInfo[SystemExit]) -> str:
    said = str(caught.value.code)
    assert said.startswith("bootstrap: ")
    assert said.count("\n") == 0
    return said


def test_an_old_or_unknown_python_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for version in ((3, 10, 2), (3, 15, 0)):
        monkeypatch.setattr(sys, "version_info", version)
        with pytest.raises(SystemExit) as caught:
            bootstrap.check_host()
        assert "3.11 to 3.14" in sentence(caught)


def test_a_missing_ca_bundle_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_CERT", raising=False)
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: NOTHING)
    monkeypatch.setattr(Path, "exists", lambda _: False)
    with pytest.raises(SystemExit) as caught:
        bootstrap.check_host()
    assert "apt-get install ca-certificates" in sentence(caught)


def test_a_site_may_bring_its_own_ca(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CERT", "/etc/site-ca.pem")
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: NOTHING)
    bootstrap.check_host()


def test_another_pip_wheel_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wheel = tmp_path / "pip.whl"
    wheel.write_bytes(b"not pip")
    monkeypatch.setattr(bootstrap, "PIP_WHEEL", wheel)
    monkeypatch.setattr(bootstrap, "VENV", tmp_path / "venv")
    with pytest.raises(SystemExit) as caught:
        bootstrap.prepare()
    assert "not the file it should be" in sentence(caught)
    assert not (tmp_path / "venv").exists()


def test_the_wheel_in_the_repository_is_the_named_one() -> None:
    assert hashlib.sha256(bootstrap.PIP_WHEEL.read_bytes()).hexdigest() == bootstrap.PIP_SHA256


def test_an_unknown_task_names_the_known_ones() -> None:
    with pytest.raises(SystemExit) as caught:
        bootstrap.main(["nonsense"])
    assert "demo" in sentence(caught)


def test_a_prepared_checkout_starts_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "prepared").write_text(bootstrap.stamp(), encoding="utf-8")
    monkeypatch.setattr(bootstrap, "VENV", tmp_path)
    monkeypatch.setattr(bootstrap, "run", lambda command: pytest.fail(str(command)))
    bootstrap.prepare()


def test_a_changed_lock_file_prepares_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "prepared").write_text("another stamp", encoding="utf-8")
    monkeypatch.setattr(bootstrap, "VENV", tmp_path)
    commands: list[list[str]] = []
    monkeypatch.setattr(bootstrap, "run", commands.append)
    bootstrap.prepare()
    assert commands[0][3:5] == ["--without-pip", "--clear"]
    assert "--require-hashes" in commands[1]
    assert (tmp_path / "prepared").read_text(encoding="utf-8") == bootstrap.stamp()
