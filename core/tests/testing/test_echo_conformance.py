"""The reference framework passes the suite that every plugin inherits."""

from __future__ import annotations

from eagleray.testing.conformance import Case, FrameworkConformance


class TestEcho(FrameworkConformance):
    plugin = "eagleray.testing.echo"
    cases = (
        Case("image-classification", config={"hidden": 4}),
        Case("object-detection"),
    )
