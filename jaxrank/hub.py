"""Files of the Hugging Face hub, fetched once and kept in its own cache."""

import logging
import re
from collections.abc import Sequence
from pathlib import Path

from jaxrank.errors import InputError

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.\-]*(/[A-Za-z0-9][\w.\-]*)?")


def fetch(source: str, patterns: Sequence[str]) -> Path:
    """The local folder with those files of a hub id that match `patterns`.

    Raises:
        InputError: no hub id (then it was meant as a folder, and there is none), or the hub does
            not give it and no earlier download did.
    """
    if not _HUB_ID.fullmatch(source):
        raise InputError(f"{source}: no such folder")
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import logging as hub_logging

    hub_logging.set_verbosity(logging.ERROR)
    try:
        return Path(snapshot_download(source, allow_patterns=list(patterns)))
    except Exception as error:  # a dozen kinds: no network, no such id, no access
        raise InputError(
            f"{source}: no such folder, and the Hugging Face hub did not give it "
            f"({type(error).__name__}); check the name or the network, or give a local folder"
        ) from None
