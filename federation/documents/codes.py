"""
Error codes for the form of documents.

A code keeps its one meaning for ever. `docs/documents.md` has the table. The codes of the trust
rules (`T…`) and most warnings (`W…`) are in `documents.rules.lint`.
"""

from __future__ import annotations

from enum import StrEnum


class Code(StrEnum):
    """A kind of problem with a document or its file."""

    FILE_UNREADABLE = "D001"
    BAD_SYNTAX = "D002"
    DUPLICATE_KEY = "D003"
    NOT_OURS = "D004"
    UNKNOWN_FIELD = "D005"
    MISSING_FIELD = "D006"
    BAD_VALUE = "D007"
    EMPTY = "D008"
    NAME_TAKEN = "D009"
    ISS_TAKEN = "D010"
    POLICY_MISSING = "D011"
    UNKNOWN_OPERATOR = "D012"
    BAD_KEY = "D013"
    UNKNOWN_ACTION = "D014"
    BAD_RESOURCE = "D015"
    BAD_DURATION = "D016"
    BAD_URL = "D017"
    SID_TAKEN = "D018"
    ROLE_WITHOUT_CONDITIONS = "D019"
    BAD_KEY_MATERIAL = "D020"
    NO_DOCUMENTS = "D021"
    PROVIDER_CONTRADICTS = "D022"
    KEYS_CONTRADICT = "D023"
    TOO_LARGE = "D024"
    PROVIDER_FORGOTTEN = "D025"
    OWN_ISSUER = "D026"
    TOKEN_FILE_OUTSIDE = "D027"
    NOT_ON_THE_CLUSTER = "D028"
    OLD_API_VERSION = "W111"
