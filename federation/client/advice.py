"""
What a CI author, or a person who signs in, can do about each refusal of the broker.

docs/refusals.md says more, but is not at hand in a job. A reason that is not in the table comes
from a newer broker.
"""

from __future__ import annotations

from collections.abc import Mapping

from federation.client.subject import SubjectToken
from federation.text import no_command

_ADVICE: Mapping[str, str] = {
    "malformed_token": "Send the token exactly as the CI system gave it.",
    "token_too_large": "Have the identity provider put fewer claims, such as groups, into it.",
    "untrusted_issuer": "The token was issued by {iss}. To trust it, the operator adds a JwtIssuer"
    " with exactly this iss.",
    "unsupported_algorithm": "The operator of the issuer configures an algorithm that the broker"
    " takes.",
    "unknown_key": "If the issuer has just replaced its keys, run the job again in a minute. Else"
    " the operator compares the issuer's keys with the JwtIssuer.",
    "bad_signature": "Send the token exactly as the CI system gave it.",
    "wrong_audience": "The token is for {aud}. Ask for one that the JwtIssuer lists under aud, most"
    " often the public URL of the broker, exactly as written there; --audience sets it.",
    "expired": "Ask for the token right before the exchange. If it fails again, the clocks of CI"
    " system and broker differ.",
    "not_yet_valid": "Run the job again. If it fails again, the clocks of CI system and broker"
    " differ.",
    "missing_claim": "The operator compares the claims below with the provider of the JwtIssuer.",
    "not_a_ci_token": "Give the ID token of a job: on GitLab that of id_tokens.",
    "wrong_token_type": "Give an ID token, and no other token of the same issuer.",
    "wrong_party": "The token was issued to another client. Ask for one with the client that the"
    " JwtIssuer lists.",
    "event_not_allowed": "People outside can start such a job. Deploy from push, release, schedule"
    " or workflow_dispatch; on GitLab from a branch pipeline.",
    "no_role_admits": "Run the job from the branch or environment that a Role asks for, or have the"
    " operator compare the claims below with the Role.",
    "role_not_admitted": "A Role of --role does not exist or does not admit this job. Leave the"
    " option out, or have the operator compare the claims below with the Role.",
    "already_used": "One ID token is one exchange. Ask for another one; on GitLab, retry the job or"
    " add a second entry to id_tokens.",
    "revoked": "Exchange a token of the CI system for a new one.",
    "invalid_target": "Write --function as <namespace>:<function>, and have the operator grant"
    " Function:Invoke on it.",
    "invalid_scope": "Have the operator grant Function:Invoke.",
    "unsupported_grant_type": "Use a federation of the same version as the broker.",
    "invalid_request": "Use a federation of the same version as the broker.",
    "policy_missing": "The operator looks for the Role or Policy that the message or the broker's"
    " log names.",
    "too_many_revocations": "Wait a minute, and revoke it again.",
    "too_many_exchanges": "Wait a minute. Use what you get for more than one call.",
    "too_many_failures": "Other jobs from this address failed too often. Wait a minute, and run the"
    " job again.",
}
_FOR_PEOPLE: Mapping[str, str] = {
    "untrusted_issuer": "You signed in at {iss}. The gateway takes people from there once its"
    " operator adds a JwtIssuer with exactly this iss, and your client id under clients.",
    "wrong_audience": "You signed in as the client {aud}. The operator of the gateway adds it to"
    " the JwtIssuer, under clients.",
    "wrong_party": "You signed in as a client that the gateway does not take. Check --client-id.",
    "wrong_token_type": "The provider gave a token that is no ID token. Its operator can say more.",
    "token_too_large": "You are in very many groups, or have other large claims. Have the operator"
    " of the provider put fewer of them into the token.",
    "no_role_admits": "No Role of this gateway is for you. Ask its operator to compare what the"
    " provider says about you with the Roles.",
    "role_not_admitted": "A Role of --role does not exist or is not for you. Leave the option out.",
    "already_used": "Sign in again. The operator can let ID tokens of people be used many times:"
    " subjectTokenUse of the JwtIssuer.",
    "expired": "Sign in again. If it fails again, the clocks of provider and broker differ.",
    "not_yet_valid": "Sign in again. If it fails again, the clocks of provider and broker differ.",
    "unknown_key": "If the provider has just replaced its keys, sign in again in a minute.",
    "revoked": "Sign in again.",
    "too_many_exchanges": "Wait a minute, then sign in again.",
    "too_many_failures": "Others from your address failed too often. Wait a minute, then try again.",
}
_LATER = "Run the job again later."
_LATER_FOR_PEOPLE = "Try again later."
_OTHER = "The operator of the broker can say more."
_SHOWS_CLAIMS = frozenset(
    {
        *("untrusted_issuer", "wrong_audience", "missing_claim", "not_a_ci_token"),
        *("event_not_allowed", "no_role_admits", "role_not_admitted"),
    }
)


def advice_on(reason: str, token: SubjectToken, *, temporary: bool) -> str:
    """Return what to do about *reason*, with the job's claims where they matter."""
    advice = _ADVICE.get(reason, _LATER if temporary else _OTHER)
    advice = advice.replace("{iss}", token.text_of("iss")).replace("{aud}", token.text_of("aud"))
    if reason not in _SHOWS_CLAIMS:
        return no_command(advice)
    return (
        f"{no_command(advice)}\n\nThe claims of this job:\n\n{token.shown()}\n\n"
        "Save them as claims.json; this shows the operator each condition that failed:\n\n"
        "  federation explain --documents DOCUMENTS --claims claims.json"
    )


def advice_for_person(reason: str, token: SubjectToken, *, temporary: bool) -> str:
    """Return what a person who signs in can do about *reason*, with the claims that matter."""
    advice = _FOR_PEOPLE.get(reason, _LATER_FOR_PEOPLE if temporary else _OTHER)
    advice = advice.replace("{iss}", token.text_of("iss")).replace("{aud}", token.text_of("aud"))
    if reason not in _SHOWS_CLAIMS:
        return no_command(advice)
    return f"{no_command(advice)}\n\nThe provider says about you:\n\n{token.shown(personal=True)}"
