"""Builds the site: python docs/site/build.py build/site

Sphinx reads Markdown as GitHub does (CommonMark), and signatures from the classes themselves: those of the masked
layers are made at run time. What it finds amiss, such as a link to a heading that is not there, ends the build.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

import pages
import reference
from sphinx.cmd import build


def build_site(out: Path) -> int:
    """Builds the site into a folder, in place of what was there. Returns the exit status of Sphinx."""
    with tempfile.TemporaryDirectory() as folder:
        source, made = Path(folder) / "source", Path(folder) / "site"
        source.mkdir()
        pages.write_pages(source)
        reference.write_reference(source / "reference")
        here = str(Path(__file__).parent)
        arguments = [
            "-b",
            "html",
            "-W",
            "--keep-going",
            "-q",
            "-d",
            f"{folder}/trees",
            "-c",
            here,
            "-D",
            f"html_extra_path={source / 'extra'}",
        ]
        status = build.main([*arguments, str(source), str(made)])
        if status == 0:
            shutil.rmtree(out, ignore_errors=True)
            out.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(made, out)
    return status


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder of the site, which is replaced")
    return build_site(parser.parse_args().out.resolve())


if __name__ == "__main__":
    sys.exit(main())
