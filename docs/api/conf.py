"""Sphinx: the reference of gmloss and center_loss, from their docstrings."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

project = 'gmloss and center_loss'
extensions = ['sphinx.ext.autodoc', 'sphinx.ext.mathjax', 'sphinx.ext.napoleon', 'sphinx.ext.viewcode']
default_role = 'code'
html_theme = 'alabaster'
html_show_copyright = False
autodoc_member_order = 'bysource'
autodoc_typehints = 'none'  # the docstrings say more
autodoc_inherit_docstrings = False
napoleon_google_docstring = False
napoleon_use_param = False
