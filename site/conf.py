"""Sphinx's settings for the site; scripts/site.py lays out the pages and starts Sphinx: make site

Nothing on a page comes from another host: formulas become MathML, and fonts, styles and scripts are the site's own.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

import docstrings  # noqa: E402
from slides import mathml  # noqa: E402

import minit2v  # noqa: E402

project, author, copyright = "minit2v", "The minit2v authors", "The minit2v authors, Apache-2.0"
version = release = minit2v.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.viewcode", "sphinx_design"]
exclude_patterns = ["README.md"]  # the front page includes it

suppress_warnings = [
    "design.card_legacy",  # the newer directives are those of sphinx-design 0.8
    "misc.highlighting_failure",  # an ellipsis in code that a reader is to complete
]

nb_execution_mode = "off"  # the committed outputs are shown
nb_number_source_lines = False
nb_code_prompt_show = "Show the solution"
nb_code_prompt_hide = "Hide the solution"
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "html_image"]
myst_heading_anchors = 4
myst_url_schemes = {"http": None, "https": None, "mailto": None, "site": {"url": "{{path}}"}}  # site: an address as it is
myst_dmath_double_inline = True
html_math_renderer = "mathml"

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_inherit_docstrings = False
autodoc_preserve_defaults = True  # as they are written
autodoc_class_signature = "mixed"
toc_object_entries = False
add_module_names = False
highlight_language = "none"  # a drawing is no program
python_maximum_signature_line_length = 100

html_theme = "furo"
html_title = f"minit2v {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = [("live.js", {"defer": ""})]
html_extra_path = ["../build/site/extra"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"sidebar_hide_name": False, "navigation_with_keys": True}
pygments_style, pygments_dark_style = "friendly", "github-dark"


def visit_math(translator, node):
    """A formula as MathML, which browsers draw themselves."""
    import docutils.nodes

    block = isinstance(node, docutils.nodes.math_block)
    drawn = mathml(node.astext(), "block" if block else "inline")
    translator.body.append(f'<div class="formula">{drawn}</div>' if block else drawn)
    raise docutils.nodes.SkipNode


def setup(app):
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math, None))
    app.connect("autodoc-process-docstring", docstrings.to_rst)
viewcode_follow_imported_members = False  # a page of source links back to the module that it is of
