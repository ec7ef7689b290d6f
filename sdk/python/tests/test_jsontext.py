"""JSON without rounding: what is read, and what is refused before it is sent."""

from __future__ import annotations

import unittest
from typing import Any

from profilestore.errors import ProfileError
from profilestore.jsontext import Inexact, parse, read, stringify


def nested(depth: int) -> Any:
    return 1 if depth == 0 else [nested(depth - 1)]


class JsonText(unittest.TestCase):
    def test_a_number_with_any_exponent_is_read(self) -> None:
        for token in ["1e-9999999999999999999", "1e9999999999999999999", "1e-400"]:
            self.assertIsInstance(read(token), Inexact, token)
            with self.assertRaises(ProfileError) as caught:
                parse(token)
            self.assertEqual(caught.exception.kind, "invalid")

    def test_what_the_server_cannot_store_is_refused_and_what_it_can_is_not(self) -> None:
        for value in [nested(101), 2**64, -(2**63) - 1, {"$serde_json::private::RawValue": 1}]:
            with self.assertRaises(ProfileError) as caught:
                stringify(value)
            self.assertEqual(caught.exception.kind, "invalid")
        self.assertEqual(stringify([2**64 - 1, -(2**63)]), f"[{2**64 - 1},{-(2**63)}]")
        self.assertIn("[[", stringify(nested(100)))


if __name__ == "__main__":
    unittest.main()
