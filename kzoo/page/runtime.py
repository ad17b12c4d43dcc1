"""LiteRT.js for a page: copied from the npm package that the user has, or named by its version on a public mirror."""

import json
from pathlib import Path

from kzoo.errors import InvalidValueError
from kzoo.reading import read_json

VERSION = "2.5.3"
CORE, WASM_UTILS = "@litertjs/core", "@litertjs/wasm-utils"
MIRROR = "https://cdn.jsdelivr.net"
BUILDS = ("litert_wasm_internal", "litert_wasm_compat_internal", "litert_wasm_threaded_internal")
FILES = {
    CORE: ("package.json", "dist/index.js", *(f"wasm/{build}.{kind}" for build in BUILDS for kind in ("js", "wasm"))),
    WASM_UTILS: ("package.json", "dist/index.js"),
}
HOW = f"npm install {CORE}@{VERSION} makes node_modules/{CORE}"


def find_runtime(core: Path) -> dict[str, Path]:
    """Where the files of LiteRT.js go in a page -> where they are.

    Args:
        core: folder of the npm package, `node_modules/@litertjs/core`.

    Raises:
        InvalidValueError: it is not that package, of another version, or incomplete.
    """
    beside = core.resolve().parent / "wasm-utils"  # where npm puts what a package needs, or else:
    packages = {CORE: core, WASM_UTILS: beside if beside.is_dir() else core / "node_modules" / WASM_UTILS}
    found = {}
    for name, folder in packages.items():
        _check_package(name, folder)
        for file in FILES[name]:
            if not (folder / file).is_file():
                raise InvalidValueError(f"{folder} lacks {file}; {HOW}")
            found[f"litert/{name}/{file}"] = folder / file
    return found


def _check_package(name: str, folder: Path) -> None:
    path = folder / "package.json"
    told = read_json(path) if path.is_file() else None
    if not isinstance(told, dict) or told.get("name") != name:
        raise InvalidValueError(f"{folder} is not the npm package {name}; {HOW}")
    if told.get("version") != VERSION:
        raise InvalidValueError(f"{folder} is {name} {told.get('version')}, and pages are made for {VERSION}; {HOW}")


def import_map(copied: bool) -> str:
    """What the browser makes of the names of the packages, as JSON."""
    places = {name: f"{package_place(name, copied)}dist/index.js" for name in FILES}
    return json.dumps({"imports": places})


def package_place(name: str, copied: bool) -> str:
    """Where a package is for a page, with a slash at the end."""
    return f"./litert/{name}/" if copied else f"{MIRROR}/npm/{name}@{VERSION}/"
