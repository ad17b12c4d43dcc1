"""The beginning of a page that is one file."""

import base64
import hashlib

from kzoo.escape import html


def html_head(title: str, style: str) -> str:
    """The beginning of a page up to its heading, whose policy lets nothing in but its own style and pictures.

    Args:
        title: what it is called, any text.
        style: CSS of the page.
    """
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html(title)}</title>
<style>{style}</style>
</head>
<body>
<main>
<h1>{html(title)}</h1>
"""
