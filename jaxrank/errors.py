"""The one error for bad input from outside: files, configs, command lines, checkpoints."""


class InputError(ValueError):
    """Something that a user gave cannot be used.

    The message is one line, `where: what came; what is needed`, where `where` is a file with its
    line, a config key or an argument. Commands print it without a traceback and exit with status 2.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split("\n")))
