"""Advice on a page is for a person in a browser, who gives no options."""

from __future__ import annotations

import pytest

from federation.client import ClientError
from federation.dashboard.advice import advice_on
from federation.sign_on import oauth_errors

REFUSALS = [
    *(oauth_errors.refused_answer(code, "", "https://idp") for code in oauth_errors._ADVICE),
    oauth_errors.refused_answer("invalid_request", "redirect_uri", "https://idp"),
    oauth_errors.refused_answer("other", "", "https://idp"),
    *(oauth_errors.token_refused(code, "No.") for code in oauth_errors._TOKEN_ADVICE),
    ClientError("No."),
]


@pytest.mark.parametrize("error", REFUSALS, ids=lambda error: f"{error}"[:60])
def test_no_advice_names_an_option_or_the_readers_machine(error: ClientError) -> None:
    advice = advice_on(error)
    assert advice
    assert "--" not in advice
    assert "this machine" not in advice
