"""The documentation site's own steps: pages from the repository's root, and Mermaid from npm."""

import re
import shutil
from pathlib import Path
from typing import Any, cast

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from scripts.npm import npm_package

ROOT = Path(__file__).resolve().parent.parent
MERMAID = "mermaid@11.17.2"
PAGES = {
    "index.md": "README.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
}
"""Pages of the site that are files at the repository's root, where people look for them first."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Every decision has its place in the navigation."""
    decisions = sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))
    pages = ["decisions/index.md", *(f"decisions/{page.name}" for page in decisions)]
    *others, last = cast("list[Any]", config.nav)
    config.nav = [*others, {"Decisions": pages}, last]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add those pages, with their links as the site has them."""
    for page, source in PAGES.items():
        content = _with_links_of_the_site((ROOT / source).read_text(encoding="utf-8"))
        files.append(File.generated(config, page, content=content))
    return files


def on_page_content(html: str, **_given: object) -> str:
    """Give pictures a frame in which they scroll where they are wider than the screen."""
    return re.sub(
        r'<pre class="mermaid">.*?</pre>',
        r'<div class="picture">\g<0></div>',
        html,
        flags=re.DOTALL,
    )


def on_post_build(config: MkDocsConfig) -> None:
    """Put Mermaid beside the pages, so that no page asks another host for it."""
    assets = Path(config.site_dir) / "assets"
    assets.mkdir(exist_ok=True)
    source = npm_package(MERMAID) / "node_modules" / "mermaid" / "dist" / "mermaid.min.js"
    shutil.copy(source, assets / source.name)


def _with_links_of_the_site(text: str) -> str:
    text = text.replace("](docs/decisions/)", "](decisions/index.md)")
    text = re.sub(r"\]\(docs/", "](", text)
    return text.replace("](CONTRIBUTING.md)", "](contributing.md)")
