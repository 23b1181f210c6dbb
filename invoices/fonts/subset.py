"""Make the fonts beside this file from the npm package `@expo-google-fonts/noto-sans-sc` (SIL Open Font License 1.1).

Usage: `npm pack @expo-google-fonts/noto-sans-sc && tar xzf *.tgz && python invoices/fonts/subset.py package`

Common text (GB 2312, Latin, Greek, Cyrillic, punctuation) is in two small files, regular and bold; rarer Chinese
characters (the rest of GBK, CJK extensions A and B as far as the font goes) are in three more, read only when needed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from fontTools import subset

HERE = Path(__file__).parent
REGULAR = "400Regular/NotoSansSC_400Regular.ttf"
BOLD = "700Bold/NotoSansSC_700Bold.ttf"

# Zero-width characters, direction overrides and the soft hyphen would be printed unseen: they get no glyph.
UNSEEN = {0xAD, *range(0x200B, 0x2010), *range(0x2028, 0x202F), *range(0x2060, 0x2070), 0xFEFF}
LATIN = {*range(0x20, 0x7F), *range(0xA0, 0x250), *range(0x1E00, 0x1F00), *range(0x2010, 0x2060), 0x20AC}
HAN = (0x3400, 0xA000)
BEYOND_BMP = 0x20000
SPLIT = 0x7800  # the middle of the rest of GBK, so that each file stays below 4 MB


def decodable(codec: str) -> set[int]:
    """Return the code points of a two-byte character set."""
    points = set()
    for lead in range(0x81, 0xFF):
        for trail in range(0x40, 0xFF):
            try:
                points.add(ord(bytes([lead, trail]).decode(codec)))
            except UnicodeDecodeError:
                continue
    return points


def is_han(point: int) -> bool:
    """Say whether a code point is a Chinese character."""
    return HAN[0] <= point < HAN[1] or point >= BEYOND_BMP


def write(source: Path, points: Iterable[int], target: Path) -> None:
    """Write a font with only these code points, without hints and layout tables, which a PDF does not use."""
    options = subset.Options()
    options.hinting = False
    options.layout_features = []
    options.name_IDs = [0, 1, 2, 4, 5, 6, 13, 14]
    options.notdef_outline = True
    options.glyph_names = False
    options.recalc_timestamp = False
    options.drop_tables += ["GSUB", "GPOS", "GDEF", "BASE", "STAT", "vhea", "vmtx"]
    font = subset.load_font(str(source), options)
    subsetter = subset.Subsetter(options)
    subsetter.populate(unicodes=points)
    subsetter.subset(font)
    # A PDF tells its fonts apart by this name: two files of one name would show each other's shapes.
    for record in font["name"].names:
        if record.nameID in {4, 6}:
            record.string = target.stem
    subset.save_font(font, str(target), options)
    sys.stdout.write(f"{target.name}: {target.stat().st_size:,} bytes\n")


def main(package: Path) -> None:
    """Write all five files."""
    gbk = decodable("gbk")
    common = (decodable("gb2312") | LATIN | {point for point in gbk if not is_han(point)}) - UNSEEN
    extensions = {*range(0x3400, 0x4DC0), *range(0x20000, 0x32000)}
    rare = {point for point in gbk | extensions if is_han(point)} - common
    write(package / REGULAR, common, HERE / "NotoSansSC-Regular.ttf")
    write(package / BOLD, common, HERE / "NotoSansSC-Bold.ttf")
    write(package / REGULAR, rare & extensions, HERE / "NotoSansSC-Rare1.ttf")
    write(package / REGULAR, {p for p in rare - extensions if p < SPLIT}, HERE / "NotoSansSC-Rare2.ttf")
    write(package / REGULAR, {p for p in rare - extensions if p >= SPLIT}, HERE / "NotoSansSC-Rare3.ttf")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
