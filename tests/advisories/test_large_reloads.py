"""Documents that would make a change late: very many faults."""

from __future__ import annotations

import time

from federation.documents.assemble import assemble
from federation.documents.parse import parse
from tests.harness.builders import GITHUB
from tests.harness.documents import DEPLOY, as_text, document, issuer


def test_a_role_with_very_many_faults_is_read_in_time_that_grows_with_them() -> None:
    def seconds(keys: int) -> float:
        values = [f" v{number}" for number in range(1000)]  # each begins with a space
        condition = {"StringEqual": {f"jwt:c{number}": values for number in range(keys)}}
        spec = {"policy": ["deploy"], "principal": {"jwt:iss": GITHUB}, "condition": condition}
        text = as_text(issuer("github", GITHUB), DEPLOY, document("Role", "faulty", spec))
        parsed = parse("set.yaml", text.encode())
        began = time.thread_time()
        assert len(assemble([parsed]).problems) >= 1000 * keys
        return time.thread_time() - began

    few, many = seconds(4), seconds(32)
    assert many < 3 * 8 * few
