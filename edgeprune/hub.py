"""The Hugging Face hub, asked once and shortly: its own clients retry for most of a minute."""

from __future__ import annotations

import re
from typing import Literal

NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
ANSWER_SECONDS = 1.5  # for a first answer; a download may take its time


def silence(name: str, kind: Literal["model", "dataset"]) -> str:
    """Why the hub does not answer, or "". Raises LookupError where it has nothing of that name."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

    try:
        HfApi().repo_info(name, repo_type=kind, timeout=ANSWER_SECONDS)
    except RepositoryNotFoundError:
        raise LookupError(name) from None
    except HfHubHTTPError as error:
        return f"HTTP {error.response.status_code}"
    except Exception as error:  # its HTTP client's errors share no base that it exports
        return type(error).__name__
    return ""
