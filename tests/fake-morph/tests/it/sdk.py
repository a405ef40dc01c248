"""What a user of the official SDK does, on a fake that the environment names."""
import http.server
import os
import socket
import tempfile
import threading
import urllib.error
import urllib.request

from morphcloud.api import ApiError, MorphCloudClient

c = MorphCloudClient()
assert [i.id for i in c.images.list()] == ["morphvm-minimal", "morphvm-sandbox"]
snap = c.snapshots.create(image_id="morphvm-minimal", vcpus=2, memory=256, disk_size=1024, digest="d", metadata={"a": "b"})
assert c.snapshots.create(digest="d", image_id="morphvm-minimal", vcpus=1, memory=128, disk_size=700).id == snap.id
i = c.instances.start(snap.id, metadata={"owner": "x"}, ttl_seconds=600, ttl_action="pause")
i.wait_until_ready()
r = i.exec("echo ok; echo err >&2; exit 3")
assert (r.stdout, r.stderr, r.exit_code) == ("ok\n", "err\n", 3), r
got = []
r = i.exec("echo one; sleep 0.1; echo two >&2; exit 4", on_stdout=lambda x: got.append(("o", x)), on_stderr=lambda x: got.append(("e", x)))
assert r.exit_code == 4 and got == [("o", "one\n"), ("e", "two\n")], (r, got)
assert i.exec("printf %s AGhlbGxvCg== | base64 -d > f.tmp && mv f.tmp f").exit_code == 0
assert i.exec("base64 -w0 f").stdout == "AGhlbGxvCg=="
assert [x.id for x in c.instances.list(metadata={"owner": "x"})] == [i.id]
assert c.instances.list(metadata={"owner": "y"}) == []
s, forks = i.branch(2)
for f in forks:
    f.wait_until_ready()
    assert f.exec("base64 -w0 f").stdout == "AGhlbGxvCg=="
forks[0].exec("rm f")
assert i.exec("ls f").exit_code == 0
i.pause()
i._refresh()
assert i.status.value == "paused"
try:
    i.exec("true")
    raise SystemExit("a paused instance ran a command")
except ApiError as error:
    assert error.status_code == 412, error
i.resume()
i.wait_until_ready()
i.reboot()
i.wait_until_ready()
assert i.exec("cat f | wc -c").stdout.strip() == "7"

# A service: the instance's loopback is this machine's.
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"served\n")

    def log_message(self, *_):
        pass


server = http.server.HTTPServer(("127.0.0.1", 0), Page)
threading.Thread(target=server.serve_forever, daemon=True).start()
port = server.server_address[1]
url = i.expose_http_service("web", port)
assert urllib.request.urlopen(url + "/page").read() == b"served\n"
url = i.expose_http_service("shut", port, auth_mode="api_key")
try:
    urllib.request.urlopen(url + "/page")
    raise SystemExit("no key was needed")
except urllib.error.HTTPError as error:
    assert error.code == 401
request = urllib.request.Request(url + "/page", headers={"Authorization": "Bearer " + os.environ["MORPH_API_KEY"]})
assert urllib.request.urlopen(request).read() == b"served\n"
i.hide_http_service("web")
i.set_metadata({"k": "v"})
i._refresh()
assert i.metadata == {"k": "v"}
i.set_ttl(ttl_seconds=60)
i.set_wake_on(wake_on_ssh=True, wake_on_http=False)
s2 = i.snapshot(digest="z", metadata={"q": "1"})
assert s2.digest == "z"
b = c.instances.boot(s2.id, vcpus=4, memory=2048); b.wait_until_ready()
assert b.spec.vcpus == 4
assert i.ssh_key().public_key.startswith("ssh-ed25519 ")

# The gateway, as the SDK uses it. Its host and port are in the environment.
with i.ssh() as ssh:
    done = ssh.run("echo over ssh; echo err >&2; exit 6", get_pty=False)
    assert (done.stdout, done.stderr, done.returncode) == ("over ssh\n", "err\n", 6), done
    done = ssh.run("test -t 1 && echo terminal")
    assert (done.stdout, done.returncode) == ("terminal\r\n", 0), done
    with tempfile.NamedTemporaryFile() as file:
        file.write(bytes(range(256)) * 1000)
        file.flush()
        ssh.copy_to(file.name, "/root/binary")
    assert i.exec("stat -c %s binary").stdout == "256000\n"
    # Not port 0, at which the client's tunnel never closes: it wakes itself by connecting to the port it was given.
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        near = probe.getsockname()[1]
    with ssh.tunnel(near, port):
        assert urllib.request.urlopen(f"http://127.0.0.1:{near}/page").read() == b"served\n"
for x in forks + [b, i]:
    x.stop()
s.delete()
s2.delete()
try:
    c.instances.get(i.id)
    raise SystemExit("a stopped instance is there")
except ApiError as error:
    assert error.status_code == 404, error
print("passed")
