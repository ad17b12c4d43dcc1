"""A folder that shows a LiteRT file at work in any browser: camera or picture in, answer out, nothing sent anywhere.

page: the folder that `kzoo page` writes: index.html, kzoo.js, the file with its card, LiteRT.js.
runtime: LiteRT.js, Google's interpreter of LiteRT files in WebAssembly, an npm package that the user has.
example: a picture that is stored in the page with the numbers that Python computed of it, for its button "Check".
"""

from kzoo.page.writing import SCRIPT, Page, write_page

__all__ = ["SCRIPT", "Page", "write_page"]
