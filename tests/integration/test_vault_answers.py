"""What no healthy Vault answers: redirects, failures that pass, and bytes that are no answer."""

import time

import pytest

from harness import KEK, CtlError, Rekeyd, people_policy
from scripted_vault import ScriptedVault

DATA_KEY = f"transit/datakey/plaintext/{KEK}"
LOGIN = "auth/approle/login"
QUICK = {"retry_timeout_ms": 4000, "request_timeout_ms": 1000, "connect_timeout_ms": 1000}


@pytest.fixture
def scripted(vault):
    with ScriptedVault(vault) as scripted:
        yield scripted


@pytest.fixture
def configured(vault, scripted, single_member_set, tmp_path, db_name):
    """configured(**vault settings): rekeyctl over the scripted server; rekeyd is not started."""

    def configured(**changes):
        changes = {"addresses": [scripted.address], **QUICK, **changes}
        settings = vault.settings(tmp_path / "secrets", **changes)
        policies = [people_policy(db_name)]
        return Rekeyd(single_member_set, policies, settings, tmp_path / "rekeyd")

    return configured


def rotates(rekeyd) -> bool:
    return rekeyd.ctl("keys", "rotate") == {"keyId": 1}


def refusal(rekeyd) -> str:
    with pytest.raises(CtlError) as failure:
        rekeyd.ctl("keys", "rotate")
    rekeyd.check()
    return str(failure.value)


def error(status, text="out of order"):
    return status, {}, b'{"errors":["%s"]}' % text.encode()


@pytest.mark.parametrize("status", [412, 429, 472, 473, 500, 502, 503, 504])
@pytest.mark.parametrize("path", [DATA_KEY, LOGIN])
def test_what_passes_is_retried(scripted, configured, status, path):
    scripted.answers[path] = [error(status), error(status)]
    assert rotates(configured())


@pytest.mark.parametrize("status", [400, 404, 405, 413, 418])
@pytest.mark.parametrize("path", [DATA_KEY, LOGIN])
def test_what_does_not_pass_is_told(scripted, configured, status, path):
    scripted.answers[path] = [error(status, "so it is"), error(status, "so it is")]
    assert f"vault: {path}: " in (said := refusal(configured())) and "so it is" in said
    assert len(scripted.answers[path]) == 1


def test_forbidden_logs_in_again_once(scripted, configured):
    scripted.answers[DATA_KEY] = [error(403, "permission denied")]
    assert rotates(configured())
    assert [path for path, _ in scripted.requests].count(LOGIN) == 2


def test_forbidden_for_good(scripted, configured):
    scripted.answers[DATA_KEY] = [error(403, "permission denied")] * 3
    assert "must allow update on this path" in refusal(configured())
    assert len(scripted.answers[DATA_KEY]) == 1


def test_retry_after_is_obeyed(scripted, configured):
    scripted.answers[DATA_KEY] = [(429, {"Retry-After": "2"}, b"{}")]
    started = time.monotonic()
    assert rotates(configured())
    assert time.monotonic() - started >= 2


def test_failing_for_long_is_given_up(scripted, configured):
    scripted.answers[DATA_KEY] = [error(500, "still broken")] * 1000
    said = refusal(configured())
    assert "still broken; given up after 4000 ms" in said


def test_redirect_to_a_listed_host(vault, scripted, configured):
    location = {"Location": f"{vault.address}/v1/{DATA_KEY}"}
    scripted.answers[DATA_KEY] = [(307, location, b"")]
    host = vault.address.removeprefix("https://")
    assert rotates(configured(redirect_hosts=[host]))


@pytest.mark.parametrize("spelling", ["{0}/v1/x", "https://user@{1}/v1/x", "http://{1}/v1/x"])
def test_redirect_to_a_stranger(vault, scripted, configured, spelling):
    """The token goes to nobody who is not listed."""
    with ScriptedVault(vault) as stranger:
        host = stranger.address.removeprefix("https://")
        location = {"Location": spelling.format(stranger.address, host)}
        scripted.answers[DATA_KEY] = [(307, location, b"")]
        assert "neither in keys.vault.addresses nor" in refusal(configured())
        assert stranger.requests == []


def test_redirects_without_end(scripted, configured):
    location = {"Location": f"{scripted.address}/v1/{DATA_KEY}"}
    scripted.answers[DATA_KEY] = [(307, location, b"")] * 1000
    assert "given up after" in refusal(configured())


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"<html>",
        b"{}",
        b'{"data":7}',
        b'{"data":{"plaintext":7,"ciphertext":"vault:v1:abc"}}',
        b'{"data":{"plaintext":"AAAA","ciphertext":"vault:v1:abc"}}',
        b'{"data":{"plaintext":"%s","ciphertext":"vault:v1:abc"}}' % (b"!" * 43 + b"="),
        b'{"data":{"plaintext":"%s","ciphertext":"abc"}}' % (b"A" * 43 + b"="),
        b'{"data":{"plaintext":"%s","ciphertext":"vault:vx:abc"}}' % (b"A" * 43 + b"="),
        b'{"data":{"plaintext":"%s","ciphertext":"vault:v0:abc"}}' % (b"A" * 43 + b"="),
        b'{"data":{"plaintext":"%s","ciphertext":"vault:v1:%s"}}' % (b"A" * 43 + b"=", b"x" * 600),
        b'{"data":{"plaintext":"\xff","ciphertext":"vault:v1:abc"}}',
        b"[" * 100000,
    ],
    ids=range(16),
)
def test_answers_that_are_none(scripted, configured, body):
    scripted.answers[DATA_KEY] = [(200, {}, body)]
    assert "vault" in refusal(configured()).lower()


@pytest.mark.parametrize("body", [b"", b"{}", b'{"auth":{"client_token":""}}', b'{"auth":[]}'])
def test_logins_without_a_token(scripted, configured, body):
    scripted.answers[LOGIN] = [(200, {}, body)]
    assert "holds no token" in refusal(configured())


def test_answer_over_the_limit(scripted, configured):
    scripted.answers[DATA_KEY] = [(200, {}, b" " * 70000)]
    said = refusal(configured(response_bytes_max=65536))
    assert "larger than keys.vault.response_bytes_max" in said


def test_connections_that_end_in_the_middle(scripted, configured):
    def half(handler):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")

    scripted.answers[DATA_KEY] = [half, half, lambda handler: None]
    assert rotates(configured())


def test_silence_is_not_waited_for(scripted, configured):
    def silent(handler):
        time.sleep(2)

    scripted.answers[DATA_KEY] = [silent]
    assert rotates(configured())
