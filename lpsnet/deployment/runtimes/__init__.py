"""Engines that run a model file, one module each, behind the protocol of `session.py`."""
