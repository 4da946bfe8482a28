"""How Rekey comes to Vault and leaves it: client certificates, namespaces, the end of its token."""

import time

import pytest
from harness import Certificates, CtlError, Rekeyd, Vault, VaultError, people_policy
from scripted_vault import ScriptedVault

LOGIN = "auth/approle/login"
REVOKE = "auth/token/revoke-self"
QUICK = {"retry_timeout_ms": 3000, "request_timeout_ms": 2000, "connect_timeout_ms": 1000}


@pytest.fixture(scope="module")
def vault(tmp_path_factory):
    """One that takes no connection without a client certificate."""
    with Vault(tmp_path_factory.mktemp("vault"), mutual=True) as vault:
        yield vault


@pytest.fixture(scope="module")
def open_vault(tmp_path_factory):
    with Vault(tmp_path_factory.mktemp("open_vault"), name="open_vault") as vault:
        yield vault


@pytest.fixture
def scripted(open_vault):
    with ScriptedVault(open_vault) as scripted:
        yield scripted


@pytest.fixture
def configured(single_member_set, tmp_path, db_name):
    """configured(vault, **vault settings): rekeyd, not started."""
    made = []

    def configured(vault, **changes):
        settings = vault.settings(tmp_path / "secrets", **{**QUICK, **changes})
        rekeyd = Rekeyd(single_member_set, [people_policy(db_name)], settings, tmp_path / "rekeyd")
        made.append(rekeyd)
        return rekeyd

    yield configured
    for rekeyd in made:
        rekeyd.finish()


def first_token(scripted) -> str:
    return next(token for _, token in scripted.requests if token)


def is_valid(vault, token) -> bool:
    try:
        vault.api("GET", "auth/token/lookup-self", token=token)
    except VaultError as refused:
        assert refused.status == 403
        return False
    return True


# Client certificates.


def test_client_certificate(vault, configured):
    rekeyd = configured(vault, cert_file=vault.certificates.issue("rekey"))
    assert rekeyd.ctl("keys", "rotate") == {"keyId": 1}


@pytest.mark.parametrize("whose", ["nobody's", "a stranger's", "an expired one"])
def test_wrong_client_certificate(vault, configured, tmp_path, whose):
    others = Certificates(tmp_path / "others", "another CA")
    changes = {
        "nobody's": {},
        "a stranger's": {"cert_file": others.issue("rekey")},
        "an expired one": {"cert_file": vault.certificates.issue("old", expired=True)},
    }
    with pytest.raises(CtlError) as refused:
        configured(vault, **changes[whose]).ctl("keys", "rotate")
    assert "vault" in str(refused.value)


def test_client_certificate_that_cannot_be_read(vault, configured, tmp_path):
    with pytest.raises(CtlError) as refused:
        configured(vault, cert_file=str(tmp_path / "none.pem")).ctl("keys", "rotate")
    assert "none.pem" in str(refused.value)


# Namespaces, which only Vault Enterprise knows: the header is what there is to look at.


@pytest.mark.parametrize("namespace", [None, "health/phi"])
def test_namespace(open_vault, scripted, configured, namespace):
    rekeyd = configured(open_vault, addresses=[scripted.address], namespace=namespace)
    assert rekeyd.ctl("keys", "rotate") == {"keyId": 1}
    told = {ns for path, ns in scripted.namespaces if path != "sys/health"}
    assert told == {namespace} and LOGIN in dict(scripted.namespaces)
    assert {ns for path, ns in scripted.namespaces if path == "sys/health"} <= {None}


# The end of the token.


def test_token_is_revoked_at_the_end(open_vault, scripted, configured):
    rekeyd = configured(open_vault, addresses=[scripted.address]).start()
    rekeyd.wait_event("key_loaded")
    token = first_token(scripted)
    assert is_valid(open_vault, token)
    rekeyd.terminate()
    assert rekeyd.events("vault_token_revoked")
    assert not is_valid(open_vault, token)


def test_rekeyctl_leaves_no_token_behind(open_vault, scripted, configured):
    assert configured(open_vault, addresses=[scripted.address]).ctl("keys", "rotate") == {"keyId": 1}
    assert not is_valid(open_vault, first_token(scripted))


def test_token_from_a_file_is_left_alone(open_vault, scripted, configured, tmp_path):
    token = open_vault.token(ttl="1h")
    path = tmp_path / "token"
    path.touch(0o600)
    path.write_text(token)
    others = {"auth": "token_file", "token_file": str(path), "role_id": None, "secret_id_file": None}
    rekeyd = configured(open_vault, addresses=[scripted.address], **others)
    assert rekeyd.ctl("keys", "rotate") == {"keyId": 1}
    assert is_valid(open_vault, token) and REVOKE not in dict(scripted.requests)


def test_revocation_can_be_turned_off(open_vault, scripted, configured):
    rekeyd = configured(open_vault, addresses=[scripted.address], revoke_timeout_ms=0)
    assert rekeyd.ctl("keys", "rotate") == {"keyId": 1}
    assert is_valid(open_vault, first_token(scripted))


@pytest.mark.tsan
def test_the_end_does_not_wait_for_ever(open_vault, scripted, configured):
    def dawdle(_):
        time.sleep(8)
        return 204, {}, b""

    scripted.answers[REVOKE] = [dawdle]
    rekeyd = configured(
        open_vault, addresses=[scripted.address], revoke_timeout_ms=500, request_timeout_ms=20000
    ).start()
    rekeyd.wait_event("key_loaded")
    rekeyd.terminate()
    (failed,) = rekeyd.events("vault_revocation_failed")
    assert "shutting down" in failed["reason"]
