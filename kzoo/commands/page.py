"""`kzoo page`: a folder that shows a LiteRT file at work in any browser."""

import dataclasses

from kzoo.commands.forms import Page
from kzoo.console import show, show_json
from kzoo.escape import terminal
from kzoo.page import write_page
from kzoo.page.runtime import VERSION


def run(form: Page) -> None:
    page = write_page(form.model, form.output, runtime=form.runtime, examples=form.examples)
    if form.json:
        show_json(dataclasses.asdict(page))
        return
    needs = ", which it loads from the network" if page.needs_network else ", works offline"
    show(terminal(f"{page.folder}: {page.model}, {page.size_bytes / 1e6:.1f} MB, LiteRT.js {VERSION}{needs}"))
    show(terminal(f"to look at it: python -m http.server --directory {page.folder}, then http://localhost:8000"))
