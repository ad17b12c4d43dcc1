"""Where LiteRT.js and a browser are for the tests of pages, and a static server of a folder.

LiteRT.js, and sharp for the sample, are taken from the folder `node_modules` that the environment variable
KZOO_NODE_MODULES names. The browser is Chromium, driven by Playwright (`pip install -e ".[browser]"`).
"""

import contextlib
import functools
import os
import shutil
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

NODE_MODULES = Path(os.environ.get("KZOO_NODE_MODULES", "absent"))
needs_packages = pytest.mark.skipif(
    not (NODE_MODULES / "@litertjs").is_dir(),
    reason="needs KZOO_NODE_MODULES, the folder node_modules of npm install @litertjs/core@2.5.3 sharp",
)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@contextlib.contextmanager
def serve(folder: Path, headers: dict[str, str] | None = None) -> Iterator[str]:
    """A static server of a folder; yields its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Handler, directory=folder))
    server.headers = headers or {}
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(SimpleHTTPRequestHandler):
    def end_headers(self):
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, *told):
        pass
