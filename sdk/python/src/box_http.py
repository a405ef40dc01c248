"""One HTTP request, over `wasi:http`. The host checks it against the grant before it looks up a name."""

from dataclasses import dataclass
from urllib.parse import urlsplit

from componentize_py_types import Err
from wit_world.imports import outgoing_handler, wasi_http_types as http
from wit_world.imports.streams import StreamError_Closed

_METHODS = {
    "GET": http.Method_Get,
    "POST": http.Method_Post,
    "PUT": http.Method_Put,
    "DELETE": http.Method_Delete,
}
# What a stream takes at once.
_CHUNK = 4096


@dataclass
class Response:
    status: int
    headers: dict[str, str]
    body: bytes


class RequestFailed(Exception):
    """There was no answer. `reason` is what `wasi:http` calls it."""

    def __init__(self, reason: object):
        super().__init__(type(reason).__name__.removeprefix("ErrorCode_"))
        self.denied = isinstance(reason, http.ErrorCode_HttpRequestDenied)


def send(method: str, url: str, headers: dict[str, str], body: bytes = b"") -> Response:
    parts = urlsplit(url)
    fields = http.Fields.from_list([(name, value.encode()) for name, value in headers.items()])
    request = http.OutgoingRequest(fields)
    request.set_method(_METHODS[method]())
    request.set_scheme(http.Scheme_Https() if parts.scheme == "https" else http.Scheme_Http())
    request.set_authority(parts.netloc)
    request.set_path_with_query(parts.path + (f"?{parts.query}" if parts.query else ""))
    outgoing = request.body()
    try:
        answer = outgoing_handler.handle(request, None)
        with outgoing.write() as stream:
            for start in range(0, len(body), _CHUNK):
                stream.blocking_write_and_flush(body[start : start + _CHUNK])
        http.OutgoingBody.finish(outgoing, None)
        with answer.subscribe() as ready:
            ready.block()
        response = answer.get().value.value
        if not isinstance(response, http.IncomingResponse):
            raise RequestFailed(response)
    except Err as error:
        raise RequestFailed(error.value) from None
    found = {name: value.decode("latin-1") for name, value in response.headers().entries()}
    return Response(response.status(), found, _read(response.consume()))


def _read(body: http.IncomingBody) -> bytes:
    chunks = []
    with body.stream() as stream:
        while True:
            try:
                chunks.append(stream.blocking_read(1 << 16))
            except Err as error:
                if isinstance(error.value, StreamError_Closed):
                    return b"".join(chunks)
                raise RequestFailed(error.value) from None
