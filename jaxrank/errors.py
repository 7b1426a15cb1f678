"""The one error for bad input from outside: files, configs, command lines, checkpoints.

And the one for work that a signal has stopped, which the same command goes on with.
"""


class InputError(ValueError):
    """Something that a user gave cannot be used.

    The message is one line, `where: what came; what is needed`, where `where` is a file with its
    line, a config key or an argument. Commands print it without a traceback and exit with status 2.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split("\n")))


class TrainingStoppedError(BaseException):
    """Training ended early because it was asked to, with all it has done on disk.

    Not an Exception, as KeyboardInterrupt is none: it is to pass through libraries that catch what
    they do not know. Commands print it and exit with a status of its own.
    """
