"""`troupe pull` from a hub that is slow, fails and lies (hub.py)."""

import contextlib
import os
import pathlib
import pty
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading

import huggingface_hub
import pytest

from cluster import BINARY, wait_for
from hub import (COMMIT, SIGNATURE, TOKEN, Hub, content_of, pull,
                 pull_environment)

SMALL = b'{"architectures": ["None"]}'
LARGE = content_of(20_000_000)  # two chunks
MODEL = "org/model"
WEIGHTS = "model.safetensors"


@pytest.fixture
def hub():
    one = Hub({
        MODEL: {"config.json": SMALL, "tokenizer.json": b"{}",
                WEIGHTS: LARGE, "README.md": b"#", "pytorch_model.bin": b"x"},
        "org/quants": {"m.Q4_0.gguf": b"GGUF4", "m.Q8_0.gguf": b"GGUF8"},
        "org/pickled": {"config.json": SMALL, "pytorch_model.bin": b"x"}})
    yield one
    one.close()


@pytest.fixture
def environment(tmp_path, hub):
    return pull_environment(tmp_path, hub)


def repository(folder, name="models--org--model"):
    return folder / "hf/hub" / name


def blobs(folder):
    return sorted((repository(folder) / "blobs").iterdir())


def pulled(said):
    """The path that a pull printed, which holds the model."""
    assert said.returncode == 0, said.stderr
    path = pathlib.Path(said.stdout.strip())
    assert (path / "config.json").read_bytes() == SMALL
    assert (path / WEIGHTS).read_bytes() == LARGE
    return path


def refused(said):
    assert said.returncode == 1, said.stdout + said.stderr
    assert said.stdout == ""
    return said.stderr


def test_a_model_is_fetched_once_into_the_hubs_own_layout(tmp_path, hub,
                                                          environment):
    path = pulled(pull(environment, MODEL))
    assert path == repository(tmp_path) / "snapshots" / COMMIT
    assert sorted(file.name for file in path.iterdir()) == [
        "config.json", WEIGHTS, "tokenizer.json"]
    for name, file in hub.repositories[MODEL].items():
        if (path / name).exists():
            assert os.readlink(path / name) == f"../../blobs/{file.hash}"
    assert (repository(tmp_path) / "refs/main").read_text() == COMMIT
    assert hub.sent(WEIGHTS) == len(LARGE)
    assert len(hub.gets(WEIGHTS)) == 2 * 2  # ranges, each by way of the hub
    hub.forget()
    assert pulled(pull(environment, MODEL)) == path
    assert [one.path for one in hub.requests] == [
        f"/api/models/{MODEL}/revision/main?blobs=true"]
    hub.forget()
    assert pulled(pull(environment, f"{MODEL}@{COMMIT}")) == path
    assert pulled(pull({**environment, "HF_HUB_OFFLINE": "1"}, MODEL)) == path
    assert hub.requests == []


def test_what_is_there_already_is_said_to_be(tmp_path, hub, environment):
    said = pull(environment, MODEL)
    pulled(said)
    assert f"fetch {WEIGHTS}" in said.stderr and "already" not in said.stderr
    for model, more in [(MODEL, {}), (f"{MODEL}@{COMMIT}", {}),
                        (MODEL, {"HF_HUB_OFFLINE": "1"})]:
        said = pull({**environment, **more}, model)
        pulled(said)
        assert said.stderr == f"{model} is there already\n"
    # Of a part it tells the rest alone.
    (repository(tmp_path) / "blobs" /
     hub.repositories[MODEL]["config.json"].hash).unlink()
    said = pull(environment, MODEL)
    pulled(said)
    assert "fetch config.json" in said.stderr
    assert WEIGHTS not in said.stderr and "already" not in said.stderr


