"""Sphinx's settings for the site; `tools/site.py` builds it."""

project = "Deep learning, assignment 14"
html_title = project
extensions = ["myst_nb", "sphinx-mathjax-offline"]
nb_execution_mode = "off"
myst_enable_extensions = ["dollarmath"]
myst_dmath_double_inline = True
myst_heading_anchors = 2
myst_heading_slug_func = "tools.site.anchor"
html_theme = "sphinx_book_theme"
html_theme_options = {
    "home_page_in_toc": True,
    "use_download_button": False,
    "show_toc_level": 2,
}
html_context = {"default_mode": "auto"}
html_copy_source = False
html_show_copyright = False
