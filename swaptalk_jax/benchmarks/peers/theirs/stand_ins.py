"""Inert modules for libraries that a peer's file imports and that nothing timed here uses."""

import importlib.abc
import importlib.machinery
import sys
import types


class _Inert(types.ModuleType):
    """A module in which every name is an empty class."""

    __path__ = []

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        made = type(name, (), {})
        setattr(self, name, made)
        return made


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds inert modules, last of all finders: a library that is installed is taken itself."""

    def __init__(self, names):
        self.names = names

    def find_spec(self, fullname, path, target=None):
        if fullname.partition(".")[0] in self.names:
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec):
        return _Inert(spec.name)

    def exec_module(self, module):
        pass


def allow(*names):
    """Lets inert modules stand in for these libraries where they are missing."""
    sys.meta_path.append(_Finder(names))