def spoil(path):
    """One bit of a file is another; its size stays."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))


@pytest.mark.parametrize("tells_hashes", [True, False])
@pytest.mark.parametrize("model", [MODEL, f"{MODEL}@{COMMIT}"])
def test_verify_fetches_anew_what_is_broken(hub, environment, model,
                                            tells_hashes):
    hub.tells_hashes = tells_hashes
    path = pulled(pull(environment, MODEL))
    said = pull(environment, model, "--verify")
    pulled(said)
    assert said.stderr.endswith(f"{model} is there and whole\n")
    for name in ("config.json", WEIGHTS):
        spoil(path / name)
    hub.forget()
    opened = (path / WEIGHTS).open("rb")
    assert pull(environment, model).returncode == 0
    assert hub.sent(WEIGHTS) == 0
    said = pull(environment, model, "--verify")
    pulled(said)
    for name in ("config.json", WEIGHTS):
        assert f"{name} was broken and was fetched anew\n" in said.stderr
        assert hub.sent(name) == len(hub.repositories[MODEL][name].content)
    assert "tokenizer.json was broken" not in said.stderr
    assert hub.sent("tokenizer.json") == 0
    with opened:  # who had the old one open keeps it
        assert len(opened.read()) == len(LARGE)


def test_verify_names_a_file_of_another_size(hub, environment):
    path = pulled(pull(environment, MODEL))
    os.truncate(path / WEIGHTS, 10)
    said = pull(environment, MODEL, "--verify")
    pulled(said)
    assert f"{WEIGHTS} was broken and was fetched anew\n" in said.stderr
    assert (path / WEIGHTS).read_bytes() == LARGE


def test_verify_needs_the_hub(hub, environment):
    path = pulled(pull(environment, MODEL))
    spoil(path / WEIGHTS)
    offline = {**environment, "HF_HUB_OFFLINE": "1"}
    assert "verified offline" in refused(pull(offline, MODEL, "--verify"))
    hub.api_status = 503
    for model in (MODEL, f"{MODEL}@{COMMIT}"):
        assert "503" in refused(pull(environment, model, "--verify"))


def test_a_part_of_a_commit_that_others_fetched_is_made_whole(tmp_path, hub,
                                                              environment):
    path = pulled(pull(environment, MODEL))
    (path / "tokenizer.json").unlink()
    pulled(pull(environment, f"{MODEL}@{COMMIT}"))
    assert (path / "tokenizer.json").exists()
    shutil.rmtree(repository(tmp_path) / ".troupe")
    hub.forget()
    pulled(pull(environment, f"{MODEL}@{COMMIT}"))
    assert len(hub.requests) == 1  # for what there is


def test_a_hub_that_tells_no_hashes_is_asked_for_each_file(hub, environment):
    hub.tells_hashes = False
    pulled(pull(environment, MODEL))
    heads = [one for one in hub.requests if one.method == "HEAD"]
    assert len(heads) == 3
    assert all(one.server == "hub" for one in hub.requests
               if one.method == "HEAD")


def test_revision_and_endpoint_are_options(hub, environment):
    del environment["HF_ENDPOINT"]
    pulled(pull(environment, MODEL, "--revision", COMMIT, "--endpoint",
                hub.url))
    assert "no such revision" in refused(
        pull(environment, MODEL, "--revision", "v9", "--endpoint", hub.url))
    for revision in ("x.gguf", "../x", "a b"):
        assert pull(environment, MODEL, "--revision", revision).returncode == 2


def test_the_token_goes_to_the_hub_alone(hub, environment):
    hub.asks_token.add(MODEL)
    environment["HF_TOKEN"] = TOKEN
    said = pull(environment, MODEL)
    pulled(said)
    assert TOKEN not in said.stdout + said.stderr
    assert {one.server for one in hub.requests} == {"hub", "storage"}
    for one in hub.requests:
        sent = one.headers.get("Authorization")
        assert sent == (f"Bearer {TOKEN}" if one.server == "hub" else None)


def test_a_token_may_stand_in_the_hubs_own_file(tmp_path, hub, environment):
    hub.asks_token.add(MODEL)
    assert "set HF_TOKEN" in refused(pull(environment, MODEL))
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf/token").write_text(TOKEN + "\n")
    pulled(pull(environment, MODEL))


def notices_stalls_soon(environment, fault):
    """Only where there is one: a slow machine is none."""
    if fault.startswith(("stall", "trickle")):
        environment["TROUPE_DOWNLOAD_STALL_S"] = "1"


@pytest.mark.parametrize("faults", [
    ["status:500", "status:503"], ["later:1"], ["cut:3000000"],
    ["cut:0", "cut:1"], ["stall:2000000"], ["trickle"], ["change"], ["lie"],
], ids=str)
def test_a_passing_fault_is_got_over(hub, environment, faults):
    notices_stalls_soon(environment, faults[0])
    hub.faults[WEIGHTS] = list(faults)
    pulled(pull(environment, MODEL))
    assert hub.faults[WEIGHTS] == []


@pytest.mark.parametrize("fault", ["cut:3000000", "stall:2000000"])
def test_what_came_before_a_fault_is_not_fetched_again(hub, environment,
                                                       fault):
    notices_stalls_soon(environment, fault)
    hub.faults[WEIGHTS] = [fault] * 3
    pulled(pull(environment, MODEL))
    assert hub.sent(WEIGHTS) == len(LARGE)


@pytest.mark.parametrize("fault, word", [
    ("status:500", "HTTP status 500"), ("lie", "not what was announced"),
    ("change", "not what was announced"), ("cut:0", ""),
    ("loop", "more than 5 redirects"), ("page", "not the range"),
    ("later:3600", "come back in 3600 s"), ("to:file:///etc/passwd", "web"),
    ("to:gopher://127.0.0.1/", "web"), ("status:404", "no such")])
def test_a_lasting_fault_names_the_file_and_leaves_nothing(tmp_path, hub,
                                                           environment, fault,
                                                           word):
    hub.every[WEIGHTS] = fault
    if fault == "change":
        hub.every[WEIGHTS] = "lie"
        hub.faults[WEIGHTS] = ["change"]
    text = refused(pull(environment, MODEL))
    assert word in text and WEIGHTS in text
    assert SIGNATURE not in text
    assert hub.repositories[MODEL][WEIGHTS].hash not in [
        file.name for file in blobs(tmp_path)]
    assert not (repository(tmp_path) / "snapshots" / COMMIT / WEIGHTS).exists()
    # Bounded: three tries of four connections, six hops each, and once anew.
    assert len(hub.gets(WEIGHTS)) <= 2 * 3 * 4 * 6
    hub.every.clear()
    hub.faults.clear()
    pulled(pull(environment, MODEL))


def test_a_hub_that_is_down_does_not_matter_if_the_cache_has_it(hub,
                                                                environment):
    pulled(pull(environment, MODEL))
    hub.api_status = 503
    said = pull(environment, MODEL)
    pulled(said)
    assert "HTTP status 503; using what the cache has" in said.stderr
    hub.close()
    said = pull(environment, MODEL)
    pulled(said)
    assert "using what the cache has" in said.stderr


def test_gated_private_and_missing_are_told_apart(hub, environment):
    hub.gated.add(MODEL)
    for more in ({}, {"HF_TOKEN": TOKEN}):
        text = refused(pull({**environment, **more}, MODEL))
        assert "accept its terms" in text and "HF_TOKEN" in text
        assert TOKEN not in text
    text = refused(pull(environment, "org/nothing"))
    assert "no such repository, or it is private" in text
    assert "pickled" in refused(pull(environment, "org/pickled"))


@pytest.mark.parametrize("name", [
    "../outside.json", "/tmp/outside.json", "a/../../outside.json",
    "a\\..\\outside.json", "x\0.json", "./config.json", 300 * "x" + ".json"])
def test_names_that_leave_their_place_are_refused(tmp_path, hub, environment,
                                                  name):
    hub.extra_names = [name]
    before = sorted(tmp_path.iterdir())
    assert "no plain relative path" in refused(pull(environment, MODEL))
    assert sorted(tmp_path.iterdir()) == before


def test_a_gguf_file_is_chosen_by_a_part_of_its_name(hub, environment):
    text = refused(pull(environment, "org/quants"))
    assert "m.Q4_0.gguf, m.Q8_0.gguf" in text
    said = pull(environment, "org/quants:q8_0")
    assert said.returncode == 0, said.stderr
    path = pathlib.Path(said.stdout.strip())
    assert path.name == "m.Q8_0.gguf" and path.read_bytes() == b"GGUF8"
    assert not hub.gets("m.Q4_0.gguf")


def test_what_is_no_model_is_an_error_of_the_command_line(environment):
    for model in ("a/b/c", "http://127.0.0.1/x", "/tmp", "org/..", "s3://x"):
        assert pull(environment, model).returncode == 2
    said = pull({**environment, "HF_TOKEN": f"{TOKEN}\r\nX: y"}, MODEL)
    assert said.returncode == 2
    assert "HF_TOKEN" in said.stderr and TOKEN not in said.stderr


def test_certificates_are_verified(tmp_path):
    certificate = tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
         "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj",
         "/CN=hub", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout",
         certificate, "-out", tmp_path / "out.pem"], check=True,
        capture_output=True)
    with certificate.open("ab") as file:
        file.write((tmp_path / "out.pem").read_bytes())
    hub = Hub({MODEL: {"config.json": SMALL, WEIGHTS: LARGE}}, certificate)
    plain = Hub({MODEL: {"config.json": SMALL, WEIGHTS: LARGE}})
    try:
        environment = pull_environment(tmp_path, hub, HF_TOKEN=TOKEN)
        assert "certificate" in refused(pull(environment, MODEL))
        assert hub.requests == []
        environment["SSL_CERT_FILE"] = str(tmp_path / "out.pem")
        hub.every["config.json"] = f"to:{plain.url}/x"
        assert "from https to http" in refused(pull(environment, MODEL))
        assert plain.requests == []
        hub.every.clear()
        pulled(pull(environment, MODEL))
    finally:
        hub.close()
        plain.close()


# -- ends in the middle

def begin(environment, model=MODEL, **more):
    return subprocess.Popen([BINARY, "pull", model], env=environment,
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, **more)


def bytes_kept(folder):
    """What a pull that ended has of the weights: the counts behind the
    content of the file in the making."""
    (path,) = (repository(folder) / "blobs").glob("*.troupe.incomplete")
    state = path.read_bytes()[len(LARGE):]
    magic, size, _, chunks = struct.unpack_from("=8s3Q", state)
    assert (magic, size) == (b"troupe:1", len(LARGE))
    return sum(struct.unpack_from(f"={chunks}Q", state, 32))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT,
                                    signal.SIGTERM])
def test_a_pull_that_was_ended_goes_on_where_it_was(tmp_path, hub, environment,
                                                    number):
    hub.bytes_per_s = 4_000_000
    first = begin(environment)
    wait_for(lambda: hub.sent(WEIGHTS) > 6_000_000, "nothing came")
    first.send_signal(number)
    _, said = first.communicate(timeout=20)
    if number == signal.SIGKILL:
        assert first.returncode == -signal.SIGKILL
    else:
        assert first.returncode == 1 and "interrupted" in said
    kept = bytes_kept(tmp_path)
    assert kept > 1_000_000
    hub.forget()
    hub.bytes_per_s = 0
    pulled(pull(environment, MODEL))
    assert hub.sent(WEIGHTS) == len(LARGE) - kept
    assert not hub.gets("config.json")
    assert not list((repository(tmp_path) / "blobs").glob("*incomplete"))


def test_pulls_at_once_are_one_download(hub, environment):
    hub.bytes_per_s = 16_000_000
    both = [begin(environment) for _ in range(3)]
    for one in both:
        out, said = one.communicate(timeout=60)
        assert one.returncode == 0, said
        assert pathlib.Path(out.strip(), WEIGHTS).read_bytes() == LARGE
    for name in (WEIGHTS, "config.json"):
        assert hub.sent(name) == len(hub.repositories[MODEL][name].content)


def test_a_pull_takes_over_from_one_that_dies(hub, environment):
    hub.bytes_per_s = 8_000_000
    first = begin(environment)
    wait_for(lambda: hub.sent(WEIGHTS) > 6_000_000, "nothing came")
    hub.bytes_per_s = 1_000_000  # little is under way when it dies
    second = begin(environment)
    wait_for(lambda: len(hub.gets("main")) == 2, "the second did not begin")
    first.kill()
    first.communicate(timeout=20)
    hub.bytes_per_s = 0
    out, said = second.communicate(timeout=60)
    assert second.returncode == 0, said
    assert pathlib.Path(out.strip(), WEIGHTS).read_bytes() == LARGE
    # What was under way is lost, no more.
    assert hub.sent(WEIGHTS) < len(LARGE) + 3_000_000


def test_a_terminal_gets_a_bar(tmp_path, hub, environment):
    hub.bytes_per_s = 40_000_000
    master, slave = pty.openpty()
    process = subprocess.Popen([BINARY, "pull", MODEL], env=environment,
                               stdin=subprocess.DEVNULL, stderr=slave,
                               stdout=subprocess.PIPE)
    os.close(slave)
    shown = b""
    with contextlib.suppress(OSError):
        while piece := os.read(master, 65536):
            shown += piece
    os.close(master)
    process.communicate(timeout=20)
    assert process.returncode == 0, shown
    assert b"\r\x1b[K[=" in shown and b" of 20.0 MB" in shown


# -- the disk, and others who use the cache

def test_a_full_disk_is_told_before_it_starts(tmp_path, hub, environment):
    (tmp_path / "hf").mkdir()
    rights = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    said = subprocess.run(
        ["unshare", *rights, "--mount", "bash", "-c",
         'mount -t tmpfs -o size=10m tmpfs "$HF_HOME" && exec "$@"', "pull",
         BINARY, "pull", MODEL], env=environment, text=True,
        capture_output=True, timeout=60)
    text = refused(said)
    assert "20.0 MB are missing" in text and "nothing was fetched" in text
    assert not hub.gets(WEIGHTS) and not hub.gets("config.json")


def test_a_link_out_of_the_cache_is_refused(tmp_path, hub, environment):
    path = pulled(pull(environment, MODEL))
    (tmp_path / "outside").write_bytes(LARGE)
    (path / WEIGHTS).unlink()
    (path / WEIGHTS).symlink_to(tmp_path / "outside")
    offline = {**environment, "HF_HUB_OFFLINE": "1"}
    assert "leads out of the cache" in refused(pull(offline, MODEL))
    pulled(pull(environment, MODEL))  # with the hub's help it is mended
    pulled(pull(offline, MODEL))


def test_offline_says_what_the_cache_lacks(hub, environment):
    offline = {**environment, "HF_HUB_OFFLINE": "1"}
    assert "the cache" in refused(pull(offline, MODEL))
    assert hub.requests == []


def snapshot_download(environment, *more):
    """The hub's own client."""
    return subprocess.run(
        [sys.executable, "-c",
         "import sys, huggingface_hub as hub\n"
         "print(hub.snapshot_download(sys.argv[1], allow_patterns=['*.json', "
         "'*.safetensors']))", MODEL, *more],
        env=environment, text=True, capture_output=True, timeout=60)


