"""Turns a LiteRT file into a C array for LiteRT for Microcontrollers, without the card and the labels behind it.

    python c_array.py model_int8.tflite model_data.h

The header also tells which operators the program has to register. Needs ai-edge-litert alone.
"""

import argparse
import zipfile
from pathlib import Path

from ai_edge_litert import schema_py_generated as schema

LINE = 16  # bytes


def without_archive(path: Path) -> bytes:
    """The model alone: what stands before the archive of labels and card, which a runtime never reads."""
    content = path.read_bytes()
    if not zipfile.is_zipfile(path):
        return content
    with zipfile.ZipFile(path) as archive:
        return content[: min(info.header_offset for info in archive.infolist())]


def operators(content: bytes) -> list[str]:
    """The methods of `tflite::MicroMutableOpResolver` that register what the model needs."""
    names = {number: name for name, number in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    model = schema.Model.GetRootAs(content)
    codes = map(model.OperatorCodes, range(model.OperatorCodesLength()))
    words = (names[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())].split("_") for code in codes)
    return sorted(f"Add{''.join(word if word[0].isdigit() else word.capitalize() for word in each)}" for each in words)


def main() -> None:
    parser = argparse.ArgumentParser(description="Turns a LiteRT file into a C array.")
    parser.add_argument("model", type=Path)
    parser.add_argument("header", type=Path)
    options = parser.parse_args()
    content = without_archive(options.model)
    needed = operators(content)
    rows = (content[start : start + LINE] for start in range(0, len(content), LINE))
    lines = [f"  {', '.join(f'0x{byte:02x}' for byte in row)}," for row in rows]
    options.header.write_text(
        "\n".join(
            [
                f"// {options.model.name}, {len(content)} bytes. Operators ({len(needed)}): {', '.join(needed)}",
                "#pragma once",
                "alignas(16) const unsigned char model_data[] = {",
                *lines,
                "};",
                f"const unsigned int model_data_len = {len(content)};",
                "",
            ]
        )
    )
    print(f"{options.header}: {len(content):,} bytes; operators: {', '.join(needed)}")


if __name__ == "__main__":
    main()
