"""The reference of docs/api lists every public name."""

from conftest import ROOT
from sphinx.application import Sphinx

import center_loss
import gmloss


def test_every_public_name_is_on_a_page(tmp_path):
    source = ROOT / 'docs' / 'api'
    app = Sphinx(source, source, tmp_path, tmp_path, 'dummy', status=None, warning=None)
    app.build()
    listed = app.env.get_domain('py').objects
    for package in (gmloss, center_loss):
        assert len(set(package.__all__)) == len(package.__all__)
        for name in package.__all__:
            assert f'{package.__name__}.{name}' in listed, (
                f'{name} has no docstring, or no page names its package'
            )
        public = {name for name in vars(package) if not name.startswith('_')}
        assert {name for name in public if isinstance(getattr(package, name), type)} <= set(package.__all__)