def test_the_hubs_own_client_finds_what_was_pulled(tmp_path, hub, environment):
    path = pulled(pull(environment, MODEL))
    assert not huggingface_hub.scan_cache_dir(tmp_path / "hf/hub").warnings
    hub.forget()
    said = snapshot_download({**environment, "HF_HUB_OFFLINE": "1"})
    assert said.returncode == 0, said.stderr
    assert said.stdout.strip() == str(path)
    said = snapshot_download(environment)
    assert said.returncode == 0, said.stderr
    assert not hub.gets(WEIGHTS) and not hub.gets("config.json")


def test_what_the_hubs_own_client_fetched_is_used(hub, environment):
    environment["HF_HUB_DISABLE_XET"] = "1"
    said = snapshot_download(environment)
    assert said.returncode == 0, said.stderr
    hub.forget()
    path = pulled(pull({**environment, "HF_HUB_OFFLINE": "1"}, MODEL))
    assert str(path) == said.stdout.strip()
    assert hub.requests == []
    pulled(pull(environment, MODEL))
    assert not hub.gets(WEIGHTS) and not hub.gets("config.json")


# -- what is no hub at all

def test_noise_in_place_of_a_hub_is_an_error(environment):
    """A server that says something else, nothing, or hangs up."""
    for answer in (b"", b"SSH-2.0-x\r\n", b"HTTP/1.1 200 OK\r\n\r\n{",
                   b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n[1,2]",
                   b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{}"):
        with socket.create_server(("127.0.0.1", 0)) as server:
            def serve():
                with contextlib.suppress(OSError):
                    while True:
                        connection, _ = server.accept()
                        with connection:
                            connection.recv(65536)
                            connection.sendall(answer)
            threading.Thread(target=serve, daemon=True).start()
            environment["HF_ENDPOINT"] = \
                f"http://127.0.0.1:{server.getsockname()[1]}"
            assert refused(pull(environment, MODEL))
