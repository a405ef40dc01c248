"""The provider `box`: commands run on boxes of box.example, which is a made-up service.

`POST /v1/boxes` with the name of an image starts a box and answers with its name; `POST /v1/boxes/NAME/exec` takes a
command as JSON and answers with its output, and its exit code in a header; `DELETE /v1/boxes/NAME` ends one.

The names are those of `wit/provider.wit` in snake_case. An error is `raise Err(Error(…))`, and what is printed is a
line of the plugin's log. Each call gets an instance of its own, so nothing in memory lasts: which boxes there are is
in a file.
"""

import json
import re

import box_http
from box_http import RequestFailed, Response
from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.provider import BootOptions, Instance, ProviderInfo
from wit_world.imports import files, log, secrets
from wit_world.imports.pcoder_plugin_types import (
    Command_Argv,
    CommandSpec,
    Error,
    ExitStatus_Exited,
    WriteOptions,
)

API = "https://api.box.example/v1/boxes"
BOXES = "boxes.json"
# A name that is safe in an address.
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


class Provider(exports.Provider):
    def info(self):
        # Output comes as a whole, so neither `stdin` nor `streaming`.
        return ProviderInfo("box", "Boxes of box.example", [], "/home/box")

    def boot(self, options: BootOptions):
        api = API
        for option in options.options:
            if option.name != "api":
                raise error("invalid", "provider.boot", "boxes have no such option", option.name)
            api = option.value
        # Not tried again: doing it twice would start two boxes.
        answer = request("provider.boot", "POST", api, (options.image or "default").encode())
        name = answer.body.decode(errors="replace").strip()
        if not NAME.fullmatch(name):
            raise error("server", "provider.boot", "the service gave a box no usable name")
        save(load() | {name: api})
        print(f"started {name}")
        return instance(name)

    def get(self, id):
        request("provider.get", "GET", address("provider.get", id))
        return instance(id)

    def list(self):
        return [instance(name) for name in load()]

    def terminate(self, id):
        boxes = load()
        if id not in boxes:
            return
        try:
            request("provider.terminate", "DELETE", address("provider.terminate", id))
        except Err as failed:
            if failed.value.code != "not-found":
                raise
            log.log(log.Level.WARN, f"{id} was gone already")
        del boxes[id]
        save(boxes)

    def exec(self, id, spec: CommandSpec, stdio):
        url = address("provider.exec", id) + "/exec"
        command = spec.command
        words = command.value if not isinstance(command, Command_Argv) else [command.value.program, *command.value.args]
        answer = request("provider.exec", "POST", url, json.dumps({"command": words}).encode())
        with stdio.stdout() as stream:
            for start in range(0, len(answer.body), 4096):
                stream.blocking_write_and_flush(answer.body[start : start + 4096])
        try:
            return ExitStatus_Exited(int(answer.headers["x-exit-code"]))
        except (KeyError, ValueError):
            raise error("server", "provider.exec", "the answer has no exit code", id) from None

    def stop(self, id):
        raise unsupported("provider.stop")

    def resume(self, id):
        raise unsupported("provider.resume")

    def fork(self, id):
        raise unsupported("provider.fork")

    def expose(self, id, port):
        raise unsupported("provider.expose")

    def read_file(self, id, path):
        raise unsupported("provider.read-file")

    def write_file(self, id, path, content, options):
        raise unsupported("provider.write-file")

    def write_file_atomic(self, id, path, content, options):
        raise unsupported("provider.write-file-atomic")

    def file_exists(self, id, path):
        raise unsupported("provider.file-exists")

    def create_directory(self, id, path, mode):
        raise unsupported("provider.create-directory")

    def delete_file(self, id, path):
        raise unsupported("provider.delete-file")

    def delete_directory(self, id, path):
        raise unsupported("provider.delete-directory")


def request(operation: str, method: str, url: str, body: bytes = b"") -> Response:
    # A placeholder: the host puts the value in its place, in this header, for the addresses in plugin.toml.
    key = secrets.get("BOX_API_KEY")
    try:
        answer = box_http.send(method, url, {"authorization": f"Bearer {key}"}, body)
    except RequestFailed as failed:
        raise error("denied" if failed.denied else "network", operation, f"there was no answer: {failed}", url) from None
    if answer.status < 300:
        return answer
    codes = {401: "unauthenticated", 403: "unauthenticated", 404: "not-found", 429: "rate-limited", 503: "unavailable"}
    # What the service says in the body stays out: it could hold anything.
    raise error(codes.get(answer.status, "server"), operation, f"the service answered {answer.status}", url)


def address(operation: str, name: str) -> str:
    api = load().get(name)
    if api is None:
        raise error("not-found", operation, "there is no such box", name)
    return f"{api}/{name}"


def load() -> dict[str, str]:
    try:
        return json.loads(files.read("state", BOXES))
    except Err as failed:
        if failed.value.code == "not-found":
            return {}
        raise


def save(boxes: dict[str, str]) -> None:
    files.write_atomic("state", BOXES, json.dumps(boxes).encode(), WriteOptions(False, None, None))


def instance(name: str) -> Instance:
    return Instance(name, "ready", None, None, [])


def error(code: str, operation: str, message: str, subject: str | None = None) -> Err:
    return Err(Error(code, message, operation, subject, None, None, None))


def unsupported(operation: str) -> Err:
    return error("unsupported", operation, "boxes cannot do that")
