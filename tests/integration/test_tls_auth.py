"""TLS on either side with verification, and SCRAM passing through."""

import socket
import ssl

import pytest
from pymongo import MongoClient
from pymongo.errors import OperationFailure, ServerSelectionTimeoutError

from harness import Certificates, Mongod, Process, Rekeyd, ReplicaSet, policy


@pytest.fixture
def servers_with_tls(certificates, tmp_path):
    with ReplicaSet(1, tmp_path / "rs", certificates=certificates) as servers:
        yield servers


def test_tls_on_both_sides(servers_with_tls, certificates, start_rekeyd, db_name):
    policies = [policy(f"{db_name}.c", {"a": "random"})]
    rekeyd = start_rekeyd(servers_with_tls, policies, listener_certificates=certificates)
    with rekeyd.client() as client, servers_with_tls.client() as direct:
        big = "x" * 3_000_000
        client[db_name].c.insert_one({"_id": 1, "a": "secret", "b": big})
        assert client[db_name].c.find_one()["a"] == "secret"
        assert client[db_name].c.find_one()["b"] == big
        assert direct[db_name].c.find_one()["a"] != "secret"


def test_client_refuses_a_listener_it_cannot_verify(certificates, standalone, start_rekeyd, tmp_path):
    rekeyd = start_rekeyd(standalone, listener_certificates=certificates)
    other = Certificates(tmp_path / "other", "Another CA")
    uri = standalone.uri_for(rekeyd.addresses, other)
    with MongoClient(uri, serverSelectionTimeoutMS=1500) as client:
        with pytest.raises(ServerSelectionTimeoutError, match="certificate"):
            client.admin.command("ping")
    with rekeyd.client() as client:
        assert client.admin.command("ping")["ok"] == 1


def test_plain_client_on_a_tls_listener_is_dropped(certificates, standalone, start_rekeyd):
    rekeyd = start_rekeyd(standalone, listener_certificates=certificates)
    with MongoClient(rekeyd.addresses[0], serverSelectionTimeoutMS=1000) as client:
        with pytest.raises(ServerSelectionTimeoutError):
            client.admin.command("ping")
    assert "TLS handshake" in rekeyd.wait_event("client_failed")["reason"]


@pytest.mark.parametrize("fault", ["wrong_ca", "wrong_host"])
def test_upstream_with_a_bad_certificate_is_refused(certificates, start_rekeyd, tmp_path, fault):
    if fault == "wrong_ca":
        trusted = Certificates(tmp_path / "trusted", "Another CA")
        mongod = Mongod(tmp_path / "mongod", certificates=certificates)
    else:
        trusted = certificates
        misnamed = certificates.issue("misnamed", hosts=("elsewhere.example",))
        args = ["--tlsMode", "requireTLS", "--tlsAllowConnectionsWithoutCertificates"]
        args += ["--tlsCAFile", certificates.ca_file, "--tlsCertificateKeyFile", misnamed]
        mongod = Mongod(tmp_path / "mongod", args=args)
    mongod.spawn()
    try:
        Process.wait_ready(mongod)
        settings = {"upstream": {"tls": {"enabled": True, "ca_file": trusted.ca_file}}}
        rekeyd = start_rekeyd(mongod, settings=settings)
        uri = f"mongodb://{rekeyd.addresses[0]}/?directConnection=true"
        with MongoClient(uri, serverSelectionTimeoutMS=1500) as client:
            with pytest.raises(ServerSelectionTimeoutError):
                client.admin.command("ping")
        assert "certificate" in rekeyd.wait_event("upstream_unreachable")["reason"]
    finally:
        mongod.close()


def test_client_certificates_can_be_demanded(certificates, standalone, start_rekeyd):
    settings = {"listener_tls": {"verify": True, "ca_file": certificates.ca_file}}
    rekeyd = start_rekeyd(standalone, listener_certificates=certificates, settings=settings)
    with rekeyd.client(serverSelectionTimeoutMS=1500) as client:
        with pytest.raises(ServerSelectionTimeoutError):
            client.admin.command("ping")
    with rekeyd.client(tlsCertificateKeyFile=certificates.issue("someone")) as client:
        assert client.admin.command("ping")["ok"] == 1


def test_tls_listener_needs_a_certificate_file_that_exists(certificates, standalone, tmp_path):
    settings = {"listener_tls": {"enabled": True, "cert_file": str(tmp_path / "none.pem")}}
    rekeyd = Rekeyd(standalone, settings=settings)
    status, said = rekeyd.run()
    assert status == 1
    assert "none.pem" in said
    rekeyd.close()


@pytest.fixture(scope="module")
def servers_with_auth(tmp_path_factory):
    with ReplicaSet(1, tmp_path_factory.mktemp("auth"), auth=True) as servers:
        yield servers


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-1", "SCRAM-SHA-256"])
def test_scram_passes_through(servers_with_auth, start_rekeyd, db_name, mechanism):
    rekeyd = start_rekeyd(servers_with_auth, [policy(f"{db_name}.*", {"a": "random"})])
    with rekeyd.client(authMechanism=mechanism) as client:
        client[db_name].c.insert_one({"a": "secret"})
        assert client[db_name].c.find_one()["a"] == "secret"
        users = client.admin.command("connectionStatus")["authInfo"]["authenticatedUsers"]
        assert users == [{"user": servers_with_auth.username, "db": "admin"}]


def test_wrong_password_is_the_servers_answer(servers_with_auth, start_rekeyd):
    rekeyd = start_rekeyd(servers_with_auth)
    uri = rekeyd.uri.replace(servers_with_auth.password, "wrong")
    with MongoClient(uri, serverSelectionTimeoutMS=5000) as client:
        with pytest.raises(OperationFailure) as failure:
            client.admin.command("ping")
        assert failure.value.code == 18


def test_openssl_agrees_on_the_protocol(certificates, standalone, start_rekeyd):
    """TLS 1.1 is refused; 1.2 and newer are taken."""
    rekeyd = start_rekeyd(standalone, listener_certificates=certificates)
    context = ssl.create_default_context(cafile=certificates.ca_file)
    with socket.create_connection(("127.0.0.1", rekeyd.ports[0])) as sock:
        with context.wrap_socket(sock, server_hostname="127.0.0.1") as tls:
            assert tls.version() in ("TLSv1.2", "TLSv1.3")
