"""Which states a model makes: everything of it that a document's state follows from."""

import json
from dataclasses import fields
from hashlib import sha256

import numpy as np

from jaxrank.models.families import state_arrays
from jaxrank.models.module import RerankerModule, parameters
from jaxrank.ranking.document_states.identity import StateIdentity
from jaxrank.text.document_first import DocumentFirst

_BACKBONE = "backbone."


def identity_of(module: RerankerModule, tokenizer: DocumentFirst) -> StateIdentity:
    """What the states of this model are made for; reads every weight once.

    Raises:
        InputError: the model's family has no document states, with the reason.
    """
    config = module.config
    return StateIdentity(
        family=config.family,
        weights=weights_digest(module),
        tokenizer=tokenizer.digest,
        template=tokenizer.template.name,
        document_budget=tokenizer.document_budget,
        arrays=state_arrays(config.family, config.backbone),
    )


def weights_digest(module: RerankerModule) -> str:
    """SHA-256 of the backbone's parameters in the order of their paths, and of its constants.

    The head is left out: no state depends on it. Of the configuration only what differs from the
    defaults goes in, so that a setting that comes later leaves the digests of today's models alone.
    """
    backbone = module.config.backbone
    constants = {
        entry.name: repr(getattr(backbone, entry.name))
        for entry in fields(backbone)
        if getattr(backbone, entry.name) != entry.default
    }
    digest = sha256(json.dumps(constants, sort_keys=True).encode())
    for path, value in sorted(parameters(module).items()):
        if path.startswith(_BACKBONE):
            array = np.asarray(value)
            digest.update(f"{path} {array.dtype} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
