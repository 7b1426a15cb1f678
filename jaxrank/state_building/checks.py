"""Which options of `jaxrank.encode_documents` go together."""

from dataclasses import fields

from jaxrank.errors import InputError
from jaxrank.state_building.options import Action, EncodeOptions

_NEEDED: dict[Action, tuple[str, ...]] = {
    "encode": ("model", "collection"),
    "verify": (),
    "describe": (),
    "delete": ("documents",),
    "mend": (),
}
"""What an action cannot do without; those but `encode` take nothing else beside `output`."""


def check_options(options: EncodeOptions) -> None:
    """Refuse options that do not go together, before anything is read.

    Raises:
        InputError: naming the option.
    """
    action = options.action
    for name in _NEEDED[action]:
        if getattr(options, name) is None:
            raise InputError(f"{name}: got null; the action {action} needs --{name}")
    if action != "encode":
        taken = ("output", "action", *_NEEDED[action])
        for field in fields(options):
            value = getattr(options, field.name)
            if field.name not in taken and value != field.default:
                raise InputError(
                    f"{field.name}: got {_shown(value)}; the action {action} has no use for it"
                )
        return
    if options.documents is not None and options.runs:
        raise InputError("documents, runs: both are given; give one of them")
    if options.depth is not None and not options.runs:
        raise InputError(
            f"depth: got {options.depth}; it is of the candidates of --runs, and none are given"
        )
    for name in ("depth", "batch_size"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise InputError(f"{name}: got {value}; at least 1 is needed")


def _shown(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
