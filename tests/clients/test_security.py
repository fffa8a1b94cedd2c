"""Clients that are not ours, through TLS and with a key: requests, curl, Triton's over HTTP and gRPC, and Python's ssl."""
import json
import pathlib
import shutil
import socket
import ssl
import subprocess
import time

import numpy as np
import pytest
import requests
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from tritonclient.utils import InferenceServerException

from conftest import ROOT, served

CAT = (ROOT / "tests" / "golden" / "inputs" / "cat.jpg").read_bytes()
KEY = "a-key-of-24-characters-x"
BEARER = {"Authorization": f"Bearer {KEY}"}
MODEL = "resnet20-cifar10"


@pytest.fixture(scope="module")
def secured(tmp_path_factory):
    """A server under TLS with a key, a port for its operators, and the certificate that clients trust."""
    folder = tmp_path_factory.mktemp("secrets")
    certificate, key, keys = folder / "cert.pem", folder / "key.pem", folder / "keys"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command.split() + names, check=True, capture_output=True)
    keys.write_text(f"# clients\ntests: {KEY}\n")
    flags = ["--tls-cert", str(certificate), "--tls-key", str(key), "--api-keys-file", str(keys), "--admin-port", "0"]
    with served(*flags) as running:
        yield running, certificate


def test_requests_needs_the_certificate_and_the_key(secured):
    running, certificate = secured
    url = f"{running.url}/api/v1/classify"
    with pytest.raises(requests.exceptions.SSLError):
        requests.post(url, data=CAT, headers=BEARER)
    refused = requests.post(url, data=CAT, verify=str(certificate))
    assert (refused.status_code, refused.json()["code"]) == (401, "unauthorized")
    assert refused.headers["www-authenticate"] == "Bearer"
    answer = requests.post(url, data=CAT, verify=str(certificate), headers=BEARER)
    assert answer.json()["predictions"][0]["label"] == "cat"
    assert answer.headers["strict-transport-security"].startswith("max-age=")


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl here")
def test_curl_classifies_through_tls(secured):
    running, certificate = secured
    command = ["curl", "-sS", "--cacert", str(certificate), "-H", f"Authorization: Bearer {KEY}"]
    photo = ["--data-binary", f"@{ROOT / 'tests/golden/inputs/cat.jpg'}", f"{running.url}/api/v1/classify"]
    answer = subprocess.run(command + photo, check=True, capture_output=True).stdout
    assert json.loads(answer)["predictions"][0]["label"] == "cat"


def photo_input(client):
    tensor = client.InferInput("image", [1, 1], "BYTES")
    tensor.set_data_from_numpy(np.array([[CAT]], dtype=object))
    return [tensor]


def test_tritons_client_over_http(secured):
    running, certificate = secured
    client = triton_http.InferenceServerClient(
        running.url.removeprefix("https://"),
        ssl=True,
        ssl_context_factory=lambda: ssl.create_default_context(cafile=str(certificate)),
    )
    assert client.is_server_ready()  # open to everybody
    with pytest.raises(InferenceServerException):
        client.get_server_metadata()
    answer = client.infer(f"{MODEL}_image", photo_input(triton_http), headers=BEARER)
    assert answer.as_numpy("label")[0][0] == b"cat"
    with pytest.raises(InferenceServerException):
        client.unload_model(MODEL, headers=BEARER)  # on the operators' port alone


def test_tritons_client_over_grpc(secured):
    running, certificate = secured
    address = running.grpc
    client = triton_grpc.InferenceServerClient(address, ssl=True, root_certificates=str(certificate))
    assert client.is_server_ready()
    with pytest.raises(InferenceServerException, match="UNAUTHENTICATED|no API key"):
        client.get_server_metadata()
    metadata = {"authorization": f"Bearer {KEY}"}
    answer = client.infer(f"{MODEL}_image", photo_input(triton_grpc), headers=metadata)
    assert answer.as_numpy("label").ravel()[0] == b"cat"
    client.close()


def test_old_versions_of_tls_are_refused(secured):
    running, _ = secured
    host, port = running.url.removeprefix("https://").split(":")
    for version, works in [(ssl.TLSVersion.TLSv1_2, True), (ssl.TLSVersion.TLSv1_3, True), (ssl.TLSVersion.TLSv1_1, False)]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = version
        with socket.create_connection((host, int(port))) as plain:
            if works:
                with context.wrap_socket(plain) as secure:
                    assert secure.version() == version.name.replace("_", ".")
            else:
                with pytest.raises(ssl.SSLError):
                    context.wrap_socket(plain)


def test_a_certificate_is_replaced_under_a_running_server(tmp_path):
    """Also without a signal: the files are looked at by the clock."""

    def make(folder: pathlib.Path, name):
        folder.mkdir()
        command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2".split()
        out = ["-subj", f"/CN={name}", "-keyout", str(folder / "tls.key"), "-out", str(folder / "tls.crt")]
        subprocess.run(command + out, check=True, capture_output=True)

    make(tmp_path / "first", "first"), make(tmp_path / "second", "second")
    link = tmp_path / "current"
    link.symlink_to("first")

    def name(running):
        host, port = running.url.removeprefix("https://").split(":")
        pem = ssl.get_server_certificate((host, int(port)))
        return subprocess.run(["openssl", "x509", "-noout", "-subject"], input=pem, text=True, capture_output=True).stdout

    with served("--tls-cert", str(link / "tls.crt"), "--tls-key", str(link / "tls.key")) as running:
        assert "first" in name(running)
        following = tmp_path / "following"
        following.symlink_to("second")
        following.rename(link)
        patience = time.monotonic() + 60
        while "second" not in name(running):
            assert time.monotonic() < patience, "the new certificate never came"
