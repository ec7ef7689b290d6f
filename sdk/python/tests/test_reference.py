"""The reference that is made from the comments of the source."""

from __future__ import annotations

import inspect
import unittest

import profilestore


def undocumented() -> list[str]:
    names = []
    for name in profilestore.__all__:
        thing = getattr(profilestore, name)
        if not (inspect.isclass(thing) or inspect.isfunction(thing)):
            continue  # Another name of a type.
        members = vars(thing).items() if inspect.isclass(thing) else []
        functions = [
            (f"{name}.{member}", value.fget if isinstance(value, property) else value)
            for member, value in members
            if not member.startswith("_")
        ]
        for of, what in [(name, thing), *functions]:
            is_meant = what is thing or inspect.isfunction(what)
            # A tuple with names has a text that only repeats these.
            if is_meant and (not what.__doc__ or what.__doc__.startswith(f"{name}(")):
                names.append(of)
    return names


class Reference(unittest.TestCase):
    def test_every_public_name_says_what_it_is(self) -> None:
        self.assertEqual(undocumented(), [])


if __name__ == "__main__":
    unittest.main()
