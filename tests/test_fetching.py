"""Fetching a file by its digest: all of it or nothing."""

import hashlib
import http.server
import threading

import pytest

from minit2v.checkpoints.fetching import fetch, sha256
from minit2v.cli import main
from minit2v.errors import UserError

CONTENTS = bytes(range(256)) * 9000  # more than two pieces
DIGEST = hashlib.sha256(CONTENTS).hexdigest()


@pytest.fixture
def source(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there/weights.pt").write_bytes(CONTENTS)
    return tmp_path / "there/weights.pt"


def test_a_file_with_the_right_digest_arrives_and_is_not_fetched_twice(source, tmp_path, capsys):
    target = tmp_path / "new/weights.pt"
    assert main(["fetch", source.as_uri(), str(target), "--sha256", DIGEST.upper()]) == 0
    assert target.read_bytes() == CONTENTS and sha256(target) == DIGEST and str(target) in capsys.readouterr().out
    source.unlink()
    assert fetch(source.as_uri(), target, DIGEST) == target


def test_a_wrong_digest_leaves_nothing_behind(source, tmp_path, capsys):
    target = tmp_path / "new/weights.pt"
    assert main(["fetch", source.as_uri(), str(target), "--sha256", "0" * 64]) == 2
    told = capsys.readouterr().err
    assert f"expected sha256 {'0' * 64}, found {DIGEST}" in told and told.count("\n") == 1
    assert list((tmp_path / "new").iterdir()) == []


def test_what_cannot_be_fetched_is_said_before_anything_is_made(source, tmp_path):
    target = tmp_path / "new/weights.pt"
    for url, digest, message in (
        ((tmp_path / "nowhere").as_uri(), DIGEST, "could not read .*check the address"),
        ("http://127.0.0.1:9/weights.pt", DIGEST, "could not read"),
        ("data:,hello", DIGEST, "begins with https, http, file"),
        (source.as_uri(), "abc", "64 hexadecimal digits, found 'abc'"),
    ):
        with pytest.raises(UserError, match=message):
            fetch(url, target, digest)
    assert not target.parent.exists()
    target.parent.mkdir()
    target.write_bytes(b"somebody's own")
    with pytest.raises(UserError, match="found [0-9a-f]{64}"):
        fetch(source.as_uri(), target, DIGEST)
    assert target.read_bytes() == b"somebody's own"


def test_a_server_that_hangs_up_early_leaves_nothing_behind(tmp_path):
    class Half(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENTS)))
            self.end_headers()
            self.wfile.write(CONTENTS[: len(CONTENTS) // 2])

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Half)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with pytest.raises(UserError, match="fetch: "):
            fetch(f"http://127.0.0.1:{server.server_port}/weights.pt", tmp_path / "new/weights.pt", DIGEST)
    finally:
        server.shutdown()
        server.server_close()
    assert list((tmp_path / "new").iterdir()) == []


def test_a_folder_is_no_place_for_a_file(tmp_path):
    with pytest.raises(UserError, match="expected the name of a file, found the folder .*; name a file in it"):
        fetch((tmp_path / "x").as_uri(), tmp_path, "0" * 64)
