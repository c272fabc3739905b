"""Serves the page: on this machine alone, or behind a password."""

import ipaddress
import os
import socket
import tempfile
from collections.abc import Sequence
from pathlib import Path

from reid_kit.errors import InputError
from reid_kit.web.desk import Desk
from reid_kit.web.uploads import BYTES

REQUEST = 64 * 2**20  # bytes
GRACE = 3  # seconds that open requests have at the end
POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'self'"


def serve(desk: Desk, host: str, port: int, users: Sequence[str] = ()) -> None:
    """Serves until Ctrl-C or SIGTERM.

    Args:
        port: 0 takes a free one.
        users: NAME:PASSWORD each.

    Raises:
        InputError: gradio is missing; a name or password is empty; an address that others reach, without a password;
            the port is taken.
    """
    accounts = check_users(users)
    local = is_local(host)
    if not local and not accounts:
        raise InputError(
            f"{host} can be reached by others, and the page needs a password there: --user NAME:PASSWORD, or leave "
            f"--host out to serve this machine alone"
        )
    with listen(host, port) as listener, tempfile.TemporaryDirectory(prefix="reid_kit_web_") as uploads:
        app = build_app(desk, Path(uploads), accounts, host if local else None)
        import uvicorn

        shown = f"[{host}]" if ":" in host else host
        print(f"http://{shown}:{listener.getsockname()[1]} (Ctrl-C ends it); log: {desk.log}", flush=True)
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=GRACE)
        uvicorn.Server(config).run([listener])


def build_app(desk: Desk, uploads: Path, accounts: list[tuple[str, str]], local: str | None):
    """The ASGI application; `local` is the address where it serves this machine alone."""
    os.environ["GRADIO_TEMP_DIR"] = str(uploads)
    try:
        import gradio as gr
        from fastapi import FastAPI
        from starlette.middleware.trustedhost import TrustedHostMiddleware

        from reid_kit.web.page import build_page
        from reid_kit.web.tiles import STYLE
    except ImportError as error:
        raise InputError(f"the page needs gradio: pip install 'reid_kit[web]' ({error})") from error
    app = FastAPI(openapi_url=None)
    app.add_middleware(Guard)
    if local is not None:  # a page elsewhere must not reach this one under a name of its own
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=["localhost", "127.0.0.1", "[::1]", "::1", local])
    return gr.mount_gradio_app(
        app,
        build_page(desk, uploads),
        path="",
        auth=accounts or None,
        allowed_paths=[],
        max_file_size=BYTES,
        ssr_mode=False,
        enable_monitoring=False,
        footer_links=[],
        theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        css=STYLE,
    )


class Guard:
    """Refuses requests that are too large before they are read, and has browsers ask no other host for anything."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        size = headers.get(b"content-length", b"" if b"transfer-encoding" in headers else b"0")
        if not size.isdigit() or int(size) > REQUEST:
            body = f"a request has a length, of at most {REQUEST:,} bytes".encode()
            await send({"type": "http.response.start", "status": 413, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": body})
            return

        async def with_policy(message):
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", POLICY.encode())]
            await send(message)

        await self.app(scope, receive, with_policy)


def check_users(users: Sequence[str]) -> list[tuple[str, str]]:
    accounts = [tuple(user.partition(":")[::2]) for user in users]
    for name, password in accounts:
        if not name.strip() or not password.strip():
            raise InputError("a user is NAME:PASSWORD, neither of them empty")
    return accounts


def is_local(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # another name
        return False


def listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(f"cannot serve on {host} port {port}: {why}; choose another --port or --host") from error
