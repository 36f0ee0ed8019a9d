"""`troupe pull` from buckets: moto's S3 server, credentials from everywhere."""

import contextlib
import http.server
import json
import os
import pathlib
import socket
import subprocess
import sys
import threading

import boto3
import httpx
import pytest

from cluster import free_ports, wait_for
from hub import content_of, pull, pull_environment

KEY = {"AWS_ACCESS_KEY_ID": "AKIACANARY4711",
       "AWS_SECRET_ACCESS_KEY": "secret/canary+4711"}
LARGE = content_of(20_000_000)
FILES = {"config.json": b'{"architectures": ["None"]}',
         "model.safetensors": LARGE, "1_Pooling/config.json": b"{}",
         "optimizer.pt": b"x"}


class Moto:
    """moto's server in a process of its own."""

    def __init__(self):
        self.url = f"http://127.0.0.1:{free_ports(1)[0]}"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p",
             self.url.rsplit(":", 1)[1]], stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "MOTO_S3_DEFAULT_MAX_KEYS": "5"})
        wait_for(self._answers, "moto does not answer")
        self.key = KEY

    def _answers(self):
        try:
            return httpx.get(f"{self.url}/moto-api/data.json",
                             trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    def _post(self, path, body):
        answer = httpx.post(self.url + path, content=body, trust_env=False)
        assert answer.status_code == 200, answer.text

    def client(self, service):
        return boto3.client(
            service, endpoint_url=self.url, region_name="us-east-1",
            aws_access_key_id=self.key["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.key["AWS_SECRET_ACCESS_KEY"])

    @contextlib.contextmanager
    def checking_keys(self):
        """Meanwhile requests must be signed by the key that it gives, and the
        signature must be right."""
        self.key = self._make_user()
        self._post("/moto-api/reset-auth", b"0")
        try:
            yield self.key
        finally:
            self._post("/moto-api/reset-auth", b"inf")
            self.key = KEY

    def _make_user(self):
        iam = self.client("iam")
        iam.create_user(UserName="reader")
        iam.put_user_policy(
            UserName="reader", PolicyName="all", PolicyDocument=json.dumps({
                "Version": "2012-10-17", "Statement": [
                    {"Effect": "Allow", "Action": "*", "Resource": "*"}]}))
        made = iam.create_access_key(UserName="reader")["AccessKey"]
        return {"AWS_ACCESS_KEY_ID": made["AccessKeyId"],
                "AWS_SECRET_ACCESS_KEY": made["SecretAccessKey"]}

    def put(self, bucket, files, acl="private"):
        s3 = self.client("s3")
        s3.create_bucket(Bucket=bucket, ACL=acl)
        for name, content in files.items():
            s3.put_object(Bucket=bucket, Key=name, Body=content, ACL=acl)

    def close(self):
        self.process.kill()
        self.process.wait()


class Relay:
    """Passes connections on to a server, counts what comes back, and cuts the
    first ones off after so many bytes."""

    def __init__(self, url, cuts=()):
        self.target = int(url.rsplit(":", 1)[1])
        self.cuts = list(cuts)
        self.bytes = 0
        self.heads = []
        self.server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.server.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                client, _ = self.server.accept()
            except OSError:
                return
            there = socket.create_connection(("127.0.0.1", self.target))
            threading.Thread(target=self._requests, args=(client, there),
                             daemon=True).start()
            threading.Thread(target=self._answers, args=(there, client),
                             daemon=True).start()

    def _requests(self, client, there):
        while data := self._read(client):
            self.heads.append(data.decode("latin-1"))
            there.sendall(data)

    def _answers(self, there, client):
        passed = 0
        while data := self._read(there):
            limit = self.cuts[0] if self.cuts else None
            if limit is not None and passed + len(data) > limit:
                self.cuts.pop(0)
                data = data[:limit - passed]
                client.sendall(data)
                self.bytes += len(data)
                break
            passed += len(data)
            self.bytes += len(data)
            try:
                client.sendall(data)
            except OSError:
                break
        for one in (client, there):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    @staticmethod
    def _read(connection):
        try:
            return connection.recv(1 << 16)
        except OSError:
            return b""

    def close(self):
        self.server.shutdown(socket.SHUT_RDWR)  # wakes who accepts
        self.server.close()


@pytest.fixture(scope="module")
def moto():
    one = Moto()
    one.put("models", {f"some/model/{name}": content
                       for name, content in FILES.items()})
    one.put("quants", {"m.Q4_0.gguf": b"GGUF4", "m.Q8_0.gguf": b"GGUF8",
                       **{f"other/{i}": b"" for i in range(11)}})
    yield one
    one.close()


@pytest.fixture
def environment(tmp_path, moto):
    return pull_environment(tmp_path, AWS_ENDPOINT_URL=moto.url, **KEY)


def pulled(said):
    assert said.returncode == 0, said.stderr
    path = pathlib.Path(said.stdout.strip())
    for name, content in FILES.items():
        if name == "optimizer.pt":
            assert not (path / name).exists()
        else:
            assert (path / name).read_bytes() == content
    return path


def test_a_prefix_is_fetched_once(tmp_path, moto, environment):
    path = pulled(pull(environment, "s3://models/some/model"))
    assert tmp_path / "own/models" in path.parents
    relay = Relay(moto.url)
    # Another endpoint is another place in the cache.
    environment["AWS_ENDPOINT_URL"] = relay.url
    other = pulled(pull(environment, "s3://models/some/model"))
    assert other != path
    assert relay.bytes > len(LARGE)
    relay.bytes = 0
    relay.heads.clear()
    pulled(pull(environment, "s3://models/some/model/"))
    assert relay.bytes < 10_000
    assert all(head.startswith("GET /models?") for head in relay.heads)
    relay.close()
    offline = {**environment, "HF_HUB_OFFLINE": "1"}
    pulled(pull(offline, "s3://models/some/model"))
    said = pull(environment, "s3://models/some/model")
    pulled(said)
    assert "using what the cache has" in said.stderr


def test_what_came_before_a_cut_is_not_fetched_again(moto, environment):
    relay = Relay(moto.url, cuts=[10_000_000, 3_000_000, 100_000])
    environment["AWS_ENDPOINT_URL"] = relay.url
    pulled(pull(environment, "s3://models/some/model"))
    assert relay.cuts == []
    # Buffers under way when it cut, and the small files.
    assert relay.bytes < len(LARGE) + 4_000_000
    relay.close()


def test_a_long_list_is_read_to_its_end(environment):
    said = pull(environment, "s3://quants:Q8_0")
    assert said.returncode == 0, said.stderr
    assert pathlib.Path(said.stdout.strip()).read_bytes() == b"GGUF8"
    said = pull(environment, "s3://quants/m.Q4_0.gguf")
    assert said.returncode == 0, said.stderr
    assert pathlib.Path(said.stdout.strip()).read_bytes() == b"GGUF4"


def test_google_is_asked_in_the_same_words(tmp_path, moto):
    environment = pull_environment(
        tmp_path, STORAGE_EMULATOR_HOST=moto.url, GS_ACCESS_KEY_ID="GOOG1",
        GS_SECRET_ACCESS_KEY="canary")
    pulled(pull(environment, "gs://models/some/model"))


def test_what_is_not_there_is_told(moto, environment):
    for model, word in [("s3://nothing/x", "no such bucket"),
                        ("s3://models/nothing", "nothing is there")]:
        said = pull(environment, model)
        assert said.returncode == 1 and word in said.stderr, said.stderr


def test_a_changed_object_is_another_version(moto, environment):
    moto.put("changing", {"config.json": b"{}", "model.safetensors": b"one"})
    first = pull(environment, "s3://changing").stdout.strip()
    moto.client("s3").put_object(Bucket="changing", Key="model.safetensors",
                                 Body=b"two!")
    second = pull(environment, "s3://changing").stdout.strip()
    assert first != second
    assert pathlib.Path(first, "model.safetensors").read_bytes() == b"one"
    assert pathlib.Path(second, "model.safetensors").read_bytes() == b"two!"


def test_verify_says_what_no_hash_is_known_of(moto, environment):
    moto.put("hashes", {"config.json": b"{}"})
    s3 = moto.client("s3")
    parts = {"Bucket": "hashes", "Key": "model.safetensors"}
    parts["UploadId"] = s3.create_multipart_upload(**parts)["UploadId"]
    etag = s3.upload_part(PartNumber=1, Body=b"weights", **parts)["ETag"]
    s3.complete_multipart_upload(
        MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": etag}]}, **parts)
    path = pathlib.Path(pull(environment, "s3://hashes").stdout.strip())
    (path / "config.json").write_bytes(b"[]")
    (path / "model.safetensors").write_bytes(b"WEIGHTS")
    said = pull(environment, "s3://hashes", "--verify")
    assert said.returncode == 0, said.stderr
    assert "config.json was broken and was fetched anew" in said.stderr
    assert "model.safetensors: no hash is known" in said.stderr
    assert (path / "config.json").read_bytes() == b"{}"
    said = pull(environment, "s3://hashes", "--verify")
    assert "broken" not in said.stderr and "whole" not in said.stderr


class Machine(http.server.ThreadingHTTPServer):
    """What a machine's metadata service and a container's answer."""

    def __init__(self, key, expected):
        self.answers = 0
        body = json.dumps({
            "AccessKeyId": key["AWS_ACCESS_KEY_ID"],
            "SecretAccessKey": key["AWS_SECRET_ACCESS_KEY"], "Token": "",
            "Expiration": "2999-01-01T00:00:00Z"})
        machine = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_PUT(self):
                self.reply(200 if self.path == "/latest/api/token" and
                           "X-aws-ec2-metadata-token-ttl-seconds"
                           in self.headers else 400, "metadata-token")

            def do_GET(self):
                path = "/latest/meta-data/iam/security-credentials/"
                if self.headers.get(expected[0]) != expected[1]:
                    self.reply(401, "")
                elif self.path == path:
                    self.reply(200, "the-role")
                elif self.path in (path + "the-role", "/container"):
                    machine.answers += 1
                    self.reply(200, body)
                else:
                    self.reply(404, "")

            def reply(self, status, text):
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()


def test_keys_come_from_everywhere_and_signatures_are_right(tmp_path, moto):
    with moto.checking_keys() as key:
        machine = Machine(key, ("X-aws-ec2-metadata-token", "metadata-token"))
        container = Machine(key, ("Authorization", "container-token"))
        base = {"AWS_ENDPOINT_URL": moto.url}
        for i, (more, word) in enumerate([
                (key, ""),
                ({"AWS_EC2_METADATA_DISABLED": "false",
                  "AWS_EC2_METADATA_SERVICE_ENDPOINT": machine.url}, ""),
                ({"AWS_CONTAINER_CREDENTIALS_FULL_URI":
                  container.url + "/container",
                  "AWS_CONTAINER_AUTHORIZATION_TOKEN": "container-token"}, ""),
                ({**key, "AWS_SECRET_ACCESS_KEY": "canary"}, "denied"),
                ({"AWS_CONTAINER_CREDENTIALS_FULL_URI":
                  "http://203.0.113.1/container"}, "must be https://")]):
            environment = pull_environment(tmp_path / str(i), **base, **more)
            said = pull(environment, "s3://models/some/model")
            if word:
                assert said.returncode == 1, more
                assert word in said.stderr
            else:
                pulled(said)
            for secret in ("canary", key["AWS_SECRET_ACCESS_KEY"]):
                assert secret not in said.stderr
        assert machine.answers == container.answers == 1


class GoogleMachine(http.server.ThreadingHTTPServer):
    """What a machine of Google's says of its service account."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            known = self.headers.get("Metadata-Flavor") == "Google" and \
                self.path == ("/computeMetadata/v1/instance/service-accounts/"
                              "default/token")
            body = b'{"access_token":"canary","expires_in":3599}'
            self.send_response(200 if known else 403)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def __init__(self):
        super().__init__(("127.0.0.1", 0), self.Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()


def test_a_machine_of_googles_has_a_token_of_its_own(tmp_path, moto):
    relay = Relay(moto.url)
    machine = GoogleMachine()
    said = pull(pull_environment(
        tmp_path, STORAGE_EMULATOR_HOST=relay.url,
        GCE_METADATA_HOST=f"127.0.0.1:{machine.server_port}"),
        "gs://quants/m.Q4_0.gguf")
    assert said.returncode == 0, said.stderr
    assert relay.heads
    assert all("Authorization: Bearer canary" in head for head in relay.heads)
    relay.close()
    machine.shutdown()
    machine.server_close()


def test_an_anonymous_pull_signs_nothing(tmp_path, moto, environment):
    moto.put("public", {f"model/{name}": content
                        for name, content in FILES.items()}, "public-read")
    relay = Relay(moto.url)
    environment["AWS_ENDPOINT_URL"] = relay.url
    pulled(pull(environment, "s3://anonymous@public/model"))
    assert relay.heads
    assert not any("authorization" in head.lower() for head in relay.heads)
    relay.close()
    said = pull(environment | {"AWS_ENDPOINT_URL": moto.url},
                "s3://anonymous@models/some/model")
    assert said.returncode == 1 and "anonymously" in said.stderr
    no_keys = pull_environment(tmp_path, AWS_ENDPOINT_URL=moto.url)
    said = pull(no_keys, "s3://models/some/model")
    assert said.returncode == 1 and "where keys are looked for" in said.stderr
