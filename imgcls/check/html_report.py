"""The findings as a self-contained HTML page."""

import base64
import html
from collections.abc import Sequence

import cv2
import numpy as np

from imgcls.check.findings import Copies, Findings
from imgcls.check.inputs import CheckedImage
from imgcls.check.scan import Workers, map_images
from imgcls.check.text_report import described, remarks
from imgcls.datasets.labels import to_text
from imgcls.errors import ImageError
from imgcls.runtime.tables import counted, shown

_SIDE = 192  # of a thumbnail, in pixels
_MOST = 200  # groups of each kind
_MOST_IN_GROUP = 12
_STYLE = """
:root { color-scheme: light dark; --line: #8883; --soft: #8881; --bad: #c0392b; --odd: #b7791f; --bar: #3b82b6 }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin-top: 2.2rem; border-bottom: 1px solid var(--line) }
table { border-collapse: collapse; width: 100% } td, th { padding: .15rem .6rem; text-align: left; font-weight: normal }
th { color: #888 } td.bar { width: 26% } tr:hover { background: var(--soft) }
.bar i { display: inline-block; height: .7rem; background: var(--bar); border-radius: 2px; vertical-align: middle }
.bar b { font-weight: normal; margin-left: .4rem; font-variant-numeric: tabular-nums }
.groups { display: grid; grid-template-columns: repeat(auto-fill, minmax(27rem, 1fr)); gap: .8rem; margin: .8rem 0 }
.group { border: 1px solid var(--line); border-radius: 8px; padding: .6rem .8rem }
.row { display: flex; flex-wrap: wrap; gap: .8rem; margin-top: .4rem }
figure { margin: 0; width: 12rem } figcaption { font-size: .8rem; overflow-wrap: anywhere; color: #888 }
img { width: 12rem; height: 12rem; object-fit: contain; background: var(--soft); border-radius: 4px }
.mark { color: #fff; background: var(--bad); border-radius: 4px; padding: .05rem .45rem; font-size: .8rem }
.mark.odd { background: var(--odd) } .kind { color: #888; font-size: .85rem }
li { overflow-wrap: anywhere }
"""


def html_page(found: Findings, workers: Workers) -> str:
    """Return the findings as an HTML page, with thumbnails that ``workers`` make."""
    faults = [f'<span class="mark">{fault}: {count:,}</span>' for fault, count in found.faults.items()]
    faults = faults or ["<p>No faults found</p>"]
    parts = [f"<h1>{counted(len(found.source.images), 'image')}</h1>", " ".join(faults), _classes(found)]
    parts.append(_list("Remarks", remarks(found)))
    unreadable = [f"{shown(image.path)}: {shown(reason)}" for image, reason in found.unreadable]
    parts.append(_list(f"Unreadable: {len(unreadable)}", unreadable))
    groups = [*found.exact[:_MOST], *found.near[:_MOST]]
    images = {(id(image.data), image.row): image for group in groups for image in group.images[:_MOST_IN_GROUP]}
    drawn = map_images(thumbnail, list(images.values()), workers, "making thumbnails")
    thumbnails = dict(zip(images, drawn, strict=True))
    parts.append(_groups("Exact duplicates", found.exact, thumbnails))
    parts.append(_groups("Near duplicates", found.near, thumbnails))
    body = "\n".join(part for part in parts if part)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>imgcls check</title>'
        f"<style>{_STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def thumbnail(image: CheckedImage) -> str:
    """Return an image as the data URL of a small JPEG; "" if it can no longer be read."""
    try:
        pixels = image.read()
    except ImageError:
        return ""  # the page still shows its name
    scale = min(_SIDE / max(pixels.shape[:2]), 1)
    size = [max(round(side * scale), 1) for side in pixels.shape[1::-1]]
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    _, encoded = cv2.imencode(".jpg", small[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])
    return "data:image/jpeg;base64," + base64.b64encode(np.asarray(encoded).tobytes()).decode()


def _classes(found: Findings) -> str:
    classes, splits = found.classes, found.splits
    if not classes:
        return ""
    names = dict.fromkeys(name for counts in classes.values() for name in counts)
    largest = {split: max(counts.values()) for split, counts in classes.items()}
    heads = "".join(f"<th>{split} ({count:,})</th>" for split, count in splits.items())
    rows = []
    for name in names:
        cells = [
            _bar(classes[split].get(name, 0), largest[split]) if split in classes else "<td></td>" for split in splits
        ]
        rows.append(f"<tr><td>{_text(name)}</td>{''.join(cells)}</tr>")
    return f"<h2>Classes</h2>\n<table><tr><th></th>{heads}</tr>\n" + "\n".join(rows) + "\n</table>"


def _bar(count: int, largest: int) -> str:
    return f'<td class="bar"><i style="width: {75 * count / largest:.1f}%"></i><b>{count:,}</b></td>'


def _list(title: str, lines: Sequence[str]) -> str:
    items = "\n".join(f"<li>{_text(line)}</li>" for line in lines)
    return f"<h2>{title}</h2>\n<ul>\n{items}\n</ul>" if lines else ""


def _groups(title: str, groups: Sequence[Copies], thumbnails: dict[tuple[int, int], str]) -> str:
    if not groups:
        return ""
    boxes = "\n".join(_group(group, thumbnails) for group in groups[:_MOST])
    parts = [f"<h2>{title}: {counted(len(groups), 'group')}</h2>", f'<div class="groups">{boxes}</div>']
    if len(groups) > _MOST:
        parts.append(f"<p>and {len(groups) - _MOST:,} more; --json FILE lists all</p>")
    return "\n".join(parts)


def _group(group: Copies, thumbnails: dict[tuple[int, int], str]) -> str:
    marks = '<span class="mark">across splits</span> ' * group.leak
    marks += '<span class="mark odd">two labels</span> ' * group.two_labels
    figures = [_figure(image, thumbnails[id(image.data), image.row]) for image in group.images[:_MOST_IN_GROUP]]
    more = len(group.images) - len(figures)
    rest = f"<p>and {more:,} more</p>" if more else ""
    head = f'{marks}<span class="kind">{described(group)}</span>'
    return f'<div class="group">{head}<div class="row">{"".join(figures)}</div>{rest}</div>'


def _figure(image: CheckedImage, source: str) -> str:
    label = f" · {_text(to_text(image.label))}" if image.label is not None else ""
    caption = f"<figcaption>{image.split}{label}<br>{_text(image.path)}</figcaption>"
    return f'<figure><img src="{source}" alt="">{caption}</figure>'


def _text(text: str) -> str:
    return html.escape(shown(text))
