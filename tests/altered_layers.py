"""Wrong layers, made of right ones: for the tests of checks of the layers that readers write."""


def with_forward(solution, forward):
    """The class with another forward."""
    return type("Wrong", (solution,), {"forward": lambda self, *inputs: forward(self, *inputs)})


def changed(solution, change):
    """The class whose constructor ends with `change(layer)`."""

    class Wrong(solution):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            change(self)

    return Wrong


def renamed(layer, old, new):
    """Give a weight or a part of a layer another name."""
    setattr(layer, new, getattr(layer, old))
    delattr(layer, old)
