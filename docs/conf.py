"""How the documentation is built: `make docs`, without a network."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent)]

os.environ["XDG_CACHE_HOME"] = str(HERE / "_build" / "cache")  # indexes of examples

from dicomtorch._version import __version__  # noqa: E402

project = "dicomtorch"
author = copyright = "The dicomtorch authors"
version = release = __version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    "pages",
]
exclude_patterns = ["_build", "_ext", "**/sg_execution_times.rst", "sg_execution_times.rst"]
suppress_warnings = [
    "config.cache",  # functions among the options
    "ref.python",  # attributes of the same name in two classes
]

html_theme = "furo"
html_title = f"dicomtorch {__version__}"
html_static_path = ["_static"]
html_favicon = "../dicomtorch/viewer/static/icon.svg"
html_css_files = ["site.css"]
html_copy_source = html_show_sourcelink = True
html_baseurl = ""
html_theme_options = {"navigation_with_keys": True}

myst_enable_extensions = ["colon_fence", "deflist", "attrs_inline"]
myst_heading_anchors = 3

default_role = "code"
nitpicky = True
# Types of other packages, and of rooms of this one that have no page.
nitpick_ignore_regex = [("py:.*", r".*")]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True


def quiet(gallery_conf: dict[str, Any], fname: str) -> None:
    """No example changes what another one shows."""
    import matplotlib as mpl

    mpl.use("Agg")
    warnings.simplefilter("default")
    # Of torch, told with the path of an environment; Python shows it to nobody who runs an example.
    warnings.filterwarnings("ignore", message="__array__ implementation doesn't accept")
    # Of extensions of Sphinx, about each other.
    warnings.filterwarnings(
        "ignore", message=".*(autodoc options objects|Check CHANGES for Sphinx)"
    )


sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "generated/gallery",
    "filename_pattern": r"/plot_",
    "ignore_pattern": r"(^|[/\\])(?!plot_)[^/\\]*\.py$",
    "write_computation_times": False,  # that page would load scripts from elsewhere
    "show_memory": False,
    "show_signature": False,
    "min_reported_time": 0,
    "download_all_examples": False,
    "remove_config_comments": True,
    "reset_modules": (quiet,),
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    "plot_gallery": "True",
}
