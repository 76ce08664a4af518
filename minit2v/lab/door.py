"""The door of `minit2v serve`: where it listens, and which requests come in.

Any page in any tab of a visitor's browser can send requests to this machine, and a stranger's name can be made to mean it
(DNS rebinding). So each request, the websocket's too, is looked at before Panel sees it:

    path    one that the page uses; Panel has others, and one of them imports whatever module it is asked for
    Host    a name of this machine, where only this machine is to reach the page
    Origin  none, or the page itself

Tornado, bokeh and Panel are not needed to listen, and are imported when the door is opened.
"""

import ipaddress
import logging
import re
import signal
import socket
from collections.abc import Callable
from urllib.parse import unquote

from minit2v.errors import UserError, one_line

PATHS = re.compile(r"/(ws|favicon\.ico|static/.*)?")  # the page, what it says and hears, its scripts and styles
OUTSPOKEN = ("bokeh.server.views.ws", "bokeh.server.protocol_handler", "tornado.application")  # loggers
LONGEST_LINE = 200  # characters of what a browser sent, in the log


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens from now on, at a free port for 0. Raises UserError where this machine cannot listen."""
    try:
        family, _, _, _, address = min(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))  # IPv4 before IPv6
        return socket.create_server(address, family=family)
    except (OSError, ValueError) as error:  # ValueError: a name that no host can have
        why = (getattr(error, "strerror", None) or str(error)).partition(" (while")[0]  # Python repeats the address
        raise UserError(f"serve: expected an address of this machine with a free port, found {host}:{port} ({why}); "
                        "choose another --port or --host") from None  # fmt: skip


def url(listener: socket.socket) -> str:
    """Where a browser finds what listens."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_private(listener: socket.socket) -> bool:
    """Whether only this machine reaches it."""
    return _is_loopback(listener.getsockname()[0])


def refusal(request, private: bool) -> str | None:
    """Why a request does not come in, in a line; None if it does.

    Args:
        request: Tornado's HTTPServerRequest.
        private: only this machine is to reach the page.
    """
    if not PATHS.fullmatch(request.path) or not _is_text(request.uri):
        return "expected a path of the page, found another; open /"
    if private and not _is_loopback(request.host_name.strip("[]")):
        return "expected the host localhost or 127.0.0.1, found another; open the address that minit2v serve prints"
    origin = request.headers.get("Origin")
    foreign = origin is not None and origin.lower().partition("://")[2] != request.host.lower()
    within = request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin")  # a page of another site
    followed = request.headers.get("Sec-Fetch-Dest") == "document"  # a link to here: a tab of its own, not a frame
    if foreign or within and not followed:
        return "expected a request of the page itself, found one of another page; open the page in a tab"
    return None


def open_to(view: Callable, listener: socket.socket):
    """A bokeh server of a Panel application, behind the door, to be started.

    Args:
        view: makes what a visitor gets.
        listener: from `listen`.
    """
    from bokeh.core.validation import silence
    from bokeh.core.validation.warnings import EMPTY_LAYOUT
    from bokeh.server.server import BaseServer
    from bokeh.server.tornado import BokehTornado
    from panel.io.application import build_applications
    from tornado.httpserver import HTTPServer
    from tornado.ioloop import IOLoop

    silence(EMPTY_LAYOUT)  # there is no clip yet
    for name in OUTSPOKEN:
        logging.getLogger(name).addFilter(_shortened)
    view = build_applications(view, title="minit2v", location=False)  # Panel cannot read a location at [::1]
    app, private = BokehTornado(view, extra_websocket_origins=["*"]), is_private(listener)  # *: the door has looked

    def door(request):
        why = refusal(request, private)
        return app(request) if why is None else _refuse(request, why)

    server = HTTPServer(door)
    listener.setblocking(False)
    server.add_socket(listener)
    return BaseServer(IOLoop.current(), app, server)


def run(server) -> None:
    """Serve until Ctrl+C."""
    loop = server.io_loop
    signal.signal(signal.SIGINT, lambda *_: loop.asyncio_loop.call_soon_threadsafe(loop.stop))
    server.start()
    loop.start()


def _is_loopback(name: str) -> bool:
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:  # another name
        return False


def _is_text(uri: str) -> bool:
    try:
        return unquote(uri, errors="strict").isprintable()
    except UnicodeDecodeError:
        return False


def _refuse(request, why: str) -> None:
    from tornado.httputil import HTTPHeaders, ResponseStartLine

    body = f"minit2v serve: {why}\n".encode()
    headers = HTTPHeaders({"Content-Type": "text/plain", "Content-Length": str(len(body))})
    start = ResponseStartLine("HTTP/1.1", 403, "Forbidden")
    request.connection.write_headers(start, headers, None if request.method == "HEAD" else body)
    request.connection.finish()


def _shortened(record: logging.LogRecord) -> bool:
    """Makes a line, without a traceback, of what a browser has said wrongly; False where it has only left."""
    text = record.getMessage()
    if record.name == "tornado.application" and " /ws " not in text:
        return True  # a fault here
    error = f": {record.exc_info[1]!r}" if record.exc_info else ""
    record.msg, record.args, record.exc_info = one_line(text, LONGEST_LINE) + one_line(error, LONGEST_LINE), (), None
    return record.levelno > logging.WARNING
