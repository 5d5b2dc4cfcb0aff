"""Hooks of mkdocs: add README.md and CHANGELOG.md to the site. Links to other files of the repository become text."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
ADDED = {"README.md": "readme.md", "CHANGELOG.md": "changelog.md"}
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?:|#|mailto:)([^)#\s]*)(#[^)\s]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    for name, page in ADDED.items():
        text = (ROOT / name).read_text("utf-8").replace("](docs/images/", "](images/")
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Rewrite the links of a page. A link out of docs/ leads to a page of the site, or becomes text.

    Also remove the words behind the language of a block, which tools/check_documents.py reads.
    """
    source = page.file.src_uri
    origin = {page: name for name, page in ADDED.items()}.get(source, f"docs/{source}")

    def rewritten(match: re.Match[str]) -> str:
        text, path, anchor = match[1], match[2], match[3] or ""
        if not path:
            return match[0]
        target = posixpath.normpath(posixpath.join(posixpath.dirname(origin), path))
        inside = ADDED.get(target) or (target.removeprefix("docs/") if target.startswith("docs/") else "")
        if inside == "decisions":
            inside = "decisions/README.md"
        if not inside:
            return text
        return f"[{text}]({posixpath.relpath(inside, posixpath.dirname(source) or '.')}{anchor})"

    return LINK.sub(rewritten, re.sub(r"^( *```[a-z]+) .*$", r"\1", markdown, flags=re.MULTILINE))


def on_post_page(output: str, **_: Any) -> str:
    """Give the dialog of the search a name for screen readers. The theme leaves it out."""
    return output.replace(
        'data-md-component="search" role="dialog"', 'data-md-component="search" role="dialog" aria-label="Search"'
    )
