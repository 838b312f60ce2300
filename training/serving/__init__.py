"""Finished runs put to use: image files to predictions, in a script or over HTTP."""
